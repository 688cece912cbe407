"""What is never restricted: guarded processes, and what operators allow.

Both are looked at last, after every other rule, immediately before something would take effect, and again when an
operator approves it. Processes choose their names and arguments: a guard looks at the executable where the sensor says
it, and at the name only where it does not.
"""

import dataclasses
import fnmatch
import hashlib
import json
import posixpath
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

from phalanx.errors import UsageError, unknown_name
from phalanx.service.actors import Actor, lineage
from phalanx.service.clock import SECOND_NS, Moment

__all__ = ["DEFAULT_GUARDED", "LONGEST_ALLOW_S", "AllowRule", "Guards", "allowed_by"]

DEFAULT_GUARDED = (
    "/sbin/init",
    "/lib/systemd/systemd",
    "/usr/lib/systemd/systemd",
    "/usr/lib/systemd/systemd-journald",
    "/usr/lib/systemd/systemd-logind",
    "/usr/bin/dbus-daemon",
    "/usr/bin/containerd",
    "/usr/bin/dockerd",
    "/usr/bin/kubelet",
    "/usr/sbin/sshd",
)
"""Executables that are guarded unless told otherwise: without them a host is out of operators' reach."""

LONGEST_ALLOW_S = 366 * 86_400

_LITERAL = re.compile(r"[A-Za-z0-9]")
_SET = re.compile(r"\[[^]]*\]")


@dataclass(frozen=True)
class Guards:
    """Processes that nothing is done to.

    Attributes:
        host: this machine, as sensors name it; its first label is compared.
        own: pids of the service and its ancestors on this machine (``actors.lineage``), the service first; what it
            started, a network's nodes say, is guarded with it.
        programs: absolute paths of executables, or bare names of programs.
        subjects: ``SUBJECT``, or ``HOST:SUBJECT``, either with ``*``.
        require_pid: whether a process whose pid the event does not say is guarded: it might be any.

    Example:
        >>> guards = Guards("web-1", own=(71, 4), programs=("/usr/sbin/sshd",))
        >>> guards.why(Actor("web-1.example.net", "p", pid=71))
        'phalanx itself, its ancestor or its child'
        >>> guards.why(Actor("web-2", "p", pid=71)) is None
        True
    """

    host: str = ""
    own: tuple[int, ...] = ()
    programs: tuple[str, ...] = DEFAULT_GUARDED
    subjects: tuple[str, ...] = ()
    require_pid: bool = False

    def why(self, actor: Actor) -> str | None:
        """Why nothing is done to a process; None where it is not guarded."""
        if actor.pid is not None and actor.pid <= 1:
            return "PID 1"
        if self._is_own(actor):
            return "phalanx itself, its ancestor or its child"
        executable = _plain(actor.executable)
        if executable in self.programs or actor.program in self.programs:
            return "a program on the list of guarded ones"
        for listed in self.subjects:
            host, colon, subject = listed.partition(":")
            if fnmatch.fnmatchcase(actor.subject, listed) or (
                colon
                and fnmatch.fnmatchcase(actor.host, host)
                and fnmatch.fnmatchcase(actor.subject, subject)
            ):
                return "a subject on the list of guarded ones"
        if self.require_pid and actor.pid is None:
            return "its pid is not known, and require_pid is set"
        return None

    def _is_own(self, actor: Actor) -> bool:
        if actor.pid is None or not self.own or _label(actor.host) != _label(self.host):
            return False
        return actor.pid in self.own or self.own[0] in lineage(actor.pid)


