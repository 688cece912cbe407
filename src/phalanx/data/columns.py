"""Encoded columns: a vocabulary or a scale, how it is fitted and how it is applied."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from jaxtyping import Float32, Int32

from phalanx.data.features import TRANSFORMS, Feature, group_of

__all__ = [
    "MISSING",
    "UNSEEN",
    "CategoryColumn",
    "NumericColumn",
    "by_unique",
    "category_ids",
    "fit_category",
    "fit_number",
    "raw_number",
    "scale_numbers",
]

UNSEEN, MISSING = 0, 1
"""Category ids of a value not seen in training and of an empty one; known values follow from 2."""

_FIRST_KNOWN = 2
_KIND_VALUES = 512
_LIMIT = 8.0


@dataclass(frozen=True)
class CategoryColumn:
    """A categorical column.

    Attributes:
        name: in the observation.
        source: column of the event table.
        transform: key of ``features.TRANSFORMS`` applied to its text.
        group: sensor group.
        values: known values, most frequent first; value ``i`` has id ``i + 2``.
    """

    name: str
    source: str
    transform: str
    group: str
    values: tuple[str, ...]

    @property
    def size(self) -> int:
        """Number of ids, those of unseen and missing values included."""
        return len(self.values) + _FIRST_KNOWN


@dataclass(frozen=True)
class NumericColumn:
    """A numeric column: ``clip((sign(x) log(1 + |x|) - mean) / std, -8, 8)``.

    Attributes:
        name: in the observation and in the event table.
        group: sensor group.
        mean: of the logarithm over the training rows.
        std: of the logarithm over the training rows; 0 for a constant, which becomes 0.
    """

    name: str
    group: str
    mean: float
    std: float


def fit_category(frame: pl.DataFrame, feature: Feature, max_values: int, notes: list[str]) -> CategoryColumn:
    """The vocabulary of a feature on training rows: its most frequent values."""
    text = _reduced(frame[feature.source].cast(pl.String).fill_null(""), feature.transform)
    counts = (
        text.filter(text != "")
        .value_counts(name="times")
        .sort(["times", text.name], descending=[True, False])
    )
    limit = max(max_values, _KIND_VALUES) if feature.source == "kind" else max_values
    if counts.height > limit:
        notes.append(
            f"{feature.source}: the {limit} most frequent of {counts.height} values are known, the others unseen"
        )
    values = tuple(counts[text.name].head(limit).to_list())
    return CategoryColumn(feature.name, feature.source, feature.transform, group_of(feature.source), values)


def fit_number(frame: pl.DataFrame, feature: Feature) -> NumericColumn:
    """The scale of a feature on training rows; missing values do not count."""
    raw = raw_number(frame[feature.source])
    logs = _signed_log(raw[np.isfinite(raw)], np).astype(np.float64)
    mean, std = (float(logs.mean()), float(logs.std())) if len(logs) else (0.0, 0.0)
    constant = not len(logs) or logs.min() == logs.max()
    return NumericColumn(feature.name, group_of(feature.source), mean, 0.0 if constant else std)


def raw_number(series: pl.Series) -> Float32[np.ndarray, " event"]:
    """A column as float32, missing values as NaN."""
    return series.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy().astype(np.float32)


def _signed_log(raw: Any, xp: Any) -> Any:
    return xp.sign(raw) * xp.log1p(xp.abs(raw))


def scale_numbers(raw: Any, numbers: Sequence[NumericColumn], xp: Any) -> Any:
    """The numeric transform, for NumPy and JAX arrays alike."""
    shape = (1,) * (raw.ndim - 1) + (len(numbers),)
    mean = xp.asarray([column.mean for column in numbers], xp.float32).reshape(shape)
    inverse = [1.0 / column.std if column.std > 0 else 0.0 for column in numbers]
    inverse = xp.asarray(inverse, xp.float32).reshape(shape)
    scaled = xp.clip((_signed_log(raw, xp) - mean) * inverse, -_LIMIT, _LIMIT)
    return xp.where(xp.isnan(scaled), xp.zeros_like(scaled), scaled)


def by_unique(series: pl.Series, function: Any, dtype: Any) -> Any:
    """A Python function applied to each distinct text once."""
    uniques = series.unique()
    table = pl.DataFrame(
        {"text": uniques, "value": pl.Series([function(text) for text in uniques], dtype=dtype)}
    )
    joined = pl.DataFrame({"text": series}).join(
        table, on="text", how="left", maintain_order="left", nulls_equal=True
    )
    return joined["value"].to_numpy()


def _reduced(text: pl.Series, transform: str) -> pl.Series:
    function = TRANSFORMS[transform]
    if function is None:
        return text
    return pl.Series(text.name, by_unique(text, function, pl.String), pl.String)


def category_ids(column: CategoryColumn, text: pl.Series) -> Int32[np.ndarray, " event"]:
    """The id of each text: known, unseen or missing."""
    ids = {value: index + _FIRST_KNOWN for index, value in enumerate(column.values)} | {"": MISSING}
    function = TRANSFORMS[column.transform] or str
    return by_unique(text.fill_null(""), lambda value: ids.get(function(value), UNSEEN), pl.Int32)
