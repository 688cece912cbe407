"""The decision path: from opinions to votes to a verdict, against NumPy."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from runtime.committees import ForkingToy, committee_of

from phalanx.agents.memory import init_memory, read
from phalanx.agents.network import cell_step, encode_events, event_vector, policy_logits, state_value
from phalanx.committee import decide
from phalanx.runtime.cut import Cut
from phalanx.runtime.decide import appraise, ballots, decide_events, deliberate, settle, vote


def log_probs_of(seed: int, *shape: int) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(0, 2, (*shape, 4)).astype(np.float32)
    return np.asarray(jax.nn.log_softmax(jnp.asarray(logits)))


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_a_vote_at_a_threshold_is_the_likeliest_answer_where_answers_reach_it(
    seed: int, threshold: float
) -> None:
    log_probs = log_probs_of(seed, 30)
    found = np.asarray(vote(jnp.asarray(log_probs), threshold=threshold))
    for row, got in zip(np.exp(log_probs), found, strict=True):
        if abs((1 - row[0]) - threshold) > 1e-6:
            assert got == (1 + np.argmax(row[1:]) if 1 - row[0] >= threshold else 0)


@given(st.integers(0, 10_000), st.floats(0.0, 0.6), st.floats(0.0, 0.4))
def test_between_its_two_suspicions_the_committee_alerts(seed: int, alert: float, more: float) -> None:
    log_probs, cut = jnp.asarray(log_probs_of(seed, 4, 20)), Cut(alert, alert + more)
    agreed = np.asarray(deliberate(log_probs, 1))
    votes = np.asarray(ballots(log_probs, cut, 1))
    chances = np.exp(np.asarray(log_probs))
    plain = 1 + chances[..., 1:].argmax(-1)
    alone = 1 - chances[..., 0]
    assume((np.abs(alone - cut.answer) > 1e-5).all())
    plain = np.where(alone < cut.answer, np.minimum(plain, 2), plain)
    for event, suspicion in enumerate(agreed):
        if min(abs(suspicion - cut.alert), abs(suspicion - cut.answer)) < 1e-5:
            continue
        expected = plain[:, event] if suspicion >= cut.answer else np.full(4, int(suspicion >= alert))
        np.testing.assert_array_equal(votes[:, event], expected)


def test_each_environment_may_have_suspicions_of_its_own() -> None:
    log_probs = jnp.asarray(log_probs_of(3, 4, 6))
    alert, answer = jnp.linspace(0.1, 0.6, 6), jnp.linspace(0.5, 0.9, 6)
    found = np.asarray(ballots(log_probs, Cut(alert, answer), 1))
    for event in range(6):
        one = ballots(log_probs[:, event : event + 1], Cut(float(alert[event]), float(answer[event])), 1)
        np.testing.assert_array_equal(found[:, event], np.asarray(one)[:, 0])


def test_without_a_threshold_the_likeliest_verdict_is_voted() -> None:
    log_probs = log_probs_of(0, 50)
    np.testing.assert_array_equal(vote(jnp.asarray(log_probs)), log_probs.argmax(-1))


def test_the_ends_of_the_threshold_answer_everything_and_nothing() -> None:
    log_probs = jnp.asarray(log_probs_of(1, 50))
    assert (np.asarray(vote(log_probs, threshold=0.0)) >= 1).all()
    assert (np.asarray(vote(log_probs, threshold=float("inf"))) == 0).all()


def test_drawn_votes_follow_the_policy() -> None:
    log_probs = log_probs_of(2, 1)[0]
    drawn = vote(jnp.broadcast_to(jnp.asarray(log_probs), (20_000, 4)), key=jax.random.key(0))
    shares = np.bincount(np.asarray(drawn), minlength=4) / 20_000
    np.testing.assert_allclose(shares, np.exp(log_probs), atol=0.015)  # more than 4 standard errors


def odds(log_probs: np.ndarray) -> np.ndarray:
    allowed = np.exp(log_probs[..., 0].astype(np.float64))
    return np.log((1 - allowed) / allowed)


@given(st.integers(0, 10_000), st.sampled_from([(1, 0), (4, 1), (5, 1), (7, 2)]))
def test_the_members_agree_on_the_mean_of_their_log_odds_without_the_extremes(
    seed: int, size: tuple[int, int]
) -> None:
    n, f = size
    log_probs = log_probs_of(seed, n, 12)
    kept = np.sort(odds(log_probs), axis=0)[f : n - f]
    agreed = np.asarray(deliberate(jnp.asarray(log_probs), f))
    np.testing.assert_allclose(agreed, 1 / (1 + np.exp(-kept.mean(axis=0))), rtol=1e-4, atol=1e-6)


@given(st.integers(0, 10_000), st.sampled_from([(4, 1), (7, 2), (10, 3)]))
def test_liars_cannot_move_the_suspicion_beyond_what_honest_members_think(
    seed: int, size: tuple[int, int]
) -> None:
    """Validity, whatever f members say, the certain and the impossible included."""
    n, f = size
    rng = np.random.default_rng(seed)
    log_probs = log_probs_of(seed, n, 20).copy()
    liars = rng.permutation(n)[:f]
    lie = rng.choice([0.0, -1e-6, -30.0, -87.0], (f, 20)).astype(np.float32)
    log_probs[liars] = -87.0
    log_probs[liars, :, 0] = lie
    log_probs[liars, :, 3] = np.where(lie < -1.0, 0.0, -87.0)
    honest = 1 - np.exp(np.delete(log_probs, liars, axis=0)[..., 0])
    agreed = np.asarray(deliberate(jnp.asarray(log_probs), f))
    assert (honest.min(axis=0) - 1e-5 <= agreed).all() and (agreed <= honest.max(axis=0) + 1e-5).all()


def test_members_who_have_deliberated_do_not_split_on_whether_to_answer() -> None:
    """Alone they do: two against two is where the rule makes an alert of a block and an allow."""
    log_probs = jnp.asarray(log_probs_of(3, 4, 200))
    alone, together = (
        np.asarray(votes) >= 1 for votes in (vote(log_probs, threshold=0.7), ballots(log_probs, 0.7, 1))
    )
    assert (alone.sum(axis=0) == 2).any()
    assert set(together.sum(axis=0).tolist()) == {0, 4}
    kinds = 1 + np.asarray(log_probs)[..., 1:].argmax(-1)
    found = np.asarray(ballots(log_probs, 0.7, 1))
    kinds = np.where(alone, kinds, np.minimum(kinds, 2))
    np.testing.assert_array_equal(found, np.where(together, kinds, 0))


def test_a_liar_and_one_sure_member_bring_no_quarantine_about() -> None:
    """The calm ones' leftover preference for a quarantine is not a vote for it."""
    sure, calm = [3e-4, 0.0, 0.9997, 0.0], [0.993, 0.001, 0.001, 0.005]
    liar = [1e-9, 0.0, 0.0, 1.0]
    log_probs = jnp.log(jnp.array([sure, calm, calm, liar]) + 1e-12)[:, None]
    votes = ballots(log_probs, 0.5, 1)
    assert votes[:, 0].tolist() == [2, 2, 2, 3]
    assert decide(votes[:, 0].tolist(), 1) == 2


