"""Tokens: who may do what; nothing of a token in errors, files or reprs; compared as long for any of them."""

import hashlib
import hmac
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.errors import DataError, UsageError
from phalanx.service import tokens as module
from phalanx.service.tokens import SCOPES, Caller, TokenFile, Tokens, first_tokens, new_token

PLAIN = "t" * 31 + "!"


def hashed(token: str) -> str:
    return f"sha256:{hashlib.sha256(token.encode()).hexdigest()}"


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_a_file_says_who_may_do_what(tmp_path: Path) -> None:
    text = f"# scopes token name\n\ningest {PLAIN} sensors\nread,approve {hashed('other' * 8)} ann\n"
    found = Tokens.load(private(tmp_path / "tokens", text))
    assert len(found) == 2 and found.names == ("sensors", "ann")
    assert found.caller(PLAIN) == Caller("sensors", frozenset({"ingest"}))
    assert found.caller("other" * 8) == Caller("ann", frozenset({"read", "approve"}))
    for wrong in ("", PLAIN[:-1], PLAIN + " ", hashed("other" * 8), "\ud800"):
        assert found.caller(wrong) is None
    assert Tokens.parse("").caller("") is None


@pytest.mark.parametrize(
    "line",
    [
        "read",
        f"read {PLAIN}",
        f"read {PLAIN} ann more",
        f"write {PLAIN} ann",
        f"read, {PLAIN} ann",
        f"{PLAIN} read ann",
        f"read {PLAIN[:31]} ann",
        f"read {'ü' * 40} ann",
        f"read sha256:{'0' * 63} ann",
        f"read sha256:{'A' * 64} ann",
        f"read {PLAIN} -ann",
        f"read {PLAIN} {'a' * 65}",
        f"read {PLAIN} ann\nread {PLAIN} bob",
        f"read {PLAIN} ann\nread {PLAIN[::-1]} ann",
    ],
)
def test_what_is_no_line_is_refused_without_repeating_it(line: str) -> None:
    with pytest.raises(UsageError, match="f.txt, line [12]") as caught:
        Tokens.parse(line, "f.txt")
    assert PLAIN[:8] not in str(caught.value)


def test_a_file_that_others_can_read_is_refused(tmp_path: Path) -> None:
    path = private(tmp_path / "tokens", f"read {PLAIN} ann\n")
    for mode in (0o640, 0o604, 0o620, 0o601):
        path.chmod(mode)
        with pytest.raises(UsageError, match="chmod 600"):
            Tokens.load(path)


def test_what_is_no_file_of_tokens_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read"):
        Tokens.load(tmp_path / "none")
    with pytest.raises(DataError, match="directory"):
        Tokens.load(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(DataError, match="regular"):
        Tokens.load(tmp_path / "pipe")
    binary = tmp_path / "binary"
    binary.write_bytes(b"\xff" * 9)
    binary.chmod(0o600)
    with pytest.raises(DataError, match="ASCII"):
        Tokens.load(binary)
    with pytest.raises(DataError, match="bytes"):
        Tokens.load(private(tmp_path / "large", "#" * 2_000_000))


def test_a_new_token_is_kept_as_its_hash_alone(tmp_path: Path) -> None:
    path = (
        private(tmp_path / "deep" / "tokens", f"read {PLAIN} ann")
        if (tmp_path / "deep").mkdir() is None
        else None
    )
    assert path is not None
    token = new_token(path, "sensors", ("ingest",))
    assert token not in path.read_text() and path.stat().st_mode & 0o777 == 0o600
    found = Tokens.load(path)
    assert found.caller(token) == Caller("sensors", frozenset({"ingest"})) and found.caller(PLAIN) is not None
    with pytest.raises(UsageError, match="of the name sensors already"):
        new_token(path, "sensors", ("read",))
    for name, scopes in (
        ("a b", ("read",)),
        ("bob", ()),
        ("bob", ("all",)),
        ("", ("read",)),
        ("a\nread", ("read",)),
    ):
        with pytest.raises(UsageError, match="--new-token"):  # and no line that the file does not have
            new_token(path, name, scopes)
    assert Tokens.load(path).names == ("ann", "sensors")
    assert [each.name for each in path.parent.iterdir()] == ["tokens"]  # no temporary file is left


def test_a_service_without_tokens_gets_one_a_scope(tmp_path: Path) -> None:
    path, folder = tmp_path / "tokens", tmp_path / "first"
    assert first_tokens(path, folder) == folder and folder.stat().st_mode & 0o777 == 0o700
    found = Tokens.load(path)
    for scope in SCOPES:
        file = folder / scope
        assert file.stat().st_mode & 0o777 == 0o600 and file.read_text().strip() not in path.read_text()
        assert found.caller(file.read_text().strip()) == Caller(scope, frozenset({scope}))
    before = (folder / "kill").read_text().strip()
    first_tokens(path, folder)
    assert Tokens.load(path).caller(before) is None


@given(place=st.integers(0, 5))
def test_every_entry_is_compared_whichever_it_is(place: int) -> None:
    several = [f"token number {i}".ljust(32, ".").replace(" ", "-") for i in range(6)]
    found = Tokens.parse("\n".join(f"read {token} n{i}" for i, token in enumerate(several)))
    compared: list[tuple[bytes, bytes]] = []

    def counting(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return hmac.compare_digest(one, other)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "hmac", type("Counting", (), {"compare_digest": staticmethod(counting)}))
        for token in (several[place], "wrong" * 8):
            compared.clear()
            found.caller(token)
            assert len(compared) == 6 and {len(side) for pair in compared for side in pair} == {32}


def test_nothing_shows_a_token(tmp_path: Path) -> None:
    found = Tokens.load(private(tmp_path / "tokens", f"read {PLAIN} ann\n"))
    digest = hashlib.sha256(PLAIN.encode()).hexdigest()
    for text in (repr(found), str(found), repr(found.caller(PLAIN))):
        assert PLAIN not in text and digest not in text


def test_a_token_is_taken_back_without_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = private(tmp_path / "tokens", f"read {PLAIN} ann\n")
    file = TokenFile(path, every_s=0.0)
    other = new_token(path, "bob", ("read",))
    assert file.current().caller(PLAIN) is not None and file.current().caller(other) is not None
    private(path, "\n".join(line for line in path.read_text().splitlines() if "ann" not in line))
    assert file.current().caller(PLAIN) is None and file.current().caller(other) is not None
    private(path, f"nonsense {PLAIN}")
    assert file.current().caller(other) is not None and "stay what they were" in caplog.text
    assert file.problem
    path.unlink()
    assert file.current().caller(other) is not None
    assert TokenFile(private(path, f"read {PLAIN} ann"), every_s=3600).current().names == ("ann",)
