"""For drills: a node that kills itself at a chosen place between the engine and the application.

``PHALANX_DRILL_CRASH=commit:before:5`` kills the process (SIGKILL) before it answers the fifth request ``commit``;
``commit:after:5`` once the answer is worked out, before the engine has it. It happens once a folder: the file
``drill.crashed`` says that it did.
"""

import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from phalanx.errors import UsageError
from phalanx.service.consensus.server import Handler

__all__ = ["CRASH_VARIABLE", "crashing"]

CRASH_VARIABLE = "PHALANX_DRILL_CRASH"
"""Where to crash: ``kind:before|after:count``."""


def crashing(handler: Handler, folder: Path) -> Handler:
    """The handler, or one that crashes where the environment says so.

    Raises:
        UsageError: the variable is set to something else.
    """
    wanted = os.environ.get(CRASH_VARIABLE)
    mark = folder / "drill.crashed"
    if not wanted or mark.exists():
        return handler
    kind, _, rest = wanted.partition(":")
    when, _, count = rest.partition(":")
    if when not in ("before", "after") or not count.isdigit():
        raise UsageError(
            f"{CRASH_VARIABLE}={wanted}; expected a kind of request, before or after, and a count: commit:before:5"
        )
    return _Crashing(handler, mark, kind, when, int(count))


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
