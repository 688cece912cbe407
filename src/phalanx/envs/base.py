"""The interface of every environment, and the one definition of an automatic reset."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from phalanx.types import Observation, ObservationSpec, Score, TimeStep, Truth

__all__ = ["Environment", "auto_reset_step", "empty_score"]


class Environment(eqx.Module):
    """A pure, jittable environment in which each step is one event decided by the committee.

    Arrays (recorded events, catalogues) are leaves, so that ``jit`` takes them as arguments; settings are static.
    ``episode_events`` is the number of events after which an episode is cut at the latest.
    ``step`` never resets: its ``TimeStep.observation`` equals ``final_observation``. Use ``auto_reset_step`` in loops.
    """

    spec: eqx.AbstractVar[ObservationSpec]
    episode_events: eqx.AbstractVar[int]

    @abc.abstractmethod
    def reset(self, key: PRNGKeyArray) -> tuple[Any, Observation]:
        """Starts an episode and shows its first event."""

    @abc.abstractmethod
    def pending(self, state: Any) -> Truth:
        """The truth of the event that waits for its verdict; for evaluators and oracles only."""

    def core(self, state: Any) -> Float[Array, " core"]:
        """What the core state tells the critic of the future: ``spec.n_core`` numbers of order 1, none by default.

        Policies never see it: it holds truth, and it is read in training only.
        """
        return jnp.zeros(0, jnp.float32)

    @abc.abstractmethod
    def step(self, state: Any, verdict: Int[Array, ""], key: PRNGKeyArray) -> tuple[Any, TimeStep]:
        """Applies a verdict to the event shown last and shows the next one."""


def auto_reset_step(
    env: Environment, state: Any, verdict: Int[Array, ""], key: PRNGKeyArray
) -> tuple[Any, TimeStep, Any]:
    """Steps one environment and, where the episode ended, starts the next one.

    ``observation`` is then the new episode's first event; ``final_observation``, ``reward``, ``truth`` and ``score``
    belong to the episode that ended.

    Returns:
        The state to go on from, the time step, and the state that ``final_observation`` belongs to.
    """
    key_step, key_reset = jax.random.split(key)
    state, time_step = env.step(state, verdict, key_step)
    fresh_state, fresh_observation = env.reset(key_reset)

    def pick(fresh: Any, old: Any) -> Any:
        return jax.tree.map(lambda a, b: jnp.where(time_step.done, a, b), fresh, old)

    observation = pick(fresh_observation, time_step.observation)
    time_step = eqx.tree_at(lambda step: step.observation, time_step, observation)
    return pick(fresh_state, state), time_step, state


def empty_score() -> Score:
    """A score with all totals at zero.

    Example:
        >>> float(empty_score().damage)
        0.0
    """
    zero = jnp.zeros((), jnp.float32)
    return Score(**dict.fromkeys(Score.__dataclass_fields__, zero))