def test_one_member_has_nobody_to_ask() -> None:
    log_probs = jnp.asarray(log_probs_of(4, 1, 300))
    np.testing.assert_array_equal(ballots(log_probs, 0.6, 0), vote(log_probs, threshold=0.6))


def test_the_ends_of_the_threshold_hold_for_a_committee() -> None:
    log_probs = jnp.asarray(log_probs_of(1, 4, 50)).at[:, 0, 0].set(-100.0).at[:, 1, 1:].set(-100.0)
    assert (np.asarray(ballots(log_probs, 0.0, 1)) >= 1).all()
    assert (np.asarray(ballots(log_probs, float("inf"), 1)) == 0).all()


def test_settle_counts_only_the_votes_received() -> None:
    votes = np.array(list(itertools.product(range(4), repeat=4)), np.int32)
    rng = np.random.default_rng(0)
    received = rng.random(votes.shape) < 0.8
    score = rng.random(len(votes)).astype(np.float32)
    found = settle(jnp.asarray(votes), jnp.asarray(received), jnp.asarray(score), 1)
    np.testing.assert_array_equal(found.votes, votes)
    np.testing.assert_array_equal(found.score, score)
    for row, (ballot, there) in enumerate(zip(votes, received, strict=True)):
        cast = ballot[there]
        assert found.tally[row].tolist() == [int((cast >= v).sum()) for v in range(4)]
        assert bool(found.quorum[row]) == (len(cast) >= 3)
        if row % 16 == 0:
            assert int(found.action[row]) == decide(cast.tolist(), 1)


