"""The interface of every environment, and the one definition of an automatic reset."""

import abc
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from phalanx.errors import UsageError
from phalanx.types import Observation, ObservationSpec, Score, TimeStep, Truth

__all__ = ["Environment", "auto_reset_step", "empty_score"]

_RESETS = 8


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

    def learned_label(self, state: Any) -> Int[Array, ""]:
        """The label of the waiting event as training data has it; the truth, unless labels are poisoned."""
        return self.pending(state).label

    def peaceful(self) -> "Environment":
        """The same world without attackers; only its resets differ.

        Raises:
            UsageError: this environment's attackers cannot be left out.
        """
        raise UsageError(
            f"{type(self).__name__} has no attackers to leave out; episodes without attacks need the simulator"
        )

    def core(self, state: Any) -> Float[Array, " core"]:
        """What the core state tells the critic of the future: ``spec.n_core`` numbers of order 1, none by default.

        Policies never see it: it holds truth, and it is read in training only.
        """
        return jnp.zeros(0, jnp.float32)

    def gauges(self, state: Any) -> dict[str, Float[Array, ""]]:
        """Readings of the state that specifications may speak of, beside what every step tells (``envs.signals``)."""
        return {}

    @abc.abstractmethod
    def step(self, state: Any, verdict: Int[Array, ""], key: PRNGKeyArray) -> tuple[Any, TimeStep]:
        """Applies a verdict to the event shown last and shows the next one."""


def auto_reset_step(
    env: Environment, state: Any, verdict: Int[Array, " env"], key: Key[Array, " env"]
) -> tuple[Any, TimeStep, Any]:
    """Steps a batch of environments and starts the next episode in each whose episode ended.

    ``observation`` is then the new episode's first event; ``final_observation``, ``reward``, ``truth`` and ``score``
    belong to the episode that ended. Only as many environments are reset as ended, eight at a time, for a reset costs
    as much as many steps.

    Returns:
        The states to go on from, the time steps, and the states that ``final_observation`` belongs to.
    """
    keys = jax.vmap(jax.random.split)(key)
    ended, time_step = jax.vmap(env.step)(state, verdict, keys[:, 0])
    n_envs = verdict.shape[0]

    def renew(carry: tuple[Array, Any, Observation]) -> tuple[Array, Any, Observation]:
        left, states, observations = carry
        index = jnp.nonzero(left, size=min(_RESETS, n_envs), fill_value=n_envs)[0]
        fresh = jax.vmap(env.reset)(keys[jnp.minimum(index, n_envs - 1), 1])

        def put(old: Array, new: Array) -> Array:
            return old.at[index].set(new, mode="drop")

        states, observations = jax.tree.map(put, (states, observations), fresh)
        return left.at[index].set(False, mode="drop"), states, observations

    _, state, observation = jax.lax.while_loop(
        lambda carry: carry[0].any(), renew, (time_step.done, ended, time_step.observation)
    )
    return state, eqx.tree_at(lambda step: step.observation, time_step, observation), ended


def empty_score() -> Score:
    """A score with all totals at zero.

    Example:
        >>> float(empty_score().damage)
        0.0
    """
    zero = jnp.zeros((), jnp.float32)
    return Score(**dict.fromkeys(Score.__dataclass_fields__, zero))
