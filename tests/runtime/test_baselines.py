"""Every baseline in the simulator: the oracle loses least, tuned ones are built as they are named, fits are shared."""

import jax
import numpy as np
import pytest

from phalanx.envs.simulator import Simulator, SimulatorConfig
from phalanx.errors import UsageError
from phalanx.runtime.baselines import (
    BASELINES,
    FIXED,
    MATCHED,
    TUNED_BASELINES,
    Material,
    check_names,
    fixed_policy,
)
from phalanx.runtime.strata import EpisodeSet, draw_episodes
from phalanx.runtime.tuning import Family, trial_settings
from phalanx.types import Verdict


@pytest.fixture(scope="module")
def episodes() -> EpisodeSet:
    return draw_episodes(Simulator(SimulatorConfig(n_hosts=2, episode_events=96)), jax.random.key(1), 6)


@pytest.fixture(scope="module")
def material(episodes: EpisodeSet) -> Material:
    return Material(episodes, 0)


def test_fixed_policies_answer_as_they_are_named(episodes: EpisodeSet) -> None:
    n = episodes.n
    courses = {name: episodes.play(fixed_policy(table, n)) for name, table in FIXED.items()}
    for verdict in Verdict:
        given = courses[f"always-{verdict.name.lower()}"]
        assert set(given.verdict[given.live]) == {int(verdict)}
    oracle = courses["oracle"]
    np.testing.assert_array_equal(oracle.verdict, np.where(oracle.label == 1, 3, 0))
    assert set(courses["random"].verdict[courses["random"].live]) == {0, 1, 2, 3}
    for name, course in courses.items():
        assert (oracle.score.loss <= course.score.loss).all(), name
        assert (course.label[0] == oracle.label[0]).all(), "the same first events for all"
    assert courses["always-allow"].score.loss.sum() > 0


@pytest.mark.slow  # one compiled loop a policy
@pytest.mark.parametrize("name", list(TUNED_BASELINES))
def test_a_tuned_baseline_loses_no_less_than_the_oracle(
    episodes: EpisodeSet, material: Material, name: str
) -> None:
    family = TUNED_BASELINES[name](material)
    assert isinstance(family, Family)
    tried = trial_settings(family.space, 4, 0)
    side_by_side = np.asarray(episodes.totals(family.build(tried, episodes.n), copies=4).loss).reshape(4, -1)
    oracle = np.asarray(episodes.totals(fixed_policy(FIXED["oracle"], episodes.n)).loss)
    assert (oracle <= side_by_side).all()
    alone = episodes.play(family.build([tried[1]], episodes.n))
    np.testing.assert_allclose(alone.score.loss, side_by_side[1], rtol=1e-5)
    assert (alone.suspicion is None) == (name == "inspection")
    assert set(family.explain(tried[0]))


def test_what_is_fitted_is_fitted_once(material: Material) -> None:
    assert material.seen is material.seen and material.surprise is material.surprise


def test_baselines_go_by_their_names() -> None:
    assert (*FIXED, MATCHED, *TUNED_BASELINES) == BASELINES and len(set(BASELINES)) == len(BASELINES)
    check_names(BASELINES)
    with pytest.raises(UsageError, match="unknown policy 'always-right'"):
        check_names(["rules", "always-right"])
