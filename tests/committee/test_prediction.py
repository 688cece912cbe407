"""What is predicted of the rule under lies, against the same lies acted out and against trying every draw."""

import itertools
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from committee.lies import faults_of, rule

from phalanx.committee.adversaries import ADVERSARIES, hear
from phalanx.committee.faults import Faults, liar_sets
from phalanx.committee.prediction import PREDICTED, Reaction, alone, predict, votes_needed
from phalanx.errors import UsageError

SIZES = [(4, 1), (7, 2)]
CERTAIN = sorted(set(PREDICTED) - {"random", "targeted-process"})


def vote_vectors(n: int, seed: int = 0, n_events: int = 84) -> np.ndarray:
    """Members that err together more often than they would by chance."""
    rng = np.random.default_rng(seed)
    common = rng.integers(0, 4, (n_events, 1))
    return np.where(rng.random((n_events, n)) < 0.7, common, rng.integers(0, 4, (n_events, n))).astype(
        np.int32
    )


@eqx.filter_jit
def _acted(faults: Faults, votes: jax.Array, f: int) -> tuple[jax.Array, jax.Array]:
    """Members vote as they vote, whatever they are told."""
    log_probs = jnp.zeros((votes.shape[1], votes.shape[0], 4), jnp.float32)
    found = hear(faults, log_probs, lambda told, heard: votes, f, jnp.zeros(votes.shape[0], jnp.int32))
    return found.votes, found.received


def acted(
    kind: str, votes: np.ndarray, faulty: np.ndarray, f: int, label: np.ndarray | None = None, time: int = 9
) -> np.ndarray:
    n_events, n = votes.shape
    faults = faults_of(kind, n, n_events, int(faulty.sum()), horizon=10, n_entities=1)
    shown = np.full(n_events, -1) if label is None else label
    faults = eqx.tree_at(
        lambda own: (own.faulty, own.label, own.time),
        faults,
        (
            jnp.broadcast_to(jnp.asarray(faulty), votes.shape),
            jnp.asarray(shown, jnp.int32),
            jnp.full(n_events, time, jnp.int32),
        ),
    )
    cast, received = map(np.asarray, _acted(faults, jnp.asarray(votes), f))
    return np.array([rule(row[there].tolist(), f) for row, there in zip(cast, received, strict=True)])


@pytest.mark.parametrize("kind", CERTAIN)
@pytest.mark.parametrize(("n", "f"), SIZES)
def test_lies_acted_out_on_the_same_votes_give_exactly_the_predicted_verdicts(
    kind: str, n: int, f: int
) -> None:
    votes = vote_vectors(n)
    changed = 0
    for faulty in liar_sets(n, f)[::4]:
        predicted = predict(kind, alone(votes, faulty, f))
        assert ((predicted == 0) | (predicted == 1)).all()
        got = acted(kind, votes, faulty, f)
        np.testing.assert_array_equal(predicted.argmax(axis=1), got)
        changed += int((got != predict("none", alone(votes, faulty, f)).argmax(axis=1)).sum())
    assert changed > 0


@pytest.mark.parametrize("kind", ["collude", "worst-case", "worst-proposer", "omit"])
@pytest.mark.parametrize(("n", "f"), SIZES)
def test_the_same_holds_of_liars_who_know_the_truth(kind: str, n: int, f: int) -> None:
    votes, label = vote_vectors(n, seed=1), np.arange(84) % 3 - 1
    for faulty in liar_sets(n, f)[::7]:
        predicted = predict(kind, alone(votes, faulty, f), label=label)
        np.testing.assert_array_equal(predicted.argmax(axis=1), acted(kind, votes, faulty, f, label))


@pytest.mark.parametrize(("n", "f"), SIZES)
def test_random_liars_are_predicted_by_the_mean_over_all_their_draws(n: int, f: int) -> None:
    votes = vote_vectors(n, seed=2, n_events=30)
    for faulty in liar_sets(n, f)[::5]:
        expected = np.zeros((30, 4))
        for draw in itertools.product(range(4), repeat=f):
            for event, row in enumerate(votes):
                expected[event, rule([*row[~faulty].tolist(), *draw], f)] += 4.0**-f
        np.testing.assert_allclose(predict("random", alone(votes, faulty, f)), expected, atol=1e-12)


def test_random_liars_acted_out_come_near_the_prediction() -> None:
    faulty = np.array([True, False, False, True, False, False, False])
    votes = np.repeat(vote_vectors(7, seed=3, n_events=6), 2000, axis=0)
    got = acted("random", votes, faulty, 2).reshape(6, 2000)
    predicted = predict("random", alone(votes[::2000], faulty, 2))
    shares = np.stack([(got == verdict).mean(axis=1) for verdict in range(4)], axis=1)
    np.testing.assert_allclose(shares, predicted, atol=0.045)  # 4 standard errors
    assert ((predicted > 0) & (predicted < 1)).any()


def test_sleepers_and_protectors_lie_as_often_as_they_are_said_to() -> None:
    votes, faulty = vote_vectors(4, seed=4), np.array([False, True, False, False])
    own = alone(votes, faulty, 1)
    awake = np.arange(84) % 2
    got = predict("sleeper", own, lies=awake.astype(float)).argmax(axis=1)
    flipped, honest = (acted("sleeper", votes, faulty, 1, time=t) for t in (9, 0))
    np.testing.assert_array_equal(got, np.where(awake == 1, flipped, honest))
    assert (flipped != honest).any()
    quarter = predict("targeted-process", own, lies=np.full(84, 0.25))
    hit, missed = acted("targeted-process", votes, faulty, 1), honest
    np.testing.assert_allclose(quarter, 0.25 * np.eye(4)[hit] + 0.75 * np.eye(4)[missed])


