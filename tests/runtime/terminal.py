"""A terminal that remembers: what a person would see on it in the end."""

import io
import re

__all__ = ["Terminal"]

_PARTS = re.compile(r"\x1b\[(\??\d*(?:;\d+)*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")


class Terminal(io.StringIO):
    """A stream that calls itself a terminal.

    Args:
        encoding: of what it can show; text is kept as such.
    """

    def __init__(self, encoding: str = "utf-8") -> None:
        super().__init__()
        self._encoding = encoding

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._encoding

    def isatty(self) -> bool:
        return True

    @property
    def cursor_is_shown(self) -> bool:
        """Whether the cursor is visible in the end."""
        return self.getvalue().rfind("\x1b[?25h") >= self.getvalue().rfind("\x1b[?25l")

    def screen(self) -> list[str]:
        """Its lines in the end: cursor movements and erasures done, colours left out."""
        lines, row, column = [""], 0, 0
        for parts in _PARTS.finditer(self.getvalue()):
            number, command, move, text = parts.groups()
            if text is not None:
                lines[row] = lines[row][:column].ljust(column) + text + lines[row][column + len(text) :]
                column += len(text)
            elif move == "\r":
                column = 0
            elif move == "\n":
                row, column = row + 1, 0
                lines += [""] * (row + 1 - len(lines))
            elif command == "A":
                row -= int(number)
            elif command == "K":
                lines[row] = ""
            else:
                assert command in "mhl", f"unknown control sequence {parts.group()!r}"
        return [line.rstrip() for line in lines]
