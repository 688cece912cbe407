"""The one automatic reset: what belongs to the old episode and what to the new one."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.contract import check_contract, leaves_equal
from toy import ToyEnv

from phalanx.envs.base import auto_reset_step, empty_score


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
    after, step, ended = eqx.filter_jit(auto_reset_step)(env, state, jnp.int32(2), key)
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
    after, step, ended = auto_reset_step(env, state, jnp.int32(0), jax.random.key(1))
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
    assert [float(np.asarray(total)) for total in jax.tree.leaves(empty_score())] == [0.0] * 12
