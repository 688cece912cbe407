"""The one walk through a formula's graph in which whole traces are evaluated, whatever their values are made of."""

from collections.abc import Callable
from typing import TypeVar

from phalanx.stl.formula import Formula, Node
from phalanx.stl.operators import POINTWISE

__all__ = ["walk"]

Value = TypeVar("Value")


def walk(
    formula: Formula,
    signal: Callable[[str], Value],
    constant: Callable[[float], Value],
    at_one_sample: Callable[[Node, list[Value]], Value],
    over_time: Callable[[Node, list[Value]], Value],
    *,
    keep: bool = False,
) -> dict[int, Value]:
    """The values of a formula's nodes, arguments first; each is computed once, however often it is used.

    Args:
        formula: whose.
        signal: name -> its value.
        constant: number -> its value.
        at_one_sample: a node of ``operators.POINTWISE`` and its arguments' values -> its value.
        over_time: the same of ``operators.TEMPORAL``.
        keep: every node that the formula needs; else a value is dropped when nothing needs it any more.

    Returns:
        Index of a node -> its value: of the root, and if they are kept of all others.

    Example:
        >>> from phalanx.stl import parse
        >>> def written(node, args):
        ...     return f"{node.op}({', '.join(args)})"
        >>> walk(parse("once x > 0"), str, str, written, written, keep=True)
        {0: 'x', 1: '0.0', 2: 'difference(x, 0.0)', 3: 'once(difference(x, 0.0))'}
    """
    needed = formula.needed
    last_use = {arg: index for index in needed for arg in formula.nodes[index].args}
    values: dict[int, Value] = {}
    for index in needed:
        node = formula.nodes[index]
        if node.op == "signal":
            values[index] = signal(node.name)
        elif node.op == "constant":
            values[index] = constant(node.value)
        else:
            value_of = at_one_sample if node.op in POINTWISE else over_time
            values[index] = value_of(node, [values[arg] for arg in node.args])
        for arg in set(node.args):
            if last_use[arg] == index and not keep:
                del values[arg]
    return values
