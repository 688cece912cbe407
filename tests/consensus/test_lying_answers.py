"""What a node answers may be anything: whoever asked goes on with the others, and keeps little of it."""

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from consensus.fake_engine import Committee

from phalanx.errors import DataError
from phalanx.service.consensus.client import Client
from phalanx.service.consensus.door import message, read_message
from phalanx.service.consensus.follower import ledger_height
from phalanx.service.consensus.framing import Framer, frame
from phalanx.service.statements import Statement

NONSENSE = {
    "no JSON": b"{",
    "no UTF-8": b'"\xff"',
    "nested without end": b"[" * 100_000,
    "a list": b"[1]",
    "a number": b"7",
    "another form": b'{"said": {"member": 1}}',
}


@contextmanager
def node(path: Path, answers: Sequence[bytes]) -> Iterator[list[int]]:
    """A socket that answers whatever is asked, one answer a request, the last one from then on."""
    asked: list[int] = []

    def serve(connection: socket.socket) -> None:
        framer = Framer()
        with connection:
            while data := connection.recv(1 << 16):
                for request in framer.feed(data):
                    if json.loads(request)["do"] != "follow":
                        asked.append(len(request))
                        connection.sendall(answers[min(len(asked), len(answers)) - 1])

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=serve, args=(connection,), daemon=True).start()

    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    threading.Thread(target=accept, daemon=True).start()
    try:
        yield asked
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


@pytest.mark.parametrize("raw", NONSENSE.values(), ids=list(NONSENSE))
def test_nonsense_is_one_error_or_its_content(raw: bytes) -> None:
    try:
        content = read_message(raw)
    except DataError as problem:
        assert str(problem).startswith("not a message in JSON") and len(str(problem)) < 200
    else:
        assert content == json.loads(raw)


@pytest.mark.parametrize("raw", NONSENSE.values(), ids=list(NONSENSE))
def test_one_that_answers_nonsense_keeps_no_gateway_from_starting(tmp_path: Path, raw: bytes) -> None:
    made = Committee(tmp_path)
    made.close()
    doors = [tmp_path / f"d{place}" for place in range(3)]
    told = [
        message({"said": Statement.signed(n.key, n.name, 1, "status", {"ledger": 5}, "test").to_json()})
        for n in made.nodes
    ]
    with node(doors[0], [frame(raw)]), node(doors[1], told[1:2]), node(doors[2], told[2:3]):
        assert ledger_height(made.chain, doors) == 5


def test_a_liar_is_asked_again_and_its_words_are_short_plain_and_few(tmp_path: Path) -> None:
    made = Committee(tmp_path)
    made.close()
    words = ["\x1b[31m" + "w" * 10_000 + str(i) for i in range(3)] + [str(i) for i in range(200)]
    answers = [frame(raw) for raw in NONSENSE.values()] + [
        message({"ok": False, "log": each}) for each in words
    ]
    with node(tmp_path / "door", [*answers, message({"ok": False, "log": 7})]) as asked:
        client = Client(made.chain, [tmp_path / "door"], "gateway", made.gateway, since=0)
        sender = client._senders[0]
        sender.thread.start()
        for _ in range(len(answers) + 1):
            sender._queue.put(b"a submission")
        sender._queue.put(None)
        sender.thread.join(60)
        assert not sender.thread.is_alive() and len(asked) == len(answers) + 1
    counters = client.counters
    assert counters["unreachable"] == len(NONSENSE) and counters.total() == len(answers) + 1
    assert len(counters) <= 65 and all(len(name) <= 160 and name.isprintable() for name in counters)
    assert counters["refused: \\x1b[31m" + "w" * 143] == 3