@dataclass(frozen=True)
class AllowRule:
    """What operators allow: it leads to no restriction, and to no alert unless asked for. All fields given must fit.

    Attributes:
        reason: why it is allowed.
        expires_ns: until when, in ns since 1970.
        host: with ``*``, ``?`` and ``[...]``.
        subject: likewise.
        executable: path of the program, or of a folder above it.
        path: what the event is about, or a folder above it.
        kind: of the event.
        alert: whether it is still told to operators.
    """

    reason: str
    expires_ns: int
    host: str = "*"
    subject: str = "*"
    executable: str = ""
    path: str = ""
    kind: str = ""
    alert: bool = False

    @property
    def id(self) -> str:
        """Names the rule: the same for the same rule."""
        content = json.dumps(self.as_json(), sort_keys=True)
        return "w-" + hashlib.sha256(content.encode()).hexdigest()[:16]

    def fits(self, actor: Actor) -> bool:
        """Whether it speaks of what a process did."""
        return (
            fnmatch.fnmatchcase(actor.host, self.host)
            and fnmatch.fnmatchcase(actor.subject, self.subject)
            and self.kind in ("", actor.kind)
            and _below(actor.executable, self.executable)
            and _below(actor.path, self.path)
        )

    def as_json(self) -> dict[str, Any]:
        """Its form in the ledger; ``AllowRule.of`` reads it."""
        return dataclasses.asdict(self)

    @staticmethod
    def of(value: Any, place: str = "allow-list") -> "AllowRule":
        """The rule of its JSON or TOML form, where ``expires`` may be a date instead of ``expires_ns``.

        Args:
            value: its attributes.
            place: for the error.

        Raises:
            UsageError: an unknown field or one of another type, no reason, no expiry, or too broad a rule.

        Example:
            >>> rule = AllowRule.of({"reason": "backup", "expires": "2027-01-31", "host": "db-*", "path": "/srv"})
            >>> rule.fits(Actor("db-2", "p", path="/srv/a")), rule.fits(Actor("db-2", "p", path="/srv/../etc"))
            (True, False)
            >>> AllowRule.of({"reason": "all", "expires": "2027-01-31", "path": "/"})
            Traceback (most recent call last):
            ...
            phalanx.errors.UsageError: allow-list: a rule that fits (nearly) everything; name a host, ...
        """
        if not isinstance(value, Mapping):
            raise UsageError(
                f"{place}: {value!r}; expected a table of host, subject, path, reason, expires ..."
            )
        fields = dict(value)
        if "expires" in fields:
            fields["expires_ns"] = _expiry_ns(fields.pop("expires"), place)
        known = {field.name: field for field in dataclasses.fields(AllowRule)}
        for name, given in fields.items():
            if name not in known:
                raise unknown_name(f"key in {place}:", name, [*known, "expires"])
            expected = {"alert": bool, "expires_ns": int}.get(name, str)
            if not isinstance(given, expected) or (expected is int and isinstance(given, bool)):
                raise UsageError(f"{place}: {name} = {given!r}; expected {expected.__name__}")
        if not str(fields.get("reason", "")).strip():
            raise UsageError(f"{place}: a rule without a reason; say why it is allowed, in reason = ...")
        if "expires_ns" not in fields:
            raise UsageError(f"{place}: a rule that never ends; give a date, expires = 2027-01-31")
        rule = AllowRule(**fields)
        for name in ("executable", "path"):
            if getattr(rule, name) and not getattr(rule, name).startswith("/"):
                raise UsageError(f"{place}: {name} = {getattr(rule, name)!r}; expected an absolute path")
        deep = max(len([part for part in _plain(p).split("/") if part]) for p in (rule.executable, rule.path))
        if not (_narrow(rule.host) or _narrow(rule.subject) or deep >= 2):
            raise UsageError(
                f"{place}: a rule that fits (nearly) everything; "
                "name a host, a subject, or a folder at least two deep"
            )
        return rule

    def over(self, now: Moment) -> bool:
        """Whether its time has passed."""
        return now.wall_ns >= self.expires_ns

    def check_expiry(self, now: Moment) -> None:
        """Refuses a rule for too long a time.

        Raises:
            UsageError: it lasts longer than ``LONGEST_ALLOW_S``.
        """
        if self.expires_ns > now.wall_ns + LONGEST_ALLOW_S * SECOND_NS:
            raise UsageError(
                f"allow-list: the rule {self.reason!r} lasts longer than {LONGEST_ALLOW_S // 86_400} days; "
                "give an earlier date, and renew it in time"
            )


def allowed_by(rules: Iterable[AllowRule], actor: Actor, now: Moment) -> AllowRule | None:
    """The first rule in force that allows what a process did; those that keep its alerts come last."""
    fitting = [rule for rule in rules if not rule.over(now) and rule.fits(actor)]
    return min(fitting, key=lambda rule: rule.alert, default=None)


def _below(path: str, folder: str) -> bool:
    """Whether a path is the folder or lies in it, once ``..`` and the like are worked out."""
    if not folder:
        return True
    if not path.startswith("/"):
        return False
    path, folder = _plain(path), _plain(folder)
    return path == folder or path.startswith(folder.rstrip("/") + "/")


def _plain(path: str) -> str:
    plain = posixpath.normpath(path) if path else ""
    return plain[1:] if plain.startswith("//") else plain  # POSIX lets two slashes be something of their own


def _label(host: str) -> str:
    return host.partition(".")[0].lower()


def _narrow(pattern: str) -> bool:
    """Whether a pattern names something: at least two letters or digits outside ``[...]``."""
    return len(_LITERAL.findall(_SET.sub("", pattern))) >= 2


def _expiry_ns(value: Any, place: str) -> int:
    try:
        when = datetime.fromisoformat(value) if isinstance(value, str) else value
        if isinstance(when, date) and not isinstance(when, datetime):
            when = datetime.combine(when, time(), UTC)
        if when.tzinfo is None:
            when = when.replace(tzinfo=UTC)
        return int(when.timestamp()) * SECOND_NS
    except (ValueError, AttributeError, OverflowError) as problem:
        raise UsageError(f"{place}: expires = {value!r}; expected a date such as 2027-01-31") from problem
