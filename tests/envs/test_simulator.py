"""The simulator as an environment: its contract, equal bits wherever it runs, equal attackers for all policies."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.contract import check_contract
from envs.simulated import (
    ALLOW,
    FAULTY,
    ORACLE,
    SMALL,
    Episodes,
    answers,
    episodes,
    random_answers,
    roll,
)

from phalanx.envs.base import Environment
from phalanx.envs.scenarios import SCENARIOS
from phalanx.envs.sim_campaign import AttackConfig, attack_draws
from phalanx.envs.sim_vocabulary import observe
from phalanx.envs.simulator import Simulator, SimulatorConfig
from phalanx.errors import UsageError
from phalanx.types import ObservationSpec, Score, Verdict

CONTRACT = ("noisy", "single-host", "server-farm", "unseen")
TESTS = Path(__file__).resolve().parent.parent
BATCH, STEPS, ALONE = 1024, 48, (0, 511, 1023)
ESTIMATES = ("[1][1]", "[1][2].credit")
"""What the critic is told and the verdicts' worth: no part of what happens. Unbatched, their last bits may differ."""


@pytest.fixture
def quick_compile() -> Iterator[None]:
    """A step compiles three times as fast without the compiler's optimizations."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.mark.parametrize(
    "name", [CONTRACT[0], *(pytest.param(n, marks=pytest.mark.slow) for n in CONTRACT[1:])]
)
def test_scenarios_keep_the_contract(name: str) -> None:
    config = SCENARIOS[name].config
    attack = replace(config.attack, onset_share=0.1, pace=(0.01, 0.05))
    check_contract(Simulator(replace(config, episode_events=32, attack=attack)), n_steps=40)


# --- equal bits -----------------------------------------------------------------------------------------------------


def _course(env: Simulator, key: Any, table: Any) -> Any:
    """One episode as it ships: everything that learners and evaluators see of it."""

    def body(state: Any, index: Any) -> Any:
        key_answer, key_step = jax.random.split(jax.random.fold_in(key, index))
        odds = jnp.log(table[(state.event.campaign >= 0).astype(jnp.int32)])
        verdict = jax.random.categorical(key_answer, odds).astype(jnp.int32)
        core = env.core(state)
        after, step = env.step(state, verdict, key_step)
        return after, (verdict, core, step)

    state, first = env.reset(key)
    return first, jax.lax.scan(body, state, jnp.arange(STEPS))[1]


_BATCH = eqx.filter_jit(jax.vmap(_course, in_axes=(None, 0, 0)))
_SINGLE = eqx.filter_jit(_course)


def fingerprints(config: SimulatorConfig, alone: tuple[int, ...] = ()) -> dict[str, list[str]]:
    """SHA-256 of every leaf of the transitions, by episode: of one batch, or of single episodes of it by themselves."""
    env, keys = Simulator(config), jax.random.split(jax.random.key(7), BATCH)
    tables = jnp.asarray(random_answers(np.random.default_rng(7), BATCH))
    if alone:
        runs = [jax.tree.map(np.asarray, _SINGLE(env, keys[i], tables[i])) for i in alone]
        found = jax.tree.map(lambda *leaves: np.stack(leaves), *runs)
    else:
        found = jax.tree.map(np.asarray, _BATCH(env, keys, tables))
    leaves = jax.tree_util.tree_leaves_with_path(found)
    return {
        jax.tree_util.keystr(path): [hashlib.sha256(episode.tobytes()).hexdigest() for episode in leaf]
        for path, leaf in leaves
    }


def test_estimates_are_the_same_alone_but_for_the_last_bits() -> None:
    env, keys = Simulator(FAULTY), jax.random.split(jax.random.key(7), BATCH)
    tables = jnp.asarray(random_answers(np.random.default_rng(7), BATCH))
    _, (_, core, steps) = _BATCH(env, keys, tables)
    for index in ALONE:
        _, (_, own, step) = _SINGLE(env, keys[index], tables[index])
        np.testing.assert_allclose(own, core[index], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(step.credit, steps.credit[index], rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("world", ["FAULTY", pytest.param("SMALL", marks=pytest.mark.slow)])
def test_equal_bits_alone_in_a_batch_and_in_another_process(world: str) -> None:
    """All that is seen, done and scored, rewards and features included; estimates for the critic are compared below."""
    config = {"FAULTY": FAULTY, "SMALL": SMALL}[world]
    batch = fingerprints(config)
    assert len(batch) > 30 and len(set(batch["[1][1]"])) == BATCH, "1,024 episodes that differ"
    alone = fingerprints(config, ALONE)
    different = {name for name, hashes in alone.items() if hashes != [batch[name][i] for i in ALONE]}
    assert different <= set(ESTIMATES), f"alone: {different}"
    cache_folder = jax.config.values["jax_compilation_cache_dir"]
    code = (
        f"import json, jax; jax.config.update('jax_compilation_cache_dir', {cache_folder!r});"
        f"from envs.simulated import {world}; from envs.test_simulator import fingerprints;"
        f"print(json.dumps(fingerprints({world})))"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")]),
    }
    there = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    other = json.loads(there.stdout.splitlines()[-1])
    assert not [name for name, hashes in other.items() if hashes != batch[name]]


# --- equal attackers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [SMALL, FAULTY], ids=["small", "faulty"])
def test_policies_see_the_same_world_until_their_answers_differ(config: SimulatorConfig) -> None:
    quiet, busy = episodes(config, "allow"), episodes(config, "random")
    apart = np.cumsum(quiet.verdict != busy.verdict, axis=0)
    same = np.concatenate([np.ones_like(apart[:1], bool), apart[:-1] == 0])
    assert 0.02 < same.mean() < 0.5
    for left, right in zip(jax.tree.leaves(quiet.state), jax.tree.leaves(busy.state), strict=True):
        np.testing.assert_array_equal(left[same], right[same])


@pytest.mark.parametrize("config", [SMALL, FAULTY], ids=["small", "faulty"])
def test_no_answer_changes_how_an_attacker_is(config: SimulatorConfig) -> None:
    runs = [episodes(config, name) for name in ("allow", "random", "block", "oracle")]
    for name in ("key", "route", "base", "chance", "return_s", "pace", "stealth", "failure", "patience"):
        drawn = getattr(runs[0].state.campaigns, name)[0]
        for run in runs:
            values = getattr(run.state.campaigns, name)
            np.testing.assert_array_equal(values, np.broadcast_to(drawn, values.shape))


@pytest.mark.parametrize("config", [SMALL, FAULTY], ids=["small", "faulty"])
def test_answers_before_the_onset_do_not_move_it(config: SimulatorConfig) -> None:
    """Until a campaign's first attempt the time of that stands, whatever is answered; none comes earlier."""
    runs, held = [episodes(config, name) for name in ("allow", "random", "block")], 0
    for run in runs:
        k = run.state.campaigns
        due = runs[0].state.campaigns.next_s[0]
        untried = (k.attempts == 0) & ~k.returned & ~k.stopped
        np.testing.assert_array_equal(k.next_s[untried], np.broadcast_to(due, k.next_s.shape)[untried])
        assert (k.first_s >= np.where(np.isfinite(k.first_s), due, 0.0)).all()
        held += int(untried.sum())
    assert held > 5000


