"""The nodes of a formula at work on a stream: each takes what its arguments have just emitted, and may emit one value.

A stage emits the values of samples 0, 1, 2, ... in order, each ``delay`` updates after its sample came. Beside that it
knows an interval for sample 0 (``first``), which narrows until the value is emitted. Stages work in an order in which
arguments come first, so that each does a constant number of steps an update, whoever shares it.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from phalanx.stl.derived import Age, Quantile, Sum
from phalanx.stl.formula import Node
from phalanx.stl.operators import POINTWISE, TEMPORAL, Temporal
from phalanx.stl.scalars import UNKNOWN, Interval, function_of, interval_of
from phalanx.stl.windows import Delay, Extreme, Reach, Steps

__all__ = ["Stage", "stages_of"]

_INF = math.inf


class Stage:
    """One node at work, or a part of one; this one alone is a signal or a constant.

    Attributes:
        node: which.
        delay: updates between a sample and the emission of its value; infinite where it is never known.
        value: what the last update emitted, None if nothing.
        emitted: values so far.
        first: bounds of the value at sample 0.
        tail: what ``close`` emitted.
    """

    def __init__(self, node: Node, delay: float = 0) -> None:
        self.node = node
        self.delay = delay
        self.value: float | None = None
        self.emitted = 0
        self.first: Interval = UNKNOWN
        self.tail: list[float] = []
        if node.op == "constant":
            self.value, self.first = node.value, (node.value, node.value)

    def advance(self, sample: Mapping[str, float]) -> None:
        """One update; arguments have had theirs."""
        self._emit(sample[self.node.name] if self.node.op == "signal" else self.node.value)

    def close(self, count: int) -> None:
        """The trace has ended after ``count`` samples: emits what is still open into ``tail``."""

    def _emit(self, value: float | None) -> None:
        self.value = value
        if value is not None:
            if not self.emitted:
                self.first = (value, value)
            self.emitted += 1


class _Inner(Stage, ABC):
    """A node with arguments, which it waits for until the latest of them has emitted.

    Attributes:
        args: the arguments' stages.
        ended: whether the trace has ended.
    """

    def __init__(self, node: Node, args: Sequence[Stage], own_delay: float = 0) -> None:
        ready = max(arg.delay for arg in args)
        super().__init__(node, ready + own_delay)
        self.args = tuple(args)
        self.ended = False
        waits = [(arg, ready - arg.delay) for arg in args] if ready < _INF else []
        self._inputs = [(arg, Delay(int(wait)) if wait else None) for arg, wait in waits]
        self._alone = args[0] if len(args) == 1 and ready < _INF else None

    @abstractmethod
    def push(self, *args: float) -> float | None:
        """Takes the arguments' next values; the value that they make known, if any."""

    def bounds(self) -> Interval:
        """Bounds of the value at sample 0 while it is not known."""
        return UNKNOWN

    def rest(self, count: int) -> list[float]:
        """The values of the samples that are still open when the trace has ended, from the first of them on."""
        return []

    def advance(self, sample: Mapping[str, float]) -> None:
        if (alone := self._alone) is not None:
            value = alone.value
            if value is not None:
                value = self.push(value)
        else:
            given = []
            for arg, hold in self._inputs:
                value = arg.value
                if value is not None and hold is not None:
                    value = hold(value)
                given.append(value)
            value = self.push(*given) if given and None not in given else None
        self.value = value
        if value is not None:
            if not self.emitted:
                self.first = (value, value)
            self.emitted += 1
        elif not self.emitted:
            self.first = self.bounds()

    def close(self, count: int) -> None:
        waiting = [([*hold.held] if hold else []) + arg.tail for arg, hold in self._inputs]
        assert len(set(map(len, waiting))) < 2, "arguments out of step"
        for values in zip(*waiting, strict=False):
            self._keep(self.push(*values))
        for value in self.rest(count) if self.delay < _INF else ():
            self._keep(value)
        self.ended = True
        if not self.emitted:
            self.first = self.bounds()

    def _keep(self, value: float | None) -> None:
        self._emit(value)
        if value is not None:
            self.tail.append(value)


class _Pointwise(_Inner):
    """An operator at one sample."""

    def __init__(self, node: Node, args: Sequence[Stage]) -> None:
        super().__init__(node, args)
        self._function = function_of(node.op)

    def push(self, *args: float) -> float:
        return self._function(*args)

    def bounds(self) -> Interval:
        lows, highs = zip(*(arg.first for arg in self.args), strict=True)
        return interval_of(self.node.op, lows, highs)


class _Window(_Inner):
    """The extreme of an interval of samples."""

    def __init__(
        self, node: Node, args: Sequence[Stage], operator: Temporal, begin: int, end: int | None
    ) -> None:
        super().__init__(node, args, 0 if operator.past else _INF if end is None else end)
        self._operator, self._begin, self._end = operator, begin, end
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
            return self.args[0].first if not self._begin else (self._operator.pad, self._operator.pad)
        if self.ended:
            return self._best, self._best
        return (-_INF, self._best) if self._operator.least else (self._best, _INF)

    def rest(self, count: int) -> list[float]:
        if self._operator.past:
            return []
        return self._extreme.suffixes(self.emitted + self._begin, count + self._begin, self._operator.pad)


