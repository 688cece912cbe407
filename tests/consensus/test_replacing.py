"""A member gets new keys: interrupted anywhere, signed by too few, believed by whom; ledger and acts go on."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from consensus.fake_engine import events
from consensus.test_hosts import DEADLINE_S, Joined, free_port, until

from phalanx.errors import DataError, PhalanxError, UsageError
from phalanx.service.consensus import identity
from phalanx.service.consensus.audit import votes_flaw
from phalanx.service.consensus.chain import Chain
from phalanx.service.consensus.enforcer import Enforcer
from phalanx.service.consensus.network import Network, create_network
from phalanx.service.consensus.network_file import NetworkFile
from phalanx.service.consensus.node import APPROVED, NodeFile, main
from phalanx.service.consensus.replacement import Replacement, signatures_flaw
from phalanx.service.consensus.replacing import adopt, approve, finish, propose, replace_member
from phalanx.service.consensus.replies import Tally, reply_to
from phalanx.service.consensus.state import restore
from phalanx.service.keys import SigningKey
from phalanx.service.ledger import Ledger
from phalanx.service.ledger_bodies import events_of
from phalanx.service.ledger_entry import Entry, Head, seal
from phalanx.service.ledger_files import ending, read_entries
from phalanx.service.ledger_verify import verify_ledger
from phalanx.service.members import Members
from phalanx.service.statements import Statement

NAMES = [f"node{place}" for place in range(4)]
BATCHES = 3


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that decided three batches and was stopped; its enforcer had seen the first one alone."""
    folder = tmp_path_factory.mktemp("made") / "n"
    create_network(folder, 4, options={"dissent": 0.5})
    with Network(folder) as network:
        with network.enforcer(lambda entry: None) as enforcer:
            network.decisions(events(0), DEADLINE_S)
            until(lambda: enforcer.height == 1)
        for batch in range(1, BATCHES):
            network.decisions(events(batch), DEADLINE_S)
        until(lambda: all(told and told["ledger"] == BATCHES for told in network.status().values()))
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "n", ignore=shutil.ignore_patterns("*.sock"))
    return tmp_path / "n"


def ledgers_of(folder: Path) -> list[list[str]]:
    return [[entry.hash for entry in read_entries(folder / name / "ledger")] for name in NAMES]


def head_of(node: Path) -> Head:
    last = ending(node / "ledger").entry
    assert last is not None
    return last.head


def is_replaced(folder: Path, before: Chain) -> Chain:
    """Checks that all that lies in a network's folder is of one new chain, and returns that."""
    file = NetworkFile.load(folder)
    assert file.chain != before and file.unfinished(folder) is None
    assert [NodeFile.load(folder / name).chain for name in NAMES] == [file.chain] * 4
    ledgers = ledgers_of(folder)
    assert len(ledgers[0]) == file.chain.begins and all(ledger == ledgers[0] for ledger in ledgers)
    for name in NAMES:
        assert not verify_ledger(folder / name / "ledger", file.chain.keys, needed=1).findings
        assert Members.load(folder / name / "ledger" / "members.json") == file.chain.keys
        assert (folder / name / "data" / "priv_validator_state.json").stat().st_mode & 0o077 == 0
        assert not (folder / name / APPROVED).exists()
    state, _ = restore(file.chain, folder / "node0" / "ledger", head_of(folder / "node0"))
    assert state.height == 0 and state.pending is None and state.app_hash != bytes(32)
    return file.chain


@pytest.mark.network
def test_a_replaced_members_network_goes_on(folder: Path) -> None:
    before = NetworkFile.load(folder).chain
    old_key = SigningKey.load(folder / "node2" / "member.pem")
    replace_member(folder, "node2", "its host was lost")
    chain = is_replaced(folder, before)
    assert chain.current.public("node2", 1) != before.current.public("node2", 1) == old_key.public
    assert (folder / "node2.replaced-3" / "member.pem").exists()
    acted: list[Entry] = []
    with Network(folder) as network:
        network.wait(4, DEADLINE_S)
        with network.enforcer(acted.append) as enforcer:
            assert len(network.decisions(events(10), DEADLINE_S)) == 4
            # what was decided before the replacement is not decided again
            again = network.submit(events(1))
            assert len(network.decisions(events(11), DEADLINE_S)) == 4
            until(lambda: enforcer.height == 6)
            assert not again.done() and not enforcer.evidence
        until(lambda: all(told and told["ledger"] == 6 for told in network.status().values()))
    assert [events_of(entry.body) for entry in acted] == [events(batch) for batch in (1, 2, 10, 11)]
    replace_member(folder, "node0", "and another one")
    last = is_replaced(folder, chain)
    assert [(epoch.height, epoch.member) for epoch in last.epochs] == [(3, "node2"), (6, "node0")]
    with Network(folder) as network, network.enforcer(acted.append) as enforcer:
        assert len(network.decisions(events(12), DEADLINE_S)) == 4
        until(lambda: enforcer.height == 8)
    found = verify_ledger(folder / "enforcer", last.keys)
    assert not found.findings and found.entries == 8
    batches = [entry for entry in read_entries(folder / "enforcer") if entry.kind == "batch"]
    assert len(batches) == 6 and all(votes_flaw(entry, last.keys) is None for entry in batches)


