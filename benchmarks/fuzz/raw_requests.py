"""What is no request of HTTP, or one that ends early."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

__all__ = ["RAW", "Asker", "Raw"]

_JSON, _LINES = "application/json", "application/x-ndjson"


@dataclass(frozen=True)
class Asker:
    """Who asks.

    Attributes:
        draw: what chance decides.
        token: that may send events.
        events: a body of so many events, as lines or not.
    """

    draw: random.Random
    token: str
    events: Callable[[int, bool], bytes]


Raw = tuple[bytes, bool, Sequence[int]]
"""Bytes, whether an answer is waited for, and the statuses that it may have (none: whatever is foreseen)."""


def _head(asker: Asker, *lines: str, path: str = "/v1/events", kind: str = _JSON) -> bytes:
    start = [f"POST {path} HTTP/1.1", "host: x", f"authorization: Bearer {asker.token}"]
    return "\r\n".join([*start, f"content-type: {kind}", *lines, "", ""]).encode("latin-1")


def _noise(asker: Asker) -> Raw:
    draw = asker.draw
    data = draw.choice((b"", b"GET ", b"POST / HTTP/1.1\r\n", b"\x16\x03\x01")) + draw.randbytes(
        draw.randrange(200)
    )
    return data + b"\r\n\r\n", True, (400, 401, 404, 405)


def _spoilt_head(asker: Asker) -> Raw:
    head = bytearray(_head(asker, "content-length: 2") + b"{}")
    for _ in range(asker.draw.randrange(1, 4)):
        head[asker.draw.randrange(len(head))] = asker.draw.randrange(256)
    return bytes(head), False, ()


def _odd_lengths(asker: Asker) -> Raw:
    odd = asker.draw.choice(
        (
            ("content-length: -1",),
            ("content-length: 1", "content-length: 2"),
            ("content-length: 1e3",),
            ("content-length: 5", "transfer-encoding: chunked"),
            ("transfer-encoding: gzip, chunked",),
            ("transfer-encoding: chunked, chunked",),
            ("no colon",),
            ("x: a\x00b",),
            (f"x: {'y' * 70_000}",),
        )
    )
    return _head(asker, *odd) + b"0\r\n\r\n", True, (400, 501)


def _broken_chunks(asker: Asker) -> Raw:
    chunk = asker.draw.choice(
        (
            b"zz\r\n{}\r\n",
            b"-1\r\n",
            b"f" * 17 + b"\r\n{}",
            b"2\r\n{}xx",
            b"2;" + b"a" * 40_000,
            b"\r\n",
            b"0x2\r\n{}\r\n",
        )
    )
    return _head(asker, "transfer-encoding: chunked") + chunk, True, (400, 408)


def _too_large(asker: Asker) -> Raw:
    return _head(asker, f"content-length: {9 * 2**20 + asker.draw.randrange(2**40)}") + b"{}", True, (413,)


def _really_too_large(asker: Asker) -> Raw:
    body = b"[" + b" " * 2**20 + b"]"
    if asker.draw.random() < 0.5:
        return _head(asker, f"content-length: {len(body)}") + body, True, (413,)
    return (
        _head(asker, "transfer-encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body),
        True,
        (413,),
    )


def _packed(asker: Asker) -> Raw:
    return _head(asker, "content-encoding: gzip", "content-length: 2") + b"{}", True, (415,)


def _ends_early(asker: Asker) -> Raw:
    body = asker.events(3, False)
    return _head(asker, f"content-length: {len(body) + 9}") + body, False, ()


def _stream_ends_early(asker: Asker) -> Raw:
    body = asker.events(3, True)
    head = _head(asker, "transfer-encoding: chunked", path="/v1/stream", kind=_LINES)
    return head + b"%x\r\n" % len(body) + body[: asker.draw.randrange(len(body))], False, ()


RAW: Sequence[tuple[Callable[[Asker], Raw], int]] = (
    (_noise, 20),
    (_spoilt_head, 20),
    (_odd_lengths, 15),
    (_broken_chunks, 15),
    (_too_large, 10),
    (_really_too_large, 2),
    (_packed, 4),
    (_ends_early, 7),
    (_stream_ends_early, 7),
)
