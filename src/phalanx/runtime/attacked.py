"""A measurement with liars in the committee: what is asked for, what they learn first, and where they take part."""

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from phalanx.committee.adversaries import threat_of
from phalanx.committee.faults import Threat
from phalanx.committee.learned import LearnedLiar
from phalanx.envs.base import Environment
from phalanx.errors import UsageError
from phalanx.runtime.cut import Cut
from phalanx.runtime.decide import Committee
from phalanx.runtime.liar_training import train_liar
from phalanx.runtime.lies import Lied, expected, lied
from phalanx.runtime.policies import CommitteePolicy
from phalanx.runtime.watch import Watched
from phalanx.types import ObservationSpec

__all__ = ["Liars", "LiarsAsked", "asked_for", "horizon_of", "prepare"]

_LOG = logging.getLogger("phalanx")
_LEARN, _DETECT, _PLAY = 2, 3, 4  # draws of liars; yardstick's are 0 and 1


@dataclass(frozen=True)
class LiarsAsked:
    """Which liars a measurement is to hold.

    Attributes:
        adversary: name in ``ADVERSARIES``.
        faulty: members that are such.
    """

    adversary: str
    faulty: int

    def threat(self, spec: ObservationSpec, horizon: int) -> Threat:
        """The same, in episodes of so many events."""
        return Threat((self.adversary,), self.faulty, max(horizon, 1), spec.n_entities)


def asked_for(n_members: int, f: int, faulty: int | None, adversary: str | None) -> LiarsAsked | None:
    """What ``--faulty`` and ``--adversary`` ask for: without either nobody lies; f members, or the worst case, where
    one of the two is given alone.

    Raises:
        UsageError: an unknown adversary, more faulty members than there are, or none to be faulty.

    Example:
        >>> asked_for(7, 2, None, "flip"), asked_for(7, 2, 1, None)
        (LiarsAsked(adversary='flip', faulty=2), LiarsAsked(adversary='worst-case', faulty=1))
    """
    if faulty == 0 and adversary is not None:
        raise UsageError(f"--faulty 0 with --adversary {adversary}: nobody is faulty; leave --adversary out")
    if not faulty and adversary is None:
        return None
    if faulty is None and f == 0:
        raise UsageError(
            f"--adversary {adversary}: {n_members} members tolerate no faulty one; give --faulty"
        )
    number = f if faulty is None else faulty
    threat_of([adversary or "worst-case"], number, n_members=n_members, horizon=1, n_entities=1)
    return LiarsAsked(adversary or "worst-case", number)


@dataclass(frozen=True)
class Liars:
    """Faulty members of a measurement.

    Attributes:
        asked: how many, and of what kind.
        learned: what those that learn have learned.
        key: of what they draw.
    """

    asked: LiarsAsked
    learned: LearnedLiar | None
    key: PRNGKeyArray

    def detect(
        self, test: Watched, threshold: float | Cut | None, committee: Committee
    ) -> tuple[Lied, dict[str, Any]]:
        """The watched events judged under lies, and what ``eval.json`` says of the committee then: ``faulty``,
        ``adversary``, ``abstain``, ``verdicts`` (rates that were measured) and ``expected`` (those to be expected on
        the same events from honest votes alone, None where nothing can be)."""
        threat = self.asked.threat(committee.spec, horizon_of(test))
        key = jax.random.fold_in(self.key, _DETECT)
        under = lied(test, threshold, committee.f, threat, key, learned=self.learned)
        told = expected(test, threshold, committee.f, threat)
        return under, {
            "faulty": self.asked.faulty,
            "adversary": self.asked.adversary,
            "abstain": under.abstain,
            "verdicts": dataclasses.asdict(under.rates(test.label)),
            "expected": None if told is None else dataclasses.asdict(told),
        }

    def among(self, policy: CommitteePolicy, env: Environment) -> CommitteePolicy:
        """The committee with these liars among its members, in episodes of an environment."""
        threat = self.asked.threat(policy.committee.spec, env.episode_events)
        key = jax.random.fold_in(self.key, _PLAY)
        return dataclasses.replace(policy, threat=threat, key=key, learned=self.learned)


def horizon_of(watched: Watched) -> int:
    """Events of the longest lane: a sleeper wakes half-way."""
    return 1 if watched.time is None else 1 + int(np.max(watched.time, initial=0))


def prepare(
    asked: LiarsAsked, known: Callable[[], Watched], threshold: float | Cut | None, f: int, key: PRNGKeyArray
) -> Liars:
    """The liars asked for, those that learn trained.

    Args:
        asked: how many, and of what kind.
        known: opinions on events that nothing is measured on; called where something is to be learned.
        threshold: operating point of the committee.
        f: faults that the rule tolerates.
        key: of all draws.
    """
    if asked.adversary != "learned":
        return Liars(asked, None, key)
    liar, report = train_liar(known(), threshold, f, asked.faulty, jax.random.fold_in(key, _LEARN))
    _LOG.info("a liar has learned: its harm went from %.3f to %.3f", report.honest, report.after)
    return Liars(asked, liar, key)
