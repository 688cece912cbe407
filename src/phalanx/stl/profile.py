"""What this library means by a formula, where tools differ: each choice with an example that shows it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

__all__ = ["PROFILE", "PROFILE_X", "Choice"]


@dataclass(frozen=True)
class Choice:
    """One choice of the semantics.

    Attributes:
        rule: what is chosen.
        example: a formula on ``PROFILE_X``.
        values: its robustness there; None where it is an error.
    """

    rule: str
    example: str
    values: tuple[float, ...] | None


PROFILE_X = (1.0, -2.0, 3.0)
"""The signal x of the examples, a second between samples."""

_INF = math.inf

PROFILE: Mapping[str, Choice] = MappingProxyType(
    {
        "time": Choice(
            "samples a period apart; bounds are multiples of it and both ends belong to them",
            "eventually[0,1] x",
            (1.0, 3.0, 3.0),
        ),
        "ends of the trace": Choice(
            "a window has the samples of it that exist", "always[0,9] x", (-2.0, -2.0, 3.0)
        ),
        "empty window": Choice(
            "always holds (+inf), eventually does not (-inf)", "not always[3,4] x", (-_INF, -_INF, -_INF)
        ),
        "left side of until": Choice(
            "holds on [t, t'), so at t' it need not", "(x < 0) until (x > 0)", (1.0, 2.0, 3.0)
        ),
        "strictness": Choice("> and >= are one, and robustness 0 is satisfied", "x >= 1", (0.0, -3.0, 2.0)),
        "neighbour outside": Choice(
            "next and prev hold there (+inf), s_next and s_prev do not (-inf)", "next x", (-2.0, 3.0, _INF)
        ),
        "equal infinities": Choice("are 0 apart", "(always[3,4] x) xor true", (0.0, 0.0, 0.0)),
        "no value": Choice(
            "NaN, a masked value and arithmetic without a result are errors", "1 / (x - 1) > 0", None
        ),
        "numbers of the past": Choice(
            "sum, rate and quantile have the samples from t - w to t that exist",
            "sum(x, 1)",
            (1.0, -1.0, 1.0),
        ),
        "before the first event": Choice("its age is +inf", "age_since(x > 2)", (_INF, _INF, 0.0)),
    }
)
"""All choices, by name. ``robustness`` makes them as they stand, and ``Monitor`` as soon as it can know."""
