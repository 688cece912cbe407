"""Tuning under an equal budget: as many trials on the same episodes for every policy that has something to tune.

Trials are points of a scrambled Sobol sequence (they cover a space evenly and know nothing of each other), so that all
of them run side by side and none profits from being searched more cleverly. The curve of the best loss so far says
whether more trials would have helped.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

from phalanx.errors import UsageError
from phalanx.runtime.policies import Policy
from phalanx.runtime.strata import EpisodeSet

__all__ = ["Dimension", "Family", "Tuned", "sobol_points", "trial_settings", "tune"]

Settings = Mapping[str, Any]

_MOST_ENVS = 4096
"""Environments side by side; more trials are run in parts."""


@dataclass(frozen=True)
class Dimension:
    """One thing to tune: a range, linear or logarithmic, or a list of choices.

    Attributes:
        name: of the setting.
        low, high: ends of the range.
        log: equal steps are equal factors.
        choices: in the range's stead.

    Example:
        >>> Dimension("window", 1.0, 100.0, log=True).at(0.5), Dimension("answer", choices=("a", "b")).at(0.6)
        (10.0, 'b')
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[Any, ...] = ()

    def at(self, u: float) -> Any:
        """The value at a share of the way through, in [0, 1)."""
        if self.choices:
            return self.choices[min(int(u * len(self.choices)), len(self.choices) - 1)]
        if self.log:
            return float(self.low * (self.high / self.low) ** u)
        return float(self.low + (self.high - self.low) * u)


@runtime_checkable
class Family(Protocol):
    """Policies of one kind that differ in their settings."""

    @property
    def space(self) -> tuple[Dimension, ...]:
        """What can be tuned."""
        ...

    def build(self, settings: Sequence[Settings], n_envs: int) -> Policy:
        """One policy for ``len(settings) * n_envs`` environments, a setting after the other."""
        ...

    def explain(self, settings: Settings) -> dict[str, Any]:
        """What a setting amounts to, in words and numbers for JSON."""
        ...


@dataclass(frozen=True)
class Tuned:
    """The chosen trial, and how it was found.

    Attributes:
        settings: of the chosen trial: the best, the first of equals, or the most cautious of those as good.
        loss: its mean loss per episode on the tuning episodes; no result to report.
        curve: best loss after each trial.
        losses: of each trial.
    """

    settings: Settings = field(default_factory=dict)
    loss: float = float("nan")
    curve: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()


def sobol_points(dimensions: int, n: int, seed: int) -> Float[np.ndarray, "n dimension"]:
    """The first points of a scrambled Sobol sequence in the unit cube.

    Args:
        dimensions: at least 1.
        n: points.
        seed: of the scrambling.

    Example:
        >>> sobol_points(2, 3, 0).shape
        (3, 2)

    Source:
        Owen (1998), "Scrambling Sobol' and Niederreiter-Xing points".
    """
    from scipy.stats import qmc

    sampler = qmc.Sobol(dimensions, scramble=True, rng=np.random.default_rng(seed))
    return sampler.random_base2(max(int(np.ceil(np.log2(n))), 0))[:n]  # whole powers of 2 keep their balance


def trial_settings(space: Sequence[Dimension], trials: int, seed: int) -> list[dict[str, Any]]:
    """The settings of the trials; one empty setting where there is nothing to tune.

    Raises:
        UsageError: no trials.
    """
    if trials < 1:
        raise UsageError(f"trials={trials}; expected 1 or more")
    if not space:
        return [{}]
    points = sobol_points(len(space), trials, seed)
    return [{d.name: d.at(float(u)) for d, u in zip(space, point, strict=True)} for point in points]


def tune(
    family: Family, episodes: EpisodeSet, *, trials: int = 32, seed: int = 0, cautious: str | None = None
) -> Tuned:
    """Tries settings on the tuning episodes and keeps the one of least loss.

    Where many settings are about as good there, those that answer to less suspicion are safer elsewhere, where attacks
    look less familiar: with ``cautious`` the one of lowest value is kept whose loss is within one standard error of the
    least (Breiman et al. 1984, Classification and Regression Trees, section 3.4.3).

    Args:
        family: what is tuned.
        episodes: the tuning episodes, never those that are reported.
        trials: the budget.
        seed: of the settings tried.
        cautious: name of the dimension whose lower values are the more cautious ones.

    Raises:
        UsageError: no trials.
    """
    tried = trial_settings(family.space, trials, seed)
    at_once = max(_MOST_ENVS // episodes.n, 1)
    losses, errors = [], []
    for begin in range(0, len(tried), at_once):
        part = tried[begin : begin + at_once]
        totals = episodes.totals(family.build(part, episodes.n), copies=len(part))
        values = np.asarray(totals.loss).reshape(len(part), episodes.n)
        losses += episodes.mean(values).tolist()
        errors += episodes.standard_error(values).tolist()
    best = int(np.argmin(losses))
    if cautious is not None:
        as_good = [i for i, loss in enumerate(losses) if loss <= losses[best] + errors[best]]
        best = min(as_good, key=lambda i: tried[i][cautious])
    curve = np.minimum.accumulate(losses).tolist()
    return Tuned(tried[best], losses[best], tuple(curve), tuple(losses))
