"""For drills: a node that kills itself at a chosen place between the engine and the application.

``PHALANX_DRILL_CRASH=commit:before:5`` kills the process (SIGKILL) before it answers the fifth request ``commit``;
``commit:after:5`` once the answer is worked out, before the engine has it. It happens once a folder: the file
``drill.crashed`` says that it did. ``PHALANX_DRILL_CRASH=watch`` looks at each request whether a file ``drill.crash``
has come that names such a place, counts from then on, and can be told again.
"""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from phalanx.errors import UsageError
from phalanx.service.consensus.server import Handler

__all__ = ["CRASH_VARIABLE", "REQUESTS", "crashing"]

CRASH_VARIABLE = "PHALANX_DRILL_CRASH"
"""Where to crash: ``kind:before|after:count``, or ``watch``."""

REQUESTS = (
    "check_tx",
    "prepare_proposal",
    "process_proposal",
    "extend_vote",
    "verify_vote_extension",
    "finalize_block",
    "commit",
    "info",
    "init_chain",
)
"""Kinds of requests at which to crash; the last one comes once a network, when that begins."""


def crashing(handler: Handler, folder: Path) -> Handler:
    """The handler, or one that crashes where the environment says so.

    Raises:
        UsageError: the variable is set to something else.
    """
    wanted = os.environ.get(CRASH_VARIABLE)
    mark = folder / "drill.crashed"
    if wanted == "watch":
        return _Watching(handler, folder / "drill.crash", mark)
    if not wanted or mark.exists():
        return handler
    return _Crashing(handler, mark, *_place(wanted))


def _place(wanted: str) -> tuple[str, str, int]:
    kind, _, rest = wanted.partition(":")
    when, _, count = rest.partition(":")
    if kind not in REQUESTS or when not in ("before", "after") or not count.isdigit():
        raise UsageError(
            f"{CRASH_VARIABLE}={wanted}; expected a kind of request, before or after, and a count: commit:before:5; "
            f"or watch. Kinds are {', '.join(REQUESTS)}"
        )
    return kind, when, int(count)


class _Crashing:
    def __init__(self, handler: Handler, mark: Path, kind: str, when: str, count: int) -> None:
        self._handler = handler
        self._mark = mark
        self._kind = kind
        self._when = when
        self._count = count
        self._seen: Counter[str] = Counter()

    def handle(self, kind: str, request: Any) -> Any:
        self._seen[kind] += 1
        now = kind == self._kind and self._seen[kind] == self._count
        if now and self._when == "before":
            self._crash()
        answer = self._handler.handle(kind, request)
        if now:
            self._crash()
        return answer

    def _crash(self) -> None:
        self._mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


class _Watching:
    def __init__(self, handler: Handler, told: Path, mark: Path) -> None:
        self._handler = handler
        self._told = told
        self._mark = mark
        self._crashing: _Crashing | None = None

    def handle(self, kind: str, request: Any) -> Any:
        if self._crashing is None and self._told.exists():
            told = self._told.read_text().strip()
            self._told.unlink()
            place = _place(told)
            self._crashing = _Crashing(self._handler, self._mark, *place)
        return (self._crashing or self._handler).handle(kind, request)
