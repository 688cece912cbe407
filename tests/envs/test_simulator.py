"""The simulator: verdicts have the effects they claim, nothing else changes, and nothing depends on the batch."""

from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phalanx.envs.base import auto_reset_step
from phalanx.envs.catalogue import (
    BENIGN_KIND_MIX,
    KINDS,
    PROGRAMS,
    STAGES,
    build_tables,
)
from phalanx.envs.export import row_of, simulate_table, table_of
from phalanx.envs.sim_campaign import AttackConfig, attack_draws, future_worth
from phalanx.envs.simulator import Simulator, SimulatorConfig
from phalanx.errors import UsageError
from phalanx.types import Verdict

SMALL = SimulatorConfig(
    n_hosts=2,
    slots_per_host=12,
    episode_events=160,
    host_rate_hz=0.25,
    attack=AttackConfig(pace_s=(2.0, 6.0)),
)
ENVS, STEPS = 16, 256


def _answer(policy: jax.Array, malicious: jax.Array, u: jax.Array) -> jax.Array:
    """0-3: always that verdict; 4-7: that verdict on malicious events alone; 8: random."""
    constant = jnp.where(policy < 4, policy, 0)
    targeted = jnp.where(malicious, policy - 4, 0)
    verdict = jnp.where(policy < 4, constant, targeted)
    random = (u[:, None] > jnp.array([[0.9, 0.94, 0.97]])).sum(-1, dtype=jnp.int32)
    return jnp.where(policy == 8, random, verdict).astype(jnp.int32)


@eqx.filter_jit
def _roll(
    env: Simulator, keys: jax.Array, policy: jax.Array, steps: int, resets: bool
) -> tuple[Any, Any, Any]:
    """States before each step, verdicts and time steps: [time, env, ...]."""
    start, _ = jax.vmap(env.reset)(keys)

    def body(carry: Any, index: jax.Array) -> tuple[Any, Any]:
        state = carry
        key = jax.vmap(lambda k: jax.random.fold_in(k, index))(keys)
        u = jax.vmap(jax.random.uniform)(key)
        verdict = _answer(policy, state.event.campaign >= 0, u)
        move = (lambda *a: auto_reset_step(*a)[:2]) if resets else (lambda e, s, v, k: e.step(s, v, k))
        after, time_step = jax.vmap(move, in_axes=(None, 0, 0, 0))(env, state, verdict, key)
        return after, (state, verdict, time_step)

    _, out = jax.lax.scan(body, start, jnp.arange(steps))
    return out


@cache
def _episodes(policy: int, *, resets: bool = False) -> tuple[Any, Any, Any]:
    keys = jax.random.split(jax.random.key(11), ENVS)
    return jax.tree.map(_host, _roll(Simulator(SMALL), keys, jnp.int32(policy), STEPS, resets))


def _host(x: jax.Array) -> Any:
    return x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x)


