"""Data: the event table, readers, splits, the encoder and rolling statistics."""

from phalanx.data.encoder import Encoded, Encoder
from phalanx.data.events import EventTable
from phalanx.data.readers import READERS, Ingested, IngestReport, ingest, read_events
from phalanx.data.rolling import EVENT_CLASSES, ROLLING_COLUMNS

__all__ = [
    "EVENT_CLASSES",
    "READERS",
    "ROLLING_COLUMNS",
    "Encoded",
    "Encoder",
    "EventTable",
    "IngestReport",
    "Ingested",
    "ingest",
    "read_events",
]
