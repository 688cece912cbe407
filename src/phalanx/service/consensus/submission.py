"""Events on their way into the chain: what a gateway signs, and what every node checks of it alike."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from phalanx.errors import DataError
from phalanx.service.canonical import canonical, digest
from phalanx.service.consensus.chain import Chain
from phalanx.service.keys import SigningKey, verify
from phalanx.service.ledger_bodies import event_to_json
from phalanx.service.records import LiveEvent, Value

__all__ = [
    "SUBMISSION_BYTES",
    "SUBMISSION_EVENTS",
    "Submission",
    "joined",
    "parse",
    "submission_flaw",
    "submit_form",
]

SUBMISSION_EVENTS = 512
"""The most events of one submission."""

SUBMISSION_BYTES = 2 << 20
"""Bytes of the largest submission."""

_TAG = b"S"
_SIGNATURE = 64
_DOMAIN = b"phalanx submission 1\n"
_KNOWN = 128  # a node meets a transaction five times on its way, and at every height while it waits
_TEXT, _ATTRIBUTES, _VALUE = 1024, 256, 65_536


class _Event(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    time_ns: int
    host: str
    subject: str
    parent: str
    kind: str
    attributes: dict[str, Value]


class _Payload(msgspec.Struct, forbid_unknown_fields=True):
    base: int
    chain: str
    events: list[_Event]
    gateway: str


@dataclass(frozen=True)
class Submission:
    """Events of one gateway, under its signature.

    Attributes:
        chain: the chain it is for.
        gateway: who submits.
        base: height of the ledger that the gateway had seen; it can be ordered until ``window`` entries after it.
        events: in their order.
        text: canonical JSON of the events.
        digest: of the events, as in the ledger; names the submission.
        raw: the signed bytes, the transaction.
    """

    chain: str
    gateway: str
    base: int
    events: tuple[LiveEvent, ...]
    text: str
    digest: str
    raw: bytes

    def signed_by(self, public: str) -> bool:
        """Whether the signature is that of a public key."""
        return _signed(self.raw, public)


def submit_form(key: SigningKey, gateway: str, chain: str, base: int, events: Sequence[LiveEvent]) -> bytes:
    """The transaction of a submission.

    Raises:
        DataError: it is too large, empty, or an attribute has no form in JSON.

    Example:
        >>> import tempfile, pathlib
        >>> key = SigningKey.create(pathlib.Path(tempfile.mkdtemp()) / "gateway.pem")
        >>> raw = submit_form(key, "g", "demo", 0, [LiveEvent("e", 1, "web", "web:1", "EXECUTE")])
        >>> submission = parse(raw)
        >>> submission.signed_by(key.public), [event.id for event in submission.events]
        (True, ['e'])
    """
    forms = [event_to_json(event) for event in events]
    payload = canonical({"base": base, "chain": chain, "events": forms, "gateway": gateway}).encode()
    raw = _TAG + key.sign(_DOMAIN + payload) + payload
    parse(raw)
    return raw


def joined(texts: Sequence[str]) -> str:
    """Canonical JSON of the events of several submissions, one after the other.

    Args:
        texts: canonical JSON of the events of each, at least one event each.

    Example:
        >>> joined(["[1,2]", "[3]"])
        '[1,2,3]'
    """
    return "[" + ",".join(text[1:-1] for text in texts) + "]"


@functools.lru_cache(maxsize=_KNOWN)
def parse(raw: bytes) -> Submission:
    """The submission of a transaction; whether it may be ordered is for the chain's state to say.

    There is one form: bytes that differ from the canonical ones of what they say are refused.

    Raises:
        DataError: no submission.
    """
    if len(raw) > SUBMISSION_BYTES:
        raise DataError(
            f"a submission of {len(raw):,} bytes; at most {SUBMISSION_BYTES:,}. Submit fewer events"
        )
    start = len(_TAG) + _SIGNATURE
    if not raw.startswith(_TAG) or len(raw) <= start:
        raise DataError("not a submission")
    try:
        payload = msgspec.json.decode(raw[start:], type=_Payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, ValueError) as problem:
        raise DataError(f"not a submission: {ascii(str(problem))[:160]}") from None
    if not 1 <= len(payload.events) <= SUBMISSION_EVENTS:
        raise DataError(f"a submission of {len(payload.events)} events; expected 1 to {SUBMISSION_EVENTS}")
    if payload.base < 0:
        raise DataError("base is a height of the ledger, from 0 on")
    for event in payload.events:
        _check(event)
    events = tuple(
        LiveEvent(e.id, e.time_ns, e.host, e.subject, e.kind, e.parent, e.attributes) for e in payload.events
    )
    text = canonical([event_to_json(event) for event in events])
    around = canonical(
        {"base": payload.base, "chain": payload.chain, "events": [], "gateway": payload.gateway}
    )
    head, _, tail = around.partition('"events":[]')
    if f'{head}"events":{text}{tail}'.encode() != raw[start:]:
        raise DataError("a submission that is not in canonical JSON. Make it with submit_form")
    return Submission(payload.chain, payload.gateway, payload.base, events, text, digest("batch", text), raw)


def submission_flaw(chain: Chain, raw: bytes) -> str | None:
    """Why a transaction is no submission to this chain; None where it is. Whether it may come now is for ``Recent``."""
    try:
        submission = parse(raw)
    except DataError as problem:
        return str(problem)
    if submission.chain != chain.name:
        return f"for another chain than {chain.name!r}"
    public = chain.gateways.get(submission.gateway)
    if public is None:
        return "from no gateway of this network"
    return None if submission.signed_by(public) else "the gateway's signature does not hold"


@functools.lru_cache(maxsize=_KNOWN)
def _signed(raw: bytes, public: str) -> bool:
    start = len(_TAG) + _SIGNATURE
    return verify(public, _DOMAIN + raw[start:], raw[len(_TAG) : start])


def _check(event: _Event) -> None:
    named = (event.id, event.host, event.subject, event.parent, event.kind, *event.attributes)
    if any(len(text) > _TEXT for text in named) or not event.id:
        raise DataError(f"an event with an empty id, or a name of more than {_TEXT} characters")
    if len(event.attributes) > _ATTRIBUTES:
        raise DataError(f"an event with {len(event.attributes)} attributes; at most {_ATTRIBUTES}")
    if not 0 <= event.time_ns < 1 << 63:
        raise DataError("time_ns is in ns since 1970, below 2^63")
    for value in event.attributes.values():
        if isinstance(value, str) and len(value) > _VALUE:
            raise DataError(f"an attribute of {len(value):,} characters; at most {_VALUE:,}")
        if type(value) is int and not -(1 << 63) <= value < 1 << 63:
            raise DataError("a whole number beyond 64 bits; give text")
