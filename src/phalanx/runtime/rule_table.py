"""The detection rules: what an analyst would write down, one entry a rule, in the manner of Sigma.

The programs are those that administrators know to do such things; the lists are knowledge about hosts, not about the
simulator's attackers. Source: Sigma rule specification 2.0 (sigmahq.io) for selection, filter, modifiers, levels and
correlation; MITRE ATT&CK for the techniques.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from phalanx.errors import unknown_name

__all__ = ["FIELDS", "LEVELS", "RULES", "Rule"]

LEVELS = ("low", "medium", "high", "critical")
"""Levels of rules, the mildest first."""

FIELDS: dict[str, str] = {
    "kind": "kind",
    "object_kind": "object_kind",
    "path": "path",
    "program": "command",
    "parent": "parent_command",
    "port": "remote_port",
    "uid": "uid",
    "size": "size",
}
"""Field of a rule -> the column that it reads; ``program`` and ``parent`` read a command line's first word."""

Patterns = tuple[str | int, ...]


@dataclass(frozen=True)
class Rule:
    """One detection rule.

    It matches an event when each field of ``selection`` fits one of its patterns and no field of ``unless`` fits any of
    its own. Text patterns may hold ``*`` and ``?``; ``"size|gte"`` asks for a number of at least its one pattern.

    Attributes:
        name: short.
        attack: MITRE ATT&CK number.
        level: one of ``LEVELS``.
        selection: field -> patterns.
        unless: field -> patterns: who or what is known to do so.
        times: matches of a process (its ancestors' until its birth included) until the rule fires.
        window: events of the environment after which matches are forgotten.
        after: it fires only where this other rule matched the process within the window.
    """

    name: str
    attack: str
    level: str
    selection: Mapping[str, Patterns]
    unless: Mapping[str, Patterns] = field(default_factory=dict)
    times: int = 1
    window: int = 256
    after: str = ""

    def __post_init__(self) -> None:
        if self.level not in LEVELS:
            raise unknown_name("level", self.level, LEVELS)
        for name in (*self.selection, *self.unless):
            if name.split("|")[0] not in FIELDS:
                raise unknown_name("field of a rule", name, FIELDS)


_OFFICE = ("office", "mail", "browser")
_WEB = ("web_server",)
_SHELLS = ("shell", "bash", "sh", "dash", "zsh")
_INTERPRETERS = ("interpreter", "python*", "perl*", "php*")
_TMP = ("/tmp/*", "/var/tmp/*", "/dev/shm/*")
_STORES = ("/etc/shadow", "*/.ssh/*", "*.keytab")
_DOCUMENTS = ("/home/*.docx", "/home/*.xlsx", "/home/*.md", "/srv/share/*")
_STARTUP = ("/etc/cron*", "/etc/systemd/*", "/etc/rc.local", "/home/*/.bashrc")
_ARCHIVES = ("*.tar.gz", "*.tgz", "*.zip", "*.dump")

RULES: tuple[Rule, ...] = (
    Rule("office starts a shell", "T1204", "high",
        {"kind": ("EXECUTE",), "parent": _OFFICE, "program": (*_SHELLS, *_INTERPRETERS)}),
    Rule("web server starts a shell", "T1505.003", "high",
        {"kind": ("EXECUTE",), "parent": _WEB, "program": _SHELLS}),
    Rule("execution from a temporary folder", "T1204.002", "medium",
        {"kind": ("EXECUTE",), "path": _TMP}, {"program": ("updater", "deploy")}),
    Rule("credential store read", "T1003", "high",
        {"kind": ("OPEN", "READ"), "path": _STORES}, {"program": ("ssh", "backup", "scanner", "directory", "sensor")}),
    Rule("browser's passwords read", "T1555.003", "high",
        {"kind": ("OPEN", "READ"), "path": ("*/logins.json",)}, {"program": ("browser", "backup")}),
    Rule("start-up file written", "T1547", "high",
        {"kind": ("WRITE", "CREATE_OBJECT"), "path": _STARTUP}, {"program": ("updater", "deploy", "cron")}),
    Rule("start-up files looked through", "T1053", "low",
        {"kind": ("OPEN", "READ"), "path": _STARTUP},
        {"program": ("updater", "deploy", "cron", "scanner", "backup", "sensor")}),
    Rule("change of user", "T1548", "medium",
        {"kind": ("CHANGE_PRINCIPAL",)}, {"program": ("ssh", "cron", "directory", "deploy")}),
    Rule("anonymous memory made executable", "T1055", "medium",
        {"kind": ("MPROTECT",), "path": ("",)}, {"program": ("jit", "browser")}),
    Rule("many shares contacted", "T1021.002", "high",
        {"kind": ("CONNECT",), "port": (445, 139, 135)}, {"program": ("scanner", "directory", "backup")}, times=2),
    Rule("many SSH hosts contacted", "T1021.004", "medium",
        {"kind": ("CONNECT",), "port": (22,)}, {"program": ("scanner", "ssh", "deploy")}, times=2),
    Rule("unusual ports contacted", "T1046", "medium",
        {"kind": ("CONNECT",)},
        {"program": ("scanner",), "port": (80, 443, 8080, 22, 445, 139, 135, 5432, 3306, 6379, 1433)}, times=2),
    Rule("log destroyed", "T1070.002", "high",
        {"kind": ("UNLINK", "TRUNCATE"), "path": ("/var/log/*",)}, {"program": ("cron", "database")}),
    Rule("archive written", "T1560", "low",
        {"kind": ("WRITE",), "path": _ARCHIVES}, {"program": ("backup", "archiver", "database")}),
    Rule("large upload", "T1567", "low",
        {"kind": ("SENDMSG",), "size|gte": (200_000,)}, {"program": ("backup", "browser", "web_server", "mail")}),
    Rule("archive written, then sent", "T1048", "critical",
        {"kind": ("SENDMSG",), "size|gte": (100_000,)}, {"program": ("backup",)}, after="archive written", window=512),
    Rule("documents renamed in a row", "T1486", "critical",
        {"kind": ("RENAME",), "path": _DOCUMENTS}, {"program": ("office", "backup", "archiver")}, times=2, window=128),
    Rule("documents overwritten in a row", "T1486", "high",
        {"kind": ("WRITE",), "path": _DOCUMENTS}, {"program": ("office", "backup", "archiver")}, times=4),
    Rule("web content written", "T1505.003", "medium",
        {"kind": ("WRITE",), "path": ("/var/www/*",)}, {"program": ("web_server", "deploy")}),
    Rule("system state read in a row", "T1057", "low",
        {"kind": ("READ",), "path": ("/proc/*",)}, {"program": ("scanner", "sensor", "directory")}, times=3),
)  # fmt: skip
"""The rules, about in the order of an attack."""
