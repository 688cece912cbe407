"""Liars and crashes: each kind against what it promises, the optimal ones against trying everything."""

import dataclasses
import itertools
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from committee.lies import (
    everything,
    faults_of,
    log_odds,
    majority_answer,
    opinions,
    respond_to,
    told_votes,
)
from hypothesis import given
from hypothesis import strategies as st

from phalanx.committee.adversaries import ADVERSARIES, HELD_OUT, TRAINING, hear, threat_of
from phalanx.committee.attacks import ballots_of, harm, omissions
from phalanx.committee.faults import Faults, Statements, Threat, advance, init_faults, liar_sets
from phalanx.committee.learned import init_liar
from phalanx.errors import UsageError

SIZES = [(4, 1), (7, 2)]
ENVS = 84  # every set of liars equally often: 4 and 21 divide it
UNLEARNED = sorted(set(ADVERSARIES) - {"learned"})
HARMFUL = ("collude", "worst-case", "omit", "worst-proposer")


@eqx.filter_jit
def _heard_of(faults: Faults, log_probs: jax.Array, entity: jax.Array, f: int) -> Statements:
    return hear(faults, log_probs, respond_to(log_probs, f), f, entity)  # type: ignore[arg-type]


def heard_of(faults: Faults, log_probs: np.ndarray, f: int, entity: np.ndarray | None = None) -> Statements:
    slots = np.zeros(log_probs.shape[1], np.int32) if entity is None else entity
    found = _heard_of(faults, jnp.asarray(log_probs), jnp.asarray(slots), f)
    return jax.tree.map(np.asarray, found)


def honest_votes(log_probs: np.ndarray, f: int) -> np.ndarray:
    odds = log_odds(log_probs)
    return np.array([told_votes(log_probs[:, e], list(odds[:, e]), f) for e in range(log_probs.shape[1])])


def verdicts(found: Statements, f: int) -> np.ndarray:
    return np.array(majority_answer(np.asarray(found.votes), np.asarray(found.received), f))


def honest_verdicts(log_probs: np.ndarray, f: int) -> np.ndarray:
    votes = honest_votes(log_probs, f)
    return np.array(majority_answer(votes, np.ones_like(votes, bool), f))


@pytest.mark.parametrize("kind", UNLEARNED)
@pytest.mark.parametrize(("n", "f"), SIZES)
def test_honest_members_say_what_they_think_and_vote_on_what_they_hear(kind: str, n: int, f: int) -> None:
    log_probs = opinions(1, n, ENVS)
    faults = faults_of(kind, n, ENVS, f)
    found, honest = heard_of(faults, log_probs, f), ~np.asarray(faults.faulty)
    assert (honest.sum(axis=1) == n - f).all()
    np.testing.assert_array_equal(np.asarray(found.told)[honest.T], log_probs[honest.T])
    assert np.asarray(found.heard)[honest.T].all()
    expected = np.array(respond_to(log_probs, f)(jnp.asarray(found.told), jnp.asarray(found.heard)))
    np.testing.assert_array_equal(found.own, expected)
    there = honest & np.asarray(found.received)
    np.testing.assert_array_equal(np.asarray(found.votes)[there], expected[there])
    assert (np.asarray(found.votes)[~np.asarray(found.received)] == -1).all()
    if "omit" not in kind and "proposer" not in kind:
        assert there.sum() == honest.sum(), "only a lying proposer leaves votes out"


@pytest.mark.parametrize("kind", UNLEARNED)
def test_where_nobody_is_faulty_nothing_changes(kind: str) -> None:
    log_probs = opinions(2, 4, ENVS)
    faults = eqx.tree_at(lambda own: own.faulty, faults_of(kind, 4, ENVS, 1), jnp.zeros((ENVS, 4), bool))
    found = heard_of(faults, log_probs, 1)
    np.testing.assert_array_equal(found.told, log_probs)
    np.testing.assert_array_equal(found.votes, honest_votes(log_probs, 1))
    assert np.asarray(found.received).all() and np.asarray(found.heard).all()


