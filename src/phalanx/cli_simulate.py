"""``phalanx simulate``: a table of simulated events with truth."""

import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from phalanx.cli_command import parse
from phalanx.errors import UsageError

__all__ = ["Simulate", "command"]

_LOG = logging.getLogger("phalanx")


@dataclass(frozen=True)
class Simulate:
    """Simulates hosts at work and attack campaigns among them, and writes every event with its truth.

    Example: phalanx simulate --out events.parquet --hosts 8 --hours 6 --campaigns 3 --seed 0
    """

    out: Path
    """File to write; the suffix names the format: .parquet, .arrow, .csv or .ndjson."""
    hosts: int = 8
    """Number of hosts."""
    hours: float = 6.0
    """Simulated time, in hours."""
    campaigns: int = 3
    """Number of attack campaigns; all start in the first half."""
    scenario: str = "office"
    """Name of the world, one of those in docs/catalogue.md."""
    operations: bool = False
    """One row for each operation instead of each record, which stands for some 75 of them on average."""
    seed: int = 0
    """Seed of all randomness."""
    json: bool = False
    """Print the result as one JSON object."""

    def run(self) -> dict[str, Any]:
        """Writes the table as it is simulated and counts what is in it."""
        for name, value, least in (("hosts", self.hosts, 1), ("campaigns", self.campaigns, 0)):
            if value < least:
                raise UsageError(f"--{name} {value}: expected {least} or more")
        if not 0.0 < self.hours < float("inf"):
            raise UsageError(f"--hours {self.hours}: expected a number above 0")
        from phalanx.envs.export import write_table
        from phalanx.runtime.compile_cache import use_compile_cache

        use_compile_cache()
        written = write_table(
            self.out,
            hosts=self.hosts,
            hours=self.hours,
            campaigns=self.campaigns,
            seed=self.seed,
            scenario=self.scenario,
            operations=self.operations,
        )
        if written.campaigns < self.campaigns:
            _LOG.info(
                "%d of the %d campaigns show: the others found no host or did nothing in this time",
                written.campaigns,
                self.campaigns,
            )
        return {"out": self.out, **asdict(written), "scenario": self.scenario, "seed": self.seed}


def command(arguments: Sequence[str]) -> Simulate:
    """The command that the arguments ask for."""
    return parse(Simulate, "simulate", arguments)
