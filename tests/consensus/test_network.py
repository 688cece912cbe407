"""Real networks: four engines, four applications, a gateway, an enforcer; members killed at every boundary."""

import itertools
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from consensus.fake_engine import events

from phalanx.errors import DataError, UsageError
from phalanx.service.consensus.audit import votes_flaw
from phalanx.service.consensus.crash import CRASH_VARIABLE, REQUESTS, crashing
from phalanx.service.consensus.member import DrillMember
from phalanx.service.consensus.network import Network, create_network
from phalanx.service.consensus.node import NodeFile, main
from phalanx.service.ledger_files import read_entries
from phalanx.service.ledger_verify import verify_ledger

DEADLINE_S = 180.0  # for machines with much else to do


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


def until(done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def heads_agree(network: Network, height: int) -> None:
    """Waits until every node has an entry, and checks that it is the same one and that all verify."""
    until(lambda: all(told is not None and told["ledger"] >= height for told in network.status().values()))
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
        decisions = four.decisions(happened, DEADLINE_S)
        for event, decision in zip(happened, decisions, strict=True):
            own = [DrillMember(f"node{i}", 0.5).votes([event])[0] for i in range(4)]
            assert decision.event_id == event.id and decision.tolerates == 1
            assert [v is None or v == w for v, w in zip(decision.votes, own, strict=True)] == [True] * 4
            assert sum(vote is not None for vote in decision.votes) >= 3
    heads_agree(four, 1)


@pytest.fixture
def batches() -> Iterator[int]:
    """Numbers for batches, none twice in a run: the same events are decided once."""
    return (next(_NUMBERS) for _ in itertools.count())


_NUMBERS = itertools.count(1000)


class Watched:
    """A network whose decisions are acted on, and asked at the end whether all is as it must be."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.acted: list[str] = []

    def __enter__(self) -> "Watched":
        self._enforcer = self.network.enforcer(lambda entry: self.acted.append(entry.body["digest"]))
        self._began = self._enforcer.height
        self._enforcer.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._enforcer.__exit__()

    def all_is_well(self, batches: Iterator[int]) -> None:
        """All nodes take part and have the same ledger; everything was acted on, once; nobody lied."""
        network = self.network
        network.wait(network.chain.n, DEADLINE_S)
        network.decisions(events(next(batches)), DEADLINE_S)
        height = max(status["ledger"] for status in network.status().values() if status)
        heads_agree(network, height)
        until(lambda: self._enforcer.height >= height)
        assert len(self.acted) == len(set(self.acted)) == height - self._began
        assert not self._enforcer.evidence
        assert not verify_ledger(network.folder / "enforcer", network.chain.keys).findings


@pytest.mark.network
def test_one_member_killed_changes_nothing_and_comes_back(four: Network, batches: Iterator[int]) -> None:
    victim = four.nodes[2]
    restarts = victim.restarts
    with Watched(four) as watched:
        victim.send(signal.SIGKILL)  # it is started again, and fetches what it missed
        answers = [four.submit(events(next(batches))) for _ in range(6)]
        assert all(len(answer.result(DEADLINE_S)) == 4 for answer in answers)
        until(lambda: victim.restarts > restarts and None not in victim.pids)
        watched.all_is_well(batches)


@pytest.mark.network
def test_an_engine_killed_alone_is_started_again_and_its_application_goes_on(
    four: Network, batches: Iterator[int]
) -> None:
    victim = four.nodes[1]
    application, engine = victim.pids
    with Watched(four) as watched:
        victim.send(signal.SIGKILL, application=False)
        until(lambda: victim.pids[1] not in (None, engine))
        watched.all_is_well(batches)
    assert victim.pids[0] == application


def crashed_and_back(network: Network, batches: Iterator[int]) -> None:
    """Waits, under load, until node 3 has killed itself where it was told to, and is back."""
    mark = network.folder / "node3" / "drill.crashed"
    with Watched(network) as watched:
        deadline = time.monotonic() + DEADLINE_S
        while not mark.exists():
            assert time.monotonic() < deadline, "the node did not crash"
            assert len(network.decisions(events(next(batches)), DEADLINE_S)) == 4
        network.nodes[3].environment = {}
        watched.all_is_well(batches)
    mark.unlink()


def crash(network: Network, place: str, batches: Iterator[int]) -> None:
    """Kills node 3's application at a place between it and its engine, in a network that runs."""
    victim = network.nodes[3]
    victim.stop()
    victim.environment = {CRASH_VARIABLE: place}
    victim.start()
    crashed_and_back(network, batches)


@pytest.mark.network
def test_a_node_killed_between_engine_and_ledger_comes_back(four: Network, batches: Iterator[int]) -> None:
    crash(four, "commit:after:2", batches)


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", REQUESTS)
def test_a_node_killed_at_any_boundary_comes_back(
    four: Network, tmp_path: Path, kind: str, when: str, batches: Iterator[int]
) -> None:
    if kind != "init_chain":
        crash(four, f"{kind}:{when}:{1 if kind == 'info' else 3}", batches)
        return
    create_network(tmp_path / "n", 4)  # the first request of a chain
    with Network(tmp_path / "n", {3: {CRASH_VARIABLE: f"{kind}:{when}:1"}}) as network:
        crashed_and_back(network, batches)


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
    until(lambda: not any(map(alive, pids)))


@pytest.mark.network
@pytest.mark.slow
def test_more_than_f_nodes_down_stop_decisions_and_never_fork(four: Network, batches: Iterator[int]) -> None:
    with Watched(four) as watched:
        for node in four.nodes[2:]:
            node.stop(signal.SIGKILL)
        answer = four.submit(events(next(batches)))
        with pytest.raises(TimeoutError):
            answer.result(5)
        for node in four.nodes[2:]:
            node.start()
        assert len(answer.result(DEADLINE_S)) == 4
        watched.all_is_well(batches)


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


@pytest.mark.network
def test_nodes_listen_where_they_are_told_and_are_wrapped_in_words(tmp_path: Path) -> None:
    create_network(tmp_path / "n", 1)
    with pytest.raises(UsageError, match="give one a node"):
        Network(tmp_path / "n", addresses=[])
    wrap = {0: ["env", "PHALANX_TEST_WRAPPED=yes"]}
    with Network(tmp_path / "n", addresses=["127.0.0.2:0"], wrap=wrap) as network:
        for pid in network.nodes[0].pids:
            assert b"PHALANX_TEST_WRAPPED=yes" in Path(f"/proc/{pid}/environ").read_bytes()
        assert "127.0.0.2:0" in (tmp_path / "n" / "node0" / "config" / "config.toml").read_text()


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


def test_a_crash_can_be_told_while_a_node_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: killed.append(number))
    monkeypatch.setenv(CRASH_VARIABLE, "watch")
    handler = crashing(Answers(), tmp_path)
    handler.handle("commit", None)
    (tmp_path / "drill.crash").write_text("commit:after:2\n")
    for kind in ("commit", "info", "check_tx"):
        handler.handle(kind, None)
    assert not killed and not (tmp_path / "drill.crashed").exists()
    handler.handle("commit", None)
    assert killed == [signal.SIGKILL] and (tmp_path / "drill.crashed").exists()
