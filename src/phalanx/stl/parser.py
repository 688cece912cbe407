"""From text to formula: RTAMT's language, read by hand, with errors that point at the column.

What RTAMT reads, means here what it means there. Where its grammar reads a text otherwise than mathematics does
(``a - b + c`` is a - (b + c) to it, ``a / b * c`` is a / (b * c), ``a -> b -> c`` is (a -> b) -> c and ``a > b > c``
compares a comparison) it is refused until parentheses say what is meant. Beyond RTAMT: ``true`` and ``false``, ``-x``,
``x - 3``, ``&&``, ``||``, ``!=``, unbounded ``unless``, ``const`` and named sub-formulas in one text, and the functions
``sum``, ``rate``, ``quantile`` and ``age_since``, whose words remain names where no parenthesis follows.

Source: Nickovic and Yamaguchi, "RTAMT: online robustness monitors from STL", 2005.11827; the precedences are those of
its 0.4.10 parser.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from phalanx.errors import UsageError
from phalanx.stl.cursor import Cursor
from phalanx.stl.formula import Bounds, Formula, Graph, Node
from phalanx.stl.places import place
from phalanx.stl.tokens import Token

__all__ = ["parse"]

_DEEPEST = 100
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
_FUNCTIONS = {
    "abs": "x",
    "sqrt": "x",
    "exp": "x",
    "pow": "x, y",
    "rise": "x",
    "fall": "x",
    "sum": "x, window",
    "rate": "x, y, window, [empty]",
    "quantile": "x, share, window",
    "age_since": "x",
}
"""Functions and their arguments: formulas, unless a window of time or a number is named; in brackets what may lack."""
_RESERVED = {"abs", "sqrt", "exp", "pow", "rise", "fall"}  # RTAMT has the others as names
_TYPES = {"float", "real", "int", "long"}
_COMPARISONS = (">", "<", "==", "!=")
_ASKS_FOR_PARENTHESES = {("-", "+"), ("/", "*"), ("implies", "implies")} | {
    (first, second) for first in _COMPARISONS for second in _COMPARISONS
}


def parse(text: str | Formula) -> Formula:
    """Reads a formula; one that has been read is returned as it is.

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
    if isinstance(text, Formula):
        return text
    if not isinstance(text, str):
        raise UsageError(f"formula: expected its text, or what parse() returned, got {type(text).__name__}")
    return _Parser(text).formula()