def _attempts(run: Episodes) -> dict[tuple[int, int, int], tuple[float, int]]:
    """(episode, campaign, attempt) -> the draws that its event shows of itself."""
    event, found = run.state.event, {}
    for t, e in np.argwhere((event.campaign >= 0) & run.live & ~event.duplicate):
        c = int(event.campaign[t, e])
        attempt = int(run.state.campaigns.attempts[t, e, c])
        found[int(e), c, attempt] = (float(event.wait[t, e]), int(event.variant[t, e]))
    return found


@pytest.mark.parametrize("config", [SMALL, FAULTY], ids=["small", "faulty"])
def test_an_attempts_draws_are_the_same_whatever_was_answered(config: SimulatorConfig) -> None:
    runs = [episodes(config, name) for name in ("allow", "random", "block", "oracle")]
    shown = [_attempts(run) for run in runs]
    for other in shown[1:]:
        common = shown[0].keys() & other.keys()
        assert len(common) > 100 and all(shown[0][at] == other[at] for at in common)
    key = jax.random.wrap_key_data(jnp.asarray(runs[0].state.campaigns.key[0, 5]))
    for (env, c, attempt), (wait, _) in shown[0].items():
        if env == 5:
            assert wait == float(attack_draws(key, jnp.int32(c), jnp.int32(attempt))[13])


def test_draws_depend_on_the_campaign_and_the_attempt_alone() -> None:
    key = jax.random.key(3)
    first = attack_draws(key, jnp.int32(0), jnp.int32(5))
    np.testing.assert_array_equal(first, attack_draws(key, jnp.int32(0), jnp.int32(5)))
    others = [attack_draws(key, jnp.int32(1), jnp.int32(5)), attack_draws(key, jnp.int32(0), jnp.int32(6))]
    assert all((np.asarray(first) != np.asarray(other)).all() for other in others)


