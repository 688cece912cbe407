"""An entry's hash and signature, computed here by hand from the format as docs/ledger.md words it."""

import hashlib
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from service.ledgers import key_of

from phalanx.errors import DataError
from phalanx.service.ledger_entry import (
    ENTRY_LIMIT,
    GENESIS,
    Entry,
    Head,
    entry_flaw,
    entry_hash,
    entry_line,
    seal,
)

BODY = {"mode": "shadow", "limits": [1, 2.0], "why": "\u00e9"}


def test_the_format_by_hand() -> None:
    key = key_of(0)
    entry, line = seal(3, "a" * 64, "mode", BODY, signers={"m": key}, signatures={})
    body = '{"limits":[1,2.0],"mode":"shadow","why":"\\u00e9"}'
    hashed = hashlib.sha256(
        f'phalanx entry 1\n{{"body":{body},"height":3,"kind":"mode","previous":"{"a" * 64}"}}'.encode()
    ).hexdigest()
    said = f'{{"about":"entry","chain":"","content":{{"hash":"{hashed}"}},"height":3,"member":"m"}}'
    signature = entry.signatures["m"]
    public = ed25519.Ed25519PublicKey.from_public_bytes(bytes.fromhex(key.public))
    public.verify(
        bytes.fromhex(signature), f"phalanx statement 1\n{said}".encode()
    )  # raises where it does not hold
    assert entry.hash == hashed == entry_hash(3, "a" * 64, "mode", BODY)
    assert line.decode() == (
        f'{{"body":{body},"hash":"{hashed}","height":3,"kind":"mode","previous":"{"a" * 64}",'
        f'"signatures":{{"m":"{signature}"}}}}\n'
    )
    assert entry_line(entry) == line and Entry.parse(line) == entry and entry_flaw(entry, line) is None


def test_signatures_are_no_part_of_the_hash() -> None:
    one, _ = seal(1, GENESIS, "mode", BODY, signers={"a": key_of(0)}, signatures={})
    both, line = seal(1, GENESIS, "mode", BODY, signers={"b": key_of(1)}, signatures=one.signatures)
    assert both.hash == one.hash and list(json.loads(line)["signatures"]) == ["a", "b"]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"\n",
        b"null\n",
        b"{}\n",
        b"\xff\n",
        b"\x00" * 50 + b"\n",
        b"[" * 100_000 + b"\n",
        b"1" * 5_000 + b"\n",
        '{"\u00e9":1}\n'.encode(),
    ],
)
def test_what_is_no_entry_is_said_to_be_none(line: bytes) -> None:
    with pytest.raises(DataError):
        Entry.parse(line)


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("height", 0, "height"),
        ("height", True, "height"),
        ("height", 1.0, "height"),
        ("kind", "vote", "kind is none of"),
        ("kind", [], "kind is none of"),
        ("hash", "A" * 64, "lower case"),
        ("previous", "a" * 63, "64 hexadecimal"),
        ("body", [], "body"),
        ("signatures", {"m": "a" * 127}, "128"),
        ("signatures", [], "128"),
        ("more", 1, "not an entry"),
    ],
)
def test_a_field_that_is_not_what_it_should_be_is_named(name: str, value: object, said: str) -> None:
    _, line = seal(1, GENESIS, "mode", BODY, signers={"m": key_of(0)}, signatures={})
    with pytest.raises(DataError, match=said):
        Entry.parse(json.dumps({**json.loads(line), name: value}).encode())


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace('"mode":"shadow"', '"mode": "shadow"'),
        lambda text: text.replace("2.0", "2.00"),
        lambda text: text.replace("2.0", "2"),
        lambda text: text.replace('"limits"', '"limits":[1,2.0],"limits"'),
        lambda text: text.replace("\\u00e9", "\\u00E9"),
        lambda text: text.replace("[1,2.0]", "[1,NaN]"),
        lambda text: text.replace("[1,2.0]", "[1,1e999]"),
        lambda text: text.replace('"height":3', '"height":3,"height":3'),
        lambda text: text.replace("\n", " \n"),
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace('"signatures":{}', f'"signatures":{{"\\ud800":"{"a" * 128}"}}'),
    ],
)
def test_another_spelling_of_an_entry_is_a_flaw(change) -> None:
    _, line = seal(3, GENESIS, "mode", BODY, signers={}, signatures={})
    changed = change(line.decode()).encode()
    assert changed != line and entry_flaw(Entry.parse(changed), changed)


def test_an_entry_that_no_reader_would_take_is_not_written() -> None:
    with pytest.raises(DataError, match="Use smaller batches"):
        seal(1, GENESIS, "operator", {"text": "x" * ENTRY_LIMIT}, signers={}, signatures={})


def test_a_head_is_read_from_a_file_and_from_its_text(tmp_path: Path) -> None:
    head = seal(3, GENESIS, "mode", BODY, signers={"m": key_of(0)}, signatures={})[0].head
    text = json.dumps(head.to_json())
    (tmp_path / "head.json").write_text(text)
    assert Head.read(str(tmp_path / "head.json")) == Head.read(f" {text}") == head
    assert head.statement("m").holds(key_of(0).public)
    assert Head() == Head(0, GENESIS, {})


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "{}",
        '{"format": "phalanx-head-1"}',
        '{"format":"phalanx-head-1","height":1,"hash":"x","signatures":{}}',
    ],
)
def test_what_is_no_head_is_refused(text: str) -> None:
    with pytest.raises(DataError, match="head"):
        Head.read(text)
