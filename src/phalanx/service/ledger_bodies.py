"""A decided batch as the body of a ledger's entry, and back; and whether its decisions follow from their votes."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from phalanx.committee.rule import decide
from phalanx.errors import DataError
from phalanx.service.canonical import Encoded, canonical, digest
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.verdicts import N_VERDICTS, Verdict

__all__ = [
    "batch_body",
    "batch_digest",
    "batch_flaw",
    "counted",
    "decisions_of",
    "event_from_json",
    "event_to_json",
    "events_of",
]

_VERDICTS = tuple(Verdict)
_NOT_FINITE = {"inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_EVENT = {
    "id": str,
    "time_ns": int,
    "host": str,
    "subject": str,
    "parent": str,
    "kind": str,
    "attributes": dict,
}
_DECISION = {
    "event": str,
    "verdict": int,
    "votes": list,
    "quorum": bool,
    "score": float,
    "shielded": bool,
    "robustness": dict,
    "evidence": list,
    "model": str,
    "tolerates": int,
}
_BATCH = {"digest": str, "events": list, "decisions": list, "f": int, "mode": str}
_NETWORK_BATCH = _BATCH | {"consensus": dict}


def event_to_json(event: LiveEvent) -> dict[str, Any]:
    """An event in JSON's own types."""
    return {
        "id": event.id,
        "time_ns": event.time_ns,
        "host": event.host,
        "subject": event.subject,
        "parent": event.parent,
        "kind": event.kind,
        "attributes": dict(event.attributes),
    }


def event_from_json(form: Any) -> LiveEvent:
    """The event of that form.

    Raises:
        DataError: it is another form.
    """
    _expect(form, _EVENT, "an event")
    for name, value in form["attributes"].items():
        if not (value is None or isinstance(value, (str, int, float))):
            raise DataError(
                f"attribute {ascii(name)[:40]} of an event is no text, number, true, false or null"
            )
    return LiveEvent(**form)


def batch_digest(events: Sequence[LiveEvent]) -> str:
    """SHA-256 over a batch's events in their order, 64 hexadecimal digits: what members sign their votes for.

    Raises:
        DataError: an attribute has no form in JSON.
    """
    return _digest([event_to_json(event) for event in events])


