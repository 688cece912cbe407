"""What the simulator tells the critic of its core state: campaigns under way, the event's truth, silent work."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from phalanx.envs.response import ResponseState, silent
from phalanx.envs.sim_campaign import Campaigns
from phalanx.envs.sim_event import Event
from phalanx.envs.sim_world import World

__all__ = ["core_features", "core_size"]

_SOON_S, _LATER_S = 30.0, 300.0
_MANY, _MUCH = 4.0, 200.0
_CAMPAIGN, _SHARED = 11, 10


def core_size(n_campaigns: int) -> int:
    """Numbers that ``core_features`` returns.

    Example:
        >>> core_size(2)
        32
    """
    return _CAMPAIGN * n_campaigns + _SHARED


def _compressed(x: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """sign(x) log(1 + |x|) / 3: damage and costs of all sizes, of order 1."""
    return jnp.sign(x) * jnp.log1p(jnp.abs(x)) / 3.0


def core_features(
    *,
    world: World,
    campaigns: Campaigns,
    response: ResponseState,
    event: Event,
    ahead: Float[Array, "campaign stage_end"],
    rate_hz: Float[Array, " slot"],
    damage: Float[Array, ""],
    credit: Float[Array, " verdict"],
    ttl_s: float,
) -> Float[Array, " core"]:
    """Facts of the core state, each of order 1.

    Args:
        world, campaigns, response, event: the state.
        ahead: damage that follows each stage of each campaign (``sim_campaign.worth_ahead``).
        rate_hz: benign events per second of each process.
        damage: of the pending event, if it happens.
        credit: what each verdict is worth on it.
        ttl_s: a quarantine's time to live, in s.

    Returns:
        Per campaign: attempted, to come, time to its next attempt on two scales, its stage and the damage that
        follows, its pace without cover and failure, footholds awake and silent, whether it came back, the share of its
        patience that refusals have used up. Then: the pending event's truth, damage and worth of each verdict; benign
        work that silence will cost and its share; the next ticket on a hostile process; the pace of benign work.
    """
    now_s = event.time_s
    muted = silent(response, now_s)
    owned = world.alive[None, :] & (world.campaign[None, :] == jnp.arange(ahead.shape[0])[:, None])
    going = ~campaigns.stopped
    met = jnp.isfinite(campaigns.first_s)
    wait_s = jnp.where(going, jnp.maximum(campaigns.next_s - now_s, 0.0), jnp.inf)
    pace = (1.0 - campaigns.stealth) * (1.0 - campaigns.failure) / campaigns.pace
    worn = campaigns.refused.astype(jnp.float32) / jnp.maximum(campaigns.patience, 1).astype(jnp.float32)
    follows = jnp.take_along_axis(ahead, campaigns.stage[:, None], axis=1)[:, 0]

    def count(mask: Bool[Array, "campaign slot"]) -> Float[Array, " campaign"]:
        return mask.sum(axis=1, dtype=jnp.float32) / _MANY

    per_campaign = jnp.stack(
        [
            (going & met).astype(jnp.float32),
            (going & ~met).astype(jnp.float32),
            jnp.exp(-wait_s / _SOON_S),
            jnp.exp(-wait_s / _LATER_S),
            jnp.where(going, campaigns.stage.astype(jnp.float32) / ahead.shape[1], 0.0),
            jnp.where(going & met, follows / _MUCH, 0.0),
            jnp.where(going, pace, 0.0),
            count(owned & ~muted[None, :]),
            count(owned & muted[None, :]),
            campaigns.returned.astype(jnp.float32),
            jnp.where(going, worn, 0.0),
        ],
        axis=1,
    )
    left_s = jnp.where(muted, jnp.minimum(response.silent_until_s - now_s, ttl_s), 0.0)
    total_hz = jnp.maximum(rate_hz.sum(), 1e-6)
    hostile = world.alive & (world.campaign >= 0)
    closes_s = jnp.where(hostile, response.ticket_done_s, jnp.inf).min() - now_s
    shared = jnp.stack(
        [
            (event.campaign >= 0).astype(jnp.float32),
            _compressed(damage),
            *_compressed(credit),
            _compressed((rate_hz * left_s).sum()),
            jnp.where(muted, rate_hz, 0.0).sum() / total_hz,
            jnp.exp(-jnp.maximum(closes_s, 0.0) / _LATER_S),
            _compressed(1.0 / total_hz),
        ]
    )
    return jnp.concatenate([per_campaign.reshape(-1), shared])
