"""A monitor of many entities at once that runs inside a jitted program, carried in its state.

The formula is lowered to cells (``jit_windows``) on the wires between them. A wire has the value of a sample some
samples after that sample came, its ``delay``; what is combined with a later one waits for it in a ring.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from phalanx.errors import UsageError
from phalanx.stl.arguments import expect_mapping, whole_number
from phalanx.stl.formula import Formula, Node, ticks
from phalanx.stl.jit_windows import (
    CLAMPS,
    GREATEST,
    LEAST,
    SUM,
    Age,
    Cell,
    Delay,
    Pointwise,
    Quantile,
    Running,
    Sliding,
)
from phalanx.stl.offline import period_in_ns
from phalanx.stl.operators import POINTWISE, TEMPORAL, Temporal
from phalanx.stl.parser import parse
from phalanx.stl.places import misplaced

__all__ = ["JitMonitor", "JitState", "JitVerdict", "signals_read"]

_INF = float("inf")
_LONGEST = 2**30  # samples of a trace that are counted
Interval = tuple[Array, Array]


class JitVerdict(eqx.Module):
    """What is known at a sample t of each entity's trace.

    Attributes:
        value: robustness at sample t - horizon, that of the whole trace; NaN where the trace has no such sample.
        known: whether it has.
        lo, hi: bounds of the robustness at sample t itself, whatever comes.
    """

    value: Float[Array, " entity"]
    known: Bool[Array, " entity"]
    lo: Float[Array, " entity"]
    hi: Float[Array, " entity"]


class JitState(eqx.Module):
    """What a monitor carries from sample to sample.

    Attributes:
        age: samples that each entity's trace has had before the last one; -1 before the first.
        held: by every cell.
    """

    age: Int[Array, " entity"]
    held: tuple[Any, ...]


@dataclass(frozen=True)
class JitMonitor:
    """Watches one formula over the traces of many entities, a sample of each a step.

    It is hashable and holds no arrays: a static field, or a constant of what is jitted. All arrays are in the state
    that ``init`` makes and ``step`` returns anew; each step takes a constant number of operations a node, whatever
    the windows' lengths (a quantile's aside). Entities share the clock, not the traces: a trace begins wherever
    ``start`` says so, and nothing from before is seen. It is fastest on the whole batch, outside any ``vmap``; inside
    one (with one entity) it is several times slower, and a reset that selects between two states copies the windows.

    Comparisons, logic and windows are exact: values are those of ``robustness`` on the same numbers in the same
    precision. Nothing is checked inside the program: NaN in a signal, or arithmetic without a result, is NaN as long as
    a window holds it, in quantiles and past operators without a bound until the trace begins anew.

    Args:
        formula: the formula, or its text.
        period: seconds between samples.
        dtype: of the values.

    Raises:
        UsageError: a text that is no formula, a bound that is no multiple of the period, a future operator without a
            bound (its value is never known), a dtype that is no floating-point one.

    Example:
        >>> monitor = JitMonitor("threat > 0 -> eventually[0,1] answer > 0")
        >>> state = monitor.init(2)
        >>> for threat, answer in (([2, 2], [-1, 3]), ([-1, -1], [-1, -1])):
        ...     sample = {"threat": jnp.array(threat), "answer": jnp.array(answer)}
        ...     state, verdict = monitor.step(state, sample)
        >>> verdict.value.tolist(), monitor.horizon, monitor.floats_per_entity
        ([-1.0, 3.0], 1, 8)

    Source: Donze, Ferrere and Maler, "Efficient robust monitoring for STL", CAV 2013 (until by windows); Deshmukh et
    al., "Robust online monitoring of signal temporal logic", 2017 (bounds).
    """

    formula: Formula
    period: float = 1.0
    dtype: Any = "float32"

    def __init__(self, formula: Formula | str, period: float = 1.0, dtype: Any = "float32") -> None:
        read = parse(formula)
        for name, value in (("formula", read), ("period", period), ("dtype", _precision(dtype))):
            object.__setattr__(self, name, value)
        _ = self._program  # what cannot be watched is refused now

    @cached_property
    def _program(self) -> "_Program":
        return _Program(self.formula, period_in_ns(self.period))

    @property
    def horizon(self) -> int:
        """Samples that pass until a sample's value is known."""
        return self._program.lines[self.formula.root].delay

    @property
    def floats_per_entity(self) -> int:
        """How many numbers of ``dtype`` the state holds for each entity."""
        state = jax.eval_shape(lambda: self.init(1))
        return sum(prod(a.shape) for a in jax.tree.leaves(state) if jnp.issubdtype(a.dtype, jnp.floating))

    def init(self, n: int) -> JitState:
        """The state before the first sample of ``n`` entities."""
        n, cells = whole_number("n", n, 0), self._program.cells
        return JitState(jnp.full((n,), -1, jnp.int32), tuple(cell.init(n, self.dtype) for cell in cells))

    def step(
        self,
        state: JitState,
        sample: Mapping[str, Any],
        start: Bool[Array, " entity"] | None = None,
    ) -> tuple[JitState, JitVerdict]:
        """Takes the next sample of every entity in.

        Args:
            state: what ``init`` or the last step returned.
            sample: name -> one number an entity.
            start: where this is the first sample of a trace, whatever came before.

        Raises:
            UsageError: a signal that the formula reads is missing, has a shape other than the entities', or has a
                name that the formula defines.
        """
        age = jnp.minimum(state.age, _LONGEST) + 1
        age = age if start is None else jnp.where(start, 0, age)
        given = signals_read(self.formula, sample, self.dtype)
        for name, values in given.items():
            if values.shape != age.shape:
                raise UsageError(
                    f"signal {name!r} has shape {values.shape}; the state is for {age.shape} entities"
                )
        values, held = self._program.run(state.held, age, given, self.dtype)
        root = self._program.lines[self.formula.root]
        known = age >= root.delay
        value = jnp.where(known, values[root.wire], jnp.nan)
        return JitState(age, held), JitVerdict(value, known, *self._program.bounds(values))


