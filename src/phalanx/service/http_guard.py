"""What every HTTP request passes: who asks, how much and how slowly he sends, what every answer bears.

Bodies are read no further than their limit, whatever their headers say; nothing of a request is repeated in an error.
"""

import asyncio
import logging
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, Mapping, MutableMapping
from typing import Any

from phalanx.service.replies import ErrorReply, Problem, encode
from phalanx.service.tokens import Caller, Tokens

__all__ = [
    "ApiError",
    "Guard",
    "authorised",
    "content_type",
    "error_headers",
    "only_header",
    "read_body",
]

_LOG = logging.getLogger("phalanx")
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)
_OVER_TLS = (b"strict-transport-security", b"max-age=31536000")
_DRAINED = 8 * 2**20
_DRAIN_S = 2.0


class ApiError(Exception):
    """An error that a client gets.

    Attributes:
        status: of HTTP.
        code: of a closed list, fit for labels of metrics.
        message, remedy: words of our own.
        headers: to send with it.
    """

    def __init__(
        self, status: int, code: str, message: str, remedy: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(code)
        self.status, self.code, self.message, self.remedy = status, code, message, remedy
        self.headers = dict(headers or {})

    @property
    def body(self) -> bytes:
        """Its JSON."""
        return encode(ErrorReply(Problem(self.code, self.message, self.remedy)))


def error_headers(error: ApiError) -> dict[str, str]:
    """The headers of its answer."""
    return {"content-type": "application/json", **error.headers}


def only_header(headers: Collection[tuple[bytes, bytes]], name: bytes) -> str | None:
    """The value of a header; None where it is missing.

    Raises:
        ApiError: it is there more than once, or is not ASCII.
    """
    found = [value for key, value in headers if key == name]
    if len(found) > 1 or (found and not found[0].isascii()):
        raise ApiError(
            400, "bad-header", f"the header {name.decode()} is there twice, or not ASCII", "Send it once"
        )
    return found[0].decode() if found else None


def authorised(headers: Collection[tuple[bytes, bytes]], tokens: Tokens, scope: str) -> Caller:
    """Who asks, if the token has the scope.

    Raises:
        ApiError: no token or a wrong one (401), or one without the scope (403).
    """
    given = only_header(headers, b"authorization") or ""
    kind, _, token = given.partition(" ")
    caller = tokens.caller(token.strip()) if kind.lower() == "bearer" else None
    if caller is None:
        raise ApiError(
            401,
            "unauthorized",
            "no token, or one that is not known",
            "Send the header Authorization: Bearer TOKEN",
            {"www-authenticate": "Bearer"},
        )
    if scope not in caller.scopes:
        raise ApiError(
            403,
            "forbidden",
            f"the token does not have the scope {scope}",
            "Ask the operator for one that has",
            {"www-authenticate": f'Bearer error="insufficient_scope", scope="{scope}"'},
        )
    return caller


def content_type(headers: Collection[tuple[bytes, bytes]], allowed: Collection[str]) -> str:
    """The media type of a body.

    Raises:
        ApiError: it is not among those allowed, not UTF-8, or compressed.
    """
    given = (only_header(headers, b"content-type") or "").lower()
    kind, _, rest = given.partition(";")
    coded = (only_header(headers, b"content-encoding") or "identity").strip().lower()
    charset = rest.strip().replace('"', "")
    if kind.strip() not in allowed or charset not in ("", "charset=utf-8") or coded != "identity":
        raise ApiError(
            415,
            "unsupported-media-type",
            "the body's type is not taken here",
            f"Send {' or '.join(allowed)} in UTF-8, not compressed",
        )
    return kind.strip()


async def read_body(
    headers: Collection[tuple[bytes, bytes]], receive: Receive, limit: int, timeout_s: float
) -> bytes:
    """The whole body of a request.

    Args:
        headers: of the request.
        receive: as ASGI has it.
        limit: bytes, whatever the headers say.
        timeout_s: until it is there.

    Raises:
        ApiError: it is too large (413), too slow (408), or its sender has gone (400).
    """
    told = only_header(headers, b"content-length")
    if told is not None and told.isdigit() and len(told) <= 18 and int(told) > limit:
        await _drain(receive, int(told))
        raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(timeout_s):
            while True:
                message = await receive()
                if message["type"] != "http.request":
                    raise ApiError(400, "disconnected", "the sender has gone")
                part = message.get("body", b"")
                size += len(part)
                if size > limit:
                    if message.get("more_body"):
                        await _drain(receive, _DRAINED)
                    raise _too_large(limit)
                parts.append(part)
                if not message.get("more_body"):
                    return b"".join(parts)
    except TimeoutError:
        raise ApiError(
            408, "too-slow", f"the body was not there within {timeout_s:g} s", "Send it faster, or less of it"
        ) from None


async def _drain(receive: Receive, size: int) -> None:
    """Reads on for a while and keeps nothing, so that the client gets to read why it is refused."""
    if size > _DRAINED:
        return
    left = size
    try:
        async with asyncio.timeout(_DRAIN_S):
            while left > 0:
                message = await receive()
                if message["type"] != "http.request" or not message.get("more_body"):
                    return
                left -= len(message.get("body", b""))
    except TimeoutError:
        return


def _too_large(limit: int) -> ApiError:
    return ApiError(
        413, "too-large", f"the body has more than {limit} bytes", "Send several requests, or a stream"
    )


class Guard:
    """Around an ASGI application: headers of every answer, errors that nobody foresaw, how long it took.

    Args:
        app: the application.
        measured: told of every answer: name of the endpoint or ``other``, status, time in s.
    """

    def __init__(self, app: Any, measured: Callable[[str, int, float], None]) -> None:
        self._app, self._measured = app, measured

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun, status, whole = time.perf_counter(), 0, False

        async def received() -> Message:
            nonlocal whole
            message = await receive()
            whole = whole or not message.get("more_body", False)
            return message

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), *_ALWAYS]
                if scope.get("scheme") == "https":
                    headers.append(_OVER_TLS)
                if not whole and _has_body(scope["headers"]):
                    headers.append((b"connection", b"close"))  # nobody reads the rest
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._app(scope, received, sent)
        except Exception as problem:
            where = "".join(traceback.format_tb(problem.__traceback__))
            _LOG.error(
                "a request failed: %s\n%s", type(problem).__name__, where
            )  # what it says may be an attacker's
            # an error was answered; where an answer had begun, the server sees no end of it, and hangs up
        finally:
            endpoint = getattr(scope.get("endpoint"), "__name__", "other")
            self._measured(endpoint, status, time.perf_counter() - begun)


def _has_body(headers: Collection[tuple[bytes, bytes]]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0")
        for name, value in headers
    )