class Interrupted(BaseException):
    """As if the process had been killed."""


@pytest.mark.network
@pytest.mark.parametrize("every", [17, pytest.param(1, marks=pytest.mark.slow)])
def test_a_replacement_interrupted_anywhere_is_gone_on_with(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int
) -> None:
    """Each step that changes a file fails once, before it and after it."""
    steps: list[tuple[Any, str]] = [
        (Replacement, "save"),
        (Ledger, "append"),
        (Members, "save"),
        (Path, "rename"),
        (Path, "unlink"),
        (NodeFile, "save"),
        (NetworkFile, "save"),
        (identity, "begin_data"),
        (identity, "genesis"),
        (shutil, "rmtree"),
    ]
    left = [0]

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            left[0] -= 1
            if left[0] == 0:
                raise Interrupted
            result = function(*args, **kwargs)
            left[0] -= 1
            if left[0] == 0:
                raise Interrupted
            return result

        return call

    before = NetworkFile.load(made).chain
    with monkeypatch.context() as patch:
        for owner, name in steps:
            patch.setattr(owner, name, counted(getattr(owner, name)))
        interruptions = 0
        while True:
            folder = tmp_path / f"n{interruptions}"
            left[0] = 0
            shutil.copytree(made, folder, ignore=shutil.ignore_patterns("*.sock"))
            left[0] = interruptions + 1
            try:
                replace_member(folder, "node3", "drill")
            except Interrupted:
                left[0] = 0
                if NetworkFile.load(folder).unfinished(folder) is not None:
                    with pytest.raises(UsageError, match="interrupted"):
                        Network(folder)
                    with pytest.raises(UsageError, match="'node3' is not finished"):
                        replace_member(folder, "node1", "another")
                if NetworkFile.load(folder).chain == before:
                    replace_member(folder, "node3", "drill")
            else:
                break
            is_replaced(folder, before)
            shutil.rmtree(folder)
            interruptions += every
    assert interruptions > 60


@pytest.mark.network
def test_nodes_that_stopped_earlier_are_brought_up_and_ones_that_differ_are_not(
    folder: Path, tmp_path: Path
) -> None:
    before = NetworkFile.load(folder).chain

    def cut(name: str, height: int) -> None:
        path = folder / name / "ledger" / "ledger-00000001.ndjson"
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:height]))

    cut("node0", 0)
    cut("node1", 2)
    forked = tmp_path / "forked"
    shutil.copytree(folder, forked)
    replace_member(folder, "node2", "drill")
    is_replaced(folder, before)
    key = SigningKey.load(forked / "node1" / "member.pem")
    with Ledger.open(forked / "node1" / "ledger", key, member="node1", members=before.keys) as ledger:
        ledger.append("mode", {"mode": "shadow"})
    with pytest.raises(DataError, match="more than f members lied"):
        replace_member(forked, "node2", "drill")
    assert NetworkFile.load(forked).chain == before and NetworkFile.load(forked).unfinished(forked) is None


