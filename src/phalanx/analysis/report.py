"""``report.html``: one self-contained page that says what a run did and shows how it got there."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from phalanx.analysis.report_course import course_figure
from phalanx.analysis.report_data import ReportData, as_map, load_report, number, series
from phalanx.analysis.report_figures import Figure, learning_figures, show
from phalanx.analysis.report_page import figure_card, page, table
from phalanx.analysis.statistics import summary
from phalanx.files import write_bytes

__all__ = ["write_report"]


@dataclass(frozen=True)
class Measure:
    """A column of the evaluation tables: ``score`` has three decimals; less is better where ``better`` is -1."""

    key: str
    name: str
    percent: bool = False
    score: bool = False
    better: int = 1

    def cell(self, value: float | None) -> str:
        """The value as escaped HTML."""
        if value is None:
            return '<span class="none">n/a</span>'
        return f"{value:.3f}" if self.score else show(value, percent=self.percent)


_MEASURES = (
    Measure("f1", "F1", score=True),
    Measure("precision", "Precision", percent=True),
    Measure("recall", "Recall", percent=True),
    Measure("mcc", "MCC", score=True),
    Measure("pr_auc", "PR-AUC", score=True),
    Measure("damage_prevented", "Damage\nprevented", percent=True),
    Measure("availability", "Availability", percent=True),
    Measure("time_to_contain_s", "Time to\ncontain (s)", better=-1),
    Measure("false_blocks_per_million", "False blocks\nper million", better=-1),
    Measure("alerts_per_day", "Alerts\nper day", better=-1),
)

_SETTINGS = (
    "preset",
    "env",
    "data",
    "split",
    "normalizer",
    "returns",
    "members",
    "iterations",
    "seed",
    "seeds",
)

_PERCENT = "\u00a0%"

_SIDES = (
    ("Malicious", ("tp", "caught", "right"), ("fn", "missed", "wrong")),
    ("Benign", ("fp", "false alarms", "wrong"), ("tn", "left alone", "right")),
)


def _flat(value: object, prefix: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, value


def _baselines(evaluation: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    found = as_map(evaluation.get("baselines"))
    rows = {str(name): as_map(row) for name, row in found.items() if as_map(row)}
    order = sorted(rows, key=lambda name: number(rows[name].get("f1")) or -1.0, reverse=True)
    return {name: rows[name] for name in order}


def _rival(evaluation: Mapping[str, Any]) -> tuple[str, float] | None:
    """The best baseline by F1, the oracle apart: it knows the labels."""
    known = {name: number(row.get("f1")) for name, row in _baselines(evaluation).items()}
    fair = {name: f1 for name, f1 in known.items() if f1 is not None and "oracle" not in name.lower()}
    best = max(fair, key=lambda name: fair[name], default=None)
    return None if best is None else (best, fair[best])


def _trained(report: ReportData) -> str:
    steps = [len(run.metrics) for run in report.runs]
    if not any(steps):
        return "No iteration has been logged yet."
    span = str(max(steps)) if min(steps) == max(steps) else f"{min(steps)} to {max(steps)}"
    events = [number(run.metrics[-1].get("env_steps")) for run in report.runs if run.metrics]
    total = sum(value for value in events if value is not None)
    seeds = f" for each of {len(steps)} seeds" if report.several else ""
    return f"Trained for {span} iterations{seeds}" + (f", {total:,.0f} events in all." if total else ".")


def _outcome(report: ReportData) -> tuple[str, str, str]:
    """Tone, headline and sentence, judged by the evaluation alone."""
    evaluation = report.evaluation
    recall, precision, f1 = (number(evaluation.get(key)) for key in ("recall", "precision", "f1"))
    prevented, available = (number(evaluation.get(key)) for key in ("damage_prevented", "availability"))
    response = "" if prevented is None else (
        f" In closed loop it prevents {show(prevented, percent=True)} of the preventable damage"
        + ("." if available is None else f" and leaves {show(available, percent=True)} of benign work undisturbed.")
    )  # fmt: skip
    if not evaluation:
        return "", "Not evaluated yet.", "Run `phalanx evaluate` on this folder, then write the report again."
    if recall is None or f1 is None:
        return "warn", "Detection cannot be judged.", "The evaluation names no malicious events." + response
    if recall == 0:
        return "bad", "No malicious event is found.", "The policy lets every attack pass." + response
    words = f"It finds {show(recall, percent=True)} of the malicious events"
    words += "" if precision is None else f"; {show(precision, percent=True)} of its alarms are right"
    words += f" (F1 {show(f1)})." + response
    rival = _rival(evaluation)
    if prevented is not None and prevented <= 0:
        return "bad", "No better than doing nothing.", words
    if rival and f1 <= rival[1]:
        return "warn", f"Detects no better than {rival[0]} (F1 {show(rival[1])}).", words
    if rival:
        return "good", f"Detects better than every baseline (next: {rival[0]}, F1 {show(rival[1])}).", words
    return "", "Evaluated, without baselines to compare with.", words


def _tiles(report: ReportData) -> str:
    evaluation = report.evaluation
    committee = as_map(evaluation.get("committee"))
    explained = [values[-1] for run in report.runs if (values := series(run, "value/explained_variance")[1])]
    rate = number(evaluation.get("base_rate"))
    share = number(evaluation.get("contained_share"))
    found = [
        ("F1", show(number(evaluation.get("f1"))), "detection, both errors"),
        ("PR-AUC", show(number(evaluation.get("pr_auc"))), f"chance is {show(rate)}" if rate is not None else ""),
        ("Damage prevented", show(number(evaluation.get("damage_prevented")), percent=True), "100 % = oracle"),
        ("Availability", show(number(evaluation.get("availability")), percent=True), "benign work undisturbed"),
        ("Time to contain", show(number(evaluation.get("time_to_contain_s"))) + " s",
         f"of {show(share, percent=True)} contained" if share is not None else "contained campaigns only"),
        ("Explained variance", show(sum(explained) / len(explained)) if explained else "n/a", "critic, at the end"),
        ("Members", show(number(committee.get("n"))), f"tolerates {show(number(committee.get('f')))} faulty"),
    ]  # fmt: skip
    known = [tile for tile in found if not tile[1].startswith("n/a")]
    cells = "".join(
        f'<div class="tile"><dt>{escape(name)}</dt><dd>{escape(value)}<small>{escape(note)}</small></dd></div>'
        for name, value, note in known
    )
    return f'<dl class="tiles">{cells}</dl>' if known else ""


def _header(report: ReportData) -> str:
    settings = {key.rsplit(".", 1)[-1]: value for key, value in reversed(list(_flat(report.config)))}
    if report.several:
        settings |= {"seed": None, "seeds": len(report.runs)}
    chosen = [f"{key} {settings[key]}" for key in _SETTINGS if settings.get(key) not in (None, "", [], {})]
    summary_line = " &middot; ".join(escape(text[:80]) for text in chosen) or "No configuration was found."
    tone, headline, words = _outcome(report)
    return (
        f'<header><p class="eyebrow">phalanx run report</p><h1>{escape(report.name)}</h1>'
        f'<p class="muted">{summary_line}</p><p class="muted">{escape(_trained(report))}</p>'
        f'<p class="outcome {tone}"><b>{escape(headline)}</b> {escape(words)}</p>{_tiles(report)}</header>'
    )


def _section(title: str, note: str, content: str) -> str:
    return f'<section><h2>{escape(title)}</h2><p class="sub">{escape(note)}</p>{content}</section>'


def _comparison(evaluation: Mapping[str, Any]) -> str:
    own = "committee (mean of seeds)" if evaluation.get("per_seed") else "committee (this run)"
    rows = {own: evaluation, **_baselines(evaluation)}
    shown = [m for m in _MEASURES if any(number(row.get(m.key)) is not None for row in rows.values())]
    if not shown:
        return '<p class="card">Not evaluated yet: no measure of detection or response was found.</p>'
    cells: list[tuple[str, list[str]]] = []
    fair = [name for name in rows if "oracle" not in name.lower()]
    best = {measure.key: _extreme([rows[name] for name in fair], measure, 1) for measure in shown}
    rivals = {m.key: sum(number(rows[name].get(m.key)) is not None for name in fair) for m in shown}
    for name, row in rows.items():
        line = [escape(name)]
        for measure in shown:
            value = number(row.get(measure.key))
            top = (
                name in fair and rivals[measure.key] > 1 and value is not None and value == best[measure.key]
            )
            text = measure.cell(value)
            line.append(f'<span class="best">{text}</span>' if top else text)
        cells.append(("own" if row is evaluation else "", line))
    head = ["Policy", *(measure.name for measure in shown)]
    return f'<div class="card">{table("Evaluation against baselines", head, cells)}</div>'


def _conditions(evaluation: Mapping[str, Any]) -> str:
    source = evaluation.get("threshold_source")
    words = "Detection on the same events for all; response in closed loop. Best in green, the oracle apart."
    words = f"{words} Threshold from: {source}." if source else words
    other = evaluation.get("data")
    return (
        f"{words} Measured on {escape(Path(str(other)).name)}, not on the run's own test part."
        if other
        else words
    )


def _matrix(evaluation: Mapping[str, Any]) -> str:
    counts = {key: number(evaluation.get(key)) for key in ("tp", "tn", "fp", "fn")}
    title = "<h3>What was flagged</h3>"
    if any(value is None for value in counts.values()):
        return f'<div class="card">{title}<p class="sub">Not evaluated yet.</p></div>'
    rows = []
    for name, *sides in _SIDES:
        total = sum(counts[key] or 0.0 for key, _, _ in sides)
        cells = ""
        for key, word, tone in sides:
            count = counts[key] or 0.0
            share = f"{show(count / total, percent=True)} {word}" if total else word
            cells += f'<td class="{tone}"><b>{count:,.0f}</b><small>{share}</small></td>'
        rows.append(f'<tr><th scope="row">{name}</th>{cells}</tr>')
    head = '<tr><td></td><th scope="col">flagged</th><th scope="col">allowed</th></tr>'
    mean = "; means over seeds" if evaluation.get("per_seed") else ""
    note = f'<p class="sub">Events by truth (rows) and verdict (columns); shares of each row{mean}.</p>'
    body = f'<table class="matrix"><thead>{head}</thead><tbody>{"".join(rows)}</tbody></table>'
    return f'<div class="card">{title}{note}{body}</div>'


def _per_seed(evaluation: Mapping[str, Any]) -> str:
    listed = evaluation.get("per_seed")
    rows = [as_map(row) for row in listed if as_map(row)] if isinstance(listed, list) else []
    shown = [m for m in _MEASURES if any(number(row.get(m.key)) is not None for row in rows)]
    if not shown:
        return ""
    cells = [
        ("", [escape(str(row.get("seed", i))), *(m.cell(number(row.get(m.key))) for m in shown)])
        for i, row in enumerate(rows)
    ]
    spread = [(m, summary([number(row.get(m.key)) for row in rows])) for m in shown]
    middle = [m.cell(s["iqm"]) for m, s in spread]
    interval = [f"{m.cell(s['low']).removesuffix(_PERCENT)}&ndash;{m.cell(s['high'])}" for m, s in spread]
    worst = [m.cell(_extreme(rows, m, -1)) for m in shown]
    cells += [("total own", ["interquartile mean", *middle]), ("total", ["95 % interval", *interval])]
    cells += [("total", ["worst seed", *worst])]
    head = ["Seed", *(measure.name for measure in shown)]
    note = "A mean hides its worst seed; the interval is a bootstrap over seeds."
    return _section(
        "Seeds", note, f'<div class="card">{table("Results by seed", head, cells, "dense")}</div>'
    )


def _extreme(rows: list[Mapping[str, Any]], measure: Measure, side: int) -> float | None:
    """The best (``side`` 1) or the worst (-1) value of a measure."""
    values = [value for row in rows if (value := number(row.get(measure.key))) is not None]
    return max(values, key=lambda value: value * measure.better * side, default=None)


def _specs(evaluation: Mapping[str, Any]) -> str:
    rows = []
    for name, spec in as_map(evaluation.get("specs")).items():
        satisfied = as_map(spec).get("satisfied")
        share = number(satisfied)
        words = {True: "yes", False: "no"}.get(satisfied) if isinstance(satisfied, bool) else None
        cells = [words or show(share, percent=True), show(number(as_map(spec).get("robustness_min")))]
        rows.append(("", [escape(str(name)), *cells]))
    if not rows:
        return ""
    shown = table("Specifications", ["Spec", "Satisfied", "Lowest robustness"], rows)
    content = f'<div class="card small">{shown}</div>'
    return _section("Specifications", "What had to hold; a negative robustness is a violation.", content)


def _committee(evaluation: Mapping[str, Any]) -> str:
    committee, latency = as_map(evaluation.get("committee")), as_map(evaluation.get("latency_ms"))
    shield = as_map(evaluation.get("shield"))
    wanted = [
        ("Faulty members in the evaluation", committee.get("faulty"), False),
        ("Events on which all members agree before they deliberate", committee.get("agreement"), True),
        ("Votes not received", committee.get("abstain"), True),
        (
            "Correlation of the members' errors before they deliberate",
            committee.get("error_correlation"),
            False,
        ),
        ("Verdicts that the shield changed", shield.get("changed"), True),
        ("Decision latency, median (ms)", latency.get("p50"), False),
        ("Decision latency, 99th percentile (ms)", latency.get("p99"), False),
    ]
    rows = [
        ("", [escape(name), show(found, percent=percent)])
        for name, value, percent in wanted
        if (found := number(value)) is not None
    ]
    if not rows:
        return ""
    content = f'<div class="card small">{table("Committee", ["Measure", "Value"], rows)}</div>'
    return _section("Committee", "Members that err together add nothing to each other.", content)


def _result(evaluation: Mapping[str, Any], course: Figure) -> str:
    if not evaluation:
        return _section("Outcome", "", '<p class="card">Not evaluated yet.</p>')
    details = f'<div class="pair">{figure_card(course)}{_matrix(evaluation)}</div>'
    return _section("Outcome", _conditions(evaluation), _comparison(evaluation) + details)


def _settings(report: ReportData) -> str:
    if not report.config:
        return _section("Configuration", "config.json was not found or could not be read.", "")
    rows = [("", [escape(key), escape(str(value))]) for key, value in _flat(report.config)]
    body = table("Configuration", ["Setting", "Value"], rows, "wrap")
    return _section(
        "Configuration",
        "All resolved values of the run.",
        f'<details class="card"><summary>{len(rows)} settings</summary>{body}</details>',
    )


def _learning(report: ReportData, figures: list[Figure]) -> str:
    if not any(run.metrics for run in report.runs):
        return _section(
            "Learning", "", '<p class="card">No curves: metrics.jsonl is missing, empty or torn.</p>'
        )
    note = (
        f"Mean over {len(report.runs)} seeds; the band spans the lowest to the highest seed."
        if report.several
        else "Thick: mean over members. Thin: each member."
    )
    drawn = "".join(figure_card(figure) for figure in figures if figure.data)
    missing = [figure.title.removesuffix(": not logged") for figure in figures if not figure.data]
    tail = f'<p class="sub">Not logged in this run: {escape(", ".join(missing))}.</p>' if missing else ""
    return _section("Learning", note, f'<div class="grid">{drawn}</div>{tail}')


def _notes(report: ReportData) -> str:
    if not report.notes:
        return ""
    items = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    return f'<div class="card alert" role="note"><h3>Read with care</h3><ul>{items}</ul></div>'


def write_report(run_dir: Path) -> Path:
    """Writes ``report.html`` into a run folder, or into the parent of ``seed-<i>`` folders.

    The page holds all that it needs and fetches nothing. What is missing, torn or malformed is said on it.

    Args:
        run_dir: with any of ``config.json``, ``metrics.jsonl``, ``eval.json`` or ``seed-<i>`` folders.

    Returns:
        The path of the page; an older page is replaced in one step.

    Raises:
        RunError: no folder, or one that holds nothing of a run.
    """
    report = load_report(Path(run_dir))
    learning, course = learning_figures(report), course_figure(report.evaluation)
    body = "".join(
        [
            _header(report),
            _notes(report),
            _result(report.evaluation, course),
            _per_seed(report.evaluation),
            _learning(report, learning),
            _specs(report.evaluation),
            _committee(report.evaluation),
            _settings(report),
        ]
    )
    path = Path(run_dir) / "report.html"
    text = page(f"{report.name} - phalanx run report", body, [course, *learning])
    write_bytes(path, text.encode(errors="replace"))  # JSON may hold half a surrogate pair
    return path
