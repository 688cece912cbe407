"""What is decided on the validation part: which checkpoint is kept, and from which suspicion on it answers."""

import dataclasses
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from phalanx.analysis.metrics import best_threshold, detection_metrics
from phalanx.envs.base import Environment
from phalanx.envs.constrained import Constrained, unconstrained
from phalanx.envs.original import OriginalEnv
from phalanx.envs.simulator import Simulator
from phalanx.errors import DataError
from phalanx.runtime.config import RunConfig
from phalanx.runtime.cut import Cut
from phalanx.runtime.decide import Committee
from phalanx.runtime.learner import TrainState
from phalanx.runtime.original import OriginalState
from phalanx.runtime.original_judge import validate_original
from phalanx.runtime.task import Task
from phalanx.runtime.watch import Rehearsed, Watched, ballot, operating_score, rehearse, verdicts, watch

__all__ = ["CLOSED_LOOP", "THRESHOLDS", "OperatingPoint", "choose_threshold", "merit", "validate"]

_LOG = logging.getLogger("phalanx")
_ROWS = 32_768  # recorded events, from as many places as there are lanes
_EPISODES, _LANES = 32, 128
_THRESHOLD_EPISODES = 128  # thresholds differ by less than checkpoints
_LEVEL = 0.95  # share of the episodes in which a specification is to hold
_SAFE_LEVEL = 0.97  # and one standard error of that share over so many episodes
_SHORT = 1000.0  # what falling short of all of it weighs, in units of the loss
_VALIDATION_STREAM, _THRESHOLD_STREAM = 1, 3  # see ``train``
THRESHOLDS = (
    *(Cut.of(answer) for answer in (1 / 2, 1 / 3, 2 / 3, 1 / 5, 4 / 5, 1 / 9, 8 / 9)),
    *(
        Cut(alert, answer)
        for alert in (1 / 5, 1 / 9, 1 / 17)
        for answer in (1 / 2, 1 / 3, 2 / 3, 1 / 5, 4 / 5)
        if alert < answer
    ),
)
"""Where a committee may answer: at odds of 1/8 to 8, those nearest to 1 first; then, where it alerts at less, at odds
of 1/4 to 1/16, before it answers at those of 1/4 to 4."""
CLOSED_LOOP = "validation, closed loop"
"""Source of a threshold that ``choose_threshold`` found."""


@dataclass(frozen=True)
class OperatingPoint:
    """Where a committee answers, found on the validation part.

    Attributes:
        threshold: on the suspicion that the members agree on; None where each takes its likeliest verdict.
        alert: from which suspicion on they alert, where that is less.
        metrics: what it reaches there, keys ``eval/...``; for choosing, not for reporting.
        source: where the threshold comes from.
    """

    threshold: float | None
    metrics: Mapping[str, float]
    source: str = "validation"
    alert: float | None = None


def validate(
    config: RunConfig, task: Task, state: TrainState | OriginalState, key: PRNGKeyArray
) -> OperatingPoint:
    """Chooses the operating point of one seed's committee on the validation part; under specifications it is P = .5
    until ``choose_threshold`` has seen the checkpoint that is kept.

    Args:
        config: settings.
        task: its validation part is read.
        state: of one seed.
        key: of the run; simulated episodes come from its validation stream.
    """
    if isinstance(state, OriginalState):
        rows = cast(OriginalEnv, task.validation.watch)
        return OperatingPoint(None, validate_original(rows, state.committee), "none (greedy)")
    env = task.validation.watch
    drawn = (jax.random.fold_in(key, _VALIDATION_STREAM), config.network.memory_size)
    n_lanes = _EPISODES if config.env == "simulator" else _LANES
    watched = watch(env, state.answering, *drawn, n_lanes=n_lanes, most=_ROWS)
    threshold, source = 0.5, "0.5: another is chosen once training has ended"
    if not isinstance(env, Constrained):
        try:
            score = operating_score(watched.log_probs, config.f)
            threshold, source = best_threshold(watched.label, score).threshold, "validation"
        except DataError as error:
            _LOG.warning("validation: %s", error)
            source = "0.5: validation events of one kind"
    found = _detection(watched, threshold, config.f)
    if isinstance(unconstrained(env), Simulator):
        found |= _response(env, rehearse(env, state.answering, *drawn, n_lanes=n_lanes, threshold=0.5))
    return OperatingPoint(threshold, found, source)


