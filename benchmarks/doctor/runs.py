"""Makes the runs: healthy and faulty ones of one task, their metrics in one compressed file."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from faults import TEST_FAULTS, TUNING_FAULTS
from learner import Fault, Hyper, Sizes, train_runs
from tasks import make_task

TUNING_TASKS = (
    "CartPole",
    "Catch",
    "Acrobot",
    "Pendulum",
    "DiscountingChain",
    "ContextualBandit",
    "CartPole-velocities-hidden",
)
"""Seen while rules were written; every second one in the second size."""

TEST_TASKS = ("FrozenLake", "UmbrellaChain", "Reacher", "Inventory", "Blackjack", "Corridor")
SIZES = (Sizes(), Sizes(n_envs=16, steps=64, hidden=32, epochs=3, minibatches=2))
"""A task is learned in one of them: compiling takes longer than forty runs."""


def make_runs(name: str, size: int, n_healthy: int, n_faulty: int, seed: int, which: str) -> dict[str, Any]:
    """Runs of one task and size: ``n_healthy`` healthy ones, ``n_faulty`` of each fault, of random settings."""
    task, sizes = make_task(name), SIZES[size]
    faults = TEST_FAULTS if which == "test" else TUNING_FAULTS
    rng = np.random.default_rng([seed, size, *name.encode()])
    planted = [""] * n_healthy
    if n_faulty:
        planted += [
            fault
            for fault, what in faults.items()
            for _ in range(n_faulty)
            if task.recurrent or not what.memory
        ]
    hypers, changes, onsets = [], [], []
    for index, fault in enumerate(planted):
        hyper = Hyper(
            learning_rate=float(np.exp(rng.uniform(np.log(4e-4), np.log(2e-3)))),
            entropy_coef=float(rng.uniform(0.0, 0.02)),
            lam=float(rng.uniform(0.9, 0.98)),
            clip=float(rng.uniform(0.15, 0.25)),
            normalized=float(rng.random() < 0.7),
        )
        onset = 0
        change = Fault()
        if fault:
            what = faults[fault]
            hyper = hyper._replace(**dict(what.hyper))
            onset = task.updates // 3 if what.late and index % 2 else 0
            change = change._replace(**what.change, onset=float(onset))
        hypers.append(hyper)
        changes.append(change)
        onsets.append(onset)

    def stack(parts: list[Any]) -> Any:
        return jax.tree.map(lambda *leaves: jnp.asarray(leaves, jnp.float32), *parts)

    keys = jax.random.split(jax.random.key(seed), len(planted))
    began = time.monotonic()
    metrics = train_runs(task, sizes, keys, stack(hypers), stack(changes))
    metrics = {metric: np.asarray(values, np.float32) for metric, values in metrics.items()}
    return {
        "metrics": metrics,
        "planted": planted,
        "onset": onsets,
        "hyper": [hyper._asdict() for hyper in hypers],
        "seconds": time.monotonic() - began,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--set", choices=["tuning", "test"], required=True)
    parser.add_argument("--out", type=Path, required=True, help="folder of the files, one a task and size")
    parser.add_argument("--tasks", nargs="*")
    parser.add_argument("--healthy", type=int, default=60, help="healthy runs of each task")
    parser.add_argument("--faulty", type=int, default=3, help="runs of each fault and task")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    jax.config.update("jax_compilation_cache_dir", str(given.out / "compiled"))
    given.out.mkdir(parents=True, exist_ok=True)
    tasks = TEST_TASKS if given.set == "test" else TUNING_TASKS
    for name in given.tasks or tasks:
        target = given.out / f"{name}.npz"
        if target.exists():
            continue
        size = tasks.index(name) % len(SIZES) if name in tasks else 0
        made = make_runs(name, size, given.healthy, given.faulty, given.seed, given.set)
        about = {key: made[key] for key in ("planted", "onset", "hyper", "seconds")} | {"task": name}
        np.savez_compressed(target, about=json.dumps(about), **made["metrics"])
        print(f"{target.name}: {len(made['planted'])} runs, {made['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
