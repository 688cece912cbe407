"""Independent PPO: the loss of one member, and the epochs of minibatches for a committee of them.

Members share nothing but the events they see: parameters, optimiser, statistics and rewards are each member's own.
"""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from phalanx.agents.memory import MemoryReads
from phalanx.agents.network import Network, encode_events, policy_logits, state_value, unroll
from phalanx.errors import UsageError

__all__ = [
    "Batch",
    "LossReport",
    "PPOConfig",
    "init_optimizer",
    "make_optimizer",
    "member_axes",
    "ppo_loss",
    "standardize",
    "update",
]


@dataclass(frozen=True)
class PPOConfig:
    """Settings of the update.

    Attributes:
        epochs: passes over a rollout.
        minibatches: parts of a rollout, by environment (whole sequences stay together); at most one per environment.
            Environments beyond a multiple sit out an epoch, others each time.
        learning_rate: of Adam.
        anneal: whether the learning rate falls linearly to a tenth over the run.
        clip: of the probability ratio.
        value_coef: weight of the value loss (the factor 1/2 of other texts belongs in here).
        entropy_coef: weight of the entropy bonus.
        max_grad_norm: gradients are clipped to this norm, of actor and critic apart, per member.
    """

    epochs: int = 4
    minibatches: int = 4
    learning_rate: float = 1e-3
    anneal: bool = True
    clip: float = 0.2
    value_coef: float = 0.5
    entropy_coef: float = 0.05
    max_grad_norm: float = 0.5

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.minibatches < 1:
            raise UsageError(f"epochs={self.epochs}, minibatches={self.minibatches}; both are at least 1")
        if self.learning_rate <= 0:
            raise UsageError(f"learning_rate={self.learning_rate}; it must be positive")


class Batch(eqx.Module):
    """A rollout as the update sees it. Arrays without a member axis are shared by all members.

    Attributes:
        vectors: event vectors.
        core: what the critic knows of the environments' core states.
        reads: where each event's memory came from.
        initial: memories at the rollout's start, for the events that read them.
        votes: what each member voted.
        log_prob: log-probability of that vote in the rollout.
        advantages: of the committee's reward, standardised per member.
        best: the vote that the local objective asks for, -1 where nothing is at stake (``agents.credit``).
        worth: relative worth of each vote (``agents.credit``), in the place of the surrogate; None without lookahead.
        local: weight of the local objective where verdicts are applied, in [0, 1].
        applied: 1 where verdicts are applied, 0 in shadow environments: there the votes caused nothing, so the critic
            learns nothing, and only the local objective counts and the lookahead, which is about votes not cast.
        targets: value targets in the units of the critic's output.
    """

    vectors: Float[Array, "time env input"]
    core: Float[Array, "time env core"]
    reads: MemoryReads
    initial: Float[Array, "member time env memory"]
    votes: Int[Array, "member time env"]
    log_prob: Float[Array, "member time env"]
    advantages: Float[Array, "member time env"]
    best: Int[Array, "member time env"]
    worth: Float[Array, "time env verdict"] | None
    local: Float[Array, ""]
    applied: Float[Array, " env"]
    targets: Float[Array, "member time env"]


class LossReport(eqx.Module):
    """Scalars of one loss evaluation, per member.

    Attributes:
        value: mean squared error in the units of the training target, without the factor 1/2.
        policy: J and local objective, negated and mixed.
        entropy: of the policy, in nats.
        approx_kl: mean of (ratio - 1) - log ratio (Schulman's low-variance estimate).
        ratio_error: largest |ratio - 1|.
        clipped: share of ratios outside the clip range.
    """

    value: Float[Array, "*member"]
    policy: Float[Array, "*member"]
    entropy: Float[Array, "*member"]
    approx_kl: Float[Array, "*member"]
    ratio_error: Float[Array, "*member"]
    clipped: Float[Array, "*member"]


def make_optimizer(config: PPOConfig, updates: int) -> optax.GradientTransformation:
    """Adam behind a clip of the gradient's norm, of actor and critic apart; vmap it over members."""
    rate: optax.ScalarOrSchedule = config.learning_rate
    if config.anneal:
        rate = optax.linear_schedule(config.learning_rate, 0.1 * config.learning_rate, max(updates, 1))
    clipped = optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.adam(rate, eps=1e-5))
    return optax.multi_transform({"actor": clipped, "critic": clipped}, _halves)


def init_optimizer(optimizer: optax.GradientTransformation, networks: Any) -> optax.OptState:
    """The optimiser's state for stacked networks, one per member."""
    return jax.vmap(optimizer.init)(networks)


def _halves(networks: Network) -> Network:
    """A network with the name of its half in the place of each array."""
    names = {
        field: "critic" if field.startswith("value_") else "actor" for field in Network.__dataclass_fields__
    }
    return eqx.tree_at(lambda n: [getattr(n, field) for field in names], networks, list(names.values()))


def standardize(
    advantages: Float[Array, "..."], weight: Float[Array, "..."] | None = None
) -> Float[Array, "..."]:
    """Advantages with mean 0 and standard deviation 1 over everything passed (one member's whole rollout).

    The guard of the division is relative to the largest advantage, so that the result does not depend on their scale.
    """
    weight = jnp.ones_like(advantages) if weight is None else weight
    total = jnp.maximum(weight.sum(), 1.0)
    mean = (weight * advantages).sum() / total
    centred = advantages - mean
    deviation = jnp.sqrt((weight * jnp.square(centred)).sum() / total)
    guard = 1e-6 * jnp.abs(advantages).max()
    return weight * jnp.where(deviation > guard, centred / jnp.maximum(deviation, guard + 1e-30), 0.0)


