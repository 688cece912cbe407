"""Intervals for figures that vary by seed and by episode: a bootstrap on both levels.

Ten seeds that met the same thousand episodes are not ten thousand independent values: the luck of a seed is shared by
its episodes, the hardness of an episode by all seeds. Both levels are resampled.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike

from phalanx.analysis.checks import weights
from phalanx.analysis.statistics import interquartile_mean
from phalanx.errors import DataError, UsageError, unknown_name

__all__ = [
    "ACROSS",
    "SumStatistic",
    "TwoLevel",
    "hierarchical_difference",
    "hierarchical_interval",
    "hierarchical_summary",
    "normalised_score",
]

_Sums = Mapping[str, np.ndarray]
SumStatistic = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""Maps weighted sums over episodes, by name, to a value; elementwise, whatever their shape. The sum of the weights
themselves is named ``weight``. An undefined value is one that is not finite."""

_CHUNK = 2_000_000
"""Numbers drawn at a time, so that memory stays bounded."""


def _mean(statistic: SumStatistic, sums: _Sums) -> np.ndarray:
    return statistic(sums).mean(axis=-1)


def _iqm(statistic: SumStatistic, sums: _Sums) -> np.ndarray:
    each = statistic(sums)
    # sorting would move an undefined seed to the end and the trimming would cut it away, unnoticed
    return np.where(np.isfinite(each).all(axis=-1), interquartile_mean(each, axis=-1), np.nan)


def _pooled(statistic: SumStatistic, sums: _Sums) -> np.ndarray:
    return statistic({name: total.sum(axis=-1) for name, total in sums.items()})


ACROSS: dict[str, Callable[[SumStatistic, _Sums], np.ndarray]] = {
    "iqm": _iqm,
    "mean": _mean,
    "pooled": _pooled,
}
"""How seeds are joined: the interquartile mean or the mean of their values, or one value of the sums over all seeds."""


@dataclass(frozen=True)
class TwoLevel:
    """How to resample.

    Attributes:
        crossed: all seeds met the same episodes, which are then resampled together; else each seed met its own.
        across: a name of ``ACROSS``: what the interval is about.
        level: coverage asked for, in (0, 1).
        resamples: bootstrap samples, >= 1.
        seed: of the random numbers: the same call gives the same interval.

    Raises:
        UsageError: a value out of range.
    """

    crossed: bool = True
    across: str = "iqm"
    level: float = 0.95
    resamples: int = 2_000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.across not in ACROSS:
            raise unknown_name("way to join seeds", self.across, ACROSS)
        if not 0.0 < self.level < 1.0 or self.resamples < 1:
            raise UsageError(
                f"level={self.level}, resamples={self.resamples}; expected 0 < level < 1 and resamples >= 1"
            )


def normalised_score(sums: Mapping[str, np.ndarray]) -> np.ndarray:
    """The statistic (allow - loss) / (allow - oracle), from sums of losses of those names.

    Example:
        >>> normalised_score({"loss": np.array([2.0]), "allow": np.array([8.0]), "oracle": np.array([0.0])})
        array([0.75])
    """
    return (sums["allow"] - sums["loss"]) / (sums["allow"] - sums["oracle"])


def _weighted_mean(sums: _Sums) -> np.ndarray:
    return sums["value"] / sums["weight"]


class _Sample(NamedTuple):
    """Weighted values; ``weight`` is the last quantity."""

    names: tuple[str, ...]
    array: Float[np.ndarray, "quantity seed episode"]
    strata: list[Int[np.ndarray, " member"]]


def _arrays(values: ArrayLike | Mapping[str, ArrayLike]) -> dict[str, Float[np.ndarray, "row episode"]]:
    """Checked arrays by name, of one row or of one per seed."""
    named = values if isinstance(values, Mapping) else {"value": values}
    if "weight" in named:
        raise UsageError(
            "values: the name 'weight' is that of the sum of the weights; expected another. "
            "Pass weights as the argument of that name"
        )
    arrays = {name: np.atleast_2d(np.asarray(each, np.float64)) for name, each in named.items()}
    shapes = {name: each.shape for name, each in arrays.items()}
    rows, episodes = ({shape[axis] for shape in shapes.values()} for axis in (0, -1))
    flat = all(len(shape) == 2 for shape in shapes.values())
    if not flat or len(rows - {1}) > 1 or len(episodes) != 1 or 0 in rows | episodes:
        raise DataError(
            f"values have shapes {shapes}; expected the same seeds and episodes in all, at least one of each, "
            "or one row where a value does not depend on the seed"
        )
    for name, each in arrays.items():
        if not np.isfinite(each).all():
            place = tuple(int(i) for i in np.argwhere(~np.isfinite(each))[0])
            raise DataError(
                f"{name}={each[place]} at seed and episode {place}; expected finite numbers. "
                "Pass the numerator and the denominator of a ratio that an episode may lack"
            )
    return arrays


