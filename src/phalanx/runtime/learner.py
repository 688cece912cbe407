"""One training iteration: rollout, credit, targets, statistics, update; a pure function of the training state."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from phalanx.agents.credit import CREDIT_SCHEMES, best_votes, local_weight, relative_worth
from phalanx.agents.network import Network, NetworkConfig, init_network, sensor_mask, vector_size
from phalanx.agents.normalizer import (
    init_normalizer,
    normalize,
    rescale_head,
    update_normalizer,
)
from phalanx.agents.ppo import (
    Batch,
    PPOConfig,
    init_optimizer,
    make_optimizer,
    standardize,
    update,
)
from phalanx.agents.targets import Targets, gae, monte_carlo
from phalanx.committee.adversaries import TRAINING, threat_of
from phalanx.committee.faults import Threat
from phalanx.envs.base import Environment
from phalanx.envs.constrained import Constrained
from phalanx.runtime.config import RunConfig
from phalanx.runtime.decide import Committee
from phalanx.runtime.learner_metrics import OF_SEVERAL, iteration_metrics, specification_metrics
from phalanx.runtime.multipliers import MultiplierConfig, raised
from phalanx.runtime.rollout import Rollout, World, collect, init_world
from phalanx.types import ObservationSpec

__all__ = ["LearnerConfig", "TrainState", "init_committee", "init_train_state", "iterate", "learner_config"]


@dataclass(frozen=True)
class LearnerConfig:
    """Everything an iteration depends on beside the environment.

    Attributes:
        f: faults tolerated.
        views: sensor view of each member; its length is the size of the committee.
        apart: whether every member learns alone, from its own verdicts in environments of its own; else together, from
            the committee's verdicts in environments that all share.
        n_envs: environments side by side, of each member where they learn apart.
        n_shadow: of these, environments in which verdicts are logged and not applied, as long as the credit has it.
        steps: steps of a rollout, per environment.
        stagger: events by which the environments' first episodes are spread.
        iterations: of the whole run; schedules run over it.
        gamma, lam: discount and lambda.
        returns: gae or monte_carlo.
        normalizer: none, batch, running or popart.
        horizon: rollouts that popart remembers.
        average: about what share of the training so far the parameters that answer are the average of, in [0, 1]; 0
            takes the latest.
        credit: scheme of ``agents.credit``.
        reward_scale: factor on every reward.
        network, ppo: sizes and update.
        prices: how specifications' multipliers follow their violations.
        liars: members that may be faulty at a time, where they learn together.
        adversaries: of what kinds.
    """

    f: int
    views: tuple[str, ...]
    apart: bool
    n_envs: int
    n_shadow: int
    steps: int
    stagger: int
    iterations: int
    gamma: float
    lam: float
    returns: str
    normalizer: str
    horizon: float
    average: float
    credit: str
    reward_scale: float
    network: NetworkConfig
    ppo: PPOConfig
    prices: MultiplierConfig
    liars: int = 0
    adversaries: tuple[str, ...] = ()

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam with its schedule over the run's updates."""
        minibatches = min(self.ppo.minibatches, self.n_envs)
        return make_optimizer(self.ppo, self.iterations * self.ppo.epochs * minibatches)


def learner_config(config: RunConfig) -> LearnerConfig:
    """The settings that an iteration needs."""
    config = config.resolved
    assert config.envs and config.steps and config.credit
    assert config.lam is not None and config.average is not None
    n_shadow = _shadow_envs(config, config.envs)
    fewest = min(n_shadow or config.envs, config.envs - n_shadow)  # every minibatch holds both kinds
    ppo = dataclasses.replace(config.ppo, minibatches=min(config.minibatches, fewest))
    return LearnerConfig(
        f=config.f,
        views=config.member_views,
        apart=config.rollouts == "apart",
        n_envs=config.envs,
        n_shadow=n_shadow,
        steps=config.steps,
        stagger=config.episode_limit,
        iterations=config.iterations,
        gamma=config.gamma,
        lam=config.lam,
        returns=config.returns,
        normalizer=config.normalizer,
        horizon=config.horizon,
        average=config.average,
        credit=config.credit,
        reward_scale=config.reward_scale,
        network=config.network,
        ppo=ppo,
        prices=MultiplierConfig(adapt=config.multipliers),
        liars=config.liars,
        adversaries=config.adversaries or TRAINING,
    )


