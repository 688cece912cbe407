"""``phalanx ingest``: recorded telemetry into an event table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from phalanx.cli_command import parse
from phalanx.errors import UsageError

__all__ = ["Ingest", "command"]


@dataclass(frozen=True)
class Ingest:
    """Reads telemetry of any known format and writes one event table.

    Bad rows go to a file beside it, OUT with the suffix .rejects.jsonl, each with its reason.

    Example: phalanx ingest audit-1.parquet audit-2.parquet --label is_suspicious --out events.parquet
    """

    sources: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="SRC...")]
    """Files or folders to read."""
    out: Path
    """File to write; the suffix names the format: .parquet, .arrow, .csv or .ndjson."""
    format: str = "auto"
    """Format of the sources; auto finds it out from their content."""
    label: Annotated[str | None, tyro.conf.arg(metavar="COLUMN")] = None
    """Column of the sources that says which events are malicious."""
    mapping: Annotated[Path | None, tyro.conf.arg(name="map", metavar="FILE")] = None
    """File that maps the sources' columns and values to those of the event table."""
    seed: int = 0
    """Accepted by every verb; reading uses no randomness."""
    json: bool = False
    """Print the result as one JSON object."""

    def run(self) -> dict[str, Any]:
        """Writes the table and says what was read, filled in and set aside."""
        if not self.sources:
            raise UsageError("ingest: no source. Name the files to read: phalanx ingest SRC... --out FILE")
        from phalanx.data.readers import ingest
        from phalanx.files import json_safe

        report = ingest(self.sources, self.out, format=self.format, label=self.label, mapping=self.mapping)
        return json_safe(report)


def command(arguments: Sequence[str]) -> Ingest:
    """The command that the arguments ask for."""
    return parse(Ingest, "ingest", arguments)
