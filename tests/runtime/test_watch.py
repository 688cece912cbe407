"""Detection, open loop: every row once and in order, and a score that says what the committee answers."""

import dataclasses
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.tables import SPEC, tree_table
from hypothesis import given
from hypothesis import strategies as st
from runtime.committees import Charged, committee_of, sure_of

from phalanx.agents.memory import init_memory
from phalanx.analysis.metrics import best_threshold
from phalanx.envs.constrained import Constrained
from phalanx.envs.recorded import record
from phalanx.envs.stream import StreamConfig, StreamEnv
from phalanx.runtime.decide import decide_events
from phalanx.runtime.watch import Watched, ballot, cut_rows, operating_score, rehearse, verdicts, watch
from phalanx.stl.specs import parse_specs

ROWS = 40
TABLE = tree_table(3, ROWS - 6)


@pytest.fixture(scope="module")
def env() -> StreamEnv:
    spec = dataclasses.replace(SPEC, n_entities=4)
    return StreamEnv(record(TABLE), spec, StreamConfig(n_entities=4, episode_events=8))


@pytest.fixture(scope="module")
def seen(env: StreamEnv) -> Callable[[int, int | None], Watched]:
    committee = committee_of(env)

    def look(n_lanes: int, most: int | None = None) -> Watched:
        return watch(env, committee, jax.random.key(0), 4, n_lanes=n_lanes, most=most)

    return look


def rows_of(watched: Watched) -> list[int]:
    """The row of each scored event: the first number of the table's rows."""
    return watched.numeric[:, 0].astype(int).tolist()


@pytest.mark.parametrize("n_lanes", [1, 3, 64])
def test_every_row_is_scored_once_and_in_order(seen: Callable[..., Watched], n_lanes: int) -> None:
    watched = seen(n_lanes)
    assert rows_of(watched) == list(range(ROWS))
    np.testing.assert_array_equal(watched.label, TABLE.label)
    np.testing.assert_array_equal(watched.category, TABLE.category)
    chances = np.exp(watched.log_probs)
    assert chances.shape == (ROWS, 4, 4)
    np.testing.assert_allclose(chances.sum(-1), 1, atol=1e-5)
    np.testing.assert_allclose(watched.score, 1 - chances[:, :, 0].mean(1), atol=1e-6)


def test_at_most_so_many_rows_are_scored(seen: Callable[..., Watched]) -> None:
    rows = rows_of(seen(3, 12))
    assert rows == [*range(0, 4), *range(13, 17), *range(26, 30)]


def test_opinions_are_those_of_the_decision_path(env: StreamEnv, seen: Callable[..., Watched]) -> None:
    """One lane, event by event, through the very function that rollouts and serving call."""
    committee = committee_of(env)
    start, stop = (jnp.full(1, x, jnp.int32) for x in (0, ROWS))
    state, observation = jax.vmap(env.reset_lane)(start, start, stop)
    table = init_memory(4, 1, env.spec.n_entities, 4)

    @eqx.filter_jit
    def step(table, state, observation):
        table, _, decision, opinion = decide_events(
            committee, table, observation, jnp.int32(0), threshold=0.5
        )
        verdict = jnp.full(1, 3, jnp.int32)  # opinions do not depend on what was answered before
        state, outcome = jax.vmap(env.step)(state, verdict, jax.random.split(jax.random.key(9), 1))
        return table, state, outcome.observation, (decision.action[0], opinion.log_probs[:, 0])

    answers, opinions = [], []
    for _ in range(ROWS):
        table, state, observation, (answer, opinion) = step(table, state, observation)
        answers.append(int(answer))
        opinions.append(np.asarray(opinion))
    watched = seen(1)
    np.testing.assert_allclose(watched.log_probs, opinions, atol=1e-5)
    assert verdicts(ballot(watched, 0.5, 1), 1).tolist() == answers
    assert len(set(answers)) > 1


@given(st.integers(0, 10_000), st.sampled_from([(4, 1), (7, 2)]))
def test_the_operating_score_tells_whether_the_committee_answers(seed: int, size: tuple[int, int]) -> None:
    """At any threshold, and exactly at the scores themselves, which is where validation puts it."""
    n, f = size
    rng = np.random.default_rng(seed)
    logits = jnp.asarray(rng.normal(0, 2, (40, n, 4)), jnp.float32)
    nothing = np.zeros((40, 1))
    log_probs = np.asarray(jax.nn.log_softmax(logits))
    watched = Watched(np.zeros(40, int), log_probs, nothing.astype(int), nothing)
    score = operating_score(log_probs, f)
    for threshold in [*rng.random(5).tolist(), *score[:10].tolist()]:
        answered = verdicts(ballot(watched, threshold, f), f) >= 1
        np.testing.assert_array_equal(answered, score >= threshold)