@pytest.mark.network
def test_what_cannot_be_replaced_is_refused_in_words(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'node9' is no member"):
        replace_member(folder, "node9", "drill")
    with Network(folder), pytest.raises(UsageError, match="another process has this ledger open"):
        replace_member(folder, "node1", "drill")
    with pytest.raises(UsageError, match="on this machine"):
        propose(folder, "node1", "drill")
    create_network(tmp_path / "three", 3)
    with pytest.raises(UsageError, match="tolerates no faulty one"):
        replace_member(tmp_path / "three", "node1", "drill")
    create_network(tmp_path / "new", 4)
    with pytest.raises(UsageError, match="nothing was decided yet"):
        replace_member(tmp_path / "new", "node1", "drill")
    create_network(tmp_path / "apart", 4, hosts=["a", "b", "c", "d"])
    with pytest.raises(UsageError, match="hosts of their own"):
        replace_member(tmp_path / "apart", "node1", "drill")


@pytest.fixture
def proposed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A proposal to replace node3 that nobody has signed yet."""

    def stop(*_: object) -> None:
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr("phalanx.service.consensus.replacing.approve", stop)
        with pytest.raises(Interrupted):
            replace_member(folder, "node3", "drill")
    found = NetworkFile.load(folder).unfinished(folder)
    assert found is not None
    return found[0]


@pytest.mark.network
def test_nobody_adopts_what_too_few_signed_and_who_signed_does_not_go_back(
    folder: Path, proposed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = proposed
    before = NetworkFile.load(folder).chain
    for signed in range(3):
        assert str(signed) in str(signatures_flaw(Replacement.load(path).entry, before.keys))
        with pytest.raises(DataError, match=f"{signed} of the members before signed it"):
            adopt(folder / "node0", path)
        with pytest.raises(DataError, match=f"{signed} of the members before signed it"):
            finish(folder, path, folder / "node0" / "ledger")
        approve(folder / f"node{signed}", path)
    assert signatures_flaw(Replacement.load(path).entry, before.keys) is None
    with pytest.raises(UsageError, match="its own replacement"):
        approve(folder / "node3", path)
    # who signed takes no part in the chain before
    assert main([str(folder / "node0")]) == 2
    assert "has signed that the network goes on" in capsys.readouterr().err
    # nor signs another replacement
    made = Replacement.load(path)
    other = Replacement.propose(
        before,
        head_of(folder / "node0"),
        dataclasses.replace(made.chain.members[3], name="node2", public="1" * 64),
        peers=made.peers,
        hosts=None,
        time=made.time,
        why="",
    )
    other.save(folder / "other.json")
    with pytest.raises(UsageError, match="another replacement was approved"):
        approve(folder / "node0", folder / "other.json")
    # the finished node needs the ledger of one that adopted
    with pytest.raises(DataError, match="has adopted the replacement"):
        finish(folder, path, folder / "node0" / "ledger")
    for name in NAMES[:3]:
        adopt(folder / name, path)
        adopt(folder / name, path)
    finish(folder, path, folder / "node0" / "ledger")
    is_replaced(folder, before)


@pytest.mark.network
def test_a_replacement_that_was_tampered_with_is_none(folder: Path, proposed: Path) -> None:
    path = proposed
    before = NetworkFile.load(folder).chain
    made = Replacement.load(path)
    for name in NAMES[:3]:
        approve(folder / name, path)
    signed = Replacement.load(path).entry
    key = SigningKey.load(folder / "node3" / "member.pem")

    def forged(**changes: Any) -> Replacement:
        chain = dataclasses.replace(made.chain, **changes)
        body = {**made.entry.body, "chain": chain.to_json()}
        entry, _ = seal(
            signed.height,
            signed.previous,
            "member",
            body,
            signers={"node3": key},
            signatures=signed.signatures,
        )
        return Replacement.of(entry)

    more = forged(gateways={**made.chain.gateways, "mallory": "2" * 64})
    assert "more than the keys" in str(more.flaw_after(before))
    assert "does not hold" in str(signatures_flaw(more.entry, before.keys))
    more.save(folder / "more.json")
    with pytest.raises(DataError, match="more than the keys"):
        adopt(folder / "node0", folder / "more.json")
    with pytest.raises(DataError, match="more than the keys"):
        approve(folder / "node0", folder / "more.json")
    # nobody else's signature counts, the replaced member's neither
    theirs = {"node3": signed.signatures["node0"], "mallory": signed.signatures["node1"]}
    alone = dataclasses.replace(signed, signatures={**theirs, "node2": signed.signatures["node2"]})
    assert "1 of the members" in str(signatures_flaw(alone, before.keys))
    line = path.read_bytes()
    path.write_bytes(line.replace(b"drill", b"Drill"))
    with pytest.raises(DataError, match="hash is not that"):
        adopt(folder / "node0", path)
    for content in (b"", b"{}\n", line[:-2]):
        path.write_bytes(content)
        with pytest.raises(PhalanxError):
            Replacement.load(path)


@pytest.mark.network
def test_enforcers_believe_other_members_only_where_a_quorum_of_theirs_said_so(
    folder: Path, tmp_path: Path
) -> None:
    before = NetworkFile.load(folder).chain
    replace_member(folder, "node3", "drill")
    file = NetworkFile.load(folder)
    entries = [found.entry for found in file.replacements(folder)]

    def enforcer(replacements: list[Entry], chain: Chain = file.chain) -> Enforcer:
        return Enforcer(chain, [], folder / "enforcer", lambda entry: None, replacements=replacements)

    known = Members.load(folder / "enforcer" / "members.json")
    with pytest.raises(UsageError, match="the network has other members"):
        enforcer([])
    two = {name: entries[0].signatures[name] for name in NAMES[:2]}
    with pytest.raises(UsageError, match="2 of the members before signed it"):
        enforcer([dataclasses.replace(entries[0], signatures=two)])
    create_network(tmp_path / "other", 4)
    with pytest.raises(UsageError, match="the network has other members"):
        enforcer(entries, NetworkFile.load(tmp_path / "other").chain)
    assert Members.load(folder / "enforcer" / "members.json") == known == before.keys
    with enforcer(entries):
        assert Members.load(folder / "enforcer" / "members.json") == file.chain.keys
    with enforcer([]):  # known by now
        pass
    # one that has seen what the replacement does not follow
    shutil.rmtree(folder / "enforcer")
    shutil.copytree(folder / "node0" / "ledger", folder / "enforcer")
    before.keys.save(folder / "enforcer" / "members.json")
    with enforcer(entries):
        pass
    shutil.rmtree(folder / "enforcer")
    shutil.copytree(folder / "node0" / "ledger", folder / "enforcer")
    path = folder / "enforcer" / "ledger-00000001.ndjson"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:BATCHES]))
    before.keys.save(folder / "enforcer" / "members.json")
    key = SigningKey.load(folder / "node0" / "member.pem")
    with Ledger.open(folder / "enforcer", key, member="node0") as ledger:
        ledger.append("mode", {"mode": "shadow"})
    with pytest.raises(DataError, match="does not follow"):
        enforcer(entries)


@pytest.mark.network
def test_a_replaced_key_speaks_for_its_member_no_more(folder: Path) -> None:
    before = NetworkFile.load(folder).chain
    replace_member(folder, "node3", "drill")
    chain = NetworkFile.load(folder).chain
    old = SigningKey.load(folder / f"node3.replaced-{BATCHES}" / "member.pem")
    entries = list(read_entries(folder / "node0" / "ledger"))
    tally = Tally(chain)

    def said(key: SigningKey, entry: Entry, name: str = "node3") -> Any:
        own = Statement.signed(key, name, entry.height, "entry", {"hash": entry.hash}).signature
        return reply_to(chain, name, key, dataclasses.replace(entry, signatures={name: own}))

    assert tally.add(said(old, entries[-1])) is None and tally.refused == 1
    others = [SigningKey.load(folder / name / "member.pem") for name in NAMES[:2]]
    assert tally.add(said(others[0], entries[-1], "node0")) is None
    agreed = tally.add(said(others[1], entries[-1], "node1"))
    assert agreed is not None and agreed.height == BATCHES + 1 and not agreed.submissions
    # the heights before are those of the old key, and the new one does not reach back
    new = SigningKey.load(folder / "node3" / "member.pem")
    assert tally.add(said(new, entries[0])) is None and tally.refused == 2
    assert before.keys.public("node3", 1) == chain.keys.public("node3", BATCHES) == old.public
    assert chain.keys.public("node3", BATCHES + 1) == new.public


@pytest.mark.network
@pytest.mark.slow
def test_a_member_on_a_host_is_replaced_host_by_host(tmp_path: Path) -> None:
    places = [f"127.0.0.{31 + place}" for place in range(5)]
    ports = [free_port(place) for place in places]
    desk = tmp_path / "desk"
    create_network(desk, 4, hosts=[f"{place}:{port}" for place, port in zip(places[:4], ports, strict=False)])
    before = NetworkFile.load(desk).chain
    hosts = {name: tmp_path / f"host-{name}" for name in NAMES}
    for name, host in hosts.items():
        shutil.move(desk / name, host)
    nodes = {name: Joined(host) for name, host in hosts.items()}
    acted: list[Entry] = []
    try:
        with Network(desk) as network, network.enforcer(acted.append) as enforcer:
            network.decisions(events(0), DEADLINE_S)
            until(lambda: enforcer.height == 1)
            until(lambda: all(told and told["ledger"] == 1 for told in network.status().values()))
        nodes["node1"].end(9)  # the host is lost
        path = propose(desk, "node1", "the host was lost", host=f"{places[4]}:{ports[4]}")
        with pytest.raises(UsageError, match="not finished"):
            propose(desk, "node2", "another")
        left = ["node0", "node2", "node3"]
        with pytest.raises(UsageError, match="another process has this ledger open"):
            approve(hosts["node0"], path)
        for name in left:
            assert nodes[name].end(15) == 0
            approve(hosts[name], path)
        for name in left:
            adopt(hosts[name], path)
        finish(desk, path, hosts["node3"] / "ledger")
        hosts["node1"] = tmp_path / "new-host"
        shutil.move(desk / "node1", hosts["node1"])
        nodes = {name: Joined(host) for name, host in hosts.items()}
        with Network(desk) as network, network.enforcer(acted.append) as enforcer:
            assert str(network.doors[1]) == f"{places[4]}:{ports[4] + 1}"
            network.wait(4, DEADLINE_S)
            network.decisions(events(1), DEADLINE_S)
            until(lambda: enforcer.height == 3)
            until(lambda: all(told and told["ledger"] == 3 for told in network.status().values()))
            assert network.chain.name != before.name
    finally:
        for node in nodes.values():
            node.end(15)
    assert [events_of(entry.body) for entry in acted] == [events(0), events(1)]
    assert not verify_ledger(desk / "enforcer", network.chain.keys).findings
