"""Response, closed loop: what a policy's answers do to attacks and to benign work, one episode an environment.

All policies face the same random draws. What is reported is the environment's own score, never the reward.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from phalanx.agents.memory import init_memory
from phalanx.envs.base import Environment, empty_score
from phalanx.runtime.decide import Committee, decide_events
from phalanx.types import Observation, Score, Verdict

__all__ = [
    "Course",
    "Policy",
    "committee_policy",
    "constant_policy",
    "oracle_policy",
    "random_policy",
    "run_episodes",
    "threshold_policy",
]


class Policy(NamedTuple):
    """A way of answering.

    Attributes:
        init: what it carries, for a number of environments.
        act: (carried, observation, label, key, step) -> (carried, verdict per environment). Only the oracle may look at
            the label.
        on_host: ``act`` is NumPy code, called between steps instead of being compiled into them.
    """

    init: Callable[[int], Any]
    act: Callable[[Any, Observation, Int[Array, " env"], PRNGKeyArray, Int[Array, ""]], tuple[Any, Any]]
    on_host: bool = False


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


def constant_policy(verdict: Verdict) -> Policy:
    """Always the same verdict."""
    return Policy(
        lambda n: (),
        lambda carried, obs, label, key, t: (carried, jnp.full(label.shape, int(verdict), jnp.int32)),
    )


def random_policy(probabilities: Float[Array, "4"]) -> Policy:
    """Each verdict with a fixed probability, whatever the event."""

    def act(
        carried: Any, observation: Observation, label: Array, key: PRNGKeyArray, t: Array
    ) -> tuple[Any, Array]:
        return carried, jax.random.categorical(key, jnp.log(probabilities), shape=label.shape).astype(
            jnp.int32
        )

    return Policy(lambda n: (), act)


def oracle_policy() -> Policy:
    """Quarantine for every malicious event, allow for every other: it sees the label."""
    return Policy(
        lambda n: (),
        lambda carried, obs, label, key, t: (
            carried,
            jnp.where(label == 1, int(Verdict.QUARANTINE), int(Verdict.ALLOW)).astype(jnp.int32),
        ),
    )


def threshold_policy(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    threshold: np.ndarray | float,
    verdict: np.ndarray | int,
) -> Policy:
    """A classifier of single events and one verdict for whatever scores at least the threshold.

    Args:
        score: (category, numeric) -> P(malicious), in NumPy.
        threshold: chosen on validation data; one, or one per environment.
        verdict: alert, block or quarantine; one, or one per environment.
    """

    def act(
        carried: Any, observation: Observation, label: Array, key: PRNGKeyArray, t: Array
    ) -> tuple[Any, Array]:
        scores = score(np.asarray(observation.category), np.asarray(observation.numeric))
        answer = np.where(scores >= threshold, verdict, int(Verdict.ALLOW))
        return carried, jnp.asarray(answer, jnp.int32)

    return Policy(lambda n: (), act, on_host=True)


def committee_policy(committee: Committee, memory_size: int, threshold: float | None) -> Policy:
    """The committee at its operating point, through the decision path."""

    def init(n_envs: int) -> Any:
        return init_memory(committee.n_members, n_envs, committee.spec.n_entities, memory_size)

    def act(
        table: Any, observation: Observation, label: Array, key: PRNGKeyArray, t: Array
    ) -> tuple[Any, Array]:
        table, decision, _ = decide_events(committee, table, observation, t, threshold=threshold)
        return table, decision.action

    return Policy(init, act)


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


def _tiled(key: PRNGKeyArray, n_envs: int, copies: int) -> PRNGKeyArray:
    """A key per environment, the same for all copies of it."""
    return jnp.tile(jax.random.split(key, n_envs), copies)


@eqx.filter_jit
def _begin(env: Environment, carried: Any, keys: PRNGKeyArray) -> _Carry:
    n_envs = keys.shape[0]
    state, observation = jax.vmap(env.reset)(keys)
    score = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n_envs,)), empty_score())
    return _Carry(state, observation, carried, score, jnp.ones(n_envs, bool))


def _keys(key: PRNGKeyArray, t: Array | int, n_envs: int, copies: int) -> tuple[PRNGKeyArray, PRNGKeyArray]:
    key_policy, key_env = jax.random.split(jax.random.fold_in(key, t))
    return key_policy, _tiled(key_env, n_envs // copies, copies)


def _apply(
    env: Environment, carry: _Carry, carried: Any, verdict: Array, keys: PRNGKeyArray
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
        blank = jnp.zeros(carry.live.shape, jnp.int32)
        label = jax.vmap(env.step)(carry.state, blank, keys)[1].truth.label  # of the event that waits
        carried, verdict = policy.act(carry.carried, carry.observation, label, key_policy, t)
        return _apply(env, carry, carried, verdict, keys)

    return jax.lax.scan(step, carry, jnp.arange(steps))
