"""What the simulator tells the critic, against plain Python over the state."""

import math
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.sim_laws import benign_rate
from envs.simulated import FAULTY, Episodes, episodes

from phalanx.envs.catalogue import STAGES
from phalanx.envs.sim_core import core_size
from phalanx.envs.simulator import Simulator

EVERY = 24
"""Of the steps, one in so many is compared."""


@cache
def _run() -> Episodes:
    return episodes(FAULTY, "random")


@cache
def _told() -> tuple[np.ndarray, np.ndarray]:
    """What the critic is told of some of the states [time, env, number], and the verdicts' worth there."""
    env, state = Simulator(FAULTY), jax.tree.map(lambda x: jnp.asarray(x[::EVERY]), _run().state)
    state = eqx.tree_at(lambda s: s.campaigns.key, state, jax.random.wrap_key_data(state.campaigns.key))
    told = eqx.filter_jit(jax.vmap(jax.vmap(lambda each: env.core(each))))(state)
    return np.asarray(told), _run().step.credit[::EVERY]


def _compressed(x: float) -> float:
    return math.copysign(math.log1p(abs(x)) / 3, x)


def _discounted(route: np.ndarray, stage: int) -> float:
    """Damage that follows when a campaign enters a stage of its route."""
    steps = [
        each.damage
        for s, each in enumerate(STAGES.values())
        if s >= stage and route[s]
        for _ in range(each.needed)
    ]
    steps[-1] += FAULTY.attack.final_damage
    return sum(0.9**k * damage for k, damage in enumerate(steps))


def _campaign(state: Any, c: int) -> list[float]:
    """The numbers of campaign ``c``."""
    k, now = state.campaigns, float(state.event.time_s)
    going, met = not k.stopped[c], np.isfinite(k.first_s[c])
    wait = max(float(k.next_s[c]) - now, 0.0) if going else math.inf
    own = state.world.alive & (state.world.campaign == c)
    muted = state.response.silent_until_s > now
    stage = int(k.stage[c])
    return [
        float(going and met),
        float(going and not met),
        math.exp(-wait / 30),
        math.exp(-wait / 300),
        stage / 11 if going else 0.0,
        _discounted(k.route[c], stage) / 200 if going and met else 0.0,
        (1 - k.stealth[c]) * (1 - k.failure[c]) / k.pace[c] if going else 0.0,
        (own & ~muted).sum() / 4,
        (own & muted).sum() / 4,
        float(k.returned[c]),
        k.refused[c] / max(int(k.patience[c]), 1) if going else 0.0,
    ]


def _damage(state: Any) -> float:
    """Of the pending event if it happens: its stage's, and the final damage with the last success."""
    c = int(state.event.campaign)
    if c < 0 or not state.event.effective:
        return 0.0
    index, k = int(state.event.stage), state.campaigns
    stage = list(STAGES.values())[index]
    last = not k.route[c][index + 1 :].any() and k.progress[c] + 1 >= stage.needed
    return stage.damage + last * FAULTY.attack.final_damage


@pytest.mark.parametrize("most", [1, 2, 5])
def test_its_size_grows_with_the_campaigns(most: int) -> None:
    assert core_size(most) == 11 * most + 10


def test_the_numbers_are_of_order_one_and_move() -> None:
    told, _ = _told()
    assert told.shape[-1] == core_size(2) == Simulator(FAULTY).spec.n_core
    live = _run().live[::EVERY]
    assert np.isfinite(told).all() and (told[live].std(axis=0) > 0).mean() > 0.9
    pace = [6, 17]  # of hasty attackers
    assert np.abs(np.delete(told, pace, axis=-1)).max() < 6


def test_each_campaign_is_told_as_it_is() -> None:
    told, _ = _told()
    for t, e in np.ndindex(*told.shape[:2]):
        state = jax.tree.map(lambda x, at=(t * EVERY, e): x[at], _run().state)
        for c in range(2):
            found = told[t, e, 11 * c : 11 * c + 11]
            np.testing.assert_allclose(
                found, _campaign(state, c), rtol=2e-4, atol=1e-5, err_msg=f"{t} {e} {c}"
            )


def test_the_event_and_the_verdicts_worth_are_told() -> None:
    told, credit = _told()
    for t, e in np.ndindex(*told.shape[:2]):
        state = jax.tree.map(lambda x, at=(t * EVERY, e): x[at], _run().state)
        found = told[t, e, 22:]
        assert found[0] == (state.event.campaign >= 0)
        np.testing.assert_allclose(found[1], _compressed(_damage(state)), rtol=1e-4, atol=1e-6)
        worth = [_compressed(float(each)) for each in credit[t, e]]
        np.testing.assert_allclose(found[2:6], worth, rtol=1e-4, atol=1e-5)


