"""The one table of operators that every back end evaluates from.

A formula is lowered to few operators: what a node does at one sample (``POINTWISE``), over a window of samples, by the
recurrence of until, or one sample aside (``TEMPORAL``). Past operators are the future ones on the trace read backwards.
Sums, quantiles and ages make numbers of the past, which stand below comparisons; they only look back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

__all__ = ["ARITHMETIC", "POINTWISE", "TEMPORAL", "Temporal"]


@dataclass(frozen=True)
class Temporal:
    """What an operator over time does.

    Attributes:
        shape: window (the least or greatest value of an interval), until (its recurrence), shift (the neighbour's
            value), or sum, quantile and age (numbers of the past, ``derived``).
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

    @property
    def is_number(self) -> bool:
        """Whether it makes a number of the past, as arithmetic makes one of a sample, and no verdict of verdicts."""
        return self.shape in ("sum", "quantile", "age")


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
    "sum": Temporal("sum", least=False, past=True, pad=0.0),
    "quantile": Temporal("quantile", least=True, past=True, pad=_INF),
    "age": Temporal("age", least=False, past=True, pad=_INF),
}
"""Operators over time. Outside the trace *always* holds and *eventually* does not (RTAMT's offline semantics); sums and
quantiles take what there is of their window, and before the first event its age is infinite."""

ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": lambda xp, a, b: a + b,
    "subtract": lambda xp, a, b: a - b,
    "multiply": lambda xp, a, b: a * b,
    "divide": lambda xp, a, b: a / b,
    "power": lambda xp, a, b: xp.power(a, b),
    "abs": lambda xp, a: xp.abs(a),
    "sqrt": lambda xp, a: xp.sqrt(a),
    "exp": lambda xp, a: xp.exp(a),
    "ratio": lambda xp, a, b, empty: xp.where(b == 0.0, empty, a / xp.where(b == 0.0, 1.0, b)),
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
