"""The original's run on made-up columns: targets by a plain loop, files, resumption, evaluation; on its own data."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from phalanx.agents.normalizer import init_normalizer
from phalanx.envs.original import FEATURES, OriginalConfig, OriginalEnv
from phalanx.errors import UsageError
from phalanx.runtime.config import RunConfig
from phalanx.runtime.evaluate import evaluate
from phalanx.runtime.original import _follow, _play, _targets, check_original, init_original_state
from phalanx.runtime.original_judge import judge, majority
from phalanx.runtime.task import build_task
from phalanx.runtime.train import train
from phalanx.runtime.watch import ballot

N_ROWS = 600
SMALL = {"hidden": 8, "memory": 6, "steps": 50, "episode_events": 20, "epochs": 3, "eval_every": 2}


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    rng = np.random.default_rng(0)
    columns = {name: rng.integers(0, 90, N_ROWS) for name in FEATURES} | {"src_port": np.zeros(N_ROWS, int)}
    path = tmp_path_factory.mktemp("data") / "rows.parquet"
    pl.DataFrame(
        {
            "time_ns": np.zeros(N_ROWS, np.int64),
            "subject": [f"p{i % 7}" for i in range(N_ROWS)],
            "kind": ["READ"] * N_ROWS,
            "label": (rng.random(N_ROWS) < 0.3).astype(np.int8),
            **columns,
        }
    ).write_parquet(path)
    return path


def _config(table=None, **settings):
    data = () if table is None else (table,)
    return dataclasses.replace(RunConfig.preset_named("original"), data=data, **(SMALL | settings))


def _metrics(path):
    rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "wall_s"} for row in rows]


@pytest.fixture(scope="module")
def run(table, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "whole"
    summary = train(_config(table, normalizer="batch", iterations=2, out=path))
    return path, summary


def test_a_run_writes_what_others_read(run):
    path, summary = run
    assert summary["env_steps"] == 100
    first, last = _metrics(path)
    assert {
        "loss/value",
        "loss/policy",
        "value/explained_variance",
        "policy/entropy",
        "policy/approx_kl",
        "policy/first_ratio_error",
        "reward/episode",
        *(f"policy/rate_{name}" for name in ("allow", "alert", "block", "quarantine")),
        *(f"stl/robustness_{name}" for name in ("response_time", "threat", "rates", "resources")),
        *(f"member/{i}/loss/value" for i in range(3)),
    } <= set(first)
    assert "eval/tp" not in first
    n_validation = round(0.15 * N_ROWS)
    assert sum(last[f"eval/{name}"] for name in ("tp", "tn", "fp", "fn")) == n_validation
    assert first["loss/value"] == pytest.approx(1.0, abs=0.2)  # unit variance, a critic that knows nothing
    assert first["policy/first_ratio_error"] > 1e-3
    rates = [first[f"policy/rate_{name}"] for name in ("allow", "alert", "block", "quarantine")]
    assert sum(rates) == pytest.approx(1.0, abs=1e-5)


def test_a_resumed_run_is_the_run(run, table, tmp_path):
    path, _ = run
    part = tmp_path / "part"
    config = _config(table, normalizer="batch", iterations=2, checkpoint_every=1, out=part)
    train(dataclasses.replace(config, iterations=1))
    train(config, resume=part)
    whole, resumed = _metrics(path), _metrics(part)
    validated = {name for row in resumed for name in row if name.startswith("eval/")}
    plain = [{k: v for k, v in row.items() if k not in validated} for row in resumed]
    assert plain == [{k: v for k, v in row.items() if k not in validated} for row in whole]
    newest = [sorted((folder / "checkpoints").glob("2.eqx"))[0].read_bytes() for folder in (path, part)]
    assert newest[0] == newest[1]


@pytest.mark.slow
def test_seeds_side_by_side_are_runs_of_their_own(run, table, tmp_path):
    path, _ = run
    train(_config(table, normalizer="batch", iterations=2, seeds=2, out=tmp_path / "two"))
    alone, beside = _metrics(path), _metrics(tmp_path / "two" / "seed-0")
    other = _metrics(tmp_path / "two" / "seed-1")
    for name in ("loss/value", "reward/step", "policy/entropy"):
        assert beside[0][name] == pytest.approx(alone[0][name], rel=1e-4)
        assert other[0][name] != alone[0][name]


def test_evaluation_is_greedy_and_without_response(run):
    path, _ = run
    found = evaluate(path, positive="restrict")
    assert found["threshold"] is None
    assert found["threshold_source"] == "none (greedy)"
    assert found["damage_prevented"] is None and found["availability"] is None
    assert found["tp"] + found["tn"] + found["fp"] + found["fn"] == found["events"] == 91
    assert found["committee"]["n"] == 3 and found["committee"]["f"] == 0
    assert set(found["specs"]) == {"response_time", "threat", "rates", "resources"}
    assert found["specs"]["resources"] == {
        "satisfied": 1.0,
        "steps_satisfied": 1.0,
        "robustness_min": pytest.approx(0.1, abs=0.05),
    }
    assert {"always-allow", "always-block"} <= set(found["baselines"])
    alerts = evaluate(path)
    assert alerts["tp"] + alerts["fp"] >= found["tp"] + found["fp"]


def test_other_columns_can_be_shown(table):
    task = build_task(_config(table, features=("file_size", "subject")))
    assert task.encoder.scaling == "max"
    assert [column.name for column in task.learn.spec.numeric] == ["subject", "file_size"]
    assert isinstance(task.learn, OriginalEnv)
    features = np.asarray(task.learn.features)
    assert features.max(axis=0).tolist() == [1.0, 1.0]
    assert len(np.unique(features[:, 0])) == 7


def _env(n_rows=300):
    rng = np.random.default_rng(1)
    columns = {name: rng.integers(0, 90, n_rows) for name in FEATURES}
    return OriginalEnv(columns, (rng.random(n_rows) < 0.3).astype(int), OriginalConfig(episode_events=20))


def test_rows_are_judged_in_the_order_of_the_part():
    env = _env()
    state = init_original_state(env, _config(), jax.random.key(0))
    judged = judge(env, state.committee, 50)
    features, label = env.in_order()
    assert len(judged.label) == 50
    np.testing.assert_array_equal(judged.numeric, features[:50])
    np.testing.assert_array_equal(features[env.order], np.asarray(env.features))
    np.testing.assert_array_equal(label[env.order], np.asarray(env.label))
    votes = ballot(judged, None, 0)
    np.testing.assert_array_equal(votes, judged.log_probs.argmax(axis=-1))
    severe = (votes >= 2).sum(axis=1) >= 2
    np.testing.assert_array_equal(majority(votes) >= 2, severe)


def test_the_stream_does_not_hear_the_votes():
    """What lets all rows of a rollout be judged at once."""
    env, key = _env(), jax.random.key(5)
    votes = jax.random.randint(jax.random.key(6), (50, 2, 3), 0, 4)
    silent, voted = _play(env, jnp.zeros_like(votes), key), _play(env, votes, key)
    np.testing.assert_array_equal(np.asarray(silent.features), np.asarray(voted.features))
    np.testing.assert_array_equal(np.asarray(silent.label), np.asarray(voted.label))
    assert (np.asarray(silent.reward) != np.asarray(voted.reward)).any()
    assert np.flatnonzero(np.asarray(voted.terminated[:, 0])).tolist() == [19, 39]


def test_targets_take_every_end_for_a_termination():
    env, config = _env(), _config(gamma=0.9, lam=0.7)
    played = _play(env, jax.random.randint(jax.random.key(6), (50, 1, 3), 0, 4), jax.random.key(5))
    values = jax.random.normal(jax.random.key(7), (50, 1))
    advantages, returns = _targets(config, played, values)
    reward, ended, value = (np.asarray(x, float)[:, 0] for x in (played.reward, played.terminated, values))
    following_return = following_advantage = following_value = 0.0
    for step in range(49, -1, -1):
        alive = 1.0 - ended[step]
        following_return = reward[step] + 0.9 * alive * following_return
        delta = reward[step] + 0.9 * alive * following_value - value[step]
        following_advantage = delta + 0.63 * alive * following_advantage
        following_value = value[step]
        assert float(returns[step, 0]) == pytest.approx(following_return, rel=1e-4, abs=1e-3)
        assert float(advantages[step, 0]) == pytest.approx(following_advantage, rel=1e-4, abs=1e-3)


@pytest.mark.parametrize("normalizer", ["batch", "none", "running"])
def test_value_targets_of_the_three_attempts(normalizer):
    state = init_original_state(_env(), _config(), jax.random.key(0))
    assert float(state.committee.normalizers.count[0]) == float(init_normalizer().count)
    first, second = (
        jnp.broadcast_to(mean + spread * jax.random.normal(jax.random.key(i), (1, 40, 1)), (3, 40, 1))
        for i, (mean, spread) in enumerate([(-1000.0, 300.0), (-500.0, 100.0)])
    )
    committee, targets = _follow(_config(normalizer=normalizer), state.committee, first)
    committee, targets = _follow(_config(normalizer=normalizer), committee, second)
    seen = {
        "batch": np.asarray(second[0], float),
        "running": np.concatenate([np.asarray(first[0], float), np.asarray(second[0], float)]),
    }
    expected = np.asarray(second, float)
    if normalizer in seen:
        expected = (expected - seen[normalizer].mean()) / seen[normalizer].std()
    np.testing.assert_allclose(np.asarray(targets), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("setting", [{"credit": "own"}, {"cell": "gru"}, {"split": "time"}])
def test_settings_without_effect_are_refused(setting):
    check_original(_config(normalizer="popart", gamma=0.5, members=4))
    with pytest.raises(UsageError, match="no effect"):
        check_original(_config(**setting))


@pytest.mark.slow
@pytest.mark.shared
@pytest.mark.parametrize(
    "normalizer, at_ten, spread",
    [
        ("batch", (0.95, 1.05), (0.95, 1.05)),
        ("running", (0.5, 2.0), (0.7, 1.5)),
        ("none", (1e4, 1.5e6), None),
    ],
)
def test_the_attempts_fail_as_documented(shared_data, tmp_path, normalizer, at_ten, spread):
    data = shared_data / "darpa_trace_e5" / "records.parquet"
    preset = RunConfig.preset_named("original")
    config = dataclasses.replace(
        preset, data=(data,), normalizer=normalizer, iterations=12, out=tmp_path / "run"
    )
    train(config)
    rows = _metrics(tmp_path / "run")
    loss = [row["loss/value"] for row in rows]
    assert at_ten[0] < loss[9] < at_ten[1]
    if spread:
        assert spread[0] < np.mean(loss[2:]) < spread[1]
    assert max(abs(row["value/explained_variance"]) for row in rows) < 0.1
    assert rows[-1]["eval/tp"] + rows[-1]["eval/fn"] == 181
    assert rows[-1]["eval/tn"] + rows[-1]["eval/fp"] == 1419
