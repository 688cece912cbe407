"""Value statistics against NumPy in double precision, and the faults of other implementations."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from phalanx.agents.normalizer import (
    NormalizerState,
    denormalize,
    init_normalizer,
    normalize,
    on_floor,
    rescale_head,
    scale,
    update_normalizer,
)
from phalanx.errors import UsageError

_update = eqx.filter_jit(update_normalizer)
seeds = st.integers(0, 10_000)


def follow(name: str, batches: list[np.ndarray], horizon: float = 30.0) -> NormalizerState:
    state = init_normalizer()
    for batch in batches:
        state = _update(name, state, jnp.asarray(batch, jnp.float32), horizon)
    return state


def batches_of(seed: int, mean: float, sigma: float, n: int = 5) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.normal(mean + sigma * rng.normal(), sigma, (16, 32)).astype(np.float32) for _ in range(n)]


@given(seeds, st.floats(-1e4, 1e4), st.sampled_from([0.01, 1.0, 1e3]))
def test_running_statistics_are_those_of_everything_seen(seed: int, mean: float, sigma: float) -> None:
    if abs(mean) > 5000 * sigma:
        mean = 5000 * sigma
    batches = batches_of(seed, mean, sigma)
    state = follow("running", batches)
    everything = np.concatenate([batch.ravel() for batch in batches]).astype(np.float64)
    assert float(state.count) == everything.size
    assert float(state.mean) == pytest.approx(everything.mean(), abs=1e-3 * sigma, rel=1e-6)
    assert float(scale(state)) == pytest.approx(everything.std(), rel=1e-2)


def test_batch_statistics_are_those_of_the_last_rollout() -> None:
    batches = batches_of(0, 5.0, 2.0)
    state = follow("batch", batches)
    assert float(state.mean) == pytest.approx(batches[-1].mean(dtype=np.float64), rel=1e-5)
    assert float(scale(state)) == pytest.approx(batches[-1].std(dtype=np.float64), rel=1e-5)


@given(seeds, st.floats(1.5, 50))
def test_popart_statistics_are_weighted_by_age(seed: int, horizon: float) -> None:
    """Weights (1 - 1/horizon)^age over all targets; the first rollout initialises directly, without a bias to 0."""
    batches = batches_of(seed, 20.0, 3.0, n=4)
    state = follow("popart", batches, horizon)
    values = np.stack(batches).astype(np.float64).reshape(4, -1)
    weights = ((1 - 1 / horizon) ** np.arange(3, -1, -1.0))[:, None] * np.ones_like(values)
    mean = np.average(values, weights=weights)
    sigma = np.sqrt(np.average((values - mean) ** 2, weights=weights))
    assert float(state.mean) == pytest.approx(mean, rel=1e-5)
    assert float(scale(state)) == pytest.approx(sigma, rel=1e-4)
    first = follow("popart", batches[:1], horizon)
    assert float(first.mean) == pytest.approx(values[0].mean(), rel=1e-5)


@pytest.mark.parametrize("name", ["running", "popart", "batch"])
@pytest.mark.parametrize(("mean", "sigma"), [(5000.0, 1.0), (50.0, 0.01), (-5e6, 1e3), (0.0, 0.01)])
def test_a_small_sigma_beside_a_large_mean_is_found(name: str, mean: float, sigma: float) -> None:
    """E[x^2] - E[x]^2 in float32 with an absolute floor of .1 reads 11.5 for (5000, 1), and .1 for sigma .01."""
    rng = np.random.default_rng(1)
    batches = [rng.normal(mean, sigma, 4096).astype(np.float32) for _ in range(20)]
    seen = batches[-1] if name == "batch" else np.concatenate(batches)
    assert float(scale(follow(name, batches))) == pytest.approx(seen.std(dtype=np.float64), rel=0.01)
    assert seen.std(dtype=np.float64) == pytest.approx(sigma, rel=0.05)


def test_none_never_changes() -> None:
    state = follow("none", batches_of(0, 7.0, 2.0))
    assert float(state.mean) == 0.0 and float(scale(state)) == 1.0
    assert normalize(state, jnp.asarray([3.0])).tolist() == [3.0]


@given(seeds, st.sampled_from(["running", "popart", "batch"]), st.sampled_from([1e-3, 1.0, 1e4]))
def test_normalised_targets_do_not_depend_on_the_scale_of_the_reward(
    seed: int, name: str, factor: float
) -> None:
    batches = batches_of(seed, 2.0, 1.0, n=3)
    plain = follow(name, batches)
    scaled = follow(name, [factor * batch for batch in batches])
    targets = jnp.asarray(batches[-1])
    expected = normalize(plain, targets)
    np.testing.assert_allclose(normalize(scaled, factor * targets), expected, atol=2e-4)


@given(seeds, st.sampled_from(["running", "popart", "batch", "none"]))
def test_denormalize_undoes_normalize(seed: int, name: str) -> None:
    batches = batches_of(seed, 100.0, 3.0, n=2)
    state = follow(name, batches)
    again = denormalize(state, normalize(state, jnp.asarray(batches[0])))
    np.testing.assert_allclose(again, batches[0], rtol=1e-5)


jump = st.tuples(
    st.floats(-1e4, 1e4),
    st.sampled_from([1e-3, 1.0, 1e4]),
    st.floats(-1e4, 1e4),
    st.sampled_from([1e-3, 1.0, 1e4]),
)


@given(seeds, jump)
def test_popart_preserves_the_value_when_its_statistics_jump(
    seed: int, at: tuple[float, float, float, float]
) -> None:
    mean, sigma, new_mean, new_sigma = at
    rng = np.random.default_rng(seed)
    old = follow("popart", [rng.normal(mean, sigma, 512)])
    new = _update("popart", old, jnp.asarray(rng.normal(new_mean, new_sigma, 512), jnp.float32), 30.0)
    features = jnp.asarray(rng.normal(size=(64, 8)), jnp.float32)
    weight, bias = jnp.asarray(rng.normal(size=8), jnp.float32), jnp.asarray(rng.normal(), jnp.float32)
    weight_after, bias_after = rescale_head(weight, bias, old, new)
    before = np.asarray(denormalize(old, features @ weight + bias), np.float64)
    after = np.asarray(denormalize(new, features @ weight_after + bias_after), np.float64)
    assume(float(new.mean) != float(old.mean) or float(scale(new)) != float(scale(old)))
    tolerance = 1e-5 * np.maximum(np.abs(before), max(float(scale(old)), float(scale(new))))
    assert (np.abs(after - before) <= tolerance).all()


def test_members_are_rescaled_each_by_their_own_statistics() -> None:
    rng = np.random.default_rng(0)
    states = [follow("popart", [rng.normal(m, s, 256)]) for m, s in [(0, 1), (9, 3), (-2, 1), (4, 7)]]
    alone = [rescale_head(jnp.ones(2), jnp.zeros(()), *pair) for pair in (states[:2], states[2:])]
    for (weight, bias), (old, new) in zip(alone, (states[:2], states[2:]), strict=True):
        ratio = float(scale(old)) / float(scale(new))
        np.testing.assert_allclose(weight, ratio, rtol=1e-6)
        assert float(bias) == pytest.approx((float(old.mean) - float(new.mean)) / float(scale(new)), rel=1e-5)


def test_the_floor_is_relative_and_says_when_it_holds() -> None:
    for mean in (1e-4, 1.0, 1e6):
        state = follow("running", [np.full(64, mean)] * 3)
        assert bool(on_floor(state))
        assert 0 < float(scale(state)) <= 1.01e-6 * mean
        assert np.isfinite(np.asarray(normalize(state, jnp.asarray([mean])))).all()
    varied = follow("running", batches_of(0, 0.0, 1e-4))
    assert not bool(on_floor(varied)) and float(scale(varied)) < 1e-3
    assert not bool(on_floor(init_normalizer())) and float(scale(init_normalizer())) == 1.0


def test_targets_that_are_all_zero_leave_a_usable_scale() -> None:
    state = follow("popart", [np.zeros(8)] * 2)
    assert float(scale(state)) == 1.0
    assert bool(on_floor(state))


def test_unknown_names_list_the_choices() -> None:
    with pytest.raises(UsageError, match=r"normalizer 'pop'.*none, batch, running, popart"):
        update_normalizer("pop", init_normalizer(), jnp.zeros(2))
