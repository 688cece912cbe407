"""An evaluation as one plain table: the committee first, then what it is measured against."""

from collections.abc import Mapping
from typing import Any

__all__ = ["evaluation_table"]

_COLUMNS = {
    "f1": ("F1", "{:.3f}"),
    "precision": ("precision", "{:.3f}"),
    "recall": ("recall", "{:.3f}"),
    "pr_auc": ("PR-AUC", "{:.3f}"),
    "normalised_score": ("score", "{:.3f}"),
    "damage_prevented": ("damage prevented", "{:.3f}"),
    "availability": ("availability", "{:.4f}"),
    "time_to_contain_s": ("contained after", "{:.0f} s"),
    "false_blocks_per_million": ("false blocks / 1M", "{:,.0f}"),
    "alerts_per_day": ("alerts / day", "{:,.0f}"),
}
_SPEC_COLUMNS = {
    "satisfied": ("held in episodes", "{:.1%}"),
    "steps_satisfied": ("at steps", "{:.1%}"),
    "robustness_min": ("lowest robustness", "{:.3f}"),
    "assured": ("foretold half-way", "{:.1%}"),
    "guaranteed": ("foretold with", "{:.1%}"),
    "coverage": ("came true", "{:.1%}"),
}


def evaluation_table(result: Mapping[str, Any]) -> str:
    """The table that `phalanx evaluate` prints.

    Args:
        result: what ``runtime.evaluate.evaluate`` returns.

    Example:
        >>> print(evaluation_table({"f1": 0.5, "baselines": {"always-allow": {"f1": 0.0}}}))
        policy           F1
        the committee  0.500
        always-allow   0.000
        >>> print(evaluation_table({"f1": 0.5, "shield": {"changed": 0.0625}}))
        policy           F1
        the committee  0.500
        <BLANKLINE>
        the shield changed 6.25% of the verdicts
    """
    rows: dict[str, Mapping[str, Any]] = {"the committee": result, **result.get("baselines", {})}
    lines = _aligned("policy", rows, _COLUMNS)
    specs = result.get("specs", {})
    if specs:
        shown = {name: {**spec, **(spec.get("forecast") or {})} for name, spec in specs.items()}
        lines += ["", *_aligned("specification", shown, _SPEC_COLUMNS)]
    shield = result.get("shield") or {}
    if shield.get("changed") is not None:
        lines += ["", f"the shield changed {shield['changed']:.2%} of the verdicts"]
    return "\n".join([*lines, *_lies(result.get("committee") or {}), *_intervals(result)])


def _lies(committee: Mapping[str, Any]) -> list[str]:
    """How often each verdict was given with liars in the committee, beside what was to be expected."""
    if not committee.get("faulty"):
        return []
    lines = ["", f"with {committee['faulty']} of {committee['n']} members faulty ({committee['adversary']}):"]
    rows = {}
    for name, found in (("measured", committee["verdicts"]), ("expected", committee.get("expected"))):
        if found:
            blocks = {
                f"{v}_{kind}": found[kind][v] for kind in ("malicious", "benign") for v in _RESTRICTIONS
            }
            rows[name] = {**found, **blocks}
    return lines + _aligned("rates", rows, _LIE_COLUMNS)


_RESTRICTIONS = ("block", "quarantine")
_LIE_COLUMNS = {
    "recall": ("recall", "{:.3f}"),
    "false_alerts": ("false alerts", "{:.4f}"),
    "block_malicious": ("blocks (malicious)", "{:.3f}"),
    "quarantine_malicious": ("quarantines (malicious)", "{:.3f}"),
    "block_benign": ("blocks (benign)", "{:.4f}"),
    "quarantine_benign": ("quarantines (benign)", "{:.4f}"),
}


def _aligned(
    what: str, rows: Mapping[str, Mapping[str, Any]], columns: Mapping[str, tuple[str, str]]
) -> list[str]:
    """A line a row, with the columns of which any row has a value."""
    shown = [name for name in columns if any(row.get(name) is not None for row in rows.values())]
    table = [[what, *(columns[name][0] for name in shown)]]
    for title, row in rows.items():
        table.append([title, *(_cell(row.get(name), columns[name][1]) for name in shown)])
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]
    return [line.rstrip() for line in lines]


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _intervals(result: Mapping[str, Any]) -> list[str]:
    """A line a measure over seeds: interquartile mean, 95 % interval and minimum."""
    lines = []
    for name, found in result.get("intervals", {}).items():
        if found.get("iqm") is not None:
            title = name.removeprefix("specs/") + " held" if name.startswith("specs/") else _COLUMNS[name][0]
            lines.append(
                f"{title} over {found['n']} seeds: interquartile mean {found['iqm']:.3f}, 95 % interval "
                f"{found['low']:.3f} to {found['high']:.3f}, minimum {found['min']:.3f}"
            )
    return ["", *lines] if lines else []
