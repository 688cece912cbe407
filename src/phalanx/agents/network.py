"""One member's network: encoder, recurrent cell and policy head of the actor; encoder and head of the critic.

The critic reads the actor's memory but sends no gradient into it: the squared error of heavy-tailed returns would drown
the policy's gradient in any layer that both train. It also reads what the environment tells it of its core state
(``Environment.core``): returns depend on campaigns that no single event shows, and a critic is needed in training only.
Such a baseline does not bias the policy's gradient; a bootstrap from it does as far as the value is not exact, as with
any critic (Baisero and Amato, "Unbiased asymmetric reinforcement learning under partial observability", 2105.11674).

Parameters are a plain module of arrays; a committee holds them stacked along a leading member axis and applies the
functions below under ``vmap``. What depends on one event only is computed for all events at once; what depends on the
memory (one matrix product an event) is left to the scan.
"""

from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from phalanx.agents.memory import MemoryReads
from phalanx.errors import UsageError, unknown_name
from phalanx.types import N_VERDICTS, Observation, ObservationSpec, Verdict

__all__ = [
    "VIEWS",
    "Encoding",
    "Network",
    "NetworkConfig",
    "cell_step",
    "encode_events",
    "event_vector",
    "init_network",
    "policy_logits",
    "sensor_mask",
    "state_value",
    "unroll",
    "vector_size",
]

