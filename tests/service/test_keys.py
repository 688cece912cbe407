"""Keys: the standard's own vectors, files for their owner alone, and no secret in any text."""

import os
import pickle
import stat
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization as form
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import given
from hypothesis import strategies as st
from service.ledgers import key_of

from phalanx.errors import DataError, ExtraMissingError, UsageError
from phalanx.service.keys import SigningKey, verify

# RFC 8032, section 7.1: tests 1 to 3 (secret, public, message, signature)
VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24"
        "655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aee"
        "b00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28d"
        "c027beceea1ec40a",
    ),
]


def private_file(path: Path, content: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS)
def test_the_standards_vectors(
    tmp_path: Path, secret: str, public: str, message: str, signature: str
) -> None:
    key = SigningKey.load(private_file(tmp_path / "raw", bytes.fromhex(secret)))
    assert key.public == public
    assert key.sign(bytes.fromhex(message)).hex() == signature
    assert verify(public, bytes.fromhex(message), bytes.fromhex(signature))


def test_a_key_is_made_for_its_owner_alone_and_read_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "member.pem"
    before = os.umask(0)
    try:
        key = SigningKey.create(path)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(path.parent) == ["member.pem"]
    again = SigningKey.load(path)
    assert again.public == key.public and verify(key.public, b"m", again.sign(b"m"))
    assert SigningKey.create(tmp_path / "other").public != key.public


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    key = SigningKey.create(path)
    with pytest.raises(UsageError, match="never overwritten"):
        SigningKey.create(path)
    assert SigningKey.load(path).public == key.public and os.listdir(tmp_path) == ["key.pem"]


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        SigningKey.create(tmp_path / "key.pem")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o660, 0o644, 0o622, 0o601, 0o610])
def test_a_key_that_others_can_get_at_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "key.pem"
    SigningKey.create(path)
    path.chmod(mode)
    with pytest.raises(UsageError) as caught:
        SigningKey.load(path)
    assert f"mode {mode:04o}" in str(caught.value) and f"chmod 600 {path}" in str(caught.value)
    path.chmod(0o400)
    SigningKey.load(path)


def test_somebody_elses_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key.pem"
    SigningKey.create(path)
    owner = os.geteuid() or 1
    if os.geteuid() == 0:
        os.chown(path, owner, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(UsageError, match=f"belongs to user {owner}"):
        SigningKey.load(path)


def test_no_text_of_a_key_tells_it(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    key = SigningKey.create(path)
    raw = form.load_pem_private_key(path.read_bytes(), None).private_bytes_raw()  # type: ignore[union-attr]
    shown = f"{key!r} {key} {[key]}"
    assert key.public in shown and raw.hex() not in shown and str(list(raw))[1:-1] not in shown
    assert not hasattr(key, "__dict__")
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(key)


def other_keys() -> dict[str, bytes]:
    pem, pkcs8 = form.Encoding.PEM, form.PrivateFormat.PKCS8
    own = ed25519.Ed25519PrivateKey.generate()
    return {
        "empty": b"",
        "short": b"k" * 31,
        "text": b"SECRETSECRETSECRETSECRETSECRETSECRET",
        "cut": own.private_bytes(pem, pkcs8, form.NoEncryption())[:-40],
        "another curve": ec.generate_private_key(ec.SECP256R1()).private_bytes(
            pem, pkcs8, form.NoEncryption()
        ),
        "with a password": own.private_bytes(pem, pkcs8, form.BestAvailableEncryption(b"SECRET")),
        "public": own.public_key().public_bytes(pem, form.PublicFormat.SubjectPublicKeyInfo),
        "endless": b"-" * 100_000,
    }


@pytest.mark.parametrize("what", sorted(other_keys()))
def test_what_is_no_such_key_is_refused_without_showing_it(tmp_path: Path, what: str) -> None:
    path = private_file(tmp_path / "key.pem", other_keys()[what])
    with pytest.raises(DataError, match="not an Ed25519 private key") as caught:
        SigningKey.load(path)
    assert caught.value.__cause__ is None and caught.value.__context__ is None
    assert "SECRET" not in str(caught.value)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the key .No such file"):
        SigningKey.load(tmp_path / "missing")
    with pytest.raises(DataError):
        SigningKey.load(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(DataError, match="not a regular file"):
        SigningKey.load(tmp_path / "pipe")


@given(st.binary(max_size=64), st.integers(0, 63), st.integers(1, 255))
def test_a_changed_signature_message_or_key_does_not_hold(message: bytes, place: int, change: int) -> None:
    key = key_of(0)
    signature = key.sign(message)
    assert verify(key.public, message, signature)
    changed = bytearray(signature)
    changed[place] ^= change
    assert not verify(key.public, message, bytes(changed))
    assert not verify(key.public, message + b"\0", signature)
    assert not verify(key_of(1).public, message, signature)


@pytest.mark.parametrize("public", ["", "zz" * 32, "00" * 31, "00" * 33, "ff" * 32])
def test_a_malformed_key_verifies_nothing(public: str) -> None:
    assert not verify(public, b"m", key_of(0).sign(b"m"))


@pytest.mark.parametrize("signature", [b"", b"s" * 63, b"s" * 65])
def test_a_malformed_signature_does_not_hold(signature: bytes) -> None:
    assert not verify(key_of(0).public, b"m", signature)


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.asymmetric.ed25519", None)
    monkeypatch.delattr("cryptography.hazmat.primitives.asymmetric.ed25519")
    with pytest.raises(ExtraMissingError, match=r"pip install 'phalanx\[serve\]'"):
        SigningKey.create(tmp_path / "key.pem")
