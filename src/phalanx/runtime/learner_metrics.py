"""What an iteration says of itself: the metrics of its rollout, its targets and its update.

Rewards, values and rates are those of the environments in which verdicts are applied; recall and false alarms are those
of all.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from phalanx.agents.network import Network
from phalanx.agents.normalizer import NormalizerState, on_floor, scale
from phalanx.agents.ppo import LossReport
from phalanx.agents.targets import Targets
from phalanx.agents.vitals import parameter_norm, relative_change, rollout_vitals
from phalanx.envs.constrained import Constrained
from phalanx.runtime.decide import Committee
from phalanx.runtime.rollout import Rollout
from phalanx.types import Verdict

__all__ = ["OF_SEVERAL", "iteration_metrics", "specification_metrics"]

OF_SEVERAL = ("policy/pivotal_rate", "committee/agreement")
"""Metrics that are 1 whenever a member decides alone."""


def iteration_metrics(
    rollout: Rollout,
    targets: Targets,
    reports: LossReport,
    committee: Committee,
    networks: Network,
    *,
    n_shadow: int,
) -> dict[str, Array]:
    """Metrics of CONTRACT's names and what the doctor reads beside them.

    Args:
        rollout: of all environments.
        targets: of each member, in reward units.
        reports: of each minibatch of the update.
        committee: before the update, its value statistics with this rollout's targets in them.
        networks: after the update.
        n_shadow: the first so many environments only log their verdicts.

    Returns:
        By name scalars, and arrays with one entry a member.
    """
    found = _metrics(rollout, targets, committee.normalizers, reports, n_shadow)
    return found | _vitals(rollout, targets, committee.masks, n_shadow) | _moves(committee.networks, networks)


def specification_metrics(env: Constrained, robustness: Float[Array, "time env spec"]) -> dict[str, Array]:
    """Each specification's mean robustness, and the share of the steps at which it is violated.

    Args:
        env: whose specifications.
        robustness: normalised, in the environments in which verdicts are applied.
    """
    found = {}
    for i, spec in enumerate(env.specs):
        found[f"stl/robustness_{spec.name}"] = robustness[..., i].mean()
        found[f"stl/violated_{spec.name}"] = (robustness[..., i] < 0.0).mean(dtype=jnp.float32)
    return found


def _metrics(
    rollout: Rollout, targets: Targets, normalizers: NormalizerState, reports: LossReport, n_shadow: int
) -> dict[str, Array]:
    """Losses, values, rewards, and rates of votes and verdicts."""
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
    if rollout.faulty is not None and rollout.cast is not None:
        metrics["committee/faulty"] = rollout.faulty.mean(dtype=jnp.float32)
        metrics["committee/abstain"] = (rollout.cast < 0).mean(dtype=jnp.float32)
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
