"""Why a formula holds or not at a sample: the predicates that decide it, and when."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import ArrayLike

from phalanx.errors import UsageError
from phalanx.stl.arguments import whole_number
from phalanx.stl.formula import Formula, Node, ticks
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
    formula = parse(text)
    values = robustness_of_parts(formula, signals, period)
    length = len(values[formula.root])
    sample = whole_number("sample", sample, 0)
    if sample >= length:
        raise UsageError(f"sample {sample}: the trace has samples 0 to {length - 1}")
    whole = float(values[formula.root][sample])
    search = _Search(formula, values, period_in_ns(period), strict=whole < 0.0)
    causes = [
        Cause(
            text=search.written(index),
            signals=search.signals(index),
            samples=tuple(np.flatnonzero(read).tolist()),
            value=float(values[index][decides][np.argmin(np.abs(values[index][decides]))]),
        )
        for index, decides, read in search.causes(sample)
    ]
    critical = search.critical(sample)
    named = None if critical is None else (search.written(critical[0]), critical[1])
    return Diagnosis(sample, whole, whole >= 0.0, tuple(causes), named)


class _Search:
    """Walks down from the root with all samples of a node at once.

    What is to be explained of a node at a sample is that its value lies above 0 or below. Where the root is below 0
    both are meant strictly, also below negations; where it holds 0 counts as either.
    """

    def __init__(
        self, formula: Formula, values: dict[int, Float[np.ndarray, " time"]], period_ns: int, strict: bool
    ) -> None:
        self.formula, self.values, self.period_ns, self.strict = formula, values, period_ns, strict
        self.nodes = formula.nodes
        self.length = len(values[formula.root])

    def written(self, index: int) -> str:
        """A node's text."""
        return self.formula.text[self.nodes[index].start : self.nodes[index].end]

    def signals(self, index: int) -> tuple[str, ...]:
        """Names of the signals that a node reads."""
        return tuple(
            sorted({self.nodes[at].name for at in self._below(index) if self.nodes[at].op == "signal"})
        )

    def _below(self, index: int) -> list[int]:
        """A node and all that it needs, the node first and arguments after what takes them."""
        found, stack = {index}, [index]
        while stack:
            fresh = set(self.nodes[stack.pop()].args) - found
            found |= fresh
            stack.extend(fresh)
        return sorted(found, reverse=True)

    def causes(self, sample: int) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Predicates in the order of the text: index, where they decide, and where they read signals for that."""
        none = np.zeros(self.length, bool)
        claims = {index: {True: none.copy(), False: none.copy()} for index in self.formula.needed}
        claims[self.formula.root][self.values[self.formula.root][sample] >= 0.0][sample] = True
        found = []
        for index in reversed(self.formula.needed):
            if not self.formula.is_logic(index):
                decides = claims[index][True] | claims[index][False]
                if decides.any():
                    found.append((index, decides, self._read(index, decides)))
                continue
            for above, at in claims[index].items():
                if at.any():
                    for arg, side, where in self._reasons(index, at, above):
                        claims[arg][side] |= where
        yield from sorted(found, key=lambda each: self.nodes[each[0]].start)

    def _reasons(
        self, index: int, at: Bool[np.ndarray, " time"], above: bool
    ) -> Iterator[tuple[int, bool, Bool[np.ndarray, " time"]]]:
        """What forces a node's value to lie above (or below) 0 at some samples: argument, side, samples."""
        node = self.nodes[index]
        if node.op == "not":
            yield node.args[0], not above, at
        elif node.op in ("and", "or"):
            if above == (node.op == "and"):
                yield from ((arg, above, at) for arg in node.args)
                return
            first, second = node.args
            one, other = self.values[first], self.values[second]
            chosen = one >= other if above else one <= other
            yield first, above, at & chosen
            yield second, above, at & ~chosen
        elif TEMPORAL[node.op].shape == "until":
            yield from ((arg, above, where) for arg, where in self._until(node, at, above))
        else:
            yield node.args[0], above, self._window(node, at, above)

    def _window(self, node: Node, at: Bool[np.ndarray, " time"], above: bool) -> Bool[np.ndarray, " time"]:
        """Of the windows of some samples: all of them, or of each the one that is farthest on this side."""
        operator = TEMPORAL[node.op]
        step = -1 if operator.past else 1
        begin, end = self._bounds(node)
        starts = np.flatnonzero(at[::step]) + begin
        stops = np.minimum(starts - begin + end + 1, self.length)
        starts, stops = starts[starts < self.length], stops[starts < self.length]
        if above == operator.least:
            return _union(starts, stops, self.length)[::step]
        ahead = self.values[node.args[0]][::step]
        found = np.zeros(self.length, bool)
        found[_best(ahead if above else -ahead, starts, stops)] = True
        return found[::step]

    def _until(
        self, node: Node, at: Bool[np.ndarray, " time"], above: bool
    ) -> Iterator[tuple[int, Bool[np.ndarray, " time"]]]:
        left, right = node.args
        step = -1 if TEMPORAL[node.op].past else 1
        begin, end = self._bounds(node)
        now = np.flatnonzero(at[::step])
        now = now[now + begin < self.length]
        last = np.minimum(now + end, self.length - 1)
        if above:  # the left side holds up to the first sample of the window at which the right side does
            reached = _following(self._lies(right, True)[::step])[now + begin]
            yield right, _at(reached, self.length)[::step]
            yield left, _union(now, reached, self.length)[::step]
        else:  # the right side holds nowhere in the window before the left side breaks
            breaks = _following(self._lies(left, False)[::step])[now]
            broken = breaks < last
            yield left, _at(breaks[broken], self.length)[::step]
            yield right, _union(now + begin, np.minimum(last, breaks) + 1, self.length)[::step]

    def _lies(self, index: int, above: bool) -> Bool[np.ndarray, " time"]:
        """Where a node's value lies above (or below) 0."""
        values = self.values[index] if above else -self.values[index]
        return values > 0.0 if self.strict else values >= 0.0

    def _bounds(self, node: Node) -> tuple[int, int]:
        """Bounds in samples; the length of the trace where there is none, or where they lie beyond it."""
        if TEMPORAL[node.op].shape == "shift":
            return 1, 1
        begin, end = ticks(self.formula, node, self.period_ns)
        return min(begin, self.length), self.length if end is None else min(end, self.length)

    def _read(self, index: int, at: Bool[np.ndarray, " time"]) -> Bool[np.ndarray, " time"]:
        """The samples at which a node reads signals for its value at some samples."""
        below = self._below(index)
        if not any(self.nodes[each].op in TEMPORAL for each in below):
            return at
        needed = {each: np.zeros(self.length, bool) for each in below}
        needed[index] = at
        for each in below:
            node, where = self.nodes[each], needed[each]
            if node.op in TEMPORAL:
                step = -1 if TEMPORAL[node.op].past else 1
                begin, end = self._bounds(node)
                begin = 0 if TEMPORAL[node.op].shape == "until" else begin
                now = np.flatnonzero(where[::step])
                last = np.minimum(now + end, self.length - 1)
                if node.op == "age":  # what lies before the last event does not matter
                    last = np.minimum(last, _following(self.values[node.args[0]][::step] > 0.0)[now])
                where = _union(now + begin, last + 1, self.length)[::step]
            for arg in node.args:
                needed[arg] = needed[arg] | where
        leaves = [needed[each] for each in below if self.nodes[each].op == "signal"]
        return np.any(leaves, axis=0) if leaves else at

    def critical(self, sample: int) -> tuple[int, int] | None:
        """The predicate whose value the root's is, up to the sign, and where; None where it lies outside the trace."""
        index, at = self.formula.root, sample
        while self.formula.is_logic(index):
            node, value = self.nodes[index], self.values[index][at]
            if node.op == "not":
                index = node.args[0]
                continue
            samples = np.array([at])
            if node.op in TEMPORAL:
                begin, end = self._bounds(node)
                begin = 0 if TEMPORAL[node.op].shape == "until" else begin
                samples = np.arange(at + begin, min(at + end + 1, self.length))
                if TEMPORAL[node.op].past:
                    samples = np.arange(at - begin, max(at - end - 1, -1), -1)
            for arg in node.args:
                here = samples[self.values[arg][samples] == value]
                if here.size:
                    index, at = arg, int(here[0])
                    break
            else:
                return None
        return index, at


