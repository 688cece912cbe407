"""Round-robin inspection: whenever an analyst is free, look at a process that was not looked at for long."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phalanx.errors import UsageError
from phalanx.runtime.policies import Policy, note, recall
from phalanx.runtime.tuning import Dimension
from phalanx.runtime.vocabulary import Vocabulary
from phalanx.types import Verdict

__all__ = ["InspectionFamily", "InspectionPolicy", "fit_inspection"]

_NEVER = -(2**30)
_NEEDED = ("ticket_open", "analyst_wait")


class InspectionPolicy(Policy):
    """Alerts on processes in turn, whatever they do; the analysts contain what they find.

    Attributes:
        pause: events until a process is inspected again, per environment.
        most_wait: longest wait for an analyst, in [0, 1] of the longest that a ticket lasts, per environment.
        n_entities: memory slots.
        ticket_open, analyst_wait: places of those columns.
    """

    pause: Int[Array, " env"]
    most_wait: Float[Array, " env"]
    n_entities: int = eqx.field(static=True)
    ticket_open: int = eqx.field(static=True)
    analyst_wait: int = eqx.field(static=True)

    def init(self, n_envs: int) -> Any:
        """No process was inspected."""
        return jnp.full((n_envs, self.n_entities), _NEVER, jnp.int32)

    def act(self, carried: Any, observation: Any, label: Any, key: Any, t: Any) -> tuple[Any, Any]:
        """A process born in a slot counts as never inspected, whoever started it."""
        own = jnp.where(observation.source == observation.entity, observation.entity, -1)
        last = recall(carried, own, _NEVER)
        free = observation.numeric[:, self.analyst_wait] <= self.most_wait
        closed = observation.numeric[:, self.ticket_open] < 0.5
        inspect = free & closed & (t - last >= self.pause)
        kept = note(carried, observation.entity, jnp.where(inspect, t, last))
        return kept, jnp.where(inspect, int(Verdict.ALERT), int(Verdict.ALLOW)).astype(jnp.int32)


@dataclass(frozen=True)
class InspectionFamily:
    """Inspections by their pause and by how long an alert may wait.

    Attributes:
        n_entities: memory slots.
        ticket_open, analyst_wait: places of those columns.
    """

    n_entities: int
    ticket_open: int
    analyst_wait: int

    @property
    def space(self) -> tuple[Dimension, ...]:
        """The pause in events, and the longest wait."""
        return Dimension("pause", 8.0, 4096.0, log=True), Dimension("most_wait", 0.0, 0.3)

    def build(self, settings: Sequence[Mapping[str, Any]], n_envs: int) -> InspectionPolicy:
        """The policies of some settings side by side."""
        return InspectionPolicy(
            pause=jnp.asarray(np.repeat([round(each["pause"]) for each in settings], n_envs), jnp.int32),
            most_wait=jnp.asarray(np.repeat([each["most_wait"] for each in settings], n_envs), jnp.float32),
            n_entities=self.n_entities,
            ticket_open=self.ticket_open,
            analyst_wait=self.analyst_wait,
        )

    def explain(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The setting itself."""
        return {"pause": round(settings["pause"]), "most_wait": settings["most_wait"]}


def fit_inspection(vocabulary: Vocabulary, n_entities: int) -> InspectionFamily:
    """The family for an environment; nothing is fitted.

    Raises:
        UsageError: the environment does not show whether analysts are free.
    """
    places = {name: vocabulary.numbers[name] for name in _NEEDED if name in vocabulary.numbers}
    absent = [name for name in _NEEDED if name not in places]
    if absent:
        raise UsageError(f"the environment does not show {', '.join(absent)}; inspection in turn needs them")
    return InspectionFamily(n_entities, **places)
