"""Robustness over a tube of traces: bounds that hold for every trace between a lower and an upper one."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from phalanx.errors import DataError, UsageError
from phalanx.stl.arguments import expect_mapping
from phalanx.stl.formula import Formula, Graph, Node
from phalanx.stl.offline import robustness_of_parts
from phalanx.stl.operators import TEMPORAL
from phalanx.stl.parser import parse
from phalanx.stl.places import misplaced

__all__ = ["robustness_bounds"]

Ends = tuple[int, int]
"""Indices of the nodes that are a node's lower and upper end."""


def robustness_bounds(
    text: str | Formula, lower: Mapping[str, ArrayLike], upper: Mapping[str, ArrayLike], period: float = 1.0
) -> tuple[Float[np.ndarray, " time"], Float[np.ndarray, " time"]]:
    """Bounds of the robustness of all traces x with lower <= x <= upper, each signal at each sample.

    Every operator over time, *and* and *or* are monotone: [min(a, b), min(a', b')]. *not* swaps the ends, and
    ``a >= b`` is [a - b', a' - b]; arithmetic is that of intervals. A signal that occurs once makes the bounds tight;
    of one that occurs more often each occurrence is free, so that they may be wider than need be, never too narrow.

    Args:
        text: the formula, or its text (``parser.parse``).
        lower, upper: name -> one value a sample; infinite where nothing is known.
        period: seconds between samples.

    Returns:
        The lower and the upper bound, one value a sample each.

    Raises:
        UsageError: those of ``robustness``; a power whose exponent is no constant.
        DataError: those of ``robustness``, for either end; a lower end above the upper; a divisor, or the base of a
            negative power, that the tube lets be 0.

    Example:
        >>> robustness_bounds("always[0,1] x < 5", {"x": [1, 2, 0]}, {"x": [2, 4, 1]})
        (array([1., 1., 4.]), array([3., 3., 5.]))

    Source: Lindemann et al., "Conformal prediction for STL runtime verification", ICCPS 2023, 2211.01539 (the worst
    case over prediction regions, in its indirect method); Moore, Kearfott and Cloud, "Introduction to interval
    analysis", 2009, chapter 2.
    """
    formula = parse(text)
    ends = _ends_of(formula)
    expect_mapping(_LOWER, lower)
    names = formula.signals or tuple(lower)
    trace: dict[str, ArrayLike] = {}
    for side, signals in ((_LOWER, lower), (_UPPER, upper)):
        expect_mapping(side, signals)
        missing = [name for name in names if name not in signals]
        if missing:
            known = ", ".join(sorted(signals)) or "none"
            raise UsageError(f"unknown signal {missing[0]!r}; the {side} trace has: {known}")
        trace |= {_name(name, side): signals[name] for name in names}
    values = robustness_of_parts(ends.together, trace, period)
    for name, (low, high) in ends.signals.items():
        crossed = np.flatnonzero(values[low] > values[high])
        if crossed.size:
            raise DataError(f"signal {name!r}: its lower bound exceeds the upper one at sample {crossed[0]}")
    for index, guard in ends.guards:
        zero = np.flatnonzero(values[guard] <= 0.0)
        if zero.size:
            node = formula.nodes[index]
            part = formula.text[node.start : node.end]
            message = f"{part!r} is unbounded: the tube lets it divide by 0 at sample {zero[0]}; narrow it"
            raise misplaced(DataError, formula.text, node.at, message)
    low, high = ends.root
    return values[low].copy(), values[high].copy()


_LOWER, _UPPER = "lower", "upper"


def _name(signal: str, side: str) -> str:
    """Of an end's signal; no name of the language holds a space."""
    return f"{signal} {side}"


