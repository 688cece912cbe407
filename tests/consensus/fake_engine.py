"""An engine without a network: drives the applications of all nodes through heights, as CometBFT would, in one process.

Everything between the engine and the application is the real thing: messages, extension signatures, last commits.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from google.protobuf.timestamp_pb2 import Timestamp

from phalanx.service.consensus.abci import abci_types_pb2 as abci
from phalanx.service.consensus.abci import crypto_keys_pb2 as keys_pb
from phalanx.service.consensus.abci import types_validator_pb2 as validator_pb
from phalanx.service.consensus.application import Application
from phalanx.service.consensus.ballots import sign_bytes
from phalanx.service.consensus.chain import Chain, ChainMember
from phalanx.service.consensus.member import DrillMember, Member, Voter
from phalanx.service.consensus.submission import submit_form
from phalanx.service.keys import SigningKey
from phalanx.service.ledger import Ledger
from phalanx.service.ledger_entry import Entry
from phalanx.service.records import LiveEvent

ABSENT, COMMIT = validator_pb.BLOCK_ID_FLAG_ABSENT, validator_pb.BLOCK_ID_FLAG_COMMIT


def events(batch: int, count: int = 4) -> tuple[LiveEvent, ...]:
    """Events that differ from those of every other batch."""
    return tuple(
        LiveEvent(
            f"e-{batch}-{i}",
            10**18 + 1000 * batch + i,
            f"web-{i % 3}",
            f"web-{i % 3}:{i % 7}",
            "EXECUTE",
            "",
            {"path": "/usr/bin/id", "bytes": 17 * i, "score": 0.25},
        )
        for i in range(count)
    )


def block_hash(txs: Sequence[bytes], commit: abci.CommitInfo) -> bytes:
    """Names a block, as the engine's own hash does."""
    parts = [hashlib.sha256(tx).digest() for tx in txs]
    return hashlib.sha256(b"".join(parts) + commit.SerializeToString(deterministic=True)).digest()


@dataclass
class Node:
    """A node: its keys, its folder and, while it runs, its application."""

    place: int
    folder: Path
    key: SigningKey
    validator: Ed25519PrivateKey
    member: Member
    chain: Chain
    entries: list[Entry] = field(default_factory=list)
    evidence: list[Mapping[str, Any]] = field(default_factory=list)
    _open: tuple[Application, Ledger, Voter] | None = None

    @property
    def name(self) -> str:
        return self.chain.members[self.place].name

    @property
    def ledger_folder(self) -> Path:
        return self.folder / "ledger"

    @property
    def application(self) -> Application:
        assert self._open is not None
        return self._open[0]

    def start(self) -> None:
        ledger = Ledger.open(self.ledger_folder, self.key, member=self.name, members=self.chain.keys)
        voter = Voter(self.member)
        application = Application(
            self.chain,
            self.name,
            self.key,
            ledger,
            self.ledger_folder,
            voter,
            publish=self.entries.append,
            accuse=self.evidence.append,
        )
        self._open = application, ledger, voter

    def stop(self) -> None:
        if self._open is not None:
            self._open[2].close()
            self._open[1].close()
            self._open = None


@dataclass
class Decided:
    """A block that was decided, and the extensions that came with the votes on it."""

    txs: list[bytes]
    height: int
    round: int
    commit: abci.CommitInfo
    extensions: dict[int, tuple[bytes, bytes]]


