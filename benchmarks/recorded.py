"""Detection on recorded events: the committee beside gradient boosting on the same inputs and the same test rows.

    python benchmarks/recorded.py [--only NAME...] [--seeds 3] [--quick] [--shared ../shared/data] [--anew]

Each case runs the commands that it reports (``phalanx ingest``, ``train``, ``evaluate``) in ``runs/recorded``. A run
that is there already is only evaluated (``--anew`` trains it again), and the other cases of an earlier file stay.
Written to ``benchmarks/results/recorded.json``. Where a data set is absent its cases are skipped, with a message.
"""

import argparse
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results") / "recorded.json"
RUNS = Path("runs/recorded")
SPLIT_SEED = (
    11  # of groups and strata; settings were chosen on another split. DARPA's by time is always the same
)
RULE = "the label is a rule over each record's own fields, no truth; the slice holds no attack"
PER_TRACE = "labels are per trace: most calls of an attack trace look benign"
FIGURES = ("f1", "precision", "recall", "pr_auc")


@dataclass(frozen=True)
class Case:
    """One data set in one setting.

    Attributes:
        name: of the case.
        sources: files below the folder of shared data.
        flags: of ``phalanx train``.
        iterations: of training.
        says: what the figures mean.
        test: another file to be measured on as well, below the same folder.
    """

    name: str
    sources: tuple[str, ...]
    flags: tuple[str, ...]
    iterations: int
    says: str
    test: str | None = None


DARPA = ("darpa_trace_e5/records.parquet",)
ADFA = ("adfa_ld/traces.parquet", "adfa_ld/events.parquet")
CASES = (
    Case("darpa-stream", DARPA, ("--env", "stream"), 30, f"split by time; {RULE}"),
    Case("darpa-replay", DARPA, ("--env", "replay"), 30, f"split by time; {RULE}"),
    Case("adfa-stream", ADFA, ("--env", "stream"), 50, f"split by attack run and trace; {PER_TRACE}"),
    Case("adfa-replay", ADFA, ("--env", "replay"), 50, f"split by attack run and trace; {PER_TRACE}"),
    Case(
        "nsl-kdd",
        ("nsl_kdd/train20.parquet",),
        ("--env", "stream"),
        20,
        "stratified split; the official test holds attacks never seen in training",
        test="nsl_kdd/test.parquet",
    ),
)


def phalanx(*words: str) -> tuple[dict[str, Any], str, float]:
    """Runs a command: its JSON, the command line, its seconds."""
    begun = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "phalanx", *words, "--json"], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"phalanx {shlex.join(words)} ended with {done.returncode}")
    return json.loads(done.stdout), f"phalanx {shlex.join(words)}", time.monotonic() - begun


def detection(result: dict[str, Any]) -> dict[str, Any]:
    """The committee's and the classifier's figures of an evaluation."""
    boosted = result["baselines"].get("gradient boosting")
    figures = {
        "events": result["events"],
        "base_rate": result["base_rate"],
        "committee": {name: result[name] for name in FIGURES},
        "gradient boosting": {name: boosted[name] for name in FIGURES} if boosted else None,
    }
    if result.get("damage_prevented") is not None:
        names = ("damage_prevented", "availability", "time_to_contain_s", "contained_share")
        figures["response"] = {name: result[name] for name in names}
        figures["response of baselines"] = {
            policy: {name: row[name] for name in names if name in row}
            for policy, row in result["baselines"].items()
        }
    if result.get("per_seed"):
        figures["f1 per seed"] = [row["f1"] for row in result["per_seed"]]
    return figures


def measured(case: Case, shared: Path, seeds: int, iterations: int, anew: bool) -> dict[str, Any]:
    """Ingests, trains and evaluates one case."""
    table, run = RUNS / f"{case.name}.parquet", RUNS / f"{case.name}-{iterations}x{seeds}-split-{SPLIT_SEED}"
    commands, seconds = [], {}
    _, command, seconds["ingest"] = phalanx(
        "ingest", *[str(shared / source) for source in case.sources], "--out", str(table)
    )
    commands.append(command)
    words = ["train", *case.flags, "--data", str(table), "--iterations", str(iterations)]
    words += ["--seeds", str(seeds), "--split-seed", str(SPLIT_SEED), "--out", str(run)]
    if anew:
        shutil.rmtree(run, ignore_errors=True)
    if not run.exists():
        trained, _, seconds["train"] = phalanx(*words)
        (run / "benchmark.json").write_text(json.dumps({"train": seconds["train"], **trained}))
    seconds["train"] = json.loads((run / "benchmark.json").read_text())["train"]
    commands.append(f"phalanx {shlex.join(words)}")
    result, command, seconds["evaluate"] = phalanx("evaluate", str(run))
    commands.append(command)
    row = {"means": case.says, "seeds": seeds, "iterations": iterations, **detection(result)}
    if case.test:
        other, command, _ = phalanx("evaluate", str(run), "--data", str(shared / case.test))
        commands.append(command)
        row["official test"] = detection(other)
    return {**row, "commands": commands, "seconds": {k: round(v, 1) for k, v in seconds.items()}}


def main() -> None:
    """Runs the cases asked for and merges them into the results file."""
    parser = argparse.ArgumentParser(description="Detection on recorded events.")
    parser.add_argument("--only", nargs="*", choices=[case.name for case in CASES], default=None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="4 iterations: does it run at all")
    parser.add_argument("--anew", action="store_true", help="train again where a run is there already")
    parser.add_argument("--shared", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    cases = {}
    for case in CASES:
        if asked.only is not None and case.name not in asked.only:
            continue
        absent = [source for source in case.sources if not (asked.shared / source).exists()]
        if absent:
            print(f"{case.name}: skipped, no {asked.shared / absent[0]}", file=sys.stderr)
            continue
        iterations = 4 if asked.quick else case.iterations
        cases[case.name] = measured(case, asked.shared, asked.seeds, iterations, asked.anew)
        print(json.dumps({case.name: cases[case.name]}, indent=1), flush=True)
    if cases and not asked.quick:
        old = json.loads(asked.out.read_text())["cases"] if asked.out.exists() else {}
        machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps({"machine": machine, "cases": old | cases}, indent=1) + "\n")


if __name__ == "__main__":
    main()
