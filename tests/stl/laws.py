"""Laws that robustness obeys whatever the formula and the trace: each is drawn at random, and both sides are equal.

A law is a function of a random generator that returns what it drew (as text) and the two sides. Signals and thresholds
are multiples of 1/8, so that sums and differences of them are exact.
"""

import random
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, chain
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from stl.formulas import OPERATORS, PAST, SIGNALS, formula

from phalanx.stl import Monitor, Verdict, parse, robustness
from phalanx.stl.offline import robustness_of_parts

__all__ = ["LAWS", "Case", "broken", "drawn"]

Signals = Mapping[str, NDArray[np.float64]]


class Case(NamedTuple):
    """One draw of a law.

    Attributes:
        text: formulas.
        signals: trace.
        left, right: what the law says is equal.
    """

    text: str
    signals: Signals
    left: NDArray[np.float64]
    right: NDArray[np.float64]


Sides = tuple[str, Signals, ArrayLike, ArrayLike]
Law = Callable[[random.Random], Sides]
LAWS: dict[str, Law] = {}
"""Names of laws, and what draws a case of each."""

_MIRRORED = {"always": "historically", "eventually": "once", "until": "since", "next": "prev"}
_FUTURE = ("always", "eventually", "until", "unless", "next", "s_next", "and", "or", "not", "implies", "iff")
_MONOTONE = tuple(op for op in OPERATORS if op not in ("rise", "fall", "not", "implies", "iff", "xor"))
_WATCHED = tuple(op for op in OPERATORS if op not in ("rise", "fall"))
_WINDOWS = ("always", "eventually", "historically", "once")

_SHALLOW, _DEEP = (
    (0, 0, 1, 2),
    (0, 1, 1, 2, 3),
)  # depths of formulas: what a law says of p holds whatever p is made of


def drawn(name: str, seed: int) -> Case:
    """A law's case of a seed."""
    text, signals, left, right = LAWS[name](random.Random(f"{name} {seed}"))
    return Case(text, signals, np.asarray(left, np.float64), np.asarray(right, np.float64))


def broken(name: str, seed: int, case: Case) -> str:
    """Where a case breaks its law, with all that is needed to see it again; nothing where it does not."""
    if np.array_equal(case.left, case.right):
        return ""
    trace = {name: values.tolist() for name, values in case.signals.items()}
    return (
        f"{name}, seed {seed}: {case.text}\n{trace}\nleft  {case.left.tolist()}\nright {case.right.tolist()}"
    )


def _law(name: str) -> Callable[[Law], Law]:
    def named(law: Law) -> Law:
        LAWS[name] = law
        return law

    return named


def _trace(rng: random.Random) -> dict[str, NDArray[np.float64]]:
    """Signals from -2 to 2 on a grid."""
    length = rng.randint(1, 24)
    return {name: np.array(rng.choices(range(-16, 17), k=length)) / 8.0 for name in SIGNALS}


def _to_number(rng: random.Random) -> str:
    return f"({rng.choice(SIGNALS)} > {rng.randrange(3)})"


def _to_constant(rng: random.Random) -> str:
    return f"({rng.choice(SIGNALS)} > c{rng.randrange(3)})"


def _formula(rng: random.Random, depth: int, operators: tuple[str, ...] = OPERATORS) -> str:
    return formula(rng, depth, operators, leaf=_to_number)


def _bounds(rng: random.Random, begin: int = 0) -> tuple[int, int]:
    begin += rng.randint(0, 4)
    return begin, begin + rng.randint(0, 9)


def _interval(rng: random.Random) -> str:
    return "[{},{}]".format(*_bounds(rng))


def _same(rng: random.Random, left: str, right: str) -> Sides:
    """Two texts over any formulas p and q mean the same on any trace."""
    signals = _trace(rng)
    p, q = (_formula(rng, rng.choice(_SHALLOW)) for _ in "pq")
    text = f"p = {p}; q = {q}; left = {left}; right = {right}; left iff right"
    parsed = parse(text)
    values = robustness_of_parts(parsed, signals)
    return text, signals, values[parsed.names["left"]], values[parsed.names["right"]]


