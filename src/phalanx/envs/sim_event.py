"""One simulated event: how its particulars are drawn."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from phalanx.envs.catalogue import PATHS_PER_AREA, PROGRAMS, template_index
from phalanx.envs.sim_campaign import AttackConfig, Campaigns, Turn
from phalanx.envs.sim_tables import BEACON_INDEX, Tables
from phalanx.envs.sim_world import N_ROOTS, World, host_of

__all__ = [
    "N_BENIGN_DRAWS",
    "Event",
    "attack_event",
    "benign_event",
    "entry_program",
    "no_event",
    "technique_of",
]

N_BENIGN_DRAWS = 16
_EXIT, _TO_BURST, _TO_CALM = 0.03, 0.04, 0.2
_END_SOON, _END_LATE, _LASTING = 0.35, 0.02, 2
_SIZE_SPREAD, _COUNT_SPREAD = 1.2, 1.0
_FIRST_FROM_TMP = 0.15
_BEACONS = 0.25
_N = len(PROGRAMS)


class Event(eqx.Module):
    """An event that waits for its verdict.

    Attributes:
        time_s: since the start of the episode.
        entity: slot of the acting process.
        source: slot whose memory it reads (see ``Observation``).
        campaign: the campaign that it serves, -1 for benign work.
        stage: that campaign's stage, -1 for benign work.
        cause: the technique, or for benign work the number of techniques plus the program.
        template: index into ``catalogue.TEMPLATES``.
        path: index into ``catalogue.PATHS``.
        size: bytes, 0 where it has none.
        count: operations that it stands for.
        port: remote port, 0 where it has none.
        uid: user id of the process.
        effective: it advances its campaign if it happens.
        child: program that it starts if it is a benign fork.
        variant: command variant of a child.
        wait: draw of the time to the campaign's next attempt, in [0, 1).
        host: host that a child of it runs on.
        turns_burst: the process changes between burst and calm after it.
        ends: the process, a benign job, ends with it.
        duplicate: the sensor reports it once more; it happened before.
        late: the sensor reports it after it happened: no verdict undoes it.
    """

    time_s: Float[Array, ""]
    entity: Int[Array, ""]
    source: Int[Array, ""]
    campaign: Int[Array, ""]
    stage: Int[Array, ""]
    cause: Int[Array, ""]
    template: Int[Array, ""]
    path: Int[Array, ""]
    size: Float[Array, ""]
    count: Float[Array, ""]
    port: Int[Array, ""]
    uid: Int[Array, ""]
    effective: Bool[Array, ""]
    child: Int[Array, ""]
    variant: Int[Array, ""]
    wait: Float[Array, ""]
    host: Int[Array, ""]
    turns_burst: Bool[Array, ""]
    ends: Bool[Array, ""]
    duplicate: Bool[Array, ""]
    late: Bool[Array, ""]


def no_event() -> Event:
    """What precedes the first event of an episode, at time 0."""
    zero, none, no = jnp.int32(0), jnp.int32(-1), jnp.zeros((), bool)
    return Event(
        time_s=jnp.float32(0.0), entity=zero, source=none, campaign=none, stage=none, cause=none, template=zero,
        path=zero, size=jnp.float32(0.0), count=jnp.float32(1.0), port=zero, uid=zero, effective=no, child=zero,
        variant=zero, wait=jnp.float32(0.0), host=zero, turns_burst=no, ends=no,
        duplicate=jnp.ones((), bool), late=no,
    )  # fmt: skip


def _index(u: Float[Array, ""], n: int) -> Int[Array, ""]:
    return jnp.minimum(jnp.floor(u * n).astype(jnp.int32), n - 1)


def _from_row(cumulative: Float[Array, " choice"], u: Float[Array, ""]) -> Int[Array, ""]:
    below = (cumulative <= u).sum(dtype=jnp.int32)
    return jnp.minimum(below, cumulative.shape[0] - 1)


def _particulars(tables: Tables, template: Int[Array, ""], u: Float[Array, "4"]) -> dict[str, Array]:
    """Path, size, count and port of an event."""
    size = jnp.round(jnp.exp(tables.log_size[template] + _SIZE_SPREAD * (2.0 * u[1] - 1.0)))
    spread = _COUNT_SPREAD * (2.0 * u[3] - 1.0)
    count = jnp.maximum(jnp.round(jnp.exp(tables.log_count[template] + spread)), 1.0)
    return {
        "path": tables.area[template] * PATHS_PER_AREA + _index(u[0], PATHS_PER_AREA),
        "size": jnp.where(tables.log_size[template] > 0.0, size, 0.0),
        "count": jnp.where(tables.log_count[template] > 0.0, count, 1.0),
        "port": tables.port[template, _index(u[2], 4)],
    }


def _executes(u: Float[Array, ""]) -> Int[Array, ""]:
    return jnp.where(u < _FIRST_FROM_TMP, template_index("execute_tmp"), template_index("execute")).astype(
        jnp.int32
    )


def _source(world: World, slot: Int[Array, ""]) -> Int[Array, ""]:
    """The memory that a process's first event reads: its parent's, if that still lives."""
    parent = jnp.maximum(world.parent[slot], 0)
    there = (world.parent[slot] >= 0) & world.alive[parent] & (world.serial[parent] == world.born_of[slot])
    return jnp.where(world.first[slot], jnp.where(there, parent, -1), slot).astype(jnp.int32)


def benign_event(
    tables: Tables,
    world: World,
    *,
    slot: Int[Array, ""],
    time_s: Float[Array, ""],
    u: Float[Array, " draw"],
) -> Event:
    """What a benign process does next: its program's mix; a job that was started ends some time."""
    program, first = world.program[slot], world.first[slot]
    born = world.parent[slot] >= 0
    drifted = time_s >= world.drift_s
    template = _from_row(tables.mix[program + jnp.where(drifted, _N, 0)], u[0])
    place = slot % (world.alive.shape[0] // world.day.shape[0])
    job = (place >= N_ROOTS) & ~first
    lasts = (
        world.serial[slot] % _LASTING == 0
    )  # every other job is a session or a service, not a short command
    exits = job & (u[2] < jnp.where(lasts, 0.0, _EXIT))
    template = jnp.where(exits, template_index("exit"), template)
    template = jnp.where(first & born, _executes(u[2]), template).astype(jnp.int32)
    flip = jnp.where(world.burst[slot], _TO_CALM, _TO_BURST)
    no = jnp.zeros((), bool)
    return Event(
        time_s=time_s,
        entity=slot,
        source=_source(world, slot),
        campaign=jnp.int32(-1),
        stage=jnp.int32(-1),
        cause=(BEACON_INDEX + 1 + program).astype(jnp.int32),
        template=template,
        **_particulars(tables, template, u[3:7]),
        uid=world.uid[slot],
        effective=no,
        child=_from_row(tables.child[program], u[7]),
        variant=_index(u[8], 3),
        wait=jnp.float32(0.0),
        host=host_of(world)[slot],
        turns_burst=u[9] < flip,
        ends=exits | (job & (u[2] < _EXIT + jnp.where(lasts, _END_LATE, _END_SOON))),
        duplicate=no,
        late=no,
    )


def _disguised(
    tables: Tables, chosen: Int[Array, ""], mother: Int[Array, ""], u: Float[Array, ""]
) -> Int[Array, ""]:
    """What an attacker starts: half the time a program that its mother starts anyway."""
    usual = _from_row(tables.child[mother], 2.0 * u)
    return jnp.where((u < 0.5) & (chosen >= 0), usual, chosen).astype(jnp.int32)


def entry_program(tables: Tables, world: World, turn: Turn) -> Int[Array, ""]:
    """What an attacker runs who comes in through the process of ``turn.slot``."""
    door = turn.slot
    return _disguised(tables, jnp.maximum(world.entry[door], 0), world.program[door], turn.draws[15])


def technique_of(tables: Tables, campaigns: Campaigns, campaign: Int[Array, ""]) -> Int[Array, ""]:
    """The technique that a campaign tries now: refusals and failures make it change to the stage's next one."""
    stage = campaigns.stage[campaign]
    choice = (campaigns.base[campaign, stage] + campaigns.switches[campaign]) % tables.choices[stage]
    return tables.technique[stage] + choice


def attack_event(
    config: AttackConfig,
    tables: Tables,
    world: World,
    campaigns: Campaigns,
    turn: Turn,
    *,
    slot: Int[Array, ""],
) -> Event:
    """A campaign's next attempt: of its stage, or as cover a beacon or the program's ordinary work.

    One that comes in shows its new process's execution, in ``slot``, still without effect; so does the first event of a
    process that it started.

    Args:
        config: attackers.
        tables: the catalogue.
        world: the processes, before any that starts now.
        campaigns: their state.
        turn: whose attempt it is.
        slot: of the acting process.
    """
    u, c = turn.draws, turn.campaign
    stage, n_hosts = campaigns.stage[c], world.day.shape[0]
    door = turn.slot
    program = jnp.where(turn.enters, entry_program(tables, world, turn), world.program[slot])
    first = turn.enters | world.first[slot]
    cover, beacon = u[2] < campaigns.stealth[c], u[9] < _BEACONS
    technique = jnp.where(cover & beacon, BEACON_INDEX, technique_of(tables, campaigns, c))
    row = tables.mix[jnp.where(cover & ~beacon, program, 2 * _N + technique)]
    if config.mimicry > 0.0:
        row = jnp.where(~cover & (u[10] < config.mimicry), tables.mimic[technique, program], row)
    template = jnp.where(first, _executes(u[3]), _from_row(row, u[3])).astype(jnp.int32)
    here = host_of(world)[door]
    hop = 1 + _index(u[8], max(n_hosts - 1, 1))
    no = jnp.zeros((), bool)
    return Event(
        time_s=turn.time_s,
        entity=slot,
        source=jnp.where(turn.enters, door, _source(world, slot)).astype(jnp.int32),
        campaign=c,
        stage=stage,
        cause=technique.astype(jnp.int32),
        template=template,
        **_particulars(tables, template, jnp.stack([u[4], u[5], u[6], u[11]])),
        uid=jnp.where(turn.enters, world.uid[door], world.uid[slot]),
        effective=~first & ~cover & (u[7] >= campaigns.failure[c]),
        child=_disguised(tables, tables.child_of[stage], program, u[15]),
        variant=_index(u[12], 3),
        wait=u[13],
        host=jnp.where(tables.moves[stage] > 0, (here + hop) % n_hosts, here).astype(jnp.int32),
        turns_burst=no,
        ends=no,
        duplicate=no,
        late=no,
    )
