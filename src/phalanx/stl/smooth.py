"""Robustness of whole traces that can be differentiated, in JAX: least and greatest values made smooth.

All operators are those of the one operator table; only what stands for the lesser and the greater of two numbers is
another. Time and memory grow with the trace, not with the windows.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phalanx.errors import UsageError
from phalanx.stl.arguments import number
from phalanx.stl.formula import Formula, Node, ticks
from phalanx.stl.jit_windows import Quantile
from phalanx.stl.jitted import signals_read
from phalanx.stl.offline import period_in_ns
from phalanx.stl.operators import POINTWISE, TEMPORAL, Temporal
from phalanx.stl.parser import parse
from phalanx.stl.walk import walk

__all__ = ["smooth_robustness"]

_INF = float("inf")
Trace = Float[Array, "*batch time"]
Two = Callable[[Array, Array], Array]


def smooth_robustness(
    formula: Formula | str,
    signals: Mapping[str, Any],
    period: float = 1.0,
    *,
    temperature: float | Float[Array, ""] = 0.1,
    straight_through: bool = False,
) -> Trace:
    """Robustness with a useful gradient everywhere: not only the one sample that decides is told to change.

        max(x_1, ..., x_n)  ~  h log(exp(x_1 / h) + ... + exp(x_n / h)),    min(x) = -max(-x)

    at temperature h. The greatest value of n numbers is over-estimated, and the least one under-estimated, by at most
    h log n; errors add up along the nesting of operators. Every sample of a window counts once. As h falls to 0 the
    value is that of ``robustness``. The steps of ``until`` are smooth one by one: it is off by at most h log(3 n) with
    n the samples from there to the trace's end. Quantiles and ages are not smooth: the gradient of a quantile is that
    of the sample which it is, an age has none.

    Args:
        formula: the formula, or its text.
        signals: name -> values, all of one shape ``*batch time``; infinities are values. Nothing else is checked:
            NaN, or arithmetic without a result, is NaN.
        period: seconds between samples.
        temperature: h, more than 0, in the units of the predicates: scale them to be comparable. It may be traced.
        straight_through: the values are the exact ones, the gradient is that of the smooth ones.

    Returns:
        One value a sample, in the signals' precision.

    Raises:
        UsageError: a text that is no formula, a bound that is no multiple of the period, an unknown signal or one that
            the formula defines, shapes that differ, a temperature that is not positive.

    Example:
        >>> x = jnp.array([1.0, 3.0, 2.0])
        >>> def value(x):
        ...     return smooth_robustness("always x > 0", {"x": x}, temperature=1.0)[0]
        >>> round(float(value(x)), 2), [round(share, 2) for share in jax.grad(value)(x).tolist()]
        (0.59, [0.67, 0.09, 0.24])

    Source: Leung, Arechiga and Pavone, "Backpropagation through signal temporal logic specifications", IJRR 2023
    (log-sum-exp); Pant, Abbas and Mangharam, "Smooth operator: control using the smooth robustness of temporal logic",
    CCTA 2017, section III (bounds); Bengio, Leonard and Courville, 1308.3432 (straight-through).
    """
    read = parse(formula)
    trace = _arrays(read, signals)
    if not isinstance(temperature, jax.Array) and not 0.0 < number(temperature) < _INF:
        raise UsageError(f"temperature {temperature!r}: expected a number above 0")
    heat = jnp.asarray(temperature, next(iter(trace.values())).dtype)
    period_ns = period_in_ns(period)
    smooth = _evaluated(read, trace, period_ns, _Functions(lambda a, b: heat * _log_sum(a / heat, b / heat)))
    if not straight_through:
        return smooth
    exact = jax.lax.stop_gradient(_evaluated(read, trace, period_ns, _Functions(jnp.maximum)))
    moving = jnp.where(jnp.isfinite(smooth), smooth, 0.0)  # an empty window is infinite, and has no gradient
    return exact + (moving - jax.lax.stop_gradient(moving))


def _arrays(formula: Formula, signals: Mapping[str, Any]) -> dict[str, Array]:
    """The signals that the formula reads (all of them if it reads none), in one precision."""
    names = signals_read(formula, signals) or {name: jnp.asarray(signals[name]) for name in signals}
    shapes = {values.shape for values in names.values()}
    if len(shapes) != 1 or not next(iter(shapes)) or not next(iter(shapes))[-1]:
        told = ", ".join(f"{name} {values.shape}" for name, values in names.items())
        raise UsageError(
            f"signals need one shape, *batch time, with at least one sample; they have: {told or 'none'}"
        )
    floats = (a.dtype for a in names.values() if jnp.issubdtype(a.dtype, jnp.floating))
    dtype = next(floats, jnp.dtype(jnp.float32))
    return {name: values.astype(dtype) for name, values in names.items()}


@jax.custom_jvp
def _log_sum(a: Array, b: Array) -> Array:
    """log(exp(a) + exp(b)), of infinities too."""
    return jnp.maximum(a, b) + jnp.log1p(jnp.exp(-jnp.where(a == b, 0.0, jnp.abs(a - b))))


@_log_sum.defjvp
def _log_sum_jvp(at: tuple[Array, Array], moved: tuple[Array, Array]) -> tuple[Array, Array]:
    """The derivatives are shares of 1, finite where the arguments are not."""
    a, b = at
    share = jax.nn.sigmoid(jnp.where(a == b, 0.0, a - b))
    return _log_sum(a, b), share * moved[0] + (1.0 - share) * moved[1]


class _Functions:
    """The array functions of the operator table, with derivatives that are finite, and a greater value of two."""

    sqrt, exp, power = staticmethod(jnp.sqrt), staticmethod(jnp.exp), staticmethod(jnp.power)

    def __init__(self, maximum: Two) -> None:
        self.maximum = maximum

    def minimum(self, a: Array, b: Array) -> Array:
        """The lesser of two, by duality."""
        return -self.maximum(-a, -b)

    @staticmethod
    def abs(a: Array) -> Array:
        """|a|; the derivative of jnp.abs is NaN at NaN even where that is not selected."""
        return jnp.where(a < 0.0, -a, a)

    @staticmethod
    def where(condition: Array, a: Any, b: Any) -> Array:
        """``a`` where the condition holds, else ``b``; where they agree, the derivative is that of ``b``."""
        return jnp.where(condition & (a != b), a, b)


def _evaluated(formula: Formula, trace: dict[str, Array], period_ns: int, functions: _Functions) -> Trace:
    like = next(iter(trace.values()))
    values = walk(
        formula,
        trace.__getitem__,
        lambda number: jnp.full_like(like, number),
        lambda node, args: POINTWISE[node.op](functions, *args),
        lambda node, args: _over_time(node, args, *ticks(formula, node, period_ns), period_ns, functions),
    )
    return values[formula.root]


def _over_time(
    node: Node, args: list[Array], begin: int, end: int | None, period_ns: int, functions: _Functions
) -> Array:
    """An operator over time at each sample; past ones are the future ones on the trace read backwards."""
    operator = TEMPORAL[node.op]
    if operator.shape == "age":
        return _ages(args[0], period_ns)
    if operator.shape == "quantile" and end is not None:
        return _quantiles(args[0], node.value, end + 1)
    ahead = [jnp.flip(values, -1) for values in args] if operator.past else args
    found = _ahead(operator, ahead, begin, end, functions)
    return jnp.flip(found, -1) if operator.past else found


def _ahead(
    operator: Temporal, args: list[Array], begin: int, end: int | None, functions: _Functions
) -> Array:
    """The value of a future operator at each sample (``offline`` says the same of exact values)."""
    if operator.shape == "shift":
        return _shifted(args[0], 1, operator.pad)
    if operator.arity == 1:
        combine = functions.minimum if operator.least else functions.maximum
        return _window(args[0], begin, end, jnp.add if operator.shape == "sum" else combine, operator.pad)
    left, right = args
    until = _until(left, right, functions)
    if end is None:
        return until
    reached = _window(right, begin, end, functions.maximum, -_INF)
    later = _shifted(until, begin, -_INF)
    if begin:
        later = functions.minimum(later, _window(left, 0, begin - 1, functions.minimum, _INF))
    return functions.minimum(reached, later)


def _shifted(values: Array, by: int, pad: float) -> Array:
    """What stands ``by`` samples later, ``pad`` beyond the end."""
    by = min(by, values.shape[-1])
    return jnp.concatenate([values[..., by:], jnp.full_like(values[..., :by], pad)], -1)


def _window(values: Array, begin: int, end: int | None, combine: Two, pad: float) -> Array:
    """The samples t + begin to t + end of each t put together, each of them once.

    A window of any length is made of windows whose lengths are different powers of two, side by side.
    """
    if end is None:
        return jax.lax.associative_scan(combine, values, reverse=True, axis=values.ndim - 1)
    power = _shifted(values, begin, pad)
    length = min(end - begin + 1, values.shape[-1])
    found, done = jnp.full_like(values, pad), 0
    for k in range(length.bit_length()):
        if length >> k & 1:
            found = combine(found, _shifted(power, done, pad))
            done += 1 << k
        if done < length:
            power = combine(power, _shifted(power, 1 << k, pad))
    return found


def _until(left: Array, right: Array, functions: _Functions) -> Array:
    """u[t] = max(right[t], min(left[t], u[t + 1])), where nothing holds beyond the end."""

    def step(after: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
        found = functions.maximum(now[1], functions.minimum(now[0], after))
        return found, found

    first = jnp.full_like(right[..., 0], -_INF)
    steps = (jnp.moveaxis(left, -1, 0), jnp.moveaxis(right, -1, 0))
    _, found = jax.lax.scan(step, first, steps, reverse=True, unroll=8)
    return jnp.moveaxis(found, 0, -1)


def _ages(values: Array, period_ns: int) -> Array:
    """``derived.ages``."""
    samples = jnp.broadcast_to(jnp.arange(values.shape[-1]), values.shape)
    last = jax.lax.cummax(jnp.where(values > 0.0, samples, -1), axis=values.ndim - 1)
    return jnp.where(last < 0, _INF, (samples - last).astype(values.dtype) * (period_ns / 1e9))


def _quantiles(values: Array, share: float, length: int) -> Array:
    """``derived.quantiles``: of the samples' places in order, which tell the sample that each quantile is."""
    order = jnp.argsort(values, axis=-1)
    places = jnp.argsort(order, axis=-1).reshape(-1, values.shape[-1]).T.astype(values.dtype)
    window = Quantile(share, min(length, values.shape[-1]))
    held = window.init(places.shape[1], values.dtype)
    clock = jnp.broadcast_to(jnp.arange(places.shape[0])[:, None], places.shape)
    _, found = jax.lax.scan(lambda held, now: window.step(held, *now), held, (clock, places))
    samples = jnp.take_along_axis(order, found.T.reshape(values.shape).astype(jnp.int32), axis=-1)
    return jnp.take_along_axis(values, samples, axis=-1)
