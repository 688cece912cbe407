"""The limits within which verdicts take effect, as operators write them down: a TOML file, checked key by key."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.errors import UsageError, unknown_name
from phalanx.files import read_structured
from phalanx.service.clock import SECOND_NS
from phalanx.service.guards import DEFAULT_GUARDED, AllowRule
from phalanx.verdicts import Verdict

__all__ = ["RATE_WINDOW_S", "SafetyPolicy", "read_policy"]

RATE_WINDOW_S = 3_600
"""Rates are per hour, of a window that slides."""

_DAY_S = 86_400
_RANGES: Mapping[str, tuple[int, int]] = {
    "block_s": (1, _DAY_S),
    "quarantine_s": (1, _DAY_S),
    "approval_s": (1, RATE_WINDOW_S),  # so that a wait never outlives the window that counts it
    "cooldown_s": (0, _DAY_S),
    "restrictions_per_host": (0, 1_000),
    "restrictions_per_fleet": (0, 1_000),
    "alerts": (0, 10_000),
    "alert_repeat_s": (0, _DAY_S),
    "page_repeat_s": (1, _DAY_S),
}


@dataclass(frozen=True)
class SafetyPolicy:
    """What may take effect, and how much of it.

    Attributes:
        enforce: whether verdicts take effect at all; else they are only written down (shadow mode).
        approve_quarantine: whether a quarantine waits for an operator.
        approve_block: whether a block does.
        block_s: how long a block lasts, in s.
        quarantine_s: how long a quarantine lasts, in s.
        approval_s: how long one waits for approval before it is given up, in s.
        cooldown_s: how long nothing is done to a target again that an operator freed, in s.
        restrictions_per_host: restrictions an hour on one host.
        restrictions_per_fleet: restrictions an hour on all hosts together.
        alerts: alerts an hour that are sent; the rest is counted.
        alert_repeat_s: for how long a process that was told of is not told of again, in s.
        page_repeat_s: for how long an operator is not called again for the same reason, in s.
        alert_in_shadow: whether alerts are sent in shadow mode as well.
        require_pid: whether only processes whose pid the event says may be restricted.
        host: this machine, as sensors name it; its own name unless given.
        programs: guarded programs, see ``guards.Guards``.
        subjects: guarded processes.
        allow: what is never restricted.

    Raises:
        UsageError: a value is outside its range.

    Example:
        >>> SafetyPolicy().enforce, SafetyPolicy().duration_ns(Verdict.BLOCK) // SECOND_NS
        (False, 900)
        >>> SafetyPolicy(block_s=0)
        Traceback (most recent call last):
        ...
        phalanx.errors.UsageError: block_s = 0; expected 1 to 86400
    """

    enforce: bool = False
    approve_quarantine: bool = True
    approve_block: bool = False
    block_s: int = 900
    quarantine_s: int = 600
    approval_s: int = 600
    cooldown_s: int = 3_600
    restrictions_per_host: int = 10
    restrictions_per_fleet: int = 50
    alerts: int = 600
    alert_repeat_s: int = 900
    page_repeat_s: int = 900
    alert_in_shadow: bool = False
    require_pid: bool = False
    host: str = ""
    programs: tuple[str, ...] = DEFAULT_GUARDED
    subjects: tuple[str, ...] = ()
    allow: tuple[AllowRule, ...] = ()

    def __post_init__(self) -> None:
        for name, (least, most) in _RANGES.items():
            if not least <= getattr(self, name) <= most:
                raise UsageError(f"{name} = {getattr(self, name)}; expected {least} to {most}")

    def duration_ns(self, verdict: Verdict) -> int:
        """How long a restriction of this verdict lasts, in ns."""
        return (self.quarantine_s if verdict is Verdict.QUARANTINE else self.block_s) * SECOND_NS

    def needs_approval(self, verdict: Verdict) -> bool:
        """Whether an operator is asked before a restriction of this verdict."""
        return self.approve_quarantine if verdict is Verdict.QUARANTINE else self.approve_block


def read_policy(path: Path, *, enforce: bool = False) -> SafetyPolicy:
    """Reads a policy: the attributes of ``SafetyPolicy`` but ``enforce``; the allow-list as tables ``[[allow]]``.

    Args:
        path: a TOML file (or JSON).
        enforce: see ``SafetyPolicy``; whoever starts the service says it, not a file.

    Raises:
        DataError: it cannot be read.
        UsageError: a key is unknown or its value is not what it should be.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "safety.toml"
        >>> _ = path.write_text('block_s = 60\\n[[allow]]\\nhost = "db-*"\\n'
        ...                     'path = "/srv/backup"\\nreason = "nightly dump"\\nexpires = 2027-01-31\\n')
        >>> policy = read_policy(path)
        >>> policy.block_s, policy.allow[0].path, policy.quarantine_s
        (60, '/srv/backup', 600)
    """
    given = read_structured(path, "safety policy")
    if not isinstance(given, dict):
        raise UsageError(f"{path}: a safety policy is a table of keys; see docs/live-safety.md")
    fields = {field.name: field for field in dataclasses.fields(SafetyPolicy)}
    fields.pop("enforce")
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name == "enforce":
            raise UsageError(f"{path}: enforce is no key; delete it, and start with --enforce to enforce")
        if name not in fields:
            raise unknown_name(f"key in {path}:", name, sorted(fields))
        values[name] = _value(name, value, fields[name].default, str(path))
    try:
        return SafetyPolicy(enforce=enforce, **values)
    except UsageError as problem:
        raise UsageError(f"{path}: {problem}") from problem


def _value(name: str, value: Any, default: Any, place: str) -> Any:
    if name == "allow":
        if not isinstance(value, list):
            raise UsageError(f"{place}: allow = {value!r}; expected tables, [[allow]]")
        return tuple(AllowRule.of(rule, f"{place}: allow rule {i}") for i, rule in enumerate(value, 1))
    if isinstance(default, tuple):
        if isinstance(value, list) and all(isinstance(item, str) and item for item in value):
            return tuple(value)
        raise UsageError(f"{place}: {name} = {value!r}; expected a list of texts")
    if type(value) is not type(default):
        raise UsageError(f"{place}: {name} = {value!r}; expected {type(default).__name__}")
    return value
