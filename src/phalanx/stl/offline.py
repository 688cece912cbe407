"""Robustness of whole traces, vectorised: a window costs one pass per doubling, whatever its length."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phalanx.errors import DataError, UsageError
from phalanx.stl.arguments import expect_mapping, number
from phalanx.stl.derived import ages, quantiles, sums
from phalanx.stl.formula import Formula, Node, ticks
from phalanx.stl.operators import ARITHMETIC, POINTWISE, TEMPORAL, Temporal
from phalanx.stl.parser import parse
from phalanx.stl.places import misplaced
from phalanx.stl.walk import walk

__all__ = [
    "Trace",
    "Values",
    "by_libm",
    "checked",
    "no_value",
    "over_time",
    "period_in_ns",
    "pointwise",
    "robustness",
    "robustness_of_parts",
    "until",
]

Trace = NDArray[np.float64]
Values = NDArray[np.float64] | np.float64  # the latter of what is the same at all samples


def robustness(text: str | Formula, signals: Mapping[str, ArrayLike], period: float = 1.0) -> Trace:
    """How far each sample is from violating the formula (positive: it holds, negative: it does not).

    The semantics is RTAMT's for whole traces in discrete time: windows are cut at both ends of the trace, an empty one
    is infinite (*always* holds, *eventually* does not), ``until`` asks its left side on [t, t'). Equal infinities are
    no distance apart, where RTAMT has NaN. Values are float64.

    Args:
        text: the formula, or its text (``parser.parse``).
        signals: name -> one value a sample, all of one length; infinities are values, NaN is none.
        period: seconds between samples, a whole number of nanoseconds.

    Returns:
        One value a sample.

    Raises:
        UsageError: a text that is no formula, an unknown signal, one that the formula defines, a bound that is no
            multiple of the period.
        DataError: what is no number, NaN or masked; an empty trace, lengths that differ; arithmetic without a result
            (a division by zero).

    Example:
        >>> robustness("x > 1 -> eventually[0,1] y > 0", {"x": [0, 3, 0], "y": [-1, -1, 2]})
        array([1., 2., 2.])

    Source: Donze and Maler, "Robust satisfaction of temporal logic over real-valued signals", FORMATS 2010, section 3;
    Nickovic and Yamaguchi, 2005.11827.
    """
    formula = parse(text)
    values, length = _evaluated(formula, signals, period_in_ns(period), keep=False)
    return np.broadcast_to(values[formula.root], (length,)).copy()


def robustness_of_parts(
    formula: Formula, signals: Mapping[str, ArrayLike], period: float = 1.0
) -> dict[int, Trace]:
    """Like ``robustness``, for every node that the formula needs: index -> one value a sample."""
    values, length = _evaluated(formula, signals, period_in_ns(period), keep=True)
    return {index: np.broadcast_to(each, (length,)) for index, each in values.items()}


def _evaluated(
    formula: Formula, signals: Mapping[str, ArrayLike], period_ns: int, *, keep: bool
) -> tuple[dict[int, Values], int]:
    """Values by node, of the root alone unless all are to be kept, and the trace's length."""
    trace, length = checked(formula, signals)

    def at_all_samples(node: Node, args: list[Values]) -> Values:
        return over_time(formula, node, args, length, period_ns)

    signal, at_one_sample = trace.__getitem__, partial(pointwise, formula)
    return walk(formula, signal, np.float64, at_one_sample, at_all_samples, keep=keep), length


def period_in_ns(period: float) -> int:
    """A sampling period in nanoseconds; what floating point is off by less than a billionth of it does not matter.

    Raises:
        UsageError: it is not positive, or no whole number of nanoseconds.

    Example:
        >>> period_in_ns(0.1)
        100000000
    """
    exact = number(period) * 1e9
    whole = round(exact) if 0.5 < exact < 9e18 else 0
    if not whole or abs(whole - exact) > 1e-9 * exact:
        raise UsageError(
            f"period {period!r}: expected seconds, more than 0, in whole nanoseconds; where it is a fraction such as "
            "1/30 s, count samples instead: period 1, and bounds in samples"
        )
    return whole


def checked(formula: Formula, signals: Mapping[str, ArrayLike]) -> tuple[dict[str, Trace], int]:
    """The signals that the formula reads as float64, and the length of the trace."""
    expect_mapping("signals", signals)
    missing = [name for name in formula.signals if name not in signals]
    if missing:
        hint = " (a slash without spaces around it belongs to the name)" if "/" in missing[0] else ""
        known = ", ".join(sorted(signals)) or "none"
        raise UsageError(f"unknown signal {missing[0]!r}{hint}; the trace has: {known}")
    taken = sorted(formula.names.keys() & signals) + sorted(formula.constants.keys() & signals)
    if taken:
        raise UsageError(f"{taken[0]!r} is defined in the formula and a signal of the trace; rename one")
    trace = {name: _numbers(name, signals[name]) for name in formula.signals or signals}
    shapes = {values.shape for values in trace.values()}
    if len(shapes) != 1 or len(shape := shapes.pop()) != 1:
        told = ", ".join(f"{name} {'x'.join(map(str, v.shape)) or 'scalar'}" for name, v in trace.items())
        raise DataError(f"signals need one dimension and one length; they have: {told or 'none given'}")
    if shape[0] == 0:
        raise DataError("the trace has no samples")
    for name in formula.signals:
        values = trace[name]
        bad = np.flatnonzero(np.isnan(values))
        if bad.size:
            raise DataError(
                f"signal {name!r} is NaN at sample {bad[0]} ({bad.size} in all); fill or drop what is missing"
            )
    return trace, shape[0]


def _numbers(name: str, values: Any) -> Trace:
    """A signal as float64; what is masked is NaN."""
    try:
        if isinstance(values, np.ma.MaskedArray):
            values = np.ma.filled(values.astype(np.float64), np.nan)
        array = np.asarray(values)
        if array.dtype.kind == "O":
            array = np.array([float(value) for value in array.tolist()])
        elif array.dtype.kind not in "biuf":
            raise TypeError(f"it holds {array.dtype.name}")
        return array.astype(np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise DataError(f"signal {name!r} is no sequence of numbers: {error}") from None


def pointwise(formula: Formula, node: Node, args: list[Values]) -> Values:
    """The value of an operator at each sample.

    Raises:
        DataError: arithmetic without a result.
    """
    with np.errstate(all="ignore"):
        exact = node.op in ("exp", "power")
        value = by_libm(node.op, args) if exact else POINTWISE[node.op](np, *args)
    if node.op in ARITHMETIC:
        bad = np.isnan(value)
        if node.op == "divide":
            bad = bad | (args[1] == 0.0)
        if bad.any():
            sample = int(np.flatnonzero(np.atleast_1d(bad))[0])
            given = ", ".join(f"{np.atleast_1d(arg)[min(sample, arg.size - 1)]:g}" for arg in args)
            raise no_value(formula, node, sample, f"{node.op} of {given}")
    return value


def over_time(formula: Formula, node: Node, args: list[Values], length: int, period_ns: int) -> Trace:
    """The value of an operator over time at each sample; a past one is the future one on the trace read backwards.

    Raises:
        UsageError: a bound that is no multiple of the period.
        DataError: a sum of infinities of both signs.
    """
    operator = TEMPORAL[node.op]
    whole = [np.broadcast_to(arg, (length,)) for arg in args]
    if operator.is_number:
        return _number_of_the_past(formula, node, whole[0], period_ns)
    step = -1 if operator.past else 1
    return _ahead(operator, [each[::step] for each in whole], *ticks(formula, node, period_ns))[::step]


def no_value(formula: Formula, node: Node, sample: int, why: str) -> DataError:
    """The error for a node without a value at a sample."""
    part = formula.text[node.start : node.end]
    todo = "guard it, or drop these samples"
    if (node.op, node.written) == ("divide", "rate"):
        todo = "give rate a fourth argument, its value where the denominator is 0"
    message = f"{part!r} has no value at sample {sample} ({why}); {todo}"
    return misplaced(DataError, formula.text, node.at, message)


def _number_of_the_past(formula: Formula, node: Node, values: Trace, period_ns: int) -> Trace:
    """A sum, quantile or age at each sample."""
    if node.op == "age":
        return ages(values, period_ns)
    _, end = ticks(formula, node, period_ns)
    assert end is not None, "sums and quantiles have a window"
    if node.op == "quantile":
        return quantiles(values, node.value, end + 1)
    found = sums(values, end + 1)
    bad = np.flatnonzero(np.isnan(found))
    if bad.size:
        raise no_value(formula, node, int(bad[0]), "sum of infinities of both signs")
    return found


def by_libm(op: str, args: list[Values]) -> Any:
    """exp and pow as the C library computes them: numpy's vectorised ones differ in the last bit."""
    function = {"exp": math.exp, "power": math.pow}[op]

    def at(*numbers: float) -> float:
        try:
            return function(*numbers)
        except (OverflowError, ValueError):
            return math.nan

    return np.vectorize(at, otypes=[np.float64])(*args)


def _ahead(operator: Temporal, args: list[Trace], begin: int, end: int | None) -> Trace:
    """The value of a future operator at each sample."""
    if operator.shape == "shift":
        return np.append(args[0][1:], operator.pad)
    if operator.shape == "window":
        return _window(args[0], begin, end, operator)
    left, right = args
    if end is None:
        return until(left, right)
    reached = _window(right, begin, end, TEMPORAL["eventually"])
    later = _shifted(until(left, right), begin, -math.inf)
    if begin:
        later = np.minimum(later, _window(left, 0, begin - 1, TEMPORAL["always"]))
    return np.minimum(reached, later)


def _shifted(values: Trace, by: int, pad: float) -> Trace:
    """What stands ``by`` samples later, ``pad`` beyond the end."""
    by = min(by, values.size)
    return np.concatenate([values[by:], np.full(by, pad)])


def _window(values: Trace, begin: int, end: int | None, operator: Temporal) -> Trace:
    """The least (or greatest) of the samples t + begin to t + end of each t.

    A window of length 2^k is two of length 2^(k-1), and one of any length is two that overlap.
    """
    extreme = np.minimum if operator.least else np.maximum
    if end is None:
        return extreme.accumulate(values[::-1])[::-1]
    values = _shifted(values, begin, operator.pad)
    length = min(end - begin + 1, values.size)
    done, found = 1, np.concatenate([values, np.full(length - 1, operator.pad)])
    while done < length:
        step = min(done, length - done)
        found = extreme(found[:-step], found[step:])
        done += step
    return found


def until(left: Trace, right: Trace) -> Trace:
    """u[t] = max(right[t], min(left[t], u[t + 1])), where nothing holds beyond the end.

    Each step is a clamp x -> max(low, min(high, x)), and so is any number of them in a row. The trace is cut into about
    sqrt(n) blocks: all of them are gone through side by side, then one after the other.
    """
    length = left.size
    width = math.isqrt(length - 1) + 1
    blocks = -(-length // width)
    low = np.full((blocks, width), -math.inf)
    high = np.full((blocks, width), math.inf)
    low.reshape(-1)[:length] = right
    high.reshape(-1)[:length] = np.maximum(left, right)
    low, high = np.ascontiguousarray(low.T), np.ascontiguousarray(high.T)
    for t in range(width - 2, -1, -1):
        low[t] = np.maximum(low[t], np.minimum(high[t], low[t + 1]))
        high[t] = np.maximum(low[t], np.minimum(high[t], high[t + 1]))
    after = np.full(blocks, -math.inf)
    for block in range(blocks - 2, -1, -1):
        after[block] = max(low[0, block + 1], min(high[0, block + 1], after[block + 1]))
    return np.maximum(low, np.minimum(high, after[None, :])).T.reshape(-1)[:length]
