"""Where something stands in a text, as people count: lines and columns from 1, the line itself and a caret."""

from typing import TypeVar

from phalanx.errors import PhalanxError

__all__ = ["misplaced", "named", "place"]

Failure = TypeVar("Failure", bound=PhalanxError)


def place(text: str, at: int) -> str:
    """The place of a character.

    Example:
        >>> place("x > 0", 4), place("x > 0;\\n y", 8)
        ('column 5', 'line 2, column 2')
    """
    column = at - text.rfind("\n", 0, at)
    return f"line {text.count(chr(10), 0, at) + 1}, column {column}" if "\n" in text else f"column {column}"


def misplaced(kind: type[Failure], text: str, at: int, message: str) -> Failure:
    """An error that says its place; the line and a caret below the character are its note.

    Example:
        >>> error = misplaced(PhalanxError, "x > > 3", 4, "expected a formula")
        >>> print(error, error.__notes__[0], sep="\\n")
        column 5: expected a formula
          x > > 3
              ^
    """
    start = text.rfind("\n", 0, at) + 1
    line = text[start:].split("\n")[0]
    indent = "".join("\t" if character == "\t" else " " for character in text[start:at])
    error = kind(f"{place(text, at)}: {message}")
    error.add_note(f"  {line}\n  {indent}^")
    return error


def named(error: Failure, what: str) -> Failure:
    """The error with what it is about before its message, and its notes.

    Example:
        >>> print(named(misplaced(PhalanxError, "x >", 3, "expected a formula"), "limits.stl"))
        limits.stl: column 4: expected a formula
    """
    about = type(error)(f"{what}: {error}")
    for note in getattr(error, "__notes__", ()):
        about.add_note(note)
    return about
