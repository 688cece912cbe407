"""Makes runs of phalanx's own committees in its simulator, sound and with faults of their settings, for ``judge.py``.

    python benchmarks/doctor/committees.py --out runs/doctor-committees
    python benchmarks/doctor/judge.py runs/doctor-committees --set committees

Each kind of committee and each fault is one program with all its seeds; the metrics of a kind are one file.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from faults import COMMITTEE_FAULTS

from phalanx.runtime.compile_cache import use_compile_cache
from phalanx.runtime.config import RunConfig
from phalanx.runtime.progress import progress_on
from phalanx.runtime.store import run_folders
from phalanx.runtime.train import train

KINDS: dict[str, dict[str, Any]] = {
    "ppo": {"preset": "ppo"},
    "mappo": {"preset": "mappo"},
    "apart": {"preset": "default"},
}
SIZE = {"envs": 16, "steps": 64, "iterations": 40, "minibatches": 4, "eval_every": 20, "checkpoint_every": 40}


def metrics_of(kind: str, change: dict[str, Any], seeds: int, seed: int, path: Path) -> dict[str, np.ndarray]:
    """Trains, or reads what is there: metrics of all seeds, ``[seed, iteration]``, NaN where nothing was logged."""
    settings = SIZE | change
    config = RunConfig.preset_named(KINDS[kind]["preset"])
    config = RunConfig.of(config.to_dict() | settings | {"seeds": seeds, "seed": seed, "out": str(path)})
    if not path.exists():
        train(config, progress=progress_on, on_red_flag=None)
    runs = [folder.read_metrics() for folder in run_folders(path)]
    names = {name for rows in runs for row in rows for name, value in row.items() if name != "iteration"}
    return {
        name: np.array([[_number(row.get(name)) for row in rows] for rows in runs], np.float32)
        for name in sorted(names)
    }


def _number(value: float | None) -> float:
    return np.nan if value is None else float(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the files, one a kind of committee"
    )
    parser.add_argument("--kinds", nargs="*", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--healthy", type=int, default=8, help="sound runs of each kind")
    parser.add_argument("--faulty", type=int, default=3, help="runs of each fault and kind")
    given = parser.parse_args()
    use_compile_cache()
    for kind in given.kinds:
        began = time.monotonic()
        parts = {"": metrics_of(kind, {}, given.healthy, 0, given.out / f"{kind}-sound")}
        for fault, what in COMMITTEE_FAULTS.items():
            path = given.out / f"{kind}-{fault.replace('/', '-')}"
            parts[fault] = metrics_of(kind, what.change, given.faulty, 1000, path)
        planted = [fault for fault, part in parts.items() for _ in range(len(part["env_steps"]))]
        joined: dict[str, Any] = {
            name: np.concatenate(
                [part.get(name, np.full(part["env_steps"].shape, np.nan)) for part in parts.values()]
            )
            for name in sorted({name for part in parts.values() for name in part})
        }
        about = {
            "task": f"committee-{kind}",
            "planted": planted,
            "onset": [0] * len(planted),
            "hyper": [{}] * len(planted),
            "seconds": time.monotonic() - began,
        }
        np.savez_compressed(given.out / f"{kind}.npz", about=json.dumps(about), **joined)
        print(f"{kind}: {len(planted)} runs, {about['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
