"""Reading formulas: what is meant, what is refused, and where an error points."""

import contextlib
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from stl.formulas import trace
from stl.rtamt_oracle import rtamt_robustness

from phalanx.errors import DataError, PhalanxError, UsageError
from phalanx.stl import parse, robustness

SPELLINGS = [
    ("not x", "!x"),
    ("x and y", "x & y"),
    ("x and y", "x && y"),
    ("x or y", "x | y"),
    ("x or y", "x || y"),
    ("x implies y", "x -> y"),
    ("x iff y", "x <-> y"),
    ("always x", "G x"),
    ("eventually x", "F x"),
    ("historically x", "H x"),
    ("once x", "O x"),
    ("x until y", "x U y"),
    ("x unless y", "x W y"),
    ("x since y", "x S y"),
    ("next x", "X x"),
    ("prev x", "Y x"),
    ("s_next x", "sX x"),
    ("s_prev x", "sY x"),
    ("x >= y", "x > y"),
    ("x <= y", "x < y"),
    ("x !== y", "x != y"),
    ("x > true", "x > TRUE"),
    ("x > false", "x > FALSE"),
    ("F[1,2] x", "F[1:2] x"),
    ("F[1s,2s] x", "F[1000ms,2000ms] x"),
    ("F[1ms,2ms] x", "F[1000us,2000us] x"),
    ("F[1us,2us] x", "F[1000ns,2000ns] x"),
    ("F[1ms, 2ms] x", "F[1,2ms] x"),
    ("F[1.5,2] x", "F[1500ms,2000ms] x"),
    ("x > 1000", "x > 1_000"),
    ("x > 5", "x > .5e1"),
    ("x > 1.", "x > 1"),
]


@pytest.mark.parametrize(("text", "other"), SPELLINGS)
def test_spellings(text: str, other: str) -> None:
    assert parse(text).nodes == parse(other).nodes


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        *(
            (f"{op} x > 0 and y", f"({op} (x > 0)) and y")
            for op in ("not", "always", "once", "prev", "s_next")
        ),
        *(
            (f"{op} x until y", f"({op} x) until y")
            for op in ("next", "s_prev", "historically", "eventually")
        ),
        *(
            (f"z + {op} x > 0", f"z + ({op} (x > 0))")
            for op in ("not", "always", "next", "s_next", "prev", "once")
        ),
        ("x > 0 and y > 0 or z > 0", "((x > 0) and (y > 0)) or (z > 0)"),
        ("x > 0 or y > 0 and z > 0", "(x > 0) or ((y > 0) and (z > 0))"),
        ("x or y -> z", "(x or y) -> z"),
        ("x -> y iff z", "(x -> y) iff z"),
        ("x iff y -> z", "x iff (y -> z)"),
        ("x iff y xor z", "(x iff y) xor z"),
        ("x xor y iff z", "x xor (y iff z)"),
        ("x iff y iff z", "(x iff y) iff z"),
        ("x xor y xor z", "(x xor y) xor z"),
        ("x until y until z", "(x until y) until z"),
        ("x since y since z", "(x since y) since z"),
        ("x unless y unless z", "(x unless y) unless z"),
        ("x since y until z", "x since (y until z)"),
        ("x since y unless z", "x since (y unless z)"),
        ("x unless y until z", "x unless (y until z)"),
        ("x until y and z", "(x until y) and z"),
        ("x and y since z", "x and (y since z)"),
        ("x > y until z", "(x > y) until z"),
        ("x + y * z > 1", "(x + (y * z)) > 1"),
        ("x + y - z", "(x + y) - z"),
        ("x - y - z", "(x - y) - z"),
        ("x - y / z", "x - (y / z)"),
        ("x * y / z", "(x * y) / z"),
        ("x / y / z", "(x / y) / z"),
        ("x + y / z", "x + (y / z)"),
        ("-2 * x", "(-2) * x"),
        ("-x * y", "(-x) * y"),
        ("G x > 0 -> F[0,1] y > 0", "always (x > 0) implies (eventually[0,1] (y > 0))"),
        ("rise(x)", "(not s_prev x) and x"),
        ("const k = -1.5; x > k", "x > -1.5"),
        ("const int n = 2; F[0,n] x", "F[0,2] x"),
        ("hot = x > 0; hot and G hot", "x > 0 and (G x > 0)"),
        ("x > 0 // trailing\n", "x > 0"),
        ("x /* of\n two lines */ > 0", "x > 0"),
        ("x > 1 ; ", "x > 1"),
        ("sum(x, 2) > 1", "sum(x, 2000ms) > 1"),
        ("const w = 2; sum(x, w) > 1", "sum(x, 2s) > 1"),
        ("const q = .5; quantile(x, q, 2) > 1", "quantile(x, 0.5, 2) > 1"),
        ("const e = -3; rate(x, y, 2, e) > 1", "rate(x, y, 2, -3) > 1"),
        ("-sum(x, 2) * y", "(-sum(x, 2)) * y"),
        ("age_since(x > 0 or y > 0) < 3", "age_since((x > 0) or (y > 0)) < 3"),
    ],
)
def test_what_a_text_means(text: str, meant: str) -> None:
    assert parse(text).nodes == parse(meant).nodes


