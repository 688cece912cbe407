"""What comes over the sockets of a committee of nodes: frames, requests, answers, submissions, votes."""

import base64
import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

from consensus.fake_engine import Committee
from consensus.test_framing import by_definition

from benchmarks.fuzz.target import REFUSED, TAKEN, Case
from phalanx.errors import PhalanxError
from phalanx.service.consensus import asking, client, follower
from phalanx.service.consensus.abci import abci_types_pb2 as pb
from phalanx.service.consensus.chain import Chain, ChainMember
from phalanx.service.consensus.door import Door, message
from phalanx.service.consensus.extension import Ballot, Vote, pack, read_vote, statement_of, unpack
from phalanx.service.consensus.framing import FrameError, Framer, frame
from phalanx.service.consensus.replies import reply_to
from phalanx.service.consensus.server import Server
from phalanx.service.consensus.submission import _DOMAIN, _TAG, parse, submission_flaw, submit_form
from phalanx.service.keys import SigningKey
from phalanx.service.records import LiveEvent
from phalanx.service.statements import Statement

__all__ = ["abci", "answers", "committee", "door", "extensions", "frames", "submissions"]


class Wire(socket.socket):
    """A connection, to nowhere, that brings bytes in two pieces, then ends."""

    def __init__(self, data: bytes) -> None:  # a socket's own is not called: there is none
        cut = data[0] % (len(data) + 1) if data else 0
        self._parts = [part for part in (data[:cut], data[cut:]) if part]
        self.sent = bytearray()

    def recv(self, *_: int) -> bytes:
        return self._parts.pop(0) if self._parts else b""

    def sendall(self, data: Any, *_: int) -> None:
        self.sent += data

    def send(self, data: Any, *_: int) -> int:
        self.sent += data
        return len(data)

    def settimeout(self, value: float | None, /) -> None:
        pass

    def close(self) -> None:
        pass


def frames(folder: Path) -> Case:
    """Frames of a stream, against a second definition of them."""

    def try_one(data: bytes) -> str:
        limit, cut, data = (0, 3, 60)[(data[0] if data else 0) % 3], data[1] if data[1:] else 0, data[2:]
        framer, got, fine = Framer(limit), [], True
        try:
            got += framer.feed(data[:cut])
            got += framer.feed(data[cut:])
        except FrameError:
            fine = False
        wanted, wanted_fine = by_definition(data, limit)
        assert fine == wanted_fine and got == wanted[: len(got)] and (len(got) == len(wanted) or not fine)
        return TAKEN if fine else REFUSED

    return Case([b"\x02\x01" + frame(b"ab") + frame(bytes(50)), b"\x01\x04\x01a\x80\x00"], try_one)


def committee(folder: Path) -> Any:
    """A committee of four that has decided a batch, while another waits for its votes."""

    made = Committee(folder)
    made.step([made.submission(0)])
    made.step([made.submission(1)])
    return made


def door(folder: Path) -> Case:
    """Messages to a node's own socket."""

    made = committee(folder)
    node = made.nodes[0]
    said = Statement.signed(node.key, node.name, 1, "status", {"ledger": 1}, made.chain.name)
    place = (made.chain, node.name, node.key, node.ledger_folder)
    opened = Door(
        folder / "door",
        *place,
        height=1,
        forward=lambda raw: None,
        status=lambda: {"said": said.to_json()},
    )
    with opened:
        pass  # one that is closed ends every answer that else would have no end

    def try_one(data: bytes) -> str:
        wire, before = Wire(data), opened.counters["malformed"]
        opened._serve(wire)
        for told in Framer().feed(bytes(wire.sent)):
            assert isinstance(json.loads(told), dict)
        return TAKEN if opened.counters["malformed"] == before else REFUSED

    raw = base64.b64encode(made.submission(2)).decode()
    asked: list[Mapping[str, Any]] = [
        {"do": "submit", "raw": raw},
        {"do": "follow", "from": 1},
        {"do": "entry", "height": 1},
        {"do": "status"},
    ]
    return Case(
        [message(each) for each in asked] + [b"".join(message(each) for each in asked)], try_one, made.close
    )


def answers(folder: Path) -> Case:
    """What nodes answer gateways, where any of them may lie: replies that are followed, answers to what is asked."""

    made = committee(folder)

    def try_one(data: bytes) -> str:
        following, outcome = follower.Follower(made.chain, [], 1, lambda agreed: None), TAKEN
        # nobody else is there for whom it could wait
        following._wait_until_near = lambda height: None  # type: ignore[method-assign]
        try:
            following._listen(Wire(data))
        except PhalanxError:
            outcome = REFUSED
        assert len(following.evidence) <= 8 * made.chain.n
        with patch.object(asking, "connect", lambda *_: Wire(data)), suppress(PhalanxError):
            asking.ledger_height(made.chain, [folder])
        sender = client._Sender(folder, client.Counter())
        sender.send(b"a submission")
        sender._queue.put(None)
        with patch.object(client, "connect", lambda *_: Wire(data)):
            sender._run()
        return outcome

    entry = made.nodes[0].entries[0]
    replies = [
        reply_to(made.chain, node.name, node.key, node.entries[0] if node.entries else entry).to_json()
        for node in made.nodes
    ]
    node = made.nodes[0]
    said = Statement.signed(node.key, node.name, 1, "status", {"ledger": 1}, made.chain.name)
    told: list[Any] = [*replies, {"height": 1}, {"ok": True, "log": ""}, {"said": said.to_json()}]
    lie = Statement.signed(
        node.key, node.name, 1, "reply", {**replies[0]["said"]["content"], "mode": "enforce"}, "test"
    )
    told.append({"said": lie.to_json(), "entry": replies[0]["entry"]})
    return Case(
        [message(each) for each in told] + [b"".join(message(each) for each in told)], try_one, made.close
    )


