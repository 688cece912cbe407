"""The replicated state machine: orders batches, has this node's member vote on them, decides them, keeps the ledger."""

import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.errors import DataError
from phalanx.service.consensus.abci import abci_types_pb2 as abci
from phalanx.service.consensus.aggregate import decide_batch
from phalanx.service.consensus.ballots import BallotBox, collect
from phalanx.service.consensus.block import Block, choose, examine
from phalanx.service.consensus.chain import Chain
from phalanx.service.consensus.extension import EXTENSION_BYTES, Ballot, pack, read_vote, statement_of
from phalanx.service.consensus.member import Voter
from phalanx.service.consensus.state import Batch, State, batches_after, consensus_body, restore
from phalanx.service.consensus.submission import parse, submission_flaw
from phalanx.service.keys import SigningKey
from phalanx.service.ledger import Ledger
from phalanx.service.ledger_bodies import batch_body, decisions_of, events_of
from phalanx.service.ledger_entry import Entry, Head, entry_hash
from phalanx.service.statements import equivocation

__all__ = ["Application"]

_LOG = logging.getLogger(__name__)
_ROUNDS = 8  # blocks of one height that are remembered


@dataclass(frozen=True)
class _Next:
    """What a finalized block leads to, once it is committed."""

    state: State
    body: Mapping[str, Any] | None
    verdicts: Sequence[int]


