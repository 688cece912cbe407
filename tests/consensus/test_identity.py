"""Keys and genesis in the engine's own formats."""

import base64
import hashlib
import json
from pathlib import Path

import pytest

from phalanx.service.consensus.identity import address_of, genesis, make_keys


def test_keys_are_what_the_engine_reads_and_their_owners_alone(tmp_path: Path) -> None:
    keys = make_keys(tmp_path / "home")
    key = json.loads((tmp_path / "home/config/priv_validator_key.json").read_text())
    public = base64.b64decode(key["pub_key"]["value"])
    private = base64.b64decode(key["priv_key"]["value"])
    assert len(private) == 64 and private[32:] == public == bytes.fromhex(keys.validator)
    assert key["address"] == keys.address == hashlib.sha256(public).hexdigest()[:40].upper()
    node = json.loads((tmp_path / "home/config/node_key.json").read_text())["priv_key"]["value"]
    assert keys.node == hashlib.sha256(base64.b64decode(node)[32:]).hexdigest()[:40]
    assert json.loads((tmp_path / "home/data/priv_validator_state.json").read_text())["height"] == "0"
    for path in (tmp_path / "home").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path


def test_keys_are_never_overwritten(tmp_path: Path) -> None:
    make_keys(tmp_path)
    with pytest.raises(FileExistsError):
        make_keys(tmp_path)


def test_genesis_gives_each_engine_one_vote_and_votes_extensions_from_the_first_height(
    tmp_path: Path,
) -> None:
    public = {"a": "11" * 32, "b": "22" * 32}
    genesis(tmp_path / "g.json", chain="c", time="2025-01-01T00:00:00Z", validators=public, state={"x": 1})
    told = json.loads((tmp_path / "g.json").read_text())
    assert [(v["name"], v["power"], bytes.fromhex(v["address"])) for v in told["validators"]] == [
        (name, "1", address_of(bytes.fromhex(key))) for name, key in public.items()
    ]
    assert told["consensus_params"]["abci"]["vote_extensions_enable_height"] == "1"
    assert told["app_state"] == {"x": 1} and told["chain_id"] == "c"
