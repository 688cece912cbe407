"""The specifications of a run: where their files are, how often they hold in episodes, and how surely they will.

The forecast is made in the middle of an episode and is about its end: with a wanted probability the lowest robustness
of the whole episode is at least the lowest so far, less what episodes of the validation part have still fallen by
(``stl.conformal``, the direct method).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

import phalanx
from phalanx.errors import UsageError, unknown_name
from phalanx.stl.conformal import calibrate, coverage, smallest_calibration
from phalanx.stl.specs import Spec, read_specs

__all__ = ["DELTA", "forecast", "held", "load_specs", "shipped_specs", "spec_file"]


DELTA = 0.1
"""Probability that a forecast may fail."""


def shipped_specs() -> dict[str, Path]:
    """The specification files that come with phalanx, by name.

    Example:
        >>> sorted(shipped_specs())
        ['office', 'original', 'shield']
    """
    folder = Path(phalanx.__file__).parent / "specs"
    return {path.stem: path for path in sorted(folder.glob("*.stl"))}


def spec_file(given: Path) -> Path:
    """The file that comes with phalanx under that name, else the file itself (of that name: give its full path).

    Raises:
        UsageError: no such file or name, or a folder.
    """
    shipped = shipped_specs()
    bare = len(given.parts) == 1 and not given.suffix
    if bare and str(given) in shipped:
        return shipped[str(given)]
    if given.is_dir():
        raise UsageError(f"{given}: a folder; name one .stl file in it")
    if given.exists():
        return given
    if bare:
        raise unknown_name("specifications", str(given), shipped)
    raise UsageError(f"{given}: no such file; give one, or a name: {', '.join(shipped)}")


def load_specs(given: Path) -> tuple[Spec, ...]:
    """The specifications of a file, or of one that comes with phalanx (``spec_file``).

    Raises:
        UsageError: no such file or name, or a file that holds none.
    """
    return read_specs(spec_file(given))


def held(
    specs: Sequence[Spec], robustness: Float[np.ndarray, "time env spec"], live: Bool[np.ndarray, "time env"]
) -> dict[str, dict[str, Any]]:
    """How each specification fared.

    What looks ahead is judged as far as it is known: the last steps of an episode, as many as it looks ahead, are not.

    Args:
        specs: which.
        robustness: of each at each step, normalised.
        live: which steps belong to an episode.

    Returns:
        By name: ``satisfied``, the share of the episodes in which it held at every step; ``steps_satisfied``, the share
        of the steps; ``robustness_min``, the lowest of all, and ``robustness_p05``, the 5 % quantile of the episodes'
        lowest.
    """
    lowest = np.where(live[..., None], robustness, np.inf).min(axis=0)
    return {
        spec.name: {
            "satisfied": float((lowest[:, i] >= 0.0).mean()),
            "steps_satisfied": float((robustness[..., i][live] >= 0.0).mean()),
            "robustness_min": float(lowest[:, i].min()),
            "robustness_p05": float(np.quantile(lowest[:, i], 0.05)),
        }
        for i, spec in enumerate(specs)
    }


def forecast(
    specs: Sequence[Spec],
    known: tuple[Float[np.ndarray, "time calibration spec"], Bool[np.ndarray, "time calibration"]],
    new: tuple[Float[np.ndarray, "time env spec"], Bool[np.ndarray, "time env"]],
) -> dict[str, dict[str, Any]]:
    """What could be said of each specification in the middle of the new episodes, and whether it came true.

    Args:
        specs: which.
        known: robustness and live steps of the episodes to calibrate on: the same policy, other draws.
        new: those of the episodes that it is about.

    Returns:
        By name: ``guaranteed``, the least probability that the bound holds; ``coverage``, the share of the new episodes
        in which it did; ``radius``, what is taken off; ``assured``, the share of the new episodes of which it could be
        said half-way that the specification would hold. Empty where there are too few episodes to calibrate on.
    """
    if known[0].shape[1] < smallest_calibration(DELTA):
        return {}
    (so_far, lowest), (new_so_far, new_lowest) = (_halfway(*each) for each in (known, new))
    found = {}
    for i, spec in enumerate(specs):
        calibration = calibrate(so_far[:, i], lowest[:, i], DELTA)
        bound = calibration.lower(new_so_far[:, i])
        found[spec.name] = {
            "guaranteed": calibration.guaranteed,
            "coverage": coverage(new_lowest[:, i], bound),
            "radius": calibration.radius,
            "assured": float((bound >= 0.0).mean()),
        }
    return found


def _halfway(
    robustness: Float[np.ndarray, "time env spec"], live: Bool[np.ndarray, "time env"]
) -> tuple[Float[np.ndarray, "env spec"], Float[np.ndarray, "env spec"]]:
    """The lowest robustness of each episode's first half, by the longest one's length, and of the whole."""
    known = np.where(live[..., None], robustness, np.inf)
    return known[: max(len(known) // 2, 1)].min(axis=0), known.min(axis=0)
