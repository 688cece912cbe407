"""What the simulated hosts run and how each program and each attack stage shows in the event stream.

Every template that an attack stage uses is also in the mix of at least one benign program (bait), so that no single
event gives an attack away; what differs is who does it, after what, and how often.
"""

from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phalanx.data.events import event_class_of

__all__ = [
    "AREAS",
    "BENIGN_KIND_MIX",
    "COMMANDS",
    "COMMANDS_PER_PROGRAM",
    "ENTRY_PROGRAMS",
    "KINDS",
    "N_ROOTS",
    "OBJECT_KINDS",
    "PATHS",
    "PATHS_PER_AREA",
    "PORTS",
    "PROGRAMS",
    "ROLES",
    "STAGES",
    "TEMPLATES",
    "Program",
    "Stage",
    "Tables",
    "Template",
    "build_tables",
    "template_index",
]

KINDS = (
    "READ", "WRITE", "CLOSE", "OPEN", "MMAP", "RECVMSG", "MPROTECT", "SENDMSG", "EXECUTE", "FORK", "CLONE",
    "CONNECT", "ACCEPT", "CHANGE_PRINCIPAL", "UNLINK", "RENAME", "CREATE_OBJECT", "TRUNCATE", "LOADLIBRARY",
    "MODIFY_FILE_ATTRIBUTES", "SIGNAL", "EXIT",
)  # fmt: skip

OBJECT_KINDS = ("file", "socket", "memory", "process", "principal")

BENIGN_KIND_MIX = {
    "READ": 0.236, "WRITE": 0.164, "CLOSE": 0.158, "OPEN": 0.113, "MMAP": 0.111, "RECVMSG": 0.086,
    "MPROTECT": 0.083, "SENDMSG": 0.022, "EXECUTE": 0.0022, "FORK": 0.0021, "CONNECT": 0.0011,
    "CHANGE_PRINCIPAL": 0.0004, "CLONE": 0.0002,
}  # fmt: skip
"""Shares of the kinds in 408 k events of a real host (DARPA TC engagement 5, TRACE, 2019-05-07)."""

AREAS: dict[str, tuple[str, str, str, str]] = {
    "none": ("", "", "", ""),
    "lib": ("/usr/lib/libc.so.6", "/usr/lib/libssl.so.3", "/usr/lib/libpython3.so", "/usr/lib/libnss.so.2"),
    "conf": ("/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/app.conf"),
    "doc": (
        "/home/user/report.docx",
        "/home/user/plan.xlsx",
        "/home/user/notes.md",
        "/srv/share/budget.xlsx",
    ),
    "cache": ("/home/user/.cache/a", "/home/user/.cache/b", "/var/cache/c", "/var/cache/d"),
    "db": ("/var/lib/db/base/1", "/var/lib/db/base/2", "/var/lib/db/wal", "/var/lib/db/index"),
    "log": ("/var/log/syslog", "/var/log/auth.log", "/var/log/app.log", "/var/log/audit.log"),
    "tmp": ("/tmp/build.sh", "/tmp/a.out", "/var/tmp/pkg.bin", "/tmp/.cache.sh"),
    "web": ("/var/www/index.html", "/var/www/app.php", "/var/www/upload.php", "/var/www/style.css"),
    "sys": ("/proc/net/tcp", "/proc/self/maps", "/proc/stat", "/proc/meminfo"),
    "bin": ("/usr/bin/bash", "/usr/bin/python3", "/usr/bin/tar", "/usr/sbin/service"),
    "cred": ("/etc/shadow", "/root/.ssh/id_rsa", "/home/user/.browser/logins.json", "/etc/krb5.keytab"),
    "startup": ("/etc/cron.d/job", "/etc/systemd/system/app.service", "/home/user/.bashrc", "/etc/rc.local"),
    "archive": ("/var/backups/home.tar.gz", "/tmp/data.tgz", "/srv/backup/db.dump", "/var/tmp/export.zip"),
}
"""Path strings by area, four each."""

PATHS_PER_AREA = 4
PATHS = tuple(path for paths in AREAS.values() for path in paths)

PORTS: dict[str, tuple[int, int, int, int]] = {
    "none": (0, 0, 0, 0),
    "web": (443, 443, 80, 8080),
    "ssh": (22, 22, 22, 22),
    "smb": (445, 445, 139, 135),
    "db": (5432, 3306, 6379, 1433),
    "any": (21, 3389, 8443, 5900),
}


