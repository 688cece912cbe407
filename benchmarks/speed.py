"""Agent-steps per second of training, environment and update included, compile time apart.

    python benchmarks/speed.py [--out benchmarks/results/speed.json]

One agent-step is one event decided by one member. Each line is the median of repeated iterations in one process, so
that lines of one run can be compared; the machine's other load shows in all of them.
"""

import argparse
import os
import statistics
import time
from pathlib import Path

import equinox as eqx
import jax
from machine import report

from phalanx.runtime.config import RunConfig
from phalanx.runtime.learner import learner_config
from phalanx.runtime.rollout import collect
from phalanx.runtime.task import build_task
from phalanx.runtime.train import compiled_iteration, initial_state

# The sizes of the reference figures: 4 members, width 128, 2 epochs x 4 minibatches.
REFERENCE = {"rollouts": "together", "hidden": 128, "memory": 128, "epochs": 2, "minibatches": 4}
SETTINGS = {
    "GRU 64, 2 x 16, with lookahead": {"rollouts": "together"},
    "LSTM 128, 2 x 4": {"cell": "lstm", **REFERENCE},
    "GRU 128, 2 x 4": {"cell": "gru", **REFERENCE},
    "MLP 128, 2 x 4": {"cell": "none", **REFERENCE},
}


def measure(settings: dict[str, object], repeats: int) -> dict[str, float]:
    """Compile time, and median times of an iteration and of its rollout alone."""
    config = RunConfig(**settings)  # type: ignore[arg-type]
    learner = learner_config(config)
    task = build_task(config)
    env = task.learn
    state = initial_state(config, task)
    advance = compiled_iteration(config)  # the program of `phalanx train`, of one seed
    rollout = eqx.filter_jit(
        jax.vmap(
            lambda e, s: collect(
                e, s.committee, s.world, s.key, steps=learner.steps, n_shadow=learner.n_shadow
            ),
            in_axes=(None, 0),
        )
    )
    begun = time.perf_counter()
    state, metrics = jax.block_until_ready(advance(env, state))
    compile_s = time.perf_counter() - begun
    jax.block_until_ready(rollout(env, state))
    whole, alone = [], []
    for _ in range(repeats):
        begun = time.perf_counter()
        state, metrics = jax.block_until_ready(advance(env, state))
        whole.append(time.perf_counter() - begun)
        begun = time.perf_counter()
        jax.block_until_ready(rollout(env, state))
        alone.append(time.perf_counter() - begun)
    agent_steps = config.rollout_agent_steps
    return {
        "agent_steps_per_s": agent_steps / statistics.median(whole),
        "agent_steps_per_s_and_core": agent_steps / statistics.median(whole) / (os.cpu_count() or 1),
        "rollout_agent_steps_per_s": agent_steps / statistics.median(alone),
        "iteration_s": statistics.median(whole),
        "compile_s": compile_s - statistics.median(whole),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    found = {name: measure(settings, arguments.repeats) for name, settings in SETTINGS.items()}
    report(found, arguments.out, load_before)


if __name__ == "__main__":
    main()