@pytest.mark.parametrize("cell", ["gru", "none"])
def test_a_decision_is_what_the_members_agree_on_put_to_the_vote(cell: str) -> None:
    env, lanes = ForkingToy(), 3
    committee = committee_of(env, cell=cell, views=("full", "process", "full", "full"))
    memory = {"gru": 4, "none": 0}[cell]
    rng = np.random.default_rng(0)
    table = init_memory(4, lanes, env.spec.n_entities, memory)
    table = eqx.tree_at(
        lambda t: (t.cells, t.known),
        table,
        (jnp.asarray(rng.normal(size=table.cells.shape), jnp.float32), jnp.ones_like(table.known)),
    )
    _, seen = jax.vmap(env.reset)(jax.random.split(jax.random.key(1), lanes))
    seen = eqx.tree_at(lambda o: o.source, seen, jnp.array([0, -1, 2]))
    cuts = np.array([0.5, 0.95, 0.5], np.float32)
    after, _, decision, opinion = decide_events(
        committee, table, seen, jnp.int32(7), threshold=jnp.asarray(cuts)
    )

    vectors, (memories, _) = event_vector(env.spec, seen), read(table, seen)
    core = jnp.asarray(rng.normal(size=(lanes, env.spec.n_core)), jnp.float32)
    values = appraise(committee, opinion, core)
    chances = np.zeros((4, lanes, 4))
    for m in range(4):
        own = jax.tree.map(lambda leaf, m=m: leaf[m], committee.networks)
        encoding = encode_events(own, committee.masks[m], vectors)
        memory_m = cell_step(own, encoding.gates, memories[m]) if memory else memories[m]
        logits = policy_logits(own, encoding, memory_m)
        emitted = state_value(own, committee.masks[m], vectors, core, memory_m)
        stats = jax.tree.map(lambda leaf, m=m: float(leaf[m]), committee.normalizers)
        expected = np.sqrt(stats.m2 / stats.count) * np.asarray(emitted) + stats.mean
        np.testing.assert_allclose(values[m], expected, rtol=1e-4, atol=1e-5)
        chances[m] = np.asarray(jax.nn.softmax(logits))
        np.testing.assert_allclose(np.exp(opinion.log_probs[m]), chances[m], atol=1e-6)
        if memory:
            entity = np.asarray(seen.entity)
            np.testing.assert_allclose(after.cells[m, np.arange(lanes), entity], memory_m, atol=1e-6)
    np.testing.assert_allclose(decision.score, (1 - chances[..., 0]).mean(axis=0), atol=1e-6)
    middle = np.sort(np.log(1 / chances[..., 0] - 1), axis=0)[1:3].mean(axis=0)
    votes = np.where(middle >= np.log(cuts / (1 - cuts)), 1 + chances[..., 1:].argmax(-1), 0)
    votes = np.where(1 - chances[..., 0] >= cuts, votes, np.minimum(votes, 2))
    assert 0 < (votes > 0).sum() < votes.size
    np.testing.assert_array_equal(decision.votes, votes.T)
    assert decision.action.tolist() == [decide(ballot.tolist(), 1) for ballot in votes.T]
    assert after.writer[np.arange(lanes), np.asarray(seen.entity)].tolist() == [7] * lanes
    assert bool(jnp.array_equal(committee.normalizers.count, jnp.full(4, 10.0, jnp.float32))), (
        "deciding learns nothing"
    )
