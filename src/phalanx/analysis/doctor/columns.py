"""Columns as numbers that a tree can cut."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float, Int, Int8

__all__ = ["Coded", "coded"]


@dataclass(frozen=True)
class Coded:
    """A column as codes: numbers by their rank, texts by their share of malicious rows.

    Attributes:
        name: of the column.
        values: code of each row: from 0 on; -1 where it is missing or was not fitted.
        numbers: the number of each code, None for texts.
        names: the text of each code, None for numbers.
    """

    name: str
    values: Float[np.ndarray, " row"]
    numbers: Float[np.ndarray, " code"] | None = None
    names: tuple[str, ...] | None = None

    def between(self, cut: float) -> float:
        """The number half-way between the codes on both sides of a cut, for columns of numbers."""
        assert self.numbers is not None
        last = len(self.numbers) - 1
        below, above = (min(max(int(place), 0), last) for place in (np.floor(cut), np.floor(cut) + 1))
        return float(self.numbers[below] / 2.0 + self.numbers[above] / 2.0)


def coded(
    series: pl.Series, label: Int8[np.ndarray, " row"], fit: Int[np.ndarray, " fit"], most: int
) -> Coded | None:
    """A column as codes; None where it is constant, neither text nor number, or a text of more than ``most`` values.

    Args:
        series: the column.
        label: 1 malicious, 0 benign, -1 unknown.
        fit: rows by which texts are ordered.
        most: distinct texts.
    """
    if series.dtype.is_numeric() or series.dtype == pl.Boolean:
        values = series.cast(pl.Float64).fill_null(np.nan).to_numpy()
        known = np.isfinite(values)
        distinct, rank = np.unique(values[known], return_inverse=True)
        if not len(distinct) or (len(distinct) == 1 and known.all()):
            return None
        codes = np.full(len(values), -1.0)
        codes[known] = rank
        return Coded(series.name, codes, numbers=distinct)
    if series.dtype != pl.String or not 2 <= series.n_unique() <= most:
        return None
    share = (
        pl.DataFrame({"text": series[fit].fill_null(""), "label": label[fit]})
        .group_by("text")
        .agg(pl.col("label").mean().alias("share"))
        .sort("share", "text")
    )
    names = tuple(share["text"])
    codes = {text: float(code) for code, text in enumerate(names)}
    values = series.fill_null("").replace_strict(codes, default=-1.0, return_dtype=pl.Float64).to_numpy()
    return Coded(series.name, values, names=names)
