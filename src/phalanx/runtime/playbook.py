"""Gradient boosting with a playbook: up to three thresholds on how likely an event is malicious, by itself or summed.

The probability is taken in log-odds. With memory, a process keeps the evidence of its events,
E = max(0, g E + logit(p) - k), a decaying CUSUM (Page 1954); a child starts from its parent's.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import equinox as eqx
import numpy as np
from jaxtyping import Float

from phalanx.analysis.probe import Probe, fit_probe
from phalanx.runtime.episodes import Seen
from phalanx.runtime.policies import ScoredPolicy, note, recall, without_repeats
from phalanx.runtime.tuning import Dimension
from phalanx.types import Verdict

__all__ = [
    "EvidenceFamily",
    "EvidencePolicy",
    "Forest",
    "PlaybookFamily",
    "PlaybookPolicy",
    "fit_forest",
    "log_odds",
]

_LEAST_P = 1e-6
_HELD_BACK = 5  # one episode in so many tells how scores are distributed on events that were not learned
_ANSWERS = (
    "alert",
    "block",
    "quarantine",
    "alert block",
    "alert quarantine",
    "block quarantine",
    "alert block quarantine",
)


def log_odds(probability: Any) -> Any:
    """log(p / (1 - p)), with p kept away from 0 and 1.

    Example:
        >>> float(log_odds(0.5))
        0.0
    """
    p = np.clip(np.asarray(probability, np.float64), _LEAST_P, 1.0 - _LEAST_P)
    return np.log(p / (1.0 - p)).astype(np.float32)


def _answers(score: np.ndarray, thresholds: Float[np.ndarray, "env answer"]) -> np.ndarray:
    """The severest verdict whose threshold the score reaches."""
    reached = score[:, None] >= thresholds
    return np.where(reached, np.arange(1, 4), int(Verdict.ALLOW)).max(axis=1)


class PlaybookPolicy(ScoredPolicy):
    """Answers an event by how likely it is malicious, without memory.

    Attributes:
        score: (category, numeric) -> P(malicious), in NumPy.
        thresholds: log-odds from which on to alert, block and quarantine, per environment (inf: never).
        ticket_open: place of that column.
    """

    score: Callable[[np.ndarray, np.ndarray], np.ndarray] = eqx.field(static=True)
    thresholds: Float[np.ndarray, "env answer"]
    ticket_open: int | None = eqx.field(static=True)
    on_host: ClassVar[bool] = True

    def init(self, n_envs: int) -> Any:
        """Nothing is carried."""
        return ()

    def judge(self, carried: Any, observation: Any, label: Any, key: Any, t: Any) -> tuple[Any, Any, Any]:
        """The suspicion is the log-odds."""
        numeric = np.asarray(observation.numeric)
        odds = log_odds(self.score(np.asarray(observation.category), numeric))
        return carried, without_repeats(_answers(odds, self.thresholds), numeric, self.ticket_open), odds


class EvidencePolicy(ScoredPolicy):
    """Answers an event by the evidence that its process has left so far.

    Attributes:
        score: (category, numeric) -> P(malicious), in NumPy.
        thresholds: evidence from which on to alert, block and quarantine, per environment (inf: never).
        keep: share g of the evidence that is kept at each event, per environment.
        drift: log-odds k taken off at each event, per environment.
        n_entities: memory slots.
        ticket_open: place of that column.
    """

    score: Callable[[np.ndarray, np.ndarray], np.ndarray] = eqx.field(static=True)
    thresholds: Float[np.ndarray, "env answer"]
    keep: Float[np.ndarray, " env"]
    drift: Float[np.ndarray, " env"]
    n_entities: int = eqx.field(static=True)
    ticket_open: int | None = eqx.field(static=True)
    on_host: ClassVar[bool] = True

    def init(self, n_envs: int) -> Any:
        """No evidence."""
        return np.zeros((n_envs, self.n_entities), np.float32)

    def judge(self, carried: Any, observation: Any, label: Any, key: Any, t: Any) -> tuple[Any, Any, Any]:
        """The suspicion is the evidence."""
        numeric = np.asarray(observation.numeric)
        odds = log_odds(self.score(np.asarray(observation.category), numeric))
        before = recall(carried, np.asarray(observation.source), 0.0)
        evidence = np.maximum(self.keep * before + odds - self.drift, 0.0).astype(np.float32)
        kept = note(carried, np.asarray(observation.entity), evidence)
        answer = without_repeats(_answers(evidence, self.thresholds), numeric, self.ticket_open)
        return kept, answer, evidence


@dataclass(frozen=True, eq=False)
class Forest:
    """Gradient boosting with what it says of episodes that it did not learn from.

    Attributes:
        probe: fitted.
        odds: log-odds of the episodes held back, NaN after their ends.
        entity, source: of the same events.
    """

    probe: Probe
    odds: Float[np.ndarray, "time env"]
    entity: np.ndarray
    source: np.ndarray


def fit_forest(seen: Seen, seed: int) -> Forest:
    """Fits to four in five episodes and scores the others.

    Args:
        seen: the fitting episodes; every fifth is held back (with fewer than five, all serve both ends).
        seed: of the trees.

    Raises:
        DataError: no malicious or no benign event among those fitted.
    """
    n = seen.label.shape[1]
    aside = np.arange(n) % _HELD_BACK == _HELD_BACK - 1
    if not aside.any():
        aside = np.ones(n, bool)
        learned = seen.live
    else:
        learned = seen.live & ~aside[None]
    probe = fit_probe(seen.category[learned], seen.numeric[learned], seen.label[learned], seed)
    live = seen.live[:, aside]
    odds = np.full(live.shape, np.nan, np.float32)
    odds[live] = log_odds(probe.score(seen.category[:, aside][live], seen.numeric[:, aside][live]))
    return Forest(probe, odds, seen.entity[:, aside], seen.source[:, aside])


def _playbook_space() -> tuple[Dimension, ...]:
    names = ("first", "second", "third")
    return (
        Dimension("answers", choices=_ANSWERS),
        *(Dimension(name, 0.5, 4.5) for name in names),
    )


def _thresholds(values: np.ndarray, settings: Mapping[str, Any]) -> list[float]:
    """Thresholds of the answers in use, rarer ones for severer answers; inf for the others."""
    found = _named_thresholds(values, settings)
    return [found.get(name, np.inf) for name in ("alert", "block", "quarantine")]


def _named_thresholds(values: np.ndarray, settings: Mapping[str, Any]) -> dict[str, float]:
    used = settings["answers"].split()
    rarity = sorted(settings[name] for name in ("first", "second", "third"))[: len(used)]
    cuts = np.quantile(values, [1.0 - 10.0**-each for each in rarity])
    return dict(zip(used, cuts.tolist(), strict=True))


def _kept(settings: Mapping[str, Any]) -> float:
    """The share of the evidence that is left after one more event of the process."""
    return float(0.5 ** (1.0 / settings["half_life"]))


@dataclass(frozen=True, eq=False)
class PlaybookFamily:
    """Playbooks without memory: which answers are in use and how rare a score each of them takes.

    Attributes:
        forest: fitted.
        ticket_open: place of that column.
    """

    forest: Forest
    ticket_open: int | None

    @property
    def space(self) -> tuple[Dimension, ...]:
        """Rarities are -log10 of the share of events that score higher."""
        return _playbook_space()

    def build(self, settings: Sequence[Mapping[str, Any]], n_envs: int) -> PlaybookPolicy:
        """The policies of some settings side by side."""
        rows = np.array([_thresholds(self._values, each) for each in settings], np.float32)
        return PlaybookPolicy(
            self.forest.probe.score, np.repeat(rows, n_envs, axis=0), ticket_open=self.ticket_open
        )

    def explain(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The thresholds in use, in log-odds."""
        return _named_thresholds(self._values, settings)

    @property
    def _values(self) -> Float[np.ndarray, " row"]:
        return self.forest.odds[np.isfinite(self.forest.odds)]


