"""The original's members against NumPy, and the faults that they must have."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.agents.original import (
    OriginalBatch,
    OriginalNetworkConfig,
    fresh_outputs,
    init_original_network,
    original_loss,
    original_optimizer,
    original_update,
    rollout_outputs,
)
from phalanx.agents.ppo import PPOConfig
from phalanx.errors import UsageError

SMALL = OriginalNetworkConfig(hidden=6, memory=5, head=4)
N_INPUTS, N_MEMBERS = 3, 2


def _sigmoid(x):
    return 1 / (1 + np.exp(-x))


def _encode(network, x):
    for layer in (network.first, network.second):
        y = x @ np.asarray(layer.dense.weight) + np.asarray(layer.dense.bias)
        y = (y - y.mean()) / np.sqrt(y.var() + 1e-5)
        x = np.maximum(y * np.asarray(layer.gain) + np.asarray(layer.shift), 0)
    return x


def _lstm(lstm, x, hidden, cell):
    gates = x @ np.asarray(lstm.inputs.weight) + np.asarray(lstm.inputs.bias)
    gates = gates + hidden @ np.asarray(lstm.recurrent.weight) + np.asarray(lstm.recurrent.bias)
    i, g, o, f = np.split(gates, 4)
    cell = _sigmoid(f) * cell + _sigmoid(i) * np.tanh(g)
    return _sigmoid(o) * np.tanh(cell), cell


def _head(head, x):
    hidden = np.maximum(x @ np.asarray(head.hidden.weight) + np.asarray(head.hidden.bias), 0)
    return hidden @ np.asarray(head.out.weight) + np.asarray(head.out.bias)


def _plain(network, rows, carry):
    """Row by row: logits, value and constraints; the state is kept if ``carry``."""
    found, state = [], [np.zeros(SMALL.memory)] * 4
    for row in rows:
        if not carry:
            state = [np.zeros(SMALL.memory)] * 4
        x, lower_cell = _lstm(network.lower, _encode(network, row), state[0], state[1])
        top, upper_cell = _lstm(network.upper, x, state[2], state[3])
        state = [x, lower_cell, top, upper_cell]
        found.append(
            (
                _head(network.policy, top),
                _head(network.value, top)[0],
                _sigmoid(_head(network.constraint, top)),
            )
        )
    return [np.stack(part) for part in zip(*found, strict=True)]


@pytest.fixture(scope="module")
def network():
    network = init_original_network(jax.random.key(0), N_INPUTS, SMALL)
    return jax.tree.map(lambda leaf: 2.0 * leaf, network)  # gates away from their linear range


@given(st.integers(0, 1000))
def test_outputs_match_a_plain_loop(network, seed):
    rows = np.random.default_rng(seed).normal(size=(9, N_INPUTS)).astype(np.float32)
    for carry, found in (
        (False, fresh_outputs(network, jnp.asarray(rows))),
        (True, jax.tree.map(lambda leaf: leaf[:, 0], rollout_outputs(network, jnp.asarray(rows)[:, None]))),
    ):
        for ours, expected in zip(found, _plain(network, rows, carry), strict=True):
            np.testing.assert_allclose(np.asarray(ours), expected, rtol=2e-4, atol=2e-5)


def test_the_first_step_of_a_rollout_is_a_step_from_zero_state(network):
    rows = jax.random.normal(jax.random.key(1), (1, 4, N_INPUTS))
    for one, other in zip(rollout_outputs(network, rows), fresh_outputs(network, rows), strict=True):
        np.testing.assert_allclose(np.asarray(one), np.asarray(other), rtol=1e-5, atol=1e-6)


def test_dropout_drops_its_share_and_keeps_the_mean():
    network = init_original_network(jax.random.key(0), N_INPUTS, SMALL)
    rows = jnp.broadcast_to(jax.random.normal(jax.random.key(1), (1, N_INPUTS)), (2000, N_INPUTS))
    still = fresh_outputs(network, rows, jax.random.key(2), 0.0).value
    moved = fresh_outputs(network, rows, jax.random.key(2), 0.5).value
    assert float(still.std()) < 1e-6 < 1e-3 < float(moved.std())
    again = fresh_outputs(network, rows, jax.random.key(2), 0.5).value
    assert (np.asarray(moved) == np.asarray(again)).all()


@pytest.mark.parametrize("name, bound", [("first", N_INPUTS**-0.5), ("lower", 5**-0.5), ("upper", 5**-0.5)])
def test_parameters_start_as_those_of_torch_layers(name, bound):
    networks = jax.vmap(lambda k: init_original_network(k, N_INPUTS, SMALL))(
        jax.random.split(jax.random.key(0), 50)
    )
    layer = getattr(networks, name)
    weight = np.asarray(layer.dense.weight if name == "first" else layer.recurrent.weight)
    assert 0.98 * bound < np.abs(weight).max() <= bound
    assert weight.std() == pytest.approx(bound / 3**0.5, rel=0.05)


def _batch(n_rows=8, seed=0):
    rng = np.random.default_rng(seed)

    def numbers(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return OriginalBatch(
        features=numbers(n_rows, N_INPUTS),
        votes=jnp.asarray(rng.integers(0, 4, (N_MEMBERS, n_rows)), jnp.int32),
        log_prob=-jnp.abs(numbers(N_MEMBERS, n_rows)) - 0.5,
        advantages=numbers(N_MEMBERS, n_rows),
        targets=3.0 + numbers(N_MEMBERS, n_rows),
    )


def test_loss_matches_its_formula(network):
    batch = jax.tree.map(lambda leaf: leaf[0], _batch())
    batch = OriginalBatch(_batch().features, batch.votes, batch.log_prob, batch.advantages, batch.targets)
    config = PPOConfig(value_coef=5.0, entropy_coef=0.05, clip=0.2)
    loss, report = original_loss(network, batch, jax.random.key(0), config, 0.0)
    logits, value, constraints = _plain(network, np.asarray(batch.features), carry=False)
    policy = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ratio = policy[np.arange(8), np.asarray(batch.votes)] / np.exp(np.asarray(batch.log_prob))
    advantages = np.asarray(batch.advantages)
    surrogate = np.minimum(ratio * advantages, np.clip(ratio, 0.8, 1.2) * advantages).mean()
    squared = ((value - np.asarray(batch.targets)) ** 2).mean()
    entropy = -(policy * np.log(policy)).sum(axis=1).mean()
    satisfied = ((constraints - 0.95) ** 2).mean()
    expected = -surrogate + 5 * squared - 0.05 * entropy + 0.1 * satisfied
    assert float(loss) == pytest.approx(expected, rel=1e-4)
    assert float(report.value) == pytest.approx(squared, rel=1e-4)
    assert float(report.ratio_error) == pytest.approx(np.abs(ratio - 1).max(), rel=1e-4)


def _updated(config, batch, dropout=0.2):
    networks: Any = jax.vmap(lambda k: init_original_network(k, N_INPUTS, SMALL))(
        jax.random.split(jax.random.key(0), N_MEMBERS)
    )
    optimizer = original_optimizer(config, 100)
    return networks, original_update(
        networks,
        jax.vmap(optimizer.init)(networks),
        batch,
        jax.random.key(3),
        config=config,
        optimizer=optimizer,
        dropout=dropout,
    )


def test_recurrent_weights_and_forget_gates_are_never_trained():
    config = PPOConfig(epochs=3, minibatches=1, anneal=False, value_coef=5.0)
    before, (after, _, reports) = _updated(config, _batch())
    assert reports.value.shape == (3, N_MEMBERS)
    for name in ("lower", "upper"):
        old, new = getattr(before, name), getattr(after, name)
        np.testing.assert_array_equal(np.asarray(old.recurrent.weight), np.asarray(new.recurrent.weight))
        kept = 3 * SMALL.memory
        np.testing.assert_array_equal(
            np.asarray(old.inputs.weight[..., kept:]), np.asarray(new.inputs.weight[..., kept:])
        )
        assert (np.asarray(old.inputs.weight[..., :kept]) != np.asarray(new.inputs.weight[..., :kept])).any()


def test_members_learn_apart():
    """A member's update depends on its own part of the batch alone."""
    config = PPOConfig(epochs=2, minibatches=1, anneal=False)
    one, other = _batch(), _batch()
    other = OriginalBatch(
        other.features, other.votes, other.log_prob, other.advantages, other.targets.at[1].add(100.0)
    )
    first, second = _updated(config, one)[1][0], _updated(config, other)[1][0]
    for a, b in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        np.testing.assert_array_equal(np.asarray(a[0]), np.asarray(b[0]))
    assert float(jnp.abs(first.value.out.bias[1] - second.value.out.bias[1]).max()) > 0


def test_minibatches_part_the_rows():
    config = PPOConfig(epochs=2, minibatches=4, learning_rate=1e-12, anneal=False)
    _, (_, _, parts) = _updated(config, _batch(), dropout=0.0)
    _, (_, _, whole) = _updated(
        PPOConfig(epochs=2, minibatches=1, learning_rate=1e-12, anneal=False), _batch(), dropout=0.0
    )
    assert parts.value.shape == (8, N_MEMBERS)
    mean = np.asarray(parts.value).reshape(2, 4, N_MEMBERS).mean(axis=1)
    np.testing.assert_allclose(mean, np.asarray(whole.value), rtol=1e-5)


@pytest.mark.parametrize("bad", [{"hidden": 0}, {"head": 0}, {"dropout": 1.0}])
def test_wrong_sizes_are_refused(bad):
    with pytest.raises(UsageError):
        OriginalNetworkConfig(**bad)
