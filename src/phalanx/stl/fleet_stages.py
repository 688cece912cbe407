"""The nodes of a formula at work on the streams of many entities at once.

A stage's value after a call is about each entity's sample ``delay`` calls ago; for an entity that has not had as many
it is meaningless, and what looks at several samples is given what changes nothing in its place.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from phalanx.errors import UsageError
from phalanx.stl.fleet_windows import FleetDelay, FleetSteps, FleetWindow, Rows, Series, Values
from phalanx.stl.formula import Formula, Node
from phalanx.stl.offline import by_libm, no_value
from phalanx.stl.operators import ARITHMETIC, POINTWISE, TEMPORAL, Temporal
from phalanx.stl.places import misplaced

__all__ = ["FleetStage", "fleet_stages_of"]

_INF = math.inf


class FleetStage:
    """One node at work, or a part of one; this one alone is a signal or a constant.

    Attributes:
        node: which.
        delay: calls between a sample and its value.
        value: of the entities of the last call; a number where it is the same for all.
    """

    def __init__(self, node: Node, args: Sequence["FleetStage"] = (), own_delay: int = 0) -> None:
        self.node, self.args = node, tuple(args)
        self.ready = max((arg.delay for arg in args), default=0)
        self.delay = self.ready + own_delay
        self.value: Any = np.float64(node.value)
        self.parts: list[Any] = []

    def hold(self, entities: int) -> "FleetStage":
        """Has arguments that are known earlier wait for the latest."""
        waits = [self.ready - arg.delay for arg in self.args]
        self._holds = [FleetDelay(entities, wait, 0.0) if wait else None for wait in waits]
        self.parts += [each for each in self._holds if each]
        return self

    def step(self, given: Mapping[str, Series], rows: Rows, before: NDArray[np.int64] | None) -> None:
        """One call: its signals, its entities, and how many samples each of them had before it; None where that is
        beyond all delays. Arguments have had theirs."""
        if self.node.op == "signal":
            self.value = given[self.node.name]

    def arguments(self, rows: Rows) -> list[Any]:
        """The arguments' values about one and the same sample."""
        values = [arg.value for arg in self.args]
        return [hold(rows, value) if hold else value for hold, value in zip(self._holds, values, strict=True)]

    def reset(self, rows: NDArray[np.intp]) -> None:
        """Some entities begin anew."""
        for part in self.parts:
            part.reset(rows)

    @property
    def nbytes(self) -> int:
        """Memory of its state."""
        return sum(part.nbytes for part in self.parts)


class _Pointwise(FleetStage):
    """An operator at one sample."""

    def __init__(self, formula: Formula, node: Node, args: Sequence[FleetStage]) -> None:
        super().__init__(node, args)
        self._formula = formula

    def step(self, given: Mapping[str, Series], rows: Rows, before: NDArray[np.int64] | None) -> None:
        args, op = self.arguments(rows), self.node.op
        with np.errstate(all="ignore"):
            self.value = by_libm(op, args) if op in ("exp", "power") else POINTWISE[op](np, *args)
        if op in ARITHMETIC:
            bad = np.isnan(self.value)
            if op == "divide":
                bad = bad | (args[1] == 0.0)
            _refuse(self._formula, self, bad, rows, before)


def _refuse(
    formula: Formula, stage: FleetStage, bad: Any, rows: Rows, before: NDArray[np.int64] | None
) -> None:
    """An error if an entity has no value where one should be known."""
    if not np.any(bad):
        return
    if before is not None:
        bad = bad & (before >= stage.delay)
    found = np.flatnonzero(bad)
    if found.size:
        place = int(found[0])
        entity = place if rows is None else int(rows[place])
        raise no_value(formula, stage.node, entity, stage.node.op)


class _Over(FleetStage):
    """An operator over samples: an aggregate of what its arguments were, held back where it looks further back."""

    def __init__(
        self,
        formula: Formula,
        node: Node,
        args: Sequence[FleetStage],
        own_delay: int,
        nothing: tuple[float, ...],
        aggregate: Any,
        held: FleetDelay | None = None,
    ) -> None:
        super().__init__(node, args, own_delay)
        self._formula, self._nothing, self._aggregate, self._held = formula, nothing, aggregate, held
        self.parts += [part for part in (aggregate, held) if part]

    def step(self, given: Mapping[str, Series], rows: Rows, before: NDArray[np.int64] | None) -> None:
        args = self.arguments(rows)
        if before is not None and self.ready:
            begun = before >= self.ready
            args = [np.where(begun, arg, nothing) for arg, nothing in zip(args, self._nothing, strict=True)]
        if self._held:
            args = [self._held(rows, arg) for arg in args]
        with np.errstate(invalid="ignore"):
            self.value = self._aggregate(rows, *args) if self._aggregate else args[0]
        if self.node.op == "sum":
            _refuse(self._formula, self, np.isnan(self.value), rows, before)


