"""What the committee is measured against, on the same events and through the same scoring."""

from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from phalanx.analysis.metrics import best_threshold, response_metrics
from phalanx.analysis.probe import Probe, Rows, fit_probe
from phalanx.envs.base import Environment
from phalanx.runtime.episodes import Course, TablePolicy, ThresholdPolicy, run_episodes
from phalanx.types import Score, Verdict

__all__ = [
    "Classifier",
    "choose_playbook",
    "fit_classifier",
    "rates_of",
    "references",
    "try_playbooks",
]

_QUANTILES = (0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999)


@dataclass(frozen=True)
class Classifier:
    """Gradient boosting on the committee's inputs, one event at a time.

    Attributes:
        probe: fitted on the training part.
        threshold: best F1 on the validation part.
        validation_score: its scores there, for other thresholds.
    """

    probe: Probe
    threshold: float
    validation_score: Float[np.ndarray, " event"]


def fit_classifier(train: Rows, validation: Rows, seed: int) -> Classifier:
    """Fits on the training part and finds the threshold of best F1 on the validation part."""
    probe = fit_probe(train.category, train.numeric, train.label, seed)
    score = probe.score(validation.category, validation.numeric)
    return Classifier(probe, best_threshold(validation.label, score).threshold, score)


def references(
    env: Environment, key: PRNGKeyArray, n_envs: int, rates: Float[np.ndarray, "4"]
) -> dict[str, Course]:
    """Courses of the policies that need no training, the two ends of the scale first.

    Args:
        env: the closed loop.
        key: of the episodes.
        n_envs: episodes.
        rates: the committee's verdict rates, for the random policy that answers as often.
    """
    allow, _, block, quarantine = np.eye(len(Verdict), dtype=np.float32)
    anything = np.full(len(Verdict), 1 / len(Verdict), np.float32)
    tables = {
        "always-allow": (allow, allow),
        "oracle": (allow, quarantine),
        "always-block": (block, block),
        "random": (anything, anything),
        "random at the committee's rates": (rates, rates),
    }
    rows = np.repeat(np.stack([np.stack(table) for table in tables.values()]), n_envs, axis=0)
    course = run_episodes(
        env,
        TablePolicy(jnp.asarray(rows, jnp.float32)),
        key,
        n_envs=n_envs,
        steps=env.episode_events,
        copies=len(tables),
    )
    return {name: course.copy(index, n_envs) for index, name in enumerate(tables)}


def try_playbooks(
    classifier: Classifier, env: Environment, key: PRNGKeyArray, n_envs: int, ends: tuple[Score, Score]
) -> list[dict[str, Any]]:
    """What every playbook of the classifier (a verdict and a threshold) reaches on the validation episodes.

    Args:
        classifier: fitted.
        env: the validation part's closed loop.
        key: of the validation episodes.
        n_envs: episodes.
        ends: totals of always-allow and of the oracle there.

    Returns:
        Playbooks with ``verdict``, ``threshold``, ``damage_prevented``, ``availability``.
    """
    cuts = sorted({classifier.threshold, *np.quantile(classifier.validation_score, _QUANTILES).tolist()})
    books = [(verdict, cut) for verdict in (Verdict.ALERT, Verdict.BLOCK, Verdict.QUARANTINE) for cut in cuts]
    policy = ThresholdPolicy(
        classifier.probe.score,
        np.repeat(np.array([cut for _, cut in books]), n_envs),
        np.repeat(np.array([int(verdict) for verdict, _ in books]), n_envs),
    )
    course = run_episodes(env, policy, key, n_envs=n_envs, steps=env.episode_events, copies=len(books))
    tried = []
    for index, (verdict, cut) in enumerate(books):
        reached = response_metrics(course.copy(index, n_envs).score, *ends)
        tried.append(
            {
                "verdict": verdict.name.lower(),
                "threshold": cut,
                "damage_prevented": reached.damage_prevented or 0.0,
                "availability": 1.0 if reached.availability is None else reached.availability,
            }
        )
    return tried


def choose_playbook(tried: list[dict[str, Any]], availability: float) -> dict[str, Any]:
    """The playbook that prevents most damage among those with at least the availability given.

    The availability is the committee's on the same validation episodes, so that both meet at equal availability. Where
    no playbook keeps it, the one that keeps most is taken.
    """
    fit = [each for each in tried if each["availability"] >= availability]
    if not fit:
        return max(tried, key=lambda each: each["availability"])
    return max(fit, key=lambda each: each["damage_prevented"])


def rates_of(course: Course) -> Float[np.ndarray, "4"]:
    """How often each verdict was given while episodes ran."""
    given = course.verdict[course.live]
    rates = np.bincount(given, minlength=len(Verdict)) / max(given.size, 1)
    return rates.astype(np.float32)
