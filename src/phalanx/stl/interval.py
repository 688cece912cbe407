"""Robustness over a tube of traces: bounds that hold for every trace between a lower and an upper one."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from phalanx.errors import DataError, UsageError
from phalanx.stl.arguments import expect_mapping
from phalanx.stl.formula import Formula, Node
from phalanx.stl.offline import Trace, Values, checked, over_time, period_in_ns, pointwise
from phalanx.stl.operators import POINTWISE
from phalanx.stl.parser import parse
from phalanx.stl.places import misplaced, named
from phalanx.stl.walk import walk

__all__ = ["robustness_bounds"]

Ends = tuple[Values, Values]
"""The lower and the upper end of a node's value, at each sample."""


def robustness_bounds(
    text: str | Formula, lower: Mapping[str, ArrayLike], upper: Mapping[str, ArrayLike], period: float = 1.0
) -> tuple[Float[np.ndarray, " time"], Float[np.ndarray, " time"]]:
    """Bounds of the robustness of all traces x with lower <= x <= upper, each signal at each sample.

    Every operator over time, *and* and *or* are monotone: [min(a, b), min(a', b')]. *not* swaps the ends, and
    ``a >= b`` is [a - b', a' - b]; arithmetic is that of intervals. A signal that occurs once makes the bounds tight;
    of one that occurs more often each occurrence is free, so that they may be wider than need be, never too narrow.

    An infinite end stands for numbers as large as one likes. So 0 times it is 0, and it by another infinite one too:
    x y is in [0, inf] for x in [0, 1] and y in [0, inf]. Traces that have no value, such as x = 0 with y = inf, are
    left out; where no trace has one it is an error.

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
    formula, period_ns = parse(text), period_in_ns(period)
    tube, length = _tube(formula, lower, upper)

    def at_one_sample(node: Node, args: list[Ends]) -> Ends:
        if node.op in _RISING:
            lows, highs = zip(*args, strict=True)
            return pointwise(formula, node, [*lows]), pointwise(formula, node, [*highs])
        return _RULES[node.op](_Operator(formula, node), *args)

    def at_all_samples(node: Node, args: list[Ends]) -> Ends:
        lows, highs = zip(*args, strict=True)
        low, high = (over_time(formula, node, [*side], length, period_ns) for side in (lows, highs))
        return (high, low) if node.op == "age" else (low, high)

    values = walk(formula, tube.__getitem__, _exactly, at_one_sample, at_all_samples)
    low, high = (np.broadcast_to(end, (length,)).copy() for end in values[formula.root])
    return low, high


def _tube(
    formula: Formula, lower: Mapping[str, ArrayLike], upper: Mapping[str, ArrayLike]
) -> tuple[dict[str, Ends], int]:
    """The ends of the signals that the formula reads, checked, and their length."""
    expect_mapping("lower", lower)
    names = formula.signals or tuple(lower)
    found: list[dict[str, Trace]] = []
    lengths = []
    for side, signals in (("lower", lower), ("upper", upper)):
        expect_mapping(side, signals)
        missing = [name for name in names if name not in signals]
        if missing:
            known = ", ".join(sorted(signals)) or "none"
            raise UsageError(f"unknown signal {missing[0]!r}; the {side} trace has: {known}")
        try:
            trace, length = checked(formula, {name: signals[name] for name in names})
        except DataError as error:
            raise named(error, f"the {side} trace") from None
        found.append(trace)
        lengths.append(length)
    if lengths[0] != lengths[1]:
        raise DataError(
            f"the lower trace has {lengths[0]} samples and the upper one {lengths[1]}; give them one length"
        )
    lows, highs = found
    for name in formula.signals:
        crossed = np.flatnonzero(lows[name] > highs[name])
        if crossed.size:
            raise DataError(f"signal {name!r}: its lower bound exceeds the upper one at sample {crossed[0]}")
    return {name: (lows[name], highs[name]) for name in names}, lengths[0]


def _exactly(number: float) -> Ends:
    return np.float64(number), np.float64(number)


_RISING = frozenset({"and", "or", "add", "exp"})
"""Operators at one sample that rise with each of their arguments. All over time do, too, but for the age of the last
event, which falls."""


class _Operator:
    """One that has a rule of its own, at its place in a formula."""

    def __init__(self, formula: Formula, node: Node) -> None:
        self.formula, self.node = formula, node

    def __call__(self, *args: Values) -> Values:
        """Its values.

        Raises:
            DataError: there is none.
        """
        return pointwise(self.formula, self.node, [*args])

    def corners(self, a: Ends, b: Ends, *rest: Values) -> Ends:
        """Of what is monotone in two arguments, rising or falling: the extremes of its values at all four corners.

        Two ends without a value (0 times an infinite one) count as 0, unless they are all that there is.
        """
        is_known = (a[0] == a[1]) & (b[0] == b[1])
        self(np.where(is_known, a[0], 1.0), np.where(is_known, b[0], 1.0), *rest)
        with np.errstate(all="ignore"):
            found = [POINTWISE[self.node.op](np, left, right, *rest) for left in a for right in b]
        one, two, three, four = (np.where(np.isnan(each), 0.0, each) for each in found)
        lowest = np.minimum(np.minimum(one, two), np.minimum(three, four))
        return lowest, np.maximum(np.maximum(one, two), np.maximum(three, four))

    def keep_off_zero(self, ends: Ends, *, unless_known: bool = False) -> None:
        """An error where the tube lets a divisor be 0."""
        zero = (ends[0] <= 0.0) & (ends[1] >= 0.0)
        if unless_known:
            zero = zero & (ends[0] != ends[1])
        if np.any(zero):
            sample = int(np.flatnonzero(np.atleast_1d(zero))[0])
            part = self.formula.text[self.node.start : self.node.end]
            message = f"{part!r} is unbounded: the tube lets it divide by 0 at sample {sample}; narrow it"
            raise misplaced(DataError, self.formula.text, self.node.at, message)


def _power(of: _Operator, base: Ends, exponent: Ends) -> Ends:
    """A power with a constant exponent: monotone on either side of 0, even ones on the absolute value."""
    node = of.formula.nodes[of.node.args[1]]
    if node.op != "constant":
        text = of.formula.text[of.node.start : of.node.end]
        message = f"{text!r}: bounds of a power are known for a constant exponent only"
        raise misplaced(UsageError, of.formula.text, of.node.at, message)
    if node.value < 0.0:
        of.keep_off_zero(base)
        ends = of(base[0], exponent[0]), of(base[1], exponent[0])
        return np.minimum(*ends), np.maximum(*ends)
    if node.value % 2.0 == 0.0:
        base = _absolute(base)
    elif node.value % 1.0:
        base = np.maximum(base[0], 0.0), base[1]
    return of(base[0], exponent[0]), of(base[1], exponent[0])


def _absolute(a: Ends) -> Ends:
    return np.maximum(0.0, np.maximum(a[0], -a[1])), np.maximum(-a[0], a[1])


def _difference(a: Ends, b: Ends) -> Ends:
    minus = POINTWISE["difference"]
    with np.errstate(invalid="ignore"):
        return minus(np, a[0], b[1]), minus(np, a[1], b[0])


def _quotient(of: _Operator, a: Ends, b: Ends) -> Ends:
    of.keep_off_zero(b)
    return of.corners(a, b)


def _rate(of: _Operator, a: Ends, b: Ends, empty: Ends) -> Ends:
    of.keep_off_zero(b, unless_known=True)
    return of.corners(a, b, empty[0])


_RULES: dict[str, Callable[..., Ends]] = {
    "not": lambda of, a: (-a[1], -a[0]),
    "abs": lambda of, a: _absolute(a),
    "sqrt": lambda of, a: (of(np.maximum(a[0], 0.0)), of(a[1])),
    "power": _power,
    "difference": lambda of, a, b: _difference(a, b),
    "distance": lambda of, a, b: _absolute(_difference(a, b)),
    "subtract": lambda of, a, b: (of(a[0], b[1]), of(a[1], b[0])),
    "multiply": _Operator.corners,
    "divide": _quotient,
    "ratio": _rate,
}
"""Operator -> (it, ends of its arguments) -> its ends."""
