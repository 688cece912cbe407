"""NSL-KDD flow records: 41 features, the attack's name, a label.

Source: Tavallaee et al. 2009, "A detailed analysis of the KDD CUP 99 data set".
"""

import polars as pl

from phalanx.data.readers.base import Converted, Part, Reader

__all__ = ["NSL_KDD"]

_NEEDED = {"protocol_type", "service", "flag", "src_bytes", "dst_bytes", "attack"}


def _matches(columns: set[str]) -> bool:
    return columns >= _NEEDED


def _convert(part: Part) -> Converted:
    """A flow is a subject of its own, of kind FLOW, without time; the attack's name is the stage."""
    attack = pl.col("attack").fill_null("").str.strip_chars_end(".")
    frame = part.frame.with_columns(
        pl.lit(0, pl.Int64).alias("time_ns"),
        pl.lit("FLOW").alias("kind"),
        pl.when(attack == "normal").then(pl.lit("")).otherwise(attack).alias("stage"),
    )
    notes = (
        "flows without order or time: time_ns is 0",
        "'difficulty' tells how often classifiers failed: never a default feature",
    )
    label = "label" if "label" in frame.columns else "attack"
    return Converted(part.source, frame, label, {"attack": {"normal": 0, "normal.": 0, "*": 1}}, notes)


NSL_KDD = Reader("nsl-kdd", _matches, _convert)
