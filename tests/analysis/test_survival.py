"""Kaplan-Meier against SciPy, a product written out by hand and closed forms; times to containment by simulation."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import CensoredData, ecdf

from phalanx.analysis.survival import SurvivalCurve, containment_times, kaplan_meier
from phalanx.errors import DataError, UsageError

subjects = st.lists(
    st.tuples(st.integers(0, 12), st.booleans(), st.sampled_from([0.1, 1.0, 2.5])), min_size=1, max_size=30
).map(lambda rows: tuple(np.array(column) for column in zip(*rows, strict=True)))


def curve_of(*args, **kwargs) -> SurvivalCurve:
    curve = kaplan_meier(*args, **kwargs)
    assert curve is not None
    return curve


def by_hand(time_s: np.ndarray, contained: np.ndarray, weight: np.ndarray) -> list[tuple[float, float, int]]:
    """(time, survival, at risk) at every time of a containment."""
    found, goes_on = [], 1.0
    for now in sorted({t for t, c in zip(time_s.tolist(), contained, strict=True) if c}):
        at_risk = sum(w for t, w in zip(time_s, weight, strict=True) if t >= now)
        ended = sum(w for t, c, w in zip(time_s, contained, weight, strict=True) if t == now and c)
        goes_on *= 1.0 - ended / at_risk
        found.append((now, goes_on, int((time_s >= now).sum())))
    return found


@given(subjects)
def test_curve_equals_the_product_by_hand(columns: tuple[np.ndarray, ...]) -> None:
    time_s, contained, weight = columns
    curve = curve_of(time_s, contained, weight=weight)
    expected = by_hand(time_s, contained, weight)
    assert curve.time_s.tolist() == [t for t, _, _ in expected]
    assert curve.survival == pytest.approx([s for _, s, _ in expected], abs=1e-12)
    assert curve.at_risk.tolist() == [n for _, _, n in expected]
    assert (curve.subjects, curve.contained, curve.last_s) == (len(time_s), contained.sum(), time_s.max())


@given(subjects, st.sampled_from([0.8, 0.95]))
def test_curve_and_interval_equal_scipy(columns: tuple[np.ndarray, ...], level: float) -> None:
    time_s, contained, _ = columns
    curve = curve_of(time_s, contained, level=level)
    oracle = ecdf(CensoredData(uncensored=time_s[contained], right=time_s[~contained])).sf
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # where the curve is 0 or 1 SciPy has no interval, and says so
        interval = oracle.confidence_interval(level, method="log-log")
    at = np.searchsorted(oracle.quantiles, curve.time_s)
    assert curve.survival == pytest.approx(oracle.probabilities[at], abs=1e-12)
    known = curve.survival > 0
    assert curve.low[known] == pytest.approx(interval.low.probabilities[at][known])
    assert curve.high[known] == pytest.approx(interval.high.probabilities[at][known])


@given(subjects)
def test_the_interval_holds_the_curve(columns: tuple[np.ndarray, ...]) -> None:
    time_s, contained, weight = columns
    curve = curve_of(time_s, contained, weight=weight)
    assert (curve.low >= 0).all() and (curve.high <= 1).all()
    assert (curve.low <= curve.survival).all() and (curve.survival <= curve.high).all()
    assert (np.diff(curve.survival) < 0).all()


@given(subjects, st.floats(0.01, 100.0))
def test_only_the_ratios_of_weights_matter(columns: tuple[np.ndarray, ...], factor: float) -> None:
    time_s, contained, weight = columns
    one, other = (curve_of(time_s, contained, weight=scale * weight) for scale in (1.0, factor))
    assert one.survival == pytest.approx(other.survival, abs=1e-12)
    assert one.low == pytest.approx(other.low, abs=1e-9)
    assert one.median_s == other.median_s


@given(st.lists(st.integers(0, 20), min_size=1, max_size=30), st.integers(1, 25))
def test_without_censoring_it_is_the_share_that_goes_on(times: list[int], horizon_s: int) -> None:
    time_s = np.array(times, float)
    curve = curve_of(time_s, np.ones(len(time_s)))
    assert curve.survival == pytest.approx([(time_s > t).mean() for t in curve.time_s], abs=1e-12)
    assert curve.restricted_mean_s(horizon_s) == pytest.approx(np.minimum(time_s, horizon_s).mean())
    assert curve.median_s == sorted(times)[(len(times) - 1) // 2]


@given(subjects, st.integers(1, 15))
def test_restricted_mean_is_the_area_by_hand(columns: tuple[np.ndarray, ...], horizon_s: int) -> None:
    time_s, contained, weight = columns
    curve = curve_of(time_s, contained, weight=weight)
    steps = by_hand(time_s, contained, weight)
    if horizon_s > time_s.max() and not (steps and steps[-1][1] < 1e-12):
        assert curve.restricted_mean_s(horizon_s) is None
        return
    area = 0.0
    for second in range(horizon_s):  # all times are whole, so that the curve is flat within a second
        area += ([1.0] + [s for t, s, _ in steps if t <= second])[-1]
    assert curve.restricted_mean_s(horizon_s) == pytest.approx(area)


def test_censored_campaigns_hold_the_curve_up() -> None:
    dropped = curve_of([10.0, 20.0], [1, 1])
    followed = curve_of([10.0, 20.0, 90.0, 90.0, 90.0], [1, 1, 0, 0, 0])
    assert dropped.median_s == 10.0
    assert followed.median_s is None
    assert followed.survival.tolist() == pytest.approx([0.8, 0.6])


def test_nothing_contained_is_known_to_last() -> None:
    curve = curve_of([5.0, 8.0], [0, 0])
    assert curve.time_s.size == 0
    assert (curve.median_s, curve.restricted_mean_s(8.0), curve.restricted_mean_s(8.1)) == (None, 8.0, None)


def test_no_campaign_no_curve() -> None:
    assert kaplan_meier([], []) is None
    assert kaplan_meier([1.0], [1], weight=[0.0]) is None


def test_greenwood_interval_covers() -> None:
    rng, hits = np.random.default_rng(0), []
    for _ in range(400):
        time_s, limit_s = rng.exponential(10.0, 60), rng.uniform(0.0, 30.0, 60)
        curve = curve_of(np.minimum(time_s, limit_s), time_s <= limit_s)
        at = np.searchsorted(curve.time_s, 7.0, side="right") - 1
        hits.append(curve.low[at] <= np.exp(-0.7) <= curve.high[at])
    assert 0.92 <= np.mean(hits) <= 0.98


def column(*values: float) -> np.ndarray:
    return np.array(values, np.float32)[:, None]


def test_simultaneous_containments_share_their_time() -> None:
    found = containment_times(
        campaigns=column(1, 2, 2, 2),
        contained=column(0, 0, 0, 2),
        contain_s=column(0, 0, 0, 50),
        duration_s=column(10, 20, 40, 45),
        live=np.ones((4, 1), bool),
    )
    assert found.time_s.tolist() == [25.0, 25.0]  # 30 and 20 s: the totals tell their sum only
    assert found.contained.all()


def test_steps_after_the_end_say_nothing() -> None:
    found = containment_times(
        campaigns=column(1, 1, 0),
        contained=column(0, 0, 0),
        contain_s=column(0, 0, 0),
        duration_s=column(10, 30, 5),
        live=np.array([[True], [True], [False]]),
    )
    assert (found.time_s.tolist(), found.contained.tolist()) == ([20.0], [False])


def test_peaceful_episodes_have_no_times() -> None:
    nothing = np.zeros((5, 3))
    found = containment_times(
        campaigns=nothing,
        contained=nothing,
        contain_s=nothing,
        duration_s=np.arange(15.0).reshape(5, 3),
        live=np.ones((5, 3), bool),
    )
    assert found.time_s.shape == found.contained.shape == found.episode.shape == (0,)


@given(st.integers(0, 2**32 - 1))
def test_times_equal_those_of_simulated_campaigns(seed: int) -> None:
    rng = np.random.default_rng(seed)
    steps, envs = 60, 4
    totals = {name: np.zeros((steps, envs), np.float32) for name in ("campaigns", "contained", "contain_s")}
    event_s = np.cumsum(rng.uniform(1.0, 9.0, (steps + 1, envs)).round(2), axis=0)
    expected = []
    for env in range(envs):
        # distinct steps; no two onsets closer than the gap between events, so that the match is beyond doubt
        onsets = np.sort(rng.choice(np.arange(1, steps - 1, 3), size=rng.integers(0, 5), replace=False))
        taken: set[int] = set()
        for onset in onsets.tolist():
            started_s = event_s[onset + 1, env]
            totals["campaigns"][onset:, env] += 1
            stop = int(rng.integers(onset + 1, steps)) if rng.random() < 0.6 else None
            if stop is None or stop in taken:
                expected.append((env, event_s[-1, env] - started_s, False))
                continue
            taken.add(stop)
            took_s = event_s[stop, env] - started_s  # the event decided in a step is the one before led to
            totals["contained"][stop:, env] += 1
            totals["contain_s"][stop:, env] += took_s
            expected.append((env, took_s, True))
    found = containment_times(**totals, duration_s=event_s[1:], live=np.ones((steps, envs), bool))
    assert found.episode.tolist() == [env for env, _, _ in expected]
    assert found.contained.tolist() == [contained for _, _, contained in expected]
    assert found.time_s == pytest.approx([took for _, took, _ in expected], abs=1e-2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: kaplan_meier([1.0, -1.0], [1, 1]), DataError, "time_s=-1.0 at row 1"),
        (lambda: kaplan_meier([1.0, np.inf], [1, 0]), DataError, "time_s=inf at row 1"),
        (lambda: kaplan_meier([1.0], [2]), DataError, "contained=2 at row 0"),
        (lambda: kaplan_meier([1.0], [1, 0]), DataError, "time_s has 1, contained has 2"),
        (lambda: kaplan_meier([1.0], [1], level=1.0), UsageError, "level=1.0"),
        (lambda: curve_of([1.0], [1]).restricted_mean_s(0.0), UsageError, "horizon_s=0.0"),
    ],
)
def test_bad_arguments_are_refused(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"contained": column(0, 2)}, "episode 0: 2 campaigns contained of 1"),
        ({"campaigns": column(1, 0)}, "campaigns falls to 0.0 at step 1 of episode 0"),
    ],
)
def test_totals_that_cannot_be_are_refused(changed: dict[str, np.ndarray], message: str) -> None:
    totals = {
        "campaigns": column(1, 1),
        "contained": column(0, 1),
        "contain_s": column(0, 3),
        "duration_s": column(1, 4),
    }
    with pytest.raises(DataError, match=message):
        containment_times(**{**totals, **changed}, live=np.ones((2, 1), bool))
