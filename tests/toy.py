"""A toy environment with a known optimum: one feature tells a threat, memory of the process tells the rest."""

import equinox as eqx
import jax
import jax.numpy as jnp

from phalanx.envs.base import Environment, empty_score
from phalanx.types import Column, Observation, ObservationSpec, TimeStep, Truth


class ToyState(eqx.Module):
    """Processes are marked once, by their first event; later events of a marked process are the threats."""

    marked: jax.Array
    entity: jax.Array
    seen: jax.Array
    time: jax.Array


class ToyEnv(Environment):
    """A process is malicious if its *first* event carries the mark; the other events look alike.

    Only a memory per process can tell which of the later events belong to a marked one. Answering a threat with block
    or quarantine earns 1, answering benign work so costs 1.
    """

    spec: ObservationSpec = eqx.field(static=True)
    episode_events: int = eqx.field(static=True)
    terminates: bool = eqx.field(static=True)

    def __init__(self, n_entities: int = 4, episode_events: int = 32, terminates: bool = False) -> None:
        self.spec = ObservationSpec(
            (Column("kind", "common", 3),), (Column("mark"), Column("noise")), n_entities
        )
        self.episode_events = episode_events
        self.terminates = terminates

    def _observe(self, state: ToyState, key: jax.Array) -> Observation:
        first = ~state.seen[state.entity]
        mark = jnp.where(first, jnp.where(state.marked[state.entity], 1.0, -1.0), 0.0)
        noise = jax.random.normal(key, ())
        source = jnp.where(first, -1, state.entity)
        category = jnp.where(first, 2, 1)[None].astype(jnp.int32)
        return Observation(category, jnp.stack([mark, noise]), state.entity, source.astype(jnp.int32))

    def reset(self, key):
        key_mark, key_entity, key_obs = jax.random.split(key, 3)
        n = self.spec.n_entities
        state = ToyState(
            marked=jax.random.bernoulli(key_mark, 0.3, (n,)),
            entity=jax.random.randint(key_entity, (), 0, n),
            seen=jnp.zeros(n, bool),
            time=jnp.zeros((), jnp.int32),
        )
        return state, self._observe(state, key_obs)

    def pending(self, state):
        threat = state.marked[state.entity]
        campaign = jnp.where(threat, state.entity, -1)
        none = jnp.full((), -1, jnp.int32)
        return Truth(threat.astype(jnp.int32), campaign, none, none, jnp.int32(0))

    def step(self, state, verdict, key):
        key_entity, key_obs = jax.random.split(key)
        threat = state.marked[state.entity]
        credit = jnp.where(threat, jnp.asarray([-1.0, 0.0, 1.0, 1.0]), jnp.asarray([0.0, -0.5, -1.0, -1.0]))
        nxt = ToyState(
            marked=state.marked,
            entity=jax.random.randint(key_entity, (), 0, self.spec.n_entities),
            seen=state.seen.at[state.entity].set(True),
            time=state.time + 1,
        )
        over = nxt.time >= self.episode_events
        observation = self._observe(nxt, key_obs)
        score = eqx.tree_at(lambda s: s.events, empty_score(), nxt.time.astype(jnp.float32))
        step = TimeStep(
            observation=observation,
            reward=credit[verdict],
            credit=credit,
            terminated=over & self.terminates,
            truncated=over & (not self.terminates),
            final_observation=observation,
            truth=self.pending(state),
            score=score,
        )
        return nxt, step
