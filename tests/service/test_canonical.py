"""Canonical JSON: one text a value, which reads back as the value."""

import enum
import json
import random
import subprocess
import sys
from collections import OrderedDict
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from service.ledgers import finite, texts

from phalanx.errors import DataError
from phalanx.service.canonical import Encoded, canonical, digest

keys = st.text(max_size=6)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4),
    max_leaves=12,
)


def shuffled(value: Any, chance: random.Random) -> Any:
    """The same value, the keys of its objects in another order."""
    if isinstance(value, dict):
        items = [(key, shuffled(item, chance)) for key, item in value.items()]
        chance.shuffle(items)
        return dict(items)
    return [shuffled(item, chance) for item in value] if isinstance(value, list) else value


@given(json_values, st.randoms(use_true_random=False))
def test_a_value_has_one_text_and_a_text_its_value(value: Any, chance: random.Random) -> None:
    text = canonical(value)
    assert json.loads(text) == value and repr(json.loads(text)) == repr(
        json.loads(canonical(json.loads(text)))
    )
    assert text == canonical(shuffled(value, chance)) == canonical(json.loads(text))
    assert text.isascii() and text.isprintable()  # no control character either


numbers = st.one_of(
    finite,
    st.floats(-1e17, 1e17),
    st.floats(-1e-3, 1e-3),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([1e-4, 9.999999999999999e-05, 1e16, 9999999999999998.0, 0.0, -0.0, 5e-324]),
    st.integers(-(10**4000), 10**4000),
    st.integers(2**63 - 2, 2**64 + 2),
)


ascii_texts = st.text(st.characters(max_codepoint=0x7F), max_size=8)


@given(st.dictionaries(ascii_texts, numbers | ascii_texts | st.none(), max_size=8))
def test_of_ascii_the_text_is_that_of_pythons_encoder(value: dict[str, Any]) -> None:
    assert canonical([value, tuple(value.values())]) == json.dumps(
        [value, [*value.values()]], sort_keys=True, separators=(",", ":")
    )


@pytest.mark.parametrize(
    "value",
    ["a\x7f", "\u00e9\U0001f600", {"\x7f": 1}, {"\U0001f600": 1, "\uffff": 2, "a": 3}]
    + [5e-5, -5e-5, 9.999999999999999e-05, 1e-4, -1e-4, 1e16, -1e16, 9999999999999998.0, 2**64, -(10**50)],
)
def test_what_two_encoders_write_otherwise_is_written_as_pythons_does(value: Any) -> None:
    for whole in (value, [value], {"a": [value], "b": 0.5}, (1, {"c": value})):
        assert canonical(whole) == json.dumps(whole, sort_keys=True, separators=(",", ":"))


def test_the_slow_encoder_is_not_asked_for_what_events_and_decisions_hold(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("phalanx.service.canonical._encode", None)
    event = {
        "path": "/home/ren\u00e9",
        "size": 12.5,
        "small": -1e-9,
        "large": 1e300,
        "gone": None,
        "ok": True,
    }
    assert canonical([{"attributes": event, "votes": [0, None], "evidence": ["e"]}]).isascii()


@given(
    st.lists(numbers | st.characters(max_codepoint=0x100, exclude_categories=[]) | texts, max_size=20),
    st.data(),
)
def test_the_text_is_that_of_pythons_encoder(values: list[Any], data: st.DataObject) -> None:
    names = data.draw(st.lists(st.text(), min_size=len(values), max_size=len(values), unique=True))
    value = {"list": values, "object": dict(zip(names, values, strict=True)), "tuple": tuple(values)}
    assert canonical(value) == json.dumps(value, sort_keys=True, separators=(",", ":"))


class Text(str):
    """A text of one's own."""


class Whole(enum.IntEnum):
    """A number of one's own."""

    SEVEN = 7


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({Text("b"): Text("x"), "a": Whole.SEVEN}, '{"a":7,"b":"x"}'),
        (OrderedDict(b=np.float64(0.5), a=1), '{"a":1,"b":0.5}'),
        ([np.float64(1e-9), np.float64(3)], "[1e-09,3.0]"),
    ],
)
def test_kinds_of_jsons_own_types_are_written_as_these(value: Any, text: str) -> None:
    assert canonical(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"b": 1, "a": {"d": [], "c": {}}}, '{"a":{"c":{},"d":[]},"b":1}'),
        ([1, 1.0, -0.0, 1e16, 1e-7, 0.1, 2**63], "[1,1.0,-0.0,1e+16,1e-07,0.1,9223372036854775808]"),
        (
            {"\ue000": 1, "\U0001f600": 2},
            '{"\\ue000":1,"\\ud83d\\ude00":2}',
        ),  # by code point, not by UTF-16 unit
        (["\u202e\x1b\x7f\n"], '["\\u202e\\u001b\\u007f\\n"]'),
        ((True, None), "[true,null]"),
    ],
)
def test_the_rules_by_example(value: Any, text: str) -> None:
    assert canonical(value) == text


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": [0, float("nan")]}, "nan at a[1]"),
        ({"a": {"b": float("-inf")}}, "-inf at a.b"),
        ({"a": {1: 2, 10: 3}}, "a key 1 at a has no form"),
        ({None: 1}, "a key None at the top"),
        ({"\ud83d": 1}, "a key '\\ud83d'"),
        ([b"bytes"], "bytes at [0]"),
        ({"a": {1, 2}}, "set at a"),
        ([10**5000], "an integer of 16610 bits at [0]"),
        # what a faster encoder would have a form for
        ({"at": datetime(2026, 1, 1)}, "datetime at at"),
        ([UUID(int=1)], "UUID at [0]"),
        ([Decimal(1)], "Decimal at [0]"),
        ([frozenset()], "frozenset at [0]"),
        ([bytearray()], "bytearray at [0]"),
        ([np.float32(1)], "float32 at [0]"),
        ({Whole.SEVEN: 1}, "a key <Whole.SEVEN: 7>"),
    ],
)
def test_what_has_no_form_is_refused_with_its_place(value: Any, said: str) -> None:
    with pytest.raises(DataError) as caught:
        canonical(value)
    assert said in str(caught.value)


def test_without_the_extra_the_text_is_the_same() -> None:
    value = {"b": [1, 1e-9, -0.5, "\u00e9\x7f"], "a": {"c": None}}
    program = (
        "import sys; sys.modules['msgspec'] = None\n"
        "from phalanx.service.canonical import canonical\n"
        f"print(canonical({value!r}))"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert said.stdout == canonical(value) + "\n"


def test_what_is_nested_too_deep_is_refused() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    with pytest.raises(DataError, match="nest"):
        canonical(value)


def test_digests_of_two_purposes_differ() -> None:
    import hashlib

    assert (
        digest("batch", "[]") == hashlib.sha256(b"phalanx batch 1\n[]").hexdigest() != digest("entry", "[]")
    )


@given(st.dictionaries(keys, json_values, max_size=5), st.data())
def test_an_object_encoded_in_parts_has_the_same_text(value: dict[str, Any], data: st.DataObject) -> None:
    before = data.draw(st.lists(st.sampled_from(sorted(value)), unique=True)) if value else []
    encoded = Encoded(value, {name: canonical(value[name]) for name in before})
    assert encoded.text == canonical(value) and encoded == value


def test_an_object_encoded_in_parts_is_refused_where_it_has_no_form() -> None:
    with pytest.raises(DataError, match="nan at score"):
        Encoded({"score": float("nan")})
    with pytest.raises(DataError, match="surrogates"):
        Encoded({"\ud800": 1})
