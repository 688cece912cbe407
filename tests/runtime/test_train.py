"""Training runs: what they write, what they survive, and what they must not see."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl
import pytest
from runtime.recorded import frame, small_run, write

from phalanx.analysis.doctor.finding import Finding
from phalanx.analysis.doctor.run import examine_run
from phalanx.analysis.logs import log_of_rows
from phalanx.errors import DataError, RunError, UsageError
from phalanx.runtime import train as training
from phalanx.runtime.config import RunConfig
from phalanx.runtime.evaluate import evaluate
from phalanx.runtime.fingerprint import check_unchanged, fingerprints
from phalanx.runtime.learner import iterate, learner_config
from phalanx.runtime.progress import Progress
from phalanx.runtime.store import RunFolder
from phalanx.runtime.train import initial_state, train

ALWAYS = {
    "iteration",
    "env_steps",
    "wall_s",
    "loss/value",
    "loss/policy",
    "value/explained_variance",
    "policy/entropy",
    "policy/approx_kl",
    "policy/first_ratio_error",
    "reward/episode",
    *(f"policy/rate_{name}" for name in ("allow", "alert", "block", "quarantine")),
}
EVALUATED = {f"eval/{name}" for name in ("tp", "tn", "fp", "fn", "precision", "recall", "f1")}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "events.parquet", frame())


class Recorded(Progress):
    """What a display is told."""

    shows_findings = True

    def __init__(self) -> None:
        self.recalled: list[Mapping[str, Any]] = []
        self.rows: list[Mapping[str, Any]] = []
        self.said: list[Sequence[Finding] | None] = []

    def recall(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.recalled += rows

    def diagnose(self, findings: Sequence[Finding] | None) -> None:
        self.said.append(findings)

    def update(self, row: Mapping[str, Any]) -> None:
        self.rows.append(row)


class Straight:
    """A run of six iterations without interruption."""

    def __init__(self, data: Path, out: Path) -> None:
        self.config = small_run(data, out=out)
        self.traces = 0
        original = training.iterate

        def counted(*arguments: Any) -> Any:
            self.traces += 1
            return original(*arguments)

        training.iterate = counted  # type: ignore[assignment]
        self.shown = Recorded()
        try:
            self.summary = train(self.config, progress=lambda total: self.shown)
        finally:
            training.iterate = original
        self.folder = RunFolder.open(out)


@pytest.fixture(scope="module")
def straight(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Straight:
    return Straight(data, tmp_path_factory.mktemp("runs") / "straight")


def checkpoint(folder: RunFolder) -> bytes:
    """The newest checkpoint's bytes: parameters, statistics, optimiser, keys, environments and memories."""
    newest = folder.checkpoints.iterations()[-1]
    return (folder.path / "checkpoints" / f"{newest}.eqx").read_bytes()


def untimed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "wall_s"} for row in rows]


def test_the_run_folder_is_complete(straight: Straight) -> None:
    path = straight.folder.path
    for name in ("config.json", "encoder.json", "operating_point.json", "metrics.jsonl"):
        assert (path / name).is_file(), name
    assert {file.name for file in (path / "checkpoints").iterdir()} == {
        "4.eqx",
        "6.eqx",
        "best.eqx",
        "manifest.json",
    }
    assert list((path / "tensorboard").iterdir())
    saved = straight.folder.config()
    assert RunConfig.of(saved).iterations == 6
    assert set(saved) == set(RunConfig.__dataclass_fields__), "all resolved values"
    assert saved["split_seed"] == saved["seed"] == 0
    point = straight.folder.read_operating_point()
    best = max(straight.folder.read_metrics(), key=lambda row: row.get("eval/f1") or -1)
    assert point["iteration"] == best["iteration"] and point["eval/f1"] == best["eval/f1"]