VIEWS = ("full", "process", "file", "network", "identity")
_SHARED_GROUPS = ("common", "context")
_GATES = {"none": 0, "gru": 3, "lstm": 4}


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of a member's network.

    Attributes:
        hidden: width of the encoder and of the heads.
        memory: units of the recurrent cell.
        cell: gru, lstm, or none (no memory: each event on its own).
        start: uniform (all verdicts alike at first) or allow (nearly all votes allow at first).
    """

    hidden: int = 64
    memory: int = 64
    cell: str = "gru"
    start: str = "uniform"

    def __post_init__(self) -> None:
        if self.cell not in _GATES:
            raise unknown_name("cell", self.cell, _GATES)
        if self.start not in ("uniform", "allow"):
            raise unknown_name("start", self.start, ("uniform", "allow"))
        if self.hidden < 1 or self.memory < 1:
            raise UsageError(f"hidden={self.hidden}, memory={self.memory}; both are at least 1")

    @property
    def memory_size(self) -> int:
        """Numbers kept per process: h for a GRU, h and c for an LSTM, none without memory."""
        return {"none": 0, "gru": self.memory, "lstm": 2 * self.memory}[self.cell]


class Network(eqx.Module):
    """Parameters of one member (stacked along a leading axis for a committee)."""

    encoder_weight: Float[Array, "*member input hidden"]
    encoder_bias: Float[Array, "*member hidden"]
    input_gates: Float[Array, "*member hidden gates"]
    gate_bias: Float[Array, "*member gates"]
    memory_gates: Float[Array, "*member memory gates"]
    policy_hidden: Float[Array, "*member joint hidden"]
    policy_hidden_bias: Float[Array, "*member hidden"]
    policy_weight: Float[Array, "*member hidden verdict"]
    policy_bias: Float[Array, "*member verdict"]
    value_encoder: Float[Array, "*member input hidden"]
    value_core: Float[Array, "*member core hidden"]
    value_encoder_bias: Float[Array, "*member hidden"]
    value_hidden: Float[Array, "*member joint hidden"]
    value_hidden_bias: Float[Array, "*member hidden"]
    value_weight: Float[Array, "*member hidden"]
    value_bias: Float[Array, "*member"]


def vector_size(spec: ObservationSpec) -> int:
    """Length of the event vector: one place per id of each categorical column, one per number."""
    return sum(column.size for column in spec.categorical) + len(spec.numeric)


def event_vector(spec: ObservationSpec, observation: Observation) -> Float[Array, "*batch input"]:
    """An observation as one vector: one-hot ids, then the numbers.

    A one-hot product is several times faster on CPU than gathering embeddings, whose gradient is a scatter.
    """
    parts = [
        jax.nn.one_hot(observation.category[..., i], column.size, dtype=jnp.float32)
        for i, column in enumerate(spec.categorical)
    ]
    return jnp.concatenate([*parts, observation.numeric], axis=-1)


def sensor_mask(spec: ObservationSpec, view: str) -> Float[Array, " input"]:
    """1 where a member with this sensor view sees the event vector, else 0.

    Raises:
        UsageError: unknown view.
    """
    if view not in VIEWS:
        raise unknown_name("view", view, VIEWS)
    seen: list[float] = []
    for column in (*spec.categorical, *spec.numeric):
        visible = view == "full" or column.group in (*_SHARED_GROUPS, view)
        seen += [float(visible)] * column.size
    return jnp.asarray(seen, jnp.float32)


def _weights(key: PRNGKeyArray, shape: tuple[int, int], gain: float = 1.0) -> Array:
    """Truncated normal with variance gain^2 / fan-in.

    Not orthogonal: its batched QR waits for tasks of the very thread pool it runs in, and two of them side by side
    hang a process on two cores (seen with jaxlib 0.10.2).
    """
    return jax.nn.initializers.variance_scaling(gain**2, "fan_in", "truncated_normal")(
        key, shape, jnp.float32
    )


def init_network(
    key: PRNGKeyArray, n_inputs: int, config: NetworkConfig, n_columns: int | None = None, n_core: int = 0
) -> Network:
    """A fresh member.

    Args:
        key: of the weights.
        n_inputs: length of the event vector.
        config: sizes.
        n_columns: columns of the observation. Of the event vector only so many places are not zero, and the encoders'
            weights are scaled for them; all places unless given.
        n_core: numbers of the core state that the critic reads.

    The value head starts at zero, so that the first rollout's values do not depend on the scale of the reward.
    """
    gates = _GATES[config.cell] * config.memory
    joint = config.hidden + (config.memory if gates else 0)
    keys = jax.random.split(key, 7)
    key_core = jax.random.fold_in(key, 7)
    root2 = 2.0**0.5
    gate_bias = jnp.zeros(gates, jnp.float32)
    if config.cell == "lstm":  # forget gate open at first (Jozefowicz et al., 2015)
        gate_bias = gate_bias.at[config.memory : 2 * config.memory].set(1.0)
    allow = 4.0 if config.start == "allow" else 0.0
    zeros = jnp.zeros(config.hidden, jnp.float32)
    sparse = root2 * (n_inputs / (n_columns or n_inputs)) ** 0.5
    return Network(
        encoder_weight=_weights(keys[0], (n_inputs, config.hidden), sparse),
        encoder_bias=zeros,
        input_gates=_weights(keys[1], (config.hidden, max(gates, 1)))[:, :gates],
        gate_bias=gate_bias,
        memory_gates=_weights(keys[2], (config.memory, max(gates, 1)))[:, :gates],
        policy_hidden=_weights(keys[3], (joint, config.hidden), root2),
        policy_hidden_bias=zeros,
        policy_weight=_weights(keys[4], (config.hidden, N_VERDICTS), 0.01),
        policy_bias=jnp.zeros(N_VERDICTS, jnp.float32).at[Verdict.ALLOW].set(allow),
        value_encoder=_weights(keys[6], (n_inputs, config.hidden), sparse),
        value_core=_weights(key_core, (max(n_core, 1), config.hidden), root2)[:n_core],
        value_encoder_bias=zeros,
        value_hidden=_weights(keys[5], (joint, config.hidden), root2),
        value_hidden_bias=zeros,
        value_weight=zeros,
        value_bias=jnp.zeros((), jnp.float32),
    )


def _affine(
    x: Float[Array, "*batch input"], weight: Array, bias: Array | float
) -> Float[Array, "*batch output"]:
    """x W + b with the leading axes made one: the gradient of W is then a plain product, 1.5-3 times faster on CPU."""
    flat = x.reshape(-1, x.shape[-1]) @ weight + jnp.broadcast_to(bias, (1, weight.shape[-1]))
    return flat.reshape(*x.shape[:-1], -1)


class Encoding(NamedTuple):
    """What depends on the event alone.

    Attributes:
        actor: encoding of the event.
        gates: its share of the cell's gates.
    """

    actor: Float[Array, "*batch hidden"]
    gates: Float[Array, "*batch gates"]


def encode_events(
    network: Network, mask: Float[Array, " input"], vectors: Float[Array, "*batch input"]
) -> Encoding:
    """Encodes events for the actor, all at once."""
    actor = jax.nn.relu(_affine(vectors, network.encoder_weight * mask[:, None], network.encoder_bias))
    if network.input_gates.shape[-1] == 0:
        return Encoding(actor, jnp.zeros((*actor.shape[:-1], 0), actor.dtype))
    return Encoding(actor, _affine(actor, network.input_gates, network.gate_bias))


def cell_step(
    network: Network, gates: Float[Array, "*batch gates"], memory: Float[Array, "*batch memory"]
) -> Float[Array, "*batch memory"]:
    """One step of the recurrent cell: the memory after an event, from its gates and the memory before it."""
    units = network.memory_gates.shape[0]
    return _cell(gates, memory[..., :units] @ network.memory_gates, memory)


def _cell(
    gates: Float[Array, "*batch gates"],
    recurrent: Float[Array, "*batch gates"],
    memory: Float[Array, "*batch memory"],
) -> Float[Array, "*batch memory"]:
    """The cell given both shares of its gates: an LSTM's memory holds h and c, a GRU's h.

    Source: Cho et al., 1406.1078 (GRU, reset after the product as in cuDNN); Hochreiter and Schmidhuber, 1997 (LSTM).
    """
    if 3 * memory.shape[-1] == gates.shape[-1]:
        units = memory.shape[-1]
        update, reset = jnp.split(
            jax.nn.sigmoid(gates[..., : 2 * units] + recurrent[..., : 2 * units]), 2, -1
        )
        candidate = jnp.tanh(gates[..., 2 * units :] + reset * recurrent[..., 2 * units :])
        return update * memory + (1.0 - update) * candidate
    i, f, g, o = jnp.split(gates + recurrent, 4, -1)
    cell = memory[..., memory.shape[-1] // 2 :]
    cell = jax.nn.sigmoid(f) * cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jnp.concatenate([jax.nn.sigmoid(o) * jnp.tanh(cell), cell], axis=-1)


def policy_logits(
    network: Network, encoding: Encoding, memory: Float[Array, "*batch memory"]
) -> Float[Array, "*batch verdict"]:
    """Logits over verdicts, after the memory has taken the event in."""
    joint = _with_memory(network.policy_hidden, encoding.actor, memory)
    actor = jax.nn.relu(_affine(joint, network.policy_hidden, network.policy_hidden_bias))
    return _affine(actor, network.policy_weight, network.policy_bias)


def state_value(
    network: Network,
    mask: Float[Array, " input"],
    vectors: Float[Array, "*batch input"],
    core: Float[Array, "*batch core"],
    memory: Float[Array, "*batch memory"],
) -> Float[Array, "*batch"]:
    """The emitted (normalised) value of events, after the memory has taken them in.

    Args:
        network: of one member.
        mask: its sensor view.
        vectors: event vectors.
        core: what the environment tells of its core state.
        memory: memories after the events; no gradient flows into them.
    """
    seen = _affine(vectors, network.value_encoder * mask[:, None], network.value_encoder_bias)
    if core.shape[-1]:
        seen = seen + _affine(core, network.value_core, 0.0)
    joint = _with_memory(network.value_hidden, jax.nn.relu(seen), jax.lax.stop_gradient(memory))
    critic = jax.nn.relu(_affine(joint, network.value_hidden, network.value_hidden_bias))
    return _affine(critic, network.value_weight[:, None], network.value_bias)[..., 0]


def _with_memory(weight: Array, encoding: Array, memory: Array) -> Float[Array, "*batch joint"]:
    """The encoding beside the units of the memory that a layer reads: h of an LSTM, not c."""
    units = weight.shape[0] - encoding.shape[-1]
    return jnp.concatenate([encoding, memory[..., :units]], axis=-1)


def unroll(
    network: Network,
    gates: Float[Array, "time batch gates"],
    reads: MemoryReads,
    initial: Float[Array, "time batch memory"],
) -> Float[Array, "time batch memory"]:
    """The memory after each event, replayed over a rollout.

    Event t reads what event ``reads.previous[t]`` of the same lane wrote; where that is -1 it reads ``initial[t]`` if
    ``reads.known[t]`` and blank memory otherwise. The gradient flows back through the events of one process within the
    rollout; it stops where a child inherits its parent's memory, and at the rollout's start.
    """
    if gates.shape[-1] == 0:
        return jnp.zeros((*gates.shape[:2], 0), gates.dtype)
    initial = jax.lax.stop_gradient(jnp.where(reads.known[..., None], initial, 0.0))
    return _replay(network.memory_gates, gates, reads.previous, reads.following, initial)


def _rows(written: Array, index: Array, otherwise: Array | float) -> Array:
    """Each lane's row of ``written``, or ``otherwise`` where the index is -1."""
    lanes = jnp.arange(index.shape[-1])
    rows = written.at[jnp.maximum(index, 0), lanes].get(mode="promise_in_bounds")
    return jnp.where((index >= 0)[..., None], rows, otherwise)


