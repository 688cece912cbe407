"""The notebook's three attempts with its own task, network and update (``--preset original``).

    python benchmarks/original_attempts.py --data ../shared/data/darpa_trace_e5/records.parquet \
        --attempts batch:12 none:50 running:12

Each attempt is trained in ``runs/original-attempts/NAME-SEED``; one that is there already is gone on with, or only read
where it has its iterations. Written to ``benchmarks/results/original.json``: value loss and explained variance at some
iterations, the validations, steps per second without compilation, and what the notebook documents.
"""

import argparse
import json
import os
import platform
from pathlib import Path
from typing import Any

import numpy as np

SHOWN = (1, 2, 5, 10, 12, 20, 30, 40, 50, 100, 150, 200, 250, 300)
ORIGINAL_STEPS_PER_S = 186  # collection alone, on a T4
DOCUMENTED = {
    "batch": {"loss/value": {"10": 1.0003, "300": 0.9996}},
    "none": {"loss/value": {"10": 998_830, "50": 224_573, "100": 88_553, "150": 84_434, "200": 87_145}},
    "running": {"loss/value": "measured since: .85 to 1.28, mean 1.00 over 99 iterations"},
}
RESULTS = Path(__file__).with_name("results") / "original.json"


def trained(data: Path, normalizer: str, iterations: int, seed: int) -> tuple[str, list[dict[str, Any]]]:
    """Command and metrics of an attempt."""
    from dataclasses import replace

    from phalanx.runtime.compile_cache import use_compile_cache
    from phalanx.runtime.config import RunConfig
    from phalanx.runtime.progress import progress_on
    from phalanx.runtime.store import RunFolder
    from phalanx.runtime.train import train

    use_compile_cache()
    path = Path("runs/original-attempts") / f"{normalizer}-{seed}"
    preset = RunConfig.preset_named("original")
    config = replace(preset, data=(data,), normalizer=normalizer, iterations=iterations, seed=seed, out=path)
    rows = RunFolder.open(path).read_metrics() if path.exists() else []
    if len(rows) < iterations:
        train(config, resume=path if rows else None, progress=progress_on)
        rows = RunFolder.open(path).read_metrics()
    command = (
        f"phalanx train --env stream --data {data} --preset original --normalizer {normalizer} "
        f"--iterations {iterations} --seed {seed}"
    )
    return command, rows[:iterations]


def summary(command: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What the results file holds of an attempt."""
    shown = [row for row in rows if row["iteration"] in SHOWN or row is rows[-1]]
    seconds = np.diff([row["wall_s"] for row in rows])
    steps = rows[0]["env_steps"]
    names = (
        "loss/value",
        "value/explained_variance",
        "value/target_mean",
        "value/target_std",
        "reward/step",
        "reward/episode",
        "policy/rate_allow",
        "policy/rate_alert",
        "policy/first_ratio_error",
        "stl/violated_rates",
    )
    loss = [row["loss/value"] for row in rows]
    pace = float(np.median(seconds[seconds > 0]))
    return {
        "command": command,
        "iterations": len(rows),
        "at": {str(row["iteration"]): {name: row[name] for name in names} for row in shown},
        "loss/value": {"lowest": min(loss), "highest": max(loss), "mean": float(np.mean(loss))},
        "validations": {
            str(row["iteration"]): {name: row[f"eval/{name}"] for name in ("tp", "tn", "fp", "fn", "f1")}
            for row in rows
            if "eval/tp" in row
        },
        "seconds_per_iteration": {"median": pace, "fastest": float(seconds[seconds > 0].min())},
        "env_steps_per_s": {"median": steps / pace, "original (collection alone, T4)": ORIGINAL_STEPS_PER_S},
    }


def main() -> None:
    """Trains what is missing and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    default = Path(os.environ.get("PHALANX_SHARED", "../shared/data")) / "darpa_trace_e5" / "records.parquet"
    parser.add_argument("--data", type=Path, default=default)
    parser.add_argument("--attempts", nargs="+", default=["batch:12", "none:12", "running:12"])
    parser.add_argument("--seed", type=int, default=42)
    arguments = parser.parse_args()
    if not arguments.data.exists():
        print(f"{arguments.data}: not there, nothing measured; give --data")
        return
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for attempt in arguments.attempts:
        normalizer, _, iterations = attempt.partition(":")
        command, rows = trained(arguments.data, normalizer, int(iterations or 12), arguments.seed)
        found = summary(command, rows)
        results[f"{normalizer}, seed {arguments.seed}"] = {"documented": DOCUMENTED.get(normalizer), **found}
        print(normalizer, {i: round(at["loss/value"], 4) for i, at in found["at"].items()})
    results["machine"] = f"{os.cpu_count()} cores, {platform.machine()}, CPU, shared with other work"
    results["note"] = (
        "The labels of this data are a rule over the record's own fields, not truth. One seed each: these figures show "
        "that the attempts fail as documented, and how fast they run; they compare no two of them."
    )
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
