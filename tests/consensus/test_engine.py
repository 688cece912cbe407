"""The engine's binary is found, or the error says how to get it."""

import tomllib
from pathlib import Path

import pytest

from phalanx.errors import UsageError
from phalanx.service.consensus import engine

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "build-cometbft"


def binary(path: Path, says: str, status: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{says}'\nexit {status}\n")
    path.chmod(0o755)
    return path


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without an engine."""
    monkeypatch.setattr(engine, "_HERE", tmp_path / "project")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/bin:/usr/bin")
    monkeypatch.delenv("PHALANX_COMETBFT", raising=False)
    return tmp_path


def test_places_are_tried_in_their_order(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for place in ("path", "home/.cache/phalanx/bin", "project/.cache/bin"):
        wanted = binary(nowhere / place / "cometbft", "0.38.26")
        found.append(engine.find() == wanted.resolve())
    named = binary(nowhere / "named", "v0.38.99")
    monkeypatch.setenv("PHALANX_COMETBFT", str(named))
    assert found == [True, True, True] and engine.find() == named.resolve()


def test_without_one_the_error_says_how_to_get_it(nowhere: Path) -> None:
    with pytest.raises(UsageError) as told:
        engine.find()
    words = str(told.value)
    assert "scripts/build-cometbft" in words and "PHALANX_COMETBFT" in words and "\n" not in words
    assert SCRIPT.is_file() and f"version=v{engine.ENGINE_VERSION} " in SCRIPT.read_text()


def test_a_named_one_that_is_not_there_is_not_passed_over(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    binary(nowhere / "path" / "cometbft", "0.38.26")
    monkeypatch.setenv("PHALANX_COMETBFT", str(nowhere / "missing"))
    with pytest.raises(UsageError, match="missing"):
        engine.find()


@pytest.mark.parametrize(
    ("says", "status"), [("1.0.1", 0), ("0.37.4", 0), ("0.38.26", 1), ("hello", 0), ("", 0)]
)
def test_another_line_of_the_engine_is_refused(nowhere: Path, says: str, status: int) -> None:
    binary(nowhere / "path" / "cometbft", says, status)
    with pytest.raises(UsageError, match="needs 0.38"):
        engine.find()


def test_the_settings_are_read_and_keep_the_rpc_to_the_owner() -> None:
    settings = tomllib.loads(
        engine.configuration(moniker="a", p2p="127.0.0.1:1", peers=["x@127.0.0.1:2", "y@127.0.0.1:3"])
    )
    assert settings["rpc"]["laddr"].startswith("unix://") and settings["rpc"]["unsafe"] is False
    assert settings["p2p"]["persistent_peers"] == "x@127.0.0.1:2,y@127.0.0.1:3"
    assert settings["consensus"]["create_empty_blocks"] is False
