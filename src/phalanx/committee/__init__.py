"""The committee: how votes become a verdict."""

from phalanx.committee.voting import decide, faults_tolerated, pivotal, tally, verdict_of

__all__ = ["decide", "faults_tolerated", "pivotal", "tally", "verdict_of"]
