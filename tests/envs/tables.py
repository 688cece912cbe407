"""Small encoded tables for the tests of recorded environments."""

import numpy as np

from phalanx.data.encoder import Encoded
from phalanx.types import Column, ObservationSpec

__all__ = ["SPEC", "table", "tree_table"]

SPEC = ObservationSpec(
    categorical=(Column("kind", size=9), Column("object_kind", "file", size=5)),
    numeric=(Column("size"), Column("age"), Column("pause")),
    n_entities=128,
)


def table(
    *,
    subject: np.ndarray,
    label: np.ndarray,
    parent: np.ndarray | None = None,
    campaign: np.ndarray | None = None,
    time_s: np.ndarray | None = None,
    seed: int = 0,
) -> Encoded:
    """An encoded table with random observations; the first number is the row's index, which identifies it."""
    rng, n_rows = np.random.default_rng(seed), len(subject)
    numeric = rng.normal(size=(n_rows, 3)).astype(np.float32)
    numeric[:, 0] = np.arange(n_rows)
    none = np.full(n_rows, -1, np.int32)
    return Encoded(
        category=np.stack([rng.integers(0, 9, n_rows), rng.integers(0, 5, n_rows)], axis=1).astype(np.int32),
        numeric=numeric,
        event_class=np.zeros(n_rows, np.int32),
        subject=np.asarray(subject, np.int32),
        parent=none if parent is None else np.asarray(parent, np.int32),
        host=np.zeros(n_rows, np.int32),
        time_s=np.asarray(np.arange(n_rows) if time_s is None else time_s, np.float32),
        label=np.asarray(label, np.int8),
        campaign=none if campaign is None else np.asarray(campaign, np.int32),
        stage=none,
    )


def tree_table(
    seed: int, n_rows: int, n_subjects: int = 6, n_campaigns: int = 3, share: float = 0.3
) -> Encoded:
    """Random rows of a random process tree; a tail of ``n_subjects`` rows shows every subject and campaign once."""
    rng = np.random.default_rng(seed)
    above = np.array([rng.integers(-1, s) if s else -1 for s in range(n_subjects)])
    subject = np.concatenate([rng.integers(0, n_subjects, n_rows), np.arange(n_subjects)])
    label = rng.choice([-1, 0, 1], size=len(subject), p=[0.1, 0.9 - share, share])
    label[n_rows:] = 1
    campaign = np.where(label == 1, rng.integers(0, n_campaigns, len(subject)), -1)
    campaign[n_rows:] = np.arange(n_subjects) % n_campaigns
    steps = rng.integers(0, 4, len(subject))
    return table(
        subject=subject,
        label=label,
        parent=above[subject],
        campaign=campaign,
        time_s=np.cumsum(steps),
        seed=seed,
    )
