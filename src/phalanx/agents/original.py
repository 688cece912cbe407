"""The original notebook's members: network, PPO loss and full-batch epochs, faults included (``--preset original``).

Two linear layers (LayerNorm, ReLU, dropout), a two-layer LSTM, heads for the policy, the value and four constraints. In
the rollout the LSTM carries its state and dropout is off; the update starts every row from zero state, one step long,
with dropout on. Hence the ratio is not 1 at the first epoch, and the recurrent weights never get a gradient.

Where the notebook's description leaves a choice:

- Every head has one hidden layer of the width of the others. A linear head could not do what was logged: an LSTM's
  outputs lie in [-1, 1] and 500 steps of Adam at 3e-4 move a weight by about .15, so 256 of them reach a value of some
  50; the logged losses need some -500 by iteration 50. With 256 hidden units it is 2e5 there as logged, with 128 4e5.
- The four constraint heads are all pushed towards .95 by their squared error.
- Parameters start as PyTorch's layers do: uniform in +-1/sqrt(inputs), for an LSTM +-1/sqrt(units).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from phalanx.agents.ppo import LossReport, PPOConfig
from phalanx.errors import UsageError
from phalanx.types import N_VERDICTS

__all__ = [
    "Dense",
    "Head",
    "Layer",
    "Lstm",
    "OriginalBatch",
    "OriginalNetwork",
    "OriginalNetworkConfig",
    "Outputs",
    "fresh_outputs",
    "init_original_network",
    "original_loss",
    "original_optimizer",
    "original_update",
    "rollout_outputs",
]

N_CONSTRAINTS = 4
_CONSTRAINT_TARGET, _CONSTRAINT_COEF = 0.95, 0.1
_NORM_EPS = 1e-5


@dataclass(frozen=True)
class OriginalNetworkConfig:
    """Sizes of a member.

    Attributes:
        hidden: width of the two linear layers.
        memory: units of each LSTM layer.
        head: width of the heads' hidden layer.
        dropout: share of the linear layers' outputs dropped in the update, in [0, 1).
    """

    hidden: int = 256
    memory: int = 256
    head: int = 256
    dropout: float = 0.2

    def __post_init__(self) -> None:
        if min(self.hidden, self.memory, self.head) < 1:
            raise UsageError(
                f"hidden={self.hidden}, memory={self.memory}, head={self.head}; all are at least 1"
            )
        if not 0.0 <= self.dropout < 1.0:
            raise UsageError(f"dropout={self.dropout}; expected a number in [0, 1)")


class Dense(eqx.Module):
    """An affine layer."""

    weight: Float[Array, "*member input output"]
    bias: Float[Array, "*member output"]

    def __call__(self, x: Float[Array, "*batch input"]) -> Float[Array, "*batch output"]:
        """x W + b, the leading axes made one so that the gradient of W is a plain product."""
        flat = x.reshape(-1, x.shape[-1]) @ self.weight + self.bias[None]
        return flat.reshape(*x.shape[:-1], -1)


class Layer(eqx.Module):
    """Linear, LayerNorm, ReLU."""

    dense: Dense
    gain: Float[Array, "*member output"]
    shift: Float[Array, "*member output"]

    def __call__(self, x: Float[Array, "*batch input"]) -> Float[Array, "*batch output"]:
        """relu(gain (y - mean y) / sqrt(var y + eps) + shift), y = x W + b."""
        y = self.dense(x)
        centred = y - y.mean(axis=-1, keepdims=True)
        unit = centred * jax.lax.rsqrt(jnp.square(centred).mean(axis=-1, keepdims=True) + _NORM_EPS)
        gain, shift = (jnp.broadcast_to(part, y.shape) for part in (self.gain, self.shift))
        return jax.nn.relu(unit * gain + shift)


class Lstm(eqx.Module):
    """An LSTM layer with its gates in the order input, candidate, output, forget: the last has no effect at c = 0."""

    inputs: Dense
    recurrent: Dense

    @property
    def units(self) -> int:
        """Units of the layer."""
        return self.recurrent.weight.shape[-2]


class Head(eqx.Module):
    """Linear, ReLU, linear."""

    hidden: Dense
    out: Dense

    def __call__(self, x: Float[Array, "*batch input"]) -> Float[Array, "*batch output"]:
        """The head's output."""
        return self.out(jax.nn.relu(self.hidden(x)))


class OriginalNetwork(eqx.Module):
    """Parameters of one member (stacked along a leading axis for a committee)."""

    first: Layer
    second: Layer
    lower: Lstm
    upper: Lstm
    policy: Head
    value: Head
    constraint: Head


class Outputs(NamedTuple):
    """What a member says of a row.

    Attributes:
        logits: of the four verdicts.
        value: as emitted, in the units of the training target.
        constraints: estimated satisfaction of the four constraints, in (0, 1).
    """

    logits: Float[Array, "*batch verdict"]
    value: Float[Array, "*batch"]
    constraints: Float[Array, "*batch constraint"]


