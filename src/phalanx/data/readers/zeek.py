"""Zeek connection logs (TSV with header, or the same columns from another file type), labelled or not."""

import polars as pl

from phalanx.data.readers.base import Converted, Part, Reader, time_column

__all__ = ["ZEEK"]

_NEEDED = {"ts", "uid", "id.orig_h", "id.resp_h"}


def _matches(columns: set[str]) -> bool:
    return columns >= _NEEDED


def _convert(part: Part) -> Converted:
    """A connection is a CONNECT of its originating host; there is no process, so each is a subject of its own."""
    times, bad, _ = time_column(part.frame["ts"], "s")
    shown = part.frame["ts"].cast(pl.String).fill_null("")
    frame = part.frame.with_columns(
        times.alias("time_ns"),
        pl.col("uid").alias("subject"),
        pl.col("id.orig_h").alias("host"),
        pl.lit("CONNECT").alias("kind"),
        pl.col("id.resp_h").alias("object"),
        pl.lit("NETFLOW").alias("object_kind"),
    )
    reason = pl.select(
        pl.when(bad & (shown != "")).then(pl.lit("ts=" + shown + "; expected a number, in s")).otherwise(None)
    ).to_series()
    stage = next((name for name in ("detailedlabel", "detailed-label") if name in frame.columns), None)
    if stage:
        frame = frame.with_columns(pl.col(stage).alias("stage"))
    notes = ["no process: each connection (uid) is a subject of its own, on the host that opened it"]
    label = "label" if "label" in frame.columns else None
    return Converted(part.source, frame, label, {"*": {"(empty)": -1}}, tuple(notes), reason.cast(pl.String))


ZEEK = Reader("zeek", _matches, _convert)
