"""The processes of the simulated hosts: fixed slots, births and deaths, subtrees, and how fast benign work goes.

Lineage is kept as a set of bits per slot, one for each ancestor in the slots of its host, so that a subtree is one
comparison and no walk up the tree.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from phalanx.data.rolling import RollingState, init_rolling
from phalanx.envs.catalogue import COMMANDS_PER_PROGRAM, PROGRAMS
from phalanx.envs.sim_tables import Tables

__all__ = [
    "N_ROOTS",
    "Birth",
    "World",
    "bits",
    "free_slots",
    "host_of",
    "init_world",
    "pick",
    "subtree",
    "turnover",
    "work_rate",
]

N_ROOTS = 7
"""Long-lived processes of a host."""

_BURST, _CALM = 3000, 700
_DAY_S, _NOON_S = 86_400, 50_400
_UPDATER = tuple(PROGRAMS).index("updater")
_ROLLOUT = 6


class World(eqx.Module):
    """The process slots of all hosts; slot ``k`` belongs to host ``k // slots_per_host``.

    Attributes:
        alive: a process lives in the slot.
        first: that process has not shown an event yet.
        program: index into ``catalogue.PROGRAMS``.
        command: index into ``catalogue.COMMANDS``.
        parent: slot of its parent, -1 where it had none; the parent may have ended since.
        parent_command: command of its parent, -1 where it had none.
        lineage: bits of the slots of its host that hold its ancestors, and its own.
        uid: user id.
        campaign: the campaign that it works for, -1 for benign work.
        serial: number of the process, unique in the episode and growing with its birth.
        born_of: serial of its parent, -1 where there was none.
        burst: it works at several times its normal rate.
        rate: events relative to others in thousandths, 0 for a campaign's process.
        entry: program that an attacker can start through it, -1 for none.
        rolling: statistics of its events.
        births: processes so far.
        day: swing of a host's pace between night and day, in thousandths.
        start_s: time of day at which the episode starts, in s.
        drift_s: when programs change their ways, in s since the start (beyond the episode: never).
        rollout_s: when updates roll out to all hosts for ten minutes, in s since the start.
    """

    alive: Bool[Array, " slot"]
    first: Bool[Array, " slot"]
    program: Int[Array, " slot"]
    command: Int[Array, " slot"]
    parent: Int[Array, " slot"]
    parent_command: Int[Array, " slot"]
    lineage: Int[Array, " slot"]
    uid: Int[Array, " slot"]
    campaign: Int[Array, " slot"]
    serial: Int[Array, " slot"]
    born_of: Int[Array, " slot"]
    burst: Bool[Array, " slot"]
    rate: Int[Array, " slot"]
    entry: Int[Array, " slot"]
    rolling: RollingState
    births: Int[Array, ""]
    day: Int[Array, " host"]
    start_s: Int[Array, ""]
    drift_s: Float[Array, ""]
    rollout_s: Float[Array, ""]


class Birth(eqx.Module):
    """A process that starts.

    Attributes:
        when: whether one starts at all.
        slot: where.
        parent: slot of its parent, on the same host.
        program, variant: what it runs.
        uid: user id.
        campaign: that it works for, -1 for benign work.
    """

    when: Bool[Array, ""]
    slot: Int[Array, ""]
    parent: Int[Array, ""]
    program: Int[Array, ""]
    variant: Int[Array, ""]
    uid: Int[Array, ""]
    campaign: Int[Array, ""]


def host_of(world: World) -> Int[Array, " slot"]:
    """Host of each slot."""
    n, n_hosts = world.alive.shape[0], world.day.shape[0]
    return jnp.arange(n, dtype=jnp.int32) // (n // n_hosts)


def bits(world: World) -> Int[Array, " slot"]:
    """The bit of each slot among those of its host."""
    n, n_hosts = world.alive.shape[0], world.day.shape[0]
    return jnp.int32(1) << (jnp.arange(n, dtype=jnp.int32) % (n // n_hosts))


def _by_host(world: World, values: Int[Array, " slot"]) -> Int[Array, " slot"]:
    """The sum over the slots of each host, at each of its slots."""
    n_hosts = world.day.shape[0]
    sums = values.reshape(n_hosts, -1).sum(axis=1, dtype=jnp.int32)
    return jnp.repeat(sums, values.shape[0] // n_hosts, total_repeat_length=values.shape[0])


def subtree(world: World, marked: Bool[Array, " slot"]) -> Bool[Array, " slot"]:
    """The living processes that descend from a marked one, the marked ones among them."""
    roots = _by_host(world, jnp.where(marked, bits(world), 0))
    return world.alive & ((world.lineage & roots) != 0)


def init_world(
    tables: Tables,
    role: Int[Array, " host"],
    slots_per_host: int,
    *,
    start_s: Int[Array, ""],
    drift_s: Float[Array, ""],
    rollout_s: Float[Array, ""],
) -> World:
    """Hosts on which the processes of their roles run.

    Args:
        tables: the catalogue.
        role: per host, index into ``catalogue.ROLES``.
        slots_per_host: at least ``N_ROOTS``, at most 31.
        start_s, drift_s, rollout_s: see ``World``.
    """
    n_hosts = role.shape[0]
    n = n_hosts * slots_per_host
    slot = jnp.arange(n, dtype=jnp.int32)
    host, place = slot // slots_per_host, slot % slots_per_host
    alive = place < N_ROOTS
    padding = jnp.zeros((n_hosts, slots_per_host - N_ROOTS), jnp.int32)
    program = jnp.concatenate([tables.roles[role], padding], axis=1).reshape(n)
    nobody = jnp.full(n, -1, jnp.int32)
    return World(
        alive=alive,
        first=alive,
        program=program,
        command=program * COMMANDS_PER_PROGRAM + (place + host) % COMMANDS_PER_PROGRAM,
        parent=nobody,
        parent_command=nobody,
        lineage=jnp.int32(1) << place,
        uid=tables.uid[program],
        campaign=nobody,
        serial=slot,
        born_of=nobody,
        burst=jnp.zeros(n, bool),
        rate=jnp.where(alive, tables.rate[program], 0),
        entry=jnp.where(alive, tables.entry[program], -1),
        rolling=init_rolling((n,)),
        births=jnp.asarray(n, jnp.int32),
        day=tables.day[role],
        start_s=start_s,
        drift_s=drift_s,
        rollout_s=rollout_s,
    )


def pick(mask: Bool[Array, " slot"], u: Float[Array, ""]) -> Int[Array, ""]:
    """One of the marked slots, uniformly by a draw in [0, 1); 0 where none is marked."""
    rank = jnp.cumsum(mask.astype(jnp.int32))
    wanted = jnp.floor(u * rank[-1].astype(jnp.float32)).astype(jnp.int32) + 1
    return jnp.argmax(mask & (rank == wanted)).astype(jnp.int32)


def free_slots(world: World, host: Int[Array, ""]) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """The first free slot of a host and how many it has."""
    free = ~world.alive & (host_of(world) == host)
    return jnp.argmax(free).astype(jnp.int32), free.sum(dtype=jnp.int32)


def work_rate(world: World, now_s: Float[Array, ""]) -> Int[Array, " slot"]:
    """Event rate of each benign process in thousandths of a relative unit (whole numbers: their sums are exact).

    Night and day follow a triangle with its peak at 14:00; a burst is three times the mean pace.
    """
    clock = (world.start_s + jnp.floor(now_s).astype(jnp.int32) + _DAY_S - _NOON_S) % _DAY_S
    from_noon = jnp.minimum(clock, _DAY_S - clock)  # 0 at 14:00, half a day at 2:00
    swing = 1000 - from_noon * 1000 // (_DAY_S // 4)
    pace = 1000 + world.day * swing // 1000
    n, n_hosts = world.alive.shape[0], world.day.shape[0]
    pace = jnp.repeat(pace, n // n_hosts, total_repeat_length=n)
    burst = jnp.where(world.burst, _BURST, _CALM)
    rolls = (now_s >= world.rollout_s) & (now_s < world.rollout_s + 600.0)
    updates = jnp.where(rolls & (world.program == _UPDATER), _ROLLOUT, 1)
    return (world.rate * burst // 1000) * pace // 1000 * updates


def turnover(
    world: World, tables: Tables, gone: Bool[Array, " slot"], birth: Birth
) -> tuple[World, Bool[Array, " slot"]]:
    """Ends processes and starts one in a slot that was free; nothing of the slot's earlier process remains.

    Returns:
        The world, and the slots whose process is another or none now.
    """
    slots = jnp.arange(world.alive.shape[0])
    new = (slots == birth.slot) & birth.when
    ended = gone & ~new
    changed = new | ended
    mother = jnp.maximum(birth.parent, 0)

    def put(value: Array, old: Array) -> Array:
        return jnp.where(new, value, old)

    stale = _by_host(world, jnp.where(changed, bits(world), 0))
    lineage = world.lineage & ~stale
    hostile = birth.campaign >= 0
    world = World(
        alive=(world.alive & ~ended) | new,
        first=(world.first & ~ended) | new,
        program=put(birth.program, world.program),
        command=put(birth.program * COMMANDS_PER_PROGRAM + birth.variant, world.command),
        parent=put(birth.parent, world.parent),
        parent_command=put(world.command[mother], world.parent_command),
        lineage=jnp.where(new, lineage[mother] | bits(world), lineage),
        uid=put(birth.uid, world.uid),
        campaign=jnp.where(ended, -1, put(birth.campaign, world.campaign)),
        serial=put(world.births, world.serial),
        born_of=put(world.serial[mother], world.born_of),
        burst=world.burst & ~changed,
        rate=jnp.where(ended, 0, put(jnp.where(hostile, 0, tables.rate[birth.program]), world.rate)),
        entry=jnp.where(ended, -1, put(jnp.where(hostile, -1, tables.entry[birth.program]), world.entry)),
        rolling=world.rolling,
        births=world.births + birth.when.astype(jnp.int32),
        day=world.day,
        start_s=world.start_s,
        drift_s=world.drift_s,
        rollout_s=world.rollout_s,
    )
    return world, changed
