"""What the simulator tells the critic, against plain Python over the state."""

import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from phalanx.envs.catalogue import PROGRAMS, STAGES
from phalanx.envs.simulator import Simulator, SimulatorConfig

ENVS, STEPS = 6, 160
ENV = Simulator(SimulatorConfig(n_hosts=2, episode_events=STEPS))


@eqx.filter_jit
def _roll(keys: jax.Array) -> tuple[Any, jax.Array, jax.Array]:
    """States that random verdicts lead to, mild ones mostly, what the critic is told of them, and verdicts' worth."""
    start, _ = jax.vmap(ENV.reset)(keys)
    odds = jnp.log(jnp.array([0.9, 0.04, 0.03, 0.03]))

    def body(state: Any, index: jax.Array) -> tuple[Any, Any]:
        key = jax.vmap(lambda k: jax.random.fold_in(k, index))(keys)
        verdict = jax.vmap(lambda k: jax.random.categorical(jax.random.fold_in(k, 9), odds))(key)
        after, step = jax.vmap(ENV.step)(state, verdict.astype(jnp.int32), key)
        return after, (state, jax.vmap(ENV.core)(state), step.credit)

    return jax.lax.scan(body, start, jnp.arange(STEPS))[1]


def _compressed(x: float) -> float:
    return math.copysign(math.log1p(abs(x)) / 3, x)


def _campaign(state: Any, c: int) -> list[float]:
    """The ten numbers of campaign ``c``; the damage that follows is summed success by success."""
    damage = [stage.damage for stage in STAGES.values() for _ in range(stage.needed)]
    damage[-1] += ENV.config.attack.final_damage

    def follows(p: int) -> float:
        return sum(0.9**j * d for j, d in enumerate(damage[p:]))

    k, now = state.campaigns, float(state.event.time_s)
    going, met = not k.stopped[c], np.isfinite(k.first_s[c])
    wait = max(float(k.next_s[c]) - now, 0.0) if going else math.inf
    passed = sum(s.needed for s in list(STAGES.values())[: int(k.stage[c])]) + int(k.progress[c])
    own = state.world.alive & (state.world.campaign == c)
    muted = state.response.silent_until_s > now
    return [
        float(going and met),
        float(going and not met),
        math.exp(-wait / 30),
        math.exp(-wait / 150),
        passed / (len(damage) + 1) if going else 0.0,
        follows(passed) / max(map(follows, range(len(damage)))) if going and met else 0.0,
        30 * (1 - k.stealth[c]) * (1 - k.failure[c]) / k.pace_s[c] if going else 0.0,
        (own & ~muted).sum() / 4,
        (own & muted).sum() / 4,
        float(k.returns[c]),
    ]


def _damage(state: Any) -> float:
    """Of the pending event if it happens: its stage's, and the final damage with the last success."""
    c = int(state.event.campaign)
    if c < 0 or not state.event.effective:
        return 0.0
    stage = list(STAGES.values())[int(state.event.stage)]
    last = state.event.stage == len(STAGES) - 1 and state.campaigns.progress[c] + 1 >= stage.needed
    return stage.damage + last * ENV.config.attack.final_damage


def test_the_critic_is_told_the_campaigns_the_event_and_the_silent_work() -> None:
    states, told, credit = _roll(jax.random.split(jax.random.key(5), ENVS))
    told, credit = np.asarray(told), np.asarray(credit)
    assert told.shape == (STEPS, ENVS, ENV.spec.n_core) and np.isfinite(told).all()
    assert np.abs(told).max() < 6 and (told.std(axis=(0, 1)) > 0).mean() > 0.8, "of order 1, and they move"
    states = jax.tree.map(
        lambda x: x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x), states
    )
    relative = np.array([program.rate for program in PROGRAMS.values()])
    for t, e in np.ndindex(STEPS, ENVS):
        if t % 5:
            continue
        state = jax.tree.map(lambda x, at=(t, e): x[at], states)
        world, now, found = state.world, float(state.event.time_s), told[t, e]
        np.testing.assert_allclose(found[:10], _campaign(state, 0), rtol=2e-4, atol=1e-5)
        np.testing.assert_allclose(found[10:20], _campaign(state, 1), rtol=2e-4, atol=1e-5)
        assert found[20] == (state.event.campaign >= 0)
        np.testing.assert_allclose(found[21], _compressed(_damage(state)), rtol=1e-4, atol=1e-6)
        worth = [_compressed(float(each)) for each in credit[t, e]]
        np.testing.assert_allclose(found[22:26], worth, rtol=1e-4, atol=1e-5)
        busy = world.alive & (world.campaign < 0)
        hz = busy * relative[world.program] * np.where(world.burst, 3.0, 0.7) * ENV.config.host_rate_hz / 9.5
        left = np.clip(state.response.silent_until_s - now, 0, 600)
        np.testing.assert_allclose(found[26], _compressed((hz * left).sum()), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found[27], hz[left > 0].sum() / hz.sum(), rtol=1e-3, atol=1e-5)
        tickets = state.response.ticket_done_s[world.alive & (world.campaign >= 0)]
        waits = [math.exp(-max(float(ticket) - now, 0.0) / 150) for ticket in tickets]
        np.testing.assert_allclose(found[28], max(waits, default=0.0), rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(found[29], _compressed(1 / hz.sum()), rtol=1e-3)