def _shadow_envs(config: RunConfig, n_envs: int) -> int:
    """Environments in which verdicts are only logged: none where answers have no consequence, and none for a credit
    scheme that cannot judge a vote that caused nothing."""
    assert config.credit is not None
    if config.env == "stream" or CREDIT_SCHEMES[config.credit].shadow_until == 0.0:
        return 0
    return min(round(config.shadow * n_envs), n_envs - 1)


class TrainState(eqx.Module):
    """All that changes in training; a checkpoint holds it whole.

    Attributes:
        committee: parameters, views and value statistics.
        opt_state: of each member's optimiser.
        world: environments and memories.
        key: of the next iteration's randomness.
        iteration: iterations done.
        averaged: running average of the members' parameters, the latest weighing most.
        multipliers: price of each specification's violation; none where nothing is specified.
    """

    committee: Committee
    opt_state: Any
    world: World
    key: PRNGKeyArray
    iteration: Int[Array, ""]
    averaged: Network
    multipliers: Float[Array, " spec"]

    @property
    def answering(self) -> Committee:
        """The members as they answer outside of training: with averaged parameters.

        The update's noise moves a policy from one iteration to the next, each member's its own way. In the average it
        cancels, so that members err less and split less often.

        Source: Shamir and Zhang, "Stochastic gradient descent for non-smooth optimization", 1212.1824, section 4
        (polynomial-decay averaging; ``average`` is 1 / (eta + 1)).
        """
        return eqx.tree_at(lambda c: c.networks, self.committee, self.averaged)


def init_committee(spec: ObservationSpec, config: LearnerConfig, key: PRNGKeyArray) -> Committee:
    """Fresh members."""
    n_members = len(config.views)
    n_inputs, n_columns = vector_size(spec), len(spec.categorical) + len(spec.numeric)
    return Committee(
        networks=jax.vmap(lambda k: init_network(k, n_inputs, config.network, n_columns, spec.n_core))(
            jax.random.split(key, n_members)
        ),
        masks=jnp.stack([sensor_mask(spec, view) for view in config.views]),
        normalizers=jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (n_members,)), init_normalizer()),
        spec=spec,
        f=config.f,
    )


def init_train_state(env: Environment, config: LearnerConfig, key: PRNGKeyArray) -> TrainState:
    """Fresh members in fresh environments."""
    key_members, key_world, key = jax.random.split(key, 3)
    committee = init_committee(env.spec, config, key_members)

    def world(committee: Committee, key: PRNGKeyArray) -> World:
        memory, threat = config.network.memory_size, _threat(env, config)
        return init_world(env, committee, config.n_envs, memory, key, config.stagger, threat)

    if config.apart:
        keys = jax.random.split(key_world, committee.n_members)
        worlds = jax.vmap(lambda member, key: world(_committee_of_one(member), key))(committee, keys)
    else:
        worlds = world(committee, key_world)
    return TrainState(
        committee=committee,
        opt_state=init_optimizer(config.optimizer, committee.networks),
        world=worlds,
        key=key,
        iteration=jnp.zeros((), jnp.int32),
        averaged=committee.networks,
        multipliers=env.multipliers if isinstance(env, Constrained) else jnp.zeros(0, jnp.float32),
    )


def _threat(env: Environment, config: LearnerConfig) -> Threat | None:
    """Who may be faulty: in each episode a number of members, 0 to ``liars``, of one kind."""
    if not config.liars:
        return None
    return threat_of(
        config.adversaries,
        config.liars,
        n_members=len(config.views),
        horizon=env.episode_events,
        n_entities=env.spec.n_entities,
        drawn=True,
    )


