"""What a terminal shows of a run that goes on: how far it is, how it fares, and what the doctor says of it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console, ConsoleOptions
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from phalanx.analysis.doctor.finding import Finding, subject
from phalanx.runtime.sparkline import ASCII, BLOCKS, sparkline

__all__ = ["Panel"]


@dataclass(frozen=True)
class _Quantity:
    """One row of the table.

    Attributes:
        name: as shown.
        key: in ``metrics.jsonl``.
        unless: a key that tells the same better; where a run has it, this row is left out.
        bounds: what the lowest and the highest character stand for; the least and the most so far unless given.
        log: drawn by its logarithm, as it runs through orders of magnitude.
    """

    name: str
    key: str
    unless: str | None = None
    bounds: tuple[float, float] | None = None
    log: bool = False


_QUANTITIES = (
    _Quantity("value loss", "loss/value", log=True),
    _Quantity("explained variance", "value/explained_variance", bounds=(0.0, 1.0)),
    _Quantity("entropy share", "policy/entropy_share", bounds=(0.0, 1.0)),
    _Quantity("entropy", "policy/entropy", unless="policy/entropy_share"),
    _Quantity("approx KL", "policy/approx_kl", log=True),
    _Quantity("reward per step", "reward/step"),
    _Quantity("reward per episode", "reward/episode", unless="reward/step"),
    _Quantity("validation F1", "eval/f1", bounds=(0.0, 1.0)),
)
_VERDICTS = ("allow", "alert", "block", "quarantine")
_COLOURS = {"error": "bold red", "warning": "yellow", "info": "blue"}
_NAME_WIDTH, _VALUE_WIDTH, _COURSE_WIDTH, _BAR_WIDTH = 20, 10, 46, 30
_MOST_FINDINGS = 3


class Panel:
    """A few lines for ``rich`` to draw, never wider than its console.

    Args:
        label: what moves.
        total: number of the last iteration.

    Example:
        >>> import io
        >>> panel, shown = Panel("train", 4), io.StringIO()
        >>> panel.update({"iteration": 1, "loss/value": 8.0}, None)
        >>> panel.update({"iteration": 2, "loss/value": 0.5}, "9s")
        >>> panel.diagnose([])
        >>> Console(file=shown, width=60).print(panel)
        >>> for line in shown.getvalue().splitlines()[1:]:
        ...     print(line.strip())
        value loss                 0.5  █▁
        doctor: nothing found
    """

    def __init__(self, label: str, total: int) -> None:
        self._label, self._total = label, total
        self._iteration, self._left = 0, ""
        self._now: dict[str, float] = {}
        self._courses: dict[str, list[float]] = {each.key: [] for each in _QUANTITIES}
        self._findings: Sequence[Finding] | None = None

    def update(self, row: Mapping[str, Any], left: str | None) -> None:
        """Takes an iteration that ended.

        Args:
            row: its metrics; what it lacks stays as it was, what is null or not finite is a gap.
            left: time that the rest will take, in words, if known.
        """
        self._iteration, self._left = int(row["iteration"]), left or ""
        for key in (*self._courses, *(f"policy/rate_{verdict}" for verdict in _VERDICTS)):
            if key in row:
                self._now[key] = math.nan if row[key] is None else float(row[key])
                if key in self._courses:
                    self._courses[key].append(self._now[key])

    def diagnose(self, findings: Sequence[Finding] | None) -> None:
        """Takes what the doctor says now, in place of what it said before; None where it has not looked."""
        self._findings = findings

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[Table | Text]:
        yield self._header()
        for line in (*self._table(options), *self._doctor()):
            line.no_wrap, line.overflow = True, "crop"
            yield line

    def _header(self) -> Table:
        header = Table.grid(padding=(0, 2, 0, 0))
        for _ in range(4):
            header.add_column(no_wrap=True, overflow="crop")
        header.add_row(
            self._label,
            ProgressBar(self._total, self._iteration, width=_BAR_WIDTH),
            f"{self._iteration} of {self._total}",
            f"{self._left} left" if self._left else "",
        )
        return header

    def _table(self, options: ConsoleOptions) -> Iterator[Text]:
        width = min(_COURSE_WIDTH, options.max_width - 2 - _NAME_WIDTH - _VALUE_WIDTH - 2)
        heights = BLOCKS if _can_show(BLOCKS, options) else ASCII
        for each in _QUANTITIES:
            if each.key not in self._now or each.unless in self._now:
                continue
            course = self._courses[each.key]
            drawn = sparkline(
                _logarithms(course) if each.log else course, width, bounds=each.bounds, heights=heights
            )
            now = self._now[each.key]
            value = "-" if math.isnan(now) else f"{now:.3g}"
            yield Text.assemble(f"  {each.name:<{_NAME_WIDTH}}{value:>{_VALUE_WIDTH}}  ", (drawn, "cyan"))
        rates = {verdict: self._now.get(f"policy/rate_{verdict}", math.nan) for verdict in _VERDICTS}
        told = ", ".join(f"{verdict} {rate:.0%}" for verdict, rate in rates.items() if not math.isnan(rate))
        if told:
            yield Text(f"  {'verdicts':<{_NAME_WIDTH}}{told}")

    def _doctor(self) -> Iterator[Text]:
        if not self._findings:
            said = ("no word yet", "dim") if self._findings is None else ("nothing found", "green")
            yield Text.assemble("  doctor: ", said)
            return
        n, n_hidden = len(self._findings), max(0, len(self._findings) - _MOST_FINDINGS)
        hidden = f", {n_hidden} of them not shown" if n_hidden else ""
        yield Text(f"  doctor: {n} finding{'s' * (n > 1)}{hidden}")
        for finding in self._findings[:_MOST_FINDINGS]:
            severity = (f"{finding.severity:<8}", _COLOURS[finding.severity])
            yield Text.assemble("    ", severity, _told(finding))


def _told(finding: Finding) -> str:
    """A finding in a line: what, since when, in how many seeds, of which specification."""
    spec, seeds = subject(finding), finding.evidence.get("seeds")
    since = "" if finding.iteration is None else f" since iteration {finding.iteration}"
    return f"{finding.symptom}{since}{f' ({seeds} seeds)' if seeds else ''}{f': {spec}' if spec else ''}"


def _logarithms(course: Sequence[float]) -> list[float]:
    """Logarithms; what has none is drawn as low as the least that has one."""
    values = np.array(course)
    positive = values[np.isfinite(values) & (values > 0)]
    if not positive.size:
        return list(course)
    least = positive.min()
    return np.log(np.where(values < least, least, values)).tolist()


def _can_show(text: str, options: ConsoleOptions) -> bool:
    """Whether the terminal's encoding has these characters."""
    if options.legacy_windows:
        return False
    try:
        text.encode(options.encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
