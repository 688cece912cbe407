from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.contract import check_contract
from envs.simulated import SMALL
from toy import ToyEnv

from phalanx.envs.base import auto_reset_step
from phalanx.envs.constrained import Constrained, unconstrained
from phalanx.envs.signals import SIGNALS, check_signals
from phalanx.envs.simulator import Simulator
from phalanx.errors import UsageError
from phalanx.stl import robustness
from phalanx.stl.specs import parse_specs

SPECS = parse_specs(
    """
@spec contained
@priority 1
exposed_s <= 60
@spec answered_soon
@priority 2
threat > .5 -> eventually[0,4] caught > .5
@spec few_blocks
@priority 3
rate(false_block, benign, 7, 0) <= .25
@spec budget
@priority 4
sum(restricted, 9) <= 4
@spec work
@priority 5
sum(lost, 5) <= 3
"""
)
OBSERVED = 3  # the budget alone is about nothing but verdicts


@pytest.fixture(scope="module")
def played():
    """Random verdicts in a constrained simulator and the same ones in a bare one."""
    inner = Simulator(SMALL)
    env = Constrained(inner, SPECS).at(jnp.array([1.0, 2.0, 4.0, 8.0, 16.0], jnp.float32))
    lanes, steps = 6, 160
    key = jax.random.key(3)
    chance = jnp.log(jnp.array([0.7, 0.05, 0.2, 0.05]))
    verdicts = jax.random.categorical(key, chance, shape=(steps, lanes)).astype(jnp.int32)
    keys = jax.random.split(jax.random.key(4), (steps, lanes))
    starts = jax.random.split(jax.random.key(5), lanes)

    @eqx.filter_jit
    def run(env):
        def step(state, given):
            after, outcome = jax.vmap(env.step)(state, *given)
            return after, (outcome, jax.vmap(env.gauges)(after), jax.vmap(env.core)(after))

        state, first = jax.vmap(env.reset)(starts)
        return first, jax.lax.scan(step, state, (verdicts, keys))[1]

    return env, verdicts, run(env), run(inner)


def signals(verdict, step, exposed):
    """The signals of one lane, written again in NumPy."""
    label, score = np.asarray(step.truth.label), step.score

    def grown(name):
        return np.diff(np.asarray(getattr(score, name), np.float64), prepend=0.0)

    return {
        "exposed_s": np.asarray(exposed),
        "threat": (label == 1) * 1.0,
        "benign": (label == 0) * 1.0,
        "caught": ((label == 1) & (verdict >= 1)) * 1.0,
        "false_block": ((label == 0) & (verdict >= 2)) * 1.0,
        "restricted": (verdict >= 2) * 1.0,
        "lost": grown("benign_lost"),
    }


def test_robustness_is_that_of_the_trace_of_signals(played):
    env, verdicts, (_, (step, gauges, _)), _ = played
    horizon = 4
    seen = np.zeros(len(SPECS), bool)
    for lane in range(verdicts.shape[1]):
        own = jax.tree.map(lambda leaf, lane=lane: np.asarray(leaf)[:, lane], step)
        trace = signals(np.asarray(verdicts)[:, lane], own, np.asarray(gauges["exposed_s"])[:, lane])
        for i, spec in enumerate(env.specs):
            expected = np.clip(robustness(spec.normalised, trace), -1, 1)
            found = own.robustness[:, i]
            if spec.name == "answered_soon":
                assert (found[:horizon] == 1).all()
                expected, found = expected[:-horizon], found[horizon:]
            np.testing.assert_allclose(found, expected, atol=1e-5)
            seen[i] |= (expected < 0).any() and (expected > 0).any()
    assert seen.all(), "each of them is violated at times and kept at times"


def test_violations_cost_their_prices_and_change_nothing_else(played):
    _, _, (_, (step, _, _)), (_, (bare, _, _)) = played
    prices = np.array([1.0, 2.0, 4.0, 8.0, 16.0])
    price = ((np.asarray(step.robustness) < 0) * prices).sum(axis=-1)
    np.testing.assert_allclose(step.reward, np.asarray(bare.reward) - price, rtol=1e-5, atol=1e-4)
    for name in ("terminated", "truncated", "truth", "score", "credit"):
        for ours, theirs in zip(
            jax.tree.leaves(getattr(step, name)), jax.tree.leaves(getattr(bare, name)), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)


def test_members_see_the_margins_that_they_can_know_and_critics_all(played):
    env, _, (first, (step, _, core)), (_, (bare, _, inner_core)) = played
    assert env.spec.numeric[-1].name == "margin_budget"
    assert len(env.spec.numeric) == len(env.inner.spec.numeric) + 1
    np.testing.assert_array_equal(step.observation.numeric[..., :-1], bare.observation.numeric)
    np.testing.assert_array_equal(step.observation.numeric[..., -1], step.robustness[..., OBSERVED])
    np.testing.assert_array_equal(first.numeric[..., -1], 1.0)
    np.testing.assert_array_equal(core, np.concatenate([inner_core, step.robustness], axis=-1))
    assert env.spec.n_core == env.inner.spec.n_core + len(SPECS) == core.shape[-1]


