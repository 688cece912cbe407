"""The phalanx event table itself, from any file type that ``EventTable.write`` writes."""

import polars as pl

from phalanx.data.events import REQUIRED_COLUMNS
from phalanx.data.readers.adfa import EVENT_COLUMNS, NOTES
from phalanx.data.readers.base import Converted, Part, Reader
from phalanx.data.readers.darpa import LABEL_RULE

__all__ = ["PHALANX"]


def _matches(columns: set[str]) -> bool:
    return set(REQUIRED_COLUMNS) <= columns


def _convert(part: Part) -> Converted:
    label = "label" if "label" in part.frame.columns else None
    return Converted(part.source, part.frame, label=label, notes=_of_the_source(part))


def _of_the_source(part: Part) -> tuple[str, ...]:
    """What a source's own reader says of its labels holds of the table made from it, too."""
    columns = set(part.frame.columns)
    notes = NOTES if columns >= {*EVENT_COLUMNS, "attack_type"} else ()
    if {"record_type", "is_suspicious", "label"} <= columns:
        rule = part.frame["is_suspicious"].cast(pl.Float64, strict=False)
        if rule.equals(part.frame["label"].cast(pl.Float64, strict=False)):
            notes = (LABEL_RULE,)
    return notes


PHALANX = Reader("phalanx", _matches, _convert)