class _Parser(Cursor):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.graph = Graph()
        self.names: dict[str, int] = {}
        self.read: dict[str, int] = {}

    # Statements

    def formula(self) -> Formula:
        root = self._statement()
        while self.token.text == ";":
            self.take()
            if self.token.kind == "end":
                break
            root = self._statement()
        if self.token.kind != "end":
            hint = "; statements are separated by ';'" if self._begins_statement() else ""
            self.fail(self.token.start, f"expected an operator, ';' or the end, found {self.found}{hint}")
        if root is None:
            self.fail(self.token.start, "expected a formula after the constants")
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
                self.fail(
                    start, "this formula is followed by another; give it a name, or join them with 'and'"
                )
            return index
        name = self._new_name()
        self.expect("=", "after the name")
        index = self._expression(0)
        self._not_read(name)
        self.names[name.text] = index
        return index

    def _not_read(self, name: Token) -> None:
        if name.text in self.read:
            defined = place(self.text, name.start)
            message = f"{name.text!r} is read as a signal here and defined at {defined}; define it first, or rename one"
            self.fail(self.read[name.text], message)

    def _constant(self) -> None:
        self.take()
        if self.token.text in _TYPES:
            self.take()
        name = self._new_name()
        self.expect("=", "after the constant's name")
        value = self.signed_number()
        self._not_read(name)
        self.constants[name.text] = value

    def _new_name(self) -> Token:
        name = self.take()
        if name.kind != "name" or name.is_word or name.text in _RESERVED:
            self.fail(name.start, f"{name.text!r} is no name that can be given")
        if name.text in self.names or name.text in self.constants:
            self.fail(name.start, f"{name.text!r} is defined twice")
        return name

    # Expressions

    def _expression(self, least: int) -> int:
        """What binds at least as tightly as ``least`` (precedence climbing: Clarke 1986)."""
        start = self.token.start
        self.depth += 1
        if self.depth > _DEEPEST:
            self.fail(start, f"nested deeper than {_DEEPEST}; give parts of it names")
        left, before, before_text = self._primary(), "", ""
        while _BINARY.get(self.token.meaning, -1) >= least:
            operator = self.take()
            meaning = operator.meaning
            if (before, meaning) in _ASKS_FOR_PARENTHESES:
                self.fail(
                    operator.start,
                    f"{operator.text!r} after {before_text!r} is read differently by different tools; put parentheses",
                )
            bounds = self.bounds(operator.meaning in _TAKES_BOUNDS, operator.text)
            # the right side of - and / ends where + and * could be meant to go on from the left
            right = self._expression(_BINARY[meaning] + (2 if meaning in "-/" else 1))
            left = self._binary(operator, left, right, bounds, start)
            before, before_text = meaning, operator.text
        self.depth -= 1
        return left

    def _primary(self) -> int:
        token = self.take()
        meaning = token.meaning
        if token.kind == "number":
            return self._constant_node(self.number(token), token.start)
        if meaning in ("true", "false"):
            return self._constant_node(_INF if meaning == "true" else -_INF, token.start)
        if meaning == "(":
            inside = self._expression(0)
            self.expect(")", f"for the '(' at {place(self.text, token.start)}")
            return inside
        if meaning == "-":
            if self.token.kind == "number":
                return self._constant_node(-self.number(self.take()), token.start)
            return self._add("not", (self._expression(_BINARY["*"] + 1),), token, token.start)
        if meaning in _PREFIX:
            bounds = self.bounds(meaning in _TAKES_BOUNDS, token.text)
            argument = self._expression(_PREFIX[meaning])
            return self._add(meaning, (argument,), token, token.start, bounds)
        if meaning in _FUNCTIONS and self.token.text == "(":
            return self._call(token)
        if token.kind == "name" and meaning not in _BINARY:
            return self._named(token)
        self.position -= token.kind != "end"
        self.fail(token.start, f"expected a formula, found {self.found}")

    def _call(self, function: Token) -> int:
        self.expect("(", "")
        called, wanted = function.text, _FUNCTIONS[function.text].split(", ")
        given: list[float] = []
        while not given or self.token.text == ",":
            if given:
                self.take()
            given.append(self._argument(wanted[len(given)] if len(given) < len(wanted) else "x"))
        if not sum("[" not in name for name in wanted) <= len(given) <= len(wanted):
            usage = f"{called}({_FUNCTIONS[called]})"
            self.fail(function.start, f"{called} takes {len(wanted)} argument(s), {usage}, not {len(given)}")
        self.expect(")", f"after the arguments of {called}")
        return self._called(function, given)

    def _argument(self, kind: str) -> float:
        """A formula's index, a window in nanoseconds, or a number."""
        if kind == "window":
            return self.time_ns()
        if kind == "[empty]":
            return self.fixed_number()
        if kind == "share":
            at = self.token.start
            share = self.fixed_number()
            if not 0.0 <= share <= 1.0:
                self.fail(at, f"a quantile's share is a number from 0 to 1, not {share:g}")
            return share
        return self._expression(0)

    def _called(self, function: Token, given: Sequence[Any]) -> int:
        """The node of a function, made of the few that back ends know."""

        def add(op: str, *args: int, window: int | None = None, share: float = 0.0) -> int:
            within = None if window is None else Bounds(0, window)
            return self._add(op, args, function, function.start, within, share)

        def rate(over: int, under: int, window: int, *empty: float) -> int:
            totals = add("sum", over, window=window), add("sum", under, window=window)
            if not empty:
                return add("divide", *totals)
            return add("ratio", *totals, self._constant_node(empty[0], function.start))

        made: dict[str, Callable[..., int]] = {
            "pow": lambda x, y: add("power", x, y),
            "rise": lambda x: add("and", add("not", add("s_prev", x)), x),
            "fall": lambda x: add("and", add("prev", x), add("not", x)),
            "sum": lambda x, window: add("sum", x, window=window),
            "rate": rate,
            "quantile": lambda x, share, window: add("quantile", x, window=window, share=share),
            "age_since": lambda x: add("age", x),
        }
        return made[function.text](*given) if function.text in made else add(function.text, *given)

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
        self,
        op: str,
        args: tuple[int, ...],
        operator: Token,
        start: int,
        bounds: Bounds | None = None,
        value: float = 0.0,
    ) -> int:
        node = Node(op, args, bounds, value=value, start=start, end=self.read_to)
        return self.graph.add(replace(node, at=operator.start, written=operator.text))

    def _constant_node(self, value: float, start: int) -> int:
        return self.graph.add(Node("constant", value=value, start=start, end=self.read_to))
