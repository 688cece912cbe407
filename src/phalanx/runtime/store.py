"""The folder of a run: what is written where, and how it is read back after any interruption.

::

    config.json      all resolved values, and the version that wrote them
    encoder.json     how columns become ids and scaled numbers
    data.json        SHA-256 of the files it learns from
    operating_point.json  threshold of the kept committee, from validation
    metrics.jsonl    one object an iteration
    checkpoints/     the newest two and the best
    tensorboard/     the metrics again, for TensorBoard
    eval.json        the last evaluation
    report.html      the report
    seed-<i>/        with several seeds: one such folder each

Every file but ``metrics.jsonl`` is replaced atomically; of that one only the last line can be torn, and readers leave a
torn last line out.
"""

import importlib.metadata
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from phalanx.errors import RunError, UsageError
from phalanx.files import is_temporary, json_safe, to_json, write_json, write_text
from phalanx.runtime.checkpoints import Checkpoints
from phalanx.stl.specs import Spec, read_specs

__all__ = ["MetricLog", "RunFolder", "run_folders"]

_VERSION_KEY = "phalanx_version"


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, or the parent of one run per seed.

    Attributes:
        path: the folder.
    """

    path: Path

    @classmethod
    def create(cls, path: Path, config: Mapping[str, Any], *, resume: bool = False) -> "RunFolder":
        """Makes the folder and writes ``config.json``.

        Args:
            path: missing or empty, unless resumed.
            config: all resolved values of the run; ``phalanx_version`` is added.
            resume: the run is there and goes on: its configuration is replaced, the rest is kept.

        Raises:
            UsageError: for a folder that holds something, when not resuming; for a path that is a file.
            RunError: when resuming what is not a run.
        """
        folder = cls(Path(path))
        if folder.path.exists() and not folder.path.is_dir():
            raise UsageError(f"{path}: is a file, not a folder. Name another folder with --out")
        if resume:
            folder = cls.open(path)
        elif folder.path.is_dir() and any(not is_temporary(entry) for entry in folder.path.iterdir()):
            raise UsageError(
                f"{path}: is not empty. Name another folder with --out, or continue the run in it with --resume {path}"
            )
        folder.path.mkdir(parents=True, exist_ok=True)
        for entry in folder.path.rglob(".*.tmp"):
            entry.unlink(missing_ok=True)  # what a kill left behind
        write_json(folder.path / "config.json", {_VERSION_KEY: _version(), **config})
        return folder

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run.

        Raises:
            RunError: where there is no such folder or it is not a run's.
        """
        folder = cls(Path(path))
        if not folder.path.is_dir():
            raise RunError(f"{path}: no such run. Name a folder that `phalanx train` wrote")
        if not (folder.path / "config.json").is_file():
            raise RunError(
                f"{path}: not a run: it has no config.json. Name a folder that `phalanx train` wrote"
            )
        folder.config()
        return folder

    @property
    def checkpoints(self) -> Checkpoints:
        """The checkpoints of this run."""
        return Checkpoints(self.path / "checkpoints")

    def seed_path(self, index: int) -> Path:
        """Where the run of a seed lies, index counted from 0."""
        return self.path / f"seed-{index}"

    def config(self) -> dict[str, Any]:
        """All resolved values of the run, without the version that wrote them.

        Raises:
            RunError: where the file is missing or damaged.
        """
        config = _read_object(self.path / "config.json", "Restore it, or train anew")
        return {key: value for key, value in config.items() if key != _VERSION_KEY}

    def version(self) -> str:
        """The version of phalanx that wrote ``config.json``."""
        return str(
            _read_object(self.path / "config.json", "Restore it, or train anew").get(_VERSION_KEY, "unknown")
        )

    def write_encoder(self, text: str) -> None:
        """Keeps the encoder's JSON text as ``encoder.json``."""
        write_text(self.path / "encoder.json", text)

    def read_encoder(self) -> str:
        """The JSON text of the encoder.

        Raises:
            RunError: where there is none.
        """
        path = self.path / "encoder.json"
        if not path.is_file():
            raise RunError(f"{path}: missing. Restore it, or train anew")
        return path.read_text()

    def write_specs(self, specs: Path) -> None:
        """Keeps a specification file as ``specs.stl``, unless there is one already."""
        if not (self.path / "specs.stl").exists():
            write_text(self.path / "specs.stl", specs.read_text(encoding="utf-8-sig"))

    def read_specs(self) -> tuple[Spec, ...]:
        """The specifications that the run learned under; none where it had none."""
        path = self.path / "specs.stl"
        return read_specs(path) if path.is_file() else ()

    def write_data(self, fingerprints: Mapping[str, str]) -> None:
        """Keeps the hashes of the run's data files as ``data.json`` (see ``runtime.fingerprint``)."""
        write_json(self.path / "data.json", fingerprints)

    def read_data(self) -> dict[str, str]:
        """The hashes of the run's data files, none where it has none.

        Raises:
            RunError: where the file is damaged.
        """
        path = self.path / "data.json"
        return _read_object(path, "Train anew") if path.exists() else {}

    def write_operating_point(self, point: Mapping[str, Any]) -> None:
        """Keeps where the best checkpoint's committee answers as ``operating_point.json``."""
        write_json(self.path / "operating_point.json", point)

    def read_operating_point(self) -> dict[str, Any]:
        """Where the best checkpoint's committee answers.

        Raises:
            RunError: where there is none yet, or it is damaged.
        """
        path = self.path / "operating_point.json"
        if not path.is_file():
            raise RunError(f"{path}: missing: the run has not been validated yet. Go on with --resume")
        return _read_object(path, "Restore it, or train anew")

    def write_eval(self, result: Mapping[str, Any]) -> None:
        """Keeps the last evaluation as ``eval.json``."""
        write_json(self.path / "eval.json", result)

    def read_eval(self) -> dict[str, Any] | None:
        """The last evaluation, None before the first.

        Raises:
            RunError: where the file is damaged.
        """
        path = self.path / "eval.json"
        return _read_object(path, "Write it anew with `phalanx evaluate`") if path.exists() else None

    def read_metrics(self) -> list[dict[str, Any]]:
        """One object an iteration, in the order written; a torn last line is left out.

        Raises:
            RunError: for any other line that is no object with an iteration.
        """
        path = self.path / "metrics.jsonl"
        lines = path.read_bytes().split(b"\n") if path.exists() else []
        rows = []
        for number, line in enumerate(lines[:-1], start=1):  # what follows the last newline is empty or torn
            row = _parse(line)
            if not isinstance(row, dict) or not isinstance(row.get("iteration"), int):
                raise RunError(
                    f"{path}, line {number}: expected an object with the key iteration, found {line[:40]!r}. "
                    "Delete the line, or restore the file"
                )
            rows.append(row)
        return rows

    def truncate_metrics(self, iteration: int) -> None:
        """Drops the rows after an iteration and a torn last line, so that a resumed run repeats none."""
        rows = [row for row in self.read_metrics() if row["iteration"] <= iteration]
        write_text(self.path / "metrics.jsonl", "".join(to_json(row) + "\n" for row in rows))

    @contextmanager
    def metrics(self) -> Iterator["MetricLog"]:
        """Opens ``metrics.jsonl`` and ``tensorboard/`` for appending, until the block ends."""
        from tensorboardX import SummaryWriter

        rows = self.read_metrics()
        next_step = rows[-1]["iteration"] + 1 if rows else 0
        writer = SummaryWriter(str(self.path / "tensorboard"), purge_step=next_step or None)
        try:
            with open(self.path / "metrics.jsonl", "ab", buffering=0) as file:
                yield MetricLog(file, writer)
        finally:
            writer.close()


