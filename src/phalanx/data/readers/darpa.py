"""DARPA Transparent Computing records (CDM), flattened to one table."""

import polars as pl

from phalanx.data.readers.base import Converted, Part, Reader

__all__ = ["DARPA", "LABEL_RULE"]

LABEL_RULE = (
    "is_suspicious is the label; it was made by a rule over the record's own fields, it is no ground truth"
)

_NEEDED = {"record_type", "event_type", "timestamp_ns", "subject_uuid"}


def _matches(columns: set[str]) -> bool:
    return columns >= _NEEDED


def _convert(part: Part) -> Converted:
    """Events keep their process, other records become one subject a row with their record type as kind and time 0."""
    frame, notes = part.frame, []
    if "object_uuid" not in frame.columns:
        frame = frame.with_columns(pl.lit("").alias("object_uuid"))
    is_event = pl.col("record_type").str.ends_with("RECORD_EVENT") & (
        pl.col("event_type").fill_null("") != ""
    )
    columns = [
        pl.col("timestamp_ns").alias("time_ns"),
        pl.col("subject_uuid").fill_null("").alias("subject"),
        pl.when(is_event).then(pl.col("event_type")).otherwise(pl.col("record_type")).alias("kind"),
        pl.col("object_uuid").alias("object"),
    ]
    if "file_path" in frame.columns:
        columns.append(pl.col("file_path").alias("path"))
    frame = frame.with_columns(columns).with_columns(pl.col("kind").str.strip_prefix("EVENT_"))
    frame = _with_parents(frame)
    others, timeless = int(frame.select((~is_event).sum()).item()), int((frame["time_ns"] == 0).sum())
    if others:
        notes.append(f"{others} records are no events: their record type is the kind")
    if timeless:
        notes.append(f"{timeless} records without a time have time_ns 0")
    label = "is_suspicious" if "is_suspicious" in frame.columns else None
    if label:
        notes.append(LABEL_RULE)
    return Converted(part.source, frame, label=label, notes=tuple(notes))


def _with_parents(frame: pl.DataFrame) -> pl.DataFrame:
    """The object of a FORK or CLONE is the child's subject: its rows get the acting process as parent (first edge)."""
    edges = (
        frame.filter(
            pl.col("kind").is_in(["FORK", "CLONE"])
            & (pl.col("object") != "")
            & (pl.col("object") != pl.col("subject"))
            & (pl.col("subject") != "")
        )
        .select(pl.col("object").alias("subject"), pl.col("subject").alias("parent"))
        .unique("subject", keep="first", maintain_order=True)
    )
    return frame.join(edges, on="subject", how="left", maintain_order="left").with_columns(
        pl.col("parent").fill_null("")
    )


DARPA = Reader("darpa", _matches, _convert)
