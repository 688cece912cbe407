"""Robustness of a stream, sample by sample: what is known of a formula's value, and nothing before it is known.

Every node of the formula is evaluated once a sample, as late as it has to be: a future operator's value is known when
its window has passed, and what is combined with it waits for it. So no operator ever sees a value that may change.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from phalanx.errors import DataError, UsageError
from phalanx.stl.formula import Formula, ticks
from phalanx.stl.offline import no_value, period_in_ns
from phalanx.stl.operators import TEMPORAL
from phalanx.stl.parser import parse
from phalanx.stl.places import misplaced
from phalanx.stl.stages import Stage, stages_of

__all__ = ["Monitor", "Verdict", "below_time"]

_INF = math.inf


class Verdict(NamedTuple):
    """What is known of the robustness at a sample.

    Attributes:
        lo, hi: the value lies between them whatever comes; equal where it is known.
        sample: index of the sample that it is about, from 0.
    """

    lo: float
    hi: float
    sample: int

    @property
    def known(self) -> bool:
        """Whether the value is known."""
        return self.lo == self.hi

    @property
    def satisfied(self) -> bool | None:
        """True or False as soon as that is certain, None before; 0 counts as satisfied, as in ``diagnose``."""
        return True if self.lo >= 0.0 else False if self.hi < 0.0 else None


class Monitor:
    """Watches one formula over one stream of samples, a period apart.

    ``update`` takes the next sample and returns the verdict on the sample that the formula's horizon has just reached:
    its value is that of ``robustness`` on any trace that begins like this. Until the horizon has passed once the
    verdict is an interval about sample 0, which only ever narrows. A formula with an unbounded future operator has no
    horizon: all verdicts are about sample 0, and ``finish`` closes them.

    An update takes a constant number of steps for each node, on average; memory holds as many values as the windows
    are long, at most.

    Args:
        text: the formula, or its text.
        period: seconds between samples.

    Raises:
        UsageError: a text that is no formula, a bound that is no multiple of the period, or an unbounded future
            operator below another operator over time (its value would not be known at any sample but the first).

    Example:
        >>> monitor = Monitor("x > 0 -> eventually[0,1] y > 0")
        >>> for sample in ({"x": 2, "y": -1}, {"x": -1, "y": 3}, {"x": -1, "y": -1}):
        ...     print(*monitor.update(sample))
        -1.0 inf 0
        3.0 3.0 0
        3.0 3.0 1

    Source: Deshmukh et al., "Robust online monitoring of signal temporal logic", 2017 (intervals); Donze, Ferrere and
    Maler, "Efficient robust monitoring for STL", CAV 2013.
    """

    def __init__(self, text: str | Formula, period: float = 1.0) -> None:
        self.formula = parse(text)
        self.samples = 0
        self._period_ns = period_in_ns(period)
        self._broken = ""
        self._signals = self.formula.signals
        self._defined = (*self.formula.names, *self.formula.constants)
        self._compile()

    def _compile(self) -> None:
        formula = self.formula
        self._stages: list[Stage] = []
        last: dict[int, Stage] = {}
        below = below_time(formula)
        for index in formula.needed:
            node = formula.nodes[index]
            args = [last[arg] for arg in node.args]
            begin, end = ticks(formula, node, self._period_ns)
            operator = TEMPORAL.get(node.op)
            if (
                operator
                and not operator.past
                and operator.shape != "shift"
                and end is None
                and index in below
            ):
                message = (
                    f"{node.written} has no bound, so it is never known at any sample but the first, and here it is "
                    "needed at others; give it a bound, or use robustness() on the whole trace"
                )
                raise misplaced(UsageError, formula.text, node.at, message)
            stages = stages_of(node, args, begin, end, self._period_ns)
            self._stages += stages
            last[index] = stages[-1]
        self._root = last[formula.root]
        self._moving = [stage for stage in self._stages if stage.node.op != "constant" or stage is self._root]

    @property
    def horizon(self) -> int | None:
        """Samples that pass until a sample's value is known; None where there is no bound."""
        return None if self._root.delay == _INF else int(self._root.delay)

    def update(self, sample: Mapping[str, Any]) -> Verdict:
        """Takes the next sample in.

        Raises:
            UsageError: a signal that the formula reads is missing, or one has a name that the formula defines.
            DataError: a value that is no number (the sample is not taken in), or arithmetic without a result (the
                monitor then cannot go on, and says so).
        """
        self._goes_on()
        values = self._checked(sample)
        stage = self._root
        try:
            for stage in self._moving:
                stage.advance(values)
        except (ArithmeticError, ValueError):
            raise self._ended_by(stage) from None
        self.samples += 1
        root = self._root
        if root.value is not None:
            return Verdict(root.value, root.value, root.emitted - 1)
        return Verdict(*root.first, 0)

    def finish(self) -> list[Verdict]:
        """Ends the stream: the verdicts on all samples that were still open, as whole traces have them.

        Nothing can be taken in afterwards.

        Raises:
            DataError: arithmetic without a result, or a monitor that has ended.
        """
        self._goes_on()
        done, count = self._root.emitted, self.samples
        if count:
            stage = self._root
            try:
                for stage in self._stages:
                    stage.close(count)
            except (ArithmeticError, ValueError):
                raise self._ended_by(stage) from None
        self._broken = "the stream has ended"
        if count and self._root.delay == _INF:
            return [Verdict(*self._root.first, 0)]
        return [Verdict(value, value, done + offset) for offset, value in enumerate(self._root.tail)]

    def _goes_on(self) -> None:
        if self._broken:
            raise DataError(f"{self._broken}; this monitor cannot go on, start a new one")

    def _ended_by(self, stage: Stage) -> DataError:
        """What is raised where a stage has no value; the monitor cannot go on."""
        error = no_value(self.formula, stage.node, stage.emitted, stage.node.op)
        self._broken = str(error)
        return error

    def _checked(self, sample: Mapping[str, Any]) -> dict[str, float]:
        """The sample's values that the formula reads."""
        taken = [name for name in self._defined if name in sample]
        if taken:
            raise UsageError(
                f"{taken[0]!r} is defined in the formula and a signal of sample {self.samples}; rename one"
            )
        values = {}
        for name in self._signals:
            if name not in sample:
                known = ", ".join(sorted(sample)) or "none"
                raise UsageError(f"sample {self.samples} has no signal {name!r}; it has: {known}")
            try:
                values[name] = value = float(sample[name])
            except (TypeError, ValueError, OverflowError) as error:
                raise DataError(f"signal {name!r} at sample {self.samples}: {error}") from None
            if math.isnan(value):
                raise DataError(
                    f"signal {name!r} is NaN at sample {self.samples}; the sample is not taken in: send it whole"
                )
        return values


def below_time(formula: Formula) -> set[int]:
    """The nodes whose value is needed at other samples than the first."""
    found: set[int] = set()
    for index in reversed(formula.needed):
        node = formula.nodes[index]
        if index in found or node.op in TEMPORAL:
            found |= set(node.args)
    return found
