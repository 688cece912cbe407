"""Conformal tubes around predicted traces, and the least robustness of a formula within them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from phalanx.errors import DataError, UsageError
from phalanx.stl.conformal import Calibration, calibrate_scores
from phalanx.stl.formula import Formula
from phalanx.stl.interval import robustness_bounds
from phalanx.stl.parser import parse

__all__ = ["Traces", "Tube", "calibrate_traces", "error_scale", "trace_scores"]

Traces = Mapping[str, ArrayLike]
"""Signal name -> one row an episode, one column a sample."""

Scale = Mapping[str, Float[np.ndarray, " time"]]


def error_scale(predicted: Traces, actual: Traces) -> dict[str, Float[np.ndarray, " time"]]:
    """How wrong predictions are at most, by signal and sample: ``sigma_t = max_i |x_t - x'_t|`` over episodes i.

    It gives each signal and sample its share of a tube's width. Samples that are already known when the prediction is
    made have 0, and the tube has no width there.

    Args:
        predicted, actual: of episodes that nothing is calibrated on.

    Raises:
        DataError: NaN, shapes or signals that differ, no episode, an infinite error.

    Example:
        >>> error_scale({"x": [[0, 1, 2], [0, 1, 1]]}, {"x": [[0, 2, 2], [0, 1, 4]]})
        {'x': array([0., 1., 3.])}

    Source: Yu et al., "Signal temporal logic control synthesis among uncontrollable dynamic agents with conformal
    prediction", 2312.04242 (errors over their maximum); Cleaveland et al., "Conformal prediction regions for time
    series using linear complementarity programming", AAAI 2024 (weights from separate data, there by optimisation).
    """
    scale = {name: errors.max(axis=0) for name, errors in _errors(predicted, actual).items()}
    for name, values in scale.items():
        wide = np.flatnonzero(np.isinf(values))
        if wide.size:
            raise DataError(f"signal {name!r}: an infinite error at sample {wide[0]}; bound the signal first")
    return scale


def trace_scores(predicted: Traces, actual: Traces, scale: Scale) -> Float[np.ndarray, " episode"]:
    """The greatest error of each episode, in units of the scale: ``max |x_t - x'_t| / sigma_t`` over all signals and t.

    An error where the scale is 0 is infinite in these units.

    Example:
        >>> trace_scores({"x": [[0, 1], [0, 4]]}, {"x": [[0, 3], [1, 4]]}, {"x": np.array([0.0, 4.0])})
        array([0.5, inf])
    """
    found = _errors(predicted, actual)
    worst = []
    for name, errors in found.items():
        if name not in scale or scale[name].shape != errors.shape[1:]:
            raise DataError(
                f"signal {name!r}: the scale is not of these signals, or not of {errors.shape[1]} samples"
            )
        units = np.divide(errors, scale[name], out=np.full_like(errors, math.inf), where=scale[name] > 0.0)
        worst.append(np.where(errors == 0.0, 0.0, units).max(axis=1))
    return np.max(worst, axis=0)


@dataclass(frozen=True, eq=False)
class Tube:
    """All traces whose error is at most ``calibration.radius`` times the scale, at every sample of every signal.

    A new episode's trace lies in it with probability ``calibration.guaranteed``.
    """

    scale: Scale
    calibration: Calibration

    def bounds(
        self, predicted: Traces
    ) -> tuple[dict[str, Float[np.ndarray, "..."]], dict[str, Float[np.ndarray, "..."]]]:
        """The lower and the upper ends of signals around predicted ones; samples are the last axis."""
        lower, upper = {}, {}
        for name, scale in self.scale.items():
            if name not in predicted:
                raise UsageError(
                    f"unknown signal {name!r}; predicted are: {', '.join(sorted(predicted)) or 'none'}"
                )
            values = np.asarray(predicted[name], np.float64)
            if values.shape[-1:] != scale.shape:
                raise DataError(
                    f"signal {name!r}: {values.shape[-1] if values.ndim else 'no'} predicted samples, but the tube was "
                    f"calibrated on {scale.size}"
                )
            if math.isinf(self.calibration.radius):
                lower[name], upper[name] = np.full_like(values, -math.inf), np.full_like(values, math.inf)
            else:
                width = self.calibration.radius * scale
                lower[name], upper[name] = values - width, values + width
        return lower, upper

    def lower(
        self, text: str | Formula, predicted: Traces, period: float = 1.0
    ) -> Float[np.ndarray, " episode"]:
        """Lower bounds of the robustness at the first sample: its least value in the tube, or less.

        They hold with probability ``calibration.guaranteed``, for any number of formulas at once.

        Args:
            text, period: see ``robustness_bounds``.
            predicted: one row an episode.
        """
        formula = parse(text)
        low, high = self.bounds(predicted)
        episodes = {values.shape[0] for values in low.values()}
        if len(episodes) != 1 or any(values.ndim != 2 for values in low.values()):
            raise DataError(
                "predicted: expected one row an episode and one column a sample, as many of each signal"
            )
        return np.array(
            [
                robustness_bounds(formula, _row(low, episode), _row(high, episode), period)[0][0]
                for episode in range(episodes.pop())
            ]
        )


def calibrate_traces(
    predicted: Traces, actual: Traces, scale: Scale, delta: float, shift: float = 0.0
) -> Tube:
    """Calibrates predictions of whole traces: the trace is in the tube with probability at least 1 - delta.

    Args:
        predicted, actual: of episodes exchangeable with those to come.
        scale: from other episodes than these (``error_scale``).
        delta, shift: see ``conformal_quantile``.

    Raises:
        UsageError, DataError: those of ``calibrate_scores`` and ``trace_scores``.

    Example:
        >>> tube = calibrate_traces({"x": [[0, 1]] * 4}, {"x": [[0, 1 + i] for i in range(4)]}, {"x": np.ones(2)}, 0.2)
        >>> tube.calibration.radius, tube.lower("always x < 5", {"x": [[0, 1]]})
        (3.0, array([1.]))

    Source: Lindemann et al., "Conformal prediction for STL runtime verification", ICCPS 2023, 2211.01539 (the
    indirect method), here with one normalised score in place of a union bound over samples: Zhao et al., 2311.09482.
    """
    return Tube(scale, calibrate_scores(trace_scores(predicted, actual, scale), delta, shift))


def _row(
    traces: Mapping[str, Float[np.ndarray, "..."]], episode: int
) -> dict[str, Float[np.ndarray, " time"]]:
    return {name: values[episode] for name, values in traces.items()}


def _errors(predicted: Traces, actual: Traces) -> dict[str, Float[np.ndarray, "episode time"]]:
    """Absolute errors by signal; the same infinity is no error."""
    if predicted.keys() != actual.keys() or not predicted:
        raise DataError(
            f"signals predicted: {', '.join(sorted(predicted)) or 'none'}; "
            f"actual: {', '.join(sorted(actual)) or 'none'}; expected the same ones"
        )
    found: dict[str, np.ndarray] = {}
    for name in predicted:
        one, other = np.asarray(predicted[name], np.float64), np.asarray(actual[name], np.float64)
        if one.shape != other.shape or one.ndim != 2 or not one.size:
            raise DataError(
                f"signal {name!r}: shapes {one.shape} predicted and {other.shape} actual; expected (episode, sample) "
                "of both"
            )
        if np.isnan(one).any() or np.isnan(other).any():
            raise DataError(f"signal {name!r} holds NaN; leave these episodes out, and count them")
        found[name] = np.abs(np.subtract(one, other, out=np.zeros_like(one), where=one != other))
    if len({errors.shape[0] for errors in found.values()}) > 1:
        counts = ", ".join(f"{name} {errors.shape[0]}" for name, errors in found.items())
        raise DataError(f"signals differ in their number of episodes: {counts}")
    return found
