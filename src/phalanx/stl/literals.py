"""What a formula reads at one sample: predicates, and the truths that they can have together."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from phalanx.errors import UsageError
from phalanx.stl.formula import Formula
from phalanx.stl.operators import POINTWISE

__all__ = ["MOST_INPUTS", "Literal", "Predicate", "Truths", "literal_of", "possible_truths"]

MOST_INPUTS = 4096
"""Combinations of truths that one table may tell apart."""

_MOST_LITERALS = 20

Truths = tuple[bool, ...]
"""Of each of some literals, whether it holds."""


@dataclass(frozen=True)
class Predicate:
    """An expression over signals at one sample, apart from the formula that it stands in.

    Attributes:
        op: signal, constant or a key of ``operators.POINTWISE``.
        args: what it is applied to.
        name: of a signal.
        constant: value of a constant.
    """

    op: str
    args: "tuple[Predicate, ...]" = ()
    name: str = ""
    constant: float = 0.0

    @property
    def signals(self) -> frozenset[str]:
        """Names of the signals that it reads."""
        return frozenset([self.name] if self.op == "signal" else []).union(*(a.signals for a in self.args))

    @property
    def thresholds(self) -> list[float] | None:
        """Where its sign may change if it compares one signal with constants; None of anything else."""
        sides = self.args if self.op in ("difference", "distance") else (self,)
        if len(self.signals) != 1 or any(side.args for side in sides):
            return None
        return [side.constant for side in sides if side.op == "constant"] or [0.0]

    def value(self, xp: Any, signals: Mapping[str, Any]) -> Any:
        """Its robustness, by an array module (NumPy's or JAX's)."""
        if self.op == "signal":
            return signals[self.name]
        if self.op == "constant":
            return self.constant
        return POINTWISE[self.op](xp, *(arg.value(xp, signals) for arg in self.args))


class Literal(NamedTuple):
    """A predicate or its negation; at robustness 0 both hold, as everywhere in phalanx.stl.

    Example:
        >>> x = Predicate("signal", name="x")
        >>> [bool(Literal(x, negated).holds(np, {"x": np.float32(0)})) for negated in (False, True)]
        [True, True]
    """

    predicate: Predicate
    negated: bool

    def holds(self, xp: Any, signals: Mapping[str, Any]) -> Any:
        """Whether it holds; NaN holds for neither."""
        value = self.predicate.value(xp, signals)
        return value <= 0.0 if self.negated else value >= 0.0


def literal_of(formula: Formula, index: int, negated: bool) -> Literal:
    """The literal of a predicate's node; ``c > x`` is the negation of ``x > c``, so that both are one predicate."""

    def expression(at: int) -> Predicate:
        node = formula.nodes[at]
        return Predicate(node.op, tuple(expression(arg) for arg in node.args), node.name, node.value)

    found = expression(index)
    while found.op == "not":
        found, negated = found.args[0], not negated
    if found.op == "difference" and found.args[0].op == "constant":
        found, negated = Predicate("difference", found.args[::-1]), not negated
    return Literal(found, negated)


def possible_truths(literals: Sequence[Literal]) -> tuple[Truths, ...]:
    """All truths that literals can have at one sample, sorted.

    Comparisons of one signal with constants are told apart exactly (``x > .9`` never holds without ``x > .5``); of
    other predicates over shared signals every combination is taken for possible, which can make a shield too strict,
    never too lenient.

    Raises:
        UsageError: there are more than ``MOST_INPUTS``, or more than 20 literals.

    Example:
        >>> x = Predicate("signal", name="x")
        >>> above = [Predicate("difference", (x, Predicate("constant", constant=c))) for c in (0.5, 0.9)]
        >>> possible_truths([Literal(each, False) for each in above])
        ((False, False), (True, False), (True, True))
    """
    clusters = [_cluster_truths([literals[at] for at in cluster]) for cluster in _clusters(literals)]
    if len(literals) > _MOST_LITERALS or np.prod([float(len(each)) for each in clusters]) > MOST_INPUTS:
        raise _too_many(literals)
    order = np.argsort([at for cluster in _clusters(literals) for at in cluster])
    joined = (tuple(itertools.chain(*parts)) for parts in itertools.product(*clusters))
    return tuple(sorted(tuple(truths[at] for at in order) for truths in joined))


def _too_many(literals: Iterable[Literal]) -> UsageError:
    names = sorted({name for literal in literals for name in literal.predicate.signals})
    return UsageError(
        f"the predicates on {', '.join(names)} have more than {MOST_INPUTS} combinations of truths, or are more than "
        f"{_MOST_LITERALS}; use fewer predicates, or compute some of them beforehand"
    )


def _clusters(literals: Sequence[Literal]) -> list[list[int]]:
    """Positions of literals that share signals, directly or through others."""
    found: list[tuple[frozenset[str], list[int]]] = []
    for at, literal in enumerate(literals):
        signals, members = literal.predicate.signals, [at]
        apart = []
        for others, held in found:
            if others & signals:
                signals, members = signals | others, held + members
            else:
                apart.append((others, held))
        found = [*apart, (signals, members)]
    return [members for _, members in found]


def _cluster_truths(literals: list[Literal]) -> list[Truths]:
    predicates = list(dict.fromkeys(literal.predicate for literal in literals))
    thresholds = [each.thresholds for each in predicates]
    if all(each is not None for each in thresholds) and len(predicates[0].signals) == 1:
        ends = [np.float32(c) for each in thresholds for c in each or ()]
        inf = np.float32(np.inf)
        values = {near for c in ends for near in (c, np.nextafter(c, inf), np.nextafter(c, -inf))} | {
            inf,
            -inf,
        }
        (name,) = predicates[0].signals
        return list({tuple(bool(one.holds(np, {name: x})) for one in literals) for x in values})
    if 3.0 ** len(predicates) > MOST_INPUTS * 16:
        raise _too_many(literals)
    found = set()
    for signs in itertools.product((-1, 0, 1), repeat=len(predicates)):
        sign = dict(zip(predicates, signs, strict=True))
        found.add(tuple(sign[p] <= 0 if negated else sign[p] >= 0 for p, negated in literals))
    return list(found)
