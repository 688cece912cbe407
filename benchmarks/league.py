"""The league of the arena: trained committees and every baseline in the same held-back episodes.

    phalanx train --seeds 10 --iterations 300 --out runs/committee    # two hours on two cores
    phalanx train --preset ppo --seeds 10 --iterations 300 --out runs/ppo
    python benchmarks/league.py runs/committee runs/ppo --seed SEED [--scenario office ...] [--out F.json]

Runs are folders of `phalanx train`; the first one is compared with every other policy. SEED is of the test episodes:
one that no look in docs/arena.md has used. What lies in --out of other scenarios stays, so that a league can be played
in parts. Losses of single episodes are left out of the file.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from phalanx.cli_compare import league_table
from phalanx.files import write_json
from phalanx.runtime.compile_cache import use_compile_cache
from phalanx.runtime.config import RunConfig
from phalanx.runtime.league import League, compare
from phalanx.runtime.store import run_folders


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--scenario", nargs="+", default=["office"])
    parser.add_argument("--policies", nargs="*", default=[])
    parser.add_argument("--episodes", type=int, default=1000)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument(
        "--poison", type=float, default=0.0, help="of the labels that baselines are fitted to"
    )
    parser.add_argument("--seed", type=int, required=True, help="of all episodes; unused so far")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    use_compile_cache()
    _saved(arguments.out)  # a damaged file shows now, not after hours
    begun = time.perf_counter()
    result = compare(
        League(
            runs=tuple(arguments.runs),
            policies=tuple(arguments.policies),
            scenarios=tuple(arguments.scenario),
            episodes=arguments.episodes,
            trials=arguments.trials,
            poison=arguments.poison,
            seed=arguments.seed,
        ),
        after=lambda name, found: _save(arguments, name, found),
    )
    print(league_table(result))
    print(f"{time.perf_counter() - begun:.0f} s")


def _save(arguments: argparse.Namespace, name: str, found: dict[str, Any]) -> None:
    """Writes a scenario's result into --out as soon as it is there, so that hours are not lost with one of them."""
    print(f"{name} played", flush=True)
    if not arguments.out:
        return
    settings = []
    for run in arguments.runs:
        folders = run_folders(run)
        config = RunConfig.of(folders[0].config()).to_dict() | {"seeds": len(folders)}
        settings.append({"run": run.name} | {key: value for key, value in config.items() if key != "out"})
    asked = {
        "seed": arguments.seed,
        "trials": arguments.trials,
        "episodes": arguments.episodes,
        "poison": arguments.poison,
        "runs": settings,
    }
    write_json(arguments.out, {"scenarios": {**_saved(arguments.out), name: {**asked, **found}}})


def _saved(out: Path | None) -> dict[str, Any]:
    """What lies in --out, by scenario."""
    return json.loads(out.read_text())["scenarios"] if out and out.exists() else {}


if __name__ == "__main__":
    main()
