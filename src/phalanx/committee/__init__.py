"""The committee: how opinions become votes, and votes a verdict."""

from phalanx.committee.agreement import agree
from phalanx.committee.voting import decide, faults_tolerated, pivotal, tally, verdict_of

__all__ = ["agree", "decide", "faults_tolerated", "pivotal", "tally", "verdict_of"]
