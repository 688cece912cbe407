"""The nodes of a formula at work on a stream: each takes what its arguments have just emitted, and may emit one value.

A stage emits the values of samples 0, 1, 2, ... in order, each ``delay`` updates after its sample came. Beside that it
knows an interval for sample 0 (``first``), which narrows until the value is emitted.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from phalanx.stl.formula import Node
from phalanx.stl.operators import ARITHMETIC, POINTWISE, TEMPORAL, Temporal
from phalanx.stl.windows import Delay, Extreme, Steps

__all__ = ["Interval", "Stage", "stage_of"]

Interval = tuple[float, float]
_INF = math.inf
_UNKNOWN: Interval = (-_INF, _INF)


class _Scalars:
    """The array functions of the operator table, for single numbers."""

    minimum, maximum, abs, sqrt, exp, power = min, max, abs, math.sqrt, math.exp, math.pow

    @staticmethod
    def where(condition: bool, a: float, b: float) -> float:
        return a if condition else b


class Stage:
    """One node at work; this one alone is a signal or a constant.

    Attributes:
        node: which.
        delay: updates between a sample and the emission of its value; infinite where it is never known.
        value: what the last update emitted, None if nothing.
        emitted: values so far.
        tail: what ``close`` emitted.
    """

    def __init__(self, node: Node, delay: float = 0) -> None:
        self.node = node
        self.delay = delay
        self.value: float | None = None
        self.emitted = 0
        self.tail: list[float] = []
        self._known: float | None = None

    def advance(self, sample: Mapping[str, float]) -> None:
        """One update."""
        self._emit(sample[self.node.name] if self.node.op == "signal" else self.node.value)

    def first(self) -> Interval:
        """Bounds of the value at sample 0."""
        return (self._known, self._known) if self._known is not None else self.bounds()

    def bounds(self) -> Interval:
        """Bounds of the value at sample 0 while it is not known."""
        return _UNKNOWN

    def close(self, count: int) -> None:
        """The trace has ended after ``count`` samples: emits what is still open into ``tail``."""

    def _emit(self, value: float | None) -> None:
        self.value = value
        if value is not None:
            if not self.emitted:
                self._known = value
            self.emitted += 1


class _Inner(Stage, ABC):
    """A node with arguments, which it waits for until the latest of them has emitted.

    Attributes:
        args: the arguments' stages.
        outside: what it takes for the arguments of a sample beyond the end.
    """

    outside: tuple[float, ...] = ()

    def __init__(self, node: Node, args: Sequence[Stage], own_delay: float = 0) -> None:
        ready = max(arg.delay for arg in args)
        super().__init__(node, ready + own_delay)
        self.args = tuple(args)
        self._ended = False
        waits = [(arg, ready - arg.delay) for arg in args] if ready < _INF else []
        self._inputs = [(arg, Delay(int(wait)) if wait else None) for arg, wait in waits]

    @abstractmethod
    def push(self, *args: float) -> float | None:
        """Takes the arguments' next values; the value that they make known, if any."""

    def advance(self, sample: Mapping[str, float]) -> None:
        given = []
        for arg, hold in self._inputs:
            value = arg.value
            if value is not None and hold is not None:
                value = hold(value)
            given.append(value)
        self._emit(self.push(*given) if given and None not in given else None)

    def close(self, count: int) -> None:
        waiting = [([*hold.held] if hold else []) + arg.tail for arg, hold in self._inputs]
        for values in zip(*waiting, strict=True):
            self._keep(self.push(*values))
        while self.delay < _INF and self.emitted < count:
            self._keep(self.push(*self.outside))
        self._ended = True

    def _keep(self, value: float | None) -> None:
        self._emit(value)
        if value is not None:
            self.tail.append(value)


class _Pointwise(_Inner):
    def __init__(self, node: Node, args: Sequence[Stage]) -> None:
        super().__init__(node, args)
        self._function: Callable[..., float] = POINTWISE[node.op]

    def push(self, *args: float) -> float:
        value = self._function(_Scalars, *args)
        if value != value:
            raise ValueError("NaN")
        return value

    def bounds(self) -> Interval:
        of = [arg.first() for arg in self.args]
        if self.node.op == "not":
            return -of[0][1], -of[0][0]
        if self.node.op in ("and", "or"):
            low, high = (self._function(_Scalars, of[0][end], of[1][end]) for end in (0, 1))
            return low, high
        if all(low == high for low, high in of):
            value = self.push(*(low for low, _ in of))
            return value, value
        if self.node.op in ARITHMETIC:
            return _UNKNOWN
        (a, b), (c, d) = of
        low, high = _minus(a, d), _minus(b, c)
        if self.node.op == "difference":
            return low, high
        return max(0.0, low, -high), max(-low, high)


