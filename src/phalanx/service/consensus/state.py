"""The state of the chain: what every node must have alike, and how it comes back from the ledger.

A height orders a batch; the next one decides it and may order another. Both are one entry of the ledger: the decided
batch, and under ``consensus`` where it was decided, by whose signed votes, and the submissions that were ordered there
for the next. One line tells all, so that a node that was killed finds height, decisions and what is pending together
or not at all, and the engine repeats the heights after it.
"""

import base64
import functools
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.errors import DataError
from phalanx.service.canonical import canonical, digest
from phalanx.service.consensus.ballots import BallotBox
from phalanx.service.consensus.chain import Chain
from phalanx.service.consensus.extension import Ballot, Vote
from phalanx.service.consensus.submission import Submission, joined, parse
from phalanx.service.ledger_entry import GENESIS, Entry, Head
from phalanx.service.ledger_files import read_entries
from phalanx.service.records import LiveEvent

__all__ = ["Batch", "Recent", "State", "batches_after", "consensus_body", "restore"]


@dataclass(frozen=True)
class Batch:
    """What one height ordered.

    Attributes:
        height: of the block.
        submissions: in the block's order, at least one.
    """

    height: int
    submissions: tuple[Submission, ...]

    @functools.cached_property
    def events(self) -> tuple[LiveEvent, ...]:
        """All events, in order."""
        return tuple(event for submission in self.submissions for event in submission.events)

    @functools.cached_property
    def text(self) -> str:
        """Canonical JSON of all events."""
        return joined([submission.text for submission in self.submissions])

    @functools.cached_property
    def digest(self) -> str:
        """Of the events, as in the ledger."""
        if len(self.submissions) == 1:
            return self.submissions[0].digest
        return digest("batch", self.text)

    def ballot(self, chain: Chain) -> Ballot:
        """What members vote on."""
        return Ballot(chain.name, self.height, self.digest, sum(len(s.events) for s in self.submissions))


@dataclass(frozen=True)
class State:
    """What every node has alike after a height.

    Attributes:
        height: of the last block.
        head: of the ledger; its signatures are this node's own and no part of what is agreed on.
        pending: the batch that waits for its votes.
        root: hash of the ledger's head and of the batch that was ordered after it, when one last was, 64 hexadecimal
            digits. It is what the next block's header says of the state. It changes where a batch is ordered, which
            makes the engine go on to the height that decides it, and at no other, which lets the engine rest; what that
            decides is told by the signed replies at once and by the root of the next batch.
    """

    height: int = 0
    head: Head = Head()
    pending: Batch | None = None
    root: str = GENESIS

    def after(self, height: int, head: Head, ordered: Batch | None) -> "State":
        """The state after a block.

        Args:
            height: of the block.
            head: of the ledger with what the block decided.
            ordered: the batch that it ordered, if any.
        """
        root = self.root if ordered is None else _root(head.hash, ordered.digest)
        return State(height, head, ordered, root)

    @property
    def app_hash(self) -> bytes:
        """The root, as the engine has it."""
        return bytes.fromhex(self.root)


class Recent:
    """Submissions that were ordered lately, by digest; one of them that comes again is refused.

    A submission names a height of the ledger that its gateway had seen and can be ordered within ``window`` entries
    after it, so that what is forgotten can come again under a new signature alone.

    Args:
        window: entries.
    """

    def __init__(self, window: int) -> None:
        self._window = window
        self._known: set[str] = set()
        self._order: deque[tuple[int, str]] = deque()

    def __contains__(self, submission: str) -> bool:
        return submission in self._known

    def add(self, height: int, submissions: Sequence[str]) -> None:
        """Takes down what was ordered while the ledger had a height, and forgets what is out of the window."""
        for name in submissions:
            self._known.add(name)
            self._order.append((height, name))
        while self._order and self._order[0][0] <= height - self._window:
            self._known.discard(self._order.popleft()[1])

    def flaw(self, submission: Submission, height: int) -> str | None:
        """Why a submission cannot be ordered at a height of the ledger; None where it can."""
        if not height - self._window < submission.base <= height:
            return (
                f"base {submission.base}: the ledger is at {height}, and a submission is good for {self._window} "
                "entries; sign it anew"
            )
        if submission.digest in self:
            return "these events were ordered already"
        return None


