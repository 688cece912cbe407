"""Tokens of clients: files of hashes with scopes, compared in constant time; made once, shown once, never logged.

A file has a line a token: its scopes, its SHA-256 (or the token itself, at least 32 characters), and whose it is::

    # scopes  token  name
    ingest sha256:8d0c... web-sensors
    read,approve sha256:51fa... ann

A token has 256 bits of chance, so that a plain hash of it cannot be searched.
"""

import hashlib
import hmac
import logging
import os
import re
import secrets
import stat
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from phalanx.errors import DataError, PhalanxError, UsageError
from phalanx.files import atomic_path

__all__ = ["SCOPES", "Caller", "TokenFile", "Tokens", "first_tokens", "new_token"]

_LOG = logging.getLogger("phalanx")
SCOPES = ("ingest", "read", "approve", "kill")
"""What a token may let its holder do: submit events; read; act on restrictions, give labels; stop and go on."""

_PREFIX = "sha256:"
_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}")
_SHORTEST, _LONGEST = 32, 512
_SIZE_LIMIT = 1_048_576


@dataclass(frozen=True)
class Caller:
    """Who holds a token.

    Attributes:
        name: of the token, as its file has it.
        scopes: what it allows.
    """

    name: str
    scopes: frozenset[str]


@dataclass(frozen=True)
class _Entry:
    hash: bytes
    caller: Caller