def test_minus_truth_and_neighbours() -> None:
    trace = {"x": [1.0, -2.0, 3.0]}
    assert robustness("-x", trace).tolist() == [-1, 2, -3]
    assert robustness("x - 1", trace).tolist() == [0, -3, 2]
    assert robustness("x < 2", trace).tolist() == [1, 4, -1]
    assert robustness("(x > 2) iff true", trace).tolist() == [-math.inf] * 3
    assert robustness("x and true", trace).tolist() == robustness("x or false", trace).tolist() == [1, -2, 3]
    assert robustness("rise(x)", trace).tolist() == [1, -2, 2]
    assert robustness("fall(x)", trace).tolist() == [-1, 1, -3]


@pytest.mark.parametrize(("unbounded", "bounds"), [("", ""), ("[0,2]", "[1,2]")])
def test_unless_is_always_or_until(unbounded: str, bounds: str) -> None:
    signals = trace(random.Random(0))
    found = robustness(f"x unless{bounds} y", signals)
    assert found.tolist() == robustness(f"(always{unbounded} x) or (x until{bounds} y)", signals).tolist()


def loose(rng: random.Random, depth: int) -> str:
    """A formula with few parentheses; now and then one that phalanx refuses."""
    if depth == 0:
        return rng.choice(("x > 0", "y < 1", "x + y * z > 1", "z == 0", "-1 <= x * y / 2", "y + 0"))
    a, b = loose(rng, depth - 1), loose(rng, rng.randint(0, depth - 1))
    bounds = rng.choice(("", f"[{rng.randint(0, 2)},{rng.randint(2, 4)}]"))
    prefix = rng.choice(("not", "always", "F", "O", "historically", "next", "Y", "sX", "s_prev"))
    if prefix in ("always", "F", "O", "historically"):
        prefix += bounds
    infix = rng.choice(
        ("and", "or", "implies", "iff", "xor", "until", "since", "U" + bounds, "S" + bounds, "W[0,2]")
    )
    return rng.choice(
        (f"{prefix} {a}", f"{a} {infix} {b}", f"{a} {infix} {prefix} {b}", f"({a}) {infix} {b}")
    )


def test_texts_with_few_parentheses_mean_what_they_mean_to_rtamt() -> None:
    pytest.importorskip(
        "rtamt", reason="rtamt 0.4.10 is not installed (no release of it runs on this Python)"
    )
    compared = 0
    for seed in range(400):
        rng = random.Random(seed)
        text, signals = loose(rng, rng.randint(1, 3)), trace(rng, longest=12)
        try:
            found = robustness(text, signals)
        except UsageError as error:
            assert "parentheses" in str(error)
            continue
        expected = rtamt_robustness(text, signals)
        if expected is not None:
            assert found.tolist() == expected.tolist(), text
            compared += 1
    assert compared >= 250


def test_a_part_that_occurs_twice_is_one_node() -> None:
    once = parse("F[0,1] (x > 0)")
    twice = parse("(F[0,1] (x > 0)) or (G (F[0,1] (x > 0)))")
    assert len(twice.nodes) == len(once.nodes) + 2


def test_named_parts_and_horizon() -> None:
    formula = parse("late = F[0,5] y > 0; G[0,10] (x > 0 -> late)")
    assert formula.signals == ("x", "y")
    assert formula.horizon_ns == 15 * 10**9
    assert formula.nodes[formula.names["late"]].op == "eventually"
    assert parse("G x > 0").horizon_ns is None
    assert parse("H[0,7] x > 0").horizon_ns == 0


