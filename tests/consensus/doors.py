"""Nodes with doors but without engines: what gateways submit is ordered by a loop in this process. And false doors."""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from consensus.fake_engine import Committee, Node

from phalanx.service.consensus.door import Door
from phalanx.service.consensus.framing import Framer, frame
from phalanx.service.consensus.listener import Listener
from phalanx.service.statements import Statement


class Street:
    """A committee behind doors.

    Attributes:
        committee: its nodes.
        doors: their sockets.
        deaf: nodes that take no submissions.
        store: what waits to be ordered.
    """

    def __init__(self, folder: Path, n: int = 4) -> None:
        self.committee = Committee(folder, n)
        self.doors = [folder / f"door{node.place}" for node in self.committee.nodes]
        self.deaf: set[int] = set()
        self.store: list[bytes] = []
        self.served: list[Door] = []
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def door(self, node: Node, path: Path) -> Door:
        def forward(raw: bytes) -> str | None:
            if node.place in self.deaf:
                return "not now"
            with self._lock:
                if raw not in self.store:
                    self.store.append(raw)
            return None

        def status() -> dict[str, object]:
            height = node.application.state.head.height
            said = Statement.signed(
                node.key, node.name, height, "status", {"ledger": height}, self.committee.chain.name
            )
            return {"said": said.to_json()}

        return Door(
            path,
            self.committee.chain,
            node.name,
            node.key,
            node.ledger_folder,
            height=node.application.state.head.height,
            forward=forward,
            status=status,
        )

    def order(self) -> None:
        """One height; what was decided is told at the doors of living nodes."""
        before = {node.place: len(node.entries) for node in self.committee.alive}
        with self._lock:
            store = list(self.store)
        txs = self.committee.propose(self.committee.alive[0].place, store)
        self.committee.decide(txs)
        with self._lock:
            self.store = [raw for raw in self.store if raw not in txs]
        for node in self.committee.alive:
            for entry in node.entries[before[node.place] :]:
                self.served[node.place].publish(entry)

    @contextmanager
    def open(self) -> Iterator["Street"]:
        """Opens the doors and orders what comes until the block ends."""
        with ExitStack() as stack:
            stack.callback(self.committee.close)
            for node, path in zip(self.committee.nodes, self.doors, strict=True):
                self.served.append(stack.enter_context(self.door(node, path)))
            thread = threading.Thread(target=self._loop, daemon=True)
            thread.start()
            try:
                yield self
            finally:
                self._ended.set()
                thread.join()

    def _loop(self) -> None:
        while not self._ended.wait(0.005):
            if self.store or self.committee.alive[0].application.state.pending is not None:
                self.order()


@contextmanager
def false_door(path: Path, answer: Callable[[dict[str, object], socket.socket], None]) -> Iterator[list[str]]:
    """A node's door where each request is answered as is told; yields what it was asked to do."""
    asked: list[str] = []

    def serve(connection: socket.socket) -> None:
        framer = Framer()
        while data := connection.recv(1 << 16):
            for raw in framer.feed(data):
                request = json.loads(raw)
                asked.append(request["do"])
                answer(request, connection)

    listener = Listener(path, serve)
    listener.start()
    try:
        yield asked
    finally:
        listener.stop()


def silent(request: dict[str, object], connection: socket.socket) -> None:
    """Answers nothing."""


def dripping(request: dict[str, object], connection: socket.socket) -> None:
    """An answer that goes on coming, byte by byte, for hours."""
    ended = threading.Event()
    for byte in frame(b" " * 500_000):
        connection.sendall(bytes([byte]))
        ended.wait(0.02)


def in_time(work: Callable[[], object], seconds: float = 20.0) -> object:
    """What a call returns that must not hang; it may raise."""
    found: list[object] = []

    def run() -> None:
        try:
            found.append(work())
        except BaseException as problem:
            found.append(problem)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "it hangs"
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]
