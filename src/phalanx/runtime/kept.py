"""What a run keeps: the checkpoint of most merit, and where it answers."""

import logging
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from phalanx.envs.base import Environment
from phalanx.envs.original import OriginalEnv
from phalanx.errors import RunError
from phalanx.runtime.config import RunConfig
from phalanx.runtime.decide import deployed
from phalanx.runtime.learner import TrainState, init_committee, learner_config
from phalanx.runtime.original import OriginalState, init_original_state
from phalanx.runtime.store import RunFolder
from phalanx.runtime.task import Task
from phalanx.runtime.validation import CLOSED_LOOP, OperatingPoint, choose_threshold, merit

__all__ = ["best_so_far", "choose_thresholds", "keep_best", "load_committee"]

_LOG = logging.getLogger("phalanx")


def best_so_far(folder: RunFolder) -> float:
    """The most merit that a run has reached; less than any where it was not validated yet."""
    merits = [merit(row) for row in folder.read_metrics() if row.get("eval/f1") is not None]
    return max(merits, default=-np.inf)


def keep_best(
    folder: RunFolder,
    state: TrainState | OriginalState,
    iteration: int,
    point: OperatingPoint,
    best: float,
) -> float:
    """Keeps the checkpoint of most merit on the validation part so far, and its operating point.

    Args:
        folder: of one seed.
        state: after the iteration.
        iteration: number of it.
        point: what validation says of the state.
        best: most merit so far.

    Returns:
        The most merit now.
    """
    value = merit(point.metrics)
    if value <= best:
        return best
    kept = state.committee if isinstance(state, OriginalState) else deployed(state.answering)
    folder.checkpoints.save_best(iteration, kept)
    _write(folder, iteration, point)
    return value


def choose_thresholds(config: RunConfig, task: Task, folders: Sequence[RunFolder]) -> None:
    """Chooses where the kept checkpoints answer, unless that was done before the run was resumed.

    Args:
        config: settings of the run.
        task: its validation part is played, see ``choose_threshold``.
        folders: one a seed.
    """
    for seed, folder in enumerate(folders, start=config.seed):
        kept = folder.read_operating_point()
        if kept["threshold_source"] == CLOSED_LOOP and "alert_threshold" in kept:
            continue  # no other checkpoint was kept since
        committee, before = load_committee(folder, config, task.validation.watch)
        point = choose_threshold(config, task, committee, jax.random.key(seed))
        _write(folder, before["iteration"], point)
        alert = point.threshold if point.alert is None else point.alert
        _LOG.info(
            "seed %d: alerts from P = %.2f on, answers from %.2f on (%s)",
            seed,
            alert,
            point.threshold,
            point.source,
        )


def _write(folder: RunFolder, iteration: int, point: OperatingPoint) -> None:
    folder.write_operating_point(
        {
            "threshold": point.threshold,
            "alert_threshold": point.threshold if point.alert is None else point.alert,
            "threshold_source": point.source,
            "iteration": iteration,
            **point.metrics,
        }
    )


def load_committee(folder: RunFolder, config: RunConfig, env: Environment) -> tuple[Any, dict[str, Any]]:
    """The kept committee of a run and its operating point.

    Raises:
        RunError: no checkpoint was kept, or it does not fit.
    """
    like = (
        init_original_state(env, config, jax.random.key(0)).committee
        if isinstance(env, OriginalEnv)
        else deployed(init_committee(env.spec, learner_config(config), jax.random.key(0)))
    )
    point = folder.read_operating_point()
    iteration, committee = folder.checkpoints.load(like, best=True)
    if iteration != point["iteration"]:
        raise RunError(
            f"{folder.path}: the best checkpoint is of iteration {iteration}, its operating point of "
            f"{point['iteration']}; a kill fell between the two. Go on with --resume, which validates again"
        )
    return committee, point
