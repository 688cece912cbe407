"""Calls that may hang, in threads that nobody waits for: a database that hangs holds up neither others nor the end."""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

__all__ = ["Aside"]

Result = TypeVar("Result")


class Aside:
    """Runs calls in daemon threads, which come with the calls and go when there are none.

    Python waits at its end for threads of ``concurrent.futures``, and ``asyncio.run`` for those of its own executor.

    Args:
        name: of the threads.
        threads: at most so many.
        idle_s: how long a thread waits for another call, in s.

    Example:
        >>> Aside("example", idle_s=0.1).submit(lambda: 6 * 7).result()
        42
    """

    def __init__(self, name: str, threads: int = 1, *, idle_s: float = 10.0) -> None:
        self._name, self._threads, self._idle_s = name, threads, idle_s
        self._calls: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._begun: dict[int, float] = {}
        self._running, self._changing = 0, threading.Lock()

    @property
    def stuck_s(self) -> float:
        """How long the call that has been running longest has been, in s; 0 where none is."""
        begun = list(self._begun.values())
        return time.monotonic() - min(begun) if begun else 0.0

    def submit(self, call: Callable[[], Result]) -> "Future[Result]":
        """Runs a call as soon as a thread is free, unless it is cancelled before."""
        future: Future[Result] = Future()
        self._calls.put((call, future))
        with self._changing:
            if self._running < self._threads:
                self._running += 1
                threading.Thread(target=self._run, name=self._name, daemon=True).start()
        return future

    def _run(self) -> None:
        me = threading.get_ident()
        while True:
            try:
                call, future = self._calls.get(timeout=self._idle_s)
            except queue.Empty:
                with self._changing:
                    if self._calls.empty():  # else it came just now
                        self._running -= 1
                        return
                continue
            if not future.set_running_or_notify_cancel():
                continue
            self._begun[me] = time.monotonic()
            try:
                result = call()
            except Exception as problem:
                del self._begun[me]
                future.set_exception(problem)
            else:
                del self._begun[me]
                future.set_result(result)
            del call, future
