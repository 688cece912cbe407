"""What a report reads from a run folder, tolerant of what is missing, torn or malformed, and silent about nothing."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from phalanx.errors import RunError

__all__ = ["ReportData", "RunData", "as_map", "load_report", "number", "series"]

_LARGEST = 1e300
"""Sums of numbers below it stay finite."""


@dataclass(frozen=True)
class RunData:
    """One training run.

    Attributes:
        name: of its folder.
        config: resolved values; empty when missing.
        metrics: one mapping per iteration, in order of iteration.
        evaluation: content of ``eval.json``; empty when missing.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    metrics: tuple[Mapping[str, Any], ...] = ()
    evaluation: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ReportData:
    """One run, or a parent with one run per seed.

    Attributes:
        name: of the folder.
        runs: the run itself, or one per seed.
        config: of the parent, else of the first run.
        evaluation: of the parent, else of the only run.
        notes: what could not be read, in words.
    """

    name: str
    runs: tuple[RunData, ...]
    config: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    notes: tuple[str, ...]

    @property
    def several(self) -> bool:
        """Whether the report is about more than one seed."""
        return len(self.runs) > 1


def as_map(value: object) -> Mapping[str, Any]:
    """The value if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def number(value: object) -> float | None:
    """The value as a finite float, else ``None``; float32 logs never hold more than 1e39.

    Example:
        >>> number(2), number("2"), number(float("nan")), number(True)
        (2.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if abs(value) < _LARGEST else None


def _read_object(path: Path, notes: list[str], place: str) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (ValueError, RecursionError, OSError) as error:
        notes.append(f"{place} could not be read ({error}); write it again and repeat the report.")
        return {}
    if not isinstance(value, dict):
        notes.append(f"{place} holds a {type(value).__name__} where an object was expected; it is left out.")
        return {}
    return value


def _read_metrics(path: Path, notes: list[str], place: str) -> tuple[Mapping[str, Any], ...]:
    if not path.is_file():
        return ()
    rows: dict[float, Mapping[str, Any]] = {}
    torn: list[int] = []
    repeated = 0
    with path.open(encoding="utf-8", errors="replace") as lines:
        for at, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError):
                row = None
            if not isinstance(row, dict):
                torn.append(at)
                continue
            iteration = number(row.get("iteration"))
            iteration = float(len(rows) + 1) if iteration is None else iteration
            repeated += iteration in rows
            rows[iteration] = {**row, "iteration": iteration}
    if torn:
        where = f"line {torn[0]}" if len(torn) == 1 else f"{len(torn)} lines, the first at {torn[0]}"
        notes.append(f"{place}: {where} could not be read (torn or not an object) and left out.")
    if repeated:
        notes.append(
            f"{place}: {repeated} iterations were logged again after a resume; the last entry counts."
        )
    if not rows:
        notes.append(f"{place} holds no readable iteration.")
    return tuple(rows[key] for key in sorted(rows))


def _read_run(folder: Path, notes: list[str], prefix: str = "") -> RunData:
    return RunData(
        name=folder.name,
        config=_read_object(folder / "config.json", notes, f"{prefix}config.json"),
        metrics=_read_metrics(folder / "metrics.jsonl", notes, f"{prefix}metrics.jsonl"),
        evaluation=_read_object(folder / "eval.json", notes, f"{prefix}eval.json"),
    )


def _seed_folders(folder: Path) -> list[Path]:
    found = [(match, path) for path in folder.iterdir() if (match := re.fullmatch(r"seed-(\d+)", path.name))]
    return [path for _, path in sorted((int(match[1]), path) for match, path in found if path.is_dir())]


def load_report(run_dir: Path) -> ReportData:
    """Reads a run folder, or the parent of ``seed-<i>`` folders.

    Raises:
        RunError: no folder, or one that holds nothing of a run.
    """
    folder = run_dir.resolve()
    if not folder.is_dir():
        raise RunError(f"{run_dir} is not a folder; pass the run folder that `phalanx train --out` wrote")
    known = ("config.json", "metrics.jsonl", "eval.json", "checkpoints")
    seeds = _seed_folders(folder)
    if not seeds and not any((folder / name).exists() for name in known):
        raise RunError(
            f"{run_dir} holds none of {', '.join(known)}, seed-<i>; "
            "pass the run folder that `phalanx train --out` wrote"
        )
    notes: list[str] = []
    own = _read_run(folder, notes)
    if not seeds:
        return ReportData(own.name, (own,), own.config, own.evaluation, tuple(notes))
    runs = tuple(_read_run(path, notes, f"{path.name}/") for path in seeds)
    evaluation = own.evaluation or _evaluation_of(runs)
    return ReportData(own.name, runs, own.config or runs[0].config, evaluation, tuple(notes))


def _mean_of(values: list[Any]) -> Any:
    """Means of equal places in nested mappings; where there are no numbers, the first seed's value."""
    if isinstance(values[0], Mapping):
        rows = [as_map(value) for value in values]
        return {key: _mean_of([row[key] for row in rows if key in row]) for key in rows[0]}
    found = [float(value) if isinstance(value, bool) else number(value) for value in values]
    known = [value for value in found if value is not None]
    return sum(known) / len(known) if known else values[0]


def _evaluation_of(runs: tuple[RunData, ...]) -> Mapping[str, Any]:
    """Seeds that were evaluated one by one: their table, and their means as the parent's values."""
    done = [{"seed": run.name, **run.evaluation} for run in runs if run.evaluation]
    if len(done) < 2:
        return done[0] if done else {}
    return {**_mean_of(done), "per_seed": done}


def series(run: RunData, key: str) -> tuple[list[float], list[float]]:
    """Iterations and values of a metric, without the iterations at which it is missing or not finite."""
    pairs = [(row["iteration"], value) for row in run.metrics if (value := number(row.get(key))) is not None]
    return [at for at, _ in pairs], [value for _, value in pairs]