def _words(rng: random.Random) -> tuple[str, str, str, str]:
    """always, eventually, until and next; or those that look back."""
    ahead = ("always", "eventually", "until", "next")
    return ahead if rng.random() < 0.5 else ("historically", "once", "since", "prev")


@_law("duality of windows")
def _(rng: random.Random) -> Sides:
    always, eventually, *_ = _words(rng)
    bounds = _interval(rng) if rng.random() < 0.8 else ""
    return _same(rng, f"not {always}{bounds} p", f"{eventually}{bounds} (not p)")


@_law("De Morgan")
def _(rng: random.Random) -> Sides:
    (always, eventually, *_), bounds = _words(rng), _interval(rng)
    return _same(rng, f"not {always}{bounds} (p or q)", f"{eventually}{bounds} ((not p) and (not q))")


@_law("windows of and, or")
def _(rng: random.Random) -> Sides:
    (always, eventually, *_), bounds = _words(rng), _interval(rng)
    window, op = rng.choice(((always, "and"), (eventually, "or")))
    return _same(rng, f"{window}{bounds} (p {op} q)", f"({window}{bounds} p) {op} ({window}{bounds} q)")


@_law("release: what until's negation says")
def _(rng: random.Random) -> Sides:
    (always, eventually, until, _), (begin, end) = _words(rng), _bounds(rng)
    near = f"[0,{end - begin}]"
    release = f"(({always}{near} (not q)) or ((not q) {until}{near} ((not p) and (not q))))"
    if begin:
        release = f"({eventually}[0,{begin - 1}] (not p)) or ({always}[{begin},{begin}] {release})"
    return _same(rng, f"not (p {until}[{begin},{end}] q)", release)


@_law("until from later on")
def _(rng: random.Random) -> Sides:
    (always, eventually, until, _), (begin, end) = _words(rng), _bounds(rng, begin=1)
    near = f"{eventually}[{begin},{begin}] (p {until}[0,{end - begin}] q)"
    return _same(rng, f"p {until}[{begin},{end}] q", f"({always}[0,{begin - 1}] p) and ({near})")


@_law("until is a window and an unbounded until")
def _(rng: random.Random) -> Sides:
    (always, eventually, until, _), (begin, end) = _words(rng), _bounds(rng)
    ever = f"(p {until} q)"
    if begin:
        ever = f"({always}[0,{begin - 1}] p) and ({eventually}[{begin},{begin}] {ever})"
    return _same(rng, f"p {until}[{begin},{end}] q", f"({eventually}[{begin},{end}] q) and {ever}")


@_law("until written out")
def _(rng: random.Random) -> Sides:
    always, eventually, until, _ = _words(rng)
    begin = rng.randint(0, 3)
    end = begin + rng.randint(0, 4)
    ways = [f"({eventually}[{k},{k}] q) and ({always}[0,{k - 1}] p)" for k in range(max(begin, 1), end + 1)]
    ways = ["q", *ways] if not begin else ways
    return _same(rng, f"p {until}[{begin},{end}] q", " or ".join(f"({way})" for way in ways))


@_law("one sample at a time")
def _(rng: random.Random) -> Sides:
    (always, _, until, step), last = _words(rng), rng.choice((0, 1, 2, 3, 8, None))
    now, then = ("", "") if last is None else (f"[0,{last + 1}]", f"[0,{last}]")
    if rng.random() < 0.5:
        return _same(rng, f"{always}{now} p", f"p and ({step} ({always}{then} p))")
    return _same(rng, f"p {until}{now} q", f"q or (p and (s_{step} (p {until}{then} q)))")


@_law("windows of windows")
def _(rng: random.Random) -> Sides:
    (a, b), (c, d), op = _bounds(rng), _bounds(rng), rng.choice(_WINDOWS)
    return _same(rng, f"{op}[{a},{b}] ({op}[{c},{d}] p)", f"{op}[{a + c},{b + d}] p")


