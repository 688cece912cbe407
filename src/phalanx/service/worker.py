"""The one thread that decides: a bounded queue before the desk, batches of whatever waits, operators' actions first.

Requests wait in memory and are acknowledged when the desk has answered; what is refused for lack of room was never
taken. Whatever leaves the desk in doubt (a broken ledger, an error nobody foresaw) ends the service rather than go on:
the next start rebuilds all of it from the ledger.
"""

import logging
import math
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from phalanx.errors import PhalanxError
from phalanx.service.desk import Answer, Desk
from phalanx.service.ledger import LedgerBrokenError, LedgerFullError
from phalanx.service.records import LiveEvent
from phalanx.service.status import Status, status_of

__all__ = ["Failed", "QueueConfig", "UnavailableError", "Worker", "size_of"]

_LOG = logging.getLogger("phalanx")
_STATUS_S = 0.1
_LONGEST_RETRY_S = 30
Result = TypeVar("Result")


class UnavailableError(PhalanxError):
    """Nothing was taken, and why.

    Attributes:
        code: ``queue-full``, ``ledger-full``, ``stopping`` or ``failed``.
        retry_s: when to ask again, in s; 0 where that is of no use.
    """

    def __init__(self, code: str, message: str, retry_s: int = 0) -> None:
        super().__init__(message)
        self.code, self.retry_s = code, retry_s


@dataclass(frozen=True)
class Failed:
    """An event that was taken and could not be decided.

    Attributes:
        code: ``ledger-full`` or ``failed``.
        message: reason and remedy.
    """

    code: str
    message: str


@dataclass(frozen=True)
class QueueConfig:
    """Bounds of the queue.

    Attributes:
        events: that wait, at most.
        bytes: of memory that they may take, about.
        batch_bytes: of one batch as the ledger writes it, at most (a line of it has at most 32 MiB).
        tick_s: how often what is over ends, in s.
        full_s: how long nothing is tried after the disk was full, in s; twice as long each time, up to 30 s.
    """

    events: int = 8192
    bytes: int = 128 * 2**20
    batch_bytes: int = 16 * 2**20
    tick_s: float = 1.0
    full_s: float = 1.0


@dataclass
class _Submission:
    """Events of one request: how many are on their way, and what became of them."""

    events: Sequence[LiveEvent]
    sizes: Sequence[int]
    future: "Future[list[Answer | Failed]]" = field(default_factory=Future)
    taken: int = 0
    answers: list[Answer | Failed] = field(default_factory=list)


