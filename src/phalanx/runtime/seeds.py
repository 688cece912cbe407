"""The evaluations of several seeds as one."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from phalanx.analysis.statistics import summary

__all__ = ["merged"]

_INTERVALS = ("f1", "precision", "recall", "pr_auc", "damage_prevented", "availability")
_OF_ONE_SEED = ("course", "damage_by_episode", "notes")
_OF_EACH_SEED = ("specs", "committee", "shield")  # of what is not a plain number


def merged(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means over seeds of all numbers, the seeds' own figures, and intervals of the main ones.

    Args:
        results: of each seed, keys as in its ``eval.json``.

    Returns:
        The same keys but ``seed`` and ``damage_by_episode``: means, and the first seed's course and notes. ``per_seed``
        holds each seed's plain figures, its ``specs``, ``committee`` and ``shield``; ``intervals`` what
        ``analysis.statistics.summary`` says of the main figures and of how often each specification held.

    Example:
        >>> both = merged([{"f1": 0.5, "specs": {}, "notes": []}, {"f1": 0.7, "specs": {}, "notes": []}])
        >>> round(both["f1"], 2), [each["f1"] for each in both["per_seed"]]
        (0.6, [0.5, 0.7])
    """
    first = results[0]
    plain = [{k: v for k, v in result.items() if k not in _OF_ONE_SEED} for result in results]
    whole = _mean([{k: v for k, v in row.items() if k != "seed"} for row in plain])
    whole |= {name: first[name] for name in ("notes", "course") if name in first}
    whole["intervals"] = {
        name: summary([result.get(name) for result in results])
        for name in _INTERVALS
        if any(result.get(name) is not None for result in results)
    }
    whole["intervals"] |= {
        f"specs/{name}": summary([result["specs"][name]["satisfied"] for result in results])
        for name, found in first["specs"].items()
        if "satisfied" in found
    }
    whole["per_seed"] = [
        {k: v for k, v in row.items() if k in _OF_EACH_SEED or not isinstance(v, Mapping)} for row in plain
    ]
    return whole


def _mean(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    means: dict[str, Any] = {}
    for name in rows[0]:
        values = [row.get(name) for row in rows]
        if isinstance(values[0], Mapping):
            means[name] = _mean([value for value in values if isinstance(value, Mapping)])
        elif isinstance(values[0], str | list | tuple):  # of names, the same for all seeds
            means[name] = values[0]
        else:
            known = [float(value) for value in values if value is not None]
            means[name] = float(np.mean(known)) if known else None
    return means
