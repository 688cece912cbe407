"""One iteration against NumPy, and a task that only a memory per process solves, learned at three scales of reward."""

import dataclasses
import functools
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runtime.committees import Rewarded, committee_of, settings

from phalanx.agents.normalizer import denormalize, scale
from phalanx.runtime import learner
from phalanx.runtime.learner import LearnerConfig, TrainState, init_train_state, iterate
from phalanx.runtime.rollout import collect

FACTORS = (1e-3, 1.0, 1e4)
ITERATIONS = 30
CONFIG = settings(
    envs=16,
    steps=32,
    hidden=16,
    memory=16,
    iterations=ITERATIONS,
    gamma=0.9,
    learning_rate=3e-3,
    entropy_coef=0.01,
    stagger=16,
)


class Learned(NamedTuple):
    """The same run at three scales of the reward, side by side: states and metrics ``[iteration, factor, ...]``."""

    env: Rewarded
    states: list[TrainState]
    metrics: dict[str, np.ndarray]
    traces: int


@pytest.fixture(scope="module")
def learned() -> Learned:
    traces = []
    env = jax.vmap(lambda factor: Rewarded(32, factor=factor))(jnp.asarray(FACTORS))
    state = eqx.filter_jit(eqx.filter_vmap(lambda e: init_train_state(e, CONFIG, jax.random.key(1))))(env)

    @eqx.filter_jit
    def advance(env: Rewarded, state: TrainState) -> Any:
        traces.append(1)
        return eqx.filter_vmap(lambda e, s: iterate(e, CONFIG, s))(env, state)

    states, rows = [state], []
    for _ in range(ITERATIONS):
        state, metrics = advance(env, state)
        states.append(state)
        rows.append(metrics)
    stacked = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}
    return Learned(env, states, stacked, len(traces))


def test_the_toy_is_learned_to_near_its_optimum(learned: Learned) -> None:
    """Only the mark at a process's first event tells its later events apart: recall without memory costs alarms."""
    late = {name: values[-8:].mean(axis=0) for name, values in learned.metrics.items()}
    assert (late["committee/recall"] >= 0.9).all()
    assert (late["committee/false_alarm_rate"] <= 0.1).all()
    best = late["data/base_rate"]  # 1 for every threat denied
    assert (late["reward/step"] / np.array(FACTORS) >= 0.9 * best - 0.02).all()
    first = learned.metrics["committee/false_alarm_rate"][0]
    assert (first > 0.3).all()


def test_the_scale_of_the_reward_changes_nothing(learned: Learned) -> None:
    """The same votes at first, to the bit; then rounding may part the runs, but not what they learn."""
    for name in ("policy/rate_allow", "policy/rate_block", "committee/recall", "data/base_rate"):
        first = learned.metrics[name][:2]
        np.testing.assert_allclose(first, np.broadcast_to(first[:, 1:2], first.shape), atol=0.02)
    for name in ("policy/rate_allow", "policy/rate_alert", "committee/recall", "committee/false_alarm_rate"):
        late = learned.metrics[name][-10:].reshape(10, 3, -1).mean(axis=(0, 2))
        np.testing.assert_allclose(late, late[1], atol=0.04, err_msg=name)
    for name in ("loss/value", "value/explained_variance"):
        late = learned.metrics[name][-10:].reshape(10, 3, -1).mean(axis=(0, 2))
        np.testing.assert_allclose(late, late[1], atol=0.12, err_msg=name)
    sigma = learned.metrics["value/scale"][-10:].mean(axis=(0, 2))
    np.testing.assert_allclose(sigma / np.array(FACTORS) / sigma[1], 1, rtol=0.15)


def test_an_iteration_is_compiled_once(learned: Learned) -> None:
    assert learned.traces == 1
    assert learned.states[-1].iteration.tolist() == [ITERATIONS] * 3


def test_every_update_starts_at_ratio_one(learned: Learned) -> None:
    assert learned.metrics["policy/first_ratio_error"].max() < 1e-5


def test_the_critic_learns(learned: Learned) -> None:
    assert (learned.metrics["value/explained_variance"][-10:].mean(axis=(0, 2)) > 0.1).all()
    np.testing.assert_allclose(learned.metrics["value/explained_variance"][0], 0, atol=1e-5)


