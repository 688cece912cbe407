"""The one automatic reset: what belongs to the old episode and what to the new one."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.contract import check_contract, leaves_equal
from toy import ToyEnv

from phalanx.envs.base import auto_reset_step, empty_score


@eqx.filter_jit
def _one(env: ToyEnv, state: Any, verdict: jax.Array, key: jax.Array) -> Any:
    """A batch of one, and its only entry."""
    batch = jax.tree.map(lambda x: x[None], (state, verdict, key))
    return jax.tree.map(lambda x: x[0], auto_reset_step(env, *batch))


def test_as_many_are_reset_as_ended_however_many_those_are() -> None:
    """Twenty environments that end at different times: each goes on as it does alone."""
    env, n = ToyEnv(episode_events=3), 20
    keys = jax.random.split(jax.random.key(4), n)
    state, _ = jax.vmap(env.reset)(keys)
    state = eqx.tree_at(lambda s: s.time, state, jnp.arange(n) % 3)
    after, step, ended = eqx.filter_jit(auto_reset_step)(env, state, jnp.zeros(n, jnp.int32), keys)
    assert np.asarray(step.done).sum() == 6
    for i in range(n):
        alone = _one(env, jax.tree.map(lambda x, i=i: x[i], state), jnp.int32(0), keys[i])
        assert leaves_equal(jax.tree.map(lambda x, i=i: x[i], (after, step, ended)), alone)


@pytest.mark.parametrize("terminates", [False, True])
def test_the_toy_keeps_the_contract(terminates: bool) -> None:
    check_contract(ToyEnv(episode_events=9, terminates=terminates), n_steps=24, n_envs=3)


def test_at_the_end_the_observation_is_new_and_everything_else_is_old() -> None:
    env = ToyEnv(episode_events=1)
    state, _ = env.reset(jax.random.key(0))
    key = jax.random.key(1)
    key_step, key_reset = jax.random.split(key)
    old_state, old = env.step(state, jnp.int32(2), key_step)
    fresh_state, fresh = env.reset(key_reset)
    after, step, ended = _one(env, state, jnp.int32(2), key)
    assert leaves_equal(ended, old_state)
    assert bool(step.truncated) and not bool(step.terminated) and bool(step.done)
    assert leaves_equal(step.observation, fresh) and leaves_equal(after, fresh_state)
    assert leaves_equal(step.final_observation, old.observation)
    for name in ("reward", "credit", "truth", "score"):
        assert leaves_equal(getattr(step, name), getattr(old, name))
    assert not leaves_equal(after, old_state)


def test_before_the_end_nothing_is_reset() -> None:
    env = ToyEnv(episode_events=5)
    state, _ = env.reset(jax.random.key(0))
    plain_state, plain = env.step(state, jnp.int32(0), jax.random.split(jax.random.key(1))[0])
    after, step, ended = _one(env, state, jnp.int32(0), jax.random.key(1))
    assert leaves_equal(ended, after)
    assert not bool(step.done)
    assert leaves_equal(after, plain_state) and leaves_equal(step, plain)


def test_the_truth_that_waits_is_the_truth_that_is_decided() -> None:
    env = ToyEnv()
    state, _ = env.reset(jax.random.key(0))
    for t in range(5):
        waiting = env.pending(state)
        state, step = env.step(state, jnp.int32(t % 4), jax.random.key(t))
        assert leaves_equal(step.truth, waiting)


def test_an_empty_score_is_zero_throughout() -> None:
    assert [float(np.asarray(total)) for total in jax.tree.leaves(empty_score())] == [0.0] * 14
