"""Labels that a handful of comparisons reproduces: then they were made by a rule, and learning finds the rule again."""

from typing import Any

import numpy as np
import polars as pl

from phalanx.analysis.doctor.columns import Coded, coded
from phalanx.analysis.doctor.finding import Finding
from phalanx.analysis.doctor.leaks import is_place
from phalanx.analysis.doctor.task import DataTask

__all__ = ["check_rule"]

_ROWS = 50_000  # of each class
_LEAST = 20  # of each class
_LEAVES = 8
_FEW_VALUES = 256
_EXACT = 0.99
_SIMPLER = 0.002  # of F1, given up for fewer leaves
_SHOWN = 6


def check_rule(task: DataTask) -> list[Finding]:
    """Whether a tree of at most eight leaves on few columns reproduces the label of rows that it was not fitted to.

    Categories enter in the order of their share of malicious rows, by which one cut splits them as well as any
    partition (Breiman et al. 1984, Classification and Regression Trees, section 4.2.2). Columns that tell who or which
    one stay out, for ground truth is often given by process or host, and so do columns that tell the place and texts of
    more than 256 values.
    """
    from sklearn.metrics import f1_score
    from sklearn.tree import DecisionTreeClassifier

    malicious, benign = np.flatnonzero(task.label == 1), np.flatnonzero(task.label == 0)
    if min(len(malicious), len(benign)) < _LEAST:
        return []
    rng = np.random.default_rng(task.seed)
    rows = np.concatenate([rng.permutation(part)[:_ROWS] for part in (malicious, benign)])
    fit, held = rows[::2], rows[1::2]
    copies = [name for name in task.frame.columns if name not in task.chosen and _is_label(task, name)]
    found = [_copied(copies)] if copies else []
    columns = [
        column
        for name in task.frame.columns
        if name not in (*task.identities, *copies)
        and not is_place(task.frame[name])
        and (column := coded(task.frame[name], task.label, fit, _FEW_VALUES)) is not None
    ]
    if not columns:
        return found
    design = np.column_stack([column.values for column in columns])
    leaf = min(20, max(2, int((task.label[fit] == 1).sum()) // 10))
    trees = [
        DecisionTreeClassifier(max_leaf_nodes=leaves, min_samples_leaf=leaf, random_state=task.seed).fit(
            design[fit], task.label[fit]
        )
        for leaves in range(2, _LEAVES + 1)
    ]
    reached = [float(f1_score(task.label[held], tree.predict(design[held]))) for tree in trees]
    if max(reached) < _EXACT:
        return found
    f1, tree = next(pair for pair in zip(reached, trees, strict=True) if pair[0] >= max(reached) - _SIMPLER)
    rule = _describe(tree, columns)
    used = sorted({columns[i].name for i in tree.tree_.feature if i >= 0})
    evidence = {"f1": f1, "rows": len(held), "columns": used, "rule": rule}
    cause = f"the label is a rule over {', '.join(used)}: {rule}"
    remedy = (
        "detection figures on this label say how well the rule is found again, nothing of attacks; take labels "
        "from ground truth, or simulate (phalanx simulate). To see what is left without these columns, leave "
        "them out of --features"
    )
    return [*found, Finding("label-is-a-rule", "warning", evidence, cause, remedy)]


def _is_label(task: DataTask, name: str) -> bool:
    """Whether a column says just what the label says, row by row."""
    series = task.frame[name]
    if not (series.dtype == pl.Boolean or series.dtype.is_integer()):
        return False
    known = task.label >= 0
    values = series.cast(pl.Int64, strict=False).fill_null(-2).to_numpy()
    return bool(np.array_equal(values[known], task.label[known]))


def _copied(names: list[str]) -> Finding:
    """Columns that members do not see: where the label came from, or what was written down after the verdict."""
    return Finding(
        "label-is-a-rule",
        "info",
        {"f1": 1.0, "columns": names, "rule": "the same, row by row"},
        f"{', '.join(names)} is the label again, and is left out of what members see: the column that it was "
        "read from, or one that was written because of it",
        "leave it out of --features",
    )


def _describe(tree: Any, columns: list[Coded]) -> str:
    """The tree's malicious leaves in words."""
    inner = tree.tree_
    found: list[str] = []

    def walk(node: int, path: list[tuple[int, float, bool]]) -> None:
        if inner.children_left[node] < 0:
            if inner.value[node][0][1] > inner.value[node][0][0]:
                found.append(
                    " and ".join(_condition(columns[i], cut, above) for i, cut, above in _tight(path))
                )
            return
        at, cut = int(inner.feature[node]), float(inner.threshold[node])
        walk(int(inner.children_left[node]), [*path, (at, cut, False)])
        walk(int(inner.children_right[node]), [*path, (at, cut, True)])

    walk(0, [])
    return "; or ".join(found) or "never malicious"


def _tight(path: list[tuple[int, float, bool]]) -> list[tuple[int, float, bool]]:
    """The last cut on each side of each column, which implies the earlier ones."""
    return [(at, cut, above) for (at, above), cut in {(at, above): cut for at, cut, above in path}.items()]


def _condition(column: Coded, cut: float, above: bool) -> str:
    if column.names is None:
        if cut < 0:
            return f"{column.name} is {'set' if above else 'not set'}"
        return f"{column.name} {'>' if above else '<='} {column.between(cut):.10g}"
    inside = [name for code, name in enumerate(column.names) if (code > cut) == above]
    outside = [name for code, name in enumerate(column.names) if (code > cut) != above]
    if len(inside) <= len(outside):
        return f"{column.name} in {{{_listed(inside)}}}"
    return f"{column.name} not in {{{_listed(outside)}}}"


def _listed(names: list[str]) -> str:
    names = sorted(names)
    return ", ".join(names[:_SHOWN]) + (f", and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
