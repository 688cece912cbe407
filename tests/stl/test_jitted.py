"""Monitors inside jitted programs say what whole traces say, entity by entity, wherever a trace begins."""

import functools
import math
import random
import re
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stl.formulas import STRATA, formula

from phalanx.errors import UsageError
from phalanx.stl import parse, robustness
from phalanx.stl.jit_windows import CLAMPS, LEAST, SUM, Cell, Delay, Quantile, Running, Sliding
from phalanx.stl.jitted import JitMonitor, JitState

N, T = 6, 60
NAMES = ("x", "y", "z")
ROUNDED = ("/ 3", "exp", "sqrt", "rate")
QUICK = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Compiles in less time what runs once."""
SAMPLES = st.integers(0, 2**32 - 1)


def signals(seed: int) -> dict[str, np.ndarray]:
    """Random samples on a grid, where differences, sums and products are exact in float32: ``time entity``."""
    rng = np.random.default_rng(seed)
    return {name: (rng.integers(-4, 5, (T, N)) / 2).astype(np.float32) for name in NAMES}


def on_grid(text: str) -> str:
    """The text with its constants on the same grid."""
    return re.sub(r"-?\d+\.\d{3}", lambda found: str(round(2 * float(found[0])) / 2), text)


@functools.cache
def program(monitor: JitMonitor) -> Any:
    """(state, (samples, start)) -> verdicts, jitted."""

    def run(state: JitState, given: Any) -> Any:
        return jax.lax.scan(lambda held, now: monitor.step(held, *now), state, given)[1]

    return jax.jit(run, compiler_options=QUICK)


def watch(monitor: JitMonitor, trace: dict[str, np.ndarray], start: np.ndarray | None = None) -> Any:
    """Verdicts, ``time entity``."""
    begins = np.zeros((T, N), bool) if start is None else start
    samples = {name: jnp.asarray(trace[name]) for name in monitor.formula.signals}
    return program(monitor)(monitor.init(N), (samples, jnp.asarray(begins)))


def check(text: str, trace: dict[str, np.ndarray], start: np.ndarray | None = None) -> bool:
    """Compares with ``robustness`` of each part of each entity's trace; False where the text cannot be watched."""
    try:
        monitor = JitMonitor(text)
    except UsageError as error:
        assert "no bound" in str(error)
        return False
    verdict = jax.tree.map(np.asarray, watch(monitor, trace, start))
    off = 2e-5 if any(sign in text for sign in ROUNDED) else 0.0
    begins = np.zeros((T, N), bool) if start is None else start.copy()
    begins[0] = True
    h = monitor.horizon
    for entity in range(N):
        edges = [*np.flatnonzero(begins[:, entity]), T]
        for first, stop in zip(edges[:-1], edges[1:], strict=True):
            part = {name: values[first:stop, entity] for name, values in trace.items()}
            whole = robustness(monitor.formula, part).astype(np.float32)
            here = slice(first, stop)
            known = verdict.known[here, entity]
            assert known.tolist() == [t >= h for t in range(stop - first)], text
            got, final = verdict.value[here, entity], whole[: max(0, stop - first - h)]
            assert np.isnan(got[:h]).all()
            lo, hi = verdict.lo[here, entity], verdict.hi[here, entity]
            np.testing.assert_allclose(got[h:], final, rtol=off, atol=off, err_msg=text)
            slack = off * (1.0 + np.abs(np.nan_to_num(whole, posinf=0.0, neginf=0.0)))
            assert (lo - slack <= whole).all() and (whole <= hi + slack).all(), text
    return True


def compare(kind: str, seeds: range) -> int:
    """Checks formulas of a kind, with traces that begin ever more often; how many could be watched."""
    watched = 0
    for seed in seeds:
        rng = random.Random(f"{kind} {seed}")
        text = on_grid(formula(rng, rng.randint(1, 4), STRATA[kind], bounded=seed % 4 > 0))
        start = np.random.default_rng(seed).random((T, N)) < (0.0, 0.03, 0.1, 0.3)[seed % 4]
        watched += check(text, signals(seed), start)
    return watched


@pytest.mark.parametrize("kind", ["all", "past", "future", "past under future", "until", "since"])
def test_every_entity_is_told_what_its_whole_trace_says(kind: str) -> None:
    assert compare(kind, range(1, 3)) == 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", STRATA)
def test_every_entity_is_told_what_its_whole_trace_says_many_times(kind: str) -> None:
    assert compare(kind, range(4, 12)) >= 6


