from collections import deque
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.envs.signals import SIGNALS
from phalanx.errors import DataError, UsageError
from phalanx.runtime.specifications import forecast, held, load_specs, shipped_specs
from phalanx.stl import robustness
from phalanx.stl.shield import Shield
from phalanx.stl.specs import parse_specs

TWO = parse_specs("@spec a\nanswered > .5\n@spec b\nrestricted > .5")


def test_shipped_specifications_are_whole():
    assert set(shipped_specs()) >= {"office", "original", "shield"}
    office = load_specs(Path("office"))
    assert {name for spec in office for name in spec.formula.signals} <= SIGNALS.keys()
    assert all(spec.text and spec.why for name in shipped_specs() for spec in load_specs(Path(name)))
    assert [spec.priority for spec in office] == sorted({spec.priority for spec in office})
    assert len(load_specs(Path("original"))) == 4
    shield = Shield(load_specs(Path("shield")))
    assert shield.signals == ("suspicion",)
    assert len(shield.init(3).ages) == 2, "both budgets are too long for a table"


def test_a_file_or_a_name(tmp_path):
    path = tmp_path / "mine.stl"
    path.write_text("@spec mine\nanswered > .5")
    assert load_specs(path)[0].name == "mine"
    with pytest.raises(UsageError, match="unknown specifications 'offce'.*did you mean 'office'"):
        load_specs(Path("offce"))
    with pytest.raises(UsageError, match="no such file"):
        load_specs(tmp_path / "none.stl")
    with pytest.raises(UsageError, match="a folder"):
        load_specs(tmp_path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="UTF-8"):
        load_specs(path)


@given(st.integers(0, 10_000))
def test_the_originals_specifications_are_what_its_code_checks(seed):
    """Against the plain loop by which tests/envs/test_original.py checks the environment."""
    rng = np.random.default_rng(seed)
    steps = int(rng.integers(1, 240))
    threat, positive = rng.random(steps) < rng.random(), rng.random(steps) < rng.random()
    past, waiting, rates, late = deque(maxlen=100), None, [], []
    for t in range(steps):
        past.append((threat[t], positive[t]))
        waiting = (
            None if positive[t] else (waiting + 1 if waiting is not None else (0 if threat[t] else None))
        )
        found = [p for is_threat, p in past if is_threat] or [True]
        false = [p for is_threat, p in past if not is_threat] or [False]
        rates.append(min(np.mean(found) - 0.95, 0.05 - np.mean(false)))
        late.append(waiting is not None and waiting >= 5)
    flags = {
        "threat": threat * 1.0,
        "benign": ~threat * 1.0,
        "restricted": positive * 1.0,
        "stopped": (threat & positive) * 1.0,
        "false_block": (~threat & positive) * 1.0,
        "response_ms": rng.uniform(30, 110, steps),
        "cpu": rng.uniform(0, 1, steps),
        "memory": rng.uniform(0, 1, steps),
    }
    specs = {spec.name: spec for spec in load_specs(Path("original"))}
    values = {name: robustness(spec.at_each_sample, flags) for name, spec in specs.items()}
    np.testing.assert_array_equal(values["rates"] < -1e-9, np.array(rates) < -1e-9)
    for name, spec in specs.items():  # as it is written it says that of the whole trace, in units of its own
        whole = robustness(spec.formula, flags)
        assert (whole[0] < 0) == (values[name] < 0).any()
    np.testing.assert_allclose(values["response_time"], (100 - flags["response_ms"]) / 100)
    used = np.stack([flags["cpu"], flags["memory"]])
    margins = np.minimum((used - 0.2) / 0.2, (0.9 - used) / 0.9)
    np.testing.assert_allclose(values["resources"], margins.min(axis=0))
    # the code says at each step whether a threat waits since five steps; the formula, of each threat, whether it will
    violated = values["threat"] < 0
    ends = min(steps, 5)
    for t in range(steps - ends):
        assert violated[t] == (threat[t] and not positive[t : t + 6].any())
    assert any(late) == bool(violated[: steps - 5].any())


def test_what_held():
    robust = np.array([[[0.5, -0.1], [0.0, 0.2]], [[0.1, 0.3], [-9.0, -9.0]]])  # time, env, spec
    live = np.array([[True, True], [True, False]])
    found = held(TWO, robust, live)
    assert found["a"] == {
        "satisfied": 1.0,
        "steps_satisfied": 1.0,
        "robustness_min": 0.0,
        "robustness_p05": pytest.approx(0.005),
    }
    assert found["b"]["satisfied"] == 0.5 and found["b"]["steps_satisfied"] == pytest.approx(2 / 3)


def test_a_forecast_keeps_its_promise():
    """Episodes that wander: the bound holds about as often as it says, over many draws of both sets."""
    rng = np.random.default_rng(0)
    covered, promised = [], []
    for _ in range(300):
        steps, n, m = 20, 39, 20
        walks = np.cumsum(rng.normal(size=(steps, n + m, 1)), axis=0)
        live = np.ones((steps, n + m), bool)
        found = forecast(TWO[:1], (walks[:, :n], live[:, :n]), (walks[:, n:], live[:, n:]))["a"]
        covered.append(found["coverage"])
        promised.append(found["guaranteed"])
    assert promised[0] == pytest.approx(0.9)
    assert np.mean(covered) == pytest.approx(0.9, abs=0.02)


def test_a_forecast_needs_episodes():
    few = (np.zeros((4, 8, 1)), np.ones((4, 8), bool))
    assert forecast(TWO[:1], few, few) == {}
