"""Progress: a bar on a terminal, lines elsewhere, and nothing on stdout."""

import io

import pytest

from phalanx.runtime.progress import progress_on

ROW = {
    "loss/value": 0.51239,
    "value/explained_variance": None,
    "policy/rate_allow": 0.9,
    "policy/rate_quarantine": 0.025,
}


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


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


def test_a_terminal_gets_a_bar_that_ends_with_an_error_too() -> None:
    shown = Terminal()
    with pytest.raises(KeyboardInterrupt), progress_on(4, stream=shown) as progress:
        progress.update({"iteration": 1, **ROW})
        progress.update({"iteration": 2, **ROW})
        raise KeyboardInterrupt
    assert "2/4" in shown.getvalue()
    assert "value loss 0.512" in shown.getvalue()
    assert shown.getvalue().endswith("\x1b[?25h")  # the cursor is visible again


def test_without_a_stream_stderr_is_used(capsys: pytest.CaptureFixture[str]) -> None:
    with progress_on(1) as progress:
        progress.update({"iteration": 1, **ROW})
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("train 1/1")
