"""Speed of temporal logic in JAX: monitors in a jitted program, and gradients of whole traces; compile time apart.

    python benchmarks/stl_jax.py [--entities 4096] [--repeats 7] [--out benchmarks/results/stl_jax.json]

Monitors: entity-steps per second of a scan over steps of ``JitMonitor`` whose samples are rows of a table that is in
the cache, and the numbers that the state holds for each entity. Gradients: one trace, all of its values added up.
Every figure is the median of repeated runs in one process; the machine's other load shows in all of them, less in
those that count the process's own CPU time.
"""

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from machine import report

from phalanx.stl.jitted import JitMonitor, JitState
from phalanx.stl.smooth import smooth_robustness

MONITORS = {
    **{f"G[0,{width}] x < 100": f"G[0,{width}] x < 1" for width in (10, 100, 1000, 10_000)},
    "H[0,1000] x < 100": "H[0,1000] x < 1",
    "x > 0 until[0,200] y > 0": "x > 0 until[0,200] y > 0",
    "threat -> F[0,5] answer": "x > 0 -> eventually[0,5] y > 0",
    "G[0,60] (threat -> F[0,5] answer)": "G[0,60] (x > 0 -> eventually[0,5] y > 0)",
}
"""Names -> formulas over samples of the standard normal distribution."""
GRADIENTS = {
    "G[0,1000] x < 100, 4000 samples": ("G[0,1000] x < 1", 4000),
    "G[0,1000] x < 100, 1e6 samples": ("G[0,1000] x < 1", 1_000_000),
    "x > 0 until[0,200] y > 0, 4000 samples": ("x > 0 until[0,200] y > 0", 4000),
    "x > 0 until[0,200] y > 0, 1e6 samples": ("x > 0 until[0,200] y > 0", 1_000_000),
}
_ROWS = 64


class Times(NamedTuple):
    """Seconds: of the first call beyond the median one, of the median one, and the median CPU time of one."""

    compile: float
    wall: float
    cpu: float


def timed(run: Callable[[], Any], repeats: int) -> Times:
    """Calls ``run`` once more than ``repeats``."""

    def once() -> tuple[float, float]:
        begun, cpu_begun = time.perf_counter(), time.process_time()
        jax.block_until_ready(run())
        return time.perf_counter() - begun, time.process_time() - cpu_begun

    first, _ = once()
    wall, cpu = map(statistics.median, zip(*(once() for _ in range(repeats)), strict=True))
    return Times(first - wall, wall, cpu)


def monitor_speed(text: str, entities: int, steps: int, repeats: int) -> dict[str, float]:
    """Entity-steps per second of a monitor in a scan."""
    monitor = JitMonitor(text)
    table = {name: jax.random.normal(jax.random.key(i), (_ROWS, entities)) for i, name in enumerate("xy")}
    start = jnp.zeros((entities,), bool)

    def step(carry: tuple[JitState, jax.Array], t: jax.Array) -> tuple[tuple[JitState, jax.Array], None]:
        state, total = carry
        sample = {name: rows[t % _ROWS] for name, rows in table.items()}
        state, verdict = monitor.step(state, sample, start)
        return (state, total + jnp.where(verdict.known, verdict.value, 0.0).sum()), None

    @partial(jax.jit, donate_argnums=0)
    def run(state: JitState) -> tuple[JitState, jax.Array]:
        return jax.lax.scan(step, (state, jnp.zeros(())), jnp.arange(steps))[0]

    state = monitor.init(entities)

    def goes_on() -> jax.Array:
        nonlocal state
        state, total = run(state)
        return total

    times = timed(goes_on, repeats)
    return {
        "million_entity_steps_per_s": entities * steps / times.wall / 1e6,
        "million_entity_steps_per_cpu_s": entities * steps / times.cpu / 1e6,
        "us_per_step": times.wall / steps * 1e6,
        "floats_per_entity": monitor.floats_per_entity,
        "horizon": monitor.horizon,
        "compile_s": times.compile,
    }


def gradient_speed(text: str, length: int, repeats: int) -> dict[str, float]:
    """Milliseconds of a value and gradient, and of the values alone; memory of the former beside input and output."""
    trace = {name: jax.random.normal(jax.random.key(i), (length,)) for i, name in enumerate("xy")}

    def total(trace: dict[str, jax.Array]) -> jax.Array:
        return smooth_robustness(text, trace, temperature=0.1).sum()

    forward, gradient = jax.jit(total), jax.jit(jax.value_and_grad(total))
    alone = timed(lambda: forward(trace), repeats)
    both = timed(lambda: gradient(trace), repeats)
    memory = gradient.lower(trace).compile().memory_analysis()
    return {
        "gradient_ms": both.wall * 1e3,
        "gradient_cpu_ms": both.cpu * 1e3,
        "forward_ms": alone.wall * 1e3,
        "memory_mb": memory.temp_size_in_bytes / 1e6 if memory else math.nan,
        "compile_s": both.compile,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--entities", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    found = {
        name: monitor_speed(text, arguments.entities, arguments.steps, arguments.repeats)
        for name, text in MONITORS.items()
    }
    for name, (text, length) in GRADIENTS.items():
        found[name] = gradient_speed(text, length, arguments.repeats)
    report(found, arguments.out, load_before)


if __name__ == "__main__":
    main()