def test_the_threshold_that_validation_finds_gives_the_confusion_it_promises() -> None:
    rng = np.random.default_rng(0)
    label = (rng.random(300) < 0.2).astype(int)
    logits = rng.normal(0, 1, (300, 4, 4)) - 2.0 * label[:, None, None] * np.eye(4)[0]
    log_probs = np.asarray(jax.nn.log_softmax(jnp.asarray(logits, jnp.float32)))
    score = operating_score(log_probs, 1)
    found = best_threshold(label, score)
    nothing = np.zeros((300, 1))
    answered = (
        verdicts(ballot(Watched(label, log_probs, nothing.astype(int), nothing), found.threshold, 1), 1) >= 1
    )
    tp = (answered & (label == 1)).sum()
    f1 = 2 * tp / (answered.sum() + label.sum())
    assert f1 == pytest.approx(found.value)
    assert f1 == pytest.approx(
        max(2 * ((score >= c) & (label == 1)).sum() / ((score >= c).sum() + label.sum()) for c in score)
    )


def test_missing_votes_are_left_out() -> None:
    votes = np.array([[3, 3, 3, 0], [3, 3, 3, 0]], np.int32)
    received = np.array([[True] * 4, [True, True, False, False]])
    assert verdicts(votes, 1).tolist() == [3, 3]
    assert verdicts(votes, 1, received).tolist() == [3, 1]


def test_short_tables_are_watched_from_their_first_row() -> None:
    for n_rows, n_lanes in [(5, 64), (1, 1), (2000, 7)]:
        cut = cut_rows(n_rows, n_lanes, None)
        covered = np.concatenate([np.arange(a, b) for a, b in zip(cut.first, cut.stop, strict=True)])
        np.testing.assert_array_equal(covered, np.arange(n_rows))
        assert (np.asarray(cut.start) <= np.asarray(cut.first)).all()


@pytest.mark.parametrize(
    ("threshold", "suspicion", "lost"),
    [(0.5, 0.49, 0.0), (0.5, 0.51, 12.0), (0.2, 0.19, 0.0), (0.2, 0.21, 12.0), (0.8, 0.79, 0.0)],
)
def test_the_mean_loss_is_that_of_episodes_in_which_members_answer_from_the_threshold_on(
    threshold: float, suspicion: float, lost: float
) -> None:
    """The likeliest verdict is another matter; what counts is P(verdict >= alert)."""
    env = Charged()
    committee = sure_of(env, suspicion)
    key = jax.random.key(1)
    assert rehearse(env, committee, key, 4, n_lanes=3, threshold=threshold).loss == lost
    opinions = watch(env, committee, key, 4, n_lanes=3)
    np.testing.assert_allclose(opinions.score, suspicion, atol=1e-6)
    assert len(opinions.label) == 36


def test_every_threshold_plays_the_same_episodes_in_one_compiled_program() -> None:
    """The toy's events do not depend on the answers, so that opinions on logged events tell what was answered."""
    specs = parse_specs("@spec few\nsum(answered, 4) <= 1")
    env, lanes = Constrained(Charged(), specs, shown=False), 6
    committee, key = committee_of(env, seed=2), jax.random.key(2)
    watched = watch(env, committee, key, 4, n_lanes=lanes)
    before, found = Charged.traced, []
    for threshold in (0.5, 0.83, 0.87, 0.91, 0.95):
        played = rehearse(env, committee, key, 4, n_lanes=lanes, threshold=threshold)
        answered = verdicts(ballot(watched, threshold, 1), 1).reshape(lanes, 12) >= 1
        last = np.where(answered, np.arange(1, 13), 0).max(axis=1)
        assert played.loss == pytest.approx(last.mean(), rel=1e-6)
        held = [max(row[max(t - 4, 0) : t + 1].sum() for t in range(12)) <= 1 for row in answered]
        assert played.satisfied.tolist() == [np.mean(held)]
        found.append((played.loss, float(played.satisfied[0])))
    assert Charged.traced == before
    assert len(set(found)) > 2
