"""Run folders for the tests of the report, as training and evaluation write them."""

import json
import math
import random
from pathlib import Path
from typing import Any

__all__ = ["CURVES", "evaluation", "write_run"]

CURVES = 9
"""Figures over the iterations that a complete log leads to."""


def _row(at: int, rng: random.Random) -> dict[str, Any]:
    done = 1.0 - math.exp(-at / 40)
    plain = {
        "loss/value": 1.0 - 0.6 * done,
        "value/explained_variance": 0.6 * done,
        "policy/rate_allow": 0.25 + 0.6 * done,
        "policy/rate_alert": 0.25 - 0.2 * done,
        "policy/rate_block": 0.25 - 0.2 * done,
        "policy/rate_quarantine": 0.25 - 0.2 * done,
        "policy/entropy": 1.386 - done,
        "policy/approx_kl": 0.01 + 0.003 * rng.random(),
        "policy/first_ratio_error": 2e-6,
    }
    members = {
        f"member/{m}/{key}": value + 0.01 * rng.random() for key, value in plain.items() for m in range(4)
    }
    rest = {
        "reward/episode": -180 + 150 * done,
        "policy/pivotal_rate": 0.4 - 0.2 * done,
        "eval/f1": 0.8 * done,
    }
    return {"iteration": at, "env_steps": 1000 * at, **plain, **members, **rest}


def _course(stopped: bool) -> dict[str, list[Any]]:
    damage = [float(min(i, 30) if stopped else i) for i in range(60)]
    verdict = [1 if stopped and i == 10 else 3 if stopped and i == 30 else 0 for i in range(60)]
    stage = ["<img src=x onerror=alert(1)>" if i > 5 else -1 for i in range(60)]
    return {
        "event": list(range(60)),
        "cumulative_damage": damage,
        "verdict": verdict,
        "label": [1] * 60,
        "stage": stage,
    }


def evaluation(f1: float = 0.9) -> dict[str, Any]:
    """What ``eval.json`` holds."""
    return {
        **{
            "tp": 812,
            "fn": 113,
            "fp": 74,
            "tn": 48211,
            "precision": 0.916,
            "recall": 0.878,
            "f1": f1,
            "mcc": 0.89,
        },
        **{"pr_auc": 0.93, "base_rate": 0.0188, "damage_prevented": 0.91, "availability": 0.9987},
        **{"time_to_contain_s": 41.2, "false_blocks_per_million": 312.0, "alerts_per_day": 18.4},
        "threshold_source": "validation",
        "baselines": {
            "always-allow": {"f1": 0.0, "availability": 1.0},
            "<script>boom()</script>": {"f1": 0.6},
            "oracle": {"f1": 1.0},
        },
        "course": {"committee": _course(True), "always-allow": _course(False)},
        "specs": {"G(x > 0)": {"satisfied": True, "robustness_min": 0.4}},
        "committee": {
            "n": 4,
            "f": 1,
            "faulty": 0,
            "agreement": 0.93,
            "abstain": 0.0,
            "error_correlation": None,
        },
        "latency_ms": {"p50": 1.2, "p99": 4.8},
        "shield": {"file": "shield", "names": ["a"], "apart": [], "changed": 0.031},
    }


def write_run(folder: Path, *, seed: int = 0, iterations: int = 40, f1: float | None = 0.9) -> Path:
    """Writes a complete run folder; without ``f1``, one that was not evaluated."""
    rng = random.Random(seed)
    folder.mkdir(parents=True)
    rows = [json.dumps(_row(at, rng)) for at in range(1, iterations + 1)]
    (folder / "metrics.jsonl").write_text("\n".join(rows) + "\n")
    config = {
        "preset": "default",
        "env": {"name": "simulator"},
        "seed": seed,
        "note": "<script>boom()</script>",
    }
    (folder / "config.json").write_text(json.dumps(config))
    if f1 is not None:
        (folder / "eval.json").write_text(json.dumps(evaluation(f1)))
    return folder