def _precision(dtype: Any) -> str:
    """The name of a type of floating-point numbers."""
    try:
        found = jnp.dtype(dtype)
    except TypeError:
        found = None
    if found is None or not jnp.issubdtype(found, jnp.floating):
        raise UsageError(f"dtype {dtype!r}: expected a type of floating-point numbers, such as float32")
    return found.name


def signals_read(formula: Formula, signals: Mapping[str, Any], dtype: Any = None) -> dict[str, Array]:
    """The signals that a formula reads, as arrays.

    Raises:
        UsageError: one is missing, or one has a name that the formula defines.
    """
    expect_mapping("signals", signals)
    missing = [name for name in formula.signals if name not in signals]
    if missing:
        raise UsageError(f"unknown signal {missing[0]!r}; given are: {', '.join(sorted(signals)) or 'none'}")
    taken = sorted((formula.names.keys() | formula.constants.keys()) & signals.keys())
    if taken:
        raise UsageError(f"{taken[0]!r} is defined in the formula and a signal; rename one")
    return {name: jnp.asarray(signals[name], dtype) for name in formula.signals}


class _Line(NamedTuple):
    """A wire, and how many samples later it has the value of a sample."""

    wire: int
    delay: int


@dataclass(frozen=True)
class _Part:
    """A cell, the wires that it takes, and how late they are."""

    cell: Cell
    args: tuple[int, ...]
    late: int