def ppo_loss(
    network: Network, mask: Float[Array, " input"], batch: Batch, config: PPOConfig
) -> tuple[Float[Array, ""], LossReport]:
    """The PPO loss of one member (the member axis of ``batch`` is mapped away).

    L = -(1 - w) J - w E[log pi(a*)] + c_v E[(n - target)^2] - c_e E[H],
    J = E[min(rho A, clip(rho, 1 - c, 1 + c) A)], rho = pi(a) / pi_old(a), or the expected worth of all votes; w, a* and
    that worth are those of ``agents.credit``. The clip holds the surrogate only: otherwise a policy moves as far as its
    objective asks, and approx_kl is large in the first iterations.

    Source: Schulman et al., "Proximal policy optimization algorithms", 1707.06347, eq. 7 and 9.
    """
    encoding = encode_events(network, mask, batch.vectors)
    memories = unroll(network, encoding.gates, batch.reads, batch.initial)
    emitted = state_value(network, mask, batch.vectors, batch.core, memories)
    log_probs = jax.nn.log_softmax(policy_logits(network, encoding, memories))
    log_prob = jnp.take_along_axis(log_probs, batch.votes[..., None], axis=-1)[..., 0]
    log_ratio = log_prob - batch.log_prob
    ratio = jnp.exp(log_ratio)
    clipped = jnp.clip(ratio, 1.0 - config.clip, 1.0 + config.clip)
    surrogate = jnp.minimum(ratio * batch.advantages, clipped * batch.advantages)
    asked = jnp.take_along_axis(log_probs, jnp.maximum(batch.best, 0)[..., None], axis=-1)[..., 0]
    local = jnp.where(batch.best >= 0, asked, 0.0)
    if batch.worth is None:
        share, paid = (1.0 - batch.local) * batch.applied[None], surrogate
    else:
        share, paid = 1.0 - batch.local, (jnp.exp(log_probs) * batch.worth).sum(axis=-1)
    policy = -(share * paid + (1.0 - share) * local).mean()
    applied = jnp.broadcast_to(batch.applied[None], emitted.shape)
    value = (applied * jnp.square(emitted - batch.targets)).sum() / jnp.maximum(applied.sum(), 1.0)
    entropy = -(jnp.exp(log_probs) * log_probs).sum(axis=-1).mean()
    loss = policy + config.value_coef * value - config.entropy_coef * entropy
    report = LossReport(
        value=value,
        policy=policy,
        entropy=entropy,
        approx_kl=(ratio - 1.0 - log_ratio).mean(),
        ratio_error=jnp.abs(ratio - 1.0).max(),
        clipped=(jnp.abs(ratio - 1.0) > config.clip).mean(dtype=jnp.float32),
    )
    return loss, report


def member_axes(batch: Batch) -> Any:
    """The batch's axes for a ``vmap`` over members: 0 where each has its own, None where all share."""
    shared = ("vectors", "core", "reads", "worth", "local", "applied")
    return eqx.tree_at(
        lambda part: [getattr(part, name) for name in shared],
        jax.tree.map(lambda _: 0, batch),
        replace=[None] * len(shared),
        is_leaf=lambda leaf: leaf is None,
    )


def _select(batch: Batch, lanes: Int[Array, " lane"]) -> Batch:
    """The batch restricted to some environments."""
    return Batch(
        vectors=batch.vectors[:, lanes],
        core=batch.core[:, lanes],
        reads=jax.tree.map(lambda leaf: leaf[:, lanes], batch.reads),
        initial=batch.initial[:, :, lanes],
        votes=batch.votes[:, :, lanes],
        log_prob=batch.log_prob[:, :, lanes],
        advantages=batch.advantages[:, :, lanes],
        best=batch.best[:, :, lanes],
        worth=None if batch.worth is None else batch.worth[:, lanes],
        local=batch.local,
        applied=batch.applied[lanes],
        targets=batch.targets[:, :, lanes],
    )


def update(
    networks: Any,
    opt_state: optax.OptState,
    masks: Float[Array, "member input"],
    batch: Batch,
    key: PRNGKeyArray,
    *,
    config: PPOConfig,
    optimizer: optax.GradientTransformation,
) -> tuple[Network, optax.OptState, LossReport]:
    """All epochs and minibatches of one rollout.

    Returns:
        The new networks and optimiser state, and reports of shape ``[step, member]``, one a minibatch in order.
    """
    n_envs = batch.vectors.shape[1]
    minibatches = min(config.minibatches, n_envs)
    per_batch = n_envs // minibatches
    gradient = jax.vmap(
        jax.value_and_grad(lambda net, mask, part: ppo_loss(net, mask, part, config), has_aux=True),
        in_axes=(0, 0, member_axes(batch)),
    )

    def step(
        carry: tuple[Any, optax.OptState], lanes: Array
    ) -> tuple[tuple[Any, optax.OptState], LossReport]:
        networks, opt_state = carry
        (_, report), grads = gradient(networks, masks, _select(batch, lanes))
        with jax.numpy_dtype_promotion("standard"):  # optax raises a Python float to an integer count
            updates, opt_state = jax.vmap(optimizer.update)(grads, opt_state, networks)
        return (jax.tree.map(jnp.add, networks, updates), opt_state), report

    def shuffled(key: PRNGKeyArray) -> Array:
        order = jax.random.permutation(key, n_envs)[: minibatches * per_batch]
        # shadow environments first, each kind shuffled, and dealt out like cards
        order = order[jnp.argsort(batch.applied[order], stable=True)]
        return order.reshape(per_batch, minibatches).T

    lanes = jax.vmap(shuffled)(jax.random.split(key, config.epochs)).reshape(-1, per_batch)
    (networks, opt_state), reports = jax.lax.scan(step, (networks, opt_state), lanes)
    return networks, opt_state, reports