def test_the_display_is_told_each_iteration_and_what_the_doctor_says(straight: Straight) -> None:
    shown, rows = straight.shown, straight.folder.read_metrics()
    assert [row["loss/value"] for row in shown.rows] == [row["loss/value"] for row in rows]
    assert ["eval/f1" in row for row in shown.rows] == [False, True] * 3
    before, *said = shown.said
    assert not shown.recalled and before is None
    assert said[:3] == [None] * 3 and said[3] == said[4], (
        "the doctor looks every fourth iteration and at the end"
    )
    for at in (4, 6):
        found = examine_run(log_of_rows(straight.folder.path, rows[:at]), 6)
        assert [f.symptom for f in said[at - 1] or ()] == [f.symptom for f in found]


def test_metrics_have_the_keys_of_the_contract_and_no_number_that_is_not_one(straight: Straight) -> None:
    text = (straight.folder.path / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    rows = [json.loads(line) for line in text.splitlines()]
    assert [row["iteration"] for row in rows] == [1, 2, 3, 4, 5, 6]
    assert [row["env_steps"] for row in rows] == [64 * i for i in range(1, 7)]
    for row in rows:
        evaluated = row["iteration"] % 2 == 0
        assert set(row) >= ALWAYS and (set(row) >= EVALUATED) == evaluated
        assert all(isinstance(value, int | float | None) for value in row.values())
        for name in ("loss/value", "policy/entropy"):
            members = [row[f"member/{i}/{name}"] for i in range(4)]
            assert row[name] == pytest.approx(np.mean(members), rel=1e-6)
        assert sum(
            row[f"policy/rate_{v}"] for v in ("allow", "alert", "block", "quarantine")
        ) == pytest.approx(1)
        assert row["policy/first_ratio_error"] < 1e-5
        if evaluated:
            assert sum(row[f"eval/{name}"] for name in ("tp", "tn", "fp", "fn")) == 45  # 15 % of the rows


def test_all_iterations_share_one_compiled_program(straight: Straight) -> None:
    assert straight.traces == 1
    assert training.iterate is iterate


def test_the_summary_says_what_was_reached(straight: Straight) -> None:
    assert straight.summary["env_steps"] == 6 * 64
    assert straight.summary["run"] == str(straight.folder.path)
    point = straight.folder.read_operating_point()
    assert straight.summary["kept_iteration"] == [point["iteration"]]
    assert straight.summary["validation_f1"] == pytest.approx(point["eval/f1"])


class _Killed(Progress):
    """Ends the process's work in the middle of a run, after a row was written that no checkpoint holds."""

    def update(self, row: Mapping[str, Any]) -> None:
        if row["iteration"] == 3:
            raise KeyboardInterrupt


def test_a_resumed_run_is_the_uninterrupted_one_bit_for_bit(straight: Straight, tmp_path: Path) -> None:
    out = tmp_path / "resumed"
    with pytest.raises(KeyboardInterrupt):
        train(small_run(straight.config.data[0], out=out), progress=lambda total: _Killed())
    folder = RunFolder.open(out)
    assert [row["iteration"] for row in folder.read_metrics()] == [1, 2, 3]
    assert folder.checkpoints.iterations() == (2,)
    shown = Recorded()
    train(RunConfig.of(folder.config()), resume=out, progress=lambda total: shown)
    assert [row["iteration"] for row in shown.recalled] == [1, 2]
    assert [row["iteration"] for row in shown.rows] == [3, 4, 5, 6]
    assert untimed(folder.read_metrics()) == untimed(straight.folder.read_metrics())
    assert checkpoint(folder) == checkpoint(straight.folder)
    best = "checkpoints/best.eqx"
    assert (out / best).read_bytes() == (straight.folder.path / best).read_bytes()
    assert folder.read_operating_point() == straight.folder.read_operating_point()


def test_validation_and_test_rows_change_nothing_that_is_fitted_or_trained(
    straight: Straight, tmp_path: Path
) -> None:
    """The last 30 % of the rows, by time, are other events, of kinds never seen, their labels turned round."""
    table = frame()
    late = pl.int_range(pl.len()) >= 210
    other = table.with_columns(
        kind=pl.when(late).then(pl.lit("PTRACE")).otherwise("kind"),
        path=pl.when(late).then(pl.lit("/never/seen")).otherwise("path"),
        size=pl.when(late).then(1e6).otherwise("size"),
        label=pl.when(late).then(1 - pl.col("label")).otherwise("label"),
        campaign=pl.when(late).then(pl.lit("")).otherwise("campaign"),
    )
    out = tmp_path / "other"
    train(small_run(write(tmp_path / "other.parquet", other), out=out))
    folder = RunFolder.open(out)
    assert folder.read_encoder() == straight.folder.read_encoder()
    assert checkpoint(folder) == checkpoint(straight.folder)
    seen, unseen = (f.read_metrics()[-1] for f in (straight.folder, folder))
    assert {k: v for k, v in seen.items() if not k.startswith(("eval/", "wall_s"))} == {
        k: v for k, v in unseen.items() if not k.startswith(("eval/", "wall_s"))
    }
    assert seen["eval/tn"] != unseen["eval/tn"], "the validation rows did change"


_CHILD = """
import sys, time
from pathlib import Path
from runtime.recorded import small_run
from phalanx.runtime.progress import Progress
from phalanx.runtime.train import train

class Slow(Progress):
    def update(self, row):
        time.sleep(0.5)

train(small_run(Path(sys.argv[1]), out=Path(sys.argv[2])), progress=lambda total: Slow())
"""


def test_a_kill_loses_at_most_what_followed_the_last_checkpoint(straight: Straight, tmp_path: Path) -> None:
    out, tests = tmp_path / "killed", Path(__file__).resolve().parents[1]
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(tests.parent / ".cache" / "jax"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    child = subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(straight.config.data[0]), str(out)],
        env={**os.environ, **cache, "PYTHONPATH": str(tests)},
    )
    try:
        until = time.monotonic() + 120
        while time.monotonic() < until and child.poll() is None:
            path = out / "metrics.jsonl"
            if path.exists() and path.read_bytes().count(b"\n") >= 3:
                break
            time.sleep(0.01)
        assert child.poll() is None, "the run ended by itself"
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    folder = RunFolder.open(out)
    rows = folder.read_metrics()
    kept = folder.checkpoints.iterations()[-1]
    assert 3 <= len(rows) < 6 and 0 <= len(rows) - kept <= 2
    train(RunConfig.of(folder.config()), resume=out)
    assert untimed(folder.read_metrics()) == untimed(straight.folder.read_metrics())
    assert checkpoint(folder) == checkpoint(straight.folder)


