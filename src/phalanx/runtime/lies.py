"""Detection under lies, open loop: opinions that were collected once, judged again with faulty members among them, and
what is to be expected of that from the honest votes alone."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from phalanx.analysis.verdict_rates import VerdictRates, certain, verdict_rates
from phalanx.committee.faults import HONEST, NOTHING, Faults, Threat, liar_sets, say
from phalanx.committee.prediction import PREDICTED, Reaction, predict
from phalanx.errors import RunError
from phalanx.runtime.cut import Cut
from phalanx.runtime.decide import ballots, hearing, settle, suspicion_told, vote
from phalanx.runtime.watch import Watched, ballot, verdicts
from phalanx.types import Verdict

__all__ = ["Lied", "expected", "lied", "liars_of", "reaction"]

_CHUNK = 2048  # events judged at a time: the search through omissions holds some hundred ballots for each


class Lied(NamedTuple):
    """What came of N events with liars in the committee.

    Attributes:
        verdict: the committee's.
        votes: as cast, -1 where none was received.
        score: mean over the opinions told of P(verdict >= alert).
        honest: the verdict without liars.
        faulty: who lied.
    """

    verdict: Int[np.ndarray, " event"]
    votes: Int[np.ndarray, "event member"]
    score: Float[np.ndarray, " event"]
    honest: Int[np.ndarray, " event"]
    faulty: Bool[np.ndarray, "event member"]

    def rates(self, label: Int[np.ndarray, " event"]) -> VerdictRates:
        """How often each verdict was given."""
        return verdict_rates(label, certain(self.verdict), self.honest)

    @property
    def abstain(self) -> float:
        """Share of the votes that were not received."""
        return float((self.votes < 0).mean())


@dataclass(frozen=True)
class _Liars:
    """Faults of every watched event."""

    faulty: Bool[np.ndarray, "event member"]
    wakes: int
    target: Int[np.ndarray, " event"]
    time: Int[np.ndarray, " event"]
    entity: Int[np.ndarray, " event"]


def liars_of(watched: Watched, threat: Threat) -> Bool[np.ndarray, "event member"]:
    """Who lies on each event: every set of so many members in equally many lanes, as near as that goes."""
    lane, _, _ = _places(watched)
    sets = liar_sets(watched.log_probs.shape[1], threat.most)
    return sets[lane % len(sets)]


def _places(watched: Watched) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    if watched.lane is None or watched.time is None or watched.entity is None:
        raise RunError("these opinions were collected without their places; collect them with runtime.watch")
    return watched.lane, watched.time, watched.entity


def _faults(watched: Watched, threat: Threat, key: PRNGKeyArray) -> _Liars:
    lane, time, entity = _places(watched)
    target = jax.random.randint(key, (int(lane.max(initial=0)) + 1,), 0, threat.n_entities)
    return _Liars(
        liars_of(watched, threat),
        threat.horizon // 2,
        np.asarray(target)[lane],
        time,
        entity.astype(np.int32),
    )


def lied(
    watched: Watched,
    threshold: float | Cut | None,
    f: int,
    threat: Threat,
    key: PRNGKeyArray,
    *,
    learned: Any = None,
    label: Int[np.ndarray, " event"] | None = None,
) -> Lied:
    """Judges the events again, through the decision path, with liars among the members.

    Args:
        watched: opinions, honestly held.
        threshold: operating point; None where members take their likeliest verdict.
        f: faults that the rule tolerates.
        threat: one kind of liars, always so many.
        key: of their draws.
        learned: parameters of liars that were trained.
        label: what liars are shown of the truth; nothing unless given.
    """
    key_target, key = jax.random.split(key)
    own, n_events = _faults(watched, threat, key_target), len(watched.label)
    shown = np.full(n_events, -1, np.int32) if label is None else label.astype(np.int32)
    parts, size = [], min(_CHUNK, n_events)
    for chunk, begin in enumerate(range(0, n_events, size)):
        rows = np.arange(begin, begin + size).clip(max=n_events - 1)  # the last chunk repeats its last event
        faults = Faults(
            faulty=jnp.asarray(own.faulty[rows]),
            kind=jnp.zeros(size, jnp.int32),
            wakes=jnp.full(size, own.wakes, jnp.int32),
            target=jnp.asarray(own.target[rows]),
            time=jnp.asarray(own.time[rows], jnp.int32),
            label=jnp.asarray(shown[rows]),
            clock=jnp.asarray(chunk, jnp.int32),
            key=key,
            learned=learned,
            threat=threat,
        )
        log_probs = jnp.moveaxis(jnp.asarray(watched.log_probs[rows]), 1, 0)
        part = _judge(faults, log_probs, jnp.asarray(own.entity[rows]), _cut(threshold), f)
        parts.append(jax.tree.map(lambda leaf, n=n_events - begin: np.asarray(leaf)[:n], part))
    verdict, votes, score = (np.concatenate(leaves) for leaves in zip(*parts, strict=True))
    honest = verdicts(ballot(watched, threshold, f), f)
    return Lied(verdict, votes, score, honest, own.faulty)


def _cut(threshold: float | Cut | None) -> Cut | None:
    return None if threshold is None else Cut.of(threshold).arrays()


@eqx.filter_jit
def _judge(
    faults: Faults, log_probs: Array, entity: Array, threshold: Cut | None, f: int
) -> tuple[Array, Array, Array]:
    statements = hearing(log_probs, faults, entity, f, threshold=threshold)
    score = suspicion_told(statements)
    return settle(statements.votes, statements.received, score, f).action, statements.votes, score


def reaction(
    log_probs: Float[np.ndarray, "event member verdict"],
    threshold: float | Cut | None,
    faulty: Bool[np.ndarray, " member"],
    f: int,
) -> Reaction:
    """How members vote on the events, whatever this set of liars says beforehand.

    Args:
        log_probs: opinions, honestly held.
        threshold: operating point; None where members take their likeliest verdict.
        faulty: the liars.
        f: faults that the rule tolerates.
    """
    opinions, n_events = jnp.moveaxis(jnp.asarray(log_probs), 1, 0), len(log_probs)
    liars = np.flatnonzero(faulty)

    def if_said(codes: list[int]) -> np.ndarray:
        said = np.full(len(faulty), HONEST, np.int32)
        said[liars] = codes
        each = jnp.broadcast_to(jnp.asarray(said), (n_events, len(faulty)))
        return np.asarray(_respond(opinions, jnp.asarray(faulty), each, _cut(threshold), f))

    k = len(liars)
    alarmed = [[int(Verdict.QUARANTINE)] * a + [int(Verdict.ALLOW)] * (k - a) for a in range(k + 1)]
    return Reaction(
        honest=if_said([HONEST] * k),
        told=np.stack([if_said(codes) for codes in alarmed]),
        unheard=if_said([NOTHING] * k),
        faulty=faulty,
        f=f,
    )


@eqx.filter_jit
def _respond(opinions: Array, faulty: Array, said: Array, threshold: Cut | None, f: int) -> Array:
    told, heard = say(opinions, jnp.broadcast_to(faulty, said.shape), said)
    if threshold is None:
        return vote(opinions).T
    return ballots(opinions, threshold, f, told=told, heard=heard).T


def expected(
    watched: Watched, threshold: float | Cut | None, f: int, threat: Threat, *, every_set: bool = False
) -> VerdictRates | None:
    """The exact rates to be expected with liars, from the joint distribution of honest votes; None for liars that were
    trained, of whom nothing can be said beforehand.

    Args:
        watched, threshold, f, threat: see ``lied``.
        every_set: expect them over all sets of liars on every event; else with the set that ``lied`` takes on it, so
            that both speak of the very same events.
    """
    if threat.kinds[0] not in PREDICTED:
        return None
    _, time, _ = _places(watched)
    log_probs, label = watched.log_probs, watched.label
    lies = {
        "sleeper": (time >= threat.horizon // 2).astype(float),
        "targeted-process": np.full(len(label), 1 / threat.n_entities),
    }.get(threat.kinds[0])
    faulty = liars_of(watched, threat)
    sets = liar_sets(log_probs.shape[1], threat.most)
    chance = np.zeros((len(label), len(Verdict)))
    for own in sets:
        found = predict(threat.kinds[0], reaction(log_probs, threshold, own, f), lies=lies)
        weight = (
            np.full(len(label), 1 / len(sets)) if every_set else (faulty == own).all(axis=1).astype(float)
        )
        chance += weight[:, None] * found
    return verdict_rates(label, chance, verdicts(ballot(watched, threshold, f), f))
