"""Events at uneven times, and robustness on them straight from the definition."""

import math
import random
import re

import numpy as np
from numpy.typing import NDArray
from stl import formulas

from phalanx.stl import Formula
from phalanx.stl.scalars import value_of

GAPS_NS = (1, 250_000_000, 500_000_000, 500_000_000, 1_000_000_000, 1_700_000_000, 6_000_000_001)
_OUTSIDE = {"next": math.inf, "prev": math.inf, "s_next": -math.inf, "s_prev": -math.inf}


def times(rng: random.Random, length: int) -> NDArray[np.int64]:
    """Ascending times; whole and half seconds are frequent, so that events lie on the ends of windows."""
    gaps = GAPS_NS if rng.random() < 0.5 else GAPS_NS[1:5]
    start = rng.choice((0, -3_000_000_000, 1_790_000_000_000_000_000))
    return start + np.cumsum([rng.choice(gaps) for _ in range(length)])


def scaled(text: str, unit_ms: int) -> str:
    """The formula with another unit of time."""

    def bounds(match: re.Match[str]) -> str:
        return f"[{int(match[1]) * unit_ms}ms,{int(match[2]) * unit_ms}ms]"

    return re.sub(r"\[(\d+),(\d+)\]", bounds, text)


def formula(rng: random.Random, depth: int, *, bounded: bool) -> str:
    """A formula whose bounds are in half or odd parts of seconds."""
    return scaled(formulas.formula(rng, depth, bounded=bounded), rng.choice((1000, 500, 370)))


def by_definition(
    formula: Formula, at_ns: NDArray[np.int64], signals: dict[str, NDArray[np.float64]]
) -> list[float]:
    """One value an event: every operator a loop over all events, each asked whether it lies in the window."""
    length = len(at_ns)
    values: dict[int, list[float]] = {}

    def one(index: int, i: int) -> float:
        node = formula.nodes[index]
        args = [values[arg] for arg in node.args]
        first, last = node.bounds or (0, math.inf)
        ahead = [j for j in range(length) if first <= int(at_ns[j]) - int(at_ns[i]) <= last]
        behind = [j for j in range(length) if first <= int(at_ns[i]) - int(at_ns[j]) <= last]
        match node.op:
            case "signal":
                return float(signals[node.name][i])
            case "constant":
                return node.value
            case "always":
                return min((args[0][j] for j in ahead), default=math.inf)
            case "eventually":
                return max((args[0][j] for j in ahead), default=-math.inf)
            case "historically":
                return min((args[0][j] for j in behind), default=math.inf)
            case "once":
                return max((args[0][j] for j in behind), default=-math.inf)
            case "until":
                return max((min([args[1][j], *args[0][i:j]]) for j in ahead), default=-math.inf)
            case "since":
                return max((min([args[1][j], *args[0][j + 1 : i + 1]]) for j in behind), default=-math.inf)
            case "sum":
                return math.fsum(args[0][j] for j in behind)
            case "quantile":
                share = node.value
                return min(
                    v for k, v in enumerate(sorted(args[0][j] for j in behind), 1) if k / len(behind) >= share
                )
            case "age":
                last = max((int(at_ns[j]) for j in range(i + 1) if args[0][j] > 0), default=-math.inf)
                return (int(at_ns[i]) - last) / 1e9
            case "next" | "s_next":
                return args[0][i + 1] if i + 1 < length else _OUTSIDE[node.op]
            case "prev" | "s_prev":
                return args[0][i - 1] if i else _OUTSIDE[node.op]
        return value_of(node.op, *(arg[i] for arg in args))

    for index in formula.needed:
        values[index] = [one(index, i) for i in range(length)]
    return values[formula.root]