def _at(where: Int[np.ndarray, " n"], length: int) -> Bool[np.ndarray, " time"]:
    """True at some samples."""
    found = np.zeros(length, bool)
    found[where] = True
    return found


def _union(
    starts: Int[np.ndarray, " n"], stops: Int[np.ndarray, " n"], length: int
) -> Bool[np.ndarray, " time"]:
    """True at the samples from any start to before its stop; a stop at or before its start holds none."""
    filled = stops > starts
    edges = np.zeros(length + 1, np.int64)
    np.add.at(edges, starts[filled], 1)
    np.add.at(edges, stops[filled], -1)
    return np.cumsum(edges[:-1]) > 0


def _following(true: Bool[np.ndarray, " time"]) -> Int[np.ndarray, " time"]:
    """The first true sample at or after each; the length where there is none."""
    where = np.where(true, np.arange(true.size), true.size)
    return np.minimum.accumulate(where[::-1])[::-1]


def _best(
    values: Float[np.ndarray, " time"], starts: Int[np.ndarray, " n"], stops: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " n"]:
    """The sample of the greatest value in each interval, none of which is empty (a sparse table: Bender and
    Farach-Colton, "The LCA problem revisited", 2000)."""
    if not starts.size:
        return starts
    levels = np.floor(np.log2(stops - starts)).astype(np.int64)
    chosen = np.zeros_like(starts)
    table, width = np.arange(values.size), 1
    for level in range(int(levels.max()) + 1):
        here = levels == level
        one, other = table[starts[here]], table[stops[here] - width]
        chosen[here] = np.where(values[one] >= values[other], one, other)
        one, other = table[:-width], table[width:]
        table, width = np.where(values[one] >= values[other], one, other), 2 * width
    return chosen
