"""Arguments of wrong types get one clear error each.

Tried in a process without the type checker that tests put around every function: users have none.
"""

import json
import subprocess
import sys

import pytest

from phalanx.errors import UsageError
from phalanx.stl.arguments import expect_mapping, number, whole_number

SPEC = '("a", "always (suspicion > .9 -> answered > .5)", 1)'
CASES = {
    "parse(3)": "formula: expected its text, or what parse() returned, got int",
    "robustness(None, {'x': [1]})": "formula: expected its text",
    "robustness('x > 0', {'x': [1]}, '1')": "period '1': expected seconds",
    "robustness('x > 0', 2.5)": "signals: expected a mapping from names to values, got float",
    "robustness_at(b'x > 0', [1], {'x': [1]})": "formula: expected its text, or what parse() returned, got bytes",
    "robustness_bounds('x > 0', None, {'x': [1]})": "lower: expected a mapping from names to values, got NoneType",
    "robustness_bounds('x > 0', {'x': [1]}, 1)": "upper: expected a mapping from names to values, got int",
    "diagnose('x > 0', {'x': [1]}, 0.5)": "sample 0.5: expected a whole number from 0",
    "normalised(parse('x > 0'), {'x': 'a'})": "scale 'a' of 'x': expected a finite number above 0",
    "normalised(parse('x > 0'), {'x': None})": "scale None of 'x'",
    "normalised(parse('x > 0'), 2.0)": "scales: expected a mapping from names to values, got float",
    "normalised(2)": "formula: expected its text",
    "calibrate([1.0] * 9, [1.0] * 9, '0.1')": "delta '0.1': expected the probability",
    "calibrate([1.0] * 9, [1.0] * 9, 0.1, None)": "shift None: expected a total variation distance",
    "conformal_quantile([1.0] * 9, 0.1, tie_break='a')": "tie_break 'a': expected a number from 0",
    "Monitor(['x > 0'])": "formula: expected its text, or what parse() returned, got list",
    "Monitor('x > 0', None)": "period None: expected seconds",
    "EventMonitor(7)": "formula: expected its text",
    "EventMonitor('x > 0', missing=None)": "missing None; choose one of: unknown, hold, error",
    "EventMonitor('x > 0', missing=['hold'])": "missing ['hold']; choose one of",
    "EventStreams(7)": "formula: expected its text",
    "EventStreams('x > 0', lateness='1')": "lateness '1': expected seconds from 0",
    "EventStreams('x > 0', lateness=None)": "lateness None: expected seconds from 0",
    "EventStreams('x > 0', max_entities=2.5)": "max_entities 2.5: expected a whole number from 1",
    "EventStreams('x > 0', max_entities='2')": "max_entities '2': expected a whole number from 1",
    "EventStreams('x > 0', on_reject=[])": "on_reject []: expected a function of a Reject, or None",
    "Fleet(2, 3)": "formula: expected its text",
    "Fleet('x > 0', 2.5)": "entities 2.5: expected a whole number from 1",
    "Fleet('x > 0', None)": "entities None: expected a whole number from 1",
    "Fleet('x > 0', '3')": "entities '3': expected a whole number from 1",
    "Fleet('x > 0', 2, 'second')": "period 'second': expected seconds",
    "Fleet('x > 0', 2).update(None)": "values: expected a mapping from names to values, got NoneType",
    "JitMonitor(2)": "formula: expected its text",
    "JitMonitor('x > 0', 'a')": "period 'a': expected seconds",
    "JitMonitor('x > 0', dtype='int32')": "dtype 'int32': expected a type of floating-point numbers",
    "JitMonitor('x > 0', dtype=2.5)": "dtype 2.5: expected a type of floating-point numbers",
    "JitMonitor('x > 0').init(2.5)": "n 2.5: expected a whole number from 0",
    "JitMonitor('x > 0').init(-1)": "n -1: expected a whole number from 0",
    "JitMonitor('x > 0').step(JitMonitor('x > 0').init(1), 1)": "signals: expected a mapping",
    "smooth_robustness('x > 0', {'x': [1.0]}, temperature='1')": "temperature '1': expected a number above 0",
    "smooth_robustness('x > 0', None)": "signals: expected a mapping",
    "smooth_robustness(None, {'x': [1.0]})": "formula: expected its text",
    "Shield(None)": "specs: expected a list of specifications, got NoneType",
    "Shield('always x > 0')": "specs: expected a list of specifications, got str",
    f"Shield({SPEC})": "specification 'a': expected (name, formula, priority), or what read_specs() returns",
    "Shield([2.5])": "specification 2.5: expected (name, formula, priority)",
    "Shield([('a',)])": "specification ('a',): expected (name, formula, priority)",
    "Shield([(['a'], 'always x > 0', 1)])": "specification ['a']: expected a text as its name",
    "Shield([('a', 2.5, 1)])": "specification 'a': formula: expected its text",
    "Shield([('a', 'always x > 0', '1')])": "specification 'a': priority '1' is no number",
    f"Shield([{SPEC}], effects=None)": "effects: expected a mapping from names to values, got NoneType",
    f"Shield([{SPEC}], effects={{'answered': 1.0}})": "effect 'answered' 1.0: expected 4 numbers",
    f"Shield([{SPEC}], effects={{'answered': (0, 1, 1)}})": "effect 'answered' (0, 1, 1): expected 4 numbers",
    f"Shield([{SPEC}], effects={{'answered': 'abcd'}})": "effect 'answered' 'abcd': expected 4 numbers",
    f"Shield([{SPEC}], most_states='9')": "most_states '9': expected a whole number from 1",
    f"Shield([{SPEC}]).init(2.5)": "n 2.5: expected a whole number from 0",
    f"Shield([{SPEC}]).init((2, 'a'))": "n 'a': expected a whole number from 0",
    f"Shield([{SPEC}]).mask(Shield([{SPEC}]).init(1), None)": "inputs: expected a mapping",
}
"""What is called -> what it is told, or how that begins."""

PROGRAM = """
import json, sys
from phalanx.errors import UsageError
from phalanx.stl import *
from phalanx.stl.conformal import conformal_quantile
from phalanx.stl.jitted import JitMonitor
from phalanx.stl.shield import Shield
from phalanx.stl.smooth import smooth_robustness
told = {}
for call in json.load(sys.stdin):
    try:
        told[call] = f"no error: {eval(call)}"
    except UsageError as error:
        told[call] = str(error)
    except Exception as error:
        told[call] = f"{type(error).__name__}: {error}"
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def told() -> dict[str, str]:
    """What each call is told."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        input=json.dumps([*CASES]),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("call", CASES)
def test_wrong_types_get_one_clear_error(told: dict[str, str], call: str) -> None:
    assert told[call].startswith(CASES[call])
    assert "\n" not in told[call]


@pytest.mark.parametrize("given", [None, "2", b"2", [2.0], {}, 1j, "nan", 10**400])
def test_what_is_no_number_lies_in_no_range(given: object) -> None:
    found = number(given)
    assert not found <= 0.0 and not found >= 0.0


def test_numbers_of_all_kinds() -> None:
    assert number(True) == 1.0 and number(2) == 2.0 and number(float("inf")) == float("inf")
    assert whole_number("n", 3, 3) == 3
    expect_mapping("signals", {})


@pytest.mark.parametrize("given", [2, 2.0, "3", None, [3]])
def test_whole_numbers_from_a_least_one_on(given: object) -> None:
    with pytest.raises(UsageError, match="^n .*: expected a whole number from 3$"):
        whole_number("n", given, 3)