@pytest.mark.parametrize(("n", "f"), SIZES)
def test_no_kind_breaks_the_laws_of_the_rule(n: int, f: int) -> None:
    """Never above every honest vote, never a quarantine with fewer than f + 1 honest votes for it."""
    log_probs = opinions(3, n, ENVS)
    for kind in UNLEARNED:
        faults = faults_of(kind, n, ENVS, f)
        found = heard_of(faults, log_probs, f)
        honest = np.where(np.asarray(faults.faulty), -1, np.asarray(found.own))
        verdict = verdicts(found, f)
        assert (verdict <= honest.max(axis=1)).all(), kind
        assert ((honest == 3).sum(axis=1)[verdict == 3] >= f + 1).all(), kind


def codes(found: Statements, faults: Faults) -> tuple[np.ndarray, np.ndarray]:
    """The liars' certain opinions (-1 where none is) and votes, ``[env, liar]``."""
    faulty = np.asarray(faults.faulty)
    told = np.moveaxis(np.asarray(found.told), 0, 1)[faulty].reshape(len(faulty), -1, 4)
    certain = np.where(told.min(axis=-1) < -1e3, told.argmax(axis=-1), -1)
    return certain, np.asarray(found.votes)[faulty].reshape(len(faulty), -1)


def test_random_liars_draw_each_verdict_equally_often_and_stand_by_it() -> None:
    log_probs = opinions(0, 7, 1)
    faults = faults_of("random", 7, 4000, 2)
    found = heard_of(faults, np.repeat(log_probs, 4000, axis=1), 2)
    opinion, vote = codes(found, faults)
    np.testing.assert_array_equal(opinion, vote)
    np.testing.assert_allclose(np.bincount(vote.ravel(), minlength=4) / vote.size, 0.25, atol=0.02)
    assert abs(np.corrcoef(vote.T)[0, 1]) < 0.06, "liars draw apart"
    later = heard_of(advance(faults, jnp.zeros(4000, bool)), np.repeat(log_probs, 4000, axis=1), 2)
    assert abs(np.corrcoef(vote[:, 0], codes(later, faults)[1][:, 0])[0, 1]) < 0.06, "and anew at every event"


def test_flippers_say_and_vote_the_opposite_end() -> None:
    log_probs, faults = opinions(4, 4, ENVS), faults_of("flip", 4, ENVS, 1)
    opinion, vote = codes(heard_of(faults, log_probs, 1), faults)
    own = honest_votes(log_probs, 1)[np.asarray(faults.faulty)].reshape(ENVS, 1)
    np.testing.assert_array_equal(vote, np.where(own >= 1, 0, 3))
    np.testing.assert_array_equal(opinion, vote)
    assert set(vote.ravel().tolist()) == {0, 3}


@pytest.mark.parametrize(("kind", "lie"), [("targeted", 0), ("targeted-benign", 3)])
def test_targeted_liars_lie_only_about_their_kind_of_event(kind: str, lie: int) -> None:
    log_probs, faults = opinions(5, 7, ENVS), faults_of(kind, 7, ENVS, 2)
    found = heard_of(faults, log_probs, 2)
    opinion, vote = codes(found, faults)
    suspicious = honest_verdicts(log_probs, 2) >= 1
    here = suspicious if lie == 0 else ~suspicious
    assert (vote[here] == lie).all() and (opinion[here] == lie).all() and here.any() and not here.all()
    assert (opinion[~here] == -1).all()
    np.testing.assert_array_equal(
        np.asarray(found.votes)[~here], honest_votes(log_probs, 2)[~here], "honest elsewhere"
    )


def test_a_liar_protects_one_process() -> None:
    log_probs, slots = opinions(6, 4, ENVS), np.arange(ENVS, dtype=np.int32) % 4
    faults = faults_of("targeted-process", 4, ENVS, 1)
    found = heard_of(faults, log_probs, 1, slots)
    own = slots == np.asarray(faults.target)
    opinion, vote = codes(found, faults)
    assert (vote[own] == 0).all() and (opinion[own] == 0).all() and 5 < own.sum() < 60
    np.testing.assert_array_equal(np.asarray(found.votes)[~own], honest_votes(log_probs, 1)[~own])


