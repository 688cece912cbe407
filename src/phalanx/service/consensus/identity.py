"""What an engine knows of itself and of the others: its keys, and the genesis that all agree on."""

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.files import write_json

__all__ = ["BLOCK_BYTES", "EngineKeys", "address_of", "begin_data", "genesis", "make_keys", "write_private"]

BLOCK_BYTES = 8 << 20
"""Bytes of the largest block."""


@dataclass(frozen=True)
class EngineKeys:
    """Public halves of an engine's keys.

    Attributes:
        validator: raw Ed25519 public key with which it votes, hexadecimal.
        node: its id among its peers.
    """

    validator: str
    node: str

    @property
    def address(self) -> str:
        """The validator's address, in hexadecimal capitals as the engine writes it."""
        return address_of(bytes.fromhex(self.validator)).hex().upper()


def address_of(public: bytes) -> bytes:
    """The address of a raw public key: the first 20 bytes of its SHA-256.

    Source: CometBFT specification, core data structures, "Address".
    """
    return hashlib.sha256(public).digest()[:20]


def make_keys(home: Path) -> EngineKeys:
    """Makes an engine's keys in its folder, readable by their owner alone.

    Args:
        home: the engine's folder; ``config`` and ``data`` are made in it.
    """
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    begin_data(home / "data")
    private, public = _pair()
    write_private(
        home / "config" / "priv_validator_key.json",
        {
            "address": address_of(public).hex().upper(),
            "pub_key": _public(public),
            "priv_key": {"type": "tendermint/PrivKeyEd25519", "value": _base64(private + public)},
        },
    )
    node_private, node_public = _pair()
    write_private(
        home / "config" / "node_key.json",
        {"priv_key": {"type": "tendermint/PrivKeyEd25519", "value": _base64(node_private + node_public)}},
    )
    return EngineKeys(public.hex(), address_of(node_public).hex())


def begin_data(folder: Path) -> None:
    """Makes the folder in which an engine keeps its blocks, and what it has signed, for the beginning of a chain."""
    folder.mkdir(mode=0o700, exist_ok=True)
    write_private(folder / "priv_validator_state.json", {"height": "0", "round": 0, "step": 0})


def write_private(path: Path, value: Any) -> None:
    """Writes JSON that its owner alone may read."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with open(descriptor, "w", encoding="utf-8") as file:
        file.write(json.dumps(value, indent=2))
        file.flush()
        os.fsync(descriptor)


def genesis(path: Path, *, chain: str, time: str, validators: Mapping[str, str], state: Any) -> None:
    """Writes the first state that all engines agree on.

    Args:
        path: of the file.
        chain: name of the chain.
        time: when it begins, RFC 3339.
        validators: raw public key, hexadecimal, by name; each has one vote.
        state: what the application starts from, JSON.
    """
    write_json(
        path,
        {
            "genesis_time": time,
            "chain_id": chain,
            "initial_height": "1",
            "consensus_params": {
                "block": {"max_bytes": str(BLOCK_BYTES), "max_gas": "-1"},
                "evidence": {
                    "max_age_num_blocks": "1000000",
                    "max_age_duration": str(14 * 24 * 3600 * 10**9),
                    "max_bytes": "1048576",
                },
                "validator": {"pub_key_types": ["ed25519"]},
                "version": {"app": "1"},
                "abci": {"vote_extensions_enable_height": "1"},
            },
            "validators": [
                {
                    "address": address_of(bytes.fromhex(public)).hex().upper(),
                    "pub_key": _public(bytes.fromhex(public)),
                    "power": "1",
                    "name": name,
                }
                for name, public in validators.items()
            ],
            "app_hash": "",
            "app_state": state,
        },
    )


def _pair() -> tuple[bytes, bytes]:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    return key.private_bytes_raw(), key.public_key().public_bytes_raw()


def _public(raw: bytes) -> dict[str, str]:
    return {"type": "tendermint/PubKeyEd25519", "value": _base64(raw)}


def _base64(raw: bytes) -> str:
    return base64.b64encode(raw).decode()
