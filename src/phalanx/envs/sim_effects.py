"""What an answered event changes: a campaign's progress, births and deaths, and which campaigns end."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from phalanx.envs.catalogue import PROGRAMS, STAGES, template_index
from phalanx.envs.response import ResponseState, silent
from phalanx.envs.sim_campaign import AttackConfig, Campaigns, next_stage, stop, wait_s
from phalanx.envs.sim_config import SPARE_SLOTS
from phalanx.envs.sim_event import Event
from phalanx.envs.sim_tables import Tables
from phalanx.envs.sim_world import Birth, World, free_slots, host_of

__all__ = ["acted", "apply_event", "end_campaigns", "event_damage"]

_DOOR = tuple(PROGRAMS).index("ssh")
_PERSISTENCE = tuple(STAGES).index("persistence")
_BIRTHS = tuple(template_index(name) for name in ("fork", "clone"))
_ROOT = template_index("change_principal")


def event_damage(
    config: AttackConfig, tables: Tables, campaigns: Campaigns, event: Event
) -> Float[Array, ""]:
    """Damage of a campaign's event if it happens, the final damage included; 0 for benign work."""
    stage, c = jnp.maximum(event.stage, 0), jnp.maximum(event.campaign, 0)
    last = next_stage(campaigns, c)[1] & (campaigns.progress[c] + 1 >= tables.needed[stage])
    damage = tables.damage[stage] + jnp.where(last, config.final_damage, 0.0)
    return jnp.where(event.effective, damage, 0.0)


def acted(world: World, event: Event, happened: Bool[Array, ""]) -> World:
    """What an event changes in its own process: the user id, and its pace."""
    acting = jnp.arange(world.alive.shape[0]) == event.entity
    roots = acting & happened & (event.template == _ROOT)
    return eqx.tree_at(
        lambda w: (w.uid, w.burst),
        world,
        (jnp.where(roots, 0, world.uid), world.burst ^ (acting & event.turns_burst)),
    )


def apply_event(
    config: AttackConfig,
    tables: Tables,
    world: World,
    campaigns: Campaigns,
    response: ResponseState,
    event: Event,
    happened: Bool[Array, ""],
) -> tuple[Campaigns, Birth, Float[Array, ""], Bool[Array, " campaign"]]:
    """What the event does: a campaign's progress or retreat, a birth.

    Returns:
        The campaigns, the birth, the damage, and which campaigns are complete.
    """
    malicious, c = event.campaign >= 0, jnp.maximum(event.campaign, 0)
    stage = jnp.maximum(event.stage, 0)
    following, final = next_stage(campaigns, c)

    door = world.alive & (world.program == _DOOR) & (world.campaign < 0)
    door = jnp.argmax(door & (host_of(world) == event.host)).astype(jnp.int32)
    moves = malicious & (tables.moves[stage] > 0)
    closed = moves & silent(response, event.time_s)[door]
    finishes = campaigns.progress[c] + 1 >= tables.needed[stage]
    counts = happened & ~event.duplicate
    success = malicious & counts & event.effective & ~(closed & finishes)
    advances = success & finishes
    enters_stage = advances & ~final
    damage = jnp.where(success, event_damage(config, tables, campaigns, event), 0.0)

    forks = ~malicious & ((event.template == _BIRTHS[0]) | (event.template == _BIRTHS[1]))
    slot, free = free_slots(world, event.host)
    parent = jnp.where(moves, door, event.entity)
    starts = jnp.where(malicious, advances & (event.child >= 0) & (free > 0), forks & (free > SPARE_SLOTS))
    birth = Birth(
        when=counts & starts,
        slot=slot,
        parent=parent,
        program=jnp.maximum(event.child, 0),
        variant=event.variant,
        uid=world.uid[parent],
        campaign=event.campaign,
    )
    mine = (jnp.arange(campaigns.stage.shape[0]) == c) & malicious & ~event.duplicate
    refused = mine & ~happened
    in_a_row = jnp.where(refused, campaigns.refused + 1, jnp.where(mine & success, 0, campaigns.refused))
    campaigns = eqx.tree_at(lambda k: k.refused, campaigns, in_a_row)
    stage_after = jnp.where(enters_stage, following, stage)
    pause_s = wait_s(campaigns, tables, c, stage=stage_after, enters_stage=enters_stage, u=event.wait)
    progress = jnp.where(advances, 0, campaigns.progress + 1)
    campaigns = eqx.tree_at(
        lambda k: (k.attempts, k.next_s, k.stage, k.progress, k.switches, k.kept),
        campaigns,
        (
            campaigns.attempts + mine.astype(jnp.int32),
            jnp.where(mine, event.time_s + pause_s, campaigns.next_s),
            jnp.where(mine, stage_after, campaigns.stage),
            jnp.where(mine & success, progress, campaigns.progress),
            campaigns.switches + refused.astype(jnp.int32),
            campaigns.kept | (mine & advances & (stage == _PERSISTENCE)),
        ),
    )
    return campaigns, birth, damage, mine & advances & final


def end_campaigns(
    config: AttackConfig,
    campaigns: Campaigns,
    world: World,
    response: ResponseState,
    complete: Bool[Array, " campaign"],
    now_s: Float[Array, ""],
) -> tuple[Campaigns, Bool[Array, " slot"], Bool[Array, " campaign"]]:
    """Ends the campaigns whose processes are all silent, whose attacker gave up, and those that are complete.

    Returns:
        The campaigns, the processes that end with them, and which campaigns the answers stopped for the first time.
    """
    numbers = jnp.arange(complete.shape[0])
    owned = world.alive[None, :] & (world.campaign[None, :] == numbers[:, None])
    at_large = (owned & ~silent(response, now_s)[None, :]).any(axis=1)
    leaves = (campaigns.refused >= campaigns.patience) & ~campaigns.stopped
    contained = ((owned.any(axis=1) & ~at_large) | leaves) & ~complete
    newly = contained & ~campaigns.contained
    campaigns = stop(config, campaigns, contained=contained, complete=complete, now_s=now_s)
    return campaigns, (owned & (contained | complete)[:, None]).any(axis=0), newly