def _sample(
    values: ArrayLike | Mapping[str, ArrayLike], weight: ArrayLike | None, strata: ArrayLike | None
) -> _Sample:
    arrays = _arrays(values)
    n_seeds, n = np.broadcast_shapes(*(each.shape for each in arrays.values()))
    heavy = weights(weight, n)
    if not heavy.any():
        raise DataError("weight: no episode has any; expected at least one above 0")
    stack = [np.broadcast_to(each * heavy, (n_seeds, n)) for each in (*arrays.values(), np.ones((1, n)))]
    return _Sample((*arrays, "weight"), np.stack(stack), _members(strata, n))


def _members(strata: ArrayLike | None, n: int) -> list[Int[np.ndarray, " member"]]:
    labels = np.zeros(n, int) if strata is None else np.asarray(strata)
    if labels.shape != (n,):
        raise DataError(f"strata have shape {labels.shape}; expected one label for each of {n} episodes")
    return [np.flatnonzero(labels == label) for label in np.unique(labels)]


def _counts(rng: np.random.Generator, sample: _Sample, rows: int) -> Float[np.ndarray, "row episode"]:
    """How often each episode is drawn; each stratum is resampled within itself."""
    counts = np.empty((rows, sample.array.shape[2]))
    for group in sample.strata:
        counts[:, group] = rng.multinomial(group.size, np.full(group.size, 1 / group.size), size=rows)
    return counts


def _crossed(
    rng: np.random.Generator, sample: _Sample, picks: Int[np.ndarray, "row slot"]
) -> Float[np.ndarray, "quantity row slot"]:
    """Sums where all seeds of a resample meet the same drawn episodes."""
    counts = _counts(rng, sample, len(picks))
    sums = counts @ np.swapaxes(sample.array, 1, 2)
    return np.take_along_axis(sums, picks[None], axis=2)


def _nested(
    rng: np.random.Generator, sample: _Sample, picks: Int[np.ndarray, "row slot"]
) -> Float[np.ndarray, "quantity row slot"]:
    """Sums where each drawn seed meets episodes drawn for it alone."""
    counts = _counts(rng, sample, picks.size)
    sums = np.empty((sample.array.shape[0], picks.size))
    for seed in range(sample.array.shape[1]):
        mine = picks.ravel() == seed
        sums[:, mine] = sample.array[:, seed] @ counts[mine].T
    return sums.reshape(-1, *picks.shape)


