"""``phalanx report``: the report of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from phalanx.cli_command import parse

__all__ = ["Report", "command"]


@dataclass(frozen=True)
class Report:
    """Writes report.html into a run, one page that needs nothing else; with several seeds, one page for all.

    Example: phalanx report runs/first
    """

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder that `phalanx train` wrote."""
    seed: int = 0
    """Accepted by every verb; a report uses no randomness."""
    json: bool = False
    """Print the result as one JSON object."""

    def run(self) -> dict[str, Any]:
        """Writes the report and names it."""
        from phalanx.analysis.report import write_report

        return {"report": write_report(self.run_dir)}


def command(arguments: Sequence[str]) -> Report:
    """The command that the arguments ask for."""
    return parse(Report, "report", arguments)