def test_double_precision_is_that_of_whole_traces() -> None:
    text = "((G[0,3] x > 0.3) xor (y U[1,4] z > -1.234)) and H[2,6] (x - y == z)"
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        trace = {name: rng.uniform(-2, 2, (T, N)) for name in NAMES}
        verdict = watch(JitMonitor(text, dtype="float64"), trace)
        assert verdict.value.dtype == jnp.float64
        for entity in range(N):
            whole = robustness(text, {name: values[:, entity] for name, values in trace.items()})
            np.testing.assert_array_equal(verdict.value[4:, entity], whole[:-4])


def test_numbers_of_the_past() -> None:
    text = (
        "sum(x, 4) > 1 and rate(x, y, 3, 0) < quantile(z, 0.3, 6) "
        "or age_since(x > 1) <= 2 and F[0,2] quantile(y, 1, 1) > 0"
    )
    for seed, share in ((0, 0.0), (1, 0.1), (2, 0.4)):
        assert check(text, signals(seed), np.random.default_rng(seed).random((T, N)) < share)


LENGTHS = (1, 2, 3, 4, 7, 8)
CELLS: dict[str, Cell] = {
    **{f"least {n}": Sliding(LEAST, n, cut=True) for n in LENGTHS},
    **{f"sum {n}": Sliding(SUM, n, cut=True) for n in LENGTHS},
    **{f"since {n}": Sliding(CLAMPS["since"], n, cut=True) for n in LENGTHS},
    **{f"until {n}": Sliding(CLAMPS["until"], n, cut=False) for n in LENGTHS},
    **{f"quantile {n}": Quantile(0.3, n) for n in LENGTHS},
    **{f"delay {n}": Delay(n, pad=9.0) for n in LENGTHS},
    f"sum {T}": Running(SUM),
    f"since {T}": Running(CLAMPS["since"]),
}


@functools.cache
def run_cells() -> Any:
    """What the cells make of samples ``time argument entity``, jitted."""

    def step(held: Any, now: tuple[Any, Any]) -> Any:
        age, given = now
        pairs = {
            name: cell.step(held[name], age, *given[: 2 if name[:5] in ("since", "until") else 1])
            for name, cell in CELLS.items()
        }
        return {name: pair[0] for name, pair in pairs.items()}, {
            name: pair[1] for name, pair in pairs.items()
        }

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(ages: Any, given: Any) -> Any:
        held = {name: cell.init(N, "float32") for name, cell in CELLS.items()}
        return jax.lax.scan(step, held, (ages, given))[1]

    return run


def by_loop(kind: str, length: int, window: list[tuple[float, float]]) -> float | None:
    """What a cell makes of the samples of a trace so far."""
    last = window[-length:]
    match kind:
        case "least":
            return min(a for a, _ in last)
        case "sum":
            return sum(a for a, _ in last)
        case "quantile":
            return next(
                a for a in sorted(a for a, _ in last) if sum(b <= a for b, _ in last) >= 0.3 * len(last)
            )
        case "delay":
            return window[-length - 1][0] if len(window) > length else 9.0
        case "until" if len(last) < length:
            return None
    value = -math.inf
    for left, right in last if kind == "since" else reversed(last):
        value = max(right, min(left, value))
    return value


@given(SAMPLES)
def test_cells_put_each_sample_of_their_window_together_once(seed: int) -> None:
    rng = np.random.default_rng(seed)
    given_ = (rng.integers(-4, 5, (T, 2, N)) / 2).astype(np.float32)
    start = rng.random((T, N)) < rng.choice((0.0, 0.05, 0.3))
    ages = np.zeros((T, N), np.int32)
    for t in range(T):
        ages[t] = np.where(start[t] | (t == 0), 0, ages[t - 1] + 1)
    found = jax.tree.map(np.asarray, run_cells()(jnp.asarray(ages), jnp.asarray(given_)))
    for name, values in found.items():
        kind, length = name.split()
        for t in range(T):
            for entity in range(0, N, 3):
                trace = given_[t - ages[t, entity] : t + 1, :, entity].tolist()
                expected = by_loop(kind, int(length), [(a, b) for a, b in trace])
                assert expected is None or values[t, entity] == expected, (name, t)


def test_a_step_and_its_memory_are_bounded() -> None:
    def size(text: str) -> int:
        monitor = JitMonitor(text)
        state = jax.eval_shape(lambda: monitor.init(1))
        sample = {name: jnp.zeros(1) for name in monitor.formula.signals}
        return str(jax.make_jaxpr(monitor.step)(state, sample, jnp.array([True]))).count(" = ")

    for text in ("G[0,{}] x > 0", "x > 0 U[0,{}] y > 0", "O[3,{}] x > 0", "x > 0 S[3,{}] y > 0"):
        assert size(text.format(10)) == size(text.format(1000)) == size(text.format(100_000))
    assert 1001 <= JitMonitor("G[0,1000] x < 100").floats_per_entity <= 1010
    assert JitMonitor("always[0,1000] (x > 0 -> F[0,5] y > 0)").floats_per_entity <= 1050
    assert JitMonitor("once x > 0").floats_per_entity == 1