class Tokens:
    """The tokens that a service knows; as hashes alone.

    Example:
        >>> tokens = Tokens.parse("read sha256:" + hashlib.sha256(b"a" * 32).hexdigest() + " ann")
        >>> tokens.caller("a" * 32), tokens.caller("b" * 32)
        (Caller(name='ann', scopes=frozenset({'read'})), None)
    """

    def __init__(self, entries: Iterable[_Entry]) -> None:
        self._entries = tuple(entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return f"Tokens({len(self)})"

    @property
    def names(self) -> tuple[str, ...]:
        """Whose they are."""
        return tuple(entry.caller.name for entry in self._entries)

    @classmethod
    def parse(cls, text: str, place: str = "tokens") -> "Tokens":
        """The tokens of a file's text.

        Raises:
            UsageError: a line is not what it should be; the error names the line and repeats nothing of it.
        """
        entries: list[_Entry] = []
        for number, line in enumerate(text.splitlines(), 1):
            if line.strip() and not line.lstrip().startswith("#"):
                entry = _entry(line.split(), f"{place}, line {number}")
                for other in entries:
                    if other.caller.name == entry.caller.name or other.hash == entry.hash:
                        raise UsageError(
                            f"{place}, line {number}: a name or a token that is there already; each token has a "
                            "name of its own"
                        )
                entries.append(entry)
        return cls(entries)

    @classmethod
    def load(cls, path: Path) -> "Tokens":
        """Reads a file of tokens.

        Raises:
            UsageError: others than its owner may read or write it, or a line is not what it should be.
            DataError: it cannot be read.
        """
        return cls.parse(_read_private(path), str(path))

    def caller(self, token: str) -> Caller | None:
        """Who holds a token; None where nobody does. Takes as long for any token."""
        digest = hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
        found: Caller | None = None
        for entry in self._entries:  # all of them, whichever it is
            if hmac.compare_digest(entry.hash, digest):
                found = entry.caller
        return found


class TokenFile:
    """The tokens of a file as it is now, so that one can be taken back without a restart.

    Args:
        path: of the file.
        every_s: how often it is looked at, in s. What is no file of tokens any more is logged, and the tokens stay what
            they were.

    Attributes:
        problem: why the tokens are not those of the file; empty where they are.
    """

    def __init__(self, path: Path, every_s: float = 1.0) -> None:
        self._path, self._every_s = path, every_s
        self._seen = _signature(path)
        self._tokens = Tokens.load(path)
        self._next_s = time.monotonic() + every_s
        self.problem = ""

    def current(self) -> Tokens:
        """The tokens that are valid now."""
        if time.monotonic() >= self._next_s:
            self._next_s = time.monotonic() + self._every_s
            seen = _signature(self._path)
            if seen != self._seen:
                self._seen = seen
                try:
                    self._tokens, self.problem = Tokens.load(self._path), ""
                except PhalanxError as problem:
                    self.problem = str(problem)
                    _LOG.error("the tokens stay what they were: %s", problem)
        return self._tokens


def new_token(path: Path, name: str, scopes: Collection[str]) -> str:
    """Makes a token and adds its hash to a file, which is made where it is missing.

    Returns:
        The token, which nothing keeps.

    Raises:
        UsageError: an unknown scope, a name that is none or is there already.
        DataError: the file cannot be read or written.
    """
    text = _read_private(path) if path.exists() else ""
    token = f"phx_{secrets.token_urlsafe(32)}"
    line = f"{','.join(scopes)} {_PREFIX}{hashlib.sha256(token.encode()).hexdigest()} {name}"
    if not scopes or len(line.split()) != 3:
        raise UsageError(
            "a token needs a name without spaces, and a scope; see --new-token NAME --scope SCOPE"
        )
    _entry(line.split(), "--new-token NAME --scope SCOPES")
    if name in Tokens.parse(text, str(path)).names:
        raise UsageError(
            f"{path}: there is a token of the name {name} already. Give another name, or delete its line first"
        )
    together = f"{text}\n{line}\n" if text and not text.endswith("\n") else f"{text}{line}\n"
    _write_private(path, together)
    return token


def first_tokens(path: Path, folder: Path) -> Path:
    """Makes a token a scope for a service that has none: the hashes in ``path``, the tokens in files of ``folder``.

    Returns:
        The folder, which its owner alone can read; the tokens belong to those who are to have them, and their files can
        be deleted.

    Raises:
        DataError: they cannot be written.
    """
    lines = []
    for scope in SCOPES:
        token = f"phx_{secrets.token_urlsafe(32)}"
        _write_private(folder / scope, f"{token}\n")
        lines.append(f"{scope} {_PREFIX}{hashlib.sha256(token.encode()).hexdigest()} {scope}")
    _write_private(path, "\n".join(lines) + "\n")  # last: without it, all are made anew
    return folder


def _entry(words: list[str], place: str) -> _Entry:
    if len(words) != 3:
        raise UsageError(f"{place}: expected three words: scopes, token, name")
    scopes, token, name = words
    for scope in scopes.split(","):
        if scope not in SCOPES:
            # not the word itself: it may be a token in the wrong place
            raise UsageError(f"{place}: an unknown scope; choose of: {', '.join(SCOPES)}, joined by commas")
    if not _NAME.fullmatch(name):
        raise UsageError(f"{place}: the name is none; use at most 64 letters, digits, dots, dashes, _ and @")
    if token.startswith(_PREFIX):
        if not _HASH.fullmatch(token.removeprefix(_PREFIX)):
            raise UsageError(f"{place}: after sha256: 64 hexadecimal digits in lower case are expected")
        digest = bytes.fromhex(token.removeprefix(_PREFIX))
    else:
        if not _SHORTEST <= len(token) <= _LONGEST or not token.isascii():
            raise UsageError(
                f"{place}: a token has {_SHORTEST} to {_LONGEST} ASCII characters; make one with phalanx serve "
                "--new-token"
            )
        digest = hashlib.sha256(token.encode()).digest()
    return _Entry(digest, Caller(name, frozenset(scopes.split(","))))


def _read_private(path: Path) -> str:
    """The text of a file that its owner alone may read; what is checked is what is read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe of that name must not block
        with open(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise DataError(f"{path}: not a regular file. Name a file of tokens")
            if about.st_uid not in (os.geteuid(), 0):
                raise UsageError(
                    f"{path}: belongs to user {about.st_uid}; tokens are their user's own. Run chown"
                )
            if stat.S_IMODE(about.st_mode) & 0o077:
                raise UsageError(
                    f"{path}: mode {stat.S_IMODE(about.st_mode):04o} lets others than its owner at the tokens. Run "
                    f"chmod 600 {path}, and make new ones if somebody may have read it"
                )
            content = file.read(_SIZE_LIMIT + 1)
    except OSError as problem:
        raise DataError(f"{path}: cannot read the tokens ({problem.strerror}). Check the path") from None
    if len(content) > _SIZE_LIMIT:
        raise DataError(f"{path}: more than {_SIZE_LIMIT} bytes; not a file of tokens")
    try:
        return content.decode("ascii")
    except UnicodeDecodeError:
        raise DataError(f"{path}: not ASCII text; not a file of tokens") from None


def _write_private(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with atomic_path(path) as temporary:
            temporary.unlink(missing_ok=True)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
            with open(descriptor, "w") as file:
                file.write(text)
    except OSError as problem:
        raise DataError(f"{path}: cannot write the tokens ({problem.strerror}). Check the folder") from None


def _signature(path: Path) -> tuple[int, ...]:
    try:
        about = os.stat(path)
    except OSError:
        return ()
    return about.st_ino, about.st_size, about.st_mtime_ns, about.st_mode
