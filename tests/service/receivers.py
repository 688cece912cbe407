"""A receiver of webhooks on this machine that answers as it is told."""

import http.server
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Receiver", "receiving"]


@dataclass
class Receiver:
    """What came, and what is answered: one entry of ``answers`` a request, 200 once they are used up.

    An answer is a status, or a text: ``close`` ends the connection without one, ``hang`` waits until ``released``,
    ``endless`` never stops to answer, ``redirect`` sends elsewhere, ``retry-after`` asks for patience.
    """

    url: str = ""
    answers: list[int | str] = field(default_factory=list)
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)
    arrived: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def ids(self) -> list[str]:
        """Ids of the messages, as they came."""
        return [headers["phalanx-id"] for _, headers, _ in self.requests]


@contextmanager
def receiving(context: ssl.SSLContext | None = None) -> Iterator[Receiver]:
    """A receiver on an own port."""
    receiver = Receiver()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        timeout = 30

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            receiver.requests.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
            receiver.arrived.set()
            self.answer(receiver.answers.pop(0) if receiver.answers else 200)

        def answer(self, told: int | str) -> None:
            if told == "hang":
                receiver.released.wait(30)
            if told in ("close", "hang"):
                self.close_connection = True
            elif told == "endless":
                self.send_response(200)
                self.end_headers()
                self.close_connection = True
                try:
                    while not receiver.released.is_set():
                        self.wfile.write(b"x" * 65_536)
                except OSError:
                    pass
            else:
                status = {"redirect": 307, "retry-after": 503}.get(str(told)) or int(told)
                self.send_response(status)
                if told == "redirect":
                    self.send_header("Location", f"{receiver.url}/elsewhere")
                if told == "retry-after":
                    self.send_header("Retry-After", "120")
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    scheme = "http" if context is None else "https"
    receiver.url = f"{scheme}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
