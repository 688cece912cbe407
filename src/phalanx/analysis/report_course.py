"""The course of one campaign under the committee and under always-allow, side by side: damage, stages and answers."""

import html
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from phalanx.analysis.report_data import as_map, number
from phalanx.analysis.report_figures import Figure, line_trace, show
from phalanx.types import Verdict

__all__ = ["course_figure"]

_SYMBOLS = {"alert": "triangle-up", "block": "square", "quarantine": "diamond"}
_SIDES = {"committee": ("under the committee", "$mean"), "always-allow": ("everything allowed", "$muted")}
_GAP = 0.04
_AXIS = {
    "gridcolor": "$grid",
    "linecolor": "$line",
    "zerolinecolor": "$line",
    "tickcolor": "$line",
    "automargin": True,
}
_TITLE = {"font": {"size": 12}, "standoff": 8}


@dataclass(frozen=True)
class Step:
    """One event of the course.

    Attributes:
        event: its number.
        damage: from the start, this event included.
        verdict: the answer to it, in lower case.
        stage: name of the attack's stage, "" for what serves no attack.
        note: what it was.
    """

    event: float
    damage: float
    verdict: str
    stage: str
    note: str


def _verdict(value: object) -> str:
    if isinstance(value, str):
        return value.lower()
    at = number(value)
    return Verdict(int(at)).name.lower() if at is not None and 0 <= at <= 3 else "unknown"


def _stage(value: object, names: list[str]) -> str:
    """A stage by its name, or by its number in the order of an attack, from 0; unnamed ones count from 1."""
    if isinstance(value, str):
        return value
    at = number(value)
    if at is None or at < 0:
        return ""
    return names[int(at)] if at < len(names) else f"stage {int(at) + 1}"


def _note(label: object, stage: str) -> str:
    at = number(label)
    truth = "malicious" if at == 1 else "benign" if at == 0 else "label unknown"
    return f"{truth}, {stage}" if stage else truth


def _steps(run: Mapping[str, Any], names: list[str]) -> list[Step]:
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
            stage = _stage(at("stage", i), names)
            steps.append(Step(event, total, _verdict(at("verdict", i)), stage, _note(at("label", i), stage)))
    return steps


def _marks(
    steps: list[Step], y: list[float], name: str, symbol: str, axes: Mapping[str, str]
) -> dict[str, Any]:
    """The events of one verdict as marks."""
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "legendgroup": name,
        "x": [step.event for step in steps],
        "y": y,
        "text": [html.escape(f"{name}: {step.note}", quote=False) for step in steps],
        "hovertemplate": "%{text}<extra></extra>",
        "cliponaxis": False,
        "marker": {
            "color": f"${name}",
            "symbol": symbol,
            "size": 9,
            "line": {"color": "$surface", "width": 1},
        },
        **axes,
    }


def _damage(steps: list[Step], name: str, color: str, axes: Mapping[str, str]) -> list[dict[str, Any]]:
    """The damage of one side, with its answers above allow as marks on the line."""
    x, y = [step.event for step in steps], [step.damage for step in steps]
    traces = [line_trace(x, y, name, color, line={"shape": "hv"}, **axes)]
    for verdict, symbol in _SYMBOLS.items():
        marked = [step for step in steps if step.verdict == verdict]
        if marked:
            traces.append(_marks(marked, [step.damage for step in marked], verdict, symbol, axes))
    return traces


def _stages(steps: list[Step], stages: list[str], axes: Mapping[str, str]) -> list[dict[str, Any]]:
    """The attack's events of one side, a row a stage, with the answer to each."""
    traces = []
    for verdict, symbol in {"allow": "circle", **_SYMBOLS}.items():
        marked = [step for step in steps if step.stage and step.verdict == verdict]
        if marked:
            rows: list[float] = [stages.index(step.stage) for step in marked]
            traces.append(_marks(marked, rows, verdict, symbol, axes))
    return traces