def _acting(state: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    time, env = np.indices(state.event.entity.shape)
    return time, env, state.event.entity


def test_only_living_processes_act_and_none_in_quarantine() -> None:
    for policy in (3, 8):
        state, _, _ = _episodes(policy)
        assert state.world.alive[_acting(state)].all()
        assert (state.response.silent_until_s[_acting(state)] <= state.event.time_s).all()


def test_time_never_runs_backwards_and_slots_hold_one_program() -> None:
    state, _, _ = _episodes(8)
    assert (np.diff(state.event.time_s, axis=0) >= 0).all()
    same = (state.world.serial[1:] == state.world.serial[:-1]) & state.world.alive[1:]
    assert (state.world.program[1:][same] == state.world.program[:-1][same]).all()


def test_a_blocked_attempt_advances_nothing_and_does_no_damage() -> None:
    state, _, step = _episodes(4 + Verdict.BLOCK)
    assert (state.campaigns.stage == 0).all() and (state.campaigns.progress == 0).all()
    assert (step.score.damage == 0).all() and step.score.malicious[-1].sum() > 50


def test_an_allowed_effective_attempt_advances_by_one() -> None:
    state, _, step = _episodes(0)
    total = np.array([stage.needed for stage in STAGES.values()])
    passed = np.cumsum(total)[state.campaigns.stage] - total[state.campaigns.stage] + state.campaigns.progress
    moved = np.diff(passed, axis=0).sum(axis=-1)
    effective = state.event.effective & ~step.terminated
    assert (moved[~effective[:-1] & ~step.terminated[:-1]] == 0).all()
    assert (moved[effective[:-1]] == 1).mean() > 0.97 and moved.max() == 1


def test_cost_of_quarantine_is_the_silent_time_of_benign_processes() -> None:
    """An independent account: integrate each silent benign process's rate over the gap, in float64."""
    state, verdict, step = _episodes(8)
    env, tables = Simulator(SMALL), build_tables()
    world = jax.tree.map(lambda x: x[1:], state.world)  # the world after the verdict, at its next event
    now, then = state.event.time_s[:-1].astype(np.float64), state.event.time_s[1:].astype(np.float64)
    until = state.response.silent_until_s[1:].astype(np.float64)
    pace = np.where(world.burst, 3.0, 0.7) * np.asarray(tables.rate)[world.program]
    benign = world.alive & (world.campaign < 0)
    silent_s = np.clip(np.minimum(until, then[..., None]) - now[..., None], 0.0, None)
    expected = np.where(benign & (until > now[..., None]), pace * 1000.0 * env._unit_hz * silent_s, 0.0).sum(
        -1
    )
    denied = (verdict[:-1] >= Verdict.BLOCK) & (state.event.campaign[:-1] < 0)
    got = np.diff(np.concatenate([np.zeros((1, ENVS)), step.score.benign_lost]), axis=0)[:-1]
    np.testing.assert_allclose(got, expected + denied, rtol=2e-3, atol=2e-2)
    assert expected.sum() > 100


def test_reward_is_minus_damage_lost_work_and_tickets() -> None:
    for policy in (0, 1, 8):
        _, verdict, step = _episodes(policy)
        end = STEPS - 1
        config = SMALL.response
        tickets = step.score.alerts[end]
        repeats = (verdict == Verdict.ALERT).sum(0) - tickets
        cost = config.ticket_cost * tickets + config.alert_cost * repeats
        total = -(step.score.damage[end] + config.benign_cost * step.score.benign_lost[end] + cost)
        np.testing.assert_allclose(step.reward.sum(0), total, rtol=1e-3, atol=0.05)


def test_answers_before_the_onset_leave_the_attacker_alone() -> None:
    """Allow-all and random answers see the same campaigns until the first of them acts."""
    quiet, _, _ = _episodes(0)
    busy, _, _ = _episodes(8)
    for name in ("next_s", "pace_s", "stealth", "failure", "returns", "return_s"):
        np.testing.assert_array_equal(getattr(quiet.campaigns, name)[0], getattr(busy.campaigns, name)[0])
    for env in range(ENVS):
        onset = [s.event.time_s[:, env][s.event.campaign[:, env] >= 0] for s in (quiet, busy)]
        if onset[0].size and onset[1].size:
            assert onset[0][0] == pytest.approx(onset[1][0])


def test_the_attackers_draws_depend_on_campaign_and_attempt_alone() -> None:
    key = jax.random.key(3)
    first = attack_draws(key, jnp.int32(0), jnp.int32(5))
    np.testing.assert_array_equal(first, attack_draws(key, jnp.int32(0), jnp.int32(5)))
    others = [attack_draws(key, jnp.int32(1), jnp.int32(5)), attack_draws(key, jnp.int32(0), jnp.int32(6))]
    assert all((np.asarray(first) != np.asarray(other)).all() for other in others)


def test_labels_do_not_show() -> None:
    """A campaign under another number leaves the observation as it is."""
    env = Simulator(SMALL)
    state, seen = env.reset(jax.random.key(2))
    renamed = eqx.tree_at(
        lambda s: (s.event.campaign, s.event.stage, s.world.campaign),
        state,
        (jnp.int32(1), jnp.int32(7), jnp.ones_like(state.world.campaign)),
    )
    one, other = (env._observe(s.world, s.response, s.event)[1] for s in (state, renamed))
    for name in ("category", "numeric", "entity", "source"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    np.testing.assert_array_equal(one.category, seen.category)


def test_oracle_prevents_the_damage_of_always_allow() -> None:
    damage = {policy: _episodes(policy)[2].score.damage[-1] for policy in (0, 4 + Verdict.QUARANTINE)}
    assert (damage[0] >= damage[7]).all() and damage[0].mean() > 5 and damage[7].mean() == 0


def test_quarantine_of_a_campaigns_every_process_contains_it() -> None:
    state, _, step = _episodes(4 + Verdict.QUARANTINE)
    score = jax.tree.map(lambda x: x[-1], step.score)
    assert (score.contained == score.campaigns).all() and score.campaigns.sum() > 0
    assert (score.contained <= SMALL.attack.most).all() and (score.benign_lost == 0).all()
    over = state.campaigns.stopped
    owned = np.stack([(state.world.campaign == c).any(-1) for c in range(over.shape[-1])], -1)
    assert not (owned & over).any()


def test_end_of_an_episode() -> None:
    """Terminated and truncated exclude each other; a reset shows the new episode's first event with blank memory."""
    _, _, step = _episodes(0, resets=True)
    done = step.terminated | step.truncated
    assert not (step.terminated & step.truncated).any()
    assert step.terminated.any() and step.truncated.any()
    assert (step.observation.source[done] == -1).all()
    for name in ("category", "numeric", "entity", "source"):
        shown, last = getattr(step.observation, name), getattr(step.final_observation, name)
        np.testing.assert_array_equal(shown[~done], last[~done])
    assert (step.final_observation.numeric[done] != step.observation.numeric[done]).any()
    assert (step.score.events[step.truncated] == SMALL.episode_events).all()
    assert (step.score.damage[step.terminated] >= SMALL.attack.final_damage).all()


def test_a_first_event_reads_the_parents_memory() -> None:
    state, _, _ = _episodes(0)
    time, env, entity = _acting(state)
    born = state.world.born_of[time, env, entity] >= 0
    fresh = state.world.rolling.events[time, env, entity] == 1
    assert (state.event.source[fresh & ~born] == -1).all() and (fresh & born).sum() > 20
    parent = state.event.source[fresh & born]
    known = parent >= 0
    t, e = time[fresh & born][known], env[fresh & born][known]
    np.testing.assert_array_equal(
        state.world.serial[t, e, parent[known]], state.world.born_of[time, env, entity][fresh & born][known]
    )
    assert (state.event.source[~fresh] == entity[~fresh]).all()


def test_ids_and_numbers_are_in_range() -> None:
    spec = Simulator(SMALL).spec
    _, _, step = _episodes(8)
    sizes = np.array([column.size for column in spec.categorical])
    assert (step.observation.category >= 1).all() and (step.observation.category < sizes).all()
    assert step.observation.numeric.shape[-1] == len(spec.numeric)
    assert np.isfinite(step.observation.numeric).all() and np.abs(step.observation.numeric).max() <= 8
    assert (step.observation.entity < spec.n_entities).all()


def test_batch_size_changes_no_bit() -> None:
    env, keys = Simulator(SMALL), jax.random.split(jax.random.key(11), ENVS)
    many = _episodes(8)
    one = jax.tree.map(_host, _roll(env, keys[5:6], jnp.int32(8), STEPS, False))
    for a, b in zip(jax.tree.leaves(many), jax.tree.leaves(one), strict=True):
        if isinstance(a, np.ndarray):
            np.testing.assert_array_equal(a[:, 5], b[:, 0])


def test_benign_kinds_are_near_those_of_a_real_host_and_the_malicious_share_is_small() -> None:
    table = simulate_table(hosts=2, hours=2.0, campaigns=1, seed=1)
    benign = table.frame.filter(table.frame["label"] == 0)["kind"].to_numpy()
    share = np.array([(benign == kind).mean() for kind in KINDS])
    anchor = np.array([BENIGN_KIND_MIX.get(kind, 0.0) for kind in KINDS])
    assert np.abs(share - anchor / anchor.sum()).sum() / 2 < 0.15
    assert 0 < table.labels.mean() < 0.05
    assert 1000 < len(table) / 4 < 3500
    assert not table.frame.filter(table.frame["label"] == 1)["bait"].any() and table.frame["bait"].any()


def test_an_exported_table_encodes_to_what_was_observed() -> None:
    env = Simulator(SMALL)
    state, _, _ = _episodes(0)
    one = jax.tree.map(lambda x: x[:160, 3], state)
    rows = jax.tree.map(np.asarray, jax.vmap(row_of)(one))
    encoded = env.encoder.encode(table_of(rows, env.tables))
    seen = _episodes(0)[2].observation
    np.testing.assert_array_equal(encoded.category[1:], seen.category[:159, 3])
    numeric = seen.numeric[:159, 3, : encoded.numeric.shape[1]]
    np.testing.assert_allclose(encoded.numeric[1:], numeric, atol=2e-3)


def test_the_worth_of_the_future_is_a_discounted_sum() -> None:
    config = AttackConfig()
    damage = [stage.damage for stage in STAGES.values() for _ in range(stage.needed)]
    damage[-1] += config.final_damage
    worth = future_worth(config)
    for p in (0, 5, len(damage)):
        expected = sum(0.9**j * d for j, d in enumerate(damage[p:]))
        assert worth[p] == pytest.approx(expected, rel=1e-5)


def test_every_mix_is_a_distribution_and_every_attack_template_has_a_benign_user() -> None:
    tables = build_tables()
    mix = np.diff(np.asarray(tables.mix), prepend=0.0)
    assert (mix >= -1e-6).all() and np.allclose(mix.sum(1), 1.0, atol=1e-5)
    programs, stages = mix[: len(PROGRAMS)], mix[len(PROGRAMS) :]
    assert ((programs > 1e-7).any(0) >= (stages > 1e-7).any(0)).all()


def test_a_step_compiles_once() -> None:
    env, traces = Simulator(SMALL), []

    @eqx.filter_jit
    def step(env: Simulator, state: Any, verdict: jax.Array, key: jax.Array) -> Any:
        traces.append(1)
        return env.step(state, verdict, key)

    state, _ = env.reset(jax.random.key(0))
    for verdict in range(4):
        state, _ = step(env, state, jnp.int32(verdict), jax.random.key(verdict))
    assert len(traces) == 1


@pytest.mark.parametrize(
    "wrong", [{"n_hosts": 0}, {"slots_per_host": 8}, {"attack": AttackConfig(fewest=3, most=2)}]
)
def test_an_impossible_configuration_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="needs"):
        SimulatorConfig(**wrong)