def test_one_program_whose_state_can_be_donated() -> None:
    monitor = JitMonitor("H[0,7] (x > 0 -> F[0,2] y > 0)")
    traced = []

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: JitState, sample: Any, start: Any) -> Any:
        traced.append(sample)
        return monitor.step(state, sample, start)

    state, known = monitor.init(N), []
    for t in range(4):
        sample = {"x": jnp.full((N,), float(t)), "y": jnp.ones(N)}
        state, verdict = step(state, sample, jnp.arange(N) == t)
        known.append(verdict.known.tolist())
    assert len(traced) == 1
    assert known[-1] == [True, True, False, False, True, True]


def test_under_vmap_a_state_that_is_put_back_begins_anew() -> None:
    monitor = JitMonitor("(x > 0 S[1,5] y > 0) or G[1,4] x > z")
    trace, start = signals(0), np.random.default_rng(0).random((T, N)) < 0.1
    samples = {name: jnp.asarray(values)[..., None] for name, values in trace.items()}

    def step(state: JitState, sample: Any, begins: Any) -> Any:
        fresh = jax.tree.map(functools.partial(jnp.where, begins), monitor.init(1), state)
        return monitor.step(fresh, sample)

    @functools.partial(jax.jit, compiler_options=QUICK)
    def run(samples: Any, start: Any) -> Any:
        first = jax.vmap(lambda _: monitor.init(1))(jnp.arange(N))
        return jax.lax.scan(lambda state, now: jax.vmap(step)(state, *now), first, (samples, start))[1]

    apart, together = run(samples, jnp.asarray(start)), watch(monitor, trace, start)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[..., 0], b), apart, together)


class Holder(eqx.Module):
    monitor: JitMonitor = eqx.field(static=True)


def test_a_monitor_is_a_constant_of_a_program() -> None:
    one, other = Holder(JitMonitor("F[0,1] x > 0")), Holder(JitMonitor(parse("F[0,1] x > 0")))
    assert one == other and hash(one.monitor) == hash(other.monitor) and not jax.tree.leaves(one)
    assert one.monitor != JitMonitor("F[0,1] x > 0", period=0.5) and one.monitor.horizon == 1
    traced = []

    @eqx.filter_jit
    def run(holder: Holder) -> Any:
        traced.append(holder)
        return holder.monitor.step(holder.monitor.init(1), {"x": jnp.array([2])})[1].lo

    assert run(one).tolist() == run(other).tolist() == [2.0] and len(traced) == 1


def test_bounds_say_what_is_certain_of_the_newest_sample() -> None:
    monitor = JitMonitor("threat > 0 -> eventually[0,5] answer > 0")
    sample = {"threat": jnp.array([1.0, 1.0, -2.0]), "answer": jnp.array([-1.0, 3.0, -1.0])}
    _, verdict = jax.jit(monitor.step)(monitor.init(3), sample)
    assert verdict.lo.tolist() == [-1, 3, 2] and verdict.hi.tolist() == [math.inf] * 3
    until = JitMonitor("x > 0 until[0,5] y > 0")
    sample = {"x": jnp.array([-2.0, 1.0]), "y": jnp.array([-3.0, 3.0])}
    _, verdict = jax.jit(until.step)(until.init(2), sample)
    assert verdict.lo.tolist() == [-3, 3] and verdict.hi.tolist() == [-2, 3]
    assert not verdict.known.any() and jnp.isnan(verdict.value).all()


def test_what_cannot_be_watched_is_refused() -> None:
    with pytest.raises(UsageError, match="column 8: eventually has no bound"):
        JitMonitor("G[0,5] eventually x > 0")
    with pytest.raises(UsageError, match="column 3: U has no bound"):
        JitMonitor("x U y")
    with pytest.raises(UsageError, match="no multiple"):
        JitMonitor("F[0,250ms] x > 0", period=0.1)
    monitor = JitMonitor("hot = x > 3; F[0,1] hot")
    with pytest.raises(UsageError, match="unknown signal 'x'; given are: y"):
        monitor.step(monitor.init(2), {"y": jnp.zeros(2)})
    with pytest.raises(UsageError, match="'hot' is defined in the formula"):
        monitor.step(monitor.init(2), {"x": jnp.zeros(2), "hot": jnp.zeros(2)})
    with pytest.raises(UsageError, match=r"'x' has shape \(3,\); the state is for \(2,\)"):
        monitor.step(monitor.init(2), {"x": jnp.zeros(3)})
