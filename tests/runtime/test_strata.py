"""Sets of episodes, weighted to a base rate."""

import jax
import numpy as np
import pytest

from phalanx.envs.simulator import Simulator, SimulatorConfig
from phalanx.errors import UsageError
from phalanx.runtime.strata import always, draw_episodes
from phalanx.types import Verdict


@pytest.fixture(scope="module")
def env() -> Simulator:
    return Simulator(SimulatorConfig(n_hosts=2, episode_events=128))


@pytest.mark.parametrize("rate", [0.01, 0.0002])
def test_weighted_events_have_the_base_rate(env: Simulator, rate: float) -> None:
    found = draw_episodes(env, jax.random.key(1), 6, rate)
    assert found.n == 12 and found.quiet.tolist() == [False] * 6 + [True] * 6
    assert found.weight.mean() == pytest.approx(1.0) and (found.weight > 0).all()
    course = found.play(always(Verdict.ALLOW, 12))
    malicious = ((course.label == 1) & course.live).sum(axis=0)
    assert not malicious[6:].any()
    share = (found.weight * malicious).sum() / (found.weight * course.live.sum(axis=0)).sum()
    assert share == pytest.approx(rate, rel=1e-9) and found.base_rate == pytest.approx(rate)
    assert len(set(found.weight[:6])) == len(set(found.weight[6:])) == 1


def test_without_a_base_rate_every_episode_counts_alike(env: Simulator) -> None:
    found = draw_episodes(env, jax.random.key(1), 5)
    assert found.n == 5 and not found.quiet.any() and (found.weight == 1).all()
    course = found.play(always(Verdict.ALLOW, 5))
    assert found.base_rate == pytest.approx(((course.label == 1) & course.live).sum() / course.live.sum())
    assert found.mean(np.arange(5.0)) == 2.0


@pytest.mark.parametrize(("episodes", "rate"), [(0, None), (4, 0.9)])
def test_what_cannot_be_drawn_is_refused(env: Simulator, episodes: int, rate: float | None) -> None:
    with pytest.raises(UsageError):
        draw_episodes(env, jax.random.key(0), episodes, rate)
