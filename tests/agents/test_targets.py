"""Value targets against plain loops, and the laws that tie them together."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.agents.targets import gae, monte_carlo

T, E = 9, 3


def episode(seed: int) -> dict[str, np.ndarray]:
    """A random rollout whose values carry over: V(s'_t) is V(s_{t+1}) except where an episode ended."""
    rng = np.random.default_rng(seed)
    rewards, values, finals = rng.normal(0, 3, (3, T, E))
    kind = rng.choice(3, size=(T, E), p=[0.7, 0.15, 0.15])
    terminated, truncated = kind == 1, kind == 2
    following = np.concatenate([values[1:], finals[-1:]])
    next_values = np.where(terminated | truncated, finals, following)
    return {
        "rewards": rewards,
        "values": values,
        "next_values": next_values,
        "terminated": terminated,
        "truncated": truncated,
    }


def as_jax(part: dict[str, np.ndarray]) -> dict[str, Any]:
    return {name: jnp.asarray(x, bool if x.dtype == bool else jnp.float32) for name, x in part.items()}


def loop_gae(part: dict[str, np.ndarray], gamma: float, lam: float) -> np.ndarray:
    """Schulman et al.'s sum, written out for each step up to the end of its own episode."""
    advantages = np.zeros((T, E))
    for e in range(E):
        for t in range(T):
            weight = 1.0
            for k in range(t, T):
                after = 0.0 if part["terminated"][k, e] else part["next_values"][k, e]
                advantages[t, e] += weight * (part["rewards"][k, e] + gamma * after - part["values"][k, e])
                if part["terminated"][k, e] or part["truncated"][k, e]:
                    break
                weight *= gamma * lam
    return advantages


def loop_returns(part: dict[str, np.ndarray], gamma: float) -> np.ndarray:
    """Discounted rewards up to the episode's end, and V beyond a cut or the rollout's end."""
    returns = np.zeros((T, E))
    for e in range(E):
        for t in range(T):
            for k in range(t, T):
                returns[t, e] += gamma ** (k - t) * part["rewards"][k, e]
                if part["terminated"][k, e]:
                    break
                if part["truncated"][k, e] or k == T - 1:
                    returns[t, e] += gamma ** (k - t + 1) * part["next_values"][k, e]
                    break
    return returns


units = st.floats(0, 1, width=32)


@given(st.integers(0, 10_000), units, units)
def test_gae_is_the_sum_over_the_episode(seed: int, gamma: float, lam: float) -> None:
    part = episode(seed)
    found = gae(**as_jax(part), gamma=gamma, lam=lam)
    expected = loop_gae(part, gamma, lam)
    np.testing.assert_allclose(found.advantages, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.value_targets, expected + part["values"], rtol=1e-4, atol=1e-4)


@given(st.integers(0, 10_000), units)
def test_monte_carlo_is_the_discounted_sum(seed: int, gamma: float) -> None:
    part = episode(seed)
    given_ = as_jax(part)
    del given_["values"]
    found = monte_carlo(**given_, gamma=gamma)
    np.testing.assert_allclose(found, loop_returns(part, gamma), rtol=1e-4, atol=1e-4)


@given(st.integers(0, 10_000), units)
def test_lambda_one_is_the_bootstrapped_monte_carlo_return(seed: int, gamma: float) -> None:
    part: dict[str, Any] = as_jax(episode(seed))
    targets = gae(**part, gamma=gamma, lam=1.0).value_targets
    del part["values"]
    np.testing.assert_allclose(targets, monte_carlo(**part, gamma=gamma), rtol=1e-4, atol=1e-4)


def test_lambda_zero_is_one_step_of_bootstrap() -> None:
    part = episode(3)
    after = np.where(part["terminated"], 0, part["next_values"])
    found = gae(**as_jax(part), gamma=0.9, lam=0.0).value_targets
    np.testing.assert_allclose(found, part["rewards"] + 0.9 * after, rtol=1e-5)


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_only_a_final_state_stops_the_bootstrap(end: str) -> None:
    """Reward 1 for ever is worth 1 / (1 - gamma) = 10; a time limit must not change that, a death must."""
    one, no = jnp.ones(4), jnp.zeros(4, bool)
    flags: dict[str, Any] = {"terminated": no, "truncated": no, end: no.at[1].set(True)}
    worth = jnp.full(4, 10.0)
    expected = [1.9, 1.0, 10.0, 10.0] if end == "terminated" else [10.0] * 4
    np.testing.assert_allclose(
        gae(one, worth, worth, **flags, gamma=0.9).value_targets[1:], expected[1:], rtol=1e-6
    )
    np.testing.assert_allclose(monte_carlo(one, worth, **flags, gamma=0.9), expected, rtol=1e-6)


@pytest.mark.parametrize("end", ["terminated", "truncated"])
def test_no_reward_leaks_into_the_episode_before(end: str) -> None:
    part = episode(5)
    part["terminated"][:], part["truncated"][:] = False, False
    part[end][4] = True
    changed = {name: x.copy() for name, x in part.items()}
    for name in ("rewards", "values", "next_values"):
        changed[name][5:] += 1e6
    for lam in (0.0, 0.9, 1.0):
        one, other = (gae(**as_jax(each), lam=lam).advantages for each in (part, changed))
        np.testing.assert_array_equal(one[:5], other[:5])
        assert (np.asarray(one[5:]) != np.asarray(other[5:])).any()
    for each in (part, changed):
        del each["values"]
    one, other = (monte_carlo(**as_jax(each)) for each in (part, changed))
    np.testing.assert_array_equal(one[:5], other[:5])


@given(st.integers(0, 10_000), st.sampled_from([2.0**-10, 2.0**13]))
def test_targets_scale_with_the_reward(seed: int, scale: float) -> None:
    part = episode(seed)
    scaled = {name: x * scale if x.dtype != bool else x for name, x in part.items()}
    one, other = gae(**as_jax(part)), gae(**as_jax(scaled))
    np.testing.assert_allclose(other.advantages, scale * one.advantages, rtol=1e-5)