@pytest.mark.parametrize(("n", "f"), SIZES)
def test_of_a_silent_member_nothing_is_received(n: int, f: int) -> None:
    log_probs, faults = opinions(7, n, ENVS), faults_of("silent", n, ENVS, f)
    found = heard_of(faults, log_probs, f)
    np.testing.assert_array_equal(found.received, ~np.asarray(faults.faulty))
    np.testing.assert_array_equal(np.asarray(found.heard).T, ~np.asarray(faults.faulty))
    odds = log_odds(log_probs)
    for e, faulty in enumerate(np.asarray(faults.faulty)):
        said = [None if faulty[m] else odds[m, e] for m in range(n)]
        expected = np.where(faulty, -1, told_votes(log_probs[:, e], said, f))
        np.testing.assert_array_equal(np.asarray(found.votes)[e], expected)


def test_a_sleeper_is_honest_until_it_wakes_and_sleeps_again_in_the_next_episode() -> None:
    log_probs, faults = opinions(8, 4, ENVS), faults_of("sleeper", 4, ENVS, 1, horizon=6)
    awake, flipped = faults_of("flip", 4, ENVS, 1), honest_votes(log_probs, 1)
    expected = heard_of(awake, log_probs, 1).votes
    assert (np.asarray(expected) != flipped).any()
    for t in range(8):
        found = heard_of(faults, log_probs, 1)
        asleep = t < 3 or t == 7
        np.testing.assert_array_equal(found.votes, flipped if asleep else expected, str(t))
        faults = advance(faults, jnp.full(ENVS, t == 6))


def harms(verdict: np.ndarray, honest: np.ndarray, label: int) -> np.ndarray:
    """What a liar gains, by cases."""
    gains = []
    for got, fair in zip(verdict.tolist(), honest.tolist(), strict=True):
        if label == 1:
            gains.append(3 - got)
        elif label == 0:
            gains.append(got)
        else:
            gains.append(abs(got - fair) + (0.5 if got < fair else 0.0))
    return np.array(gains)


@pytest.mark.parametrize("label", [-1, 0, 1])
@pytest.mark.parametrize(("n", "f"), SIZES)
def test_the_worst_case_is_the_worst_of_everything(n: int, f: int, label: int) -> None:
    """Every opinion on a grid and none, every vote and none, each liar by itself; a proposer's omissions too."""
    log_probs = opinions(9, n, ENVS, spread=1.0)
    fair = honest_verdicts(log_probs, f)
    sayings = (-1e9, -3.0, -0.5, 0.0, 0.7, 4.0, 1e9, None) if n == 4 else (-1e9, -1.0, 0.5, 1e9, None)
    for kind, omit in (("worst-case", 0), ("worst-proposer", n - 2 * f - 1)):
        faults = faults_of(kind, n, ENVS, f).shown(jnp.full(ENVS, label))
        got = harms(verdicts(heard_of(faults, log_probs, f), f), fair, label)
        changed = 0
        for e in range(0, ENVS, n - 3):  # of 7 members, every fourth: slow in Python
            liars = np.flatnonzero(np.asarray(faults.faulty)[e]).tolist()
            reachable = sorted(set(everything(log_probs[:, e], liars, f, sayings, omit)))
            most = harms(np.array(reachable), np.full(len(reachable), fair[e]), label).max()
            assert got[e] == max(most, harms(fair[[e]], fair[[e]], label)[0]), (kind, e, reachable)
            changed += len(reachable) > 1
        assert changed > ENVS / (4 * (n - 3)), (
            "most events must be worth lying about for the comparison to mean much"
        )