class Committee:
    """All nodes and the blocks that they decided.

    Args:
        folder: for keys and ledgers.
        n: members.
        members: each node's policy, by place.
        batch_events, window: of the chain.
    """

    def __init__(
        self,
        folder: Path,
        n: int = 4,
        members: Callable[[int], Member] = lambda place: DrillMember(f"node{place}", 0.5),
        batch_events: int = 1024,
        window: int = 512,
    ) -> None:
        self.gateway = SigningKey.create(folder / "gateway.pem")
        signing = [SigningKey.create(folder / f"node{i}.pem") for i in range(n)]
        engines = [Ed25519PrivateKey.generate() for _ in range(n)]
        self.chain = Chain(
            "test",
            tuple(
                ChainMember(f"node{i}", signing[i].public, engines[i].public_key().public_bytes_raw().hex())
                for i in range(n)
            ),
            {"gateway": self.gateway.public},
            batch_events=batch_events,
            window=window,
        )
        self.nodes = [
            Node(i, folder / f"node{i}", signing[i], engines[i], members(i), self.chain) for i in range(n)
        ]
        self.blocks: list[Decided] = []
        self.down: set[int] = set()
        for node in self.nodes:
            node.start()

    @property
    def height(self) -> int:
        return len(self.blocks)

    @property
    def alive(self) -> list[Node]:
        return [node for node in self.nodes if node.place not in self.down]

    def close(self) -> None:
        for node in self.nodes:
            node.stop()

    def submission(self, batch: int, count: int = 4, base: int | None = None) -> bytes:
        seen = self.alive[0].application.state.head.height if base is None else base
        return submit_form(self.gateway, "gateway", self.chain.name, seen, events(batch, count))

    def last_commit(self) -> abci.ExtendedCommitInfo:
        """The votes on the last block, as the next proposer's engine gives them."""
        if not self.blocks:
            return abci.ExtendedCommitInfo()
        last = self.blocks[-1]
        votes = []
        for node in self.nodes:
            extension, signature = last.extensions.get(node.place, (b"", b""))
            votes.append(
                abci.ExtendedVoteInfo(
                    validator=abci.Validator(address=self.chain.members[node.place].address, power=1),
                    vote_extension=extension,
                    extension_signature=signature,
                    block_id_flag=COMMIT if node.place in last.extensions else ABSENT,
                )
            )
        return abci.ExtendedCommitInfo(round=last.round, votes=votes)

    def commit_info(self) -> abci.CommitInfo:
        extended = self.last_commit()
        return abci.CommitInfo(
            round=extended.round,
            votes=[
                abci.VoteInfo(validator=vote.validator, block_id_flag=vote.block_id_flag)
                for vote in extended.votes
            ],
        )

    def propose(self, proposer: int, txs: Sequence[bytes], max_bytes: int = 1 << 22) -> list[bytes]:
        """What a proposer's application makes of what its engine has in store."""
        request = abci.RequestPrepareProposal(
            max_tx_bytes=max_bytes,
            txs=txs,
            local_last_commit=self.last_commit(),
            height=self.height + 1,
            time=Timestamp(seconds=1),
        )
        return list(self.nodes[proposer].application.handle("prepare_proposal", request).txs)

    def accepts(self, place: int, txs: Sequence[bytes], commit: abci.CommitInfo | None = None) -> bool:
        """Whether a node votes for a proposal."""
        request = abci.RequestProcessProposal(
            hash=block_hash(txs, commit or self.commit_info()),
            txs=txs,
            proposed_last_commit=commit or self.commit_info(),
            height=self.height + 1,
        )
        answer = self.nodes[place].application.handle("process_proposal", request)
        return answer.status == abci.ResponseProcessProposal.ACCEPT

    def decide(
        self,
        txs: Sequence[bytes],
        *,
        round_: int = 0,
        extensions: Callable[[int, bytes], bytes] = lambda place, own: own,
        stops: Mapping[int, str] | None = None,
    ) -> bytes:
        """All living nodes vote on a block, decide it and carry it out; returns the app hash that they agree on.

        Args:
            txs: of the block.
            round_: in which it is decided.
            extensions: what each node's engine really sends instead of its own application's.
            stops: nodes, by place, that stop ``before`` they carry it out, once it is ``finalized`` or ``committed``.
        """
        height, commit = self.height + 1, self.commit_info()
        found = {}
        for node in self.alive:
            request = abci.RequestExtendVote(
                hash=block_hash(txs, commit), height=height, txs=txs, proposed_last_commit=commit
            )
            own = node.application.handle("extend_vote", request).vote_extension
            sent = extensions(node.place, own)
            signature = node.validator.sign(sign_bytes(self.chain.name, height, round_, sent))
            found[node.place] = sent, signature
        block = Decided(list(txs), height, round_, commit, found)
        hashes = set()
        for node in self.alive:
            stop = (stops or {}).get(node.place)
            if stop == "finalized":
                self.finalize(node, block)
            elif stop != "before":
                hashes.add(self.carry_out(node, block))
            if stop is not None:
                node.stop()
        assert len(hashes) == 1, "the nodes disagree on the app hash"
        self.blocks.append(block)
        return hashes.pop()

    def carry_out(self, node: Node, block: Decided) -> bytes:
        """Has a node execute and commit a block."""
        answer = self.finalize(node, block)
        node.application.handle("commit", abci.RequestCommit())
        return answer.app_hash

    def finalize(self, node: Node, block: Decided) -> abci.ResponseFinalizeBlock:
        request = abci.RequestFinalizeBlock(
            hash=block_hash(block.txs, block.commit),
            txs=block.txs,
            decided_last_commit=block.commit,
            height=block.height,
        )
        answer = node.application.handle("finalize_block", request)
        assert len(answer.tx_results) == len(block.txs)
        return answer

    def step(self, store: Sequence[bytes] = (), proposer: int | None = None) -> bytes:
        """One height with an honest proposer, whom all honest nodes believe."""
        living = self.alive
        who = living[self.height % len(living)].place if proposer is None else proposer
        txs = self.propose(who, store)
        assert all(self.accepts(node.place, txs) for node in living)
        return self.decide(txs)

    def catch_up(self, node: Node) -> bytes:
        """What the engine does once a node is back: asks where it is, and repeats the heights after it."""
        info = node.application.handle("info", abci.RequestInfo())
        told = info.last_block_app_hash
        for block in self.blocks[info.last_block_height :]:
            told = self.carry_out(node, block)
        return told

    def init_chain(self, node: Node, chain: Chain | None = None) -> bytes:
        import json

        request = abci.RequestInitChain(
            chain_id=self.chain.name,
            app_state_bytes=json.dumps((chain or self.chain).to_json()).encode(),
            validators=[
                abci.ValidatorUpdate(
                    pub_key=keys_pb.PublicKey(ed25519=bytes.fromhex(member.validator)), power=1
                )
                for member in self.chain.members
            ],
        )
        return node.application.handle("init_chain", request).app_hash
