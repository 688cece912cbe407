"""The nodes of a formula at work on a stream of events, whose times need not be evenly spaced.

A stage emits the values of samples 0, 1, 2, ... in order, as intervals: equal ends where a value is exact. It says up
to which time all its values have been emitted (``known_ns``); a window that ends at t + b is complete once its
argument is known up to there, whether a sample lies there or not. Stages work in an order in which arguments come
first.
"""

import copy
import math
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from phalanx.stl.event_derived import EventQuantile, EventSum
from phalanx.stl.event_windows import EventExtreme, EventSteps, EventWindow
from phalanx.stl.formula import Node
from phalanx.stl.operators import POINTWISE, TEMPORAL, Temporal
from phalanx.stl.scalars import UNKNOWN, Interval, interval_of

__all__ = ["EventStage", "event_stages_of"]

_INF = math.inf
Time = int | float  # nanoseconds; infinite before the first and after the last event


class EventStage:
    """One node at work, or a part of one; this one alone is a signal or a constant.

    Attributes:
        node: which.
        out: what the last advance emitted: time, lower and upper end of the value.
        open: times of the samples that have come and whose values have not been emitted.
        known_ns: all samples up to this time have been emitted.
        first: bounds of the value at the oldest open sample, after ``look``.
        only_first: emits nothing but the value at sample 0, at the end.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.out: list[tuple[int, Any, Any]] = []
        self.open: deque[int] = deque()
        self.known_ns: Time = -_INF
        self.first: Interval = UNKNOWN
        self.only_first = False
        self._constant = (node.value, node.value)

    def advance(self, time_ns: int | None, sample: Mapping[str, Interval], frontier_ns: Time) -> None:
        """A sample, or none; nothing else comes up to the frontier. Arguments have had theirs."""
        self.known_ns = frontier_ns
        if time_ns is None:
            self.out = []
        else:
            low, high = sample[self.node.name] if self.node.op == "signal" else self._constant
            self.out = [(time_ns, low, high)]

    def look(self) -> None:
        """Sets ``first``; arguments have set theirs."""


class _Inner(EventStage, ABC):
    """A node with arguments, whose values at one sample it waits for until all have been emitted."""

    def __init__(self, node: Node, args: Sequence[EventStage], only_first: bool = False) -> None:
        super().__init__(node)
        self.args = tuple(args)
        self.only_first = only_first or any(arg.only_first for arg in args)
        self._came = False
        self._queues: list[deque[tuple[int, float, float]]] = [deque() for _ in args]

    def advance(self, time_ns: int | None, sample: Mapping[str, Interval], frontier_ns: Time) -> None:
        if time_ns is not None and not (self.only_first and self._came):
            self._came = True
            self.open.append(time_ns)
        self.out = []
        self._work(min([arg.known_ns for arg in self.args]))

    @abstractmethod
    def _work(self, known_ns: Time) -> None:
        """Takes in what the arguments have emitted, all of them up to this time; emits and sets ``known_ns``."""

    def _given(self) -> list[tuple[int, Any, Any]]:
        """What all arguments have emitted: times, lower and upper ends; of several arguments as tuples."""
        outs = [arg.out for arg in self.args]
        if len(outs) == 1:
            return outs[0]
        if any(self._queues) or len(set(map(len, outs))) > 1:
            for queue, out in zip(self._queues, outs, strict=True):
                queue.extend(out)
            count = min(map(len, self._queues))
            outs = [[queue.popleft() for _ in range(count)] for queue in self._queues]
        together = [tuple(zip(*each, strict=True)) for each in zip(*outs, strict=True)]
        return [(times[0], lows, highs) for times, lows, highs in together]


class _Pointwise(_Inner):
    """An operator at one sample."""

    def _work(self, known_ns: Time) -> None:
        op, several = self.node.op, len(self.args) > 1
        for time_ns, lows, highs in self._given():
            if not self.open:
                break
            of = interval_of(op, lows, highs) if several else interval_of(op, (lows,), (highs,))
            self.out.append((time_ns, of[0], of[1]))
            self.open.popleft()
        if self.only_first:
            for queue in self._queues:
                while len(queue) > 1:
                    queue.pop()
        self.known_ns = known_ns

    def look(self) -> None:
        waiting = zip(self._queues, self.args, strict=True)
        of = [queue[0][1:] if queue else arg.first for queue, arg in waiting]
        self.first = interval_of(self.node.op, tuple(low for low, _ in of), tuple(high for _, high in of))


class _Window(_Inner):
    """What a window says of the events between t + begin and t + end, for each sample at t."""

    def __init__(
        self, node: Node, args: Sequence[EventStage], window: EventWindow, begin: Time, end: Time
    ) -> None:
        super().__init__(node, args, only_first=end == _INF)
        self._low = self._high = window  # one and the same as long as all values are exact
        self._begin, self._end, self._ahead = begin, end, max(end, 0)
        self._arrived: deque[tuple[int, Any, Any]] = deque()

    def _work(self, known_ns: Time) -> None:
        self._arrived.extend(self._given())
        open_ones = self.open
        while open_ones and open_ones[0] + self._ahead <= known_ns:
            time_ns = open_ones.popleft()
            self._fill(time_ns)
            self.out.append(self._valued(time_ns))
        if self.only_first and open_ones:
            self._fill(open_ones[0])
        self.known_ns = known_ns - self._ahead

    def _valued(self, time_ns: int) -> tuple[int, float, float]:
        low, high = self._low.value(), self._high.value()
        if low != low or high != high:  # a sum of infinities of both signs
            if self._high is self._low:
                raise ValueError("NaN")
            low, high = -_INF if low != low else low, _INF if high != high else high
        return time_ns, low, high

    def _fill(self, time_ns: int) -> None:
        """Makes the window that of a sample, as far as its events have arrived."""
        arrived, last = self._arrived, time_ns + self._end
        while arrived and arrived[0][0] <= last:
            at, low, high = arrived.popleft()
            if low != high and self._high is self._low:
                self._high = copy.deepcopy(self._low)
            self._low.push(at, low)
            if self._high is not self._low:
                self._high.push(at, high)
        if self._begin > -_INF:
            first = time_ns + int(self._begin)
            self._low.drop(first)
            if self._high is not self._low:
                self._high.drop(first)

    def look(self) -> None:
        self._fill(self.open[0])
        self.first = self._low.bounds()[0], self._high.bounds()[1]


class _Shift(_Inner):
    """The neighbouring sample's value."""

    def __init__(self, node: Node, args: Sequence[EventStage], operator: Temporal) -> None:
        super().__init__(node, args)
        self._pad, self._past = operator.pad, operator.past
        self._before = (operator.pad, operator.pad)
        self._first_came = False

    def _work(self, known_ns: Time) -> None:
        for _, low, high in self.args[0].out:
            if self._past:
                self.out.append((self.open.popleft(), self._before[0], self._before[1]))
                self._before = low, high
            elif self._first_came:
                self.out.append((self.open.popleft(), low, high))
            self._first_came = True
        if self._past:
            self.known_ns = known_ns
            return
        if known_ns == _INF and self.open:
            self.out.append((self.open.popleft(), self._pad, self._pad))
        self.known_ns = self.open[0] - 1 if self.open else known_ns

    def look(self) -> None:
        self.first = self._before if self._past else UNKNOWN


