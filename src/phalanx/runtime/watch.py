"""Detection, open loop: the committee's opinions on events that happen whatever it says.

Verdicts are logged and not applied, so that all policies are compared on the same events.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from phalanx.agents.memory import MemoryTable, init_memory, write
from phalanx.envs.base import Environment
from phalanx.envs.recorded import Lanes, lanes
from phalanx.envs.response import CONTEXT_COLUMNS
from phalanx.envs.stream import StreamEnv
from phalanx.runtime.cut import Cut
from phalanx.runtime.decide import Committee, ballots, consult, deliberate, settle, vote
from phalanx.types import Verdict

__all__ = [
    "Shown",
    "Watched",
    "ballot",
    "cut_rows",
    "rehearse",
    "operating_score",
    "shown",
    "verdicts",
    "watch",
]

_WARMUP = 256
_NEVER = float("inf")  # a threshold that no suspicion reaches: every event is allowed


class Watched(NamedTuple):
    """Opinions on N scored events.

    Attributes:
        label: 1 malicious, 0 benign, -1 unknown.
        log_probs: log-probabilities of the four verdicts, per member.
        category, numeric: what the members saw, for a probe on the same inputs.
        lane, time, entity: the lane (an episode, in a simulator), the number of the event in it, and the memory slot of
            the acting process; None where nobody kept them.
    """

    label: Int[np.ndarray, " event"]
    log_probs: Float[np.ndarray, "event member verdict"]
    category: Int[np.ndarray, "event column"]
    numeric: Float[np.ndarray, "event feature"]
    lane: Int[np.ndarray, " event"] | None = None
    time: Int[np.ndarray, " event"] | None = None
    entity: Int[np.ndarray, " event"] | None = None

    @property
    def score(self) -> Float[np.ndarray, " event"]:
        """Mean over members of P(verdict >= alert)."""
        return 1.0 - np.exp(self.log_probs[..., Verdict.ALLOW]).mean(axis=1)


class Shown(NamedTuple):
    """What members see of N recorded events whose verdicts are only logged.

    Attributes:
        label: 1 malicious, 0 benign, -1 unknown.
        category, numeric: as in ``Watched``.
    """

    label: Int[np.ndarray, " event"]
    category: Int[np.ndarray, "event column"]
    numeric: Float[np.ndarray, "event feature"]


def shown(env: StreamEnv, most: int) -> Shown:
    """Recorded events as members see them, at most so many, spread evenly over all rows; asks no committee."""
    events = env.events
    rows = np.unique(np.linspace(0, events.n_rows - 1, min(most, events.n_rows)).astype(np.int64))
    numeric = np.asarray(events.numeric)[rows]
    context = np.zeros((len(rows), len(CONTEXT_COLUMNS)), np.float32)  # as StreamEnv shows it
    return Shown(
        np.asarray(events.label)[rows],
        np.asarray(events.category)[rows],
        np.concatenate([numeric, context], axis=1),
    )


def cut_rows(n_rows: int, n_lanes: int, most: int | None) -> Lanes:
    """Lanes over all rows, or over their beginnings so that at most ``most`` rows are scored in all."""
    n_lanes = min(n_lanes, n_rows)
    cut = lanes(n_rows, n_lanes, _WARMUP if n_rows > 4 * _WARMUP else 0)
    if most is None:
        return cut
    stop = jnp.minimum(cut.stop, cut.first + max(most // n_lanes, 1))
    return Lanes(start=cut.start, first=cut.first, stop=stop)


def watch(
    env: Environment,
    committee: Committee,
    key: PRNGKeyArray,
    memory_size: int,
    *,
    n_lanes: int = 64,
    most: int | None = None,
) -> Watched:
    """Shows events to the committee and collects its opinions.

    Args:
        env: a ``StreamEnv`` (its rows in order, each once) or a simulator (one episode a lane).
        committee: whose opinions.
        key: of the simulator's episodes.
        memory_size: numbers per memory.
        n_lanes: contiguous parts of the rows, or episodes, side by side.
        most: rows scored at most; all unless given.
    """
    parts = list(_watched(env, committee, key, memory_size, n_lanes, most, _NEVER))
    scored, label, log_probs, category, numeric, entity, _, _ = (
        np.concatenate(leaves) for leaves in zip(*parts, strict=True)
    )
    order = np.moveaxis(scored, 0, 1)  # lane by lane: the order of the rows
    lane, time = np.nonzero(order)

    def flat(leaf: np.ndarray) -> np.ndarray:
        return np.moveaxis(leaf, 0, 1)[order]

    return Watched(
        label=flat(label),
        log_probs=flat(np.moveaxis(log_probs, 1, 2)),
        category=flat(category),
        numeric=flat(numeric),
        lane=lane,
        time=time,
        entity=flat(entity),
    )


class Rehearsed(NamedTuple):
    """How well a committee responds, measured on the fly.

    Attributes:
        loss: mean over the episodes, see ``types.Score``.
        satisfied: share of the episodes in which each specification held throughout.
    """

    loss: float
    satisfied: Float[np.ndarray, " spec"]


def rehearse(
    env: Environment,
    committee: Committee,
    key: PRNGKeyArray,
    memory_size: int,
    *,
    n_lanes: int,
    threshold: float | Cut,
) -> Rehearsed:
    """The same episodes with the verdicts applied, in the compiled loop that ``watch`` has anyway.

    Args:
        env: a simulator.
        committee, key, memory_size, n_lanes: see ``watch``; the same key gives every threshold the same draws.
        threshold: on the suspicion that the members agree on, from which on they answer, in [0, 1].
    """
    parts = list(_watched(env, committee, key, memory_size, n_lanes, None, threshold))
    losses, robustness = (
        np.concatenate(leaves) for leaves in zip(*(part[-2:] for part in parts), strict=True)
    )
    return Rehearsed(
        loss=float(losses.max(axis=0).mean()),  # losses only grow
        satisfied=(robustness.min(axis=0) >= 0.0).mean(axis=0),
    )


def _watched(
    env: Environment,
    committee: Committee,
    key: PRNGKeyArray,
    memory_size: int,
    n_lanes: int,
    most: int | None,
    threshold: float | Cut,
) -> Iterator[tuple[np.ndarray, ...]]:
    """What ``_watch_chunk`` records, chunk by chunk."""
    if isinstance(env, StreamEnv):
        cut = cut_rows(env.events.n_rows, n_lanes, most)
        n_lanes = cut.start.shape[0]
        state, observation = jax.vmap(env.reset_lane)(cut.start, cut.first, cut.stop)
        steps = int((cut.stop - cut.start).max())
    else:
        key_reset, key = jax.random.split(key)  # a split and a fold-in of one key give the same keys
        state, observation = jax.vmap(env.reset)(jax.random.split(key_reset, n_lanes))
        steps = env.episode_events
    table = init_memory(committee.n_members, n_lanes, env.spec.n_entities, memory_size)
    carry = (state, observation, table, jnp.ones(n_lanes, bool))
    chunk, cut = 256, Cut.of(threshold).arrays()
    for begin in range(0, steps, chunk):
        carry, part = _watch_chunk(env, committee, carry, jnp.asarray(begin), key, chunk, cut)
        yield jax.tree.map(np.asarray, part)


@eqx.filter_jit
def _watch_chunk(
    env: Environment,
    committee: Committee,
    carry: Any,
    begin: Array,
    key: PRNGKeyArray,
    chunk: int,
    threshold: Cut,
) -> tuple[Any, Any]:
    def step(carry: tuple[Any, Any, MemoryTable, Array], t: Array) -> tuple[Any, Any]:
        state, observation, table, alive = carry
        opinion = consult(committee, table, observation)
        table = write(table, observation.entity, opinion.memories, t)
        keys = jax.random.split(jax.random.fold_in(key, begin + t), alive.shape[0])
        votes = ballots(opinion.log_probs, threshold, committee.f).T
        verdict = settle(votes, jnp.ones(votes.shape, bool), jnp.zeros(alive.shape), committee.f).action
        label = jax.vmap(env.learned_label)(state)
        scored = alive if not isinstance(env, StreamEnv) else alive & jax.vmap(env.scored)(state)
        state, time_step = jax.vmap(env.step)(state, verdict, keys)
        loss = jnp.where(alive, time_step.score.loss, 0.0)
        robustness = jnp.where(alive[:, None], time_step.robustness, jnp.inf)
        record = (
            scored, label, opinion.log_probs, observation.category, observation.numeric, observation.entity, loss,
            robustness,
        )  # fmt: skip
        return (state, time_step.observation, table, alive & ~time_step.done), record

    return jax.lax.scan(step, carry, jnp.arange(chunk))


def operating_score(
    log_probs: Float[np.ndarray, "event member verdict"], f: int
) -> Float[np.ndarray, " event"]:
    """The number whose comparison with a threshold tells whether the committee answers with alert or more."""
    return np.asarray(deliberate(jnp.moveaxis(jnp.asarray(log_probs), 1, 0), f))


def ballot(watched: Watched, threshold: float | Cut | None, f: int) -> Int[np.ndarray, "event member"]:
    """The votes at an operating point; without one, each member's likeliest verdict."""
    log_probs = jnp.asarray(watched.log_probs)
    if threshold is None:
        return np.asarray(vote(log_probs))
    return np.asarray(ballots(jnp.moveaxis(log_probs, 1, 0), threshold, f)).T


def verdicts(
    votes: Int[np.ndarray, "event member"], f: int, received: Bool[np.ndarray, "..."] | None = None
) -> Any:
    """The committee's verdicts on votes of many events."""
    ballots = jnp.asarray(votes, jnp.int32)
    there = jnp.ones(ballots.shape, bool) if received is None else jnp.asarray(received)
    return np.asarray(settle(ballots, there, jnp.zeros(ballots.shape[0], jnp.float32), f).action)
