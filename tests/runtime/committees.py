"""Committees with random parameters and statistics, and a toy environment in which processes fork."""

import dataclasses
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from toy import ToyEnv, ToyState

from phalanx.agents.normalizer import NormalizerState
from phalanx.envs.base import Environment
from phalanx.runtime.config import RunConfig
from phalanx.runtime.decide import Committee
from phalanx.runtime.learner import LearnerConfig, init_committee, learner_config
from phalanx.types import Observation, ObservationSpec, TimeStep, Truth, Verdict

__all__ = ["Charged", "ForkingToy", "Rewarded", "committee_of", "settings", "sure_of"]


class ForkingToy(ToyEnv):
    """The toy in which process k > 0 is a child of process k - 1, whose memory it inherits if that one has acted.

    It tells the critic how many of its processes are marked and how long the episode has run.
    """

    def __init__(self, episode_events: int = 32) -> None:
        super().__init__(episode_events=episode_events)
        self.spec = dataclasses.replace(self.spec, n_core=2)

    def core(self, state: ToyState) -> jax.Array:
        marked = state.marked.mean(dtype=jnp.float32)
        return jnp.stack([marked, state.time.astype(jnp.float32) / self.episode_events])

    def _observe(self, state: ToyState, key: jax.Array) -> Observation:
        seen = super()._observe(state, key)
        parent = seen.entity - 1
        inherits = (seen.source < 0) & (parent >= 0) & state.seen[parent]
        return eqx.tree_at(lambda o: o.source, seen, jnp.where(inherits, parent, seen.source))


class Rewarded(Environment):
    """The forking toy with what tests vary as arrays, so that one compiled program serves them all.

    Attributes:
        limit: events of an episode.
        terminates: whether its end is final.
        factor: on rewards and credit.
    """

    inner: ForkingToy
    spec: ObservationSpec = eqx.field(static=True)
    limit: jax.Array
    terminates: jax.Array
    factor: jax.Array
    episode_events: int = eqx.field(static=True, default=10**6)

    def __init__(self, limit: int = 32, *, terminates: bool = False, factor: Any = 1.0) -> None:
        self.inner = ForkingToy(episode_events=10**6)
        self.spec = self.inner.spec
        self.limit = jnp.asarray(limit)
        self.terminates = jnp.asarray(terminates)
        self.factor = jnp.asarray(factor, jnp.float32)

    def reset(self, key: Any) -> tuple[ToyState, Observation]:
        return self.inner.reset(key)

    def core(self, state: ToyState) -> jax.Array:
        return self.inner.core(state)

    def pending(self, state: ToyState) -> Truth:
        return self.inner.pending(state)

    def step(self, state: ToyState, verdict: Any, key: Any) -> tuple[ToyState, TimeStep]:
        state, step = self.inner.step(state, verdict, key)
        over = state.time >= self.limit
        ends = (over & self.terminates, over & ~self.terminates)
        worth = (self.factor * step.reward, self.factor * step.credit)
        return state, eqx.tree_at(
            lambda s: (s.terminated, s.truncated, s.reward, s.credit), step, (*ends, *worth)
        )


class Charged(ToyEnv):
    """An episode's loss is the number of the last event that was answered with alert or more.

    Attributes:
        traced: how often ``step`` was traced, in any instance: it is compiled anew each time.
    """

    traced: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__(episode_events=12)

    def step(self, state: ToyState, verdict: Any, key: Any) -> tuple[ToyState, TimeStep]:
        Charged.traced += 1
        state, step = super().step(state, verdict, key)
        loss = jnp.where(verdict >= Verdict.ALERT, step.score.events, 0.0)
        return state, eqx.tree_at(lambda s: s.score.loss, step, loss)


def settings(**changes: Any) -> LearnerConfig:
    """Small settings of a run as the learner takes them; names are ``RunConfig``'s or ``LearnerConfig``'s."""
    own = {field.name for field in dataclasses.fields(RunConfig)}
    small: dict[str, Any] = {
        "rollouts": "together",
        "envs": 4,
        "steps": 16,
        "hidden": 6,
        "memory": 4,
        "iterations": 10,
    }
    small |= {name: value for name, value in changes.items() if name in own}
    later = {name: value for name, value in changes.items() if name not in own}
    return dataclasses.replace(learner_config(RunConfig(**small)), **{"stagger": 0, **later})


def committee_of(
    env: Environment, *, cell: str = "gru", views: tuple[str, ...] = ("full",) * 4, seed: int = 0
) -> Committee:
    """Members of 4 memory units whose policies, values and statistics all differ."""
    config = settings(cell=cell, views=views, members=len(views))
    fresh = init_committee(env.spec, config, jax.random.key(seed))
    rng = np.random.default_rng(seed)
    networks = jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), jnp.float32), fresh.networks
    )
    n = len(views)
    statistics = NormalizerState(
        count=jnp.full(n, 10.0, jnp.float32),
        mean=jnp.linspace(-3.0, 5.0, n),
        m2=jnp.linspace(10.0, 400.0, n),
        peak=jnp.full(n, 5.0, jnp.float32),
    )
    return eqx.tree_at(lambda c: (c.networks, c.normalizers), fresh, (networks, statistics))


def sure_of(
    env: Environment, suspicion: float, shares: tuple[float, ...] = (1 / 3, 1 / 3, 1 / 3)
) -> Committee:
    """Members that find every event equally suspicious, whatever they see; shares of alert, block and quarantine."""
    fresh = committee_of(env)
    blank = jax.tree.map(jnp.zeros_like, fresh.networks)
    odds = jnp.log(jnp.asarray([1 - suspicion, *(suspicion * share for share in shares)], jnp.float32))
    networks = eqx.tree_at(lambda n: n.policy_bias, blank, jnp.tile(odds, (4, 1)))
    return eqx.tree_at(lambda c: c.networks, fresh, networks)
