"""Asks the doctor about every run that ``runs.py`` made, and counts."""

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from faults import TEST_FAULTS, TUNING_FAULTS

from phalanx.analysis.doctor import examine_run
from phalanx.analysis.logs import Series, TrainingLog

STANDARD = (
    "loss/value",
    "loss/policy",
    "policy/entropy",
    "policy/approx_kl",
    "policy/clip_fraction",
    "value/explained_variance",
    "reward/episode",
)
"""What Stable-Baselines3 and CleanRL log."""


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
    """By how much each run's reward rose, from its first three rows to its last tenth."""
    reward = metrics["reward/episode"]
    tail = max(reward.shape[1] // 10, 3)
    with np.errstate(all="ignore"):
        return np.nan_to_num(np.nanmean(reward[:, -tail:], 1) - np.nanmean(reward[:, :3], 1), nan=-np.inf)


def judged(folder: Path, which: str, only: tuple[str, ...] | None) -> list[dict[str, Any]]:
    """A record a run: what was planted, what was found, when, and whether the run learned."""
    faults = TEST_FAULTS if which == "test" else TUNING_FAULTS
    records = []
    for file in sorted(folder.glob("*.npz")):
        with np.load(file) as held:
            about = json.loads(str(held["about"]))
            metrics = {name: held[name] for name in held.files if name != "about"}
        gain = gains(metrics)
        healthy = np.array([not fault for fault in about["planted"]])
        usual = np.median(gain[healthy])
        for run, fault in enumerate(about["planted"]):
            found = examine_run(as_log(file.stem, metrics, run, only))
            grave = [f for f in found if f.severity != "info"]
            onset, budget = about["onset"][run], metrics["env_steps"].shape[1]
            right = [f for f in grave if fault and f.symptom in faults[fault].symptoms]
            after = [f for f in grave if (f.iteration or 0) > onset]
            records.append(
                {
                    "task": about["task"],
                    "file": file.stem,
                    "run": run,
                    "fault": fault,
                    "onset": onset,
                    "learned": bool(gain[run] >= 0.5 * usual),
                    "found": [(f.symptom, f.severity, f.iteration) for f in grave],
                    "flagged": bool(after if fault else grave),
                    "right_cause": bool(grave and right and grave[0] is right[0]),
                    "delay": min(((f.iteration or 0) - onset for f in after), default=None),
                    "budget": budget,
                    "hyper": about["hyper"][run],
                }
            )
    return records


def interval(k: int, n: int) -> tuple[float, float]:
    """Exact 95 % binomial interval (Clopper and Pearson 1934)."""
    from scipy.stats import beta

    low = 0.0 if k == 0 else float(beta.ppf(0.025, k, n - k + 1))
    high = 1.0 if k == n else float(beta.ppf(0.975, k + 1, n - k))
    return low, high


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--set", choices=["tuning", "test"], required=True)
    parser.add_argument("--standard", action="store_true", help="only what other tools log, too")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    records = judged(given.folder, given.set, STANDARD if given.standard else None)
    healthy = [r for r in records if not r["fault"] and r["learned"]]
    alarmed = [r for r in healthy if r["flagged"]]
    print(
        f"healthy runs that learned: {len(healthy)}, alarms {len(alarmed)}",
        interval(len(alarmed), max(len(healthy), 1)),
    )
    for r in alarmed:
        print("   ", r["file"], r["run"], r["found"][:3])
    unlucky = [r for r in records if not r["fault"] and not r["learned"]]
    print(f"unplanted that did not learn: {len(unlucky)}, flagged {sum(r['flagged'] for r in unlucky)}")
    faulty = [r for r in records if r["fault"]]
    hurt = [r for r in faulty if not r["learned"]]
    for name, group in (("all faulty", faulty), ("faulty that did not learn", hurt)):
        k, c = sum(r["flagged"] for r in group), sum(r["right_cause"] for r in group)
        delays = [r["delay"] / r["budget"] for r in group if r["delay"] is not None]
        n = max(len(group), 1)
        print(
            f"{name}: {len(group)}, recall {k / n:.3f} {interval(k, n)}, top cause {c / n:.3f}, median delay "
            f"{np.median(delays) if delays else float('nan'):.3f}"
        )
    by = defaultdict(list)
    for r in faulty:
        by[r["fault"]].append(r)
    for fault, group in by.items():
        tops = Counter(r["found"][0][0] if r["found"] else "-" for r in group)
        print(
            f"  {fault:24s} n {len(group):3d} learned {sum(r['learned'] for r in group):3d} flagged "
            f"{sum(r['flagged'] for r in group):3d} right {sum(r['right_cause'] for r in group):3d}  "
            + ", ".join(f"{name} {count}" for name, count in tops.most_common(5))
        )
    if given.json:
        given.json.write_text(json.dumps(records))


if __name__ == "__main__":
    main()
