"""The original's run (``--preset original`` on the stream): parts, rollout, iteration, validation, faults included.

- A rollout starts a new episode at a random row and zero LSTM state; the state is carried on through the whole rollout,
  also where an episode ends. With 2,048 steps and episodes of 1,000 the last episode has 48 steps, and its rewards
  alone are what the log calls the episode's (``reward/episode``, summed over the members).
- Episode end and rollout end count as terminated: nothing is bootstrapped.
- Advantages are Monte Carlo too, target minus emitted value, both normalised or both raw; lambda counts only with
  ``--returns gae``. With GAE the policy allows everything by iteration 10, where the raw loss is then 7.5e5; with
  Monte Carlo it is 9.2e5, and 1.0e6 was logged. (``popart``, which the original does not have, denormalises values.)
- Running statistics take a rollout's returns in before they normalise them.

The rows of a rollout do not depend on the verdicts, so the stream is played twice with the same keys: first for its
rows, all of which the members then judge at once, and then with their votes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, PRNGKeyArray

from phalanx.agents.normalizer import (
    NormalizerState,
    denormalize,
    init_normalizer,
    normalize,
    on_floor,
    rescale_head,
    scale,
    update_normalizer,
)
from phalanx.agents.original import (
    OriginalBatch,
    OriginalNetwork,
    OriginalNetworkConfig,
    init_original_network,
    original_optimizer,
    original_update,
    rollout_outputs,
)
from phalanx.agents.ppo import LossReport, standardize
from phalanx.agents.targets import gae, monte_carlo
from phalanx.data.encoder import Encoded
from phalanx.envs.original import OriginalConfig, OriginalEnv, OriginalStep, original_verdict
from phalanx.errors import UsageError
from phalanx.runtime.config import PRESETS, RunConfig
from phalanx.types import Observation, ObservationSpec, TimeStep, Verdict

__all__ = [
    "ORIGINAL_SPECS",
    "OriginalCommittee",
    "OriginalState",
    "check_original",
    "init_original_state",
    "init_originals",
    "iterate_original",
    "original_env",
    "originals_step",
]

ORIGINAL_SPECS = ("response_time", "threat", "rates", "resources")
_FIXED = ("credit", "rollouts", "cell", "split", "start", "views", "faults")


class OriginalCommittee(eqx.Module):
    """What decides: the members and the statistics of their value targets, stacked along a member axis."""

    networks: OriginalNetwork
    normalizers: NormalizerState

    @property
    def n_members(self) -> int:
        """Members of the committee."""
        return self.normalizers.count.shape[0]


class OriginalState(eqx.Module):
    """All that changes in training; a checkpoint holds it whole. Rollouts start anew, so there is no world in it."""

    committee: OriginalCommittee
    opt_state: Any
    key: PRNGKeyArray
    iteration: Int[Array, ""]


def init_originals(config: RunConfig, env: OriginalEnv, keys: Key[Array, " seed"]) -> OriginalState:
    """Fresh states of several seeds, stacked along a seed axis."""
    return eqx.filter_jit(
        jax.vmap(lambda env, key: init_original_state(env, config, key), in_axes=(None, 0))
    )(env, keys)


def originals_step(
    config: RunConfig,
) -> Callable[[Any, Any], tuple[Any, dict[str, Array]]]:
    """One compiled iteration of all seeds, one seed after the other: what they hold for an update is large."""

    def step(env: OriginalEnv, states: OriginalState) -> tuple[OriginalState, dict[str, Array]]:
        return jax.lax.map(lambda state: iterate_original(env, config, state), states)

    return eqx.filter_jit(step, donate="all-except-first")


class Played(NamedTuple):
    """A rollout of the stream, ``[time, env]``.

    Attributes:
        features: the rows shown.
        label: 1 threat, 0 benign.
        reward: of each member alike.
        terminated: the episode ended.
        cause: verdict, task reward and specs.
    """

    features: Float[Array, "time env feature"]
    label: Int[Array, "time env"]
    reward: Float[Array, "time env"]
    terminated: Bool[Array, "time env"]
    cause: OriginalStep


def check_original(config: RunConfig) -> None:
    """Refuses settings that the original's run has no place for.

    Raises:
        UsageError: one of them differs from the preset's value.
    """
    preset = RunConfig.preset_named("original")
    for name in _FIXED:
        value, expected = getattr(config, name), getattr(preset, name)
        if value != expected and not (name == "split" and value == "auto"):
            raise UsageError(
                f"--{name} {value} has no effect with --preset original on the stream, which has {expected or 'none'}. "
                "Leave it out, or use --preset default"
            )


def original_env(config: RunConfig, spec: ObservationSpec, encoded: Encoded) -> OriginalEnv:
    """One part of the data as the original's stream.

    Args:
        config: settings.
        spec: the encoded columns; the ids of categorical ones become numbers.
        encoded: rows of the part in the split's order, with numbers divided by their maximum.
    """
    values = np.concatenate([encoded.category.astype(np.float32), encoded.numeric], axis=1)
    settings = OriginalConfig(
        episode_events=config.episode_events or PRESETS["original"]["episode_events"],
        seed=config.seed if config.split_seed is None else config.split_seed,
    )
    names = tuple(column.name for column in (*spec.categorical, *spec.numeric))
    columns = {name: values[:, i] for i, name in enumerate(names)}
    return OriginalEnv(columns, encoded.label, settings, features=names)


def _network_config(config: RunConfig) -> OriginalNetworkConfig:
    return OriginalNetworkConfig(hidden=config.hidden, memory=config.memory, head=config.hidden)


def _optimizer(config: RunConfig) -> optax.GradientTransformation:
    return original_optimizer(config.ppo, config.iterations * config.ppo.epochs * config.ppo.minibatches)


def init_original_state(env: OriginalEnv, config: RunConfig, key: PRNGKeyArray) -> OriginalState:
    """Fresh members."""
    key_members, key = jax.random.split(key)
    sizes = _network_config(config)
    networks: Any = jax.vmap(lambda k: init_original_network(k, env.features.shape[1], sizes))(
        jax.random.split(key_members, config.members)
    )
    normalizers = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (config.members,)), init_normalizer())
    return OriginalState(
        committee=OriginalCommittee(networks, normalizers),
        opt_state=jax.vmap(_optimizer(config).init)(networks),
        key=key,
        iteration=jnp.zeros((), jnp.int32),
    )


def _play(env: OriginalEnv, votes: Int[Array, "time env member"], key: PRNGKeyArray) -> Played:
    """Plays the stream with given votes, a new episode at a random row where one ended."""

    def lane(votes: Int[Array, "time member"], key: PRNGKeyArray) -> Played:
        key_start, key_steps = jax.random.split(key)

        def step(carry: tuple[Any, Observation], at: tuple[Array, PRNGKeyArray]) -> tuple[Any, Played]:
            state, observation = carry
            vote, key = at
            key_step, key_reset = jax.random.split(key)
            state, time_step, reward, cause = env.step_votes(state, vote, key_step)
            played = Played(
                observation.numeric, time_step.truth.label, reward[0], time_step.terminated, cause
            )
            following = (state, time_step.observation)
            return _or_fresh(env, time_step, following, key_reset), played

        keys = jax.random.split(key_steps, votes.shape[0])
        return jax.lax.scan(step, env.reset(key_start), (votes, keys))[1]

    keys = jax.random.split(key, votes.shape[1])
    return jax.vmap(lane, in_axes=(1, 0), out_axes=1)(votes, keys)


def _or_fresh(env: OriginalEnv, time_step: TimeStep, following: Any, key: PRNGKeyArray) -> Any:
    return jax.tree.map(lambda a, b: jnp.where(time_step.terminated, a, b), env.reset(key), following)


def iterate_original(
    env: OriginalEnv, config: RunConfig, state: OriginalState
) -> tuple[OriginalState, dict[str, Array]]:
    """One iteration: rollout, targets, update.

    Returns:
        The next state and the iteration's metrics: scalars, and arrays with one entry a member.
    """
    key_play, key_vote, key_update, key_next = jax.random.split(state.key, 4)
    old = state.committee
    blank = jnp.zeros((config.steps, config.envs, config.members), jnp.int32)
    rows = _play(env, blank, key_play).features
    out = jax.vmap(rollout_outputs, in_axes=(0, None))(old.networks, rows)
    votes = jax.random.categorical(key_vote, out.logits)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(out.logits), votes[..., None], axis=-1)[..., 0]
    played = _play(env, jnp.moveaxis(votes, 0, -1), key_play)
    values = out.value
    if config.normalizer == "popart":
        values = jax.vmap(denormalize)(old.normalizers, values)
    advantages, returns = jax.vmap(lambda v: _targets(config, played, v))(values)
    committee, targets = _follow(config, old, returns)
    compared = (values, returns) if config.normalizer == "popart" else (values, targets)
    if config.returns == "monte_carlo":
        advantages = compared[1] - compared[0]
    n_rows = config.rollout_steps
    batch = OriginalBatch(
        features=rows.reshape(n_rows, -1),
        votes=votes.reshape(-1, n_rows),
        log_prob=chosen.reshape(-1, n_rows),
        advantages=standardize(advantages).reshape(-1, n_rows),
        targets=targets.reshape(-1, n_rows),
    )
    networks, opt_state, reports = original_update(
        committee.networks,
        state.opt_state,
        batch,
        key_update,
        config=config.ppo,
        optimizer=_optimizer(config),
        dropout=_network_config(config).dropout,
    )
    committee = eqx.tree_at(lambda c: c.networks, committee, networks)
    metrics = _metrics(played, votes, reports) | _value_metrics(*compared, returns, committee.normalizers)
    return OriginalState(committee, opt_state, key_next, state.iteration + 1), metrics


def _targets(config: RunConfig, played: Played, values: Float[Array, "time env"]) -> tuple[Array, Array]:
    """Advantages and value targets of one member; the rollout's end is taken for an end of the episode."""
    assert config.lam is not None
    reward = config.reward_scale * played.reward
    following = jnp.concatenate([values[1:], jnp.zeros_like(values[:1])])
    never = jnp.zeros_like(played.terminated)
    found = gae(reward, values, following, played.terminated, never, gamma=config.gamma, lam=config.lam)
    if config.returns == "gae":
        return found.advantages, found.value_targets
    returns = monte_carlo(reward, jnp.zeros_like(values), played.terminated, never, gamma=config.gamma)
    return found.advantages, returns


