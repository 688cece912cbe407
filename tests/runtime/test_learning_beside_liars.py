"""Training with liars: they act, they are drawn anew with each episode, and nobody learns from what it did not vote."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runtime.committees import ForkingToy, Rewarded, committee_of, settings

from phalanx.agents.credit import best_votes
from phalanx.committee import decide
from phalanx.committee.adversaries import TRAINING
from phalanx.committee.faults import Threat
from phalanx.errors import UsageError
from phalanx.runtime.config import RunConfig
from phalanx.runtime.learner import _mattered, init_train_state, iterate, learner_config
from phalanx.runtime.rollout import Rollout, World, collect, init_world

STEPS, ENVS, EPISODE = 24, 16, 10
THREAT = Threat(TRAINING, 1, EPISODE, 4, drawn=True)


@eqx.filter_jit
def _play(threat: Threat | None) -> tuple[World, World, Rollout]:
    env, committee = Rewarded(EPISODE), committee_of(ForkingToy())
    start = init_world(env, committee, ENVS, 4, jax.random.key(2), 4, threat)
    world, rollout = collect(env, committee, start, jax.random.key(3), steps=STEPS)
    return start, world, rollout


@pytest.fixture(scope="module")
def played() -> tuple[World, World, Rollout]:
    return _play(THREAT)


def test_the_verdict_follows_from_the_votes_received(played: tuple[World, World, Rollout]) -> None:
    rollout = played[2]
    cast, own, faulty = (np.asarray(each) for each in (rollout.cast, rollout.votes, rollout.faulty))
    for t, e in np.ndindex(STEPS, ENVS):
        row = cast[t, e]
        assert int(rollout.action[t, e]) == decide(row[row >= 0].tolist(), 1)
    np.testing.assert_array_equal(cast[~faulty], own[~faulty])
    assert (cast[faulty] != own[faulty]).mean() > 0.3 and (cast < 0).any()


def test_a_faulty_member_is_not_pivotal_and_others_are_where_their_vote_changes_the_verdict(
    played: tuple[World, World, Rollout],
) -> None:
    rollout = played[2]
    cast, faulty = np.asarray(rollout.cast), np.asarray(rollout.faulty)
    assert not np.asarray(rollout.pivotal)[faulty].any()
    for t, e in np.ndindex(6, ENVS):
        for m in np.flatnonzero(~faulty[t, e]):
            votes = [[*np.delete(cast[t, e], m).tolist(), v] for v in range(4)]
            outcomes = {decide([v for v in ballot if v >= 0], 1) for ballot in votes}
            assert bool(rollout.pivotal[t, e, m]) == (len(outcomes) > 1)


def test_who_is_faulty_changes_with_the_episode_and_only_then(played: tuple[World, World, Rollout]) -> None:
    start, end, rollout = played
    assert start.faults is not None and end.faults is not None
    faulty, done = np.asarray(rollout.faulty), np.asarray(rollout.done)
    np.testing.assert_array_equal(faulty[0], start.faults.faulty)
    for t in range(1, STEPS):
        stays = ~done[t - 1]
        np.testing.assert_array_equal(faulty[t, stays], faulty[t - 1, stays])
    moved = [(faulty[t, e] != faulty[t - 1, e]).any() for t, e in np.argwhere(done[:-1]) + [1, 0]]
    assert 0.2 < np.mean(moved) < 1.0, "some draws repeat the one before"
    assert faulty.sum(axis=-1).max() == 1 and 0.2 < faulty.any(axis=-1).mean() < 0.8


def test_without_a_threat_there_is_nothing_of_it() -> None:
    """Not in the state either: runs that began before there were liars go on."""
    _, world, plain = _play(None)
    assert plain.faulty is None and plain.cast is None and world.faults is None
    bare = (world.env_state, world.observation, world.table, world.episode_reward)
    assert len(jax.tree.leaves(world)) == len(jax.tree.leaves(bare))


def test_an_advantage_counts_where_the_member_s_own_vote_took_part(
    played: tuple[World, World, Rollout],
) -> None:
    rollout, applied = played[2], (jnp.arange(ENVS) >= 4).astype(jnp.float32)
    weight = np.asarray(_mattered(rollout, applied))
    expected = ~np.moveaxis(np.asarray(rollout.faulty), -1, 0) & (np.arange(ENVS) >= 4)
    np.testing.assert_array_equal(weight, expected.astype(np.float32))
    honest = _mattered(eqx.tree_at(lambda r: r.faulty, rollout, None), applied)
    np.testing.assert_array_equal(honest, np.broadcast_to(np.arange(ENVS) >= 4, (4, STEPS, ENVS)))


def test_counterfactual_votes_leave_out_what_was_not_received() -> None:
    """Three votes received: the fourth member's own would have been the third answer, or not."""
    credit = jnp.array([-4.0, -2.0, 0.0, -1.0])
    votes = jnp.array([2, 2, -1, 0], jnp.int32)
    best = best_votes("difference", credit=credit, votes=votes, f=1)
    for m in range(4):
        worth = []
        for v in range(4):
            ballot = [v if i == m else int(votes[i]) for i in range(4)]
            worth.append(float(credit[decide([b for b in ballot if b >= 0], 1)]))
        expected = int(np.argmax(worth)) if max(worth) > min(worth) else -1
        assert int(best[m]) == expected


