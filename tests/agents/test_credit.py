"""Credit of votes against brute force."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.agents.credit import CREDIT_SCHEMES, NO_STAKE, best_votes, local_weight, relative_worth
from phalanx.committee.voting import pivotal

N, F = 4, 1


def rule(votes: list[int]) -> int:
    """The verdict on four votes, f = 1."""
    if sum(vote == 3 for vote in votes) >= 3:
        return 3
    if sum(vote >= 2 for vote in votes) > 2:
        return 2
    return int(sum(vote >= 1 for vote in votes) >= 2)


def mildest_best(worth: np.ndarray) -> int:
    """The first of the best, -1 where all are alike."""
    return -1 if np.ptp(worth) == 0 else int(np.flatnonzero(worth == worth.max())[0])


@pytest.mark.parametrize("scheme", sorted(set(CREDIT_SCHEMES) - {"difference"}))
def test_the_best_vote_is_the_best_verdict(scheme: str) -> None:
    rng = np.random.default_rng(0)
    credit = rng.integers(-1, 2, (40, 2, 4)).astype(np.float32)  # ties among them, some of all four
    votes = rng.integers(0, 4, (40, 2, N)).astype(np.int32)
    found = np.asarray(best_votes(scheme, credit=jnp.asarray(credit), votes=jnp.asarray(votes), f=F))
    expected = np.array([[[mildest_best(worth)] * N for worth in row] for row in credit])
    np.testing.assert_array_equal(found, expected)
    assert (expected == NO_STAKE).any() and (expected == 3).any()


def test_difference_credit_judges_the_verdict_each_vote_would_have_led_to() -> None:
    """All 256 ballots, so every way of being pivotal and of not being so."""
    ballots = np.array(list(itertools.product(range(4), repeat=N)), np.int32)
    credit = np.random.default_rng(1).normal(size=(len(ballots), 4)).astype(np.float32)
    found = np.asarray(best_votes("difference", credit=jnp.asarray(credit), votes=jnp.asarray(ballots), f=F))
    for row, ballot in enumerate(ballots.tolist()):
        for member in range(N):
            led = [rule([*ballot[:member], own, *ballot[member + 1 :]]) for own in range(4)]
            assert found[row, member] == mildest_best(credit[row, led])
    matters = np.asarray(jax.vmap(lambda votes: pivotal(votes, jnp.ones(N, bool), F))(jnp.asarray(ballots)))
    np.testing.assert_array_equal(found == NO_STAKE, ~matters)
    assert matters.any() and not matters.all()


@given(st.integers(0, 1000), st.sampled_from([1e-3, 1e4]), st.sampled_from(["own", "difference"]))
def test_the_best_vote_does_not_depend_on_the_scale_of_the_reward(
    seed: int, factor: float, scheme: str
) -> None:
    rng = np.random.default_rng(seed)
    credit = rng.normal(size=(6, 4)).astype(np.float32)
    votes = jnp.asarray(rng.integers(0, 4, (6, N)), jnp.int32)
    one = best_votes(scheme, credit=jnp.asarray(credit), votes=votes, f=F)
    other = best_votes(scheme, credit=jnp.asarray(factor * credit), votes=votes, f=F)
    np.testing.assert_array_equal(other, one)


@pytest.mark.parametrize(
    ("scheme", "weights"),
    [
        ("lookahead", (1, 1, 0.2, 0.2)),
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
    assert found == pytest.approx(weights)


def test_every_scheme_is_listed_above() -> None:
    assert len(CREDIT_SCHEMES) == 8


def test_shadows_end_with_the_first_phase_or_go_on_where_votes_that_caused_nothing_can_be_judged() -> None:
    until = {name: scheme.shadow_until for name, scheme in CREDIT_SCHEMES.items()}
    assert until.pop("lookahead") == pytest.approx(1 / 3)
    assert {name for name, at in until.items() if at == 0} == {"committee", "difference", "dictator"}
    assert {at for at in until.values() if at} == {1.0}


@given(st.integers(0, 1000), st.sampled_from([1e-4, 1.0, 1e5]), st.floats(-50, 50))
def test_relative_worth_orders_verdicts_whatever_the_unit_and_the_level(
    seed: int, factor: float, level: float
) -> None:
    """The best verdict of an event has 0, all others less, and the spread is 10 in the root mean square."""
    worth = np.random.default_rng(seed).normal(size=(5, 3, 4)) + level
    found = np.asarray(relative_worth(jnp.asarray(factor * worth, jnp.float32)))
    np.testing.assert_array_equal(found.max(-1), 0)
    np.testing.assert_array_equal(found.argmax(-1), worth.argmax(-1))
    assert np.sqrt((found.min(-1) ** 2).mean()) == pytest.approx(10, rel=1e-3)
    lost = worth - worth.max(-1, keepdims=True)
    np.testing.assert_allclose(found, lost * (found.min() / lost.min()), rtol=1e-3, atol=2e-2)


def test_where_nothing_is_at_stake_no_vote_is_worth_more() -> None:
    np.testing.assert_array_equal(relative_worth(jnp.full((3, 2, 4), 7.25)), 0)


def test_the_expected_worth_teaches_the_answer_that_is_best_on_average_not_the_likeliest_best() -> None:
    """A rare attack of high stakes behind the same sight: allow is the best vote nine times in ten, block pays."""
    worth = jnp.asarray([[0.0, -3.0, -1.0, -7.0]] * 9 + [[-50.0, -53.0, 0.0, -7.0]])
    gradient = jax.grad(lambda logits: (jax.nn.softmax(logits)[None] * relative_worth(worth)).sum(-1).mean())
    logits = jnp.zeros(4)
    for _ in range(400):
        logits = logits + gradient(logits)
    assert int(jnp.argmax(logits)) == 2 and float(jax.nn.softmax(logits)[2]) > 0.95
    best = best_votes("lookahead", credit=worth, votes=jnp.zeros((10, 1), jnp.int32), f=0)
    assert np.bincount(np.asarray(best)[:, 0], minlength=4).tolist() == [9, 0, 1, 0]