@pytest.mark.parametrize("label", [-1, 0, 1])
@pytest.mark.parametrize(("n", "f"), SIZES)
def test_colluders_do_no_more_harm_than_the_worst_case_and_no_less_than_a_common_lie(
    n: int, f: int, label: int
) -> None:
    log_probs = opinions(10, n, ENVS, spread=1.0)
    fair = honest_verdicts(log_probs, f)
    gain = {}
    for kind in ("flip", "collude", "worst-case", "worst-proposer"):
        faults = faults_of(kind, n, ENVS, f).shown(jnp.full(ENVS, label))
        found = heard_of(faults, log_probs, f)
        gain[kind] = harms(verdicts(found, f), fair, label)
        if kind == "collude":
            opinion, vote = codes(found, faults)
            lied = opinion[:, 0] >= 0
            assert (opinion[lied].min(axis=1) == opinion[lied].max(axis=1)).all()
            assert (vote[lied].min(axis=1) == vote[lied].max(axis=1)).all()
    # flippers of one event say the same in this committee, for all answer or none does
    assert (gain["flip"] <= gain["collude"]).all()
    assert (gain["collude"] <= gain["worst-case"]).all()
    assert (gain["worst-case"] <= gain["worst-proposer"]).all()
    assert (gain["worst-case"] < gain["worst-proposer"]).any()


@pytest.mark.parametrize(("n", "f"), SIZES)
def test_a_proposer_leaves_out_what_moves_the_verdict_most_and_no_quorum_short(n: int, f: int) -> None:
    log_probs = opinions(11, n, ENVS)
    votes, faults = honest_votes(log_probs, f), faults_of("omit", n, ENVS, f)
    fair = honest_verdicts(log_probs, f)
    found = heard_of(faults, log_probs, f)
    received = np.asarray(found.received)
    assert (received.sum(axis=1) >= 2 * f + 1).all() and (received.sum(axis=1) < n).any()
    got = harms(verdicts(found, f), fair, -1)
    for e in range(ENVS):
        masks = [np.isin(range(n), out, invert=True) for k in range(f + 1) for out in _subsets(n, k)]
        best = max(
            harms(np.array(majority_answer(votes[[e]], mask[None], f)), fair[[e]], -1)[0] for mask in masks
        )
        assert got[e] == best


def _subsets(n: int, size: int) -> list[tuple[int, ...]]:
    return [tuple(np.flatnonzero(row).tolist()) for row in liar_sets(n, size)]


def test_liars_who_can_change_nothing_are_honest() -> None:
    """So they are not found out for nothing."""
    sure = np.log(np.array([0.999, 4e-4, 3e-4, 3e-4], np.float32))
    log_probs = np.broadcast_to(sure, (4, ENVS, 4)).copy()
    for kind in HARMFUL:
        found = heard_of(faults_of(kind, 4, ENVS, 1), log_probs, 1)
        np.testing.assert_array_equal(found.told, log_probs)
        np.testing.assert_array_equal(found.votes, np.zeros((ENVS, 4)))


def test_the_kinds_of_an_environment_are_its_own() -> None:
    kinds = ("silent", "flip", "random")
    log_probs = opinions(12, 4, 12)
    faults = init_faults(Threat(kinds, 1, 10, 4), 4, 12, jax.random.key(0))
    assert faults.kind.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert np.asarray(faults.faulty).argmax(axis=1).tolist() == [0, 1, 2, 3] * 3
    mixed = heard_of(faults, log_probs, 1)
    for place, kind in enumerate(kinds):
        alone = dataclasses.replace(
            eqx.tree_at(lambda own: own.kind, faults, jnp.zeros(12, jnp.int32)),
            threat=Threat((kind,), 1, 10, 4),
        )
        own = slice(4 * place, 4 * place + 4)
        np.testing.assert_array_equal(mixed.votes[own], heard_of(alone, log_probs, 1).votes[own])


def test_drawn_faults_cover_what_they_may_be_and_are_drawn_anew_with_an_episode() -> None:
    threat = Threat(TRAINING, 2, 50, 8, drawn=True)
    faults = init_faults(threat, 7, 3000, jax.random.key(3))
    number = np.asarray(faults.faulty).sum(axis=1)
    np.testing.assert_allclose(np.bincount(number) / 3000, 1 / 3, atol=0.03)
    np.testing.assert_allclose(np.asarray(faults.faulty).mean(axis=0), 1 / 7, atol=0.03)
    np.testing.assert_allclose(np.bincount(faults.kind) / 3000, 1 / len(TRAINING), atol=0.03)
    assert int(faults.wakes.min()) == 0 and int(faults.wakes.max()) == 49
    assert set(np.asarray(faults.target).tolist()) == set(range(8))
    done = jnp.arange(3000) % 2 == 0
    after = advance(faults, done)
    for name in ("faulty", "kind", "wakes", "target"):
        old, new = (np.asarray(getattr(each, name)) for each in (faults, after))
        np.testing.assert_array_equal(new[1::2], old[1::2])
        assert (new[::2] != old[::2]).reshape(1500, -1).any(axis=1).mean() > 0.5
    assert after.time.tolist()[:4] == [0, 1, 0, 1]
    again = advance(after, done)
    assert (np.asarray(again.faulty)[::2] != np.asarray(after.faulty)[::2]).any()


