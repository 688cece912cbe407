"""Admission: what clients send, made into events within limits, their secrets redacted; or the reason why not.

Nothing behind this sees anything else. A sensor's own mistakes are refused, one event at a time. What a watched process
chooses (paths, arguments, names) never gets its event refused, or it would choose not to be judged: texts that are too
long are cut, control characters in names escaped. Refusals say place, reason and remedy, and repeat no value.
"""

import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from phalanx.data.features import is_truth
from phalanx.errors import ExtraMissingError
from phalanx.service.canonical import canonical, digest
from phalanx.service.clock import SECOND_NS
from phalanx.service.records import LiveEvent, Value

try:
    import msgspec
except ImportError:
    raise ExtraMissingError("msgspec", "serve", "reading live events") from None

__all__ = ["Admission", "Limits", "Reason", "Refused", "escaped"]


class Reason(StrEnum):
    """Why an event was refused: a closed list, fit for labels of metrics."""

    NOT_JSON = "not-json"
    NOT_AN_OBJECT = "not-an-object"
    NO_EVENTS = "no-events"
    TOO_MANY_EVENTS = "too-many-events"
    TOO_LARGE = "too-large"
    MISSING = "missing-field"
    TYPE = "wrong-type"
    EMPTY = "empty-field"
    TOO_LONG = "too-long"
    CHARACTERS = "bad-characters"
    TIME = "bad-time"
    FUTURE = "in-the-future"
    NAME = "bad-attribute-name"
    TOO_MANY = "too-many-attributes"
    NESTED = "nested"
    NUMBER = "number-out-of-range"
    ID_TAKEN = "id-taken"


@dataclass(frozen=True, slots=True)
class Refused:
    """An event that was not admitted.

    Attributes:
        reason: why.
        message: place and reason, in a sentence of our own words.
        remedy: what to do.
        index: its place among the events of the request, from 0; None where all of the request is meant.
    """

    reason: Reason
    message: str
    remedy: str
    index: int | None = None


@dataclass(frozen=True)
class Limits:
    """What one event, and one request, may be.

    Attributes:
        events: in a request.
        event_bytes: of one event as it is sent.
        name: characters of host, subject, parent and kind.
        id: characters of an id that a client gives.
        attributes: of an event.
        text: characters of a text attribute; what is longer is cut after its secrets were redacted.
        future_s: how far ahead of this machine's clock an event may be.
    """

    events: int = 1024
    event_bytes: int = 262_144
    name: int = 256
    id: int = 128
    attributes: int = 64
    text: int = 4096
    future_s: int = 300


_OWN = ("id", "time_ns", "host", "subject", "parent", "kind")
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_INT64 = 2**63
_KIND_PREFIX = "EVENT_"
_SPACE = b" \t\r\n"
_REMEMBERED = 32_768  # texts without secrets
_any = msgspec.json.Decoder()
_array = msgspec.json.Decoder(list[msgspec.Raw])
_UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError)


