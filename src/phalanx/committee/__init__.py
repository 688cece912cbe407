"""The committee: how opinions become votes, and votes a verdict."""

from phalanx.committee.rule import decide, faults_tolerated

__all__ = ["decide", "faults_tolerated"]
