"""From which suspicion on a committee answers: with an alert first, with more where it is surer."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from phalanx.errors import RunError

__all__ = ["Cut", "Threshold", "cut_of"]


class Cut(NamedTuple):
    """Two suspicions, in [0, 1], one for all environments or one for each.

    Between them the committee alerts: an analyst looks at what is doubtful, and benign work goes on meanwhile.

    Attributes:
        alert: from here on it alerts at least.
        answer: from here on, not below ``alert``, each member answers with what it finds likeliest of alert, block and
            quarantine.

    Example:
        >>> Cut.of(0.5), Cut.of(Cut(0.25, 0.5))
        (Cut(alert=0.5, answer=0.5), Cut(alert=0.25, answer=0.5))
    """

    alert: Float[Array, "*env"] | float
    answer: Float[Array, "*env"] | float

    @classmethod
    def of(cls, threshold: "Threshold") -> "Cut":
        """The pair that a threshold stands for: a single number leaves nothing between."""
        return threshold if isinstance(threshold, Cut) else cls(threshold, threshold)

    def arrays(self) -> "Cut":
        """The pair as float32 arrays, so that a compiled program takes any."""
        return Cut(jnp.asarray(self.alert, jnp.float32), jnp.asarray(self.answer, jnp.float32))


Threshold = Float[Array, "*env"] | float | Cut
"""A suspicion from which on a committee answers, or a pair of them."""


def cut_of(point: Mapping[str, Any]) -> Cut | None:
    """What a run's operating point says; None: each member takes its likeliest verdict.

    Raises:
        RunError: it would alert later than it answers.

    Example:
        >>> cut_of({"threshold": 0.5}), cut_of({"threshold": 0.5, "alert_threshold": 0.2}), cut_of({"threshold": None})
        (Cut(alert=0.5, answer=0.5), Cut(alert=0.2, answer=0.5), None)
    """
    answer = point["threshold"]
    if answer is None:
        return None
    alert = point.get("alert_threshold")
    cut = Cut(float(answer if alert is None else alert), float(answer))
    if cut.alert > cut.answer:
        raise RunError(
            f"operating_point.json: alerts from {cut.alert:g} on and answers from {cut.answer:g} on; the first is at "
            "most the second. Restore it: phalanx train --resume RUN chooses anew without training on"
        )
    return cut
