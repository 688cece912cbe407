"""Ledgers for tests: keys, batches of decided events, small chains, and what forgers would write."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ed25519
from hypothesis import strategies as st

from phalanx.service.keys import SigningKey
from phalanx.service.ledger import Ledger
from phalanx.service.ledger_bodies import batch_body
from phalanx.service.ledger_entry import GENESIS, Entry, seal
from phalanx.service.ledger_files import segment_name
from phalanx.service.ledger_verify import Verification, verify_ledger
from phalanx.service.members import Members
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.types import Verdict

# Halves of surrogate pairs too: a client's JSON may hold them.
texts = st.text(st.characters(), max_size=8).filter(
    lambda text: text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").count("\ufffd") == 0
) | st.sampled_from(["\ud800", "\udfff!", "\u202e", "\n\x1b[2J", "\x00", "</script>"])
finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.none() | st.booleans() | st.integers() | finite | texts
events = st.fixed_dictionaries(
    {
        "id": texts,
        "time_ns": st.integers(0, 2**63 - 1),
        "host": texts,
        "subject": texts,
        "kind": texts,
        "parent": texts,
        "attributes": st.dictionaries(st.text(max_size=8), values, max_size=4),
    }
)
verdicts = st.sampled_from(Verdict)
decisions = st.fixed_dictionaries(
    {
        "verdict": verdicts,
        "votes": st.lists(st.none() | verdicts, max_size=7).map(tuple),
        "quorum": st.booleans(),
        "score": st.floats(0, 1),
        "shielded": st.booleans(),
        "robustness": st.dictionaries(st.text(max_size=8), st.floats(allow_nan=False), max_size=3),
        "evidence": st.lists(texts, max_size=3).map(tuple),
        "model": texts,
        "tolerates": st.integers(0, 10),
    }
)
pairs = st.tuples(events, decisions)


def records(pair: tuple[Any, Any]) -> tuple[LiveEvent, LiveDecision]:
    """The records of drawn fields (made here, for the type checker draws at random, which a strategy may not)."""
    event, decision = LiveEvent(**pair[0]), pair[1]
    return event, LiveDecision(
        event_id=event.id, time_ns=event.time_ns, host=event.host, subject=event.subject, **decision
    )


def key_of(number: int) -> SigningKey:
    """The same key for the same number."""
    return SigningKey(
        ed25519.Ed25519PrivateKey.from_private_bytes(hashlib.sha256(f"{number}".encode()).digest())
    )


def event_of(number: int) -> LiveEvent:
    """An event with an id of its own."""
    path = {"path": f"/usr/bin/\u00e9{number}", "uid": number, "entropy": number / 7}
    return LiveEvent(
        f"event-{number}", 10**18 + number, "web-1", f"web-1:{number}", "EXECUTE", "web-1:1", path
    )


def decision_of(
    event: LiveEvent, votes: Sequence[Verdict | None], verdict: Verdict, **changed: Any
) -> LiveDecision:
    """A decision on an event."""
    given: dict[str, Any] = {
        "quorum": sum(vote is not None for vote in votes) >= 2 * ((len(votes) - 1) // 3) + 1,
        "score": 0.25,
        "shielded": False,
        "robustness": {"office": float("inf"), "lateral": -0.5},
        "evidence": (event.id,),
        "model": "ab" * 32,
        **changed,
    }
    return LiveDecision(
        event.id, event.time_ns, event.host, event.subject, verdict=verdict, votes=tuple(votes), **given
    )


def batch_of(*numbers: int, mode: str = "shadow") -> dict[str, Any]:
    """The body of a batch of four members' decisions, each of which follows from its votes."""
    decided_ones = []
    for number in numbers:
        votes = [Verdict.BLOCK] * 3 + [None if number % 2 else Verdict.ALLOW]
        decided_ones.append(decision_of(event_of(number), votes, Verdict.BLOCK))
    return batch_body([event_of(number) for number in numbers], decided_ones, f=1, mode=mode)


def small_ledger(folder: Path, *, segment_bytes: int = 4096) -> Ledger:
    """An open ledger of six entries in more than one segment."""
    ledger = Ledger.open(folder, key_of(0), segment_bytes=segment_bytes)
    ledger.append("mode", {"mode": "shadow", "why": "start"})
    for number in range(4):
        ledger.append("batch", batch_of(2 * number, 2 * number + 1))
    ledger.append("operator", {"action": "kill", "by": "on duty", "why": "drill"})
    return ledger


def forged(
    folder: Path, items: Sequence[tuple[str, Mapping[str, Any]]], signers: Mapping[str, SigningKey]
) -> list[Entry]:
    """A ledger of one segment with whatever content, hashed and signed as it should be."""
    folder.mkdir(parents=True, exist_ok=True)
    entries: list[Entry] = []
    written: list[bytes] = []
    for kind, body in items:
        previous = entries[-1].hash if entries else GENESIS
        entry, line = seal(len(entries) + 1, previous, kind, body, signers=signers, signatures={})
        entries.append(entry)
        written.append(line)
    (folder / segment_name(1)).write_bytes(b"".join(written))
    return entries


def members_of(folder: Path) -> Members:
    """The public keys of a ledger's folder."""
    return Members.load(folder / "members.json")


def verified(folder: Path, **asked: Any) -> Verification:
    """What a verification with the folder's own keys finds."""
    return verify_ledger(folder, members_of(folder), **asked)
