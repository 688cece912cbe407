"""What the HTTP interface answers: JSON forms, each of which is a component of its OpenAPI schema.

Strings of events are attackers' text; JSON escapes them, and nothing here is HTML.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from phalanx.errors import ExtraMissingError
from phalanx.service.admission import Reason, Refused
from phalanx.service.desk import Answer
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.service.restrictions import Restriction, State
from phalanx.service.worker import Failed

try:
    import msgspec
except ImportError:
    raise ExtraMissingError("msgspec", "serve", "answering over HTTP") from None

__all__ = [
    "Decision",
    "Decisions",
    "ErrorReply",
    "EventResult",
    "Events",
    "Health",
    "Labels",
    "Mode",
    "Problem",
    "Restricted",
    "Restrictions",
    "components",
    "decision_reply",
    "encode",
    "event_result",
    "restriction_reply",
]


class Problem(msgspec.Struct, frozen=True):
    """What went wrong: a code of a closed list, and what to do, in words of our own."""

    code: str
    message: str
    remedy: str = ""


class ErrorReply(msgspec.Struct, frozen=True):
    """The one form of errors."""

    error: Problem


class EventResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one event of a request: a decision, or an error.

    ``index`` counts the events of the request from 0. ``height`` is that of the ledger's entry: the decision is
    acknowledged. ``effect`` is what takes effect, ``would`` what would, were the service enforcing; ``reasons`` are the
    rules that spoke. ``repeated``: it had been decided before.
    """

    index: int
    id: str | None = None
    verdict: str | None = None
    score: float | None = None
    quorum: bool | None = None
    effect: str | None = None
    would: str | None = None
    reasons: list[str] | None = None
    restriction: str | None = None
    height: int | None = None
    repeated: bool | None = None
    error: Problem | None = None


class Events(msgspec.Struct, frozen=True):
    """The results of a request's events, in their order."""

    mode: str
    decided: int
    refused: int
    results: list[EventResult]


class Decision(msgspec.Struct, frozen=True):
    """One decision, and why. ``votes``: one a member, null where it was not received. ``dissent``: members whose vote
    is not the verdict. ``robustness``: by specification; infinite as text. ``evidence``: ids of the latest events of
    the process. ``tolerates``: faults of the deployment itself, 0 for one process. ``effect`` is what took effect when
    it was decided, ``restriction_state`` what has become of the restriction since: null in shadow mode, and where it
    is no longer known."""

    event_id: str
    time_ns: int
    host: str
    subject: str
    verdict: str
    votes: list[str | None]
    dissent: list[int]
    quorum: bool
    score: float
    shielded: bool
    robustness: dict[str, float | str]
    evidence: list[str]
    model: str
    tolerates: int
    height: int
    effect: str | None = None
    would: str | None = None
    reasons: list[str] | None = None
    restriction: str | None = None
    restriction_state: str | None = None


class Decisions(msgspec.Struct, frozen=True):
    """A page of decisions; ``next`` asks for the page after it (``after=``), null where there is none."""

    decisions: list[Decision]
    next: str | None = None


class Restricted(msgspec.Struct, frozen=True):
    """A restriction. ``ends_ns``: when it ends, or stops waiting, at the latest, in ns since 1970."""

    id: str
    state: str
    verdict: str
    target: dict[str, str]
    event_id: str
    height: int
    asked_ns: int
    ends_ns: int | None
    shadow: bool
    by: str
    why: str


class Restrictions(msgspec.Struct, frozen=True):
    """Restrictions, in the order of their beginning."""

    restrictions: list[Restricted]


class Mode(msgspec.Struct, frozen=True):
    """What may take effect: the mode, the kill switch, why the service fell back into shadow mode."""

    mode: str
    killed: bool
    fallback: str


class Health(msgspec.Struct, frozen=True):
    """Whether events are decided (``ok``; else ``failing``), in which mode, and what an operator should look at: codes
    of a closed list."""

    status: str
    mode: str
    notes: list[str]


class Labels(msgspec.Struct, frozen=True):
    """How many labels were taken, and how many were of events that are not known any more."""

    taken: int
    unknown: int


_encoder = msgspec.json.Encoder()
_COMPONENTS = (ErrorReply, Events, Decision, Decisions, Restricted, Restrictions, Mode, Health, Labels)


def encode(value: Any) -> bytes:
    """The JSON of a reply."""
    return _encoder.encode(value)


def components() -> Mapping[str, Any]:
    """All forms as components of an OpenAPI schema, by name."""
    return msgspec.json.schema_components(_COMPONENTS, ref_template="#/components/schemas/{name}")[1]


def event_result(index: int, event: LiveEvent | None, found: Answer | Failed | Refused) -> EventResult:
    """What became of an event.

    An id that names another event gets no decision: whoever guesses an id must not read what others submitted.
    """
    if isinstance(found, Refused):
        return EventResult(index, error=Problem(found.reason.value, found.message, found.remedy))
    if isinstance(found, Failed):
        return EventResult(
            index,
            event.id if event else None,
            error=Problem(found.code, found.message, "Send it again later"),
        )
    decision, outcome = found.decision, found.outcome
    if found.another:
        taken = Problem(
            Reason.ID_TAKEN.value,
            f"event {index}: another event has this id",
            "Give each event an id of its own, a UUID say",
        )
        return EventResult(index, error=taken)
    return EventResult(
        index=index,
        id=decision.event_id,
        verdict=decision.verdict.name.lower(),
        score=decision.score,
        quorum=decision.quorum,
        effect=outcome.effect.value,
        would=outcome.would.value,
        reasons=list(outcome.reasons),
        restriction=outcome.restriction,
        height=found.height,
        repeated=found.repeated,
    )


def decision_reply(
    decision: LiveDecision,
    height: int,
    *,
    effect: str | None = None,
    would: str | None = None,
    reasons: Sequence[str] | None = None,
    restriction: str | None = None,
    restriction_state: str | None = None,
) -> Decision:
    """A decision with its explanation, and what it led to where that is known."""
    return Decision(
        event_id=decision.event_id,
        time_ns=decision.time_ns,
        host=decision.host,
        subject=decision.subject,
        verdict=decision.verdict.name.lower(),
        votes=[None if vote is None else vote.name.lower() for vote in decision.votes],
        dissent=list(decision.dissent),
        quorum=decision.quorum,
        score=decision.score,
        shielded=decision.shielded,
        robustness={name: _finite(value) for name, value in decision.robustness.items()},
        evidence=list(decision.evidence),
        model=decision.model,
        tolerates=decision.tolerates,
        height=height,
        effect=effect,
        would=would,
        reasons=None if reasons is None else list(reasons),
        restriction=restriction,
        restriction_state=restriction_state,
    )


def restriction_reply(restriction: Restriction) -> Restricted:
    """A restriction as it is."""
    is_open = restriction.state in (State.PENDING, State.ACTIVE)
    return Restricted(
        id=restriction.id,
        state=restriction.state.value,
        verdict=restriction.verdict.name.lower(),
        target=restriction.target.as_json(),
        event_id=restriction.event_id,
        height=restriction.height,
        asked_ns=restriction.asked.wall_ns,
        ends_ns=restriction.deadline_wall_ns if is_open else None,
        shadow=restriction.shadow,
        by=restriction.by,
        why=restriction.why,
    )


def _finite(value: float) -> float | str:
    return value if math.isfinite(value) else str(value)
