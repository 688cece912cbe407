"""Formulas of Signal Temporal Logic as directed acyclic graphs: what occurs twice is one node and is computed once."""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

from phalanx.errors import UsageError
from phalanx.stl.operators import POINTWISE, TEMPORAL
from phalanx.stl.places import misplaced

__all__ = ["Bounds", "Formula", "Graph", "Node", "ticks"]


class Bounds(NamedTuple):
    """An interval of time in nanoseconds, both ends included."""

    begin_ns: int
    end_ns: int


@dataclass(frozen=True)
class Node:
    """One operator, signal or constant.

    Attributes:
        op: signal, constant, or a key of ``operators.POINTWISE`` or ``operators.TEMPORAL``.
        args: indices of its arguments, all smaller than its own.
        bounds: of an operator over time; None where it is unbounded or takes none.
        name: of a signal.
        value: of a constant; of a quantile, the share of its window.
        start, end, at, written: where it stands in the text (characters from 0), where its operator does and how that
            is written there; no part of what a node is.
    """

    op: str
    args: tuple[int, ...] = ()
    bounds: Bounds | None = None
    name: str = ""
    value: float = 0.0
    start: int = dataclasses.field(default=0, compare=False)
    end: int = dataclasses.field(default=0, compare=False)
    at: int = dataclasses.field(default=0, compare=False)
    written: str = dataclasses.field(default="", compare=False)


class Graph:
    """Nodes in the making; equal nodes get the same index."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self._index: dict[Node, int] = {}

    def add(self, node: Node) -> int:
        """The node's index; the first one's place in the text is kept."""
        assert node.op in ("signal", "constant") or node.op in POINTWISE or node.op in TEMPORAL, node.op
        found = self._index.setdefault(node, len(self.nodes))
        if found == len(self.nodes):
            self.nodes.append(node)
        return found


@dataclass(frozen=True)
class Formula:
    """A formula that ``parser.parse`` read.

    Attributes:
        text: what was read.
        nodes: arguments before what takes them.
        root: index of the node that is the formula.
        names: named sub-formulas, and the index of each.
        constants: named numbers.

    Example:
        >>> from phalanx.stl import parse
        >>> parse("always (threat > 0 -> eventually[0,5] answered > 0)").signals
        ('answered', 'threat')
    """

    text: str
    nodes: tuple[Node, ...]
    root: int
    names: dict[str, int] = dataclasses.field(hash=False)
    constants: dict[str, float] = dataclasses.field(hash=False)

    @property
    def signals(self) -> tuple[str, ...]:
        """Names of the signals it reads, sorted."""
        return tuple(
            sorted(self.nodes[index].name for index in self.needed if self.nodes[index].op == "signal")
        )

    @property
    def needed(self) -> tuple[int, ...]:
        """Indices of the nodes that its value depends on, arguments first; named parts may be used nowhere."""
        found, stack = {self.root}, [self.root]
        while stack:
            below = set(self.nodes[stack.pop()].args) - found
            found |= below
            stack.extend(below)
        return tuple(sorted(found))

    def is_logic(self, index: int) -> bool:
        """Whether a node combines verdicts; else it is a predicate, or part of one (an equality too, though it is a
        negated distance)."""
        node = self.nodes[index]
        if node.op == "not":
            (arg,) = node.args
            return not (self.nodes[arg].op == "distance" and self.nodes[arg].written == node.written)
        return node.op in ("and", "or") or (node.op in TEMPORAL and not TEMPORAL[node.op].is_number)

    @property
    def horizon_ns(self) -> int | None:
        """How far ahead of a sample its value depends on, beside one period per next; None where it is unbounded."""
        reach: list[int | None] = []
        for node in self.nodes:
            own: int | None = 0
            if node.op in TEMPORAL and not TEMPORAL[node.op].past and TEMPORAL[node.op].shape != "shift":
                own = node.bounds.end_ns if node.bounds else None
            below = [reach[index] for index in node.args]
            known = [value for value in below if value is not None]
            reach.append(None if own is None or len(known) < len(below) else own + max(known, default=0))
        return reach[self.root]


def ticks(formula: Formula, node: Node, period_ns: int) -> tuple[int, int | None]:
    """A node's bounds in samples; (0, None) where it is unbounded.

    Raises:
        UsageError: a bound is no multiple of the period.
    """
    if node.bounds is None:
        return 0, None
    for bound in node.bounds:
        if bound % period_ns:
            message = (
                f"the bound {bound / 1e9:g} s of {node.written} is no multiple of the sampling period, "
                f"{period_ns / 1e9:g} s; change the bound, or resample the trace"
            )
            raise misplaced(UsageError, formula.text, node.at, message)
    return node.bounds.begin_ns // period_ns, node.bounds.end_ns // period_ns