class Admission:
    """Makes events of what clients send.

    Args:
        redact: takes secrets out of an event's attributes (``redaction.redact_event``).
        wall_ns: this machine's time, in ns since 1970.
        limits: what is admitted.

    Attributes:
        counts: events ``admitted``, refused (by reason); texts that were ``cut``, ``redacted``, ``escaped``; columns of
            truth that were ``dropped``.

    Example:
        >>> from phalanx.service.redaction import redact_event
        >>> admission = Admission(redact_event, lambda: 10**18)
        >>> sent = b'{"time_ns": 5, "subject": "web-1:7", "kind": "EVENT_EXECUTE", "command": "login -password=x"}'
        >>> event = admission.admit(sent)
        >>> event.kind, event.attributes["command"], len(event.id)
        ('EXECUTE', 'login -password=***', 32)
        >>> refused = admission.admit(b'{"time_ns": 5, "subject": "", "kind": "READ"}', 3, "line 4")
        >>> refused.reason.value, refused.message
        ('empty-field', 'line 4: subject is empty')
    """

    def __init__(
        self,
        redact: Callable[[LiveEvent], LiveEvent],
        wall_ns: Callable[[], int],
        limits: Limits = Limits(),
    ) -> None:
        self.limits = limits
        self.counts: Counter[str] = Counter()
        self._redact, self._wall_ns = redact, wall_ns
        self._clean: set[tuple[str, str] | str] = set()

    def split(self, body: bytes, *, lines: bool) -> list[tuple[str, bytes]] | Refused:
        """The events of a body, each with its place in words, not yet looked at.

        Args:
            body: JSON, an object or an array (``event 0`` and on); or lines of JSON (``line 1`` and on, without the
                empty ones).
            lines: whether it is lines.
        """
        most = self.limits.events
        if lines:
            rows = body.split(b"\n", 2 * most)
            items = [(f"line {number}", row) for number, row in enumerate(rows, 1) if row.strip(_SPACE)]
            too_many = len(items) > most or len(rows) > 2 * most
        else:
            try:
                several = body.lstrip(_SPACE)[:1] == b"["
                rows = [bytes(row) for row in _array.decode(body)] if several else [body]
            except _UNREADABLE:
                return self._refused(
                    Reason.NOT_JSON,
                    "the request is not JSON",
                    "Send an object, an array of objects, or a line an event",
                )
            items = (
                [(f"event {number}", row) for number, row in enumerate(rows)] if body.strip(_SPACE) else []
            )
            too_many = len(items) > most
        if too_many:
            return self._refused(
                Reason.TOO_MANY_EVENTS,
                f"the request holds more than {most} events, or lines beyond number",
                "Send several requests, or a stream",
            )
        if not items:
            return self._refused(Reason.NO_EVENTS, "the request holds no event", "Send one at least")
        return items

    def admit(
        self, item: bytes, index: int = 0, place: str = "the event", key: str = ""
    ) -> LiveEvent | Refused:
        """One event.

        Args:
            item: its JSON.
            index: its place in the request.
            place: that place in words, for the refusal.
            key: idempotency key of the request: goes into the ids of events that have none.
        """
        try:
            found = self._event(item, index, key)
        except _RefusalError as refusal:
            return self._refused(refusal.reason, f"{place}{refusal.message}", refusal.remedy, index)
        self.counts["admitted"] += 1
        return found

    def refuse(self, refused: Refused) -> Refused:
        """Counts a refusal that was found elsewhere."""
        self.counts[refused.reason.value] += 1
        return refused

    def _refused(self, reason: Reason, message: str, remedy: str, index: int | None = None) -> Refused:
        return self.refuse(Refused(reason, message, remedy, index))

    def _event(self, item: bytes, index: int, key: str) -> LiveEvent:
        if len(item) > self.limits.event_bytes:
            limit = self.limits.event_bytes
            raise _RefusalError(
                Reason.TOO_LARGE, f" has more than {limit} bytes", "Leave out what is not needed"
            )
        try:
            form = _any.decode(item)
        except _UNREADABLE:
            raise _RefusalError(
                Reason.NOT_JSON, " is not JSON", "Send one object in UTF-8 with finite numbers"
            ) from None
        if type(form) is not dict:
            raise _RefusalError(
                Reason.NOT_AN_OBJECT, " is not an object", "Send an object of names and values"
            )
        time_ns = self._time(form)
        names = {name: self._name(form, name) for name in ("subject", "kind", "host", "parent")}
        names["kind"] = names["kind"].removeprefix(_KIND_PREFIX)
        if not names["kind"]:
            raise _RefusalError(Reason.EMPTY, ": kind is empty", "Give it a text")
        named = self._id(form)
        attributes = self._redacted({**names, **self._attributes(form)})
        content = {
            "time_ns": time_ns,
            **{name: str(attributes.pop(name)) for name in names},
            "attributes": {name: self._cut(value) for name, value in attributes.items()},
        }
        if named is None:
            keyed = {**content, "key": key, "index": index} if key else content
            named = digest("event", canonical(keyed))[:32]
        return LiveEvent(id=named, **content)

    def _time(self, form: Mapping[str, Any]) -> int:
        if "time_ns" not in form:
            raise _RefusalError(
                Reason.MISSING, ": time_ns is missing", "Give the event's time, in ns since 1970"
            )
        time_ns = form["time_ns"]
        if type(time_ns) is not int or not 0 < time_ns < _INT64:
            raise _RefusalError(
                Reason.TIME,
                ": time_ns is no whole number above 0 of at most 63 bits",
                "Give ns since 1970, without a point or quotes",
            )
        if time_ns > self._wall_ns() + self.limits.future_s * SECOND_NS:
            raise _RefusalError(
                Reason.FUTURE,
                f": time_ns lies more than {self.limits.future_s} s ahead of this machine's clock",
                "Set the clocks, or check that it is in ns",
            )
        return time_ns

    def _name(self, form: Mapping[str, Any], name: str) -> str:
        """A field that names something; what may be absent is then empty."""
        needed = name in ("subject", "kind")
        value = form.get(name)
        if value is None and not needed:
            return ""
        if name not in form:
            raise _RefusalError(Reason.MISSING, f": {name} is missing", "Give it a text")
        if type(value) is not str:
            raise _RefusalError(Reason.TYPE, f": {name} is no text", "Give it a text")
        if needed and not value.strip():
            raise _RefusalError(Reason.EMPTY, f": {name} is empty", "Give it a text")
        plain = escaped(value) if len(value) <= self.limits.name else value
        if len(plain) > self.limits.name:
            raise _RefusalError(
                Reason.TOO_LONG,
                f": {name} has more than {self.limits.name} characters, control characters written out",
                "Name it by a shorter text",
            )
        self.counts["escaped"] += plain is not value
        return plain

    def _id(self, form: Mapping[str, Any]) -> str | None:
        value = form.get("id")
        if value is None:
            return None
        if type(value) is not str:
            raise _RefusalError(Reason.TYPE, ": id is no text", "Give it a text, or leave it out")
        if not value.strip():
            raise _RefusalError(Reason.EMPTY, ": id is empty", "Give it a text, or leave it out")
        if len(value) > self.limits.id:
            raise _RefusalError(
                Reason.TOO_LONG,
                f": id has more than {self.limits.id} characters",
                "Use a shorter one, a UUID say",
            )
        if escaped(value) is not value:
            raise _RefusalError(
                Reason.CHARACTERS, ": id holds control characters", "Use letters and digits, a UUID say"
            )
        return value

    def _attributes(self, form: Mapping[str, Any]) -> dict[str, Value]:
        found: dict[str, Value] = {}
        for position, (name, value) in enumerate(form.items(), 1):
            if name in _OWN:
                continue
            role = _role(name)
            clean = ("", name) in self._clean
            if role is None or not (clean or self._redacted({"": name})[""] == name):
                raise _RefusalError(
                    Reason.NAME,
                    f": the name at position {position} is none",
                    "Use 1 to 64 of the characters A-Z a-z 0-9 _ . -",
                )
            if role:
                self.counts["dropped"] += 1
                continue
            found[name] = self._value(name, value)
        if len(found) > self.limits.attributes:
            raise _RefusalError(
                Reason.TOO_MANY,
                f" has more than {self.limits.attributes} attributes",
                "Send those that members were trained on",
            )
        return found

    def _value(self, name: str, value: Any) -> Value:
        kind = type(value)
        if value is None or kind is str or kind is bool:
            return value
        if kind is int and -_INT64 <= value < _INT64:
            return value
        if kind is float and math.isfinite(value):
            return value
        if kind is dict or kind is list:
            raise _RefusalError(
                Reason.NESTED,
                f": {name} is nested",
                "Send text, a number, true, false or null; flatten what is nested",
            )
        raise _RefusalError(Reason.NUMBER, f": {name} is beyond 64 bits", "Send a smaller number, or text")

    def _cut(self, value: Value) -> Value:
        if not isinstance(value, str) or len(value) <= self.limits.text:
            return value
        self.counts["cut"] += 1
        return value[: self.limits.text]

    def _redacted(self, values: dict[str, Value]) -> dict[str, Value]:
        """The values without secrets, by the names that they have.

        What came through unchanged is remembered, for paths and names come again and again; a secret never is. Of what
        is no text it is the name that counts: that of a secret, or not.
        """
        clean = self._clean
        unknown = {
            name: value
            for name, value in values.items()
            if ((name, value) if type(value) is str else name) not in clean
        }
        if not unknown:
            return values
        redacted = self._redact(LiveEvent("", 0, "", "", "", attributes=unknown)).attributes
        if len(clean) >= _REMEMBERED:
            clean.clear()
        for name, value in unknown.items():
            if redacted[name] != value:
                self.counts["redacted"] += 1
            elif not isinstance(value, str):
                if value is not None and not isinstance(value, bool):
                    clean.add(name)
            elif len(value) <= self.limits.name:
                clean.add((name, value))
        return {name: redacted.get(name, value) for name, value in values.items()}


def escaped(text: str) -> str:
    r"""The text with its control characters (and those that turn its direction) written out; itself where it has none.

    Example:
        >>> escaped("a\n\u202eb") == "a\\x0a\\u202eb"
        True
    """
    if text.isprintable() or not _CONTROL.search(text):
        return text
    return _CONTROL.sub(
        lambda found: f"\\x{ord(c):02x}" if ord(c := found[0]) < 256 else f"\\u{ord(c):04x}", text
    )


class _RefusalError(Exception):
    """Carries a refusal up."""

    def __init__(self, reason: Reason, message: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason, self.message, self.remedy = reason, message, remedy


@functools.lru_cache(maxsize=4096)
def _role(name: str) -> bool | None:
    """Whether an attribute tells the truth that is known only afterwards; None where the name is none."""
    return is_truth(name) if _NAME.fullmatch(name) else None
