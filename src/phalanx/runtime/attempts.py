"""Attempts at one task that differ in a setting or two, each trained with all its seeds in one program."""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from phalanx.analysis.attempts import attempt_row, attempts_page
from phalanx.files import write_json, write_text
from phalanx.runtime.checkup import checkup
from phalanx.runtime.config import RunConfig
from phalanx.runtime.progress import Progress
from phalanx.runtime.store import run_folders
from phalanx.runtime.train import train

__all__ = ["compare_attempts"]

_LOG = logging.getLogger("phalanx")


def compare_attempts(
    home: Path, attempts: Mapping[str, RunConfig], *, progress: Callable[..., Progress] | None = None
) -> dict[str, Any]:
    """Trains what is not there yet, and compares.

    Args:
        home: folder of the attempts, ``home/NAME`` each; one that is there goes on, or is only read where it has its
            iterations. ``attempts.json`` and ``attempts.html`` are written beside them.
        attempts: settings by name.
        progress: see ``train``.

    Raises:
        UsageError: a folder of other settings.
    """
    table: dict[str, Any] = {}
    rows: dict[str, list[list[dict[str, Any]]]] = {}
    for name, config in attempts.items():
        path = home / name.replace("/", "_")
        config = dataclasses.replace(config, out=path)
        done = (
            min((len(each.read_metrics()) for each in run_folders(path)), default=0) if path.exists() else 0
        )
        if done < config.iterations:
            _LOG.info(
                "attempt %s: %d iterations of %d, %d seeds", name, done, config.iterations, config.seeds
            )
            train(config, resume=path if path.exists() else None, progress=progress, on_red_flag=None)
        rows[name] = [each.read_metrics() for each in run_folders(path)]
        about, findings = checkup(path)
        learned = 2 * about["improved"] > about["seeds"]
        table[name] = attempt_row(rows[name], findings, learned) | {"run": str(path)}
    result = {"attempts": table}
    write_json(home / "attempts.json", result)
    write_text(home / "attempts.html", attempts_page(result, rows))
    return result | {"report": str(home / "attempts.html")}
