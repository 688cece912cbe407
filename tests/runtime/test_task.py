"""The parts of a task: which rows are where, and what is fitted on which."""

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from runtime.recorded import frame, small_run, write

from phalanx.data.readers import read_events
from phalanx.envs.replay import ReplayEnv
from phalanx.envs.simulator import Simulator
from phalanx.envs.stream import StreamEnv
from phalanx.errors import UsageError
from phalanx.runtime.config import RunConfig
from phalanx.runtime.task import build_task, data_part


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "events.parquet", frame())


def labels(part) -> list[int]:
    return np.asarray(part.encoded.label).tolist()


def test_the_parts_are_the_rows_in_time_order(data: Path) -> None:
    task = build_task(small_run(data))
    expected = frame()["label"].to_list()
    parts = [labels(part) for part in (task.train, task.validation, task.test)]
    assert [len(part) for part in parts] == [210, 45, 45]
    assert sum(parts, []) == expected
    assert isinstance(task.learn, StreamEnv) and task.train.act is None
    assert any("split by time" in note for note in task.notes)


def test_rows_in_any_order_make_the_same_parts(data: Path, tmp_path: Path) -> None:
    shuffled = frame().sample(fraction=1.0, shuffle=True, seed=1)
    one, other = (
        build_task(small_run(path)) for path in (data, write(tmp_path / "shuffled.parquet", shuffled))
    )
    for name in ("train", "validation", "test"):
        np.testing.assert_array_equal(labels(getattr(one, name)), labels(getattr(other, name)))


def test_replay_learns_in_the_closed_loop_of_the_training_rows(data: Path) -> None:
    task = build_task(small_run(data, env="replay"))
    assert isinstance(task.learn, ReplayEnv) and task.learn is task.train.act
    assert task.learn.events.n_rows == 210
    assert task.learn.spec == task.train.watch.spec == task.test.watch.spec


def test_the_encoder_of_a_run_is_not_fitted_again(data: Path, tmp_path: Path) -> None:
    fitted = build_task(small_run(data)).encoder
    other = write(tmp_path / "other.parquet", frame().with_columns(kind=pl.lit("FORK"), size=pl.lit(1e5)))
    again = build_task(small_run(other), fitted)
    assert again.encoder is fitted
    unknown = np.asarray(again.test.encoded.category)  # type: ignore[union-attr]
    names = [column.name for column in fitted.spec(8).categorical]
    assert (unknown[:, names.index("kind")] == 0).all(), "a kind never seen in training"


def test_another_file_is_measured_on_in_full(data: Path, tmp_path: Path) -> None:
    config = small_run(data, env="replay")
    task = build_task(config)
    part, _ = data_part(config, task.encoder, write(tmp_path / "new.parquet", frame(5)))
    assert labels(part) == frame(5)["label"].to_list()
    assert part.act is not None and part.watch.spec == task.test.watch.spec
    assert len(read_events(data).table) == 300


def test_the_simulator_needs_no_data() -> None:
    task = build_task(RunConfig(episode_events=32))
    assert isinstance(task.learn, Simulator) and task.learn.config.episode_events == 32
    assert task.test.act is task.test.watch is task.learn


@pytest.mark.parametrize("env", ["replay", "stream"])
def test_recorded_environments_ask_for_their_data(env: str) -> None:
    with pytest.raises(UsageError, match=f"--env {env} needs recorded events: give --data FILE"):
        build_task(RunConfig(env=env))  # type: ignore[arg-type]
