"""The doctor on files: the original's task with all its faults, the simulator's tables without them, and the verb."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from phalanx.cli import main
from phalanx.errors import DataError, UsageError
from phalanx.runtime.examine import Question, examine


def table(path: Path, n: int = 6000, **columns: Any) -> Path:
    rng = np.random.default_rng(0)
    bad = np.repeat(rng.random(n // 20) < 0.2, 20)
    frame = pl.DataFrame(
        {
            "time_ns": 10**18 + np.arange(n) * 10**9,
            "subject": [f"p{i}" for i in rng.integers(0, 50, n)],
            "kind": rng.choice(["READ", "WRITE", "EXECUTE"], n),
            "size": np.round(np.exp(rng.normal(3.0 * bad, 1.0)), 3),
            "bad": bad.astype(int),
            **columns,
        }
    )
    frame.write_parquet(path)
    return path


def by_symptom(findings: Any) -> dict[str, str]:
    return {finding.symptom: finding.severity for finding in findings}


@pytest.mark.shared
def test_the_original_task_has_every_fault_that_its_data_shows(shared_data: Path) -> None:
    figures, findings, _ = examine(
        Question((shared_data / "darpa_trace_e5" / "records.parquet",), label="is_suspicious")
    )
    assert by_symptom([f for f in findings if f.severity != "info"]) == {
        "unlearnable-observation": "error",
        "label-leak-by-position": "error",
        "label-is-a-rule": "warning",
        "actions-without-consequence": "warning",
        "constant-features": "warning",
        "split-ignores-time": "warning",
        "reward-scale": "warning",
        "spec-always-violated": "warning",
        "spec-ignores-actions": "warning",
        "too-few-members": "warning",
    }
    evidence = {f.symptom: f.evidence for f in findings if f.severity != "info"}
    assert evidence["label-leak-by-position"]["columns"] == ["sequence"]
    of_rule = set(evidence["label-is-a-rule"]["columns"])
    assert (
        "protection" in of_rule
        and of_rule & {"kind", "event_type"}
        and "7" in evidence["label-is-a-rule"]["rule"]
    )
    assert evidence["spec-always-violated"]["spec"] == "rates"
    assert evidence["spec-ignores-actions"]["spec"] == "resources"
    assert evidence["reward-scale"]["term"] == "penalty" and evidence["too-few-members"]["members"] == 3
    assert figures["reward_played"]["random"] == pytest.approx(-12.2, abs=0.5)
    assert evidence["constant-features"]["among_features"] == [
        "src_port",
        "dst_port",
        "ip_protocol",
        "process_ppid",
    ]
    assert figures["reward_by_constant"]["allow"] == pytest.approx(-0.202, abs=0.001)
    assert figures["reward_by_constant"]["block"] == pytest.approx(-7.533, abs=0.001)
    assert figures["reward_perfect"] == pytest.approx(1.819, abs=0.001)
    assert -0.202 < figures["reward_probe"] < -0.15 and figures["split"] == "stratified"


@pytest.mark.shared
def test_flows_that_any_classifier_tells_apart_are_learnable(shared_data: Path) -> None:
    figures, findings, _ = examine(Question((shared_data / "nsl_kdd" / "train20.parquet",), gamma=0.0))
    assert all(finding.severity == "info" for finding in findings)
    assert figures["probe_gain_share"] > 0.95


def test_a_table_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = table(tmp_path / "own.parquet")
    assert main(["doctor", "--data", str(file), "--label", "bad", "--gamma", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (
        found["healthy"]
        and found["task"]["features"] == ["kind", "size"]
        and found["task"]["split"] == "time"
    )
    assert (
        main(["doctor", "--data", str(file), "--label", "bad", "--features", "kind", "--split", "random"])
        == 1
    )
    shown = capsys.readouterr().out
    assert "NOT HEALTHY" in shown and "error: unlearnable-observation" in shown
    assert "warning: split-ignores-time" in shown and "docs/doctor.md#split-ignores-time" in shown


def test_a_reward_is_played_where_the_preset_has_one_to_play(tmp_path: Path) -> None:
    file = table(tmp_path / "own.parquet")
    played = {"reward-scale", "spec-always-violated", "spec-ignores-actions", "too-few-members"}
    figures, findings, _ = examine(Question((file,), label="bad", preset="original"))
    assert played <= set(by_symptom(findings)) and set(figures["reward_played"]) >= {"allow", "perfect"}
    for preset in (None, "default"):
        figures, findings, _ = examine(Question((file,), label="bad", preset=preset, gamma=0.0))
        assert not played & set(by_symptom(findings)) and "reward_played" not in figures


def test_a_copy_of_the_label_under_another_name_is_a_rule(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    bad = np.repeat(rng.random(300) < 0.2, 20)
    file = table(tmp_path / "copy.parquet", bad=bad.astype(int), verdict_of_av=np.where(bad, "hit", "clean"))
    _, findings, _ = examine(Question((file,), label="bad", gamma=0.0))
    rule = next(finding for finding in findings if finding.symptom == "label-is-a-rule")
    assert rule.evidence["columns"] == ["verdict_of_av"] and "verdict_of_av in {hit}" in rule.cause


def test_repeated_records_of_a_plain_table_are_found(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = [
        f"{a:.6f},{k},{int(bad)}"
        for a, k, bad in zip(
            rng.normal(size=2000), rng.choice(["a", "b"], 2000), rng.random(2000) < 0.3, strict=True
        )
    ]
    file = tmp_path / "plain.csv"
    file.write_text("amount,colour,bad\n" + "\n".join(rows * 3) + "\n")
    _, findings, _ = examine(Question((file,), label="bad", gamma=0.0))
    assert "duplicates-across-splits" in by_symptom([f for f in findings if f.severity == "warning"])


def test_truth_that_members_would_see_is_looked_at(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    bad = np.repeat(rng.random(300) < 0.2, 20)
    file = table(tmp_path / "t.parquet", bad=bad.astype(int), attack_cat=np.where(bad, "dos", "none"))
    hidden = examine(Question((file,), label="bad", gamma=0.0))[1]
    assert all(finding.severity == "info" for finding in hidden)
    seen = examine(Question((file,), label="bad", gamma=0.0, features=("attack_cat", "kind")))[1]
    assert "label-is-a-rule" in by_symptom(seen)


def test_bad_rows_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "torn.ndjson"
    good = [
        json.dumps({"time": i, "kind": "a", "size": float(i % 7), "bad": int(i % 5 == 0)}) for i in range(400)
    ]
    file.write_text("\n".join([*good, "{broken"]) + "\n")
    notes = examine(Question((file,), label="bad", split="stratified"))[2]
    assert "1 bad rows were left out" in notes


def test_what_cannot_be_examined_is_said(tmp_path: Path) -> None:
    file = table(tmp_path / "own.parquet")
    with pytest.raises(DataError, match="Name the column that holds the truth with --label"):
        examine(Question((file,)))
    with pytest.raises(UsageError, match="--gamma 2"):
        Question((file,), gamma=2.0)
    with pytest.raises(UsageError, match="--preset original is a stream"):
        Question((file,), preset="original", env="replay")
    with pytest.raises(UsageError, match="unknown preset"):
        Question((file,), preset="ppo")
    with pytest.raises(UsageError, match="truth itself"):
        examine(Question((file,), label="bad", features=("label",)))