def choose_threshold(
    config: RunConfig, task: Task, committee: Committee, key: PRNGKeyArray
) -> OperatingPoint:
    """Chooses from which suspicion on a committee answers by what its answers do.

    It plays the same validation episodes at each of ``THRESHOLDS``; the one of most ``merit`` is taken, of equal ones
    the first: without alerts below, and nearest to even odds.

    Args:
        config: settings of the run.
        task: its validation part, a closed loop, is played.
        committee: as it was kept.
        key: of the run; the episodes come from a stream of their own, so that none of them helped to choose the
            checkpoint.
    """
    env = task.validation.watch
    drawn = (jax.random.fold_in(key, _THRESHOLD_STREAM), config.network.memory_size)
    tried = {
        cut: _response(env, rehearse(env, committee, *drawn, n_lanes=_THRESHOLD_EPISODES, threshold=cut))
        for cut in THRESHOLDS
    }
    cut = max(tried, key=lambda cut: merit(tried[cut], _SAFE_LEVEL))  # the first of equal ones
    watched = watch(env, committee, *drawn, n_lanes=_THRESHOLD_EPISODES)
    found = _detection(watched, cut, config.f) | tried[cut]
    return OperatingPoint(
        float(cut.answer), found, CLOSED_LOOP, float(cut.alert) if cut.alert < cut.answer else None
    )


def _detection(watched: Watched, threshold: float | Cut, f: int) -> dict[str, float]:
    """How the committee detects at the threshold, and where each member takes its likeliest verdict."""
    found: dict[str, float | None] = {"eval/threshold": float(Cut.of(threshold).alert)}
    for prefix, cut in (("eval/", threshold), ("eval/greedy_", None)):
        detection = detection_metrics(watched.label, verdicts(ballot(watched, cut, f), f), watched.score)
        values = dataclasses.asdict(detection)
        found |= {
            f"{prefix}{name}": values[name] for name in ("tp", "tn", "fp", "fn", "precision", "recall", "f1")
        }
        found["eval/pr_auc"] = values["pr_auc"]
    return {name: np.nan if value is None else float(value) for name, value in found.items()}


def _response(env: Environment, played: Rehearsed) -> dict[str, float]:
    """What the committee's answers did, and how often the specifications held, where there are any."""
    specs = env.specs if isinstance(env, Constrained) else ()
    satisfied = zip(specs, played.satisfied, strict=True)
    return {"eval/loss": played.loss} | {
        f"eval/satisfied_{spec.name}": float(share) for spec, share in satisfied
    }


def merit(metrics: Mapping[str, float], level: float = _LEVEL) -> float:
    """What decides which checkpoint is kept: little loss where the committee's answers have consequences that the
    simulator can play out, else F1. Specifications that hold in too few episodes outweigh any loss.

    Args:
        metrics: keys ``eval/...``; ``eval/loss`` may be missing, then ``eval/f1`` may not.
        level: share of the episodes in which each specification is to hold.

    Example:
        >>> merit({"eval/loss": 3.0, "eval/satisfied_response": 0.97})
        -3.0
        >>> merit({"eval/f1": 0.8})
        0.8
    """
    loss = metrics.get("eval/loss")
    if loss is None:
        return float(np.nan_to_num(metrics["eval/f1"]))
    short = [max(level - share, 0.0) for name, share in metrics.items() if name.startswith("eval/satisfied_")]
    return -loss - _SHORT * sum(short)
