"""Robustness straight from the definition: every operator a loop over all samples that its interval names."""

import math
import operator
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from phalanx.stl import Formula

_ARITHMETIC = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "power": math.pow,
    "abs": abs,
    "sqrt": math.sqrt,
    "exp": math.exp,
}
_OUTSIDE = {"next": math.inf, "prev": math.inf, "s_next": -math.inf, "s_prev": -math.inf}


def by_definition(formula: Formula, signals: Mapping[str, NDArray[np.float64]]) -> list[float]:
    """One value a sample, at a period of one second."""
    length = len(next(iter(signals.values())))

    def at(index: int, t: int) -> float:
        node = formula.nodes[index]
        arguments = [lambda u, arg=arg: at(arg, u) for arg in node.args]
        first, last = (int(b // 10**9) for b in node.bounds) if node.bounds else (0, length)
        ahead = [u for u in range(t + first, t + last + 1) if u < length]
        behind = [u for u in range(t - last, t - first + 1) if u >= 0]
        match node.op:
            case "signal":
                return float(signals[node.name][t])
            case "constant":
                return node.value
            case "not":
                return -arguments[0](t)
            case "and":
                return min(arguments[0](t), arguments[1](t))
            case "or":
                return max(arguments[0](t), arguments[1](t))
            case op if op in _ARITHMETIC:
                return _ARITHMETIC[op](*(argument(t) for argument in arguments))
            case "difference":
                a, b = arguments[0](t), arguments[1](t)
                return 0.0 if a == b else a - b
            case "distance":
                a, b = arguments[0](t), arguments[1](t)
                return 0.0 if a == b else abs(a - b)
            case "always":
                return min((arguments[0](u) for u in ahead), default=math.inf)
            case "eventually":
                return max((arguments[0](u) for u in ahead), default=-math.inf)
            case "historically":
                return min((arguments[0](u) for u in behind), default=math.inf)
            case "once":
                return max((arguments[0](u) for u in behind), default=-math.inf)
            case "until":
                held = [min((arguments[0](v) for v in range(t, u)), default=math.inf) for u in ahead]
                return max(
                    (min(arguments[1](u), h) for u, h in zip(ahead, held, strict=True)), default=-math.inf
                )
            case "since":
                held = [min((arguments[0](v) for v in range(u + 1, t + 1)), default=math.inf) for u in behind]
                return max(
                    (min(arguments[1](u), h) for u, h in zip(behind, held, strict=True)), default=-math.inf
                )
            case "sum":
                return math.fsum(arguments[0](u) for u in behind)
            case "ratio":
                over, under, empty = (argument(t) for argument in arguments)
                return over / under if under else empty
            case "quantile":
                window = sorted(arguments[0](u) for u in behind)
                return next(v for v in window if sum(w <= v for w in window) / len(window) >= node.value)
            case "age":
                events = [u for u in range(t + 1) if arguments[0](u) > 0]
                return float(t - events[-1]) if events else math.inf
            case "next" | "s_next":
                return arguments[0](t + 1) if t + 1 < length else _OUTSIDE[node.op]
            case "prev" | "s_prev":
                return arguments[0](t - 1) if t else _OUTSIDE[node.op]
        raise AssertionError(node.op)

    return [at(formula.root, t) for t in range(length)]
