"""The one table of operators that every back end evaluates from.

A formula is lowered to few operators: what a node does at one sample (``POINTWISE``), over a window of samples, by the
recurrence of until, or one sample aside (``TEMPORAL``). Past operators are the future ones on the trace read backwards.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["ARITHMETIC", "POINTWISE", "TEMPORAL", "Temporal"]


@dataclass(frozen=True)
class Temporal:
    """What an operator over time does.

    Attributes:
        shape: window (the least or greatest value of an interval), until (its recurrence), or shift (the neighbour's
            value).
        least: a window takes the least value; else the greatest.
        past: looks back; else ahead.
        pad: value of what lies outside the trace.
        arity: number of arguments.
    """

    shape: str
    least: bool
    past: bool
    pad: float
    arity: int = 1


_INF = float("inf")

TEMPORAL: dict[str, Temporal] = {
    "always": Temporal("window", least=True, past=False, pad=_INF),
    "eventually": Temporal("window", least=False, past=False, pad=-_INF),
    "historically": Temporal("window", least=True, past=True, pad=_INF),
    "once": Temporal("window", least=False, past=True, pad=-_INF),
    "until": Temporal("until", least=False, past=False, pad=-_INF, arity=2),
    "since": Temporal("until", least=False, past=True, pad=-_INF, arity=2),
    "next": Temporal("shift", least=True, past=False, pad=_INF),
    "s_next": Temporal("shift", least=False, past=False, pad=-_INF),
    "prev": Temporal("shift", least=True, past=True, pad=_INF),
    "s_prev": Temporal("shift", least=False, past=True, pad=-_INF),
}
"""Operators over time. Outside the trace *always* holds and *eventually* does not (RTAMT's offline semantics)."""

ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": lambda xp, a, b: a + b,
    "subtract": lambda xp, a, b: a - b,
    "multiply": lambda xp, a, b: a * b,
    "divide": lambda xp, a, b: a / b,
    "power": lambda xp, a, b: xp.power(a, b),
    "abs": lambda xp, a: xp.abs(a),
    "sqrt": lambda xp, a: xp.sqrt(a),
    "exp": lambda xp, a: xp.exp(a),
}
"""Operators that may leave the real numbers: (array module, arguments) -> values."""


POINTWISE: dict[str, Callable[..., Any]] = ARITHMETIC | {
    "not": lambda xp, a: -a,
    "and": lambda xp, a, b: xp.minimum(a, b),
    "or": lambda xp, a, b: xp.maximum(a, b),
    "difference": lambda xp, a, b: xp.where(a == b, 0.0, a - b),
    "distance": lambda xp, a, b: xp.where(a == b, 0.0, xp.abs(a - b)),
}
"""Operators at one sample: (array module, arguments) -> values. All comparisons and connectives are made of them:
``a >= b`` is a - b, ``a == b`` and ``a iff b`` are -|a - b|, ``a implies b`` is max(-a, b). Equal infinities are no
distance apart."""
