"""What a shield's formula asks for from one sample on: clauses over the samples ahead, or a budget of those behind.

A letter is what one sample brings: which truths the environment's predicates have, and the verdict. A set of letters is
the bits of an integer, so that any Boolean combination of predicates of one sample has one form. A clause names a set
of letters for each sample ahead, one of which has to be hit; formulas are conjunctions of clauses, of which those that
others imply are left out. A deadline is one clause, whatever its length.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NoReturn

import numpy as np

from phalanx.errors import UsageError
from phalanx.stl.formula import Formula, Node, ticks
from phalanx.stl.literals import Literal, Truths, literal_of, possible_truths
from phalanx.stl.operators import POINTWISE, TEMPORAL
from phalanx.stl.places import misplaced
from phalanx.types import N_VERDICTS

__all__ = ["EFFECTS", "Budget", "Clauses", "Obligation", "demands_of", "without_implied"]

EFFECTS: dict[str, tuple[float, ...]] = {
    "severity": (0.0, 1.0, 2.0, 3.0),
    "allowed": (1.0, 0.0, 0.0, 0.0),
    "alerted": (0.0, 1.0, 0.0, 0.0),
    "blocked": (0.0, 0.0, 1.0, 0.0),
    "quarantined": (0.0, 0.0, 0.0, 1.0),
    "answered": (0.0, 1.0, 1.0, 1.0),
    "restricted": (0.0, 0.0, 1.0, 1.0),
}
"""Signals that the verdict sets: name -> its value after each verdict. All others are the environment's."""

_SECOND_NS = 10**9
_MOST_CLAUSES, _MOST_JOINED = 256, 2048

Clauses = frozenset[int]
"""A clause each: its lowest bits are the letters of this sample, the next ones those of the next sample, and so on."""


@dataclass(frozen=True)
class Obligation:
    """What has to come true from each sample on.

    Attributes:
        literals: what it reads of the environment.
        inputs: truths that these can have; a letter is a position in here, and a verdict.
        clauses: all of which have to be hit; the letters of a sample take four bits an input.
    """

    literals: tuple[Literal, ...]
    inputs: tuple[Truths, ...]
    clauses: Clauses


@dataclass(frozen=True)
class Budget:
    """At most ``most`` of the verdicts ``uses`` (bits) at a sample and the ``window`` samples before it."""

    uses: int
    window: int
    most: int


def without_implied(clauses: Iterable[int]) -> Clauses:
    """The clauses that no other one implies: C implies D where D names all letters of C at every sample.

    Example:
        >>> sorted(without_implied([0b01_01, 0b01, 0b01_10]))  # two letters a sample
        [1, 6]
    """
    kept: list[int] = []
    for clause in sorted(set(clauses), key=lambda one: (one.bit_count(), one)):
        missing = ~clause
        if all(one & missing for one in kept):
            kept.append(clause)
    return frozenset(kept)


def demands_of(formula: Formula, effects: Mapping[str, Sequence[float]]) -> list[Obligation | Budget]:
    """The demands of ``always PHI``, of a conjunction of such, and of PHI that is one: each part by itself, in order.

    Args:
        formula: bounds in samples (a period of 1 s).
        effects: signals that the verdict sets, see ``EFFECTS``.

    Raises:
        UsageError: a formula that no shield can keep or that it cannot see; the message says where.

    Example:
        >>> from phalanx.stl.parser import parse
        >>> obligation, = demands_of(parse("always (hot > .5 -> eventually[0,2] answered > .5)"), EFFECTS)
        >>> obligation.clauses == {0b11101110_11101110_11111110}  # not hot, or a verdict from 1 on
        True
    """
    return [_demand(formula, index, effects) for index in _parts(formula, formula.root, inside=False)]


def _refuse(formula: Formula, node: Node, message: str) -> NoReturn:
    at = node.start if node.op in ("signal", "constant") else node.at
    raise misplaced(UsageError, formula.text, at, message)


def _parts(formula: Formula, index: int, *, inside: bool) -> Iterator[int]:
    node = formula.nodes[index]
    if node.op == "and":
        for arg in node.args:
            yield from _parts(formula, arg, inside=inside)
    elif node.op == "always" and node.bounds is None:
        yield from _parts(formula, node.args[0], inside=True)
    elif inside:
        yield index
    else:
        message = "a shield keeps `always ...` or several joined by `and`; put `always` before this"
        raise misplaced(UsageError, formula.text, node.start, message)