def test_metrics_are_what_numpy_makes_of_the_same_rollout(learned: Learned) -> None:
    """Statistics are frozen in the rollout, updated once after it, and the targets of the metrics are in raw units."""
    at, member = 12, 1
    state = jax.tree.map(lambda x: x[1] if eqx.is_array(x) else x, learned.states[at])
    env = jax.tree.map(lambda x: x[1] if eqx.is_array(x) else x, learned.env)
    key = jax.random.split(state.key, 3)[0]
    _, rollout = eqx.filter_jit(functools.partial(collect, steps=32))(env, state.committee, state.world, key)
    row = {name: values[at, 1] for name, values in learned.metrics.items()}

    own = slice(CONFIG.n_shadow, None)  # where verdicts are applied
    assert 0 < CONFIG.n_shadow < 16
    reward, done = np.asarray(rollout.reward)[:, own], np.asarray(rollout.done)[:, own]
    value = np.asarray(rollout.value[:, member, own], np.float64)
    following = np.asarray(rollout.next_value[:, member, own])
    goals, advantage = np.zeros_like(value), np.zeros(value.shape[1])
    for t in range(31, -1, -1):
        delta = reward[t] + 0.9 * following[t] - value[t]
        advantage = delta + 0.9 * CONFIG.lam * ~done[t] * advantage
        goals[t] = advantage + value[t]
    assert row["value/target_mean"][member] == pytest.approx(goals.mean(), rel=1e-3, abs=1e-4)
    assert row["value/target_std"][member] == pytest.approx(goals.std(), rel=1e-3)
    unexplained = (goals - value).var() / goals.var()
    assert row["value/explained_variance"][member] == pytest.approx(1 - unexplained, abs=2e-3)
    votes, action = np.asarray(rollout.votes)[:, own], np.asarray(rollout.action)[:, own]
    for i, name in enumerate(("allow", "alert", "block", "quarantine")):
        assert row[f"policy/rate_{name}"][member] == pytest.approx((votes[..., member] == i).mean(), abs=1e-6)
        assert row[f"committee/rate_{name}"] == pytest.approx((action == i).mean(), abs=1e-6)
    assert row["reward/step"] == pytest.approx(reward.mean(), abs=1e-6)
    assert row["reward/episode"] == pytest.approx(
        np.asarray(rollout.episode_reward)[:, own][done].mean(), rel=1e-5
    )
    label, answered = np.asarray(rollout.truth.label), np.asarray(rollout.action) >= 1
    assert row["committee/recall"] == pytest.approx(answered[label == 1].mean(), abs=1e-6)
    assert row["data/base_rate"] == pytest.approx((label == 1).mean(), abs=1e-6)

    after = jax.tree.map(lambda x: x[1] if eqx.is_array(x) else x, learned.states[at + 1])
    old, new = (jax.tree.map(lambda x: float(x[member]), s.committee.normalizers) for s in (state, after))
    weight = (1 - 1 / CONFIG.horizon) * old.count
    assert new.count == pytest.approx(weight + goals.size, rel=1e-5)
    mean = (weight * old.mean + goals.sum()) / (weight + goals.size)
    assert new.mean == pytest.approx(mean, rel=1e-3, abs=1e-4)


def follow(config: LearnerConfig, targets: jax.Array) -> Any:
    committee = committee_of(Rewarded())
    return committee, *learner._follow_targets(config, committee, targets)


@pytest.mark.parametrize("name", ["popart", "running", "batch", "none"])
def test_targets_are_expressed_in_the_new_statistics_and_popart_keeps_the_value(name: str) -> None:
    rng = np.random.default_rng(0)
    raw = rng.normal(40, 9, (4, 8, 4)).astype(np.float32)
    old, new, scaled = follow(settings(normalizer=name), jnp.asarray(raw))
    sigma, mu = (
        np.asarray(x)[:, None, None] for x in (jax.vmap(scale)(new.normalizers), new.normalizers.mean)
    )
    np.testing.assert_allclose(scaled, (raw - mu) / sigma, rtol=1e-3, atol=1e-4)
    features = jnp.asarray(rng.normal(size=(4, 50, 6)), jnp.float32)

    def values(committee: Any) -> np.ndarray:
        weight, bias = committee.networks.value_weight, committee.networks.value_bias
        emitted = jnp.einsum("mnf,mf->mn", features, weight) + bias[:, None]
        return np.asarray(jax.vmap(denormalize)(committee.normalizers, emitted))

    change = np.abs(values(new) - values(old)).max()
    assert (change < 1e-3) == (name in ("popart", "none"))
    assert (name == "none") == bool(jnp.array_equal(old.normalizers.mean, new.normalizers.mean))


def test_shadow_environments_leave_the_statistics_alone() -> None:
    raw = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 4)), jnp.float32)
    wild = raw.at[:, :, :2].set(1e6)
    one, other = (follow(settings(n_shadow=2), each)[1].normalizers for each in (raw, wild))
    assert jax.tree.all(jax.tree.map(jnp.array_equal, one, other))


