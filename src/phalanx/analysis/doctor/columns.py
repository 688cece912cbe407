"""Columns as numbers that a tree can cut."""

from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Float, Int, Int8

__all__ = ["Coded", "coded"]


@dataclass(frozen=True)
class Coded:
    """A column as numbers.

    Attributes:
        name: of the column.
        values: numbers as they are; texts by their share of malicious rows; -inf replaced by the least number, and -1
            for texts that were not fitted.
        names: code of each text; None for numbers.
    """

    name: str
    values: Float[np.ndarray, " row"]
    names: dict[str, float] | None = None


def coded(
    series: pl.Series, label: Int8[np.ndarray, " row"], fit: Int[np.ndarray, " fit"], most: int
) -> Coded | None:
    """A column as numbers; None where it is constant, neither text nor number, or a text of more than ``most`` values.

    Args:
        series: the column.
        label: 1 malicious, 0 benign, -1 unknown.
        fit: rows by which texts are ordered.
        most: distinct texts.
    """
    if series.dtype.is_numeric() or series.dtype == pl.Boolean:
        values = series.cast(pl.Float64).fill_null(np.nan).to_numpy()
        known = values[np.isfinite(values)]
        if not len(known) or (known.min() == known.max() and len(known) == len(values)):
            return None
        return Coded(series.name, np.where(np.isfinite(values), values, known.min() - 1.0))
    if series.dtype != pl.String or not 2 <= series.n_unique() <= most:
        return None
    share = (
        pl.DataFrame({"text": series[fit].fill_null(""), "label": label[fit]})
        .group_by("text")
        .agg(pl.col("label").mean().alias("share"))
        .sort("share", "text")
        .with_row_index("code")
    )
    names = {text: float(code) for text, code in share.select("text", "code").iter_rows()}
    values = series.fill_null("").replace_strict(names, default=-1.0, return_dtype=pl.Float64).to_numpy()
    return Coded(series.name, values, names)