def test_fixed_faults_stay_through_episodes_and_take_every_set_in_turn() -> None:
    faults = faults_of("flip", 7, 42, 2)
    rows = {tuple(row) for row in np.asarray(faults.faulty).tolist()}
    assert len(rows) == 21 and all(sum(row) == 2 for row in rows)
    after = advance(faults, jnp.ones(42, bool))
    np.testing.assert_array_equal(after.faulty, faults.faulty)


@given(st.integers(1, 4))
def test_multisets_are_all_there_once(liars: int) -> None:
    found = {tuple(sorted(row)) for row in ballots_of(liars).tolist()}
    full = {tuple(sorted(row)) for row in itertools.product((-2, 0, 1, 2, 3), repeat=liars)}
    assert len(found) == len(ballots_of(liars)) == len(full)


def test_omissions_are_all_there_once() -> None:
    rows = omissions(2).tolist()
    assert len({tuple(row) for row in rows}) == len(rows) == 15 and max(map(sum, rows)) == 2


@given(st.integers(0, 3), st.integers(0, 3), st.integers(-1, 1))
def test_harm_is_as_said(verdict: int, honest: int, label: int) -> None:
    found = harm(jnp.array([[verdict]]), jnp.array([honest]), jnp.array([label]))
    factor = 2 if label == -1 else 1
    assert found.item() == factor * harms(np.array([verdict]), np.array([honest]), label)[0]


def test_attackers_of_training_and_of_the_test_are_apart() -> None:
    assert not set(TRAINING) & set(HELD_OUT)
    assert set(TRAINING) | set(HELD_OUT) | {"learned"} == set(ADVERSARIES)
    assert {"worst-case", "targeted", "omit"} <= set(HELD_OUT)


def test_a_learned_liar_that_was_not_trained_is_refused() -> None:
    with pytest.raises(UsageError, match="has to be trained first"):
        heard_of(faults_of("learned", 4, 2, 1), opinions(0, 4, 2), 1)


@pytest.mark.parametrize(("n", "f"), SIZES)
def test_a_learned_liar_gets_the_verdict_that_it_wants_where_a_lie_leads_there(n: int, f: int) -> None:
    """Its bias wants block, then quarantine, then allow, whatever it sees."""
    log_probs = opinions(13, n, ENVS, spread=1.0)
    fair = honest_verdicts(log_probs, f)
    liar = eqx.tree_at(
        lambda own: own.bias_out, init_liar(jax.random.key(0)), jnp.array([1.0, 0.0, 3.0, 2.0])
    )
    threat = Threat(("learned",), f, 10, 4)
    faults = init_faults(threat, n, ENVS, jax.random.key(0), learned=liar)
    got = verdicts(heard_of(faults, log_probs, f), f)
    for e in range(ENVS):
        liars = np.flatnonzero(np.asarray(faults.faulty)[e]).tolist()
        reachable = {*everything(log_probs[:, e], liars, f, (-1e9, 1e9)), int(fair[e])}
        assert got[e] == max(reachable, key=[1, 0, 3, 2].__getitem__)


def test_a_threat_is_checked() -> None:
    sizes: dict[str, Any] = {"n_members": 4, "horizon": 10, "n_entities": 4}
    with pytest.raises(UsageError, match=r"unknown adversary.*flip.*worst-case"):
        threat_of(["flap"], 1, **sizes)
    with pytest.raises(UsageError, match="expected 1 to 4"):
        threat_of(["flip"], 5, **sizes)
    with pytest.raises(UsageError, match="no adversary"):
        threat_of([], 1, **sizes)
