"""The panel: quantities with their course, what the doctor says now, and never a line too wide."""

import io
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from phalanx.analysis.doctor.finding import SEVERITIES, SYMPTOMS, Finding
from phalanx.runtime.panel import Panel

KEYS = (
    "loss/value",
    "value/explained_variance",
    "policy/entropy_share",
    "policy/entropy",
    "policy/approx_kl",
    "reward/step",
    "reward/episode",
    "eval/f1",
    "policy/rate_allow",
    "policy/rate_block",
)


def drawn(panel: Panel, width: int = 80, encoding: str = "utf-8") -> list[str]:
    shown = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=shown, width=width, color_system=None, force_terminal=True, legacy_windows=False).print(
        panel
    )
    shown.seek(0)
    return [line.rstrip() for line in shown.read().splitlines()]


def line_of(panel: Panel, name: str) -> list[str]:
    """Value and course of a quantity."""
    (line,) = (line for line in drawn(panel) if line.startswith(f"  {name}  "))
    return line.removeprefix(f"  {name}").split()


def finding(symptom: str, severity: str, iteration: int | None = 4, **evidence: Any) -> Finding:
    return Finding(symptom, severity, evidence, "", "", iteration)


VALUES = st.none() | st.floats()
ROWS = st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES), max_size=8)
FINDINGS = st.lists(
    st.builds(
        finding,
        st.sampled_from(SYMPTOMS),
        st.sampled_from(SEVERITIES),
        st.none() | st.integers(1, 10**6),
        spec=st.none() | st.text("abc[]\\", min_size=1, max_size=90),
        seeds=st.sampled_from([None, "10 of 10"]),
    ),
    max_size=6,
)


@given(ROWS, st.none() | FINDINGS, st.integers(20, 120), st.sampled_from(["utf-8", "ascii", "latin-1"]))
def test_whatever_comes_it_is_drawn_within_the_width(
    rows: list[dict[str, float | None]], findings: list[Finding] | None, width: int, encoding: str
) -> None:
    panel = Panel("train", 10**6)
    for iteration, row in enumerate(rows, start=1):
        panel.update({"iteration": iteration, **row}, "17h23m10s")
    panel.diagnose(findings)
    lines = drawn(panel, width, encoding)
    assert max(map(len, lines)) <= width
    assert len(lines) <= 1 + 6 + 1 + 4


def test_progress_and_time_left_are_in_the_first_line() -> None:
    panel = Panel("seed 3", 300)
    panel.update({"iteration": 120}, "4m12s")
    assert drawn(panel)[0].startswith("seed 3  ━━━━━━━━━━━━")
    assert drawn(panel)[0].endswith("  120 of 300  4m12s left")


def test_what_a_row_lacks_stays_and_what_is_null_is_a_gap() -> None:
    panel = Panel("train", 9)
    for iteration, row in enumerate(
        [
            {"reward/step": 1.0, "eval/f1": 0.25},
            {"reward/step": None},
            {"reward/step": 2.0, "eval/f1": 0.75},
            {"reward/step": math.inf},
            {"reward/step": math.nan},
        ],
        start=1,
    ):
        panel.update({"iteration": iteration, **row}, None)
    assert line_of(panel, "reward per step") == ["-", "▁", "█"]
    assert line_of(panel, "validation F1") == ["0.75", "▃▇"]


def test_a_loss_is_drawn_by_its_logarithm() -> None:
    panel = Panel("train", 9)
    for iteration, value in enumerate([1e4, 1e2, 1.0, 0.0], start=1):
        panel.update({"iteration": iteration, "loss/value": value}, None)
    assert line_of(panel, "value loss") == ["0", "█▅▁▁"]


def test_what_tells_the_same_better_replaces_a_row() -> None:
    panel = Panel("train", 9)
    panel.update({"iteration": 1, "policy/entropy": 1.1, "reward/episode": -7.0}, None)
    assert line_of(panel, "entropy")[0] == "1.1" and line_of(panel, "reward per episode")[0] == "-7"
    panel.update({"iteration": 2, "policy/entropy_share": 0.8, "reward/step": -0.1}, None)
    text = "\n".join(drawn(panel))
    assert "entropy share" in text and "reward per step" in text
    assert "  entropy  " not in text and "reward per episode" not in text


def test_findings_come_and_are_taken_back() -> None:
    panel = Panel("train", 9)
    assert drawn(panel)[-1] == "  doctor: no word yet"
    panel.diagnose([finding("kl-explosion", "error", 4), finding("reward-flat", "warning", 8)])
    assert drawn(panel)[1:] == [
        "  doctor: 2 findings",
        "    error   kl-explosion since iteration 4",
        "    warning reward-flat since iteration 8",
    ]
    panel.diagnose([finding("reward-flat", "warning", 8)])
    assert drawn(panel)[1:] == ["  doctor: 1 finding", "    warning reward-flat since iteration 8"]
    panel.diagnose([])
    assert drawn(panel)[1:] == ["  doctor: nothing found"]


def test_three_findings_are_shown_and_the_others_counted() -> None:
    panel = Panel("train", 9)
    panel.diagnose(
        [finding("spec-always-violated", "warning", seeds="3 of 10", spec=f"[s{i}]") for i in range(5)]
    )
    lines = drawn(panel)[1:]
    assert lines[0] == "  doctor: 5 findings, 2 of them not shown"
    assert lines[1:] == [
        f"    warning spec-always-violated since iteration 4 (3 of 10 seeds): [s{i}]" for i in range(3)
    ]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437", "no-such-encoding"])
def test_a_terminal_without_blocks_gets_ascii(encoding: str) -> None:
    panel = Panel("train", 9)
    for iteration in range(1, 9):
        panel.update({"iteration": iteration, "reward/step": float(iteration)}, "3s")
    shown = io.StringIO()
    console = Console(file=shown, width=80, color_system=None, force_terminal=True, legacy_windows=False)
    options = console.options.update()
    options.encoding = encoding
    for part in panel.__rich_console__(console, options):
        shown.write("".join(segment.text for segment in console.render(part, options)))
    assert shown.getvalue().isascii()
    assert "_.:-=+*#" in shown.getvalue()