@_law("a window in two")
def _(rng: random.Random) -> Sides:
    (begin, end), op = _bounds(rng), rng.choice(_WINDOWS)
    cut, joined = rng.randint(begin, end), "and" if op in ("always", "historically") else "or"
    return _same(rng, f"{op}[{begin},{end}] p", f"({op}[{begin},{cut}] p) {joined} ({op}[{cut},{end}] p)")


@_law("windows further ahead")
def _(rng: random.Random) -> Sides:
    p, (begin, end), by = _formula(rng, rng.choice(_SHALLOW)), _bounds(rng), rng.randint(0, 6)
    op, signals = rng.choice(_WINDOWS), _trace(rng)
    pad = np.inf if op in ("always", "historically") else -np.inf
    near = robustness(f"{op}[{begin},{end}] {p}", signals)
    far = robustness(text := f"{op}[{begin + by},{end + by}] {p}", signals)
    beyond = np.full(min(by, len(far)), pad)
    moved = (
        [near[by:], beyond] if op in ("always", "eventually") else [beyond, near[: len(far) - beyond.size]]
    )
    return text, signals, far, np.concatenate(moved)


@_law("the past does not matter to the future, nor the future to the past")
def _(rng: random.Random) -> Sides:
    past, signals = rng.random() < 0.5, _trace(rng)
    text = _formula(rng, rng.choice(_DEEP), (*PAST, "and", "not", "iff") if past else _FUTURE)
    cut = rng.randrange(len(signals["x"]))
    kept = slice(None, cut + 1) if past else slice(cut, None)
    rest = {name: values[kept] for name, values in signals.items()}
    return f"{text} | {kept}", signals, robustness(text, signals)[kept], robustness(text, rest)


@_law("time backwards")
def _(rng: random.Random) -> Sides:
    operators = (*_MIRRORED, "s_next", "and", "not", "implies", "iff", "xor")
    text, signals = _formula(rng, rng.choice(_DEEP), operators), _trace(rng)
    mirrored = re.sub("|".join(_MIRRORED), lambda found: _MIRRORED[found[0]], text)
    backwards = {name: values[::-1] for name, values in signals.items()}
    return text, signals, robustness(mirrored, backwards), robustness(text, signals)[::-1]


@_law("bounds in other units")
def _(rng: random.Random) -> Sides:
    text, signals = _formula(rng, rng.choice(_DEEP)), _trace(rng)
    unit, each, period = rng.choice((("ms", 100, 0.1), ("", 60, 60.0), ("us", 20_000, 0.02), ("s", 1, 1.0)))
    other = re.sub(r"\[(\d+),(\d+)\]", lambda b: f"[{int(b[1]) * each}{unit},{int(b[2]) * each}{unit}]", text)
    return f"{text} | {other}", signals, robustness(text, signals), robustness(other, signals, period)


def _thresholds(rng: random.Random) -> list[float]:
    return [value / 8 for value in rng.choices(range(-8, 9), k=3)]


def _given(thresholds: Sequence[float], text: str) -> str:
    """A text with its constants."""
    return "".join(f"const c{index} = {value}; " for index, value in enumerate(thresholds)) + text


@_law("signals and thresholds move together")
def _(rng: random.Random) -> Sides:
    text, signals = formula(rng, rng.choice(_DEEP), OPERATORS, leaf=_to_constant), _trace(rng)
    by, at = rng.randint(-32, 32) / 8, _thresholds(rng)
    moved = {name: values + by for name, values in signals.items()}
    one, other = _given(at, text), _given([value + by for value in at], text)
    return f"{one} | {by}", signals, robustness(one, signals), robustness(other, moved)


@_law("a raised threshold lowers robustness as far")
def _(rng: random.Random) -> Sides:
    text, signals = formula(rng, rng.choice(_DEEP), _MONOTONE, leaf=_to_constant), _trace(rng)
    by, at = rng.randint(0, 32) / 8, _thresholds(rng)
    one, other = _given(at, text), _given([value + by for value in at], text)
    return f"{one} | {by}", signals, robustness(one, signals) - by, robustness(other, signals)