def _demand(formula: Formula, index: int, effects: Mapping[str, Sequence[float]]) -> Obligation | Budget:
    node = formula.nodes[index]
    if node.op == "difference" and formula.nodes[node.args[1]].op == "sum":
        return _budget(formula, node, effects)
    return _Reader(formula, index, effects).obligation()


def _budget(formula: Formula, node: Node, effects: Mapping[str, Sequence[float]]) -> Budget:
    """Of ``sum(SIGNAL, W) <= K``, which is a difference of K and the sum."""
    limit, total = (formula.nodes[arg] for arg in node.args)
    signal = formula.nodes[total.args[0]]
    values = effects.get(signal.name, ()) if signal.op == "signal" else ()
    if limit.op != "constant" or not 0.0 <= limit.value < 2**31:
        _refuse(formula, node, "a budget is `sum(SIGNAL, W) <= K` with a number K from 0")
    if not values or set(values) - {0.0, 1.0}:
        countable = ", ".join(name for name, each in effects.items() if not set(each) - {0.0, 1.0})
        _refuse(formula, total, f"a budget counts one of the verdict's signals that are 0 or 1: {countable}")
    uses = sum(1 << verdict for verdict, value in enumerate(values) if value)
    _, window = ticks(formula, total, _SECOND_NS)
    if window is None:
        _refuse(formula, total, "a budget needs the length of its window")
    return Budget(uses, window, int(limit.value))