class _Program:
    """A formula as cells: the first wires are signals and constants, each further one is a cell's."""

    def __init__(self, formula: Formula, period_ns: int) -> None:
        self._formula, self._period_ns = formula, period_ns
        self._sources = [i for i in formula.needed if formula.nodes[i].op in ("signal", "constant")]
        self._parts: list[_Part] = []
        self._waiting: dict[tuple[int, int], _Line] = {}
        self.lines = {index: _Line(wire, 0) for wire, index in enumerate(self._sources)}
        for index in formula.needed:
            if index not in self.lines:
                node = formula.nodes[index]
                self.lines[index] = self._lowered(node, [self.lines[arg] for arg in node.args])

    @property
    def cells(self) -> list[Cell]:
        return [part.cell for part in self._parts]

    def _add(self, cell: Cell, *lines: _Line, delay: int = 0) -> _Line:
        """A cell whose value is known ``delay`` samples after those that it takes."""
        late = max(line.delay for line in lines)
        wires = tuple(self._wait(line, late - line.delay).wire for line in lines)
        self._parts.append(_Part(cell, wires, late))
        return _Line(len(self._sources) + len(self._parts) - 1, late + delay)

    def _wait(self, line: _Line, by: int) -> _Line:
        """The same values, later."""
        if by and (line.wire, by) not in self._waiting:
            self._waiting[line.wire, by] = self._add(Delay(by), line, delay=by)
        return self._waiting[line.wire, by] if by else line

    def _lowered(self, node: Node, args: list[_Line]) -> _Line:
        if node.op in POINTWISE:
            return self._add(Pointwise(POINTWISE[node.op]), *args)
        operator = TEMPORAL[node.op]
        begin, end = ticks(self._formula, node, self._period_ns)
        if operator.shape == "shift":
            return self._moved(args[0], operator, 1, operator.pad)
        if end is None and not operator.past:
            message = f"{node.written} has no bound, so its value is never known on a stream; give it one"
            raise misplaced(UsageError, self._formula.text, node.at, message)
        if operator.shape == "age":
            return self._add(Age(self._period_ns / 1e9), *args)
        if operator.shape == "quantile" and end is not None:
            return self._add(Quantile(node.value, end + 1), *args)
        if operator.arity == 1:
            return self._window(args[0], operator, begin, end)
        return self._until(args, operator, begin, end)

    def _moved(self, line: _Line, operator: Temporal, by: int, pad: float) -> _Line:
        """The value so many samples aside: what lies ahead is only known later."""
        if not operator.past:
            return _Line(line.wire, line.delay + by)
        return self._add(Delay(by, pad), line) if by else line

    def _window(self, line: _Line, operator: Temporal, begin: int, end: int | None) -> _Line:
        aggregate = SUM if operator.shape == "sum" else LEAST if operator.least else GREATEST
        if end is None:
            return self._add(Running(aggregate), line)
        line = self._moved(line, operator, begin, operator.pad)
        cell = Sliding(aggregate, end - begin + 1, cut=operator.past)
        return self._add(cell, line, delay=0 if operator.past else end - begin)

    def _until(self, args: list[_Line], operator: Temporal, begin: int, end: int | None) -> _Line:
        """``p until[a,b] q`` is the lesser of ``always[0,a-1] p`` and of ``p until[0,b-a] q`` a samples later."""
        steps = CLAMPS["since" if operator.past else "until"]
        if end is None:
            return self._add(Running(steps), *args)
        reach = end - begin
        near = self._add(
            Sliding(steps, reach + 1, cut=operator.past), *args, delay=0 if operator.past else reach
        )
        if not begin:
            return near
        least = TEMPORAL["historically" if operator.past else "always"]
        holds = self._window(args[0], least, 0, begin - 1)
        return self._add(Pointwise(POINTWISE["and"]), holds, self._moved(near, operator, begin, operator.pad))

    def run(
        self, held: tuple[Any, ...], age: Int[Array, " entity"], signals: Mapping[str, Array], dtype: Any
    ) -> tuple[list[Array], tuple[Any, ...]]:
        """One sample: the value on every wire, and what the cells hold then."""
        values, after = [], []
        for index in self._sources:
            node = self._formula.nodes[index]
            constant = node.op == "constant"
            values.append(jnp.full(age.shape, node.value, dtype) if constant else signals[node.name])
        for part, before in zip(self._parts, held, strict=True):
            now, value = part.cell.step(before, age - part.late, *(values[wire] for wire in part.args))
            values.append(value)
            after.append(now)
        return values, tuple(after)

    def bounds(self, values: list[Array]) -> Interval:
        """Bounds of the formula's value at the newest sample: what looks ahead may still change."""
        found: dict[int, Interval] = {}
        for index in self._formula.needed:
            node, line = self._formula.nodes[index], self.lines[index]
            if line.delay:
                begin, _ = ticks(self._formula, node, self._period_ns)
                found[index] = _bounds(node, begin, [found[arg] for arg in node.args])
            else:
                found[index] = values[line.wire], values[line.wire]
        return found[self._formula.root]


def _bounds(node: Node, begin: int, args: list[Interval]) -> Interval:
    """Bounds of an operator's value at a sample, from those of its arguments at the same sample."""
    (low, high), (low_2, high_2) = args[0], args[-1]
    lowest, highest = jnp.full_like(low, -_INF), jnp.full_like(high, _INF)
    operator = TEMPORAL.get(node.op)
    if node.op == "not":
        return -high, -low
    if node.op in ("and", "or"):
        function = POINTWISE[node.op]
        return function(jnp, low, low_2), function(jnp, high, high_2)
    if node.op in ("difference", "distance"):
        minus = POINTWISE["difference"]
        least, most = minus(jnp, low, high_2), minus(jnp, high, low_2)
        if node.op == "difference":
            return least, most
        return jnp.maximum(jnp.maximum(least, -most), 0.0), jnp.maximum(-least, most)
    if operator and operator.shape == "window" and not begin:
        return (lowest, high) if operator.least else (low, highest)
    if operator and operator.shape == "until":
        return (lowest, high) if begin else (low_2, jnp.maximum(high, high_2))
    return lowest, highest
