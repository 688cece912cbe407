"""Columns without content, and parts that differ or share what they should not."""

import numpy as np
from jaxtyping import Float

from phalanx.analysis.doctor.finding import Finding
from phalanx.analysis.doctor.task import DataTask

__all__ = ["check_constant", "check_split"]

_PARTS = ("training", "validation", "test")
_FILLED_IN = ("time_ns", "subject", "kind")  # by readers, where the source has none
_SHIFT = 1.5
_BLOCKS = 20
_SURE = 4.0  # standard errors
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
    """Shares that differ by half and by more than chance, as told by blocks of neighbours: campaigns come in bursts."""
    place = np.argsort(task.order)
    labels = [task.label[rows[np.argsort(place[rows])]] for rows in task.parts]
    known = [each[each >= 0].astype(float) for each in labels]
    rates = np.array([each.mean() for each in known])
    if rates.min() > 0 and rates.max() < _SHIFT * rates.min():
        return []
    low, high = known[int(rates.argmin())], known[int(rates.argmax())]
    if rates.max() - rates.min() < _SURE * np.hypot(_error(low), _error(high)):
        return []
    evidence = {f"base_rate_{name}": float(rate) for name, rate in zip(_PARTS, rates, strict=True)}
    cause = "malicious rows make up " + ", ".join(
        f"{100 * rate:.3g} % of the {name} part" for name, rate in zip(_PARTS, rates, strict=True)
    )
    remedy = (
        "take the threshold and the metrics with care: choose it by cost, report PR-AUC beside each part's base "
        "rate; or use data of more time, or --split group, which balances the parts"
    )
    return [Finding("split-shift", "warning", evidence, cause, remedy)]


def _error(label: Float[np.ndarray, " row"]) -> float:
    """Standard error of the mean, from the means of blocks."""
    blocks = [block.mean() for block in np.array_split(label, min(_BLOCKS, len(label)))]
    return float(np.std(blocks) / np.sqrt(len(blocks)))


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
