"""Rollouts: cuts bootstrap, memories end with episodes, and the update sees what the rollout saw."""

import functools
import itertools
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runtime.committees import ForkingToy, Rewarded, committee_of, settings
from toy import ToyEnv, ToyState

from phalanx.agents.network import NetworkConfig
from phalanx.agents.ppo import Batch, LossReport, PPOConfig, member_axes, ppo_loss
from phalanx.runtime.decide import Committee
from phalanx.runtime.learner import init_committee
from phalanx.runtime.rollout import Rollout, World, _in_any_run, collect, init_world

STEPS, ENVS, EPISODE = 24, 3, 10


class Played(NamedTuple):
    """Two rollouts of the same world, one after the other: ``start`` lies between them."""

    before: Rollout
    start: World
    rollout: Rollout
    end: World


@eqx.filter_jit
def _play(env: Rewarded, committee: Committee, memory: int, key: jax.Array) -> tuple[World, Rollout]:
    key_world, key = jax.random.split(key)

    def one(world: World, key: jax.Array) -> tuple[World, tuple[World, Rollout]]:
        world, rollout = collect(env, committee, world, key, steps=STEPS)
        return world, (world, rollout)

    world = init_world(env, committee, ENVS, memory, key_world, stagger=4)
    return jax.lax.scan(one, world, jax.random.split(key))[1]


def play(env: Rewarded, committee: Committee, memory: int = 4) -> Played:
    worlds, rollouts = _play(env, committee, memory, jax.random.key(5))
    (before, start), (rollout, end) = (
        jax.tree.map(lambda leaf, i=i: leaf[i], (rollouts, worlds)) for i in range(2)
    )
    return Played(before, start, rollout, end)


@functools.cache
def played(cell: str, limit: int = EPISODE, terminates: bool = False) -> Played:
    committee = committee_of(ForkingToy(), cell=cell)
    memory = NetworkConfig(memory=4, cell=cell).memory_size
    return play(Rewarded(limit, terminates=terminates), committee, memory)


@pytest.mark.parametrize("cell", ["gru", "lstm", "none"])
def test_the_update_starts_at_ratio_one(cell: str) -> None:
    """With resets, forks and older memories the rollout the replayed policy is the rollout's, to float precision."""
    rollout = played(cell).rollout
    assert bool(rollout.done.any())
    if cell != "none":
        reads = rollout.reads
        assert bool((reads.previous >= 0).any()) and bool((reads.known & (reads.previous < 0)).any())
        assert bool((~reads.known).any())
        previous, following = np.asarray(reads.previous), np.asarray(reads.following)
        inherited = [(t, e) for t, e in np.argwhere(previous >= 0) if following[previous[t, e], e] != t]
        assert inherited, "no fork within the rollout"
    committee = committee_of(ForkingToy(), cell=cell)
    report = _losses(committee, rollout)
    assert float(report.ratio_error.max()) < 1e-5
    np.testing.assert_allclose(report.approx_kl, 0, atol=1e-6)
    stats = committee.normalizers
    sigma = np.sqrt(np.asarray(stats.m2 / stats.count))[None, :, None]
    emitted = (np.asarray(rollout.value) - np.asarray(stats.mean)[None, :, None]) / sigma
    squared = (emitted**2).mean(axis=(0, 2))
    np.testing.assert_allclose(report.value, squared, rtol=1e-4, err_msg="the critic replays too")


@eqx.filter_jit
def _losses(committee: Committee, rollout: Rollout) -> LossReport:
    """All members' losses on the whole rollout, as the update's first minibatch would find them."""
    votes = jnp.moveaxis(rollout.votes, -1, 0)
    log_probs = jnp.moveaxis(rollout.log_probs, 1, 0)
    zeros = jnp.zeros(votes.shape)
    batch = Batch(
        vectors=rollout.vectors,
        core=rollout.core,
        reads=rollout.reads,
        initial=rollout.initial,
        votes=votes,
        log_prob=jnp.take_along_axis(log_probs, votes[..., None], -1)[..., 0],
        advantages=zeros,
        best=jnp.zeros(votes.shape, jnp.int32),
        worth=None,
        local=jnp.zeros(()),
        applied=jnp.ones(ENVS),
        targets=zeros,
    )
    loss = jax.vmap(lambda n, m, b: ppo_loss(n, m, b, PPOConfig())[1], in_axes=(0, 0, member_axes(batch)))
    return loss(committee.networks, committee.masks, batch)


