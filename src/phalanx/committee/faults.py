"""Which members are faulty, in which way, and what they know: data, so that every environment may have its own."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from phalanx.committee.voting import tally, verdict_of
from phalanx.types import N_VERDICTS

__all__ = [
    "HONEST",
    "NOTHING",
    "Faults",
    "Respond",
    "Scene",
    "Speech",
    "Statements",
    "Threat",
    "advance",
    "init_faults",
    "liar_sets",
    "outcome",
    "say",
]

HONEST, NOTHING = -1, -2
"""In the place of a verdict: what the member honestly thinks, and what is not received."""

_SURE = 1e4  # log-odds of a lie: beyond every honest opinion, and still a finite number

Respond = Callable[[Float[Array, "member env verdict"], Bool[Array, "member env"]], Int[Array, "env member"]]
"""The votes of members that hear these opinions of one another, and only those marked as heard."""


@dataclass(frozen=True)
class Threat:
    """What may go wrong; the same for all environments.

    Attributes:
        kinds: names of adversaries that may occur.
        most: faulty members at a time.
        horizon: events of an episode; a sleeper wakes in it.
        n_entities: processes that memory can tell apart.
        drawn: whether each episode draws how many members are faulty (0 to ``most``), which, and of what kind; else
            exactly ``most`` are, every set of them in equally many environments, and the kinds come in turn.
    """

    kinds: tuple[str, ...]
    most: int
    horizon: int
    n_entities: int = 1
    drawn: bool = False


class Faults(eqx.Module):
    """Who is faulty in each environment.

    Attributes:
        faulty: which members.
        kind: of what kind, a place in ``threat.kinds``.
        wakes: event of the episode at which a sleeper stops being honest.
        target: memory slot of the process that a liar protects.
        time: events decided in the episode so far.
        label: what liars who know the truth are shown: 1 malicious, 0 benign, -1 nothing.
        clock: steps so far; with ``key`` it makes all draws.
        key: of the draws.
        learned: parameters of an adversary that was trained, None where there is none.
        threat: what may go wrong.
    """

    faulty: Bool[Array, "env member"]
    kind: Int[Array, " env"]
    wakes: Int[Array, " env"]
    target: Int[Array, " env"]
    time: Int[Array, " env"]
    label: Int[Array, " env"]
    clock: Int[Array, ""]
    key: PRNGKeyArray
    learned: Any
    threat: Threat = eqx.field(static=True)

    def shown(self, label: Int[Array, " env"]) -> "Faults":
        """The same liars, who are told the truth of the events to come."""
        return eqx.tree_at(lambda own: own.label, self, label.astype(jnp.int32))


class Statements(eqx.Module):
    """What is received of the members on one event per environment.

    Attributes:
        told: opinions as they tell them, log-probabilities of the four verdicts.
        heard: whose opinion is received.
        votes: as they are cast, -1 where none is received.
        received: whose vote is received.
        own: what each member would vote itself, having heard the others, whatever it then says.
    """

    told: Float[Array, "member env verdict"]
    heard: Bool[Array, "member env"]
    votes: Int[Array, "env member"]
    received: Bool[Array, "env member"]
    own: Int[Array, "env member"]


class Speech(eqx.Module):
    """What faulty members say, in codes: a verdict that they claim to be certain of, ``HONEST`` or ``NOTHING``.

    Attributes:
        opinion: before the vote; entries of members that are not faulty are not read.
        vote: likewise.
        kept: votes that a lying proposer does not leave out, of any member.
    """

    opinion: Int[Array, "env member"]
    vote: Int[Array, "env member"]
    kept: Bool[Array, "env member"]


@dataclass(frozen=True)
class Scene:
    """All that an adversary may know of one event per environment.

    Attributes:
        log_probs: opinions that all members honestly hold, the faulty ones' own included.
        faults: who is faulty.
        respond: how members vote on what they are told.
        f: faults that the rule tolerates.
        entity: memory slot of the acting process.
        key: of this event's draws.
    """

    log_probs: Float[Array, "member env verdict"]
    faults: Faults
    respond: Respond
    f: int
    entity: Int[Array, " env"]
    key: PRNGKeyArray

    @cached_property
    def honest(self) -> Int[Array, "env member"]:
        """All votes, were nobody faulty."""
        return self.respond(self.log_probs, jnp.ones(self.log_probs.shape[:2], bool))

    @cached_property
    def verdict(self) -> Int[Array, " env"]:
        """The verdict, were nobody faulty."""
        return outcome(self.honest, jnp.ones_like(self.honest, bool), self.f)

    @cached_property
    def rank(self) -> Int[Array, "env member"]:
        """Number of a faulty member among the faulty ones, from 0."""
        return jnp.cumsum(self.faults.faulty, axis=1, dtype=jnp.int32) - 1

    def votes_if(self, opinion: Int[Array, "env member"]) -> Int[Array, "env member"]:
        """All members' own votes where faulty ones tell these opinions."""
        return self.respond(*say(self.log_probs, self.faults.faulty, opinion))

    def all_say(self, code: int) -> Int[Array, "env member"]:
        """The same code of everybody."""
        return jnp.full(self.faults.faulty.shape, code, jnp.int32)


