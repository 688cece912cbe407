"""Robustness of one formula over many entities at once, their state side by side in arrays."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phalanx.errors import DataError, UsageError
from phalanx.stl.arguments import expect_mapping, whole_number
from phalanx.stl.fleet_stages import FleetStage, fleet_stages_of
from phalanx.stl.fleet_windows import Series
from phalanx.stl.formula import Formula, ticks
from phalanx.stl.offline import period_in_ns
from phalanx.stl.parser import parse

__all__ = ["Fleet", "FleetVerdicts"]


class FleetVerdicts(NamedTuple):
    """What a call has made known: one entry for each entity that took a sample, in the order of the call.

    Attributes:
        value: robustness; NaN where it is not known yet.
        known: whether it is.
        sample: index of the entity's sample that the value is about, 0 until one is known.
    """

    value: NDArray[np.float64]
    known: NDArray[np.bool_]
    sample: NDArray[np.int64]


class Fleet:
    """Watches one formula over the streams of many entities, samples of each a period apart.

    Each entity has its own stream: a call brings the next sample of all entities, or of some. The values are those of
    one ``Monitor`` an entity, bit for bit. A call takes a number of array operations that does not depend on the
    windows' lengths; memory holds the windows of all entities from the start (``bytes_per_entity``).

    Args:
        text: the formula, or its text. Future operators need bounds; quantiles are left to ``Monitor``.
        entities: how many, from 1; they are numbered from 0.
        period: seconds between samples.

    Raises:
        UsageError: a text that is no formula, a bound that is no multiple of the period, a future operator without one,
            a quantile, no entities.

    Example:
        >>> fleet = Fleet("x > 0 -> eventually[0,1] y > 0", 2)
        >>> fleet.update({"x": [2, -1], "y": [-1, 0]}).known
        array([False, False])
        >>> fleet.update({"x": [-1], "y": [3]}, [0])
        FleetVerdicts(value=array([3.]), known=array([ True]), sample=array([0]))
    """

    def __init__(self, text: str | Formula, entities: int, period: float = 1.0) -> None:
        entities = whole_number("entities", entities, 1)
        self.formula = formula = parse(text)
        self.entities = entities
        self.samples = np.zeros(entities, np.int64)
        self._broken = ""
        self._marks = np.empty(entities, np.intp)
        self._stages: list[FleetStage] = []
        last: dict[int, FleetStage] = {}
        period_ns = period_in_ns(period)
        for index in formula.needed:
            node = formula.nodes[index]
            bounds = ticks(formula, node, period_ns)
            args = [last[arg] for arg in node.args]
            stages = fleet_stages_of(formula, node, args, bounds, entities, period_ns)
            self._stages += stages
            last[index] = stages[-1]
        self._root = last[formula.root]
        self._latest = max(stage.delay for stage in self._stages)

    @property
    def horizon(self) -> int:
        """Samples that pass until a sample's value is known."""
        return self._root.delay

    @property
    def bytes_per_entity(self) -> float:
        """Memory of the state, an entity."""
        held = self.samples.nbytes + self._marks.nbytes + sum(stage.nbytes for stage in self._stages)
        return held / self.entities

    def update(self, values: Mapping[str, ArrayLike], entities: ArrayLike | None = None) -> FleetVerdicts:
        """Takes the next sample of some entities in.

        Args:
            values: name -> one number for each of these entities.
            entities: their numbers, none twice; None for all of them in order.

        Raises:
            UsageError: a missing signal, or one with a name that the formula defines; entities that are none or occur
                twice.
            DataError: NaN, or not one number for each entity (no sample is taken in); arithmetic without a result
                (the fleet then cannot go on, and says so).
        """
        if self._broken:
            raise DataError(f"{self._broken}; this fleet cannot go on, start a new one")
        rows = None if entities is None else self._rows(entities)
        count = self.entities if rows is None else rows.size
        given = self._checked(values, count)
        before = self.samples.copy() if rows is None else self.samples[rows]
        young = count > 0 and int(before.min()) <= self._latest
        for stage in self._stages:
            try:
                stage.step(given, rows, before if young else None)
            except DataError as error:
                self._broken = str(error)
                raise
        if rows is None:
            self.samples += 1
        else:
            self.samples[rows] = before + 1
        value = np.broadcast_to(self._root.value, (count,))
        sample = before - self.horizon
        known = sample >= 0
        if young:
            value, sample = np.where(known, value, np.nan), np.maximum(sample, 0)
        return FleetVerdicts(np.array(value), known, sample)

    def reset(self, entities: ArrayLike) -> None:
        """Has some entities begin anew.

        Raises:
            UsageError: entities that are none, or occur twice.
        """
        rows = self._rows(entities)
        self.samples[rows] = 0
        for stage in self._stages:
            stage.reset(rows)

    def _rows(self, entities: ArrayLike) -> NDArray[np.intp]:
        given = np.asarray(entities)
        if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
            raise UsageError(f"entities: expected a list of numbers from 0 to {self.entities - 1}")
        rows = given.astype(np.intp)
        if rows.size and not 0 <= rows.min() <= rows.max() < self.entities:
            bad = rows[(rows < 0) | (rows >= self.entities)][0]
            raise UsageError(f"entity {bad}: expected a number from 0 to {self.entities - 1}")
        order = np.arange(rows.size)
        self._marks[rows] = order
        twice = rows[self._marks[rows] != order]
        if twice.size:
            raise UsageError(f"entity {twice[0]} occurs twice in a call; bring one sample of each at a time")
        return rows

    def _checked(self, values: Mapping[str, ArrayLike], count: int) -> dict[str, Series]:
        """The signals that the formula reads."""
        formula = self.formula
        expect_mapping("values", values)
        taken = [name for name in (*formula.names, *formula.constants) if name in values]
        if taken:
            raise UsageError(f"{taken[0]!r} is defined in the formula and a signal of the call; rename one")
        found = {}
        for name in formula.signals:
            if name not in values:
                raise UsageError(f"no signal {name!r}; the call has: {', '.join(sorted(values)) or 'none'}")
            try:
                found[name] = series = np.asarray(values[name], np.float64)
            except (TypeError, ValueError, OverflowError) as error:
                raise DataError(f"signal {name!r} is no sequence of numbers: {error}") from None
            if series.shape != (count,):
                shape = "x".join(map(str, series.shape)) or "scalar"
                raise DataError(
                    f"signal {name!r} has {shape} values; expected one for each of {count} entities"
                )
            if np.isnan(series).any():
                bad = int(np.flatnonzero(np.isnan(series))[0])
                raise DataError(f"signal {name!r} is NaN at place {bad} of the call; no sample is taken in")
        return found
