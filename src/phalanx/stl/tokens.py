"""The words of the language: what a text is made of, and how times are written."""

import re
from dataclasses import dataclass
from fractions import Fraction

from phalanx.errors import UsageError
from phalanx.stl.places import misplaced

__all__ = ["UNITS_NS", "Token", "seconds", "tokens"]

UNITS_NS = {"s": 10**9, "ms": 10**6, "us": 10**3, "ns": 1}
"""Units of time, in nanoseconds."""

_DIGITS = r"\d+(?:_\d+)*"
_NUMBER = rf"(?:{_DIGITS})?\.{_DIGITS}(?:[eE][+-]?\d+)?|{_DIGITS}\.?(?:[eE][+-]?\d+)?"
_TOKEN = re.compile(
    r"(?P<space>(?:\s|//[^\n]*|/\*.*?\*/)+)"
    rf"|(?P<number>{_NUMBER})"
    r"|(?P<name>[A-Za-z_$](?:[\w$.]|/(?![/*]))*)"
    r"|(?P<sign><->|->|!==|!=|>=|<=|==|&&|\|\||[-+*/()\[\],:;=<>!&|])",
    re.DOTALL | re.ASCII,
)
_SPELLINGS = {
    "not": "!",
    "and": "& &&",
    "or": "| ||",
    "implies": "->",
    "iff": "<->",
    "always": "G",
    "eventually": "F",
    "historically": "H",
    "once": "O",
    "until": "U",
    "unless": "W",
    "since": "S",
    "next": "X",
    "prev": "Y",
    "s_next": "sX",
    "s_prev": "sY",
    ">": ">=",
    "<": "<=",
    "==": "",
    "!=": "!==",
    "true": "TRUE",
    "false": "FALSE",
    "xor": "",
}
_MEANING = {word: meaning for meaning, others in _SPELLINGS.items() for word in (meaning, *others.split())}


@dataclass(frozen=True)
class Token:
    """A word, number or sign.

    Attributes:
        kind: name, number, sign, or end.
        text: as it is written.
        start: where, characters from 0.
    """

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        """The character after it."""
        return self.start + len(self.text)

    @property
    def is_word(self) -> bool:
        """Whether the language itself uses it, so that nothing can be named so."""
        return self.text in _MEANING

    @property
    def meaning(self) -> str:
        """What it stands for where it has several spellings, else its text."""
        return _MEANING.get(self.text, self.text)


def tokens(text: str) -> list[Token]:
    """The tokens of a text, and the end.

    Raises:
        UsageError: a character that is no part of the language, or a comment without an end.

    Example:
        >>> [token.meaning for token in tokens("G x >= 1")]
        ['always', 'x', '>', '1', '']
    """
    found, at = [], 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if text.startswith("/*", at) and (match is None or match.lastgroup != "space"):
            raise misplaced(UsageError, text, at, "a comment without an end")
        if match is None:
            raise misplaced(UsageError, text, at, f"{text[at]!r} is no part of the language")
        assert match.lastgroup
        if match.lastgroup != "space":
            found.append(Token(match.lastgroup, match.group(), at))
        at = match.end()
    return [*found, Token("end", "", len(text))]


def seconds(text: str) -> float:
    """A time with or without a unit, in seconds.

    Raises:
        UsageError: it is no time above 0.

    Example:
        >>> seconds("250ms"), seconds("0.5")
        (0.25, 0.5)
    """
    match = re.fullmatch(rf"({_NUMBER})\s*({'|'.join(UNITS_NS)}|)", text.strip())
    if not match or not 0.0 < float(match[1]) < 9e9:
        raise UsageError(f"{text!r} is no time; expected one such as 1s, 250ms or 0.5")
    return float(Fraction(match[1]) * UNITS_NS[match[2] or "s"] / UNITS_NS["s"])
