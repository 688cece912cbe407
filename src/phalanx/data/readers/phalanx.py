"""The phalanx event table itself, from any file type that ``EventTable.write`` writes."""

from phalanx.data.events import REQUIRED_COLUMNS
from phalanx.data.readers.base import Converted, Part, Reader

__all__ = ["PHALANX"]


def _matches(columns: set[str]) -> bool:
    return set(REQUIRED_COLUMNS) <= columns


def _convert(part: Part) -> Converted:
    label = "label" if "label" in part.frame.columns else None
    return Converted(part.source, part.frame, label=label)


PHALANX = Reader("phalanx", _matches, _convert)
