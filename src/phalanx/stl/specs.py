"""Files of specifications: formulas with a name, a rank and words for the people whom they protect."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, NoReturn

from phalanx.errors import DataError, UsageError, unknown_name
from phalanx.stl.formula import Formula, ticks
from phalanx.stl.offline import period_in_ns
from phalanx.stl.parser import parse
from phalanx.stl.places import misplaced, named
from phalanx.stl.scaled import normalised
from phalanx.stl.tokens import seconds, tokens

__all__ = ["SEVERITIES", "Spec", "parse_specs", "read_specs"]

SEVERITIES = ("info", "low", "medium", "high", "critical")
"""How bad a violation is, the worst last."""

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_COMMENT = re.compile(r"//[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_DIRECTIVE = re.compile(
    rf"{_COMMENT.pattern}|^[ \t]*@(?P<word>\S*)[ \t]*(?P<given>[^\n]*)", re.DOTALL | re.MULTILINE
)


@dataclass(frozen=True)
class Spec:
    """A named formula.

    Attributes:
        name: letters, digits and ``_``, a letter first.
        formula: what is to hold. Its text begins with as many blank lines as stand before it, so that what points into
            it counts lines as the file does.
        priority: from 1; where specifications contradict each other the lower number wins.
        severity: one of ``SEVERITIES``.
        text: what it says, for people.
        why: the reason for it.
        period_s: the sampling period that it is meant for.
        scales: signal -> size of a change that matters, in the signal's unit (``scaled.normalised``).
        source: the file that it comes from.
        line: of its ``@spec`` there, from 1.
    """

    name: str
    formula: Formula
    priority: int = 100
    severity: str = "medium"
    text: str = ""
    why: str = ""
    period_s: float = 1.0
    scales: Mapping[str, float] = field(default_factory=dict, hash=False)
    source: str = ""
    line: int = 1

    @property
    def written(self) -> str:
        """The formula as it is written, without what stands around it."""
        words = tokens(self.formula.text)
        return self.formula.text[words[0].start : words[-2].end]

    @property
    def normalised(self) -> Formula:
        """The formula with each predicate measured in its scale."""
        return normalised(self.formula, self.scales)

    @property
    def at_each_sample(self) -> Formula:
        """What has to hold at each sample, normalised: the formula without its outermost unbounded ``always``."""
        whole = self.normalised
        root = whole.nodes[whole.root]
        return replace(whole, root=root.args[0]) if root.op == "always" and root.bounds is None else whole


def read_specs(path: Path | str) -> tuple[Spec, ...]:
    """The specifications of a file, or of all ``.stl`` files of a folder.

    Returns:
        Sorted by priority; where it is equal as they stand in the file, files by name.

    Raises:
        DataError: a file that cannot be read, or is not UTF-8.
        UsageError: see ``parse_specs``; a folder without such files; a name in two files.
    """
    path = Path(path)
    paths = sorted(path.glob("*.stl")) if path.is_dir() else [path]
    if not paths:
        raise UsageError(f"{path}: no .stl file in this folder")
    found: dict[str, Spec] = {}
    for each in paths:
        _Reader(_content(each), str(each), found).read()
    return _ranked(found)


def parse_specs(text: str, source: str = "text") -> tuple[Spec, ...]:
    """The specifications that a text holds.

    Each begins with ``@spec NAME``. Lines that begin with ``@`` before its formula say more about it: ``@priority 10``,
    ``@severity high``, ``@text ...`` and ``@why ...`` (for people; several lines are joined), ``@period 100ms``,
    ``@scale SIGNAL NUMBER`` (one line a signal). A directive takes its whole line; comments are those of formulas.

    Args:
        text: the specifications.
        source: name of the text, for errors.

    Returns:
        Sorted by priority; where it is equal as they stand in the text.

    Raises:
        UsageError: no specification, an unknown directive, a value that is none, a name twice, a formula that is
            missing or wrong, a bound that is no multiple of the period. The message has source, line and column.

    Example:
        >>> first, = parse_specs('''
        ... @spec contain
        ... @priority 1
        ... @severity critical
        ... @text A threat is contained within 5 s.
        ... always (threat > .5 -> eventually[0,5] contained > .5)
        ... ''')
        >>> first.name, first.priority, first.severity, first.line, first.formula.signals
        ('contain', 1, 'critical', 2, ('contained', 'threat'))
    """
    found: dict[str, Spec] = {}
    _Reader(text, source, found).read()
    return _ranked(found)


def _ranked(specs: Mapping[str, Spec]) -> tuple[Spec, ...]:
    return tuple(sorted(specs.values(), key=lambda spec: spec.priority))


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise DataError(
            f"{path}: cannot read the specifications ({problem.strerror}). Check the path"
        ) from None
    except UnicodeDecodeError as problem:
        raise DataError(f"{path}: not UTF-8 text ({problem}). Save it as UTF-8") from None


class _Reader:
    """Reads one text, and adds to the specifications that others held."""

    def __init__(self, text: str, source: str, specs: dict[str, Spec]) -> None:
        self.text, self.source, self.specs = text, source, specs

    def _fail(self, at: int, message: str) -> NoReturn:
        raise named(misplaced(UsageError, self.text, at, message), self.source)

    def read(self) -> None:
        """Adds what the text holds.

        Raises:
            UsageError: see ``parse_specs``.
        """
        lines = [match for match in _DIRECTIVE.finditer(self.text) if match["word"] is not None]
        first = lines[0].start() if lines else len(self.text)
        if not lines or lines[0]["word"] != "spec" or _holds_text(self.text[:first]):
            at = len(self.text) - len(self.text.lstrip())
            self._fail(at, "expected '@spec NAME' and its formula")
        begins = [index for index, line in enumerate(lines) if line["word"] == "spec"]
        for begin, stop in zip(begins, [*begins[1:], len(lines)], strict=True):
            end = lines[stop].start() if stop < len(lines) else len(self.text)
            self._spec(lines[begin:stop], end)

    def _spec(self, lines: Sequence[re.Match[str]], end: int) -> None:
        """Adds a specification, of its directives and the text that ends before ``end``."""
        head = lines[0]
        name = head["given"].strip()
        if not _NAME.fullmatch(name):
            self._fail(
                head.start("given"), f"a spec's name is letters, digits and _, a letter first, not {name!r}"
            )
        if name in self.specs:
            other = self.specs[name]
            told = f"spec {name!r} is also defined at {other.source}, line {other.line}; rename one"
            self._fail(head.start("given"), told)
        for line, following in pairwise(lines):
            if _holds_text(self.text[line.end() : following.start()]):
                self._fail(following.start("word") - 1, "directives stand before the formula; move it up")
        settings = self._settings(lines[1:])
        formula = self._formula(name, lines, end)
        spec = Spec(
            name,
            formula,
            source=self.source,
            line=self.text.count("\n", 0, head.start("word")) + 1,
            **settings,
        )
        self._check(spec, lines)
        self.specs[name] = spec

    def _settings(self, lines: Sequence[re.Match[str]]) -> dict[str, Any]:
        """What the directives say, by field."""
        found: dict[str, Any] = {}
        for line in lines:
            word, given = line["word"], line["given"].strip()
            try:
                if word not in _SETTINGS:
                    names = [f"@{each}" for each in ("spec", *_SETTINGS)]
                    raise unknown_name("directive", f"@{word}", names)
                name, read = _SETTINGS[word]
                before = found.get(name)
                if before is not None and name not in ("text", "why", "scales"):
                    raise UsageError(f"@{word} is given twice")
                found[name] = read(given, before)
            except UsageError as error:
                self._fail(line.start("given") if word in _SETTINGS else line.start("word") - 1, str(error))
        return found

    def _formula(self, name: str, lines: Sequence[re.Match[str]], end: int) -> Formula:
        start = lines[-1].end()
        if not _holds_text(self.text[start:end]):
            self._fail(
                lines[0].start("word") - 1, f"spec {name!r} has no formula; write it below its directives"
            )
        before = re.sub(r"[^\n]", " ", self.text[:start])
        try:
            return parse(before + self.text[start:end].rstrip())
        except UsageError as error:
            raise named(error, self.source) from None

    def _check(self, spec: Spec, lines: Sequence[re.Match[str]]) -> None:
        """That scales are those of signals, and the period divides the bounds."""
        for line in lines:
            if line["word"] == "scale" and (signal := line["given"].split()[0]) not in spec.formula.signals:
                self._fail(line.start("given"), str(unknown_name("signal", signal, spec.formula.signals)))
        try:
            for index in spec.formula.needed:
                ticks(spec.formula, spec.formula.nodes[index], period_in_ns(spec.period_s))
        except UsageError as error:
            raise named(error, self.source) from None


def _holds_text(text: str) -> bool:
    """Whether there is more than comments and space."""
    return bool(_COMMENT.sub("", text).strip())


def _priority(given: str, before: None) -> int:
    if not re.fullmatch(r"0*[1-9]\d{0,8}", given, re.ASCII):
        raise UsageError(f"@priority is a whole number from 1 (the most important), not {given!r}")
    return int(given)


def _severity(given: str, before: None) -> str:
    if given not in SEVERITIES:
        raise unknown_name("severity", given, SEVERITIES)
    return given


def _words(given: str, before: str | None) -> str:
    if not given:
        raise UsageError("expected words on this line")
    return f"{before} {given}" if before else given


def _period(given: str, before: None) -> float:
    period = seconds(given)
    period_in_ns(period)
    return period


def _scale(given: str, before: dict[str, float] | None) -> dict[str, float]:
    scales = before or {}
    signal, number = (*given.split(), "", "")[:2]
    try:
        size = float(number) if len(given.split()) == 2 else math.nan
    except ValueError:
        size = math.nan
    if not 0.0 < size < math.inf:
        raise UsageError(f"expected '@scale SIGNAL NUMBER', the number finite and above 0, not {given!r}")
    if signal in scales:
        raise UsageError(f"{signal!r} has two scales; delete one")
    return scales | {signal: size}


_SETTINGS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "priority": ("priority", _priority),
    "severity": ("severity", _severity),
    "text": ("text", _words),
    "why": ("why", _words),
    "period": ("period_s", _period),
    "scale": ("scales", _scale),
}
"""Directives beside @spec: their field, and what they make of the rest of the line and of what was said before."""
