"""How a long command shows that it moves: a bar on a terminal, else a line every few seconds; always on stderr."""

import sys
import time
from collections.abc import Callable, Mapping
from typing import IO, Any, Protocol, cast, runtime_checkable

__all__ = ["Progress", "progress_on"]

_SHOWN = (
    ("value loss", "loss/value"),
    ("explained", "value/explained_variance"),
    ("allow", "policy/rate_allow"),
    ("alert", "policy/rate_alert"),
    ("block", "policy/rate_block"),
    ("quarantine", "policy/rate_quarantine"),
)


@runtime_checkable
class Stream(Protocol):
    """A text stream: stderr, or what a test puts in its place."""

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...

    def isatty(self) -> bool: ...


class Progress:
    """Takes the metrics of each iteration and shows nothing; its subclasses do."""

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the display, whatever ended the work."""

    def update(self, row: Mapping[str, Any]) -> None:
        """Shows an iteration that ended.

        Args:
            row: its metrics as in ``metrics.jsonl``; keys that are missing or null are left out.
        """


class _Bar(Progress):
    def __init__(self, total: int, stream: Stream, label: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as RichProgress

        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[values]}"),
            console=Console(file=cast(IO[str], stream)),
        )
        self._task = self._bar.add_task(label, total=total, values="")

    def __enter__(self) -> Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, row: Mapping[str, Any]) -> None:
        self._bar.update(self._task, completed=int(row["iteration"]), values=_values(row))


class _Lines(Progress):
    def __init__(
        self, total: int, stream: Stream, label: str, every_s: float, clock: Callable[[], float]
    ) -> None:
        self._total, self._stream, self._label = total, stream, label
        self._every_s, self._clock = every_s, clock
        self._first: tuple[int, float] | None = None
        self._last_s = -float("inf")

    def update(self, row: Mapping[str, Any]) -> None:
        iteration, now_s = int(row["iteration"]), self._clock()
        first, start_s = self._first = self._first or (iteration, now_s)
        if now_s - self._last_s < self._every_s and iteration < self._total:
            return
        self._last_s = now_s
        left = ""
        if iteration > first:
            left_s = (now_s - start_s) / (iteration - first) * (self._total - iteration)
            left = f", {_duration(left_s)} left"
        line = f"{self._label} {iteration}/{self._total}{left}: {_values(row)}"
        print(line, file=self._stream, flush=True)


def progress_on(
    total: int,
    *,
    label: str = "train",
    stream: Stream | None = None,
    every_s: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> Progress:
    """The display that suits a stream: a bar on a terminal, else a line every few seconds and one at the end.

    Args:
        total: number of the last iteration.
        label: what moves.
        stream: stderr unless given; never stdout, which belongs to the result.
        every_s: least time between two lines, in s.
        clock: tells the time, in s.

    Example:
        >>> import io
        >>> shown = io.StringIO()
        >>> with progress_on(2, stream=shown, clock=iter([0.0, 9.0]).__next__) as progress:
        ...     progress.update({"iteration": 1, "loss/value": 0.5})
        ...     progress.update({"iteration": 2, "loss/value": None, "policy/rate_alert": 0.25})
        >>> print(shown.getvalue(), end="")
        train 1/2: value loss 0.5
        train 2/2, 0s left: alert 25%
    """
    shown_on = sys.stderr if stream is None else stream
    if shown_on.isatty():
        return _Bar(total, shown_on, label)
    return _Lines(total, shown_on, label, every_s, clock)


def _values(row: Mapping[str, Any]) -> str:
    parts = []
    for name, key in _SHOWN:
        value = row.get(key)
        if value is not None:
            parts.append(f"{name} {value:.0%}" if "rate" in key else f"{name} {value:.3g}")
    return ", ".join(parts)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{hours}h" if hours else "", f"{minutes}m" if hours or minutes else "", f"{rest}s"]
    return "".join(parts)