def say(
    log_probs: Float[Array, "member env verdict"],
    faulty: Bool[Array, "env member"],
    opinion: Int[Array, "env member"],
) -> tuple[Float[Array, "member env verdict"], Bool[Array, "member env"]]:
    """The opinions told, and which of them are heard.

    Args:
        log_probs: what members honestly think.
        faulty: whose opinion is replaced.
        opinion: by which code (see ``Speech``).
    """
    certain = jnp.where(jnp.eye(N_VERDICTS, dtype=bool), 0.0, -_SURE).astype(log_probs.dtype)
    code = jnp.where(faulty, opinion, HONEST).T
    told = jnp.where((code >= 0)[..., None], certain[jnp.maximum(code, 0)], log_probs)
    return told, code != NOTHING


def outcome(
    votes: Int[Array, "*batch member"], received: Bool[Array, "*batch member"], f: int
) -> Int[Array, "*batch"]:
    """The rule's verdict on each ballot of a batch."""
    flat = votes.reshape(-1, votes.shape[-1]), received.reshape(-1, votes.shape[-1])
    return jax.vmap(lambda v, r: verdict_of(tally(v, r), f))(*flat).reshape(votes.shape[:-1])


def liar_sets(n_members: int, faulty: int) -> Bool[np.ndarray, "set member"]:
    """Every set of so many faulty members.

    Example:
        >>> liar_sets(3, 2).astype(int).tolist()
        [[1, 1, 0], [1, 0, 1], [0, 1, 1]]
    """
    sets = [np.isin(range(n_members), some) for some in itertools.combinations(range(n_members), faulty)]
    return np.stack(sets)


def init_faults(
    threat: Threat, n_members: int, n_envs: int, key: PRNGKeyArray, *, learned: Any = None
) -> Faults:
    """Faults at the beginning of an episode in each environment.

    Args:
        threat: what may go wrong.
        n_members: size of the committee.
        n_envs: environments side by side.
        key: of all draws.
        learned: parameters for the adversary of that name.
    """
    key_first, key = jax.random.split(key)
    if threat.drawn:
        faulty, kind, wakes, target = _draw(threat, n_members, n_envs, key_first)
    else:
        sets = liar_sets(n_members, threat.most)
        place = np.arange(n_envs)
        faulty = jnp.asarray(sets[place % len(sets)])
        kind = jnp.asarray(place // len(sets) % len(threat.kinds), jnp.int32)
        wakes = jnp.full(n_envs, threat.horizon // 2, jnp.int32)
        target = jax.random.randint(key_first, (n_envs,), 0, threat.n_entities)
    return Faults(
        faulty=faulty,
        kind=kind,
        wakes=wakes,
        target=target,
        time=jnp.zeros(n_envs, jnp.int32),
        label=jnp.full(n_envs, -1, jnp.int32),
        clock=jnp.zeros((), jnp.int32),
        key=key,
        learned=learned,
        threat=threat,
    )


def _draw(
    threat: Threat, n_members: int, n_envs: int, key: PRNGKeyArray
) -> tuple[Array, Array, Array, Array]:
    """Faulty members, kind, waking and target, each uniform over what it may be."""
    key_count, key_order, key_kind, key_wakes, key_target = jax.random.split(key, 5)
    count = jax.random.randint(key_count, (n_envs, 1), 0, threat.most + 1)
    order = jnp.argsort(jax.random.uniform(key_order, (n_envs, n_members)), axis=1)
    return (
        jnp.argsort(order, axis=1) < count,
        jax.random.randint(key_kind, (n_envs,), 0, len(threat.kinds)),
        jax.random.randint(key_wakes, (n_envs,), 0, max(threat.horizon, 1)),
        jax.random.randint(key_target, (n_envs,), 0, threat.n_entities),
    )


def advance(faults: Faults, done: Bool[Array, " env"]) -> Faults:
    """Faults at the next event; where an episode has ended a new one begins, with faults of its own where they are
    drawn."""
    time = jnp.where(done, 0, faults.time + 1)
    after = eqx.tree_at(lambda own: (own.time, own.clock), faults, (time, faults.clock + 1))
    if not faults.threat.drawn:
        return after
    n_envs, n_members = faults.faulty.shape
    # the draws of an event take the even places, those of its end the odd ones
    fresh = _draw(faults.threat, n_members, n_envs, jax.random.fold_in(faults.key, 2 * faults.clock + 1))
    old = (faults.faulty, faults.kind, faults.wakes, faults.target)
    renewed = tuple(
        jnp.where(done.reshape(-1, *(1,) * (own.ndim - 1)), new, own)
        for new, own in zip(fresh, old, strict=True)
    )
    return eqx.tree_at(lambda own: (own.faulty, own.kind, own.wakes, own.target), after, renewed)