class _Number(_Inner):
    """A sum, quantile or age of the past."""

    def __init__(self, node: Node, args: Sequence[Stage], past: Callable[[float], float]) -> None:
        super().__init__(node, args)
        self._past = past

    def push(self, *args: float) -> float:
        value = self._past(*args)
        if value != value:
            raise ValueError("NaN")
        return value

    def bounds(self) -> Interval:
        low, high = self.args[0].first
        if self.node.op == "age":
            return 0.0 if high > 0.0 else _INF, 0.0 if low > 0.0 else _INF
        return low, high


class _Until(_Inner):
    """until and since from the sample itself on: [0, end], or without a bound."""

    def __init__(self, node: Node, args: Sequence[Stage], operator: Temporal, end: int | None) -> None:
        super().__init__(node, args, 0 if operator.past else _INF if end is None else end)
        self._past, self._end, self._taken = operator.past, end, 0
        self._steps = Steps(None if end is None else end + 1, newest_last=operator.past)
        self._reach = Reach(0, end)

    def push(self, *args: float) -> float | None:
        if self._past:
            return self._steps(*args)
        self._reach(*args)
        self._taken += 1
        if self._end is None:
            return None
        found = self._steps(*args)
        return found if self._taken > self._end else None

    def bounds(self) -> Interval:
        return self.args[1].first if self._past else self._reach.interval(self.ended)

    def rest(self, count: int) -> list[float]:
        open_ones = count - self.emitted
        return [] if self._past or not open_ones else self._steps.suffixes()[-open_ones:]


class _Shift(_Inner):
    """The value so many samples aside."""

    def __init__(self, node: Node, args: Sequence[Stage], operator: Temporal, by: int = 1) -> None:
        super().__init__(node, args, 0 if operator.past else by)
        self._operator, self._by, self._taken = operator, by, 0
        self._hold = Delay(by)

    def push(self, *args: float) -> float | None:
        (value,) = args
        if self._operator.past:
            before = self._hold(value)
            return self._operator.pad if before is None else before
        self._taken += 1
        return value if self._taken > self._by else None

    def bounds(self) -> Interval:
        return (self._operator.pad, self._operator.pad) if self._operator.past else UNKNOWN

    def rest(self, count: int) -> list[float]:
        return [] if self._operator.past else [self._operator.pad] * (count - self.emitted)


class _Later(_Pointwise):
    """The lesser of both shares of an until that begins later; its bounds come from its own arguments."""

    def __init__(
        self, node: Node, shares: Sequence[Stage], args: Sequence[Stage], begin: int, end: int
    ) -> None:
        super().__init__(node, shares)
        self._watch = _Watch(node, args, begin, end)

    def advance(self, sample: Mapping[str, float]) -> None:
        self._watch.advance(sample)
        super().advance(sample)

    def close(self, count: int) -> None:
        self._watch.close(count)
        super().close(count)

    def bounds(self) -> Interval:
        return self._watch.bounds()


class _Watch(_Inner):
    """Bounds of an until at sample 0; emits nothing."""

    def __init__(self, node: Node, args: Sequence[Stage], begin: int, end: int) -> None:
        super().__init__(node, args, _INF)
        self._reach = Reach(begin, end)

    def push(self, *args: float) -> None:
        self._reach(*args)

    def bounds(self) -> Interval:
        return self._reach.interval(self.ended)


def stages_of(node: Node, args: Sequence[Stage], begin: int, end: int | None, period_ns: int) -> list[Stage]:
    """The stages of a node, in the order in which they work; the last one has its value. Bounds are in samples.

    ``p until[a,b] q`` is the lesser of ``always[0,a-1] p`` and of ``p until[0,b-a] q`` a samples later.
    """
    if node.op in ("signal", "constant"):
        return [Stage(node)]
    if node.op in POINTWISE:
        return [_Pointwise(node, args)]
    operator = TEMPORAL[node.op]
    if operator.shape == "shift":
        return [_Shift(node, args, operator)]
    if operator.shape == "window":
        return [_Window(node, args, operator, begin, end)]
    if operator.shape == "age":
        return [_Number(node, args, Age(period_ns))]
    if operator.is_number:
        assert end is not None, "sums and quantiles have a window"
        return [_Number(node, args, Sum(end + 1) if node.op == "sum" else Quantile(node.value, end + 1))]
    if not begin or end is None:
        return [_Until(node, args, operator, end)]
    least = TEMPORAL["historically" if operator.past else "always"]
    held = _Window(node, args[:1], least, 0, begin - 1)
    near = _Until(node, args, operator, end - begin)
    moved = _Shift(node, [near], operator, begin)
    both = replace(node, op="and")
    if operator.past:
        return [held, near, moved, _Pointwise(both, [held, moved])]
    return [held, near, moved, _Later(both, [held, moved], args, begin, end)]
