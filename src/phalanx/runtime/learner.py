"""One training iteration: rollout, credit, targets, statistics, update; a pure function of the training state."""

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
    NormalizerState,
    init_normalizer,
    normalize,
    on_floor,
    rescale_head,
    scale,
    update_normalizer,
)
from phalanx.agents.ppo import (
    Batch,
    LossReport,
    PPOConfig,
    init_optimizer,
    make_optimizer,
    standardize,
    update,
)
from phalanx.agents.targets import Targets, gae, monte_carlo
from phalanx.agents.vitals import parameter_norm, relative_change, rollout_vitals
from phalanx.envs.base import Environment
from phalanx.envs.constrained import Constrained
from phalanx.runtime.decide import Committee
from phalanx.runtime.multipliers import MultiplierConfig, raised
from phalanx.runtime.rollout import Rollout, World, collect, init_world
from phalanx.types import ObservationSpec, Verdict

_OF_SEVERAL = (
    "policy/pivotal_rate",
    "committee/agreement",
)  # metrics that are 1 whenever a member decides alone

__all__ = ["LearnerConfig", "TrainState", "init_committee", "init_train_state", "iterate"]


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

    @property
    def optimizer(self) -> optax.GradientTransformation:
        """Adam with its schedule over the run's updates."""
        minibatches = min(self.ppo.minibatches, self.n_envs)
        return make_optimizer(self.ppo, self.iterations * self.ppo.epochs * minibatches)


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
        memory = config.network.memory_size
        return init_world(env, committee, config.n_envs, memory, key, stagger=config.stagger)

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
    return after, {name: values.reshape(-1) for name, values in metrics.items() if name not in _OF_SEVERAL}


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
    best = best_votes(config.credit, credit=rollout.credit, votes=rollout.votes, f=config.f)
    votes = jnp.moveaxis(rollout.votes, -1, 0)
    log_probs = jnp.moveaxis(rollout.log_probs, 1, 0)
    batch = Batch(
        vectors=rollout.vectors,
        core=rollout.core,
        reads=rollout.reads,
        initial=rollout.initial,
        votes=votes,
        log_prob=jnp.take_along_axis(log_probs, votes[..., None], axis=-1)[..., 0],
        advantages=jax.vmap(lambda a: standardize(a, jnp.broadcast_to(applied, a.shape)))(targets.advantages),
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
    metrics = _metrics(rollout, targets, committee.normalizers, reports, config.n_shadow)
    metrics |= _vitals(rollout, targets, committee.masks, config.n_shadow)
    metrics |= _moves(committee.networks, networks)
    if isinstance(env, Constrained):
        metrics |= _specified(env, rollout.robustness[:, config.n_shadow :])
    committee = eqx.tree_at(lambda c: c.networks, committee, networks)
    share = 1.0 / (1.0 + config.average * state.iteration.astype(jnp.float32))
    averaged = jax.tree.map(lambda old, new: old + share * (new - old), state.averaged, networks)
    after = TrainState(
        committee, opt_state, world, key_next, state.iteration + 1, averaged, state.multipliers
    )
    return after, metrics


def _specified(env: Constrained, robustness: Float[Array, "time env spec"]) -> dict[str, Array]:
    """Each specification's mean robustness, and the share of the steps at which it is violated."""
    found = {}
    for i, spec in enumerate(env.specs):
        found[f"stl/robustness_{spec.name}"] = robustness[..., i].mean()
        found[f"stl/violated_{spec.name}"] = (robustness[..., i] < 0.0).mean(dtype=jnp.float32)
    return found


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


def _metrics(
    rollout: Rollout, targets: Targets, normalizers: NormalizerState, reports: LossReport, n_shadow: int
) -> dict[str, Array]:
    """Metrics of CONTRACT's names; arrays hold one entry a member. Rewards, values and rates are those of the
    environments in which verdicts are applied; recall and false alarms are those of all."""
    axes = (1, 2)
    goals = targets.value_targets[:, :, n_shadow:]
    values = jnp.moveaxis(rollout.value, 1, 0)[:, :, n_shadow:]
    residual, spread = jnp.var(goals - values, axis=axes), jnp.var(goals, axis=axes)
    votes = jnp.moveaxis(rollout.votes, -1, 0)[:, :, n_shadow:]
    action, ended = rollout.action[:, n_shadow:], rollout.done[:, n_shadow:]
    whole = ended & jnp.isfinite(rollout.episode_reward[:, n_shadow:])
    n_ended = whole.sum(dtype=jnp.float32)
    episode_reward = jnp.where(whole, rollout.episode_reward[:, n_shadow:], 0.0).sum() / n_ended
    malicious, benign = rollout.truth.label == 1, rollout.truth.label == 0
    answered = rollout.action >= Verdict.ALERT
    ballots = rollout.votes[:, n_shadow:]
    metrics = {
        "loss/value": reports.value.mean(axis=0),
        "loss/policy": reports.policy.mean(axis=0),
        "value/explained_variance": 1.0 - residual / spread,
        "value/target_mean": goals.mean(axis=axes),
        "value/target_std": jnp.sqrt(spread),
        "value/scale": jax.vmap(scale)(normalizers),
        "value/on_floor": jax.vmap(on_floor)(normalizers).astype(jnp.float32),
        "policy/entropy": reports.entropy.mean(axis=0),
        "policy/approx_kl": reports.approx_kl.mean(axis=0),
        "policy/clip_fraction": reports.clipped.mean(axis=0),
        "policy/first_ratio_error": reports.ratio_error[0],
        "policy/pivotal_rate": rollout.pivotal[:, n_shadow:].mean(axis=(0, 1), dtype=jnp.float32),
        "reward/step": rollout.reward[:, n_shadow:].mean(),
        "reward/episode": jnp.where(n_ended > 0, episode_reward, jnp.nan),
        "committee/agreement": (ballots.max(axis=-1) == ballots.min(axis=-1)).mean(dtype=jnp.float32),
        "committee/recall": (answered & malicious).sum() / malicious.sum(),
        "committee/false_alarm_rate": (answered & benign).sum() / benign.sum(),
        "data/base_rate": malicious.mean(dtype=jnp.float32),
    }
    for verdict in Verdict:
        name = verdict.name.lower()
        metrics[f"policy/rate_{name}"] = (votes == verdict).mean(axis=axes, dtype=jnp.float32)
        metrics[f"committee/rate_{name}"] = (action == verdict).mean(dtype=jnp.float32)
    return metrics


def _vitals(
    rollout: Rollout, targets: Targets, masks: Float[Array, "member input"], n_shadow: int
) -> dict[str, Array]:
    """What each member's rollout says of its own soundness, where verdicts are applied."""
    shared = {
        "terminated": rollout.terminated[:, n_shadow:],
        "truncated": rollout.truncated[:, n_shadow:],
    }
    own = {
        "features": rollout.vectors[None, :, n_shadow:] * masks[:, None, None],
        "log_probs": jnp.moveaxis(rollout.log_probs, 1, 0)[:, :, n_shadow:],
        "actions": jnp.moveaxis(rollout.votes, -1, 0)[:, :, n_shadow:],
        "values": jnp.moveaxis(rollout.value, 1, 0)[:, :, n_shadow:],
        "next_values": jnp.moveaxis(rollout.next_value, 1, 0)[:, :, n_shadow:],
        "advantages": targets.advantages[:, :, n_shadow:],
        "value_targets": targets.value_targets[:, :, n_shadow:],
    }
    return jax.vmap(lambda member: rollout_vitals(**shared, **member))(own)


def _moves(before: Network, after: Network) -> dict[str, Array]:
    """How far the update moved each member's actor and critic, and how long its parameters are now."""
    parts = {"actor": [], "critic": []}
    for name in Network.__dataclass_fields__:
        half = "critic" if name.startswith("value_") else "actor"
        parts[half].append((getattr(before, name), getattr(after, name)))
    moved = {
        f"update/{half}": jax.vmap(relative_change)(*map(list, zip(*pairs, strict=True)))
        for half, pairs in parts.items()
    }
    return moved | {"network/norm": jax.vmap(parameter_norm)(after)}
