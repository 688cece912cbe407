"""PPO in one file, as practitioners write it, with a place for every fault that the bench plants.

A plain learner of its own, not phalanx's, so that the doctor is not judged on the code it was written beside. All of a
``Fault`` is data: healthy and faulty runs of many seeds are one vmapped program.

Source of the algorithm: Schulman et al., 1707.06347; of the details: Huang et al., "The 37 implementation details of
PPO", ICLR blog track 2022.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from tasks import Task

from phalanx.agents.targets import gae
from phalanx.agents.vitals import dead_units, parameter_norm, relative_change, rollout_vitals

__all__ = ["Fault", "Hyper", "Sizes", "healthy", "train_runs"]


class Hyper(NamedTuple):
    """What differs between healthy runs and costs no compilation."""

    learning_rate: Any = 1e-3
    entropy_coef: Any = 0.01
    lam: Any = 0.95
    clip: Any = 0.2
    normalized: Any = 1.0  # whether the critic learns targets of unit variance, its head rescaled (PopArt)


class Fault(NamedTuple):
    """What is wrong; the defaults are nothing."""

    # the update
    learning_rate_times: Any = 1.0
    critic_rate_times: Any = 1.0
    actor_rate_times: Any = 1.0
    value_coef_times: Any = 1.0
    entropy_coef_plus: Any = 0.0
    advantage_times: Any = 1.0
    clip_times: Any = 1.0
    weight_decay: Any = 0.0
    dropout: Any = 0.0
    stale_log_probs: Any = 0.0
    strided_chunks: Any = 0.0
    shifted_advantages: Any = 0.0
    inverted_ratio: Any = 0.0
    other_log_prob: Any = 0.0
    misaligned_minibatch: Any = 0.0
    shuffled_targets: Any = 0.0
    old_units: Any = 0.0
    late_statistics: Any = 0.0
    memory_blank_in_update: Any = 0.0
    non_finite_from: Any = 1e9
    saturated_head: Any = 0.0
    saturated_trunk: Any = 0.0
    dead_layer: Any = 0.0
    reinitialised_midway: Any = 0.0
    # the targets
    gamma_times: Any = 1.0
    swapped_ends: Any = 0.0
    all_ends_terminate: Any = 0.0
    no_end_terminates: Any = 0.0
    value_of_next_episode: Any = 0.0
    # the rollout
    reward_times: Any = 1.0
    reward_noise: Any = 0.0
    reward_flipped: Any = 0.0
    late_reward: Any = 0.0
    shuffled_actions: Any = 0.0
    random_actions: Any = 0.0
    late_action: Any = 0.0
    greedy_rollout: Any = 0.0  # share of the steps
    noisy_observation: Any = 0.0
    mangled_observation: Any = 0.0
    frozen_observation: Any = 0.0
    neighbours_observation: Any = 0.0
    observation_times: Any = 1.0
    memory_not_reset: Any = 0.0
    memory_kept_in_rollout: Any = 0.0
    onset: Any = 0.0


@dataclass(frozen=True)
class Sizes:
    """What costs a compilation."""

    n_envs: int = 8
    steps: int = 128
    hidden: int = 64
    epochs: int = 4
    minibatches: int = 4
    max_grad_norm: float = 0.5


def healthy() -> Fault:
    """Nothing wrong."""
    return Fault()


class _Batch(NamedTuple):
    observation: jax.Array
    memory: jax.Array
    first: jax.Array
    action: jax.Array
    log_prob: jax.Array
    advantage: jax.Array
    target: jax.Array


def train_runs(
    task: Task, sizes: Sizes, keys: jax.Array, hyper: Hyper, faults: Fault
) -> dict[str, jax.Array]:
    """Trains as many runs as there are keys, side by side.

    Args:
        task: what to learn.
        sizes: shared by all runs.
        keys: one a run.
        hyper, faults: leaves with a leading axis of runs.

    Returns:
        Metrics under the names of ``metrics.jsonl``, each ``[run, update]``.
    """
    return jax.jit(jax.vmap(partial(_train, task, sizes)))(keys, hyper, faults)


def _train(task: Task, sizes: Sizes, key: jax.Array, hyper: Hyper, fault: Fault) -> dict[str, jax.Array]:
    key_net, key_env, key = jax.random.split(key, 3)
    networks = _init(key_net, task, sizes, fault)
    optimizer = optax.chain(optax.clip_by_global_norm(sizes.max_grad_norm), optax.scale_by_adam(eps=1e-5))
    env_state, observation = jax.vmap(task.reset)(jax.random.split(key_env, sizes.n_envs))
    zeros = jnp.zeros(sizes.n_envs)
    carry = (
        networks,
        networks,
        optimizer.init(networks),
        env_state,
        observation,
        observation,
        jnp.zeros((sizes.n_envs, sizes.hidden)),
        zeros.astype(jnp.int32),
        zeros,
        (zeros.astype(jnp.int32), zeros),
        (jnp.zeros(()), jnp.ones(())),
    )
    step = partial(_update, task, sizes, optimizer, hyper, fault, networks)
    _, metrics = jax.lax.scan(step, carry, (jnp.arange(task.updates), jax.random.split(key, task.updates)))
    return metrics


def _init(key: jax.Array, task: Task, sizes: Sizes, fault: Fault) -> dict[str, Any]:
    keys = jax.random.split(key, 8)
    variance = jax.nn.initializers.variance_scaling
    n, hidden = task.n_features, sizes.hidden

    def layer(key: jax.Array, rows: int, columns: int, gain: float) -> dict[str, jax.Array]:
        return {
            "w": variance(gain**2, "fan_in", "truncated_normal")(key, (rows, columns)),
            "b": jnp.zeros(columns),
        }

    actor = {"in": layer(keys[0], n, hidden, 2**0.5), "mid": layer(keys[1], hidden, hidden, 2**0.5)}
    actor["in"]["b"] -= 1e3 * fault.dead_layer
    actor["out"] = layer(keys[2], hidden, task.n_actions, 0.01)
    actor["out"]["w"] *= 1.0 + 5e3 * fault.saturated_head
    actor["mid"]["w"] *= 1.0 + 1e2 * fault.saturated_trunk
    critic = {"in": layer(keys[3], n, hidden, 2**0.5), "mid": layer(keys[4], hidden, hidden, 2**0.5)}
    critic["out"] = layer(keys[5], hidden, 1, 1.0)
    networks = {"actor": actor, "critic": critic}
    if task.recurrent:
        actor["cell"] = layer(keys[6], 2 * hidden, 3 * hidden, 1.0)
    return networks


def _dense(layer: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return x @ layer["w"] + layer["b"]


def _cell(layer: dict[str, jax.Array], x: jax.Array, memory: jax.Array) -> jax.Array:
    """A gated recurrent unit with the candidate's reset gate inside (Cho et al. 2014)."""
    hidden = memory.shape[-1]
    gates = jax.nn.sigmoid(
        jnp.concatenate([x, memory], axis=-1) @ layer["w"][:, : 2 * hidden] + layer["b"][: 2 * hidden]
    )
    keep, reset = gates[..., :hidden], gates[..., hidden:]
    candidate = jnp.tanh(
        jnp.concatenate([x, reset * memory], axis=-1) @ layer["w"][:, 2 * hidden :] + layer["b"][2 * hidden :]
    )
    return keep * memory + (1.0 - keep) * candidate


