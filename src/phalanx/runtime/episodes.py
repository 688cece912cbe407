"""Response, closed loop: what a policy's answers do to attacks and to benign work, one episode an environment.

All policies face the same random draws. What is reported is the environment's own score, never the reward.
"""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from phalanx.envs.base import Environment, empty_score
from phalanx.runtime.policies import Policy
from phalanx.types import Observation, Score, Verdict

__all__ = ["Course", "Seen", "observe_episodes", "run_episodes", "run_totals"]


class Course(NamedTuple):
    """What happened in each episode, step by step; steps after its end repeat the last totals.

    Attributes:
        score: totals at the end of each episode, ``[env]``.
        damage, campaigns, contained, contain_s, duration_s: cumulative, ``[time, env]``, see ``Score``; the times of
            onsets and of containments follow from their steps.
        verdict, label, stage: of each event, ``[time, env]``.
        live: whether the episode was still running.
        robustness: of each specification that is watched.
        suspicion: how suspicious the policy found each event; None where it does not say.
        shielded: whether a shield put another verdict in the place of the policy's own; None where there is none.
    """

    score: Score
    damage: Float[np.ndarray, "time env"]
    campaigns: Float[np.ndarray, "time env"]
    contained: Float[np.ndarray, "time env"]
    contain_s: Float[np.ndarray, "time env"]
    duration_s: Float[np.ndarray, "time env"]
    verdict: Int[np.ndarray, "time env"]
    label: Int[np.ndarray, "time env"]
    stage: Int[np.ndarray, "time env"]
    live: Bool[np.ndarray, "time env"]
    robustness: Float[np.ndarray, "time env spec"]
    suspicion: Float[np.ndarray, "time env"] | None = None
    shielded: Bool[np.ndarray, "time env"] | None = None

    @property
    def changed(self) -> float | None:
        """Share of the verdicts that a shield changed, while episodes were running; None without a shield."""
        return None if self.shielded is None else float(self.shielded[self.live].mean())

    def copy(self, index: int, n_envs: int) -> "Course":
        """One copy out of several that were run side by side."""
        part = slice(index * n_envs, (index + 1) * n_envs)
        bare = self._replace(robustness=np.moveaxis(self.robustness, -1, 0))
        own = jax.tree.map(lambda leaf: leaf[..., part], bare)
        return own._replace(robustness=np.moveaxis(own.robustness, 0, -1))


class Seen(NamedTuple):
    """What is shown of episodes in which everything is allowed, and the labels to learn from.

    Attributes:
        category, numeric, entity, source: see ``Observation``.
        label: 1 malicious, 0 benign, -1 unknown and where the episode was over; wrong where the environment poisons
            what is learned from.
        live: whether the episode was still running.
    """

    category: Int[np.ndarray, "time env column"]
    numeric: Float[np.ndarray, "time env feature"]
    entity: Int[np.ndarray, "time env"]
    source: Int[np.ndarray, "time env"]
    label: Int[np.ndarray, "time env"]
    live: Bool[np.ndarray, "time env"]


def run_episodes(
    env: Environment,
    policy: Policy,
    key: PRNGKeyArray,
    *,
    n_envs: int,
    steps: int,
    copies: int = 1,
    quiet: Bool[np.ndarray, " env"] | None = None,
    apply: bool = True,
) -> Course:
    """Runs one episode in each environment under a policy.

    Args:
        env: the closed loop.
        policy: how to answer.
        key: the same key gives every policy the same draws.
        n_envs: episodes.
        steps: at least the longest episode.
        copies: the same episodes so many times over, copy by copy along the environments' axis.
        quiet: which episodes are without attacks, see ``Environment.peaceful``.
        apply: False: the verdicts are logged and everything is allowed, so that all policies see the same events.
    """
    carry, trace = _run(env, policy, key, n_envs, steps, copies, quiet, apply, record=True)
    *told, suspicion, changed = jax.tree.map(np.asarray, trace)
    fields = dict(zip(_TRACE, told, strict=True))
    score = jax.tree.map(np.asarray, carry.score)
    return Course(score=score, **fields, suspicion=suspicion if policy.scored else None, shielded=changed)


def run_totals(
    env: Environment,
    policy: Policy,
    key: PRNGKeyArray,
    *,
    n_envs: int,
    steps: int,
    copies: int = 1,
    quiet: Bool[np.ndarray, " env"] | None = None,
) -> Score:
    """The totals that ``run_episodes`` reaches, without the course: for many copies at once."""
    carry, _ = _run(env, policy, key, n_envs, steps, copies, quiet, apply=True, record=False)
    return jax.tree.map(np.asarray, carry.score)


def observe_episodes(
    env: Environment,
    key: PRNGKeyArray,
    *,
    n_envs: int,
    steps: int,
    quiet: Bool[np.ndarray, " env"] | None = None,
) -> Seen:
    """The events of episodes in which everything is allowed, for what is fitted to them."""
    key_reset, key_steps = jax.random.split(key)
    carry = _begin(env, (), _tiled(key_reset, n_envs, 1), _mask(quiet, 1))
    return Seen(*(np.asarray(leaf) for leaf in _observe(env, carry, key_steps, steps)))


class _Carry(eqx.Module):
    state: Any
    observation: Observation
    carried: Any
    score: Score
    live: Array


_CUMULATIVE = ("damage", "campaigns", "contained", "contain_s", "duration_s")
_TRACE = (*_CUMULATIVE, "verdict", "label", "stage", "live", "robustness")