@dataclass(frozen=True)
class Template:
    """One type of event: kind, object, area of its path, log of its size in bytes (0: none) and class of its port."""

    kind: str
    object_kind: str
    area: str = "none"
    log_size: float = 0.0
    port: str = "none"


_FILE_AREAS = ("lib", "conf", "doc", "cache", "db", "log", "tmp", "web", "sys", "cred", "startup", "archive")
_FILE_VERBS = {"OPEN": 0.17, "READ": 0.355, "WRITE": 0.245, "CLOSE": 0.23}
_FILE_SIZE = {"OPEN": 0.0, "READ": 8.0, "WRITE": 7.5, "CLOSE": 0.0}

TEMPLATES: dict[str, Template] = {
    **{
        f"{verb.lower()}_{area}": Template(verb, "file", area, _FILE_SIZE[verb] + (area == "archive") * 4.0)
        for area in _FILE_AREAS
        for verb in _FILE_VERBS
    },
    "execute": Template("EXECUTE", "process", "bin"),
    "execute_tmp": Template("EXECUTE", "process", "tmp"),
    "fork": Template("FORK", "process"),
    "clone": Template("CLONE", "process"),
    "exit": Template("EXIT", "process"),
    "signal": Template("SIGNAL", "process"),
    "mmap": Template("MMAP", "memory", "lib", 9.0),
    "mmap_anonymous": Template("MMAP", "memory", "none", 11.0),
    "mprotect": Template("MPROTECT", "memory", "lib", 9.0),
    "mprotect_anonymous": Template("MPROTECT", "memory", "none", 11.0),
    "loadlibrary": Template("LOADLIBRARY", "memory", "lib", 9.0),
    "change_principal": Template("CHANGE_PRINCIPAL", "principal"),
    "connect_web": Template("CONNECT", "socket", port="web"),
    "connect_ssh": Template("CONNECT", "socket", port="ssh"),
    "connect_smb": Template("CONNECT", "socket", port="smb"),
    "connect_db": Template("CONNECT", "socket", port="db"),
    "connect_any": Template("CONNECT", "socket", port="any"),
    "accept_web": Template("ACCEPT", "socket", port="web"),
    "accept_ssh": Template("ACCEPT", "socket", port="ssh"),
    "recv_web": Template("RECVMSG", "socket", "none", 7.0, "web"),
    "send_web": Template("SENDMSG", "socket", "none", 6.0, "web"),
    "send_large": Template("SENDMSG", "socket", "none", 12.0, "web"),
    "recv_lan": Template("RECVMSG", "socket", "none", 6.5, "db"),
    "send_lan": Template("SENDMSG", "socket", "none", 6.5, "smb"),
    "recv_ssh": Template("RECVMSG", "socket", "none", 5.0, "ssh"),
    "unlink_tmp": Template("UNLINK", "file", "tmp"),
    "unlink_log": Template("UNLINK", "file", "log"),
    "rename_doc": Template("RENAME", "file", "doc"),
    "create_tmp": Template("CREATE_OBJECT", "file", "tmp"),
    "attributes_tmp": Template("MODIFY_FILE_ATTRIBUTES", "file", "tmp"),
    "truncate_log": Template("TRUNCATE", "file", "log"),
}


def template_index(name: str) -> int:
    """Number of a template.

    Example:
        >>> template_index("open_lib")
        0
    """
    return tuple(TEMPLATES).index(name)


@dataclass(frozen=True)
class Program:
    """A benign program's work.

    Attributes:
        rate: events relative to other programs.
        uid: user id that it starts with.
        areas: shares of the areas of its file events.
        children: programs that it starts, with weights.
        file: share of file events; memory, protect, receive: shares of MMAP, MPROTECT and RECVMSG.
        bait: templates that attack stages use as well, with their shares.
    """

    rate: float
    uid: int
    areas: dict[str, float]
    children: dict[str, float]
    bait: dict[str, float]
    file: float = 0.67
    memory: float = 0.11
    protect: float = 0.08
    receive: float = 0.09
    send: float = 0.02
    lan: bool = False