def _encode(networks: dict[str, Any], observation: jax.Array) -> jax.Array:
    return jax.nn.relu(_dense(networks["actor"]["in"], observation))


def _remember(networks: dict[str, Any], encoded: jax.Array, memory: jax.Array) -> jax.Array:
    """The new memory; the encoding itself where the network has no cell."""
    actor = networks["actor"]
    return _cell(actor["cell"], encoded, memory) if "cell" in actor else encoded


def _policy(networks: dict[str, Any], remembered: jax.Array, drop: Any = 1.0) -> jax.Array:
    actor = networks["actor"]
    return jax.nn.log_softmax(_dense(actor["out"], jax.nn.tanh(_dense(actor["mid"], remembered * drop))))


def _value(
    networks: dict[str, Any], observation: jax.Array, remembered: jax.Array, recurrent: bool
) -> jax.Array:
    """In the units of the training target; reads the actor's memory where there is one, without a gradient into it."""
    critic = networks["critic"]
    x = jax.nn.relu(_dense(critic["in"], observation))
    x = x + jax.lax.stop_gradient(remembered) if recurrent else x
    return _dense(critic["out"], jax.nn.tanh(_dense(critic["mid"], x)))[..., 0]


def _update(
    task: Task, sizes: Sizes, optimizer: Any, hyper: Hyper, fault: Fault, fresh: Any, carry: Any, x: Any
) -> tuple[Any, dict[str, jax.Array]]:
    index, key = x
    on = index >= fault.onset
    fault = Fault(*(jnp.where(on, given, none) for given, none in zip(fault, Fault(), strict=True)))
    networks, previous, opt_state, *world, (mu, sigma) = carry
    again = (fault.reinitialised_midway > 0) & (index == task.updates // 2)
    networks = jax.tree.map(lambda now, first: jnp.where(again, first, now), networks, fresh)
    key_rollout, key_update, key_extra = jax.random.split(key, 3)
    gamma: Any = jnp.clip(task.gamma * fault.gamma_times, 0.0, 1.0)

    def act(carry: Any, key: jax.Array) -> tuple[Any, dict[str, jax.Array]]:
        env_state, observation, last_seen, memory, age, total, (last_action, last_reward) = carry
        keys = jax.random.split(key, 8)
        seen = _seen(fault, observation, last_seen, keys[0])
        remembered = _remember(networks, _encode(networks, seen), memory)
        log_probs = _policy(networks, remembered)
        drawn = jax.random.categorical(keys[1], log_probs)
        greedy = jax.random.uniform(keys[7], drawn.shape) < fault.greedy_rollout
        action = jnp.where(greedy, log_probs.argmax(axis=-1), drawn)
        shuffled = jnp.roll(action, 1)  # each environment carries out its neighbour's
        anything = jax.random.randint(keys[3], action.shape, 0, task.n_actions)
        done_action = jnp.where(fault.shuffled_actions > 0, shuffled, action)
        done_action = jnp.where(fault.random_actions > 0, anything, done_action)
        done_action = jnp.where(fault.late_action > 0, last_action, done_action)
        out = jax.vmap(task.step)(jax.random.split(keys[4], sizes.n_envs), env_state, done_action)
        done = out.terminated | out.truncated
        later = jnp.where(
            fault.value_of_next_episode > 0, out.observation, out.final_observation
        )  # the next episode's first observation where this one ended
        final = _seen(fault, later, observation, keys[5])
        next_remembered = _remember(networks, _encode(networks, final), remembered)
        noise = fault.reward_noise * jax.random.normal(keys[6], out.reward.shape)
        learned = fault.reward_times * jnp.where(fault.reward_flipped > 0, -out.reward, out.reward) + noise
        learned = jnp.where(fault.late_reward > 0, last_reward, learned)
        kept = (fault.memory_not_reset > 0) | (fault.memory_kept_in_rollout > 0)
        fresh = jnp.where(done[:, None] & ~kept, 0.0, remembered)
        total = total + out.reward
        record = {
            "observation": seen,
            "memory": memory,
            "first": age == 0,
            "log_probs": log_probs,
            "action": action,
            "value": sigma * _value(networks, seen, remembered, task.recurrent) + mu,
            "next_value": sigma * _value(networks, final, next_remembered, task.recurrent) + mu,
            "reward": learned,
            "terminated": out.terminated,
            "truncated": out.truncated,
            "age": age,
            "episode": jnp.where(done, total, jnp.nan),
        }
        age, total = jnp.where(done, 0, age + 1), jnp.where(done, 0.0, total)
        last = (action.astype(jnp.int32), out.reward)
        return (out.state, out.observation, observation, fresh, age, total, last), record

    world, roll = jax.lax.scan(act, tuple(world), jax.random.split(key_rollout, sizes.steps))
    terminated, truncated = _ends(fault, roll["terminated"], roll["truncated"])
    targets = gae(
        roll["reward"], roll["value"], roll["next_value"], terminated, truncated, gamma=gamma, lam=hyper.lam
    )
    advantages = jnp.where(
        fault.shifted_advantages > 0, jnp.roll(targets.advantages, 1, axis=0), targets.advantages
    )
    value_targets = targets.value_targets
    shuffled_targets = jax.random.permutation(key_extra, value_targets.reshape(-1)).reshape(
        value_targets.shape
    )
    fitted = jnp.where(fault.shuffled_targets > 0, shuffled_targets, value_targets)
    old_mu, old_sigma = mu, sigma
    mean, deviation = value_targets.mean(), jnp.maximum(jnp.std(value_targets), 1e-6)
    share = jnp.where(index == 0, 1.0, 0.1)
    follows = hyper.normalized > 0
    mu = jnp.where(follows, mu + share * (mean - mu), mu)
    sigma = jnp.where(follows, sigma + share * (deviation - sigma), sigma)
    late = (
        fault.late_statistics > 0
    )  # targets are normalised by the statistics of before, values read by the new
    fitted = (fitted - jnp.where(late, old_mu, mu)) / jnp.where(late, old_sigma, sigma)
    kept = (fault.old_units == 0) & ~late  # the head is rescaled so that V stays; the faults forget it
    head = networks["critic"]["out"]
    head = {
        "w": jnp.where(kept & (index > 0), head["w"] * old_sigma / sigma, head["w"]),
        "b": jnp.where(kept & (index > 0), (head["b"] * old_sigma + old_mu - mu) / sigma, head["b"]),
    }
    networks = {**networks, "critic": {**networks["critic"], "out": head}}
    log_prob = jnp.take_along_axis(roll["log_probs"], roll["action"][..., None], axis=-1)[..., 0]
    older = _policy(previous, _remember(previous, _encode(previous, roll["observation"]), roll["memory"]))
    older = jnp.take_along_axis(older, roll["action"][..., None], axis=-1)[..., 0]
    log_prob = jnp.where((fault.stale_log_probs > 0) & (index > 0), older, log_prob)
    other = jnp.roll(roll["log_probs"], 1, axis=-1)
    other = jnp.take_along_axis(other, roll["action"][..., None], axis=-1)[..., 0]
    log_prob = jnp.where(fault.other_log_prob > 0, other, log_prob)
    misaligned = fault.misaligned_minibatch > 0  # observations of other environments than the actions
    standard = (advantages - advantages.mean()) / (jnp.std(advantages) + 1e-30)
    batch = _Batch(
        jnp.where(misaligned, jnp.roll(roll["observation"], 1, axis=1), roll["observation"]),
        jnp.where(fault.memory_blank_in_update > 0, 0.0, roll["memory"]),
        roll["first"],
        roll["action"],
        log_prob,
        fault.advantage_times * standard,
        fitted,
    )
    trained, opt_state, report = _fit(
        task, sizes, optimizer, hyper, fault, networks, opt_state, batch, key_update, index
    )
    vitals = rollout_vitals(
        features=roll["observation"],
        log_probs=roll["log_probs"],
        actions=roll["action"],
        values=roll["value"],
        next_values=roll["next_value"],
        terminated=terminated,
        truncated=truncated,
        ages=roll["age"],
        advantages=advantages,
        value_targets=value_targets,
    )
    residual = jnp.var(value_targets - roll["value"]) / jnp.maximum(jnp.var(value_targets), 1e-30)
    active = _encode(networks, roll["observation"])
    remembered = _remember(networks, active, roll["memory"])
    now = sigma * _value(networks, roll["observation"], remembered, task.recurrent) + mu
    rounding = 1e-4 * jnp.abs(roll["value"]).max()
    preserved = jnp.abs(now - roll["value"]).max() / (sigma + rounding)
    metrics = {
        "env_steps": (index + 1) * sizes.n_envs * sizes.steps,
        "reward/episode": jnp.nanmean(roll["episode"]),
        "value/explained_variance": 1.0 - residual,
        "value/target_mean": value_targets.mean(),
        "value/target_std": jnp.std(value_targets),
        "value/scale": sigma,
        "value/preserved_error": jnp.where(index > 0, preserved, jnp.nan),
        "network/dead_units": dead_units(active),
        "network/norm": parameter_norm(trained),
        "memory/not_blank": (jnp.abs(roll["memory"]).max(axis=-1) * roll["first"] > 0).sum()
        / jnp.maximum(roll["first"].sum(), 1),
        "update/actor": relative_change(networks["actor"], trained["actor"]),
        "update/critic": relative_change(networks["critic"], trained["critic"]),
        **report,
        **vitals,
    }
    return (trained, networks, opt_state, *world, (mu, sigma)), metrics


def _seen(fault: Fault, observation: jax.Array, before: jax.Array, key: jax.Array) -> jax.Array:
    """What the agent is told of an observation."""
    key_noise, key_mix = jax.random.split(key)
    noisy = observation + fault.noisy_observation * jax.random.normal(key_noise, observation.shape)
    mangled = jax.vmap(jax.random.permutation)(jax.random.split(key_mix, observation.shape[0]), observation)
    seen = fault.observation_times * jnp.where(fault.mangled_observation > 0, mangled, noisy)
    seen = jnp.where(fault.neighbours_observation > 0, jnp.roll(seen, 1, axis=0), seen)
    return jnp.where(fault.frozen_observation > 0, jnp.zeros_like(before), seen)


def _ends(fault: Fault, terminated: jax.Array, truncated: jax.Array) -> tuple[jax.Array, jax.Array]:
    """How the learner believes episodes ended."""
    both, none = terminated | truncated, jnp.zeros_like(terminated)
    swapped = fault.swapped_ends > 0
    first, second = jnp.where(swapped, truncated, terminated), jnp.where(swapped, terminated, truncated)
    everywhere, nowhere = fault.all_ends_terminate > 0, fault.no_end_terminates > 0
    first = jnp.where(everywhere, both, jnp.where(nowhere, none, first))
    second = jnp.where(everywhere, none, jnp.where(nowhere, both, second))
    return first, second


def _fit(
    task: Task,
    sizes: Sizes,
    optimizer: Any,
    hyper: Hyper,
    fault: Fault,
    networks: Any,
    opt_state: Any,
    batch: _Batch,
    key: jax.Array,
    index: jax.Array,
) -> tuple[Any, Any, dict[str, jax.Array]]:
    """Epochs of minibatches; whole sequences stay together where there is a memory."""
    n_envs, steps = sizes.n_envs, sizes.steps
    stride = 4
    strided = jnp.arange(steps).reshape(-1, stride).T.reshape(-1)
    order = jnp.where(fault.strided_chunks > 0, strided, jnp.arange(steps))

    def loss(networks: Any, part: _Batch, key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        encoded = _encode(networks, part.observation)
        if task.recurrent:

            def back(memory: jax.Array, x: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
                encoded, first, stored = x
                memory = jnp.where(first[:, None] & (fault.memory_not_reset == 0), 0.0, memory)
                memory = jnp.where(fault.memory_blank_in_update > 0, stored, memory)
                memory = _remember(networks, encoded, memory)
                return memory, memory

            inputs = (encoded[order], part.first[order], part.memory[order])
            _, remembered = jax.lax.scan(back, part.memory[0], inputs)
            remembered = remembered[jnp.argsort(order)]
        else:
            remembered = encoded
        keep = jax.random.bernoulli(key, 1.0 - fault.dropout, remembered.shape)
        log_probs = _policy(networks, remembered, keep / jnp.maximum(1.0 - fault.dropout, 1e-3))
        value = _value(networks, part.observation, remembered, task.recurrent)
        log_prob = jnp.take_along_axis(log_probs, part.action[..., None], axis=-1)[..., 0]
        log_ratio = log_prob - part.log_prob
        ratio = jnp.exp(jnp.where(fault.inverted_ratio > 0, -log_ratio, log_ratio))
        clip = hyper.clip * fault.clip_times
        surrogate = jnp.minimum(
            ratio * part.advantage, jnp.clip(ratio, 1.0 - clip, 1.0 + clip) * part.advantage
        )
        entropy = -(jnp.exp(log_probs) * log_probs).sum(axis=-1).mean()
        squared = jnp.square(value - part.target).mean()
        coef = hyper.entropy_coef + fault.entropy_coef_plus
        report = {
            "loss/value": squared,
            "loss/policy": -surrogate.mean(),
            "policy/entropy": entropy,
            "policy/approx_kl": (jnp.exp(log_ratio) - 1.0 - log_ratio).mean(),
            "policy/clip_fraction": (jnp.abs(ratio - 1.0) > clip).mean(dtype=jnp.float32),
            "policy/ratio_error": jnp.abs(ratio - 1.0).max(),
        }
        total = -surrogate.mean() + 0.5 * fault.value_coef_times * squared - coef * entropy
        return total / jnp.where(index >= fault.non_finite_from, 0.0, 1.0), report

    def step(carry: Any, x: Any) -> tuple[Any, Any]:
        networks, opt_state = carry
        lanes, key = x
        part = _Batch(*(leaf[:, lanes] for leaf in batch))
        (_, report), gradient = jax.value_and_grad(loss, has_aux=True)(networks, part, key)
        report["gradient/norm"] = optax.global_norm(gradient)
        moves, opt_state = optimizer.update(gradient, opt_state, networks)
        rate = hyper.learning_rate * fault.learning_rate_times
        faster = {"actor": rate * fault.actor_rate_times, "critic": rate * fault.critic_rate_times}
        networks = {
            half: jax.tree.map(
                lambda w, m, r=faster[half]: w - r * m - r * fault.weight_decay * w,
                networks[half],
                moves[half],
            )
            for half in networks
        }
        return (networks, opt_state), report

    key_order, key_drop = jax.random.split(key)
    lanes = jax.vmap(lambda k: jax.random.permutation(k, n_envs))(jax.random.split(key_order, sizes.epochs))
    lanes = lanes.reshape(sizes.epochs * sizes.minibatches, -1)
    (networks, opt_state), reports = jax.lax.scan(
        step, (networks, opt_state), (lanes, jax.random.split(key_drop, len(lanes)))
    )
    report = {name: values.mean() for name, values in reports.items()}
    report["policy/first_ratio_error"] = reports["policy/ratio_error"][0]
    report["gradient/clipped"] = (reports["gradient/norm"] > sizes.max_grad_norm).mean(dtype=jnp.float32)
    del report["policy/ratio_error"]
    return networks, opt_state, report
