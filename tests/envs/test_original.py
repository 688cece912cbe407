"""The original's task: its reward against a plain loop, and its numbers on the data it was measured on."""

from collections import Counter, deque

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.contract import check_contract
from hypothesis import given
from hypothesis import strategies as st

from phalanx.envs.original import (
    FEATURES,
    N_MEMBERS,
    OriginalConfig,
    OriginalEnv,
    original_verdict,
    task_reward,
)
from phalanx.errors import DataError


def _env(seed=0, n_rows=40, **config):
    rng = np.random.default_rng(seed)
    columns = {name: rng.integers(0, 90, n_rows) for name in FEATURES} | {"src_port": np.zeros(n_rows)}
    return OriginalEnv(columns, (rng.random(n_rows) < 0.3).astype(int), OriginalConfig(**config))


def test_contract():
    check_contract(_env(episode_events=9), n_steps=20)


@given(st.lists(st.integers(0, 3), min_size=3, max_size=3))
def test_verdict_is_the_first_proposal_that_most_agree_with(votes):
    assert int(original_verdict(jnp.asarray(votes))) == _winner(votes)


def _winner(votes):
    groups = Counter(vote >= 2 for vote in votes)
    return next(int(vote) for vote in votes if groups[vote >= 2] == max(groups.values()))


@eqx.filter_jit
def _rollout(env, key, votes):
    key_start, key = jax.random.split(key)
    state, first = env.reset(key_start)

    def body(state, at):
        vote, key = at
        key_step, key_reset = jax.random.split(key)
        place = state.place
        state, step, reward, cause = env.step_votes(state, vote, key_step)
        fresh = eqx.tree_at(lambda s: s.place, env.reset(key_reset)[0], state.place)
        state = jax.tree.map(lambda a, b: jnp.where(step.terminated, a, b), fresh, state)
        return state, (place, step.terminated, reward, cause)

    return first, jax.lax.scan(body, state, (votes, jax.random.split(key, len(votes))))[1]


@given(st.integers(0, 10_000))
def test_rewards_match_a_plain_loop(seed):
    env = _env(episode_events=150)
    votes = np.random.default_rng(seed).integers(0, 4, (200, 3)).astype(np.int32)
    if seed % 2:
        votes[:, 1:] = votes[:, :1]
    _, trace = _rollout(env, jax.random.key(seed), jnp.asarray(votes))
    places, ended, rewards, cause = jax.tree.map(np.asarray, trace)
    label = np.asarray(env.label)
    past, waiting = deque(maxlen=100), None
    for step in range(200):
        threat = bool(label[places[step]] == 1)
        verdict = _winner(votes[step])
        positive = verdict >= 2
        past.append((threat, positive))
        waiting = None if positive else (waiting + 1 if waiting is not None else (0 if threat else None))
        found = [p for t, p in past if t] or [True]
        false = [p for t, p in past if not t] or [False]
        rates = min(np.mean(found) - 0.95, 0.05 - np.mean(false))
        slow = float(cause.specs.response_time[step])
        assert (100 - 110 if verdict == 3 else 100 - 80) <= slow <= (100 - 60 if verdict == 3 else 100 - 30)
        assert 0.1 <= float(cause.specs.resources[step]) <= 0.35
        assert float(cause.specs.rates[step]) == pytest.approx(rates, abs=1e-5)
        late = -1.0 if waiting is not None and waiting >= 5 else 1.0
        assert float(cause.specs.threat[step]) == late
        expected = {(1, 1): 10, (0, 0): 1, (0, 1): -8, (1, 0): -10}[(threat, positive)] - 1.5 * positive
        expected += 0.2 * (float(len(set(votes[step])) == 1) + 2.0 * (positive == threat))
        lowest = min(slow, late, rates, float(cause.specs.resources[step]))
        expected -= 5 * (1 - lowest) if lowest < 0 else 0
        parts = (cause.task[step], cause.bonus[step], cause.penalty[step])
        assert float(sum(parts)) == pytest.approx(rewards[step, 0], abs=1e-4)
        assert rewards[step].tolist() == pytest.approx([expected] * N_MEMBERS, abs=1e-3)
        assert bool(ended[step]) == (step == 149)
        if ended[step]:
            past.clear()
            waiting = None


def test_features_are_shares_of_their_maximum():
    env = _env(n_rows=30)
    rng = np.random.default_rng(0)
    raw = np.stack([rng.integers(0, 90, 30) for _ in FEATURES], axis=1).astype(float)
    raw[:, FEATURES.index("src_port")] = 0
    order = np.random.default_rng(42).permutation(30)
    expected = raw / np.maximum(raw.max(axis=0), 1)
    np.testing.assert_allclose(np.asarray(env.features), expected[order], rtol=1e-6)


def test_step_is_a_unanimous_vote():
    env, key = _env(), jax.random.key(1)
    state, _ = env.reset(key)
    _, step = env.step(state, jnp.array(2, jnp.int32), key)
    _, same, reward, _ = env.step_votes(state, jnp.full(3, 2, jnp.int32), key)
    assert float(step.reward) == float(same.reward) == float(reward[0])


def test_wrong_parts_are_refused():
    columns = {name: np.zeros(3) for name in FEATURES}
    with pytest.raises(DataError, match="only 0 or 1"):
        OriginalEnv(columns, np.array([0, 1, -1]))
    del columns["file_size"]
    with pytest.raises(DataError, match="file_size missing"):
        OriginalEnv(columns, np.zeros(3, int))


@pytest.mark.shared
def test_the_original_measurements_are_met(shared_data):
    """Mean reward -12.2 a step, rates violated at 99.8 %, returns of mean square 1.25 M and variance 73 to 84 k."""
    pl = pytest.importorskip("polars")
    frame = pl.read_parquet(
        shared_data / "darpa_trace_e5" / "records.parquet", columns=[*FEATURES, "is_suspicious"]
    )
    label = frame["is_suspicious"].to_numpy().astype(int)
    env = OriginalEnv({name: frame[name].to_numpy() for name in FEATURES}, label)
    table = np.asarray(jax.vmap(task_reward)(jnp.arange(2)))[label]
    assert table.mean(axis=0) == pytest.approx([-0.202, -0.202, -7.53, -7.53], abs=4e-3)
    assert table.max(axis=1).mean() == pytest.approx(1.82, abs=4e-3)

    n_rollouts, length = 12, 2048
    votes = np.random.default_rng(0).integers(0, 4, (n_rollouts, length, N_MEMBERS)).astype(np.int32)
    keys = jax.random.split(jax.random.key(0), n_rollouts)
    _, (_, ended, rewards, cause) = jax.vmap(_rollout, (None, 0, 0))(env, keys, jnp.asarray(votes))
    reward, ended = np.asarray(rewards, np.float64).mean(axis=2), np.asarray(ended)
    returns, following = np.zeros_like(reward), np.zeros(n_rollouts)
    for step in range(length - 1, -1, -1):
        following = reward[:, step] + 0.99 * following * ~ended[:, step]
        returns[:, step] = following
    assert reward.mean() == pytest.approx(-12.2, abs=0.5)
    assert float((np.asarray(cause.specs.rates) < 0).mean()) == pytest.approx(0.998, abs=1e-3)
    assert float((np.asarray(cause.specs.resources)).min()) > 0
    assert (returns**2).mean() == pytest.approx(1.25e6, rel=0.08)
    assert 70e3 < returns.var(axis=1).mean() < 92e3