CONFIG: dict[str, Any] = {
    "envs": 16, "steps": 32, "hidden": 16, "memory": 16, "iterations": 24, "gamma": 0.9, "learning_rate": 3e-3,
    "entropy_coef": 0.01, "stagger": 16,
}  # fmt: skip


def test_the_toy_is_learned_beside_liars() -> None:
    config = settings(**CONFIG, liars=1, credit="blend")
    assert config.adversaries == TRAINING and config.liars == 1 and not config.apart
    env = Rewarded(32)
    state = eqx.filter_jit(lambda: init_train_state(env, config, jax.random.key(1)))()
    advance, rows = eqx.filter_jit(lambda s: iterate(env, config, s)), []
    for _ in range(24):
        state, metrics = advance(state)
        rows.append(jax.tree.map(np.asarray, metrics))
    late = {name: np.mean([row[name] for row in rows[-6:]]) for name in rows[0]}
    assert late["committee/recall"] > 0.8 and late["committee/false_alarm_rate"] < 0.2
    assert 0.05 < late["committee/faulty"] < 0.2, "half a member of four, on average"
    assert 0.0 < late["committee/abstain"] < 0.1
    assert max(row["policy/first_ratio_error"].max() for row in rows) < 1e-5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"liars": 2}, "4 members learn beside 1 to 1"),
        ({"liars": 1, "members": 3}, "3 members learn beside 1 to 0"),
        ({"liars": 1, "rollouts": "apart"}, "no other member that could lie"),
        ({"liars": 1, "adversaries": ("worst-case",)}, "held out.*random, flip"),
        ({"adversaries": ("flip",)}, "--liars 0"),
        ({"liars": 1, "credit": "dictator"}, "dictator"),
    ],
)
def test_settings_that_cannot_work_are_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RunConfig(**given)


def test_members_beside_liars_learn_together_and_runs_without_know_nothing_of_them() -> None:
    assert RunConfig(liars=1).resolved.rollouts == "together"
    assert RunConfig().resolved.rollouts == "apart" and learner_config(RunConfig()).liars == 0
    saved = RunConfig(liars=1, adversaries=("flip", "silent")).to_dict()
    again = RunConfig.of(saved)
    assert again.adversaries == ("flip", "silent") and again == RunConfig.of(again.to_dict())
    before = {
        name: value for name, value in RunConfig().to_dict().items() if name not in ("liars", "adversaries")
    }
    assert RunConfig.of(before).liars == 0
