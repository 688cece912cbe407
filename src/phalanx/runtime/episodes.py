"""Response, closed loop: what a policy's answers do to attacks and to benign work, one episode an environment.

All policies face the same random draws. What is reported is the environment's own score, never the reward.
"""

import abc
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, PRNGKeyArray

from phalanx.agents.memory import init_memory
from phalanx.envs.base import Environment, empty_score
from phalanx.runtime.decide import Committee, decide_events
from phalanx.types import Observation, Score, Verdict

__all__ = [
    "CommitteePolicy",
    "Course",
    "Policy",
    "TablePolicy",
    "ThresholdPolicy",
    "run_episodes",
]


class Policy(eqx.Module):
    """A way of answering. Arrays are leaves, so that policies of one kind share a compiled loop."""

    on_host: ClassVar[bool] = False
    """``act`` is NumPy code, called between steps instead of being compiled into them."""

    @abc.abstractmethod
    def init(self, n_envs: int) -> Any:
        """What it carries from event to event, for a number of environments."""

    @abc.abstractmethod
    def act(
        self, carried: Any, observation: Observation, label: Int[Array, " env"], key: PRNGKeyArray, t: Any
    ) -> tuple[Any, Int[Array, " env"]]:
        """The verdict on the event that waits in each environment. Only an oracle may look at the label."""


class TablePolicy(Policy):
    """Each verdict with a fixed probability, by the event's label: every policy that needs no training is one of these.

    Always-allow puts all weight on allow for both labels; the oracle, which sees the label, puts it on quarantine for
    malicious events and on allow for the others; a random policy has the same probabilities for both.

    Attributes:
        table: probabilities of the four verdicts per environment: on other events, and on malicious ones.
    """

    table: Float[Array, "env label verdict"]

    def init(self, n_envs: int) -> Any:
        """Nothing is carried."""
        return ()

    def act(self, carried: Any, observation: Any, label: Any, key: Any, t: Any) -> tuple[Any, Any]:
        """Draws from the row of the event's label."""
        threat = (label == 1)[:, None]
        probabilities = jnp.where(threat, self.table[:, 1], self.table[:, 0])
        return carried, jax.random.categorical(key, jnp.log(probabilities)).astype(jnp.int32)


class ThresholdPolicy(Policy):
    """A classifier of single events and one verdict for whatever scores at least the threshold.

    Attributes:
        score: (category, numeric) -> P(malicious), in NumPy.
        threshold: chosen on validation data, per environment.
        verdict: alert, block or quarantine, per environment.
    """

    score: Callable[[np.ndarray, np.ndarray], np.ndarray] = eqx.field(static=True)
    threshold: Float[np.ndarray, " env"]
    verdict: Int[np.ndarray, " env"]
    on_host: ClassVar[bool] = True

    def init(self, n_envs: int) -> Any:
        """Nothing is carried."""
        return ()

    def act(self, carried: Any, observation: Any, label: Any, key: Any, t: Any) -> tuple[Any, Any]:
        """Scores the events as they are, without memory."""
        scores = self.score(np.asarray(observation.category), np.asarray(observation.numeric))
        answer = np.where(scores >= self.threshold, self.verdict, int(Verdict.ALLOW))
        return carried, jnp.asarray(answer, jnp.int32)


class CommitteePolicy(Policy):
    """The committee at its operating point, through the decision path.

    Attributes:
        committee: who decides.
        threshold: its operating point.
        memory_size: numbers per memory.
    """

    committee: Committee
    threshold: Float[Array, ""]
    memory_size: int = eqx.field(static=True)

    def init(self, n_envs: int) -> Any:
        """Blank memories."""
        return init_memory(self.committee.n_members, n_envs, self.committee.spec.n_entities, self.memory_size)

    def act(self, carried: Any, observation: Any, label: Any, key: Any, t: Any) -> tuple[Any, Any]:
        """Decides; the label and the key are not used."""
        table, decision, _ = decide_events(self.committee, carried, observation, t, threshold=self.threshold)
        return table, decision.action


