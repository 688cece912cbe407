"""Which columns of an event table the members may see by default, how each is read, and which sensor sees it."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Int, Int8

from phalanx.data.events import CONTRACT_COLUMNS, TRUTH_COLUMNS, EventTable
from phalanx.errors import UsageError, unknown_name

__all__ = [
    "TRANSFORMS",
    "Chosen",
    "Feature",
    "choose_features",
    "command_name",
    "group_of",
    "is_identity",
    "is_truth",
    "path_class",
]

_TRUTH = re.compile(
    r"label|^attack|^campaign|^stage$|^(mitre_)?(technique|tactic)s?(_ids?|_names?)?$|^cause$|^bait$|^difficulty|^(is_)?(suspicious|malicious|sus|evil|anomaly|truth|ground_truth|target)$"
    r"|^(part|partition|split|fold|subset)$",
    re.IGNORECASE,
)
_TIME = re.compile(
    r"^@?(time|ts|timestamp|date|datetime|event_?time|sequence|seq|seq_no|step|position|index|row|row_number|line)"
    r"(_(ns|us|ms|s))?$|_(timestamp|ts|sequence|seq)(_(ns|us|ms|s))?$|^(start|end|first|last)_time$",
    re.IGNORECASE,
)
_IDENTITY = re.compile(
    r"(^|[_.])(id|uuid|guid|pid|ppid|tid|inode|address|addr|ip|hash|md5|sha1|sha256|session|session_number)$"
    r"|[a-z](Id|Uuid|Guid)$|^id\.(orig|resp)_h$"
)
_CODE = re.compile(
    r"(^|_)(code|proto|protocol|type|kind|class|flags?|state|status|signal|syscall|errno|uid|gid|euid|egid|protection)$",
    re.IGNORECASE,
)
_PATH = re.compile(r"path$|^file_?name$|filename$", re.IGNORECASE)
_COMMAND = re.compile(r"^(command|cmd|command_?line|cmdline|exe|comm|process_?name|image)$", re.IGNORECASE)
_GROUPS: Sequence[tuple[str, re.Pattern[str]]] = (
    ("common", re.compile(r"^(kind|object_kind|event_type|record_type|source)$")),
    (
        "identity",
        re.compile(
            r"uid$|gid$|user|principal|login|logged|^su_|root|privilege|credential|account", re.IGNORECASE
        ),
    ),
    ("file", re.compile(r"file|path|inode|^size$|shadow|directory", re.IGNORECASE)),
    (
        "process",
        re.compile(
            r"proc|command|cmd|comm$|exe|pid$|thread|memory|protection|shell|signal|image|entropy",
            re.IGNORECASE,
        ),
    ),
    (
        "network",
        re.compile(
            r"port|^(src|dst|srv|orig|resp|id\.)|addr|ip$|proto|service|bytes|pkts|packets|conn|flag|^history$|serror|rerror"
            r"|^(count|duration|land|urgent|hot)$|fragment|tunnel|dns|missed|local_",
            re.IGNORECASE,
        ),
    ),
)
_ID_LIKE_SHARE = 0.5
_FEW = 16


def path_class(path: str) -> str:
    """The first two components of a path, digits as ``#``: few values that still tell places apart.

    Backslashes count as slashes; a relative path has no leading slash.

    Example:
        >>> [path_class(path) for path in ("/usr/lib/x86_64/libc.so", "/proc/4711/maps", "C:\\\\Windows\\\\System32")]
        ['/usr/lib', '/proc/#', 'C:/Windows']
    """
    clean = path.replace("\\", "/")
    parts = [part for part in clean.split("/") if part]
    lead = "/" if clean.startswith("/") else ""
    return re.sub(r"\d+", "#", lead + "/".join(parts[:2]))


def command_name(command: str) -> str:
    """The base name of the program in a command line.

    Example:
        >>> command_name("/usr/bin/python3 -m http.server")
        'python3'
    """
    words = command.replace("\\", "/").split()
    return words[0].rsplit("/", 1)[-1] if words else ""


TRANSFORMS: Mapping[str, Callable[[str], str] | None] = {
    "none": None,
    "path_class": path_class,
    "command_name": command_name,
}
"""How text becomes a category: as it is, by ``path_class`` or by ``command_name``."""


def group_of(name: str) -> str:
    """The sensor group that sees a column, by its name; ``common`` (seen by all) where no rule fits.

    Example:
        >>> group_of("dst_port"), group_of("file_size"), group_of("kind")
        ('network', 'file', 'common')
    """
    return next((group for group, pattern in _GROUPS if pattern.search(name)), "common")


@dataclass(frozen=True)
class Feature:
    """A column to encode.

    Attributes:
        name: in the observation.
        source: column of the event table.
        transform: key of ``TRANSFORMS`` (categories only).
        numeric: a number instead of a category.
    """

    name: str
    source: str
    transform: str = "none"
    numeric: bool = False


@dataclass(frozen=True)
class Chosen:
    """Features, and what was left out and why."""

    features: tuple[Feature, ...]
    notes: tuple[str, ...]


def choose_features(
    table: EventTable, rows: Int[np.ndarray, " row"], features: Sequence[str] | None, max_values: int
) -> Chosen:
    """The default features, or exactly those asked for.

    Left out by default: truth and splits, what is filled in for the malicious (or the benign) rows alone, times and
    positions (by name, or strictly monotone with the row order), ids (by name, or text that is mostly unique), copies
    of the label or of another column, functions of the kind, constants.

    Args:
        table: events.
        rows: training rows; nothing else is looked at.
        features: source columns to take, or ``None``.
        max_values: a whole-number code column with more values than this is taken as a number.

    Raises:
        UsageError: an unknown feature, the label as a feature, or none.
    """
    if features is not None:
        return _asked_for(table, rows, features)
    frame, labels = table.frame[rows], table.labels[rows]
    kinds = frame["kind"].n_unique()
    chosen, notes, skipped_id, skipped_time = [], [], [], []
    truth = [name for name in frame.columns if is_truth(name)]
    for name in ("kind", "object_kind", "path", "command"):
        if name in frame.columns:
            _add(chosen, notes, frame, _feature(frame[name]))
    for name in [name for name in frame.columns if name not in (*CONTRACT_COLUMNS, *truth)]:
        series = frame[name]
        if _TIME.search(name) or (series.dtype.is_numeric() and _is_monotone(series)):
            skipped_time.append(name)
            continue
        if _IDENTITY.search(name) or (series.dtype == pl.String and _is_id_like(series)):
            skipped_id.append(name)
            continue
        feature = _feature(series)
        is_code = series.dtype.is_integer() and _CODE.search(name) is not None
        values = series.n_unique()
        twin = _twin(frame, name, labels, kinds, is_code) if values > 1 else None
        if twin:
            notes.append(f"{name} left out: {twin}")
        else:
            _add(chosen, notes, frame, Feature(name, name) if is_code and values <= max_values else feature)
    for what, names in (("truth", truth), ("ids", skipped_id), ("times or positions", skipped_time)):
        if names:
            notes.append(f"left out as {what}: {', '.join(names)}")
    return Chosen(tuple(chosen), tuple(notes))


def is_identity(name: str) -> bool:
    """Whether a column's name says that it tells who or which one.

    Example:
        >>> is_identity("process_pid"), is_identity("size")
        (True, False)
    """
    return _IDENTITY.search(name) is not None


def is_truth(name: str) -> bool:
    """Whether a column's name says that it holds what is known of an event only afterwards.

    Example:
        >>> is_truth("technique"), is_truth("path")
        (True, False)
    """
    return name in TRUTH_COLUMNS or (name not in CONTRACT_COLUMNS and _TRUTH.search(name) is not None)


def _asked_for(table: EventTable, rows: Int[np.ndarray, " row"], features: Sequence[str]) -> Chosen:
    if not features:
        raise UsageError(
            "features is an empty list; name at least one column, or leave it out for the default"
        )
    chosen, notes = [], []
    by_name = {"path_class": "path", "command_name": "command"}
    for asked in dict.fromkeys(features):
        name = asked if asked in table.columns else by_name.get(asked, asked)
        if name not in table.columns:
            raise unknown_name("feature", asked, table.columns)
        simulated = set(TRUTH_COLUMNS) <= set(table.columns)
        if name in (TRUTH_COLUMNS if simulated else ("label", "campaign", "stage")):
            raise UsageError(
                f"feature {name!r} is the truth itself; choose columns that exist before the verdict"
            )
        chosen.append(_feature(table.frame[name]))
        if table.frame[name][rows].n_unique() < 2:
            notes.append(f"{name} is constant on the training rows; kept because it was asked for")
    return Chosen(tuple(chosen), tuple(notes))


def _feature(series: pl.Series) -> Feature:
    name = series.name
    if series.dtype != pl.String:
        return Feature(name, name, numeric=True)
    if _PATH.search(name):
        return Feature("path_class" if name == "path" else name, name, "path_class")
    if _COMMAND.search(name):
        return Feature("command_name" if name == "command" else name, name, "command_name")
    return Feature(name, name)


def _add(chosen: list[Feature], notes: list[str], frame: pl.DataFrame, feature: Feature) -> None:
    if frame[feature.source].n_unique() < 2:
        notes.append(f"{feature.source} left out: constant on the training rows")
    else:
        chosen.append(feature)


def _is_monotone(series: pl.Series) -> bool:
    """Whether a column rises or falls strictly from row to row, so that it tells the position."""
    if len(series) < 3 or series.null_count():
        return False
    steps = np.diff(series.to_numpy().astype(np.float64))
    return bool((steps > 0).all() or (steps < 0).all())


def _is_id_like(series: pl.Series) -> bool:
    filled = series.filter(series != "")
    return filled.n_unique() > max(_FEW, _ID_LIKE_SHARE * len(filled))


def _twin(
    frame: pl.DataFrame, name: str, labels: Int8[np.ndarray, " row"], kinds: int, is_code: bool
) -> str | None:
    """What a column merely repeats, if anything."""
    series = frame[name]
    empty = (series.is_null() | (series == "") if series.dtype == pl.String else series.is_null()).to_numpy()
    known = labels >= 0
    for what, side in (("malicious", 1), ("benign", 0)):
        both = len(np.unique(labels[known])) == 2
        if both and np.array_equal(~empty[known], labels[known] == side):
            return f"it is filled in for the {what} rows alone"
    for other in ("path", "command", "subject", "parent", "object", "host"):
        if other in frame.columns and other != name and series.cast(pl.String).eq_missing(frame[other]).all():
            return f"the same as {other}"
    if series.dtype == pl.Boolean or series.dtype.is_integer():
        known = labels >= 0
        values = series.cast(pl.Int64).fill_null(-2).to_numpy()[known]
        if known.any() and values.min() != values.max() and np.array_equal(values, labels[known]):
            return "the same as the label"
    if (
        (series.dtype == pl.String or is_code)
        and kinds > 1
        and frame.select(pl.struct("kind", name).n_unique()).item() == kinds
    ):
        return "it follows from the kind"
    return None
