"""What a node answers about a decided batch, under its member's signature; and when answers are believed.

At most f members lie: where f + 1 of them sign the same answer, one of them is honest, and the answer is the
committee's. Two different answers of one member to one height are evidence against it. What a liar may make others
keep is bounded: the length of an answer, the heights of answers that are kept, the pieces of evidence.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phalanx.errors import DataError
from phalanx.service.canonical import canonical
from phalanx.service.consensus.chain import MODES, Chain
from phalanx.service.consensus.submission import SUBMISSION_EVENTS
from phalanx.service.keys import SigningKey
from phalanx.service.ledger_entry import Entry, Head
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.service.statements import Statement, equivocation
from phalanx.verdicts import Verdict

__all__ = ["Agreed", "Reply", "Tally", "reply_bytes", "reply_to"]

_KEPT_BYTES = 64 << 20  # of all members' replies, while they are within a window's reach
_WINDOWS = (8, 512)
_EVIDENCE = 8  # pieces against one member
_HASH, _VERDICTS, _MODEL = re.compile("[0-9a-f]{64}"), re.compile("[0-3]*"), re.compile("[ -~]{1,64}")
_FIELDS = {"batch", "entry", "submissions", "verdicts", "votes", "models", "mode"}


@dataclass(frozen=True)
class Reply:
    """One node's answer.

    Attributes:
        said: what it says: verdicts and votes of a batch, and the hash of the ledger's entry.
        entry: its signature over that entry, with which the entry goes into any copy of the ledger.
    """

    said: Statement
    entry: str

    def to_json(self) -> dict[str, Any]:
        """Its form on the wire."""
        return {"said": self.said.to_json(), "entry": self.entry}

    @classmethod
    def from_json(cls, form: Any) -> "Reply":
        """From that form.

        Raises:
            DataError: it is another form.
        """
        if not isinstance(form, dict) or set(form) != {"said", "entry"} or not isinstance(form["entry"], str):
            raise DataError("not a reply: expected said and entry")
        return cls(Statement.from_json(form["said"]), form["entry"])


@dataclass(frozen=True)
class Agreed:
    """What f + 1 members or more answered alike.

    Attributes:
        height: of the ledger's entry.
        digest: of the batch: whoever acts on it acts once a digest; empty where the entry begins an epoch.
        submissions: digest and number of events of each, in order; none where the entry begins an epoch.
        verdicts: one an event.
        votes: of each member by place, one an event; None where its vote was not received.
        models: hash of each member's parameters, by place, None where its vote was not received.
        mode: ``shadow`` or ``enforce``.
        places: of the members who answered so, of whom one at least is honest.
        head: of the ledger there, with the signatures of those who answered.
    """

    height: int
    digest: str
    submissions: tuple[tuple[str, int], ...]
    verdicts: tuple[int, ...]
    votes: tuple[tuple[int, ...] | None, ...]
    models: tuple[str | None, ...]
    mode: str
    places: tuple[int, ...]
    head: Head

    def of(self, submission: str) -> slice | None:
        """Which of the verdicts are those of a submission; None where it is not in the batch."""
        start = 0
        for name, count in self.submissions:
            if name == submission:
                return slice(start, start + count)
            start += count
        return None

    def decisions(self, events: tuple[LiveEvent, ...], where: slice, f: int) -> tuple[LiveDecision, ...]:
        """The decisions on events that were submitted.

        Args:
            events: of the submission.
            where: see ``of``.
            f: faults that the network tolerates.
        """
        received = [vote for vote in self.votes if vote is not None]
        model = "+".join(dict.fromkeys(name for name in self.models if name is not None))
        answers = []
        for place, event in enumerate(events, start=where.start):
            cast = tuple(None if vote is None else Verdict(vote[place]) for vote in self.votes)
            alarmed = sum(vote[place] >= Verdict.ALERT for vote in received)
            answers.append(
                LiveDecision(
                    event_id=event.id,
                    time_ns=event.time_ns,
                    host=event.host,
                    subject=event.subject,
                    verdict=Verdict(self.verdicts[place]),
                    votes=cast,
                    quorum=len(received) >= 2 * f + 1,
                    score=alarmed / max(1, len(received)),
                    shielded=False,
                    robustness={},
                    evidence=(event.id,),
                    model=model,
                    tolerates=f,
                )
            )
        return tuple(answers)


def reply_to(chain: Chain, name: str, key: SigningKey, entry: Entry) -> Reply:
    """A node's answer about an entry of its ledger.

    Args:
        chain: of the network.
        name: of the node's member.
        key: its key.
        entry: of its ledger, signed by it.
    """
    if entry.kind != "batch":
        return _reply(chain, name, key, entry, _nothing_decided(chain, entry))
    body, told = entry.body, entry.body["consensus"]
    columns = zip(*(decision["votes"] for decision in body["decisions"]), strict=True)
    content = {
        "batch": body["digest"],
        "entry": entry.hash,
        "submissions": [[s["digest"], s["events"]] for s in told["submissions"]],
        "verdicts": "".join(str(decision["verdict"]) for decision in body["decisions"]),
        "votes": ["" if column[0] is None else "".join(map(str, column)) for column in columns],
        "models": told["models"],
        "mode": body["mode"],
    }
    return _reply(chain, name, key, entry, content)


def _nothing_decided(chain: Chain, entry: Entry) -> Mapping[str, Any]:
    """What is answered about the entry that begins an epoch: no batch, no verdicts."""
    return {
        "batch": "",
        "entry": entry.hash,
        "submissions": [],
        "verdicts": "",
        "votes": [""] * chain.n,
        "models": [None] * chain.n,
        "mode": chain.mode,
    }


def _reply(chain: Chain, name: str, key: SigningKey, entry: Entry, content: Mapping[str, Any]) -> Reply:
    said = Statement.signed(key, name, entry.height, "reply", content, chain.name)
    return Reply(said, entry.signatures[name])


def reply_bytes(chain: Chain) -> int:
    """Bytes of the longest reply that an honest node of a network sends; longer ones are refused unread.

    A batch has at most ``batch_events`` events, or those of one submission where that is more. Each event adds at most
    a submission's digest (72 bytes with what stands around it), its verdict and a vote of each member; each member the
    hash of its model, 64 characters of which each may need two.
    """
    events = max(chain.batch_events, SUBMISSION_EVENTS)
    return 2048 + events * (72 + 1 + chain.n) + chain.n * 136


class Tally:
    """Counts replies until f + 1 say the same.

    Replies are kept of heights near the next one that is wanted, ``window`` before it (a member that says another
    thing there gives evidence against itself) and ``window`` after it, in the form that honest nodes give them: a
    member that makes replies up fills no more than its own places.

    Args:
        chain: whose members answer.
        start: the first height that is wanted.
        window: see above; None: as many as 64 MiB hold where all replies are as long as they may be, in [8, 512].

    Attributes:
        evidence: bodies of the ledger's entries of evidence against members who said two things; one a member and
            height, at most 8 a member, each of two replies.
        refused: how many replies were malformed, not signed by a member, or about a height too far ahead.
        next: the first height that is wanted.
        window: see above.
    """

    def __init__(self, chain: Chain, start: int = 1, window: int | None = None) -> None:
        room = _KEPT_BYTES // (2 * chain.n * reply_bytes(chain))
        self.evidence: list[dict[str, Any]] = []
        self.refused = 0
        self.next = start
        self.window = max(_WINDOWS[0], min(_WINDOWS[1], room)) if window is None else window
        self._chain = chain
        self._keys = chain.keys
        self._heard: dict[str, dict[int, Reply]] = {member.name: {} for member in chain.members}
        self._agreed: set[int] = set()
        self._accused: dict[str, set[int]] = {member.name: set() for member in chain.members}

    def advance(self, height: int) -> None:
        """Makes a later height the first one that is wanted, and forgets what lies too far before it."""
        for passed in range(self.next - self.window, height - self.window):
            self._agreed.discard(passed)
            for heard in self._heard.values():
                heard.pop(passed, None)
        self.next = max(self.next, height)

    def add(self, reply: Reply) -> Agreed | None:
        """Counts a reply; returns what was agreed on, once a height, when it is the one that was missing."""
        said = reply.said
        public = self._keys.public(said.member, said.height)
        if said.height < self.next - self.window:
            return None  # known long since
        if said.chain != self._chain.name or said.about != "reply" or public is None:
            self.refused += 1
            return None
        heard = self._heard[said.member]
        before = heard.get(said.height)
        if before is not None and before.said == said:
            return None
        if said.height > self.next + self.window or not _well_formed(self._chain, said.content):
            self.refused += 1
            return None
        head = Head(said.height, said.content["entry"], {said.member: reply.entry})
        if not said.holds(public) or not head.statement(said.member).holds(public):
            self.refused += 1
            return None
        if before is not None:  # the first answer stays
            self._accuse(before.said, said)
            return None
        heard[said.height] = reply
        if said.height < self.next or said.height in self._agreed:
            return None
        same = canonical(dict(said.content))
        answers = [self._heard[member.name].get(said.height) for member in self._chain.members]
        alike = {
            place: other
            for place, other in enumerate(answers)
            if other is not None and (other is reply or canonical(dict(other.said.content)) == same)
        }
        if len(alike) <= self._chain.f:
            return None
        self._agreed.add(said.height)
        return _agreed(alike)

    def _accuse(self, one: Statement, other: Statement) -> None:
        accused = self._accused[one.member]
        if one.message != other.message and one.height not in accused and len(accused) < _EVIDENCE:
            accused.add(one.height)
            self.evidence.append(equivocation(one, other, self._keys))


def _well_formed(chain: Chain, content: Mapping[str, Any]) -> bool:
    """Whether it is what an honest node could say of a batch of this network: then its length is bounded too."""
    if set(content) != _FIELDS:
        return False
    verdicts, votes, models = content["verdicts"], content["votes"], content["models"]
    submissions = content["submissions"]
    if not all(isinstance(part, list) for part in (votes, models, submissions)):
        return False
    return (
        content["mode"] in MODES
        and _is(content["entry"], _HASH)
        and (content["batch"] == "" or _is(content["batch"], _HASH))
        and _is(verdicts, _VERDICTS)
        and len(verdicts) <= max(chain.batch_events, SUBMISSION_EVENTS)
        and len(votes) == len(models) == chain.n
        and all(_is(vote, _VERDICTS) and len(vote) in (0, len(verdicts)) for vote in votes)
        and all(model is None or _is(model, _MODEL) for model in models)
        and len(submissions) <= len(verdicts)
        and all(map(_is_submission, submissions))
        and sum(count for _, count in submissions) == len(verdicts)
    )


def _is_submission(form: Any) -> bool:
    if not isinstance(form, list) or len(form) != 2:
        return False
    name, count = form
    return _is(name, _HASH) and type(count) is int and 1 <= count <= SUBMISSION_EVENTS


def _is(value: object, pattern: re.Pattern[str]) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _agreed(alike: Mapping[int, Reply]) -> Agreed:
    """What well-formed replies say, by the places of their members."""
    said = next(iter(alike.values())).said
    content: Mapping[str, Any] = said.content
    return Agreed(
        said.height,
        content["batch"],
        tuple((name, count) for name, count in content["submissions"]),
        tuple(map(int, content["verdicts"])),
        tuple(tuple(map(int, text)) if text else None for text in content["votes"]),
        tuple(content["models"]),
        content["mode"],
        tuple(alike),
        Head(said.height, content["entry"], {reply.said.member: reply.entry for reply in alike.values()}),
    )
