"""Diagnosis: what is named forces the verdict, and nothing else matters."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stl.formulas import STRATA, formula, trace

from phalanx.errors import UsageError
from phalanx.stl import diagnose, robustness

SEEDS = st.integers(0, 2**32 - 1).map(random.Random)


def edited(rng: random.Random, signals: dict, kept: dict[str, set[int]]) -> dict:
    """The trace with everything else drawn anew."""
    return {
        name: np.array(
            [
                v if t in kept.get(name, ()) else rng.choice((-9, 9, rng.uniform(-3, 3)))
                for t, v in enumerate(values)
            ]
        )
        for name, values in signals.items()
    }


@pytest.mark.parametrize("kind", STRATA)
def test_editing_elsewhere_never_flips_the_verdict(kind: str) -> None:
    named, lengths = 0, 0
    for seed in range(40):
        rng = random.Random(f"{kind} {seed}")
        text, signals = formula(rng, rng.randint(1, 4), STRATA[kind]), trace(rng)
        length = len(signals["x"])
        sample = rng.randrange(length)
        found = diagnose(text, signals, sample)
        assert found.robustness == robustness(text, signals)[sample]
        kept: dict[str, set[int]] = {name: set() for name in signals}
        for cause in found.causes:
            for name in cause.signals:
                kept[name] |= set(cause.samples)
        named += sum(map(len, kept.values()))
        lengths += 3 * length
        for _ in range(4):
            again = robustness(text, edited(rng, signals, kept))[sample]
            if found.robustness:
                assert (again >= 0) == found.satisfied or again == 0, (text, sample, found)
    assert named < lengths


@given(SEEDS)
def test_the_critical_predicate_has_the_value(rng: random.Random) -> None:
    text = formula(rng, rng.randint(1, 4), ("always", "eventually", "until", "since", "once", "and", "not"))
    signals = trace(rng)
    found = diagnose(text, signals)
    if found.critical is None:
        assert np.isinf(found.robustness)
    else:
        part, at = found.critical
        assert abs(robustness(part, signals)[at]) == abs(found.robustness)


def test_what_is_told() -> None:
    signals = {"threat": [1, -1, 1, -1, -1, -1, -1], "answer": [-1, 2, -1, -1, -3, -1, 5]}
    found = diagnose("always (threat > 0 -> eventually[0,2] answer > 0)", signals)
    assert not found.satisfied and found.robustness == -1
    assert [(c.text, c.samples, c.signals) for c in found.causes] == [
        ("threat > 0", (2,), ("threat",)),
        ("answer > 0", (2, 3, 4), ("answer",)),
    ]
    held = diagnose("(x > 0) until (y > 0)", {"x": [3, 2, -1], "y": [-1, -1, 4]})
    assert held.satisfied and held.critical == ("x > 0", 1)
    assert [(c.text, c.samples) for c in held.causes] == [("x > 0", (0, 1)), ("y > 0", (2,))]
    broken = diagnose("(x > 0) until (y > 0)", {"x": [3, -2, 1], "y": [-1, -4, 4]})
    assert [(c.text, c.samples) for c in broken.causes] == [("x > 0", (1,)), ("y > 0", (0, 1))]
    assert diagnose("G[5,6] x > 0", {"x": [1]}).causes == ()


def test_zero_is_on_neither_side() -> None:
    found = diagnose("not (x > 0 until y > 0)", {"x": [0, 0], "y": [-1, 5]})
    assert found.satisfied and ("x > 0", (0,)) in [(c.text, c.samples) for c in found.causes]


def test_an_equality_is_one_predicate() -> None:
    found = diagnose("x == y and (x > 0 iff y > 0)", {"x": [1], "y": [3]})
    assert [(c.text, c.value) for c in found.causes] == [("x == y", -2.0)]
    assert found.critical == ("x == y", 0)


@pytest.mark.parametrize(
    "text",
    [
        "always (x > 0 -> eventually y > 0)",
        "always (x > -1 until y > 9)",
        "always[9000,90000] once[0,5000] (x > 0 since[3,4000] y > -2)",
        "(always eventually x > 0) iff y > 0",
        "not eventually[0,90000] always[100,500] (x > 0 or y > 0)",
    ],
)
def test_long_traces_take_no_longer_than_they_are(text: str) -> None:
    rng = np.random.default_rng(0)
    signals = {"x": rng.normal(size=100_000), "y": rng.normal(size=100_000)}
    signals["y"][-1] = 10.0
    assert diagnose(text, signals).causes  # a scan of each window at each sample would take hours


def test_a_sample_outside_the_trace() -> None:
    with pytest.raises(UsageError, match="samples 0 to 1"):
        diagnose("x > 0", {"x": [1, 2]}, 2)
