"""How often each verdict is given, on malicious events and on benign ones: what lies change, verdict by verdict.

NumPy only. Undefined values are ``None`` (JSON null).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from phalanx.analysis.checks import ratio
from phalanx.types import N_VERDICTS, Verdict

__all__ = ["VerdictRates", "certain", "verdict_rates"]


@dataclass(frozen=True)
class VerdictRates:
    """Rates in [0, 1]; ``None`` where there is no such event.

    Attributes:
        recall: malicious events with alert or more.
        false_alerts: benign events with alert or more.
        malicious, benign: share of these events that each verdict gets, by its name.
        kept: of the events that honest members alone would have given a verdict, the share that still get it.
    """

    recall: float | None
    false_alerts: float | None
    malicious: dict[str, float | None]
    benign: dict[str, float | None]
    kept: dict[str, float | None]


def certain(verdict: Int[np.ndarray, " event"]) -> Float[np.ndarray, "event verdict"]:
    """Verdicts that were given, as probabilities.

    Example:
        >>> certain(np.array([2])).tolist()
        [[0.0, 0.0, 1.0, 0.0]]
    """
    return np.eye(N_VERDICTS)[verdict]


def verdict_rates(
    label: Int[np.ndarray, " event"],
    chance: Float[np.ndarray, "event verdict"],
    honest: Int[np.ndarray, " event"],
) -> VerdictRates:
    """Rates of verdicts that were given, or are expected.

    Args:
        label: 1 malicious, 0 benign, -1 unknown (counts in ``kept`` alone).
        chance: probability of each verdict on each event.
        honest: the verdict that honest members alone would have given.

    Example:
        >>> chance = np.array([[0.5, 0.5, 0, 0], [0, 0, 1, 0]])
        >>> found = verdict_rates(np.array([0, 1]), chance, np.array([0, 3]))
        >>> found.recall, found.false_alerts, found.kept["allow"], found.kept["quarantine"], found.kept["block"]
        (1.0, 0.5, 0.5, 0.0, None)
    """

    def of(these: np.ndarray) -> dict[str, float | None]:
        sums = chance[these].sum(axis=0)
        return {verdict.name.lower(): ratio(float(sums[verdict]), int(these.sum())) for verdict in Verdict}

    malicious, benign = label == 1, label == 0
    alarmed = chance[:, Verdict.ALERT :].sum(axis=1)
    kept = {}
    for verdict in Verdict:
        these = honest == verdict
        kept[verdict.name.lower()] = ratio(float(chance[these, verdict].sum()), int(these.sum()))
    return VerdictRates(
        recall=ratio(float(alarmed[malicious].sum()), int(malicious.sum())),
        false_alerts=ratio(float(alarmed[benign].sum()), int(benign.sum())),
        malicious=of(malicious),
        benign=of(benign),
        kept=kept,
    )
