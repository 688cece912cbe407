"""The original's reward, played: closed forms of its specs, the same chance for all policies, and what is found."""

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from phalanx.analysis.doctor.rehearsal import Rehearsal, check_specs, check_terms
from phalanx.envs.original import task_reward
from phalanx.runtime.rehearsal import rehearse, rehearse_settings

EPISODES, LENGTH = 4, 300


@pytest.fixture(scope="module")
def played() -> Rehearsal:
    label = (np.random.default_rng(0).random(5_000) < 0.1).astype(int)
    return rehearse(label, episodes=EPISODES, episode_events=LENGTH)


def of(played: Rehearsal, policy: str) -> int:
    return played.policies.index(policy)


def test_all_policies_meet_the_same_events_and_the_same_chance(played: Rehearsal) -> None:
    slow = played.specs["response_time"]
    np.testing.assert_allclose(slow[of(played, "allow")], slow[of(played, "block")], rtol=0, atol=1e-5)
    np.testing.assert_allclose(slow[of(played, "quarantine")], slow[of(played, "allow")] - 30.0, atol=1e-4)
    threat = played.terms["task"][of(played, "allow")] == -10.0
    assert np.array_equal(threat, played.terms["task"][of(played, "block")] == 8.5)
    assert np.array_equal(threat, played.terms["task"][of(played, "perfect")] == 8.5)
    assert 0.05 < threat.mean() < 0.2 and threat.size == EPISODES * LENGTH


def test_what_each_verdict_would_have_brought_contains_what_the_random_one_did(played: Rehearsal) -> None:
    threat = (played.terms["task"][of(played, "allow")] == -10.0).astype(int)
    table = np.stack([np.asarray(task_reward(jnp.array(label))) for label in (0, 1)])
    np.testing.assert_array_equal(played.choices["task"], table[threat])
    random = of(played, "random")
    same = np.isclose(played.choices["task"], played.terms["task"][random][:, None]) & np.isclose(
        played.choices["penalty"], played.terms["penalty"][random][:, None], atol=1e-4
    )
    assert same.any(axis=1).all()
    assert np.unique(np.round(played.choices["bonus"], 5)).tolist() == [0.2, 0.6]  # all agree; right or wrong


def test_penalties_are_those_of_the_lowest_robustness(played: Rehearsal) -> None:
    lowest = np.min([played.specs[name] for name in played.specs], axis=0)
    expected = np.where(lowest < 0, -5.0 * (1.0 - lowest), 0.0)
    np.testing.assert_allclose(played.terms["penalty"], expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(played.reward, sum(played.terms.values()))


def test_among_threats_alone_the_specs_have_closed_forms() -> None:
    played = rehearse(np.ones(5_000, int), episodes=EPISODES, episode_events=LENGTH)
    allow, block = of(played, "allow"), of(played, "block")
    np.testing.assert_allclose(played.specs["rates"][allow], -0.95, rtol=1e-6)
    np.testing.assert_allclose(played.specs["rates"][block], 0.05, rtol=1e-5)
    late = np.tile(np.arange(LENGTH) >= 5, EPISODES)  # an episode's first threat waits for five steps
    assert np.array_equal(played.specs["threat"][allow] < 0, late)
    assert (played.specs["threat"][block] > 0).all()


@pytest.mark.shared
def test_the_originals_records_show_what_was_measured_of_them(shared_data) -> None:
    """Mean reward -12.2 a step, rates violated at 99.8 % by a committee that answers at random."""
    file = shared_data / "darpa_trace_e5" / "records.parquet"
    label = pl.read_parquet(file, columns=["is_suspicious"])["is_suspicious"].to_numpy().astype(int)
    played = rehearse(label[::10])
    random = of(played, "random")
    assert played.reward[random].mean() == pytest.approx(-12.2, abs=0.5)
    found = check_specs(played)
    assert {f.evidence["spec"]: f.symptom for f in found} == {
        "rates": "spec-always-violated",
        "resources": "spec-ignores-actions",
    }
    assert found[0].evidence["violated_random"] == pytest.approx(0.998, abs=2e-3)
    assert found[0].evidence["violated_perfect"] == 0.0
    (term,) = check_terms(played)
    assert term.evidence["term"] == "penalty" and 1.4 < term.evidence["ratio"] < 1.8


def test_settings_alone_say_what_does_not_hang_on_the_data() -> None:
    settings = {"preset": "original", "env": "stream", "episode_events": 1000}
    found = {finding.symptom: finding for finding in rehearse_settings(settings)}
    assert set(found) == {"reward-scale", "spec-always-violated", "spec-ignores-actions"}
    assert found["reward-scale"].evidence["holds_at_base_rates"] == [0.01, 0.1, 0.5]
    assert found["spec-ignores-actions"].evidence["holds_at_base_rates"] == [0.01, 0.1, 0.5]
    assert found["spec-always-violated"].evidence["holds_at_base_rates"] == [0.1, 0.5]
    assert "the same at 50 %, not at 1 %" in found["spec-always-violated"].cause


@pytest.mark.parametrize(
    "settings", [{}, {"preset": "default", "env": "stream"}, {"preset": "original", "env": "simulator"}]
)
def test_other_settings_have_no_such_reward(settings: dict[str, str]) -> None:
    assert rehearse_settings(settings) == []