def test_a_cut_bootstraps_with_the_memory_before_the_reset() -> None:
    """Against the same draws in a world that is not cut: there the next event's value is simply the next value."""
    cut, uncut = played("gru").before, played("gru", 10_000).before
    assert bool(cut.truncated.any(axis=0).all()) and not bool(uncut.done.any())
    shown = 0
    for lane in range(ENVS):
        at = int(np.argmax(np.asarray(cut.truncated[:, lane])))
        np.testing.assert_array_equal(cut.votes[: at + 1, lane], uncut.votes[: at + 1, lane])
        np.testing.assert_allclose(cut.next_value[at, :, lane], uncut.value[at + 1, :, lane], rtol=1e-5)
        shown += int((np.abs(np.asarray(cut.next_value[at] - cut.value[at + 1])[:, lane]) > 1e-3).any())
    assert shown, "the reset shows"


def test_within_an_episode_the_next_value_is_the_next_event_s() -> None:
    """At the rollout's end it is the V with which the following rollout begins."""
    part = played("gru")
    values = np.concatenate([part.before.value, part.rollout.value])
    following = np.concatenate([part.before.next_value, part.rollout.next_value])
    done = np.concatenate([part.before.done, part.rollout.done])
    for t, lane in np.argwhere(~done[:-1]):
        np.testing.assert_allclose(following[t, :, lane], values[t + 1, :, lane], rtol=1e-5)
    assert not done[STEPS - 1].all()


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_an_episode_s_end_wipes_the_memory(cell: str) -> None:
    """Within an episode a process's first event reads blank or inherits; nothing of the episode before is known."""
    _, start, rollout, _ = played(cell)
    reads, done = rollout.reads, np.asarray(rollout.done)
    previous, known = np.asarray(reads.previous), np.asarray(reads.known)
    for lane in range(ENVS):
        begun = 0
        for t in range(STEPS):
            if t and done[t - 1, lane]:
                begun = t
                assert not known[t, lane]
            if previous[t, lane] >= 0:
                assert previous[t, lane] >= begun
            elif begun:
                assert not known[t, lane]
    assert not bool(start.table.known.all()) and bool(start.table.known.any())


def test_terminated_and_truncated_are_the_environment_s() -> None:
    cut, over = played("gru").rollout, played("gru", terminates=True).rollout
    assert bool(cut.truncated.any()) and not bool(cut.terminated.any())
    np.testing.assert_array_equal(over.terminated, cut.truncated)
    assert not bool(over.truncated.any())


def test_the_episode_reward_is_the_sum_since_the_last_end() -> None:
    _, start, rollout, end = played("gru")
    reward, done = np.asarray(rollout.reward), np.asarray(rollout.done)
    total = np.asarray(start.episode_reward).copy()
    assert (total != 0).any()
    for t in range(STEPS):
        total = total + reward[t]
        np.testing.assert_allclose(rollout.episode_reward[t], total, atol=1e-5)
        total = np.where(done[t], 0, total)
    np.testing.assert_allclose(end.episode_reward, total, atol=1e-5)


def test_rewards_and_credit_are_those_of_the_verdict_on_the_event() -> None:
    rollout = played("gru").rollout
    worth = {1: [-1.0, 0.0, 1.0, 1.0], 0: [0.0, -0.5, -1.0, -1.0]}
    for t, e in itertools.product(range(STEPS), range(ENVS)):
        expected = worth[int(rollout.truth.label[t, e])]
        assert rollout.credit[t, e].tolist() == expected
        assert float(rollout.reward[t, e]) == expected[int(rollout.action[t, e])]


class Poisoned(Rewarded):
    """Labels are wrong of every second event."""

    def __init__(self, terminates: bool) -> None:
        super().__init__(EPISODE, terminates=terminates)

    def learned_label(self, state: ToyState) -> jax.Array:
        return self.pending(state).label ^ (state.time % 2)


