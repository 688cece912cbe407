"""What the committee is measured against, on the same events and through the same scoring, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, PRNGKeyArray

from phalanx.analysis.metrics import best_threshold, response_metrics
from phalanx.analysis.probe import Probe, Rows, fit_probe
from phalanx.envs.base import Environment
from phalanx.errors import unknown_name
from phalanx.runtime.episodes import Course, Seen, run_episodes
from phalanx.runtime.inspection import fit_inspection
from phalanx.runtime.playbook import EvidenceFamily, Forest, PlaybookFamily, fit_forest
from phalanx.runtime.policies import TablePolicy, ThresholdPolicy
from phalanx.runtime.rules import fit_rules
from phalanx.runtime.strata import EpisodeSet
from phalanx.runtime.surprise import CusumFamily, Surprise, SurpriseFamily, fit_surprise
from phalanx.runtime.tuning import Family
from phalanx.runtime.vocabulary import Vocabulary
from phalanx.types import Score, Verdict

__all__ = [
    "BASELINES",
    "FIXED",
    "MATCHED",
    "TUNED_BASELINES",
    "Classifier",
    "Material",
    "check_names",
    "choose_playbook",
    "fit_classifier",
    "fixed_policy",
    "rates_of",
    "references",
    "try_playbooks",
]

_QUANTILES = (0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985, 0.99, 0.995, 0.999)
_ALLOW, _ALERT, _BLOCK, _QUARANTINE = np.eye(len(Verdict), dtype=np.float32)
_ANYTHING = np.full(len(Verdict), 1 / len(Verdict), np.float32)

FIXED: dict[str, tuple[np.ndarray, np.ndarray]] = {
    "always-allow": (_ALLOW, _ALLOW),
    "oracle": (_ALLOW, _QUARANTINE),
    "always-alert": (_ALERT, _ALERT),
    "always-block": (_BLOCK, _BLOCK),
    "always-quarantine": (_QUARANTINE, _QUARANTINE),
    "random": (_ANYTHING, _ANYTHING),
}
"""Policies without anything to fit: probabilities of the four verdicts on benign events and on malicious ones."""

MATCHED = "random-matched"
"""The random policy that gives each verdict as often as the committee does."""


class Material:
    """What baselines are fitted to, made once and shared: the fitting episodes and what follows from them.

    Args:
        episodes: the fitting episodes, apart from those of tuning and of the test.
        seed: of what is random in a fit.

    Attributes:
        vocabulary: of the environment.
        n_entities: its memory slots.
        ticket_open: place of that column, None where it is not shown.
    """

    def __init__(self, episodes: EpisodeSet, seed: int) -> None:
        self.vocabulary = Vocabulary.of(episodes.env)
        self.n_entities = episodes.env.spec.n_entities
        self.ticket_open = self.vocabulary.numbers.get("ticket_open")
        self.weight = episodes.weight
        self._episodes, self._seed = episodes, seed
        self._seen: Seen | None = None
        self._forest: Forest | None = None
        self._surprise: tuple[Surprise, np.ndarray] | None = None

    @property
    def seen(self) -> Seen:
        """The fitting events."""
        if self._seen is None:
            self._seen = self._episodes.seen()
        return self._seen

    @property
    def forest(self) -> Forest:
        """Gradient boosting on them."""
        if self._forest is None:
            self._forest = fit_forest(self.seen, self._seed)
        return self._forest

    @property
    def surprise(self) -> tuple[Surprise, np.ndarray]:
        """How surprising they are."""
        if self._surprise is None:
            self._surprise = fit_surprise(self.vocabulary, self.seen, self.weight)
        return self._surprise


TUNED_BASELINES: dict[str, Callable[[Material], Family]] = {
    "rules": lambda m: fit_rules(m.vocabulary, m.n_entities, m.seen, m.weight),
    "surprise": lambda m: SurpriseFamily(*m.surprise, m.ticket_open),
    "cusum": lambda m: CusumFamily(*m.surprise, m.n_entities, m.ticket_open),
    "inspection": lambda m: fit_inspection(m.vocabulary, m.n_entities),
    "boosting": lambda m: PlaybookFamily(m.forest, m.ticket_open),
    "boosting-memory": lambda m: EvidenceFamily(m.forest, m.n_entities, m.ticket_open),
}
"""Policies that are fitted and tuned: name -> the family of their settings."""

BASELINES = (*FIXED, MATCHED, *TUNED_BASELINES)
"""Every baseline's name."""


def check_names(names: Any) -> None:
    """Makes sure that all names are baselines'.

    Raises:
        UsageError: one is not.
    """
    for name in names:
        if name not in BASELINES:
            raise unknown_name("policy", name, BASELINES)


def fixed_policy(rows: tuple[np.ndarray, np.ndarray], n_envs: int) -> TablePolicy:
    """The policy of a table's rows, for so many environments.

    Example:
        >>> fixed_policy(FIXED["oracle"], 3).table.shape
        (3, 2, 4)
    """
    table = jnp.asarray(np.stack(rows), jnp.float32)
    return TablePolicy(jnp.broadcast_to(table, (n_envs, *table.shape)))


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
    """Courses of some policies that need no training, the two ends of the scale first.

    Args:
        env: the closed loop.
        key: of the episodes.
        n_envs: episodes.
        rates: the committee's verdict rates, for the random policy that answers as often.
    """
    names = ("always-allow", "oracle", "always-block", "random")
    tables = {name: FIXED[name] for name in names} | {"random at the committee's rates": (rates, rates)}
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
