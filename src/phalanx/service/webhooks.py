"""Where messages go, and how they are signed: listed destinations alone, HMAC-SHA256 over time stamp, id and body.

A receiver calls ``verify_signature`` with the secret it shares with the service, and keeps the ids of what it accepted
for as long as the window: a message comes at least once, and the same message always has the same id.
"""

import hashlib
import hmac
import ipaddress
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from phalanx.errors import DataError, PhalanxError, UsageError, unknown_name
from phalanx.files import read_structured

__all__ = [
    "FORMATS",
    "ID_HEADER",
    "SIGNATURE_HEADER",
    "TIMESTAMP_HEADER",
    "Destination",
    "SignatureError",
    "read_destinations",
    "read_secret",
    "sign",
    "verify_signature",
]

FORMATS: Mapping[str, tuple[str, ...]] = {
    "ocsf": ("alert", "ask", "drop", "deny", "contain", "allow"),
    "openc2": ("deny", "contain", "allow"),
    "page": ("page", "ask"),
}
"""What a destination may be sent -> the commands that it is told of."""

ID_HEADER = "Phalanx-Id"
TIMESTAMP_HEADER = "Phalanx-Timestamp"
SIGNATURE_HEADER = "Phalanx-Signature"

_SHORTEST_SECRET, _LONGEST_SECRET = 32, 4_096
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
_ID = re.compile(r"[A-Za-z0-9_-]{1,80}")  # without the dot that parts it from the body in what is signed
_STAMP = re.compile(r"[0-9]{1,12}")


class SignatureError(PhalanxError):
    """A message that is not to be believed."""


