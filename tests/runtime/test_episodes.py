"""Response, closed loop: equal draws for all policies, an oracle that is one, and a score that no reward touches."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.contract import leaves_equal
from envs.tables import SPEC, tree_table
from runtime.committees import committee_of

from phalanx.envs.recorded import record
from phalanx.envs.replay import ReplayConfig, ReplayEnv
from phalanx.envs.response import ResponseConfig
from phalanx.envs.simulator import Simulator, SimulatorConfig
from phalanx.errors import UsageError
from phalanx.runtime.baselines import rates_of, references
from phalanx.runtime.episodes import Course, observe_episodes, run_episodes, run_totals
from phalanx.runtime.policies import CommitteePolicy, Policy, ThresholdPolicy
from phalanx.types import Verdict

STEPS, ENVS = 48, 4


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator(SimulatorConfig(n_hosts=2, episode_events=STEPS))


def replay(**costs: float) -> ReplayEnv:
    spec = dataclasses.replace(SPEC, n_entities=8)
    config = ReplayConfig(
        response=dataclasses.replace(ResponseConfig(), **costs), episode_events=STEPS, n_entities=8, start=0
    )
    return ReplayEnv(record(tree_table(2, 90)), spec, config)


class Script(Policy):
    """A verdict per step, whatever is seen."""

    verdicts: jax.Array

    def init(self, n_envs: int) -> Any:
        return ()

    def act(self, carried: Any, observation: Any, label: Any, key: Any, t: Any) -> tuple[Any, Any]:
        return carried, jnp.broadcast_to(self.verdicts[t], label.shape)


def course_of(env: Any, verdicts: np.ndarray) -> Course:
    script = Script(jnp.asarray(verdicts, jnp.int32))
    return run_episodes(env, script, jax.random.key(3), n_envs=ENVS, steps=STEPS)


def test_two_policies_meet_the_same_events_until_their_answers_differ(simulator: Simulator) -> None:
    same = np.zeros(STEPS, int)
    one, other = course_of(simulator, same), course_of(simulator, np.where(np.arange(STEPS) >= 20, 3, same))
    for name in ("damage", "label", "stage", "live"):
        np.testing.assert_array_equal(getattr(one, name)[:20], getattr(other, name)[:20])
    np.testing.assert_array_equal(one.label[20], other.label[20])  # shown before the answers differ
    assert not leaves_equal(one.score, other.score)
    assert leaves_equal(one, course_of(simulator, same)), "the same policy, the same episodes"


@pytest.fixture(scope="module")
def courses(simulator: Simulator) -> dict[str, Course]:
    rates = np.array([0.7, 0.1, 0.1, 0.1], np.float32)
    return references(simulator, jax.random.key(3), ENVS, rates)


def test_the_oracle_prevents_at_least_as_much_as_every_constant_policy(
    simulator: Simulator, courses: dict[str, Course]
) -> None:
    oracle = courses["oracle"].score.damage
    for verdict in Verdict:
        constant = course_of(simulator, np.full(STEPS, int(verdict))).score.damage
        assert oracle.sum() <= constant.sum(), verdict.name
    assert courses["always-allow"].score.damage.sum() > oracle.sum()
    assert (courses["oracle"].score.false_blocks == 0).all()


def test_copies_side_by_side_are_the_episodes_run_alone(
    simulator: Simulator, courses: dict[str, Course]
) -> None:
    for name, verdict in (("always-allow", 0), ("always-block", 2)):
        alone = course_of(simulator, np.full(STEPS, verdict))
        assert leaves_equal(courses[name], alone), name


def test_references_answer_as_they_say(courses: dict[str, Course]) -> None:
    assert set(courses["oracle"].verdict[courses["oracle"].label == 1]) == {3}
    assert set(courses["oracle"].verdict[courses["oracle"].label == 0]) == {0}
    rates = rates_of(courses["random"])
    np.testing.assert_allclose(rates, 0.25, atol=0.12)
    assert rates_of(courses["random at the committee's rates"])[0] > 0.5


def test_totals_grow_only_while_an_episode_runs(courses: dict[str, Course]) -> None:
    for course in courses.values():
        assert (np.diff(course.damage, axis=0) >= 0).all()
        np.testing.assert_allclose(course.damage[-1], course.score.damage)
        assert (np.diff(course.live.astype(int), axis=0) <= 0).all()
        frozen = ~course.live[1:]
        np.testing.assert_array_equal(course.damage[1:][frozen], course.damage[:-1][frozen])


def test_the_score_does_not_know_the_reward() -> None:
    plain, dear = replay(), replay(benign_cost=50.0, ticket_cost=7.0, alert_cost=9.0)
    verdicts = np.random.default_rng(0).integers(0, 4, STEPS)
    cheap, costly = course_of(plain, verdicts), course_of(dear, verdicts)
    assert (costly.score.loss > cheap.score.loss).any(), "what answers cost is part of the loss"

    for name in set(cheap.score.__dataclass_fields__) - {"loss"}:
        np.testing.assert_array_equal(getattr(cheap.score, name), getattr(costly.score, name))
    assert leaves_equal(cheap[1:], costly[1:])

    def rewards(env: ReplayEnv) -> np.ndarray:
        state, _ = env.reset(jax.random.key(0))
        _, step = eqx.filter_jit(env.step)(state, jnp.int32(1), jax.random.key(0))
        return np.asarray(step.reward)

    assert rewards(plain) != rewards(dear)


def test_a_classifier_answers_what_scores_at_least_its_threshold() -> None:
    env = replay()
    shown: list[np.ndarray] = []

    def score(category: np.ndarray, numeric: np.ndarray) -> np.ndarray:
        shown.append(numeric[:, 1].copy())
        return numeric[:, 1]

    policy = ThresholdPolicy(score, np.full(ENVS, 0.5), np.array([1, 2, 2, 1]))
    course = run_episodes(env, policy, jax.random.key(3), n_envs=ENVS, steps=STEPS)
    expected = np.where(np.stack(shown) >= 0.5, [1, 2, 2, 1], 0)
    np.testing.assert_array_equal(course.verdict, expected)
    assert 0 < (expected > 0).mean() < 1


@pytest.mark.parametrize(("threshold", "answers"), [(0.0, {1, 2, 3}), (np.inf, {0})])
def test_the_committee_answers_at_its_operating_point(threshold: float, answers: set[int]) -> None:
    env = replay()
    policy = CommitteePolicy(committee_of(env), jnp.asarray(threshold, jnp.float32), 4)
    course = run_episodes(env, policy, jax.random.key(3), n_envs=ENVS, steps=STEPS)
    assert set(course.verdict[course.live]) <= answers


def test_totals_without_a_course_are_the_course_s_own(
    simulator: Simulator, courses: dict[str, Course]
) -> None:
    script = Script(jnp.full(STEPS, 2, jnp.int32))
    totals = run_totals(simulator, script, jax.random.key(3), n_envs=ENVS, steps=STEPS)
    assert leaves_equal(totals, courses["always-block"].score)


def test_the_running_totals_end_where_the_score_does(courses: dict[str, Course]) -> None:
    for course in courses.values():
        for name in ("damage", "campaigns", "contained", "contain_s", "duration_s"):
            total = getattr(course, name)
            np.testing.assert_array_equal(total[-1], getattr(course.score, name))
            assert (np.diff(total, axis=0) >= 0).all(), name
        assert course.suspicion is None, "a table has no opinion"


def test_answers_that_are_only_logged_change_nothing(
    simulator: Simulator, courses: dict[str, Course]
) -> None:
    script = Script(jnp.asarray(np.random.default_rng(0).integers(0, 4, STEPS), jnp.int32))
    logged = run_episodes(simulator, script, jax.random.key(3), n_envs=ENVS, steps=STEPS, apply=False)
    assert leaves_equal(logged.score, courses["always-allow"].score)
    np.testing.assert_array_equal(logged.label, courses["always-allow"].label)
    np.testing.assert_array_equal(
        logged.verdict, np.broadcast_to(np.asarray(script.verdicts)[:, None], (STEPS, ENVS))
    )


def test_events_are_seen_as_they_happen_when_all_is_allowed(
    simulator: Simulator, courses: dict[str, Course]
) -> None:
    seen = observe_episodes(simulator, jax.random.key(3), n_envs=ENVS, steps=STEPS)
    allowed = courses["always-allow"]
    np.testing.assert_array_equal(seen.live, allowed.live)
    np.testing.assert_array_equal(seen.label, np.where(allowed.live, allowed.label, -1))
    shown: list[np.ndarray] = []

    def score(category: np.ndarray, numeric: np.ndarray) -> np.ndarray:
        shown.append(np.concatenate([category, numeric], axis=1))
        return np.zeros(len(category))

    policy = ThresholdPolicy(score, np.full(ENVS, 0.5), np.full(ENVS, 1))
    run_episodes(simulator, policy, jax.random.key(3), n_envs=ENVS, steps=STEPS)
    np.testing.assert_array_equal(np.stack(shown), np.concatenate([seen.category, seen.numeric], axis=2))


def test_quiet_episodes_are_those_of_the_world_without_attackers(simulator: Simulator) -> None:
    quiet = np.array([False, True, True, False])
    script = Script(jnp.zeros(STEPS, jnp.int32))
    given: dict[str, Any] = {"n_envs": ENVS, "steps": STEPS}
    mixed = run_episodes(simulator, script, jax.random.key(3), quiet=quiet, **given)
    attacked = run_episodes(simulator, script, jax.random.key(3), **given)
    calm = run_episodes(simulator.peaceful(), script, jax.random.key(3), **given)
    for name in ("label", "damage", "duration_s"):
        np.testing.assert_array_equal(getattr(mixed, name)[:, quiet], getattr(calm, name)[:, quiet])
        np.testing.assert_array_equal(getattr(mixed, name)[:, ~quiet], getattr(attacked, name)[:, ~quiet])
    assert not mixed.label[:, quiet].any() and attacked.label[:, quiet].any()


def test_recorded_events_cannot_be_made_peaceful() -> None:
    with pytest.raises(UsageError, match="need the simulator"):
        replay().peaceful()


class Peeking(Policy):
    """Answers with the label that it is shown."""

    def init(self, n_envs: int) -> Any:
        return ()

    def act(self, carried: Any, observation: Any, label: Any, key: Any, t: Any) -> tuple[Any, Any]:
        return carried, label + 1


def test_a_policy_is_not_shown_the_label(simulator: Simulator) -> None:
    course = run_episodes(simulator, Peeking(), jax.random.key(3), n_envs=ENVS, steps=STEPS)
    assert not course.verdict.any()
