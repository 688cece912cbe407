"""A stream over one request: a line an event comes in, a line a result goes out, while it comes.

Nothing is read while events are decided, so that a sender is slowed down to what can be decided; a line without an end
takes no memory beyond its limit.
"""

import asyncio
from collections.abc import Iterator
from typing import Any

from phalanx.service.admission import Reason, Refused
from phalanx.service.http_guard import Receive, Send
from phalanx.service.intake import Intake
from phalanx.service.replies import ErrorReply, EventResult, Problem, encode, event_result
from phalanx.service.worker import UnavailableError

__all__ = ["Lines", "answer_stream"]

_SPACE = b" \t\r\n"


class Lines:
    """Cuts what comes into lines of bounded length.

    Args:
        limit: bytes of a line; what is longer counts as one line that is ``None``.

    Example:
        >>> lines = Lines(4)
        >>> lines.feed(b"ab\\ncdefgh"), lines.feed(b"ijk\\n\\nlm"), lines.end()
        ([(1, b'ab')], [(2, None), (3, b'')], [(4, b'lm')])
    """

    def __init__(self, limit: int) -> None:
        self._limit, self._rest, self._number, self._long = limit, bytearray(), 0, False

    def feed(self, data: bytes) -> list[tuple[int, bytes | None]]:
        """The lines that end in this part, with their numbers from 1."""
        *whole, rest = data.split(b"\n")
        found = [self._line(part) for part in whole]
        self._grow(rest)
        return found

    def end(self) -> list[tuple[int, bytes | None]]:
        """The last line, if it has no end."""
        return [self._line(b"")] if self._rest or self._long else []

    def _grow(self, part: bytes) -> None:
        if self._long or len(self._rest) + len(part) > self._limit:
            self._rest.clear()
            self._long = True
        else:
            self._rest += part

    def _line(self, part: bytes) -> tuple[int, bytes | None]:
        self._grow(part)
        line = None if self._long else bytes(self._rest)
        self._rest.clear()
        self._long = False
        self._number += 1
        return self._number, line


async def answer_stream(
    intake: Intake, receive: Receive, send: Send, stopping: asyncio.Event, *, batch: int, idle_s: float
) -> None:
    """Reads a request to its end and answers it meanwhile.

    Args:
        intake: where events go.
        receive, send: as ASGI has them.
        stopping: set when the service ends: what was read is answered, then the stream ends.
        batch: lines that are decided together at most.
        idle_s: how long nothing may come.
    """
    headers = [(b"content-type", b"application/x-ndjson")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    lines, index, last = Lines(intake.admission.limits.event_bytes), 0, False
    problem: Problem | None = None
    while not last and problem is None:
        message = await _next(receive, stopping, idle_s)
        if isinstance(message, Problem):
            problem = message
            break
        if message["type"] != "http.request":
            return
        last = not message.get("more_body", False)
        came = lines.feed(message.get("body", b"")) + (lines.end() if last else [])
        for part in _parts(
            [(number, line) for number, line in came if line is None or line.strip(_SPACE)], batch
        ):
            try:
                results = await _results(intake, part, index)
            except UnavailableError as failure:
                problem = Problem(failure.code, str(failure), "Send what has no result again")
                break
            index += len(part)
            body = b"".join(encode(result) + b"\n" for result in results)
            await send({"type": "http.response.body", "body": body, "more_body": True})
    final = b"" if problem is None else encode(ErrorReply(problem)) + b"\n"
    await send({"type": "http.response.body", "body": final, "more_body": False})


async def _results(intake: Intake, part: list[tuple[int, bytes | None]], first: int) -> list[EventResult]:
    """Results in the order of the lines, those that are too long among them."""
    items = [(f"line {number}", b"" if line is None else line) for number, line in part]
    if all(line is not None for _, line in part):
        return await intake.results(items, first=first, patient=True)
    results: list[EventResult] = []
    for offset, (number, line) in enumerate(part):
        if line is not None:
            results += await intake.results([items[offset]], first=first + offset, patient=True)
            continue
        limit = intake.admission.limits.event_bytes
        refused = intake.admission.refuse(
            Refused(
                Reason.TOO_LARGE,
                f"line {number} has more than {limit} bytes",
                "Leave out what is not needed",
                first + offset,
            )
        )
        results.append(event_result(first + offset, None, refused))
    return results


def _parts(lines: list[tuple[int, bytes | None]], size: int) -> Iterator[list[tuple[int, bytes | None]]]:
    for begin in range(0, len(lines), size):
        yield lines[begin : begin + size]


async def _next(receive: Receive, stopping: asyncio.Event, idle_s: float) -> Any:
    """The next message; a problem where none comes, or none is read any more."""
    coming = asyncio.ensure_future(receive())
    ending = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({coming, ending}, timeout=idle_s, return_when=asyncio.FIRST_COMPLETED)
        if coming.done():
            return coming.result()
        if ending.done():
            return Problem(
                "stopping", "the service is stopping", "Send what has no result again once it runs"
            )
        return Problem("too-slow", f"nothing came for {idle_s:g} s", "Keep sending, or end the stream")
    finally:
        for task in (coming, ending):
            task.cancel()
