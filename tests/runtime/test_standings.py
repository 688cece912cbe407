"""The table of a league, from courses made by hand."""

import dataclasses
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from phalanx.analysis.hierarchical import TwoLevel
from phalanx.runtime.episodes import Course
from phalanx.runtime.standings import (
    Field,
    Outcome,
    best_baseline,
    gap_closed,
    mean_of_known,
    outcome_of,
    standings,
)
from phalanx.types import Score

WEIGHT = np.array([1.5, 1.5, 0.5, 0.5])
QUIET = np.array([False, False, True, True])
PLAN = TwoLevel(resamples=200)


def score(loss: list[float], **totals: list[float]) -> Score:
    zero = jnp.zeros(4, jnp.float32)
    given = {"loss": loss, "damage": loss, "duration_s": [28_800.0] * 4, "benign": [100.0] * 4, **totals}
    arrays = {name: jnp.asarray(values, jnp.float32) for name, values in given.items()}
    return Score(**{**dict.fromkeys(Score.__dataclass_fields__, zero), **arrays})


def course(total: Score, *, suspicion: np.ndarray | None = None, **columns: Any) -> Course:
    """Four steps of four episodes; running totals are 0 until the last step unless given."""
    blank = np.zeros((4, 4), np.float32)
    whole = blank.astype(np.int8)
    names = ("damage", "campaigns", "contained", "contain_s", "duration_s")
    running = {
        name: np.where(np.arange(4)[:, None] == 3, np.asarray(getattr(total, name)), blank) for name in names
    }
    label = np.tile(np.array([1, 0, 0, 1], np.int8)[:, None], (1, 4))
    given = {
        **running,
        "verdict": whole,
        "label": label,
        "stage": whole,
        "live": np.ones((4, 4), bool),
        "robustness": np.zeros((4, 4, 0), np.float32),
        **columns,
    }
    return Course(score=total, suspicion=suspicion, **given)


def outcome(*losses: list[float], trained: bool = False, **totals: list[float]) -> Outcome:
    courses = [course(score(loss, **totals)) for loss in losses]
    return outcome_of(courses, [None] * len(courses), WEIGHT, trained=trained)


def shared() -> Field:
    return Field(score([8.0, 4.0, 0.0, 0.0]), score([0.0, 0.0, 0.0, 0.0]), WEIGHT, QUIET, 2, 100.0, PLAN)


def test_a_row_holds_weighted_means_over_seeds() -> None:
    row = standings(
        {"own": outcome([2.0, 2.0, 1.0, 0.0], [4.0, 2.0, 0.0, 1.0], alerts=[4.0, 0.0, 0.0, 0.0])}, shared()
    )["own"]
    losses = [(1.5 * 4 + 0.5 * 1) / 4, (1.5 * 6 + 0.5 * 1) / 4]
    allowed = 1.5 * 12 / 4
    assert row["loss"] == pytest.approx(np.mean(losses)) and row["seeds"] == 2
    assert row["score"]["value"] == pytest.approx(np.mean([1 - loss / allowed for loss in losses]))
    assert row["score_by_seed"] == pytest.approx([1 - loss / allowed for loss in losses])
    assert row["score"]["min"] == pytest.approx(1 - losses[1] / allowed)
    assert row["score"]["low"] <= row["score"]["value"] <= row["score"]["high"]
    assert row["alerts_per_analyst_day"] == pytest.approx(1.5 * 4 / 4 / 2)
    assert row["verdict_rates"] == [1.0, 0.0, 0.0, 0.0] and "committee_gains" not in row


def test_the_committee_is_paired_with_every_other_policy() -> None:
    ours = outcome([2.0, 1.0, 0.0, 0.0], [4.0, 1.0, 0.0, 0.0], trained=True)
    rows = standings(
        {"rival": outcome([5.0, 2.0, 1.0, 1.0]), "ours": ours, "many": outcome(*[[6.0, 0.0, 0.0, 0.0]] * 3)},
        shared(),
    )
    assert "committee_gains" not in rows["ours"]
    saved = rows["rival"]["committee_gains"]["loss_saved"]
    theirs = (1.5 * 7 + 0.5 * 2) / 4
    per_seed = [theirs - 1.5 * 3 / 4, theirs - 1.5 * 5 / 4]
    assert saved["value"] == pytest.approx(np.mean(per_seed)) and saved["n"] == 2
    assert rows["rival"]["committee_gains"]["score"]["value"] == pytest.approx(np.mean(per_seed) / 4.5)
    other = rows["many"]["committee_gains"]["loss_saved"]
    assert other["value"] == pytest.approx(1.5 * (6 - 4) / 4) and other["n"] == 1, (
        "three seeds against two: means"
    )


def test_the_gap_is_that_between_the_best_baseline_and_the_oracle() -> None:
    ours = outcome([2.0, 1.0, 0.0, 0.0], trained=True)
    # the second is best by weight, though not by the plain sum
    field = {
        "oracle": outcome([0.0] * 4),
        "a": outcome([5.0, 1.0, 0.0, 0.0]),
        "b": outcome([3.0, 1.0, 4.0, 1.0]),
        "ours": ours,
    }
    assert best_baseline(field, shared()) == "b"
    assert best_baseline({"ours": ours}, shared()) is None
    best = 1.5 * 4 + 0.5 * 5
    found = gap_closed(ours, field["b"], shared())
    assert found["value"] == pytest.approx((best - 1.5 * 3) / best)
    assert gap_closed(field["oracle"], field["b"], shared())["value"] == pytest.approx(1.0)
    assert gap_closed(field["b"], field["b"], shared())["value"] == pytest.approx(0.0)


def test_times_to_containment_count_those_that_never_were() -> None:
    steps = np.arange(1.0, 5.0)[:, None] * np.full((1, 4), 10.0)
    begun = np.ones((4, 4), np.float32)
    stopped = np.zeros((4, 4), np.float32)
    stopped[2:, 0] = 1.0
    total = score([0.0] * 4)
    made = course(total, duration_s=steps, campaigns=begun, contained=stopped, contain_s=10.0 * stopped)
    row = standings(
        {"own": outcome_of([made], [None], WEIGHT)}, dataclasses.replace(shared(), horizon_s=20.0)
    )["own"]
    # one campaign in four is contained after 10 s, with weight 1.5 of 4; the others are followed for 30 s
    assert row["median_contain_s"] is None
    assert row["restricted_contain_s"] == pytest.approx(10.0 + 10.0 * (1 - 1.5 / 4))


def test_detection_is_measured_where_answers_are_only_logged() -> None:
    total = score([0.0] * 4)
    suspicion = np.tile(np.array([0.9, 0.1, 0.8, 0.7], np.float32)[:, None], (1, 4))
    found = outcome_of([course(total)], [course(total, suspicion=suspicion)], WEIGHT)
    assert found.pr_auc[0] == pytest.approx((1 / 1 + 2 / 3) / 2)  # hits at ranks 1 and 3
    dead = np.ones((4, 4), bool)
    dead[2] = False
    cut = outcome_of([course(total)], [course(total, suspicion=suspicion, live=dead)], WEIGHT)
    assert cut.pr_auc[0] == pytest.approx(1.0)
    assert outcome_of([course(total)], [None], WEIGHT).pr_auc == [None]


def test_means_leave_out_what_is_undefined() -> None:
    assert mean_of_known([2.0, None, 4.0]) == 3.0 and mean_of_known([]) is None
