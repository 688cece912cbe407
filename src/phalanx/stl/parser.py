"""From text to formula: RTAMT's language, read by hand, with errors that point at the column.

What RTAMT reads, means here what it means there. Where its grammar reads a text otherwise than mathematics does
(``a - b + c`` is a - (b + c) to it, ``a / b * c`` is a / (b * c), ``a -> b -> c`` is (a -> b) -> c and ``a > b > c``
compares a comparison) it is refused until parentheses say what is meant. Beyond RTAMT: ``true`` and ``false``, ``-x``,
``x - 3``, ``&&``, ``||``, ``!=``, unbounded ``unless``, ``const`` and named sub-formulas in one text.

Source: Nickovic and Yamaguchi, "RTAMT: online robustness monitors from STL", 2005.11827; the precedences are those of
its 0.4.10 parser.
"""

from collections.abc import Callable
from fractions import Fraction
from typing import NoReturn

from phalanx.errors import UsageError
from phalanx.stl.formula import Bounds, Formula, Graph, Node
from phalanx.stl.places import misplaced, place
from phalanx.stl.tokens import UNITS_NS, Token, tokens

__all__ = ["parse"]

_DEEPEST = 100
_LATEST_S = 9e9  # beyond it nanoseconds leave 64 bits
_INF = float("inf")

_PREFIX = {
    "not": 21,
    "always": 20,
    "eventually": 19,
    "historically": 18,
    "once": 17,
    "prev": 16,
    "next": 15,
    "s_prev": 14,
    "s_next": 13,
}
_BINARY = {
    "*": 26,
    "/": 25,
    "+": 24,
    "-": 23,
    ">": 22,
    "<": 22,
    "==": 22,
    "!=": 22,
    "until": 12,
    "unless": 11,
    "since": 10,
    "and": 9,
    "or": 8,
    "implies": 7,
    "iff": 6,
    "xor": 5,
}
_TAKES_BOUNDS = {"always", "eventually", "historically", "once", "until", "unless", "since"}
_FUNCTIONS = {"abs": 1, "sqrt": 1, "exp": 1, "pow": 2, "rise": 1, "fall": 1}
_TYPES = {"float", "real", "int", "long"}
_COMPARISONS = (">", "<", "==", "!=")
_ASKS_FOR_PARENTHESES = {("-", "+"), ("/", "*"), ("implies", "implies")} | {
    (first, second) for first in _COMPARISONS for second in _COMPARISONS
}


