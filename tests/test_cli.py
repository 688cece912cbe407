"""The command line: exit codes, streams, help, and what an interruption leaves."""

import json
import logging
import signal
import subprocess
import sys
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from phalanx import cli
from phalanx.cli import VERBS, main
from phalanx.errors import DataError, RunError, UsageError
from phalanx.runtime.store import RunFolder


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Mapping[str, Any]]], None]:
    """Puts a verb ``probe`` beside the others, which does what it is given."""

    def install(work: Callable[[], Mapping[str, Any]]) -> None:
        module = types.ModuleType("probe")
        module.command = lambda arguments: types.SimpleNamespace(  # type: ignore[attr-defined]
            json="--json" in arguments, run=work
        )
        monkeypatch.setitem(sys.modules, "probe", module)
        monkeypatch.setitem(cli.VERBS, "probe", ("probe", "does what it is given"))

    return install


def error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on stderr: one line; nothing on stdout."""
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.count("\n") == 1 and shown.err.startswith("phalanx: error: "), shown.err
    return shown.err


# Results


def test_json_is_one_object_on_stdout_and_everything_else_goes_to_stderr(verb, capsys) -> None:
    def work() -> dict[str, Any]:
        print("a library's chatter")
        logging.getLogger("phalanx.train").info("started")
        return {"f1": float("nan"), "tp": 3, "out": Path("runs/a")}

    verb(work)
    assert main(["probe", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"f1": None, "tp": 3, "out": "runs/a"}
    assert shown.out.count("\n") == 1
    assert "a library's chatter" in shown.err and "phalanx: started" in shown.err


def test_people_get_a_line_a_value(verb, capsys) -> None:
    verb(
        lambda: {
            "f1": 0.123456,
            "specs": {"lag": {"satisfied": True}},
            "per_seed": [{"f1": 1.0}, {"f1": None}],
        }
    )
    assert main(["probe"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines == {
        "f1": "0.1235",
        "specs.lag.satisfied": "True",
        "per_seed[0].f1": "1",
        "per_seed[1].f1": "-",
    }


# Errors and exit codes


@pytest.mark.parametrize(
    ("error", "code"), [(UsageError("a\nb"), 2), (DataError("a b"), 3), (RunError("a b"), 3)]
)
def test_a_known_error_is_one_line_and_its_exit_code(verb, capsys, error: Exception, code: int) -> None:
    def work() -> dict[str, Any]:
        raise error

    verb(work)
    assert main(["probe", "--json"]) == code
    assert error_line(capsys) == "phalanx: error: a b\n"


def test_an_unknown_error_keeps_its_traceback(verb) -> None:
    def work() -> dict[str, Any]:
        return {"rate": 1 / 0}

    verb(work)
    with pytest.raises(ZeroDivisionError):
        main(["probe"])


def test_an_interruption_is_130_and_the_signal_handler_comes_back(verb, capsys) -> None:
    def work() -> dict[str, Any]:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    verb(work)
    assert main(["probe"]) == 130
    assert capsys.readouterr().err == "phalanx: interrupted\n"
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["trian"], "unknown verb 'trian'; choose one of: train, evaluate"),
        (["evaluate"], "Missing from phalanx evaluate: RUN"),
        (["evaluate", "run", "--positive", "most"], "'most' for argument '--positive'"),
        (["evaluate", "run", "--episodes", "0"], "--episodes 0: expected 1 or more"),
        (["simulate"], "--out"),
        (["simulate", "--out", "a.csv", "--hots", "2"], "--hosts"),
        (["simulate", "--out", "a.csv", "--hosts", "two"], "'two'"),
        (["simulate", "--out", "a.csv", "--hosts", "0"], "--hosts 0: expected 1 or more"),
        (["simulate", "--out", "a.csv", "--hours", "nan"], "--hours nan: expected a number above 0"),
        (["simulate", "--out", "a.csv", "--campaigns", "-1"], "--campaigns -1: expected 0 or more"),
        (["ingest", "--out", "a.csv"], "no source"),
        (["report"], "RUN"),
        (
            ["train", "--preset", "originl"],
            "unknown preset 'originl'; choose one of: default, original, ppo, mappo",
        ),
        (["train", "--preset", "original", "--resume", "run"], "--preset and --resume exclude each other"),
        (["train", "--normalizer", "pop"], "'pop' for argument '--normalizer'"),
        (["train", "--gamma", "2"], "--gamma 2.0: expected a number from 0 to 1"),
    ],
)
def test_wrong_usage_is_named_in_one_line(capsys, arguments: list[str], said: str) -> None:
    assert main(arguments) == 2
    assert said in error_line(capsys)


@pytest.mark.parametrize("arguments", [["report"], ["train", "--resume"]])
def test_what_is_no_run_is_bad_data(capsys, tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "nowhere", tmp_path / "empty"):
        assert main([*arguments, str(path)]) == 3
        assert str(path) in error_line(capsys)


# Verbs


def test_a_flag_overrides_the_preset_and_the_preset_the_defaults() -> None:
    from phalanx.cli_train import command

    config = command(["--preset", "original", "--members", "4", "--features", "a", "b"]).config
    assert (config.preset, config.members, config.features) == ("original", 4, ("a", "b"))
    assert config.iterations == 300
    assert command(["--preset=original"]).config.members == 3
    assert command([]).config.members == 4


def test_a_resumed_run_keeps_its_settings_unless_a_flag_overrides_them(tmp_path: Path) -> None:
    from phalanx.cli_train import command
    from phalanx.runtime.config import RunConfig

    run = RunFolder.create(tmp_path / "run", RunConfig(members=7, data=(Path("a"),), env="stream").to_dict())
    train = command(["--resume", str(run.path), "--iterations", "500"])
    assert train.resume == run.path
    assert (train.config.members, train.config.data, train.config.iterations) == (7, (Path("a"),), 500)


def test_ingest_writes_a_table_and_says_what_it_did(capsys, tmp_path: Path) -> None:
    source, out = tmp_path / "log.csv", tmp_path / "events.parquet"
    source.write_text("time_ns,subject,kind,bad\n1,a,OPEN,0\n2,a,READ,1\n3,b\n")
    assert main(["ingest", str(source), "--out", str(out), "--label", "bad", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["out"], said["rows"], said["rejected"]) == (str(out), 2, 1)
    table = pl.read_parquet(out)
    assert table["label"].to_list() == [0, 1]
    rejects = [json.loads(line) for line in Path(said["rejects_file"]).read_text().splitlines()]
    assert [reject["row"] for reject in rejects] == [3]


def test_ingest_of_what_is_no_table_is_bad_data_and_writes_nothing(capsys, tmp_path: Path) -> None:
    source, out = tmp_path / "log.csv", tmp_path / "events.parquet"
    source.write_bytes(b"")
    assert main(["ingest", str(source), "--out", str(out)]) == 3
    assert str(source) in error_line(capsys)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.slow
def test_simulate_writes_the_same_table_for_the_same_seed(capsys, tmp_path: Path) -> None:
    tables = []
    for number, seed in enumerate((5, 5, 6)):
        out = tmp_path / f"{number}.parquet"
        flags = ["--hosts", "2", "--hours", "0.25", "--campaigns", "1", "--seed", str(seed), "--json"]
        assert main(["simulate", "--out", str(out), *flags]) == 0
        said = json.loads(capsys.readouterr().out)
        tables.append(pl.read_parquet(out))
        assert said["events"] == tables[-1].height > 0
        assert said["malicious"] == tables[-1].filter(pl.col("label") == 1).height
    assert tables[0].equals(tables[1])
    assert not tables[0].equals(tables[2])


# Help


def test_help_lists_every_verb_and_an_example(capsys) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr()
    assert all(f"\n  {name} " in shown.out for name in VERBS)
    assert "example:" in shown.out and shown.err == ""


def test_no_verb_shows_the_help_and_is_wrong_usage(capsys) -> None:
    assert main([]) == 2
    assert "usage: phalanx" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(VERBS))
def test_every_verb_has_help_with_an_example_and_the_common_flags(capsys, name: str) -> None:
    assert main([name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert f"usage: phalanx {name}" in shown
    assert f"Example: phalanx {name}" in shown
    assert "--json" in shown and "--seed" in shown


# Interruptions, in a process of its own

_SLOW = """
import sys, types, time
from pathlib import Path
from phalanx import cli
from phalanx.files import atomic_path

def work():
    with atomic_path(Path(sys.argv[1]) / "events.parquet") as temporary:
        temporary.write_text("half")
        print("written", flush=True)
        time.sleep(60)

sys.modules["slow"] = types.ModuleType("slow")
sys.modules["slow"].command = lambda arguments: types.SimpleNamespace(json=True, run=work)
cli.VERBS["slow"] = ("slow", "")
sys.exit(cli.main(["slow"]))
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_leaves_nothing_half_written(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", _SLOW, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "written\n"  # what a verb prints goes to stderr
    assert list(tmp_path.iterdir())
    process.send_signal(number)
    out, _ = process.communicate(timeout=30)
    assert process.returncode == code
    assert out == ""
    assert not list(tmp_path.iterdir())


def test_a_reader_that_closes_early_is_no_error(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", {})
    program = "import sys; from phalanx.cli import main; sys.exit(main(['evaluate', '--help']))"
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait(timeout=30) == 141


def test_help_comes_at_once() -> None:
    start_s = time.perf_counter()
    subprocess.run([sys.executable, "-m", "phalanx", "--help"], check=True, capture_output=True, timeout=30)
    assert time.perf_counter() - start_s < 5.0  # well under 1 s where nothing else runs
