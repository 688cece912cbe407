"""The report's figures: one message each, as plain plotly.js descriptions.

Colours are names (``$mean``) that the page resolves for its light or dark theme.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import fmean, median
from typing import Any

from phalanx.analysis.report_data import ReportData, RunData, number, series
from phalanx.types import Verdict

__all__ = ["Figure", "learning_figures", "line_trace", "show"]

_MOST_POINTS = 400
_RATIO_FLOOR = 1e-9
_LOG_SPAN = 50.0


@dataclass(frozen=True)
class Figure:
    """A plot and the words around it.

    Attributes:
        name: identifier on the page.
        title: the message, a sentence about the data.
        subtitle: what is drawn and in which unit.
        data: plotly traces; empty where there is nothing to draw.
        layout: plotly layout, merged into the page's own.
    """

    name: str
    title: str
    subtitle: str
    data: tuple[dict[str, Any], ...] = ()
    layout: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Line:
    """A metric drawn in a figure: its key, its name there and its colour."""

    key: str
    name: str
    color: str = "$mean"


@dataclass(frozen=True)
class Curve:
    """A figure over the iterations.

    Attributes:
        name: identifier on the page.
        what: the quantity, as the subject of a sentence.
        unit: label of the vertical axis.
        lines: metrics in it.
        meaning: one sentence that helps to read it.
        percent: show shares as per cent.
        bounds: of the vertical axis, where they are fixed.
        reference: value and name of a helping line.
        log: ``auto`` where positive values span more than a factor of 50, ``always`` or ``never``.
    """

    name: str
    what: str
    unit: str
    lines: tuple[Line, ...]
    meaning: str
    percent: bool = False
    bounds: tuple[float, float] | None = None
    reference: tuple[float, str] | None = None
    log: str = "never"


_CURVES = (
    Curve(
        "value_loss",
        "Value loss",
        "squared error",
        (Line("loss/value", "value loss"),),
        "In the units of the training target. Beside unit-variance targets, 1.0 means a constant critic.",
        log="auto",
    ),
    Curve(
        "explained_variance",
        "Explained variance",
        "share of variance",
        (Line("value/explained_variance", "explained variance"),),
        "How much of the returns the critic predicts: 1 is all, 0 is a constant critic.",
        reference=(0.0, "constant critic"),
    ),
    Curve(
        "reward",
        "Episode reward",
        "reward per episode",
        (Line("reward/episode", "reward"),),
        "Damage, lost benign work and analysts' time all count against it.",
    ),
    Curve(
        "detection",
        "F1 during training",
        "score",
        (
            Line("eval/f1", "F1", "$mean"),
            Line("eval/precision", "precision", "$alert"),
            Line("eval/recall", "recall", "$quarantine"),
        ),
        "Validation data, where the run was evaluated on the way.",
        bounds=(-0.02, 1.02),
    ),
    Curve(
        "actions",
        "Share of events allowed",
        "share of events",
        tuple(Line(f"policy/rate_{v.name.lower()}", v.name.lower(), f"${v.name.lower()}") for v in Verdict),
        "How often each verdict is voted for. One verdict for everything is a collapsed policy.",
        percent=True,
        bounds=(-0.02, 1.02),
    ),
    Curve(
        "entropy",
        "Policy entropy",
        "nats",
        (Line("policy/entropy", "entropy"),),
        "How undecided the policy is; four equally likely verdicts have 1.39 nats.",
        reference=(math.log(4.0), "uniform"),
    ),
    Curve(
        "kl",
        "Approximate KL",
        "nats per update",
        (Line("policy/approx_kl", "approximate KL"),),
        "How far one update moves the policy. PPO is usually steady below 0.02-0.05.",
    ),
    Curve(
        "pivotal",
        "Pivotal votes",
        "share of votes",
        (Line("*pivotal*", "pivotal rate"),),
        "How often one member's vote changes the verdict. Near 0, members learn nothing from the verdict.",
        percent=True,
    ),
    Curve(
        "first_ratio_error",
        "First ratio error",
        "largest |ratio - 1|",
        (Line("policy/first_ratio_error", "first ratio error"),),
        "Before any update the ratio is 1, so this stays at float precision; else rollout and update disagree.",
        log="always",
    ),
)


def show(value: float | None, *, percent: bool = False) -> str:
    r"""A number for people: three significant digits, thousands separated.

    Example:
        >>> show(0.51234), show(998830.0), show(0.123, percent=True), show(None), show(1.5e-7)
        ('0.512', '998,830', '12.3\xa0%', 'n/a', '1.5e-07')
    """
    if value is None:
        return "n/a"
    if percent:
        digits = 0 if value in (0.0, 1.0) else 2 if 0.99 <= abs(value) < 1.0 else 1
        return f"{100 * value:.{digits}f}\u00a0%"  # no line break before the sign
    if value == 0 or 1e-3 <= abs(value) < 1e3:
        return f"{value:.3g}"
    return f"{value:,.0f}" if 1e3 <= abs(value) < 1e9 else f"{value:.2g}"


def _thin(x: Sequence[float], y: Sequence[float]) -> tuple[list[float], list[float]]:
    """At most about ``_MOST_POINTS`` points: the lowest and the highest of each stretch, so that spikes stay."""
    if len(x) <= _MOST_POINTS:
        return list(x), list(y)
    size = math.ceil(2 * len(x) / _MOST_POINTS)
    keep: list[int] = []
    for start in range(0, len(x), size):
        part = range(start, min(start + size, len(x)))
        keep += sorted({min(part, key=y.__getitem__), max(part, key=y.__getitem__)})
    keep = sorted({0, *keep, len(x) - 1})
    return [x[i] for i in keep], [y[i] for i in keep]


def line_trace(x: Sequence[float], y: Sequence[float], name: str, color: str, **more: Any) -> dict[str, Any]:
    """A plotly line, thinned where it has more points than a screen can show."""
    x, y = _thin(x, y)
    line = {"color": color, "width": 2.5, **more.pop("line", {})}
    return {"type": "scatter", "mode": "lines", "x": x, "y": y, "name": name, "line": line, **more}


def _over_seeds(runs: Iterable[RunData], key: str) -> tuple[list[float], ...]:
    """Iterations with the mean, the lowest and the highest value over the seeds that have one."""
    found: dict[float, list[float]] = {}
    for run in runs:
        for at, value in zip(*series(run, key), strict=True):
            found.setdefault(at, []).append(value)
    x = sorted(found)
    return x, [fmean(found[at]) for at in x], [min(found[at]) for at in x], [max(found[at]) for at in x]


def _members(run: RunData, key: str) -> list[int]:
    pattern = re.compile(rf"member/(\d{{1,6}})/{re.escape(key)}")
    names = {name for row in run.metrics for name in row}
    return sorted(int(match[1]) for name in names if (match := pattern.fullmatch(name)))


def _band(x: list[float], low: list[float], high: list[float], color: str) -> list[dict[str, Any]]:
    step = max(1, math.ceil(len(x) / _MOST_POINTS))
    starts = range(0, len(x), step)
    at = [x[i] for i in starts]
    floor, top = [min(low[i : i + step]) for i in starts], [max(high[i : i + step]) for i in starts]
    hidden = {
        "type": "scatter",
        "mode": "lines",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
    }
    return [
        {**hidden, "x": at, "y": floor},
        {**hidden, "x": at, "y": top, "fill": "tonexty", "fillcolor": color},
    ]


def _line_traces(report: ReportData, line: Line, floor: float | None) -> list[dict[str, Any]]:
    def lift(values: list[float]) -> list[float]:
        return values if floor is None else [max(value, floor) for value in values]

    group = {"legendgroup": line.name}
    if report.several:
        x, mean, low, high = _over_seeds(report.runs, line.key)
        band = _band(x, lift(low), lift(high), f"{line.color}-soft") if x else []
        return [{**trace, **group} for trace in band] + (
            [line_trace(x, lift(mean), line.name, line.color, **group)] if x else []
        )
    run = report.runs[0]
    traces = []
    for member in _members(run, line.key):
        x, y = series(run, f"member/{member}/{line.key}")
        thin = {"line": {"width": 1}, "opacity": 0.55, "showlegend": False, **group}
        traces += [line_trace(x, lift(y), f"{line.name}, member {member}", line.color, **thin)] if x else []
    x, y = series(run, line.key)
    if not x and traces:  # a log that only has members
        x, y = _mean_of_members(run, line.key)
    return traces + ([line_trace(x, lift(y), line.name, line.color, **group)] if x else [])


def _mean_of_members(run: RunData, key: str) -> tuple[list[float], list[float]]:
    parts = [RunData(run.name, {}, run.metrics) for _ in _members(run, key)]
    found: dict[float, list[float]] = {}
    for member, part in zip(_members(run, key), parts, strict=True):
        for at, value in zip(*series(part, f"member/{member}/{key}"), strict=True):
            found.setdefault(at, []).append(value)
    return sorted(found), [fmean(found[at]) for at in sorted(found)]


def _resolved(report: ReportData, line: Line) -> Line:
    """Replaces ``*word*`` by the first logged key whose last part holds the word."""
    if "*" not in line.key:
        return line
    word = line.key.strip("*")
    names = sorted(
        {re.sub(r"^member/\d+/", "", n) for run in report.runs for row in run.metrics for n in row}
    )
    found = [name for name in names if word in name.rsplit("/", 1)[-1]]
    return Line(found[0], line.name, line.color) if found else line


def _lost(report: ReportData, key: str) -> int:
    return sum(key in row and number(row[key]) is None for run in report.runs for row in run.metrics)


def _trend(what: str, values: Sequence[float], percent: bool) -> str:
    end = max(1, len(values) // 20)
    first, last = median(values[:end]), median(values[-end:])
    scale = max(abs(first), abs(last), 1e-12)
    then, now = show(first, percent=percent), show(last, percent=percent)
    if len(values) == 1:
        return f"{what} is {now}"
    noise = median(abs(b - a) for a, b in pairwise(values))
    if then == now or abs(last - first) < max(0.03 * scale, 2.0 * noise):
        return f"{what} stayed near {show(median(values), percent=percent)}"
    return f"{what} {'rose' if last > first else 'fell'} from {then} to {now}"


def _axis(curve: Curve, values: Sequence[float]) -> dict[str, Any]:
    axis: dict[str, Any] = {"title": {"text": curve.unit}}
    low, high = min(values), max(values)
    if curve.log == "always" or (curve.log == "auto" and low > 0 and high / low > _LOG_SPAN):
        bottom, top = math.floor(math.log10(low)), math.ceil(math.log10(high))
        if (
            curve.log == "always"
        ):  # from float precision to a plain mismatch, so that the height means something
            bottom, top = min(bottom, -8), max(top, 0)
        step = max(1, math.ceil((top - bottom) / 5))
        return axis | {"type": "log", "exponentformat": "power", "dtick": step, "range": [bottom, top]}
    if curve.percent:
        axis |= {"tickformat": ".0%", "rangemode": "tozero"}
    if curve.bounds:
        axis["range"] = list(curve.bounds)
    elif curve.name == "explained_variance" and low > -5:
        axis["range"] = [min(-0.1, low - 0.05), 1.02]
    return axis


def _curve_figure(report: ReportData, curve: Curve) -> Figure:
    lines = [_resolved(report, line) for line in curve.lines]
    floor = _RATIO_FLOOR if curve.log == "always" else None
    traces = [trace for line in lines for trace in _line_traces(report, line, floor)]
    drawn = [trace for trace in traces if trace.get("line", {}).get("width") == 2.5]
    if not drawn:
        return Figure(curve.name, f"{curve.what}: not logged", curve.meaning)
    values = [value for trace in traces for value in trace["y"]]
    lost = sum(_lost(report, line.key) for line in lines)
    subtitle = curve.meaning + (f" Not finite in {lost:,} logged values." if lost else "")
    axis = _axis(curve, values)
    layout: dict[str, Any] = {
        "xaxis": {"title": {"text": "iteration"}},
        "yaxis": axis,
        "showlegend": len(drawn) > 1,
    }
    if curve.reference:
        at, name = curve.reference
        edge = {"color": "$muted", "width": 1, "dash": "dot"}
        layout["shapes"] = [
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": at, "y1": at, "line": edge}
        ]
        layout["annotations"] = [
            {"xref": "paper", "x": 1, "y": at, "text": name, "showarrow": False, "xanchor": "right",
             "yanchor": "bottom", "font": {"color": "$muted", "size": 11}}
        ]  # fmt: skip
    title = _trend(curve.what, drawn[0]["y"], curve.percent)
    return Figure(curve.name, title, subtitle, tuple(traces), layout)


def learning_figures(report: ReportData) -> list[Figure]:
    """The curves of training; those that were not logged have no traces and say so in their title."""
    return [_curve_figure(report, curve) for curve in _CURVES]
