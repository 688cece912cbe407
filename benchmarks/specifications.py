"""How often specifications hold, with and without multipliers, with and without a shield, and what that costs.

    phalanx train --specs office --no-multipliers --seeds 5 --iterations 100 --out runs/free
    cp -r runs/free runs/priced        # and "multipliers": true in its config.json and those of its seeds
    phalanx train --resume runs/free --iterations 200
    phalanx train --resume runs/priced --iterations 200
    python benchmarks/specifications.py runs/free runs/priced [--episodes 256] [--seed 901] [--shield shield]

All committees answer the same episodes, which nothing was chosen on, each at P = .5 and at the operating point that its
own run chose. The price is the share of the damage prevented by the first run at P = .5 that another one gives up, in
percent, seed by seed. A run without specifications is measured by the same ones, unseen.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from phalanx.analysis.metrics import response_metrics
from phalanx.analysis.statistics import summary
from phalanx.envs.constrained import Constrained
from phalanx.files import write_json
from phalanx.runtime.baselines import references
from phalanx.runtime.compile_cache import use_compile_cache
from phalanx.runtime.config import RunConfig
from phalanx.runtime.cut import Cut, cut_of
from phalanx.runtime.decide import shielded
from phalanx.runtime.episodes import run_episodes
from phalanx.runtime.kept import load_committee
from phalanx.runtime.policies import CommitteePolicy
from phalanx.runtime.specifications import held, load_specs
from phalanx.runtime.store import RunFolder, run_folders
from phalanx.runtime.task import build_task
from phalanx.stl.shield import Shield
from phalanx.stl.specs import Spec
from phalanx.types import Score, Verdict


def loop_of(run: Path, specs: tuple[Spec, ...]) -> Constrained:
    """The closed loop of a run's members with the specifications watched, and shown where they were in training."""
    first = run_folders(run)[0]
    own = first.read_specs()
    if own and [each.formula.text for each in own] != [each.formula.text for each in specs]:
        sys.exit(f"{run} learned under other specifications; give its own with --specs")
    env = build_task(RunConfig.of(first.config()), specs=()).test.act
    assert env is not None
    return Constrained(env, specs, shown=bool(own))


def played(
    folder: RunFolder,
    env: Constrained,
    ends: tuple[Score, Score],
    key: Any,
    episodes: int,
    shield: Shield | None,
    even: bool,
) -> dict[str, Any]:
    """One committee in the episodes, at its operating point or at P = .5: its specifications, and what it was worth."""
    config = RunConfig.of(folder.config())
    committee, point = load_committee(folder, config, env)
    if shield is not None:
        committee = shielded(committee, shield)
    cut = Cut.of(0.5) if even else cut_of(point)
    assert cut is not None
    policy = CommitteePolicy(committee, cut.arrays(), config.network.memory_size)
    course = run_episodes(env, policy, key, n_envs=episodes, steps=env.episode_events)
    worth = response_metrics(course.score, *ends)
    specs = held(env.specs, course.robustness, course.live)
    lowest = np.where(course.live[..., None], course.robustness, np.inf).min(axis=(0, 2))
    return {
        "damage_prevented": worth.damage_prevented,
        "availability": worth.availability,
        "loss": worth.loss,
        "all": float((lowest >= 0.0).mean()),
        **{f"satisfied/{name}": each["satisfied"] for name, each in specs.items()},
        **{f"steps/{name}": each["steps_satisfied"] for name, each in specs.items()},
        "alert": float(cut.alert),
        "answer": float(cut.answer),
        "kept_iteration": float(point["iteration"]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="the first is what prices are measured against")
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--seed", type=int, default=901)
    parser.add_argument("--specs", type=Path, default=Path("office"))
    parser.add_argument("--shield", type=Path, default=Path("shield"))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    use_compile_cache()
    begun, key = time.perf_counter(), jax.random.key(arguments.seed)
    specs = load_specs(arguments.specs)
    env = loop_of(arguments.runs[0], specs)
    even = np.full(len(Verdict), 1 / len(Verdict), np.float32)
    courses = references(env, key, arguments.episodes, even)
    ends = courses["always-allow"].score, courses["oracle"].score
    keeper = Shield(load_specs(arguments.shield))
    found: dict[str, Any] = {}
    for run in arguments.runs:
        env = loop_of(run, specs)
        for even, shield in ((True, None), (True, keeper), (False, None), (False, keeper)):
            title = f"{run.name}{', at .5' if even else ''}{', shielded' if shield else ''}"
            seeds = [
                played(folder, env, ends, key, arguments.episodes, shield, even)
                for folder in run_folders(run)
            ]
            found[title] = {name: [seed[name] for seed in seeds] for name in seeds[0]}
            before = found[f"{arguments.runs[0].name}, at .5"]["damage_prevented"]
            found[title]["price"] = [
                100.0 * (1.0 - now / then)
                for now, then in zip(found[title]["damage_prevented"], before, strict=True)
            ]
            print(title)
            for name, values in found[title].items():
                s = summary(values)
                print(
                    f"  {name:26} {s['iqm']:.4f} ({s['low']:.4f} to {s['high']:.4f}), min {s['min']:.4f}",
                    flush=True,
                )
    if arguments.out:
        write_json(
            arguments.out,
            {
                "episodes": arguments.episodes,
                "seed": arguments.seed,
                "shield": str(arguments.shield),
                "minutes": (time.perf_counter() - begun) / 60,
                "summary": {t: {n: summary(v) for n, v in each.items()} for t, each in found.items()},
                "by_seed": found,
            },
        )


if __name__ == "__main__":
    main()
