"""Attempts at the same task side by side: a table with intervals over seeds, an outcome in words, and a "
"page of curves."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np

from phalanx.analysis.doctor.finding import Finding
from phalanx.analysis.report_figures import Figure, line_trace
from phalanx.analysis.report_page import figure_card, page, table
from phalanx.analysis.statistics import summary

__all__ = ["SHOWN", "attempt_row", "attempts_page", "attempts_table", "outcome"]

SHOWN = (10, 50, 100, 150, 200, 300)
"""Iterations whose value loss is shown, beside the last."""

_CURVES = (
    ("loss/value", "Value loss", "squared error in the units of the training target"),
    (
        "value/explained_variance",
        "Explained variance",
        "share of the returns' variance that the critic foresees",
    ),
    ("eval/greedy_f1", "F1 at validation", "the members' likeliest verdicts"),
)
_COLORS = ("$mean", "$block", "$good", "$quarantine", "$alert", "$allow")

_WORDS = (
    ("non-finite", "numbers left their range"),
    ("kl-explosion", "updates too large"),
    ("value-loss-explosion", "critic diverges"),
    ("reward-scale", "value loss beyond what the critic can follow"),
    ("value-loss-stuck", "constant critic"),
    ("policy-collapse-permissive", "allows everything"),
    ("policy-collapse-restrictive", "stops everything"),
    ("no-true-positives", "finds no threat"),
    ("reward-falls", "reward falls"),
    ("reward-flat", "reward stays that of the untrained policy"),
)


def outcome(findings: Sequence[Finding], f1: float | None, learned: bool) -> str:
    """What became of an attempt, in words; of what only some seeds show, in how many.

    Args:
        findings: of the doctor; those of settings, which tell of no course, are left out.
        f1: at the last validation.
        learned: whether the reward has risen.

    Example:
        >>> outcome([], 0.8, True)
        'learns: F1 0.800'
    """
    found = {f.symptom: f for f in findings if f.severity != "info" and f.iteration is not None}
    told = [words + _in_seeds(found[symptom]) for symptom, words in _WORDS if symptom in found]
    end = "" if f1 is None else f"F1 {f1:.3f}"
    if told:
        return ", ".join([*told, end] if end else told)
    word = "learns" if learned else "no better than untrained yet"
    return f"{word}: {end}" if end else word


def _in_seeds(finding: Finding) -> str:
    n, _, of = str(finding.evidence.get("seeds", "")).partition(" of ")
    return f" ({n} of {of})" if n != of else ""


def attempt_row(
    rows: Sequence[Sequence[Mapping[str, Any]]], findings: Sequence[Finding], learned: bool
) -> dict[str, Any]:
    """What a table says of one attempt.

    Args:
        rows: of ``metrics.jsonl``, by seed.
        findings: of the doctor, all seeds together.
        learned: whether the reward has risen in most seeds.
    """
    last = min(len(each) for each in rows)
    shown = [at for at in (*SHOWN, last) if at <= last]
    tp = "eval/greedy_tp" if any("eval/greedy_tp" in row for each in rows for row in each) else "eval/tp"
    f1 = summary([_last(each, tp.replace("_tp", "_f1").replace("/tp", "/f1")) for each in rows])
    first = [next((row["iteration"] for row in each if (row.get(tp) or 0) > 0), None) for each in rows]
    return {
        "seeds": len(rows),
        "iterations": last,
        "value_loss": {
            str(at): summary([each[at - 1].get("loss/value") for each in rows]) for at in sorted(set(shown))
        },
        "explained_variance": summary([each[last - 1].get("value/explained_variance") for each in rows]),
        "f1": f1,
        "first_true_positive": first,
        "outcome": outcome(findings, f1["iqm"], learned),
        "findings": [
            {"symptom": f.symptom, "severity": f.severity, "iteration": f.iteration, **dict(f.evidence)}
            for f in findings
        ],
    }


def attempts_table(result: Mapping[str, Any]) -> str:
    """The attempts for people: interquartile means over seeds, with the value loss's 95 % intervals beneath."""
    attempts = result["attempts"]
    columns = sorted({int(at) for each in attempts.values() for at in each["value_loss"]})
    cells = [["attempt", *(f"loss at {at}" for at in columns), "explained", "F1", "first TP at", "outcome"]]
    for name, each in attempts.items():
        losses = [each["value_loss"].get(str(at)) for at in columns]
        found = [at for at in each["first_true_positive"] if at is not None]
        many = each["seeds"] > 1
        first = (
            "never"
            if not found
            else f"{int(np.median(found))}" + (f" ({len(found)} of {each['seeds']})" if many else "")
        )
        cells.append(
            [
                name,
                *(_form(loss and loss["iqm"]) for loss in losses),
                _form(each["explained_variance"]["iqm"]),
                _form(each["f1"]["iqm"]),
                first,
                each["outcome"],
            ]
        )
        if many:
            spans = [f"{_form(loss['low'])} to {_form(loss['high'])}" if loss else "" for loss in losses]
            rest = [_span(each["explained_variance"]), _span(each["f1"])]
            cells.append(["  95 %", *spans, *rest, "", ""])
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    lines = []
    for row in cells:
        middle = [cell.rjust(w) for cell, w in zip(row[1:-1], widths[1:-1], strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *middle, row[-1]]).rstrip())
    return "\n".join(lines)


