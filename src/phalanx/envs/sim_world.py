"""The processes of the simulated hosts: fixed slots, births and deaths, and what a benign process does next."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from phalanx.data.rolling import RollingState, init_rolling
from phalanx.envs.catalogue import COMMANDS_PER_PROGRAM, Tables

__all__ = ["World", "free_slot", "init_world", "kill", "pick", "spawn", "work_rate"]

_MILLI = 1000.0
_BURST, _CALM = 3.0, 0.7


class World(eqx.Module):
    """The process slots of all hosts; slot ``k`` belongs to host ``k // slots_per_host``.

    Attributes:
        host: host of the slot.
        alive: a process lives in it.
        first: that process has not shown an event yet.
        program: index into ``catalogue.PROGRAMS``.
        command: index into ``catalogue.COMMANDS``.
        parent: slot of its parent while both live, else -1.
        uid: user id.
        campaign: the campaign that it works for, -1 for benign work.
        serial: number of the process, unique in the episode and growing with its birth.
        born_of: serial of its parent, -1 where there was none.
        burst: it works at several times its normal rate.
        last: template of its last event, -1 before the first.
        rolling: statistics of its events.
        births: processes so far.
    """

    host: Int[Array, " slot"]
    alive: Bool[Array, " slot"]
    first: Bool[Array, " slot"]
    program: Int[Array, " slot"]
    command: Int[Array, " slot"]
    parent: Int[Array, " slot"]
    uid: Int[Array, " slot"]
    campaign: Int[Array, " slot"]
    serial: Int[Array, " slot"]
    born_of: Int[Array, " slot"]
    burst: Bool[Array, " slot"]
    last: Int[Array, " slot"]
    rolling: RollingState
    births: Int[Array, ""]


def init_world(tables: Tables, role: Int[Array, " host"], slots_per_host: int) -> World:
    """Hosts on which the processes of their roles run.

    Args:
        tables: the catalogue.
        role: per host, index into ``catalogue.ROLES``.
        slots_per_host: at least the processes of a role.
    """
    n_hosts = role.shape[0]
    n = n_hosts * slots_per_host
    slot = jnp.arange(n, dtype=jnp.int32)
    host, place = slot // slots_per_host, slot % slots_per_host
    n_start = tables.roles.shape[1]
    alive = place < n_start
    padding = jnp.zeros((n_hosts, slots_per_host - n_start), jnp.int32)
    program = jnp.concatenate([tables.roles[role], padding], axis=1).reshape(n)
    nobody = jnp.full(n, -1, jnp.int32)
    return World(
        host=host,
        alive=alive,
        first=alive,
        program=program,
        command=program * COMMANDS_PER_PROGRAM + (place + host) % COMMANDS_PER_PROGRAM,
        parent=nobody,
        uid=tables.uid[program],
        campaign=nobody,
        serial=slot,
        born_of=nobody,
        burst=jnp.zeros(n, bool),
        last=nobody,
        rolling=init_rolling((n,)),
        births=jnp.asarray(n, jnp.int32),
    )


def pick(mask: Bool[Array, " slot"], u: Float[Array, ""]) -> Int[Array, ""]:
    """One of the marked slots, uniformly by a draw in [0, 1); 0 where none is marked."""
    rank = jnp.cumsum(mask.astype(jnp.int32))
    wanted = jnp.floor(u * rank[-1].astype(jnp.float32)).astype(jnp.int32) + 1
    return jnp.argmax(mask & (rank == wanted)).astype(jnp.int32)


def free_slot(world: World, host: Int[Array, ""]) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """The first free slot of a host and how many it has."""
    free = ~world.alive & (world.host == host)
    return jnp.argmax(free).astype(jnp.int32), free.sum(dtype=jnp.int32)


def work_rate(world: World, tables: Tables) -> Int[Array, " slot"]:
    """Relative event rate of each benign process in thousandths (whole numbers: their sums are exact); else 0."""
    pace = jnp.where(world.burst, _BURST, _CALM) * _MILLI
    rate = jnp.round(tables.rate[world.program] * pace).astype(jnp.int32)
    return jnp.where(world.alive & (world.campaign < 0), rate, 0)


def spawn(
    world: World,
    *,
    when: Bool[Array, ""],
    slot: Int[Array, ""],
    parent: Int[Array, ""],
    program: Int[Array, ""],
    variant: Int[Array, ""],
    uid: Int[Array, ""],
    campaign: Int[Array, ""],
) -> tuple[World, Bool[Array, " slot"]]:
    """Starts a process in a free slot where ``when`` holds; nothing of the slot's earlier process remains.

    Returns:
        The world and the mask of the slot that was filled.
    """
    new = (jnp.arange(world.alive.shape[0]) == slot) & when

    def put(value: Array, old: Array) -> Array:
        return jnp.where(new, value, old)

    rolling = RollingState(
        events=put(jnp.float32(0.0), world.rolling.events),
        first_s=put(jnp.float32(0.0), world.rolling.first_s),
        last_s=put(jnp.float32(0.0), world.rolling.last_s),
        recent=jnp.where(new[:, None], jnp.float32(0.0), world.rolling.recent),
    )
    world = World(
        host=world.host,
        alive=world.alive | new,
        first=world.first | new,
        program=put(program, world.program),
        command=put(program * COMMANDS_PER_PROGRAM + variant, world.command),
        parent=put(parent, world.parent),
        uid=put(uid, world.uid),
        campaign=put(campaign, world.campaign),
        serial=put(world.births, world.serial),
        born_of=put(world.serial[parent], world.born_of),
        burst=world.burst & ~new,
        last=put(jnp.int32(-1), world.last),
        rolling=rolling,
        births=world.births + when.astype(jnp.int32),
    )
    return world, new


def kill(world: World, dead: Bool[Array, " slot"]) -> World:
    """Ends processes; their living children have no parent any more."""
    orphan = (world.parent >= 0) & dead[world.parent]
    return eqx.tree_at(
        lambda w: (w.alive, w.first, w.parent, w.campaign),
        world,
        (
            world.alive & ~dead,
            world.first & ~dead,
            jnp.where(dead | orphan, -1, world.parent),
            jnp.where(dead, -1, world.campaign),
        ),
    )
