"""``phalanx up`` for real: four nodes in processes of their own behind HTTP; killed, lied to, started again."""

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from service.ledgers import verified
from service.live_servers import PATIENCE_S, Load, Server, batches, decided, serving
from service.models import model

from phalanx.cli import main
from phalanx.committee import decide
from phalanx.service.consensus.node import NodeFile
from phalanx.service.engine import Engine, EngineConfig
from phalanx.service.ledger import read_entries
from phalanx.service.ledger_bodies import decisions_of, events_of
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.service.replay import replay

GATEWAY = "gateway"
CONFIG = EngineConfig(slots=64, batch=16)
UP = {"child": "up_child.py", "gateway": GATEWAY}


def pids_of(folder: Path) -> list[int]:
    """Processes that serve a node of the network, and its engine."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
                cwd = os.readlink(process / "cwd")
            except OSError:
                continue
            if str(folder).encode() in words or Path(cwd) == folder:
                found.append(int(process.name))
    return found


def committee(folder: Path) -> list[tuple[LiveEvent, LiveDecision]]:
    """What the network decided, in its order, from the gateway's ledger."""
    return [
        pair
        for entry in read_entries(folder / GATEWAY / "ledger")
        if entry.kind == "batch" and "consensus" in entry.body
        for pair in zip(events_of(entry.body), decisions_of(entry.body), strict=True)
    ]


def votes_are_the_committees(found: Sequence[tuple[LiveEvent, LiveDecision]]) -> None:
    """Votes are what the whole committee, following the answers, comes to.

    All but a few: a vote on a batch that follows at once is cast before the answer to the one before is known, and that
    is another than expected now and then, where a vote was missing.
    """
    engine = Engine(model(threshold=0.5), CONFIG)
    reference = engine.decide([event for event, _ in found], [int(each.verdict) for _, each in found])
    same = 0
    for (_, decision), own in zip(found, reference, strict=True):
        received = [vote for vote in decision.votes if vote is not None]
        assert int(decision.verdict) == decide(received, 1) and decision.quorum and decision.tolerates == 1
        assert decision.score == own.score and decision.evidence == own.evidence
        same += sum(
            vote == own for vote, own in zip(decision.votes, own.votes, strict=True) if vote is not None
        )
    assert same >= 0.95 * sum(vote is not None for _, decision in found for vote in decision.votes)


def answered(server: Server, seed: int, n: int) -> Load:
    """Clients send, and get an answer to everything."""
    load = Load(server, batches(seed, n))
    for thread in load.run():
        thread.join(PATIENCE_S)
    assert len(load.answered) == 8 * n
    return load


@pytest.mark.network
def test_a_committee_of_nodes_over_its_life(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "n"
    with serving(folder, "--quorum-s", "120", **UP) as server:
        load = answered(server, 1, 24)
        # a member is killed under load: nobody notices but who looks at the votes
        for pid in pids_of(folder / "node2"):
            os.kill(pid, signal.SIGKILL)
        answered(server, 2, 24)
        # all is killed, gateway and nodes, while clients wait
        last = Load(server, batches(3, 60))
        threads = last.run()
        last.wait(24)
        server.process.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join(PATIENCE_S)
        assert len(last.answered) < 8 * 60
    live = decided(folder / GATEWAY)
    for name, result in {**load.answered, **last.answered}.items():
        assert live[name] == (result["height"], result["verdict"])
    votes_are_the_committees(committee(folder))
    deadline = time.monotonic() + PATIENCE_S
    while any(pids_of(folder / f"node{i}") for i in range(4)):  # none outlives whoever started it
        assert time.monotonic() < deadline
        time.sleep(0.1)

    # the fourth member lies from now on
    file = NodeFile.load(folder / "node3")
    replace(file, member="consensus.small_members:liar").save(folder / "node3")
    with serving(folder, "--quorum-s", "120", "--json", **UP) as server:
        with server.client("ingest") as client:
            for batch in last.sent:  # what had no answer is sent again: all is decided, once
                assert client.post("/v1/events", json=batch).status_code == 200
        with server.client("read") as reader:
            assert "phalanx_members_voting" in reader.get("/metrics").text
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(PATIENCE_S) == 0, "".join(server.errors)
        assert server.process.stdout is not None
        assert json.loads(server.process.stdout.read())["mode"] == "shadow"
    found = committee(folder)
    sent = {event["id"] for load in (load, last) for batch in load.sent for event in batch}
    assert sent <= set(decided(folder / GATEWAY)) and len(found) == len({event.id for event, _ in found})
    before = len(live)
    votes_are_the_committees(found[:before])
    assert any(decision.votes[3] is not None for _, decision in found[before:])
    assert not verified(folder / GATEWAY / "ledger").findings
    for ledger in (
        folder / GATEWAY / "ledger",
        folder / "node0" / "ledger",
    ):  # every vote is checked afterwards
        again = replay(ledger, model(threshold=0.5), CONFIG)
        assert again.events == len(found) and again.otherwise[:3] == [0, 0, 0] and again.otherwise[3] > 0

    # so it gets new keys, and the member that its model says
    assert main(["network", "replace", str(folder), "node3", "--why", "it lied"]) == 0
    with serving(folder, "--quorum-s", "120", **UP) as server:
        answered(server, 4, 12)
        told = capsys.readouterr().out
        assert main(["network", "status", str(folder), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["answering"] >= 3
    assert "new keys" in told and len(committee(folder)) == len(found) + 8 * 12
    after = replay(folder / "node0" / "ledger", model(threshold=0.5), CONFIG)
    assert after.otherwise == again.otherwise and after.events == len(found) + 8 * 12


@pytest.mark.network
def test_without_a_quorum_the_answer_is_an_alert_until_there_is_one(tmp_path: Path) -> None:
    folder = tmp_path / "n"
    with serving(folder, "--quorum-s", "3", **UP) as server, server.client("ingest") as client:
        stopped = [pid for i in (1, 2) for pid in pids_of(folder / f"node{i}")]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:
            first, second = batches(1, 2)
            results = client.post("/v1/events", json=first).json()["results"]
            assert {(r["verdict"], r["quorum"]) for r in results} == {("alert", False)}
            assert "no-quorum" in client.get("/healthz").json()["notes"]
            assert not any(r["quorum"] for r in client.post("/v1/events", json=second).json()["results"])
        finally:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
        deadline = time.monotonic() + PATIENCE_S
        while "no-quorum" in client.get("/healthz").json()["notes"]:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        with server.client("read") as reader:
            while not (found := reader.get(f"/v1/decisions/{first[0]['id']}").json())["quorum"]:
                assert time.monotonic() < deadline
                time.sleep(0.2)
            assert sum(vote is not None for vote in found["votes"]) >= 3
