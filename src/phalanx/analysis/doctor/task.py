"""A task before training: labelled events, their split, what members see and what verdicts pay."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float, Int, Int8

from phalanx.analysis.doctor.rehearsal import Rehearsal

__all__ = ["DataTask"]


@dataclass(frozen=True, eq=False)
class DataTask:
    """Labelled events and what is to be learned from them.

    Attributes:
        frame: every column of the events but the truth, in file order.
        label: 1 malicious, 0 benign, -1 unknown.
        chosen: names of the columns that members see.
        identities: names of the columns that tell who or which one.
        category, numeric: what members see, encoded, a row an event.
        process: dense id of each row's process; None where members remember none.
        order: rows in time order; file order where there are no times.
        timed: whether events have times.
        parts: rows of training, validation and test.
        split: how they were split.
        reward: of each verdict by label, [benign or malicious, verdict].
        consequence: whether verdicts change what follows.
        gamma: discount, in [0, 1].
        assumed: whether nobody asked for this environment, so that what it lacks is no fault of anybody's plan.
        seed: of what is random in the probes.
        rehearsal: the reward with all its terms as fixed policies earn it; None where the task's is all of it.
        members: of the committee that the preset trains; None where none is asked for.
    """

    frame: pl.DataFrame
    label: Int8[np.ndarray, " row"]
    chosen: tuple[str, ...]
    identities: tuple[str, ...]
    category: Int[np.ndarray, "row column"]
    numeric: Float[np.ndarray, "row feature"]
    process: Int[np.ndarray, " row"] | None
    order: Int[np.ndarray, " row"]
    timed: bool
    parts: tuple[Int[np.ndarray, " _"], ...]
    split: str
    reward: Float[np.ndarray, "label verdict"]
    consequence: bool
    gamma: float
    assumed: bool = False
    seed: int = 0
    rehearsal: Rehearsal | None = None
    members: int | None = None
