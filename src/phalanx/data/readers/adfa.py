"""ADFA-LD system-call traces: one table of traces, one of calls.

Source: Creech and Hu 2013, "Generation of a new IDS test dataset" (UNSW). Recorded on 32-bit Linux: the call numbers
are those of the i386 table.
"""

import polars as pl

from phalanx.data.readers.base import Converted, Part, Reader
from phalanx.data.rows import ROW
from phalanx.errors import DataError

__all__ = ["ADFA", "EVENT_COLUMNS", "NOTES", "TRACE_COLUMNS", "join_traces"]

TRACE_COLUMNS = {"trace_id", "label", "attack_type", "attack_run"}
EVENT_COLUMNS = {"trace_id", "step", "syscall"}
NOTES = (
    "order only: time_ns is the position of the call in the file",
    "labels are per trace: most calls of an attack trace look benign",
)


def _matches(columns: set[str]) -> bool:
    return columns >= EVENT_COLUMNS


def join_traces(traces: Part, events: Part) -> Part:
    """The calls with the label and attack of their trace.

    Raises:
        DataError: a trace occurs twice.
    """
    if traces.frame["trace_id"].is_duplicated().any():
        raise DataError(f"{traces.source}: a trace_id occurs twice. Give each trace one row")
    columns = traces.frame.select("trace_id", "label", "attack_type", "attack_run")
    key = events.frame.schema["trace_id"]
    columns = columns.with_columns(pl.col("trace_id").cast(key, strict=False))
    joined = events.frame.drop("label", "attack_type", "attack_run", strict=False)
    return Part(events.source, joined.join(columns, on="trace_id", how="left", maintain_order="left"))


def _convert(part: Part) -> Converted:
    """One trace is one process; the position in the file is the time; attacks are campaigns by type and run."""
    frame = part.frame
    if not {"attack_type", "attack_run"} <= set(frame.columns):
        missing = "the table of traces (trace_id, label, attack_type, attack_run)"
        raise DataError(f"{part.source}: system calls without {missing}. Give both files, or their folder")
    attack = pl.col("attack_type").fill_null("")
    frame = frame.with_columns(
        pl.int_range(frame.height, dtype=pl.Int64).alias("time_ns"),
        pl.format("trace-{}", pl.col("trace_id")).alias("subject"),
        pl.format("SYSCALL_{}", pl.col("syscall")).alias("kind"),
        pl.when(attack == "")
        .then(pl.lit(""))
        .otherwise(attack + "_" + pl.col("attack_run").cast(pl.String))
        .alias("campaign"),
        attack.alias("stage"),
    )
    bad = frame.select(
        pl.when(pl.col("attack_type").is_null())
        .then(
            pl.format(
                "trace_id={} is not in the table of traces", pl.col("trace_id").cast(pl.String).fill_null("")
            )
        )
        .when(pl.col("syscall").is_null())
        .then(pl.lit("no system-call number"))
        .otherwise(None)
        .alias("bad")
    )["bad"]
    return Converted(
        part.source,
        frame.drop(ROW, strict=False) if ROW not in frame.columns else frame,
        "label",
        {},
        NOTES,
        bad,
    )


ADFA = Reader("adfa", _matches, _convert)