def test_a_kill_between_the_folders_of_the_seeds_is_resumed(data: Path, tmp_path: Path) -> None:
    """The parent is there and one seed of two."""
    config = small_run(data, seeds=2, iterations=2)
    train(dataclasses.replace(config, out=tmp_path / "whole"))
    saved = dataclasses.replace(config, out=tmp_path / "killed").resolved
    RunFolder.create(tmp_path / "killed", saved.to_dict())
    own = dataclasses.replace(saved, seeds=1, out=tmp_path / "killed" / "seed-0")
    RunFolder.create(tmp_path / "killed" / "seed-0", own.to_dict())
    train(saved, resume=tmp_path / "killed")
    for index in range(2):
        whole, resumed = (
            RunFolder.open(tmp_path / name).seed_path(index) / "metrics.jsonl" for name in ("whole", "killed")
        )
        assert untimed(list(map(json.loads, whole.read_text().splitlines()))) == untimed(
            list(map(json.loads, resumed.read_text().splitlines()))
        )


def test_a_run_s_data_must_be_what_it_was(tmp_path: Path) -> None:
    """Other rows in the file would be split anew: rows already learned from would be called test rows."""
    data = write(tmp_path / "events.parquet", frame())
    config = small_run(data, iterations=2, out=tmp_path / "run")
    train(config)
    assert list(RunFolder.open(tmp_path / "run").read_data()) == [str(data)]
    later = write(tmp_path / "later.parquet", frame(1))
    write(data, frame(2))
    for refused in (lambda: evaluate(tmp_path / "run"), lambda: train(config, resume=tmp_path / "run")):
        with pytest.raises(RunError, match=r"events.parquet: not the data that the run was trained on"):
            refused()
    result = evaluate(tmp_path / "run", data=later, episodes=2)
    assert any("no baselines" in note and "SHA-256 differs" in note for note in result["notes"])


