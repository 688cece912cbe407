"""The voting rule under every lie: all votes received, all sets of liars, for n = 4 and 7; by Hypothesis up to 31.

A lying proposer leaves votes out, so S is any set of at least 2f + 1 votes; at most f of those in it are lies.
"""

import functools
import itertools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.committee.rule import decide
from phalanx.committee.voting import tally, verdict_of
from phalanx.types import Verdict

MISSING = -1


def rule(votes: Sequence[int], f: int) -> int:
    """The rule as CONTRACT.md words it, counted one vote at a time."""
    at_least = [0, 0, 0, 0]
    for vote in votes:
        for severity in range(vote + 1):
            at_least[severity] += 1
    if at_least[0] < 2 * f + 1:
        return 1
    if at_least[3] >= 2 * f + 1:
        return 3
    if at_least[2] > at_least[0] / 2:
        return 2
    return 1 if at_least[1] >= f + 1 else 0


def broken_laws(honest: Sequence[int], verdict: int, f: int) -> list[str]:
    """Which laws a verdict breaks, reached on a quorum that holds these honest votes and at most f lies."""
    broken = []
    if verdict > max(honest):
        broken.append("above every honest vote")
    if verdict == Verdict.QUARANTINE and sum(vote == 3 for vote in honest) < f + 1:
        broken.append("a quarantine with fewer than f + 1 honest votes for it")
    if verdict < min(honest) and (min(honest), verdict) != (3, 2):
        broken.append("below every honest vote")
    return broken


@functools.partial(jax.jit, static_argnums=2)
def _answers(votes: jax.Array, received: jax.Array, f: int) -> jax.Array:
    return jax.vmap(lambda v, r: verdict_of(tally(v, r), f))(votes, received)


@functools.cache
def all_ballots(n: int) -> tuple[np.ndarray, np.ndarray]:
    """Every way in which each member votes or is left out, with a quorum, and what the package answers."""
    f = (n - 1) // 3
    grid = np.indices((5,) * n, np.int8).reshape(n, -1).T - 1
    grid = grid[(grid != MISSING).sum(axis=1) >= 2 * f + 1]
    answers = _answers(jnp.asarray(grid, jnp.int32), jnp.asarray(grid != MISSING), f)
    return grid, np.asarray(answers)


@pytest.mark.parametrize("n", [4, 7])
def test_every_assignment_of_votes_and_of_liars_keeps_the_laws(n: int) -> None:
    """No reduction to multisets: 5^n ballots, beside every set of at most f liars among those received."""
    f = (n - 1) // 3
    ballots, verdicts = all_ballots(n)
    downgrades, checked = set(), 0
    for size in range(f + 1):
        for liars in itertools.combinations(range(n), size):
            there = (ballots[:, liars] != MISSING).all(
                axis=1
            )  # a liar that is left out is another, smaller set
            honest = np.delete(ballots[there], liars, axis=1)
            verdict = verdicts[there]
            cast = honest != MISSING
            highest = honest.max(axis=1)
            lowest = np.where(cast, honest, 4).min(axis=1)
            assert (verdict <= highest).all()
            assert ((honest == 3).sum(axis=1)[verdict == 3] >= f + 1).all()
            below = verdict < lowest
            downgrades |= set(zip(lowest[below].tolist(), verdict[below].tolist(), strict=True))
            checked += len(verdict)
    assert downgrades == {(3, 2)}, "only a unanimous quarantine may fall, and only to block"
    assert checked > {4: 10**3, 7: 10**6}[n]


