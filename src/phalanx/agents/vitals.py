"""What a rollout and its update say about their own soundness, in figures without a unit, for the doctor to read.

They hold for any actor-critic with discrete actions: pass one agent's arrays, from JAX or NumPy, and log what comes
back (``phalanx doctor`` knows the names). None of them needs to know the task.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

__all__ = [
    "action_dependence",
    "dead_units",
    "held_out_r2",
    "parameter_norm",
    "relative_change",
    "rollout_vitals",
]

_LEAST_TRIED = 20.0
"""Draws of another than the likeliest action that are to be expected, for a test of draws to mean anything: what is
hardly ever done tells its effect when it is done."""

_UNIFORM = 1e-9
"""Variance of log pi(a) below which all actions are as likely, up to rounding, and draws tell nothing."""

_ACTIONS = 8
"""At most so many mixtures of actions are tested for an effect."""

_PROJECTION = 6
"""Directions of the features along which an action's effect is looked for."""

_NEXT = 3
"""Directions of what is seen next in which an effect of the action is looked for."""

_COLUMNS, _ROWS = 48, 8192
"""At most so many directions, and steps, for what a linear critic could explain."""


def rollout_vitals(
    *,
    features: Float[Array, "time env feature"],
    log_probs: Float[Array, "time env action"],
    actions: Int[Array, "time env"],
    values: Float[Array, "time env"],
    next_values: Float[Array, "time env"],
    terminated: Bool[Array, "time env"],
    truncated: Bool[Array, "time env"],
    advantages: Float[Array, "time env"],
    value_targets: Float[Array, "time env"],
    ages: Int[Array, "time env"] | None = None,
) -> dict[str, Float[Array, ""]]:
    """Figures of one rollout of one agent.

    Args:
        features: what the agent sees, in any scale.
        log_probs: its policy at every step, normalised.
        actions: what it did.
        values, next_values: V(s_t) and V(s'_t), s'_t of the old episode.
        terminated, truncated: how the step ended the episode.
        advantages, value_targets: as ``agents.targets`` gives them, before any standardisation.
        ages: steps of the episode before this one, for what can be told of the lengths of episodes.

    Returns:
        - ``policy/entropy_share``: mean entropy, as a share of that of uniform draws; ``features/constant``: share of
          features with one value in the whole rollout.
        - ``policy/sampling_z``: how far the actions are from draws of the policy, in standard errors of the mean of
          -log pi(a), whose expectation is the entropy.
        - ``policy/effect_z``, ``policy/consequence_z``, ``policy/transition_z``: ``action_dependence`` of the
          advantage, of the value of what follows, and of what is seen next (the mean over directions).
        - ``value/linear_r2``: what a linear critic, fitted on half of the environments, explains of the targets in
          the other half.
        - ``value/end_bias``: mean of V - target where episodes terminated, as far as it is more than elsewhere, in
          relation to the size of the targets: a critic that does not see the end coming.
        - ``features/predictable``: what a linear function of one step's features explains of the next one's.
        - ``episode/terminated``, ``episode/truncated``: episodes that ended so; ``episode/terminated_at_limit``: share
          of the terminated ones of exactly the length of the longest; ``episode/truncated_spread``: coefficient of
          variation of the lengths of the truncated ones.

        NaN where a rollout has nothing to say.

    Example:
        >>> key = jax.random.key(0)
        >>> logits = jax.random.normal(key, (64, 8, 3))
        >>> log_probs = jax.nn.log_softmax(logits)
        >>> no, zero = jnp.zeros((64, 8), bool), jnp.zeros((64, 8))
        >>> vitals = rollout_vitals(features=logits, log_probs=log_probs, actions=log_probs.argmin(-1), values=zero,
        ...     next_values=zero, terminated=no, truncated=no, advantages=zero, value_targets=zero)
        >>> bool(vitals["policy/sampling_z"] > 20)  # the least likely action each time is no draw
        True
    """
    taken = jnp.take_along_axis(log_probs, actions[..., None], axis=-1)[..., 0]
    probs = jnp.exp(log_probs)
    safe = jnp.where(probs > 0, log_probs, 0.0)
    entropy = -(probs * safe).sum(axis=-1)
    variance = (probs * jnp.square(safe)).sum(axis=-1) - jnp.square(entropy)
    sampling = (-taken - entropy).sum() / jnp.sqrt(jnp.maximum(variance.sum(), 1e-12))
    sampling = jnp.where((_tried(probs) >= _LEAST_TRIED) & (variance.mean() > _UNIFORM), sampling, jnp.nan)
    after = jnp.where(terminated, 0.0, next_values)
    low, high = features.min(axis=(0, 1)), features.max(axis=(0, 1))
    return {
        "policy/entropy_share": entropy.mean() / jnp.log(float(probs.shape[-1])),
        "policy/sampling_z": sampling,
        "policy/effect_z": action_dependence(features, probs, actions, advantages),
        "policy/consequence_z": jnp.where(
            terminated.all(), jnp.nan, action_dependence(features, probs, actions, after)
        ),
        "policy/transition_z": _transition(features, probs, actions, terminated | truncated),
        "features/constant": (high - low <= 1e-6 * jnp.maximum(jnp.abs(low), jnp.abs(high))).mean(
            dtype=jnp.float32
        ),
        "value/linear_r2": held_out_r2(features, value_targets),
        "value/end_bias": _end_bias(values, value_targets, terminated),
        "features/predictable": held_out_r2(
            features[:-1],
            _mixed_steps(features[1:], _PROJECTION),
            ~(terminated | truncated)[:-1],
        ),
        **({} if ages is None else _ends(ages.astype(jnp.float32) + 1.0, terminated, truncated)),
    }


