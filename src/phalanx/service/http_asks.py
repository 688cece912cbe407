"""What requests ask for: headers, parameters, small bodies; read by hand, so that errors are of our form."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from phalanx.errors import ExtraMissingError
from phalanx.service.http_guard import ApiError, only_header
from phalanx.verdicts import Verdict

try:
    import msgspec
except ImportError:
    raise ExtraMissingError("msgspec", "serve", "answering over HTTP") from None

__all__ = ["Label", "NewMode", "Query", "Why", "asked", "choice", "idempotency_key", "query_of"]

_LONGEST_WHY, _LONGEST_KEY, _LONGEST_TEXT = 500, 128, 2048


@dataclass(frozen=True)
class Query:
    """Which decisions are asked for: all conditions hold, the latest come first.

    Attributes:
        host, subject: of the process; empty: of any.
        since_ns: time of the event, in ns since 1970.
        least: verdict at least.
        after: where the page before ended.
        limit: of decisions.
    """

    host: str = ""
    subject: str = ""
    since_ns: int = 0
    least: Verdict = Verdict.ALLOW
    after: str = ""
    limit: int = 100


class Why(msgspec.Struct, forbid_unknown_fields=True):
    """What may come with an operator's action."""

    why: Annotated[str, msgspec.Meta(max_length=_LONGEST_WHY)] = ""


class NewMode(msgspec.Struct, forbid_unknown_fields=True):
    """Which mode is asked for."""

    mode: Literal["shadow", "enforce"]
    why: Annotated[str, msgspec.Meta(max_length=_LONGEST_WHY)] = ""


class Label(msgspec.Struct, forbid_unknown_fields=True):
    """What was true of an event."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
    malicious: bool


# of names of ours alone: those of fields that we do not know are the body's, and nothing of it is repeated
_PLACE = re.compile(r" - at `(\$(?:\[[0-9]+\])?(?:\.(?:id|malicious|mode|why))?)`\Z")
_WHY_FORM = f'"why": a text of at most {_LONGEST_WHY} characters'
_FORMS = {
    Why: f"nothing, or an object with {_WHY_FORM}",
    NewMode: f'an object with "mode": "shadow" or "enforce", and, if you like, {_WHY_FORM}',
    list[Label]: 'an array of objects, each with "id": an event\'s, and "malicious": true or false',
}


def asked(body: bytes, kind: Any) -> Any:
    """The JSON of a body.

    Raises:
        ApiError: it is not of just this form.
    """
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as problem:
        place = _PLACE.search(str(problem))
        where = f" at {place[1]}" if place else ""
        raise ApiError(
            400,
            "bad-request",
            f"the body is not of the form that is expected{where}; nothing was taken",
            f"Send {_FORMS[kind]}",
        ) from None


def idempotency_key(headers: Collection[tuple[bytes, bytes]]) -> str:
    """The header Idempotency-Key; empty where there is none.

    Raises:
        ApiError: it is none.
    """
    key = only_header(headers, b"idempotency-key")
    if key is None:
        return ""
    if not 0 < len(key) <= _LONGEST_KEY or not key.isprintable():
        raise ApiError(
            400,
            "bad-header",
            f"Idempotency-Key has 1 to {_LONGEST_KEY} printable characters",
            "Use a UUID, say",
        )
    return key


def query_of(given: Any) -> Query:
    """The query that parameters ask for.

    Raises:
        ApiError: an unknown parameter, or one that is not what it should be.
    """
    known = ("host", "subject", "since_ns", "verdict", "after", "limit")
    for name in given:
        if name not in known or len(given.getlist(name)) > 1:
            raise ApiError(
                400, "bad-request", "an unknown parameter, or one twice", f"Known: {', '.join(known)}"
            )
    least = choice(given, "verdict", [verdict.name.lower() for verdict in Verdict])
    return Query(
        host=_plain(given, "host"),
        subject=_plain(given, "subject"),
        since_ns=_whole(given, "since_ns", 0, 2**63 - 1, 0),
        least=Verdict[least.upper()],
        after=_plain(given, "after"),
        limit=_whole(given, "limit", 1, 1000, 100),
    )


def _plain(given: Any, name: str) -> str:
    value = given.get(name, "")
    if len(value) > _LONGEST_TEXT or "\x00" in value:
        raise ApiError(400, "bad-request", f"{name} is too long, or holds a null character", "Shorten it")
    return value


def _whole(given: Any, name: str, least: int, most: int, default: int) -> int:
    value = given.get(name)
    if value is None:
        return default
    if not (value.isascii() and value.isdigit() and len(value) <= 19 and least <= int(value) <= most):
        raise ApiError(400, "bad-request", f"{name} is no whole number from {least} to {most}", "Correct it")
    return int(value)


def choice(given: Any, name: str, choices: Sequence[str]) -> str:
    """A parameter that is one of these; the first unless given.

    Raises:
        ApiError: it is none of them.
    """
    value = given.get(name, choices[0])
    if value not in choices:
        raise ApiError(400, "bad-request", f"{name} is none of: {', '.join(choices)}", "Choose one of them")
    return value
