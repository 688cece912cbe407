"""One simulated event: how its particulars are drawn."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from phalanx.envs.catalogue import N_ROOTS, PATHS_PER_AREA, PROGRAMS, Tables, template_index
from phalanx.envs.sim_campaign import Campaigns, Turn
from phalanx.envs.sim_world import World

__all__ = ["N_BENIGN_DRAWS", "Event", "attack_event", "benign_event"]

N_BENIGN_DRAWS = 12
_EXIT, _REPEAT, _TO_BURST, _TO_CALM = 0.015, 0.35, 0.04, 0.2
_SIZE_SPREAD = 1.2
_FIRST_FROM_TMP = 0.15


class Event(eqx.Module):
    """An event that waits for its verdict.

    Attributes:
        time_s: since the start of the episode.
        entity: slot of the acting process.
        source: slot whose memory it reads (see ``Observation``).
        campaign: the campaign that it serves, -1 for benign work.
        stage: that campaign's stage, -1 for benign work.
        template: index into ``catalogue.TEMPLATES``.
        path: index into ``catalogue.PATHS``.
        size: bytes, 0 where it has none.
        port: remote port, 0 where it has none.
        uid: user id of the process.
        effective: it advances its campaign if it happens.
        child: program that it starts if it is a benign fork.
        variant: command variant of a child.
        wait_s: time to the campaign's next attempt, in s.
        host: host that a child of a campaign runs on.
        turns_burst: the process changes between burst and calm after it.
    """

    time_s: Float[Array, ""]
    entity: Int[Array, ""]
    source: Int[Array, ""]
    campaign: Int[Array, ""]
    stage: Int[Array, ""]
    template: Int[Array, ""]
    path: Int[Array, ""]
    size: Float[Array, ""]
    port: Int[Array, ""]
    uid: Int[Array, ""]
    effective: Bool[Array, ""]
    child: Int[Array, ""]
    variant: Int[Array, ""]
    wait_s: Float[Array, ""]
    host: Int[Array, ""]
    turns_burst: Bool[Array, ""]


def _index(u: Float[Array, ""], n: int) -> Int[Array, ""]:
    return jnp.minimum(jnp.floor(u * n).astype(jnp.int32), n - 1)


def _from_row(cumulative: Float[Array, " choice"], u: Float[Array, ""]) -> Int[Array, ""]:
    below = (cumulative <= u).sum(dtype=jnp.int32)
    return jnp.minimum(below, cumulative.shape[0] - 1)


def _particulars(
    tables: Tables, template: Int[Array, ""], u: Float[Array, "3"]
) -> tuple[Int[Array, ""], Float[Array, ""], Int[Array, ""]]:
    """Path, size and port of an event."""
    path = tables.area[template] * PATHS_PER_AREA + _index(u[0], PATHS_PER_AREA)
    mean = tables.log_size[template]
    size = jnp.round(jnp.exp(mean + _SIZE_SPREAD * (2.0 * u[1] - 1.0)))
    return path, jnp.where(mean > 0.0, size, 0.0), tables.port[template, _index(u[2], 4)]


def _executes(u: Float[Array, ""]) -> Int[Array, ""]:
    return jnp.where(u < _FIRST_FROM_TMP, template_index("execute_tmp"), template_index("execute")).astype(
        jnp.int32
    )


def benign_event(
    tables: Tables,
    world: World,
    *,
    slot: Int[Array, ""],
    time_s: Float[Array, ""],
    u: Float[Array, " draw"],
    slots_per_host: int,
) -> Event:
    """What a benign process does next: its program's mix, with repetitions; started programs may exit."""
    program, last = world.program[slot], world.last[slot]
    first = world.first[slot]
    born = world.parent[slot] >= 0
    template = _from_row(tables.mix[program], u[0])
    rare = jnp.isin(last, jnp.array([template_index(n) for n in ("fork", "clone", "execute", "execute_tmp")]))
    template = jnp.where((last >= 0) & ~rare & (u[1] < _REPEAT), last, template)
    short_lived = slot % slots_per_host >= N_ROOTS
    template = jnp.where(short_lived & (u[2] < _EXIT), template_index("exit"), template)
    template = jnp.where(first & born, _executes(u[2]), template).astype(jnp.int32)
    path, size, port = _particulars(tables, template, u[3:6])
    flip = jnp.where(world.burst[slot], _TO_CALM, _TO_BURST)
    return Event(
        time_s=time_s,
        entity=slot,
        source=jnp.where(first, world.parent[slot], slot),
        campaign=jnp.int32(-1),
        stage=jnp.int32(-1),
        template=template,
        path=path,
        size=size,
        port=port,
        uid=world.uid[slot],
        effective=jnp.zeros((), bool),
        child=_from_row(tables.child[program], u[6]),
        variant=_index(u[7], 3),
        wait_s=jnp.float32(0.0),
        host=world.host[slot],
        turns_burst=u[8] < flip,
    )


def attack_event(
    tables: Tables, world: World, campaigns: Campaigns, turn: Turn, *, slot: Int[Array, ""], n_hosts: int
) -> Event:
    """A campaign's next attempt through ``slot``: of its stage, or the program's ordinary work as cover.

    The first event of a process that it started is the execution itself.
    """
    u, c = turn.draws, turn.campaign
    first, stage = world.first[slot], campaigns.stage[c]
    cover = u[2] < campaigns.stealth[c]
    row = jnp.where(cover, world.program[slot], len(PROGRAMS) + stage)
    template = jnp.where(first, _executes(u[3]), _from_row(tables.mix[row], u[3])).astype(jnp.int32)
    path, size, port = _particulars(tables, template, u[4:7])
    here = world.host[slot]
    hop = 1 + _index(u[8], max(n_hosts - 1, 1))
    return Event(
        time_s=turn.time_s,
        entity=slot,
        source=jnp.where(first, world.parent[slot], slot),
        campaign=c,
        stage=stage,
        template=template,
        path=path,
        size=size,
        port=port,
        uid=world.uid[slot],
        effective=~first & ~cover & (u[7] >= campaigns.failure[c]),
        child=tables.stage_child[stage],
        variant=_index(u[9], 3),
        wait_s=-jnp.log1p(-u[10]) * campaigns.pace_s[c],
        host=jnp.where(tables.moves[stage] > 0, (here + hop) % n_hosts, here).astype(jnp.int32),
        turns_burst=jnp.zeros((), bool),
    )
