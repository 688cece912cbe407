"""Event files, against what tensorboardX was told to write, whole, cut and damaged."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tensorboardX import SummaryWriter

from phalanx.analysis.logs.tensorboard import event_files, scalars_of
from phalanx.errors import DataError, UsageError

TAGS = ("loss/value", "policy/entropy", "x")
LOGGED = st.lists(
    st.tuples(st.sampled_from(TAGS), st.integers(0, 50), st.floats(width=32)), min_size=1, max_size=30
)


def write(folder: Path, logged: list[tuple[str, int, float]]) -> None:
    with SummaryWriter(str(folder)) as writer:
        for tag, step, value in logged:
            writer.add_scalar(tag, value, step)


def expected(logged: list[tuple[str, int, float]]) -> dict[str, dict[int, float]]:
    found: dict[str, dict[int, list[float]]] = {}
    for tag, step, value in logged:
        found.setdefault(tag, {}).setdefault(step, []).append(value)
    return {tag: {step: float(np.mean(each)) for step, each in steps.items()} for tag, steps in found.items()}


def read(folder: Path) -> dict[str, dict[int, float]]:
    return {
        tag: dict(zip(steps.tolist(), values.tolist(), strict=True))
        for tag, (steps, values) in scalars_of(event_files(folder)).items()
    }


def assert_same(found: dict[str, dict[int, float]], wanted: dict[str, dict[int, float]]) -> None:
    assert found.keys() == wanted.keys()
    for tag, steps in wanted.items():
        assert found[tag].keys() == steps.keys()
        np.testing.assert_allclose(list(found[tag].values()), [steps[step] for step in found[tag]], rtol=1e-6)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # the mean of inf and -inf
@given(LOGGED)
def test_what_was_written_comes_back(logged: list[tuple[str, int, float]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), logged)
        assert_same(read(Path(folder)), expected(logged))


@given(st.data())
def test_a_cut_file_yields_a_beginning_and_a_damaged_one_an_error(data: st.DataObject) -> None:
    logged = [("loss/value", step, float(step)) for step in range(8)]
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder), logged)
        file = event_files(Path(folder))[0]
        content = file.read_bytes()
        file.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        found = read(Path(folder)).get("loss/value", {})
        assert list(found.items()) == [(step, float(step)) for step in range(len(found))] and len(found) < 8
        place = data.draw(st.integers(0, len(content) - 1))
        damaged = bytearray(content)
        damaged[place] ^= 1 << data.draw(st.integers(0, 7))
        file.write_bytes(bytes(damaged))
        with pytest.raises(DataError, match="damaged at byte"):
            read(Path(folder))


def test_a_resumed_run_replaces_what_the_first_attempt_wrote_beyond(tmp_path: Path) -> None:
    write(tmp_path, [("x", step, 1.0) for step in range(10)])
    first = event_files(tmp_path)[0]
    first.rename(tmp_path / "events.out.tfevents.1.a")
    write(tmp_path, [("x", step, 2.0) for step in range(5, 7)])
    assert read(tmp_path)["x"] == {step: 1.0 if step < 5 else 2.0 for step in range(7)}


def test_two_writers_of_one_run_do_not_erase_each_other(tmp_path: Path) -> None:
    write(tmp_path, [("x", step, 1.0) for step in range(4)])
    event_files(tmp_path)[0].rename(tmp_path / "events.out.tfevents.1.a")
    write(tmp_path, [("y", step, 2.0) for step in range(4)])
    assert {tag: len(steps) for tag, steps in read(tmp_path).items()} == {"x": 4, "y": 4}


def test_several_runs_below_a_folder_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write(tmp_path / name, [("x", 1, 1.0)])
    with pytest.raises(UsageError, match=r"holds 2 runs \(.*a, .*b\); name one"):
        event_files(tmp_path)
    assert len(event_files(tmp_path / "a")) == 1
