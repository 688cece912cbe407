"""Laws of cause and effect over random small worlds, sensors' faults and random answers: failures, 0 expected.

    python benchmarks/causality.py [--worlds 10] [--envs 128] [--seed 0] [--out benchmarks/results/causality.json]

A case is one answered event. The laws and the account that they rest on stand in ``tests/envs/sim_laws.py``; the first
worlds are those of the tests, the others are drawn: hosts, slots, rates, attackers, costs and faults. Ends with 1
where a law is broken or fewer cases were seen than ``--least``.
"""

import argparse
import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from envs.sim_laws import LAWS, account_of
from envs.simulated import FAULTY, SMALL, random_answers, roll

from phalanx.envs.response import ResponseConfig
from phalanx.envs.sim_campaign import AttackConfig
from phalanx.envs.simulator import Simulator, SimulatorConfig
from phalanx.runtime.compile_cache import use_compile_cache


def random_world(rng: np.random.Generator) -> SimulatorConfig:
    """A small world with anything in it that a configuration allows; every other one has sensors without faults."""
    faults = rng.uniform(0.0, 0.3, 3) * rng.integers(2)
    lost, duplicated, late = (float(fault) for fault in faults)
    fewest, extra = int(rng.integers(1, 3)), int(rng.integers(0, 3))
    slow = float(rng.uniform(0.01, 0.1))
    return SimulatorConfig(
        n_hosts=int(rng.integers(1, 5)),
        slots_per_host=int(rng.integers(10, 15)),
        episode_events=192,
        host_rate_hz=float(rng.uniform(0.1, 0.4)),
        bait=float(rng.uniform(0.5, 3.0)),
        new_bait=bool(rng.integers(2)),
        new_techniques=bool(rng.integers(2)),
        drift=float(rng.uniform()),
        rollout=float(rng.uniform()),
        lost=lost,
        duplicated=duplicated,
        late=late,
        attack=AttackConfig(
            fewest=fewest,
            most=fewest + extra,
            onset_share=float(rng.uniform(0.05, 0.4)),
            pace=(slow, 4.0 * slow),
            stealth=(0.0, float(rng.uniform(0.1, 0.8))),
            failure=(0.0, float(rng.uniform(0.0, 0.3))),
            patience=(float(rng.uniform(1.0, 4.0)), 12.0),
            reentry=float(rng.uniform()),
            reentry_s=float(rng.uniform(5.0, 60.0)),
            latest=float(rng.uniform()),
            mimicry=float(rng.uniform()) * int(rng.integers(2)),
        ),
        response=ResponseConfig(
            quarantine_ttl_s=float(rng.uniform(10.0, 200.0)),
            analysts=int(rng.integers(1, 4)),
            service_s=float(rng.uniform(5.0, 60.0)),
            max_wait_s=float(rng.uniform(0.0, 120.0)),
            benign_cost=float(rng.uniform(0.5, 2.0)),
        ),
    )


def measured(config: SimulatorConfig, n_envs: int, seed: int) -> dict[str, Any]:
    """Cases and failures of one world."""
    rng = np.random.default_rng(seed)
    run = roll(Simulator(config), jax.random.key(seed), random_answers(rng, n_envs))
    account = account_of(run)
    broken = {name: law(run, account) & run.live for name, law in LAWS.items()}
    return {
        "seed": seed,
        "config": repr(config),
        "cases": run.cases,
        "malicious": int((run.state.event.campaign >= 0)[:-1][run.live[:-1]].sum()),
        "failures": {name: int(steps.sum()) for name, steps in broken.items()},
        "first": {name: np.argwhere(b)[0].tolist() for name, b in broken.items() if b.any()},
    }


def main() -> int:
    """Sweeps the worlds, prints a line for each and for each law."""
    parser = argparse.ArgumentParser(description="Laws of cause and effect in the simulator.")
    parser.add_argument("--worlds", type=int, default=10)
    parser.add_argument("--envs", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--least", type=int, default=100_000, help="cases that must be seen")
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    use_compile_cache()
    begun = time.monotonic()
    worlds = [replace(SMALL), replace(FAULTY)]
    worlds += [random_world(np.random.default_rng([asked.seed, i])) for i in range(2, asked.worlds)]
    rows = []
    for index, config in enumerate(worlds[: asked.worlds]):
        rows.append(measured(config, asked.envs, asked.seed + index))
        print(
            f"world {index}: {rows[-1]['cases']} cases, broken {rows[-1]['first'] or 'nothing'}", flush=True
        )
    cases = sum(row["cases"] for row in rows)
    failures = {name: sum(row["failures"][name] for row in rows) for name in LAWS}
    for name, count in failures.items():
        print(f"{count:8d}  {name}")
    print(f"{cases} cases, {sum(failures.values())} failures, {time.monotonic() - begun:.0f} s")
    result = {"cases": cases, "failures": failures, "worlds": rows}
    if asked.out:
        asked.out.write_text(json.dumps(result, indent=1) + "\n")
    return int(any(failures.values()) or cases < asked.least)


if __name__ == "__main__":
    sys.exit(main())
