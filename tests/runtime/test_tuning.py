"""Equal budgets: trials that repeat themselves, a curve that never rises, losses that are those of playing alone."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.tables import SPEC, tree_table
from hypothesis import given
from hypothesis import strategies as st

from phalanx.envs.recorded import record
from phalanx.envs.replay import ReplayConfig, ReplayEnv
from phalanx.errors import UsageError
from phalanx.runtime import tuning
from phalanx.runtime.policies import Policy
from phalanx.runtime.strata import EpisodeSet
from phalanx.runtime.tuning import Dimension, sobol_points, trial_settings, tune


class Cut(Policy):
    """Quarantines events whose second number reaches a limit."""

    limit: jax.Array

    def init(self, n_envs: int) -> Any:
        return ()

    def act(self, carried: Any, observation: Any, label: Any, key: Any, t: Any) -> tuple[Any, Any]:
        return carried, jnp.where(observation.numeric[:, 1] >= self.limit, 3, 0).astype(jnp.int32)


class Strict:
    """Cuts at a limit that is tuned."""

    space = (Dimension("limit", -2.0, 2.0),)

    def build(self, settings: Sequence[Mapping[str, Any]], n_envs: int) -> Policy:
        return Cut(jnp.asarray(np.repeat([each["limit"] for each in settings], n_envs), jnp.float32))

    def explain(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return dict(settings)


class Told:
    """Losses that are given, a setting in each place."""

    space = (Dimension("cut", 0.0, 1.0),)

    def build(self, settings: Sequence[Mapping[str, Any]], n_envs: int) -> Any:
        return [each["cut"] for each in settings]

    def explain(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        return dict(settings)


@given(st.integers(0, 10**6), st.integers(1, 16))
def test_the_cautious_choice_is_the_lowest_within_one_standard_error(
    episodes: EpisodeSet, seed: int, trials: int
) -> None:
    rng = np.random.default_rng(seed)
    known = {
        cut["cut"]: rng.normal(rng.uniform(2, 4), 2.0, 9) for cut in trial_settings(Told.space, trials, seed)
    }

    class Played(EpisodeSet):
        def totals(self, policy: Any, *, copies: int = 1) -> Any:
            return SimpleNamespace(loss=np.concatenate([known[cut] for cut in policy]))

    played = Played(episodes.env, jax.random.key(0), np.zeros(9, bool), np.ones(9), None)
    plain = tune(cast(Any, Told()), played, trials=trials, seed=seed)
    careful = tune(cast(Any, Told()), played, trials=trials, seed=seed, cautious="cut")
    mean = {cut: losses.mean() for cut, losses in known.items()}
    best = min(mean, key=lambda cut: mean[cut])
    limit = mean[best] + known[best].std() / 3.0
    assert plain.settings["cut"] == best
    assert careful.settings["cut"] == min(cut for cut in known if mean[cut] <= limit + 1e-12)
    assert careful.loss == pytest.approx(mean[careful.settings["cut"]]) and careful.curve == plain.curve


@pytest.fixture(scope="module")
def episodes() -> EpisodeSet:
    spec = dataclasses.replace(SPEC, n_entities=8)
    env = ReplayEnv(record(tree_table(2, 90)), spec, ReplayConfig(episode_events=32, n_entities=8))
    weight = np.array([0.5, 2.0, 1.0, 0.5])
    return EpisodeSet(env, jax.random.key(1), np.zeros(4, bool), weight, None)


def test_tuning_repeats_itself_and_its_curve_never_rises(episodes: EpisodeSet) -> None:
    one, other = (tune(Strict(), episodes, trials=6, seed=3) for _ in range(2))
    assert one == other and len(one.losses) == len(one.curve) == 6
    np.testing.assert_array_equal(one.curve, [min(one.losses[: i + 1]) for i in range(6)])
    best = one.losses.index(min(one.losses))
    assert one.settings == trial_settings(Strict.space, 6, 3)[best] and one.loss == one.losses[best]
    assert tune(Strict(), episodes, trials=6, seed=4).losses != one.losses
    assert trial_settings(Strict.space, 6, 3)[:4] == trial_settings(Strict.space, 4, 3), (
        "a larger budget goes on"
    )


def test_a_trial_side_by_side_is_the_trial_alone(
    episodes: EpisodeSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = tune(Strict(), episodes, trials=5, seed=1)
    for setting, loss in zip(trial_settings(Strict.space, 5, 1), found.losses, strict=True):
        alone = episodes.totals(Strict().build([setting], episodes.n)).loss
        assert loss == pytest.approx((np.asarray(alone, float) * episodes.weight).sum() / 4)
    assert len(set(found.losses)) > 1
    monkeypatch.setattr(tuning, "_MOST_ENVS", 2 * episodes.n)
    assert tune(Strict(), episodes, trials=5, seed=1).losses == pytest.approx(found.losses), "in parts"


def test_what_has_nothing_to_tune_is_tried_once() -> None:
    assert trial_settings((), 8, 0) == [{}]
    with pytest.raises(UsageError, match="trials=0"):
        trial_settings(Strict.space, 0, 0)


@given(st.integers(1, 6), st.integers(1, 40), st.integers(0, 100))
def test_points_lie_in_the_unit_cube_and_spread(dimensions: int, n: int, seed: int) -> None:
    points = sobol_points(dimensions, n, seed)
    assert points.shape == (n, dimensions) and (points >= 0).all() and (points < 1).all()
    for column in points.T:
        halves = 2 ** int(np.log2(n))  # the first 2^k points put one into each of 2^k equal parts
        assert len(set(np.floor(column[:halves] * halves))) == halves


@given(st.floats(0.0, 1.0, exclude_max=True))
def test_dimensions_keep_their_ranges(u: float) -> None:
    assert 2.0 <= Dimension("x", 2.0, 3.0).at(u) <= 3.0
    assert 1.0 <= Dimension("x", 1.0, 50.0, log=True).at(u) <= 50.0 * (1 + 1e-12)
    assert Dimension("x", choices=("a", "b", "c")).at(u) == "abc"[int(3 * u)]
