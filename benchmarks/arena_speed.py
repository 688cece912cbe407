"""Environment steps and operations per second of the simulator, compile time apart.

    python benchmarks/arena_speed.py [--out benchmarks/results/arena_speed.json]

One environment step is one record decided, observation, reward, score and automatic reset included; each record
stands for ``count`` operations of a process, drawn with it. Verdicts are drawn: 99 % allow, else any. Each figure is
the median of repeated chunks in one process; the machine's other load shows in all of them. No compilation comes from
a cache.
"""

import argparse
import os
import statistics
import time
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from machine import report

from phalanx.envs.base import auto_reset_step
from phalanx.envs.sim_config import SimulatorConfig
from phalanx.envs.simulator import Simulator

CHUNK = 128
SETTINGS = {
    "1,024 environments x 8 hosts": (1024, SimulatorConfig(n_hosts=8, episode_events=2048)),
    "1,024 environments x 4 hosts": (1024, SimulatorConfig(n_hosts=4, episode_events=1024)),
    "64 environments x 4 hosts": (64, SimulatorConfig(n_hosts=4, episode_events=1024)),
}


@eqx.filter_jit
def advance(env: Simulator, state: Any, key: Any) -> tuple[Any, Any]:
    """A chunk of steps; everything that a step shows is read, so that nothing of it can be left out."""
    n_envs = state.steps.shape[0]

    def body(state: Any, key: Any) -> tuple[Any, Any]:
        key_answer, key_kind, key_env = jax.random.split(key, 3)
        any_verdict = jax.random.randint(key_kind, (n_envs,), 0, 4)
        verdict = jnp.where(jax.random.uniform(key_answer, (n_envs,)) < 0.01, any_verdict, 0)
        count = state.event.count.sum()
        state, step, _ = auto_reset_step(env, state, verdict, jax.random.split(key_env, n_envs))
        seen = step.observation
        read = (seen.category.sum(), seen.numeric.sum(), step.reward.sum(), step.score.loss.sum())
        return state, (count, step.done.sum(), read)

    return jax.lax.scan(body, state, jax.random.split(key, CHUNK))


def measure(n_envs: int, config: SimulatorConfig, repeats: int) -> dict[str, float]:
    """Compile time, and medians of steps and operations per second in the middle of episodes."""
    env = Simulator(config)
    key = jax.random.key(0)
    state, _ = jax.block_until_ready(jax.jit(jax.vmap(env.reset))(jax.random.split(key, n_envs)))
    # episodes are at different points, as in training, so that resets come one by one
    begun_at = jax.random.randint(key, (n_envs,), 0, config.episode_events)
    state = eqx.tree_at(lambda s: s.steps, state, begun_at)
    begun = time.perf_counter()
    compiled = eqx.filter_jit(advance).lower(env, state, key).compile()
    compile_s = time.perf_counter() - begun
    state, _ = jax.block_until_ready(compiled(env, state, key))
    rates, operations, ended = [], [], 0
    for index in range(repeats):
        begun = time.perf_counter()
        state, (count, done, _) = jax.block_until_ready(compiled(env, state, jax.random.fold_in(key, index)))
        elapsed = time.perf_counter() - begun
        rates.append(n_envs * CHUNK / elapsed)
        operations.append(float(count.sum()) / elapsed)
        ended += int(done.sum())
    return {
        "environment_steps_per_s": statistics.median(rates),
        "slowest": min(rates),
        "operations_per_s": statistics.median(operations),
        "operations_per_step": statistics.median(o / r for o, r in zip(operations, rates, strict=True)),
        "episodes_ended": ended,
        "compile_s": compile_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    found = {name: measure(*setting, arguments.repeats) for name, setting in SETTINGS.items()}
    report(found, arguments.out, load_before)


if __name__ == "__main__":
    main()
