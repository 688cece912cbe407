"""What is decided on the validation part: the checkpoint that is kept, and the threshold that it answers from."""

import dataclasses

import jax
import numpy as np
import pytest
from runtime.committees import Charged, committee_of, sure_of

from phalanx.envs.base import Environment
from phalanx.envs.constrained import Constrained
from phalanx.runtime.config import RunConfig
from phalanx.runtime.cut import Cut
from phalanx.runtime.task import Part, Task, build_task
from phalanx.runtime.validation import THRESHOLDS, choose_threshold, merit
from phalanx.runtime.watch import rehearse
from phalanx.stl.specs import parse_specs

BLOCKS = (0.1, 0.8, 0.1)
CONFIG = RunConfig(hidden=6, memory=4, episode_events=64)


def task_of(env: Environment) -> Task:
    return dataclasses.replace(build_task(CONFIG), validation=Part(watch=env, act=env))


def test_least_loss_decides_which_checkpoint_is_kept_where_answers_have_consequences_and_f1_where_not() -> (
    None
):
    played = [{"eval/f1": 0.9, "eval/loss": 12.0}, {"eval/f1": 0.2, "eval/loss": 9.0}]
    assert max(played, key=merit) is played[1]
    recorded = [{"eval/f1": 0.4}, {"eval/f1": 0.6}, {"eval/f1": float("nan")}]
    assert max(recorded, key=merit) is recorded[1]


def test_thresholds_are_odds_in_steps_of_two_nearest_to_even_first() -> None:
    odds = np.log2([float(cut / (1 - cut)) for _, cut in THRESHOLDS[:7]])
    np.testing.assert_allclose(odds, [0, -1, 1, -2, 2, -3, 3], atol=1e-12)
    assert THRESHOLDS[0] == Cut(0.5, 0.5) and all(alert == answer for alert, answer in THRESHOLDS[:7])


def test_alerts_begin_below_where_answers_do() -> None:
    below = THRESHOLDS[7:]
    assert len(below) == 14 and all(alert < answer for alert, answer in below)
    odds = {float(np.round(np.log2(alert / (1 - alert)), 9)) for alert, _ in below}
    assert odds == {-2.0, -3.0, -4.0}


@pytest.mark.parametrize(
    ("suspicion", "demanded", "chosen", "loss"),
    [
        (0.6, None, 2 / 3, 0.0),  # no answer costs anything from there on
        (0.85, None, 8 / 9, 0.0),
        (0.95, None, 0.5, 12.0),  # every event is answered at all of them
        (0.3, None, 0.5, 0.0),
        (0.3, "answered > .5", 1 / 5, 12.0),  # what has to hold outweighs the loss
        (0.15, "answered > .5", 1 / 9, 12.0),
        (0.05, "answered > .5", 0.5, 0.0),  # it holds nowhere
        (0.6, "answered < .5", 2 / 3, 0.0),
    ],
)
def test_the_threshold_of_most_merit_is_chosen_and_even_odds_among_equal_ones(
    suspicion: float, demanded: str | None, chosen: float, loss: float
) -> None:
    env: Environment = Charged()
    if demanded:
        env = Constrained(env, parse_specs(f"@spec wanted\n{demanded}"), shown=False)
    point = choose_threshold(CONFIG, task_of(env), sure_of(env, suspicion), jax.random.key(3))
    assert point.threshold == point.metrics["eval/threshold"] == chosen
    assert point.metrics["eval/loss"] == loss
    assert point.source == "validation, closed loop"
    if demanded:
        assert point.metrics["eval/satisfied_wanted"] == (0.0 if suspicion == 0.05 else 1.0)
    answered = point.metrics["eval/tp"] + point.metrics["eval/fp"]
    assert answered == (128 * 12 if loss else 0), "detection is measured at the threshold chosen"


def test_every_threshold_is_measured_in_the_same_episodes() -> None:
    env = Charged()
    committee, key = committee_of(env, seed=2), jax.random.key(5)
    point = choose_threshold(CONFIG, task_of(env), committee, key)
    drawn = (jax.random.fold_in(key, 3), 4)
    losses = {cut: rehearse(env, committee, *drawn, n_lanes=128, threshold=cut).loss for cut in THRESHOLDS}
    assert len(set(losses.values())) > 2
    chosen = Cut(point.threshold if point.alert is None else point.alert, point.threshold)  # type: ignore[arg-type]
    assert losses[chosen] == min(losses.values()) == point.metrics["eval/loss"]


def test_alerts_on_what_is_doubtful_are_chosen_where_nothing_else_keeps_what_has_to_hold() -> None:
    demanded = "@spec told\nanswered > .5\n@spec free\nrestricted < .5"
    env = Constrained(Charged(), parse_specs(demanded), shown=False)
    point = choose_threshold(CONFIG, task_of(env), sure_of(env, 0.3, BLOCKS), jax.random.key(3))
    assert (point.alert, point.threshold) == (1 / 5, 1 / 2)
    assert point.metrics["eval/threshold"] == 1 / 5
    assert point.metrics["eval/satisfied_told"] == point.metrics["eval/satisfied_free"] == 1.0
    sure = choose_threshold(CONFIG, task_of(env), sure_of(env, 0.95, BLOCKS), jax.random.key(3))
    assert (
        sure.alert is None and sure.metrics["eval/satisfied_free"] == 0.0
    )  # nobody doubts: nothing is only told


def test_a_level_decides_between_holding_more_often_and_losing_less() -> None:
    safe = {"eval/loss": 9.0, "eval/satisfied_x": 0.98}
    cheap = {"eval/loss": 3.0, "eval/satisfied_x": 0.955}
    assert merit(cheap) > merit(safe) and merit(safe, 0.97) > merit(cheap, 0.97)
