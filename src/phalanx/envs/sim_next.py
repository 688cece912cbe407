"""Which event comes next: benign work against the campaigns' clocks, and what the sensors make of it."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from phalanx.envs.response import ResponseState, silent
from phalanx.envs.sim_campaign import Campaigns, Turn, choose_turn, wait_s
from phalanx.envs.sim_config import SimulatorConfig
from phalanx.envs.sim_event import N_BENIGN_DRAWS, Event, attack_event, benign_event, entry_program
from phalanx.envs.sim_tables import Tables
from phalanx.envs.sim_world import Birth, World, host_of, work_rate

__all__ = ["Coming", "next_event"]


class Coming(NamedTuple):
    """What happens between two events.

    Attributes:
        event: the next one that is reported.
        birth: the process that starts before it.
        campaigns: after attempts that nobody reports.
        lost: benign events that silent processes would have emitted until then.
        unseen: damage of the attempts that nobody reports.
    """

    event: Event
    birth: Birth
    campaigns: Campaigns
    lost: Float[Array, ""]
    unseen: Float[Array, ""]


def next_event(
    config: SimulatorConfig,
    tables: Tables,
    world: World,
    campaigns: Campaigns,
    response: ResponseState,
    before: Event,
    *,
    gone: Bool[Array, " slot"],
    birth: Birth,
    key: PRNGKeyArray,
) -> Coming:
    """Draws the next event.

    Args:
        config: of the world.
        tables: the catalogue.
        world: the processes, those that end or start now still and not yet among them.
        campaigns: as the answered event left them.
        response: what the verdicts left behind.
        before: the event answered last; its time is the present.
        gone: processes that end now.
        birth: a process that starts now; an attacker does not come in at the same moment.
        key: of benign work.
    """
    now_s = before.time_s
    u = jax.random.uniform(key, (N_BENIGN_DRAWS,))
    alive = world.alive & ~gone
    muted = silent(response, now_s) & alive
    rate = jnp.where(alive, work_rate(world, now_s), 0)
    total = jnp.where(muted, 0, rate).sum(dtype=jnp.int32)
    gap_s = -jnp.log1p(-u[10]) / (jnp.maximum(total, 1).astype(jnp.float32) * config.unit_hz)
    wakes_s = jnp.where(muted & (rate > 0), response.silent_until_s, jnp.inf).min()
    benign_s = jnp.where(total > 0, now_s + gap_s, wakes_s)

    free = ~alive & ~((jnp.arange(alive.shape[0]) == birth.slot) & birth.when)
    room = free.reshape(config.n_hosts, -1).any(axis=1) & ~birth.when
    room = jnp.repeat(room, config.slots_per_host, total_repeat_length=alive.shape[0])
    awake = alive & ~muted
    turn = choose_turn(config.attack, campaigns, world, awake=awake, now_s=now_s, open_slot=room)
    attacks, unseen = turn.possible & (turn.time_s <= benign_s), jnp.float32(0.0)
    again = _reported_again(config, before, awake, attacks & turn.enters, u)
    if config.lost > 0.0:
        campaigns, attacks, unseen = _unreported(config, tables, campaigns, turn, attacks, ~again)
    time_s = jnp.where(attacks, turn.time_s, benign_s)

    ready = jnp.where(silent(response, time_s), 0, rate)
    chosen = jnp.cumsum(ready)
    aim = jnp.floor(u[11] * chosen[-1].astype(jnp.float32)).astype(jnp.int32)
    slot = jnp.minimum((chosen <= aim).sum(dtype=jnp.int32), ready.shape[0] - 1)
    benign = benign_event(tables, world, slot=slot, time_s=time_s, u=u)

    enters = attacks & turn.enters
    here = host_of(world) == turn.slot // config.slots_per_host
    entry = jnp.argmax(free & here).astype(jnp.int32)
    actor = jnp.where(turn.enters, entry, turn.slot)
    hostile = attack_event(config.attack, tables, world, campaigns, turn, slot=actor)
    event = jax.tree.map(lambda a, b: jnp.where(attacks, a, b), hostile, benign)
    event = _reported(config, before, event, again, enters, u)
    comes = Birth(
        when=enters,
        slot=entry,
        parent=turn.slot,
        program=entry_program(tables, world, turn),
        variant=jnp.floor(turn.draws[14] * 3.0).astype(jnp.int32),
        uid=world.uid[turn.slot],
        campaign=turn.campaign,
    )
    birth = jax.tree.map(lambda a, b: jnp.where(enters, a, b), comes, birth)
    lost = _silent_work(config, rate, response, muted, now_s, event.time_s)
    return Coming(event, birth, campaigns, lost, unseen)


def _unreported(
    config: SimulatorConfig,
    tables: Tables,
    campaigns: Campaigns,
    turn: Turn,
    due: Bool[Array, ""],
    may: Bool[Array, ""],
) -> tuple[Campaigns, Bool[Array, ""], Float[Array, ""]]:
    """An attempt that no sensor reports takes its effect, unless it would start a process or complete a stage.

    ``may``: not while an event of the present is reported once more, for the attempt lies ahead of it.

    Returns:
        The campaigns, whether a reported attempt is due all the same, and the damage.
    """
    c, u = turn.campaign, turn.draws
    stage = campaigns.stage[c]
    small = campaigns.progress[c] + 1 < tables.needed[stage]
    unseen = due & may & ~turn.enters & small & (u[16] < config.lost)
    effective = unseen & (u[2] >= campaigns.stealth[c]) & (u[7] >= campaigns.failure[c])
    mine = (jnp.arange(campaigns.stage.shape[0]) == c) & unseen
    pause_s = wait_s(campaigns, tables, c, stage=stage, enters_stage=jnp.zeros((), bool), u=u[13])
    campaigns = eqx.tree_at(
        lambda k: (k.attempts, k.next_s, k.progress),
        campaigns,
        (
            campaigns.attempts + mine.astype(jnp.int32),
            jnp.where(mine, turn.time_s + pause_s, campaigns.next_s),
            campaigns.progress + (mine & effective).astype(jnp.int32),
        ),
    )
    return campaigns, due & ~unseen, jnp.where(effective, tables.damage[stage], 0.0)


def _reported_again(
    config: SimulatorConfig,
    before: Event,
    awake: Bool[Array, " slot"],
    enters: Bool[Array, ""],
    u: Float[Array, " draw"],
) -> Bool[Array, ""]:
    """Whether the sensor reports the event before once more."""
    return (u[13] < config.duplicated) & ~before.duplicate & awake[before.entity] & ~enters


def _reported(
    config: SimulatorConfig,
    before: Event,
    event: Event,
    again: Bool[Array, ""],
    enters: Bool[Array, ""],
    u: Float[Array, " draw"],
) -> Event:
    """The sensor's faults: the event before is reported once more, or this one after it happened."""
    no, yes = jnp.zeros((), bool), jnp.ones((), bool)
    if config.late > 0.0:
        event = eqx.tree_at(lambda e: e.late, event, (u[12] < config.late) & ~enters)
    if config.duplicated > 0.0:
        copy = eqx.tree_at(
            lambda e: (e.source, e.effective, e.turns_burst, e.ends, e.duplicate, e.late),
            before,
            (before.entity, no, no, no, yes, no),
        )
        event = jax.tree.map(lambda a, b: jnp.where(again, a, b), copy, event)
    return event


def _silent_work(
    config: SimulatorConfig,
    rate: Int[Array, " slot"],
    response: ResponseState,
    muted: Bool[Array, " slot"],
    now_s: Float[Array, ""],
    then_s: Float[Array, ""],
) -> Float[Array, ""]:
    """Benign events that the silent processes would have emitted from ``now_s`` to ``then_s``."""
    silent_s = jnp.minimum(response.silent_until_s, then_s) - now_s
    work = jnp.where(muted, rate.astype(jnp.float32) * silent_s, 0.0)
    return work.sum(dtype=jnp.float32) * config.unit_hz
