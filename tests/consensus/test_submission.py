"""Submissions: one form, signed; and whatever comes instead."""

import json
import random
from pathlib import Path

import pytest
from consensus.fake_engine import events
from hypothesis import given
from hypothesis import strategies as st

from phalanx.errors import DataError
from phalanx.service.canonical import canonical, digest
from phalanx.service.consensus.chain import Chain, ChainMember
from phalanx.service.consensus.submission import (
    SUBMISSION_BYTES,
    joined,
    parse,
    submission_flaw,
    submit_form,
)
from phalanx.service.keys import SigningKey
from phalanx.service.ledger_bodies import batch_digest, event_to_json
from phalanx.service.records import LiveEvent

values = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1)
values |= st.floats(allow_nan=False, allow_infinity=False) | st.text(st.characters(exclude_categories=["Cs"]))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
some_events = st.lists(
    st.builds(
        LiveEvent,
        texts.filter(bool),
        st.integers(0, 2**63 - 1),
        texts,
        texts,
        texts,
        texts,
        st.dictionaries(texts, values, max_size=4),
    ),
    min_size=1,
    max_size=4,
)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> SigningKey:
    return SigningKey.create(tmp_path_factory.mktemp("keys") / "gateway.pem")


def chain_of(key: SigningKey) -> Chain:
    return Chain("c", (ChainMember("a", "11" * 32, "22" * 32),), {"g": key.public})


@given(some_events, st.integers(0, 2**40))
def test_what_was_submitted_comes_back_under_the_ledgers_digest(
    key: SigningKey, sent: list[LiveEvent], base: int
) -> None:
    raw = submit_form(key, "g", "c", base, sent)
    got = parse(raw)
    assert (got.chain, got.gateway, got.base, list(got.events)) == ("c", "g", base, sent)
    assert got.digest == batch_digest(sent) and got.signed_by(key.public)
    assert submission_flaw(chain_of(key), raw) is None


@given(some_events, some_events)
def test_the_digest_of_several_is_that_of_all_their_events(
    key: SigningKey, one: list[LiveEvent], other: list[LiveEvent]
) -> None:
    texts = [parse(submit_form(key, "g", "c", 0, sent)).text for sent in (one, other)]
    assert digest("batch", joined(texts)) == batch_digest([*one, *other])


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_no_byte_can_be_changed(key: SigningKey, place: int, change: int) -> None:
    raw = bytearray(submit_form(key, "g", "c", 3, events(0)))
    raw[place % len(raw)] ^= change
    assert submission_flaw(chain_of(key), bytes(raw)) is not None


def signed(key: SigningKey, payload: str) -> bytes:
    """What a gateway that does not keep to the form may sign."""
    return b"S" + key.sign(b"phalanx submission 1\n" + payload.encode()) + payload.encode()


def payload(**changes: object) -> str:
    forms = [event_to_json(event) for event in events(0, 1)]
    return canonical({"base": 0, "chain": "c", "events": forms, "gateway": "g"} | changes)


def event(**changes: object) -> list[dict[str, object]]:
    return [event_to_json(events(0, 1)[0]) | changes]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (payload().replace(",", ", ", 1), "canonical"),
        (payload().replace('"base":0', '"base":0.0'), "not a submission"),
        (payload().replace('"base":0', '"base":0,"base":0'), "canonical"),
        (payload().replace("0.25", "0.250"), "canonical"),
        (payload().replace("0.25", "1e999"), "not a submission"),
        (payload().replace("0.25", "NaN"), "not a submission"),
        (payload().replace('"web-0"', '"\\ud800"'), "not a submission"),
        (payload(base=-1), "base is a height"),
        (payload(events=[]), "of 0 events"),
        (payload(extra=1), "not a submission"),
        (payload(events=event(extra=1)), "not a submission"),
        (payload(events=event(id="")), "empty id"),
        (payload(events=event(host="h" * 1025)), "a name of more than"),
        (payload(events=event(time_ns=2**63)), "time_ns"),
        (payload(events=event(attributes={"a": 2**63})), "64 bits"),
        (payload(events=event(attributes={"a": [1]})), "not a submission"),
        (payload(events=event(attributes={str(i): 0 for i in range(257)})), "257 attributes"),
        (payload(events=event(attributes={"a": "x" * 70_000})), "70,000 characters"),
        (payload(events=event() * 513), "513 events"),
        ("[" * 100_000, "not a submission"),
        ("", "not a submission"),
    ],
)
def test_other_forms_are_refused_although_they_are_signed(key: SigningKey, text: str, words: str) -> None:
    assert words in (submission_flaw(chain_of(key), signed(key, text)) or "")


def test_only_this_chains_gateways_may_submit(key: SigningKey, tmp_path: Path) -> None:
    other = SigningKey.create(tmp_path / "other.pem")
    chain = chain_of(key)
    assert "another chain" in (submission_flaw(chain, submit_form(key, "g", "d", 0, events(0))) or "")
    assert "no gateway" in (submission_flaw(chain, submit_form(key, "h", "c", 0, events(0))) or "")
    assert "does not hold" in (submission_flaw(chain, submit_form(other, "g", "c", 0, events(0))) or "")


def test_too_large_a_one_is_refused_before_it_is_read() -> None:
    with pytest.raises(DataError, match="Submit fewer events"):
        parse(b"S" * (SUBMISSION_BYTES + 1))


def test_fuzzed_transactions_are_refused_in_words(key: SigningKey) -> None:
    rng = random.Random(1)
    good = submit_form(key, "g", "c", 0, events(0, 2))
    refused = 0
    for _ in range(3000):
        raw = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            at = rng.randrange(len(raw))
            raw[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
        text = bytes(raw)
        if rng.random() < 0.5:
            text = signed(key, bytes(raw[65:]).decode("latin-1"))
        refused += submission_flaw(chain_of(key), text) is not None
    assert (
        refused > 2500
    )  # the rest: edits that changed nothing, or a string that may as well say something else


def test_settings_of_a_chain_come_back_and_others_are_refused(key: SigningKey) -> None:
    chain = chain_of(key)
    assert Chain.from_json(json.loads(json.dumps(chain.to_json()))) == chain
    for wrong in ({}, [], None, chain.to_json() | {"more": 1}, chain.to_json() | {"members": [1]}):
        with pytest.raises(DataError, match="not the settings"):
            Chain.from_json(wrong)
