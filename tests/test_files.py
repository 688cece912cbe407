"""Files that are whole or absent, and JSON that every reader accepts."""

import dataclasses
import enum
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.files import atomic_path, json_safe, to_json, write_json, write_text


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_after_an_error_the_old_file_is_there_and_nothing_else(
    tmp_path: Path, error: type[BaseException]
) -> None:
    path = tmp_path / "table.csv"
    write_text(path, "old")
    with pytest.raises(error), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_stays_until_the_block_ends(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "er" / "table.csv"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"


@dataclasses.dataclass
class Row:
    name: str
    value: float


class Colour(enum.Enum):
    RED = "red"


def test_every_type_in_use_has_a_form() -> None:
    value = {
        "row": Row("a", float("-inf")),
        Colour.RED.value: Colour.RED,
        "numpy": np.array([[1.5, np.nan]], np.float32),
        "scalars": (np.int32(3), np.bool_(True), np.float64("inf")),
        "jax": jnp.arange(2),
        1: Path("a/b"),
        "none": None,
    }
    assert json_safe(value) == {
        "row": {"name": "a", "value": None},
        "red": "red",
        "numpy": [[1.5, None]],
        "scalars": [3, True, None],
        "jax": [0, 1],
        "1": "a/b",
        "none": None,
    }
    with pytest.raises(TypeError, match="object has no form in JSON"):
        json_safe({"a": object()})


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda leaf: st.lists(leaf, max_size=3) | st.dictionaries(st.text(), leaf, max_size=3),
    max_leaves=6,
)


@given(values)
def test_load_of_save_is_the_same(tmp_path_factory: pytest.TempPathFactory, value: object) -> None:
    path = tmp_path_factory.getbasetemp() / "value.json"
    write_json(path, value)
    assert json.loads(path.read_bytes()) == json.loads(to_json(value)) == value
