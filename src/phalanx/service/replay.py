"""Whether the decisions of a ledger are those that its model comes to: all recorded events are decided again.

In one process verdicts, votes and scores must come out again. Where nodes decided, every member's vote must: it follows
from the model, the events and the answers before, so that a member that voted otherwise lied, or ran something else.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phalanx.errors import UsageError
from phalanx.service.consensus.committee_member import CommitteeMember
from phalanx.service.engine import Engine, EngineConfig
from phalanx.service.ledger_bodies import decisions_of, events_of
from phalanx.service.ledger_entry import Entry
from phalanx.service.ledger_files import read_entries
from phalanx.service.model import Model
from phalanx.service.records import LiveDecision, LiveEvent

__all__ = ["Difference", "Replay", "replay"]

_SHOWN = 10


@dataclass(frozen=True)
class Difference:
    """Something that does not come out again.

    Attributes:
        height: of the ledger's entry.
        event: id.
        what: ``verdict``, ``score``, or ``member 2``'s vote.
        then, now: what the ledger says, and what comes out.
    """

    height: int
    event: str
    what: str
    then: str
    now: str

    def __str__(self) -> str:
        return f"height {self.height}, event {ascii(self.event)}: {self.what} was {self.then}, is {self.now}"


@dataclass
class Replay:
    """What came of it.

    Attributes:
        batches, events: decided again.
        elsewhere: decisions that were not: of other models, and alerts that a gateway gave without a quorum.
        votes: of each member, by place, that were compared.
        foreign: of each member, those that it cast under another model's name, which was not said to be known.
        otherwise: how many of them do not come out again.
        verdicts: how many verdicts or scores do not; where nodes decided they follow from the votes.
        differences: the first ones.
    """

    batches: int = 0
    events: int = 0
    elsewhere: int = 0
    votes: list[int] = field(default_factory=list)
    foreign: list[int] = field(default_factory=list)
    otherwise: list[int] = field(default_factory=list)
    verdicts: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether all came out again, and nobody voted by a model that nobody knows."""
        return not self.verdicts and not any(self.otherwise) and not any(self.foreign)


def replay(ledger: Path, model: Model, config: EngineConfig, *, known: Collection[str] = ()) -> Replay:
    """Decides the events of a ledger again.

    Args:
        ledger: folder, or a file that holds all of it; of a service, a gateway or a node. Verify it first.
        model: that decided, without a shield where nodes decided.
        config: bounds that it decided within; another ``slots`` is another decision.
        known: digests of other models that were rolled out, or how they begin; votes by these are left out.

    Raises:
        DataError: no ledger.
        UsageError: nothing in it was decided by this model.

    Source: F. B. Schneider, Implementing Fault-Tolerant Services Using the State Machine Approach, ACM Comp. Surveys
    22(4), 1990, section 2: equal inputs in equal order give equal outputs.
    """
    n = model.committee.n_members
    found = Replay(votes=[0] * n, foreign=[0] * n, otherwise=[0] * n)
    again = _Again(model, config)
    for entry in read_entries(ledger):
        if entry.kind == "batch":
            _batch(found, again, entry, model.digest, known)
    if (found.elsewhere or found.events) and not any(found.votes):
        raise UsageError(
            f"{ledger}: none of its decisions is of the model {model.digest[:16]}. Name the run that decided, with the "
            "specifications and the shield that it was served with"
        )
    return found


class _Again:
    """The committee, asked as the one process or as a node asks it: a node about a batch before the answer to the one
    before is known, where they follow one another."""

    def __init__(self, model: Model, config: EngineConfig) -> None:
        self._model, self._config = model, config
        self._engine: Engine | None = None
        self._node: CommitteeMember | None = None
        self._waiting: tuple[int, list[int]] | None = None
        self._decided_at: tuple[str, int] | None = None

    def here(self, events: Sequence[LiveEvent]) -> Sequence[LiveDecision]:
        """What one process answers."""
        if self._engine is None:
            self._engine = Engine(self._model, self._config)
        return self._engine.decide(events)

    def there(
        self, told: Mapping[str, Any], events: Sequence[LiveEvent], then: Sequence[LiveDecision]
    ) -> Sequence[LiveDecision]:
        """What the members of a network vote on a batch that was answered so."""
        if self._node is None:
            self._node = CommitteeMember(self._model, 0, self._config)
        if (told["chain"], told["ordered"]) != self._decided_at:
            self._answer()
        now = self._node.expected(events)
        self._answer()
        self._node.take(events)
        self._waiting = 1, [int(decision.verdict) for decision in then]
        # a gateway's ledger has the network's height beside that of the block
        self._decided_at = told["chain"], told.get("decided", told["height"])
        return now

    def _answer(self) -> None:
        if self._waiting is not None and self._node is not None:
            self._node.answered(*self._waiting)
            self._waiting = None


def _batch(found: Replay, again: _Again, entry: Entry, digest: str, known: Collection[str]) -> None:
    told, events = entry.body.get("consensus"), events_of(entry.body)
    then = decisions_of(entry.body)
    n = len(found.votes)
    if any(len(decision.votes) != n for decision in then):
        raise UsageError(f"height {entry.height}: decided by another number of members than the model's {n}")
    alone = told is None and not any(vote is not None for decision in then for vote in decision.votes)
    if alone or (told is None and then[0].model != digest):
        found.elsewhere += len(events)
        return
    models = [digest] * len(found.votes) if told is None else told["models"]
    now = again.here(events) if told is None else again.there(told, events, then)
    found.batches += 1
    found.events += len(events)
    for before, after in zip(then, now, strict=True):
        for difference, place in _differences(entry.height, before, after, told is None, models, digest):
            if place is None:
                found.verdicts += 1
            else:
                found.otherwise[place] += 1
            if len(found.differences) < _SHOWN:
                found.differences.append(difference)
        for place, vote in enumerate(before.votes):
            if vote is None:
                continue
            named = models[place] or ""
            if named == digest:
                found.votes[place] += 1
            elif not any(named.startswith(each) for each in known):
                found.foreign[place] += 1


def _differences(
    height: int,
    then: LiveDecision,
    now: LiveDecision,
    here: bool,
    models: Sequence[str | None],
    digest: str,
) -> Iterator[tuple[Difference, int | None]]:
    if here and then.verdict != now.verdict:
        yield _difference(height, then, "verdict", then.verdict.name.lower(), now.verdict.name.lower()), None
    elif here and then.score != now.score:
        yield _difference(height, then, "score", repr(then.score), repr(now.score)), None
    for place, (vote, own) in enumerate(zip(then.votes, now.votes, strict=True)):
        if vote is not None and own is not None and models[place] == digest and vote != own:
            names = vote.name.lower(), own.name.lower()
            yield _difference(height, then, f"member {place}", *names), place


def _difference(height: int, then: LiveDecision, what: str, was: str, comes: str) -> Difference:
    return Difference(height, then.event_id, what, was, comes)
