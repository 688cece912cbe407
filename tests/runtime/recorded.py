"""A small recorded event table whose threats can be learned, and settings of a run on it that take seconds."""

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from phalanx.runtime.config import RunConfig

__all__ = ["frame", "small_run", "write"]

ROWS = 300


def frame(seed: int = 0) -> pl.DataFrame:
    """Twelve processes in time order; a process of a campaign touches other paths with other sizes."""
    rng = np.random.default_rng(seed)
    subject = rng.integers(0, 12, ROWS)
    bad = (subject % 4 == 0) & (rng.random(ROWS) < 0.6)
    return pl.DataFrame(
        {
            "time_ns": (1_600_000_000 + np.cumsum(rng.integers(1, 9, ROWS))) * 10**9,
            "host": ["h"] * ROWS,
            "subject": [f"p{s}" for s in subject],
            "parent": [f"p{s - 1}" if s % 3 else "" for s in subject],
            "kind": np.where(
                bad, rng.choice(["CONNECT", "EXECUTE"], ROWS), rng.choice(["READ", "WRITE"], ROWS)
            ),
            "path": np.where(bad, "/tmp/x", rng.choice(["/etc/a", "/home/b", "/usr/c"], ROWS)),
            "size": rng.normal(50, 10, ROWS) + 40 * bad,
            "label": bad.astype(np.int8),
            "campaign": np.where(bad, "c" + (subject % 8).astype(str).astype(object), ""),
        }
    )


def write(path: Path, table: pl.DataFrame) -> Path:
    """The table as Parquet."""
    table.write_parquet(path)
    return path


def small_run(data: Path, **changes: Any) -> RunConfig:
    """Six iterations of a tiny committee on recorded events, a checkpoint and a validation every second."""
    small: dict[str, Any] = {
        "env": "stream",
        "data": (data,),
        "split": "time",
        "iterations": 6,
        "envs": 4,
        "steps": 16,
        "hidden": 8,
        "memory": 8,
        "entities": 8,
        "episode_events": 32,
        "epochs": 2,
        "minibatches": 2,
        "eval_every": 2,
        "checkpoint_every": 2,
    }
    return RunConfig(**small | changes)
