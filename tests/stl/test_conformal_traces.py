"""Conformal tubes around predicted traces: their scores, their ends, and the robustness that they leave."""

import math

import numpy as np
import pytest

from phalanx.errors import DataError, UsageError
from phalanx.stl import robustness
from phalanx.stl.conformal import calibrate_scores
from phalanx.stl.conformal_traces import Tube, calibrate_traces, error_scale, trace_scores

SPEC = "always[0,8] (x < 4 and (y > -4 or x < 2))"


def _episodes(rng: np.random.Generator, count: int, known: int = 3) -> tuple[dict, dict]:
    """Random walks of two signals, predicted to stay where they are after the samples that are known."""
    actual = {name: np.cumsum(rng.standard_normal((count, 9)), axis=1) for name in ("x", "y")}
    predicted = {name: values.copy() for name, values in actual.items()}
    for values in predicted.values():
        values[:, known:] = values[:, known - 1 : known]
    return predicted, actual


def test_scale_and_scores_as_loops_say() -> None:
    rng = np.random.default_rng(0)
    fitted, calibration = _episodes(rng, 30), _episodes(rng, 20)
    scale = error_scale(*fitted)
    scores = trace_scores(*calibration, scale)
    for name in ("x", "y"):
        for t in range(9):
            errors = [abs(fitted[0][name][i, t] - fitted[1][name][i, t]) for i in range(30)]
            assert scale[name][t] == max(errors)
    for i in range(20):
        units = [
            abs(calibration[0][name][i, t] - calibration[1][name][i, t]) / scale[name][t]
            for name in ("x", "y")
            for t in range(3, 9)
        ]
        assert scores[i] == max(units)


def test_traces_lie_in_the_tube_as_often_as_is_guaranteed_and_keep_to_its_robustness() -> None:
    rng = np.random.default_rng(1)
    scale = error_scale(*_episodes(rng, 100))
    inside = []
    for _ in range(40):
        tube = calibrate_traces(*_episodes(rng, 49), scale, delta=0.2)
        predicted, actual = _episodes(rng, 50)
        low, high = tube.bounds(predicted)
        within = np.all(
            [(low[n] <= actual[n] + 1e-9) & (actual[n] <= high[n] + 1e-9) for n in actual], axis=(0, 2)
        )
        inside.append(within.mean())
        few = np.flatnonzero(within)[:3]
        final = [robustness(SPEC, {n: actual[n][i] for n in actual})[0] for i in few]
        assert (
            tube.lower(SPEC, {n: values[few] for n, values in predicted.items()}) <= np.add(final, 1e-9)
        ).all()
    # 40 means of 50: the standard error about .8 is below .0125
    assert np.mean(inside) == pytest.approx(0.8, abs=0.05)


def test_lower_robustness_by_hand() -> None:
    tube = Tube({"x": np.array([0.0, 1.0, 2.0])}, calibrate_scores(np.arange(9.0), 0.2))
    assert tube.calibration.radius == 7.0
    predicted = {"x": np.array([[0.0, 1.0, 2.0], [5.0, 0.0, -20.0]])}
    assert tube.lower("always x < 9", predicted).tolist() == [9 - (2 + 14), 9 - 7]
    assert tube.lower("eventually x < 9", predicted).tolist() == [9, 9 - (-20 + 14)]
    assert tube.lower("x < 9", predicted).tolist() == [9, 4]  # known samples have no width


def test_an_error_where_none_was_seen_leaves_nothing_known() -> None:
    predicted, actual = {"x": np.zeros((9, 2))}, {"x": np.ones((9, 2))}
    tube = calibrate_traces(predicted, actual, {"x": np.array([1.0, 0.0])}, 0.2)
    assert tube.calibration.radius == math.inf
    assert tube.lower("always x < 9", {"x": np.zeros((2, 2))}).tolist() == [-math.inf] * 2
    low, high = tube.bounds({"x": [0.0, math.inf]})
    assert low["x"].tolist() == [-math.inf] * 2
    assert high["x"].tolist() == [math.inf] * 2


@pytest.mark.parametrize(
    ("call", "kind", "told"),
    [
        (lambda: error_scale({"x": [[1.0]]}, {"y": [[1.0]]}), DataError, "predicted: x; actual: y"),
        (lambda: error_scale({}, {}), DataError, "predicted: none"),
        (lambda: error_scale({"x": [[1.0]]}, {"x": [[1.0, 2.0]]}), DataError, r"\(1, 1\).*\(1, 2\)"),
        (lambda: error_scale({"x": [1.0]}, {"x": [1.0]}), DataError, r"expected \(episode, sample\)"),
        (lambda: error_scale({"x": [[math.nan]]}, {"x": [[1.0]]}), DataError, "'x' holds NaN"),
        (lambda: error_scale({"x": [[math.inf]]}, {"x": [[1.0]]}), DataError, "infinite error at sample 0"),
        (
            lambda: error_scale(
                dict(x=np.zeros((2, 1)), y=np.zeros((3, 1))), dict(x=np.zeros((2, 1)), y=np.zeros((3, 1)))
            ),
            DataError,
            "number of episodes: x 2, y 3",
        ),
        (lambda: trace_scores({"x": [[1.0]]}, {"x": [[1.0]]}, {"x": np.ones(2)}), DataError, "1 samples"),
        (lambda: trace_scores({"x": [[1.0]]}, {"x": [[1.0]]}, {}), DataError, "not of these signals"),
        (
            lambda: calibrate_traces({"x": [[1.0]]}, {"x": [[1.0]]}, {"x": np.ones(1)}, 0.1),
            DataError,
            "1 episodes.*needs 9",
        ),
        (
            lambda: Tube({"x": np.ones(1)}, calibrate_scores([1.0] * 9, 0.1)).lower("x > 0", {"y": [[1.0]]}),
            UsageError,
            "'x'; predicted are: y",
        ),
        (
            lambda: Tube({"x": np.ones(1)}, calibrate_scores([1.0] * 9, 0.1)).lower("x > 0", {"x": [1.0]}),
            DataError,
            "one row an episode",
        ),
    ],
)
def test_what_cannot_be_calibrated_is_told(call, kind: type[Exception], told: str) -> None:
    with pytest.raises(kind, match=told):
        call()
