"""What a block says, checked against the state before it: the same on every node, whoever proposed it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from phalanx.errors import DataError
from phalanx.service.consensus.abci.abci_types_pb2 import CommitInfo
from phalanx.service.consensus.ballots import BallotBox, ballots_flaw, is_box
from phalanx.service.consensus.chain import Chain
from phalanx.service.consensus.state import Recent, State
from phalanx.service.consensus.submission import Submission, parse, submission_flaw

__all__ = ["Block", "choose", "examine"]

_OVERHEAD = 8  # bytes that the engine adds to a transaction, at most


@dataclass(frozen=True)
class Block:
    """A block's content.

    Attributes:
        box: the votes on the batch before; None where there are none that count.
        submissions: that it orders.
        flaws: of each transaction, None where it has none.
        flaw: why an honest node does not vote for the block; None where it does. A block that was decided all the same
            is carried out without what is flawed, on every node alike.
    """

    box: BallotBox | None
    submissions: tuple[Submission, ...]
    flaws: tuple[str | None, ...]
    flaw: str | None


def examine(chain: Chain, state: State, recent: Recent, txs: Sequence[bytes], commit: CommitInfo) -> Block:
    """Checks a block that follows a state.

    Args:
        chain, state, recent: before the block.
        txs: its transactions.
        commit: its last commit.
    """
    flaws: list[str | None] = []
    box = None
    rest = txs
    if state.pending is not None:
        flaw = "the votes on the batch before are missing"
        if txs and is_box(txs[0]):
            rest = txs[1:]
            try:
                box = BallotBox.decode(txs[0])
                flaw = ballots_flaw(chain, box, state.pending.height, commit)
            except DataError as problem:
                flaw = str(problem)
            flaws.append(flaw)
        if flaw is not None:
            box = None
    else:
        flaw = None
    submissions: list[Submission] = []
    seen: set[str] = set()
    events = 0
    for raw in rest:
        found = submission_flaw(chain, raw)
        if found is None:
            submission = parse(raw)
            found = recent.flaw(submission, state.head.height)
            if submission.digest in seen:
                found = "these events are in the block already"
            elif events + len(submission.events) > chain.batch_events and submissions:
                found = f"more than {chain.batch_events} events in a block"
            if found is None:
                seen.add(submission.digest)
                events += len(submission.events)
                submissions.append(submission)
        flaws.append(found)
        flaw = flaw or found
    return Block(box, tuple(submissions), tuple(flaws), flaw)


def choose(
    chain: Chain, state: State, recent: Recent, box: BallotBox | None, txs: Iterable[bytes], max_bytes: int
) -> list[bytes]:
    """What an honest proposer puts into a block: the votes, then submissions as long as there is room.

    Args:
        chain, state, recent: before the block.
        box: the votes; None where no batch waits for them.
        txs: what the node has in store, oldest first.
        max_bytes: of all transactions.
    """
    chosen = [] if box is None else [box.encode()]
    room = max_bytes - sum(len(raw) + _OVERHEAD for raw in chosen)
    seen: set[str] = set()
    events = 0
    for raw in txs:
        if submission_flaw(chain, raw) is not None:
            continue
        submission = parse(raw)
        if submission.digest in seen or recent.flaw(submission, state.head.height) is not None:
            continue
        count = len(submission.events)
        if len(raw) + _OVERHEAD > room or (events + count > chain.batch_events and seen):
            break
        seen.add(submission.digest)
        events += count
        room -= len(raw) + _OVERHEAD
        chosen.append(raw)
    return chosen