def _minus(a: float, b: float) -> float:
    """a - b, 0 between equal infinities."""
    return 0.0 if a == b else a - b


class _Window(_Inner):
    """The extreme of an interval of samples."""

    def __init__(
        self, node: Node, args: Sequence[Stage], operator: Temporal, begin: int, end: int | None
    ) -> None:
        super().__init__(node, args, 0 if operator.past else _INF if end is None else end)
        self._operator, self._begin, self._end = operator, begin, end
        self.outside = (operator.pad,)
        self._extreme = Extreme(operator.least, None if end is None else end - begin + 1)
        self._hold = Delay(begin) if operator.past and begin else None
        self._taken, self._best = 0, operator.pad

    def push(self, *args: float) -> float | None:
        (value,) = args
        if self._operator.past:
            held = self._hold(value) if self._hold else value
            return self._operator.pad if held is None else self._extreme(held)
        if self._taken >= self._begin and (self._end is None or self._taken <= self._end):
            self._best = min(self._best, value) if self._operator.least else max(self._best, value)
        self._taken += 1
        if self._end is None:
            return None
        found = self._extreme(value)
        return found if self._taken > self._end else None

    def bounds(self) -> Interval:
        if self._operator.past:
            return self.args[0].first() if not self._begin else (self._operator.pad, self._operator.pad)
        if self._ended:
            return self._best, self._best
        return (-_INF, self._best) if self._operator.least else (self._best, _INF)


class _Until(_Inner):
    """until and since, timed or not."""

    outside = (_INF, -_INF)

    def __init__(
        self, node: Node, args: Sequence[Stage], operator: Temporal, begin: int, end: int | None
    ) -> None:
        super().__init__(node, args, 0 if operator.past else _INF if end is None else end)
        self._past, self._begin, self._end = operator.past, begin, end
        self._steps = Steps(None if end is None else end - begin + 1, newest_last=operator.past)
        self._left_before = Extreme(True, begin) if begin else None
        lag = begin if operator.past else 0 if end is None else end - begin + 1
        self._lagging = (Delay(lag), Delay(lag)) if begin else None
        self._taken, self._reached, self._held = 0, -_INF, _INF

    def push(self, *args: float) -> float | None:
        left, right = args
        if self._past:
            return self._since(left, right)
        if self._end is None or self._taken <= self._end:
            if self._taken >= self._begin:
                self._reached = max(self._reached, min(right, self._held))
            self._held = min(self._held, left)
        self._taken += 1
        if self._end is None:
            return None
        found = self._steps(left, right)
        if self._left_before and self._lagging:
            earlier = self._lagging[0](left)
            found = found if earlier is None else min(found, self._left_before(earlier))
        return found if self._taken > self._end else None

    def _since(self, left: float, right: float) -> float:
        if not (self._left_before and self._lagging):
            return self._steps(left, right)
        held = self._left_before(left)
        earlier_left, earlier_right = self._lagging[0](left), self._lagging[1](right)
        if earlier_left is None or earlier_right is None:
            return -_INF
        return min(held, self._steps(earlier_left, earlier_right))

    def bounds(self) -> Interval:
        if self._past:
            return self.args[1].first() if not self._begin else (-_INF, -_INF)
        if self._ended:
            return self._reached, self._reached
        return self._reached, max(self._reached, self._held)


class _Shift(_Inner):
    """The neighbour's value."""

    def __init__(self, node: Node, args: Sequence[Stage], operator: Temporal) -> None:
        super().__init__(node, args, 0 if operator.past else 1)
        self._operator, self._before = operator, operator.pad if operator.past else None
        self.outside = (operator.pad,)

    def push(self, *args: float) -> float | None:
        (value,) = args
        before, self._before = self._before, value
        return before if self._operator.past or before is None else value

    def bounds(self) -> Interval:
        return (self._operator.pad, self._operator.pad) if self._operator.past else _UNKNOWN


def stage_of(node: Node, args: Sequence[Stage], begin: int, end: int | None) -> Stage:
    """The stage of a node; bounds in samples."""
    if node.op in ("signal", "constant"):
        return Stage(node)
    if node.op in POINTWISE:
        return _Pointwise(node, args)
    operator = TEMPORAL[node.op]
    if operator.shape == "shift":
        return _Shift(node, args, operator)
    kind: Any = _Window if operator.shape == "window" else _Until
    return kind(node, args, operator, begin, end)
