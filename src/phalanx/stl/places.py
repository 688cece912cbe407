"""Where something stands in a text, as people count: lines and columns from 1, the line itself and a caret."""

__all__ = ["complaint", "place"]


def place(text: str, at: int) -> str:
    """The place of a character.

    Example:
        >>> place("x > 0", 4), place("x > 0;\\n y", 8)
        ('column 5', 'line 2, column 2')
    """
    column = at - text.rfind("\n", 0, at)
    return f"line {text.count(chr(10), 0, at) + 1}, column {column}" if "\n" in text else f"column {column}"


def complaint(text: str, at: int, message: str) -> str:
    """A message with its place, the line and a caret below the character."""
    start = text.rfind("\n", 0, at) + 1
    line = text[start:].split("\n")[0]
    indent = "".join("\t" if character == "\t" else " " for character in text[start:at])
    return f"{place(text, at)}: {message}\n  {line}\n  {indent}^"
