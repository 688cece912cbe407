"""Real networks: four engines, four applications, a gateway, an enforcer; members killed at every boundary."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from consensus.fake_engine import events

from phalanx.errors import DataError, UsageError
from phalanx.service.consensus.audit import votes_flaw
from phalanx.service.consensus.crash import CRASH_VARIABLE, crashing
from phalanx.service.consensus.member import DrillMember
from phalanx.service.consensus.network import Network, create_network
from phalanx.service.consensus.node import NodeFile, main
from phalanx.service.ledger_entry import Entry
from phalanx.service.ledger_files import read_entries
from phalanx.service.ledger_verify import verify_ledger

KINDS = (
    "info",
    "init_chain",
    "check_tx",
    "prepare_proposal",
    "process_proposal",
    "extend_vote",
    "verify_vote_extension",
    "finalize_block",
    "commit",
)


class Answers:
    """Answers nothing."""

    def handle(self, kind: str, request: object) -> None:
        """See ``server.Handler``."""


def alive(pid: int | None) -> bool:
    if pid is None:
        return False
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


def heads_agree(network: Network, height: int, wait_s: float = 30.0) -> None:
    """Waits until every node has an entry, and checks that it is the same one and that all verify."""
    deadline = time.monotonic() + wait_s
    while True:
        told = [status for status in network.status().values() if status is not None]
        if len(told) == network.chain.n and all(status["ledger"] >= height for status in told):
            break
        assert time.monotonic() < deadline, told
        time.sleep(0.05)
    folders = [network.folder / member.name / "ledger" for member in network.chain.members]
    ledgers = [[entry.hash for entry in read_entries(folder)][:height] for folder in folders]
    assert all(ledger == ledgers[0] for ledger in ledgers)
    for entry in read_entries(folders[0]):
        assert votes_flaw(entry, network.chain.keys) is None
    for folder in folders:
        assert not verify_ledger(folder, network.chain.keys, needed=1).findings


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    folder = tmp_path_factory.mktemp("net") / "n"
    create_network(folder, 4, options={"dissent": 0.5})
    network = Network(folder)
    network.start()
    yield network
    pids = [pid for node in network.nodes for pid in node.pids]
    network.stop()
    assert not any(map(alive, pids)), "a process outlived its network"


@pytest.mark.network
def test_four_nodes_decide_as_their_members_vote(four: Network) -> None:
    for batch in range(3):
        happened = events(batch, 16)
        decisions = four.decisions(happened)
        for event, decision in zip(happened, decisions, strict=True):
            own = [DrillMember(f"node{i}", 0.5).votes([event])[0] for i in range(4)]
            assert decision.event_id == event.id and decision.tolerates == 1
            assert [v is None or v == w for v, w in zip(decision.votes, own, strict=True)] == [True] * 4
            assert sum(vote is not None for vote in decision.votes) >= 3
    heads_agree(four, 1)


@pytest.mark.network
def test_one_member_killed_changes_nothing_and_comes_back(four: Network, tmp_path: Path) -> None:
    acted: list[Entry] = []
    victim = four.nodes[2]
    with four.enforcer(acted.append) as enforcer:
        victim.send(signal.SIGKILL)  # it is started again, and fetches what it missed
        answers = [four.submit(events(100 + batch)) for batch in range(6)]
        assert all(len(answer.result(60)) == 4 for answer in answers)
        deadline = time.monotonic() + 60
        while victim.restarts == 0 or None in victim.pids:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        four.wait(4)
        four.decisions(events(110))
        height = max(status["ledger"] for status in four.status().values() if status)
        heads_agree(four, height)
        while enforcer.height < height:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    digests = [entry.body["digest"] for entry in acted]
    assert len(digests) == len(set(digests)) == height
    assert not verify_ledger(four.folder / "enforcer", four.chain.keys).findings
    assert not enforcer.evidence


@pytest.mark.network
@pytest.mark.slow
def test_no_process_outlives_whoever_started_it(tmp_path: Path) -> None:
    """The network's own process is killed; its nodes end by themselves."""
    import subprocess
    import sys

    program = """
import sys, time
from pathlib import Path
from phalanx.service.consensus.network import Network, create_network
folder = Path(sys.argv[1])
create_network(folder, 1)
network = Network(folder)
network.start()
print(*network.nodes[0].pids, flush=True)
time.sleep(600)
"""
    starter = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path / "n")], stdout=subprocess.PIPE, text=True
    )
    with starter:
        assert starter.stdout is not None
        pids = [int(pid) for pid in starter.stdout.readline().split()]
        assert len(pids) == 2 and all(map(alive, pids))
        starter.kill()
    deadline = time.monotonic() + 20
    while any(map(alive, pids)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def crashed_and_back(folder: Path, place: str) -> None:
    """Kills a node's application at a place between it and its engine, under load, and waits for it to come back."""
    create_network(folder, 4, window=64)
    network = Network(folder, {3: {CRASH_VARIABLE: place}})
    acted: list[str] = []
    mark = folder / "node3" / "drill.crashed"
    with network, network.enforcer(lambda entry: acted.append(entry.body["digest"])) as enforcer:
        deadline = time.monotonic() + 60
        batch = 0
        while not mark.exists() or batch < 4:
            assert time.monotonic() < deadline, "the node did not crash"
            assert len(network.decisions(events(batch), 60)) == 4
            batch += 1
        network.wait(4)
        network.decisions(events(10_000))
        height = max(status["ledger"] for status in network.status().values() if status)
        heads_agree(network, height)
        while enforcer.height < height:
            assert time.monotonic() < deadline
            time.sleep(0.05)
    assert network.nodes[3].restarts >= 1
    assert len(acted) == len(set(acted)) == height == batch + 1
    assert not verify_ledger(folder / "enforcer", network.chain.keys).findings


@pytest.mark.network
def test_a_node_killed_between_engine_and_ledger_comes_back(tmp_path: Path) -> None:
    crashed_and_back(tmp_path / "n", "commit:after:3")


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_node_killed_at_any_boundary_comes_back(tmp_path: Path, kind: str, when: str) -> None:
    crashed_and_back(tmp_path / "n", f"{kind}:{when}:{1 if kind in ('info', 'init_chain') else 3}")


@pytest.mark.network
@pytest.mark.slow
def test_more_than_f_nodes_down_stop_decisions_and_never_fork(tmp_path: Path) -> None:
    create_network(tmp_path / "n", 4)
    with Network(tmp_path / "n") as network:
        network.decisions(events(0))
        for node in network.nodes[2:]:
            node.stop(signal.SIGKILL)
        answer = network.submit(events(1))
        with pytest.raises(TimeoutError):
            answer.result(5)
        for node in network.nodes[2:]:
            node.start()
        assert len(answer.result(60)) == 4
        network.wait(4)
        heads_agree(network, 2)


def test_a_network_is_made_once_whole_and_its_keys_are_its_owners(tmp_path: Path) -> None:
    create_network(tmp_path / "n", 4, mode="enforce")
    with pytest.raises(UsageError, match="is there already"):
        create_network(tmp_path / "n", 4)
    with pytest.raises(UsageError, match="at least 1"):
        create_network(tmp_path / "m", 0)
    files = [NodeFile.load(tmp_path / "n" / f"node{i}") for i in range(4)]
    assert len({str(file.chain.to_json()) for file in files}) == 1 and files[0].chain.mode == "enforce"
    assert (files[0].chain.f, files[0].chain.quorum) == (1, 3)
    secrets = [*(tmp_path / "n").rglob("*.pem"), *(tmp_path / "n").rglob("*key.json")]
    assert len(secrets) == 1 + 4 * 3
    assert all(path.stat().st_mode & 0o077 == 0 for path in secrets)
    assert os.stat(tmp_path / "n").st_mode & 0o077 == 0


def test_without_an_engine_a_network_is_refused_and_says_how_to_get_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_network(tmp_path / "n", 4)
    monkeypatch.setenv("PHALANX_COMETBFT", str(tmp_path / "none"))
    with pytest.raises(UsageError, match="scripts/build-cometbft"):
        Network(tmp_path / "n")


def test_a_nodes_process_refuses_what_is_not_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    create_network(tmp_path / "n", 4)
    one, other = tmp_path / "n" / "node0", tmp_path / "n" / "node1"
    assert main([]) == 2 and main([str(tmp_path)]) == 3
    (one / "member.pem").unlink()
    os.link(other / "member.pem", one / "member.pem")
    capsys.readouterr()
    assert main([str(one)]) == 2
    assert "not the key of member 'node0'" in capsys.readouterr().err
    file = NodeFile.load(other)
    NodeFile(file.chain, file.name, "phalanx.service.records:nothing", {}).save(other)
    assert main([str(other)]) == 2
    assert "expected module:function" in capsys.readouterr().err
    (other / "node.json").write_text("{}")
    with pytest.raises(DataError, match="no node's file"):
        NodeFile.load(other)
    monkeypatch.setenv(CRASH_VARIABLE, "commit")
    with pytest.raises(UsageError, match="commit:before:5"):
        crashing(Answers(), tmp_path)
