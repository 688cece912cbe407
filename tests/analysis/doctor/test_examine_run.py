"""The doctor on runs: sound logs are healthy, each broken law has its name, and a rule never looks ahead."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.analysis.doctor import diagnosis, examine_run
from phalanx.analysis.doctor.course import accumulated, gain_z, trailing
from phalanx.analysis.doctor.finding import explained
from phalanx.analysis.doctor.run import CAUSAL_ORDER
from phalanx.analysis.doctor.settings import check_settings
from phalanx.analysis.logs import TrainingLog, log_of_rows, read_log
from phalanx.analysis.logs.names import meaning_of

N = 120
PEERS = Path(__file__).parent.parent / "logs" / "peers"
Values = Mapping[str, Any]


def sound(seed: int = 0, n: int = N) -> dict[str, np.ndarray]:
    """A run that learns, with every quantity that is looked at."""
    rng = np.random.default_rng(seed)
    done = 1.0 - np.exp(-np.arange(n) / 25.0)

    def near(value: Any, spread: float) -> np.ndarray:
        return value + spread * rng.normal(size=n)

    return {
        "loss/value": np.abs(near(1.0 - 0.6 * done, 0.05)),
        "loss/policy": near(-0.01, 0.003),
        "policy/entropy": near(1.38 - 0.9 * done, 0.01),
        "policy/entropy_share": near(1.0 - 0.65 * done, 0.005),
        "policy/approx_kl": np.abs(near(0.008, 0.003)),
        "policy/clip_fraction": np.abs(near(0.08, 0.02)),
        "policy/first_ratio_error": np.full(n, 3e-7),
        "policy/sampling_z": rng.normal(size=n),
        "policy/effect_z": near(8.0 * (1.0 - done), 1.0),
        "policy/consequence_z": near(20.0 * (1.0 - done), 1.0),
        "policy/transition_z": near(8.0, 1.0),
        "policy/pivotal_rate": near(0.4, 0.02),
        "value/explained_variance": near(0.6 * done, 0.05),
        "value/linear_r2": near(0.4 * done, 0.05),
        "value/target_mean": near(10.0 * done, 0.5),
        "value/target_std": np.abs(near(4.0, 0.2)),
        "value/scale": np.full(n, 4.0),
        "value/on_floor": np.zeros(n),
        "value/preserved_error": np.full(n, 1e-6),
        "value/end_bias": near(0.05, 0.02),
        "features/predictable": near(0.5, 0.05),
        "features/constant": np.zeros(n),
        "network/dead_units": np.full(n, 0.05),
        "network/norm": near(20.0 + 5.0 * done, 0.02),
        "memory/not_blank": np.zeros(n),
        "update/actor": np.full(n, 0.01),
        "update/critic": np.full(n, 0.02),
        "episode/terminated": np.full(n, 40.0),
        "episode/truncated": np.full(n, 3.0),
        "episode/terminated_at_limit": np.full(n, 1 / 40),
        "episode/truncated_spread": np.zeros(n),
        "reward/episode": near(-100.0 + 80.0 * done, 5.0),
        "committee/recall": near(0.2 + 0.6 * done, 0.03),
        "committee/false_alarm_rate": np.abs(near(0.02, 0.005)),
    }


def log_of(values: Values, n: int | None = None) -> TrainingLog:
    rows = [
        {"iteration": i + 1, "env_steps": 1000.0 * (i + 1)}
        | {name: float(v[i]) for name, v in values.items()}
        for i in range(n or len(next(iter(values.values()))))
    ]
    return log_of_rows(Path("run"), rows)


def symptoms(values: Values) -> list[str]:
    return [finding.symptom for finding in examine_run(log_of(values))]


def grave(values: Values) -> list[str]:
    return [finding.symptom for finding in examine_run(log_of(values)) if finding.severity != "info"]


@pytest.mark.parametrize("seed", range(20))
def test_a_sound_run_is_healthy(seed: int) -> None:
    assert symptoms(sound(seed)) == []


def _set(name: str, value: Any, since: int = 0) -> Callable[[dict[str, np.ndarray]], None]:
    def change(values: dict[str, np.ndarray]) -> None:
        values[name] = np.where(np.arange(N) >= since, value, values[name])

    return change


def _unlearned(values: dict[str, np.ndarray]) -> None:
    values["reward/episode"] = -100.0 + 5.0 * np.random.default_rng(1).normal(size=N)


def _all(*changes: Callable[[dict[str, np.ndarray]], None]) -> Callable[[dict[str, np.ndarray]], None]:
    def change(values: dict[str, np.ndarray]) -> None:
        for each in changes:
            each(values)

    return change


_BROKEN = {
    "non-finite": _set("loss/value", np.nan, since=40),
    "first-ratio-mismatch": _set("policy/first_ratio_error", 0.2),
    "actions-not-sampled": _set("policy/sampling_z", -6.0),
    "memory-not-reset": _set("memory/not_blank", 1.0),
    "time-limit-as-termination": _all(_set("episode/terminated_at_limit", 0.9), _set("value/end_bias", 2.0)),
    "termination-as-time-limit": _set("episode/truncated_spread", 0.4),
    "unlearnable-observation": _set("features/constant", 1.0),
    "normalizer-stale": _set("value/preserved_error", 0.3),
    "normalizer-floor": _set("value/on_floor", 1.0),
    "dead-units": _set("network/dead_units", 0.95),
    "kl-explosion": _set("policy/approx_kl", 0.8, since=30),
    "entropy-collapse": _all(_unlearned, _set("policy/entropy_share", 0.01), _set("committee/recall", 0.0)),
    "entropy-high": _all(_unlearned, _set("policy/entropy_share", 0.99)),
    "reward-scale": _all(_set("loss/value", 1e9), _set("value/explained_variance", 0.0)),
    "actor-frozen": _set("update/actor", 0.0),
    "critic-frozen": _set("update/critic", 0.0),
    "updates-too-small": _all(_unlearned, _set("update/actor", 2e-6), _set("update/critic", 5e-6)),
    "weights-vanish": _all(_unlearned, _set("network/norm", 9.0, since=30)),
    "value-loss-explosion": _all(
        _set("loss/value", 1e5, since=50),
        _set("value/explained_variance", -1e5, since=50),
    ),
    "value-loss-stuck": _all(_unlearned, _set("value/explained_variance", 0.0)),
    "actions-without-consequence": _all(
        _unlearned,
        _set("policy/effect_z", 0.1),
        _set("policy/consequence_z", -0.1),
        _set("policy/transition_z", 0.0),
    ),
    "reward-flat": _unlearned,
    "reward-falls": _set("reward/episode", -99.0, since=60),
    "policy-collapse-permissive": _all(
        _set("committee/recall", 0.0), _set("committee/false_alarm_rate", 0.0)
    ),
    "policy-collapse-restrictive": _all(
        _set("committee/recall", 1.0), _set("committee/false_alarm_rate", 1.0)
    ),
    "votes-not-pivotal": _all(_unlearned, _set("policy/pivotal_rate", 0.0), _set("committee/recall", 0.03)),
}


@pytest.mark.parametrize("symptom", _BROKEN)
def test_what_is_broken_is_named_first(symptom: str) -> None:
    values = sound()
    _BROKEN[symptom](values)
    found = [finding for finding in examine_run(log_of(values)) if finding.severity != "info"]
    assert found and found[0].symptom == symptom
    assert found[0].iteration is not None and found[0].remedy and found[0].cause
    assert all(isinstance(value, str | int | float | bool | None) for value in found[0].evidence.values())


def test_what_was_so_before_any_update_comes_before_what_updates_do() -> None:
    values = sound()
    _all(_unlearned, _set("policy/entropy_share", 0.01), _set("committee/recall", 0.0))(values)
    _set("policy/approx_kl", 3.0)(values)
    assert symptoms(values)[:2] == ["entropy-collapse", "kl-explosion"]
    values["policy/entropy_share"] = np.where(np.arange(N) < 5, 0.99, 0.01)
    assert symptoms(values)[:2] == ["kl-explosion", "entropy-collapse"]


def test_actions_that_stop_to_matter_midway_are_seen_though_the_reward_had_risen() -> None:
    values = sound()
    for name in ("transition", "consequence", "effect"):
        _set(f"policy/{name}_z", 0.0, since=60)(values)
    assert grave(values) == []  # the policy has settled what matters
    _set("reward/episode", -75.0, since=60)(values)
    found = [f for f in examine_run(log_of(values)) if f.symptom == "actions-without-consequence"]
    assert len(found) == 1 and 70 <= (found[0].iteration or 0) <= 85


def test_a_reward_that_falls_at_once_and_stays_is_no_wandering() -> None:
    rows = np.arange(N)
    fallen = 9.0 + 11.0 * np.exp(-rows / 3.0) + 0.2 * np.random.default_rng(0).normal(size=N)
    surer = np.exp(-rows / 5.0) + 0.2
    assert "reward-falls" in symptoms({"reward/episode": fallen, "policy/entropy": surer})
    for opening in (
        [0.05, 0.0, 0.0],
        [0.0, 0.05, 0.0],
    ):  # one lucky success of a sparse reward is no level to fall from
        lucky = np.concatenate([opening, np.zeros(N - 3)])
        assert "reward-falls" not in symptoms({"reward/episode": lucky, "policy/entropy": surer})


def test_a_reward_too_large_explains_an_actor_that_hardly_moves() -> None:
    values = sound()
    _all(_unlearned, _BROKEN["reward-scale"], _set("update/actor", 1e-6))(values)
    assert "reward-scale" in symptoms(values) and "actor-frozen" not in symptoms(values)
    _set("update/actor", 0.0)(values)
    assert symptoms(values)[:2] == ["actor-frozen", "reward-scale"]


def test_what_comes_after_numbers_left_their_range_says_nothing() -> None:
    values = sound()
    assert symptoms(values | {"loss/policy": np.where(np.isin(np.arange(N), (5, 95)), np.nan, 0.0)}) == [
        "non-finite"
    ]  # two rows apart; what else the log shows is still looked at
    two = values | {"loss/policy": np.where(np.isin(np.arange(N), (5, 95)), np.nan, 0.0)}
    _set("policy/first_ratio_error", 0.2)(two)
    assert symptoms(two) == ["first-ratio-mismatch", "non-finite"]
    for name in ("network/dead_units", "update/critic"):
        _set(name, 0.0 if name == "update/critic" else 1.0, since=40)(values)
    _BROKEN["non-finite"](values)
    assert symptoms(values) == ["non-finite"]


def test_a_half_that_stops_moving_later_is_not_called_frozen() -> None:
    values = sound()
    _set("update/critic", 0.0, since=30)(values)
    assert "critic-frozen" not in symptoms(values)


def test_every_symptom_of_runs_has_its_place_and_its_section() -> None:
    docs = (Path(__file__).parents[3] / "docs" / "doctor.md").read_text(encoding="utf-8")
    for symptom in {*CAUSAL_ORDER, *_BROKEN}:
        assert symptom in CAUSAL_ORDER
        assert f"\n## {symptom}\n" in docs, symptom


def test_no_true_positive_after_warm_up() -> None:
    values = sound()
    every = (np.arange(N) % 10) == 9
    rows = [
        {"iteration": i + 1, "env_steps": float(i)}
        | {name: float(v[i]) for name, v in values.items()}
        | ({"eval/tp": 0.0, "eval/fn": 181.0, "eval/fp": 0.0, "eval/tn": 1419.0} if every[i] else {})
        for i in range(N)
    ]
    found = [finding.symptom for finding in examine_run(log_of_rows(Path("run"), rows))]
    assert found[0] == "policy-collapse-permissive" and "no-true-positives" in found
    rows[-1]["eval/tp"] = 5.0
    assert "no-true-positives" not in [f.symptom for f in examine_run(log_of_rows(Path("run"), rows))]


def test_a_policy_that_allows_nearly_all_but_tells_threats_apart_has_not_collapsed() -> None:
    values = sound()
    values["policy/entropy_share"] = np.full(N, 0.02)
    values["policy/rate_allow"] = np.full(N, 0.99)
    assert "entropy-collapse" not in grave(values) and "policy-collapse-permissive" not in grave(values)


def _late(values: dict[str, np.ndarray], since: int = 65) -> dict[str, np.ndarray]:
    """The run starts to learn at a row, as where rewards are sparse."""
    after = np.maximum(np.arange(N) - since, 0)
    rise = np.random.default_rng(2).normal(size=N) + 100.0 * (1.0 - np.exp(-after / 10.0))
    return values | {"reward/episode": rise}


_SOUND_ALL_THE_SAME: dict[str, Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]] = {
    "sparse reward, found late": lambda v: _late(v, 40),
    "no reward known for long": lambda v: (
        v | {"reward/episode": np.where(np.arange(N) < 65, np.nan, _late(v)["reward/episode"])}
    ),
    "no test of effects before anything differs": lambda v: (
        v
        | {
            "policy/effect_z": np.where(np.arange(N) < 9, np.nan, 0.3 * np.arange(N)),
            "policy/consequence_z": np.full(N, np.nan),
        }
    ),
    "a rare draw of a nearly certain policy": lambda v: (
        v
        | {
            "policy/entropy_share": np.where(np.arange(N) > 60, 0.001, v["policy/entropy_share"]),
            "policy/sampling_z": np.where(np.arange(N) == 80, 20.0, v["policy/sampling_z"]),
        }
    ),
    "committee that came to agree": lambda v: (
        v | {"policy/pivotal_rate": np.where(np.arange(N) > 60, 0.0005, 0.4)}
    ),
    "reward a step that is always 1": lambda v: v | {"reward/step": np.ones(N)},
    "untrained critic wild at first": lambda v: (
        v | {"value/explained_variance": np.where(np.arange(N) < 6, -30.0, v["value/explained_variance"])}
    ),
    "one success in a long time of none": lambda v: (
        v
        | {
            "reward/episode": np.where(
                np.arange(N) < 80, 0.05 * (np.arange(N) == 1), _late(v, 80)["reward/episode"]
            )
        }
        | {"value/target_std": np.full(N, 1e-3), "value/explained_variance": np.linspace(0.1, 0.8, N)}
    ),
    "a harder stage, that is learned, too": lambda v: (
        v
        | {
            "reward/episode": v["reward/episode"]
            - np.where(np.arange(N) > 60, 70.0 - 0.8 * (np.arange(N) - 60), 0)
        }
    ),
    "a policy that nearly always allows at first": lambda v: (
        v | {"policy/entropy_share": np.full(N, 0.18), "committee/recall": np.linspace(0.05, 0.8, N)}
    ),
    "weights that an optimiser decays a little": lambda v: v | {"network/norm": np.linspace(20.0, 9.0, N)},
    "a critic that is trained alone at first": lambda v: (
        v | {"update/actor": np.where(np.arange(N) < 8, 0.0, 0.01)}
    ),
    "updates that get ever smaller": lambda v: (
        v | {"update/actor": 0.01 * np.linspace(1, 0, N), "update/critic": 0.02 * np.linspace(1, 0, N)}
    ),
    "a dip that is got over": lambda v: (
        v
        | {"reward/episode": np.where((np.arange(N) > 3) & (np.arange(N) < 20), -130.0, v["reward/episode"])}
    ),
    "one KL that was not logged": lambda v: (
        v | {"policy/approx_kl": np.where(np.arange(N) == 0, np.nan, v["policy/approx_kl"])}
    ),
    "policy head of zeros": lambda v: v | {"update/actor": np.where(np.arange(N) == 0, 1.0, 0.01)},
    "large raw rewards that are learned": lambda v: (
        v
        | {
            "loss/value": 4e6 * v["loss/value"],
            "value/target_std": 2e3 * v["value/target_std"],
            "value/scale": np.ones(N),
        }
    ),
    "target hardly varies at the end": lambda v: (
        v
        | {
            "value/explained_variance": np.where(np.arange(N) > 90, -40.0, v["value/explained_variance"]),
            "value/target_std": np.where(np.arange(N) > 90, 1e-3, v["value/target_std"]),
        }
    ),
}


@pytest.mark.parametrize("what", _SOUND_ALL_THE_SAME)
def test_what_also_happens_in_sound_runs_is_no_alarm(what: str) -> None:
    assert grave(_SOUND_ALL_THE_SAME[what](sound())) == []


def _smoothed(noise: np.ndarray, window: int) -> np.ndarray:
    return np.convolve(noise, np.ones(window) / window, "valid")


def test_a_smoothed_reward_that_wanders_does_not_fall() -> None:
    """Stable-Baselines3 logs a mean over the last 100 episodes: neighbouring rows share most of them."""
    fallen = np.zeros(2)
    for seed in range(150):
        wander = _smoothed(np.random.default_rng(seed).normal(size=N + 9), 10)
        ramp = np.clip((np.arange(N) - 30) / 40, 0.0, 1.0)
        for at, reward in enumerate((wander + 4.0 * ramp, wander)):
            fallen[at] += "reward-falls" in symptoms({"reward/episode": reward})
    assert fallen[0] <= 1  # it learns
    assert fallen[1] <= 12  # it does not, but that it fell is chance


def test_a_log_without_a_reward_says_nothing_of_progress() -> None:
    values = {name: v for name, v in sound().items() if name != "reward/episode"}
    assert grave(values | {"update/actor": np.full(N, 1e-6), "update/critic": np.full(N, 1e-6)}) == []
    assert grave(values | {"policy/entropy_share": np.full(N, np.nan)}) == []


def test_a_log_of_the_usual_columns_shows_updates_that_do_nothing() -> None:
    rng = np.random.default_rng(0)
    flat = {"reward/episode": 20.0 + rng.normal(size=N), "policy/entropy": np.full(N, 0.693)}
    assert symptoms(flat | {"policy/approx_kl": np.full(N, 1e-9)})[0] == "updates-too-small"
    assert "updates-too-small" not in symptoms(flat | {"policy/approx_kl": np.full(N, 1e-5)})


def test_every_quantity_that_a_rule_reads_can_be_mapped() -> None:
    rules = Path(__file__).parents[3] / "src" / "phalanx" / "analysis" / "doctor"
    text = "".join(file.read_text(encoding="utf-8") for file in rules.glob("*.py"))
    read = set(
        re.findall(
            r'"((?:loss|policy|value|reward|update|network|memory|episode|features)/[a-z0-9_]+)"', text
        )
    )
    assert len(read) > 25
    for name in read:
        assert meaning_of("column", {"column": f"-{name}"}) == ((name, -1.0, "unknown", None)), name


def test_continuous_actions_have_no_largest_entropy() -> None:
    rest = {name: values for name, values in sound().items() if not name.startswith("policy/entropy")}
    assert grave(rest | {"policy/entropy": np.full(N, -3.5)}) == []
    assert grave(rest | {"policy/entropy": np.full(N, 1.42)}) == []
    falling = np.linspace(0.5, -4.0, N)
    assert grave(rest | {"policy/entropy": falling}) == []


def test_one_member_that_breaks_is_seen_though_the_mean_is_finite() -> None:
    values = sound() | {"member/1/loss/value": np.where(np.arange(N) > 50, np.nan, 1.0)}
    found = examine_run(log_of(values))
    assert found[0].symptom == "non-finite" and found[0].evidence["quantity"] == "member/1/loss/value"


def test_an_evaluation_without_threats_says_nothing_of_recall() -> None:
    rows = [
        {"iteration": i + 1} | {"eval/tp": 0.0, "eval/fn": 0.0, "eval/fp": 3.0, "eval/tn": 900.0}
        for i in range(N)
    ]
    assert examine_run(log_of_rows(Path("run"), rows)) == []


@pytest.mark.parametrize("n", [0, 1, 2, 5])
def test_short_and_empty_logs_are_read(n: int) -> None:
    if n:
        assert grave({name: values[:n] for name, values in sound().items()}) == []
    nothing = {"loss/value": np.full(max(n, 1), np.inf), "reward/episode": np.full(max(n, 1), np.nan)}
    assert set(symptoms(nothing)) <= {"non-finite"}


_BREAKERS = sorted(_BROKEN)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    broken=st.lists(st.sampled_from(_BREAKERS), max_size=3),
    cut=st.integers(1, N),
)
def test_a_finding_was_there_as_soon_as_its_iteration_was_logged(
    seed: int, broken: list[str], cut: int
) -> None:
    """Rules look back only: what the whole log shows at iteration i, the log up to i or later shows, too."""
    values = sound(seed)
    gaps = np.random.default_rng(seed).random(N) < 0.3
    values["reward/episode"] = np.where(gaps, np.nan, values["reward/episode"])
    for name in broken:
        _BROKEN[name](values)
    whole = {(f.symptom, f.iteration) for f in examine_run(log_of(values), N) if (f.iteration or 0) <= cut}
    part = {(f.symptom, f.iteration) for f in examine_run(log_of(values, cut), N)}
    assert whole <= part


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    broken=st.lists(st.sampled_from(_BREAKERS), max_size=2),
    scale=st.floats(1e-4, 1e4),
    shift=st.floats(-1e3, 1e3),
)
def test_the_unit_of_the_reward_does_not_count(
    seed: int, broken: list[str], scale: float, shift: float
) -> None:
    values = sound(seed)
    for name in broken:
        _BROKEN[name](values)
    other = values | {"reward/episode": scale * (values["reward/episode"] + shift)}
    assert symptoms(values) == symptoms(other)


@settings(max_examples=40, deadline=None)
@given(left_out=st.lists(st.sampled_from(sorted(sound())), max_size=20, unique=True))
def test_what_a_tool_does_not_log_is_no_fault(left_out: list[str]) -> None:
    values = {name: value for name, value in sound().items() if name not in left_out}
    if values:
        assert grave(values) == []


@pytest.mark.parametrize("peer", ["cleanrl", "sb3-ppo", "sb3-a2c"])
def test_short_healthy_logs_of_other_tools_are_healthy(peer: str) -> None:
    assert diagnosis(examine_run(read_log(PEERS / peer)))["healthy"]


@pytest.mark.shared
def test_stable_baselines_with_a_learning_rate_too_high(shared_data: Path) -> None:
    logs = shared_data / "logs"
    assert diagnosis(examine_run(read_log(logs / "sb3_healthy")))["healthy"]
    found = examine_run(read_log(logs / "sb3_learning_rate_too_high"))
    assert found[0].symptom == "kl-explosion" and found[0].severity == "error"


def test_settings_that_cannot_work() -> None:
    original = {"preset": "original", "env": "stream", "gamma": 0.99, "members": 3, "faults": None}
    assert {finding.symptom for finding in check_settings(original)} == {
        "time-limit-as-termination",
        "actions-without-consequence",
        "too-few-members",
    }
    assert check_settings({"preset": "default", "env": "simulator", "gamma": 0.99, "members": 4}) == []
    assert check_settings({"members": 1}) == []
    too_few = check_settings({"members": 6, "faults": 2})
    assert [(f.symptom, f.severity) for f in too_few] == [("too-few-members", "error")]
    assert check_settings({"members": 7, "faults": 2}) == []
    assert check_settings({"env": "stream", "gamma": 0.0, "members": 4}) == []


def test_a_finding_in_words_has_all_its_parts() -> None:
    values = sound()
    _BROKEN["kl-explosion"](values)
    lines = explained(examine_run(log_of(values))[0])
    assert lines[0].startswith("error: kl-explosion since iteration 3")
    assert any("seen: approx_kl 0.8" in line for line in lines)
    assert any(line.strip().startswith("remedy: ") for line in lines)
    assert max(map(len, lines)) <= 110


def test_statistics_look_back_only() -> None:
    values = np.array([np.nan, 1.0, 5.0, np.nan, 3.0])
    assert np.array_equal(trailing(values, 2), [np.nan, np.nan, 3.0, 3.0, 4.0], equal_nan=True)
    z = np.array([np.nan, 3.0, 4.0])
    assert accumulated(z)[-1] == pytest.approx(7.0 / np.sqrt(2.0))
    assert accumulated(np.array([1.0, 2.0, 3.0]), 2)[-1] == pytest.approx(5.0 / np.sqrt(2.0))


def test_the_rise_of_noise_is_that_of_chance_and_a_trend_stands_out() -> None:
    rng = np.random.default_rng(0)
    z = np.array([gain_z(rng.normal(size=60))[-1] for _ in range(400)])
    assert abs(z.mean()) < 0.2 and 0.8 < z.std() < 1.3
    assert gain_z(rng.normal(size=60) + 0.2 * np.arange(60))[-1] > 6
