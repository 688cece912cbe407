"""The voting rule against a plain statement of it; ``test_rule_exhaustive`` has the laws that make it safe."""

import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.committee.rule import decide, faults_tolerated
from phalanx.committee.voting import pivotal, tally, verdict_of
from phalanx.errors import UsageError
from phalanx.types import Verdict

SIZES = (1, 4, 7)


def rule(votes: Sequence[int], f: int) -> int:
    """The rule as CONTRACT.md words it, on the list of the votes received."""
    if len(votes) < 2 * f + 1:
        return 1
    if sum(vote == 3 for vote in votes) >= 2 * f + 1:
        return 3
    if sum(vote >= 2 for vote in votes) > len(votes) / 2:
        return 2
    return int(sum(vote >= 1 for vote in votes) >= f + 1)


@jax.jit
def _tallies(votes: jax.Array, received: jax.Array) -> jax.Array:
    return jax.vmap(tally)(votes, received)


def verdicts(ballots: Sequence[Sequence[int]], n: int) -> list[int]:
    """What the package answers to ballots of up to n votes; missing votes carry garbage that must not count."""
    votes = np.full((len(ballots), n), 3, np.int32)
    received = np.zeros((len(ballots), n), bool)
    for row, ballot in enumerate(ballots):
        place = (row + np.arange(len(ballot))) % n  # the missing votes are anywhere
        votes[row, place], received[row, place] = ballot, True
    tallied = _tallies(jnp.asarray(votes), jnp.asarray(received))
    return jax.vmap(lambda row: verdict_of(row, (n - 1) // 3))(tallied).tolist()


@pytest.mark.parametrize("n", SIZES)
def test_every_multiset_of_votes_is_answered_as_the_rule_says(n: int) -> None:
    ballots = [
        ballot for size in range(n + 1) for ballot in itertools.combinations_with_replacement(range(4), size)
    ]
    expected = [rule(ballot, (n - 1) // 3) for ballot in ballots]
    assert verdicts(ballots, n) == expected
    assert set(expected) == {0, 1, 2, 3}


@given(st.permutations(range(7)), st.lists(st.integers(0, 3), min_size=7, max_size=7), st.integers(0, 127))
def test_who_cast_a_vote_does_not_matter(order: list[int], votes: list[int], present: int) -> None:
    cast, received = np.array(votes, np.int32), np.array([present >> i & 1 for i in range(7)], bool)
    both = _tallies(jnp.asarray([cast, cast[order]]), jnp.asarray([received, received[order]]))
    np.testing.assert_array_equal(both[0], both[1])
    there = cast[received]
    np.testing.assert_array_equal(both[0], [(there >= v).sum() for v in range(4)])


def test_members_and_the_faults_they_tolerate() -> None:
    assert [faults_tolerated(n) for n in range(1, 11)] == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3]
    assert faults_tolerated(7, 0) == 0 and faults_tolerated(7, 2) == 2


def test_too_small_a_committee_is_refused_with_reason_and_remedy() -> None:
    with pytest.raises(UsageError, match=r"3 members tolerate 0 .*n >= 3f \+ 1.*1 were asked.*--members 4"):
        faults_tolerated(3, 1)
    with pytest.raises(UsageError, match="--members 7"):
        faults_tolerated(6, 2)
    with pytest.raises(UsageError, match="-1 were asked"):
        faults_tolerated(4, -1)
    with pytest.raises(UsageError, match="at least 1"):
        faults_tolerated(0)


def test_pivotal_members_are_those_a_changed_vote_of_whom_changes_the_verdict() -> None:
    cases = [
        (votes, mask)
        for votes in itertools.product(range(4), repeat=4)
        for mask in itertools.product([False, True], repeat=4)
    ]
    votes, masks = (np.array(part) for part in zip(*cases, strict=True))
    found = jax.jit(jax.vmap(lambda v, r: pivotal(v, r, 1)))(
        jnp.asarray(votes, jnp.int32), jnp.asarray(masks)
    )
    expected = np.zeros((len(cases), 4), bool)
    for row, (ballot, mask) in enumerate(cases):
        for member in np.flatnonzero(mask):
            outcomes = {
                rule([(own if i == member else ballot[i]) for i in range(4) if mask[i]], 1)
                for own in range(4)
            }
            expected[row, member] = len(outcomes) > 1
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(("n", "rates"), [(4, (0.56, 0.46, 0.20, 0.07)), (7, (0.38, 0.32, 0.06, 0.007))])
def test_pivotal_rates_near_unanimity_are_the_derived_ones(n: int, rates: tuple[float, ...]) -> None:
    """The others vote allow but for a share of votes at random: the table that motivates ``agents.credit``."""
    others = np.array(list(itertools.product(range(4), repeat=n - 1)), np.int32)
    votes = jnp.asarray(np.pad(others, ((0, 0), (1, 0))))
    first = jax.vmap(lambda row: pivotal(row, jnp.ones(n, bool), (n - 1) // 3)[0])(votes)
    for share, rate in zip((1.0, 0.3, 0.1, 0.03), rates, strict=True):
        chance = np.where(others == 0, 1 - 0.75 * share, 0.25 * share).prod(axis=1)
        decimals = 3 if rate < 0.01 else 2
        assert round(float(chance[np.asarray(first)].sum()), decimals) == rate


def test_decide_takes_names_and_numbers() -> None:
    assert decide(["block", "Block", "QUARANTINE", "allow"], 1) == decide([2, 2, 3, 0], 1) == 2
    assert decide([Verdict.QUARANTINE] * 3 + ["allow"], 1) == 3
    assert decide(["allow"], 0) == 0
    assert decide([], 0) == decide([], 1) == decide([3, 3], 1) == 1, "no quorum: alert"


@pytest.mark.parametrize("vote", ["kill", "", 4, -1, True])
def test_what_is_no_vote_is_refused_and_the_choices_are_named(vote: object) -> None:
    with pytest.raises(UsageError, match=r"unknown vote.*allow, alert, block, quarantine"):
        decide([0, vote, 0, 0], 1)  # type: ignore[list-item]


def test_a_negative_number_of_faults_is_refused() -> None:
    with pytest.raises(UsageError, match="f=-1"):
        decide([0], -1)