class Worker:
    """Decides in a thread of its own what any thread submits.

    Args:
        desk: from now on used by that thread alone.
        config: bounds.
        batch: events of one call of the desk at most.
        decided: told, in that thread, of every batch: its events, their answers, and how long it took, in s.
        failed: called, in that thread, when the disk was full: part of a batch may be in the ledger and nowhere else.
        ticked: called with the desk in that thread, about every ``tick_s``.
        ended: called once when the thread ends, for whatever reason.

    Attributes:
        config, batch: as given.
        status: the desk's, a moment ago.
        failure: why nothing is decided any more; empty while it is.
        error: what that came from.
        turned_away: events that found no room.
    """

    def __init__(
        self,
        desk: Desk,
        config: QueueConfig = QueueConfig(),
        *,
        batch: int = 256,
        decided: Callable[[Sequence[LiveEvent], Sequence[Answer], float], None] | None = None,
        failed: Callable[[], None] | None = None,
        ticked: Callable[[Desk], None] | None = None,
        ended: Callable[[], None] | None = None,
    ) -> None:
        self.config, self.batch = config, batch
        self.status: Status = status_of(desk)
        self.failure = ""
        self.error: Exception | None = None
        self.turned_away = 0
        self._desk = desk
        self._decided, self._failed, self._ticked, self._ended = decided, failed, ticked, ended
        self._waiting: deque[_Submission] = deque()
        self._actions: deque[tuple[Callable[[Desk], Any], Future[Any]]] = deque()
        self._events = self._bytes = 0
        self._changed = threading.Condition()
        self._stopping = False
        self._full_until, self._full_s = -math.inf, config.full_s
        self._rate = 1000.0  # events a second, as lately measured
        self._next_tick = self._next_status = 0.0
        self._thread = threading.Thread(target=self._run, name="deciding", daemon=True)

    @property
    def depth(self) -> int:
        """Events that wait or are being decided."""
        return self._events

    @property
    def alive(self) -> bool:
        """Whether events are decided."""
        return self._thread.is_alive() and not self.failure

    @property
    def full(self) -> bool:
        """Whether the disk was full a moment ago."""
        return time.monotonic() < self._full_until

    @property
    def stopping(self) -> bool:
        """Whether nothing more is taken."""
        return self._stopping

    def start(self) -> None:
        """Begins to decide."""
        self._thread.start()

    def stop(self) -> None:
        """Takes nothing more; what was taken is decided, then a snapshot is written and the thread ends."""
        with self._changed:
            self._stopping = True
            self._changed.notify()

    def join(self, timeout_s: float | None = None) -> bool:
        """Waits for the end of the thread; whether it came in time."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def submit(self, events: Sequence[LiveEvent]) -> "Future[list[Answer | Failed]]":
        """Takes events: all of them, or none.

        Returns:
            Their answers to be, in their order. It cannot be cancelled: what was taken is decided.

        Raises:
            UnavailableError: there is no room, the disk is full, or the service ends.
        """
        sizes = [size_of(event) for event in events]
        submission = _Submission(events, sizes)
        submission.future.set_running_or_notify_cancel()
        with self._changed:
            self._check_open()
            pause_s = self._full_until - time.monotonic()
            if pause_s > 0:
                raise UnavailableError("ledger-full", _FULL, math.ceil(pause_s))
            room = self._events + len(events) <= self.config.events and (
                self._bytes + sum(sizes) <= self.config.bytes
            )
            if not room and self._events:  # what is larger than all room there is can go alone
                self.turned_away += len(events)
                wait_s = min(_LONGEST_RETRY_S, math.ceil(self._events / self._rate))
                raise UnavailableError(
                    "queue-full", f"{self._events} events wait already; send them again later", wait_s
                )
            self._waiting.append(submission)
            self._events += len(events)
            self._bytes += sum(sizes)
            self._changed.notify()
        return submission.future

    def act(self, action: Callable[[Desk], Result]) -> "Future[Result]":
        """Does something with the desk, in its thread, before further events.

        Raises:
            UnavailableError: the service ends.
        """
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()
        with self._changed:
            self._check_open()
            self._actions.append((action, future))
            self._changed.notify()
        return future

    def _check_open(self) -> None:
        if self.failure:
            raise UnavailableError("failed", self.failure)
        if self._stopping or not self._thread.is_alive():
            raise UnavailableError("stopping", "the service is stopping; send it again once it runs", 5)

    def _run(self) -> None:
        try:
            while self._step():
                pass
            self._desk.snapshot()
        except LedgerBrokenError as problem:
            self.error = problem
            self._fail(str(problem))
        except Exception as problem:
            self.error = problem
            _log_place("the deciding thread ends", problem)
            self._fail(
                f"{type(problem).__name__} in the deciding thread; see the log. Start the service again"
            )
        finally:
            self._fail_waiting(self.failure or "the service has stopped")
            if self._ended is not None:
                self._ended()

    def _step(self) -> bool:
        """Does what there is to do; false when all is done and nothing more will come."""
        with self._changed:
            now = time.monotonic()
            if not self._waiting and not self._actions:
                if self._stopping:
                    return False
                if now < self._next_tick:
                    self._changed.wait(self._next_tick - now)
            actions = list(self._actions)
            self._actions.clear()
            batch = self._next_batch()
        for action, future in actions:
            self._act(action, future)
        if time.monotonic() >= self._next_tick:
            self._tick()
        if batch:
            self._decide(batch)
        if self._desk.ledger.broken:
            raise LedgerBrokenError(self._desk.ledger.broken)
        if not self._waiting or time.monotonic() >= self._next_status:
            self.status = status_of(self._desk)
            self._next_status = time.monotonic() + _STATUS_S
        return True

    def _next_batch(self) -> list[tuple[_Submission, int, int]]:
        """Submissions and the range of each that is to be decided now. Called with the lock."""
        found: list[tuple[_Submission, int, int]] = []
        left, left_bytes = self.batch, self.config.batch_bytes
        while self._waiting and left:
            submission = self._waiting[0]
            begin = end = submission.taken
            while end < len(submission.events) and left:
                size = submission.sizes[end]
                if size > left_bytes and (found or end > begin):
                    left = 0
                    break
                end, left, left_bytes = end + 1, left - 1, left_bytes - size
            if end > begin:
                found.append((submission, begin, end))
                submission.taken = end
            if end == len(submission.events):
                self._waiting.popleft()
        return found

    def _decide(self, batch: Sequence[tuple[_Submission, int, int]]) -> None:
        events = [event for submission, begin, end in batch for event in submission.events[begin:end]]
        begun = time.monotonic()
        answers: list[Answer | Failed]
        try:
            decided = self._desk.decide(events)
            answers = list(decided)
        except LedgerFullError as problem:
            _LOG.error("%s", problem)
            self._full_until = time.monotonic() + self._full_s
            self._full_s = min(2 * self._full_s, _LONGEST_RETRY_S)
            if self._failed is not None:
                _quietly(self._failed)
            decided, answers = [], []
            answers += [Failed("ledger-full", _FULL)] * len(events)
        except Exception:
            self._hand_out(batch, [Failed("failed", _UNKNOWN)] * len(events))
            raise
        else:
            self._full_s = self.config.full_s
        took_s = time.monotonic() - begun
        self._rate += 0.1 * (len(events) / max(took_s, 1e-6) - self._rate)
        if self._decided is not None and decided:  # before the answers are told: who has one finds it counted
            _quietly(lambda: self._decided and self._decided(events, decided, took_s))
        self._hand_out(batch, answers)

    def _hand_out(
        self, batch: Sequence[tuple[_Submission, int, int]], answers: Sequence[Answer | Failed]
    ) -> None:
        at = 0
        for submission, begin, end in batch:
            submission.answers += answers[at : at + end - begin]
            at += end - begin
            if len(submission.answers) == len(submission.events):
                submission.future.set_result(submission.answers)
        with self._changed:
            self._events -= len(answers)
            self._bytes -= sum(sum(submission.sizes[begin:end]) for submission, begin, end in batch)

    def _act(self, action: Callable[[Desk], Any], future: "Future[Any]") -> None:
        try:
            result = action(self._desk)
            self.status = status_of(self._desk)  # before anybody hears of it
            future.set_result(result)
        except LedgerBrokenError as problem:
            future.set_exception(problem)
            raise
        except Exception as problem:
            future.set_exception(problem)

    def _tick(self) -> None:
        self._next_tick = time.monotonic() + self.config.tick_s
        self._desk.tick()
        if self._ticked is not None:
            _quietly(lambda: self._ticked and self._ticked(self._desk))

    def _fail(self, failure: str) -> None:
        _LOG.error("%s", failure)
        self.failure = failure

    def _fail_waiting(self, why: str) -> None:
        with self._changed:
            self._stopping = True
            waiting, actions = list(self._waiting), list(self._actions)
            self._waiting.clear()
            self._actions.clear()
            self._events = self._bytes = 0
        for submission in waiting:
            rest = len(submission.events) - len(submission.answers)
            submission.future.set_result([*submission.answers, *[Failed("failed", why)] * rest])
        for _, future in actions:
            future.set_exception(UnavailableError("failed", why))


_FULL = "the disk is full: not acknowledged; send it again once there is room"
_UNKNOWN = "not acknowledged: send it again once the service runs; what was decided is not decided twice"


def size_of(event: LiveEvent) -> int:
    """At most how many bytes an event takes in the ledger.

    Example:
        >>> from phalanx.service.canonical import canonical
        >>> from phalanx.service.ledger_bodies import event_to_json
        >>> event = LiveEvent("e", 5, "h", "p", "READ", attributes={"path": chr(0x1F600) * 9, "size": 2**62})
        >>> len(canonical(event_to_json(event))) <= size_of(event)
        True
    """
    texts = len(event.id) + len(event.host) + len(event.subject) + len(event.parent) + len(event.kind)
    size = 160
    for name, value in event.attributes.items():
        size += len(name) + 32
        if isinstance(value, str):
            texts += len(value)
    return size + 12 * texts  # a character beyond 16 bits is written as two escapes


def _quietly(call: Callable[[], Any]) -> None:
    """Nobody who only watches may stop what is decided."""
    try:
        call()
    except Exception as problem:
        _log_place("watching a batch failed; what was decided stands", problem)


def _log_place(what: str, problem: BaseException) -> None:
    """Logs where something went wrong; not what the error says, which may be an attacker's text."""
    where = "".join(traceback.format_tb(problem.__traceback__))
    _LOG.error("%s: %s\n%s", what, type(problem).__name__, where)
