"""Reads a training log: phalanx, Stable-Baselines3, CleanRL, RLlib, TensorBoard folders, any CSV or JSON lines."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from phalanx.analysis.logs.log import Series, TrainingLog
from phalanx.analysis.logs.names import AXES, Meaning, canonical_names, meaning_of
from phalanx.analysis.logs.tables import rows_of
from phalanx.analysis.logs.tensorboard import event_files, scalars_of
from phalanx.errors import DataError, UsageError

__all__ = ["log_of_rows", "read_log"]

_FILES = ("metrics.jsonl", "result.json", "progress.csv", "progress.json")
"""What tools write into a run's folder, the richest first."""

_LARGEST = 2.0**62  # of a counter
_PER_UPDATE = ("loss/", "policy/", "value/")

Column = tuple[Int[np.ndarray, " logged"], Float[np.ndarray, " logged"]]


def read_log(path: Path, mapping: Mapping[str, str] | None = None) -> TrainingLog:
    """The log of one training run.

    Args:
        path: a file (CSV, JSON lines, TensorBoard events) or the folder of a run.
        mapping: column -> name of ``metrics.jsonl`` where the tool is not known, with a factor if need be
            ({"vf": "2*loss/value"}).

    Raises:
        UsageError: a folder of several runs, or a mapping that names nothing.
        DataError: no log there, a damaged one, or one without any quantity that is known.

    Example:
        >>> read_log(Path("runs/first"))  # doctest: +SKIP
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: no such file or folder. Name a training log or the folder that holds it")
    file = path if path.is_file() else _file_in(path)
    if file is None or "tfevents" in file.name:
        return _of_events(path, [file] if file else event_files(path), mapping)
    return _of_rows(file, rows_of(file), mapping)


def _file_in(folder: Path) -> Path | None:
    """The log in a run's folder; None where TensorBoard events are all there is.

    Raises:
        UsageError: runs lie below it.
        DataError: neither.
    """
    for name in _FILES:
        if (folder / name).is_file() and (folder / name).stat().st_size:
            return folder / name
    below = sorted({found.parent for name in _FILES for found in folder.glob(f"*/{name}")})
    if len(below) == 1:
        return _file_in(below[0])
    if not below and event_files(folder) and not (folder / "metrics.jsonl").is_file():
        return None
    if any((folder / name).is_file() for name in _FILES) and not below:
        raise DataError(f"{folder}: its log is empty: no update has ended yet")
    if below:
        listed = ", ".join(map(str, below[:5]))
        raise UsageError(
            f"{folder}: holds {len(below)} runs ({listed}{', ...' if len(below) > 5 else ''}); name one"
        )
    raise DataError(
        f"{folder}: no training log in it; expected one of {', '.join(_FILES)} or TensorBoard events"
    )


def log_of_rows(source: Path, rows: Sequence[Mapping[str, float]]) -> TrainingLog:
    """The log of a run that goes on, from the rows of its ``metrics.jsonl`` so far."""
    return _of_rows(source, rows, None)


def _of_rows(
    path: Path, rows: Sequence[Mapping[str, float]], mapping: Mapping[str, str] | None
) -> TrainingLog:
    columns: dict[str, Column] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        at = np.array([i for i, row in enumerate(rows) if name in row], np.int64)
        columns[name] = at, np.array([rows[i][name] for i in at], np.float64)
    meanings = _meanings(path, columns, mapping)
    axes = {name: _axis(name, columns, meanings, len(rows)) for name in AXES}
    iteration = axes["iteration"] if np.isfinite(axes["iteration"]).all() else np.arange(1.0, len(rows) + 1)
    order = (
        axes["env_steps"]
        if np.isnan(axes["iteration"]).any() and np.isfinite(axes["env_steps"]).all()
        else iteration
    )
    kept = order < np.append(np.minimum.accumulate(order[::-1])[::-1][1:], np.inf)
    notes = (
        [f"{(~kept).sum()} rows are left out: the counter goes back behind them"] if not kept.all() else []
    )
    place = np.cumsum(kept) - 1
    cut = {name: (place[at[kept[at]]], value[kept[at]]) for name, (at, value) in columns.items()}
    return _log(path, cut, meanings, iteration[kept].astype(np.int64), axes["env_steps"][kept], notes)


def _of_events(path: Path, files: list[Path], mapping: Mapping[str, str] | None) -> TrainingLog:
    tags = scalars_of(files)
    if not tags:
        raise DataError(f"{path}: no scalar in its TensorBoard events; expected those of a training run")
    meanings = _meanings(path, tags, mapping)
    updates = [tag for tag, meaning in meanings.items() if meaning.name.startswith(_PER_UPDATE)] or list(
        meanings
    )
    steps = np.unique(np.concatenate([tags[tag][0] for tag in updates]))
    columns = {tag: _at_updates(steps, *tags[tag]) for tag in tags}
    own = _axis("env_steps", columns, meanings, len(steps))
    counts_updates = _tool(meanings) == "phalanx"  # others count environment steps
    env_steps = own if counts_updates or np.isfinite(own).all() else steps.astype(float)
    iteration = steps if counts_updates else np.arange(1, len(steps) + 1)
    return _log(path, columns, meanings, iteration, env_steps, [])


def _at_updates(
    steps: Int[np.ndarray, " row"], step: Int[np.ndarray, " told"], value: Float[np.ndarray, " told"]
) -> Column:
    """Values by the update that they lead to: episodes that end between updates count with the next, by their mean."""
    at = np.minimum(np.searchsorted(steps, step), len(steps) - 1)
    count = np.bincount(at, minlength=len(steps))
    rows = np.flatnonzero(count)
    return rows, np.bincount(at, value, minlength=len(steps))[rows] / count[rows]


def _meanings(path: Path, columns: Iterable[str], mapping: Mapping[str, str] | None) -> dict[str, Meaning]:
    columns = list(columns)
    absent = [name for name in mapping or {} if name not in columns]
    if absent:
        raise UsageError(
            f"{path} has no column {absent[0]!r}, which the map names; it has: {', '.join(columns)}"
        )
    found = {name: meaning for name in columns if (meaning := meaning_of(name, mapping)) is not None}
    if all(meaning.name in AXES for meaning in found.values()):
        raise DataError(
            f"{path}: no known quantity among its {len(columns)} columns ({', '.join(columns[:12])}). "
            f"Say with a map which column is which, of: {', '.join(dict.fromkeys((*AXES, *canonical_names())))}"
        )
    return found


def _axis(
    name: str, columns: Mapping[str, Column], meanings: Mapping[str, Meaning], n: int
) -> Float[np.ndarray, " row"]:
    """The first column of that meaning, NaN where it is silent."""
    values = np.full(n, np.nan)
    for column, meaning in meanings.items():
        if meaning.name == name and np.isnan(values).all():
            at, value = columns[column]
            values[at] = np.where(np.abs(value) < _LARGEST, meaning.factor * value, np.nan)
    return values


def _tool(meanings: Mapping[str, Meaning]) -> str:
    told = Counter(meaning.tool for meaning in meanings.values() if meaning.tool != "unknown")
    return told.most_common(1)[0][0] if told else "unknown"


def _log(
    path: Path,
    columns: Mapping[str, Column],
    meanings: Mapping[str, Meaning],
    iteration: Int[np.ndarray, " row"],
    env_steps: Float[np.ndarray, " row"],
    notes: list[str],
) -> TrainingLog:
    series: dict[str, Series] = {}
    agents = {meaning.agent for meaning in meanings.values() if meaning.agent is not None}
    tool = _tool(meanings)
    for column, (name, factor, _, agent) in meanings.items():
        at, value = columns[column]
        known = (
            name if agent is None or (len(agents) == 1 and tool != "phalanx") else f"member/{agent}/{name}"
        )
        told = known in series and np.isfinite(series[known].value).any()  # an alias may be there and silent
        if name not in AXES and len(at) and not told:
            series[known] = Series(at, factor * value)
    for name in dict.fromkeys(name for name, *_ in meanings.values() if name not in (*series, *AXES)):
        parts = [series[f"member/{agent}/{name}"] for agent in agents if f"member/{agent}/{name}" in series]
        if parts:
            series[name] = _mean(parts)
    if tool == "rllib" and "loss/value" in series:
        notes = [
            *notes,
            "RLlib cuts squared errors at vf_clip_param (10 by default) before averaging: no value loss exceeds it",
        ]
    unread = tuple(name for name in columns if name not in meanings)
    return TrainingLog(path, tool, iteration, env_steps, series, unread, tuple(notes))


def _mean(parts: list[Series]) -> Series:
    """The mean over agents, row by row, of those that logged."""
    rows = np.unique(np.concatenate([part.row for part in parts]))
    total, count = np.zeros(len(rows)), np.zeros(len(rows))
    for part in parts:
        at = np.searchsorted(rows, part.row)
        total[at] += part.value
        count[at] += 1
    return Series(rows, total / count)
