"""Records of live decisions: what comes in, and what the committee answered and why."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from phalanx.service.canonical import canonical
from phalanx.verdicts import Verdict

__all__ = ["LiveDecision", "LiveEvent", "Value", "content_hash"]

Value = str | int | float | bool | None
"""What an attribute of an event may be."""


@dataclass(frozen=True)
class LiveEvent:
    """One event as it was admitted: within limits, its secrets redacted.

    Attributes:
        id: names the event; the client's own, else derived from its content.
        time_ns: when it happened, in ns since 1970.
        host: where.
        subject: identity of the acting process, unique on its host.
        parent: that of its parent, empty where it is not known.
        kind: what happened, a DARPA CDM name without ``EVENT_``.
        attributes: further columns of the event table (path, command, numbers ...).
    """

    id: str
    time_ns: int
    host: str
    subject: str
    kind: str
    parent: str = ""
    attributes: Mapping[str, Value] = field(default_factory=dict)


def content_hash(event: LiveEvent) -> int:
    """Of all but its id; for comparisons within this process alone, as Python's hash of text has a key that no sender
    knows (that of numbers has none: -1 and -2 have the same, and 1 and True).

    Example:
        >>> one, other = (LiveEvent("e", 5, "h", "p", "READ", attributes={"path": path}) for path in ("/a", "/b"))
        >>> content_hash(one) == content_hash(other)
        False
    """
    rest = [event.time_ns, event.host, event.subject, event.kind, event.parent, dict(event.attributes)]
    return hash(canonical(rest))


@dataclass(frozen=True)
class LiveDecision:
    """What the committee answered to one event, and why.

    Attributes:
        event_id, time_ns, host, subject: of the event.
        verdict: the committee's answer, whether or not it takes effect.
        votes: one a member, by its place; None where a member's vote was not received.
        quorum: whether at least 2f + 1 votes were received.
        score: mean over members of P(verdict >= alert), in [0, 1].
        shielded: whether a shield put the verdict in the place of what was voted.
        robustness: of each specification that is watched, by name.
        evidence: ids of the latest events of the same process, this one last.
        model: hash of the committee's parameters (or, where members differ, of each, joined by ``+``).
        tolerates: faults that the deployment itself tolerates: 0 in one process.
    """

    event_id: str
    time_ns: int
    host: str
    subject: str
    verdict: Verdict
    votes: tuple[Verdict | None, ...]
    quorum: bool
    score: float
    shielded: bool
    robustness: Mapping[str, float]
    evidence: tuple[str, ...]
    model: str
    tolerates: int = 0

    @property
    def dissent(self) -> tuple[int, ...]:
        """Members whose vote was received and is not the verdict.

        Example:
            >>> votes = (Verdict.ALERT, Verdict.ALERT, None, Verdict.ALLOW)
            >>> LiveDecision("e", 0, "h", "p", Verdict.ALERT, votes, True, 0.6, False, {}, ("e",), "m").dissent
            (3,)
        """
        return tuple(i for i, vote in enumerate(self.votes) if vote is not None and vote is not self.verdict)