def consensus_body(
    chain: Chain,
    decided: Batch,
    height: int,
    box: BallotBox | None,
    votes: Sequence[Vote | None],
    ordered: Batch | None,
) -> dict[str, Any]:
    """What an entry says beside the batch and its decisions.

    Args:
        chain: of the network.
        decided: the batch.
        height: of the block that decided it.
        box: the extensions that the block carried; None where it carried none that count.
        votes: what they say, by place.
        ordered: the batch that the same block ordered, if any.
    """
    extensions = {} if box is None else {chain.members[i].name: raw.hex() for i, raw, _ in box.extensions}
    return {
        "chain": chain.name,
        "height": height,
        "ordered": decided.height,
        "submissions": [
            {
                "digest": submission.digest,
                "gateway": submission.gateway,
                "base": submission.base,
                "events": len(submission.events),
            }
            for submission in decided.submissions
        ],
        "extensions": extensions,
        "models": [None if vote is None else vote.model for vote in votes],
        "next": [base64.b64encode(s.raw).decode() for s in ordered.submissions] if ordered else [],
    }


def restore(chain: Chain, folder: Path, head: Head) -> tuple[State, Recent]:
    """The state that a ledger tells of, and what was ordered lately.

    Raises:
        DataError: it is not a ledger of this chain, or one that ends before this chain begins.
    """
    recent = Recent(chain.window)
    state = State()
    if head.height < chain.begins:
        raise DataError(
            f"{folder}: ends at height {head.height}, and the chain {chain.name!r} goes on from {chain.begins}. Copy "
            "another node's ledger, up to that height"
        )
    if head.height == 0:
        return state, recent
    for entry in read_entries(folder, max(1, head.height - chain.window)):
        told = _told(chain, folder, entry)
        if told is None:
            if entry.height == head.height:
                state = State(head=entry.head, root=_root(entry.hash, GENESIS))
            continue
        # what an entry decides was ordered when the ledger had one entry less
        recent.add(entry.height - 1, [s["digest"] for s in told["submissions"]])
        if entry.height == head.height:
            after = tuple(parse(base64.b64decode(raw)) for raw in told["next"])
            recent.add(entry.height, [s.digest for s in after])
            # the last batch that was ordered is the one that the entry decided, unless another one follows
            before = State(root=_root(entry.previous, entry.body["digest"]))
            ordered = Batch(told["height"], after) if after else None
            state = before.after(told["height"], entry.head, ordered)
    return state, recent


def batches_after(chain: Chain, folder: Path, height: int) -> Iterator[Entry]:
    """The entries of decided batches in a chain's ledger above a height, those of the epochs before it too.

    Raises:
        DataError: it is not a ledger of this chain.
    """
    for entry in read_entries(folder, height + 1):
        if _told(chain, folder, entry) is not None:
            yield entry


def _root(head: str, batch: str) -> str:
    return digest("root", canonical({"head": head, "batch": batch}))


def _told(chain: Chain, folder: Path, entry: Entry) -> Mapping[str, Any] | None:
    """What an entry says of the consensus; None for one that begins an epoch."""
    follows = entry.height - 1, entry.previous, entry.body.get("member")
    begins = any(follows == (epoch.height, epoch.hash, epoch.member) for epoch in chain.epochs)
    ours = entry.height < chain.begins or entry.body.get("chain") == chain.to_json()
    if entry.kind == "member" and begins and ours:
        return None
    name = next((epoch.chain for epoch in chain.epochs if entry.height <= epoch.height), chain.name)
    told = entry.body.get("consensus") if entry.kind == "batch" else None
    if not isinstance(told, dict) or told.get("chain") != name or entry.height == chain.begins:
        raise DataError(
            f"{folder}: the entry of height {entry.height} is not of the chain {chain.name!r}. "
            "Give the node a ledger of its own"
        )
    return told
