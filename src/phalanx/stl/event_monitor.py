"""Robustness of a stream of events whose times need not be evenly spaced."""

import math
import operator
from collections.abc import Mapping
from typing import Any, NamedTuple, SupportsIndex

from phalanx.errors import DataError, UsageError
from phalanx.stl.event_stages import EventStage, event_stages_of
from phalanx.stl.formula import Formula
from phalanx.stl.monitor import Verdict, below_time
from phalanx.stl.operators import TEMPORAL
from phalanx.stl.parser import parse
from phalanx.stl.places import misplaced
from phalanx.stl.scalars import UNKNOWN, Interval

__all__ = ["MISSING", "EventMonitor", "EventVerdict", "time_in_ns"]

MISSING = ("unknown", "hold", "error")
"""What a missing value can be taken for."""

_LATEST_NS = 2**62


class EventVerdict(NamedTuple):
    """What is known of the robustness at an event.

    Attributes:
        lo, hi: the value lies between them; equal where it is known.
        sample: index of the event that it is about, from 0.
        time_ns: its time.
    """

    lo: float
    hi: float
    sample: int
    time_ns: int

    known = Verdict.known
    satisfied = Verdict.satisfied


class EventMonitor:
    """Watches one formula over one stream of events in order of time.

    A value at time t that depends on what comes up to t + b is known as soon as nothing more can come up to there:
    a later event says so, or ``advance``. ``update``, ``advance`` and ``finish`` return the verdicts that became known,
    each sample's once, in order: those of ``robustness_at``. A formula with an unbounded future operator has one
    verdict, on sample 0, which ``finish`` returns.

    An event takes a constant number of steps for each node, on average; memory holds the events of the windows.

    Args:
        text: the formula, or its text.
        missing: what a signal that an event lacks, None or NaN is: ``unknown`` (any value: verdicts that depend on it
            are intervals that enclose what any value would give), ``hold`` (the value before; unknown if there was
            none), or ``error``.

    Raises:
        UsageError: a text that is no formula, another name for ``missing``, or an unbounded future operator below
            another operator over time.

    Example:
        >>> monitor = EventMonitor("x > 0 -> eventually[0,100ms] y > 0")
        >>> monitor.update(0, {"x": 2, "y": -1})
        []
        >>> monitor.pending
        EventVerdict(lo=-1.0, hi=inf, sample=0, time_ns=0)
        >>> monitor.update(70_000_000, {"x": -1, "y": 3})
        []
        >>> monitor.advance(100_000_000)
        [EventVerdict(lo=3.0, hi=3.0, sample=0, time_ns=0)]

    Source: Deshmukh et al., "Robust online monitoring of signal temporal logic", 2017 (intervals); Basin, Klaedtke and
    Zalinescu, "Algorithms for monitoring real-time properties", RV 2011 (pointwise semantics).
    """

    def __init__(self, text: str | Formula, *, missing: str = "unknown") -> None:
        if not isinstance(missing, str) or missing not in MISSING:
            raise UsageError(f"missing {missing!r}; choose one of: {', '.join(MISSING)}")
        self.formula = parse(text)
        self.missing = missing
        self.samples = 0
        self._frontier_ns: int | float = -math.inf
        self._told = 0
        self._broken = ""
        self.signals = self.formula.signals
        self._horizon_ns = self.formula.horizon_ns
        self._defined = (*self.formula.names, *self.formula.constants)
        self._held: dict[str, Interval] = {}
        self._compile()

    def _compile(self) -> None:
        formula, below = self.formula, below_time(self.formula)
        self._stages: list[EventStage] = []
        last: dict[int, EventStage] = {}
        for index in formula.needed:
            node = formula.nodes[index]
            stages = event_stages_of(node, [last[arg] for arg in node.args])
            if stages[-1].only_first and node.op in TEMPORAL and index in below:
                message = (
                    f"{node.written} has no bound, so it is never known at any sample but the first, and here it is "
                    "needed at others; give it a bound, or use robustness_at() on the whole trace"
                )
                raise misplaced(UsageError, formula.text, node.at, message)
            self._stages += stages
            last[index] = stages[-1]
        self._root = last[formula.root]

    @property
    def pending(self) -> EventVerdict | None:
        """What is known of the oldest event whose verdict is open, None if none is; it only ever narrows.

        Raises:
            DataError: arithmetic without a result.
        """
        if not self._root.open:
            return None
        for stage in self._stages:
            if stage.open:
                try:
                    stage.look()
                except (ArithmeticError, ValueError):
                    raise self._no_value(stage) from None
        return EventVerdict(*self._root.first, self._told, self._root.open[0])

    @property
    def open(self) -> int:
        """Events whose verdicts are open."""
        return len(self._root.open)

    @property
    def due_ns(self) -> int | None:
        """The next time at which ``advance`` alone may make a verdict known, None if there is none.

        Where a formula has ``next`` that can be later than the earliest such time.
        """
        horizon = self._horizon_ns
        if horizon is None:
            return None
        return next((at + horizon for at in self._root.open if at + horizon > self._frontier_ns), None)

    def update(self, time_ns: SupportsIndex, sample: Mapping[str, Any]) -> list[EventVerdict]:
        """Takes the next event in: its time in nanoseconds, later than any before, and its signals.

        Raises:
            UsageError: a time that is no whole number, a name that the formula defines.
            DataError: a time that is not later, a value that is no number, a missing one where that is an error (the
                event is not taken in); arithmetic without a result (the monitor cannot go on, and says so).
        """
        self._goes_on()
        at = time_in_ns(time_ns)
        if at <= self._frontier_ns:
            raise DataError(f"event at {at} ns after {self._frontier_ns} ns; times must ascend")
        values = self.values(at, sample)
        lacking = self._held if self.missing == "hold" else {}
        self._held = held = {
            name: (values[name], values[name]) if name in values else lacking.get(name, UNKNOWN)
            for name in self.signals
        }
        self.samples += 1
        return self._step(at, held, at)

    def advance(self, time_ns: SupportsIndex) -> list[EventVerdict]:
        """Says that all events up to a time have come, that time included; one that has passed says nothing new."""
        self._goes_on()
        at = time_in_ns(time_ns)
        return self._step(None, {}, at) if at > self._frontier_ns else []

    def finish(self) -> list[EventVerdict]:
        """Ends the stream: the verdicts that were open, as whole traces have them. It takes nothing in afterwards."""
        self._goes_on()
        found = self._step(None, {}, math.inf)
        self._broken = "the stream has ended"
        return found

    def _goes_on(self) -> None:
        if self._broken:
            raise DataError(f"{self._broken}; this monitor cannot go on, start a new one")

    def _step(
        self, time_ns: int | None, values: Mapping[str, Interval], frontier_ns: int | float
    ) -> list[EventVerdict]:
        self._frontier_ns = frontier_ns
        root = self._root
        for stage in self._stages:
            try:
                stage.advance(time_ns, values, frontier_ns)
            except (ArithmeticError, ValueError):
                raise self._no_value(stage) from None
        found = [
            EventVerdict(lo, hi, self._told + offset, at) for offset, (at, lo, hi) in enumerate(root.out)
        ]
        self._told += len(found)
        return found

    def _no_value(self, stage: EventStage) -> DataError:
        """The error of arithmetic without a result; the monitor stops."""
        node, text = stage.node, self.formula.text
        message = f"{text[node.start : node.end]!r} has no value at an event ({node.op})"
        error = misplaced(DataError, text, node.at, message)
        self._broken = str(error)
        return error

    def values(self, time_ns: int, sample: Mapping[str, Any]) -> dict[str, float]:
        """An event's values that the formula reads, without the missing ones: absent, None or NaN.

        Raises:
            UsageError: a name that the formula defines.
            DataError: a value that is no number; a missing one where that is an error.
        """
        taken = [name for name in self._defined if name in sample]
        if taken:
            raise UsageError(f"{taken[0]!r} is defined in the formula and a signal of the event; rename one")
        found: dict[str, float] = {}
        for name in self.signals:
            given = sample.get(name)
            try:
                value = math.nan if given is None else float(given)
            except (TypeError, ValueError, OverflowError) as error:
                raise DataError(f"signal {name!r} at {time_ns} ns: {error}") from None
            if not math.isnan(value):
                found[name] = value
            elif self.missing == "error":
                raise DataError(
                    f"event at {time_ns} ns has no value of {name!r}; it is not taken in: send it whole, or choose "
                    "missing='unknown' or 'hold'"
                )
        return found


def time_in_ns(time_ns: Any) -> int:
    """A time, checked.

    Raises:
        UsageError: it is no whole number, or lies beyond 2^62.
    """
    try:
        found = operator.index(time_ns)
    except TypeError:
        raise UsageError(f"time {time_ns!r}: expected whole nanoseconds") from None
    if abs(found) > _LATEST_NS:
        raise UsageError(
            f"time {found} ns is beyond 2^62; expected nanoseconds since 1970 or since the start"
        )
    return found