def _resampled(sample: _Sample, plan: TwoLevel) -> Iterator[_Sums]:
    """Sums over episodes, ``[resample, drawn seed]`` by name, chunk by chunk."""
    _, n_seeds, n_episodes = sample.array.shape
    rng = np.random.default_rng(plan.seed)
    draw = _crossed if plan.crossed else _nested
    step = max(1, _CHUNK // (n_episodes if plan.crossed else n_episodes * n_seeds))
    for start in range(0, plan.resamples, step):
        picks = rng.integers(n_seeds, size=(min(step, plan.resamples - start), n_seeds))
        yield dict(zip(sample.names, draw(rng, sample, picks), strict=True))


def _interval(sample: _Sample, statistic: SumStatistic, plan: TwoLevel) -> tuple[float, float, int]:
    """(low, high, resamples that were left out because the statistic was undefined there)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.concatenate([ACROSS[plan.across](statistic, sums) for sums in _resampled(sample, plan)])
    known = found[np.isfinite(found)]
    if not known.size:
        raise DataError(
            f"the statistic is undefined in all of {found.size} resamples. "
            "Take more episodes, or strata that keep those it needs in every resample"
        )
    low, high = np.quantile(known, [(1 - plan.level) / 2, (1 + plan.level) / 2])
    return float(low), float(high), int(found.size - known.size)


def hierarchical_interval(
    values: ArrayLike | Mapping[str, ArrayLike],
    statistic: SumStatistic | None = None,
    *,
    weight: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    plan: TwoLevel | None = None,
) -> tuple[float, float]:
    """Percentile interval of a statistic whose values vary by seed and by episode.

    Measured coverage of a nominal 95 % (1,000 samples, 10 seeds that met the same 200 episodes, Gaussian effects of
    seeds, episodes and both together, standard deviations 0.1, 1 and 1): 97 % for the interquartile mean, 95 % for
    the mean; where seeds scatter as widely as episodes (1, 1 and 1): 94 % and 90 %, for ten values are few.

    Resamples in which the statistic is undefined are left out; ``hierarchical_summary`` counts them.

    Args:
        values: ``[seed episode]``, or several such arrays by name; ``[episode]`` where the seed plays no part.
        statistic: of the sums by name, per seed; by default the mean of ``value`` (the array, where it has no name).
        weight: what each episode counts for, >= 0; each 1 by default.
        strata: a label per episode, such as with and without attacks; each is resampled within itself.
        plan: how to resample; ``TwoLevel()`` by default.

    Returns:
        (low, high).

    Raises:
        DataError: values of different shapes or not finite, weights or strata that do not fit, or a statistic that is
            undefined in all resamples.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> low, high = hierarchical_interval(rng.normal(size=(10, 1)) + rng.normal(size=(1, 200)))
        >>> low < 0.0 < high
        True

    Source:
        Owen (2007), "The pigeonhole bootstrap", for crossed designs (mildly conservative: what is left beside the
        effects of seeds and episodes is counted more than once; no bootstrap is exact there); Davison and Hinkley
        (1997), "Bootstrap methods and their application", section 3.8, for nested ones.
    """
    sample = _sample(values, weight, strata)
    low, high, _ = _interval(sample, statistic or _weighted_mean, plan or TwoLevel())
    return low, high


def _totals(sample: _Sample) -> _Sums:
    """Sums over the episodes as they are, ``[1, seed]`` by name: one resample, the sample itself."""
    return dict(zip(sample.names, sample.array.sum(axis=2)[:, None], strict=True))


def hierarchical_summary(
    values: ArrayLike | Mapping[str, ArrayLike],
    statistic: SumStatistic | None = None,
    *,
    weight: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    plan: TwoLevel | None = None,
) -> dict[str, Any]:
    """A statistic over seeds: what ``statistics.summary`` says, with the interval of ``hierarchical_interval``.

    Args:
        values: as there.
        statistic: as there.
        weight: as there.
        strata: as there.
        plan: as there.

    Returns:
        ``mean``, ``iqm`` and ``min`` of the seeds' values; ``value``, joined as ``plan.across`` says, and its interval,
        ``low`` and ``high``; ``n`` seeds, ``missing`` (left out because undefined) and ``undefined`` (resamples left
        out). ``None`` for all figures where no seed has a value.

    Raises:
        DataError: as there.

    Example:
        >>> losses = {"loss": [[1.0, 3.0], [2.0, 2.0]], "allow": [8.0, 8.0], "oracle": [0.0, 0.0]}
        >>> found = hierarchical_summary(losses, normalised_score)
        >>> found["iqm"], found["min"], found["n"]
        (0.75, 0.75, 2)
    """
    sample, statistic, plan = _sample(values, weight, strata), statistic or _weighted_mean, plan or TwoLevel()
    with np.errstate(divide="ignore", invalid="ignore"):
        each = statistic(_totals(sample))[0]
    known = np.isfinite(each)
    counts = {"n": int(known.sum()), "missing": int((~known).sum())}
    if not known.any():
        figures = dict.fromkeys(("mean", "iqm", "min", "value", "low", "high"))
        return {**figures, **counts, "undefined": plan.resamples}
    sample = sample._replace(array=sample.array[:, known])
    low, high, undefined = _interval(sample, statistic, plan)
    return {
        "mean": float(each[known].mean()),
        "iqm": float(interquartile_mean(each[known])),
        "min": float(each[known].min()),
        "value": float(ACROSS[plan.across](statistic, _totals(sample))[0]),
        "low": low,
        "high": high,
        **counts,
        "undefined": undefined,
    }


def hierarchical_difference(
    before: ArrayLike | Mapping[str, ArrayLike],
    after: ArrayLike | Mapping[str, ArrayLike],
    statistic: SumStatistic | None = None,
    *,
    weight: ArrayLike | None = None,
    strata: ArrayLike | None = None,
    plan: TwoLevel | None = None,
) -> dict[str, Any]:
    """Summary of a statistic after less the same before, both on the same resamples: what they share cancels.

    Args:
        before: as ``values`` in ``hierarchical_interval``, of one policy.
        after: of another, in the same episodes; row by row with the same seed, or with ``[episode]`` on either side
            for a policy without seeds.
        statistic: as there.
        weight: as there.
        strata: as there.
        plan: as there.

    Returns:
        As ``hierarchical_summary``; ``min`` is the seed that gained least.

    Raises:
        DataError: as there.

    Example:
        >>> found = hierarchical_difference([[1.0, 5.0], [3.0, 9.0]], [[2.0, 6.0], [4.0, 10.0]])
        >>> found["low"], found["high"]
        (1.0, 1.0)
    """
    statistic = statistic or _weighted_mean
    sides = {"before": before, "after": after}
    joined = {
        f"{side}/{name}": each
        for side, values in sides.items()
        for name, each in (values if isinstance(values, Mapping) else {"value": values}).items()
    }

    def of(side: str, sums: _Sums) -> np.ndarray:
        mine = {
            name.removeprefix(f"{side}/"): total
            for name, total in sums.items()
            if name.startswith(f"{side}/")
        }
        return statistic({**mine, "weight": sums["weight"]})

    def gain(sums: _Sums) -> np.ndarray:
        return of("after", sums) - of("before", sums)

    return hierarchical_summary(joined, gain, weight=weight, strata=strata, plan=plan)
