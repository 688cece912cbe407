"""What watching specifications costs in an environment step: the simulator with and without, side by side.

    python benchmarks/stl_environment.py [--specs office] [--repeats 15] [--out benchmarks/results/stl_environment.json]

The same environments step under the same verdicts in turns, bare and with the specifications' monitors in their state,
resets included; ``share`` is the median, over the turns, of the time that the monitors add, as a share of the bare
step's. ``decided`` is the same where a committee decides each event, as in a rollout. Compile time is apart.
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

from phalanx.agents.memory import MemoryTable, clear, init_memory
from phalanx.envs.base import Environment, auto_reset_step
from phalanx.envs.constrained import Constrained
from phalanx.envs.sim_config import SimulatorConfig
from phalanx.envs.simulator import Simulator
from phalanx.runtime.config import RunConfig
from phalanx.runtime.decide import Committee, decide_events
from phalanx.runtime.learner import init_committee, learner_config
from phalanx.runtime.specifications import load_specs

CHUNK = 128
SETTINGS = {"64 environments": 64, "512 environments": 512}


@eqx.filter_jit
def advance(env: Environment, committee: Committee | None, carry: Any, key: Any) -> tuple[Any, Any]:
    """A chunk of steps under drawn verdicts, or under a committee's; everything that a step shows is read."""

    def body(carry: tuple[Any, Any, MemoryTable], key: Any) -> tuple[Any, Any]:
        state, observation, table = carry
        n_envs = observation.entity.shape[0]
        key_kind, key_answer, key_env = jax.random.split(key, 3)
        if committee is None:
            kind = jax.random.randint(key_kind, (n_envs,), 0, 4)
            verdict = jnp.where(jax.random.uniform(key_answer, (n_envs,)) < 0.01, kind, 0)
        else:
            table, _, decision, _ = decide_events(committee, table, observation, jnp.int32(0), key=key_kind)
            verdict = decision.action
        state, step, _ = auto_reset_step(env, state, verdict, jax.random.split(key_env, n_envs))
        seen = step.observation
        read = (seen.category.sum(), seen.numeric.sum(), step.reward.sum(), step.robustness.sum())
        return (state, seen, clear(table, step.done)), read

    return jax.lax.scan(body, carry, jax.random.split(key, CHUNK))


def measure(n_envs: int, specs: Any, repeats: int, decided: bool) -> dict[str, float]:
    """Medians of the steps a second, bare and watched, and of what the monitors add."""
    bare = Simulator(SimulatorConfig(episode_events=2048))
    config, key = RunConfig().resolved, jax.random.key(0)
    programs, compile_s = [], []
    for env in (bare, Constrained(bare, specs, shown=False)):
        committee = init_committee(env.spec, learner_config(config), key) if decided else None
        state, observation = jax.jit(jax.vmap(env.reset))(jax.random.split(key, n_envs))
        memory = config.network.memory_size if decided else 0
        table = init_memory(config.members, n_envs, env.spec.n_entities, memory)
        carry = (state, observation, table)
        begun = time.perf_counter()
        compiled = eqx.filter_jit(advance).lower(env, committee, carry, key).compile()
        compile_s.append(time.perf_counter() - begun)
        carry, _ = jax.block_until_ready(compiled(env, committee, carry, key))
        programs.append([compiled, env, committee, carry])
    taken: list[list[float]] = [[], []]
    for index in range(repeats):
        for program, times in zip(programs, taken, strict=True):
            compiled, env, committee, carry = program
            begun = time.process_time()
            program[3], _ = jax.block_until_ready(
                compiled(env, committee, carry, jax.random.fold_in(key, index))
            )
            times.append(time.process_time() - begun)
    steps = n_envs * CHUNK
    return {
        "bare_steps_per_cpu_s": steps / statistics.median(taken[0]),
        "watched_steps_per_cpu_s": steps / statistics.median(taken[1]),
        "share": statistics.median(watched / plain - 1.0 for plain, watched in zip(*taken, strict=True)),
        "bare_compile_s": compile_s[0],
        "watched_compile_s": compile_s[1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--specs", type=Path, default=Path("office"))
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    specs = load_specs(arguments.specs)
    found = {
        f"{name}{', decided' if decided else ''}": measure(n_envs, specs, arguments.repeats, decided)
        for name, n_envs in SETTINGS.items()
        for decided in (False, True)
    }
    report(found, arguments.out, load_before)


if __name__ == "__main__":
    main()