@dataclass(frozen=True)
class Destination:
    """Where messages go.

    Attributes:
        name: for logs, metrics and the store: lower-case letters, digits, ``-`` and ``_``.
        url: https, or http on this machine's own addresses.
        sends: of ``FORMATS``.
        secret: shared with the receiver, at least 32 bytes; never shown.
        timeout_s: the longest that connecting, sending and waiting may take, each, in s.
        ca_file: certificates to trust instead of the machine's; empty for those.

    Raises:
        UsageError: a value is not what it should be.
    """

    name: str
    url: str
    sends: tuple[str, ...]
    secret: bytes
    timeout_s: float = 10.0
    ca_file: str = ""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise UsageError(
                f"destination {self.name[:40]!r}: a name has lower-case letters, digits, - and _"
            )
        for form in self.sends:
            if form not in FORMATS:
                raise unknown_name(f"format of destination {self.name}:", form, FORMATS)
        if not self.sends:
            raise UsageError(f"destination {self.name}: sends nothing; give sends = {sorted(FORMATS)}")
        if not 0 < self.timeout_s <= 60:
            raise UsageError(f"destination {self.name}: timeout_s = {self.timeout_s}; expected up to 60")
        if not _SHORTEST_SECRET <= len(self.secret) <= _LONGEST_SECRET:
            raise UsageError(
                f"destination {self.name}: a secret of {len(self.secret)} bytes; "
                f"expected {_SHORTEST_SECRET} to {_LONGEST_SECRET}"
            )
        _check_url(self.name, self.url)

    def __repr__(self) -> str:
        return f"Destination({self.name!r}, {self.origin!r}, sends={self.sends!r})"

    @property
    def origin(self) -> str:
        """Scheme, host and port: all that may be called."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc}"


def read_destinations(path: Path) -> tuple[Destination, ...]:
    """Reads destinations: tables ``[[destination]]`` with name, url, sends, secret_file, timeout_s, ca_file.

    Args:
        path: a TOML file (or JSON). Paths in it are relative to its folder.

    Raises:
        DataError: it cannot be read.
        UsageError: a key is unknown or its value is not what it should be, or others may read a secret.
    """
    given = read_structured(path, "list of destinations")
    tables = given.get("destination") if isinstance(given, dict) and set(given) == {"destination"} else None
    if not isinstance(tables, list):
        raise UsageError(f"{path}: expected tables [[destination]] and nothing else")
    found = tuple(_destination(table, path, f"{path}: destination {i}") for i, table in enumerate(tables, 1))
    names = [each.name for each in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageError(f"{path}: two destinations of the name {twice!r}; rename one")
    return found


def read_secret(path: Path) -> bytes:
    """Reads a secret, white space around it aside.

    Raises:
        UsageError: others than its owner may read or write the file.
        DataError: it cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        with open(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise DataError(f"{path}: no file of a secret. Check the path")
            if stat.S_IMODE(about.st_mode) & 0o077:
                raise UsageError(
                    f"{path}: mode {stat.S_IMODE(about.st_mode):04o} lets others than its owner at the secret. "
                    f"Run chmod 600 {path}"
                )
            return file.read(_LONGEST_SECRET + 1).strip()
    except OSError as problem:
        raise DataError(f"{path}: cannot read the secret ({problem.strerror}). Check the path") from None


def sign(secret: bytes, message_id: str, body: bytes, timestamp_s: int) -> dict[str, str]:
    """The headers that sign a message.

    Args:
        secret: shared with the receiver.
        message_id: the same whenever this message is sent; at most 80 letters, digits, ``-`` and ``_``.
        body: as it is sent.
        timestamp_s: when it is sent, in s since 1970.

    Raises:
        ValueError: an id with other characters: what is signed could be read in two ways.

    Example:
        >>> headers = sign(b"s" * 32, "d-1-openc2", b"{}", 1_800_000_000)
        >>> verify_signature(b"s" * 32, headers, b"{}", 1_800_000_060)
        'd-1-openc2'
        >>> verify_signature(b"s" * 32, headers, b"{}", 1_800_000_301)
        Traceback (most recent call last):
        ...
        phalanx.service.webhooks.SignatureError: signed 301 s ago, outside the window of 300 s
    """
    if not _ID.fullmatch(message_id):
        raise ValueError(f"message id {message_id[:80]!r}; expected letters, digits, - and _")
    signature = hmac.new(secret, f"{timestamp_s}.{message_id}.".encode() + body, hashlib.sha256).hexdigest()
    return {
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: str(timestamp_s),
        SIGNATURE_HEADER: f"v1={signature}",
    }


def verify_signature(
    secret: bytes | Sequence[bytes],
    headers: Mapping[str, str],
    body: bytes,
    now: float,
    window_s: float = 300,
) -> str:
    """What a receiver checks before it believes a message.

    Args:
        secret: shared with the service, white space around it aside, as files have it at their ends; several while one
            takes the other's place.
        headers: of the request, in any case.
        body: exactly as it was received.
        now: the receiver's time, in s since 1970.
        window_s: how far the time stamp may be from it, in s, either way.

    Returns:
        The message's id. Whoever has accepted it already within the window answers 200 and does nothing again.

    Raises:
        UsageError: no secret, or one of fewer bytes than the service takes.
        SignatureError: a header is missing or malformed, the time stamp is outside the window, or the signature is not
            that of this body.
    """
    given = {name.lower(): value for name, value in headers.items()}
    message_id, stamp = given.get(ID_HEADER.lower(), ""), given.get(TIMESTAMP_HEADER.lower(), "")
    if not _ID.fullmatch(message_id) or not _STAMP.fullmatch(stamp):
        raise SignatureError(f"no {ID_HEADER}, or no {TIMESTAMP_HEADER}")
    secrets = [each.strip() for each in ([secret] if isinstance(secret, bytes) else secret)]
    if not secrets or min(map(len, secrets)) < _SHORTEST_SECRET:
        raise UsageError(
            f"a secret of fewer than {_SHORTEST_SECRET} bytes: anybody might sign. Check its file"
        )
    offered = given.get(SIGNATURE_HEADER.lower(), "").encode("utf-8", "replace")
    good = False
    for each in secrets:
        expected = sign(each, message_id, body, int(stamp))[SIGNATURE_HEADER].encode()
        good |= hmac.compare_digest(expected, offered)
    if not good:
        raise SignatureError("the signature is not that of this message")
    if not abs(now - int(stamp)) <= window_s:
        raise SignatureError(f"signed {now - int(stamp):g} s ago, outside the window of {window_s:g} s")
    return message_id


def _destination(table: Any, path: Path, place: str) -> Destination:
    if not isinstance(table, dict):
        raise UsageError(f"{place}: expected a table")
    expected = {
        "name": str,
        "url": str,
        "sends": list,
        "secret_file": str,
        "timeout_s": (int, float),
        "ca_file": str,
    }
    for name, value in table.items():
        if name not in expected:
            raise unknown_name(f"key in {place}:", name, expected)
        if not isinstance(value, expected[name]) or isinstance(value, bool):
            raise UsageError(f"{place}: {name} = {value!r} is of another type than it should be")
    missing = next((name for name in ("name", "url", "sends", "secret_file") if name not in table), None)
    if missing is not None:
        raise UsageError(f"{place}: no {missing}; give {missing} = ...")
    ca_file = str(path.parent / table["ca_file"]) if table.get("ca_file") else ""
    if ca_file and not Path(ca_file).is_file():
        raise DataError(f"{place}: ca_file {ca_file} is no file. Check the path")
    secret = read_secret(path.parent / table["secret_file"])
    try:
        return Destination(
            name=table["name"],
            url=table["url"],
            sends=tuple(str(each) for each in table["sends"]),
            secret=secret,
            timeout_s=float(table.get("timeout_s", 10.0)),
            ca_file=ca_file,
        )
    except UsageError as problem:
        raise UsageError(f"{place}: {problem}") from None


def _check_url(name: str, url: str) -> None:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    odd = not url.isascii() or not url.isprintable() or any(character in url for character in " \\")
    if parts.scheme not in ("http", "https") or not host or odd:
        raise UsageError(f"destination {name}: no URL of a webhook; expected https://HOST/PATH")
    if parts.username is not None or parts.password is not None:
        raise UsageError(f"destination {name}: a user or a password in the URL; messages are signed instead")
    if parts.fragment:
        raise UsageError(f"destination {name}: a fragment in the URL is never sent; delete what follows #")
    if parts.scheme == "http" and not _is_loopback(host):
        raise UsageError(f"destination {name}: http to another machine; use https")


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
