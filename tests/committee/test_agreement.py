"""The middle of opinions: between honest ones whatever liars say and whoever is silent."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.committee.agreement import agree

SIZES = [(1, 0), (4, 1), (5, 1), (7, 2), (10, 3)]
LIES = st.one_of(
    st.sampled_from([float("nan"), float("inf"), float("-inf")]), st.floats(-(2.0**99), 2.0**99, width=32)
)


middle = jax.jit(agree, static_argnums=1)


@given(st.data(), st.sampled_from(SIZES))
def test_the_middle_lies_between_honest_opinions_whoever_lies_and_whoever_is_silent(
    data: st.DataObject, size: tuple[int, int]
) -> None:
    """Up to f liars among those heard, beside up to n - 2f - 1 that are not heard."""
    n, f = size
    members = data.draw(st.permutations(range(n)))
    silent = data.draw(st.integers(0, n - 2 * f - 1))
    liars = data.draw(st.integers(0, f))
    missing, honest = members[:silent], members[silent + liars :]
    opinions = np.zeros(n, np.float32)
    for member in range(n):
        opinions[member] = data.draw(st.floats(-50, 50, width=32) if member in honest else LIES)
    heard = np.isin(np.arange(n), missing, invert=True)
    found = [middle(jnp.asarray(opinions), f, jnp.asarray(heard))]
    found += [] if silent else [middle(jnp.asarray(opinions), f)]
    assert all(min(opinions[honest]) - 1e-4 <= float(each) <= max(opinions[honest]) + 1e-4 for each in found)


def test_trimming_by_fewer_would_break_the_law() -> None:
    """So the law can fail: with one silent and one lying of four, what is left is not f - silent liars' fair share."""
    opinions = jnp.array([1.0, 2.0, 1e9])
    assert float(agree(opinions, 0)) > 2.0
    assert float(agree(opinions, 1)) == 2.0


@given(st.integers(0, 10_000), st.sampled_from(SIZES))
def test_with_everybody_heard_the_middle_is_the_same(seed: int, size: tuple[int, int]) -> None:
    n, f = size
    opinions = jnp.asarray(np.random.default_rng(seed).normal(0, 5, (n, 6)).astype(np.float32))
    np.testing.assert_allclose(
        middle(opinions, f, jnp.ones((n, 6), bool)), middle(opinions, f), rtol=1e-5, atol=1e-6
    )


def test_all_subsets_of_four_against_a_plain_statement() -> None:
    rng = np.random.default_rng(0)
    masks = np.array(list(itertools.product([False, True], repeat=4))).T
    opinions = rng.normal(0, 3, masks.shape).astype(np.float32)
    found = np.asarray(middle(jnp.asarray(opinions), 1, jnp.asarray(masks)))
    for column in range(masks.shape[1]):
        heard = sorted(opinions[masks[:, column], column])
        expected = {
            0: lambda h: 0.0,
            1: lambda h: h[0],
            2: lambda h: (h[0] + h[1]) / 2,
            3: lambda h: h[1],
            4: lambda h: (h[1] + h[2]) / 2,
        }[len(heard)](heard)
        assert found[column] == pytest.approx(expected, abs=1e-6)


@given(st.integers(0, 10_000), st.permutations(range(7)))
def test_who_holds_an_opinion_does_not_matter(seed: int, order: list[int]) -> None:
    rng = np.random.default_rng(seed)
    opinions, heard = rng.normal(size=7).astype(np.float32), rng.random(7) < 0.8
    both = [
        float(middle(jnp.asarray(opinions[o]), 2, jnp.asarray(heard[o])))
        for o in (np.arange(7), np.array(order))
    ]
    assert both[0] == pytest.approx(both[1], abs=1e-5)