@dataclass(frozen=True, eq=False)
class EvidenceFamily:
    """Playbooks on a process's evidence: also how fast it is forgotten, and what counts as none.

    Attributes:
        forest: fitted.
        n_entities: memory slots.
        ticket_open: place of that column.
    """

    forest: Forest
    n_entities: int
    ticket_open: int | None

    @property
    def space(self) -> tuple[Dimension, ...]:
        """Those of a playbook, the half-life in events of the process, and the drift in log-odds."""
        return (
            *_playbook_space(),
            Dimension("half_life", 1.0, 128.0, log=True),
            Dimension("drift", -6.0, 1.0),
        )

    def build(self, settings: Sequence[Mapping[str, Any]], n_envs: int) -> EvidencePolicy:
        """The policies of some settings side by side."""
        keep = [_kept(each) for each in settings]
        rows = [_thresholds(self._evidence(each), each) for each in settings]
        return EvidencePolicy(
            score=self.forest.probe.score,
            thresholds=np.repeat(np.array(rows, np.float32), n_envs, axis=0),
            keep=np.repeat(np.array(keep, np.float32), n_envs),
            drift=np.repeat(np.array([each["drift"] for each in settings], np.float32), n_envs),
            n_entities=self.n_entities,
            ticket_open=self.ticket_open,
        )

    def explain(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The thresholds in use, the share of the evidence kept at each event, and the drift."""
        thresholds = _named_thresholds(self._evidence(settings), settings)
        return {**thresholds, "keep": _kept(settings), "drift": settings["drift"]}

    def _evidence(self, settings: Mapping[str, Any]) -> Float[np.ndarray, " row"]:
        """The evidence on the episodes held back."""
        keep, drift = _kept(settings), settings["drift"]
        n = self.forest.odds.shape[1]
        kept, rows = np.zeros((n, self.n_entities), np.float32), []
        for odds, entity, source in zip(
            self.forest.odds, self.forest.entity, self.forest.source, strict=True
        ):
            live = np.isfinite(odds)
            before = recall(kept, source, 0.0)
            evidence = np.maximum(keep * before + np.where(live, odds, 0.0) - drift, 0.0)
            kept = note(kept, entity, evidence.astype(np.float32))
            rows.append(evidence[live])
        return np.concatenate(rows)