class OriginalBatch(eqx.Module):
    """A rollout as the update sees it; the features are shared by all members.

    Attributes:
        features: rows.
        votes: what each member voted.
        log_prob: log-probability of that vote in the rollout.
        advantages: standardised over all members together.
        targets: value targets in the units of the critic's output.
    """

    features: Float[Array, "row feature"]
    votes: Int[Array, "*member row"]
    log_prob: Float[Array, "*member row"]
    advantages: Float[Array, "*member row"]
    targets: Float[Array, "*member row"]


def _dense(key: PRNGKeyArray, n_inputs: int, n_outputs: int, bound: float | None = None) -> Dense:
    limit = n_inputs**-0.5 if bound is None else bound
    key_weight, key_bias = jax.random.split(key)
    return Dense(
        weight=jax.random.uniform(key_weight, (n_inputs, n_outputs), jnp.float32, -limit, limit),
        bias=jax.random.uniform(key_bias, (n_outputs,), jnp.float32, -limit, limit),
    )


def init_original_network(key: PRNGKeyArray, n_inputs: int, config: OriginalNetworkConfig) -> OriginalNetwork:
    """A fresh member."""
    keys = iter(jax.random.split(key, 12))
    hidden, units = config.hidden, config.memory

    def layer(n: int) -> Layer:
        dense = _dense(next(keys), n, hidden)
        return Layer(dense, jnp.ones(hidden, jnp.float32), jnp.zeros(hidden, jnp.float32))

    def lstm(n: int) -> Lstm:
        bound = units**-0.5
        return Lstm(_dense(next(keys), n, 4 * units, bound), _dense(next(keys), units, 4 * units, bound))

    def head(n: int) -> Head:
        return Head(_dense(next(keys), units, config.head), _dense(next(keys), config.head, n))

    return OriginalNetwork(
        first=layer(n_inputs),
        second=layer(hidden),
        lower=lstm(hidden),
        upper=lstm(units),
        policy=head(N_VERDICTS),
        value=head(1),
        constraint=head(N_CONSTRAINTS),
    )


def _heads(network: OriginalNetwork, x: Float[Array, "*batch memory"]) -> Outputs:
    return Outputs(network.policy(x), network.value(x)[..., 0], jax.nn.sigmoid(network.constraint(x)))


def _dropout(x: Array, key: PRNGKeyArray | None, rate: float) -> Array:
    if key is None or rate == 0.0:
        return x
    return jnp.where(jax.random.bernoulli(key, 1.0 - rate, x.shape), x / (1.0 - rate), 0.0)


def _from_zero(lstm: Lstm, x: Float[Array, "*batch input"]) -> Float[Array, "*batch memory"]:
    """One step from zero state: c = i g, h = o tanh(c); no recurrent product, nothing for the forget gate to keep."""
    used = 3 * lstm.units
    bias = lstm.inputs.bias[:used] + lstm.recurrent.bias[:used]
    i, g, o = jnp.split(Dense(lstm.inputs.weight[:, :used], bias)(x), 3, axis=-1)
    return jax.nn.sigmoid(o) * jnp.tanh(jax.nn.sigmoid(i) * jnp.tanh(g))


def fresh_outputs(
    network: OriginalNetwork,
    features: Float[Array, "*batch feature"],
    key: PRNGKeyArray | None = None,
    dropout: float = 0.0,
) -> Outputs:
    """Each row on its own, from zero state.

    Args:
        network: of one member.
        features: rows.
        key: of the dropout; none without.
        dropout: its rate.
    """
    keys = (None, None) if key is None else tuple(jax.random.split(key))
    x = _dropout(network.first(features), keys[0], dropout)
    x = _dropout(network.second(x), keys[1], dropout)
    return _heads(network, _from_zero(network.upper, _from_zero(network.lower, x)))


def _along(lstm: Lstm, x: Float[Array, "time env input"]) -> Float[Array, "time env memory"]:
    """The layer's outputs along time, from zero state at the first step; one product a step is left to the scan."""
    gates = lstm.inputs(x)

    def step(carry: tuple[Array, Array], gate: Array) -> tuple[tuple[Array, Array], Array]:
        hidden, cell = carry
        i, g, o, f = jnp.split(gate + lstm.recurrent(hidden), 4, axis=-1)
        cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
        hidden = jax.nn.sigmoid(o) * jnp.tanh(cell)
        return (hidden, cell), hidden

    zeros = jnp.zeros((x.shape[1], lstm.units), jnp.float32)
    return jax.lax.scan(step, (zeros, zeros), gates)[1]


