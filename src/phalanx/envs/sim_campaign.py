"""Campaigns: when an attacker acts, through which process, and how a campaign advances, gives way, stops or returns.

Every random number of a campaign comes from its own key and its own count of attempts, so that two policies face the
same attacker until their answers differ.
"""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from phalanx.envs.catalogue import STAGES
from phalanx.envs.sim_tables import Tables
from phalanx.envs.sim_world import World, pick

__all__ = [
    "N_DRAWS",
    "AttackConfig",
    "Campaigns",
    "Turn",
    "attack_draws",
    "choose_turn",
    "init_campaigns",
    "next_stage",
    "remaining_damage",
    "stop",
    "wait_s",
    "worth_ahead",
]

N_DRAWS = 18
_N_STAGES = len(STAGES)
_PERSISTENCE = tuple(STAGES).index("persistence")
_THEFT = tuple(STAGES).index("exfiltration")
_RUIN = tuple(STAGES).index("impact")
_SUCCESS_DISCOUNT = 0.9
_MOST_ATTEMPTS = 2**20
_BACKOFF = 4


@dataclass(frozen=True)
class AttackConfig:
    """How attackers behave; ranges are drawn once per campaign.

    Attributes:
        fewest, most: campaigns of an episode.
        onset_share: the onset is uniform in the first part of the episode's expected duration.
        pace: range of the factor on all delays of the catalogue (patience, log-uniform).
        stealth: range of the share of attempts that only look like ordinary work or beacon, and advance nothing.
        failure: range of the probability that an attempt fails by itself.
        patience: range of the refusals in a row after which the attacker leaves.
        reentry: probability that a stopped campaign comes in again.
        reentry_kept: added to it once persistence was reached.
        reentry_s: mean delay of that, in s.
        latest: probability of acting through the newest process; else through the oldest one.
        mimicry: probability that an attempt chooses among its technique's records by what its program does anyway.
        final_damage: of the completed last stage, on top of its steps.
    """

    fewest: int = 1
    most: int = 2
    onset_share: float = 0.4
    pace: tuple[float, float] = (0.4, 1.6)
    stealth: tuple[float, float] = (0.4, 0.7)
    failure: tuple[float, float] = (0.07, 0.16)
    patience: tuple[float, float] = (4.0, 12.0)
    reentry: float = 0.1
    reentry_kept: float = 0.3
    reentry_s: float = 300.0
    latest: float = 0.75
    mimicry: float = 0.0
    final_damage: float = 100.0


class Campaigns(eqx.Module):
    """The campaigns of an episode.

    Attributes:
        key: of all their draws.
        attempts: attempts so far (the number of the next draw).
        next_s: time of the next attempt (inf: there is no such campaign), in s.
        first_s: time of the first attempt that was shown (inf: none yet), in s.
        since_s: the same of its present coming, which begins anew where it comes back (inf: it is away), in s.
        stage: the present stage.
        progress: successful steps in it.
        switches: changes of technique so far.
        refused: refusals in a row.
        stopped: it is over: contained, given up or complete.
        contained: the answers stopped it at least once.
        returned: it has come back already.
        kept: it reached persistence.
        route: stages that it goes through.
        base: first choice of technique per stage.
        chance, return_s: the draw that decides whether it comes back, and the delay of that.
        pace, stealth, failure, patience: see ``AttackConfig``.
    """

    key: PRNGKeyArray
    attempts: Int[Array, " campaign"]
    next_s: Float[Array, " campaign"]
    first_s: Float[Array, " campaign"]
    since_s: Float[Array, " campaign"]
    stage: Int[Array, " campaign"]
    progress: Int[Array, " campaign"]
    switches: Int[Array, " campaign"]
    refused: Int[Array, " campaign"]
    stopped: Bool[Array, " campaign"]
    contained: Bool[Array, " campaign"]
    returned: Bool[Array, " campaign"]
    kept: Bool[Array, " campaign"]
    route: Bool[Array, "campaign stage"]
    base: Int[Array, "campaign stage"]
    chance: Float[Array, " campaign"]
    return_s: Float[Array, " campaign"]
    pace: Float[Array, " campaign"]
    stealth: Float[Array, " campaign"]
    failure: Float[Array, " campaign"]
    patience: Int[Array, " campaign"]


class Turn(eqx.Module):
    """Who acts for which campaign.

    Attributes:
        campaign: the campaign whose attempt is next.
        time_s: when.
        possible: some campaign can act at all by then.
        enters: it has no process yet: ``slot`` is the benign process that it comes in through.
        slot: the acting process, or the entry's parent.
        draws: the attempt's random numbers, in [0, 1).
    """

    campaign: Int[Array, ""]
    time_s: Float[Array, ""]
    possible: Bool[Array, ""]
    enters: Bool[Array, ""]
    slot: Int[Array, ""]
    draws: Float[Array, " draw"]


