"""RTAMT's own verdicts, offline in discrete time."""

import contextlib
import io
import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray


def rtamt_robustness(text: str, signals: Mapping[str, NDArray[np.float64]]) -> NDArray[np.float64] | None:
    """One value a sample, of two or more; None where a part of the formula is NaN to RTAMT (infinities apart)."""
    import rtamt

    length = len(next(iter(signals.values())))
    spec = rtamt.StlDiscreteTimeOfflineSpecification()
    for name in signals:
        spec.declare_var(name, "float")
    spec.spec = text
    data = {"time": list(range(length)), **{name: values.tolist() for name, values in signals.items()}}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        spec.parse()
        found = [value for _, value in spec.evaluate(data)]
    parts = [values for node, values in spec.ast.offline_results.items() if node != "time"]
    if any(math.isnan(value) for values in parts for value in values):
        return None
    return np.array(found, dtype=np.float64)
