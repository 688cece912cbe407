"""What keeps a node running: engines that live on without deciding, full disks, ends of many kinds."""

import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from phalanx.service.consensus import supervise
from phalanx.service.consensus.network import create_network
from phalanx.service.consensus.supervise import Supervised

DEADLINE_S = 120.0  # for machines with much else to do


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("net") / "n"
    create_network(where, 1)
    return where / "node0"


@pytest.fixture
def engine(tmp_path: Path) -> Callable[[str], Path]:
    def make(script: str) -> Path:
        path = tmp_path / "engine"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o700)
        return path

    return make


@pytest.fixture
def running(folder: Path) -> Iterator[Callable[[Path], Supervised]]:
    begun = []

    def start(engine: Path) -> Supervised:
        node = Supervised(folder, engine)
        begun.append(node)
        node.start()
        return node

    yield start
    for node in begun:
        node.stop(signal.SIGKILL)


def test_an_engine_that_lives_on_after_its_consensus_failed_is_started_anew(
    folder: Path, engine: Callable[[str], Path], running: Callable[[Path], Supervised], tmp_path: Path
) -> None:
    mark = tmp_path / "failed"
    once = f"if [ ! -e {mark} ]; then touch {mark}; echo 'E[...] CONSENSUS FAILURE!!! err=no space'; fi"
    node = running(engine(f"echo began\n{once}\nexec sleep 600"))
    until(lambda: node.pids[1] is not None)
    application, _ = node.pids
    until(lambda: node.restarts == 1 and node.pids[1] is not None)
    until(lambda: (folder / "engine.log").read_text().count("began\n") == 2)
    assert (folder / "engine.log").read_text().count("CONSENSUS FAILURE") == 1
    time.sleep(0.3)
    assert node.restarts == 1 and node.pids[0] == application


def test_on_a_full_disk_nothing_is_started_until_there_is_room(
    engine: Callable[[str], Path],
    running: Callable[[Path], Supervised],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    free = [0]
    monkeypatch.setattr(supervise, "_free", lambda folder: free[0])
    node = running(engine("exec sleep 600"))
    until(lambda: "Make room" in caplog.text)
    time.sleep(0.5)
    assert node.pids == (None, None) and caplog.text.count("Make room") == 1
    free[0] = 1 << 30
    until(lambda: None not in node.pids)
    assert node.restarts == 0


def test_a_node_that_waits_for_room_ends_when_it_is_told_to(
    engine: Callable[[str], Path], running: Callable[[Path], Supervised], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervise, "_free", lambda folder: 0)
    node = running(engine("exec sleep 600"))
    node.stop()
    assert node.pids == (None, None) and node.restarts == 0