def attempts_page(
    result: Mapping[str, Any], rows: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]
) -> str:
    """One HTML page that needs no network: the table, and curves with 95 % intervals over seeds."""
    figures = [
        figure for key, what, unit in _CURVES if (figure := _figure(key, what, unit, rows)) is not None
    ]
    head = ["iterations", "value loss", "explained variance", "F1", "outcome"]
    body = [
        (
            escape(name),
            [
                str(each["iterations"]),
                _form(each["value_loss"][str(each["iterations"])]["iqm"]),
                _form(each["explained_variance"]["iqm"]),
                _form(each["f1"]["iqm"]),
                escape(each["outcome"]),
            ],
        )
        for name, each in result["attempts"].items()
    ]
    cards = "".join(figure_card(figure) for figure in figures)
    return page(
        "Attempts", f"<header><h1>Attempts</h1></header>{table('attempts', head, body)}{cards}", figures
    )


def _figure(
    key: str, what: str, unit: str, rows: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]]
) -> Figure | None:
    traces: list[dict[str, Any]] = []
    positive = True
    for (name, seeds), color in zip(rows.items(), _COLORS * len(rows), strict=False):
        told = [at for at, row in enumerate(seeds[0]) if row.get(key) is not None]
        if not told:
            continue
        x = [int(seeds[0][at]["iteration"]) for at in told]
        over = [
            summary([each[at].get(key) if at < len(each) else None for each in seeds], resamples=500)
            for at in told
        ]
        known = [(i, each) for i, each in enumerate(over) if each["iqm"] is not None]
        if len(seeds) > 1:
            around = [x[i] for i, _ in known] + [x[i] for i, _ in reversed(known)]
            edge = [each["high"] for _, each in known] + [each["low"] for _, each in reversed(known)]
            traces.append(
                {"type": "scatter", "x": around, "y": edge, "fill": "toself", "mode": "none", "opacity": 0.25,
                 "fillcolor": color, "hoverinfo": "skip", "showlegend": False}
            )  # fmt: skip
        traces.append(
            line_trace([x[i] for i, _ in known], [each["iqm"] for _, each in known], escape(name), color)
        )
        positive = positive and all(each["low"] > 0 for _, each in known)
    if not traces:
        return None
    axis: dict[str, Any] = {"title": {"text": unit}}
    if key == "loss/value" and positive:
        axis |= {"type": "log", "exponentformat": "power"}
    layout = {"xaxis": {"title": {"text": "iteration"}}, "yaxis": axis, "showlegend": True}
    return Figure(
        key.replace("/", "_"),
        what,
        f"{unit}; interquartile mean and 95 % interval over seeds.",
        tuple(traces),
        layout,
    )


def _last(rows: Sequence[Mapping[str, Any]], name: str) -> float | None:
    told = [row[name] for row in rows if row.get(name) is not None]
    return told[-1] if told else None


def _span(found: Mapping[str, Any]) -> str:
    return "" if found["low"] is None else f"{_form(found['low'])} to {_form(found['high'])}"


def _form(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.3f}"
