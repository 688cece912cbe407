"""Progress: a panel on a terminal, lines elsewhere, and nothing on stdout."""

import io
import itertools
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime.recorded import frame, small_run, write
from runtime.terminal import Terminal

from phalanx.analysis.doctor.finding import Finding
from phalanx.runtime.progress import Progress, progress_on
from phalanx.runtime.train import train

ROW = {
    "loss/value": 0.51239,
    "value/explained_variance": None,
    "policy/rate_allow": 0.9,
    "policy/rate_quarantine": 0.025,
}


@pytest.fixture(autouse=True)
def terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TTY_COMPATIBLE", "TTY_INTERACTIVE", "NO_COLOR", "FORCE_COLOR", "LINES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def log_handlers() -> Iterator[list[logging.Handler]]:
    """Those of the root logger; what a test adds goes with it."""
    handlers = logging.getLogger().handlers
    before = list(handlers)
    yield handlers
    handlers[:] = before


def seconds() -> Iterator[float]:
    return map(float, itertools.count())


def test_lines_come_at_most_every_few_seconds_and_at_the_end() -> None:
    shown, now_s = io.StringIO(), iter(float(second) for second in range(100))
    with progress_on(12, label="seed 3", stream=shown, every_s=4.0, clock=now_s.__next__) as progress:
        for iteration in range(1, 13):
            progress.update({"iteration": iteration, **ROW})
    lines = shown.getvalue().splitlines()
    assert [line.split()[2].rstrip(":,") for line in lines] == ["1/12", "5/12", "9/12", "12/12"]
    # one iteration a second: 12 - 5 = 7 seconds are left after the fifth
    assert lines[1] == "seed 3 5/12, 7s left: value loss 0.512, allow 90%, quarantine 2%"


def test_time_left_counts_from_where_a_resumed_run_went_on() -> None:
    shown, now_s = io.StringIO(), iter([0.0, 10.0])
    with progress_on(1000, stream=shown, clock=now_s.__next__) as progress:
        progress.update({"iteration": 500})
        progress.update({"iteration": 501})
    assert "1h23m10s left" in shown.getvalue()  # 499 iterations of 10 s


def test_a_terminal_gets_a_panel_that_ends_with_an_error_too() -> None:
    shown = Terminal()
    with (
        pytest.raises(KeyboardInterrupt),
        progress_on(4, stream=shown, clock=seconds().__next__) as progress,
    ):
        progress.update({"iteration": 1, **ROW})
        assert not shown.cursor_is_shown
        progress.update({"iteration": 2, **ROW})
        raise KeyboardInterrupt
    header, *table, doctor, end = shown.screen()
    assert header.startswith("train ") and header.endswith("2 of 4  2s left")
    assert [line.split() for line in table] == [
        ["value", "loss", "0.512", "▁▁"],
        ["explained", "variance", "-"],
        ["verdicts", "allow", "90%,", "quarantine", "2%"],
    ]
    assert doctor == "  doctor: no word yet"
    assert end == "" and shown.cursor_is_shown


def test_findings_appear_with_the_next_iteration_and_go_again() -> None:
    shown = Terminal()
    with progress_on(4, stream=shown, clock=seconds().__next__) as progress:
        assert progress.shows_findings
        progress.diagnose([Finding("kl-explosion", "error", {}, "", "", 1)])
        progress.update({"iteration": 1})
        assert shown.screen()[1:] == ["  doctor: 1 finding", "    error   kl-explosion since iteration 1"]
        progress.diagnose([])
        progress.update({"iteration": 2})
        assert shown.screen()[1:] == ["  doctor: nothing found", ""]


def test_what_a_resumed_run_had_is_drawn_but_not_timed() -> None:
    shown = Terminal()
    with progress_on(9, stream=shown, clock=seconds().__next__) as progress:
        progress.recall({"iteration": i, "reward/step": float(i)} for i in range(1, 7))
        assert "6 of 9" in shown.screen()[0]
        progress.update({"iteration": 7, "reward/step": 7.0})
        assert shown.screen()[0].endswith("7 of 9")  # one iteration seen: no time is known yet
        progress.update({"iteration": 8, "reward/step": 8.0})
    assert shown.screen()[0].endswith("8 of 9  1s left")
    assert shown.screen()[1].split()[-1] == "▁▂▃▄▅▆▇█"