def _follow(
    config: RunConfig, committee: OriginalCommittee, returns: Float[Array, "member time env"]
) -> tuple[OriginalCommittee, Float[Array, "member time env"]]:
    """Takes the returns into the statistics and expresses them in the critic's units."""
    old, networks = committee.normalizers, committee.networks
    new = jax.vmap(lambda s, r: update_normalizer(config.normalizer, s, r, config.horizon))(old, returns)
    if config.normalizer == "popart":
        out = networks.value.out
        weight, bias = jax.vmap(rescale_head)(out.weight[..., 0], out.bias[..., 0], old, new)
        networks = eqx.tree_at(
            lambda n: (n.value.out.weight, n.value.out.bias), networks, (weight[..., None], bias[..., None])
        )
    return OriginalCommittee(networks, new), jax.vmap(normalize)(new, returns)


def _value_metrics(
    values: Float[Array, "member time env"],
    targets: Float[Array, "member time env"],
    returns: Float[Array, "member time env"],
    normalizers: NormalizerState,
) -> dict[str, Array]:
    axes = (1, 2)
    residual, spread = jnp.var(targets - values, axis=axes), jnp.var(targets, axis=axes)
    return {
        "value/explained_variance": 1.0 - residual / spread,
        "value/target_mean": returns.mean(axis=axes),
        "value/target_std": jnp.std(returns, axis=axes),
        "value/scale": jax.vmap(scale)(normalizers),
        "value/on_floor": jax.vmap(on_floor)(normalizers).astype(jnp.float32),
    }