def _between(u: Float[Array, " n"], limits: tuple[float, float]) -> Float[Array, " n"]:
    low, high = limits
    return low + (high - low) * u


def init_campaigns(
    config: AttackConfig,
    tables: Tables,
    key: PRNGKeyArray,
    *,
    duration_s: float,
    one_host: bool,
    attacked: bool = True,
) -> Campaigns:
    """Draws the campaigns of an episode.

    Args:
        config: attackers.
        tables: the catalogue.
        key: of all their draws.
        duration_s: expected duration of the episode, in s.
        one_host: there is nowhere to move to.
        attacked: whether there are any.
    """
    n = config.most
    u = jax.random.uniform(jax.random.fold_in(key, 0), (10, n))
    by_stage = jax.random.uniform(jax.random.fold_in(key, 1), (2, n, _N_STAGES))
    spread = jnp.floor(u[0, 0] * (config.most - config.fewest + 1)).astype(jnp.int32)
    exists = (jnp.arange(n) < config.fewest + spread) & attacked
    low, high = (float(np.log(limit)) for limit in config.pace)
    aims = u[1]  # a third each: theft, ruin, both
    route = by_stage[0] >= tables.skipped[None]
    route = route & ~((tables.moves > 0) & one_host)[None]
    stages = jnp.arange(_N_STAGES)
    route = route & ~((stages == _RUIN)[None] & (aims[:, None] < 1 / 3))
    route = route & ~(((stages == _THEFT) | (stages == _THEFT - 1))[None] & (aims[:, None] > 2 / 3))
    zero, no = jnp.zeros(n, jnp.int32), jnp.zeros(n, bool)
    choices = tables.choices.astype(jnp.float32)
    return Campaigns(
        key=key,
        attempts=zero,
        next_s=jnp.where(exists, u[2] * (config.onset_share * duration_s), jnp.inf),
        first_s=jnp.full(n, jnp.inf, jnp.float32),
        since_s=jnp.full(n, jnp.inf, jnp.float32),
        stage=zero,
        progress=zero,
        switches=zero,
        refused=zero,
        stopped=~exists,
        contained=no,
        returned=no,
        kept=no,
        route=route,
        base=jnp.floor(by_stage[1] * choices[None]).astype(jnp.int32),
        chance=u[3],
        return_s=-jnp.log1p(-u[4]) * config.reentry_s,
        pace=jnp.exp(_between(u[5], (low, high))),
        stealth=_between(u[6], config.stealth),
        failure=_between(u[7], config.failure),
        patience=jnp.floor(_between(u[8], config.patience)).astype(jnp.int32),
    )


def attack_draws(
    key: PRNGKeyArray, campaign: Int[Array, ""], attempt: Int[Array, ""]
) -> Float[Array, " draw"]:
    """The random numbers of one attempt (fewer than 2^20 of them), whatever was answered before."""
    return jax.random.uniform(jax.random.fold_in(key, (campaign + 1) * _MOST_ATTEMPTS + attempt), (N_DRAWS,))


def next_stage(campaigns: Campaigns, campaign: Int[Array, ""]) -> tuple[Int[Array, ""], Bool[Array, ""]]:
    """The stage that follows a campaign's present one, and whether the present one is its last."""
    ahead = campaigns.route[campaign] & (jnp.arange(_N_STAGES) > campaigns.stage[campaign])
    return jnp.argmax(ahead).astype(jnp.int32), ~ahead.any()


def choose_turn(
    config: AttackConfig,
    campaigns: Campaigns,
    world: World,
    *,
    awake: Bool[Array, " slot"],
    now_s: Float[Array, ""],
    open_slot: Bool[Array, " slot"],
) -> Turn:
    """The next attempt of any campaign that has a process to act through or a way in.

    Args:
        config: attackers.
        campaigns: their state.
        world: the processes.
        awake: processes that live and are not silent.
        now_s: the present, in s.
        open_slot: per slot, whether its host can take a new process now.
    """
    n = campaigns.stage.shape[0]
    owned = world.campaign[None, :] == jnp.arange(n)[:, None]
    usable = owned & awake[None, :]
    doors = awake & (world.entry >= 0) & open_slot
    inside = (owned & world.alive[None, :]).any(axis=1)
    able = ~campaigns.stopped & (usable.any(axis=1) | (~inside & doors.any()))
    due_s = jnp.where(able, jnp.maximum(campaigns.next_s, now_s), jnp.inf)
    campaign = jnp.argmin(due_s).astype(jnp.int32)
    draws = attack_draws(campaigns.key, campaign, campaigns.attempts[campaign])

    mine = usable[campaign]
    newest = jnp.argmax(jnp.where(mine, world.serial, -1))
    oldest = jnp.argmin(jnp.where(mine, world.serial, jnp.iinfo(jnp.int32).max))
    # an attacker who was just refused tries through another process
    latest = (draws[0] < config.latest) ^ (campaigns.refused[campaign] % 2 == 1)
    foothold = jnp.where(latest, newest, oldest).astype(jnp.int32)
    enters = ~mine.any()
    return Turn(
        campaign=campaign,
        time_s=due_s[campaign],
        possible=able[campaign],
        enters=enters,
        slot=jnp.where(enters, pick(doors, draws[1]), foothold),
        draws=draws,
    )


