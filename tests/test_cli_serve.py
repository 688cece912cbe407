"""The command line of serve: its flags, its tokens, its refusals; the server itself is tested in tests/service."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tyro

from phalanx.cli import main
from phalanx.cli_command import parse
from phalanx.cli_service import ServiceOptions
from phalanx.service import serving
from phalanx.service.tokens import Tokens


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["serve", *map(str, arguments)]) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("phalanx: error: ") and shown.err.count("\n") == 1
    return shown.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Name a run"),
        (["runs/none", "--port", "65536"], "expected 0 to 65535"),
        (["runs/none", "--tls-cert", "c.pem"], "go together"),
        (["runs/none", "--slots", "0"], "expected 1 to"),
        (["runs/none", "--batch", "5000"], "expected 1 to"),
        (["runs/none", "--keep-days", "-1"], "expected 0 to"),
        (["runs/none", "--scope", "read"], "--new-token"),
        (["runs/none", "--new-token", "ann"], "needs --scope"),
        (["--new-token", "ann", "--scope", "read"], "--tokens FILE"),
        (["runs/none", "--host", "0.0.0.0", "--port", "0"], "--insecure"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in refused(capsys, *arguments)


def test_a_run_that_is_none_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", str(tmp_path / "none"), "--port", "0"]) == 3
    assert "none" in capsys.readouterr().err
    assert not (tmp_path / "none-live").exists()


def test_a_new_token_is_printed_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "tokens.txt"
    assert main(["serve", "--tokens", str(path), "--new-token", "ann", "--scope", "read,approve"]) == 0
    shown = capsys.readouterr()
    token = shown.out.strip()
    assert token not in path.read_text() + shown.err
    caller = Tokens.load(path).caller(token)
    assert caller is not None and caller.name == "ann" and caller.scopes == {"read", "approve"}
    run = tmp_path / "run"
    assert main(["serve", str(run), "--new-token", "bob", "--scope", "ingest", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["scopes"] == ["ingest"] and Path(told["file"]) == tmp_path / "run-live" / "tokens.txt"
    assert "already" in refused(capsys, run, "--new-token", "bob", "--scope", "read")
    assert "scope" in refused(capsys, run, "--new-token", "eve", "--scope", "all")


def test_flags_reach_the_service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    given: list[Any] = []
    facts = {"url": "http://127.0.0.1:1", "mode": "enforce", "events": 7, "height": 9}
    monkeypatch.setattr(serving, "serve", lambda config, model: given.append((config, model)) or facts)
    (tmp_path / "policy.toml").write_text("block_s = 60\n")
    (tmp_path / "drift.toml").write_text("window = 77\n")
    flags = [
        "--folder",
        tmp_path / "live",
        "--policy",
        tmp_path / "policy.toml",
        "--drift",
        tmp_path / "drift.toml",
    ]
    flags += [
        "--host",
        "::1",
        "--port",
        "9",
        "--slots",
        "600",
        "--batch",
        "32",
        "--keep-days",
        "3",
        "--database",
        "x.db",
    ]
    flags += ["--tls-cert", "c.pem", "--tls-key", "k.pem", "--tokens", "t.txt"]
    assert main(["serve", "runs/first", *map(str, flags), "--enforce"]) == 0
    assert (
        capsys.readouterr().out == "served http://127.0.0.1:1 in enforce mode: 7 events, ledger at height 9\n"
    )
    config, _ = given.pop()
    assert config.policy.enforce and config.policy.block_s == 60 and config.watch.window == 77
    assert (config.host, config.port, config.slots, config.batch, config.keep_days) == (
        "::1",
        9,
        600,
        32,
        3.0,
    )
    assert (config.database, config.server.key, config.token_file) == ("x.db", Path("k.pem"), Path("t.txt"))
    # without the switch nothing takes effect
    assert main(["serve", "runs/first", *map(str, flags), "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == facts and not shown.err
    assert not given.pop()[0].policy.enforce


def test_what_is_not_installed_is_named(tmp_path: Path) -> None:
    program = """
import sys
class Missing:
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "prometheus_client":
            raise ImportError(name)
sys.meta_path.insert(0, Missing())
from phalanx.cli import main
sys.exit(main(["serve", "runs/none", "--port", "0"]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 2
    assert "'prometheus-client'" in done.stderr and "pip install 'phalanx[serve]'" in done.stderr


def test_the_folder_is_beside_the_run_as_it_was_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "v7").mkdir()
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "current"
    link.symlink_to(tmp_path / "v7")
    assert ServiceOptions(link).beside("-live") == tmp_path / "elsewhere" / "current-live"
    monkeypatch.chdir(tmp_path / "v7")
    assert ServiceOptions(Path()).beside("-net") == tmp_path / "v7-net"
    assert ServiceOptions().beside("-net") is None


def test_a_signal_while_flags_are_read_is_no_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(*_: Any, **__: Any) -> None:
        raise SystemExit(143)

    monkeypatch.setattr(tyro, "cli", ended)
    with pytest.raises(SystemExit) as stopped:
        parse(ServiceOptions, "serve", [])
    assert stopped.value.code == 143
