"""The four answers to an event; nothing heavy is loaded to know them."""

from enum import IntEnum

__all__ = ["N_VERDICTS", "Verdict"]


class Verdict(IntEnum):
    """The four answers to an event, in order of severity."""

    ALLOW = 0
    ALERT = 1
    BLOCK = 2
    QUARANTINE = 3


N_VERDICTS = len(Verdict)