class Course(NamedTuple):
    """What happened in each episode, step by step; steps after its end repeat the last totals.

    Attributes:
        score: totals at the end of each episode, ``[env]``.
        damage: cumulative, ``[time, env]``.
        verdict, label, stage: of each event, ``[time, env]``.
        live: whether the episode was still running.
    """

    score: Score
    damage: Float[np.ndarray, "time env"]
    verdict: Int[np.ndarray, "time env"]
    label: Int[np.ndarray, "time env"]
    stage: Int[np.ndarray, "time env"]
    live: np.ndarray

    def copy(self, index: int, n_envs: int) -> "Course":
        """One copy out of several that were run side by side."""
        part = slice(index * n_envs, (index + 1) * n_envs)
        score = jax.tree.map(lambda leaf: leaf[part], self.score)
        return Course(score, *(leaf[:, part] for leaf in self[1:]))


def run_episodes(
    env: Environment, policy: Policy, key: PRNGKeyArray, *, n_envs: int, steps: int, copies: int = 1
) -> Course:
    """Runs one episode in each environment under a policy.

    Args:
        env: the closed loop.
        policy: how to answer.
        key: the same key gives every policy the same draws.
        n_envs: episodes.
        steps: at least the longest episode.
        copies: the same episodes so many times over, copy by copy along the environments' axis.
    """
    key_reset, key_steps = jax.random.split(key)
    carry = _begin(env, policy.init(n_envs * copies), _tiled(key_reset, n_envs, copies))
    if policy.on_host:
        records = []
        for t in range(steps):
            carry, record = _answer(env, policy, carry, key_steps, t, copies)
            records.append(jax.tree.map(np.asarray, record))
        trace: Any = tuple(np.stack(leaves) for leaves in zip(*records, strict=True))
    else:
        carry, trace = _scan(env, policy, carry, key_steps, steps, copies)
    return Course(jax.tree.map(np.asarray, carry.score), *(np.asarray(leaf) for leaf in trace))


class _Carry(eqx.Module):
    state: Any
    observation: Observation
    carried: Any
    score: Score
    live: Array


def _tiled(key: PRNGKeyArray, n_envs: int, copies: int) -> Key[Array, " env"]:
    """A key per environment, the same for all copies of it."""
    return jnp.tile(jax.random.split(key, n_envs), copies)


@eqx.filter_jit
def _begin(env: Environment, carried: Any, keys: Key[Array, " env"]) -> _Carry:
    n_envs = keys.shape[0]
    state, observation = jax.vmap(env.reset)(keys)
    score = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n_envs,)), empty_score())
    return _Carry(state, observation, carried, score, jnp.ones(n_envs, bool))


def _keys(
    key: PRNGKeyArray, t: Array | int, n_envs: int, copies: int
) -> tuple[PRNGKeyArray, Key[Array, " env"]]:
    key_policy, key_env = jax.random.split(jax.random.fold_in(key, t))
    return key_policy, _tiled(key_env, n_envs // copies, copies)


def _apply(
    env: Environment, carry: _Carry, carried: Any, verdict: Array, keys: Key[Array, " env"]
) -> tuple[_Carry, Any]:
    state, time_step = jax.vmap(env.step)(carry.state, verdict, keys)
    score = jax.tree.map(lambda new, old: jnp.where(carry.live, new, old), time_step.score, carry.score)
    record = (score.damage, verdict, time_step.truth.label, time_step.truth.stage, carry.live)
    return _Carry(state, time_step.observation, carried, score, carry.live & ~time_step.done), record


_apply_jitted = eqx.filter_jit(_apply)


def _answer(
    env: Environment, policy: Policy, carry: _Carry, key: PRNGKeyArray, t: int, copies: int
) -> tuple[_Carry, Any]:
    key_policy, keys = _keys(key, t, carry.live.shape[0], copies)
    unseen = jnp.full(carry.live.shape, -1, jnp.int32)
    carried, verdict = policy.act(carry.carried, carry.observation, unseen, key_policy, jnp.asarray(t))
    return _apply_jitted(env, carry, carried, verdict, keys)


@eqx.filter_jit
def _scan(
    env: Environment, policy: Policy, carry: _Carry, key: PRNGKeyArray, steps: int, copies: int
) -> tuple[_Carry, Any]:
    def step(carry: _Carry, t: Array) -> tuple[_Carry, Any]:
        key_policy, keys = _keys(key, t, carry.live.shape[0], copies)
        label = jax.vmap(env.pending)(carry.state).label
        carried, verdict = policy.act(carry.carried, carry.observation, label, key_policy, t)
        return _apply(env, carry, carried, verdict, keys)

    return jax.lax.scan(step, carry, jnp.arange(steps))