@_law("larger signals, larger robustness")
def _(rng: random.Random) -> Sides:
    text, signals = formula(rng, rng.choice(_DEEP), _MONOTONE, leaf=_to_constant), _trace(rng)
    larger = {
        name: values + np.array(rng.choices(range(9), k=values.size)) / 8 for name, values in signals.items()
    }
    text = _given(_thresholds(rng), text)
    low, high = robustness(text, signals), robustness(text, larger)
    return f"{text} | {larger}", signals, np.maximum(low, high), high


@_law("all scaled by a factor")
def _(rng: random.Random) -> Sides:
    text, signals = formula(rng, rng.choice(_DEEP), OPERATORS, leaf=_to_constant), _trace(rng)
    factor, at = 2.0 ** rng.randint(-6, 6), _thresholds(rng)
    scaled = {name: values * factor for name, values in signals.items()}
    one, other = _given(at, text), _given([value * factor for value in at], text)
    return f"{one} | {factor}", signals, factor * robustness(one, signals), robustness(other, scaled)


def _watchable(rng: random.Random) -> str:
    """A formula that a stream can be watched for: bounded, but for its top now and then."""
    text = formula(rng, rng.choice(_DEEP), _WATCHED, bounded=True, leaf=_to_number)
    return f"{rng.choice(('always', 'eventually', 'not always'))} {text}" if rng.random() < 0.2 else text


def _watch(text: str, signals: Signals) -> tuple[Monitor, list[Verdict], list[Verdict]]:
    """The monitor after all samples, its verdicts, and those at the end."""
    monitor = Monitor(text)
    columns = [values.tolist() for values in signals.values()]
    verdicts = [monitor.update(dict(zip(signals, row, strict=True))) for row in zip(*columns, strict=True)]
    return monitor, verdicts, monitor.finish()


@_law("a stream's verdicts are the whole trace's")
def _(rng: random.Random) -> Sides:
    text, signals = _watchable(rng), _trace(rng)
    monitor, verdicts, rest = _watch(text, signals)
    whole = robustness(text, signals)
    told = [] if monitor.horizon is None else verdicts[monitor.horizon :]
    expected: Any = [(value, value, t) for t, value in enumerate(whole)]
    return text, signals, [*told, *rest], expected[:1] if monitor.horizon is None else expected


@_law("intervals enclose the value and never widen")
def _(rng: random.Random) -> Sides:
    text, signals = _watchable(rng), _trace(rng)
    verdicts = _watch(text, signals)[1]
    whole = robustness(text, signals)
    values = [whole[verdict.sample] for verdict in verdicts]
    enclosed = [[max(v.lo, value), min(v.hi, value)] for v, value in zip(verdicts, values, strict=True)]
    low, high = zip(*((v.lo, v.hi) for v in verdicts if v.sample == 0), strict=True)
    narrowed = [*accumulate(low, max), *accumulate(high, min)]
    known = [value for value in values for _ in range(2)]
    return text, signals, [*chain(*enclosed), *low, *high], [*known, *narrowed]


@_law("duality on streams")
def _(rng: random.Random) -> Sides:
    one, other, *_ = _words(rng)
    p = formula(rng, rng.choice(_SHALLOW), _WATCHED, bounded=True, leaf=_to_number)
    bounds, signals = _interval(rng), _trace(rng)
    left, right = f"not {one}{bounds} {p}", f"{other}{bounds} (not {p})"
    (_, one_told, one_rest), (_, other_told, other_rest) = _watch(left, signals), _watch(right, signals)
    return f"{left} | {right}", signals, [*one_told, *one_rest], [*other_told, *other_rest]


@_law("a raised threshold on streams")
def _(rng: random.Random) -> Sides:
    text = formula(rng, rng.choice(_DEEP), _MONOTONE, bounded=True, leaf=_to_constant)
    signals = _trace(rng)
    by, at = rng.randint(0, 32) / 8, _thresholds(rng)
    one, other = _given(at, text), _given([value + by for value in at], text)
    low, high = _watch(other, signals)[1:], _watch(one, signals)[1:]
    lowered = [(v.lo - by, v.hi - by, v.sample) for verdicts in high for v in verdicts]
    return f"{one} | {by}", signals, lowered, [v for verdicts in low for v in verdicts]
