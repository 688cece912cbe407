"""Rolling statistics over recorded rows: ``rolling_step`` scanned over each process's events."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float32, Int32

from phalanx.data.rolling import ROLLING_COLUMNS, RollingState, init_rolling, rolling_step

__all__ = ["rolling_features"]

_CHUNKS = (65536, 1024)


def rolling_features(
    subject: Int32[np.ndarray, " event"],
    event_class: Int32[np.ndarray, " event"],
    time_s: Float32[np.ndarray, " event"],
) -> Float32[np.ndarray, "event rolling"]:
    """The features of ``ROLLING_COLUMNS`` of each event, from its process's events up to and with it.

    The rows are regrouped by process (in their order), so that the scan carries the state of one process instead of a
    table of all; it runs in chunks of fixed size, so that it compiles once.

    Args:
        subject: process of each event.
        event_class: index into ``EVENT_CLASSES``.
        time_s: non-decreasing times, in s.
    """
    order = np.argsort(subject, kind="stable")
    grouped = subject[order]
    first = np.ones(len(order), bool)
    first[1:] = grouped[1:] != grouped[:-1]
    columns = (first, event_class[order].astype(np.int32), time_s[order].astype(np.float32))
    carry, done, parts = init_rolling(), 0, []
    while done < len(order):
        size = _CHUNKS[0] if len(order) - done > 4 * _CHUNKS[1] else _CHUNKS[1]
        taken = min(size, len(order) - done)
        piece = [np.pad(column[done : done + taken], (0, size - taken), mode="edge") for column in columns]
        carry, features = _scan(carry, *piece)
        parts.append(np.asarray(features)[:taken])
        done += taken
    features = np.empty((len(order), len(ROLLING_COLUMNS)), np.float32)
    if parts:
        features[order] = np.concatenate(parts)
    return features


@jax.jit
def _scan(
    carry: RollingState,
    first: Bool[Array, " event"],
    event_class: Int32[Array, " event"],
    time_s: Float32[Array, " event"],
) -> tuple[RollingState, Float32[Array, "event rolling"]]:
    def step(
        state: RollingState, event: tuple[Bool[Array, ""], Int32[Array, ""], Float32[Array, ""]]
    ) -> tuple[RollingState, Float32[Array, " rolling"]]:
        starts, kind, now_s = event
        state = jax.tree.map(lambda blank, old: jnp.where(starts, blank, old), init_rolling(), state)
        return rolling_step(state, kind, now_s)

    return jax.lax.scan(step, carry, (first, event_class, time_s))
