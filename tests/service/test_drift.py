"""The watch: planted drift is found and said once, none where there is none, and a restart changes nothing."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import ks_2samp

from phalanx.errors import DataError, UsageError
from phalanx.service.drift import (
    MEASURES,
    Alarm,
    Batch,
    Watch,
    WatchConfig,
    calibration_error,
    effect_size,
    ks_distance,
)

SMALL = WatchConfig(reference=400, window=400)


def batch(
    rng: np.random.Generator,
    n: int,
    *,
    shift: float = 0.0,
    alerts: float = 0.05,
    dissent: float = 0.1,
    unseen: float = 0.02,
    cells: int = 5,
    correlated: bool = False,
    first: int = 0,
) -> Batch:
    """Events of one distribution: most scores small; correlated: in bursts of fifty from one process."""
    n_draws = -(-n // 50) if correlated else n

    def drawn(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, 50)[:n] if correlated else values

    score = np.clip(drawn(rng.beta(0.4, 4.0, n_draws)) + 0.02 * rng.standard_normal(n) + shift, 0.0, 1.0)
    return Batch(
        [f"e{first + i}" for i in range(n)],
        score,
        drawn(rng.random(n_draws) < alerts),
        drawn(rng.random(n_draws) < dissent),
        rng.binomial(cells, unseen, n),
        np.full(n, cells),
    )


def measures(alarms: list[Alarm]) -> list[str]:
    return [alarm.measure for alarm in alarms]


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"shift": 0.3}, "score"),
        ({"alerts": 0.3}, "alerts"),
        ({"dissent": 0.5}, "dissent"),
        ({"unseen": 0.3}, "unseen"),
    ],
)
def test_planted_drift_is_found_after_its_second_window_and_said_once(changed: Any, expected: str) -> None:
    rng, watch = np.random.default_rng(1), Watch(SMALL)
    for _ in range(4):
        assert watch.observe(batch(rng, 400)) == []
    assert not watch.learning and set(watch.values) == set(MEASURES[:4]) and watch.raised == ()
    found = [measures(watch.observe(batch(rng, 400, **changed))) for _ in range(4)]
    assert found == [[], [expected], [], []]
    assert watch.raised == (expected,) and watch.values[expected][2]
    assert watch.observe(batch(rng, 400)) == [] and watch.raised == ()
    # it came back and went again: said again
    assert [measures(watch.observe(batch(rng, 400, **changed))) for _ in range(2)] == [[], [expected]]


@pytest.mark.parametrize("correlated", [False, True])
def test_without_drift_there_are_no_alarms(correlated: bool) -> None:
    alarms, windows = 0, 0
    for seed in range(40):
        rng, watch = np.random.default_rng(seed), Watch()
        for _ in range(21):
            alarms += len(watch.observe(batch(rng, 5000, correlated=correlated)))
            windows += 1
    # 40 seeds, 800 windows: even with bursts that leave 100 independent draws a window (with 40 there are some)
    assert windows == 840 and alarms == 0


def test_one_odd_window_is_no_drift() -> None:
    rng, watch = np.random.default_rng(2), Watch(SMALL)
    for shift in (0, 0, 0.5, 0, 0.5, 0):
        assert watch.observe(batch(rng, 400, shift=shift)) == []


def test_a_limit_of_zero_is_off() -> None:
    rng, watch = np.random.default_rng(3), Watch(WatchConfig(reference=400, window=400, score=0.0))
    for shift in (0, 0.6, 0.6, 0.6):
        assert "score" not in measures(watch.observe(batch(rng, 400, shift=shift)))
    assert watch.values["score"][0] > 0.5 and not watch.values["score"][2]


@given(cuts=st.lists(st.integers(1, 2999), max_size=15), seed=st.integers(0, 5))
def test_how_events_are_cut_into_batches_makes_no_difference(cuts: list[int], seed: int) -> None:
    config = WatchConfig(reference=300, window=250, persist=1)
    rng = np.random.default_rng(seed)
    parts = [batch(rng, 1500), batch(rng, 1500, shift=0.3, alerts=0.4, first=1500)]
    whole = Batch(
        [*parts[0].ids, *parts[1].ids],
        *(
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("score", "alerted", "dissent", "unseen", "cells")
        ),
    )
    expected = Watch(config)
    alarms = expected.observe(whole)
    assert alarms
    watch, found = Watch(config), []
    ends = sorted({*cuts, 3000})
    for begin, end in zip([0, *ends], ends, strict=False):
        found += watch.observe(
            Batch(
                whole.ids[begin:end],
                whole.score[begin:end],
                whole.alerted[begin:end],
                whole.dissent[begin:end],
                whole.unseen[begin:end],
                whole.cells[begin:end],
            )
        )
        watch = restarted(watch, config)
    assert found == alarms and watch.to_json() == expected.to_json()


def restarted(watch: Watch, config: WatchConfig) -> Watch:
    return Watch.from_json(json.loads(json.dumps(watch.to_json())), config)


def labelled(watch: Watch, rng: np.random.Generator, n: int, *, honest: bool, first: int = 0) -> list[Alarm]:
    """Truth that comes as often as the scores say, or the other way round."""
    score = rng.random(n)
    no = np.zeros(n, bool)
    ids = [f"l{first + i}" for i in range(n)]
    watch.observe(Batch(ids, score, no, no, np.zeros(n, int), np.ones(n, int)))
    truth = rng.random(n) < (score if honest else 1 - score)
    known, alarms = watch.label([*zip(ids, truth.tolist(), strict=True), ("never seen", True)])
    assert known == n
    return alarms


def test_scores_that_mean_what_they_say_raise_nothing() -> None:
    for seed in range(40):
        watch = Watch()
        assert labelled(watch, np.random.default_rng(seed), 500, honest=True) == []
        assert watch.values["brier"][0] < 0.22 and watch.values["calibration"][0] < 0.12


def test_scores_that_lie_are_found_once_there_are_labels_enough() -> None:
    rng, watch = np.random.default_rng(0), Watch()
    assert labelled(watch, rng, 99, honest=False) == [] and "brier" not in watch.values
    found = labelled(watch, rng, 100, honest=False, first=100)
    assert measures(found) == ["brier", "calibration"]
    assert labelled(watch, rng, 100, honest=False, first=200) == []
    assert labelled(watch, rng, 500, honest=True, first=300) == [] and watch.raised == ()  # the latest count


def test_a_label_that_is_corrected_counts_once() -> None:
    watch = Watch(WatchConfig(fewest_labels=2, labels=2))
    no = np.zeros(2, bool)
    watch.observe(Batch(["a", "b"], np.array([0.0, 1.0]), no, no, np.zeros(2, int), np.ones(2, int)))
    watch.label([("a", True), ("a", True)])
    assert "brier" not in watch.values
    watch.label([("a", False), ("b", True)])
    assert watch.values["brier"][0] == watch.values["calibration"][0] == 0.0


def test_a_new_reference_takes_alarms_back() -> None:
    rng, watch = np.random.default_rng(4), Watch(SMALL)
    for shift in (0, 0.4, 0.4):
        watch.observe(batch(rng, 400, shift=shift))
    assert watch.raised == ("score",)
    watch.renew()
    assert watch.raised == () and watch.learning and watch.values == {}
    for _ in range(4):
        assert watch.observe(batch(rng, 400, shift=0.4)) == []
    assert watch.raised == ()


def test_other_limits_or_a_damaged_state_begin_anew() -> None:
    rng, watch = np.random.default_rng(5), Watch(SMALL)
    watch.observe(batch(rng, 700))
    assert Watch.from_json(watch.to_json(), WatchConfig(reference=100, window=100)).learning
    for form in (None, {}, {**watch.to_json(), "version": 9}, {**watch.to_json(), "window": {"scores": "x"}}):
        with pytest.raises(DataError, match="delete it"):
            Watch.from_json(form, SMALL)


@given(
    one=st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=40),
    other=st.lists(st.floats(0, 1) | st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=40),
)
def test_the_distance_is_the_known_one(one: list[float], other: list[float]) -> None:
    found: Any = ks_2samp(one, other, method="exact")
    assert ks_distance(np.sort(np.array(one)), np.array(other)) == pytest.approx(found.statistic, abs=1e-12)


@given(rate=st.floats(0, 1), usual=st.floats(0, 1))
def test_an_effect_size_is_a_distance(rate: float, usual: float) -> None:
    assert 0 <= effect_size(rate, usual) == effect_size(usual, rate) <= np.pi
    assert (effect_size(rate, usual) == 0) == (np.sqrt(rate) == np.sqrt(usual)) or abs(rate - usual) < 1e-9


@given(pairs=st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60))
def test_the_calibration_error_is_that_of_a_loop(pairs: list[tuple[float, bool]]) -> None:
    total = 0.0
    for b in range(10):
        inside = [(s, t) for s, t in pairs if min(int(s * 10), 9) == b]
        if inside:
            mean, share = np.mean([s for s, _ in inside]), np.mean([t for _, t in inside])
            total += len(inside) / len(pairs) * abs(mean - share)
    score, truth = np.array([s for s, _ in pairs]), np.array([t for _, t in pairs])
    assert calibration_error(score, truth) == pytest.approx(total, abs=1e-9)


def test_limits_are_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "watch.toml"
    path.write_text("window = 500\nscore = 1\nbrier = 0.0\n")
    config = WatchConfig.read(path)
    assert (config.window, config.score, config.brier, config.reference) == (500, 1.0, 0.0, 5000)
    for text in (
        "windows = 5",
        "window = 0",
        "score = -1",
        "score = nan",
        "window = 1.5",
        "score = true",
        "labels = 5",
    ):
        path.write_text(text)
        with pytest.raises(UsageError, match="watch.toml"):
            WatchConfig.read(path)
    path.write_text("=")
    with pytest.raises(DataError):
        WatchConfig.read(path)