def _metrics(played: Played, votes: Int[Array, "member time env"], reports: LossReport) -> dict[str, Array]:
    """Metrics of CONTRACT's names but for the values'; arrays hold one entry a member."""
    threat, verdict = played.label == 1, played.cause.verdict
    answered = verdict >= Verdict.BLOCK
    alone = (
        jnp.flip(jnp.cumsum(jnp.flip(played.terminated, 0), axis=0), 0) == 0
    )  # after the last episode's end
    last = jnp.where(alone.any(axis=0), jnp.where(alone, played.reward, 0.0).sum(axis=0), jnp.nan)
    metrics = {
        "loss/value": reports.value.mean(axis=0),
        "loss/policy": reports.policy.mean(axis=0),
        "policy/entropy": reports.entropy.mean(axis=0),
        "policy/approx_kl": reports.approx_kl.mean(axis=0),
        "policy/clip_fraction": reports.clipped.mean(axis=0),
        "policy/first_ratio_error": reports.ratio_error[0],
        "policy/pivotal_rate": _pivotal(jnp.moveaxis(votes, 0, -1)).mean(axis=(0, 1), dtype=jnp.float32),
        "reward/step": played.reward.mean(),
        "reward/task": played.cause.task.mean(),
        "reward/episode": votes.shape[0] * last.mean(),
        "committee/agreement": (votes == votes[:1]).all(axis=0).mean(dtype=jnp.float32),
        "committee/recall": (answered & threat).sum() / threat.sum(),
        "committee/false_alarm_rate": (answered & ~threat).sum() / (~threat).sum(),
        "data/base_rate": threat.mean(dtype=jnp.float32),
    }
    for name in ORIGINAL_SPECS:
        robustness = getattr(played.cause.specs, name)
        metrics[f"stl/robustness_{name}"] = robustness.mean()
        metrics[f"stl/violated_{name}"] = (robustness < 0).mean(dtype=jnp.float32)
    for each in Verdict:
        metrics[f"policy/rate_{each.name.lower()}"] = (votes == each).mean(axis=(1, 2), dtype=jnp.float32)
        metrics[f"committee/rate_{each.name.lower()}"] = (verdict == each).mean(dtype=jnp.float32)
    return metrics


def _pivotal(votes: Int[Array, "time env member"]) -> Bool[Array, "time env member"]:
    """Whether another vote of a member would have changed what the committee is paid for: restrictive or not."""

    def one(votes: Int[Array, " member"]) -> Bool[Array, " member"]:
        n = votes.shape[0]
        turned = jnp.where(votes >= Verdict.BLOCK, int(Verdict.ALLOW), int(Verdict.BLOCK))
        changed = jnp.where(jnp.eye(n, dtype=bool), turned[None], votes[None])
        restrictive = jax.vmap(original_verdict)(changed) >= Verdict.BLOCK
        return restrictive != (original_verdict(votes) >= Verdict.BLOCK)

    return jax.vmap(jax.vmap(one))(votes)