def test_watching_alone_shows_nothing():
    inner = Simulator(SMALL)
    env = Constrained(inner, SPECS, shown=False)
    assert env.spec == inner.spec
    state, observation = eqx.filter_eval_shape(env.reset, jax.random.key(0))
    assert observation.numeric.shape == (len(inner.spec.numeric),)
    assert eqx.filter_eval_shape(env.core, state).shape == (inner.spec.n_core,)


def test_the_contract_of_environments():
    specs = parse_specs("@spec a\nsum(answered, 5) <= 2\n@spec b\nthreat > .5 -> eventually[0,3] caught > .5")
    check_contract(Constrained(ToyEnv(episode_events=16), specs))


def test_an_automatic_reset_forgets_what_was_violated():
    env = Constrained(ToyEnv(episode_events=4), parse_specs("@spec few\nsum(restricted, 9) <= 1"))
    state, _ = jax.vmap(env.reset)(jax.random.split(jax.random.key(0), 2))
    found = []
    advance = eqx.filter_jit(auto_reset_step)
    for t in range(8):
        keys = jax.random.split(jax.random.key(t), 2)
        state, step, _ = advance(env, state, jnp.full(2, 2, jnp.int32), keys)
        found.append(float(step.robustness[0, 0]))
    assert found == [0.0, -1.0, -1.0, -1.0, 0.0, -1.0, -1.0, -1.0]


def test_the_world_beneath_is_reached():
    env = Constrained(Simulator(SMALL), SPECS)
    assert isinstance(unconstrained(env), Simulator)
    assert unconstrained(Constrained(env, SPECS)) is env.inner
    calm = env.peaceful().inner
    assert isinstance(calm, Simulator) and not calm.config.attacked
    state, _ = env.reset(jax.random.key(0))
    assert int(env.pending(state).label) == int(env.inner.pending(state.inner).label)
    assert int(env.learned_label(state)) == int(env.inner.learned_label(state.inner))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("@spec a\nexposed_s <= 3", "unknown signal in specification 'a' for this environment: 'exposed_s'"),
        ("@spec a\nrestrictd > .5", "did you mean 'restricted'"),
        ("@spec a\neventually restricted > .5", "no bound"),
    ],
)
def test_specifications_that_cannot_be_watched_are_refused(text, message):
    with pytest.raises(UsageError, match=message):
        Constrained(ToyEnv(), parse_specs(text))


def test_exposure_begins_anew_where_a_contained_campaign_comes_back() -> None:
    """Along played episodes, against a loop over what happened: shown events of each campaign, and containments."""
    config = replace(SMALL, attack=replace(SMALL.attack, reentry=1.0, reentry_s=10.0))
    env = Simulator(config)
    lanes, steps = 8, 190
    keys = jax.random.split(jax.random.key(8), (steps, lanes))
    chance = jnp.log(jnp.array([0.9, 0.0, 0.0, 0.1]))
    verdicts = jax.random.categorical(jax.random.key(9), chance, shape=(steps, lanes)).astype(jnp.int32)

    @eqx.filter_jit
    def run() -> Any:
        def step(state: Any, given: Any) -> Any:
            after, outcome = jax.vmap(env.step)(state, *given)
            kept = (
                after.event,
                after.campaigns.stopped,
                after.campaigns.returned,
                jax.vmap(env.gauges)(after),
            )
            return after, (kept, outcome.done)

        state, _ = jax.vmap(env.reset)(jax.random.split(jax.random.key(7), lanes))
        return state.event, jax.lax.scan(step, state, (verdicts, keys))[1]

    first, ((event, stopped, returned, gauges), done) = jax.tree.map(np.asarray, run())
    again = 0
    for lane in range(lanes):
        since: dict[int, float] = {}
        if first.campaign[lane] >= 0:
            since[int(first.campaign[lane])] = float(first.time_s[lane])
        was = np.zeros(stopped.shape[-1], bool)
        for t in range(steps):
            if done[:t, lane].any():
                break
            for c in range(stopped.shape[-1]):
                if stopped[t, lane, c] or (returned[t, lane, c] and not was[c]):
                    again += (c in since) and bool(returned[t, lane, c]) and not was[c]
                    since.pop(c, None)
            was = returned[t, lane]
            now, c = float(event.time_s[t, lane]), int(event.campaign[t, lane])
            if c >= 0 and not stopped[t, lane, c]:
                since.setdefault(c, now)
            expected = max((now - each for each in since.values()), default=0.0)
            assert gauges["exposed_s"][t, lane] == pytest.approx(expected, abs=1e-3)
    assert again > 3


def test_every_signal_is_told():
    env = Simulator(SMALL)
    state, _ = env.reset(jax.random.key(0))
    check_signals("all", SIGNALS, env.gauges(state))
    texts = "\n".join(f"@spec s_{name}\n{name} >= 0" for name in SIGNALS)
    constrained = Constrained(env, parse_specs(texts))
    _, step = constrained.step(constrained.reset(jax.random.key(0))[0], jnp.int32(1), jax.random.key(1))
    assert np.isfinite(np.asarray(step.robustness)).all() and step.robustness.shape == (len(SIGNALS),)