def _ends(
    length: Float[Array, "time env"], terminated: Bool[Array, "time env"], truncated: Bool[Array, "time env"]
) -> dict[str, Float[Array, ""]]:
    """How episodes ended, and how long they were."""
    longest = jnp.where(terminated, length, 0).max()
    mean_cut = _mean(length, truncated)
    return {
        "episode/terminated": terminated.sum(dtype=jnp.float32),
        "episode/truncated": truncated.sum(dtype=jnp.float32),
        "episode/terminated_at_limit": _mean((length == longest).astype(jnp.float32), terminated),
        "episode/truncated_spread": jnp.sqrt(_mean(jnp.square(length - mean_cut), truncated)) / mean_cut,
    }


def action_dependence(
    features: Float[Array, "time env feature"],
    probs: Float[Array, "time env action"],
    actions: Int[Array, "time env"],
    outcome: Float[Array, "time env"],
) -> Float[Array, ""]:
    """Whether an outcome depends on the action taken, given what was seen: a score test, as a z value.

    If it does not, every (onehot(a) - pi) phi(s) y has mean zero and none is correlated with another, for a is drawn
    anew each step, however dependent the outcomes are on each other. So the sum's squared length under the empirical
    covariance is chi-squared; its excess over the degrees of freedom is given in standard deviations. What of y is
    linear in the features is taken out first, for power.

    Args:
        features: phi(s), in any scale; a few fixed random projections of them are used, and a constant.
        probs: the policy that the actions were drawn from.
        actions: what was drawn.
        outcome: y, in any unit.

    Returns:
        About standard normal (skewed to the right) where the action has no effect; NaN where y does not vary, or
        the policy hardly ever does anything but its favourite.

    Source: Rao, "Large sample tests of statistical hypotheses ...", 1948 (score test); Lin and Wei 1989 for the
    empirical covariance.
    """
    n_actions = probs.shape[-1]
    flat = _mixed(features.reshape(-1, features.shape[-1]), _PROJECTION)
    n_rows = flat.shape[0]
    phi = jnp.concatenate([jnp.ones((n_rows, 1)), jnp.clip(flat, -5.0, 5.0)], axis=1)
    y = outcome.reshape(-1) - outcome.mean()
    y = y - phi @ _ridge(phi, y, jnp.ones(n_rows))
    spread = jnp.sqrt(jnp.mean(jnp.square(y)))
    y = jnp.clip(y / jnp.maximum(spread, 1e-30), -10.0, 10.0)
    chosen = jax.nn.one_hot(actions.reshape(-1), n_actions) - probs.reshape(-1, n_actions)
    if n_actions - 1 > _ACTIONS:
        chosen = chosen @ jax.random.normal(jax.random.key(1), (n_actions, _ACTIONS))
    else:
        chosen = chosen[:, 1:]
    scores = (chosen[:, :, None] * phi[:, None, :]).reshape(n_rows, -1) * y[:, None]
    # a direction in which (nearly) nothing was tried says nothing: a little ridge, and its share of the freedom off
    total, covariance = scores.sum(axis=0), scores.T @ scores
    n_directions = len(total)
    ridge = 1e-3 * jnp.trace(covariance) / n_directions + 1e-12
    inverse = _inverse(covariance + ridge * jnp.eye(n_directions))
    statistic = total @ inverse @ total
    degrees = n_directions - ridge * jnp.trace(inverse)
    z = (statistic - degrees) / jnp.sqrt(2.0 * jnp.maximum(degrees, 1.0))
    varies = spread > 1e-6 * jnp.maximum(jnp.abs(outcome).max(), 1e-30)
    told = varies & (degrees > 0.5) & (_tried(probs) >= _LEAST_TRIED)
    return jnp.where(told & (n_rows >= 10 * n_directions), z, jnp.nan)


