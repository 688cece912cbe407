"""Learning under rewards scaled by powers of ten: action rates and detection must not change.

python benchmarks/reward_scale.py [--scales 1e-3 1 1e4] [--seeds 5] [--iterations 30] [--out ...]
"""

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from phalanx.analysis.statistics import summary
from phalanx.runtime.compile_cache import use_compile_cache
from phalanx.runtime.config import RunConfig
from phalanx.runtime.evaluate import evaluate
from phalanx.runtime.store import run_folders
from phalanx.runtime.train import train

VERDICTS = ("allow", "alert", "block", "quarantine")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scales", type=float, nargs="+", default=[1e-3, 1.0, 1e4])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    use_compile_cache()
    result = {}
    for scale in arguments.scales:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            train(
                RunConfig(reward_scale=scale, seeds=arguments.seeds, iterations=arguments.iterations, out=run)
            )
            evaluate(run, seed=1000)
            rows = [each.read_eval() or {} for each in run_folders(run)]
            last = [each.read_metrics()[-1] for each in run_folders(run)]
        result[f"{scale:g}"] = {
            "f1": summary([row["f1"] for row in rows]),
            "damage_prevented": summary([row["damage_prevented"] for row in rows]),
            "f1_always_block": float(np.mean([row["baselines"]["always-block"]["f1"] for row in rows])),
            **{f"rate_{v}": float(np.mean([row[f"policy/rate_{v}"] for row in last])) for v in VERDICTS},
            "elapsed_s": time.monotonic() - begun,
        }
        print(f"{scale:g}", json.dumps(result[f"{scale:g}"]), flush=True)
    if arguments.out:
        settings = {"seeds": arguments.seeds, "iterations": arguments.iterations}
        arguments.out.write_text(json.dumps({"settings": settings, "scales": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
