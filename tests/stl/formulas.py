"""Random formulas and traces, as text that RTAMT reads too."""

import random
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

SIGNALS = ("x", "y", "z")
PAST = ("once", "historically", "since", "prev", "s_prev", "rise", "fall")
FUTURE = ("always", "eventually", "until", "unless", "next", "s_next")
LOGIC = ("not", "and", "or", "implies", "iff", "xor")
OPERATORS = PAST + FUTURE + LOGIC
STRATA = {
    "all": OPERATORS,
    "past": PAST,
    "future": FUTURE,
    "past under future": ("always", "until", "once", "since"),
    "logic": (*LOGIC, "always", "once"),
    **{op: (op, op, "not", "always", "once") for op in (*PAST, *FUTURE, "implies", "iff", "xor")},
}
"""Names of kinds of formulas -> the operators that they are made of."""


def term(rng: random.Random, depth: int = 1) -> str:
    """Arithmetic over signals that has a value everywhere."""
    if depth == 0 or rng.random() < 0.6:
        return rng.choice((*SIGNALS, f"{rng.randint(-3, 3)}", f"{rng.uniform(-2, 2):.3f}"))
    a, b = term(rng, depth - 1), term(rng, depth - 1)
    return rng.choice(
        (
            f"({a} + {b})",
            f"({a} * {b})",
            f"abs({a})",
            f"(({a}) / 3)",
            f"exp({a})",
            f"sqrt(abs({a}))",
            f"pow({a}, 2)",
        )
    )


def predicate(rng: random.Random) -> str:
    if rng.random() < 0.1:
        return f"({rng.choice(SIGNALS)} + 0)"  # RTAMT lengthens the trace of a bare signal below a bounded F or G
    return f"({term(rng)} {rng.choice(('>', '>=', '<', '<=', '==', '!=='))} {term(rng)})"


def _bounds(rng: random.Random, bounded: bool) -> str:
    if not bounded and rng.random() < 0.3:
        return ""
    begin = rng.choice((0, 0, 1, rng.randint(0, 6)))
    return f"[{begin},{begin + rng.choice((0, 1, rng.randint(0, 9)))}]"


def derived(rng: random.Random) -> str:
    """A predicate on a number of the past, which RTAMT does not have; it has a value everywhere."""

    def number(depth: int) -> str:
        below = rng.choice((*SIGNALS, "(x + y)", "abs(z)"))
        a = number(depth - 1) if depth and rng.random() < 0.4 else below
        window = rng.choice(("0", "1", "2s", "3000ms", f"{rng.randint(0, 30)}"))
        return rng.choice(
            (
                f"sum({a}, {window})",
                f"rate({below}, {rng.choice(SIGNALS)}, {window}, {rng.choice(('-1', '0', '2.5'))})",
                f"quantile({a}, {rng.choice(('0', '.1', '.25', '.5', '.9', '1'))}, {window})",
                f"age_since({below} {rng.choice('<>')} {rng.randint(-2, 2)})",
            )
        )

    return f"({number(1)} {rng.choice(('>', '<', '=='))} {rng.choice((*SIGNALS, '1', '-0.5', '3'))})"


def formula(
    rng: random.Random,
    depth: int,
    operators: tuple[str, ...] = OPERATORS,
    *,
    bounded: bool = False,
    leaf: Callable[[random.Random], str] = predicate,
) -> str:
    """A formula of at most this depth, all of it with bounds if wanted; now and then a part of it occurs twice."""
    if depth == 0:
        return leaf(rng)
    op = rng.choice(operators)
    a = formula(rng, depth - 1, operators, bounded=bounded, leaf=leaf)
    if op in ("rise", "fall"):
        return f"{op}({a})"
    if op in ("not", "next", "s_next", "prev", "s_prev"):
        return f"({op} {a})"
    if op in ("always", "eventually", "once", "historically"):
        return f"({op}{_bounds(rng, bounded)} {a})"
    b = (
        a
        if rng.random() < 0.15
        else formula(rng, rng.randint(0, depth - 1), operators, bounded=bounded, leaf=leaf)
    )
    if op in ("until", "since", "unless"):
        return f"({a} {op}{_bounds(rng, bounded or op == 'unless')} {b})"
    return f"({a} {op} {b})"


def trace(rng: random.Random, longest: int = 24) -> dict[str, NDArray[np.float64]]:
    """Signals of one random length; values on a grid in half of the traces, so that ties occur."""
    length = rng.choice((2, rng.randint(2, longest)))
    draw = (lambda: rng.uniform(-2, 2)) if rng.random() < 0.5 else (lambda: rng.randint(-4, 4) / 2)
    return {name: np.array([draw() for _ in range(length)]) for name in SIGNALS}