@pytest.mark.parametrize("terminates", [False, True])
def test_looking_ahead_a_verdict_is_worth_its_reward_and_the_value_of_what_follows(terminates: bool) -> None:
    """The toy's future does not depend on the verdict, so that verdicts differ by their rewards alone; where the label
    is wrong, the worth is what the label says."""
    env, gamma, factor = Poisoned(terminates), 0.9, 3.0
    committee = committee_of(ForkingToy())
    world = init_world(env, committee, ENVS, 4, jax.random.key(2), stagger=4)

    @eqx.filter_jit
    def look() -> Rollout:
        return collect(
            env, committee, world, jax.random.key(1), steps=STEPS, gamma=gamma, reward_scale=factor
        )[1]

    rollout = look()
    rewards = factor * np.asarray(rollout.credit)  # the toy's credit is the reward of each verdict
    following = np.where(rollout.terminated, 0.0, np.asarray(rollout.next_value).mean(axis=1))
    wrong = np.rint(np.asarray(rollout.core)[..., 1] * env.inner.episode_events) % 2 == 1
    expected = rewards + gamma * np.where(wrong, 0.0, following)[..., None]
    np.testing.assert_allclose(rollout.worth, expected, rtol=1e-4, atol=1e-4)
    assert bool(rollout.done.any()) and wrong.any() and not wrong.all() and np.abs(following).max() > 1


def test_without_looking_ahead_the_worth_is_the_credit() -> None:
    rollout = played("gru").rollout
    np.testing.assert_array_equal(rollout.worth, rollout.credit)


def test_staggered_environments_do_not_end_together() -> None:
    env = ToyEnv(episode_events=32)
    committee = committee_of(env)
    ahead = eqx.filter_jit(init_world)(env, committee, 16, 4, jax.random.key(0), 32).env_state.time
    assert len(set(ahead.tolist())) > 6 and int(ahead.max()) < 32


def test_a_fresh_critic_says_zero_of_everything() -> None:
    committee = init_committee(ForkingToy().spec, settings(), jax.random.key(0))
    rollout = play(Rewarded(EPISODE), committee).rollout
    np.testing.assert_array_equal(rollout.value, 0)
    np.testing.assert_array_equal(rollout.next_value, 0)


def test_the_verdict_is_the_rule_s_and_pivotal_votes_are_those_that_change_it() -> None:
    rollout = played("gru").rollout
    for t, e in itertools.product(range(STEPS), range(ENVS)):
        votes = rollout.votes[t, e].tolist()
        assert int(rollout.action[t, e]) == _rule(votes)
        for m in range(4):
            outcomes = {_rule([*votes[:m], own, *votes[m + 1 :]]) for own in range(4)}
            assert bool(rollout.pivotal[t, e, m]) == (len(outcomes) > 1)


def test_a_dictator_s_vote_is_the_verdict_now_and_then_and_a_shadow_s_verdict_is_not_applied() -> None:
    env, shadow = ToyEnv(), 8
    committee = committee_of(env)
    world = init_world(env, committee, 64, 4, jax.random.key(0))
    rollout = eqx.filter_jit(
        lambda: collect(env, committee, world, jax.random.key(1), steps=16, n_shadow=shadow, dictator=True)[1]
    )()
    votes, action = np.asarray(rollout.votes), np.asarray(rollout.action)
    ruled = np.array([[_rule(ballot) for ballot in row] for row in votes.tolist()])
    assert 0.02 < (action != ruled).mean() < 0.2
    for t, e in np.argwhere(action != ruled):
        assert action[t, e] in votes[t, e]
    applied = np.where(np.arange(64) < shadow, 0, action)
    expected = np.take_along_axis(np.asarray(rollout.credit), applied[..., None], -1)[..., 0]
    np.testing.assert_array_equal(rollout.reward, expected)
    assert (action[:, :shadow] != 0).any()


def _rule(votes: list[int]) -> int:
    if sum(vote == 3 for vote in votes) >= 3:
        return 3
    if sum(vote >= 2 for vote in votes) > 2:
        return 2
    return int(sum(vote >= 1 for vote in votes) >= 2)


def test_a_branch_stays_a_branch_however_runs_are_nested() -> None:
    """A select would compute both sides in every step: over seeds, and over members that learn apart."""

    def asked(condition: jax.Array) -> jax.Array:
        return jax.lax.cond(_in_any_run(condition), lambda: jnp.ones(3), lambda: jnp.zeros(3))

    nested = jax.vmap(jax.vmap(asked))
    conditions = jnp.zeros((2, 4), bool)
    text = str(jax.make_jaxpr(nested)(conditions))
    assert "cond[" in text and "select_n" not in text
    np.testing.assert_array_equal(nested(conditions), np.zeros((2, 4, 3)))
    np.testing.assert_array_equal(nested(conditions.at[1, 2].set(True)), np.ones((2, 4, 3)))
