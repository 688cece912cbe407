"""Memory slots: which of a fixed number of slots a process has, least recently used out first."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

__all__ = ["Claim", "SlotTable", "claim", "init_slots"]

_NEVER = 2**31 - 1


class SlotTable(eqx.Module):
    """Which process each memory slot belongs to, least recently used out first.

    Attributes:
        subject: process of each slot, -1 empty.
        parent_subject: its parent, -1 unknown.
        parent: slot of its parent, -1 where that has none.
        used: when the slot was used last, in claims; 0 never.
        clock: claims so far.
    """

    subject: Int[Array, "*batch entity"]
    parent_subject: Int[Array, "*batch entity"]
    parent: Int[Array, "*batch entity"]
    used: Int[Array, "*batch entity"]
    clock: Int[Array, "*batch"]


class Claim(eqx.Module):
    """The slot given to an event's process.

    Attributes:
        entity: its slot.
        source: slot whose memory it continues: its own, at its first event its parent's, or -1 for blank memory.
        fresh: the slot is new to this process: whatever is kept per slot outside the table must be reset.
    """

    entity: Int[Array, "*batch"]
    source: Int[Array, "*batch"]
    fresh: Bool[Array, "*batch"]


def init_slots(n_entities: int) -> SlotTable:
    """A table in which no process is known."""
    none = jnp.full(n_entities, -1, jnp.int32)
    zero = jnp.zeros((), jnp.int32)
    return SlotTable(none, none, none, jnp.zeros(n_entities, jnp.int32), zero)


def claim(
    table: SlotTable, subject: Int[Array, ""], parent: Int[Array, ""], held: Bool[Array, " entity"]
) -> tuple[SlotTable, Claim]:
    """Finds the slot of a process, or gives it that of the process seen least recently.

    An evicted process loses its memory and its answers: should it act again, it counts as new. Slots in ``held``
    (processes in quarantine) are evicted only when all are held. A process may take its own parent's slot: its memory
    is read from there before it is written.

    Args:
        table: before the event.
        subject: acting process.
        parent: its parent, -1 unknown.
        held: slots to keep.
    """
    slots = jnp.arange(table.subject.shape[0], dtype=jnp.int32)
    own = table.subject == subject
    known = own.any()
    age = jnp.where(held & ~held.all(), _NEVER, table.used)
    entity = jnp.where(known, jnp.argmax(own), jnp.argmin(age)).astype(jnp.int32)
    above = (table.subject == parent) & (parent >= 0)
    parent_slot = jnp.where(above.any(), jnp.argmax(above), -1).astype(jnp.int32)
    fresh = ~known
    new = fresh & (slots == entity)

    links = jnp.where(fresh & (table.parent == entity), -1, table.parent)
    links = jnp.where(fresh & (table.parent_subject == subject), entity, links)
    links = jnp.where(new, jnp.where(parent_slot == entity, -1, parent_slot), links)
    clock = table.clock + 1
    table = SlotTable(
        subject=jnp.where(new, subject, table.subject),
        parent_subject=jnp.where(new, parent, table.parent_subject),
        parent=links,
        used=jnp.where(slots == entity, clock, table.used),
        clock=clock,
    )
    return table, Claim(entity=entity, source=jnp.where(known, entity, parent_slot), fresh=fresh)