def iterate(
    env: Environment, config: LearnerConfig, state: TrainState
) -> tuple[TrainState, dict[str, Array]]:
    """One iteration.

    Returns:
        The next state and the iteration's metrics: scalars, and arrays with one entry a member.
    """
    if isinstance(env, Constrained):
        env = env.at(state.multipliers)
    after, metrics = (_iterate_apart if config.apart else _iterate)(env, config, state)
    if isinstance(env, Constrained):
        violated = jnp.stack([metrics[f"stl/violated_{spec.name}"].mean() for spec in env.specs])
        heeded = local_weight(config.credit, _progress(config, state)) < 1.0
        prices = raised(config.prices, state.multipliers, violated, heeded)
        after = eqx.tree_at(lambda s: s.multipliers, after, prices)
        metrics |= {f"stl/multiplier_{spec.name}": prices[i] for i, spec in enumerate(env.specs)}
    return after, metrics


def _progress(config: LearnerConfig, state: TrainState) -> Float[Array, ""]:
    """Share of the run that is done."""
    return state.iteration.astype(jnp.float32) / config.iterations


def _iterate_apart(
    env: Environment, config: LearnerConfig, state: TrainState
) -> tuple[TrainState, dict[str, Array]]:
    """One iteration of every member as a committee of one: what happens is what it says, and no other member is there
    to hide its mistakes or to share its luck."""

    def learn(
        committee: Committee, opt_state: Any, averaged: Network, world: World, key: PRNGKeyArray
    ) -> tuple[tuple[Any, ...], dict[str, Array]]:
        own = TrainState(
            committee=_committee_of_one(committee),
            opt_state=_as_stack(opt_state),
            world=world,
            key=key,
            iteration=state.iteration,
            averaged=_as_stack(averaged),
            multipliers=state.multipliers,
        )
        own, metrics = _iterate(env, config, own)
        trained = (own.committee.networks, own.committee.normalizers, own.opt_state, own.averaged)
        return (*(jax.tree.map(lambda leaf: leaf[0], part) for part in trained), own.world, own.key), metrics

    keys = jax.random.split(state.key, state.committee.n_members)
    parts, metrics = jax.vmap(learn)(state.committee, state.opt_state, state.averaged, state.world, keys)
    networks, normalizers, opt_state, averaged, world, keys = parts
    committee = eqx.tree_at(lambda c: (c.networks, c.normalizers), state.committee, (networks, normalizers))
    after = TrainState(committee, opt_state, world, keys[0], state.iteration + 1, averaged, state.multipliers)
    return after, {name: values.reshape(-1) for name, values in metrics.items() if name not in OF_SEVERAL}


def _committee_of_one(member: Committee) -> Committee:
    """A member, whose arrays have no member axis, as a committee that tolerates nothing."""
    return Committee(
        networks=_as_stack(member.networks),
        masks=member.masks[None],
        normalizers=_as_stack(member.normalizers),
        spec=member.spec,
        f=0,
    )


def _as_stack(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[None], tree)


