"""The one contract that every environment passes."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from phalanx.envs.base import Environment, auto_reset_step
from phalanx.types import N_VERDICTS, Observation, Score, TimeStep

__all__ = ["check_contract", "leaves_equal"]


def check_contract(env: Environment, *, n_steps: int = 40, n_envs: int = 8, seed: int = 0) -> None:
    """Checks what training and evaluation rely on; the episode must end within ``n_steps`` of random verdicts.

    Observations fit the spec; ``step`` keeps the state's form and never resets; the score only grows; an automatic
    reset keeps the old episode's outcome and shows a new one's first event; equal keys give equal bits, alone or in a
    batch.
    """
    key = jax.random.key(seed)
    verdicts = jax.random.randint(jax.random.fold_in(key, 1), (n_steps, n_envs), 0, N_VERDICTS)
    keys = jax.random.split(jax.random.fold_in(key, 2), (n_steps, n_envs))
    starts = jax.random.split(jax.random.fold_in(key, 3), n_envs)
    first, steps = _run(env, starts, verdicts, keys)
    for observation in (first, steps.observation, steps.final_observation):
        _check_observation(env, observation)
    _check_step(env, starts[0], verdicts[0, 0], keys[0, 0])
    _check_outcome(steps)
    _check_reset(env, steps, keys)
    again = _run(env, starts, verdicts, keys)
    assert leaves_equal((first, steps), again), "equal keys gave different episodes"
    for chosen in (0, n_envs - 1):
        part = slice(chosen, chosen + 1)
        alone = _run(env, starts[part], verdicts[:, part], keys[:, part])
        inside = (
            jax.tree.map(lambda x, p=part: x[p], first),
            jax.tree.map(lambda x, p=part: x[:, p], steps),
        )
        assert leaves_equal(alone, inside), "a batch of 1 differs from the same episode in a batch"


def leaves_equal(left: Any, right: Any) -> bool:
    """Whether two records are equal to the bit."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return all(np.array_equal(np.asarray(a), np.asarray(b), equal_nan=True) for a, b in pairs)


@eqx.filter_jit
def _run(env: Environment, starts: Any, verdicts: Any, keys: Any) -> tuple[Observation, TimeStep]:
    state, first = jax.vmap(env.reset)(starts)

    def body(state: Any, at: Any) -> Any:
        verdict, key = at
        state, step, _ = auto_reset_step(env, state, verdict, key)
        return state, step

    _, steps = jax.lax.scan(body, state, (verdicts, keys))
    return first, steps


def _check_observation(env: Environment, observation: Observation) -> None:
    spec = env.spec
    category, numeric = np.asarray(observation.category), np.asarray(observation.numeric)
    assert category.shape[-1] == len(spec.categorical) and category.dtype == np.int32
    assert numeric.shape[-1] == len(spec.numeric) and numeric.dtype == np.float32
    sizes = np.array([column.size for column in spec.categorical], np.int32)
    assert (category >= 0).all() and (category < sizes).all()
    assert np.isfinite(numeric).all()
    entity, source = np.asarray(observation.entity), np.asarray(observation.source)
    assert entity.dtype == source.dtype == np.int32
    assert entity.min() >= 0 and entity.max() < spec.n_entities
    assert source.min() >= -1 and source.max() < spec.n_entities


def _check_step(env: Environment, start: Any, verdict: Any, key: Any) -> None:
    """A step keeps the form of the state, and shows the same event twice."""
    state, _ = env.reset(start)
    after, step = eqx.filter_jit(env.step)(state, verdict, key)
    form = [(x.shape, x.dtype) for x in jax.tree.leaves(state)]
    assert form == [(x.shape, x.dtype) for x in jax.tree.leaves(after)]
    assert jax.tree.structure(state) == jax.tree.structure(after)
    assert leaves_equal(step.observation, step.final_observation), "step must not reset"
    for core in (env.core(state), env.core(after)):
        assert core.shape == (env.spec.n_core,) and core.dtype == np.float32
        assert np.isfinite(np.asarray(core)).all()


def _check_outcome(steps: TimeStep) -> None:
    done, reward, credit = np.asarray(steps.done), np.asarray(steps.reward), np.asarray(steps.credit)
    assert done.any(), "no episode ended; give the contract a shorter episode"
    assert done.dtype == bool and not (np.asarray(steps.terminated) & np.asarray(steps.truncated)).any()
    assert reward.dtype == np.float32 and np.isfinite(reward).all()
    assert credit.shape == (*reward.shape, N_VERDICTS) and np.isfinite(credit).all()
    assert np.isin(np.asarray(steps.truth.label), (-1, 0, 1)).all()
    for name in Score.__dataclass_fields__:
        total = np.asarray(getattr(steps.score, name))
        assert total.dtype == np.float32 and (total >= 0).all(), name
        grows = np.diff(total, axis=0) >= 0
        assert (grows | done[:-1]).all(), f"score.{name} fell within an episode"
    score = steps.score
    assert (np.asarray(score.benign_lost) <= np.asarray(score.benign)).all()
    assert (np.asarray(score.contained) <= np.asarray(score.campaigns)).all()


def _check_reset(env: Environment, steps: TimeStep, keys: Any) -> None:
    """Where an episode ended: its outcome is the old one's, the observation a new one's first."""
    time, index = (int(x[0]) for x in np.nonzero(np.asarray(steps.done)))
    key_reset = jax.random.split(keys[time, index])[1]
    _, fresh = eqx.filter_jit(env.reset)(key_reset)
    shown = jax.tree.map(lambda x: x[time, index], steps.observation)
    assert leaves_equal(fresh, shown), "after an end the observation is not the new episode's first"
    if time + 1 < steps.reward.shape[0] and not bool(steps.done[time + 1, index]):
        events = jnp.asarray(steps.score.events)
        assert float(events[time + 1, index]) <= 1.0, "the score went on over a reset"
    going = ~np.asarray(steps.done)
    for old, new in zip(
        jax.tree.leaves(steps.final_observation), jax.tree.leaves(steps.observation), strict=True
    ):
        assert np.array_equal(np.asarray(old)[going], np.asarray(new)[going])