class _Age(_Inner):
    """Seconds since the argument was last greater than 0: since it may have been, and since it was for certain."""

    def __init__(self, node: Node, args: Sequence[EventStage]) -> None:
        super().__init__(node, args)
        self._may_ns: Time = -_INF
        self._did_ns: Time = -_INF

    def _work(self, known_ns: Time) -> None:
        for time_ns, low, high in self._given():
            if high > 0.0:
                self._may_ns = time_ns
            if low > 0.0:
                self._did_ns = time_ns
            self.open.popleft()
            self.out.append((time_ns, (time_ns - self._may_ns) / 1e9, (time_ns - self._did_ns) / 1e9))
        self.known_ns = known_ns

    def look(self) -> None:
        self.first = 0.0, _INF


def event_stages_of(node: Node, args: Sequence[EventStage]) -> list[EventStage]:
    """The stages of a node, in the order in which they work; the last one has its value.

    ``p until[a,b] q`` is the lesser of ``always[0,a) p`` and of the steps of until from the first sample at or after
    t + a on: a nanosecond before a is the last time before it.
    """
    if node.op in ("signal", "constant"):
        return [EventStage(node)]
    if node.op in POINTWISE:
        return [_Pointwise(node, args)]
    operator = TEMPORAL[node.op]
    if operator.shape == "shift":
        return [_Shift(node, args, operator)]
    if operator.shape == "age":
        return [_Age(node, args)]
    first, last = node.bounds or (0, _INF)
    begin, end = (-last, -first) if operator.past else (first, last)
    bounded = last < _INF
    if operator.shape == "window":
        return [_Window(node, args, EventExtreme(operator.least, bounded), begin, end)]
    if operator.is_number:
        number = EventSum(int(last)) if operator.shape == "sum" else EventQuantile(node.value)
        return [_Window(node, args, number, begin, end)]
    near = _Window(node, args, EventSteps(operator.past, bounded), begin, end)
    if not first:
        return [near]
    least = EventExtreme(least=True, bounded=True)
    held = _Window(node, args[:1], least, *((1 - first, 0) if operator.past else (0, first - 1)))
    return [held, near, _Pointwise(replace(node, op="and"), [held, near])]