class Application:
    """One node's state machine (``server.Handler``).

    Args:
        chain: what all nodes agree on.
        name: of this node's member.
        key: its member's key.
        ledger: of this node, signed by it.
        folder: where that ledger lies.
        voter: asks this node's member.
        resume: the height up to which the member remembers already.
        publish: told of each entry, once it is durable.
        accuse: told of evidence against a member that voted twice on one batch, the body of an entry of evidence. It is
            this node's alone: others may have heard one of the votes only.

    Attributes:
        counters: what was refused, by reason, and how often this node abstained.
    """

    def __init__(
        self,
        chain: Chain,
        name: str,
        key: SigningKey,
        ledger: Ledger,
        folder: Path,
        voter: Voter,
        *,
        resume: int = 0,
        publish: Callable[[Entry], None] = lambda entry: None,
        accuse: Callable[[Mapping[str, Any]], None] = lambda body: None,
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._chain = chain
        self._name = name
        self._key = key
        self._ledger = ledger
        self._voter = voter
        self._publish = publish
        self._accuse = accuse
        self._examined: dict[bytes, tuple[Block, Batch | None]] = {}
        self._heard: dict[tuple[int, bytes], bytes] = {}
        self._lock = threading.Lock()
        self._state, self._recent = restore(chain, folder, ledger.head)
        self._next: _Next | None = None
        for entry in batches_after(chain, folder, resume):
            voter.take(events_of(entry.body))
            voter.answered(entry.height, [int(decision.verdict) for decision in decisions_of(entry.body)])
        if self._state.pending is not None:
            voter.take(self._state.pending.events)

    @property
    def state(self) -> State:
        """After the last block."""
        return self._state

    def handle(self, kind: str, request: Any) -> Any:
        """The answer to a request of the engine (``server.Handler``)."""
        if kind == "check_tx":
            return self._check_tx(request)
        with self._lock:
            return getattr(self, f"_{kind}")(request)

    def _info(self, request: abci.RequestInfo) -> abci.ResponseInfo:
        return abci.ResponseInfo(
            data="phalanx",
            app_version=1,
            last_block_height=self._state.height,
            last_block_app_hash=self._state.app_hash if self._state.height else b"",
        )

    def _init_chain(self, request: abci.RequestInitChain) -> abci.ResponseInitChain:
        import json

        validators = {(v.pub_key.ed25519.hex(), v.power) for v in request.validators}
        told = Chain.from_json(json.loads(request.app_state_bytes))
        if request.chain_id != self._chain.name or told != self._chain:
            raise DataError(
                f"the genesis is not that of the chain {self._chain.name!r}; give the node its own"
            )
        if validators != {(member.validator, 1) for member in self._chain.members}:
            raise DataError("the genesis lists other validators than the members' engines, one vote each")
        if self._state.height:
            raise DataError(
                f"the engine begins the chain anew, but the ledger is at height {self._state.head.height}. Give back "
                f"the engine's data, or cut the ledger off after height {self._chain.begins} (0: put it aside): the "
                "node then fetches the rest from the others"
            )
        return abci.ResponseInitChain(app_hash=self._state.app_hash)

    def _query(self, request: abci.RequestQuery) -> abci.ResponseQuery:
        return abci.ResponseQuery(code=1, log="ask the node's own socket", height=self._state.height)

    def _list_snapshots(self, request: abci.RequestListSnapshots) -> abci.ResponseListSnapshots:
        return abci.ResponseListSnapshots()

    def _offer_snapshot(self, request: abci.RequestOfferSnapshot) -> abci.ResponseOfferSnapshot:
        return abci.ResponseOfferSnapshot(result=abci.ResponseOfferSnapshot.REJECT)

    def _load_snapshot_chunk(self, request: abci.RequestLoadSnapshotChunk) -> abci.ResponseLoadSnapshotChunk:
        return abci.ResponseLoadSnapshotChunk()

    def _apply_snapshot_chunk(
        self, request: abci.RequestApplySnapshotChunk
    ) -> abci.ResponseApplySnapshotChunk:
        return abci.ResponseApplySnapshotChunk(result=abci.ResponseApplySnapshotChunk.ABORT)

    def _check_tx(self, request: abci.RequestCheckTx) -> abci.ResponseCheckTx:
        """Whether a submission goes into the store of those that wait, or may stay there after a block."""
        flaw = submission_flaw(self._chain, request.tx)
        if flaw is None:
            submission, height = parse(request.tx), self._state.head.height
            if submission.base <= height:
                flaw = self._recent.flaw(submission, height)
            elif submission.base > height + self._chain.window:  # nearer ones: this node may be behind
                flaw = f"base {submission.base} is far beyond the ledger's height {height}"
        if flaw is None:
            return abci.ResponseCheckTx()
        self.counters["refused/submission"] += 1
        return abci.ResponseCheckTx(code=1, log=flaw)

    def _prepare_proposal(self, request: abci.RequestPrepareProposal) -> abci.ResponsePrepareProposal:
        box = None
        if self._state.pending is not None:
            box = collect(self._chain, request.local_last_commit)
        chosen = choose(self._chain, self._state, self._recent, box, request.txs, request.max_tx_bytes)
        return abci.ResponsePrepareProposal(txs=chosen)

    def _process_proposal(self, request: abci.RequestProcessProposal) -> abci.ResponseProcessProposal:
        status = abci.ResponseProcessProposal.REJECT
        try:
            block, batch = self._examine(request, request.proposed_last_commit)
            if block.flaw is None:
                status = abci.ResponseProcessProposal.ACCEPT
                if batch is not None:
                    self._voter.ask(batch.digest, batch.events)
            else:
                self.counters["refused/proposal"] += 1
                _LOG.warning("block %d is refused: %s", request.height, block.flaw)
        except Exception:
            self.counters["failed/proposal"] += 1
            _LOG.exception("block %d could not be examined and is refused", request.height)
        return abci.ResponseProcessProposal(status=status)

    def _extend_vote(self, request: abci.RequestExtendVote) -> abci.ResponseExtendVote:
        """This member's votes; whatever goes wrong is an abstention, for an exception here would stop the chain."""
        extension = b""
        try:
            extension = self._own_votes(request)
        except Exception:
            _LOG.exception("no votes on block %d: the member abstains", request.height)
            self.counters["failed/vote"] += 1
        return abci.ResponseExtendVote(vote_extension=extension)

    def _own_votes(self, request: abci.RequestExtendVote) -> bytes:
        _, batch = self._examine(request, request.proposed_last_commit)
        if batch is None:
            return b""
        ballot = batch.ballot(self._chain)
        vote = self._voter.votes(ballot.batch, batch.events)
        if vote is None:
            self.counters["abstained"] += 1
            return b""
        extension = pack(self._key, self._name, ballot, vote)
        # an own extension that the others refuse stops the chain
        if read_vote(extension, self._key.public, self._name, ballot) != vote or not _fits(extension):
            raise DataError("the member's own votes do not read back")
        return extension

    def _verify_vote_extension(
        self, request: abci.RequestVerifyVoteExtension
    ) -> abci.ResponseVerifyVoteExtension:
        """Accepts whatever fits: what does not read as votes is an abstention once they are counted, on every node."""
        if _fits(request.vote_extension):
            self._heard[request.height, request.validator_address] = request.vote_extension
            return abci.ResponseVerifyVoteExtension(status=abci.ResponseVerifyVoteExtension.ACCEPT)
        self.counters["refused/extension"] += 1
        return abci.ResponseVerifyVoteExtension(status=abci.ResponseVerifyVoteExtension.REJECT)

    def _finalize_block(self, request: abci.RequestFinalizeBlock) -> abci.ResponseFinalizeBlock:
        state = self._state
        block, ordered = self._examine(request, request.decided_last_commit)
        for lie in request.misbehavior:
            self.counters["misbehavior"] += 1
            _LOG.error("the engine has evidence against %s: %s", lie.validator.address.hex(), lie)
        if block.flaw is not None:
            self.counters["flawed/block"] += 1
            _LOG.error("block %d was decided in spite of: %s", request.height, block.flaw)
        head, body, verdicts = state.head, None, ()
        if state.pending is not None:
            body, verdicts = self._decide(state.pending, request.height, block.box, ordered)
            height = head.height + 1
            head = Head(height, entry_hash(height, head.hash, "batch", body))
        self._next = _Next(state.after(request.height, head, ordered), body, verdicts)
        return abci.ResponseFinalizeBlock(
            tx_results=[
                abci.ExecTxResult(code=0 if flaw is None else 1, log=flaw or "") for flaw in block.flaws
            ],
            app_hash=self._next.state.app_hash,
        )

    def _decide(
        self, batch: Batch, height: int, box: BallotBox | None, ordered: Batch | None
    ) -> tuple[Mapping[str, Any], Sequence[int]]:
        """The body of the entry that a block's votes lead to, and its verdicts."""
        chain = self._chain
        ballot = batch.ballot(chain)
        raw = {} if box is None else {place: extension for place, extension, _ in box.extensions}
        self._compare(ballot, raw)
        votes = [
            read_vote(raw.get(place, b""), member.public, member.name, ballot)
            for place, member in enumerate(chain.members)
        ]
        decisions = decide_batch(batch.events, votes, chain.f)
        told = consensus_body(chain, batch, height, box, votes, ordered)
        body = batch_body(
            batch.events,
            decisions,
            f=chain.f,
            mode=chain.mode,
            consensus=told,
            encoded=(batch.digest, batch.text),
        )
        return body, [int(decision.verdict) for decision in decisions]

    def _compare(self, ballot: Ballot, carried: Mapping[int, bytes]) -> None:
        """Looks for members that told this node another vote than the one that the block carries."""
        for place, member in enumerate(self._chain.members):
            heard = self._heard.get((ballot.height, member.address))
            other = carried.get(place)
            if heard is None or other is None or heard == other:
                continue
            said = [statement_of(raw, member.public, member.name, ballot) for raw in (heard, other)]
            if said[0] is not None and said[1] is not None and said[0].message != said[1].message:
                self.counters["evidence"] += 1
                self._accuse(equivocation(said[0], said[1], self._chain.current))
        self._heard = {key: raw for key, raw in self._heard.items() if key[0] > ballot.height}

    def _commit(self, request: abci.RequestCommit) -> abci.ResponseCommit:
        found, self._next = self._next, None
        if found is None:
            raise DataError("commit without a block before it")
        if found.body is not None:
            entry = self._ledger.append("batch", found.body)
            if entry.hash != found.state.head.hash:
                raise DataError(f"the ledger's entry {entry.height} is not the one that the block led to")
            self._voter.answered(entry.height, found.verdicts)
            self._publish(entry)
        pending = found.state.pending
        self._recent.add(found.state.head.height, [s.digest for s in pending.submissions] if pending else [])
        if pending is not None:
            self._voter.take(pending.events)
        self._state = found.state
        self._examined = {}
        return abci.ResponseCommit()

    def _examine(
        self,
        request: abci.RequestProcessProposal | abci.RequestExtendVote | abci.RequestFinalizeBlock,
        commit: abci.CommitInfo,
    ) -> tuple[Block, Batch | None]:
        """What a block says and orders; worked out once a block, which its hash names."""
        if request.height != self._state.height + 1:
            raise DataError(f"a block of height {request.height} after one of height {self._state.height}")
        found = self._examined.get(request.hash)
        if found is None:
            block = examine(self._chain, self._state, self._recent, request.txs, commit)
            batch = Batch(request.height, block.submissions) if block.submissions else None
            if len(self._examined) >= _ROUNDS:
                self._examined.clear()
            found = self._examined[request.hash] = block, batch
        return found


def _fits(extension: bytes) -> bool:
    return len(extension) <= EXTENSION_BYTES