PROGRAMS: dict[str, Program] = {
    "browser": Program(2.0, 1000, {"lib": 2, "cache": 6, "conf": 1, "doc": 1, "tmp": 0.4, "cred": 0.05},
        {"browser": 8, "office": 2, "shell": 0.3}, {"mprotect_anonymous": 0.03, "connect_web": 0.015,
        "create_tmp": 0.006, "execute_tmp": 0.002, "send_large": 0.004}, receive=0.14),
    "mail": Program(1.0, 1000, {"lib": 2, "cache": 4, "conf": 1, "doc": 2, "tmp": 0.4},
        {"office": 8, "browser": 3, "shell": 0.2}, {"connect_web": 0.012, "create_tmp": 0.006, "send_large": 0.005},
        receive=0.13),
    "office": Program(1.2, 1000, {"lib": 2, "doc": 7, "conf": 1, "cache": 1, "tmp": 0.5},
        {"office": 4, "interpreter": 2, "browser": 1}, {"rename_doc": 0.012, "create_tmp": 0.008,
        "mmap_anonymous": 0.01, "connect_web": 0.004}),
    "shell": Program(0.8, 1000, {"conf": 3, "lib": 2, "doc": 1.5, "tmp": 1, "sys": 1, "log": 1, "startup": 0.25,
        "cred": 0.15}, {"shell": 3, "interpreter": 4, "archiver": 2, "updater": 1}, {"execute": 0.012,
        "execute_tmp": 0.005, "change_principal": 0.006, "connect_ssh": 0.006, "connect_any": 0.003,
        "unlink_tmp": 0.004, "unlink_log": 0.003, "attributes_tmp": 0.004, "rename_doc": 0.003, "signal": 0.003}),
    "interpreter": Program(1.2, 1000, {"lib": 4, "conf": 1, "doc": 2, "tmp": 1, "sys": 0.7, "db": 0.7, "cred": 0.1,
        "archive": 0.1}, {"shell": 3, "interpreter": 3, "archiver": 1}, {"execute": 0.006, "connect_db": 0.006,
        "connect_any": 0.003, "connect_web": 0.006, "mmap_anonymous": 0.02, "mprotect_anonymous": 0.01,
        "create_tmp": 0.006, "unlink_tmp": 0.004, "execute_tmp": 0.003, "send_large": 0.003, "loadlibrary": 0.01}),
    "web_server": Program(2.2, 33, {"web": 7, "log": 3, "lib": 1, "tmp": 0.4, "conf": 0.6},
        {"interpreter": 8, "shell": 0.5, "web_server": 3}, {"accept_web": 0.03, "connect_db": 0.01,
        "send_large": 0.006, "create_tmp": 0.004}, receive=0.13, send=0.04),
    "database": Program(2.0, 70, {"db": 9, "log": 1, "conf": 0.3, "archive": 0.2, "tmp": 0.2},
        {"database": 6, "archiver": 1}, {"accept_web": 0.006, "rename_doc": 0.002, "truncate_log": 0.003},
        lan=True),
    "backup": Program(1.5, 0, {"doc": 4, "db": 3, "conf": 1, "cred": 0.7, "archive": 3, "startup": 0.3, "web": 1},
        {"archiver": 5, "shell": 1}, {"send_large": 0.03, "connect_ssh": 0.006, "rename_doc": 0.003,
        "unlink_tmp": 0.004, "send_lan": 0.02}, file=0.75),
    "updater": Program(1.0, 0, {"lib": 4, "tmp": 3, "conf": 1, "startup": 0.6, "cache": 2},
        {"shell": 4, "updater": 3, "interpreter": 1}, {"execute_tmp": 0.02, "execute": 0.012, "create_tmp": 0.015,
        "attributes_tmp": 0.015, "connect_web": 0.012, "unlink_tmp": 0.01, "recv_web": 0.03, "loadlibrary": 0.005}),
    "scanner": Program(0.8, 0, {"sys": 5, "conf": 2, "log": 1, "cred": 0.3, "lib": 1, "startup": 0.3},
        {"shell": 2, "interpreter": 2}, {"connect_any": 0.07, "connect_smb": 0.035, "connect_ssh": 0.03,
        "send_lan": 0.02}, lan=True),
    "cron": Program(0.4, 0, {"conf": 2, "log": 2, "startup": 0.6, "lib": 1, "sys": 1},
        {"backup": 3, "scanner": 2, "shell": 3, "updater": 2, "interpreter": 2}, {"execute": 0.02,
        "change_principal": 0.012, "fork": 0.03, "truncate_log": 0.01, "unlink_log": 0.005}),
    "ssh": Program(0.5, 0, {"conf": 3, "log": 1, "lib": 2, "cred": 0.25, "sys": 0.5},
        {"shell": 9, "ssh": 2}, {"accept_ssh": 0.03, "change_principal": 0.012, "recv_ssh": 0.08}),
    "jit": Program(2.0, 1000, {"lib": 3, "cache": 2, "tmp": 0.7, "db": 1, "log": 2},
        {"jit": 4, "shell": 0.4}, {"mprotect_anonymous": 0.1, "mmap_anonymous": 0.06, "clone": 0.004,
        "connect_db": 0.008, "loadlibrary": 0.006, "send_large": 0.003}, protect=0.06, memory=0.08),
    "archiver": Program(1.6, 1000, {"doc": 5, "archive": 4, "tmp": 0.5, "lib": 1, "db": 1},
        {"archiver": 1}, {"unlink_tmp": 0.01, "rename_doc": 0.006, "create_tmp": 0.005}, file=0.85, receive=0.0),
}  # fmt: skip

