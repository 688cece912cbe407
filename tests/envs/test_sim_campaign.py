"""Campaigns: their draws, routes, waits, whose turn it is, and what they are worth."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.envs.catalogue import STAGES
from phalanx.envs.sim_campaign import (
    N_DRAWS,
    AttackConfig,
    Campaigns,
    attack_draws,
    choose_turn,
    init_campaigns,
    next_stage,
    remaining_damage,
    stop,
    wait_s,
    worth_ahead,
)
from phalanx.envs.sim_tables import build_tables
from phalanx.envs.sim_world import World, init_world

CONFIG = AttackConfig(fewest=1, most=3)
NAMES = tuple(STAGES)
TABLES = build_tables()
MANY = 4000


def _init(config: AttackConfig, key: Any, *, one_host: bool = False, attacked: bool = True) -> Campaigns:
    return init_campaigns(config, TABLES, key, duration_s=1000.0, one_host=one_host, attacked=attacked)


def _many(keys: Any, **settings: bool) -> Campaigns:
    return eqx.filter_jit(jax.vmap(lambda key: _init(CONFIG, key, **settings)))(keys)


@pytest.fixture(scope="module")
def drawn() -> Campaigns:
    keys = jax.random.split(jax.random.key(0), MANY)
    return jax.tree.map(_host, _many(keys))


def _host(x: Any) -> Any:
    return x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x)


def _one(seed: int = 0, **changes: Any) -> Campaigns:
    """The campaigns of one episode with some of their arrays replaced."""
    campaigns = _init(CONFIG, jax.random.key(seed))
    for name, value in changes.items():
        old = getattr(campaigns, name)
        new = jnp.broadcast_to(jnp.asarray(value, old.dtype), old.shape)
        campaigns = eqx.tree_at(lambda k, name=name: getattr(k, name), campaigns, new)
    return campaigns


def test_as_many_campaigns_as_asked_for_begin_in_the_first_part(drawn: Campaigns) -> None:
    count = (~drawn.stopped).sum(1)
    np.testing.assert_allclose(np.bincount(count, minlength=4) / MANY, [0, 1 / 3, 1 / 3, 1 / 3], atol=0.03)
    onset = drawn.next_s[~drawn.stopped]
    assert onset.min() >= 0.0 and onset.max() <= CONFIG.onset_share * 1000.0
    assert onset.mean() == pytest.approx(CONFIG.onset_share * 500.0, rel=0.03)
    assert np.isinf(drawn.next_s[drawn.stopped]).all() and np.isinf(drawn.first_s).all()


def test_ways_of_attackers_are_drawn_from_their_ranges(drawn: Campaigns) -> None:
    for name in ("pace", "stealth", "failure"):
        low, high = getattr(CONFIG, name)
        values = np.log(getattr(drawn, name)) if name == "pace" else getattr(drawn, name)
        low, high = (math.log(low), math.log(high)) if name == "pace" else (low, high)
        assert low - 1e-6 <= values.min() and values.max() <= high + 1e-6
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low))
        assert values.std() == pytest.approx((high - low) / math.sqrt(12), rel=0.03), "uniform"
    low, high = CONFIG.patience
    assert set(np.unique(drawn.patience)) == set(range(int(low), int(high)))
    assert drawn.return_s.mean() == pytest.approx(CONFIG.reentry_s, rel=0.05)


def test_routes_leave_stages_out_as_often_as_the_catalogue_says(drawn: Campaigns) -> None:
    share = drawn.route.reshape(-1, len(STAGES)).mean(0)
    for index, (name, stage) in enumerate(STAGES.items()):
        aim = 2 / 3 if name in ("collection", "exfiltration", "impact") else 1.0
        assert share[index] == pytest.approx(aim * (1.0 - stage.skipped), abs=0.02), name
    theft = drawn.route[..., NAMES.index("exfiltration")]
    assert (theft | drawn.route[..., NAMES.index("impact")]).all(), "every campaign has an aim"
    assert (theft == drawn.route[..., NAMES.index("collection")]).all()
    for index, choices in enumerate(np.asarray(TABLES.choices)):
        counts = np.bincount(drawn.base[..., index].ravel(), minlength=choices)
        assert len(counts) == choices and counts.min() / counts.max() > 0.9


def test_there_is_nowhere_to_move_to_on_one_host_and_no_campaign_in_peace() -> None:
    keys = jax.random.split(jax.random.key(1), 200)
    alone = _many(keys, one_host=True)
    assert not np.asarray(alone.route)[..., NAMES.index("lateral_movement")].any()
    peace = _many(keys, attacked=False)
    assert np.asarray(peace.stopped).all() and np.isinf(np.asarray(peace.next_s)).all()


def test_draws_are_uniform_and_of_campaign_and_attempt_alone() -> None:
    key = jax.random.key(2)
    draws = np.stack([attack_draws(key, jnp.int32(c), jnp.int32(a)) for c in range(3) for a in range(60)])
    assert draws.shape == (180, N_DRAWS) and len(np.unique(draws)) > 0.99 * draws.size
    assert draws.mean() == pytest.approx(0.5, abs=0.02) and draws.std() == pytest.approx(12**-0.5, abs=0.01)
    np.testing.assert_array_equal(draws[61], attack_draws(key, jnp.int32(1), jnp.int32(1)))


@given(route=st.lists(st.booleans(), min_size=10, max_size=10), stage=st.integers(0, 9))
def test_the_next_stage_is_the_first_one_ahead_on_the_route(route: list[bool], stage: int) -> None:
    campaigns = _one(route=np.array(route), stage=stage)
    following, final = next_stage(campaigns, jnp.int32(1))
    ahead = [s for s in range(stage + 1, 10) if route[s]]
    assert bool(final) == (not ahead)
    if ahead:
        assert int(following) == ahead[0]


@given(
    stage=st.integers(0, 9),
    u=st.floats(0.0, 1.0, exclude_max=True, width=32),
    pace=st.floats(0.125, 4.0, width=32),
    refused=st.integers(0, 9),
)
def test_waits_are_the_catalogues_times_the_pace(stage: int, u: float, pace: float, refused: int) -> None:
    campaigns, each = _one(pace=pace, refused=refused), list(STAGES.values())[stage]

    def wait(enters: bool) -> float:
        return float(
            wait_s(
                campaigns,
                TABLES,
                jnp.int32(0),
                stage=jnp.int32(stage),
                enters_stage=jnp.asarray(enters),
                u=jnp.float32(u),
            )
        )

    low, high = each.delay_s
    assert wait(True) == pytest.approx(pace * low * (high / low) ** u, rel=1e-4)
    assert wait(False) == pytest.approx(-math.log1p(-u) * each.gap_s * pace * (1 + min(refused, 4)), rel=1e-4)


def _world() -> World:
    return init_world(
        TABLES,
        jnp.array([0, 2], jnp.int32),
        12,
        start_s=jnp.int32(0),
        drift_s=jnp.float32(np.inf),
        rollout_s=jnp.float32(np.inf),
    )


def _owned(world: World, owners: dict[int, int]) -> World:
    """Slots that work for campaigns; higher slots are younger."""
    slots = jnp.array(list(owners), jnp.int32)
    return eqx.tree_at(
        lambda w: (w.alive, w.campaign, w.entry),
        world,
        (
            world.alive.at[slots].set(True),
            world.campaign.at[slots].set(jnp.array(list(owners.values()), jnp.int32)),
            world.entry.at[slots].set(-1),
        ),
    )


def _turn(campaigns: Campaigns, world: World, awake: Any, **changes: Any) -> Any:
    settings = {"now_s": jnp.float32(10.0), "open_slot": jnp.ones(24, bool), **changes}
    return choose_turn(CONFIG, campaigns, world, awake=awake, **settings)


def test_the_campaign_that_is_due_first_acts_through_a_process_of_its_own() -> None:
    world = _owned(_world(), {8: 0, 9: 0, 20: 1, 21: 1})
    for due, chosen, slots in (((30.0, 20.0, np.inf), 1, {20, 21}), ((12.0, 20.0, np.inf), 0, {8, 9})):
        seen = set()
        for attempt in range(30):
            campaigns = _one(next_s=np.array(due), stopped=np.array([False, False, True]), attempts=attempt)
            turn = _turn(campaigns, world, world.alive)
            assert int(turn.campaign) == chosen and bool(turn.possible) and not bool(turn.enters)
            assert float(turn.time_s) == due[chosen]
            newest = float(turn.draws[0]) < CONFIG.latest
            assert int(turn.slot) == (max(slots) if newest else min(slots))
            refused = _turn(
                eqx.tree_at(lambda k: k.refused, campaigns, campaigns.refused + 1), world, world.alive
            )
            assert int(refused.slot) == (min(slots) if newest else max(slots)), "refused: through another one"
            np.testing.assert_array_equal(
                turn.draws, attack_draws(campaigns.key, turn.campaign, jnp.int32(attempt))
            )
            seen.add(int(turn.slot))
        assert seen == slots


def test_silent_processes_do_not_act_and_nobody_comes_in_beside_them() -> None:
    world = _owned(_world(), {8: 0, 9: 0})
    campaigns = _one(next_s=np.array([20.0, np.inf, np.inf]), stopped=np.array([False, True, True]))
    turn = _turn(campaigns, world, world.alive.at[9].set(False))
    assert int(turn.slot) == 8 and bool(turn.possible)
    assert not bool(_turn(campaigns, world, world.alive.at[jnp.array([8, 9])].set(False)).possible)


def test_an_attacker_comes_in_through_a_door_that_is_awake_on_a_host_with_room() -> None:
    world = _world()
    doors = np.nonzero(np.asarray(world.alive & (world.entry >= 0)))[0]
    campaigns = _one(next_s=np.array([20.0, np.inf, np.inf]), stopped=np.array([False, True, True]))
    seen = set()
    for attempt in range(60):
        again = eqx.tree_at(lambda k: k.attempts, campaigns, jnp.full(3, attempt, jnp.int32))
        turn = _turn(again, world, world.alive)
        assert bool(turn.enters) and bool(turn.possible)
        seen.add(int(turn.slot))
    assert seen == set(doors.tolist())
    room = jnp.arange(24) >= 12
    turn = _turn(campaigns, world, world.alive, open_slot=room)
    assert int(turn.slot) >= 12
    assert not bool(_turn(campaigns, world, world.alive, open_slot=jnp.zeros(24, bool)).possible)
    late = _turn(campaigns, world, world.alive, now_s=jnp.float32(50.0))
    assert float(late.time_s) == 50.0, "what is overdue comes now"


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("returned", [False, True])
@pytest.mark.parametrize("chance", [0.05, 0.3, 0.8])
def test_a_contained_campaign_ends_or_comes_back_once(chance: float, returned: bool, kept: bool) -> None:
    campaigns = _one(
        chance=chance, returned=returned, kept=kept, stage=4, progress=1, refused=2, stopped=False
    )
    one = jnp.array([True, False, False])
    after = stop(CONFIG, campaigns, contained=one, complete=jnp.zeros(3, bool), now_s=jnp.float32(100.0))
    again = not returned and chance < CONFIG.reentry + kept * CONFIG.reentry_kept
    assert bool(after.contained[0]) and bool(after.stopped[0]) == (not again)
    assert bool(after.returned[0]) == (returned or again)
    if again:
        assert (int(after.stage[0]), int(after.progress[0]), int(after.refused[0])) == (0, 0, 0)
        assert float(after.next_s[0]) == pytest.approx(100.0 + float(campaigns.return_s[0]))
    for name in ("stopped", "contained", "returned", "stage", "progress", "refused", "next_s"):
        np.testing.assert_array_equal(getattr(after, name)[1:], getattr(campaigns, name)[1:], err_msg=name)


def test_a_complete_campaign_ends_for_good() -> None:
    campaigns = _one(chance=0.0, stopped=False)
    one = jnp.array([True, False, False])
    after = stop(CONFIG, campaigns, contained=jnp.zeros(3, bool), complete=one, now_s=jnp.float32(100.0))
    assert bool(after.stopped[0]) and not bool(after.contained[0]) and not bool(after.returned[0])


def _damage_along(route: list[bool], start: int, progress: int = 0) -> list[float]:
    """Damage of each success from a stage on, the final damage with the last one."""
    steps = [
        stage.damage
        for index, stage in enumerate(STAGES.values())
        if index >= start and route[index]
        for _ in range(stage.needed)
    ][progress:]
    if steps:
        steps[-1] += CONFIG.final_damage
    return steps


@given(route=st.lists(st.booleans(), min_size=10, max_size=10))
def test_what_is_ahead_is_a_discounted_sum_over_the_route(route: list[bool]) -> None:
    ahead = np.asarray(worth_ahead(CONFIG, TABLES, _one(route=np.array(route))))
    assert ahead.shape == (3, len(STAGES) + 1)
    for stage in range(len(STAGES)):
        steps = _damage_along(route, stage)
        expected = (
            sum(0.9**k * damage for k, damage in enumerate(steps)) if steps else CONFIG.final_damage / 0.9
        )
        np.testing.assert_allclose(ahead[:, stage], expected, rtol=1e-4)


@given(
    route=st.lists(st.booleans(), min_size=10, max_size=10),
    stage=st.integers(0, 9),
    left_s=st.floats(0.0, 20_000.0, width=32),
    kept=st.booleans(),
)
def test_the_damage_that_remains_is_what_the_time_left_allows(route, stage, left_s, kept) -> None:
    route[stage] = True
    campaigns = _one(route=np.array(route), stage=stage, progress=0, kept=kept)
    ahead = worth_ahead(CONFIG, TABLES, campaigns)
    found = np.asarray(remaining_damage(CONFIG, TABLES, campaigns, ahead, left_s=jnp.float32(left_s)))
    worth = sum(0.9**k * damage for k, damage in enumerate(_damage_along(route, stage)))
    each = STAGES.values()
    step = np.mean([math.sqrt(s.delay_s[0] * s.delay_s[1]) / s.needed for s in each]) + np.mean(
        [s.gap_s for s in each]
    )
    for c in range(3):
        speed = (
            (1 - float(campaigns.stealth[c]))
            * (1 - float(campaigns.failure[c]))
            / (step * float(campaigns.pace[c]))
        )
        fits = 1 - 0.9 ** (left_s * speed)
        stays = 1 - CONFIG.reentry - kept * CONFIG.reentry_kept
        assert found[c] == pytest.approx(worth * fits * stays, rel=2e-3, abs=2e-3)
