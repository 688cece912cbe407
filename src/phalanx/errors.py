"""What can go wrong, in words: one exception family with the exit code each error leads to."""

import difflib
from collections.abc import Iterable

__all__ = [
    "DataError",
    "ExtraMissingError",
    "PhalanxError",
    "RunError",
    "UsageError",
    "one_line",
    "unknown_name",
]


class PhalanxError(Exception):
    """Base of every error phalanx raises on purpose.

    The message names what came, where, what is allowed and what to do. It is shown in one line of printable characters,
    whatever the files and words that it repeats hold (``one_line``).
    """

    exit_code = 1

    def __str__(self) -> str:
        return one_line(super().__str__())


class UsageError(PhalanxError):
    """A flag, a name or a combination of settings that cannot work."""

    exit_code = 2


class ExtraMissingError(UsageError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {package!r}, which is not installed. "
            f"Install it with: pip install 'phalanx[{extra}]'"
        )


class DataError(PhalanxError):
    """A file or a table that is not what it should be."""

    exit_code = 3


class RunError(DataError):
    """A run folder that is missing, damaged or of another version."""


def one_line(text: str) -> str:
    r"""The text with spaces for its line ends and tabs; other characters that are not printable are written out.

    Example:
        >>> one_line("no column\t'a\nb\x1b[2J'") == r"no column 'a b\x1b[2J'"
        True
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\n\r\t" else ascii(c)[1:-1] for c in text)


def unknown_name(what: str, name: object, choices: Iterable[object]) -> UsageError:
    """The error for a name that is not among the choices, which it lists.

    Example:
        >>> str(unknown_name("normalizer", "pop", ["none", "popart"]))
        "unknown normalizer 'pop'; choose one of: none, popart"
        >>> str(unknown_name("verb", "evalute", ["train", "evaluate"]))
        "unknown verb 'evalute'; choose one of: train, evaluate; did you mean 'evaluate'?"
    """
    names = [str(choice) for choice in choices]
    near = difflib.get_close_matches(str(name), names, 1, 0.7)
    meant = f"; did you mean {near[0]!r}?" if near and len(names) > 1 else ""
    return UsageError(f"unknown {what} {name!r}; choose one of: {', '.join(names)}{meant}")
