"""A small league from end to end: the same episodes for all, nothing chosen where nothing may be, who is refused."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from phalanx.envs import scenarios
from phalanx.envs.scenarios import Scenario
from phalanx.envs.simulator import Simulator, SimulatorConfig
from phalanx.errors import RunError, UsageError
from phalanx.runtime.baselines import TUNED_BASELINES, Material
from phalanx.runtime.config import RunConfig
from phalanx.runtime.league import (
    League,
    committee_families,
    compare,
    home_scenario,
    named_runs,
    tuned_families,
)
from phalanx.runtime.train import train

SMALL = SimulatorConfig(n_hosts=2, episode_events=64)
TRIALS = 2


def league(**changes: Any) -> League:
    given = {
        "policies": ("rules", "random-matched"),
        "scenarios": ("small",),
        "episodes": 4,
        "trials": TRIALS,
    }
    return League(**{**given, "fit_episodes": 8, "tune_episodes": 4, **changes})


@pytest.fixture(autouse=True)
def _small_worlds(monkeypatch: pytest.MonkeyPatch) -> None:
    worlds = {
        "small": Scenario(SMALL, "two hosts"),
        "rare": Scenario(SMALL, "two hosts, seldom attacked", base_rate=0.001),
        "new": Scenario(dataclasses.replace(SMALL, n_hosts=3), "three hosts", held_out=True),
        **scenarios.SCENARIOS,
    }
    monkeypatch.setattr(scenarios, "SCENARIOS", worlds)
    monkeypatch.setattr("phalanx.runtime.league.SCENARIOS", worlds)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "own"
    train(RunConfig(iterations=1, envs=4, steps=16, hidden=8, memory=8, episode_events=64, seeds=2, out=out))
    return out


@pytest.mark.slow  # a loop is compiled for every policy and world
def test_a_league_says_who_loses_least_and_by_how_much(run: Path) -> None:
    told: dict[str, Any] = {}
    three = league(runs=(run,), scenarios=("small", "rare", "new"))
    result = compare(three, with_losses=True, after=told.__setitem__)
    assert told == result["scenarios"] and list(told) == ["small", "rare", "new"]
    result = json.loads(json.dumps(result, allow_nan=False))
    for name, each in result["scenarios"].items():
        rows, losses = each["policies"], each["loss_by_episode"]
        assert set(rows) == {"own", "always-allow", "oracle", "rules", "random-matched"} == set(losses)
        weight = np.array(each["weight_by_episode"])
        oracle = np.array(losses["oracle"][0])
        for policy, row in rows.items():
            of_seed = np.array(losses[policy])
            assert row["loss"] == pytest.approx((of_seed @ weight / len(weight)).mean(), rel=1e-5)
            assert (of_seed >= oracle - 1e-4).all()
        assert rows["own"]["seeds"] == 2 and rows["own"]["trained"] and each["committee"] == "own"
        assert rows["always-allow"]["score"]["value"] == 0 and rows["oracle"]["score"]["value"] == 1
        assert rows["own"]["pr_auc"] is not None and rows["always-allow"]["pr_auc"] is None
        assert len(rows["rules"]["tuned"][0]["curve"]) == TRIALS
        assert (
            each["best_baseline"] in ("rules", "always-allow", "random-matched")
            and each["gap_closed"]["n"] == 2
        )
        assert each["tuned_on"] == ("small" if name == "new" else name)
    assert result["scenarios"]["rare"]["base_rate"] == pytest.approx(0.001)
    assert result["scenarios"]["rare"]["episodes"] == 8
    assert (
        result["scenarios"]["new"]["policies"]["rules"]["tuned"]
        == result["scenarios"]["small"]["policies"]["rules"]["tuned"]
    )
    overall = result["overall"]["rules"]
    parts = [
        result["scenarios"][name]["policies"]["rules"]["score"]["value"] for name in ("small", "rare", "new")
    ]
    assert overall == {"open": pytest.approx(np.mean(parts[:2])), "held_out": pytest.approx(parts[2])}


def test_poison_turns_labels_that_baselines_are_fitted_to_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: dict[float, Material] = {}
    asked: list[float] = []

    def remember(material: Material) -> Any:
        seen[asked[-1]] = material
        raise _SeenError

    monkeypatch.setitem(TUNED_BASELINES, "rules", remember)
    for poison in (0.0, 0.3):
        asked.append(poison)
        with pytest.raises(_SeenError):
            tuned_families(scenarios.SCENARIOS["small"], league(poison=poison), jax.random.key(0))
    clean, spoilt = (seen[poison].seen for poison in (0.0, 0.3))
    assert np.array_equal(clean.numeric, spoilt.numeric) and np.array_equal(clean.live, spoilt.live)
    assert abs((clean.label != spoilt.label)[clean.live].mean() - 0.3) < 0.08


class _SeenError(Exception):
    pass


@pytest.mark.slow
def test_a_league_repeats_itself_and_says_who_is_left_out() -> None:
    one, other = (compare(league()) for _ in range(2))
    assert one == other
    found = one["scenarios"]["small"]
    assert "random-matched is left out" in found["notes"][0] and "random-matched" not in found["policies"]
    assert "gap_closed" not in found and found["committee"] is None


def test_nothing_is_chosen_in_a_held_out_scenario() -> None:
    assert [home_scenario(name) for name in ("small", "rare", "new")] == ["small", "rare", "small"]


@pytest.mark.parametrize(
    "change",
    [
        {"episodes": 0},
        {"trials": 0},
        {"fits": 0},
        {"scenarios": ()},
        {"scenarios": ("mars",)},
        {"policies": ("luck",)},
    ],
)
def test_a_league_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        league(**change)


def test_a_run_named_like_a_baseline_goes_by_its_path(tmp_path: Path) -> None:
    runs = (tmp_path / "rules", tmp_path / "mine")
    assert list(named_runs(runs)) == [str(tmp_path / "rules"), "mine"]
    with pytest.raises(UsageError, match="named twice"):
        named_runs((tmp_path / "mine", tmp_path / "mine"))


def test_the_ends_of_the_scale_always_take_part() -> None:
    assert league().names == ("always-allow", "oracle", "random-matched", "rules")


@pytest.mark.slow
def test_a_run_of_another_environment_is_refused(run: Path, tmp_path: Path) -> None:
    env = Simulator(SMALL)
    assert [family.n_entities for family in committee_families(run, env)] == [env.spec.n_entities] * 2
    with pytest.raises(RunError, match="no such run"):
        next(committee_families(tmp_path / "nowhere", env))
    for folder in sorted(run.glob("seed-*")):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "env": "stream"}))
    with pytest.raises(RunError, match="trained on --env stream"):
        next(committee_families(run, env))