COMMANDS_PER_PROGRAM = 3
COMMANDS = tuple(f"{program}{flags}" for program in PROGRAMS for flags in ("", " --service", " -c task"))

N_ROOTS = 7
ROLES: dict[str, tuple[str, ...]] = {
    "workstation": ("browser", "mail", "office", "shell", "cron", "updater", "ssh", "office", "shell"),
    "server": ("web_server", "database", "jit", "scanner", "cron", "ssh", "backup", "interpreter", "shell"),
    "developer": ("browser", "shell", "interpreter", "jit", "cron", "ssh", "mail", "interpreter", "browser"),
}
"""Processes of a host at the start by its role, in slots by position: ``N_ROOTS`` long-lived ones, then jobs."""

ENTRY_PROGRAMS: dict[str, str] = {"mail": "office", "browser": "browser", "office": "interpreter",
    "web_server": "interpreter", "ssh": "shell"}  # fmt: skip
"""Programs through which an attacker comes in, and what then runs (T1566, T1189, T1190, T1078)."""


@dataclass(frozen=True)
class Stage:
    """One stage of a campaign (MITRE ATT&CK tactic).

    Attributes:
        mix: templates of its events with weights.
        needed: successful events that complete it.
        damage: of each successful event, in units of one benign event lost.
        child: program that is started when it completes; on another host where ``moves``.
        moves: whether the child runs on another host.
    """

    mix: dict[str, float]
    needed: int
    damage: float
    child: str = ""
    moves: bool = False


STAGES: dict[str, Stage] = {
    "initial_access": Stage({"recv_web": 4, "execute_tmp": 2, "connect_web": 3, "create_tmp": 2}, 1, 2.0),
    "execution": Stage({"execute": 3, "execute_tmp": 2, "fork": 2, "read_tmp": 3, "open_tmp": 2}, 1, 2.0,
        child="interpreter"),
    "elevation": Stage({"change_principal": 3, "mprotect_anonymous": 4, "mmap_anonymous": 3}, 1, 3.0),
    "persistence": Stage({"write_startup": 5, "open_startup": 2, "create_tmp": 1, "attributes_tmp": 1}, 1, 3.0),
    "discovery": Stage({"connect_any": 4, "connect_smb": 2, "read_sys": 3, "read_conf": 2}, 2, 2.0),
    "credentials": Stage({"read_cred": 5, "open_cred": 3, "read_sys": 1}, 2, 6.0),
    "lateral_movement": Stage({"connect_ssh": 5, "connect_smb": 2, "send_lan": 3}, 2, 6.0, child="shell",
        moves=True),
    "collection": Stage({"read_doc": 5, "read_db": 3, "write_archive": 4}, 3, 6.0),
    "exfiltration": Stage({"send_large": 5, "send_web": 3, "read_archive": 2}, 3, 20.0),
    "impact": Stage({"write_doc": 4, "rename_doc": 3, "unlink_log": 2, "close_doc": 1}, 3, 30.0),
}  # fmt: skip

_BAIT = 2.5
"""Factor on all bait: how often benign work looks like an attack."""

_COMMON = 0.01
"""Mean share over the programs from which on a template is ordinary work, not bait."""