def _iterate(
    env: Environment, config: LearnerConfig, state: TrainState
) -> tuple[TrainState, dict[str, Array]]:
    key_rollout, key_update, key_next = jax.random.split(state.key, 3)
    progress = _progress(config, state)
    scheme = CREDIT_SCHEMES[config.credit]
    n_shadow = jnp.where(progress < scheme.shadow_until, config.n_shadow, 0)
    world, rollout = collect(
        env,
        state.committee,
        state.world,
        key_rollout,
        steps=config.steps,
        n_shadow=n_shadow,
        dictator=config.credit == "dictator",
        gamma=config.gamma if scheme.lookahead else None,
        reward_scale=config.reward_scale,
    )
    reward = config.reward_scale * rollout.reward
    targets = jax.vmap(lambda v, n: _targets(config, reward, v, n, rollout), in_axes=(1, 1))(
        rollout.value, rollout.next_value
    )
    committee, scaled_targets = _follow_targets(config, state.committee, targets.value_targets)
    applied = (jnp.arange(config.n_envs) >= n_shadow).astype(jnp.float32)
    cast = rollout.votes if rollout.cast is None else rollout.cast
    best = best_votes(config.credit, credit=rollout.credit, votes=cast, f=config.f)
    votes = jnp.moveaxis(rollout.votes, -1, 0)
    log_probs = jnp.moveaxis(rollout.log_probs, 1, 0)
    batch = Batch(
        vectors=rollout.vectors,
        core=rollout.core,
        reads=rollout.reads,
        initial=rollout.initial,
        votes=votes,
        log_prob=jnp.take_along_axis(log_probs, votes[..., None], axis=-1)[..., 0],
        advantages=jax.vmap(standardize)(targets.advantages, _mattered(rollout, applied)),
        best=jnp.moveaxis(best, -1, 0),
        worth=relative_worth(rollout.worth) if scheme.lookahead else None,
        local=local_weight(config.credit, progress),
        applied=applied,
        targets=scaled_targets,
    )
    networks, opt_state, reports = update(
        committee.networks,
        state.opt_state,
        committee.masks,
        batch,
        key_update,
        config=config.ppo,
        optimizer=config.optimizer,
    )
    metrics = iteration_metrics(rollout, targets, reports, committee, networks, n_shadow=config.n_shadow)
    if isinstance(env, Constrained):
        metrics |= specification_metrics(env, rollout.robustness[:, config.n_shadow :])
    committee = eqx.tree_at(lambda c: c.networks, committee, networks)
    share = 1.0 / (1.0 + config.average * state.iteration.astype(jnp.float32))
    averaged = jax.tree.map(lambda old, new: old + share * (new - old), state.averaged, networks)
    after = TrainState(
        committee, opt_state, world, key_next, state.iteration + 1, averaged, state.multipliers
    )
    return after, metrics


def _mattered(rollout: Rollout, applied: Float[Array, " env"]) -> Float[Array, "member time env"]:
    """1 where a member's own vote took part in what happened: verdicts were applied, and it was not faulty."""
    shape = rollout.value.shape[1], rollout.value.shape[0], rollout.value.shape[2]
    mattered = jnp.broadcast_to(applied, shape)
    if rollout.faulty is None:
        return mattered
    return mattered * (~jnp.moveaxis(rollout.faulty, -1, 0)).astype(mattered.dtype)


def _targets(
    config: LearnerConfig, rewards: Array, values: Array, next_values: Array, rollout: Rollout
) -> Targets:
    targets = gae(
        rewards,
        values,
        next_values,
        rollout.terminated,
        rollout.truncated,
        gamma=config.gamma,
        lam=config.lam,
    )
    if config.returns == "gae":
        return targets
    returns = monte_carlo(rewards, next_values, rollout.terminated, rollout.truncated, gamma=config.gamma)
    return Targets(returns - values, returns)


def _follow_targets(
    config: LearnerConfig, committee: Committee, value_targets: Float[Array, "member time env"]
) -> tuple[Committee, Float[Array, "member time env"]]:
    """Updates the value statistics, preserves V under popart, and expresses the targets in the critic's units."""
    old = committee.normalizers
    seen = value_targets[:, :, config.n_shadow :]
    new = jax.vmap(lambda s, t: update_normalizer(config.normalizer, s, t, config.horizon))(old, seen)
    if config.normalizer == "popart":
        networks = committee.networks
        weight, bias = jax.vmap(rescale_head)(networks.value_weight, networks.value_bias, old, new)
        first = (
            old.count == 0
        )  # the first statistics are taken as they are: the head still emits zero, which is now the mean
        weight = jnp.where(first[:, None], networks.value_weight, weight)
        bias = jnp.where(first, networks.value_bias, bias)
        networks = eqx.tree_at(lambda n: (n.value_weight, n.value_bias), networks, (weight, bias))
        committee = eqx.tree_at(lambda c: c.networks, committee, networks)
    committee = eqx.tree_at(lambda c: c.normalizers, committee, new)
    return committee, jax.vmap(normalize)(new, value_targets)
