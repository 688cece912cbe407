"""Predicates in units of their scale: the same signs, comparable sizes, and the text that they had."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stl.formulas import SIGNALS, derived, formula, predicate, trace

from phalanx.errors import DataError, UsageError
from phalanx.stl import Monitor, diagnose, parse, robustness
from phalanx.stl.scaled import normalised

SEEDS = st.integers(0, 2**32 - 1).map(random.Random)
SCALES = st.dictionaries(st.sampled_from(SIGNALS), st.floats(1e-6, 1e6))


@given(SEEDS, SCALES)
def test_the_sign_stays_everywhere(rng: random.Random, scales: dict[str, float]) -> None:
    leaf = rng.choice((predicate, derived))
    given_, signals = parse(formula(rng, rng.randint(0, 3), leaf=leaf)), trace(rng)
    found = robustness(normalised(given_, scales), signals)
    assert np.sign(found).tolist() == np.sign(robustness(given_, signals)).tolist(), given_.text


@given(SEEDS, SCALES)
def test_its_own_verdicts_on_a_stream_and_reasons(rng: random.Random, scales: dict[str, float]) -> None:
    text = formula(rng, rng.randint(0, 3), ("always", "until", "once", "and", "not"), bounded=True)
    scaled, signals = normalised(parse(text), scales), trace(rng)
    whole, monitor, known = robustness(scaled, signals), Monitor(scaled), []
    for t in range(len(whole)):
        verdict = monitor.update({name: values[t] for name, values in signals.items()})
        known += [verdict.lo] if verdict.known and t >= (monitor.horizon or 0) else []
    assert known + [verdict.lo for verdict in monitor.finish()] == whole.tolist()
    found, raw = diagnose(scaled, signals), diagnose(text, signals)
    assert found.satisfied == raw.satisfied
    assert {cause.text for cause in found.causes} <= {scaled.text[n.start : n.end] for n in scaled.nodes}


@pytest.mark.parametrize(
    ("text", "scales", "value"),
    [
        ("x > 4", {}, (10 - 4) / 4),
        ("-4 < x", {}, (10 + 4) / 4),
        ("x > 4", {"x": 3.0}, (10 - 4) / 3),
        ("x > y", {"x": 3.0, "y": 5.0}, (10 - 20) / 5),
        ("x > y", {}, 10 - 20),
        ("x > 0", {}, 10),
        ("x == 4", {}, -(10 - 4) / 4),
        ("x != 4", {"x": 2.0}, (10 - 4) / 2),
        ("x > true", {}, -np.inf),
        ("x", {"x": 2.0}, 10 / 2),
        ("x + 3", {"x": 2.0}, 13 / 2),
        ("sum(x, 5) < 40", {}, (40 - 10) / 40),
        ("sum(x, 5) < 40", {"x": 2.0, "z": 99.0}, (40 - 10) / 2),
        ("not (x > 4 and y > 40)", {}, -(20 - 40) / 40),
        ("(x > 4) iff (y > 20)", {}, -(10 - 4)),  # two verdicts that are compared: a predicate without a unit
        ("(x > 4) iff (y > 20)", {"y": 2.0}, -(10 - 4) / 2),
        ("a = x > 4; a and (a + 1 > 0)", {}, (10 - 4) / 4),  # within arithmetic a part is what it was
    ],
)
def test_what_scale_a_predicate_has(text: str, scales: dict[str, float], value: float) -> None:
    found = robustness(normalised(parse(text), scales), {"x": [10.0], "y": [20.0]})
    assert found.tolist() == [value]


def test_reasons_have_the_text_and_the_sign_that_they_had() -> None:
    scaled = normalised(parse("const k = 4;\nx == k and always y > 40"))
    found = diagnose(scaled, {"x": [5.0, 4.0], "y": [80.0, 20.0]})
    assert [(c.text, c.samples, c.value) for c in found.causes] == [("y > 40", (1,), -0.5)]
    found = diagnose(scaled, {"x": [6.0, 4.0], "y": [80.0, 50.0]})
    assert [(c.text, c.samples, c.value) for c in found.causes] == [("x == k", (0,), -0.5)]
    assert found.critical == ("x == k", 0)


def test_errors_point_into_the_text() -> None:
    scaled = normalised(parse("x > 0 and\n 4 / x > 3"))
    with pytest.raises(DataError, match="line 2, column 4: '4 / x' has no value at sample 1"):
        robustness(scaled, {"x": [1.0, 0.0]})
    with pytest.raises(UsageError, match="column 1: the bound 1.5 s of G"):
        Monitor(normalised(parse("G[0,1.5] x > 3")))


def test_names_are_the_normalised_parts() -> None:
    scaled = normalised(parse("hot = x > 4; always hot"))
    hot = scaled.nodes[scaled.names["hot"]]
    assert scaled.nodes[scaled.root].args == (scaled.names["hot"],) and hot.op == "divide"
    assert scaled.signals == ("x",)


def test_without_scales_and_constants_nothing_changes() -> None:
    plain = parse("always (x > 0 -> y < x)")
    assert normalised(plain).horizon_ns == plain.horizon_ns
    signals = trace(random.Random(0))
    assert robustness(normalised(plain), signals).tolist() == robustness(plain, signals).tolist()


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_is_above_0(scale: float) -> None:
    with pytest.raises(UsageError, match="'x': expected a finite number above 0"):
        normalised(parse("x > 0"), {"x": scale})
