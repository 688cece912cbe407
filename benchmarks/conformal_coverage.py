"""Coverage of conformal lower bounds of robustness over random resplits of the same episodes.

    python benchmarks/conformal_coverage.py [--resplits 1000] [--out benchmarks/results/conformal_coverage.json]

Of 256 episodes 128 are calibrated on and 128 tested. ``direct`` lines predict the final robustness; ``indirect`` ones
predict the trace: ``tube`` counts traces within the tube, ``robustness`` final values at or above the least one within
it. ``expected`` is k / (n + 1), what coverage is on average without ties. ``shifted`` lines calibrate on one law and
test on another one of known total variation distance, with fresh episodes each time. ``ties`` is the share of scores
that repeat another one. ``within`` is 1 where the mean lies in [1 - delta, 1 - delta + .02].
"""

import argparse
import math
import os
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from machine import report

from phalanx.stl import parse, robustness
from phalanx.stl.conformal import (
    Calibration,
    Resplits,
    conformal_quantile,
    coverage,
    nonconformity,
    resplit_coverage,
)
from phalanx.stl.conformal_traces import Tube, error_scale, trace_scores

EPISODES, CALIBRATION = 256, 128
DELTAS = (0.05, 0.1, 0.2)
SAMPLES, KNOWN = 51, 20
SPEC = parse("always[0,50] (x < 4)")

Pairs = tuple[np.ndarray, np.ndarray]


def autoregressive(rng: np.random.Generator, episodes: int) -> Pairs:
    """Traces x[t + 1] = .9 x[t] + noise, and what they are expected to be once ``KNOWN`` samples are seen."""
    actual = np.zeros((episodes, SAMPLES))
    for t in range(1, SAMPLES):
        actual[:, t] = 0.9 * actual[:, t - 1] + 0.7 * rng.standard_normal(episodes)
    predicted = actual.copy()
    predicted[:, KNOWN:] = actual[:, KNOWN - 1 : KNOWN] * 0.9 ** np.arange(1, SAMPLES - KNOWN + 1)
    return predicted, actual


def final(traces: np.ndarray) -> np.ndarray:
    """Robustness at the first sample, by episode."""
    return np.array([robustness(SPEC, {"x": trace})[0] for trace in traces])


def so_far(rng: np.random.Generator) -> Pairs:
    """Robustness of the samples seen and of whole episodes; both are equal where the worst is over."""
    _, actual = autoregressive(rng, EPISODES)
    return final(actual[:, :KNOWN]), final(actual)


def heavy_tails(rng: np.random.Generator) -> Pairs:
    actual = rng.standard_t(2, EPISODES)
    return actual + rng.standard_cauchy(EPISODES), actual


def discrete(rng: np.random.Generator) -> Pairs:
    """Counts such as deadlines missed: few values, many ties."""
    return rng.poisson(1.0, EPISODES) * -1.0, rng.poisson(1.0, EPISODES) * -1.0


def infinite(rng: np.random.Generator) -> Pairs:
    """A third of the episodes is vacuous: no trigger, robustness +inf, which nobody predicts."""
    actual = rng.standard_normal(EPISODES)
    return rng.standard_normal(EPISODES), np.where(rng.random(EPISODES) < 1 / 3, math.inf, actual)


DIRECT: dict[str, Callable[[np.random.Generator], Pairs]] = {
    "robustness so far": so_far,
    "heavy tails": heavy_tails,
    "discrete": discrete,
    "infinite": infinite,
}


def judged(delta: float, expected: float, coverages: Resplits) -> dict[str, float]:
    within = float(1 - delta <= coverages.mean <= 1 - delta + 0.02)
    return {"expected": expected, **asdict(coverages), "within": within}


def summary(covered: list[float]) -> Resplits:
    std = float(np.std(covered, ddof=1))
    return Resplits(float(np.mean(covered)), std, min(covered), std / math.sqrt(len(covered)))


def guaranteed(delta: float, shift: float = 0.0) -> float:
    return Calibration(math.nan, CALIBRATION, delta, shift).guaranteed


def resplit(pairs: Pairs, delta: float, resplits: int, break_ties: bool = False) -> dict[str, float]:
    found = resplit_coverage(*pairs, delta, CALIBRATION, resplits, seed=1, break_ties=break_ties)
    scores = nonconformity(*pairs)
    return judged(delta, guaranteed(delta), found) | {"ties": 1 - len(np.unique(scores)) / scores.size}


def resplit_tube(delta: float, resplits: int) -> dict[str, dict[str, float]]:
    """The scale is fitted once, to 100 other episodes; each split has its own radius."""
    rng = np.random.default_rng(5)
    fitted, (predicted, actual) = autoregressive(rng, 100), autoregressive(rng, EPISODES)
    scale = error_scale({"x": fitted[0]}, {"x": fitted[1]})
    scores = trace_scores({"x": predicted}, {"x": actual}, scale)
    truth, by_radius = final(actual), {}
    covered = []
    for _ in range(resplits):
        order = rng.permutation(EPISODES)
        radius, test = conformal_quantile(scores[order[:CALIBRATION]], delta), order[CALIBRATION:]
        if radius not in by_radius:
            tube = Tube(scale, Calibration(radius, CALIBRATION, delta))
            by_radius[radius] = tube.lower(SPEC, {"x": predicted})
        covered.append(coverage(truth[test], by_radius[radius][test]))
    kept = judged(delta, guaranteed(delta), summary(covered))
    tube_line = resplit((scores, np.zeros(EPISODES)), delta, resplits)
    return {f"indirect tube, delta {delta:g}": tube_line, f"indirect robustness, delta {delta:g}": kept}


def shifted(delta: float, shift: float, resplits: int) -> dict[str, dict[str, float]]:
    """A share ``shift`` of the test episodes, those with the least scores, moves above all calibration scores."""
    covered: dict[str, list[float]] = {"accounted for": [], "ignored": []}
    rng = np.random.default_rng(7)
    for _ in range(resplits):
        scores, moved = rng.random(CALIBRATION), rng.random(EPISODES)
        moved = np.where(moved < shift, 1.0 + moved, moved)
        for name, allowance in zip(covered, (shift, 0.0), strict=True):
            covered[name].append(float(np.mean(moved <= conformal_quantile(scores, delta, allowance))))
    expected = {"accounted for": guaranteed(delta, shift), "ignored": guaranteed(delta) - shift}
    return {
        f"shifted by {shift:g}, {name}, delta {delta:g}": judged(delta, expected[name], summary(shares))
        for name, shares in covered.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--resplits", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    found: dict[str, dict[str, float]] = {}
    for kind, make in DIRECT.items():
        pairs = make(np.random.default_rng(3))
        for delta in DELTAS:
            found[f"direct, {kind}, delta {delta:g}"] = resplit(pairs, delta, arguments.resplits)
    for delta in DELTAS:
        pairs = discrete(np.random.default_rng(3))
        line = resplit(pairs, delta, arguments.resplits, break_ties=True)
        found[f"direct, discrete, ties broken, delta {delta:g}"] = line
    for delta in DELTAS:
        found |= resplit_tube(delta, arguments.resplits)
    for delta in DELTAS:
        found |= shifted(delta, delta / 2, arguments.resplits)
    report(found, arguments.out, load_before)


if __name__ == "__main__":
    main()
