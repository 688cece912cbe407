"""The socket that the engine talks to: order, flushes, connections of their own, malformed input."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.errors import UsageError
from phalanx.service.consensus.abci.abci_types_pb2 import (
    Request,
    RequestEcho,
    RequestFlush,
    RequestInfo,
    RequestQuery,
    Response,
    ResponseInfo,
)
from phalanx.service.consensus.framing import Framer, frame
from phalanx.service.consensus.listener import connect
from phalanx.service.consensus.server import Server


class Answers:
    """Answers ``info``; fails on ``query``."""

    def handle(self, kind: str, request: Any) -> Any:
        if kind == "info":
            return ResponseInfo(data=request.version)
        raise ValueError(f"cannot {kind}")


class Engine:
    """The engine's side of a connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._framer = Framer()
        self._got: list[bytes] = []

    def send(self, *requests: Request) -> None:
        self.connection.sendall(b"".join(frame(request.SerializeToString()) for request in requests))

    def receive(self) -> Response | None:
        """The next answer; None where the connection was closed."""
        while not self._got:
            data = self.connection.recv(1 << 16)
            if not data:
                return None
            self._got += self._framer.feed(data)
        return Response.FromString(self._got.pop(0))


@contextmanager
def engine(path: Path) -> Iterator[Engine]:
    with closing(connect(path, 10.0)) as connection:
        yield Engine(connection)


FLUSH = Request(flush=RequestFlush())


def test_answers_come_in_order_and_flush_is_answered(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Server(path, Answers()), engine(path) as one:
        sent = [Request(info=RequestInfo(version=str(i))) for i in range(500)]
        one.send(*sent, Request(echo=RequestEcho(message="hear")), FLUSH)
        answers = [one.receive() for _ in range(502)]
    assert [answer.info.data for answer in answers[:500] if answer] == [str(i) for i in range(500)]
    last = answers[-1]
    assert answers[500] == Response(echo={"message": "hear"}) and last is not None and last.HasField("flush")


def test_a_request_is_answered_without_a_flush_too(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with Server(path, Answers()), engine(path) as one:
        one.send(Request(info=RequestInfo(version="alone")))
        answer = one.receive()
    assert answer is not None and answer.info.data == "alone"


def test_four_connections_at_once_and_one_that_waits_holds_up_none(tmp_path: Path) -> None:
    path = tmp_path / "s"
    enter, leave = threading.Event(), threading.Event()

    class Slow:
        def handle(self, kind: str, request: Any) -> Any:
            if request.version == "slow":
                enter.set()
                assert leave.wait(10)
            return ResponseInfo(data=request.version)

    server = Server(path, Slow())
    with server, engine(path) as a, engine(path) as b, engine(path) as c, engine(path) as d:
        a.send(Request(info=RequestInfo(version="slow")))
        assert enter.wait(10)
        for other in (b, c, d):
            other.send(Request(info=RequestInfo(version="quick")), FLUSH)
            answer = other.receive()
            assert answer is not None and answer.info.data == "quick"
        leave.set()
        answer = a.receive()
        assert answer is not None and answer.info.data == "slow"
    assert server.peak == 4 and not server.errors


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"\xff\xff\xff\xff\x7f", "frame"),
        (b"\x80\x00", "frame"),
        (frame(b"\xff\xff\xff\xff"), "message"),
        (frame(b""), "request"),
        (frame(b"\x22\x00"), "request"),  # a kind that was given up: 4, SetOption
        (frame(Request(query=RequestQuery()).SerializeToString()), "handler"),
    ],
)
def test_malformed_input_closes_its_connection_alone_and_is_counted(
    tmp_path: Path, sent: bytes, reason: str
) -> None:
    path = tmp_path / "s"
    server = Server(path, Answers())
    with server, engine(path) as good, engine(path) as bad:
        bad.connection.sendall(frame(Request(info=RequestInfo(version="before")).SerializeToString()) + sent)
        answers = []
        while (answer := bad.receive()) is not None:
            answers.append(answer)
        assert all(a.HasField("exception") for a in answers[1:])
        assert len(answers) <= 2
        good.send(Request(info=RequestInfo(version="still here")), FLUSH)
        answer = good.receive()
        assert answer is not None and answer.info.data == "still here"
        with engine(path) as later:
            later.send(FLUSH)
            assert later.receive() is not None
    assert dict(server.errors) == {reason: 1}


@given(st.lists(st.binary(max_size=60), min_size=1, max_size=5))
@settings(max_examples=200)
def test_no_bytes_bring_the_server_down(noise: list[bytes]) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder, Server(Path(folder) / "s", Answers()):
        for data in noise:
            with engine(Path(folder) / "s") as bad:
                bad.connection.sendall(data)
                bad.connection.shutdown(socket.SHUT_WR)
                while bad.receive() is not None:
                    pass
        with engine(Path(folder) / "s") as good:
            good.send(FLUSH)
            assert good.receive() is not None


def test_a_request_longer_than_the_limit_is_refused(tmp_path: Path) -> None:
    server = Server(tmp_path / "s", Answers(), limit=1000)
    with server, engine(tmp_path / "s") as one:
        one.send(Request(info=RequestInfo(version="x" * 2000)))
        assert one.receive() is None
    assert server.errors["frame"] == 1


def test_the_socket_is_its_owners_alone_and_goes_with_the_server(tmp_path: Path) -> None:
    path = tmp_path / "s"
    path.touch()  # left behind by a killed process
    with Server(path, Answers()):
        assert path.stat().st_mode & 0o777 == 0o600
    assert not path.exists()


def test_folders_with_long_names_have_sockets_too(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * 120) / ("y" * 120)
    folder.mkdir(parents=True)
    with Server(folder / "s", Answers()):
        assert (folder / "s").stat().st_mode & 0o777 == 0o600
        connect(folder / "s", 5).close()
    assert not (folder / "s").exists()


def test_a_path_that_no_socket_can_have_is_a_users_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="choose a shorter folder"):
        Server(tmp_path / ("x" * 120), Answers())
