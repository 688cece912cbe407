"""The course of one campaign: its damage under the committee beside always-allow."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phalanx.analysis.report_data import as_map, number
from phalanx.analysis.report_figures import Figure, line_trace, show
from phalanx.types import Verdict

__all__ = ["course_figure"]

_SYMBOLS = {"alert": "triangle-up", "block": "square", "quarantine": "diamond"}


@dataclass(frozen=True)
class Step:
    """One event of the course; ``damage`` counts from the start, this event included."""

    event: float
    damage: float
    verdict: str
    note: str


def _verdict(value: object) -> str:
    if isinstance(value, str):
        return value.lower()
    at = number(value)
    return Verdict(int(at)).name.lower() if at is not None and 0 <= at <= 3 else "unknown"


def _note(label: object, stage: object) -> str:
    at = number(label)
    truth = "malicious" if at == 1 else "benign" if at == 0 else "label unknown"
    return truth if stage in (-1, None, "") else f"{truth}, stage {stage}"


def _steps(run: Mapping[str, Any]) -> list[Step]:
    """The events whose number and damage are known."""
    columns = {key: value if isinstance(value, list) else [] for key, value in run.items()}
    damage = columns.get("cumulative_damage", [])

    def at(key: str, i: int) -> object:
        column = columns.get(key, [])
        return column[i] if i < len(column) else None

    steps = []
    for i, value in enumerate(damage):
        event, total = number(at("event", i) if columns.get("event") else i), number(value)
        if event is not None and total is not None:
            steps.append(
                Step(event, total, _verdict(at("verdict", i)), _note(at("label", i), at("stage", i)))
            )
    return steps


def _answers(steps: list[Step]) -> list[dict[str, Any]]:
    """The committee's answers above allow, as marks on its line."""
    traces = []
    for name, symbol in _SYMBOLS.items():
        marked = [step for step in steps if step.verdict == name]
        if marked:
            edge = {"color": "$surface", "width": 1}
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": name,
                    "x": [step.event for step in marked],
                    "y": [step.damage for step in marked],
                    "text": [html.escape(f"{name}: {step.note}", quote=False) for step in marked],
                    "hovertemplate": "%{text}<extra></extra>",
                    "marker": {"color": f"${name}", "symbol": symbol, "size": 9, "line": edge},
                }
            )
    return traces


def _line(steps: list[Step], name: str, color: str, width: float) -> list[dict[str, Any]]:
    x, y = [step.event for step in steps], [step.damage for step in steps]
    return [line_trace(x, y, name, color, line={"shape": "hv", "width": width})] if steps else []


def course_figure(evaluation: Mapping[str, Any]) -> Figure:
    """One campaign's damage under the committee beside always-allow, from ``course`` of ``eval.json``."""
    course = as_map(evaluation.get("course"))
    ours, theirs = (_steps(as_map(course.get(name))) for name in ("committee", "always-allow"))
    subtitle = "Damage so far, event by event; marks are the committee's answers above allow."
    if not ours:
        return Figure("course", "Course of a campaign: not evaluated yet", subtitle)
    title = f"This campaign costs {show(ours[-1].damage)} under the committee"
    if theirs:
        title += f", {show(theirs[-1].damage)} when everything is allowed"
    traces = [
        *_line(theirs, "always-allow", "$muted", 1.5),
        *_line(ours, "committee", "$mean", 2.5),
        *_answers(ours),
    ]
    layout = {
        "xaxis": {"title": {"text": "event"}},
        "yaxis": {"title": {"text": "cumulative damage (units of damage)"}, "rangemode": "tozero"},
        "showlegend": True,
        "hovermode": "closest",
        "height": 340,
    }
    return Figure("course", title, subtitle, tuple(traces), layout)
