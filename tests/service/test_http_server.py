"""The server around the application: slow heads, too many connections, TLS, nonsense, an end in order."""

import contextlib
import json
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from service.apps import TOKENS, Site, sent, site
from service.desks import HandDesk

from phalanx.errors import DataError, UsageError
from phalanx.service.http_server import ServerConfig, bind, is_loopback, make_server

PATIENCE_S = 60.0


@contextlib.contextmanager
def listening(here: Site, config: ServerConfig = ServerConfig()) -> Iterator[tuple[int, Any]]:  # noqa: B008
    bound = bind("127.0.0.1", 0)
    server = make_server(here.app, config, here.backend.stopping, here.backend.metrics.refuse)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield bound.getsockname()[1], server
    finally:
        server.should_exit = True
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), PATIENCE_S)
    connection.settimeout(PATIENCE_S)
    return connection


def until_closed(connection: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while part := connection.recv(65_536):
            found += part
    return found


def test_who_does_not_finish_the_head_of_a_request_is_hung_up_on() -> None:
    with site() as here, listening(here, ServerConfig(head_s=0.2, keep_alive_s=30)) as (port, _):
        for before in (b"", b"GET /healthz HTTP/1.1\r\nhost: x\r\n"):
            with connected(port) as connection:
                connection.sendall(before)
                assert until_closed(connection) == b""
        with connected(port) as connection:  # nor may the second request of a connection
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert connection.recv(65_536).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.4)  # a connection may be idle for longer between requests
            connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /hea")
            answer = until_closed(connection)
            assert answer.startswith(b"HTTP/1.1 200 ") and answer.count(b"HTTP/1.1") == 1
        assert here.metric("requests_refused_total", reason="too-slow") == 3


def test_an_idle_connection_is_closed_between_requests() -> None:
    with (
        site() as here,
        listening(here, ServerConfig(keep_alive_s=1)) as (port, _),
        connected(port) as connection,
    ):
        connection.sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
        assert until_closed(connection).startswith(b"HTTP/1.1 200 ")


def test_connections_are_few() -> None:
    with site() as here, listening(here, ServerConfig(connections=3)) as (port, _):
        with contextlib.ExitStack() as stack:
            kept = [stack.enter_context(connected(port)) for _ in range(3)]
            time.sleep(0.1)
            with connected(port) as one_more:
                assert until_closed(one_more) == b""
            kept[0].sendall(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n")
            assert kept[0].recv(65_536).startswith(b"HTTP/1.1 200 ")
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            with contextlib.suppress(httpx.TransportError):
                assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
                break


@pytest.mark.parametrize(
    "nonsense",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
        b"GET\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n",
        b"GET / HTTP/1.1\r\nbad header\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: " + b"y" * 40_000,
    ],
)
def test_what_is_no_request_gets_our_form_of_an_error(nonsense: bytes) -> None:
    with site() as here, listening(here) as (port, _), connected(port) as connection:
        connection.sendall(nonsense)
        head, _, body = until_closed(connection).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ") and b"server" not in head.lower()
        assert json.loads(body)["error"]["code"] == "bad-request"
        assert here.metric("requests_refused_total", reason="bad-request") == 1


def test_a_refusal_reaches_a_client_that_is_still_sending() -> None:
    with site() as here, listening(here) as (port, _):
        headers = {"authorization": f"Bearer {TOKENS['ingest']}", "content-type": "application/json"}
        answer = httpx.post(f"http://127.0.0.1:{port}/v1/events", content=b"x" * 3_000_000, headers=headers)
        assert answer.status_code == 413 and answer.json()["error"]["code"] == "too-large"


def test_an_end_answers_what_is_under_way() -> None:
    desk = HandDesk()
    desk.gate.clear()
    with site(desk) as here, listening(here) as (port, server):
        found: list[httpx.Response] = []
        headers = {"authorization": f"Bearer {TOKENS['ingest']}"}
        url = f"http://127.0.0.1:{port}/v1/events"
        client = threading.Thread(
            target=lambda: found.append(httpx.post(url, json=sent(1), headers=headers, timeout=PATIENCE_S))
        )
        client.start()
        while not here.worker.depth:
            time.sleep(0.01)
        server.should_exit = True
        time.sleep(0.3)
        assert not found and here.backend.stopping.is_set()
        desk.gate.set()
        client.join(PATIENCE_S)
        assert found[0].json()["decided"] == 1
        with pytest.raises(OSError):
            connected(port)


def test_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    issued.private_key_pem.write_to_path(str(key))
    for i, blob in enumerate(issued.cert_chain_pems):
        blob.write_to_path(str(certificate), append=i > 0)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    with site() as here, listening(here, ServerConfig(certificate=certificate, key=key)) as (port, _):
        answer = httpx.get(f"https://127.0.0.1:{port}/healthz", verify=context)
        assert answer.status_code == 200 and "max-age" in answer.headers["strict-transport-security"]
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/healthz")
        key.write_text("no key")
        with pytest.raises(DataError, match="Check the files"):
            make_server(
                here.app, ServerConfig(certificate=certificate, key=key), here.backend.stopping, print
            )


def test_addresses() -> None:
    assert is_loopback("127.0.0.1") and is_loopback("localhost") and is_loopback("::1")
    assert not is_loopback("0.0.0.0") and not is_loopback("192.0.2.7")
    for call in (lambda: is_loopback("no such name.invalid"), lambda: bind("no such name.invalid", 0)):
        with pytest.raises(UsageError, match="no such address"):
            call()
    with bind("127.0.0.1", 0) as bound:
        bound.listen()
        with pytest.raises(UsageError, match="cannot be taken"):
            bind("127.0.0.1", bound.getsockname()[1])
    with pytest.raises(UsageError, match="cannot be taken"):
        bind("192.0.2.7", 0)
