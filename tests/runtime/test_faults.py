"""Faulty members in the decision path: what is received of them is what counts, everywhere."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runtime.committees import ForkingToy, committee_of

from phalanx.agents.memory import init_memory
from phalanx.committee.faults import Faults, Threat, init_faults
from phalanx.runtime.decide import Committee, decide_events, hearing, init_guard, shielded, suspicion_told
from phalanx.stl.shield import Shield
from phalanx.types import Decision

LANES = 24
CUT = 0.87  # about half of this committee's events are as suspicious


def faults_of(kind: str, faulty: int = 1, n: int = 4) -> Faults:
    return init_faults(Threat((kind,), faulty, 10, 4), n, LANES, jax.random.key(2))


def decided(committee: Committee, faults: Faults | None, **given: Any) -> tuple[Decision, Any]:
    env = ForkingToy()
    table = init_memory(committee.n_members, LANES, env.spec.n_entities, 4)
    _, seen = jax.vmap(env.reset)(jax.random.split(jax.random.key(1), LANES))
    guard = init_guard(committee, LANES)
    _, _, decision, opinion = eqx.filter_jit(decide_events)(
        committee, table, seen, jnp.int32(0), guard=guard, faults=faults, **given
    )
    return decision, opinion


@pytest.fixture(scope="module")
def committee() -> Committee:
    return committee_of(ForkingToy())


@pytest.mark.parametrize("drawn", [False, True])
def test_with_nobody_faulty_the_decision_is_the_same(committee: Committee, drawn: bool) -> None:
    given: dict[str, Any] = {"key": jax.random.key(3)} if drawn else {"threshold": CUT}
    nobody = eqx.tree_at(lambda own: own.faulty, faults_of("flip"), jnp.zeros((LANES, 4), bool))
    plain, thought = decided(committee, None, **given)
    found, opinion = decided(committee, nobody, **given)
    assert thought.statements is None and opinion.statements is not None
    for name in ("action", "votes", "tally", "quorum", "shielded"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
    np.testing.assert_allclose(found.score, plain.score, atol=1e-6)
    assert 0 < np.asarray(plain.action).sum() < 3 * LANES


def test_votes_that_are_not_received_are_left_out(committee: Committee) -> None:
    faults = faults_of("silent")
    decision, opinion = decided(committee, faults, threshold=CUT)
    faulty = np.asarray(faults.faulty)
    np.testing.assert_array_equal(np.asarray(decision.votes) == -1, faulty)
    assert np.asarray(decision.tally)[:, 0].tolist() == [3] * LANES and bool(decision.quorum.all())
    thought = np.exp(np.asarray(opinion.log_probs)[..., 0]).T
    for lane in range(LANES):
        assert float(decision.score[lane]) == pytest.approx(1 - thought[lane, ~faulty[lane]].mean(), abs=1e-5)


def test_more_than_f_silent_members_leave_no_quorum_and_the_answer_is_alert(committee: Committee) -> None:
    decision, _ = decided(committee, faults_of("silent", 2), threshold=CUT)
    assert decision.action.tolist() == [1] * LANES and not bool(decision.quorum.any())


def test_drawn_votes_of_honest_members_do_not_depend_on_who_lies(committee: Committee) -> None:
    key = jax.random.key(4)
    plain, _ = decided(committee, None, key=key)
    faults = faults_of("flip")
    decision, opinion = decided(committee, faults, key=key)
    faulty = np.asarray(faults.faulty)
    np.testing.assert_array_equal(opinion.statements.own, plain.votes)
    np.testing.assert_array_equal(np.asarray(decision.votes)[~faulty], np.asarray(plain.votes)[~faulty])
    lies = np.where(np.asarray(plain.votes) >= 1, 0, 3)
    np.testing.assert_array_equal(np.asarray(decision.votes)[faulty], lies[faulty])


def test_the_shield_reads_what_was_told_and_not_what_liars_think(committee: Committee) -> None:
    """Where the middle is suspicious it demands an answer; the liar's opinion moves the middle."""
    keeper = Shield([("sure", "always (suspicion > .87 -> answered > .5)", 1)])
    guarded = shielded(committee, keeper)
    for kind in ("targeted", "silent", "flip"):
        faults = faults_of(kind)
        decision, opinion = decided(guarded, faults, threshold=2.0)  # members never answer by themselves
        said = opinion.statements
        odds = jax.nn.logsumexp(said.told[..., 1:], axis=-1) - said.told[..., 0]
        for lane in range(LANES):
            heard = np.sort(np.asarray(odds)[np.asarray(said.heard)[:, lane], lane])
            demanded = heard[1:-1].mean() > np.log(CUT / (1 - CUT))
            assert (int(decision.action[lane]) >= 1) == demanded, kind
            assert bool(decision.shielded[lane]) == demanded
        assert 0 < int(decision.shielded.sum()) < LANES


def test_the_hearing_alone_is_what_the_decision_path_holds(committee: Committee) -> None:
    """So that opinions collected once can be judged again under any liars."""
    faults = faults_of("worst-case")
    decision, opinion = decided(committee, faults, threshold=CUT)
    alone = hearing(opinion.log_probs, faults, jnp.zeros(LANES, jnp.int32), 1, threshold=CUT)
    for one, other in zip(jax.tree.leaves(alone), jax.tree.leaves(opinion.statements), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(decision.votes, alone.votes)
    np.testing.assert_allclose(decision.score, suspicion_told(alone), atol=1e-6)
