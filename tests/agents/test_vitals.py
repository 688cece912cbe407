"""The vital signs: calibrated where all is well, far out where a law is broken, and free of units."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import Ridge

from phalanx.agents.targets import gae
from phalanx.agents.vitals import action_dependence, held_out_r2, rollout_vitals

T, B, A, F = 64, 16, 3, 5

compiled = jax.jit(rollout_vitals)
dependence = jax.jit(action_dependence)
linear_r2 = jax.jit(held_out_r2)


def policy(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Features, log-probabilities that depend on them, and draws."""
    k1, k2, k3 = jax.random.split(key, 3)
    features = jax.random.normal(k1, (T, B, F))
    log_probs = jax.nn.log_softmax(features @ jax.random.normal(k2, (F, A)))
    return features, log_probs, jax.random.categorical(k3, log_probs)


def vitals(key: jax.Array, **changed: jax.Array) -> dict[str, float]:
    features, log_probs, actions = policy(key)
    zero, no = jnp.zeros((T, B)), jnp.zeros((T, B), bool)
    given = {
        "features": features,
        "log_probs": log_probs,
        "actions": actions,
        "values": zero,
        "next_values": zero,
        "terminated": no,
        "truncated": no,
        "advantages": zero,
        "value_targets": zero,
    }
    return {name: float(value) for name, value in compiled(**(given | changed)).items()}


def test_draws_of_the_policy_have_a_standard_normal_z() -> None:
    z = np.array([vitals(jax.random.key(seed))["policy/sampling_z"] for seed in range(200)])
    assert abs(z.mean()) < 0.25 and 0.85 < z.std() < 1.15 and np.abs(z).max() < 4.5


def test_greedy_actions_and_those_of_a_neighbour_are_no_draws() -> None:
    key = jax.random.key(0)
    _, log_probs, actions = policy(key)
    assert vitals(key, actions=log_probs.argmax(-1))["policy/sampling_z"] < -8
    assert vitals(key, actions=jnp.roll(actions, 1, axis=0))["policy/sampling_z"] > 8


def test_an_outcome_that_ignores_the_action_has_a_z_like_chance_however_it_wanders() -> None:
    found = []
    for seed in range(200):
        key, other = jax.random.split(jax.random.key(seed))
        features, log_probs, actions = policy(key)
        wander = jnp.cumsum(jax.random.normal(other, (T, B)), axis=0) + 3.0 * features[..., 0]
        found.append(float(dependence(features, jnp.exp(log_probs), actions, wander)))
    z = np.array(found)
    assert abs(z.mean()) < 0.35 and z.std() < 1.4
    assert (z > 3.5).mean() <= 0.015  # chi-squared is skewed


def test_an_outcome_that_follows_the_action_stands_out_even_where_its_sign_turns_with_the_state() -> None:
    features, log_probs, actions = policy(jax.random.key(3))
    noise = jax.random.normal(jax.random.key(4), (T, B))
    outcome = noise + jnp.where(actions == 1, jnp.sign(features[..., 0]), 0.0)
    assert float(dependence(features, jnp.exp(log_probs), actions, outcome)) > 5


def test_what_is_seen_next_depends_on_the_action_or_does_not() -> None:
    """A walk that the action pushes; the same walk with pushes of another environment's actions; chance in between."""
    following, apart = [], []
    for seed in range(60):
        key = jax.random.key(seed)
        _, log_probs, actions = policy(key)
        noise = 0.1 * jax.random.normal(key, (T, B, 4))
        push = jax.nn.one_hot(actions, A) @ jax.random.normal(jax.random.key(9), (A, 4))
        for found, pushed in ((following, push), (apart, jnp.roll(push, 1, axis=1))):
            walk = jnp.cumsum(jnp.concatenate([noise[:1], 0.1 * pushed[:-1] + noise[1:]]), axis=0)
            found.append(vitals(key, features=walk, actions=actions)["policy/transition_z"])
    assert min(following) > 3.0
    assert abs(np.mean(apart)) < 0.4 and np.std(apart) < 1.2 and max(apart) < 4.5


def test_draws_of_a_uniform_policy_tell_nothing() -> None:
    key = jax.random.key(0)
    told = vitals(key, log_probs=jnp.full((T, B, A), -jnp.log(float(A))))["policy/sampling_z"]
    assert np.isnan(told)


