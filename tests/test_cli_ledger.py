"""The ledger's command line: what it says, to people and programs, and its exit codes."""

import json
import shlex
from pathlib import Path

import pytest
from service.ledgers import batch_of, key_of, small_ledger

from phalanx.cli import main
from phalanx.service.ledger import Ledger
from phalanx.service.ledger_files import segments
from phalanx.service.members import Members


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    small_ledger(tmp_path / "decisions").close()
    return tmp_path / "decisions"


def said(capsys: pytest.CaptureFixture[str], code: int, *arguments: object) -> str:
    assert main(["ledger", *map(str, arguments)]) == code
    shown = capsys.readouterr()
    return shown.out if code < 2 else shown.err


def test_a_ledger_is_verified_up_to_a_head_that_was_kept(
    ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head = said(capsys, 0, "head", ledger)
    (tmp_path / "head.json").write_text(head)
    for kept in (tmp_path / "head.json", head):
        shown = said(capsys, 0, "verify", ledger, "--head", kept)
        assert shown.startswith("verified: 6 entries, 8 decisions, up to height 6, hash ")
        assert "note: keys from" in shown and "no --head" not in shown
    keys = tmp_path / "keys.json"
    (ledger / "members.json").rename(keys)
    assert (
        said(capsys, 0, "verify", ledger, "--head", tmp_path / "head.json", "--keys", keys).count("\n") == 1
    )
    result = json.loads(said(capsys, 0, "verify", ledger, "--keys", keys, "--json"))
    assert (result["verified"], result["entries"], result["decisions"], result["findings"]) == (
        True,
        6,
        8,
        [],
    )
    assert result["head"] == json.loads(head) == json.loads(said(capsys, 0, "head", ledger, "--json"))


def test_a_finding_is_one_line_and_exit_code_1(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = said(capsys, 0, "head", ledger)
    path = segments(ledger)[0]
    path.write_bytes(path.read_bytes().replace(b"event-1", b"event-7"))
    first, last, *_ = said(capsys, 1, "verify", ledger, "--head", head).splitlines()
    assert first == (
        f"{path}, line 2 (height 2): its hash is not that of its content. Restore the ledger from a copy that verifies"
    )
    assert last.startswith("NOT VERIFIED: 6 entries")
    result = json.loads(said(capsys, 1, "verify", ledger, "--json"))
    assert result["verified"] is False and result["more"] == 0
    assert [(found["file"], found["line"], found["height"]) for found in result["findings"]] == [
        (str(path), 2, 2)
    ]
    assert set(result["findings"][0]) == {"file", "line", "height", "reason", "remedy"}


def test_a_cut_tail_is_found(ledger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head = said(capsys, 0, "head", ledger)
    path = segments(ledger)[-1]
    path.write_bytes(b"".join(path.read_bytes().splitlines(True)[:-1]))
    assert said(capsys, 0, "verify", ledger).startswith("verified: 5 entries")
    assert "cut off: it ends at height 5" in said(capsys, 1, "verify", ledger, "--head", head)


def test_a_committees_node_is_verified_with_the_signatures_that_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    members = Members.of({f"m{number}": key_of(number).public for number in range(4)})
    with Ledger.open(tmp_path / "node", key_of(0), member="m0", members=members) as node:
        node.append("batch", batch_of(1))
    assert "1 signatures where 2 are needed" in said(capsys, 1, "verify", tmp_path / "node")
    said(capsys, 0, "verify", tmp_path / "node", "--signatures", 1)


def test_entries_are_shown_without_what_a_terminal_obeys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_ledger(tmp_path / "decisions") as ledger:
        ledger.append("operator", {"why": "\x1b[2J\u202eevil\n", "text": "x" * 500})
    lines = said(capsys, 0, "show", tmp_path / "decisions").splitlines()
    assert lines[0] == '1 mode: {"mode":"shadow","why":"start"}'
    assert lines[1] == "2 batch: 2 decisions (shadow): 2 block"
    assert len(lines) == 7 and lines[-1].isascii() and lines[-1].isprintable() and lines[-1].endswith("...")
    assert said(capsys, 0, "show", tmp_path / "decisions", "--last", 1).splitlines() == lines[-1:]
    assert (
        said(capsys, 0, "show", tmp_path / "decisions", "--start", 2, "--last", 2).splitlines() == lines[1:3]
    )
    entries = json.loads(said(capsys, 0, "show", tmp_path / "decisions", "--last", 2, "--json"))["entries"]
    assert [entry["height"] for entry in entries] == [6, 7] and entries[1]["body"]["why"].startswith("\x1b")


@pytest.mark.parametrize(
    ("arguments", "code", "what"),
    [
        ("check LEDGER", 2, "check"),
        ("verify", 2, "Missing"),
        ("head LEDGER --head x", 2, "ledger head: --head goes with verify"),
        ("verify LEDGER --last 3", 2, "ledger verify: --last goes with show"),
        ("show LEDGER --last 0", 2, "--last 0: expected 1 or more"),
        ("verify LEDGER --signatures -1", 2, "--signatures -1: expected 1 or more"),
        ("verify NOWHERE", 3, "no such ledger"),
        ("head NOWHERE", 3, "cannot read the ledger"),
        ("verify SERVICE", 2, "the folder of a service or a node. Its ledger is"),
        ("verify EMPTY", 2, "no public keys beside the ledger. Name the file: --keys FILE"),
        ("verify EMPTY --keys LEDGER/members.json", 3, "no ledger here"),
        ("verify LEDGER --keys NOWHERE", 3, "cannot read the file of public keys"),
        ("verify LEDGER --keys LEDGER/ledger-00000001.ndjson", 3, "not a JSON or TOML file of public keys"),
        ("verify LEDGER --head NOWHERE", 3, "cannot read the head"),
        ("verify LEDGER --head '{\"height\": 1}'", 3, "not a head"),
    ],
)
def test_wrong_usage_and_what_cannot_be_read_are_told_apart(
    ledger: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: str, code: int, what: str
) -> None:
    (tmp_path / "empty").mkdir()
    given = arguments.replace("LEDGER", str(ledger)).replace("NOWHERE", str(tmp_path / "nowhere"))
    given = given.replace("EMPTY", str(tmp_path / "empty")).replace("SERVICE", str(tmp_path / "service"))
    (tmp_path / "service" / "ledger").mkdir(parents=True)
    shown = said(capsys, code, *shlex.split(given))
    assert what in shown and shown.count("\n") == 1


def test_an_empty_ledger_has_the_first_head(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Ledger.open(tmp_path / "new", key_of(0)).close()
    head = said(capsys, 0, "head", tmp_path / "new")
    assert json.loads(head)["height"] == 0
    assert said(capsys, 0, "verify", tmp_path / "new", "--head", head).startswith("verified: 0 entries")
    assert said(capsys, 0, "show", tmp_path / "new") == "\n"