def test_what_answers_is_the_mean_of_the_parameters_of_late(learned: Learned) -> None:
    """Weighted as the recursion unrolls: the latest weighs most, the first ones next to nothing."""
    assert CONFIG.average == 0.1
    weights = np.ones(1)
    for t in range(1, ITERATIONS):
        share = 1 / (1 + 0.1 * t)
        weights = np.append(weights * (1 - share), share)
    assert weights.sum() == pytest.approx(1) and (np.diff(weights) > 0).all() and weights[-1] > 0.2

    def leaves(tree: Any) -> list[np.ndarray]:
        return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]

    history = zip(*(leaves(state.committee.networks) for state in learned.states[1:]), strict=True)
    found = leaves(learned.states[-1].averaged)
    for each, mean in zip(history, found, strict=True):
        np.testing.assert_allclose(mean, np.tensordot(weights, np.stack(each), 1), rtol=1e-3, atol=1e-4)
    last = learned.states[-1]
    assert jax.tree.all(
        jax.tree.map(lambda a, b: bool((a == b).all()), last.answering.networks, last.averaged)
    )
    assert last.answering.f == last.committee.f


def test_without_averaging_the_latest_parameters_answer() -> None:
    config = settings(average=0.0, iterations=3)
    env = Rewarded(16)
    state = init_train_state(env, config, jax.random.key(0))
    step = eqx.filter_jit(lambda s: iterate(env, config, s)[0])
    for _ in range(2):
        state = step(state)
        same = jax.tree.map(
            lambda a, b: np.allclose(a, b, rtol=1e-6, atol=1e-7), state.averaged, state.committee.networks
        )
        assert jax.tree.all(same)


def alone(config: LearnerConfig, state: TrainState, m: int) -> TrainState:
    """The state of one member of a committee that learns apart, as a committee of one."""
    own = jax.tree.map(
        lambda leaf: leaf[m : m + 1],
        (state.committee.networks, state.committee.masks, state.committee.normalizers, state.opt_state),
    )
    committee = eqx.tree_at(lambda c: (c.networks, c.masks, c.normalizers), state.committee, own[:3])
    return TrainState(
        committee=dataclasses.replace(committee, f=0),
        opt_state=own[3],
        world=jax.tree.map(lambda leaf: leaf[m], state.world),
        key=jax.random.split(state.key, len(config.views))[m],
        iteration=state.iteration,
        averaged=jax.tree.map(lambda leaf: leaf[m : m + 1], state.averaged),
        multipliers=state.multipliers,
    )


def test_a_member_that_learns_apart_is_an_agent_of_its_own() -> None:
    """Two iterations of four members equal those of four committees of one."""
    config = settings(rollouts="apart", stagger=8, views=("full", "process", "full", "identity"))
    env = Rewarded(16)
    state = eqx.filter_jit(lambda key: init_train_state(env, config, key))(jax.random.key(0))
    single = dataclasses.replace(config, apart=False, f=0, views=("full",))  # masks come with the state
    together = eqx.filter_jit(lambda s: iterate(env, config, s))
    by_itself = eqx.filter_jit(lambda s: iterate(env, single, s))
    for _ in range(2):
        after, metrics = together(state)
        for m in range(4):
            own, found = by_itself(alone(config, state, m))
            expected = alone(config, after, m)
            for part in ("committee", "opt_state", "world", "averaged"):
                for a, b in zip(
                    jax.tree.leaves(getattr(own, part)), jax.tree.leaves(getattr(expected, part)), strict=True
                ):
                    np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4, err_msg=part)
            assert set(found) - set(metrics) == {"policy/pivotal_rate", "committee/agreement"}
            for name in metrics:
                values = found[name]
                np.testing.assert_allclose(
                    metrics[name][m], np.reshape(values, ()), rtol=1e-2, atol=1e-3, err_msg=name
                )
        state = after
    policies = jax.tree.leaves(state.committee.networks)
    assert all((leaf[0] != leaf[1]).any() for leaf in policies if leaf.size)


def test_a_member_that_learns_apart_does_not_hear_of_the_others() -> None:
    config = settings(rollouts="apart")
    env = Rewarded(16)
    state = eqx.filter_jit(lambda key: init_train_state(env, config, key))(jax.random.key(0))
    step = eqx.filter_jit(lambda s: iterate(env, config, s)[0])
    disturbed = eqx.tree_at(
        lambda s: s.committee.networks,
        state,
        jax.tree.map(lambda leaf: leaf.at[3].add(0.5), state.committee.networks),
    )
    one, other = (step(s).committee.networks for s in (state, disturbed))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a[:3], b[:3])
    assert any(
        (a[3] != b[3]).any() for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    )