def test_messages_stand_whole_above_the_panel(
    log_handlers: list[logging.Handler], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown, elsewhere = Terminal(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", shown)
    own, other = logging.StreamHandler(shown), logging.StreamHandler(elsewhere)
    log_handlers[:] = [own, other]  # alone: a handler that another test left may hold a closed file
    with progress_on(3, stream=shown, clock=seconds().__next__) as progress:
        for iteration in range(1, 4):
            progress.update({"iteration": iteration, **ROW})
            logging.getLogger("phalanx").warning("[message] %d of\ntwo lines", iteration)
        print("printed", file=sys.stderr)
    logging.getLogger("phalanx").warning("after it")
    said = [line for iteration in range(1, 4) for line in (f"[message] {iteration} of", "two lines")]
    screen = shown.screen()
    assert screen[:7] == [*said, "printed"]
    assert screen[7].startswith("train ")
    assert [line[:10] for line in screen[8:]] == [
        "  value lo",
        "  explaine",
        "  verdicts",
        "  doctor: ",
        "after it",
        "",
    ]
    assert elsewhere.getvalue().splitlines() == [*said, "after it"]
    assert own.stream is shown and other.stream is elsewhere and sys.stderr is shown


def test_an_iteration_of_milliseconds_is_not_drawn_each_time() -> None:
    shown = Terminal()
    with progress_on(
        1000, stream=shown, clock=map(lambda i: i / 1000, itertools.count()).__next__
    ) as progress:
        for iteration in range(1, 1001):
            progress.update({"iteration": iteration})
    drawings = shown.getvalue().count(" of 1000")
    assert drawings <= 15
    assert "1000 of 1000" in shown.screen()[0]


@pytest.mark.parametrize("variable", [("TERM", "dumb"), ("TTY_INTERACTIVE", "0")])
def test_a_terminal_that_cannot_redraw_gets_lines(
    variable: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(*variable)
    shown = Terminal()
    with progress_on(1, stream=shown) as progress:
        assert not progress.shows_findings
        progress.update({"iteration": 1, **ROW})
    assert shown.getvalue() == "train 1/1: value loss 0.512, allow 90%, quarantine 2%\n"


def test_a_terminal_without_blocks_gets_ascii() -> None:
    shown = Terminal(encoding="ascii")
    with progress_on(2, stream=shown, clock=seconds().__next__) as progress:
        progress.update({"iteration": 1, "reward/step": 0.0})
        progress.update({"iteration": 2, "reward/step": 1.0})
    assert shown.getvalue().isascii()
    assert shown.screen()[1].split()[-1] == "_#"


def test_no_display_takes_everything_and_shows_nothing() -> None:
    with Progress() as progress:
        progress.recall([{"iteration": 1}])
        progress.diagnose(())
        progress.update({"iteration": 2})
    assert not progress.shows_findings


def test_without_a_stream_stderr_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_on(1) as progress:
        progress.update({"iteration": 1, **ROW})
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("train 1/1")


@pytest.mark.slow
def test_a_run_on_a_pseudo_terminal_shows_messages_panel_and_doctor(
    tmp_path: Path, log_handlers: list[logging.Handler]
) -> None:
    pty = pytest.importorskip("pty")
    master, slave = pty.openpty()
    seen = Terminal()
    reader = threading.Thread(target=_copy, args=(master, seen))
    reader.start()
    config = small_run(write(tmp_path / "events.parquet", frame()), out=tmp_path / "run")
    with os.fdopen(slave, "w", encoding="utf-8") as stream:
        handler = logging.StreamHandler(stream)
        log_handlers.append(handler)

        def shown(total: int) -> Progress:
            logging.getLogger("phalanx").warning("before")
            return progress_on(total, stream=stream)

        try:
            train(config, progress=shown, on_red_flag=None)
        finally:
            log_handlers.remove(handler)
    reader.join()
    os.close(master)
    screen = seen.screen()
    (panel,) = (at for at, line in enumerate(screen) if line.startswith("train "))
    assert screen[panel].endswith("6 of 6  0s left") and seen.cursor_is_shown
    assert "before" in screen[:panel]
    below = "\n".join(screen[panel:])
    assert all(name in below for name in ("value loss", "approx KL", "reward per step", "validation F1"))
    # the doctor is asked for the panel alone, as nothing is to be done of what it says
    assert "doctor: nothing found" in below or " since iteration " in below


def _copy(source: int, target: Terminal) -> None:
    """Everything from one end of a pseudo-terminal, until the other is closed."""
    while True:
        try:
            read = os.read(source, 1 << 16)
        except OSError:  # Linux says so where other systems read nothing
            return
        if not read:
            return
        target.write(read.decode(errors="replace"))