class Tables(eqx.Module):
    """The catalogue as arrays.

    Attributes:
        kind, object_kind, area, event_class: indices per template.
        log_size: mean log bytes per template, 0 where it has no size.
        port: remote port per template and variant.
        bait: whether an attack stage uses the template and benign programs use it rarely.
        mix: cumulative shares of the templates; rows: programs, then stages.
        child: cumulative shares of the programs that a program starts.
        rate: relative event rate per program.
        uid: per program.
        roles: programs at the start per role.
        entry: program that an attacker runs in a child of each program, -1 where he cannot come in.
        needed, damage, stage_child, moves: per stage.
    """

    kind: Int[Array, " template"]
    object_kind: Int[Array, " template"]
    area: Int[Array, " template"]
    event_class: Int[Array, " template"]
    log_size: Float[Array, " template"]
    port: Int[Array, "template 4"]
    bait: Int[Array, " template"]
    mix: Float[Array, "row template"]
    child: Float[Array, "program program"]
    rate: Float[Array, " program"]
    uid: Int[Array, " program"]
    roles: Int[Array, "role process"]
    entry: Int[Array, " program"]
    needed: Int[Array, " stage"]
    damage: Float[Array, " stage"]
    stage_child: Int[Array, " stage"]
    moves: Int[Array, " stage"]


def _program_weights(program: Program) -> dict[str, float]:
    total = sum(program.areas.values())
    weights = {
        f"{verb.lower()}_{area}": program.file * share / total * part
        for area, share in program.areas.items()
        for verb, part in _FILE_VERBS.items()
    }
    network = "lan" if program.lan else "web"
    common = {
        "mmap": program.memory,
        "mprotect": program.protect,
        f"recv_{network}": program.receive,
        f"send_{network}": program.send,
        "fork": 0.02,
        "clone": 0.001,
    }
    bait = {name: _BAIT * share for name, share in program.bait.items()}
    for part in (common, bait):
        for name, share in part.items():
            weights[name] = weights.get(name, 0.0) + share
    return weights


def _cumulative(weights: dict[str, float], names: tuple[str, ...]) -> np.ndarray:
    row = np.array([weights.get(name, 0.0) for name in names], np.float64)
    return (np.cumsum(row) / row.sum()).astype(np.float32)


def build_tables() -> Tables:
    """The catalogue as arrays, for a simulator."""
    names, programs, areas = tuple(TEMPLATES), tuple(PROGRAMS), tuple(AREAS)
    templates = tuple(TEMPLATES.values())
    used = {name for stage in STAGES.values() for name in stage.mix}
    rows = [_program_weights(program) for program in PROGRAMS.values()]
    rows += [stage.mix for stage in STAGES.values()]
    mix = np.stack([_cumulative(row, names) for row in rows])
    common = np.diff(mix[: len(PROGRAMS)].mean(axis=0), prepend=np.float32(0.0))

    def index(values: list[int]) -> Int[Array, " item"]:
        return jnp.asarray(np.array(values, np.int32))

    def number(values: list[float]) -> Float[Array, " item"]:
        return jnp.asarray(np.array(values, np.float32))

    stages = tuple(STAGES.values())
    return Tables(
        kind=index([KINDS.index(t.kind) for t in templates]),
        object_kind=index([OBJECT_KINDS.index(t.object_kind) for t in templates]),
        area=index([areas.index(t.area) for t in templates]),
        event_class=index([event_class_of(t.kind) for t in templates]),
        log_size=number([t.log_size for t in templates]),
        port=jnp.asarray(np.array([PORTS[t.port] for t in templates], np.int32)),
        bait=index([int(name in used and common[names.index(name)] < _COMMON) for name in names]),
        mix=jnp.asarray(mix),
        child=jnp.asarray(np.stack([_cumulative(p.children, programs) for p in PROGRAMS.values()])),
        rate=number([p.rate for p in PROGRAMS.values()]),
        uid=index([p.uid for p in PROGRAMS.values()]),
        roles=jnp.asarray(np.array([[programs.index(p) for p in r] for r in ROLES.values()], np.int32)),
        entry=index([programs.index(ENTRY_PROGRAMS[p]) if p in ENTRY_PROGRAMS else -1 for p in programs]),
        needed=index([s.needed for s in stages]),
        damage=number([s.damage for s in stages]),
        stage_child=index([programs.index(s.child) if s.child else -1 for s in stages]),
        moves=index([int(s.moves) for s in stages]),
    )
