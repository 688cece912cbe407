"""A run under specifications from training to evaluation, and a shield before its verdicts."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runtime.committees import ForkingToy, committee_of

from phalanx.envs.constrained import Constrained
from phalanx.envs.simulator import Simulator
from phalanx.errors import RunError, UsageError
from phalanx.runtime.config import RunConfig
from phalanx.runtime.cut import cut_of
from phalanx.runtime.decide import decide_events, init_guard, shield_inputs, shielded
from phalanx.runtime.episodes import run_episodes
from phalanx.runtime.evaluate import evaluate
from phalanx.runtime.league import committee_families
from phalanx.runtime.policies import CommitteePolicy
from phalanx.runtime.store import RunFolder
from phalanx.runtime.task import build_task
from phalanx.runtime.train import train
from phalanx.runtime.validation import CLOSED_LOOP, THRESHOLDS
from phalanx.stl.shield import Shield
from phalanx.stl.specs import parse_specs

BUDGET = "always (sum(answered, 4) <= 1)"


@pytest.fixture(scope="module")
def env() -> ForkingToy:
    return ForkingToy(episode_events=24)


def test_the_verdict_voted_for_stands_where_the_shield_allows_it(env: ForkingToy) -> None:
    committee = committee_of(env)
    keeper = Shield([("budget", BUDGET, 1), ("sure", "always (suspicion > .5 -> next answered > .5)", 2)])
    guarded = shielded(committee, keeper)
    lanes = 16
    _, seen = jax.vmap(env.reset)(jax.random.split(jax.random.key(1), lanes))
    policy, plain = (CommitteePolicy(c, jnp.float32(0.4), 4) for c in (guarded, committee))
    table, guard, _ = policy.init(lanes)
    assert plain.init(lanes)[1] is None
    changed = 0
    for t in range(12):
        bare, _, voted, opinion = decide_events(committee, table, seen, jnp.int32(t), threshold=0.4)
        inputs = {"suspicion": shield_inputs(committee, seen, opinion.log_probs)["suspicion"]}
        allowed = np.asarray(keeper.mask(guard, inputs))
        table, guard, decision, _ = decide_events(
            guarded, table, seen, jnp.int32(t), threshold=0.4, guard=guard
        )
        assert not voted.shielded.any()
        np.testing.assert_array_equal(bare.cells, table.cells)
        preference = np.sort(np.asarray(opinion.log_probs), axis=0)[1:3].mean(axis=0)
        for lane in range(lanes):
            wanted, got = int(voted.action[lane]), int(decision.action[lane])
            assert allowed[lane, got]
            assert got == wanted or not allowed[lane, wanted]
            if got != wanted:
                best = preference[lane][allowed[lane]].max()
                assert preference[lane, got] == pytest.approx(best, rel=1e-5)
            assert bool(decision.shielded[lane]) == (got != wanted)
            changed += got != wanted
        np.testing.assert_array_equal(decision.votes, voted.votes)
    assert changed > 0


def test_played_episodes_keep_what_the_shield_keeps(env: ForkingToy) -> None:
    specs = parse_specs("@spec budget\nsum(answered, 4) <= 1")
    loop = Constrained(env, specs, shown=False)
    committee = committee_of(env)
    key, lowest = jax.random.key(3), []
    for each in (committee, shielded(committee, Shield([("budget", BUDGET, 1)]))):
        course = run_episodes(loop, CommitteePolicy(each, jnp.float32(0.3), 4), key, n_envs=6, steps=24)
        assert course.robustness.shape == (24, 6, 1)
        answered = np.pad(np.asarray(course.verdict) >= 1, ((4, 0), (0, 0)))
        most = max(answered[t : t + 5].sum(axis=0).max() for t in range(24))
        lowest.append(course.robustness.min())
        assert (most <= 1) == (lowest[-1] >= 0.0)
    assert lowest[0] < 0.0 <= lowest[1]


def test_what_the_shield_changed_is_counted_while_episodes_run(env: ForkingToy) -> None:
    guarded, lanes = shielded(committee_of(env), Shield([("budget", BUDGET, 1)])), 6
    policy, key = CommitteePolicy(guarded, jnp.float32(0.3), 4), jax.random.key(3)
    course = run_episodes(env, policy, key, n_envs=lanes, steps=30)
    key_reset, key_steps = jax.random.split(key)
    state, seen = jax.vmap(env.reset)(jax.random.split(key_reset, lanes))
    table, guard, _ = policy.init(lanes)
    counted = 0
    for t in range(24):  # an episode's events
        table, guard, decision, _ = decide_events(
            guarded, table, seen, jnp.int32(t), threshold=0.3, guard=guard
        )
        for lane in range(lanes):
            counted += bool(decision.shielded[lane])
            assert course.shielded is not None and course.shielded[t, lane] == decision.shielded[lane]
        keys = jax.random.split(jax.random.split(jax.random.fold_in(key_steps, t))[1], lanes)
        state, step = jax.vmap(env.step)(state, decision.action, keys)
        seen = step.observation
    assert 0 < counted < 24 * lanes
    assert course.changed == pytest.approx(counted / (24 * lanes))
    plain = CommitteePolicy(committee_of(env), jnp.float32(0.3), 4)
    free = run_episodes(env, plain, key, n_envs=lanes, steps=30)
    assert free.shielded is None and free.changed is None


def test_a_shield_reads_what_members_are_shown(env: ForkingToy) -> None:
    committee = committee_of(env)
    assert init_guard(committee, 3) is None
    with pytest.raises(UsageError, match="'protected'.*suspicion, mark, noise"):
        shielded(committee, Shield([("ban", "always (protected > .5 -> severity < 2.5)", 1)]))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "kept"
    small: dict[str, Any] = {"envs": 4, "steps": 16, "hidden": 8, "memory": 8, "episode_events": 64}
    train(RunConfig(specs=Path("office"), iterations=2, checkpoint_every=1, out=out, **small))
    config = RunConfig.of(RunFolder.open(out).config())
    train(RunConfig.of({**config.to_dict(), "iterations": 3}), resume=out)
    return out


@pytest.mark.slow
def test_it_keeps_its_specifications_and_goes_on_with_them(run: Path) -> None:
    folder = RunFolder.open(run)
    names = [spec.name for spec in folder.read_specs()]
    assert names == ["containment", "response", "false_blocks", "availability", "alert_budget"]
    rows = folder.read_metrics()
    assert [row["iteration"] for row in rows] == [1, 2, 3]
    for name in names:
        assert 0.0 <= rows[-1][f"stl/violated_{name}"] <= 1.0
        assert rows[-1][f"stl/multiplier_{name}"] >= 0.0
        assert 0.0 <= rows[-1][f"eval/satisfied_{name}"] <= 1.0


@pytest.mark.slow
def test_where_it_answers_is_chosen_once_training_has_ended_or_when_it_goes_on(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = RunFolder.open(run)
    point = folder.read_operating_point()
    cut = cut_of(point)
    assert cut is not None and cut in THRESHOLDS and point["threshold_source"] == CLOSED_LOOP
    assert point["eval/threshold"] == cut.alert
    done = RunConfig.of(folder.config())
    folder.write_operating_point(
        {**point, "threshold": 0.4, "alert_threshold": 0.3, "threshold_source": "killed before"}
    )
    with caplog.at_level("INFO", "phalanx"):
        train(done, resume=run)
        assert folder.read_operating_point() == point
        train(done, resume=run)
    said = [record.message for record in caplog.records if "answers from" in record.message]
    told = f"seed 0: alerts from P = {cut.alert:.2f} on, answers from {cut.answer:.2f} on"
    assert said == [f"{told} (validation, closed loop)"]


@pytest.mark.slow
def test_it_is_measured_by_them_and_by_others(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("phalanx.runtime.yardstick._PROBE_EPISODES", 8)
    own = json.loads(json.dumps(evaluate(run, episodes=12), allow_nan=False))
    assert own["specs"].keys() == {spec.name for spec in RunFolder.open(run).read_specs()}
    for found in own["specs"].values():
        assert 0.0 <= found["satisfied"] <= found["steps_satisfied"] <= 1.0
        assert -1.0 <= found["robustness_min"] <= 1.0
        assert 0.9 <= found["forecast"]["guaranteed"] <= 1.0
    other = evaluate(run, episodes=12, specs=Path("office"), shield=Path("shield"))
    assert own["shield"] is None and 0.0 <= other["shield"]["changed"] <= 1.0
    assert other["shield"]["file"] == "shield" and other["specs"].keys() == own["specs"].keys()
    assert other["f1"] == own["f1"], "detection is open loop, before any shield"


@pytest.mark.slow
def test_where_its_margins_cannot_be_shown_it_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="recorded events do not have"):
        evaluate(run, data=tmp_path / "events.parquet")
    env = build_task(RunConfig(episode_events=64)).test.act
    assert isinstance(env, Simulator)
    with pytest.raises(RunError, match="these worlds show none"):
        list(committee_families(run, env))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"multipliers": False}, "nothing that could have a price"),
        ({"specs": Path("office"), "credit": "own"}, "heed no price"),
    ],
)
def test_prices_that_nothing_heeds_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        RunConfig(**settings)


def test_specifications_need_the_simulator(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="needs the simulator"):
        RunConfig(env="replay", data=(tmp_path / "x.csv",), specs=Path("office"))
