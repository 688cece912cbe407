"""Columns without content, and parts that differ or share what they should not."""

import numpy as np
from jaxtyping import Int8

from phalanx.analysis.doctor.finding import Finding
from phalanx.analysis.doctor.task import DataTask

__all__ = ["check_constant", "check_split"]

_PARTS = ("training", "validation", "test")
_FILLED_IN = ("time_ns", "subject", "kind")  # by readers, where the source has none
_SHIFT = 1.5
_SURE = 1e-3
_DUPLICATES = 0.001


def check_constant(task: DataTask) -> list[Finding]:
    """Columns with one value; a warning where members see them."""
    constant = [
        name for name in task.frame.columns if name not in _FILLED_IN and task.frame[name].n_unique() <= 1
    ]
    seen = [name for name in constant if name in task.chosen]
    if not constant:
        return []
    evidence = {"columns": constant, "among_features": seen}
    named = ", ".join(seen or constant)
    cause = f"{named}: one value in all {len(task.label):,} rows" + (", and members see it" if seen else "")
    remedy = f"leave out of --features: {named}" if seen else "nothing: training leaves constant columns out"
    return [Finding("constant-features", "warning" if seen else "info", evidence, cause, remedy)]


def check_split(task: DataTask) -> list[Finding]:
    """Class balance by part, time across parts, equal rows across parts."""
    return [*_shift(task), *_time(task), *_duplicates(task)]


def _shift(task: DataTask) -> list[Finding]:
    """Shares that differ by half and by more than chance, where a run of malicious events is one draw."""
    from scipy.stats import chi2_contingency

    counts = np.array([[(task.label[rows] == k).sum() for k in (0, 1)] for rows in task.parts], float)
    rates = counts[:, 1] / np.maximum(counts.sum(axis=1), 1)
    if rates.min() > 0 and rates.max() < _SHIFT * rates.min():
        return []
    runs = counts / _run_length(task.label[task.order])
    if (counts.sum(axis=0) == 0).any() or float(chi2_contingency(runs)[1]) > _SURE:  # type: ignore[arg-type]
        return []
    evidence = {f"base_rate_{name}": float(rate) for name, rate in zip(_PARTS, rates, strict=True)}
    cause = "malicious rows make up " + ", ".join(
        f"{100 * rate:.3g} % of the {name} part" for name, rate in zip(_PARTS, rates, strict=True)
    )
    remedy = (
        "take the threshold and the metrics with care: choose it by cost, report PR-AUC beside each part's base rate; "
        "or use data of more time, or --split group, which balances the parts"
    )
    return [Finding("split-shift", "warning", evidence, cause, remedy)]


def _run_length(label: Int8[np.ndarray, " row"]) -> float:
    """Mean length of the runs of malicious rows.

    Example:
        >>> _run_length(np.array([0, 1, 1, 1, 0, 1, 0], np.int8))
        2.0
    """
    malicious = label == 1
    runs = int((np.diff(malicious.astype(np.int8), prepend=0) == 1).sum())
    return float(malicious.sum() / max(runs, 1))


def _time(task: DataTask) -> list[Finding]:
    if not task.timed or task.split not in ("random", "stratified"):
        return []
    evidence = {"split": task.split}
    cause = (
        f"the {task.split} split mixes times: training has seen the minutes before and after each test event"
    )
    return [
        Finding(
            "split-ignores-time",
            "warning",
            evidence,
            cause,
            "use --split time, or --split group for whole processes",
        )
    ]


def _duplicates(task: DataTask) -> list[Finding]:
    known = task.frame.hash_rows(seed=0).to_numpy()
    train, test = known[task.parts[0]], known[task.parts[2]]
    share = float(np.isin(test, train).mean())
    if share == 0:
        return []
    evidence = {"share_of_test_rows": share, "rows": int(np.isin(test, train).sum())}
    cause = f"{100 * share:.3g} % of the test rows are, in every column, rows of the training part"
    remedy = "drop repeated records before splitting, or use --split group, which keeps equal rows together"
    return [
        Finding(
            "duplicates-across-splits", "warning" if share >= _DUPLICATES else "info", evidence, cause, remedy
        )
    ]
