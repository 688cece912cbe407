"""The committee as something to tune: where it answers, chosen for least loss under the budget that baselines have."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax.numpy as jnp
import numpy as np

from phalanx.runtime.decide import Committee
from phalanx.runtime.policies import CommitteePolicy
from phalanx.runtime.tuning import Dimension

__all__ = ["CommitteeFamily"]


@dataclass(frozen=True, eq=False)
class CommitteeFamily:
    """One trained committee at different operating points; the lower ``log_odds``, the more cautious.

    Attributes:
        committee: as it was kept.
        memory_size: numbers per memory.
        n_entities: memories of each environment.
    """

    committee: Committee
    memory_size: int
    n_entities: int

    @property
    def space(self) -> tuple[Dimension, ...]:
        """The log-odds of the threshold on the suspicion that the members agree on."""
        return (Dimension("log_odds", -3.0, 5.0),)

    def build(self, settings: Sequence[Mapping[str, Any]], n_envs: int) -> CommitteePolicy:
        """The committee at some operating points side by side."""
        cuts = np.array([self.explain(each)["threshold"] for each in settings], np.float32)
        spec = replace(self.committee.spec, n_entities=self.n_entities)
        committee = replace(self.committee, spec=spec)
        return CommitteePolicy(committee, jnp.asarray(np.repeat(cuts, n_envs)), self.memory_size)

    def explain(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The threshold."""
        return {"threshold": float(1.0 / (1.0 + np.exp(-settings["log_odds"])))}
