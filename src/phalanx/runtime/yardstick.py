"""What all seeds of a run are measured against: gradient boosting on the same inputs, always-allow and the oracle."""

import dataclasses
import logging
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from phalanx.analysis.metrics import detection_metrics
from phalanx.envs.base import Environment
from phalanx.envs.stream import StreamEnv
from phalanx.runtime.baselines import Classifier, fit_classifier, references, try_playbooks
from phalanx.runtime.config import RunConfig
from phalanx.runtime.decide import Committee
from phalanx.runtime.task import Task
from phalanx.runtime.watch import Watched, shown, watch
from phalanx.types import Score, Verdict

__all__ = ["PLAY", "PROBE_ROWS", "WATCH", "Yardstick", "detection_baselines", "make_yardstick", "streams"]

_LOG = logging.getLogger("phalanx")
_TRAIN_STREAM, _VALIDATION_STREAM, _TEST_STREAM = 0, 1, 2
_PROBE_EPISODES = 200  # about as many simulated events as recorded ones
WATCH, PLAY = 0, 1
"""Keys of the watched events and of the played episodes."""
PROBE_ROWS = 200_000
"""Recorded events that the classifier is fitted to, at most."""


@dataclass(frozen=True)
class Yardstick:
    """What all seeds of a run are measured against.

    Attributes:
        classifier: fitted on the training part; None where the run's own data cannot be read.
        act: the validation part's closed loop, None where there is none.
        ends: totals of always-allow and of the oracle on the validation episodes.
        tried: what the classifier's playbooks reach there.
    """

    classifier: Classifier | None = None
    act: Environment | None = None
    ends: tuple[Score, Score] | None = None
    tried: list[dict[str, Any]] = field(default_factory=list)


def streams(key: PRNGKeyArray) -> list[PRNGKeyArray]:
    """Keys of what is drawn for the training, the validation and the test part."""
    return [jax.random.fold_in(key, stream) for stream in (_TRAIN_STREAM, _VALIDATION_STREAM, _TEST_STREAM)]


def make_yardstick(
    config: RunConfig, committee: Committee, task: Task | None, key: PRNGKeyArray, episodes: int
) -> Yardstick:
    """Fits the classifier on the training part and tries its playbooks on the validation part.

    Args:
        config: settings of the run.
        committee: reads the simulated events that the classifier is fitted to; which one makes no difference.
        task: the run's own; None where its data cannot be read.
        key: of the evaluation.
        episodes: simulated, for each part.
    """
    if task is None:
        return Yardstick()
    train, validation = (
        shown(each.watch, PROBE_ROWS)
        if isinstance(each.watch, StreamEnv)
        else watch(
            each.watch,
            committee,
            jax.random.fold_in(own, WATCH),
            config.network.memory_size,
            n_lanes=max(episodes, _PROBE_EPISODES),
        )
        for each, own in zip((task.train, task.validation), streams(key)[:2], strict=True)
    )
    _LOG.info("fitting gradient boosting to %s events of the training part", f"{len(train.label):,}")
    classifier = fit_classifier(
        train, validation, config.seed if config.split_seed is None else config.split_seed
    )
    env = task.validation.act
    if env is None:
        return Yardstick(classifier)
    own = jax.random.fold_in(streams(key)[1], PLAY)
    courses = references(env, own, episodes, np.full(len(Verdict), 1 / len(Verdict), np.float32))
    ends = courses["always-allow"].score, courses["oracle"].score
    _LOG.info("trying its playbooks in %d validation episodes", episodes)
    return Yardstick(classifier, env, ends, try_playbooks(classifier, env, own, episodes, ends))


def detection_baselines(
    classifier: Classifier | None, test: Watched, positive: str
) -> dict[str, dict[str, Any]]:
    """How always-allow, always-block and the classifier detect, on the same events.

    Args:
        classifier: None leaves it out.
        test: the events.
        positive: least verdict that counts, alert or restrict.
    """
    severe = int(Verdict.ALERT if positive == "alert" else Verdict.BLOCK)
    n = len(test.label)
    answers: dict[str, tuple[np.ndarray, Float[np.ndarray, " event"]]] = {
        "always-allow": (np.zeros(n, int), np.zeros(n)),
        "always-block": (np.full(n, int(Verdict.BLOCK)), np.ones(n)),
    }
    if classifier is not None:
        score = classifier.probe.score(test.category, test.numeric)
        answers["gradient boosting"] = (np.where(score >= classifier.threshold, severe, 0), score)
    names = ("f1", "precision", "recall", "pr_auc", "mcc")
    rows = {}
    for name, (verdict, score) in answers.items():
        found = dataclasses.asdict(detection_metrics(test.label, verdict, score, positive=positive))
        rows[name] = {metric: found[metric] for metric in names}
    return rows
