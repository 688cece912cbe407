"""Reads a text token by token: what is expected, numbers, times and bounds."""

from fractions import Fraction
from typing import NoReturn

from phalanx.errors import UsageError
from phalanx.stl.formula import Bounds
from phalanx.stl.places import misplaced
from phalanx.stl.tokens import UNITS_NS, Token, tokens

__all__ = ["Cursor"]

_LATEST_S = 9e9  # beyond it nanoseconds leave 64 bits
_INF = float("inf")


class Cursor:
    """A place in the tokens of a text.

    Attributes:
        text: what is read.
        tokens: of it.
        position: of the token that comes next.
        constants: named numbers that a time or number may be.
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokens(text)
        self.position = 0
        self.constants: dict[str, float] = {}

    def fail(self, at: int, message: str) -> NoReturn:
        """Raises the error that points at a character."""
        raise misplaced(UsageError, self.text, at, message)

    @property
    def token(self) -> Token:
        """The one that comes next."""
        return self.tokens[self.position]

    @property
    def found(self) -> str:
        """It, as an error names it."""
        return repr(self.token.text) if self.token.kind != "end" else "the end"

    @property
    def read_to(self) -> int:
        """The character after the last token that was taken."""
        return self.tokens[self.position - 1].end

    def take(self) -> Token:
        """The next token, and moves on; the end is never passed."""
        token = self.token
        self.position += token.kind != "end"
        return token

    def expect(self, text: str, why: str) -> Token:
        """Takes the token that has to come."""
        if self.token.text != text or self.token.kind == "end":
            self.fail(self.token.start, f"expected {text!r} {why}, found {self.found}")
        return self.take()

    def number(self, token: Token) -> float:
        """The value of a token that is a number."""
        value = float(token.text)
        if value == _INF:
            self.fail(token.start, f"{token.text} is more than a number can hold; write true for infinity")
        return value

    def signed_number(self) -> float:
        """A number with or without a sign."""
        negative = self.token.text == "-"
        if negative:
            self.take()
        if self.token.kind != "number":
            self.fail(self.token.start, f"expected a number, found {self.found}")
        value = self.number(self.take())
        return -value if negative else value

    def fixed_number(self) -> float:
        """A number or a constant."""
        return self.constants[self.take().text] if self.token.text in self.constants else self.signed_number()

    def bounds(self, allowed: bool, of: str) -> Bounds | None:
        """``[begin,end]``, None where there is none."""
        if self.token.text != "[":
            return None
        opening = self.take()
        if not allowed:
            self.fail(opening.start, f"{of} takes no bounds")
        begin, begin_unit, begin_text = self._time()
        if self.token.text not in (",", ":"):
            self.fail(self.token.start, f"expected ',' between the bounds, found {self.found}")
        self.take()
        end, end_unit, end_text = self._time()
        self.expect("]", "after the bounds")
        if begin_unit and not end_unit:
            self.fail(opening.start, f"the end of the bounds has no unit; write {end_text}{begin_unit}")
        first = self._ns(begin, begin_unit or end_unit, opening.start)
        last = self._ns(end, end_unit, opening.start)
        if first > last:
            self.fail(opening.start, f"the bounds begin after their end: [{begin_text}, {end_text}]")
        return Bounds(first, last)

    def time_ns(self) -> int:
        """A time from 0 on, in nanoseconds."""
        start = self.token.start
        value, unit, _ = self._time()
        return self._ns(value, unit, start)

    def _ns(self, value: Fraction, unit: str, at: int) -> int:
        exact = value * UNITS_NS[unit or "s"]
        if exact.denominator != 1:
            self.fail(at, "a bound is no whole number of nanoseconds")
        return int(exact)

    def _time(self) -> tuple[Fraction, str, str]:
        """A time: its value, its unit or nothing, and the value as it is written."""
        token = self.take()
        if token.kind == "name" and token.text in self.constants:
            text = repr(self.constants[token.text])
        elif token.kind == "number":
            text = token.text
        else:
            self.position -= token.kind != "end"
            self.fail(token.start, f"expected a time from 0, found {self.found}")
        if not 0.0 <= float(text) <= _LATEST_S:
            self.fail(token.start, f"a bound is a time from 0 to {_LATEST_S:g}, not {text}")
        unit = self.take().text if self.token.text in UNITS_NS else ""
        return Fraction(text), unit, token.text