# --- labels, reward, score ------------------------------------------------------------------------------------------


@cache
def _observer() -> Any:
    env = Simulator(SMALL)
    return eqx.filter_jit(
        jax.vmap(
            lambda tables, lookup, world, response, event: observe(
                env.config.response, env.encoder, tables, lookup, world, response, event
            )[1],
            in_axes=(None, None, 0, 0, 0),
        )
    )


def test_labels_do_not_show() -> None:
    """Campaigns under other numbers, or none, leave what is observed as it is."""
    env, run = Simulator(SMALL), episodes(SMALL, "random")
    at = jax.tree.map(lambda x: x[::8].reshape(-1, *x.shape[2:]), run.state)
    assert (at.event.campaign == 0).sum() > 100 and (at.event.campaign == 1).sum() > 50
    swapped = np.array([1, 0, -1], np.int32)  # the last one stands for no campaign
    for owners, event in (
        (swapped[at.world.campaign], swapped[at.event.campaign]),
        (np.full_like(at.world.campaign, -1), np.full_like(at.event.campaign, -1)),
        (np.zeros_like(at.world.campaign), np.ones_like(at.event.campaign)),
    ):
        none = np.full_like(event, -1)
        renamed = eqx.tree_at(
            lambda s: (s.world.campaign, s.event.campaign, s.event.stage, s.event.cause, s.event.effective),
            at,
            (owners, event, none, none, ~at.event.effective),
        )
        views = [
            _observer()(env.tables, env.lookup, *jax.tree.map(jnp.asarray, (s.world, s.response, s.event)))
            for s in (at, renamed)
        ]
        for left, right in zip(*map(jax.tree.leaves, views), strict=True):
            np.testing.assert_array_equal(left, right)


class Unrewarded(Environment):
    """The simulator with a reward of zero."""

    inner: Simulator
    config: SimulatorConfig = eqx.field(static=True)
    spec: ObservationSpec = eqx.field(static=True)
    episode_events: int = eqx.field(static=True)

    def __init__(self, inner: Simulator) -> None:
        self.inner, self.spec, self.episode_events = inner, inner.spec, inner.episode_events
        self.config = replace(inner.config)  # a copy: a program of its own

    def reset(self, key: Any) -> Any:
        return self.inner.reset(key)

    def pending(self, state: Any) -> Any:
        return self.inner.pending(state)

    def step(self, state: Any, verdict: Any, key: Any) -> Any:
        after, step = self.inner.step(state, verdict, key)
        return after, eqx.tree_at(lambda s: s.reward, step, jnp.zeros_like(step.reward))


def test_the_score_does_not_rest_on_the_reward() -> None:
    paid = episodes(FAULTY, "random")
    unpaid = roll(
        Unrewarded(Simulator(FAULTY)), jax.random.key(0), random_answers(np.random.default_rng(0), 128)
    )
    assert (unpaid.step.reward == 0).all() and (paid.step.reward < 0).mean() > 0.02
    for name in Score.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(paid.step.score, name), getattr(unpaid.step.score, name))


RIVALS = {
    "allow": ALLOW,
    "alert": ((0.0, 1.0, 0.0, 0.0),) * 2,
    "block": ((0.0, 0.0, 1.0, 0.0),) * 2,
    "quarantine": ((0.0, 0.0, 0.0, 1.0),) * 2,
    "random": ((0.25, 0.25, 0.25, 0.25),) * 2,
    "mild": ((0.94, 0.02, 0.02, 0.02),) * 2,
    "targeted": ((0.98, 0.01, 0.005, 0.005), (0.4, 0.2, 0.2, 0.2)),
}


def _losses(config: SimulatorConfig, n_envs: int) -> tuple[dict[str, np.ndarray], Episodes]:
    """Loss at the end of each episode, by policy, on the same episodes; the oracle's is the first."""
    tables = {"oracle": ORACLE, **RIVALS}
    run = roll(
        Simulator(config), jax.random.key(4), answers(*tables.values(), n_envs=n_envs), copies=len(tables)
    )
    last = run.live.sum(axis=0) - 1
    loss = run.step.score.loss[last, np.arange(len(last))].reshape(len(tables), n_envs)
    return dict(zip(tables, loss, strict=True)), run


def _check_oracle(config: SimulatorConfig, n_envs: int) -> dict[str, np.ndarray]:
    losses, _ = _losses(config, n_envs)
    if config.late == 0.0:
        assert (losses["oracle"] == 0.0).all()
    for name in RIVALS:
        assert (losses["oracle"] <= losses[name]).all(), name
    return losses