def parse(text: str) -> Formula:
    """Reads a formula.

    Statements are separated by ``;``: ``const NAME = NUMBER``, ``NAME = FORMULA`` (a named sub-formula), and the
    formula at the end, which may have a name too. Bounds are in seconds unless they have a unit (s, ms, us, ns).
    Comments are ``// ...`` and ``/* ... */``.

    Raises:
        UsageError: the text is none; the message names line and column and what was expected.

    Example:
        >>> formula = parse("const k = 3; hot = x > k; always (hot -> eventually[0,5] y > 0)")
        >>> formula.signals, formula.horizon_ns
        (('x', 'y'), None)
    """
    return _Parser(text).formula()


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokens(text)
        self.position = 0
        self.depth = 0
        self.graph = Graph()
        self.names: dict[str, int] = {}
        self.constants: dict[str, float] = {}
        self.read: dict[str, int] = {}

    def _fail(self, at: int, message: str) -> NoReturn:
        raise misplaced(UsageError, self.text, at, message)

    @property
    def token(self) -> Token:
        return self.tokens[self.position]

    def _next(self) -> Token:
        token = self.token
        self.position += token.kind != "end"
        return token

    def _expect(self, text: str, why: str) -> Token:
        if self.token.text != text or self.token.kind == "end":
            self._fail(self.token.start, f"expected {text!r} {why}, found {self._found()}")
        return self._next()

    def _found(self) -> str:
        return repr(self.token.text) if self.token.kind != "end" else "the end"

    # Statements

    def formula(self) -> Formula:
        root = self._statement()
        while self.token.text == ";":
            self._next()
            if self.token.kind == "end":
                break
            root = self._statement()
        if self.token.kind != "end":
            hint = "; statements are separated by ';'" if self._begins_statement() else ""
            self._fail(self.token.start, f"expected an operator, ';' or the end, found {self._found()}{hint}")
        if root is None:
            self._fail(self.token.start, "expected a formula after the constants")
        return Formula(self.text, tuple(self.graph.nodes), root, dict(self.names), dict(self.constants))

    def _begins_statement(self) -> bool:
        following = self.tokens[min(self.position + 1, len(self.tokens) - 1)]
        return self.token.text == "const" or (self.token.kind == "name" and following.text == "=")

    def _statement(self) -> int | None:
        """Index of the formula that it is, None of a constant."""
        start = self.token.start
        if self.token.text == "const":
            self._constant()
            return None
        if not self._begins_statement():
            index = self._expression(0)
            if self.token.text == ";" and self.tokens[self.position + 1].kind != "end":
                self._fail(
                    start, "this formula is followed by another; give it a name, or join them with 'and'"
                )
            return index
        name = self._new_name()
        self._expect("=", "after the name")
        index = self._expression(0)
        self._not_read(name)
        self.names[name.text] = index
        return index

    def _not_read(self, name: Token) -> None:
        if name.text in self.read:
            defined = place(self.text, name.start)
            message = f"{name.text!r} is read as a signal here and defined at {defined}; define it first, or rename one"
            self._fail(self.read[name.text], message)

    def _constant(self) -> None:
        self._next()
        if self.token.text in _TYPES:
            self._next()
        name = self._new_name()
        self._expect("=", "after the constant's name")
        negative = self.token.text == "-"
        if negative:
            self._next()
        if self.token.kind != "number":
            self._fail(self.token.start, f"expected a number, found {self._found()}")
        value = self._number(self._next())
        self._not_read(name)
        self.constants[name.text] = -value if negative else value

    def _new_name(self) -> Token:
        name = self._next()
        if name.kind != "name" or name.is_word or name.text in _FUNCTIONS:
            self._fail(name.start, f"{name.text!r} is no name that can be given")
        if name.text in self.names or name.text in self.constants:
            self._fail(name.start, f"{name.text!r} is defined twice")
        return name

    # Expressions

    def _expression(self, least: int) -> int:
        """What binds at least as tightly as ``least`` (precedence climbing: Clarke 1986)."""
        start = self.token.start
        self.depth += 1
        if self.depth > _DEEPEST:
            self._fail(start, f"nested deeper than {_DEEPEST}; give parts of it names")
        left, before, before_text = self._primary(), "", ""
        while _BINARY.get(self.token.meaning, -1) >= least:
            operator = self._next()
            meaning = operator.meaning
            if (before, meaning) in _ASKS_FOR_PARENTHESES:
                self._fail(
                    operator.start,
                    f"{operator.text!r} after {before_text!r} is read differently by different tools; put parentheses",
                )
            bounds = self._bounds(operator)
            # the right side of - and / ends where + and * could be meant to go on from the left
            right = self._expression(_BINARY[meaning] + (2 if meaning in "-/" else 1))
            left = self._binary(operator, left, right, bounds, start)
            before, before_text = meaning, operator.text
        self.depth -= 1
        return left

    def _primary(self) -> int:
        token = self._next()
        meaning = token.meaning
        if token.kind == "number":
            return self._constant_node(self._number(token), token.start)
        if meaning in ("true", "false"):
            return self._constant_node(_INF if meaning == "true" else -_INF, token.start)
        if meaning == "(":
            inside = self._expression(0)
            self._expect(")", f"for the '(' at {place(self.text, token.start)}")
            return inside
        if meaning == "-":
            if self.token.kind == "number":
                return self._constant_node(-self._number(self._next()), token.start)
            return self._add("not", (self._expression(_BINARY["*"] + 1),), token, token.start)
        if meaning in _PREFIX:
            bounds = self._bounds(token)
            argument = self._expression(_PREFIX[meaning])
            return self._add(meaning, (argument,), token, token.start, bounds)
        if meaning in _FUNCTIONS and self.token.text == "(":
            return self._call(token)
        if token.kind == "name" and meaning not in _BINARY:
            return self._named(token)
        self.position -= token.kind != "end"
        self._fail(token.start, f"expected a formula, found {self._found()}")

    def _call(self, function: Token) -> int:
        self._expect("(", "")
        arguments = [self._expression(0)]
        while self.token.text == ",":
            self._next()
            arguments.append(self._expression(0))
        if len(arguments) != _FUNCTIONS[function.text]:
            self._fail(
                function.start,
                f"{function.text} takes {_FUNCTIONS[function.text]} argument(s), not {len(arguments)}",
            )
        self._expect(")", f"after the arguments of {function.text}")

        def add(op: str, *args: int) -> int:
            return self._add(op, args, function, function.start)

        if function.text == "rise":
            return add("and", add("not", add("s_prev", *arguments)), *arguments)
        if function.text == "fall":
            return add("and", add("prev", *arguments), add("not", *arguments))
        return add("power" if function.text == "pow" else function.text, *arguments)

    def _named(self, token: Token) -> int:
        if token.text in self.names:
            return self.names[token.text]
        if token.text in self.constants:
            return self._constant_node(self.constants[token.text], token.start)
        self.read.setdefault(token.text, token.start)
        return self.graph.add(Node("signal", name=token.text, start=token.start, end=token.end))

    def _binary(self, operator: Token, left: int, right: int, bounds: Bounds | None, start: int) -> int:
        """The node of an infix operator, made of the few that back ends know."""

        def add(op: str, *args: int, within: Bounds | None = None) -> int:
            return self._add(op, args, operator, start, within)

        made: dict[str, Callable[[], int]] = {
            "*": lambda: add("multiply", left, right),
            "/": lambda: add("divide", left, right),
            "+": lambda: add("add", left, right),
            "-": lambda: add("subtract", left, right),
            ">": lambda: add("difference", left, right),
            "<": lambda: add("difference", right, left),
            "==": lambda: add("not", add("distance", left, right)),
            "!=": lambda: add("distance", left, right),
            "iff": lambda: add("not", add("distance", left, right)),
            "xor": lambda: add("distance", left, right),
            "and": lambda: add("and", left, right),
            "or": lambda: add("or", left, right),
            "implies": lambda: add("or", add("not", left), right),
            "until": lambda: add("until", left, right, within=bounds),
            "since": lambda: add("since", left, right, within=bounds),
            "unless": lambda: add(
                "or",
                add("always", left, within=Bounds(0, bounds.end_ns) if bounds else None),
                add("until", left, right, within=bounds),
            ),
        }
        return made[operator.meaning]()

    def _add(
        self, op: str, args: tuple[int, ...], operator: Token, start: int, bounds: Bounds | None = None
    ) -> int:
        end = self.tokens[self.position - 1].end
        return self.graph.add(
            Node(op, args, bounds, start=start, end=end, at=operator.start, written=operator.text)
        )

    def _constant_node(self, value: float, start: int) -> int:
        return self.graph.add(
            Node("constant", value=value, start=start, end=self.tokens[self.position - 1].end)
        )

    def _number(self, token: Token) -> float:
        value = float(token.text)
        if value == _INF:
            self._fail(token.start, f"{token.text} is more than a number can hold; write true for infinity")
        return value

    # Bounds

    def _bounds(self, operator: Token) -> Bounds | None:
        if self.token.text != "[":
            return None
        opening = self._next()
        if operator.meaning not in _TAKES_BOUNDS:
            self._fail(opening.start, f"{operator.text} takes no bounds")
        begin, begin_unit, begin_text = self._time()
        if self.token.text not in (",", ":"):
            self._fail(self.token.start, f"expected ',' between the bounds, found {self._found()}")
        self._next()
        end, end_unit, end_text = self._time()
        self._expect("]", "after the bounds")
        if begin_unit and not end_unit:
            self._fail(opening.start, f"the end of the bounds has no unit; write {end_text}{begin_unit}")
        unit = UNITS_NS[end_unit or "s"]
        first, last = begin * UNITS_NS[begin_unit or end_unit or "s"], end * unit
        if first > last:
            self._fail(opening.start, f"the bounds begin after their end: [{begin_text}, {end_text}]")
        for bound in (first, last):
            if bound.denominator != 1:
                self._fail(opening.start, "a bound is no whole number of nanoseconds")
        return Bounds(int(first), int(last))

    def _time(self) -> tuple[Fraction, str, str]:
        """A bound: its value, its unit or nothing, and the value as it is written."""
        token = self._next()
        if token.kind == "name" and token.text in self.constants:
            text = repr(self.constants[token.text])
        elif token.kind == "number":
            text = token.text
        else:
            self.position -= token.kind != "end"
            self._fail(token.start, f"expected a time from 0, found {self._found()}")
        if not 0.0 <= float(text) <= _LATEST_S:
            self._fail(token.start, f"a bound is a time from 0 to {_LATEST_S:g}, not {text}")
        unit = self._next().text if self.token.text in UNITS_NS else ""
        return Fraction(text), unit, token.text