@pytest.mark.parametrize(
    ("text", "column", "told"),
    [
        ("x - y + z > 0", 7, "parentheses"),
        ("x / y * z > 0", 7, "parentheses"),
        ("x -> y -> z", 8, "parentheses"),
        ("x > y > z", 7, "parentheses"),
        ("x > > 3", 5, "expected a formula, found '>'"),
        ("x y", 3, "';' or the end"),
        ("(x > 0", 7, "column 1"),
        ("always[0,5 x", 12, "']'"),
        ("always[0 5] x", 10, "','"),
        ("always[2,1] x", 7, "begin after their end"),
        ("always[-1,2] x", 8, "a time from 0"),
        ("always[0s,2] x", 7, "2s"),
        ("always[0,.5ns] x", 7, "nanoseconds"),
        ("next[0,1] x", 5, "no bounds"),
        ("x @ y", 3, "'@'"),
        ("", 1, "the end"),
        ("pow(x) > 1", 1, "takes 2"),
        ("rise(x", 7, "')'"),
        ("const k = y; x > k", 11, "a number"),
        ("const k = 3", 12, "after the constants"),
        ("x > 0; y > 0", 1, "followed by another"),
        ("a = x > k; const k = 3; a", 9, "signal"),
        ("x > 1e999", 5, "true for infinity"),
        ("F[0,1e300] x", 5, "9e+09"),
        ("F[0,1e9000000] x", 5, "9e+09"),
        ("x > 1_", 6, "';' or the end"),
        ("G[0s,2.5] x", 2, "2.5s"),
        ("a = x > 0; a = y > 0; a", 12, "twice"),
        ("a = x > 0; x = y > 0; a", 5, "defined at column 12"),
        ("until = x > 0", 1, "until"),
        ("abs = x > 0; abs", 1, "no name"),
        ("sum(x) > 1", 1, "sum(x, window)"),
        ("rate(x, y, 1, 2, 3) > 1", 1, "rate(x, y, window, [empty]), not 5"),
        ("rate(x, y) > 1", 1, "not 2"),
        ("sum(x, y) > 1", 8, "a time from 0"),
        ("sum(x, -1) > 1", 8, "a time from 0"),
        ("sum(x, .5ns) > 1", 8, "nanoseconds"),
        ("rate(x, y, 1, z) > 1", 15, "a number"),
        ("quantile(x, 1.5, 2) > 1", 13, "from 0 to 1"),
        ("quantile(x, y, 2) > 1", 13, "a number"),
        ("age_since(x, 1) > 1", 1, "takes 1"),
        ("sum[0,1] x", 4, "';' or the end"),
        ("G", 2, "the end"),
    ],
)
def test_an_error_points_at_its_column(text: str, column: int, told: str) -> None:
    with pytest.raises(UsageError, match=f"column {column}:") as caught:
        parse(text)
    assert told in str(caught.value)
    assert caught.value.__notes__[0].splitlines()[-1] == "  " + " " * (column - 1) + "^"


@pytest.mark.parametrize("word", ["sum", "rate", "quantile", "age_since"])
def test_words_beyond_rtamt_are_names_where_no_parenthesis_follows(word: str) -> None:
    assert parse(f"{word} > 0 and {word} / x < 3").signals == (word, "x")
    assert parse(f"{word} = x > 0; always {word}").signals == ("x",)
    assert parse(f"const {word} = 3; x > {word}").nodes == parse("x > 3").nodes
    assert parse(f"sum({word}, 1) > 0").signals == (word,)


@pytest.mark.parametrize("word", ["sum", "rate", "quantile", "age_since"])
def test_these_names_mean_to_rtamt_what_they_mean_here(word: str) -> None:
    pytest.importorskip(
        "rtamt", reason="rtamt 0.4.10 is not installed (no release of it runs on this Python)"
    )
    text, signals = f"always[0,1] ({word} / 2 > 1)", {word: np.array([4.0, -1.0, 2.0])}
    expected = rtamt_robustness(text, signals)
    assert expected is not None and robustness(text, signals).tolist() == expected.tolist()


def test_an_error_names_the_line() -> None:
    with pytest.raises(UsageError, match="line 2, column 7:"):
        parse("hot = x > 0;\nG hot )")
    with pytest.raises(UsageError, match=r"line 2, column 7: .*for the '\(' at line 2, column 1"):
        parse("a = x > 1;\n(y > 0")
    with pytest.raises(UsageError, match="line 2, column 1: .*statements are separated"):
        parse("a = x > 0\nb = a")
    with pytest.raises(UsageError, match="column 1: a comment without an end"):
        parse("/* a " * 20_000)


def test_deep_nesting_is_an_error_and_no_crash() -> None:
    with pytest.raises(UsageError, match="nested deeper"):
        parse("(" * 10_000 + "x" + ")" * 10_000)
    assert parse("not " * 50 + "x").signals == ("x",)


TOKENS = (
    *(
        "x",
        "y",
        "a.b",
        "_",
        "$",
        "1",
        "1_0",
        "1_",
        ".5",
        "1e3",
        "1e",
        "0x1",
        "true",
        "const",
        "=",
        ";",
        "s",
        "ms",
    ),
    *(
        "not",
        "G",
        "F",
        "U",
        "S",
        "W",
        "X",
        "rise",
        "pow",
        "abs",
        "sqrt",
        "sum(",
        "rate(",
        "quantile(",
        "age_since(",
        ",.5,",
        "->",
        "and",
        "iff",
        "xor",
        "[0,1]",
        "[0,2]",
    ),
    *(
        "(",
        ")",
        "[",
        "]",
        ",",
        ":",
        "+",
        "-",
        "*",
        "/",
        ">",
        "==",
        "!",
        "|",
        "/*",
        "*/",
        "//",
        "\n",
        " ",
        "\t",
    ),
)


@given(st.lists(st.sampled_from(TOKENS), max_size=14).map("".join) | st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        formula = parse(text)
    except PhalanxError as error:
        assert error.exit_code == 2
        return
    with contextlib.suppress(DataError, UsageError):
        assert len(robustness(formula, {name: [1.0, 2.0] for name in formula.signals} or {"x": [1.0]}))


def test_formulas_are_values() -> None:
    assert parse("x > 0") == parse("x > 0")
    assert len({parse("x > 0"), parse("x > 0"), parse("x > 1")}) == 2
