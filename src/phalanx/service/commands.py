"""What safety sends: commands, and which of them each change of its state leads to."""

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from phalanx.errors import DataError
from phalanx.service.clock import Moment
from phalanx.service.restrictions import Restriction, State
from phalanx.service.safety_state import MODE_ACTS, RESTRICTION_ACTS
from phalanx.verdicts import Verdict

__all__ = ["Action", "Command", "commands_of", "key_of_beginning"]

Action = Literal["deny", "contain", "allow", "ask", "drop", "alert", "page"]
"""A restriction begins (deny, contain) or ends (allow), waits for approval (ask), never begins (drop); a finding
(alert); an operator is called (page)."""


@dataclass(frozen=True, slots=True)
class Command:
    """Something to send, once.

    Attributes:
        key: names it; whoever gets it twice sees that by the key. At most 36 characters, as OpenC2 wants it.
        action: deny or contain (a restriction begins), allow (it ends), ask (it waits for approval), drop (it was
            not approved), alert (a finding), page (an operator is called).
        at: when it came about.
        lane: commands of one lane arrive in their order: all that speak of one process are in one.
        subject_key: of one lane, a later command about the same thing makes an earlier unsent one void.
        restriction: which, for the first five.
        event_id: of the event behind it, empty for pages.
        height: of the ledger's entry that holds the decision, 0 where there is none.
        reasons: rules that spoke.
        by, why: operator and reason, where one acted.
    """

    key: str
    action: Action
    at: Moment
    lane: str
    subject_key: str
    restriction: Restriction | None = None
    host: str = ""
    subject: str = ""
    event_id: str = ""
    height: int = 0
    reasons: tuple[str, ...] = ()
    by: str = ""
    why: str = ""

    def as_json(self) -> dict[str, Any]:
        """Its form where it waits to be sent; ``Command.of`` reads it."""
        form = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        restriction = self.restriction and self.restriction.as_json()
        return form | {"at": self.at.as_json(), "restriction": restriction, "reasons": list(self.reasons)}

    @staticmethod
    def of(value: Mapping[str, Any]) -> "Command":
        """The command of its JSON form.

        Raises:
            DataError: it is none.
        """
        try:
            form = dict(value) | {"at": Moment.of(value["at"]), "reasons": tuple(value["reasons"])}
            if form["restriction"] is not None:
                form["restriction"] = Restriction.of(form["restriction"])
            return Command(**form)
        except (KeyError, TypeError) as problem:
            raise DataError(
                f"not a command: {str(value)[:200]}. Delete the store: it is made again"
            ) from problem


def commands_of(body: Mapping[str, Any]) -> tuple[Command, ...]:
    """What a body sends: nothing, or one command. Pure, so that after a kill it is known again.

    Args:
        body: of the journal; what only would have been sends nothing.
    """
    act, at = body["act"], Moment.of(body["at"])
    if act in RESTRICTION_ACTS:
        return _of_restriction(act, Restriction.of(body["restriction"]), at, tuple(body.get("reasons", ())))
    if act == "alert" and body["send"]:
        process = _key("", body["host"], body["subject"])
        return (
            Command(
                _key("f", body["height"], body["event"]),
                "alert",
                at,
                lane=process,
                subject_key=_key("", body["height"], body["event"]),
                host=body["host"],
                subject=body["subject"],
                event_id=body["event"],
                height=body["height"],
                reasons=tuple(body["reasons"]),
            ),
        )
    if act == "page" or act in MODE_ACTS:
        reason = body.get("reason", act)
        key = _key("p", body["n"], reason, at.wall_ns)
        return (
            Command(
                key,
                "page",
                at,
                lane="pages",
                subject_key=key,
                host=body.get("host", ""),
                event_id=body.get("event", ""),
                height=body.get("height", 0),
                reasons=(reason,),
                by=body.get("by", ""),
                why=body.get("why", ""),
            ),
        )
    return ()


def _of_restriction(
    act: str, restriction: Restriction, at: Moment, reasons: tuple[str, ...]
) -> tuple[Command, ...]:
    if restriction.shadow:
        return ()
    begins: Action = "contain" if restriction.verdict is Verdict.QUARANTINE else "deny"
    by_state: dict[State, Action] = {State.PENDING: "ask", State.ACTIVE: begins}
    action = by_state.get(restriction.state) or ("allow" if restriction.applied else "drop")
    target = restriction.target
    return (
        Command(
            _key({"ask": "q", "drop": "x"}.get(action, action[0]), restriction.id),
            action,
            at,
            lane=_key("", target.host, target.subject),
            subject_key=_key("", *target.as_json().items()),
            restriction=restriction,
            host=target.host,
            subject=target.subject,
            event_id=restriction.event_id,
            height=restriction.height,
            reasons=reasons,
            by=restriction.by,
            why=restriction.why,
        ),
    )


def key_of_beginning(restriction: Restriction) -> str:
    """Key of the command that began a restriction."""
    return _key("c" if restriction.verdict is Verdict.QUARANTINE else "d", restriction.id)


def _key(prefix: str, *parts: object) -> str:
    """At most 34 characters without a space."""
    return f"{prefix}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:32]}".removeprefix("-")
