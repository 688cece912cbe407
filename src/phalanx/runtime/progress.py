"""How a long command shows that it moves: a panel on a terminal, else a line every few seconds; always on stderr."""

import logging
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import IO, TYPE_CHECKING, Any, ClassVar, Protocol, cast, runtime_checkable

from phalanx.analysis.doctor.finding import Finding

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Progress", "progress_on"]

_SHOWN = (
    ("value loss", "loss/value"),
    ("explained", "value/explained_variance"),
    ("allow", "policy/rate_allow"),
    ("alert", "policy/rate_alert"),
    ("block", "policy/rate_block"),
    ("quarantine", "policy/rate_quarantine"),
)

_REDRAWN_S = 0.1
"""Least time from one drawing of the panel to the next."""


@runtime_checkable
class Stream(Protocol):
    """A text stream: stderr, or what a test puts in its place."""

    def write(self, text: str, /) -> int: ...

    def flush(self) -> None: ...

    def isatty(self) -> bool: ...


class Progress:
    """Takes the metrics of each iteration and shows nothing; its subclasses do."""

    shows_findings: ClassVar[bool] = False
    """Whether ``diagnose`` shows anything, so that the doctor is worth asking for it."""

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        """Ends the display, whatever ended the work."""

    def recall(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Takes the iterations that a run had before it went on."""

    def diagnose(self, findings: Sequence[Finding] | None) -> None:
        """Takes what the doctor says now, the gravest first; what it said before no longer counts.

        Args:
            findings: shown with the next iteration; None where it has not looked.
        """

    def update(self, row: Mapping[str, Any]) -> None:
        """Shows an iteration that ended.

        Args:
            row: its metrics as in ``metrics.jsonl``; keys that are missing or null are left out.
        """


class _Pace:
    """How long the rest will take, by the iterations that were seen."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._first: tuple[int, float] | None = None

    def left(self, iteration: int, now_s: float) -> str | None:
        """The time left in words; None at the first iteration seen."""
        first, start_s = self._first = self._first or (iteration, now_s)
        if iteration <= first:
            return None
        return _duration((now_s - start_s) / (iteration - first) * (self._total - iteration))


class _OnTerminal(Progress):
    """A panel that stays below whatever else is written to the terminal."""

    shows_findings = True

    def __init__(
        self, total: int, stream: Stream, label: str, clock: Callable[[], float], console: "Console"
    ) -> None:
        from rich.live import Live

        from phalanx.runtime.panel import Panel

        self._panel, self._pace, self._clock = Panel(label, total), _Pace(total), clock
        self._stream, self._console, self._total = stream, console, total
        self._shown_s = -float("inf")
        self._open = ExitStack()
        self._live = Live(
            self._panel,
            console=console,
            auto_refresh=False,  # no thread: it is drawn anew when an iteration ends
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
        )

    def __enter__(self) -> Progress:
        with ExitStack() as stack:
            stack.enter_context(self._live)
            self._take_logs(stack)
            self._open = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _take_logs(self, stack: ExitStack) -> None:
        """Lets log messages appear above the panel: their handlers hold the stream itself, past any redirection."""
        from rich.file_proxy import FileProxy

        for handler in logging.getLogger().handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is self._stream:
                handler.setStream(FileProxy(self._console, cast(IO[str], self._stream)))
                stack.callback(handler.setStream, self._stream)

    def recall(self, rows: Iterable[Mapping[str, Any]]) -> None:
        for row in rows:
            self._panel.update(row, None)
        self._live.refresh()

    def diagnose(self, findings: Sequence[Finding] | None) -> None:
        self._panel.diagnose(findings)

    def update(self, row: Mapping[str, Any]) -> None:
        iteration, now_s = int(row["iteration"]), self._clock()
        self._panel.update(row, self._pace.left(iteration, now_s))
        if now_s - self._shown_s >= _REDRAWN_S or iteration == self._total:
            self._shown_s = now_s
            self._live.refresh()


class _Lines(Progress):
    def __init__(
        self, total: int, stream: Stream, label: str, every_s: float, clock: Callable[[], float]
    ) -> None:
        self._total, self._stream, self._label = total, stream, label
        self._every_s, self._clock, self._pace = every_s, clock, _Pace(total)
        self._last_s = -float("inf")

    def update(self, row: Mapping[str, Any]) -> None:
        iteration, now_s = int(row["iteration"]), self._clock()
        left = self._pace.left(iteration, now_s)
        if now_s - self._last_s < self._every_s and iteration < self._total:
            return
        self._last_s = now_s
        told = f", {left} left" if left is not None else ""
        line = f"{self._label} {iteration}/{self._total}{told}: {_values(row)}"
        print(line, file=self._stream, flush=True)


def progress_on(
    total: int,
    *,
    label: str = "train",
    stream: Stream | None = None,
    every_s: float = 5.0,
    clock: Callable[[], float] = time.monotonic,
) -> Progress:
    """The display that suits a stream: a panel on a terminal, else a line every few seconds and one at the end.

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
        from rich.console import Console

        console = Console(file=cast(IO[str], shown_on))
        if console.is_interactive:  # no dumb terminal, nor one that the user wants no motion on
            return _OnTerminal(total, shown_on, label, clock, console)
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
