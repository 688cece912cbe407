"""Recurrent memory per process: a table of slots, gathered before an event and scattered after it.

Beside the memories the table keeps, per slot, which step of the current rollout wrote it, so that the update can replay
the very same reads by index (``network.unroll``) without carrying the table through the backward pass.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from phalanx.types import Observation

__all__ = [
    "MemoryReads",
    "MemoryTable",
    "clear",
    "init_memory",
    "initial_memories",
    "link_reads",
    "read",
    "start_rollout",
    "write",
]


class MemoryTable(eqx.Module):
    """Memories of all members, environments and processes.

    Attributes:
        cells: the memories.
        known: whether the slot holds a memory of this episode.
        writer: step of the current rollout that wrote the slot last, -1 if it was written before.
    """

    cells: Float[Array, "member env entity memory"]
    known: Bool[Array, "env entity"]
    writer: Int[Array, "env entity"]


class MemoryReads(eqx.Module):
    """Where an event's memory came from.

    Attributes:
        previous: step of this rollout that wrote it, -1 if none did.
        known: whether there was a memory at all (else it was blank).
        following: step of this rollout at which the same process reads what this event wrote, -1 if none does
            (filled in by ``link_reads`` once the rollout is complete).
    """

    previous: Int[Array, "*time env"]
    known: Bool[Array, "*time env"]
    following: Int[Array, "*time env"]


def init_memory(n_members: int, n_envs: int, n_entities: int, memory_size: int) -> MemoryTable:
    """A table without memories."""
    return MemoryTable(
        cells=jnp.zeros((n_members, n_envs, n_entities, memory_size), jnp.float32),
        known=jnp.zeros((n_envs, n_entities), bool),
        writer=jnp.full((n_envs, n_entities), -1, jnp.int32),
    )


def start_rollout(table: MemoryTable) -> MemoryTable:
    """The table with its writers forgotten: what it holds now is the rollout's initial memory."""
    return eqx.tree_at(lambda t: t.writer, table, jnp.full_like(table.writer, -1))


def _lanes(index: Int[Array, " env"]) -> Int[Array, " env"]:
    return jnp.arange(index.shape[0])


def read(
    table: MemoryTable, observation: Observation
) -> tuple[Float[Array, "member env memory"], MemoryReads]:
    """The memories that the events' processes bring along (blank where there is none), and where they came from."""
    slot = jnp.maximum(observation.source, 0)
    lanes = _lanes(slot)
    known = (observation.source >= 0) & table.known[lanes, slot]
    memories = jnp.where(known[None, :, None], table.cells[:, lanes, slot], 0.0)
    previous = jnp.where(known, table.writer[lanes, slot], -1)
    return memories, MemoryReads(previous=previous, known=known, following=jnp.full_like(previous, -1))


def write(
    table: MemoryTable,
    entity: Int[Array, " env"],
    memories: Float[Array, "member env memory"],
    step: Int[Array, ""],
) -> MemoryTable:
    """The table after the events, whose processes now remember ``memories``."""
    lanes = _lanes(entity)

    def put(cells: Array, memory: Array) -> Array:
        return cells.at[lanes, entity].set(memory, unique_indices=True, mode="promise_in_bounds")

    return MemoryTable(
        cells=jax.vmap(put)(table.cells, memories),
        known=table.known.at[lanes, entity].set(True),
        writer=table.writer.at[lanes, entity].set(step.astype(jnp.int32)),
    )


def link_reads(reads: MemoryReads, own: Bool[Array, "time env"]) -> MemoryReads:
    """Fills in ``following``.

    Args:
        reads: of a whole rollout.
        own: whether the event read its own process's slot (and not its parent's).
    """
    times = jnp.arange(reads.previous.shape[0], dtype=jnp.int32)
    reader = jnp.where(own & reads.known, reads.previous, -1)
    matches = reader[None] == times[:, None, None]  # [written at, read at, env]
    following = jnp.where(matches, times[None, :, None], -1).max(axis=1)
    return MemoryReads(previous=reads.previous, known=reads.known, following=following)


def clear(table: MemoryTable, done: Bool[Array, " env"]) -> MemoryTable:
    """The table with the memories of finished episodes forgotten."""
    return MemoryTable(
        cells=table.cells,
        known=table.known & ~done[:, None],
        writer=jnp.where(done[:, None], -1, table.writer),
    )


def initial_memories(
    cells: Float[Array, "env entity memory"], source: Int[Array, "time env"]
) -> Float[Array, "time env memory"]:
    """One member's memories at the rollout's start in the slots that its events read."""
    return cells[_lanes(source[0])[None], jnp.maximum(source, 0)]