def test_members_who_heed_one_another_are_predicted_by_what_they_would_vote_when_told() -> None:
    """By hand: seven members of whom two lie. They answer as soon as one liar is alarmed."""
    honest, calm = np.array([[2, 2, 2, 2, 2, 2, 2]]), np.zeros((1, 7), int)
    faulty = np.array([True, True, False, False, False, False, False])
    own = Reaction(honest, np.stack([calm, honest, honest]), calm, faulty, 2)
    allowed, blocked = [1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]
    assert predict("none", own).tolist() == [blocked]
    assert predict("flip", own).tolist() == [allowed], "both say allow where they would block"
    assert predict("silent", own).tolist() == [allowed]
    assert predict("targeted", own).tolist() == [allowed]
    assert predict("omit", own).tolist() == [blocked], "three of five still block"
    # each of the sixteen draws but allow-allow alarms somebody
    assert predict("random", own).tolist() == [[1 / 16, 0.0, 15 / 16, 0.0]]


def test_the_benefit_of_independence_is_what_the_binomial_says() -> None:
    """Binary votes, each right with .9: a majority of four is right with .948 without liars and .729 with one."""
    for n, f, without, with_liars in ((4, 1, 0.948, 0.729), (7, 2, 0.997, 0.919)):
        votes = np.array(list(itertools.product((0, 2), repeat=n)))
        chance = (0.9 ** (votes == 2).sum(axis=1)) * (0.1 ** (votes == 0).sum(axis=1))
        faulty = np.arange(n) < f
        fair = predict("none", alone(votes, faulty, f))[:, 2] @ chance
        lied = predict("worst-case", alone(votes, faulty, f), label=np.ones(len(votes), int))[:, 2] @ chance
        assert round(float(fair), 3) == without
        assert round(float(lied), 3) == with_liars


def test_what_cannot_be_predicted_is_said() -> None:
    assert set(PREDICTED) == set(ADVERSARIES) - {"learned"}
    votes = vote_vectors(4, n_events=3)
    with pytest.raises(UsageError, match="of which figures can be predicted"):
        predict("learned", alone(votes, np.array([True, False, False, False]), 1))


def test_faults_beyond_what_the_rule_tolerates_are_predicted_too() -> None:
    votes, faulty = vote_vectors(4, seed=6), np.array([True, True, False, False])
    for kind in ("flip", "silent", "worst-case", "collude"):
        got = acted(kind, votes, faulty, 1)
        np.testing.assert_array_equal(predict(kind, alone(votes, faulty, 1)).argmax(axis=1), got)


def _reachable(honest: tuple[int, ...], f: int, omit: int) -> set[int]:
    """Every verdict that f liars can bring about, by trying all votes, abstentions and omissions."""
    found = set()
    for lies in itertools.product((None, 0, 1, 2, 3), repeat=f):
        cast = [lie for lie in lies if lie is not None]
        for size in range(omit + 1):
            if size and len(honest) - size + len(cast) < 2 * f + 1:
                continue
            for kept in itertools.combinations(honest, len(honest) - size):
                found.add(rule([*kept, *cast], f))
    return found


@pytest.mark.parametrize(("n", "f"), SIZES)
@pytest.mark.parametrize("kind", ["worst-case", "worst-proposer"])
def test_the_votes_that_a_verdict_needs_are_those_found_by_trying_everything(
    n: int, f: int, kind: str
) -> None:
    omit = f if kind == "worst-proposer" else 0
    honest = n - f
    for name, (possible, sure) in votes_needed(n, f, kind).items():
        verdict = ["allow", "alert", "block", "quarantine"].index(name)
        for votes in range(honest + 1):
            reached = _reachable((verdict,) * votes + (0,) * (honest - votes), f, omit)
            assert (max(reached) >= verdict) == (possible is not None and votes >= possible)
            assert (min(reached) >= verdict) == (sure is not None and votes >= sure)


@pytest.mark.parametrize("f", [1, 2, 3])
def test_what_the_threat_model_says_of_lying_members_and_proposers(f: int) -> None:
    """docs/threat-model.md, in closed form for n = 3f + 1."""
    n = 3 * f + 1
    assert votes_needed(n, f) == {
        "alert": (1, f + 1),  # one mistake raises it, f + 1 honest members get it
        "block": ((n // 2 + 1) - f, n // 2 + 1),  # more than half of all members
        "quarantine": (f + 1, 2 * f + 1),  # all honest members
    }
    assert votes_needed(n, f, "worst-proposer") == {
        "alert": (1, 2 * f + 1),
        "block": (1, 2 * f + 1),  # one mistaken vote makes a block
        "quarantine": (f + 1, None),  # it always falls
    }


def test_the_table_of_the_docs_is_what_is_computed() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "adversaries.md").read_text()
    for n, f, kind, row in (
        (4, 1, "worst-case", "n = 4, one liar"),
        (4, 1, "worst-proposer", "n = 4, one liar who proposes"),
        (7, 2, "worst-case", "n = 7, two liars"),
        (7, 2, "worst-proposer", "n = 7, two liars, one of whom proposes"),
    ):
        cells = [
            f"{possible}, {'never' if sure is None else sure}"
            for possible, sure in votes_needed(n, f, kind).values()
        ]
        assert f"| {row} | {' | '.join(cells)} |" in page
    for name, each in ADVERSARIES.items():
        learned = "-" if name == "learned" else "yes" if each.trains else "held out"
        assert any(
            line.startswith(f"| `{name}` |") and line.endswith(f"| {learned} |") for line in page.splitlines()
        )