def test_a_run_does_not_go_back(straight: Straight) -> None:
    with pytest.raises(UsageError, match=r"--iterations 4: the run has done 6 already"):
        train(dataclasses.replace(straight.config, iterations=4), resume=straight.folder.path)


def test_of_a_folder_the_files_that_are_read_must_not_change(tmp_path: Path) -> None:
    """The run may lie in the folder of its data, and other files may come and go; data files and the map may not."""
    folder = tmp_path / "logs"
    folder.mkdir()
    write(folder / "events.parquet", frame())
    mapping = tmp_path / "map.json"
    mapping.write_text("{}")
    known = fingerprints((folder, mapping))
    assert sorted(Path(name).name for name in known) == ["events.parquet", "map.json"]
    (folder / "run").mkdir()
    (folder / "run" / "metrics.jsonl").write_text("{}")
    (folder / "README").write_text("mine")
    (folder / "events.rejects.jsonl").write_text("{}")
    check_unchanged(known, (folder, mapping))
    mapping.write_text('{"size": "bytes"}')
    with pytest.raises(RunError, match="map.json: not the data"):
        check_unchanged(known, (folder, mapping))
    mapping.write_text("{}")
    write(folder / "more.parquet", frame(1))
    with pytest.raises(RunError, match="more.parquet: not the data"):
        check_unchanged(known, (folder, mapping))
    (folder / "more.parquet").unlink()
    (folder / "events.parquet").unlink()
    with pytest.raises(DataError, match="no data file in this folder"):
        check_unchanged(known, (folder, mapping))


@pytest.mark.parametrize(("envs", "expected"), [(64, 16), (24, 12), (3, 1)])
def test_every_minibatch_holds_environments_of_both_kinds(envs: int, expected: int) -> None:
    """Where verdicts are only logged the critic learns nothing: minibatches of such environments alone say loss 0."""
    learner = learner_config(RunConfig(envs=envs))
    assert learner.n_shadow == round(envs / 2) and learner.ppo.minibatches == expected
    assert learner_config(RunConfig(envs=envs, shadow=0.0)).ppo.minibatches == min(16, envs)


def test_training_validation_and_test_draw_from_keys_of_their_own(data: Path) -> None:
    """Keys that a split and a fold-in give alike would let validation repeat what training drew."""
    config = small_run(data)
    state = initial_state(config, training.build_task(config))
    root = jax.random.key(config.seed)
    others = [jax.random.fold_in(root, stream) for stream in range(4)]
    assert not any(bool((state.key[0] == other).all()) for other in others)