def _attacks(n: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """All honest votes and all lies of at most f members, where a quorum answers, up to who cast which."""
    f = (n - 1) // 3
    return [
        (honest, lies)
        for received in range(2 * f + 1, n + 1)
        for liars in range(f + 1)
        for honest in itertools.combinations_with_replacement(range(4), received - liars)
        for lies in itertools.combinations_with_replacement(range(4), liars)
    ]


@pytest.mark.parametrize("n", [4, 7])
def test_the_plain_statement_keeps_the_laws_and_is_what_the_package_answers(n: int) -> None:
    f, attacks = (n - 1) // 3, _attacks(n)
    votes = np.full((len(attacks), n), 3, np.int32)  # the missing votes carry garbage
    received = np.zeros((len(attacks), n), bool)
    for row, (honest, lies) in enumerate(attacks):
        votes[row, : len(honest + lies)], received[row, : len(honest + lies)] = honest + lies, True
    found = np.asarray(_answers(jnp.asarray(votes), jnp.asarray(received), f)).tolist()
    for (honest, lies), verdict in zip(attacks, found, strict=True):
        assert verdict == rule(honest + lies, f)
        assert not broken_laws(honest, verdict, f)


@pytest.mark.parametrize("n", [4, 7])
def test_a_unanimous_quarantine_falls_only_where_honest_votes_are_left_out(n: int) -> None:
    """With all honest votes received f liars cannot turn it into a block: this is the lying proposer's doing."""
    f = (n - 1) // 3
    for lies in itertools.combinations_with_replacement(range(4), f):
        assert rule((3,) * (n - f) + lies, f) == 3
    assert rule((3,) * (n - 2 * f) + (0,) * f, f) == 2


def _answer_by(name: str, votes: Sequence[int], f: int) -> int:
    """Rules that are not ours."""
    ordered = sorted(votes)
    return {
        "median": ordered[len(votes) // 2],
        "most votes": max(set(ordered), key=lambda v: (ordered.count(v), -v)),
        "highest": ordered[-1],
        "lowest": ordered[0],
        "trimmed median": ordered[f : len(votes) - f][(len(votes) - 2 * f) // 2],
    }[name]


@pytest.mark.parametrize("name", ["median", "most votes", "highest", "lowest", "trimmed median"])
def test_the_laws_rule_other_rules_out(name: str) -> None:
    """So the laws can fail. Any median lets a quarantine come about with f honest votes for it or fewer."""
    broken = {
        law
        for honest, lies in _attacks(4)
        for law in broken_laws(honest, _answer_by(name, honest + lies, 1), 1)
    }
    expected = {
        "median": "a quarantine with fewer than f + 1 honest votes for it",
        "most votes": "a quarantine with fewer than f + 1 honest votes for it",
        "highest": "above every honest vote",
        "lowest": "below every honest vote",
        "trimmed median": "a quarantine with fewer than f + 1 honest votes for it",
    }[name]
    assert expected in broken


@given(st.data())
def test_the_laws_hold_for_committees_of_up_to_31(data: st.DataObject) -> None:
    """Also where n is more than 3f + 1, and where fewer faults are tolerated than could be."""
    n = data.draw(st.integers(1, 31))
    f = data.draw(st.integers(0, (n - 1) // 3))
    received = data.draw(st.integers(2 * f + 1, n))
    liars = data.draw(st.integers(0, f))
    favourite = data.draw(st.integers(0, 3))  # honest members mostly agree: where thresholds are met
    opinion = st.one_of(st.just(favourite), st.just(favourite), st.integers(0, 3))
    honest = data.draw(st.lists(opinion, min_size=received - liars, max_size=received - liars))
    lies = data.draw(st.lists(st.integers(0, 3), min_size=liars, max_size=liars))
    verdict = decide(data.draw(st.permutations(honest + lies)), f)
    assert verdict == rule(honest + lies, f)
    assert not broken_laws(honest, verdict, f)


@given(st.data())
def test_without_a_quorum_the_answer_is_alert_whatever_was_voted(data: st.DataObject) -> None:
    f = data.draw(st.integers(1, 10))
    votes = data.draw(st.lists(st.integers(0, 3), max_size=2 * f))
    assert decide(votes, f) == rule(votes, f) == Verdict.ALERT


@given(st.data())
def test_f_plus_1_honest_members_get_their_alert(data: st.DataObject) -> None:
    """Whatever the others say, as long as none of their votes is left out."""
    n = data.draw(st.integers(1, 31))
    f = data.draw(st.integers(0, (n - 1) // 3))
    asking = data.draw(st.lists(st.integers(1, 3), min_size=f + 1, max_size=f + 1))
    others = data.draw(st.lists(st.integers(0, 3), min_size=f, max_size=n - f - 1))
    assert decide(asking + others, f) >= Verdict.ALERT


@given(st.data())
def test_a_lying_proposer_cannot_deny_the_alert_that_2f_plus_1_honest_members_ask_for(
    data: st.DataObject,
) -> None:
    """It leaves out f of them at most. Of f + 1 that ask it can leave too few: the next test."""
    f = data.draw(st.integers(0, 10))
    asking = data.draw(st.lists(st.integers(1, 3), min_size=f + 1, max_size=f + 1))  # what is left of 2f + 1
    lies = data.draw(st.lists(st.integers(0, 3), min_size=f, max_size=f))
    assert decide(asking + lies, f) >= Verdict.ALERT


@pytest.mark.parametrize("f", [1, 2])
def test_a_lying_proposer_can_deny_the_alert_that_only_f_plus_1_ask_for(f: int) -> None:
    ask, calm = [1] * (f + 1), [0] * (2 * f)
    assert decide(ask + calm, f) == Verdict.ALERT
    assert decide(ask[f:] + calm, f) == Verdict.ALLOW
