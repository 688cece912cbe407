"""Calls in threads of their own: as many at once as there may be, none left over, an error is the caller's."""

import threading
import time

import pytest

from phalanx.service.aside import Aside


def test_calls_run_side_by_side_and_threads_go_when_there_are_none() -> None:
    aside, gate = Aside("aside of a test", threads=2, idle_s=0.05), threading.Event()
    waiting = [aside.submit(lambda: gate.wait(60)) for _ in range(3)]
    third = aside.submit(lambda: "later")
    deadline = time.monotonic() + 60
    while aside.stuck_s < 0.05 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert 0.05 <= aside.stuck_s < 60 and not third.done()
    assert waiting[2].cancel() and not waiting[0].cancel()
    gate.set()
    assert [waiting[0].result(60), waiting[1].result(60), third.result(60)] == [True, True, "later"]
    while any(each.name == "aside of a test" for each in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert aside.stuck_s == 0.0 and aside.submit(lambda: 7).result(60) == 7


def test_an_error_is_the_callers() -> None:
    aside = Aside("aside", idle_s=0.05)
    failed = aside.submit(lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        failed.result(60)
    assert aside.submit(lambda: 1).result(60) == 1 and aside.stuck_s == 0.0
