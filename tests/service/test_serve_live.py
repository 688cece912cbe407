"""The real server in a process of its own: killed under load, ended in order, its ledger taken away."""

import contextlib
import json
import random
import signal
import socket
import time
from collections import Counter
from pathlib import Path

import pytest
from service.ledgers import verified
from service.live_servers import PATIENCE_S, Load, Server, batches, decided, serving

from phalanx.service.ledger import read_entries


def killed_under_load(folder: Path, seed: int, n: int) -> Load:
    """A server that is killed while clients wait for its answers; what they had of it is in the ledger."""
    chance = random.Random(seed)
    with serving(folder) as server:
        load = Load(server, batches(seed, n))
        threads = load.run()
        load.wait(chance.randrange(8, 4 * n))
        time.sleep(chance.random() * 0.01)
        server.process.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join(PATIENCE_S)
        server.process.wait(PATIENCE_S)
    assert len(load.answered) < 8 * n, "the kill came after the end; it showed nothing"
    found = decided(folder)
    for name, result in load.answered.items():
        assert found[name] == (result["height"], result["verdict"])
    check = verified(folder / "ledger")
    # an entry that was being written is cut off at the next start; all that was answered is whole
    assert not check.findings or all("without an end of line" in each.reason for each in check.findings)
    return load


def sent_again(server: Server, load: Load) -> None:
    """Whatever was sent is decided once, and what was answered is answered alike."""
    before = decided(server.folder)
    with server.client("ingest") as client:
        for batch in load.sent:
            answer = client.post("/v1/events", json=batch)
            assert answer.status_code == 200
            for result in answer.json()["results"]:
                assert result["repeated"] == (result["id"] in before)
                known = load.answered.get(result["id"])
                if known:
                    same = ("height", "verdict", "score", "quorum")
                    assert [result[name] for name in same] == [known[name] for name in same]
    found = decided(server.folder)
    assert {event["id"] for batch in load.sent for event in batch} <= set(found)
    assert not verified(server.folder / "ledger").findings


def refusals(server: Server) -> None:
    """Wrong tokens, too much, nonsense: refused, counted, nothing lost and nothing told."""
    event = {"id": "fine", "time_ns": 10**18, "subject": "p", "kind": "READ", "host": "h"}
    with server.client() as client, server.client("ingest") as sensor, server.client("read") as reader:
        assert client.post("/v1/events", json=event).status_code == 401
        assert reader.post("/v1/events", json=event).status_code == 403
        assert sensor.post("/v1/events", content=b"x" * (2**20 + 1), headers=JSON).status_code == 413
        assert sensor.post("/v1/events", content=b'{"a":', headers=JSON).status_code == 400
        assert sensor.post("/v1/events", content=b"\xff" * 99, headers=JSON).status_code == 400
        mixed = sensor.post("/v1/events", json=[event, {"kind": 1}, {**event, "id": "two"}]).json()
        assert (mixed["decided"], mixed["refused"]) == (2, 1)
        assert (
            sensor.post(
                "/v1/events", content=b"0\r\n\r\n", headers={"transfer-encoding": "chunked"}
            ).status_code
            == 415
        )
        text = reader.get("/metrics").text
        for reason, count in (("unauthorized", 1), ("forbidden", 1), ("too-large", 1)):
            assert f'phalanx_requests_refused_total{{reason="{reason}"}} {count}.0' in text
        assert 'phalanx_events_refused_total{reason="missing-field"} 1.0' in text
        found = reader.get("/v1/decisions/fine").json()
        assert found["event_id"] == "fine" and len(found["votes"]) == 4 and found["evidence"]
        assert (
            set(found["robustness"]) <= {"few_alerts", "calm"}
            and found["height"] <= mixed["results"][0]["height"]
        )
        page = reader.get("/v1/decisions?limit=2").json()
        assert len(page["decisions"]) == 2 and page["next"]
        following = reader.get("/v1/decisions", params={"limit": 2, "after": page["next"]}).json()
        assert {e["event_id"] for e in page["decisions"]}.isdisjoint(
            e["event_id"] for e in following["decisions"]
        )
        head = reader.get("/v1/ledger/head").json()
        assert head["height"] == max(e.height for e in read_entries(server.folder / "ledger"))
        health = client.get("/healthz").json()
        assert (health["status"], health["mode"]) == ("ok", "shadow")
        assert health["notes"] in ([], ["events-late"])  # several clients sent events of hours side by side
        assert "server" not in client.get("/healthz").headers
    for sent in (
        b"\x16\x03\x01" * 30,
        b"GET / HTTP/9\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\nA: " + b"b" * 99_999,
    ):
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), 20) as connection:
            connection.settimeout(20)
            connection.sendall(sent)
            assert connection.recv(1000).startswith(b"HTTP/1.1 400 ")