class _EndsOf:
    """A formula over the ends of signals, whose parts are the ends of the parts of another one.

    Attributes:
        together: it; its value is of no use.
        root: the ends of the other's value.
        signals: the ends of each signal.
        guards: node of the other one -> node that must lie above 0.
    """

    def __init__(self, formula: Formula) -> None:
        self._formula, self._graph = formula, Graph()
        self.signals: dict[str, Ends] = {}
        self.guards: list[tuple[int, int]] = []
        found: dict[int, Ends] = {}
        for index in formula.needed:
            node = formula.nodes[index]
            found[index] = self._of(index, node, [found[arg] for arg in node.args])
        self.root = found[formula.root]
        root = self.root[0]
        for other in (self.root[1], *(guard for _, guard in self.guards)):
            root = self._graph.add(Node("and", (root, other)))
        self.together = Formula(formula.text, tuple(self._graph.nodes), root, {}, {})

    def _of(self, index: int, node: Node, args: list[Ends]) -> Ends:
        def make(op: str, *of: int) -> int:
            return self._graph.add(replace(node, op=op, args=of))

        if node.op == "signal":
            low, high = (
                self._graph.add(replace(node, name=_name(node.name, side))) for side in (_LOWER, _UPPER)
            )
            self.signals[node.name] = (low, high)
            return low, high
        if node.op == "constant":
            return (same := self._graph.add(node)), same
        if node.op in _MONOTONE:
            return make(node.op, *(low for low, _ in args)), make(node.op, *(high for _, high in args))
        if node.op == "power":
            return self._power(index, node, args, make)
        if node.op == "divide":
            self._keep_off_zero(index, args[1], make)
        if node.op == "ratio":
            self._keep_off_zero(index, args[1], make, unless_known=True)
        return _RULES[node.op](make, self._zero(), *args)

    def _zero(self) -> int:
        return self._graph.add(Node("constant", value=0.0))

    def _keep_off_zero(
        self, index: int, ends: Ends, make: Callable[..., int], *, unless_known: bool = False
    ) -> None:
        guard = make("or", ends[0], make("not", ends[1]))
        if unless_known:  # 1 where both ends meet, else less than 0
            minus, one = (self._graph.add(Node("constant", value=value)) for value in (-1.0, 1.0))
            guard = make("or", guard, make("ratio", minus, make("distance", *ends), one))
        self.guards.append((index, guard))

    def _power(self, index: int, node: Node, args: list[Ends], make: Callable[..., int]) -> Ends:
        """A power with a constant exponent: monotone on either side of 0, even ones on the absolute value."""
        written = self._formula.nodes[node.args[1]]
        if written.op != "constant":
            text = self._formula.text[node.start : node.end]
            message = f"{text!r}: bounds of a power are known for a constant exponent only"
            raise misplaced(UsageError, self._formula.text, node.at, message)
        base, exponent = args[0], args[1][0]
        if written.value < 0.0:
            self._keep_off_zero(index, base, make)
            return _corners("power")(make, self._zero(), base, args[1])
        if written.value % 2.0 == 0.0:
            base = _absolute(make, self._zero(), base)
        elif written.value % 1.0:
            base = make("or", base[0], self._zero()), base[1]
        return make("power", base[0], exponent), make("power", base[1], exponent)


@lru_cache(maxsize=64)
def _ends_of(formula: Formula) -> _EndsOf:
    """Built once for all traces of a tube."""
    return _EndsOf(formula)


_MONOTONE = frozenset({"and", "or", "add", "exp"}) | (TEMPORAL.keys() - {"age"})
"""Operators that rise with each of their arguments: all over time, too, but for the age of the last event."""


def _absolute(make: Callable[..., int], zero: int, a: Ends) -> Ends:
    return make("or", zero, make("or", a[0], make("not", a[1]))), make("or", make("not", a[0]), a[1])


def _distance(make: Callable[..., int], zero: int, a: Ends, b: Ends) -> Ends:
    return _absolute(make, zero, (make("difference", a[0], b[1]), make("difference", a[1], b[0])))


def _corners(op: str) -> Callable[..., Ends]:
    """Ends of what is monotone in two arguments, rising or falling: the extremes of its values at all four corners."""

    def ends(make: Callable[..., int], zero: int, a: Ends, b: Ends, *rest: Ends) -> Ends:
        found = []
        for extreme, side in (("and", 0), ("or", 1)):
            others = [each[side] for each in rest]
            one, two, three, four = (make(op, left, right, *others) for left in a for right in b)
            found.append(make(extreme, make(extreme, one, two), make(extreme, three, four)))
        return found[0], found[1]

    return ends


_RULES: dict[str, Callable[..., Ends]] = {
    "not": lambda make, zero, a: (make("not", a[1]), make("not", a[0])),
    "abs": _absolute,
    "sqrt": lambda make, zero, a: (make("sqrt", make("or", a[0], zero)), make("sqrt", a[1])),
    "difference": lambda make, zero, a, b: (make("difference", a[0], b[1]), make("difference", a[1], b[0])),
    "subtract": lambda make, zero, a, b: (make("subtract", a[0], b[1]), make("subtract", a[1], b[0])),
    "distance": _distance,
    "multiply": _corners("multiply"),
    "divide": _corners("divide"),
    "ratio": _corners("ratio"),
    "age": lambda make, zero, a: (make("age", a[1]), make("age", a[0])),
}
"""Operator -> (maker of nodes, the node 0, ends of its arguments) -> its ends."""
