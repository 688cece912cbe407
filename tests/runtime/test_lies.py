"""Opinions judged again under lies: the decision path's own verdicts, and exactly the predicted ones."""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runtime.committees import ForkingToy, committee_of

from phalanx.analysis.verdict_rates import certain, verdict_rates
from phalanx.committee.adversaries import ADVERSARIES
from phalanx.committee.faults import Threat, liar_sets
from phalanx.committee.learned import init_liar
from phalanx.committee.prediction import PREDICTED
from phalanx.errors import RunError
from phalanx.runtime.decide import decide_events
from phalanx.runtime.episodes import run_episodes
from phalanx.runtime.lies import expected, liars_of, lied
from phalanx.runtime.policies import CommitteePolicy
from phalanx.runtime.watch import Watched, ballot, verdicts

EPISODE = 20
SIZES = [(4, 1), (7, 2)]
SETS = {4: 4, 7: 21}


def threat(kind: str, faulty: int = 1) -> Threat:
    return Threat((kind,), faulty, EPISODE, 4)


def watched_of(n: int) -> Watched:
    """Opinions that are doubtful often enough: every set of liars has three lanes of eight events."""
    lanes = 3 * SETS[n]
    rng = np.random.default_rng(n)
    shape = (8 * lanes, n, 4)
    logits = rng.normal(0, 1.5, shape) + rng.normal(0, 1.5, (8 * lanes, 1, 4))
    nothing = np.zeros((8 * lanes, 0))
    return Watched(
        label=rng.integers(-1, 2, 8 * lanes),
        log_probs=np.asarray(jax.nn.log_softmax(jnp.asarray(logits, jnp.float32))),
        category=nothing.astype(int),
        numeric=nothing,
        lane=np.repeat(np.arange(lanes), 8),
        time=np.tile(np.arange(8), lanes) * 3,
        entity=rng.integers(0, 4, 8 * lanes),
    )


@pytest.fixture(scope="module", params=SIZES, ids=["n4", "n7"])
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    return request.param


@pytest.fixture(scope="module")
def opinions(size: tuple[int, int]) -> Watched:
    return watched_of(size[0])


@pytest.mark.parametrize("kind", sorted(set(PREDICTED) - {"random", "targeted-process"}))
@pytest.mark.parametrize("threshold", [0.7, None])
def test_what_liars_bring_about_is_exactly_what_was_predicted(
    opinions: Watched, size: tuple[int, int], kind: str, threshold: float | None
) -> None:
    """With members that deliberate, and with members that each take their likeliest verdict."""
    n, f = size
    found = lied(opinions, threshold, f, threat(kind, f), jax.random.key(0))
    told = expected(opinions, threshold, f, threat(kind, f))
    measured = found.rates(opinions.label)
    assert told is not None
    for field in dataclasses.fields(measured):
        got, said = getattr(measured, field.name), getattr(told, field.name)
        assert got == pytest.approx(said, abs=1e-12), field.name
    assert (found.verdict != found.honest).any()


@pytest.mark.parametrize("kind", ["random", "targeted-process"])
def test_liars_who_draw_come_near_what_was_predicted(kind: str) -> None:
    base = watched_of(4)
    times = 40
    many = Watched(*(None if leaf is None else np.concatenate([leaf] * times) for leaf in base))  # type: ignore[arg-type]
    assert many.lane is not None
    many = many._replace(lane=many.lane + np.repeat(np.arange(times) * 12, len(base.label)))
    found, told = lied(many, 0.7, 1, threat(kind), jax.random.key(1)), expected(many, 0.7, 1, threat(kind))
    assert told is not None
    measured, error = found.rates(many.label), 4 * 0.5 / np.sqrt(len(many.label) / 3)
    assert measured.recall == pytest.approx(told.recall, abs=error)
    assert measured.false_alerts == pytest.approx(told.false_alerts, abs=error)
    for name, share in told.malicious.items():
        assert measured.malicious[name] == pytest.approx(share, abs=error)


def test_expected_over_every_set_is_the_mean_over_runs_with_each(
    opinions: Watched, size: tuple[int, int]
) -> None:
    n, f = size
    chance = np.zeros((len(opinions.label), 4))
    for place, _ in enumerate(liar_sets(n, f)):
        same = opinions._replace(lane=np.full(len(opinions.label), place))
        chance += certain(lied(same, 0.7, f, threat("flip", f), jax.random.key(0)).verdict) / SETS[n]
    honest = verdicts(ballot(opinions, 0.7, f), f)
    told = expected(opinions, 0.7, f, threat("flip", f), every_set=True)
    assert told is not None
    measured = verdict_rates(opinions.label, chance, honest)
    for field in dataclasses.fields(measured):
        assert getattr(told, field.name) == pytest.approx(getattr(measured, field.name), abs=1e-9)


