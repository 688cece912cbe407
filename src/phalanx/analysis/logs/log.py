"""The record that every training log becomes: values by name, each with the update that it belongs to."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

__all__ = ["Series", "TrainingLog"]


@dataclass(frozen=True)
class Series:
    """The values of one quantity, where it was logged; what is not finite is kept, for it is a symptom.

    Attributes:
        row: rows of the log, ascending.
        value: NaN or infinite where that was logged.
    """

    row: Int[np.ndarray, " logged"]
    value: Float[np.ndarray, " logged"]


@dataclass(frozen=True)
class TrainingLog:
    """A training run's log, a row an update.

    Attributes:
        source: file or folder.
        tool: ``phalanx``, ``stable-baselines3``, ``cleanrl``, ``rllib`` or ``unknown``.
        iteration: of each row; the log's own counter, or counted from 1.
        env_steps: environment steps until then; NaN where the log does not say.
        series: by name of ``metrics.jsonl`` (the squared error of ``loss/value`` without a factor 1/2,
            ``policy/entropy`` in nats and positive), per agent also as ``member/<agent>/<name>``.
        unread: names in the log that are not known.
        notes: what was assumed or left out.
    """

    source: Path
    tool: str
    iteration: Int[np.ndarray, " row"]
    env_steps: Float[np.ndarray, " row"]
    series: Mapping[str, Series]
    unread: tuple[str, ...] = ()
    notes: tuple[str, ...] = field(default=())

    def __len__(self) -> int:
        return len(self.iteration)

    def upto(self, row: int) -> "TrainingLog":
        """The log as it was before a row.

        Example:
            >>> log = TrainingLog(Path("run"), "unknown", np.arange(1, 4), np.full(3, np.nan),
            ...     {"loss/value": Series(np.arange(3), np.ones(3))})
            >>> len(log.upto(2)), log.upto(2).series["loss/value"].row.tolist()
            (2, [0, 1])
        """
        if row >= len(self):
            return self
        series = {
            name: Series(each.row[before], each.value[before])
            for name, each in self.series.items()
            if (before := each.row < row).any()
        }
        return replace(self, iteration=self.iteration[:row], env_steps=self.env_steps[:row], series=series)