class _Reader:
    """Reads one part of a formula into clauses."""

    def __init__(self, formula: Formula, root: int, effects: Mapping[str, Sequence[float]]) -> None:
        self.formula, self.root, self.effects = formula, root, effects
        self.nodes = formula.nodes
        self.signals: list[frozenset[str]] = []
        self._seen: set[tuple[int, bool]] = set()
        self._made: dict[tuple[int, bool], Clauses] = {}
        for node in self.nodes:
            below = (self.signals[arg] for arg in node.args)
            self.signals.append(frozenset([node.name] if node.op == "signal" else []).union(*below))

    def obligation(self) -> Obligation:
        """The part's clauses."""
        self.literals = tuple(dict.fromkeys(self._environment(self.root, False)))
        self.inputs = possible_truths(self.literals)
        return Obligation(self.literals, self.inputs, self._clauses(self.root, False))

    def _environment(self, index: int, negated: bool) -> Iterator[Literal]:
        """The environment's literals in the order of the text; refuses what a shield cannot keep or see."""
        if (index, negated) in self._seen:
            return
        self._seen.add((index, negated))
        node = self.nodes[index]
        if not self.formula.is_logic(index):
            self._check_predicate(index)
            if self.signals[index] and not self.signals[index] & self.effects.keys():
                yield literal_of(self.formula, index, negated)
            return
        if node.op in TEMPORAL:
            self._check_temporal(node)
        for arg in node.args:
            yield from self._environment(arg, negated != (node.op == "not"))

    def _check_predicate(self, index: int) -> None:
        node, stack = self.nodes[index], [index]
        while stack:
            below = self.nodes[stack.pop()]
            stack += below.args
            if below.op == "sum":
                _refuse(
                    self.formula,
                    below,
                    "a shield takes a sum as a budget alone: `always (sum(SIGNAL, W) <= K)`",
                )
            if below.op in TEMPORAL and TEMPORAL[below.op].past:
                self._check_temporal(below)
            if below.op in TEMPORAL:
                message = (
                    f"{below.written} below {node.written}: a shield takes operators over time below and, or,"
                )
                _refuse(self.formula, below, f"{message} not and each other; write iff and xor with these")
        actions = sorted(self.signals[index] & self.effects.keys())
        others = sorted(self.signals[index] - self.effects.keys())
        if actions and others:
            message = (
                f"this mixes {actions[0]!r}, which the verdict sets, with {others[0]!r} of the environment;"
            )
            _refuse(
                self.formula, node, f"{message} compare each with constants, and join these by and, or, not"
            )

    def _check_temporal(self, node: Node) -> None:
        operator = TEMPORAL[node.op]
        if operator.past:
            message = (
                f"{node.written} looks back; a shield keeps bounded future operators and budgets (`sum`):"
            )
            _refuse(
                self.formula, node, f"{message} turn it round, or compute it as a signal of the environment"
            )
        if operator.shape != "shift" and node.bounds is None:
            message = f"{node.written} has no bound, so that a shield could put it off for ever;"
            _refuse(self.formula, node, f"{message} give it one, such as {node.written}[0,5]")

    def _clauses(self, index: int, negated: bool) -> Clauses:
        if (index, negated) not in self._made:
            self._made[index, negated] = self._make(index, negated)
        return self._made[index, negated]

    def _make(self, index: int, negated: bool) -> Clauses:
        node = self.nodes[index]
        if not self.formula.is_logic(index):
            letters = self._letters(index, negated)
            return frozenset([letters]) if letters != self._all else frozenset()
        if node.op == "not":
            return self._clauses(node.args[0], not negated)
        args = [self._clauses(arg, negated) for arg in node.args]
        if node.op in ("and", "or"):
            return (self._both if (node.op == "and") != negated else self._either)(node, *args)
        operator = TEMPORAL[node.op]
        if operator.shape == "shift":
            return self._later(args[0], 1)
        begin, end = ticks(self.formula, node, _SECOND_NS)
        assert end is not None
        if operator.shape == "window":
            join = self._both if operator.least != negated else self._either
            found = args[0]
            for _ in range(end - begin):
                found = join(node, args[0], self._later(found, 1))
            return self._later(found, begin)
        join, meet = (self._either, self._both) if not negated else (self._both, self._either)
        left, right = args
        found = right
        for back in range(end - 1, -1, -1):
            found = meet(node, left, self._later(found, 1))
            found = join(node, right, found) if back >= begin else found
        return found

    @property
    def _all(self) -> int:
        return (1 << self._width) - 1

    @property
    def _width(self) -> int:
        return N_VERDICTS * len(self.inputs)

    def _letters(self, index: int, negated: bool) -> int:
        """The letters at which a predicate or its negation holds."""
        if self.signals[index] & self.effects.keys() or not self.signals[index]:
            holds = [self._verdicts(index, negated)] * len(self.inputs)
        else:
            at = self.literals.index(literal_of(self.formula, index, negated))
            holds = [[truths[at]] * N_VERDICTS for truths in self.inputs]
        return sum(1 << bit for bit, held in enumerate(sum(holds, [])) if held)

    def _verdicts(self, index: int, negated: bool) -> list[bool]:
        """Whether a predicate on the verdict's signals holds after each verdict."""

        @cache
        def value(at: int) -> np.ndarray:
            node = self.nodes[at]
            if node.op == "signal":
                return np.asarray(self.effects[node.name], np.float64)
            if node.op == "constant":
                return np.full(N_VERDICTS, node.value)
            return POINTWISE[node.op](np, *(value(arg) for arg in node.args))

        with np.errstate(all="ignore"):
            found = value(index)
        if np.isnan(found).any():
            verdict = int(np.flatnonzero(np.isnan(found))[0])
            _refuse(self.formula, self.nodes[index], f"this has no value after verdict {verdict}; guard it")
        return ((found <= 0.0) if negated else (found >= 0.0)).tolist()

    def _both(self, node: Node, one: Clauses, other: Clauses) -> Clauses:
        return self._small(node, without_implied(one | other))

    def _either(self, node: Node, one: Clauses, other: Clauses) -> Clauses:
        if len(one) * len(other) > _MOST_JOINED:
            self._too_many(node)
        joined = {a | b for a in one for b in other}
        return self._small(node, without_implied(each for each in joined if not self._is_certain(each)))

    def _is_certain(self, clause: int) -> bool:
        """Whether some sample's letters are all of them."""
        while clause:
            if clause & self._all == self._all:
                return True
            clause >>= self._width
        return False

    def _small(self, node: Node, clauses: Clauses) -> Clauses:
        return clauses if len(clauses) <= _MOST_CLAUSES else self._too_many(node)

    def _too_many(self, node: Node) -> NoReturn:
        message = f"{node.written} makes more clauses than a shield takes; shorten its bounds"
        _refuse(self.formula, node, message)

    def _later(self, clauses: Clauses, by: int) -> Clauses:
        """The same so many samples later."""
        return frozenset(clause << by * self._width for clause in clauses)