class MetricLog:
    """Appends rows to ``metrics.jsonl`` and to TensorBoard's files (see ``RunFolder.metrics``)."""

    def __init__(self, file: IO[bytes], writer: Any) -> None:
        self._file = file
        self._writer = writer

    def write(self, row: Mapping[str, Any]) -> None:
        """Appends one iteration; numbers that are not finite become null.

        Args:
            row: scalars by name, among them ``iteration``.

        Raises:
            UsageError: where ``iteration`` is missing.
        """
        values = json_safe(row)
        if not isinstance(values.get("iteration"), int):
            raise UsageError(f"a row of metrics needs a whole number under iteration; found {sorted(values)}")
        self._file.write((to_json(values) + "\n").encode())
        for name, value in values.items():
            if name != "iteration" and isinstance(value, int | float):
                self._writer.add_scalar(name, value, values["iteration"])


def run_folders(path: Path) -> tuple[RunFolder, ...]:
    """The runs that a path stands for: one per seed, in the order of the seeds, where it is the parent of several.

    Raises:
        RunError: where it is neither a run nor the parent of runs.
    """
    path = Path(path)
    children = [child for child in path.glob("seed-*") if (child / "config.json").is_file()]
    if children:
        children.sort(key=lambda child: (len(child.name), child.name))
        return tuple(RunFolder.open(child) for child in children)
    return (RunFolder.open(path),)


def _version() -> str:
    return importlib.metadata.version("phalanx")


def _parse(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def _read_object(path: Path, remedy: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise RunError(f"{path}: missing. {remedy}") from None
    except ValueError as error:
        raise RunError(f"{path}: not JSON ({error}). {remedy}") from error
    if not isinstance(value, dict):
        raise RunError(f"{path}: expected an object, found {type(value).__name__}. {remedy}")
    return value
