"""Reading formulas: what is meant, what is refused, and where an error points."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.errors import PhalanxError, UsageError
from phalanx.stl import parse, robustness

TRACE = {"x": [1.0, -2.0, 3.0], "y": [0.5, 4.0, -1.0], "z": [2.0, 0.0, 1.0]}


def same(first: str, second: str) -> bool:
    """Whether two texts mean the same, by their values."""
    return robustness(first, TRACE).tolist() == robustness(second, TRACE).tolist()


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("not x > 0 and y > 0", "(not (x > 0)) and (y > 0)"),
        ("always x > 0 and y > 0", "(always (x > 0)) and (y > 0)"),
        ("x > 0 and y > 0 or z > 0", "((x > 0) and (y > 0)) or (z > 0)"),
        ("x > 0 or y > 0 and z > 0", "(x > 0) or ((y > 0) and (z > 0))"),
        ("x > 0 or y > 0 -> z > 0", "((x > 0) or (y > 0)) -> (z > 0)"),
        ("x > 0 -> y > 0 iff z > 0", "((x > 0) -> (y > 0)) iff (z > 0)"),
        ("x > 0 iff y > 0 xor z > 0", "((x > 0) iff (y > 0)) xor (z > 0)"),
        ("x until y until z", "(x until y) until z"),
        ("x since y until z", "x since (y until z)"),
        ("next x until y", "(next x) until y"),
        ("x + y * z > 1", "(x + (y * z)) > 1"),
        ("x - y - z", "(x - y) - z"),
        ("x * y / 2", "(x * y) / 2"),
        ("x - 1", "x + -1"),
        ("-x > 1", "(0 - x) > 1"),
        ("G x > 0 -> F[0,1] y > 0", "always (x > 0) implies (eventually[0,1] (y > 0))"),
        ("x S[0:1] y", "x since[0,1] y"),
        ("!x | y & z", "(not x) or (y and z)"),
        ("x && y || z", "(x and y) or z"),
        ("x != y", "x !== y"),
        ("x unless y", "(always x) or (x until y)"),
        ("x unless[1,2] y", "(always[0,2] x) or (x until[1,2] y)"),
        ("x and true", "x"),
        ("x or false", "x"),
        ("F[0,1000ms] x", "F[0,1] x"),
        ("F[0,2s] x", "F[0s,2s] x"),
        ("const k = -1.5; x > k", "x > -1.5"),
        ("const int n = 2; F[0,n] x", "F[0,2] x"),
        ("hot = x > 0; hot and G hot", "x > 0 and (G x > 0)"),
        ("x > 0 // trailing\n", "x > 0"),
        ("x /* of\n two lines */ > 0", "x > 0"),
        ("x > 1_000 ; ", "x > 1000"),
        ("x > .5e1", "x > 5"),
    ],
)
def test_what_a_text_means(text: str, meant: str) -> None:
    assert same(text, meant)


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
        ("a = x > 0; a = y > 0; a", 12, "twice"),
        ("a = x > 0; x = y > 0; a", 5, "signal"),
        ("until = x > 0", 1, "until"),
        ("G", 2, "the end"),
    ],
)
def test_an_error_points_at_its_column(text: str, column: int, told: str) -> None:
    with pytest.raises(UsageError, match=f"column {column}:") as caught:
        parse(text)
    message = str(caught.value)
    assert told in message
    assert message.splitlines()[-1] == "  " + " " * (column - 1) + "^"


def test_an_error_names_the_line() -> None:
    with pytest.raises(UsageError, match="line 2, column 7:"):
        parse("hot = x > 0;\nG hot )")


def test_deep_nesting_is_an_error_and_no_crash() -> None:
    with pytest.raises(UsageError, match="nested deeper"):
        parse("(" * 10_000 + "x" + ")" * 10_000)
    assert parse("not " * 50 + "x").signals == ("x",)


@given(st.text(alphabet="xyGFUS01 .,:;=<>!&|+-*/()[]", max_size=40) | st.text(max_size=20))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        formula = parse(text)
    except PhalanxError as error:
        assert error.exit_code == 2
    else:
        assert formula.nodes
