"""Data: the event table, readers, splits, the encoder and rolling statistics."""

from phalanx.data.encoder import Encoded, Encoder
from phalanx.data.events import EventTable
from phalanx.data.readers import READERS, Ingested, IngestReport, ingest, read_events
from phalanx.data.rolling import EVENT_CLASSES, ROLLING_COLUMNS
from phalanx.data.splits import SPLITS, Splits, split_rows

__all__ = [
    "EVENT_CLASSES",
    "READERS",
    "ROLLING_COLUMNS",
    "SPLITS",
    "Encoded",
    "Encoder",
    "EventTable",
    "IngestReport",
    "Ingested",
    "Splits",
    "ingest",
    "read_events",
    "split_rows",
]
