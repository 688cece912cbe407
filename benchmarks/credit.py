"""Credit schemes side by side on the simulator, from a uniform and from an all-allow start.

    python benchmarks/credit.py [--seeds 5] [--iterations 30] [--out benchmarks/results/credit.json]

Figures of each scheme over seeds: the committee's reward a step at the end of training (mean of the last five
iterations, in the environments where verdicts are applied), validation PR-AUC, and the pivotal rate at the start and
at the end.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from phalanx.agents.credit import CREDIT_SCHEMES
from phalanx.analysis.statistics import summary
from phalanx.runtime.compile_cache import use_compile_cache
from phalanx.runtime.config import RunConfig
from phalanx.runtime.store import run_folders
from phalanx.runtime.train import train

SMALL: dict[str, Any] = {"rollouts": "together", "envs": 32, "hidden": 32, "memory": 32, "steps": 128}


def measure(scheme: str, start: str, shadow: float, seeds: int, iterations: int) -> dict[str, object]:
    """Trains with one scheme and reads its metrics back."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        config = RunConfig(
            credit=scheme,  # type: ignore[arg-type]
            start=start,  # type: ignore[arg-type]
            shadow=shadow,
            seeds=seeds,
            iterations=iterations,
            eval_every=iterations,
            checkpoint_every=iterations,
            out=run,
            **SMALL,
        )
        train(config)
        logs = [each.read_metrics() for each in run_folders(run)]
    return {
        "reward_per_step": summary(
            [float(np.mean([row["reward/step"] for row in log[-5:]])) for log in logs]
        ),
        "pr_auc": summary([log[-1]["eval/pr_auc"] for log in logs]),
        "pivotal_rate_first": float(np.mean([log[0]["policy/pivotal_rate"] for log in logs])),
        "pivotal_rate_last": float(np.mean([log[-1]["policy/pivotal_rate"] for log in logs])),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=30)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    use_compile_cache()
    result = {}
    for start in ("uniform", "allow"):
        for scheme in CREDIT_SCHEMES:
            found = measure(scheme, start, 0.0, arguments.seeds, arguments.iterations)
            result[f"{scheme}, {start} start"] = found
            print(scheme, start, json.dumps(found), flush=True)
        found = measure("blend", start, 0.5, arguments.seeds, arguments.iterations)
        result[f"blend and half shadow, {start} start"] = found
        print("blend and half shadow", start, json.dumps(found), flush=True)
    if arguments.out:
        settings = {"seeds": arguments.seeds, "iterations": arguments.iterations, **SMALL}
        arguments.out.write_text(json.dumps({"settings": settings, "schemes": result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
