"""Campaigns: when an attacker acts, through which process, and how a campaign advances, stops or returns.

Every random number of a campaign comes from its own key and its own count of attempts, so that two policies face the
same attacker until their answers differ.
"""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from phalanx.envs.catalogue import STAGES, Tables
from phalanx.envs.sim_world import World, pick

__all__ = [
    "N_DRAWS",
    "AttackConfig",
    "Campaigns",
    "Turn",
    "attack_draws",
    "choose_turn",
    "future_worth",
    "init_campaigns",
    "remaining_damage",
    "stop",
]

N_DRAWS = 12
_SUCCESS_DISCOUNT = 0.9
_MOST_ATTEMPTS = 2**20


@dataclass(frozen=True)
class AttackConfig:
    """How attackers behave; ranges are drawn once per campaign.

    Attributes:
        fewest, most: campaigns of an episode.
        onset_share: the onset is uniform in the first part of the episode's expected duration.
        pace_s: range of the mean time between attempts (patience, log-uniform), in s.
        stealth: range of the share of attempts that only look like ordinary work and advance nothing.
        failure: range of the probability that an attempt fails by itself.
        reentry: probability that a stopped campaign starts again.
        reentry_s: mean delay of that, in s.
        latest: probability of acting through the newest process; else through the oldest one.
        final_damage: of the completed last stage, on top of its events.
    """

    fewest: int = 1
    most: int = 2
    onset_share: float = 0.6
    pace_s: tuple[float, float] = (9.0, 24.0)
    stealth: tuple[float, float] = (0.4, 0.7)
    failure: tuple[float, float] = (0.07, 0.16)
    reentry: float = 0.1
    reentry_s: float = 60.0
    latest: float = 0.75
    final_damage: float = 100.0


class Campaigns(eqx.Module):
    """The campaigns of an episode.

    Attributes:
        key: of all their draws.
        attempts: events so far (the number of the next draw).
        next_s: time of the next attempt (inf: there is no such campaign), in s.
        first_s: time of the first attempt (inf: none yet), in s.
        stage: the present stage.
        progress: successful events in it.
        stopped: it is over: contained or complete.
        contained: it was stopped by a quarantine at least once.
        returns: it starts again if it is stopped.
        return_s: delay of that, in s.
        pace_s, stealth, failure: see ``AttackConfig``.
    """

    key: PRNGKeyArray
    attempts: Int[Array, " campaign"]
    next_s: Float[Array, " campaign"]
    first_s: Float[Array, " campaign"]
    stage: Int[Array, " campaign"]
    progress: Int[Array, " campaign"]
    stopped: Bool[Array, " campaign"]
    contained: Bool[Array, " campaign"]
    returns: Bool[Array, " campaign"]
    return_s: Float[Array, " campaign"]
    pace_s: Float[Array, " campaign"]
    stealth: Float[Array, " campaign"]
    failure: Float[Array, " campaign"]


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


def init_campaigns(config: AttackConfig, key: PRNGKeyArray, duration_s: float) -> Campaigns:
    """Draws the campaigns of an episode that is expected to last ``duration_s``."""
    n = config.most
    u = jax.random.uniform(jax.random.fold_in(key, 0), (7, n))
    spread = jnp.floor(u[0, 0] * (config.most - config.fewest + 1)).astype(jnp.int32)
    exists = jnp.arange(n) < config.fewest + spread
    low, high = (float(np.log(limit)) for limit in config.pace_s)
    zero, no = jnp.zeros(n, jnp.int32), jnp.zeros(n, bool)
    return Campaigns(
        key=key,
        attempts=zero,
        next_s=jnp.where(exists, u[1] * (config.onset_share * duration_s), jnp.inf),
        first_s=jnp.full(n, jnp.inf, jnp.float32),
        stage=zero,
        progress=zero,
        stopped=~exists,
        contained=no,
        returns=u[2] < config.reentry,
        return_s=-jnp.log1p(-u[3]) * config.reentry_s,
        pace_s=jnp.exp(_between(u[4], (low, high))),
        stealth=_between(u[5], config.stealth),
        failure=_between(u[6], config.failure),
    )


def attack_draws(
    key: PRNGKeyArray, campaign: Int[Array, ""], attempt: Int[Array, ""]
) -> Float[Array, " draw"]:
    """The random numbers of one attempt (fewer than 2^20 of them), whatever was answered before."""
    return jax.random.uniform(jax.random.fold_in(key, (campaign + 1) * _MOST_ATTEMPTS + attempt), (N_DRAWS,))


