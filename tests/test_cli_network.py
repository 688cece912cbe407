"""The command lines of networks: what is refused before anything is made, status."""

import json
from pathlib import Path

import pytest

from phalanx.cli import main
from phalanx.cli_up import Up
from phalanx.service.consensus import join
from phalanx.service.consensus.network import create_network
from phalanx.service.consensus.node import NodeFile


def said(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    assert main([str(each) for each in arguments]) == code
    shown = capsys.readouterr()
    if code >= 2:
        assert shown.out == "" and shown.err.startswith("phalanx: error: ") and shown.err.count("\n") == 1
    return shown.err if code >= 2 else shown.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["up"], "Name a run"),
        (["up", "runs/none", "--quorum-s", "0"], "expected above 0"),
        (["up", "runs/none", "--listen", "::"], "goes with --join"),
        (["up", "runs/none", "--port", "65536"], "expected 0 to 65535"),
        (["up", "--new-token", "ann", "--scope", "read"], "--tokens FILE"),
        (["up", "runs/none", "--new-token", "ann", "--scope", "read"], "no network yet"),
        (["network", "status"], "expected NETWORK"),
        (["network", "replace", "net"], "expected NETWORK MEMBER"),
        (["network", "status", "net", "--why", "x"], "goes with replace and propose"),
        (["network", "adopt", "a", "b", "--host", "x"], "goes with propose"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in said(capsys, 2, *arguments)


def test_without_an_engine_up_says_how_to_get_one_and_makes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHALANX_COMETBFT", str(tmp_path / "none"))
    assert "scripts/build-cometbft" in said(capsys, 2, "up", tmp_path / "run", "--nodes", 4)
    assert not (tmp_path / "run-net").exists()


@pytest.mark.network
def test_a_run_that_is_none_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "run" in said(capsys, 3, "up", tmp_path / "run")
    assert not (tmp_path / "run-net").exists()


@pytest.mark.network
def test_the_status_of_a_network_that_does_not_run_is_a_finding(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "n"
    create_network(folder, 4)
    told = json.loads(said(capsys, 1, "network", "status", folder, "--json"))
    assert told["answering"] == 0 and told["nodes"] == {f"node{i}": None for i in range(4)}
    assert "0 of 4 nodes answer, a decision needs 3" in said(capsys, 1, "network", "status", folder)
    assert "nothing was decided yet" in said(
        capsys, 2, "network", "replace", folder, "node2", "--why", "a drill"
    )
    assert "no member" in said(capsys, 2, "network", "replace", folder, "node9")


def test_a_network_over_hosts_is_made_and_each_host_joins_with_its_own_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Up, "_members", lambda self, run: 4)
    joined: list[tuple[Path, str | None]] = []
    monkeypatch.setattr(join, "join", lambda folder, listen: joined.append((folder, listen)))
    hosts = [f"10.0.0.{i}" for i in range(1, 5)]
    folder = tmp_path / "net"
    shown = said(capsys, 0, "up", "runs/a", "--folder", folder, "--hosts", *hosts, "--slots", 2048)
    assert f"10.0.0.3:  phalanx up RUN --join node2   # {folder}/node2" in shown
    assert shown.rstrip().endswith(f"phalanx up runs/a --folder {folder}")
    assert "is there already" in said(capsys, 2, "up", "runs/a", "--folder", folder, "--hosts", *hosts)
    moved = tmp_path / "elsewhere"
    (folder / "node2").rename(moved)
    assert "has ended" in said(capsys, 0, "up", tmp_path / "b", "--join", moved, "--listen", "0.0.0.0")
    assert joined == [(moved, "0.0.0.0")]
    options = NodeFile.load(moved).options
    assert options == {"run": str(tmp_path / "b"), "batch": 256, "slots": 2048}  # what it remembers stays
    assert "begun with --slots 2048" in said(capsys, 2, "up", "runs/a", "--join", moved, "--slots", 64)
    assert NodeFile.load(moved).options == options
    monkeypatch.setattr(Up, "_members", lambda self, run: 7)
    assert "has 7 members" in said(capsys, 2, "up", "runs/a", "--join", moved)


@pytest.mark.network
def test_two_commands_do_not_run_one_network(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Up, "_members", lambda self, run: 4)
    folder = tmp_path / "n"
    create_network(folder, 4)
    before = (folder / "node0" / "node.json").read_bytes()
    with join.alone(folder, "this network's gateway"):
        assert "another process runs" in said(capsys, 2, "up", "runs/a", "--folder", folder, "--port", 0)
    assert (folder / "node0" / "node.json").read_bytes() == before
