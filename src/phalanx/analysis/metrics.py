"""What a policy is worth, in one place to import from: detection, response, the committee and the critic.

Each concept has a module of its own; this one defines nothing.
"""

from phalanx.analysis.checks import POSITIVE
from phalanx.analysis.critic import explained_variance
from phalanx.analysis.detection import (
    THRESHOLD_METRICS,
    Detection,
    StratumWeights,
    Threshold,
    average_precision,
    base_rate_weights,
    best_threshold,
    detection_metrics,
)
from phalanx.analysis.diversity import CommitteeMetrics, committee_metrics
from phalanx.analysis.response import Budget, ResponseMetrics, cvar, response_metrics

__all__ = [
    "POSITIVE",
    "THRESHOLD_METRICS",
    "Budget",
    "CommitteeMetrics",
    "Detection",
    "ResponseMetrics",
    "StratumWeights",
    "Threshold",
    "average_precision",
    "base_rate_weights",
    "best_threshold",
    "committee_metrics",
    "cvar",
    "detection_metrics",
    "explained_variance",
    "response_metrics",
]