def _panel(i: int, start: float, width: float, stages: list[str]) -> dict[str, Any]:
    """The axes of panel ``i``: damage above, a row for each stage below where there are any."""
    suffix, below = ("", "2")[i], ("3", "4")[i]
    x: dict[str, Any] = {
        **_AXIS,
        "domain": [start, start + width],
        "anchor": f"y{below if stages else suffix}",
        "title": {"text": "event", **_TITLE},
        "nticks": 5,
    }
    above: dict[str, Any] = {
        **_AXIS,
        "domain": [0.5 if stages else 0.0, 1.0],
        "anchor": f"x{suffix}",
        "rangemode": "tozero",
    }
    rows: dict[str, Any] = {
        **_AXIS,
        "domain": [0.0, 0.44],
        "anchor": f"x{suffix}",
        "range": [-0.5, len(stages) - 0.5],
        "tickvals": list(range(len(stages))),
        "ticktext": [html.escape(stage.replace("_", " "), quote=False) for stage in stages],
    }
    if i:  # the second panel has the first one's scales
        x["matches"], above["matches"] = "x", "y"
        above["showticklabels"] = rows["showticklabels"] = False
    else:
        above["title"] = {"text": "damage so far", **_TITLE}
    return {f"xaxis{suffix}": x, f"yaxis{suffix}": above, **({f"yaxis{below}": rows} if stages else {})}


def _layout(sides: list[str], stages: list[str]) -> dict[str, Any]:
    """A panel for each side, with its name above it."""
    width = (1.0 - _GAP * (len(sides) - 1)) / len(sides)
    layout: dict[str, Any] = {
        "showlegend": True,
        "hovermode": "closest",
        "height": 460 if stages else 340,
        "legend": {"y": 1.1},
        "annotations": [],
    }
    for i, side in enumerate(sides):
        start = i * (width + _GAP)
        layout |= _panel(i, start, width, stages)
        heading = {
            "text": _SIDES[side][0],
            "x": start + width / 2,
            "y": 1.0,
            "xanchor": "center",
            "yanchor": "bottom",
        }
        paper = {"xref": "paper", "yref": "paper", "showarrow": False, "font": {"color": "$ink"}}
        layout["annotations"].append({**heading, **paper})
    return layout


def course_figure(evaluation: Mapping[str, Any]) -> Figure:
    """One campaign's course under the committee beside always-allow, from ``course`` of ``eval.json``.

    ``course["stages"]`` names the stages in the order of an attack; without it they go by the names or numbers of the
    events themselves.
    """
    course = as_map(evaluation.get("course"))
    given = course.get("stages")
    names = [str(name) for name in given] if isinstance(given, list) else []
    runs = {side: _steps(as_map(course.get(side)), names) for side in _SIDES}
    ours, theirs = runs.values()
    subtitle = "Damage so far, with the answers above allow; below, the attack's events by stage and answer."
    if not ours:
        return Figure("course", "Course of a campaign: not evaluated yet", subtitle)
    title = f"This campaign costs {show(ours[-1].damage)} under the committee"
    if theirs:
        title += f", {show(theirs[-1].damage)} when everything is allowed"
    sides = [side for side, steps in runs.items() if steps]
    met = dict.fromkeys(step.stage for side in reversed(sides) for step in runs[side] if step.stage)
    stages = [
        *dict.fromkeys(name for name in names if name in met),
        *(name for name in met if name not in names),
    ]
    traces: list[dict[str, Any]] = []
    for i, side in enumerate(sides):
        x = ("x", "x2")[i]
        traces += _damage(runs[side], side, _SIDES[side][1], {"xaxis": x, "yaxis": ("y", "y2")[i]})
        traces += _stages(runs[side], stages, {"xaxis": x, "yaxis": ("y3", "y4")[i]})
    shown: set[str] = set()
    for trace in traces:  # each name once in the legend
        trace["showlegend"] = trace["name"] not in shown
        shown.add(trace["name"])
    return Figure("course", title, subtitle, tuple(traces), _layout(sides, stages))
