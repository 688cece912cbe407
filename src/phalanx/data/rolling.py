"""Rolling statistics of a process: one definition for recorded tables (a scan) and for the simulator (one step)."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phalanx.types import Column

__all__ = ["EVENT_CLASSES", "ROLLING_COLUMNS", "RollingState", "init_rolling", "rolling_step"]

EVENT_CLASSES = ("process", "file", "network", "memory", "identity", "other")

ROLLING_COLUMNS = (
    Column("process_events"),
    Column("process_age"),
    Column("process_pause"),
    *(Column(f"recent_{name}") for name in EVENT_CLASSES),
)

_GAIN = 0.125  # a power of two: the product is exact, so that a fused multiply-add gives the same bits


class RollingState(eqx.Module):
    """What is kept of one process.

    Attributes:
        events: events so far.
        first_s: time of its first event, in s.
        last_s: time of its last event, in s.
        recent: exponentially decayed shares of the event classes, over about the last eight events.
    """

    events: Float[Array, "*batch"]
    first_s: Float[Array, "*batch"]
    last_s: Float[Array, "*batch"]
    recent: Float[Array, "*batch event_class"]


def init_rolling(shape: tuple[int, ...] = ()) -> RollingState:
    """Processes of which nothing has been seen."""
    zero = jnp.zeros(shape, jnp.float32)
    return RollingState(zero, zero, zero, jnp.zeros((*shape, len(EVENT_CLASSES)), jnp.float32))


def rolling_step(
    state: RollingState, event_class: Int[Array, ""], time_s: Float[Array, ""]
) -> tuple[RollingState, Float[Array, " rolling"]]:
    """Adds an event and returns the features of ``ROLLING_COLUMNS``, each of order 1, this event included.

    Args:
        state: of the acting process before the event.
        event_class: index into ``EVENT_CLASSES``.
        time_s: time of the event, in s, not before ``state.last_s``.
    """
    new = state.events == 0
    first_s = jnp.where(new, time_s, state.first_s)
    pause_s = jnp.where(new, 0.0, time_s - state.last_s)
    one_hot = jax.nn.one_hot(event_class, len(EVENT_CLASSES), dtype=jnp.float32)
    after = RollingState(
        events=state.events + 1.0,
        first_s=first_s,
        last_s=time_s,
        recent=state.recent + _GAIN * (one_hot - state.recent),
    )
    features = jnp.concatenate(
        [
            jnp.log1p(after.events)[None] / 5.0,
            jnp.log1p(jnp.maximum(time_s - first_s, 0.0))[None] / 8.0,
            jnp.log1p(jnp.maximum(pause_s, 0.0))[None] / 5.0,
            after.recent,
        ]
    )
    return after, features
