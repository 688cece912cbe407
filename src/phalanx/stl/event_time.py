"""Robustness of whole traces whose samples need not be evenly spaced (pointwise semantics), vectorised."""

import math
from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import ArrayLike, NDArray

from phalanx.errors import DataError, UsageError
from phalanx.stl.event_derived import event_ages, event_quantiles, event_sums
from phalanx.stl.formula import Formula, Node
from phalanx.stl.offline import Trace, Values, checked, no_value, pointwise, until
from phalanx.stl.operators import TEMPORAL, Temporal
from phalanx.stl.parser import parse
from phalanx.stl.walk import walk

__all__ = ["robustness_at"]

Times = NDArray[np.int64]
_LATEST_NS = 2**62  # times and bounds below it can be added in 64 bits


def robustness_at(text: str | Formula, time_ns: ArrayLike, signals: Mapping[str, ArrayLike]) -> Trace:
    """How far each sample is from violating the formula, where samples have times of their own.

    A formula speaks of samples only, not of the time between them: ``always[a,b] p`` at sample i is the least p of the
    samples j with t_i + a <= t_j <= t_i + b (+inf where there is none), ``p until[a,b] q`` asks p of the samples in
    [t_i, t_j), ``next`` is the neighbouring sample, and sums, quantiles and ages are those of the samples of the last
    so many seconds. Bounds need not be multiples of anything. On samples one period apart this is ``robustness``;
    sums may differ from it in their last bits, for their terms are added in another order.

    Args:
        text: the formula, or its text.
        time_ns: one time a sample, in whole nanoseconds, strictly ascending.
        signals: name -> one value a sample.

    Returns:
        One value a sample, float64.

    Raises:
        UsageError: as ``robustness``, and times that are no integers.
        DataError: as ``robustness``, and times that do not ascend or are not as many as the samples.

    Example:
        >>> robustness_at("eventually[0,100ms] y > 0", [0, 70_000_000, 250_000_000], {"y": [-1, 3, -2]})
        array([ 3.,  3., -2.])

    Source: Basin, Klaedtke and Zalinescu, "Algorithms for monitoring real-time properties", RV 2011 (pointwise
    semantics); Donze, Ferrere and Maler, "Efficient robust monitoring for STL", CAV 2013 (until as windows).
    """
    formula = parse(text)
    trace, length = checked(formula, signals)
    times = _times(time_ns, length)

    def over_time(node: Node, args: list[Values]) -> Values:
        return _over_time(formula, node, [np.broadcast_to(arg, (length,)) for arg in args], times)

    values = walk(formula, trace.__getitem__, np.float64, partial(pointwise, formula), over_time)
    return np.broadcast_to(values[formula.root], (length,)).copy()


def _times(time_ns: ArrayLike, length: int) -> Times:
    times = np.asarray(time_ns)
    if times.dtype.kind not in "iu":
        raise UsageError(f"time_ns holds {times.dtype.name}; expected whole nanoseconds as integers")
    if times.shape != (length,):
        shape = "x".join(map(str, times.shape)) or "scalar"
        raise DataError(f"time_ns has {shape} values and the signals {length}; expected one time a sample")
    if int(times.max()) > _LATEST_NS or int(times.min()) < -_LATEST_NS:
        raise UsageError("time_ns lies beyond 2^62; expected nanoseconds since 1970 or since the start")
    times = times.astype(np.int64)
    back = np.flatnonzero(times[1:] <= times[:-1])
    if back.size:
        at = int(back[0])
        raise DataError(
            f"time_ns is {times[at + 1]} at sample {at + 1} after {times[at]}; times must ascend: sort the trace and "
            "drop what occurs twice"
        )
    return times


def _over_time(formula: Formula, node: Node, args: list[Trace], times: Times) -> Trace:
    """An operator over time; a past one is the future one on the trace read backwards."""
    operator = TEMPORAL[node.op]
    if operator.is_number:
        return _number_of_the_past(formula, node, args[0], times)
    if operator.past:
        return _ahead(node, operator, [arg[::-1] for arg in args], -times[::-1])[::-1]
    return _ahead(node, operator, args, times)


def _number_of_the_past(formula: Formula, node: Node, values: Trace, times: Times) -> Trace:
    """A sum, quantile or age at each sample."""
    if node.op == "age":
        return event_ages(times, values)
    assert node.bounds, "sums and quantiles have a window"
    if node.op == "quantile":
        return event_quantiles(times, values, node.value, node.bounds.end_ns)
    found = event_sums(times, values, node.bounds.end_ns)
    bad = np.flatnonzero(np.isnan(found))
    if bad.size:
        raise no_value(formula, node, int(bad[0]), "sum of infinities of both signs")
    return found


def _ahead(node: Node, operator: Temporal, args: list[Trace], times: Times) -> Trace:
    length = times.size
    if operator.shape == "shift":
        return np.append(args[0][1:], operator.pad)
    if node.bounds is None:
        starts, stops = np.arange(length), np.full(length, length)
    else:
        starts = np.searchsorted(times, times + node.bounds.begin_ns, "left")
        stops = np.searchsorted(times, times + node.bounds.end_ns, "right")
    if operator.shape == "window":
        return _extreme(args[0], starts, stops, operator)
    left, right = args
    reached = _extreme(right, starts, stops, TEMPORAL["eventually"])
    held = _extreme(left, np.arange(length), starts, TEMPORAL["always"])
    later = np.append(until(left, right), -math.inf)[starts]
    return np.minimum(np.minimum(held, reached), later)


def _extreme(values: Trace, starts: NDArray[np.intp], stops: NDArray[np.intp], operator: Temporal) -> Trace:
    """The least (or greatest) of the samples from each start to before each stop; the pad where there is none.

    Two stretches of 2^k samples that overlap cover any stretch of 2^k to 2^(k+1); the table of one k at a time is
    held (Bender and Farach-Colton, "The LCA problem revisited", 2000).
    """
    extreme = np.minimum if operator.least else np.maximum
    found = np.full(starts.size, operator.pad)
    doublings = np.frexp(stops - starts)[1] - 1  # floor of the binary logarithm; -1 of 0
    table, width = values, 1
    for doubling in range(int(doublings.max(initial=-1)) + 1):
        here = np.flatnonzero(doublings == doubling)
        found[here] = extreme(table[starts[here]], table[stops[here] - width])
        if 2 * width <= values.size:
            table = extreme(table[:-width], table[width:])
        width *= 2
    return found