def choose_turn(
    config: AttackConfig,
    campaigns: Campaigns,
    world: World,
    tables: Tables,
    *,
    awake: Bool[Array, " slot"],
    now_s: Float[Array, ""],
    free: Int[Array, " host"],
) -> Turn:
    """The next attempt of any campaign that has a process to act through or a way in.

    Args:
        config: attackers.
        campaigns: their state.
        world: the processes.
        tables: the catalogue.
        awake: processes that live and are not silent.
        now_s: the present, in s.
        free: free slots per host.
    """
    n = campaigns.stage.shape[0]
    owned = world.campaign[None, :] == jnp.arange(n)[:, None]
    usable = owned & awake[None, :]
    doors = awake & (world.campaign < 0) & (tables.entry[world.program] >= 0) & (free[world.host] > 0)
    inside = (owned & world.alive[None, :]).any(axis=1)
    able = ~campaigns.stopped & (usable.any(axis=1) | (~inside & doors.any()))
    due_s = jnp.where(able, jnp.maximum(campaigns.next_s, now_s), jnp.inf)
    campaign = jnp.argmin(due_s).astype(jnp.int32)
    draws = attack_draws(campaigns.key, campaign, campaigns.attempts[campaign])

    mine = usable[campaign]
    newest = jnp.argmax(jnp.where(mine, world.serial, -1))
    oldest = jnp.argmin(jnp.where(mine, world.serial, jnp.iinfo(jnp.int32).max))
    foothold = jnp.where(draws[0] < config.latest, newest, oldest).astype(jnp.int32)
    enters = ~mine.any()
    return Turn(
        campaign=campaign,
        time_s=due_s[campaign],
        possible=able[campaign],
        enters=enters,
        slot=jnp.where(enters, pick(doors, draws[1]), foothold),
        draws=draws,
    )


def stop(
    campaigns: Campaigns,
    *,
    contained: Bool[Array, " campaign"],
    complete: Bool[Array, " campaign"],
    now_s: Array,
) -> Campaigns:
    """Ends campaigns: a complete one for good, a contained one unless it returns after its delay."""
    again = contained & campaigns.returns & ~complete
    ended = (contained | complete) & ~again
    return eqx.tree_at(
        lambda c: (c.stopped, c.contained, c.returns, c.next_s, c.stage, c.progress),
        campaigns,
        (
            campaigns.stopped | ended,
            campaigns.contained | contained,
            campaigns.returns & ~again,
            jnp.where(again, now_s + campaigns.return_s, campaigns.next_s),
            jnp.where(again, 0, campaigns.stage),
            jnp.where(again, 0, campaigns.progress),
        ),
    )


def future_worth(config: AttackConfig) -> np.ndarray:
    """Discounted damage that follows after each number of successful events of a campaign.

    W(p) = sum_{j >= 0} b^j d(p + j) with b = 0.9 a success; d of the last one includes the final damage.
    """
    damage = np.concatenate([np.full(stage.needed, stage.damage) for stage in STAGES.values()])
    damage[-1] += config.final_damage
    worth = np.zeros(damage.size + 1)
    for p in range(damage.size - 1, -1, -1):
        worth[p] = damage[p] + _SUCCESS_DISCOUNT * worth[p + 1]
    return worth.astype(np.float32)


def remaining_damage(
    config: AttackConfig,
    campaigns: Campaigns,
    worth: Float[Array, " success"],
    *,
    campaign: Int[Array, ""],
    passed: Int[Array, ""],
    left_s: Float[Array, ""],
) -> Float[Array, ""]:
    """An estimate of the damage that a campaign still does in the episode, in units of damage.

    W(p) (1 - b^n) (1 - reentry), with p the successful events so far and n those that the campaign's pace, stealth and
    failures leave time for.

    Args:
        config: attackers.
        campaigns: their state.
        worth: W, from ``future_worth``.
        campaign: whose.
        passed: successful events of its campaign so far.
        left_s: expected time to the end of the episode, in s.
    """
    speed = (
        (1.0 - campaigns.stealth[campaign]) * (1.0 - campaigns.failure[campaign]) / campaigns.pace_s[campaign]
    )
    fits = 1.0 - jnp.exp(float(np.log(_SUCCESS_DISCOUNT)) * left_s * speed)
    return worth[passed] * fits * (1.0 - config.reentry)
