"""Recorded events from the file to the figures, through the command line: ingest, train, evaluate."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from phalanx.cli import main

SETTINGS = {
    "envs": 8,
    "steps": 32,
    "hidden": 16,
    "memory": 8,
    "entities": 16,
    "episode-events": 32,
    "minibatches": 2,
    "eval-every": 8,
    "learning-rate": 0.01,
}
SMALL = [word for name, value in SETTINGS.items() for word in (f"--{name}", str(value))]


@pytest.fixture
def phalanx(capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a verb that must succeed; gives its JSON."""

    def run(*words: object) -> dict[str, Any]:
        capsys.readouterr()
        code = main([*map(str, words), "--json"])
        shown = capsys.readouterr()
        assert code == 0, shown.err
        return json.loads(shown.out)

    return run


def timed_events(rows: int = 1500) -> pl.DataFrame:
    """Six processes at a time; those that write below /tmp and connect are malicious, in bursts all over the time."""
    rng = np.random.default_rng(0)
    subject = np.arange(rows) // 60 * 6 + rng.integers(0, 6, rows)
    bad = (subject % 5 == 0) & (rng.random(rows) < 0.7)
    return pl.DataFrame(
        {
            "time_ns": (1_600_000_000 + np.arange(rows)) * 10**9,
            "subject": [f"p{s}" for s in subject],
            "kind": np.where(bad, "CONNECT", rng.choice(["READ", "WRITE"], rows)),
            "size": rng.normal(50, 10, rows) + 30 * bad,
            "label": bad.astype(np.int8),
        }
    )


def traces(folder: Path, number: int = 60) -> tuple[Path, Path]:
    """Two files in the form of ADFA-LD: system calls without times; attacks use calls 11 and 102 much more often."""
    rng = np.random.default_rng(1)
    attack = np.arange(number) % 3 == 0
    about = pl.DataFrame(
        {
            "trace_id": np.arange(number),
            "part": ["train"] * number,
            "attack_type": np.where(attack, "Adduser", "").tolist(),
            "attack_run": np.where(attack, np.arange(number) // 6, -1),
            "label": attack.astype(np.int8),
            "length": [30] * number,
        }
    )
    syscall = np.concatenate([rng.choice([11, 102, 3] if bad else [3, 4, 5, 102], 30) for bad in attack])
    calls = pl.DataFrame(
        {
            "trace_id": np.repeat(np.arange(number), 30),
            "step": np.tile(np.arange(30), number),
            "syscall": syscall,
        }
    )
    about.write_parquet(folder / "traces.parquet")
    calls.write_parquet(folder / "events.parquet")
    return folder / "traces.parquet", folder / "events.parquet"


def learned(result: dict[str, Any]) -> None:
    """The committee ranks the test part's events far better than chance, and its figures are those of one table."""
    counts = [result[name] for name in ("tp", "tn", "fp", "fn")]
    assert sum(counts) == result["events"]
    assert result["threshold_source"] == "validation"
    assert result["pr_auc"] > 0.5 + 0.5 * result["base_rate"]
    assert result["f1"] > result["baselines"]["always-block"]["f1"]
    assert result["baselines"]["gradient boosting"]["f1"] > 0.5


@pytest.mark.slow
def test_replay_from_an_ingested_table(tmp_path: Path, phalanx: Any) -> None:
    source, table, run = tmp_path / "source.csv", tmp_path / "events.parquet", tmp_path / "run"
    timed_events().write_csv(source)
    assert phalanx("ingest", source, "--out", table)["rows"] == 1500
    words = ("--data", table, "--env", "replay", "--iterations", 16, "--out", run)
    phalanx("train", *words, *SMALL)
    kept = json.loads((run / "config.json").read_text())
    assert kept["entropy_coef"] == 0.2 and kept["minibatches"] == 2 and kept["cell"] == "gru"
    result = phalanx("evaluate", run, "--episodes", 4)
    learned(result)
    assert result["events"] == 225 and "split by time" in result["notes"]
    assert result["availability"] > 0.5
    assert result["baselines"]["always-allow"]["damage_prevented"] == 0.0
    assert result["baselines"]["oracle"]["damage_prevented"] == 1.0


@pytest.mark.slow
def test_stream_of_order_only_traces_from_their_two_files(tmp_path: Path, phalanx: Any) -> None:
    about, calls = traces(tmp_path)
    run = tmp_path / "run"
    words = ("--data", about, calls, "--env", "stream", "--iterations", 16, "--out", run)
    phalanx("train", *words, *SMALL)
    result = phalanx("evaluate", run, "--episodes", 8)
    learned(result)
    assert "split by group" in result["notes"]
    assert any("order only" in note for note in result["notes"])
    assert result["damage_prevented"] is None  # a stream has no response to measure


def test_stream_of_flows_without_order_or_process(tmp_path: Path, phalanx: Any) -> None:
    rng = np.random.default_rng(2)
    bad = rng.random(600) < 0.3
    flows = pl.DataFrame(
        {
            "time_ns": np.zeros(600, np.int64),
            "subject": [f"flow-{i}" for i in range(600)],
            "kind": ["FLOW"] * 600,
            "src_bytes": rng.normal(100, 20, 600) + 80 * bad,
            "label": bad.astype(np.int8),
        }
    )
    known, other, run = tmp_path / "known.parquet", tmp_path / "other.parquet", tmp_path / "run"
    flows[:400].write_parquet(known)
    flows[400:].write_parquet(other)
    phalanx("train", "--data", known, "--env", "stream", "--iterations", 16, "--out", run, *SMALL)
    assert json.loads((run / "config.json").read_text())["cell"] == "none"
    learned(phalanx("evaluate", run))
    result = phalanx("evaluate", run, "--data", other)
    learned(result)
    assert result["events"] == 200


@pytest.mark.slow
@pytest.mark.shared
def test_slices_of_the_recorded_sets(tmp_path: Path, phalanx: Any, shared_data: Path) -> None:
    records = pl.read_parquet(shared_data / "darpa_trace_e5" / "records.parquet")
    flows = pl.read_parquet(shared_data / "nsl_kdd" / "train20.parquet")
    slices = {
        "replay": records.filter(pl.col("timestamp_ns") > 0).sort("timestamp_ns")[::50],
        "stream": flows[:3000],
    }
    for env, frame in slices.items():
        source, run = tmp_path / f"{env}.parquet", tmp_path / env
        frame.write_parquet(source)
        phalanx("train", "--data", source, "--env", env, "--iterations", 8, "--out", run, *SMALL)
        result = phalanx("evaluate", run, "--episodes", 2)
        assert result["pr_auc"] > 1.5 * result["base_rate"]
        assert result["baselines"]["gradient boosting"]["f1"] > 0.5
