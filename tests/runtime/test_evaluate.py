"""Evaluation of a run of two seeds on recorded events in a closed loop: what it writes and what it says."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from runtime.recorded import frame, small_run, write

from phalanx.envs.export import simulate_table
from phalanx.errors import RunError
from phalanx.runtime.evaluate import evaluate
from phalanx.runtime.kept import load_committee
from phalanx.runtime.store import RunFolder, run_folders
from phalanx.runtime.task import build_task
from phalanx.runtime.train import RunConfig, train

DETECTION = ("tp", "tn", "fp", "fn", "precision", "recall", "f1", "mcc", "pr_auc", "base_rate")
RESPONSE = (
    "damage_prevented",
    "availability",
    "time_to_contain_s",
    "false_blocks_per_million",
    "alerts_per_day",
)
TEST_ROWS = 45  # 15 % of 300

pytestmark = pytest.mark.slow  # two seeds are trained and measured whole: about a minute


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    data = write(folder / "events.parquet", frame())
    out = folder / "seeds"
    train(small_run(data, env="replay", out=out, seeds=2, seed=7, iterations=2))
    return out


@pytest.fixture(scope="module")
def result(run: Path) -> dict[str, Any]:
    return json.loads(json.dumps(evaluate(run, episodes=4), allow_nan=False))


def test_seeds_train_side_by_side_in_folders_of_their_own(run: Path) -> None:
    folders = run_folders(run)
    assert [folder.path.name for folder in folders] == ["seed-0", "seed-1"]
    assert [folder.config()["seed"] for folder in folders] == [7, 8]
    assert [folder.config()["seeds"] for folder in folders] == [1, 1]
    assert [folder.config()["split_seed"] for folder in folders] == [7, 7], "one split for all seeds"
    newest = [(folder.path / "checkpoints" / "2.eqx").read_bytes() for folder in folders]
    assert newest[0] != newest[1]
    for folder in folders:
        assert [row["iteration"] for row in folder.read_metrics()] == [1, 2]
        assert (folder.path / "encoder.json").is_file()


def numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [n for each in value.values() for n in numbers(each)]
    if isinstance(value, list):
        return [n for each in value for n in numbers(each)]
    return [float(value)] if isinstance(value, int | float) else []


def test_the_result_has_the_keys_of_the_contract(result: dict[str, Any]) -> None:
    assert set(result) >= {
        *DETECTION,
        *RESPONSE,
        "threshold_source",
        "specs",
        "committee",
        "latency_ms",
        "per_seed",
    }
    assert set(result["committee"]) >= {"n", "f", "faulty", "agreement", "abstain", "error_correlation"}
    assert result["committee"]["n"] == 4 and result["committee"]["f"] == 1
    assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["p99"]
    assert result["threshold_source"] == "validation"
    assert all(math.isfinite(n) for n in numbers(result))
    assert isinstance(result["damage_prevented"], float) and isinstance(result["availability"], float)


def test_every_test_row_is_judged_once(result: dict[str, Any]) -> None:
    assert result["tp"] + result["fp"] + result["tn"] + result["fn"] == TEST_ROWS
    share = frame()["label"].to_numpy()[-TEST_ROWS:].mean()
    assert result["base_rate"] == pytest.approx(share)
    for seed in result["per_seed"]:
        assert sum(seed[name] for name in ("tp", "fp", "tn", "fn")) == TEST_ROWS


def test_seeds_are_averaged(result: dict[str, Any], run: Path) -> None:
    assert [seed["seed"] for seed in result["per_seed"]] == [7, 8], "those of training"
    assert "seed" not in result and result["evaluation_seed"] == 0
    for name in ("tp", "recall", "pr_auc", "damage_prevented", "availability"):
        values = [seed[name] for seed in result["per_seed"] if seed[name] is not None]
        assert result[name] == pytest.approx(np.mean(values))
    assert RunFolder.open(run).read_eval() == result
    for folder, seed in zip(run_folders(run), result["per_seed"], strict=True):
        own = folder.read_eval()
        assert own is not None and own["tp"] == seed["tp"]


def test_baselines_mark_the_ends_of_the_scale(result: dict[str, Any]) -> None:
    rows = result["baselines"]
    assert rows["always-allow"]["damage_prevented"] == pytest.approx(0)
    assert rows["oracle"]["damage_prevented"] == pytest.approx(1)
    assert rows["always-allow"]["recall"] == 0 and rows["always-block"]["recall"] == 1
    assert rows["always-allow"]["availability"] == 1


def test_a_checkpoint_that_is_not_the_operating_point_s_is_refused(run: Path, tmp_path: Path) -> None:
    folder = run_folders(run)[0]
    config = RunConfig.of(folder.config())
    env = build_task(config).test.watch
    point = folder.read_operating_point()
    _, found = load_committee(folder, config, env)
    assert found == point
    try:
        folder.write_operating_point({**point, "iteration": 99})
        with pytest.raises(RunError, match=r"operating point of 99.*--resume"):
            load_committee(folder, config, env)
    finally:
        folder.write_operating_point(point)


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run"):
        evaluate(tmp_path / "nowhere")


def test_a_committee_of_the_simulator_is_measured_on_a_table_that_it_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its critics were told the core state; recorded events have none, and no decision needs it."""
    monkeypatch.setattr("phalanx.runtime.yardstick._PROBE_EPISODES", 8)
    out = tmp_path / "run"
    train(RunConfig(iterations=1, envs=4, steps=16, hidden=8, memory=8, episode_events=64, out=out))
    table = tmp_path / "events.parquet"
    simulate_table(hosts=2, hours=0.3, campaigns=1).write(table)
    result = evaluate(out, data=table, episodes=4)
    assert result["events"] == len(pl.read_parquet(table)) and 0 <= result["pr_auc"] <= 1
    assert evaluate(out, episodes=4)["damage_prevented"] is not None