JSON = {"content-type": "application/json"}


def computing_threads(server: Server) -> int:
    """Threads that XLA made for its computations."""
    names = []
    for path in Path(f"/proc/{server.process.pid}/task").glob("*/comm"):
        with contextlib.suppress(OSError):  # it has ended meanwhile
            names.append(path.read_text())
    return sum(name.startswith("tf_XLA") for name in names)


def streamed(server: Server) -> None:
    """A stream is answered line by line while it stays open."""
    port = int(server.url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), 20) as connection:
        connection.settimeout(60)
        head = (
            "POST /v1/stream HTTP/1.1\r\nhost: x\r\n"
            "transfer-encoding: chunked\r\ncontent-type: application/x-ndjson\r\n"
            f"authorization: Bearer {server.tokens['ingest']}\r\n\r\n"
        )
        connection.sendall(head.encode())
        file = connection.makefile("rb")
        while file.readline() != b"\r\n":
            pass
        for number in range(3):
            event = {"id": f"s{number}", "time_ns": 10**18, "subject": "p", "kind": "READ"}
            line = json.dumps(event).encode() + b"\n"
            connection.sendall(b"%x\r\n%s\r\n" % (len(line), line))
            size = int(file.readline(), 16)
            assert json.loads(file.read(size))["id"] == f"s{number}"
            file.readline()
        connection.sendall(b"0\r\n\r\n")
        assert file.readline() == b"0\r\n"


def test_a_killed_server_loses_nothing_and_an_ended_one_answers_all(tmp_path: Path) -> None:
    folder = tmp_path / "live"
    first = killed_under_load(folder, 1, 60)
    second = killed_under_load(folder, 2, 60)
    with serving(folder, "--json") as server:
        sent_again(server, first)
        sent_again(server, second)
        refusals(server)
        streamed(server)
        assert computing_threads(server) == 1
        load = Load(server, batches(3, 40))
        threads = load.run()
        load.wait(16)
        server.process.send_signal(signal.SIGTERM)
        for thread in threads:
            thread.join(PATIENCE_S)
        assert server.process.wait(PATIENCE_S) == 0, "".join(server.errors)
        assert server.process.stdout is not None
        told = json.loads(server.process.stdout.read())
        assert told["mode"] == "shadow" and told["url"] == server.url
        # whatever reached it was answered: nothing is in the ledger that nobody was told of
        ours = {name for name in decided(folder) if name.startswith("3-")}
        assert ours == set(load.answered)
    assert (folder / "state").exists() and not (folder / "serving.json").exists()
    assert not any(token in "".join(server.errors) for token in server.tokens.values())
    lost_ledger(folder)


def lost_ledger(folder: Path) -> None:
    """Where the ledger takes nothing more: no acknowledgement, and an end with an exit code."""
    with serving(folder) as server, server.client("ingest") as client:
        segment = max((folder / "ledger").glob("ledger-*.ndjson"))
        with segment.open("ab") as file:
            file.write(b"somebody else\n")
        answer = client.post("/v1/events", json=batches(4, 1)[0])
        assert answer.status_code == 503
        assert Counter(each["error"]["code"] for each in answer.json()["results"]) == {"failed": 8}
        assert server.process.wait(PATIENCE_S) == 3
        time.sleep(0.2)
        assert "changed or deleted by somebody else" in "".join(server.errors)


@pytest.mark.slow
def test_many_kills_lose_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "live"
    loads = [killed_under_load(folder, seed, 60) for seed in range(10, 30)]
    with serving(folder) as server:
        for load in loads:
            sent_again(server, load)
