"""Rollouts: the committee and its environments, step by step, in one scan."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from phalanx.agents.credit import DICTATOR_SHARE
from phalanx.agents.memory import (
    MemoryReads,
    MemoryTable,
    clear,
    init_memory,
    initial_memories,
    link_reads,
    start_rollout,
)
from phalanx.committee.faults import Faults, Threat, advance, init_faults
from phalanx.committee.voting import pivotal
from phalanx.envs.base import Environment, auto_reset_step
from phalanx.runtime.decide import Committee, appraise, consult, decide_events
from phalanx.types import N_VERDICTS, Observation, Score, Truth, Verdict

__all__ = ["Rollout", "World", "collect", "init_world"]


class World(eqx.Module):
    """A batch of running environments and what the committee remembers of them.

    Attributes:
        env_state: state of each environment.
        observation: the event that waits for a verdict in each.
        table: memories per process.
        episode_reward: sum of the committee's reward in the running episode; NaN in one that had begun before.
        faults: which members are faulty, where some may be.
    """

    env_state: Any
    observation: Observation
    table: MemoryTable
    episode_reward: Float[Array, " env"]
    faults: Faults | None = None


class Rollout(eqx.Module):
    """What happened in T steps of E environments.

    Attributes:
        vectors, reads, initial: what the members saw and remembered (see ``agents.ppo.Batch``).
        core: what the critics alone are told.
        votes, log_probs: each member's own vote and policy, whatever it says in the place of them.
        value: V of each event, in reward units.
        next_value: V of the event that follows; of the old episode's final observation where the episode was cut.
        action: the committee's verdict, whether applied or only logged.
        pivotal: whether another vote of this member would have changed the verdict.
        reward, credit, terminated, truncated, truth: see ``types.TimeStep``.
        worth: Q of each verdict where the rollout looked ahead (``agents.credit``), else the same as ``credit``.
        score: the episode's totals at each step.
        robustness: of each specification, none unless any is watched.
        episode_reward: the committee's reward summed over the episode so far; NaN where its beginning was not seen.
        faulty: which members are faulty; None where nobody can be.
        cast: the votes that were received, -1 where none was; None likewise.
    """

    vectors: Float[Array, "time env input"]
    core: Float[Array, "time env core"]
    reads: MemoryReads
    initial: Float[Array, "member time env memory"]
    votes: Int[Array, "time env member"]
    log_probs: Float[Array, "time member env verdict"]
    value: Float[Array, "time member env"]
    next_value: Float[Array, "time member env"]
    action: Int[Array, "time env"]
    pivotal: Bool[Array, "time env member"]
    reward: Float[Array, "time env"]
    credit: Float[Array, "time env verdict"]
    worth: Float[Array, "time env verdict"]
    terminated: Bool[Array, "time env"]
    truncated: Bool[Array, "time env"]
    truth: Truth
    score: Score
    robustness: Float[Array, "time env spec"]
    episode_reward: Float[Array, "time env"]
    faulty: Bool[Array, "time env member"] | None = None
    cast: Int[Array, "time env member"] | None = None

    @property
    def done(self) -> Bool[Array, "time env"]:
        """Whether the episode ended at the step."""
        return self.terminated | self.truncated


def init_world(
    env: Environment,
    committee: Committee,
    n_envs: int,
    memory_size: int,
    key: PRNGKeyArray,
    stagger: int = 0,
    threat: Threat | None = None,
) -> World:
    """Running environments with blank memory.

    Args:
        env: the environment.
        committee: sizes the memory.
        n_envs: environments side by side.
        memory_size: numbers per memory.
        key: of the resets.
        stagger: each environment has a random number of allowed events behind it, below this; so that episodes do not
            all begin and end together.
        threat: what may go wrong with members; nothing unless given.
    """
    faults = None
    if threat is not None:
        key, key_faults = jax.random.split(key)
        faults = init_faults(threat, committee.n_members, n_envs, key_faults)
    key_reset, key_ahead, key_steps = jax.random.split(key, 3)
    env_state, observation = jax.vmap(env.reset)(jax.random.split(key_reset, n_envs))
    ahead = jax.random.randint(key_ahead, (n_envs,), 0, max(stagger, 1))

    def step(carry: Any, t: Array) -> tuple[Any, None]:
        state, observation = carry
        keys = jax.random.split(jax.random.fold_in(key_steps, t), n_envs)
        allow = jnp.zeros(n_envs, jnp.int32)
        after, time_step, _ = auto_reset_step(env, state, allow, keys)

        def pick(new: Array, old: Array) -> Array:
            return jax.vmap(lambda due, a, b: jnp.where(due, a, b))(t < ahead, new, old)

        return jax.tree.map(pick, (after, time_step.observation), (state, observation)), None

    (env_state, observation), _ = jax.lax.scan(step, (env_state, observation), jnp.arange(stagger))
    table = init_memory(committee.n_members, n_envs, env.spec.n_entities, memory_size)
    episode_reward = jnp.where(ahead > 0, jnp.nan, jnp.zeros(n_envs, jnp.float32))
    return World(env_state, observation, table, episode_reward, faults)


def collect(
    env: Environment,
    committee: Committee,
    world: World,
    key: PRNGKeyArray,
    *,
    steps: int,
    n_shadow: int | Int[Array, ""] = 0,
    dictator: bool = False,
    gamma: float | None = None,
    reward_scale: float = 1.0,
) -> tuple[World, Rollout]:
    """Lets the committee act with sampled votes for a number of steps.

    Args:
        env: the environment.
        committee: its parameters and statistics stay what they are.
        world: where the environments stand.
        key: draws votes and the environments' chances.
        steps: T.
        n_shadow: in the first so many environments the verdicts are logged and not applied (all events are allowed), so
            that the committee also meets what it would have prevented.
        dictator: in 20 % of the steps a random member's vote is the verdict.
        gamma: discount of the lookahead; without it nothing looks ahead.
        reward_scale: factor on rewards in the critics' units.
    """
    n_envs = world.episode_reward.shape[0]
    received = jnp.ones(committee.n_members, bool)

    def step(world: World, inputs: tuple[Array, PRNGKeyArray]) -> tuple[World, dict[str, Any]]:
        t, key = inputs
        key_votes, key_env, key_dictator = jax.random.split(key, 3)
        source, entity = world.observation.source, world.observation.entity
        faults = world.faults
        if faults is not None:
            faults = faults.shown(jax.vmap(env.learned_label)(world.env_state))
        table, _, decision, opinion = decide_events(
            committee, world.table, world.observation, t, key=key_votes, faults=faults
        )
        core = jax.vmap(env.core)(world.env_state)
        action = decision.action
        if dictator:
            chance, member = jax.random.uniform(key_dictator, (2, n_envs))
            member = (member * committee.n_members).astype(jnp.int32)
            ruler = jnp.take_along_axis(decision.votes, member[:, None], axis=1)[:, 0]
            action = jnp.where(chance < DICTATOR_SHARE, ruler, action)
        applied = jnp.where(jnp.arange(n_envs) < n_shadow, int(Verdict.ALLOW), action)
        keys = jax.random.split(key_env, n_envs)
        env_state, time_step, final_state = auto_reset_step(env, world.env_state, applied, keys)
        worth = time_step.credit
        if gamma is not None:
            worth = _look_ahead(env, committee, table, world.env_state, worth, keys, gamma, reward_scale)
        cut_value = _value_of_cuts(
            env, committee, table, time_step.final_observation, final_state, time_step.truncated
        )
        episode_reward = world.episode_reward + time_step.reward
        record = {
            "vectors": opinion.vector,
            "core": core,
            "reads": opinion.reads,
            "votes": decision.votes,
            "log_probs": opinion.log_probs,
            "value": appraise(committee, opinion, core),
            "next_value": cut_value,
            "action": action,
            "pivotal": jax.vmap(lambda votes: pivotal(votes, received, committee.f))(decision.votes),
            "reward": time_step.reward,
            "credit": time_step.credit,
            "worth": worth,
            "terminated": time_step.terminated,
            "truncated": time_step.truncated,
            "truth": time_step.truth,
            "score": time_step.score,
            "robustness": time_step.robustness,
            "episode_reward": episode_reward,
            "source": source,
            "own": source == entity,
        }
        if faults is not None and opinion.statements is not None:
            said = opinion.statements
            moved = jax.vmap(lambda votes, there: pivotal(votes, there, committee.f))(
                said.votes, said.received
            )
            record |= {"votes": said.own, "cast": said.votes, "faulty": faults.faulty}
            record["pivotal"] = moved & ~faults.faulty
            faults = advance(faults, time_step.done)
        world = World(
            env_state=env_state,
            observation=time_step.observation,
            table=clear(table, time_step.done),
            episode_reward=jnp.where(time_step.done, 0.0, episode_reward),
            faults=faults,
        )
        return world, record

    world = eqx.tree_at(lambda w: w.table, world, start_rollout(world.table))
    start = world.table
    world, record = jax.lax.scan(step, world, (jnp.arange(steps), jax.random.split(key, steps)))
    last = appraise(
        committee, consult(committee, world.table, world.observation), jax.vmap(env.core)(world.env_state)
    )
    following = jnp.concatenate([record["value"][1:], last[None]])
    record["next_value"] = jnp.where(record["truncated"][:, None], record["next_value"], following)
    record["reads"] = link_reads(record["reads"], record.pop("own"))
    source = record.pop("source")
    initial = jax.vmap(initial_memories, in_axes=(0, None))(start.cells, source)
    return world, Rollout(initial=initial, **record)


def _look_ahead(
    env: Environment,
    committee: Committee,
    table: MemoryTable,
    state: Any,
    credit: Float[Array, "env verdict"],
    keys: Key[Array, " env"],
    gamma: float,
    reward_scale: float,
) -> Float[Array, "env verdict"]:
    """r + gamma V of what each verdict leads to, V the mean of the members' critics.

    The draws are those of the step that ``auto_reset_step`` takes with the same keys. Where a label is poisoned, what
    is learned is what the label says.
    """

    def after(verdict: Array) -> Array:
        own = jax.vmap(lambda key: jax.random.split(key)[0])(keys)
        following, step = jax.vmap(env.step, in_axes=(0, None, 0))(state, verdict, own)
        opinion = consult(committee, table, step.observation)
        value = appraise(committee, opinion, jax.vmap(env.core)(following)).mean(axis=0)
        return reward_scale * step.reward + gamma * jnp.where(step.terminated, 0.0, value)

    ahead = jax.vmap(after, out_axes=-1)(jnp.arange(N_VERDICTS, dtype=jnp.int32))
    honest = jax.vmap(env.learned_label)(state) == jax.vmap(env.pending)(state).label
    return jnp.where(honest[:, None], ahead, reward_scale * credit)


@jax.custom_batching.custom_vmap
def _in_any_run(condition: Bool[Array, ""]) -> Bool[Array, ""]:
    """The condition, or where runs are mapped over (seeds) whether it holds in any: a branch stays a branch."""
    return condition


@_in_any_run.def_vmap
def _over_runs(size: int, mapped: list[bool], condition: Array) -> tuple[Array, bool]:
    return _in_any_run(condition.any()), False


def _value_of_cuts(
    env: Environment,
    committee: Committee,
    table: MemoryTable,
    final: Observation,
    state: Any,
    truncated: Bool[Array, " env"],
) -> Float[Array, "member env"]:
    """V of the final observations, with the memory before the reset; computed only where an episode was cut."""
    shape = (committee.n_members, truncated.shape[0])
    return jax.lax.cond(
        _in_any_run(truncated.any()),
        lambda: appraise(committee, consult(committee, table, final), jax.vmap(env.core)(state)),
        lambda: jnp.zeros(shape, jnp.float32),
    )
