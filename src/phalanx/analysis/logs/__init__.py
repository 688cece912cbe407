"""Training logs, of phalanx and of other tools, read into one record."""

from phalanx.analysis.logs.log import Series, TrainingLog
from phalanx.analysis.logs.names import STANDARD
from phalanx.analysis.logs.read import log_of_rows, read_log

__all__ = ["STANDARD", "Series", "TrainingLog", "log_of_rows", "read_log"]