def test_every_set_of_liars_has_its_lanes(opinions: Watched, size: tuple[int, int]) -> None:
    n, f = size
    faulty = liars_of(opinions, threat("flip", f))
    rows, counts = np.unique(faulty, axis=0, return_counts=True)
    assert len(rows) == SETS[n] and set(counts.tolist()) == {24}
    found = lied(opinions, 0.7, f, threat("silent", f), jax.random.key(0))
    np.testing.assert_array_equal(found.votes < 0, faulty)
    assert found.abstain == pytest.approx(f / n)


def test_what_was_collected_and_judged_again_is_what_the_decision_path_says_at_once() -> None:
    """The same episodes, once with liars in the committee and once judged afterwards."""
    env, lanes, kinds = ForkingToy(episode_events=EPISODE), 8, ("worst-case", "sleeper", "silent")
    committee = committee_of(env)
    policies = [CommitteePolicy(committee, jnp.float32(0.87), 4, threat(k), jax.random.key(0)) for k in kinds]

    @eqx.filter_jit
    def step(state: Any, seen: Any, carried: Any, t: jax.Array) -> Any:
        table = carried[0][0]
        opinion = decide_events(committee, table, seen, t, threshold=0.87)[3]
        judged = [p.judge(c, seen, None, None, t)[:2] for p, c in zip(policies, carried, strict=True)]
        keys = jax.random.split(jax.random.fold_in(jax.random.key(5), t), lanes)
        state, after = jax.vmap(env.step)(state, jnp.zeros(lanes, jnp.int32), keys)
        record = (opinion.log_probs, seen.entity, jnp.stack([verdict for _, verdict in judged]))
        return state, after.observation, [carried for carried, _ in judged], record

    state, seen = jax.vmap(env.reset)(jax.random.split(jax.random.key(4), lanes))
    carried, records = [policy.init(lanes) for policy in policies], []
    for t in range(EPISODE):
        state, seen, carried, record = step(state, seen, carried, jnp.int32(t))
        records.append(jax.tree.map(np.asarray, record))
    log_probs, entity, acted = (np.stack(leaves) for leaves in zip(*records, strict=True))
    nothing = np.zeros((lanes * EPISODE, 0))
    watched = Watched(
        label=np.zeros(lanes * EPISODE, int),
        log_probs=np.moveaxis(log_probs, 1, 2).reshape(-1, 4, 4),  # event by event, all lanes in each
        category=nothing.astype(int),
        numeric=nothing,
        lane=np.tile(np.arange(lanes), EPISODE),
        time=np.repeat(np.arange(EPISODE), lanes),
        entity=entity.reshape(-1),
    )
    for place, kind in enumerate(kinds):
        found = lied(watched, 0.87, 1, threat(kind), jax.random.key(0))
        np.testing.assert_array_equal(acted[:, place].reshape(-1), found.verdict, kind)
        assert (found.verdict != found.honest).any()


def test_liars_act_in_the_closed_loop() -> None:
    """A flipping member changes what happens; one that says what it thinks changes nothing."""
    env, key = ForkingToy(episode_events=EPISODE), jax.random.key(3)
    committee, cut = committee_of(env), jnp.float32(0.87)
    plain = run_episodes(env, CommitteePolicy(committee, cut, 4), key, n_envs=8, steps=EPISODE)
    never = Threat(("sleeper",), 1, 10**6, 4)
    asleep = CommitteePolicy(committee, cut, 4, never, jax.random.key(0))
    same = run_episodes(env, asleep, key, n_envs=8, steps=EPISODE)
    np.testing.assert_array_equal(same.verdict, plain.verdict)
    flipping = CommitteePolicy(committee, cut, 4, threat("flip"), jax.random.key(0))
    other = run_episodes(env, flipping, key, n_envs=8, steps=EPISODE)
    assert (other.verdict != plain.verdict).any()


def test_a_sleeper_lies_in_the_second_half_of_its_lane_alone(
    opinions: Watched, size: tuple[int, int]
) -> None:
    _, f = size
    asleep = lied(opinions, 0.7, f, threat("sleeper", f), jax.random.key(0))
    awake = lied(opinions, 0.7, f, threat("flip", f), jax.random.key(0))
    assert opinions.time is not None
    late = opinions.time >= EPISODE // 2
    np.testing.assert_array_equal(asleep.verdict, np.where(late, awake.verdict, asleep.honest))
    assert (asleep.verdict != asleep.honest).any()


def test_of_a_learned_liar_nothing_is_predicted_and_it_can_be_measured() -> None:
    opinions = watched_of(4)
    assert expected(opinions, 0.7, 1, threat("learned")) is None
    found = lied(opinions, 0.7, 1, threat("learned"), jax.random.key(0), learned=init_liar(jax.random.key(0)))
    assert (found.verdict != found.honest).any(), "it wants all verdicts alike, the first most"
    assert set(ADVERSARIES) - set(PREDICTED) == {"learned"}


def test_opinions_without_their_places_are_refused() -> None:
    bare = watched_of(4)._replace(lane=None)
    with pytest.raises(RunError, match="without their places"):
        lied(bare, 0.7, 1, threat("flip"), jax.random.key(0))
