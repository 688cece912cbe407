"""Asks the doctor about every run that ``runs.py`` made, and counts."""

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from faults import TEST_FAULTS, TUNING_FAULTS, Planted

from phalanx.analysis.doctor import examine_run
from phalanx.analysis.logs import STANDARD, Series, TrainingLog

SETS = {"tuning": TUNING_FAULTS, "test": TEST_FAULTS}


def as_log(name: str, metrics: dict[str, np.ndarray], run: int, only: tuple[str, ...] | None) -> TrainingLog:
    """One run's log, as the doctor reads it from a file: what a whole run leaves not a number was never logged."""
    n = metrics["env_steps"].shape[1]
    series = {}
    for metric, values in metrics.items():
        if metric == "env_steps" or (only and metric not in only):
            continue
        value = values[run].astype(float)
        sparse = not metric.startswith(("loss/", "policy/entropy", "policy/approx_kl"))
        rows = np.flatnonzero(np.isfinite(value)) if sparse else np.arange(n)
        if len(rows):
            series[metric] = Series(rows, value[rows])
    return TrainingLog(
        Path(name), "bench", np.arange(1, n + 1), metrics["env_steps"][run].astype(float), series
    )


def gains(metrics: dict[str, np.ndarray]) -> np.ndarray:
    """By how much each run's reward rose, from the first three rows in which episodes ended to the last tenth of them;
    minus infinity where hardly any ended."""
    found = []
    for rewards in metrics["reward/episode"]:
        told = rewards[np.isfinite(rewards)]
        tail = max(len(told) // 10, 3)
        found.append(told[-tail:].mean() - told[:3].mean() if len(told) >= 6 else -np.inf)
    return np.array(found)


def judged(folder: Path, which: str, only: tuple[str, ...] | None) -> list[dict[str, Any]]:
    """A record a run: what was planted, what was found, when, and whether the run learned."""
    faults = SETS[which]
    records = []
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as held:
            about = json.loads(str(held["about"]))
            metrics = {name: held[name] for name in held.files if name != "about"}
        gain = gains(metrics)
        healthy = np.array([not fault for fault in about["planted"]])
        usual = np.median(gain[healthy])
        for run, fault in enumerate(about["planted"]):
            if fault and _changes_nothing(faults[fault], about["task"], about["hyper"][run]):
                continue
            found = examine_run(as_log(file.stem, metrics, run, only))
            grave = [f for f in found if f.severity != "info"]
            budget = metrics["env_steps"].shape[1]
            onset = max(about["onset"][run], int(faults[fault].begins * budget) if fault else 0)
            after = [f for f in grave if (f.iteration or 0) > onset]
            names = faults[fault].symptoms if fault else ("",)
            records.append(
                {
                    "task": about["task"],
                    "file": file.stem,
                    "run": run,
                    "fault": fault,
                    "onset": onset,
                    "learned": bool(usual > 0 and gain[run] >= 0.5 * usual),
                    "found": [(f.symptom, f.severity, f.iteration) for f in grave],
                    "flagged": bool(after if fault else grave),
                    "early": len(grave) > len(after),
                    "new": bool(fault) and faults[fault].new,
                    "right_cause": bool(after) and after[0].symptom in names,
                    "first_name": bool(after) and after[0].symptom == names[0],
                    "first": after[0].symptom if after else None,
                    "delay": min(((f.iteration or 0) - onset for f in after), default=None),
                    "budget": budget,
                    "hyper": about["hyper"][run],
                }
            )
    return records


def _changes_nothing(what: Planted, task: str, hyper: dict[str, float]) -> bool:
    """Whether a planted fault is none in this run: of a normaliser that is not there, or on another task."""
    elsewhere = bool(what.only) and task not in what.only
    return elsewhere or any(hyper.get(name, value) != value for name, value in what.hyper)


def interval(k: int, n: int) -> tuple[float, float]:
    """Exact 95 % binomial interval (Clopper and Pearson 1934), of runs as if they were independent of their task."""
    from scipy.stats import beta

    low = 0.0 if k == 0 else float(beta.ppf(0.025, k, n - k + 1))
    high = 1.0 if k == n else float(beta.ppf(0.975, k + 1, n - k))
    return low, high


def counted(records: list[dict[str, Any]]) -> dict[str, Any]:
    """Alarms of healthy runs, recall and causes of faulty ones, and what came first for each fault."""
    healthy = [r for r in records if not r["fault"]]
    faulty = [r for r in records if r["fault"]]
    faults = {}
    for fault in dict.fromkeys(r["fault"] for r in faulty):
        group = [r for r in faulty if r["fault"] == fault]
        first = Counter(r["first"] or "nothing" for r in group)
        faults[fault] = _of(group) | {
            "learned": sum(r["learned"] for r in group),
            "first": dict(first.most_common()),
        }
    return {
        "healthy": _alarms([r for r in healthy if r["learned"]]),
        "not_planted_and_not_learned": _alarms([r for r in healthy if not r["learned"]]),
        "faulty": _of(faulty),
        "faulty_that_did_not_learn": _of([r for r in faulty if not r["learned"]]),
        "of_new_kinds_that_did_not_learn": _of([r for r in faulty if r["new"] and not r["learned"]]),
        "alarms_before_a_late_fault": sum(r["early"] for r in faulty),
        "faults": faults,
        "tasks": {
            task: {
                "healthy": _alarms([r for r in healthy if r["learned"] and r["task"] == task]),
                "faulty": _of([r for r in faulty if r["task"] == task]),
            }
            for task in dict.fromkeys(r["task"] for r in records)
        },
    }


def _alarms(group: list[dict[str, Any]]) -> dict[str, Any]:
    flagged = [r for r in group if r["flagged"]]
    return {
        "runs": len(group),
        "alarms": len(flagged),
        "interval": interval(len(flagged), len(group)),
        "which": dict(Counter(r["found"][0][0] for r in flagged).most_common()),
    }


def _of(group: list[dict[str, Any]]) -> dict[str, Any]:
    n = len(group)
    found, right, first = (sum(r[key] for r in group) for key in ("flagged", "right_cause", "first_name"))
    delays = [r["delay"] / r["budget"] for r in group if r["delay"] is not None]
    return {
        "runs": n,
        "found": found,
        "recall": found / n if n else None,
        "interval": interval(found, n),
        "cause_right": right / n if n else None,
        "cause_interval": interval(right, n),
        "first_name": first / n if n else None,
        "median_delay": float(np.median(delays)) if delays else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", choices=list(SETS), required=True)
    parser.add_argument("--json", type=Path, help="results file; this set's part of it is replaced")
    given = parser.parse_args()
    result = {}
    for name, only in (("vital_signs", None), ("standard_log", STANDARD)):
        with np.errstate(all="ignore"):
            result[name] = counted(judged(given.folder, given.set, only))
        print(f"{name}:")
        for part, found in result[name].items():
            if part not in ("faults", "tasks"):
                print(f"  {part}: {json.dumps(found)}")
        for fault, each in result[name]["faults"].items():
            print(
                f"  {fault:24s} {each['found']:3d} of {each['runs']:3d} found, {each['learned']:3d} learned: "
                f"{each['first']}"
            )
    if given.json:
        known = json.loads(given.json.read_text()) if given.json.exists() else {}
        given.json.write_text(json.dumps(known | {given.set: result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