@pytest.mark.parametrize("config", [SMALL, FAULTY], ids=["small", "faulty"])
def test_the_oracle_is_beaten_on_no_episode(config: SimulatorConfig) -> None:
    losses = _check_oracle(config, 16)  # 128 episodes in all: the program that the other tests run
    assert losses["allow"].mean() > 100 and losses["targeted"].mean() < losses["allow"].mean()
    assert all((losses[name] > 0).mean() > 0.9 for name in RIVALS)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, each in SCENARIOS.items() if each.base_rate is None])
def test_the_oracle_is_beaten_on_no_episode_of_a_scenario(name: str) -> None:
    losses = _check_oracle(SCENARIOS[name].config, 16)
    assert losses["allow"].mean() > 10 and losses["block"].mean() > losses["allow"].mean()


# --- episodes -------------------------------------------------------------------------------------------------------


def test_episodes_end_with_a_complete_campaign_or_with_their_events() -> None:
    run = episodes(SMALL, "allow")
    terminated, truncated = run.step.terminated & run.live, run.step.truncated & run.live
    assert not (terminated & truncated).any() and terminated.any() and truncated.any()
    assert (run.step.score.events[truncated] == SMALL.episode_events).all()
    assert (run.step.score.damage[terminated] >= SMALL.attack.final_damage).all()


@pytest.mark.slow
def test_peace_has_no_campaigns() -> None:
    run = roll(
        Simulator(replace(SMALL, attacked=False)), jax.random.key(0), answers(ALLOW, n_envs=16), steps=96
    )
    assert (run.state.event.campaign == -1).all() and (run.step.score.loss == 0).all()
    assert (run.step.score.campaigns == 0).all() and not run.step.terminated.any()


def test_ids_and_numbers_are_in_range() -> None:
    spec, shown = Simulator(SMALL).spec, episodes(SMALL, "random").step.observation
    sizes = np.array([column.size for column in spec.categorical])
    assert (shown.category >= 1).all() and (shown.category < sizes).all(), "all are known ones"
    assert shown.numeric.shape[-1] == len(spec.numeric)
    assert np.isfinite(shown.numeric).all() and np.abs(shown.numeric).max() <= 8
    assert (shown.entity < spec.n_entities).all()


@pytest.mark.parametrize("poison", [0.0, 0.3])
def test_poison_turns_labels_and_worth_but_neither_truth_nor_score(poison: float) -> None:
    env, clean = Simulator(replace(SMALL, poison=poison)), episodes(SMALL, "allow")
    at = jax.tree.map(lambda x: jnp.asarray(x[::16, :64].reshape(-1, *x.shape[2:])), clean.state)
    keys = jax.random.wrap_key_data(at.campaigns.key)
    at = eqx.tree_at(lambda s: s.campaigns.key, at, keys)
    learned = np.asarray(jax.vmap(env.learned_label)(at))
    truth = np.asarray(jax.vmap(env.pending)(at).label)
    np.testing.assert_array_equal(truth, np.asarray(at.event.campaign) >= 0)
    assert abs((learned != truth).mean() - poison) < (0.05 if poison else 1e-9)


@pytest.mark.usefixtures("quick_compile")
def test_a_step_compiles_once() -> None:
    env, traces = Simulator(SMALL), []

    @eqx.filter_jit
    def step(env: Simulator, state: Any, verdict: jax.Array, key: jax.Array) -> Any:
        traces.append(1)
        return env.step(state, verdict, key)

    state, _ = env.reset(jax.random.key(0))
    for verdict in Verdict:
        state, _ = step(env, state, jnp.int32(verdict), jax.random.key(verdict))
    assert len(traces) == 1


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"n_hosts": 0}, "n_hosts=0"),
        ({"slots_per_host": 9}, "slots_per_host=9"),
        ({"slots_per_host": 32}, "slots_per_host=32"),
        ({"attack": AttackConfig(fewest=3, most=2)}, "from 3 to 2"),
        ({"attack": AttackConfig(fewest=0, most=0)}, "most >= 1"),
        ({"roles": (1.0, 1.0)}, "roles"),
        ({"roles": (0.0,) * 5}, "roles"),
        *(
            ({name: 1.5}, f"{name}=1.5")
            for name in ("drift", "rollout", "lost", "duplicated", "late", "poison")
        ),
    ],
)
def test_an_impossible_configuration_is_named(wrong: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        SimulatorConfig(**wrong)
