"""Smooth robustness is near the exact one, by a bound that is known, and its gradient is that of its values."""

import functools
import math
import random
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stl.formulas import STRATA, formula

from phalanx.errors import UsageError
from phalanx.stl import Formula, parse, robustness
from phalanx.stl.smooth import smooth_robustness

T = 25
NAMES = ("x", "y", "z")
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Compiles in less time what runs once."""
SEEDS = st.integers(0, 2**32 - 1)
LOGIC = ("x > 0 -> F[0,5] y > 0.5", "G[2,9] (x > 0 or H[1,4] z > y)", "(x > 0 U[1,6] y > 0) iff (z S y < 0)")


def signals(seed: int, length: int = T) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.uniform(-2, 2, length) for name in NAMES}


@functools.cache
def smooth(text: str) -> Any:
    """(signals, temperature) -> values, jitted."""
    return jax.jit(
        lambda trace, heat: smooth_robustness(text, trace, temperature=heat), compiler_options=QUICK
    )


def slack(formula: Formula, length: int) -> float:
    """The bound on the error at temperature 1: log n for each of n that are compared, added up along the nesting."""
    found: list[float] = []
    for node in formula.nodes:
        below = [found[arg] for arg in node.args]
        n = 1
        if node.op in ("and", "or"):
            n = 2
        elif node.op in ("always", "eventually", "historically", "once"):
            n = int(node.bounds.end_ns - node.bounds.begin_ns) // 10**9 + 1 if node.bounds else length
        elif node.op in ("until", "since"):
            n = 3 * length
        both = node.op in ("difference", "distance")
        found.append((sum(below) if both else max(below, default=0.0)) + math.log(max(1, min(n, 3 * length))))
    return found[formula.root]


def check_bound(text: str, trace: dict[str, np.ndarray]) -> None:
    with jax.enable_x64(True):
        exact = robustness(text, trace)
        bound = slack(parse(text), T)
        for heat in (1.0, 1e-2, 1e-9):
            value = np.asarray(smooth(text)(trace, heat))
            assert (np.isfinite(value) == np.isfinite(exact)).all(), text
            np.testing.assert_array_equal(value[np.isinf(exact)], exact[np.isinf(exact)])
            finite = np.isfinite(exact)
            error = np.abs(value[finite] - exact[finite]).max(initial=0.0)
            assert error <= heat * bound + 1e-12 * (1 + np.abs(exact[finite]).max(initial=0.0)), (text, heat)


@pytest.mark.parametrize("kind", ["all", "past", "future", "until", "iff"])
def test_the_error_is_bounded_by_the_temperature(kind: str) -> None:
    rng = random.Random(kind)
    for seed in range(2):
        text = formula(rng, 3, STRATA[kind])
        while any(word in text for word in ("abs", "*", "sqrt", "exp", "pow", "/ 3")):  # what may steepen
            text = formula(rng, 3, STRATA[kind])
        check_bound(text, signals(seed))


@pytest.mark.slow
@pytest.mark.parametrize("kind", STRATA)
def test_the_error_is_bounded_by_the_temperature_many_times(kind: str) -> None:
    rng = random.Random(f"many {kind}")
    for seed in range(10):
        text = formula(rng, 3, STRATA[kind])
        if not any(word in text for word in ("abs", "*", "sqrt", "exp", "pow", "/ 3")):
            check_bound(text, signals(seed))


@given(SEEDS)
def test_windows_are_sums_of_exponentials_in_which_each_sample_counts_once(seed: int) -> None:
    x = signals(seed)["x"]
    with jax.enable_x64(True):
        for begin, end in ((0, 0), (0, 6), (3, 12), (2, 99), (0, None)):
            text = "F x > 0" if end is None else f"F[{begin},{end}] x > 0"
            found = np.asarray(smooth(text)({"x": x}, 0.5))
            for t in range(T):
                window = x[t + begin : T if end is None else t + end + 1]
                expected = 0.5 * math.log(np.exp(window / 0.5).sum()) if window.size else -math.inf
                assert found[t] == pytest.approx(expected, rel=1e-9), (text, t)


@given(SEEDS)
def test_least_values_fall_and_greatest_ones_rise_with_the_temperature(seed: int) -> None:
    trace = signals(seed)
    with jax.enable_x64(True):
        for text, sign in (("F[1,7] (x > 0 or y > 0)", 1), ("G[1,7] (x > 0 and H z > 0)", -1)):
            values = [np.asarray(smooth(text)(trace, heat)) for heat in (0.01, 0.1, 1.0)]
            values = [robustness(text, trace), *values]
            assert all(
                (sign * low <= sign * high + 1e-12).all()
                for low, high in zip(values, values[1:], strict=False)
            )


@pytest.mark.parametrize("text", LOGIC)
def test_gradients_are_slopes(text: str) -> None:
    with jax.enable_x64(True):
        trace = signals(1, 12)

        def total(trace: Any) -> Any:
            values = smooth_robustness(text, trace, temperature=0.3)
            return jnp.where(jnp.isfinite(values), values, 0.0).sum()

        gradient = jax.jit(jax.grad(total), compiler_options=QUICK)(trace)
        value = jax.jit(total, compiler_options=QUICK)
        step = 1e-6
        for name in parse(text).signals:
            for t in range(12):
                moved = step * (np.arange(12) == t)
                up, down = (value({**trace, name: trace[name] + by}) for by in (moved, -moved))
                assert gradient[name][t] == pytest.approx(float(up - down) / (2 * step), abs=1e-7)


@pytest.mark.parametrize("straight_through", [False, True])
def test_gradients_are_finite_where_values_are_not(straight_through: bool) -> None:
    text = (
        "(G[30,40] x > 0 or next y > 0 or F[2,3] z > 0) and (O[9,30] x > 0 xor prev (x > 0)) and x == y "
        "and ((H[30,40] x > 0) iff (H[50,60] x > 0)) and ((x > 0 S[3,8] y > 0) or rate(z, 0 * z, 2, 1) > 0 "
        "or quantile(x, 0.5, 4) > age_since(y > 0))"
    )
    trace = signals(3)
    trace["x"][3:6] = math.inf, -math.inf, 0.0
    trace["y"][3:6] = math.inf, math.inf, 0.0
    assert np.isinf(robustness(text, trace)).any()

    def at(trace: Any, t: Any) -> Any:
        return smooth_robustness(text, trace, temperature=0.2, straight_through=straight_through)[t]

    arrays = {name: jnp.asarray(values, jnp.float32) for name, values in trace.items()}
    gradients = jax.vmap(jax.grad(at), in_axes=(None, 0))
    found = jax.jit(gradients, compiler_options=QUICK)(arrays, jnp.arange(T))
    assert all(jnp.isfinite(each).all() for each in found.values())
    assert max(jnp.abs(each).max() for each in found.values()) > 0.1


def test_straight_through_has_exact_values_and_smooth_gradients() -> None:
    text, trace = LOGIC[1], {name: jnp.asarray(values, jnp.float32) for name, values in signals(5).items()}
    exact = robustness(text, {name: np.asarray(values) for name, values in trace.items()})

    def values(trace: Any, straight_through: bool) -> Any:
        return smooth_robustness(text, trace, temperature=0.5, straight_through=straight_through)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(trace: Any) -> Any:
        return [
            (values(trace, through), jax.grad(lambda each, by: values(each, by)[:10].sum())(trace, through))
            for through in (True, False)
        ]

    (hard, hard_slope), (soft, soft_slope) = run(trace)
    np.testing.assert_allclose(hard, exact, rtol=1e-6)
    assert not np.allclose(hard[:10], soft[:10], atol=0.1)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), hard_slope, soft_slope)


def test_at_equal_values_the_gradient_is_that_of_the_difference() -> None:
    gradient = jax.grad(lambda x: smooth_robustness("x > 1", {"x": x}).sum())(jnp.ones(2))
    assert gradient.tolist() == [1.0, 1.0]


def test_numbers_of_the_past_have_the_gradient_of_what_they_are_made_of() -> None:
    x = jnp.array([3.0, 1.0, 2.0, 5.0, 4.0])
    trace = {"x": x, "y": jnp.array([0.0, 1.0, 0.0, 0.0, 1.0])}
    for text in ("quantile(x, 0.5, 2) > 0", "sum(x, 2) > 0", "age_since(y > 0) > 0", "rate(x, y, 1, 7) > 0"):
        plain = {name: np.asarray(values) for name, values in trace.items()}
        np.testing.assert_allclose(smooth_robustness(text, trace), robustness(text, plain), rtol=1e-6)

    def slope(text: str) -> list[float]:
        return jax.grad(lambda x: smooth_robustness(text, {**trace, "x": x})[3])(x).tolist()

    assert slope("quantile(x, 0.5, 2) > 0") == [0, 0, 1, 0, 0]
    assert slope("sum(x, 2) > 0") == [0, 1, 1, 1, 0]
    assert slope("rate(x, y, 2, 7) > 0") == [0, 1, 1, 1, 0]


def test_batches_and_precision() -> None:
    rng = np.random.default_rng(0)
    x, y = (jnp.asarray(rng.normal(size=(2, 3, T)), jnp.float32) for _ in "xy")
    text = "(x > 0 U[0,4] y > 0) and quantile(x, 0.5, 3) > 0 and age_since(y > 0) < 3"
    whole = smooth(text)({"x": x, "y": y}, 0.1)
    assert whole.shape == (2, 3, T) and whole.dtype == jnp.float32
    for i, j in ((0, 1), (1, 2)):
        one = smooth(text)({"x": x[i, j], "y": y[i, j]}, 0.1)
        np.testing.assert_allclose(whole[i, j], one, rtol=1e-6)
    assert smooth_robustness("x > 0", {"x": [1, 2]}).tolist() == [1.0, 2.0]


def test_memory_grows_with_the_trace_and_not_with_the_window() -> None:
    def largest(text: str) -> int:
        program = jax.make_jaxpr(jax.grad(lambda x: smooth_robustness(text, {"x": x})[0]))(jnp.zeros(5000))
        return max(v.aval.size for eqn in program.jaxpr.eqns for v in eqn.outvars)

    assert largest("G[0,4000] x > 0") <= 10_000


def test_what_has_no_smooth_robustness_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown signal 'x'"):
        smooth_robustness("x > 0", {"y": jnp.zeros(2)})
    with pytest.raises(UsageError, match="temperature 0.0"):
        smooth_robustness("x > 0", {"x": jnp.zeros(2)}, temperature=0.0)
    with pytest.raises(UsageError, match=r"one shape.*x \(2,\), y \(3,\)"):
        smooth_robustness("x > y", {"x": jnp.zeros(2), "y": jnp.zeros(3)})
    with pytest.raises(UsageError, match="one shape"):
        smooth_robustness("x > 0", {"x": jnp.zeros(0)})