def wait_s(
    campaigns: Campaigns,
    tables: Tables,
    campaign: Int[Array, ""],
    *,
    stage: Int[Array, ""],
    enters_stage: Bool[Array, ""],
    u: Float[Array, ""],
) -> Float[Array, ""]:
    """Time to the next attempt: the delay before a stage, or the gap within it, longer after refusals."""
    low, high = tables.log_delay[stage]
    delay = jnp.exp(low + (high - low) * u)
    gap = -jnp.log1p(-u) * tables.gap_s[stage]
    refused = jnp.minimum(campaigns.refused[campaign], _BACKOFF).astype(jnp.float32)
    return jnp.where(enters_stage, delay, gap * (1.0 + refused)) * campaigns.pace[campaign]


def stop(
    config: AttackConfig,
    campaigns: Campaigns,
    *,
    contained: Bool[Array, " campaign"],
    complete: Bool[Array, " campaign"],
    now_s: Array,
) -> Campaigns:
    """Ends campaigns: a complete one for good, a contained one unless it comes back after its delay."""
    likely = config.reentry + jnp.where(campaigns.kept, config.reentry_kept, 0.0)
    again = contained & ~campaigns.returned & (campaigns.chance < likely) & ~complete
    ended = (contained | complete) & ~again
    return eqx.tree_at(
        lambda c: (c.stopped, c.contained, c.returned, c.next_s, c.since_s, c.stage, c.progress, c.refused),
        campaigns,
        (
            campaigns.stopped | ended,
            campaigns.contained | contained,
            campaigns.returned | again,
            jnp.where(again, now_s + campaigns.return_s, campaigns.next_s),
            jnp.where(again, jnp.inf, campaigns.since_s),
            jnp.where(again, 0, campaigns.stage),
            jnp.where(again, 0, campaigns.progress),
            jnp.where(again, 0, campaigns.refused),
        ),
    )


def worth_ahead(
    config: AttackConfig, tables: Tables, campaigns: Campaigns
) -> Float[Array, "campaign stage_end"]:
    """Discounted damage that follows once a campaign enters each stage of its route.

    W(s) = d_s (1 - b^n) / (1 - b) + b^n W(next s) with n the stage's steps, d_s their damage and b = 0.9 a success;
    skipped stages pass on what follows them; the last one adds the final damage.
    """
    b = _SUCCESS_DISCOUNT
    power = jnp.asarray(b ** np.array([stage.needed for stage in STAGES.values()]), jnp.float32)
    within = tables.damage * (1.0 - power) / (1.0 - b)
    n = campaigns.stage.shape[0]
    ahead = [jnp.full(n, config.final_damage / b, jnp.float32)]
    for s in reversed(range(_N_STAGES)):
        taken = within[s] + power[s] * ahead[0]
        ahead.insert(0, jnp.where(campaigns.route[:, s], taken, ahead[0]))
    return jnp.stack(ahead, axis=1)


def remaining_damage(
    config: AttackConfig,
    tables: Tables,
    campaigns: Campaigns,
    ahead: Float[Array, "campaign stage_end"],
    *,
    left_s: Float[Array, ""],
) -> Float[Array, " campaign"]:
    """An estimate of the damage that each campaign still does in the episode, in units of damage.

    The worth of what is ahead of its present step, times the share that the time left allows at its pace.

    Args:
        config: attackers.
        tables: the catalogue.
        campaigns: their state.
        ahead: from ``worth_ahead``.
        left_s: expected time to the end of the episode, in s.
    """
    b = _SUCCESS_DISCOUNT
    stage = campaigns.stage
    left = (tables.needed[stage] - campaigns.progress).astype(jnp.float32)
    power = jnp.exp(float(np.log(b)) * left)
    following = jnp.take_along_axis(ahead, stage[:, None] + 1, axis=1)[:, 0]
    worth = tables.damage[stage] * (1.0 - power) / (1.0 - b) + power * following
    speed = (1.0 - campaigns.stealth) * (1.0 - campaigns.failure) / (_STEP_S * campaigns.pace)
    fits = 1.0 - jnp.exp(float(np.log(b)) * left_s * speed)
    returns = config.reentry + jnp.where(campaigns.kept, config.reentry_kept, 0.0)
    return worth * fits * (1.0 - returns)


_STEP_S = float(
    np.mean([np.sqrt(np.prod(stage.delay_s)) / stage.needed for stage in STAGES.values()])
    + np.mean([stage.gap_s for stage in STAGES.values()])
)
"""Mean time that one success takes at the pace 1 when every attempt is one, in s."""
