"""Random histories of events of processes: forks, evictions, ends of episodes, memories from before the rollout."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

__all__ = ["History", "histories", "random_history"]

STEPS, LANES, SLOTS = 14, 3, 4


class History(NamedTuple):
    """Who acts when: ``entity``, ``source``, ``done`` [time, lane]; the table at the start: ``cells``, ``known``."""

    entity: np.ndarray
    source: np.ndarray
    done: np.ndarray
    cells: np.ndarray
    known: np.ndarray


def random_history(seed: int, members: int, memory: int) -> History:
    """An event goes on with its own slot (mostly), inherits another slot's memory, or starts blank."""
    rng = np.random.default_rng(seed)
    entity = rng.integers(0, SLOTS, (STEPS, LANES)).astype(np.int32)
    other = (entity + rng.integers(1, SLOTS, entity.shape)) % SLOTS
    kind = rng.choice(3, size=entity.shape, p=[0.6, 0.25, 0.15])
    source = np.choose(kind, [entity, other, np.full_like(entity, -1)]).astype(np.int32)
    return History(
        entity=entity,
        source=source,
        done=rng.random(entity.shape) < 0.12,
        cells=rng.normal(size=(members, LANES, SLOTS, memory)).astype(np.float32),
        known=rng.random((LANES, SLOTS)) < 0.5,
    )


def histories(members: int, memory: int) -> st.SearchStrategy[History]:
    """Histories by seed."""
    return st.integers(0, 100_000).map(lambda seed: random_history(seed, members, memory))
