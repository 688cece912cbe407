"""The doctor beside a run that goes on: says what it finds when it finds it, or stops the run."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from phalanx.analysis.doctor.finding import Finding, explained, identity
from phalanx.analysis.doctor.run import examine_run
from phalanx.analysis.logs import log_of_rows
from phalanx.errors import PhalanxError
from phalanx.runtime.checkup import merged

__all__ = ["ON_RED_FLAG", "RedFlagError", "RedFlags"]

ON_RED_FLAG = ("warn", "stop")

_LOG = logging.getLogger(__name__)
_EVERY = 4
"""Iterations from one look to the next."""


class RedFlagError(PhalanxError):
    """A run that was stopped because it cannot succeed; exit code 1."""


class RedFlags:
    """Watches the metrics of one run or of several seeds.

    Args:
        path: of the run, for messages.
        mode: ``warn`` logs each symptom once, ``stop`` ends the run at the first error, None does neither.
        budget: iterations that the run is to have.
        before: rows of each seed so far, of a run that goes on.
    """

    def __init__(
        self, path: Path, mode: str | None, budget: int, before: Sequence[Sequence[Mapping[str, Any]]]
    ) -> None:
        self._path, self._mode, self._budget = path, mode, budget
        self._rows: list[list[Mapping[str, Any]]] = [list(rows) for rows in before]
        self._current: tuple[Finding, ...] | None = None
        self._failed = False
        self._told = {(seed, identity(finding)) for seed, finding in self._look()} if mode else set()

    @property
    def current(self) -> tuple[Finding, ...] | None:
        """What the doctor said at its last look, of several seeds each symptom once; None before the first."""
        return self._current

    def update(self, rows: Sequence[Mapping[str, Any]], *, shown: bool = False) -> Finding | None:
        """Takes one iteration's row of each seed.

        Args:
            rows: as in ``metrics.jsonl``.
            shown: whether somebody sees ``current``; else no doctor is asked where no mode is given.

        Returns:
            The finding to stop for, in mode ``stop`` and before the last iteration.
        """
        for known, row in zip(self._rows, rows, strict=True):
            known.append(row)
        iteration = int(rows[0]["iteration"])
        if not (self._mode or shown) or (iteration % _EVERY and iteration != self._budget):
            return None
        found = self._look()
        for seed, finding in found if self._mode else ():
            if finding.severity == "info" or (seed, identity(finding)) in self._told:
                continue
            self._told.add((seed, identity(finding)))
            place = f"seed-{seed}, " if len(self._rows) > 1 else ""
            _LOG.warning(
                "%s (%siteration %s): %s. phalanx doctor %s tells more",
                finding.symptom,
                place,
                finding.iteration,
                finding.cause,
                self._path,
            )
            if self._mode == "stop" and finding.severity == "error" and iteration < self._budget:
                return finding
        return None

    def _look(self) -> list[tuple[int, Finding]]:
        """Asks the doctor about each seed."""
        found: dict[int, list[Finding]] = {}
        for seed, known in enumerate(self._rows):
            if not known:
                continue
            try:
                found[seed] = examine_run(log_of_rows(self._path, known), self._budget)
            except Exception:  # a run of hours is not to end because its doctor erred
                if not self._failed:
                    level = logging.WARNING if self._mode else logging.DEBUG
                    _LOG.log(level, "the doctor failed on this log; training goes on", exc_info=True)
                self._failed = True
        each = list(found.values())
        self._current = (tuple(each[0] if len(self._rows) == 1 else merged(each))) if each else None
        return [(seed, finding) for seed, findings in found.items() for finding in findings]

    def error(self, finding: Finding, iteration: int) -> RedFlagError:
        """What the run ends with."""
        error = RedFlagError(
            f"training stopped after iteration {iteration} of {self._budget}: {finding.symptom} since iteration "
            f"{finding.iteration}. Its last state is kept: phalanx train --resume {self._path} --on-red-flag "
            "warn goes on"
        )
        for line in explained(finding):
            error.add_note(line)
        return error
