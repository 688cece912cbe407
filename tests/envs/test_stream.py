"""The stream of recorded events whose answers have no consequence."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.contract import check_contract, leaves_equal
from envs.tables import SPEC, table, tree_table

from phalanx.envs.recorded import lanes, record
from phalanx.envs.stream import StreamConfig, StreamEnv, TaskReward
from phalanx.errors import UsageError

CONFIG = StreamConfig(episode_events=7, n_entities=4)


@pytest.mark.parametrize("order", ["recorded", "shuffled"])
def test_contract(order):
    env = StreamEnv(record(tree_table(1, 20)), SPEC, replace(CONFIG, order=order))
    check_contract(env, n_steps=16)


@eqx.filter_jit
def _episode(env, key, verdicts):
    state, first = env.reset(key)

    def body(state, verdict):
        row = env.row(state)
        state, step = env.step(state, verdict, key)
        return state, (row, step)

    state, (rows, steps) = jax.lax.scan(body, state, verdicts)
    return first, rows, steps


def _verdicts(seed, length):
    return np.random.default_rng(seed).integers(0, 4, length).astype(np.int32)


@pytest.mark.parametrize("order", ["recorded", "shuffled"])
def test_verdicts_change_nothing_that_is_seen(order):
    env = StreamEnv(record(tree_table(2, 20)), SPEC, replace(CONFIG, order=order))
    key = jax.random.key(3)
    left, right = (_episode(env, key, jnp.asarray(_verdicts(seed, 7))) for seed in (0, 1))
    assert leaves_equal((left[0], left[1], left[2].observation), (right[0], right[1], right[2].observation))


def test_rewards_and_score_match_a_plain_loop():
    encoded, verdicts = tree_table(5, 20), _verdicts(4, 60)
    env = StreamEnv(record(encoded), SPEC, replace(CONFIG, episode_events=60))
    _, rows, steps = _episode(env, jax.random.key(0), jnp.asarray(verdicts))
    totals = dict.fromkeys(
        ("damage", "malicious", "benign", "benign_lost", "alerts", "restrictions", "events"), 0
    )
    for step, (row, verdict) in enumerate(zip(rows.tolist(), verdicts.tolist(), strict=True)):
        label = int(encoded.label[row])
        expected = {-1: (0, 0, 0, 0), 0: (0, -0.3, -1, -2), 1: (-1, -0.5, 0, 0)}[label]
        assert float(steps.reward[step]) == pytest.approx(expected[verdict])
        assert steps.credit[step].tolist() == pytest.approx(expected)
        if label < 0:
            continue
        totals["events"] += 1
        totals["damage"] += label == 1 and verdict < 2
        totals["malicious"] += label == 1
        totals["benign"] += label == 0
        totals["benign_lost"] += label == 0 and verdict >= 2
        totals["alerts"] += verdict == 1
        totals["restrictions"] += verdict >= 2
    assert {name: int(getattr(steps.score, name)[-1]) for name in totals} == totals
    assert rows.tolist() == [(int(rows[0]) + i) % 26 for i in range(60)]
    assert steps.truncated.tolist() == [False] * 59 + [True] and not bool(steps.terminated.any())


def test_shuffled_order_visits_every_row_once_a_round():
    env = StreamEnv(record(tree_table(6, 20)), SPEC, replace(CONFIG, order="shuffled", episode_events=26))
    _, rows, _ = _episode(env, jax.random.key(1), jnp.zeros(26, jnp.int32))
    assert sorted(rows.tolist()) == list(range(26)) and rows.tolist() != sorted(rows.tolist())


@pytest.mark.parametrize("warmup", [0, 4])
def test_lanes_score_each_row_exactly_once(warmup):
    encoded = tree_table(7, 20)
    env = StreamEnv(record(encoded), SPEC, CONFIG)
    cut = lanes(26, 4, warmup)
    state, _ = jax.vmap(env.reset_lane)(cut.start, cut.first, cut.stop)
    seen, finals = [], None
    step = jax.jit(jax.vmap(env.step, (0, 0, None)))
    for _ in range(14):  # longer than any lane: steps after the end must not count
        scored = np.asarray(jax.vmap(env.scored)(state))
        seen += np.asarray(jax.vmap(env.row)(state))[scored].tolist()
        state, finals = step(state, jnp.full(4, 2, jnp.int32), jax.random.key(0))
        assert (np.asarray(finals.reward)[~scored] == 0).all()
    assert sorted(seen) == list(range(26))
    assert finals is not None and bool(finals.truncated.all())
    assert float(finals.score.malicious.sum()) == (encoded.label == 1).sum()
    assert float(finals.score.benign_lost.sum()) == (encoded.label == 0).sum()


def test_rows_of_single_row_processes_have_blank_memory():
    env = StreamEnv(record(table(subject=np.arange(9), label=np.zeros(9))), SPEC, CONFIG)
    first, _, steps = _episode(env, jax.random.key(0), jnp.zeros(7, jnp.int32))
    assert env.spec.n_entities == 1
    assert int(first.source) == -1 and (np.asarray(steps.observation.source) == -1).all()
    assert (np.asarray(steps.observation.entity) == 0).all()


def test_alert_is_best_only_between_allow_and_block():
    rewards = np.stack([np.asarray(TaskReward().by_verdict(jnp.array(label))) for label in (0, 1)])
    best = [int(np.argmax((1 - p) * rewards[0] + p * rewards[1])) for p in np.linspace(0, 1, 101)]
    assert sorted(set(best)) == [0, 1, 2] and best == sorted(best)


def test_wrong_settings_are_refused():
    events = record(tree_table(1, 5))
    with pytest.raises(UsageError, match="recorded, shuffled"):
        StreamEnv(events, SPEC, StreamConfig(order="sorted"))
    with pytest.raises(UsageError, match="episode_events=0"):
        StreamEnv(events, SPEC, StreamConfig(episode_events=0))
