"""What the simulated hosts run, and how programs, benign jobs and attack techniques show in the event stream.

The one place of rates, traces and delays, each with its source; docs/catalogue.md is written from it
(``sim_docs``). Every template that an attack technique uses is also in the mix of at least one benign program (bait),
so that no single event gives an attack away; what differs is who does it, after what, and how often.
"""

from dataclasses import dataclass

__all__ = [
    "AREAS",
    "BEACON",
    "BENIGN_KIND_MIX",
    "COMMANDS",
    "COMMANDS_PER_PROGRAM",
    "ENTRY_PROGRAMS",
    "KINDS",
    "NOTABLE_SHARE",
    "OBJECT_KINDS",
    "OPERATIONS_PER_S",
    "PATHS",
    "PATHS_PER_AREA",
    "PORTS",
    "PROGRAMS",
    "ROLES",
    "SOURCES",
    "STAGES",
    "TECHNIQUES",
    "TEMPLATES",
    "Program",
    "Role",
    "Stage",
    "Technique",
    "Template",
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

OPERATIONS_PER_S = 16.9
"""Operations per second of that host, over 6.7 h of a working day."""

SOURCES: dict[str, str] = {
    "trace-e5": "DARPA Transparent Computing engagement 5, TRACE, 2019-05-07: 408 k events of one host in 6.7 h",
    "tc": "DARPA Transparent Computing engagements 3 and 5, ground truth reports: attack windows of 8 to 90 min",
    "optc": "DARPA Operationally Transparent Cyber (OpTC), ground truth of day 1: elevation 1 min 44 s after check-in, "
    "credentials after 8 min, persistence after 15 min, first lateral move after 2 h, domain controller after 2 h 40",
    "attack": "MITRE ATT&CK, enterprise matrix: the technique's page, procedure examples and detection section",
    "engagement": "attackers' steps fail in 7 to 16 % of the cases in the engagements' reports; beacons of 5 to 30 s",
    "choice": "a choice of this project: nothing public fixes the number",
}
"""What the numbers rest on, by the short name that the entries below cite."""

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
    """One type of record.

    Attributes:
        kind: CDM event name.
        object_kind: what it acts on.
        area: of its path.
        log_size: log of the bytes that it moves (0: none).
        port: class of its port.
        count: operations that a record stands for on average: routine work reaches the committee merged, one record for
            many like operations of a process on an object, as provenance systems reduce their logs.
    """

    kind: str
    object_kind: str
    area: str = "none"
    log_size: float = 0.0
    port: str = "none"
    count: float = 1.0


_ROUTINE, _BULKY, _SENSITIVE = 150.0, 60.0, 4.0
_FILE_AREAS = {
    **dict.fromkeys(("lib", "conf", "doc", "cache", "db", "log", "web", "sys"), _ROUTINE),
    "archive": _BULKY,
    **dict.fromkeys(("tmp", "cred", "startup"), _SENSITIVE),
}
_FILE_VERBS = {"OPEN": 0.17, "READ": 0.355, "WRITE": 0.245, "CLOSE": 0.23}
_FILE_SIZE = {"OPEN": 0.0, "READ": 10.0, "WRITE": 9.5, "CLOSE": 0.0}

TEMPLATES: dict[str, Template] = {
    **{
        f"{verb.lower()}_{area}": Template(
            verb, "file", area, _FILE_SIZE[verb] and _FILE_SIZE[verb] + (area == "archive") * 4.0, count=count
        )
        for area, count in _FILE_AREAS.items()
        for verb in _FILE_VERBS
    },
    "execute": Template("EXECUTE", "process", "bin"),
    "execute_tmp": Template("EXECUTE", "process", "tmp"),
    "fork": Template("FORK", "process"),
    "clone": Template("CLONE", "process"),
    "exit": Template("EXIT", "process"),
    "signal": Template("SIGNAL", "process"),
    "mmap": Template("MMAP", "memory", "lib", 11.0, count=_ROUTINE),
    "mmap_anonymous": Template("MMAP", "memory", "none", 12.0, count=_SENSITIVE),
    "mprotect": Template("MPROTECT", "memory", "lib", 11.0, count=_ROUTINE),
    "mprotect_anonymous": Template("MPROTECT", "memory", "none", 12.0, count=_SENSITIVE),
    "loadlibrary": Template("LOADLIBRARY", "memory", "lib", 9.0),
    "change_principal": Template("CHANGE_PRINCIPAL", "principal"),
    "connect_web": Template("CONNECT", "socket", port="web"),
    "connect_ssh": Template("CONNECT", "socket", port="ssh"),
    "connect_smb": Template("CONNECT", "socket", port="smb"),
    "connect_db": Template("CONNECT", "socket", port="db"),
    "connect_any": Template("CONNECT", "socket", port="any"),
    "accept_web": Template("ACCEPT", "socket", port="web"),
    "accept_ssh": Template("ACCEPT", "socket", port="ssh"),
    "recv_web": Template("RECVMSG", "socket", "none", 9.0, "web", _ROUTINE),
    "send_web": Template("SENDMSG", "socket", "none", 8.0, "web", _ROUTINE),
    "send_large": Template("SENDMSG", "socket", "none", 13.0, "web", _BULKY),
    "recv_lan": Template("RECVMSG", "socket", "none", 8.5, "db", _ROUTINE),
    "send_lan": Template("SENDMSG", "socket", "none", 8.5, "smb", _ROUTINE),
    "recv_ssh": Template("RECVMSG", "socket", "none", 7.0, "ssh", _BULKY),
    "unlink_tmp": Template("UNLINK", "file", "tmp"),
    "unlink_log": Template("UNLINK", "file", "log"),
    "rename_doc": Template("RENAME", "file", "doc", count=_SENSITIVE),
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


NOTABLE_SHARE = 0.5
"""Share of a program's records that are no routine work. At 16.9 operations a second, of which .6 % are process,
network or identity events (trace-e5), records of routine work that stand for some 150 operations make it about a half.
"""


@dataclass(frozen=True)
class Program:
    """A benign program's work.

    Attributes:
        rate: records relative to other programs.
        uid: user id that it starts with.
        areas: shares of the areas of its routine file work.
        children: programs that it starts, with weights.
        notable: weights of its other records: births, sockets, identities and all that attack techniques use as well.
        job: what it is when it is bait: routine administration that looks like an attack.
        file, memory, protect, receive, send: parts of its routine operations.
        lan: whether it talks to the local network rather than the web.
        held_out: it runs in held-out scenarios alone; nothing is trained on it.
    """

    rate: float
    uid: int
    areas: dict[str, float]
    children: dict[str, float]
    notable: dict[str, float]
    job: str = ""
    file: float = 0.67
    memory: float = 0.11
    protect: float = 0.08
    receive: float = 0.09
    send: float = 0.02
    lan: bool = False
    held_out: bool = False


PROGRAMS: dict[str, Program] = {
    "browser": Program(2.0, 1000, {"lib": 2, "cache": 6, "conf": 1, "doc": 1, "tmp": 0.4, "cred": 0.05},
        {"browser": 8, "office": 2, "shell": 0.3}, {"fork": 8, "connect_web": 12, "mprotect_anonymous": 6,
        "create_tmp": 1.5, "execute_tmp": 0.25, "send_large": 0.6, "clone": 1}, receive=0.14),
    "mail": Program(1.0, 1000, {"lib": 2, "cache": 4, "conf": 1, "doc": 2, "tmp": 0.4},
        {"office": 8, "browser": 3, "shell": 0.2}, {"fork": 8, "connect_web": 9, "create_tmp": 1.5,
        "send_large": 0.8}, receive=0.13),
    "office": Program(1.2, 1000, {"lib": 2, "doc": 7, "conf": 1, "cache": 1, "tmp": 0.5},
        {"office": 4, "interpreter": 2, "browser": 1}, {"fork": 8, "rename_doc": 3, "create_tmp": 2,
        "mmap_anonymous": 1.5, "connect_web": 3, "execute": 1}),
    "shell": Program(0.8, 1000, {"conf": 3, "lib": 2, "doc": 1.5, "tmp": 1, "sys": 1, "log": 1, "startup": 0.25,
        "cred": 0.15}, {"shell": 3, "interpreter": 4, "archiver": 2, "updater": 1}, {"fork": 10, "execute": 4,
        "execute_tmp": 0.7, "change_principal": 1.2, "connect_ssh": 1, "connect_any": 0.4, "unlink_tmp": 0.6,
        "unlink_log": 0.4, "attributes_tmp": 0.5, "rename_doc": 0.4, "signal": 0.5}, job="administration"),
    "interpreter": Program(1.2, 1000, {"lib": 4, "conf": 1, "doc": 2, "tmp": 1, "sys": 0.7, "db": 0.7, "cred": 0.1,
        "archive": 0.1}, {"shell": 3, "interpreter": 3, "archiver": 1}, {"fork": 8, "execute": 2, "connect_db": 2,
        "connect_any": 0.4, "connect_web": 2.5, "mmap_anonymous": 2, "mprotect_anonymous": 1, "create_tmp": 0.8,
        "unlink_tmp": 0.5, "execute_tmp": 0.4, "send_large": 0.4, "loadlibrary": 1}, job="scripts"),
    "web_server": Program(2.2, 33, {"web": 7, "log": 3, "lib": 1, "tmp": 0.4, "conf": 0.6},
        {"interpreter": 8, "shell": 0.4, "web_server": 3}, {"fork": 7, "accept_web": 10, "connect_db": 3,
        "send_large": 0.8, "create_tmp": 0.6}, receive=0.13, send=0.04),
    "database": Program(2.0, 70, {"db": 9, "log": 1, "conf": 0.3, "archive": 0.2, "tmp": 0.2},
        {"database": 6, "archiver": 1}, {"fork": 7, "accept_web": 5, "connect_db": 2, "rename_doc": 0.3,
        "truncate_log": 0.5, "clone": 1}, lan=True),
    "directory": Program(1.6, 0, {"db": 5, "conf": 2, "log": 2, "cred": 0.25, "sys": 0.5},
        {"directory": 6, "shell": 0.4}, {"fork": 5, "accept_web": 5, "connect_smb": 4, "change_principal": 3,
        "connect_any": 0.4}, lan=True),
    "backup": Program(1.5, 0, {"doc": 4, "db": 3, "conf": 1, "cred": 0.7, "archive": 3, "startup": 0.3, "web": 1},
        {"archiver": 5, "shell": 1}, {"fork": 8, "send_large": 4, "connect_ssh": 1, "rename_doc": 0.6,
        "unlink_tmp": 0.5, "connect_smb": 1}, job="backup", file=0.75),
    "updater": Program(1.0, 0, {"lib": 4, "tmp": 3, "conf": 1, "startup": 0.6, "cache": 2},
        {"shell": 4, "updater": 3, "interpreter": 1}, {"fork": 7, "execute_tmp": 2, "execute": 2, "create_tmp": 2.5,
        "attributes_tmp": 2, "connect_web": 3, "unlink_tmp": 1.5, "loadlibrary": 1}, job="patching"),
    "scanner": Program(0.8, 0, {"sys": 5, "conf": 2, "log": 1, "cred": 0.3, "lib": 1, "startup": 0.3},
        {"shell": 2, "interpreter": 2}, {"fork": 4, "connect_any": 8, "connect_smb": 4, "connect_ssh": 3,
        "connect_web": 2}, job="vulnerability scan", lan=True),
    "cron": Program(0.6, 0, {"conf": 2, "log": 2, "startup": 0.6, "lib": 1, "sys": 1},
        {"backup": 3, "scanner": 2, "shell": 3, "updater": 2, "interpreter": 2}, {"fork": 12, "execute": 2,
        "change_principal": 1.5, "truncate_log": 1, "unlink_log": 0.4}, job="scheduled jobs"),
    "ssh": Program(0.6, 0, {"conf": 3, "log": 1, "lib": 2, "cred": 0.25, "sys": 0.5},
        {"shell": 9, "ssh": 2}, {"fork": 8, "accept_ssh": 6, "change_principal": 3, "recv_ssh": 4},
        job="remote administration"),
    "jit": Program(1.8, 1000, {"lib": 3, "cache": 2, "tmp": 0.7, "db": 1, "log": 2},
        {"jit": 4, "shell": 0.4}, {"fork": 4, "mprotect_anonymous": 10, "mmap_anonymous": 6, "clone": 2,
        "connect_db": 3, "loadlibrary": 1, "send_large": 0.4}, job="just-in-time compilation"),
    "archiver": Program(1.6, 1000, {"doc": 5, "archive": 4, "tmp": 0.5, "lib": 1, "db": 1},
        {"archiver": 1}, {"fork": 3, "unlink_tmp": 1, "rename_doc": 0.8, "create_tmp": 0.6, "execute": 1},
        job="archiving", file=0.85, receive=0.0),
    "deploy": Program(1.2, 0, {"tmp": 3, "conf": 3, "web": 2, "startup": 1.2, "lib": 1, "cred": 0.2},
        {"shell": 4, "interpreter": 4, "deploy": 2}, {"fork": 6, "connect_ssh": 5, "accept_ssh": 2,
        "execute_tmp": 3, "create_tmp": 2, "attributes_tmp": 3, "change_principal": 2, "unlink_tmp": 1},
        job="configuration roll-out", held_out=True),
    "sensor": Program(1.0, 0, {"sys": 5, "cred": 1.2, "startup": 1.5, "lib": 2, "log": 2},
        {"shell": 1, "sensor": 3}, {"fork": 4, "mmap_anonymous": 3, "signal": 2, "connect_web": 3,
        "loadlibrary": 2, "send_large": 1}, job="endpoint inspection", held_out=True),
}  # fmt: skip

COMMANDS_PER_PROGRAM = 3
COMMANDS = tuple(f"{program}{flags}" for program in PROGRAMS for flags in ("", " --service", " -c task"))


@dataclass(frozen=True)
class Role:
    """What a host is for.

    Attributes:
        programs: its long-lived processes, in slots by position.
        day: how far its pace swings between night and day: 0 not at all, 1 from 0 to twice the mean; negative where it
            works at night.
    """

    programs: tuple[str, str, str, str, str, str, str]
    day: float


ROLES: dict[str, Role] = {
    "workstation": Role(("browser", "mail", "office", "shell", "cron", "updater", "ssh"), 0.7),
    "developer": Role(("browser", "shell", "interpreter", "jit", "cron", "ssh", "mail"), 0.6),
    "web": Role(("web_server", "web_server", "jit", "cron", "ssh", "scanner", "shell"), 0.4),
    "database": Role(("database", "database", "backup", "cron", "ssh", "scanner", "interpreter"), -0.3),
    "directory": Role(("directory", "scanner", "cron", "ssh", "backup", "updater", "shell"), 0.2),
}

ENTRY_PROGRAMS: dict[str, str] = {"mail": "office", "browser": "browser", "office": "interpreter",
    "web_server": "interpreter", "ssh": "shell"}  # fmt: skip
"""Programs through which an attacker comes in, and what then runs (T1566, T1189, T1204, T1190, T1078)."""


@dataclass(frozen=True)
class Technique:
    """One way to take a stage.

    Attributes:
        attack: MITRE ATT&CK number.
        about: what it does.
        mix: templates of its records with weights.
        held_out: attackers use it in held-out scenarios alone; nothing is trained on it.
    """

    attack: str
    about: str
    mix: dict[str, float]
    held_out: bool = False


@dataclass(frozen=True)
class Stage:
    """One stage of a campaign (MITRE ATT&CK tactic).

    Attributes:
        techniques: ways to take it.
        needed: successful steps that complete it.
        damage: of each successful step, in units of one benign record lost.
        delay_s: range of the wait before its first step (log-uniform), in s, at the pace 1; the first stage has none,
            for it starts with the campaign.
        gap_s: mean time between steps within it, in s, at the pace 1.
        source: of the delay; see ``SOURCES``.
        child: program that is started when it completes; on another host where ``moves``.
        moves: whether the child runs on another host.
        skipped: share of the campaigns that leave it out.
    """

    techniques: tuple[Technique, ...]
    needed: int
    damage: float
    delay_s: tuple[float, float]
    gap_s: float
    source: str
    child: str = ""
    moves: bool = False
    skipped: float = 0.0


STAGES: dict[str, Stage] = {
    "initial_access": Stage((
        Technique("T1566", "phishing", {"recv_web": 4, "create_tmp": 3, "connect_web": 3}),
        Technique("T1189", "drive-by compromise", {"connect_web": 4, "execute_tmp": 2, "create_tmp": 2}),
        Technique("T1195", "supply chain", {"loadlibrary": 4, "connect_web": 3, "recv_web": 2}, held_out=True),
        ), 1, 2.0, (1.0, 5.0), 10.0, "choice"),
    "execution": Stage((
        Technique("T1059", "command and scripting interpreter", {"execute": 4, "fork": 2, "read_tmp": 2}),
        Technique("T1204", "user execution", {"execute_tmp": 4, "open_tmp": 2, "fork": 2}),
        Technique("T1129", "shared modules", {"loadlibrary": 5, "mmap_anonymous": 2, "open_tmp": 2}, held_out=True),
        ), 1, 2.0, (2.0, 20.0), 10.0, "choice", child="interpreter"),
    "elevation": Stage((
        Technique("T1548", "abuse of elevation control", {"change_principal": 5, "execute": 2}),
        Technique("T1068", "exploitation for privilege escalation", {"mprotect_anonymous": 4, "mmap_anonymous": 3,
            "change_principal": 2}),
        Technique("T1055", "process injection", {"mprotect_anonymous": 5, "signal": 2, "read_sys": 2}, held_out=True),
        ), 1, 3.0, (30.0, 360.0), 20.0, "optc", skipped=0.2),
    "credentials": Stage((
        Technique("T1003", "dumping of credential stores", {"read_cred": 5, "open_cred": 3}),
        Technique("T1552", "unsecured credentials", {"read_cred": 2, "read_conf": 4, "read_doc": 2}),
        Technique("T1110", "brute force", {"connect_ssh": 5, "connect_smb": 2, "accept_ssh": 1}, held_out=True),
        ), 2, 6.0, (60.0, 600.0), 20.0, "optc", skipped=0.1),
    "persistence": Stage((
        Technique("T1547", "autostart at log-on", {"write_startup": 5, "open_startup": 2}),
        Technique("T1053", "scheduled job", {"write_startup": 3, "create_tmp": 2, "attributes_tmp": 2}),
        Technique("T1505", "web shell", {"create_tmp": 3, "write_web": 4, "attributes_tmp": 1}, held_out=True),
        ), 1, 3.0, (60.0, 600.0), 20.0, "optc", skipped=0.3),
    "discovery": Stage((
        Technique("T1046", "network service discovery", {"connect_any": 5, "connect_smb": 3}),
        Technique("T1057", "process and system discovery", {"read_sys": 5, "read_conf": 3, "execute": 1}),
        Technique("T1018", "remote system discovery", {"read_conf": 3, "connect_ssh": 2, "send_lan": 3},
            held_out=True),
        ), 2, 2.0, (30.0, 300.0), 10.0, "choice", skipped=0.2),
    "lateral_movement": Stage((
        Technique("T1021.004", "SSH", {"connect_ssh": 6, "recv_ssh": 2}),
        Technique("T1021.002", "SMB shares", {"connect_smb": 5, "send_lan": 3}),
        Technique("T1570", "lateral tool transfer", {"send_lan": 5, "send_large": 2, "connect_any": 2}, held_out=True),
        ), 2, 6.0, (120.0, 2400.0), 30.0, "optc", child="shell", moves=True, skipped=0.3),
    "collection": Stage((
        Technique("T1005", "data from the local system", {"read_doc": 5, "read_db": 3, "write_archive": 3}),
        Technique("T1560", "archiving of collected data", {"write_archive": 5, "read_doc": 3, "create_tmp": 1}),
        Technique("T1114", "e-mail collection", {"read_cache": 4, "read_doc": 2, "write_tmp": 3}, held_out=True),
        ), 3, 6.0, (60.0, 900.0), 15.0, "tc"),
    "exfiltration": Stage((
        Technique("T1041", "over the command channel", {"send_large": 5, "send_web": 3}),
        Technique("T1048", "over another protocol", {"send_large": 3, "connect_any": 3, "read_archive": 3}),
        Technique("T1567", "to a web service", {"connect_web": 3, "send_web": 4, "read_archive": 2}, held_out=True),
        ), 3, 20.0, (30.0, 300.0), 20.0, "tc"),
    "impact": Stage((
        Technique("T1486", "encryption for impact", {"write_doc": 4, "rename_doc": 4}),
        Technique("T1070", "destruction and removal of traces", {"unlink_log": 4, "unlink_tmp": 2, "truncate_log": 2}),
        Technique("T1489", "service stop", {"signal": 5, "write_conf": 2, "write_db": 3}, held_out=True),
        ), 3, 30.0, (30.0, 600.0), 10.0, "tc"),
}  # fmt: skip

BEACON = Technique("T1071", "beacon of the command channel", {"send_web": 4, "recv_web": 5, "connect_web": 1})
"""What a waiting attacker still shows: merged records of a jittered beacon of 5 to 30 s (engagement)."""

TECHNIQUES: tuple[Technique, ...] = (*(t for stage in STAGES.values() for t in stage.techniques), BEACON)