def _transition(
    features: Float[Array, "time env feature"],
    probs: Float[Array, "time env action"],
    actions: Int[Array, "time env"],
    done: Bool[Array, "time env"],
) -> Float[Array, ""]:
    """The dependence on the action of what is seen next, the mean over directions of the features that vary; NaN where
    none does."""
    following = _mixed_steps(features, _NEXT)[1:]
    within = ~done[:-1]
    count = jnp.maximum(within.sum(dtype=jnp.float32), 1.0)
    mean = jnp.where(within[..., None], following, 0.0).sum(axis=(0, 1)) / count
    outcome = jnp.where(within[..., None], following - mean[None, None], 0.0)
    test = jax.vmap(action_dependence, in_axes=(None, None, None, -1))
    z = test(features[:-1], probs[:-1], actions[:-1], outcome)
    return jnp.nanmean(z)


def held_out_r2(
    features: Float[Array, "time env feature"],
    target: Float[Array, "time env *wide"],
    where: Bool[Array, "time env"] | None = None,
) -> Float[Array, ""]:
    """What a ridge regression on the features explains of a target in environments that it was not fitted to.

    Args:
        features: in any scale; mixtures of them where there are many.
        target: one value or several a step; of several, their standardised errors are added up.
        where: steps that count; all unless given.

    Returns:
        At most 1; below 0 where nothing carries over. NaN with one environment, or where the target does not vary.
    """
    n_steps, n_envs = features.shape[:2]
    if n_envs < 2 or n_steps < 1:
        return jnp.asarray(jnp.nan)
    every = -(-n_steps * n_envs // _ROWS)
    x = jnp.clip(_mixed_steps(features, _COLUMNS)[::every], -5.0, 5.0)
    x = jnp.concatenate([jnp.ones((*x.shape[:2], 1)), x], axis=-1)
    y = target.reshape(n_steps, n_envs, -1)[::every]
    weight = jnp.ones(y.shape[:2]) if where is None else where[::every].astype(jnp.float32)
    total = jnp.maximum(weight.sum(), 1.0)
    mean = (weight[..., None] * y).sum(axis=(0, 1)) / total
    deviation = jnp.sqrt((weight[..., None] * jnp.square(y - mean[None, None])).sum(axis=(0, 1)) / total)
    varies = deviation > 1e-6 * jnp.maximum(jnp.abs(y).max(axis=(0, 1)), 1e-30)
    y = (y - mean[None, None]) / jnp.maximum(deviation, 1e-30)[None, None]
    y = jnp.where(varies[None, None], y, 0.0)
    error, spread = jnp.zeros(()), jnp.zeros(())
    halves = slice(0, n_envs // 2), slice(n_envs // 2, n_envs)
    for fitted, held in (halves, halves[::-1]):
        x_fitted, y_fitted, w_fitted = (part[:, fitted] for part in (x, y, weight))
        x_held, y_held, w_held = (part[:, held] for part in (x, y, weight))
        flat = x_fitted.reshape(-1, x.shape[-1])
        coefficients = _ridge(flat, y_fitted.reshape(len(flat), -1), w_fitted.reshape(-1))
        error += (w_held[..., None] * jnp.square(y_held - x_held @ coefficients)).sum()
        own_mean = (w_held[..., None] * y_held).sum(axis=(0, 1)) / jnp.maximum(w_held.sum(), 1.0)
        spread += (w_held[..., None] * jnp.square(y_held - own_mean[None, None])).sum()
    return jnp.where(varies.any(), 1.0 - error / jnp.maximum(spread, 1e-30), jnp.nan)


def _tried(probs: Float[Array, "time env action"]) -> Float[Array, ""]:
    return (1.0 - probs.max(axis=-1)).sum()


def _end_bias(
    values: Float[Array, "time env"], targets: Float[Array, "time env"], terminated: Bool[Array, "time env"]
) -> Float[Array, ""]:
    size = jnp.maximum(jnp.std(targets), 0.5 * jnp.abs(targets.mean()))
    bias = _mean(values - targets, terminated) / jnp.maximum(size, 1e-30)
    more = bias - (values - targets).mean() / jnp.maximum(size, 1e-30)
    return jnp.where(bias * more > 0, jnp.sign(bias) * jnp.minimum(jnp.abs(bias), jnp.abs(more)), 0.0 * bias)


def relative_change(before: Any, after: Any) -> Float[Array, ""]:
    """Length of the change of parameters in relation to their length, the greater of before and after.

    Example:
        >>> round(float(relative_change({"w": jnp.asarray([3.0, 4.0])}, {"w": jnp.asarray([3.0, 3.5])})), 3)
        0.1
    """
    moved = sum(jnp.square(b - a).sum() for a, b in zip(*map(jax.tree.leaves, (before, after)), strict=True))
    size = jnp.maximum(*(sum(jnp.square(a).sum() for a in jax.tree.leaves(part)) for part in (before, after)))
    return jnp.sqrt(moved / jnp.maximum(size, 1e-30))


def parameter_norm(parameters: Any) -> Float[Array, ""]:
    """Length of all parameters together, for ``network/norm``.

    Example:
        >>> float(parameter_norm({"w": jnp.asarray([3.0]), "b": jnp.asarray([4.0])}))
        5.0
    """
    return jnp.sqrt(sum(jnp.square(leaf).sum() for leaf in jax.tree.leaves(parameters)))


def dead_units(activations: Float[Array, "*batch unit"]) -> Float[Array, ""]:
    """Share of units whose output is the same on the whole batch.

    Example:
        >>> float(dead_units(jnp.asarray([[0.0, 1.0], [0.0, 2.0]])))
        0.5
    """
    flat = activations.reshape(-1, activations.shape[-1])
    low, high = flat.min(axis=0), flat.max(axis=0)
    return (high - low <= 1e-6 * jnp.maximum(jnp.abs(low), jnp.abs(high))).mean(dtype=jnp.float32)


def _ridge(
    x: Float[Array, "row column"], y: Float[Array, "row *wide"], weight: Float[Array, " row"]
) -> Float[Array, "column *wide"]:
    weighted = x * weight[:, None]
    gram = weighted.T @ x + 1e-3 * x.shape[0] * jnp.eye(x.shape[1])
    return _inverse(gram) @ (weighted.T @ y)


def _inverse(matrix: Float[Array, "row row"]) -> Float[Array, "row row"]:
    """The inverse of a positive definite matrix by Gauss-Jordan elimination.

    Not LAPACK's: batched factorisations in a scanned program were seen to wait for ever (JAX 0.10, two CPU cores).
    """
    size = matrix.shape[0]
    joined = jnp.concatenate([matrix, jnp.eye(size)], axis=1)

    def eliminate(row: Any, joined: Array) -> Array:
        pivot = joined[row] / joined[row, row]
        return (joined - joined[:, row, None] * pivot[None]).at[row].set(pivot)

    return jax.lax.fori_loop(0, size, eliminate, joined)[:, size:]


def _mixed(x: Float[Array, "row column"], most: int) -> Float[Array, "row mixed"]:
    """The standardised columns, or so many fixed random mixtures of them."""
    x = _standardized(x)
    n_columns = x.shape[1]
    if n_columns <= most:
        return x
    mixing = jax.random.normal(jax.random.key(0), (n_columns, most)) / jnp.sqrt(n_columns)
    return _standardized(x @ mixing)


def _mixed_steps(x: Float[Array, "time env column"], most: int) -> Float[Array, "time env mixed"]:
    return _mixed(x.reshape(-1, x.shape[-1]), most).reshape(*x.shape[:2], -1)


def _standardized(x: Float[Array, "row column"]) -> Float[Array, "row column"]:
    deviation = x.std(axis=0)
    varies = deviation > 1e-6 * jnp.abs(x).max(axis=0)
    return jnp.where(varies[None], (x - x.mean(axis=0)[None]) / jnp.where(varies, deviation, 1.0)[None], 0.0)


def _mean(x: Float[Array, "time env"], where: Bool[Array, "time env"]) -> Float[Array, ""]:
    count = where.sum(dtype=jnp.float32)
    return jnp.where(count > 0, jnp.where(where, x, 0.0).sum() / jnp.maximum(count, 1.0), jnp.nan)
