"""Environments by name."""

from pathlib import Path

import numpy as np
import pytest
from envs.contract import check_contract
from runtime.recorded import frame, write

from phalanx.envs import make
from phalanx.envs.replay import ReplayEnv
from phalanx.envs.response import ResponseConfig
from phalanx.envs.simulator import Simulator
from phalanx.envs.stream import StreamEnv
from phalanx.errors import DataError, UsageError


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "events.parquet", frame())


def test_the_simulator_takes_its_settings() -> None:
    env = make("simulator", n_hosts=3, episode_events=7)
    assert isinstance(env, Simulator)
    assert (env.config.n_hosts, env.config.episode_events) == (3, 7)


@pytest.mark.parametrize(("name", "kind"), [("replay", ReplayEnv), ("stream", StreamEnv)])
def test_recorded_events_in_time_order_keep_the_contract(name: str, kind: type, data: Path) -> None:
    write(data, frame().sample(fraction=1.0, shuffle=True, seed=0))
    env = make(name, data=str(data), n_entities=8, episode_events=20)
    assert isinstance(env, ReplayEnv | StreamEnv) and isinstance(env, kind)
    assert env.events.n_rows == len(frame()) and env.spec.n_entities == 8
    times = frame()["time_ns"].to_numpy()
    np.testing.assert_allclose(env.events.time_s, (times - times[0]) / 1e9, rtol=1e-5)
    check_contract(env, n_steps=24, n_envs=3)


def test_a_quarantine_costs_what_it_silences_in_its_own_time_to_live(data: Path) -> None:
    short, long = (
        make("replay", data=data, response=ResponseConfig(quarantine_ttl_s=ttl)) for ttl in (2.0, 600.0)
    )
    assert isinstance(short, ReplayEnv) and isinstance(long, ReplayEnv)
    assert short.events.silence_loss.sum() < long.events.silence_loss.sum()


def test_features_are_those_named(data: Path) -> None:
    for features in (("size",), "size"):
        env = make("stream", data=[data], features=features)
        assert [column.name for column in env.spec.numeric if column.group != "context"] == ["size"]


def test_what_cannot_be_made_says_why(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"environment 'cage'; choose one of: simulator, replay, stream"):
        make("cage")
    with pytest.raises(UsageError, match=r"setting 'hosts'; choose one of: n_hosts"):
        make("simulator", hosts=3)
    with pytest.raises(UsageError, match="needs recorded events: give data=FILE"):
        make("replay")
    with pytest.raises(DataError, match="nothing"):
        make("replay", data=tmp_path / "nothing.parquet")