class _Ages:
    """Seconds since each entity's value was last greater than 0."""

    def __init__(self, entities: int, period_ns: int) -> None:
        self._steps, self._period_ns = np.full(entities, -1, np.int64), period_ns

    def __call__(self, rows: Rows, values: Values) -> Series:
        every: Any = slice(None) if rows is None else rows
        before = self._steps[every]
        self._steps[every] = steps = np.where(values > 0.0, 0, before + (before >= 0))
        return np.where(steps < 0, _INF, steps * self._period_ns / 1e9)

    def reset(self, rows: NDArray[np.intp]) -> None:
        self._steps[rows] = -1

    @property
    def nbytes(self) -> int:
        return self._steps.nbytes


def fleet_stages_of(
    formula: Formula,
    node: Node,
    args: Sequence[FleetStage],
    bounds: tuple[int, int | None],
    entities: int,
    period_ns: int,
) -> list[FleetStage]:
    """The stages of a node, in the order in which they work; the last one has its value. Bounds are in samples.

    Raises:
        UsageError: a future operator without bounds, or a quantile.
    """
    if node.op in ("signal", "constant"):
        return [FleetStage(node)]
    if node.op in POINTWISE:
        return [_Pointwise(formula, node, args).hold(entities)]
    operator, (begin, end) = TEMPORAL[node.op], bounds
    if operator.shape == "quantile":
        raise misplaced(UsageError, formula.text, node.at, "quantiles are not for fleets; use a Monitor each")
    if end is None and not operator.past and operator.shape != "shift":
        message = f"{node.written} has no bound, so that its value is never known; give it one"
        raise misplaced(UsageError, formula.text, node.at, message)

    def over(*given: Any) -> FleetStage:
        return _Over(formula, *given).hold(entities)

    ready, length = max(arg.delay for arg in args), None if end is None else end + 1
    if operator.shape == "shift":
        return [over(node, args, *_shift(operator, 1, entities))]
    if operator.shape == "age":
        return [over(node, args, 0, (-_INF,), _Ages(entities, period_ns))]
    if operator.shape == "sum":
        return [over(node, args, 0, (-0.0,), FleetWindow(entities, np.add, -0.0, length, ready))]
    if operator.shape == "window":
        return [over(node, args, *_window(operator, begin, end, entities))]
    near_end = None if end is None else end - begin
    steps = FleetSteps(entities, None if near_end is None else near_end + 1, newest_last=operator.past)
    near = over(node, args, 0 if operator.past else near_end, (_INF, -_INF), steps)
    if not begin:
        return [near]
    held = over(
        node,
        args[:1],
        *_window(TEMPORAL["historically" if operator.past else "always"], 0, begin - 1, entities),
    )
    moved = over(node, [near], *_shift(operator, begin, entities))
    return [held, near, moved, _Pointwise(formula, replace(node, op="and"), [held, moved]).hold(entities)]


def _shift(
    operator: Temporal, by: int, entities: int
) -> tuple[int, tuple[float, ...], Any, FleetDelay | None]:
    """Delay, pad and aggregate of the value so many samples aside."""
    held = FleetDelay(entities, by, operator.pad) if operator.past else None
    return 0 if operator.past else by, (operator.pad,), None, held


def _window(
    operator: Temporal, begin: int, end: int | None, entities: int
) -> tuple[int, tuple[float, ...], Any, FleetDelay | None]:
    """Delay, pad, aggregate and what holds it back, of the extreme of an interval of samples."""
    combine = np.minimum if operator.least else np.maximum
    window = FleetWindow(entities, combine, operator.pad, None if end is None else end - begin + 1)
    held = FleetDelay(entities, begin, operator.pad) if operator.past and begin else None
    return 0 if operator.past or end is None else end, (operator.pad,), window, held