def abci(folder: Path) -> Case:
    """Requests on the engine's socket; those that carry what other nodes wrote go to a node's real application.

    Height and hash are those that an engine would give: it checks them itself.
    """

    made = committee(folder)
    application = made.nodes[0].application
    written = ("check_tx", "prepare_proposal", "process_proposal", "extend_vote", "verify_vote_extension")
    known = {kind.name for kind in pb.Request.DESCRIPTOR.fields}
    number = iter(range(10**12))

    class Handler:
        def handle(self, kind: str, request: Any) -> Any:
            assert kind in known
            if kind not in (*written, "finalize_block", "info", "query"):
                return getattr(pb, type(request).__name__.replace("Request", "Response"))()
            if kind == "verify_vote_extension":
                request.height, request.validator_address = made.height + 1, made.chain.members[1].address
            elif hasattr(request, "hash"):
                request.height, request.hash = made.height + 1, str(next(number)).encode()
            return application.handle(kind, request)

    server = Server(folder / "abci", Handler())
    with server:
        pass

    def try_one(data: bytes) -> str:
        wire, before = Wire(data), server.errors.total()
        server._serve(wire)
        for told in Framer().feed(bytes(wire.sent)):
            pb.Response.FromString(told)
        assert not server.errors["handler"], "a request was not answered"
        counters = application.counters
        assert not counters["failed/proposal"] + counters["failed/vote"], "a block could not be examined"
        return TAKEN if server.errors.total() == before else REFUSED

    txs, commit = made.propose(0, [made.submission(2)]), made.commit_info()
    extension = made.blocks[-1].extensions[1][0]
    requests = [
        pb.Request(info=pb.RequestInfo(version="1")),
        pb.Request(echo=pb.RequestEcho(message="a")),
        pb.Request(check_tx=pb.RequestCheckTx(tx=made.submission(3))),
        pb.Request(
            prepare_proposal=pb.RequestPrepareProposal(
                max_tx_bytes=9999, txs=[made.submission(2)], local_last_commit=made.last_commit()
            )
        ),
        pb.Request(process_proposal=pb.RequestProcessProposal(txs=txs, proposed_last_commit=commit)),
        pb.Request(extend_vote=pb.RequestExtendVote(txs=txs, proposed_last_commit=commit)),
        pb.Request(verify_vote_extension=pb.RequestVerifyVoteExtension(vote_extension=extension)),
        pb.Request(finalize_block=pb.RequestFinalizeBlock(txs=txs, decided_last_commit=commit)),
        pb.Request(flush=pb.RequestFlush()),
    ]
    seeds = [frame(each.SerializeToString()) for each in requests]
    return Case([*seeds, seeds[0] + seeds[1] + seeds[-1]], try_one, made.close)


def extensions(folder: Path) -> Case:
    """Vote extensions: what reads has one form."""

    key, ballot = _key(folder), Ballot("test", 7, "0" * 64, 5)

    def try_one(data: bytes) -> str:
        vote = read_vote(data, key.public, "a", ballot)
        assert (statement_of(data, key.public, "a", ballot) is None) == (vote is None)
        try:
            cast, signature = unpack(data)
        except PhalanxError:
            assert vote is None
            return REFUSED
        again = pack(key, "a", Ballot("test", 7, "0" * 64, len(cast.votes)), cast)
        assert again[:-64] == data[:-64] and signature == data[-64:].hex()
        return TAKEN

    votes = (Vote("m", (0, 1, 2, 3, 1)), Vote("a model", (3, 3, 3, 3, 3)))
    return Case([pack(key, "a", ballot, vote) for vote in votes], try_one)


def submissions(folder: Path) -> Case:
    """Submissions as they are, and contents that a gateway signed: what is taken has one form."""

    key = _key(folder)
    chain = Chain("test", (ChainMember("m", "1" * 64, "2" * 64),), {"g": key.public})

    def try_one(data: bytes) -> str:
        raw = data if data[:1] == _TAG else _TAG + key.sign(_DOMAIN + data) + data
        flaw = submission_flaw(chain, raw)
        try:
            found = parse(raw)
        except PhalanxError:
            assert flaw is not None
            return REFUSED
        assert submit_form(key, found.gateway, found.chain, found.base, found.events)[65:] == raw[65:]
        return TAKEN

    one = LiveEvent(
        "e", 1, "web", "web:1", "EXECUTE", "", {"path": "/x", "n": 1, "s": 0.5, "t": True, "z": None}
    )
    raws = [submit_form(key, "g", "test", 0, [one] * count) for count in (1, 3)]
    return Case([*raws, *(raw[65:] for raw in raws)], try_one)


def _key(folder: Path) -> Any:

    path = folder / "key.pem"
    return SigningKey.load(path) if path.exists() else SigningKey.create(path)
