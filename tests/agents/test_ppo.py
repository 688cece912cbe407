"""The PPO loss against NumPy, standardisation, and how a rollout is cut into minibatches."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.agents import ppo
from phalanx.agents.memory import MemoryReads
from phalanx.agents.network import (
    Network,
    NetworkConfig,
    encode_events,
    init_network,
    policy_logits,
    state_value,
)
from phalanx.agents.ppo import Batch, LossReport, PPOConfig, make_optimizer, ppo_loss, standardize, update
from phalanx.errors import UsageError

MEMBERS, T, E, INPUTS, CORE = 2, 5, 6, 4, 2


def batch_of(
    seed: int, *, n_envs: int = E, members: int = MEMBERS, local: float = 0.0, ahead: bool = False
) -> Batch:
    """A rollout without memory whose vectors tell the place: 100 * time + environment."""
    rng = np.random.default_rng(seed)
    shape = (members, T, n_envs)
    place = 100.0 * np.arange(T)[:, None] + np.arange(n_envs)[None]
    blank = jnp.full((T, n_envs), -1, jnp.int32)

    def normal(*shape: int) -> jax.Array:
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return Batch(
        vectors=jnp.asarray(np.repeat(place[..., None], INPUTS, -1), jnp.float32),
        core=normal(T, n_envs, CORE),
        reads=MemoryReads(previous=blank, known=blank > 0, following=blank),
        initial=jnp.zeros((*shape, 0)),
        votes=jnp.asarray(rng.integers(0, 4, shape), jnp.int32),
        log_prob=jnp.log(jnp.asarray(rng.uniform(0.1, 0.5, shape), jnp.float32)),
        advantages=normal(*shape),
        best=jnp.asarray(rng.integers(-1, 4, shape), jnp.int32),
        worth=-jnp.abs(normal(T, n_envs, 4)) if ahead else None,
        local=jnp.asarray(local, jnp.float32),
        applied=jnp.ones(n_envs),
        targets=30 * normal(*shape),
    )


def member(seed: int) -> Network:
    fresh = init_network(jax.random.key(seed), INPUTS, NetworkConfig(hidden=3, cell="none"), n_core=CORE)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.4, leaf.shape), jnp.float32), fresh)


OWN = ("initial", "votes", "log_prob", "advantages", "best", "targets")


def with_(batch: Batch, **changes: Any) -> Batch:
    return eqx.tree_at(lambda b: [getattr(b, name) for name in changes], batch, list(changes.values()))


def first_member(batch: Batch) -> Batch:
    """What the loss of one member gets, its events of order 1."""
    return with_(batch, vectors=batch.vectors / 300.0, **{name: getattr(batch, name)[0] for name in OWN})


@pytest.mark.parametrize("shadow", [0, 2])
@pytest.mark.parametrize("local", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("ahead", [False, True])
def test_the_loss_is_the_sum_of_its_terms(ahead: bool, local: float, shadow: int) -> None:
    """Ratios far outside the clip range are among them; the squared error is logged without 1/2 and never clipped."""
    applied = np.arange(E) >= shadow
    batch = with_(
        first_member(batch_of(0, local=local, ahead=ahead)), applied=jnp.asarray(applied, jnp.float32)
    )
    config = PPOConfig(clip=0.2, value_coef=0.7, entropy_coef=0.03)
    network, mask = member(1), jnp.ones(INPUTS)
    loss, report = ppo_loss(network, mask, batch, config)

    encoding = encode_events(network, mask, batch.vectors)
    blank = jnp.zeros((T, E, 0))
    logits = np.asarray(policy_logits(network, encoding, blank), np.float64)
    emitted = np.asarray(state_value(network, mask, batch.vectors, batch.core, blank), np.float64)
    policy = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    chosen = np.take_along_axis(policy, np.asarray(batch.votes)[..., None], -1)[..., 0]
    rho = chosen / np.exp(np.asarray(batch.log_prob, np.float64))
    advantages = np.asarray(batch.advantages)
    surrogate = np.minimum(rho * advantages, np.clip(rho, 0.8, 1.2) * advantages)
    best = np.asarray(batch.best)
    asked = np.log(np.take_along_axis(policy, np.maximum(best, 0)[..., None], -1)[..., 0])
    asked = np.where(best >= 0, asked, 0)
    objective = -np.where(applied, (1 - local) * surrogate + local * asked, asked).mean()
    if ahead:  # what each vote would be worth is known wherever the event was shown
        expected = (policy * np.asarray(batch.worth)).sum(-1)
        objective = -((1 - local) * expected + local * asked).mean()
    value = ((emitted - np.asarray(batch.targets)) ** 2)[:, applied].mean()
    entropy = -(policy * np.log(policy)).sum(-1).mean()
    assert float(loss) == pytest.approx(objective + 0.7 * value - 0.03 * entropy, rel=1e-5)
    assert float(report.value) == pytest.approx(value, rel=1e-5) and value > 100
    assert float(report.policy) == pytest.approx(objective, rel=1e-4)
    assert float(report.entropy) == pytest.approx(entropy, rel=1e-5)
    assert float(report.approx_kl) == pytest.approx((rho - 1 - np.log(rho)).mean(), rel=1e-4)
    assert float(report.ratio_error) == pytest.approx(np.abs(rho - 1).max(), rel=1e-4)
    assert float(report.clipped) == pytest.approx((np.abs(rho - 1) > 0.2).mean(), abs=1e-6)
    assert (np.abs(rho - 1) > 0.2).any()


# Standardisation


@given(st.integers(0, 10_000), st.sampled_from([1e-6, 1e-3, 1.0, 1e4]), st.floats(-100, 100))
def test_standardised_advantages_do_not_depend_on_scale_or_offset(
    seed: int, factor: float, offset: float
) -> None:
    values = np.random.default_rng(seed).normal(size=(8, 5))
    found = np.asarray(standardize(jnp.asarray(factor * (values + offset), jnp.float32)))
    expected = (values - values.mean()) / values.std()
    np.testing.assert_allclose(found, expected, atol=2e-4)


def test_equal_advantages_become_zero_and_not_noise() -> None:
    for value in (0.0, 1e-9, 3.3, -7e6):
        np.testing.assert_array_equal(standardize(jnp.full((4, 4), value)), 0)


def test_masked_advantages_count_for_nothing() -> None:
    rng = np.random.default_rng(0)
    values, there = rng.normal(size=(6, 4)), rng.random((6, 4)) < 0.6
    noisy = np.where(there, values, 1e3)
    found = np.asarray(standardize(jnp.asarray(noisy, jnp.float32), jnp.asarray(there, jnp.float32)))
    kept = values[there]
    np.testing.assert_allclose(found[there], (kept - kept.mean()) / kept.std(), atol=1e-5)
    np.testing.assert_array_equal(found[~there], 0)


# Minibatches


@pytest.fixture
def minibatches(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[np.ndarray]]:
    """Runs an update whose loss only looks: the vectors of each minibatch in order, ``[time, lane]``."""

    def seen(config: PPOConfig, n_envs: int, n_shadow: int = 0) -> list[np.ndarray]:
        parts: list[np.ndarray] = []

        def loss(network: Network, mask: Any, batch: Batch, config: PPOConfig) -> Any:
            jax.debug.callback(lambda x: parts.append(np.asarray(x[..., 0])), batch.vectors, ordered=True)
            zero = jnp.zeros(())
            checked = jnp.square(network.value_bias)
            return checked, LossReport(checked, zero, zero, zero, zero, zero)

        monkeypatch.setattr(ppo, "ppo_loss", loss)
        batch = batch_of(0, n_envs=n_envs, members=1)
        batch = with_(batch, applied=(jnp.arange(n_envs) >= n_shadow).astype(jnp.float32))
        networks = jax.tree.map(lambda leaf: leaf[None], member(0))
        optimizer = make_optimizer(config, 10)
        _, _, reports = update(
            networks,
            jax.vmap(optimizer.init)(networks),
            jnp.ones((1, INPUTS)),
            batch,
            jax.random.key(3),
            config=config,
            optimizer=optimizer,
        )
        jax.effects_barrier()
        assert reports.value.shape == (len(parts), 1)
        return parts

    return seen


def test_every_epoch_sees_every_environment_once_with_its_time_in_one_piece(minibatches) -> None:
    """Strided chunks (t = 0, 2, 4, ...) would break back-propagation through time."""
    parts = minibatches(PPOConfig(epochs=3, minibatches=2), 6)
    orders = []
    for epoch in range(3):
        lanes = []
        for part in parts[2 * epoch : 2 * epoch + 2]:
            assert part.shape == (T, 3)
            np.testing.assert_array_equal(part - part[:1], np.repeat(100.0 * np.arange(T)[:, None], 3, 1))
            lanes += part[0].astype(int).tolist()
        assert sorted(lanes) == list(range(6))
        orders.append(tuple(lanes))
    assert len(set(orders)) > 1, "epochs are shuffled anew"


def test_more_minibatches_than_environments_are_one_environment_each(minibatches) -> None:
    parts = minibatches(PPOConfig(epochs=1, minibatches=8), 3)
    assert sorted(part[0].astype(int).tolist() for part in parts) == [[0], [1], [2]]


def test_environments_that_do_not_divide_wait_for_another_epoch(minibatches) -> None:
    parts = minibatches(PPOConfig(epochs=6, minibatches=2), 5)
    epochs = [[int(lane) for part in parts[i : i + 2] for lane in part[0]] for i in range(0, 12, 2)]
    assert all(len(set(lanes)) == len(lanes) == 4 for lanes in epochs)
    assert set().union(*epochs) == set(range(5))


def test_shadow_and_applied_environments_are_dealt_evenly_and_either_may_sit_out(
    minibatches: Callable[..., list[np.ndarray]],
) -> None:
    """Seven environments, three in shadow, in two minibatches of three: one sits out an epoch, not always the same."""
    parts = minibatches(PPOConfig(epochs=24, minibatches=2), 7, 3)
    lanes = [part[0].astype(int).tolist() for part in parts]
    assert {sum(lane < 3 for lane in part) for part in lanes} <= {1, 2}
    absent = {(set(range(7)) - set(a) - set(b)).pop() for a, b in zip(lanes[::2], lanes[1::2], strict=True)}
    assert absent & {0, 1, 2} and absent & {3, 4, 5, 6}


# The optimiser


def test_members_and_their_halves_learn_apart() -> None:
    """A critic whose error explodes takes the clipped gradient neither from the actor nor from another member."""
    config = PPOConfig(epochs=1, minibatches=1, learning_rate=0.1, anneal=False)
    networks = jax.tree.map(lambda *leaves: jnp.stack(leaves), member(0), member(1))
    optimizer = make_optimizer(config, 1)

    def after(batch: Batch) -> Network:
        state = jax.vmap(optimizer.init)(networks)
        key = jax.random.key(0)
        masks = jnp.ones((MEMBERS, INPUTS))
        return update(networks, state, masks, batch, key, config=config, optimizer=optimizer)[0]

    plain = batch_of(2)
    plain = with_(plain, vectors=plain.vectors / 300.0)
    wild = with_(plain, targets=plain.targets.at[0].multiply(1e6))
    calm_net, wild_net = after(plain), after(wild)
    for name in Network.__dataclass_fields__:
        one, other = np.asarray(getattr(calm_net, name)), np.asarray(getattr(wild_net, name))
        np.testing.assert_array_equal(one[1], other[1])
        if not name.startswith("value_"):
            np.testing.assert_array_equal(one[0], other[0])
    assert not np.array_equal(calm_net.value_hidden[0], wild_net.value_hidden[0])


def test_the_learning_rate_falls_to_a_tenth() -> None:
    networks = jax.tree.map(lambda leaf: leaf[None], member(0))
    slope = jax.tree.map(jnp.ones_like, networks)

    def strides(anneal: bool) -> np.ndarray:
        optimizer = make_optimizer(PPOConfig(learning_rate=1e-2, anneal=anneal), 4)
        found: list[float] = []
        state: Any = optimizer.init(networks)
        updates: Any
        with jax.numpy_dtype_promotion("standard"):
            for _ in range(6):
                updates, state = optimizer.update(slope, state, networks)
                found.append(-float(updates.value_bias[0]))
        return np.array(found)

    np.testing.assert_allclose(strides(True) / strides(False), [1, 0.775, 0.55, 0.325, 0.1, 0.1], rtol=1e-3)


def test_settings_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError, match="epochs=0"):
        PPOConfig(epochs=0)
    with pytest.raises(UsageError, match="minibatches=0"):
        PPOConfig(minibatches=0)
    with pytest.raises(UsageError, match="learning_rate=0"):
        PPOConfig(learning_rate=0.0)