def batch_body(
    events: Sequence[LiveEvent],
    decisions: Sequence[LiveDecision],
    *,
    f: int,
    mode: str,
    consensus: Mapping[str, Any] | None = None,
    encoded: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """The body of a batch's entry.

    Args:
        events: as they were admitted.
        decisions: one an event, in the same order.
        f: faults that the voting rule tolerates, n >= 3f + 1.
        mode: of the service when it decided: ``shadow`` or ``enforce``.
        consensus: where a network of nodes decided, and by whose signed votes; JSON.
        encoded: digest and canonical JSON of the events, where they were encoded before.

    Raises:
        DataError: a decision is not that of its event, or a number has no form in JSON.

    Example:
        >>> event = LiveEvent("e", 5, "web-1", "web-1:7", "EXECUTE")
        >>> decision = LiveDecision("e", 5, "web-1", "web-1:7", Verdict.ALLOW, (Verdict.ALLOW,), True, 0.1, False, {},
        ...                         ("e",), "m")
        >>> body = batch_body([event], [decision], f=0, mode="shadow")
        >>> events_of(body) == (event,), decisions_of(body) == (decision,), batch_flaw(body)
        (True, True, None)
    """
    if len(events) != len(decisions):
        raise DataError(
            f"{len(events)} events and {len(decisions)} decisions; a batch has one an event, in order"
        )
    for event, decision in zip(events, decisions, strict=True):
        if _named(event) != (decision.event_id, decision.time_ns, decision.host, decision.subject):
            raise DataError(
                f"decision on {decision.event_id!r} in the place of event {event.id!r}; keep their order"
            )
    forms = [event_to_json(event) for event in events]
    if encoded is None:
        text = canonical(forms)
        encoded = digest("batch", text), text
    body: dict[str, Any] = {
        "digest": encoded[0],
        "events": forms,
        "decisions": [_decision_to_json(decision) for decision in decisions],
        "f": f,
        "mode": mode,
    }
    if consensus is not None:
        body["consensus"] = dict(consensus)
    known = {"events": encoded[1], "decisions": canonical(body["decisions"])}
    return Encoded(body, known)


def events_of(body: Mapping[str, Any]) -> tuple[LiveEvent, ...]:
    """The events of a batch's body.

    Raises:
        DataError: it is no body of a batch.
    """
    _expect(body, _NETWORK_BATCH if "consensus" in body else _BATCH, "a batch")
    return tuple(event_from_json(form) for form in body["events"])


def decisions_of(body: Mapping[str, Any]) -> tuple[LiveDecision, ...]:
    """The decisions of a batch's body.

    Raises:
        DataError: it is no body of a batch.
    """
    events, forms = events_of(body), body["decisions"]
    if len(events) != len(forms):
        raise DataError(f"{len(events)} events and {len(forms)} decisions")
    return tuple(_decision_from_json(form, event) for form, event in zip(forms, events, strict=True))


def counted(
    body: Mapping[str, Any], events: Sequence[LiveEvent], decisions: Sequence[LiveDecision]
) -> tuple[Sequence[LiveEvent], Sequence[LiveDecision]]:
    """Those of a batch's events, and their decisions, that had not been decided before: a gateway keeps a network's
    batch whole, and what it lists under ``again`` counts no second time.
    """
    again = body.get("consensus", {}).get("again", ())
    if not again:
        return events, decisions
    places = [place for place in range(len(events)) if place not in again]
    return [events[place] for place in places], [decisions[place] for place in places]


def batch_flaw(body: Mapping[str, Any]) -> str | None:
    """Why a batch's body cannot be what an honest committee wrote; None where it can.

    The digest must be that of the events, every decision that of its event, the quorum that of the votes received, and
    a verdict that no shield put in their place what the voting rule makes of them. What a shield did is not recomputed:
    that takes the model and all events before.
    """
    try:
        decisions, digested = decisions_of(body), _digest(body["events"])
    except DataError as problem:
        return f"no batch: {problem}"
    if body["digest"] != digested:
        return "the batch digest is not that of its events"
    for place, decision in enumerate(decisions):
        flaw = _decision_flaw(decision, body["f"])
        if flaw:
            return f"decision {place}: {flaw}"
    return None


def _decision_flaw(decision: LiveDecision, f: int) -> str | None:
    n = len(decision.votes)
    if f < 0 or n < 3 * f + 1:
        return f"{n} members do not tolerate f = {f}"
    received = tuple(sorted(int(vote) for vote in decision.votes if vote is not None))
    if decision.quorum != (len(received) >= 2 * f + 1):
        return f"quorum is {decision.quorum} with {len(received)} votes received and f = {f}"
    voted = _verdict_of(received, f)
    if decision.verdict != voted and not decision.shielded:
        names = (decision.verdict.name.lower(), _VERDICTS[voted].name.lower())
        return f"the verdict is {names[0]}, but its votes make {names[1]}, and no shield changed it"
    return None


@functools.lru_cache(maxsize=65_536)
def _verdict_of(received: tuple[int, ...], f: int) -> int:
    return decide(received, f)


def _decision_to_json(decision: LiveDecision) -> dict[str, Any]:
    return {
        "event": decision.event_id,
        "verdict": int(decision.verdict),
        "votes": [None if vote is None else int(vote) for vote in decision.votes],
        "quorum": bool(decision.quorum),
        "score": float(decision.score),
        "shielded": bool(decision.shielded),
        "robustness": {name: _number(value) for name, value in decision.robustness.items()},
        "evidence": list(decision.evidence),
        "model": decision.model,
        "tolerates": decision.tolerates,
    }


def _decision_from_json(form: Any, event: LiveEvent) -> LiveDecision:
    _expect(form, _DECISION, "a decision")
    if form["event"] != event.id:
        raise DataError("a decision in the place of another event's")
    if not all(isinstance(name, str) for name in form["evidence"]):
        raise DataError("evidence of a decision is not a list of ids")
    return LiveDecision(
        event_id=event.id,
        time_ns=event.time_ns,
        host=event.host,
        subject=event.subject,
        verdict=_verdict(form["verdict"]),
        votes=tuple(None if vote is None else _verdict(vote) for vote in form["votes"]),
        quorum=form["quorum"],
        score=form["score"],
        shielded=form["shielded"],
        robustness={name: _read_number(value) for name, value in form["robustness"].items()},
        evidence=tuple(form["evidence"]),
        model=form["model"],
        tolerates=form["tolerates"],
    )


def _verdict(number: Any) -> Verdict:
    if type(number) is not int or not 0 <= number < N_VERDICTS:
        raise DataError(f"a verdict is a number from 0 to {N_VERDICTS - 1}")
    return _VERDICTS[number]


def _number(value: float) -> float | str:
    """A robustness: it may be infinite, where a specification has nothing to say yet."""
    value = float(value)
    return value if math.isfinite(value) else str(value)


def _read_number(value: Any) -> float:
    if type(value) is float or (isinstance(value, str) and value in _NOT_FINITE):
        return _NOT_FINITE[value] if isinstance(value, str) else value
    raise DataError("a robustness is no number")


def _named(event: LiveEvent) -> tuple[str, int, str, str]:
    return event.id, event.time_ns, event.host, event.subject


def _digest(forms: list[dict[str, Any]]) -> str:
    return digest("batch", canonical(forms))


def _expect(form: Any, types: Mapping[str, type], what: str) -> None:
    """Refuses what does not have just these fields, of just these types."""
    if not isinstance(form, Mapping) or {name: type(value) for name, value in form.items()} != types:
        raise DataError(f"not {what}: expected an object with {', '.join(types)}, of their types")