def _run(
    env: Environment,
    policy: Policy,
    key: PRNGKeyArray,
    n_envs: int,
    steps: int,
    copies: int,
    quiet: np.ndarray | None,
    apply: bool,
    record: bool,
) -> tuple[_Carry, Any]:
    key_reset, key_steps = jax.random.split(key)
    carry = _begin(env, policy.init(n_envs * copies), _tiled(key_reset, n_envs, copies), _mask(quiet, copies))
    if not policy.on_host:
        return _scan(env, policy, carry, key_steps, steps, copies, apply, record)
    records = []
    for t in range(steps):
        carry, row = _answer(env, policy, carry, key_steps, t, copies, apply)
        if record:
            records.append(jax.tree.map(np.asarray, row))
    return carry, jax.tree.map(lambda *leaves: np.stack(leaves), *records) if records else None


def _tiled(key: PRNGKeyArray, n_envs: int, copies: int) -> Key[Array, " env"]:
    """A key per environment, the same for all copies of it."""
    return jnp.tile(jax.random.split(key, n_envs), copies)


def _mask(quiet: np.ndarray | None, copies: int) -> Array | None:
    return None if quiet is None else jnp.tile(jnp.asarray(quiet, bool), copies)


@eqx.filter_jit
def _begin(env: Environment, carried: Any, keys: Key[Array, " env"], quiet: Array | None) -> _Carry:
    n_envs = keys.shape[0]
    state, observation = jax.vmap(env.reset)(keys)
    if quiet is not None:

        def pick(calm: Array, other: Array) -> Array:
            return jnp.where(quiet.reshape(-1, *(1,) * (calm.ndim - 1)), calm, other)

        calm = jax.vmap(env.peaceful().reset)(keys)
        state, observation = jax.tree.map(pick, calm, (state, observation))
    score = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n_envs,)), empty_score())
    return _Carry(state, observation, carried, score, jnp.ones(n_envs, bool))


def _keys(
    key: PRNGKeyArray, t: Array | int, n_envs: int, copies: int
) -> tuple[PRNGKeyArray, Key[Array, " env"]]:
    key_policy, key_env = jax.random.split(jax.random.fold_in(key, t))
    return key_policy, _tiled(key_env, n_envs // copies, copies)


def _apply(
    env: Environment,
    carry: _Carry,
    judged: tuple[Any, Array, Array],
    changed: Array | None,
    keys: Key[Array, " env"],
    apply: bool,
) -> tuple[_Carry, Any]:
    carried, verdict, suspicion = judged
    verdict = jnp.asarray(verdict, jnp.int32)
    applied = verdict if apply else jnp.full_like(verdict, int(Verdict.ALLOW))
    state, time_step = jax.vmap(env.step)(carry.state, applied, keys)
    score = jax.tree.map(lambda new, old: jnp.where(carry.live, new, old), time_step.score, carry.score)
    small = (verdict, time_step.truth.label, time_step.truth.stage)
    record = (
        *(getattr(score, name) for name in _CUMULATIVE),
        *(leaf.astype(jnp.int8) for leaf in small),  # a course of a thousand long episodes must fit in memory
        carry.live,
        time_step.robustness,
        jnp.asarray(suspicion, jnp.float32),
        changed,
    )
    return _Carry(state, time_step.observation, carried, score, carry.live & ~time_step.done), record


@eqx.filter_jit
def _apply_jitted(
    env: Environment, carry: _Carry, verdict: Array, suspicion: Array, keys: Key[Array, " env"], apply: bool
) -> tuple[_Carry, Any]:
    return _apply(env, carry, (None, verdict, suspicion), None, keys, apply)


def _answer(
    env: Environment, policy: Policy, carry: _Carry, key: PRNGKeyArray, t: int, copies: int, apply: bool
) -> tuple[_Carry, Any]:
    """One step of a policy in NumPy; what it carries stays outside of the compiled step."""
    n = carry.live.shape[0]
    key_policy, keys = _keys(key, t, n, copies)
    unseen = np.full(n, -1, np.int32)
    carried, verdict, suspicion = policy.judge(carry.carried, carry.observation, unseen, key_policy, t)
    bare = _Carry(carry.state, carry.observation, None, carry.score, carry.live)
    after, row = _apply_jitted(env, bare, jnp.asarray(verdict), jnp.asarray(suspicion), keys, apply)
    return _Carry(after.state, after.observation, carried, after.score, after.live), row


@eqx.filter_jit
def _scan(
    env: Environment,
    policy: Policy,
    carry: _Carry,
    key: PRNGKeyArray,
    steps: int,
    copies: int,
    apply: bool,
    record: bool,
) -> tuple[_Carry, Any]:
    def step(carry: _Carry, t: Array) -> tuple[_Carry, Any]:
        key_policy, keys = _keys(key, t, carry.live.shape[0], copies)
        label = jnp.full(carry.live.shape, -1, jnp.int32)
        if policy.sees_truth:
            label = jax.vmap(env.pending)(carry.state).label
        judged = policy.judge(carry.carried, carry.observation, label, key_policy, t)
        carry, row = _apply(env, carry, judged, policy.overruled(judged[0]), keys, apply)
        return carry, row if record else None

    return jax.lax.scan(step, carry, jnp.arange(steps))


@eqx.filter_jit
def _observe(env: Environment, carry: _Carry, key: PRNGKeyArray, steps: int) -> Any:
    def step(carry: _Carry, t: Array) -> tuple[_Carry, Any]:
        _, keys = _keys(key, t, carry.live.shape[0], 1)
        shown, label = carry.observation, jax.vmap(env.learned_label)(carry.state)
        row = (
            shown.category,
            shown.numeric,
            shown.entity,
            shown.source,
            jnp.where(carry.live, label, -1).astype(jnp.int8),
            carry.live,
        )
        nothing = jnp.zeros(carry.live.shape, jnp.float32)
        carry, _ = _apply(env, carry, ((), nothing, nothing), None, keys, True)
        return carry, row

    return jax.lax.scan(step, carry, jnp.arange(steps))[1]
