"""Who acted: what guards and allow-lists look at of an event and its process."""

import dataclasses
import os
import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.errors import DataError
from phalanx.service.records import LiveEvent, Value

__all__ = ["ACTOR_ATTRIBUTES", "Actor", "actor_of", "lineage"]

ACTOR_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "pid": ("pid", "process_pid", "tgid"),
    "executable": ("exe", "executable", "image", "process_path"),
    "name": ("comm", "process_name", "name"),
    "path": ("path", "object"),
}
"""What is known of an actor -> the event's attributes that say it, the first that is there."""

_PID_SUBJECT = re.compile(r"(?:pid[:=-])?([0-9]{1,10})")


@dataclass(frozen=True, slots=True)
class Actor:
    """A process that did something.

    Attributes:
        host, subject, kind: of the event.
        pid: its number on the host, as the sensor has it; None where the event does not say.
        executable: absolute path of the program that it runs, empty where the event does not say.
        name: what it calls itself. A process chooses that.
        path: what the event was about, if that has a path.
        ancestors: subjects of its parent, its parent's parent and so on, as far as they are known.
    """

    host: str
    subject: str
    kind: str = ""
    pid: int | None = None
    executable: str = ""
    name: str = ""
    path: str = ""
    ancestors: tuple[str, ...] = ()

    @property
    def program(self) -> str:
        """Base name of what it runs: of the executable where that is known, else what it calls itself."""
        return posixpath.basename(self.executable) if self.executable else self.name

    def as_json(self) -> dict[str, Any]:
        """Its form in the ledger; ``Actor.of`` reads it."""
        return dataclasses.asdict(self) | {"ancestors": list(self.ancestors)}

    @staticmethod
    def of(value: Any) -> "Actor":
        """The actor of its JSON form.

        Raises:
            DataError: it is none.
        """
        try:
            fields: dict[str, Any] = dict(value) | {"ancestors": tuple(value["ancestors"])}
            return Actor(**fields)
        except (KeyError, TypeError, ValueError) as problem:
            raise DataError(
                f"not an actor: {str(value)[:200]}. The ledger is damaged: verify it"
            ) from problem


def actor_of(event: LiveEvent, ancestors: Sequence[str] = ()) -> Actor:
    """Who acted in an event.

    Args:
        event: its attributes are looked up in ``ACTOR_ATTRIBUTES``; a subject that is a number is a pid.
        ancestors: subjects of the process's parent, its parent's and so on; the event's own parent unless given.

    Example:
        >>> event = LiveEvent("e", 0, "h", "412", "WRITE", "1", {"exe": "/usr/bin/vi", "path": "/etc/hosts"})
        >>> actor = actor_of(event)
        >>> actor.pid, actor.program, actor.path, actor.ancestors
        (412, 'vi', '/etc/hosts', ('1',))
    """
    named = _PID_SUBJECT.fullmatch(event.subject)
    pid = _first(event.attributes, "pid")
    return Actor(
        host=event.host,
        subject=event.subject,
        kind=event.kind,
        pid=_whole(pid) if pid is not None else int(named[1]) if named else None,
        executable=str(_first(event.attributes, "executable") or ""),
        name=str(_first(event.attributes, "name") or ""),
        path=str(_first(event.attributes, "path") or ""),
        ancestors=tuple(ancestors) or ((event.parent,) if event.parent else ()),
    )


def lineage(pid: int | None = None, proc: Path = Path("/proc")) -> tuple[int, ...]:
    """The pids of a process of this machine and of its ancestors, it first; without ``/proc`` its parent alone.

    Args:
        pid: the process; this one unless given.
        proc: where the kernel shows processes.

    Example:
        >>> lineage()[:2] == (os.getpid(), os.getppid())
        True
    """
    found = [os.getpid() if pid is None else pid]
    while found[-1] > 1:
        parent = _parent(found[-1], proc)
        if parent is None:
            return (*found, os.getppid()) if found == [os.getpid()] else tuple(found)
        if parent <= 0 or parent in found:
            break
        found.append(parent)
    return tuple(found)


def _parent(pid: int, proc: Path) -> int | None:
    try:
        stat = (proc / str(pid) / "stat").read_bytes()
        return int(stat[stat.rindex(b")") + 2 :].split()[1])  # a name in parentheses may hold anything
    except (OSError, ValueError, IndexError):
        return None


def _first(attributes: Mapping[str, Value], what: str) -> Value:
    return next(
        (attributes[name] for name in ACTOR_ATTRIBUTES[what] if attributes.get(name) is not None), None
    )


def _whole(value: Value) -> int | None:
    """A pid, however a sensor writes it: 1, 1.0 and "1" are the same process."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return int(value) if int(value) == float(value) else None
    except (ValueError, OverflowError):
        return None
