"""What a node answers about a decided batch, under its member's signature; and when answers are believed.

At most f members lie: where f + 1 of them sign the same answer, one of them is honest, and the answer is the
committee's. Two different answers of one member to one height are evidence against it.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phalanx.errors import DataError
from phalanx.service.canonical import canonical
from phalanx.service.consensus.chain import Chain
from phalanx.service.keys import SigningKey
from phalanx.service.ledger_entry import Entry, Head
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.service.statements import Statement, equivocation
from phalanx.types import Verdict

__all__ = ["Agreed", "Reply", "Tally", "reply_to"]


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
        head: of the ledger there, with the signatures of those who answered.
    """

    height: int
    digest: str
    submissions: tuple[tuple[str, int], ...]
    verdicts: tuple[int, ...]
    votes: tuple[tuple[int, ...] | None, ...]
    models: tuple[str | None, ...]
    mode: str
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


class Tally:
    """Counts replies until f + 1 say the same.

    Args:
        chain: whose members answer.
        window: replies kept of each member, so that one that makes them up drives out none but its own.

    Attributes:
        evidence: bodies of the ledger's entries of evidence against members who said two things; at most ``window``.
        refused: how many replies were malformed or not signed by a member.
    """

    def __init__(self, chain: Chain, window: int = 1024) -> None:
        self.evidence: list[dict[str, Any]] = []
        self.refused = 0
        self._chain = chain
        self._window = window
        self._keys = chain.keys
        self._heard: dict[str, OrderedDict[int, Reply]] = {m.name: OrderedDict() for m in chain.members}
        self._agreed: OrderedDict[int, None] = OrderedDict()

    def add(self, reply: Reply) -> Agreed | None:
        """Counts a reply; returns what was agreed on, once a height, when it is the one that was missing."""
        said = reply.said
        public = self._keys.public(said.member, said.height)
        if said.chain != self._chain.name or said.about != "reply" or public is None:
            self.refused += 1
            return None
        heard = self._heard[said.member]
        before = heard.get(said.height)
        if before is not None and before.said == said:
            return None
        head = Head(said.height, str(said.content.get("entry")), {said.member: reply.entry})
        if not said.holds(public) or not head.statement(said.member).holds(public):
            self.refused += 1
            return None
        if before is not None:  # the first answer stays
            if before.said.message != said.message and len(self.evidence) < self._window:
                self.evidence.append(equivocation(before.said, said, self._keys))
            return None
        heard[said.height] = reply
        _forget(heard, self._window)
        alike = [
            other
            for other in (replies.get(said.height) for replies in self._heard.values())
            if other is not None and _same(other, reply)
        ]
        if said.height in self._agreed or len(alike) <= self._chain.f:
            return None
        try:
            agreed = _agreed(self._chain, alike)
        except (DataError, KeyError, TypeError, ValueError):
            self.refused += 1
            return None
        self._agreed[said.height] = None
        _forget(self._agreed, 4 * self._window)
        return agreed


def _forget(kept: OrderedDict[int, Any], most: int) -> None:
    while len(kept) > most:
        kept.popitem(last=False)


def _same(one: Reply, other: Reply) -> bool:
    return canonical(dict(one.said.content)) == canonical(dict(other.said.content))


def _agreed(chain: Chain, alike: list[Reply]) -> Agreed:
    said = alike[0].said
    content: Mapping[str, Any] = said.content
    verdicts = tuple(int(digit) for digit in content["verdicts"])
    votes = tuple(tuple(map(int, text)) if text else None for text in content["votes"])
    submissions = tuple((str(name), int(count)) for name, count in content["submissions"])
    if sum(count for _, count in submissions) != len(verdicts) or len(votes) != chain.n:
        raise DataError("a reply whose parts do not fit together")
    return Agreed(
        said.height,
        content["batch"],
        submissions,
        verdicts,
        votes,
        tuple(content["models"]),
        content["mode"],
        Head(said.height, content["entry"], {reply.said.member: reply.entry for reply in alike}),
    )