def rollout_outputs(network: OriginalNetwork, features: Float[Array, "time env feature"]) -> Outputs:
    """A whole rollout's rows with the LSTM's state carried on, dropout off.

    Layer by layer instead of step by step: the stream does not depend on the verdicts, so all rows are known at once.
    """
    x = network.second(network.first(features))
    return _heads(network, _along(network.upper, _along(network.lower, x)))


def original_loss(
    network: OriginalNetwork, batch: OriginalBatch, key: PRNGKeyArray, config: PPOConfig, dropout: float
) -> tuple[Float[Array, ""], LossReport]:
    """The loss of one member (the member axis of ``batch`` is mapped away).

    L = -E[min(rho A, clip(rho, 1 - c, 1 + c) A)] + c_v E[(v - target)^2] - c_e E[H] + .1 E[(s - .95)^2].
    """
    out = fresh_outputs(network, batch.features, key, dropout)
    log_probs = jax.nn.log_softmax(out.logits)
    log_prob = jnp.take_along_axis(log_probs, batch.votes[..., None], axis=-1)[..., 0]
    log_ratio = log_prob - batch.log_prob
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - config.clip, 1.0 + config.clip)
    policy = -jnp.minimum(ratio * batch.advantages, clipped * batch.advantages).mean()
    value = jnp.square(out.value - batch.targets).mean()
    entropy = -(jnp.exp(log_probs) * log_probs).sum(axis=-1).mean()
    constraint = jnp.square(out.constraints - _CONSTRAINT_TARGET).mean()
    loss = policy + config.value_coef * value - config.entropy_coef * entropy + _CONSTRAINT_COEF * constraint
    report = LossReport(
        value=value,
        policy=policy,
        entropy=entropy,
        approx_kl=(ratio - 1.0 - log_ratio).mean(),
        ratio_error=jnp.abs(ratio - 1.0).max(),
        clipped=(jnp.abs(ratio - 1.0) > config.clip).mean(dtype=jnp.float32),
    )
    return loss, report


def original_optimizer(config: PPOConfig, updates: int) -> optax.GradientTransformation:
    """Adam behind a clip of a member's whole gradient, actor and critic together."""
    rate: optax.ScalarOrSchedule = config.learning_rate
    if config.anneal:
        rate = optax.linear_schedule(config.learning_rate, 0.1 * config.learning_rate, max(updates, 1))
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(rate))


def original_update(
    networks: OriginalNetwork,
    opt_state: optax.OptState,
    batch: OriginalBatch,
    key: PRNGKeyArray,
    *,
    config: PPOConfig,
    optimizer: optax.GradientTransformation,
    dropout: float,
) -> tuple[OriginalNetwork, optax.OptState, LossReport]:
    """All epochs of one rollout; minibatches, where there are several, are drawn anew in each epoch.

    Returns:
        The new networks and optimiser state, and reports of shape ``[step, member]``, one a minibatch in order.
    """
    n_rows = batch.features.shape[0]
    parts = min(config.minibatches, n_rows)
    n_members = batch.votes.shape[0]
    gradient = jax.value_and_grad(lambda n, b, k: original_loss(n, b, k, config, dropout), has_aux=True)

    def one(
        network: Any, state: optax.OptState, own: OriginalBatch, key: PRNGKeyArray
    ) -> tuple[Any, optax.OptState, LossReport]:
        (_, report), grads = gradient(network, own, key)
        with jax.numpy_dtype_promotion("standard"):  # optax raises a Python float to an integer count
            updates, state = optimizer.update(grads, state, network)
        return optax.apply_updates(network, updates), state, report

    axes = eqx.tree_at(lambda b: b.features, jax.tree.map(lambda _: 0, batch), replace=None)

    def step(
        carry: tuple[OriginalNetwork, optax.OptState], at: tuple[Array, PRNGKeyArray]
    ) -> tuple[tuple[OriginalNetwork, optax.OptState], LossReport]:
        rows, key = at
        part = batch if parts == 1 else jax.tree.map(lambda leaf: jnp.take(leaf, rows, axis=-1), batch)
        if parts > 1:
            part = eqx.tree_at(lambda b: b.features, part, batch.features[rows])
        keys = jax.random.split(key, n_members)
        networks, state, report = jax.vmap(one, in_axes=(0, 0, axes, 0))(*carry, part, keys)
        return (networks, state), report

    def orders(key: PRNGKeyArray) -> Array:
        return jax.random.permutation(key, n_rows)[: parts * (n_rows // parts)].reshape(parts, -1)

    key_order, key_step = jax.random.split(key)
    rows = jax.vmap(orders)(jax.random.split(key_order, config.epochs)).reshape(config.epochs * parts, -1)
    keys = jax.random.split(key_step, config.epochs * parts)
    (networks, opt_state), reports = jax.lax.scan(step, (networks, opt_state), (rows, keys))
    return networks, opt_state, reports
