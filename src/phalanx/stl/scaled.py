"""Formulas whose predicates are measured in units of their own scale, so that robustness of different units compare."""

import math
from collections.abc import Mapping
from dataclasses import replace

from phalanx.errors import UsageError
from phalanx.stl.arguments import expect_mapping, number
from phalanx.stl.formula import Formula, Graph, Node
from phalanx.stl.parser import parse

__all__ = ["normalised"]

_NO_SCALES: Mapping[str, float] = {}


def normalised(formula: Formula | str, scales: Mapping[str, float] = _NO_SCALES) -> Formula:
    """The formula with each predicate p divided by its scale s > 0: p / s, which has the sign of p everywhere.

    s is the largest scale that is given for a signal that p reads; else, where p compares with a constant c other
    than 0, |c|; else 1. Whatever stands between predicates (logic, operators over time) keeps the sign too. Only a
    quotient below 5e-324 becomes 0.

    Args:
        formula: what is to be measured, or its text.
        scales: signal -> size of a change that matters, above 0, in the signal's unit; more signals than the formula
            reads may have one.

    Returns:
        A formula with the text of the given one, which places and reasons refer to.

    Raises:
        UsageError: a scale that is no finite number above 0.

    Example:
        >>> from phalanx.stl import parse, robustness
        >>> limits = normalised(parse("rate_hz < 200 and disk_bytes < 5e9"), {"disk_bytes": 1e9})
        >>> robustness(limits, {"rate_hz": [150.0], "disk_bytes": [4.5e9]})
        array([0.25])
    """
    formula = parse(formula)
    expect_mapping("scales", scales)
    for name, scale in scales.items():
        if not 0.0 < number(scale) < math.inf:
            raise UsageError(
                f"scale {scale!r} of {name!r}: expected a finite number above 0, in the signal's unit"
            )
    graph = Graph()
    parts: list[int] = []  # as they were, for what lies below predicates
    verdicts: list[int] = []  # normalised
    for index, node in enumerate(formula.nodes):
        part = graph.add(replace(node, args=tuple(parts[arg] for arg in node.args)))
        parts.append(part)
        if formula.is_logic(index):
            verdicts.append(graph.add(replace(node, args=tuple(verdicts[arg] for arg in node.args))))
            continue
        scale = _scale(formula, index, scales)
        if scale != 1.0:
            divisor = graph.add(Node("constant", value=scale, start=node.start, end=node.end))
            part = graph.add(
                replace(node, op="divide", args=(part, divisor), bounds=None, name="", value=0.0)
            )
        verdicts.append(part)
    names = {name: verdicts[index] for name, index in formula.names.items()}
    return replace(formula, nodes=tuple(graph.nodes), root=verdicts[formula.root], names=names)


def _scale(formula: Formula, index: int, scales: Mapping[str, float]) -> float:
    """The scale of a predicate."""
    signals = replace(formula, root=index).signals
    given = [scales[name] for name in signals if name in scales]
    if given:
        return max(map(number, given))
    node = formula.nodes[index]
    if node.op == "not":  # an equality
        node = formula.nodes[node.args[0]]
    if node.op not in ("difference", "distance"):
        return 1.0
    sides = [formula.nodes[arg] for arg in node.args]
    sizes = [abs(side.value) for side in sides if side.op == "constant"]
    return next((size for size in sizes if 0.0 < size < math.inf), 1.0)
