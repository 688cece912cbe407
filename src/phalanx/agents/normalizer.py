"""Normalisation of value targets: none, batch, running (Welford/Chan) and PopArt, one record and one registry.

The critic emits n; V = sigma n + mu. Statistics are frozen during a rollout and updated once, before its first epoch.
Squared deviations are accumulated around the mean (never E[x^2] - E[x]^2, which loses a small sigma beside a large mean
in float32), and the floor of sigma is relative to the largest scale seen.
"""

from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from phalanx.errors import unknown_name

__all__ = [
    "NORMALIZERS",
    "NormalizerState",
    "denormalize",
    "init_normalizer",
    "normalize",
    "on_floor",
    "rescale_head",
    "scale",
    "update_normalizer",
]

_FLOOR = 1e-6  # of the largest scale seen: the limit of float32


class NormalizerState(eqx.Module):
    """Running statistics of value targets.

    Attributes:
        count: weight of the targets seen (decayed for PopArt).
        mean: their mean, in reward units.
        m2: their weighted sum of squared deviations from the mean.
        peak: largest scale seen, for the floor.
    """

    count: Float[Array, "*batch"]
    mean: Float[Array, "*batch"]
    m2: Float[Array, "*batch"]
    peak: Float[Array, "*batch"]


def init_normalizer() -> NormalizerState:
    """Statistics before any target: mu = 0, sigma = 1."""
    zero = jnp.zeros((), jnp.float32)
    return NormalizerState(count=zero, mean=zero, m2=zero, peak=zero)


def scale(state: NormalizerState) -> Float[Array, ""]:
    """sigma, in reward units; 1 before any target."""
    sigma = jnp.sqrt(state.m2 / jnp.maximum(state.count, 1e-12))
    sigma = jnp.maximum(sigma, _FLOOR * state.peak)
    return jnp.where((state.count > 0) & (sigma > 0), sigma, 1.0)


def on_floor(state: NormalizerState) -> Bool[Array, ""]:
    """Whether sigma is held up by its floor: the targets (nearly) do not vary."""
    sigma = jnp.sqrt(state.m2 / jnp.maximum(state.count, 1e-12))
    return (state.count > 0) & (sigma <= _FLOOR * state.peak)


def normalize(state: NormalizerState, values: Float[Array, "..."]) -> Float[Array, "..."]:
    """(values - mu) / sigma."""
    return (values - state.mean) / scale(state)


def denormalize(state: NormalizerState, emitted: Float[Array, "..."]) -> Float[Array, "..."]:
    """V = sigma n + mu."""
    return scale(state) * emitted + state.mean


def _merge(state: NormalizerState, targets: Float[Array, "..."], keep: float) -> NormalizerState:
    """Chan's parallel update after decaying the old weight by ``keep``."""
    count = jnp.asarray(targets.size, jnp.float32)
    mean = targets.mean()
    m2 = jnp.square(targets - mean).sum()
    old_count, old_m2 = keep * state.count, keep * state.m2
    total = old_count + count
    delta = mean - state.mean
    merged_mean = state.mean + delta * (count / total)
    merged_m2 = old_m2 + m2 + jnp.square(delta) * (old_count * count / total)
    sigma = jnp.sqrt(merged_m2 / total)
    peak = jnp.maximum(state.peak, jnp.maximum(sigma, jnp.abs(merged_mean)))
    return NormalizerState(count=total, mean=merged_mean, m2=merged_m2, peak=peak)


def _none(state: NormalizerState, targets: Array, keep: float) -> NormalizerState:
    del targets, keep
    return state


def _batch(state: NormalizerState, targets: Array, keep: float) -> NormalizerState:
    del state, keep
    return _merge(init_normalizer(), targets, 0.0)


def _running(state: NormalizerState, targets: Array, keep: float) -> NormalizerState:
    del keep
    return _merge(state, targets, 1.0)


NORMALIZERS: dict[str, Callable[[NormalizerState, Array, float], NormalizerState]] = {
    "none": _none,
    "batch": _batch,
    "running": _running,
    "popart": _merge,
}


def update_normalizer(
    name: str, state: NormalizerState, targets: Float[Array, "..."], horizon: float = 30.0
) -> NormalizerState:
    """The statistics with one more rollout of targets.

    - none: mu = 0, sigma = 1 for ever.
    - batch: this rollout's own mean and standard deviation.
    - running: all targets so far, equally weighted.
    - popart: targets so far, decayed by 1 - 1/horizon a rollout; the first rollout initialises directly. The caller
      then rescales the value head (``rescale_head``) so that V is preserved.

    Args:
        name: none, batch, running or popart.
        state: before.
        targets: value targets of one rollout, any shape, in reward units.
        horizon: rollouts that popart remembers, > 1.

    Raises:
        UsageError: unknown name.

    Example:
        >>> state = update_normalizer("popart", init_normalizer(), jnp.asarray([4.0, 6.0]))
        >>> float(state.mean), float(scale(state))
        (5.0, 1.0)

    Source: Chan, Golub and LeVeque, "Updating formulae ... sample variances", 1979; van Hasselt et al., "Learning
    values across many orders of magnitude", 1602.07714, section 2.
    """
    if name not in NORMALIZERS:
        raise unknown_name("normalizer", name, NORMALIZERS)
    return NORMALIZERS[name](state, targets, 1.0 - 1.0 / horizon)


def rescale_head(
    weight: Float[Array, "... feature"],
    bias: Float[Array, "..."],
    old: NormalizerState,
    new: NormalizerState,
) -> tuple[Float[Array, "... feature"], Float[Array, "..."]]:
    """The last layer after new statistics, so that V stays what it was (the POP in PopArt).

    w' = w sigma / sigma';  b' = (sigma b + mu - mu') / sigma'.

    Source: 1602.07714, eq. 2 and proposition 1.
    """
    ratio = scale(old) / scale(new)
    return weight * ratio, bias * ratio + (old.mean - new.mean) / scale(new)
