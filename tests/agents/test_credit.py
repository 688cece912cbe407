"""Credit of votes against brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.agents.credit import CREDIT_SCHEMES, local_weight, local_worth
from phalanx.committee.voting import pivotal

N, F = 4, 1


def rule(votes: list[int]) -> int:
    """The verdict on four votes, f = 1."""
    if sum(vote == 3 for vote in votes) >= 3:
        return 3
    if sum(vote >= 2 for vote in votes) > 2:
        return 2
    return int(sum(vote >= 1 for vote in votes) >= 2)


def scaled(credit: np.ndarray) -> np.ndarray:
    centred = credit - credit.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean())


@pytest.mark.parametrize("scheme", sorted(set(CREDIT_SCHEMES) - {"difference"}))
def test_every_vote_is_worth_what_its_verdict_is_worth(scheme: str) -> None:
    rng = np.random.default_rng(0)
    credit = rng.normal(3, 2, (5, 2, 4)).astype(np.float32)
    votes = rng.integers(0, 4, (5, 2, N)).astype(np.int32)
    worth = np.asarray(local_worth(scheme, credit=jnp.asarray(credit), votes=jnp.asarray(votes), f=F))
    assert worth.shape == (5, 2, N, 4)
    np.testing.assert_allclose(worth, np.broadcast_to(scaled(credit)[:, :, None], worth.shape), atol=1e-5)
    np.testing.assert_allclose(worth.mean(axis=-1), 0, atol=1e-5)
    assert np.sqrt((worth**2).mean()) == pytest.approx(1, rel=1e-5)


def test_difference_credit_is_the_worth_of_the_verdict_each_vote_would_have_led_to() -> None:
    """All 256 ballots, so every way of being pivotal and of not being so."""
    ballots = np.array(list(itertools.product(range(4), repeat=N)), np.int32)
    credit = np.random.default_rng(1).normal(size=(len(ballots), 4)).astype(np.float32)
    found = np.asarray(local_worth("difference", credit=jnp.asarray(credit), votes=jnp.asarray(ballots), f=F))
    worth = scaled(credit)
    expected = np.zeros((len(ballots), N, 4))
    for row, ballot in enumerate(ballots.tolist()):
        for member, own in itertools.product(range(N), range(4)):
            expected[row, member, own] = worth[row, rule([*ballot[:member], own, *ballot[member + 1 :]])]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    matters = np.asarray(jax.vmap(lambda votes: pivotal(votes, jnp.ones(N, bool), F))(jnp.asarray(ballots)))
    alike = np.ptp(found, axis=-1) == 0
    np.testing.assert_array_equal(alike, ~matters)
    assert matters.any() and not matters.all()


@given(st.integers(0, 1000), st.sampled_from([1e-3, 1e4]), st.sampled_from(["own", "difference"]))
def test_worth_does_not_depend_on_the_scale_of_the_reward(seed: int, factor: float, scheme: str) -> None:
    rng = np.random.default_rng(seed)
    credit = rng.normal(size=(6, 4)).astype(np.float32)
    votes = jnp.asarray(rng.integers(0, 4, (6, N)), jnp.int32)
    one = local_worth(scheme, credit=jnp.asarray(credit), votes=votes, f=F)
    other = local_worth(scheme, credit=jnp.asarray(factor * credit), votes=votes, f=F)
    np.testing.assert_allclose(other, one, atol=1e-5)


def test_credit_that_never_varies_is_worth_nothing() -> None:
    worth = local_worth("own", credit=jnp.full((3, 4), 7.0), votes=jnp.zeros((3, N), jnp.int32), f=F)
    np.testing.assert_array_equal(worth, 0)


@pytest.mark.parametrize(
    ("scheme", "weights"),
    [
        ("committee", (0, 0, 0, 0)),
        ("own", (1, 1, 1, 1)),
        ("half", (0.5, 0.5, 0.5, 0.5)),
        ("schedule", (1, 1, 0, 0)),
        ("blend", (1, 1, 0.5, 0.5)),
        ("difference", (1, 1, 1, 1)),
        ("dictator", (0, 0, 0, 0)),
    ],
)
def test_weights_over_the_course_of_training(scheme: str, weights: tuple[float, ...]) -> None:
    found = [float(local_weight(scheme, jnp.float32(at))) for at in (0.0, 0.33, 0.34, 1.0)]
    assert found == list(weights)


def test_every_scheme_is_listed_above() -> None:
    assert len(CREDIT_SCHEMES) == 7
