"""Ed25519 keys: made, kept readable by their owner alone, used to sign; and the check of a signature.

Source: RFC 8032; the implementation is that of the package cryptography.
"""

import contextlib
import os
import secrets
import stat
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

from phalanx.errors import DataError, ExtraMissingError, UsageError
from phalanx.service.syncing import sync_folder

__all__ = ["SigningKey", "verify"]

_SIZE_LIMIT = 16_384  # bytes of a key file; a key in PEM has about 120
_RAW = 32


class SigningKey:
    """A private key, and what it signs with.

    Its file is private PKCS #8 in PEM, or the 32 raw bytes. It can be neither pickled nor shown.

    Example:
        >>> import tempfile
        >>> key = SigningKey.create(Path(tempfile.mkdtemp()) / "member.pem")
        >>> verify(key.public, b"a vote", key.sign(b"a vote")), verify(key.public, b"another", key.sign(b"a vote"))
        (True, False)
    """

    __slots__ = ("_private", "_public")

    def __init__(self, private: Any) -> None:
        self._private = private
        self._public: str = private.public_key().public_bytes_raw().hex()

    @classmethod
    def create(cls, path: Path) -> "SigningKey":
        """Makes a key and its file, which is whole or absent and readable by its owner alone (mode 0600).

        Raises:
            UsageError: the file is there already: keys are never overwritten.
            DataError: it cannot be written.
            ExtraMissingError: the package cryptography is missing.
        """
        private = _ed25519().Ed25519PrivateKey.generate()
        from cryptography.hazmat.primitives import serialization as form

        text = private.private_bytes(form.Encoding.PEM, form.PrivateFormat.PKCS8, form.NoEncryption())
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_private(temporary, text)
            os.link(temporary, path)  # unlike a rename, this never replaces a file
            sync_folder(path.parent)
        except FileExistsError:
            raise UsageError(
                f"{path}: is there already; keys are never overwritten. Name another file"
            ) from None
        except OSError as problem:
            raise DataError(f"{path}: cannot write the key ({problem.strerror}). Check the folder") from None
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()
        return cls(private)

    @classmethod
    def load(cls, path: Path) -> "SigningKey":
        """Reads a key.

        Raises:
            UsageError: others than its owner may read or write the file, or it is somebody else's.
            DataError: it cannot be read, or holds no Ed25519 key.
            ExtraMissingError: the package cryptography is missing.
        """
        ed25519 = _ed25519()
        content = _read_private(path)
        try:
            if len(content) == _RAW:
                return cls(ed25519.Ed25519PrivateKey.from_private_bytes(content))
            from cryptography.hazmat.primitives.serialization import load_pem_private_key

            private = load_pem_private_key(content, password=None)
        except Exception:  # whatever the parser says, it might say it with a part of the key
            private = None
        if not isinstance(private, ed25519.Ed25519PrivateKey):
            raise DataError(
                f"{path}: not an Ed25519 private key in PEM without a password, nor its 32 raw bytes. "
                "Make one with SigningKey.create"
            )
        return cls(private)

    @property
    def public(self) -> str:
        """The public half, 64 hexadecimal digits."""
        return self._public

    def sign(self, message: bytes) -> bytes:
        """The signature of a message, 64 bytes; the message should begin with what it is for."""
        return self._private.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey(public={self._public!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a private key is not pickled")


def verify(public: str, message: bytes, signature: bytes) -> bool:
    """Whether a signature of a message is that of a public key; false for anything malformed.

    Args:
        public: 64 hexadecimal digits.
        message: what was signed.
        signature: 64 bytes.

    Raises:
        ExtraMissingError: the package cryptography is missing.
    """
    from_public = _ed25519().Ed25519PublicKey.from_public_bytes
    from cryptography.exceptions import InvalidSignature

    try:
        from_public(bytes.fromhex(public)).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def _ed25519() -> ModuleType:
    try:
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise ExtraMissingError("cryptography", "serve", "signing and checking signatures") from None
    return ed25519


def _write_private(path: Path, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _read_private(path: Path) -> bytes:
    """The content of a file that its owner alone may read; what is checked is what is read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # a pipe of that name must not block
        with open(descriptor, "rb") as file:
            about = os.fstat(descriptor)
            if not stat.S_ISREG(about.st_mode):
                raise DataError(f"{path}: not a regular file. Name a key file")
            if about.st_uid not in (os.geteuid(), 0):
                raise UsageError(
                    f"{path}: belongs to user {about.st_uid}; a key is its user's own. Run chown {path}"
                )
            mode = stat.S_IMODE(about.st_mode)
            if mode & 0o077:
                raise UsageError(
                    f"{path}: mode {mode:04o} lets others than its owner at the key. Run chmod 600 {path}, and make a "
                    "new key if somebody may have read it"
                )
            return file.read(_SIZE_LIMIT)
    except OSError as problem:
        raise DataError(f"{path}: cannot read the key ({problem.strerror}). Check the path") from None