def test_silent_work_tickets_and_the_pace_of_work_are_told() -> None:
    run, (told, _) = _run(), _told()
    world, now = run.state.world, run.state.event.time_s
    hz = benign_rate(run)
    left = np.clip(run.state.response.silent_until_s - now[..., None], 0.0, FAULTY.response.quarantine_ttl_s)
    hostile = world.alive & (world.campaign >= 0)
    closes = np.where(hostile, run.state.response.ticket_done_s, np.inf).min(-1) - now
    expected = [
        np.log1p((hz * left).sum(-1)) / 3,
        (hz * (left > 0)).sum(-1) / hz.sum(-1),
        np.exp(-np.maximum(closes, 0.0) / 300),
        np.log1p(1 / hz.sum(-1)) / 3,
    ]
    for found, wanted in zip(np.moveaxis(told[..., 28:], -1, 0), expected, strict=True):
        np.testing.assert_allclose(found, wanted[::EVERY], rtol=0.01, atol=1e-3)
        assert found.std() > 0


def test_a_quarantine_is_worth_what_it_prevents_less_the_work_that_it_silences() -> None:
    """The last verdict against block, on benign events: the mean work of the process and of all below it."""
    run = _run()
    event, world, credit = run.state.event, run.state.world, run.step.credit
    benign = (event.campaign < 0) & run.live
    np.testing.assert_allclose(credit[benign][:, 0], 0.0)
    np.testing.assert_allclose(credit[benign][:, 2], -1.0)
    assert (credit[benign][:, 3] <= credit[benign][:, 2]).all()
    chosen = benign & (take_alone(run))
    assert chosen.sum() > 1000
    left_s = (FAULTY.episode_events - run.state.steps) / (FAULTY.n_hosts * FAULTY.host_rate_hz)
    silent_s = np.minimum(left_s, FAULTY.response.quarantine_ttl_s)
    rate = np.take_along_axis(world.rate, event.entity[..., None], -1)[..., 0] / 9500 * FAULTY.host_rate_hz
    np.testing.assert_allclose(
        (credit[..., 2] - credit[..., 3])[chosen], (rate * silent_s)[chosen], rtol=1e-3, atol=1e-3
    )
    effective = (event.campaign >= 0) & event.effective & run.live
    assert (credit[effective][:, 2] >= 0).all() and (credit[effective][:, 0] < 0).all()
    assert (credit[effective][:, 2] > 0).any()


def test_a_refusal_is_worth_the_rest_of_the_campaign_however_patient_the_attacker() -> None:
    """As a quarantine that reaches every foothold and silences no work; nothing where it comes too late."""
    run = _run()
    event, world, credit = run.state.event, run.state.world, run.step.credit
    allow, alert, block, quarantine = np.moveaxis(credit, -1, 0)
    hostile = (event.campaign >= 0) & run.live
    open_ = hostile & ~event.late & ~event.duplicate
    assert open_.sum() > 1000 and (hostile & ~open_).sum() > 100
    c = np.maximum(event.campaign, 0)[..., None]
    patience = np.take_along_axis(run.state.campaigns.patience, c, -1)[..., 0]
    assert len(np.unique(patience[open_ & (block > 0)])) > 1
    assert (block[open_] >= np.maximum(quarantine, alert)[open_]).all(), (
        "nothing reaches further or costs less"
    )
    rate = np.take_along_axis(world.rate, event.entity[..., None], -1)[..., 0]
    sole = open_ & take_alone(run) & (rate == 0)
    assert sole.sum() > 50
    np.testing.assert_allclose(quarantine[sole], block[sole], rtol=1e-5)
    np.testing.assert_array_equal(block[hostile & ~open_], 0.0)


def take_alone(run: Episodes) -> np.ndarray:
    """Steps [time, env] whose acting process has no living descendant."""
    world, event = run.state.world, run.state.event
    n = world.alive.shape[-1]
    per_host = n // run.config.n_hosts
    bit = 1 << (event.entity % per_host)
    same_host = (np.arange(n) // per_host) == (event.entity // per_host)[..., None]
    below = world.alive & same_host & ((world.lineage & bit[..., None]) != 0)
    return below.sum(-1) == 1
