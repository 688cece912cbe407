"""Why a formula holds or not at a sample: the predicates that decide it, and when."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from phalanx.errors import UsageError
from phalanx.stl.formula import Formula, ticks
from phalanx.stl.offline import period_in_ns, robustness_of_parts
from phalanx.stl.operators import TEMPORAL
from phalanx.stl.parser import parse

__all__ = ["Cause", "Diagnosis", "diagnose"]


@dataclass(frozen=True)
class Cause:
    """A predicate that the verdict rests on.

    Attributes:
        text: as it is written in the formula.
        signals: that it reads.
        samples: at which it decides, ascending.
        value: its robustness at the sample where it is least certain (nearest to 0).
    """

    text: str
    signals: tuple[str, ...]
    samples: tuple[int, ...]
    value: float


@dataclass(frozen=True)
class Diagnosis:
    """Why a formula has the sign that it has at a sample.

    Attributes:
        sample: which.
        robustness: there.
        satisfied: whether that is 0 or more.
        causes: predicates and samples that force the verdict: whatever the signals are elsewhere, it stays.
        critical: the predicate and sample whose value the robustness is, None where a window lies outside the trace.
    """

    sample: int
    robustness: float
    satisfied: bool
    causes: tuple[Cause, ...]
    critical: tuple[str, int] | None


def diagnose(
    text: str | Formula, signals: Mapping[str, ArrayLike], sample: int = 0, period: float = 1.0
) -> Diagnosis:
    """Explains the verdict at a sample.

    A violated conjunction is explained by its worst part, a violated disjunction by all of its parts; a violated
    *always* by its worst sample, a violated *eventually* by all of its window; the other way round for what holds.

    Args:
        text, signals, period: see ``robustness``.
        sample: where the verdict is to be explained.

    Raises:
        UsageError, DataError: those of ``robustness``; a sample outside the trace.

    Example:
        >>> found = diagnose("always (x > 0 -> y > 0)", {"x": [1, 1, -1], "y": [2, -3, 5]})
        >>> [(cause.text, cause.samples) for cause in found.causes], found.critical
        ([('x > 0', (1,)), ('y > 0', (1,))], ('x > 0', 1))

    Source: Ferrere, Maler and Nickovic, "Trace diagnostics using temporal implicants", ATVA 2015 (implicants);
    Bartocci et al., "Localizing faults in Simulink/Stateflow models with STL", HSCC 2018.
    """
    formula = parse(text) if isinstance(text, str) else text
    values = robustness_of_parts(formula, signals, period)
    length = len(values[formula.root])
    if not 0 <= sample < length:
        raise UsageError(f"sample {sample}: the trace has samples 0 to {length - 1}")
    search = _Search(formula, values, period_in_ns(period))
    whole = float(values[formula.root][sample])
    found = search.causes(sample, whole >= 0.0)
    causes = []
    for index in sorted(found, key=lambda each: formula.nodes[each].start):
        samples = sorted(found[index])
        at = values[index][samples]
        causes.append(
            Cause(
                text=search.written(index),
                signals=search.signals(index),
                samples=tuple(samples),
                value=float(at[np.argmin(np.abs(at))]),
            )
        )
    critical = search.critical(sample)
    named = None if critical is None else (search.written(critical[0]), critical[1])
    return Diagnosis(sample, whole, whole >= 0.0, tuple(causes), named)


class _Search:
    """Walks down from the root; a place is a node and a sample."""

    def __init__(
        self, formula: Formula, values: dict[int, Float[np.ndarray, " time"]], period_ns: int
    ) -> None:
        self.nodes, self.formula, self.values, self.period_ns = formula.nodes, formula, values, period_ns
        self.length = len(values[formula.root])

    def written(self, index: int) -> str:
        """A node's text."""
        return self.formula.text[self.nodes[index].start : self.nodes[index].end]

    def signals(self, index: int) -> tuple[str, ...]:
        """Names of the signals that a node reads."""
        names, stack = set(), [index]
        while stack:
            node = self.nodes[stack.pop()]
            stack.extend(node.args)
            names |= {node.name} if node.op == "signal" else set()
        return tuple(sorted(names))

    def causes(self, sample: int, holds: bool) -> dict[int, set[int]]:
        """Predicate -> samples that force the root to be at least 0 (or below it).

        Below a negation this reads at most 0 (or above it); what is chosen does not depend on it.
        """
        found: dict[int, set[int]] = defaultdict(set)
        seen: set[tuple[int, int, bool]] = set()
        stack = [(self.formula.root, sample, holds)]
        while stack:
            claim = stack.pop()
            if claim in seen:
                continue
            seen.add(claim)
            index, at, above = claim
            if self._is_logic(index):
                stack.extend(self._reasons(index, at, above))
            else:
                found[index] |= self._read(index, at)
        return found

    def _is_logic(self, index: int) -> bool:
        return self.nodes[index].op in ("not", "and", "or") or self.nodes[index].op in TEMPORAL

    def _reasons(self, index: int, at: int, above: bool) -> Iterator[tuple[int, int, bool]]:
        """Places that force a node's value to lie above (or below) 0 at a sample."""
        node = self.nodes[index]
        if node.op == "not":
            yield node.args[0], at, not above
            return
        operator = TEMPORAL.get(node.op)
        if operator and operator.shape == "until":
            yield from ((*place, above) for place in self._until(index, at, above))
            return
        places = [
            (arg, when) for arg in node.args for when in (self._window(index, at) if operator else (at,))
        ]
        least = operator.least if operator else node.op == "and"
        if above != least and places:  # one is enough: the one that is farthest on this side
            pick = max if above else min
            places = [pick(places, key=lambda place: self.values[place[0]][place[1]])]
        yield from ((*place, above) for place in places)

    def _until(self, index: int, at: int, above: bool) -> Iterator[tuple[int, int]]:
        left, right = self.nodes[index].args
        window = self._window(index, at)
        if not window:
            return
        if above:
            reached = self._reached(index, at)
            yield right, reached
            yield from ((left, when) for when in range(at, reached, window.step))
            return
        for when in range(
            at, window.stop, window.step
        ):  # the right side holds nowhere before the left side breaks
            if when in window:
                yield right, when
            if self.values[left][when] < 0.0:
                yield left, when
                return

    def _reached(self, index: int, at: int) -> int:
        """Where the right side of an until, whose window is not empty, is best reached."""
        left, right = self.nodes[index].args
        window = self._window(index, at)
        held, best, reached = np.inf, -np.inf, window.start
        for when in range(at, window.stop, window.step):
            if when in window and min(self.values[right][when], held) > best:
                best, reached = min(self.values[right][when], held), when
            held = min(held, self.values[left][when])
        return reached

    def _window(self, index: int, at: int) -> range:
        """The samples that an operator over time looks at, from the nearest on."""
        node = self.nodes[index]
        operator = TEMPORAL[node.op]
        first, last = (1, 1) if operator.shape == "shift" else ticks(self.formula, node, self.period_ns)
        if operator.past:
            return range(at - first, -1 if last is None else max(-1, at - last - 1), -1)
        return range(at + first, self.length if last is None else min(self.length, at + last + 1))

    def _read(self, index: int, at: int) -> set[int]:
        """The samples at which a node reads signals."""
        samples, seen, stack = set(), set(), [(index, at)]
        while stack:
            place = stack.pop()
            if place in seen:
                continue
            seen.add(place)
            node, when = self.nodes[place[0]], place[1]
            if node.op == "signal":
                samples.add(when)
            elif node.op in TEMPORAL:
                window = self._window(place[0], when)
                near = window if TEMPORAL[node.op].shape != "until" else range(when, window.stop, window.step)
                stack.extend((arg, each) for arg in node.args for each in near)
            else:
                stack.extend((arg, when) for arg in node.args)
        return samples or {at}

    def critical(self, sample: int) -> tuple[int, int] | None:
        """The predicate whose value the root's is, up to the sign, and where; None where it lies outside the trace."""
        index, at = self.formula.root, sample
        while self._is_logic(index):
            node, value = self.nodes[index], self.values[index][at]
            operator = TEMPORAL.get(node.op)
            if node.op == "not":
                index = node.args[0]
                continue
            samples = self._window(index, at) if operator else (at,)
            places = [(arg, when) for arg in node.args for when in samples]
            if operator and operator.shape == "until" and places:
                reached = self._reached(index, at)
                step = -1 if operator.past else 1
                places = [
                    (node.args[1], reached),
                    *((node.args[0], when) for when in range(at, reached, step)),
                ]
            following = next((place for place in places if self.values[place[0]][place[1]] == value), None)
            if following is None:
                return None
            index, at = following
        return index, at