@settings(max_examples=15, deadline=None)
@given(scale=st.floats(1e-6, 1e6), shift=st.floats(-100, 100), seed=st.integers(0, 99))
def test_units_do_not_count(scale: float, shift: float, seed: int) -> None:
    features, log_probs, actions = policy(jax.random.key(seed))
    outcome = jax.random.normal(jax.random.key(seed + 1), (T, B)) + jnp.where(actions == 2, 1.0, 0.0)
    probs = jnp.exp(log_probs)
    plain = float(dependence(features, probs, actions, outcome))
    other = float(dependence(features * 50.0 + 3.0, probs, actions, scale * (outcome + shift)))
    assert other == pytest.approx(plain, rel=2e-2, abs=5e-2)
    assert float(linear_r2(features, scale * (outcome + shift))) == pytest.approx(
        float(linear_r2(features, outcome)), abs=2e-3
    )


def test_a_linear_critic_explains_what_ridge_regression_does() -> None:
    key, other = jax.random.split(jax.random.key(5))
    features = jax.random.normal(key, (T, B, F))
    target = features[..., 0] - 2.0 * features[..., 3] + jax.random.normal(other, (T, B))
    x, y = np.asarray(features), np.asarray(target)
    error = spread = 0.0
    for fit, held in ((slice(0, B // 2), slice(B // 2, B)), (slice(B // 2, B), slice(0, B // 2))):
        model = Ridge(alpha=1e-3 * T * B / 2).fit(x[:, fit].reshape(-1, F), y[:, fit].reshape(-1))
        said = model.predict(x[:, held].reshape(-1, F))
        error += np.square(y[:, held].reshape(-1) - said).sum()
        spread += np.square(y[:, held] - y[:, held].mean()).sum()
    assert float(linear_r2(features, target)) == pytest.approx(1 - error / spread, abs=5e-3)
    assert float(linear_r2(features, jax.random.normal(other, (T, B)))) < 0.02
    assert np.isnan(float(linear_r2(features, jnp.ones((T, B)))))
    assert np.isnan(float(linear_r2(features[:, :1], target[:, :1])))


def test_a_clock_that_nobody_sees_shows_in_the_values_at_the_ends() -> None:
    """Episodes of 8 equal steps: a critic that knows the mean return is far off at the end, one that sees the clock
    is not."""
    rewards, no = jnp.ones((T, B)), jnp.zeros((T, B), bool)
    ages = jnp.broadcast_to((jnp.arange(T) % 8)[:, None], (T, B))
    ended = ages == 7
    returns = gae(rewards, 0 * rewards, 0 * rewards, ended, no, gamma=0.99, lam=1.0).value_targets
    blind = jnp.full((T, B), returns.mean())
    key = jax.random.key(0)
    given = {"terminated": ended, "ages": ages, "value_targets": returns}
    assert vitals(key, values=blind, **given)["value/end_bias"] > 1.0
    assert abs(vitals(key, values=returns, **given)["value/end_bias"]) < 1e-5
    assert abs(vitals(key, values=0 * blind, **given)["value/end_bias"]) < 0.8  # wrong everywhere, no clock
    assert vitals(key, values=blind, **given)["episode/terminated_at_limit"] == 1.0


def test_truncated_episodes_of_one_length_have_no_spread_and_others_have() -> None:
    ages = jnp.broadcast_to((jnp.arange(T) % 8)[:, None], (T, B))
    key = jax.random.key(0)
    same = vitals(key, truncated=ages == 7, ages=ages)
    assert same["episode/truncated_spread"] == 0.0 and same["episode/truncated"] == T // 8 * B
    mixed = vitals(key, truncated=(ages == 7) | (ages == 2), ages=ages)
    assert mixed["episode/truncated_spread"] > 0.3
    assert np.isnan(vitals(key, ages=ages)["episode/truncated_spread"])


def test_what_is_seen_next_can_be_told_or_not() -> None:
    steps = jax.random.normal(jax.random.key(0), (T, B, F))
    walk = jnp.cumsum(steps, axis=0)
    key = jax.random.key(1)
    assert vitals(key, features=walk)["features/predictable"] > 0.8
    assert vitals(key, features=steps)["features/predictable"] < 0.05
    assert vitals(key, features=jnp.ones((T, B, F)))["features/constant"] == 1.0