# Settings that cannot work


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"members": 3, "faults": 1}, r"3 members tolerate 0.*--members 4"),
        ({"views": ("full",)}, r"--views names 1 views for 4 members"),
        ({"views": ("full", "full", "full", "eye")}, r"view 'eye'.*network"),
        ({"iterations": 0}, r"--iterations 0: expected 1 or more"),
        ({"seeds": 0}, r"--seeds 0"),
        ({"checkpoint_every": 0}, r"--checkpoint-every 0"),
        ({"episode_events": 0}, r"--episode-events 0"),
        ({"gamma": 1.5}, r"--gamma 1.5: expected a number from 0 to 1"),
        ({"lam": -0.1}, r"--lam -0.1"),
        ({"average": 1.5}, r"--average 1.5: expected a number from 0 to 1"),
        ({"reward_scale": 0.0}, r"--reward-scale 0"),
        ({"learning_rate": 0.0}, r"--learning-rate 0"),
        ({"epochs": 0}, r"--epochs 0: expected 1 or more"),
        ({"minibatches": 0}, r"--minibatches 0"),
        ({"hidden": 0}, r"--hidden 0"),
        ({"reward_scale": float("nan")}, r"--reward-scale nan"),
        ({"horizon": 1.0}, r"--horizon 1.0: expected more than 1"),
        ({"shadow": 1.0}, r"--shadow 1.0"),
        ({"env": "simulator"}, r"--data is for --env replay or stream"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_a_remedy(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        small_run(Path("events.parquet"), **changes)


def test_recorded_environments_need_data_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--env replay needs recorded events: give --data"):
        train(RunConfig(env="replay", out=tmp_path / "run"))
    with pytest.raises(DataError):
        train(RunConfig(env="stream", data=(tmp_path / "none.parquet",), out=tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_a_folder_in_use_and_a_run_that_is_none_are_named(data: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty"):
        train(small_run(data, out=tmp_path / "run"))
    with pytest.raises(RunError, match="no such run"):
        train(small_run(data), resume=tmp_path / "nowhere")


def test_settings_survive_their_file(data: Path, tmp_path: Path) -> None:
    config = small_run(data, out=tmp_path, views=("full", "process", "file", "network"), features=("kind",))
    saved = json.loads(json.dumps(config.to_dict()))
    assert RunConfig.of(saved) == config
    with pytest.raises(RunError, match="holds speed, unknown to this version"):
        RunConfig.of({**saved, "speed": 1})


def test_members_that_learn_apart_resume_bit_for_bit_and_seeds_side_by_side_are_runs_of_their_own(
    data: Path, tmp_path: Path
) -> None:
    """A run of two seeds, one of the second seed alone, and that one killed and resumed."""
    config = small_run(data, rollouts="apart", iterations=4, seed=1, split_seed=0)
    found = train(dataclasses.replace(config, out=tmp_path / "alone"))
    assert found["env_steps"] == 4 * 4 * 4 * 16
    alone = RunFolder.open(tmp_path / "alone")
    wall_s = [row["wall_s"] for row in alone.read_metrics()]
    assert found["iteration_s"] == pytest.approx(float(np.median(np.diff(wall_s))))
    assert found["agent_steps_per_s"] == pytest.approx(4 * 4 * 16 / found["iteration_s"])
    with pytest.raises(KeyboardInterrupt):
        train(dataclasses.replace(config, out=tmp_path / "killed"), progress=lambda total: _Killed())
    killed = RunFolder.open(tmp_path / "killed")
    train(RunConfig.of(killed.config()), resume=tmp_path / "killed")
    assert untimed(killed.read_metrics()) == untimed(alone.read_metrics())
    assert checkpoint(killed) == checkpoint(alone)

    train(dataclasses.replace(config, seed=0, seeds=2, out=tmp_path / "both"))
    second = RunFolder.open(RunFolder.open(tmp_path / "both").seed_path(1)).read_metrics()
    one, other = untimed(alone.read_metrics())[0], untimed(second)[0]  # later, rounding parts them
    assert set(one) == set(other)
    for name, value in one.items():
        assert value == other[name] or value == pytest.approx(other[name], rel=1e-2, abs=1e-3), name


def test_what_a_member_alone_does_not_know_does_not_hide_what_the_others_do() -> None:
    metrics = {"reward/episode": np.array([[np.nan, -2.0, -4.0, np.nan]]), "x": np.array([[np.nan, np.nan]])}
    row = training._rows(RunConfig(), metrics, 1, 0.0)[0]
    assert row["reward/episode"] == -3.0 and np.isnan(row["x"]) and np.isnan(row["member/0/reward/episode"])