@jax.custom_vjp
def _replay(weight: Array, gates: Array, previous: Array, following: Array, initial: Array) -> Array:
    del following
    units = weight.shape[0]

    def step(written: Array, inputs: tuple[Array, Array, Array, Array]) -> tuple[Array, None]:
        t, gate, index, start = inputs
        memory = _rows(written, index, start)
        memory = _cell(gate, memory[..., :units] @ weight, memory)
        return jax.lax.dynamic_update_index_in_dim(written, memory, t, 0), None

    times = jnp.arange(gates.shape[0])
    written, _ = jax.lax.scan(step, jnp.zeros_like(initial), (times, gates, previous, initial))
    return written


def _replay_forward(
    weight: Array, gates: Array, previous: Array, following: Array, initial: Array
) -> tuple[Array, tuple[Array, ...]]:
    written = _replay(weight, gates, previous, following, initial)
    return written, (weight, gates, previous, following, initial, written)


def _replay_backward(
    residuals: tuple[Array, ...], cotangent: Array
) -> tuple[Array, Array, None, None, Array]:
    """Back through time with everything that is not sequential taken out of the scan.

    The reads and their products are recomputed for all events at once, and the weight's gradient is one product at the
    end instead of a sum carried through the scan (the ordering that cuDNN uses). What an event wrote is read by at most
    one later event of the same process, so the gradient is gathered from there; nothing is scattered.
    """
    weight, gates, previous, following, initial, written = residuals
    units = weight.shape[0]
    memories = _rows(written, previous, initial)
    recurrent = _affine(memories[..., :units], weight, 0.0)

    def step(read: Array, inputs: tuple[Array, ...]) -> tuple[Array, tuple[Array, Array]]:
        t, gate, product, memory, index, cotangent_t = inputs
        _, pull = jax.vjp(_cell, gate, product, memory)
        d_gate, d_product, d_memory = pull(cotangent_t + _rows(read, index, 0.0))
        d_hidden = d_memory[..., :units] + d_product @ weight.T
        d_memory = jnp.concatenate([d_hidden, d_memory[..., units:]], axis=-1)
        return jax.lax.dynamic_update_index_in_dim(read, d_memory, t, 0), (d_gate, d_product)

    times = jnp.arange(gates.shape[0])
    scanned = (times, gates, recurrent, memories, following, cotangent)
    _, (d_gates, d_products) = jax.lax.scan(step, jnp.zeros_like(cotangent), scanned, reverse=True)
    hidden = memories[..., :units].reshape(-1, units)
    d_weight = hidden.T @ d_products.reshape(-1, d_products.shape[-1])
    return d_weight, d_gates, None, None, jnp.zeros_like(initial)


_replay.defvjp(_replay_forward, _replay_backward)
