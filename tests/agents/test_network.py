"""The network against NumPy: cells, views, and the unroll against a dictionary of memories per process."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agents.histories import History, random_history
from agents.test_memory import run as run_table

from phalanx.agents.network import (
    VIEWS,
    Network,
    NetworkConfig,
    cell_step,
    encode_events,
    event_vector,
    init_network,
    policy_logits,
    sensor_mask,
    state_value,
    unroll,
    vector_size,
)
from phalanx.errors import UsageError
from phalanx.types import Column, Observation, ObservationSpec

UNITS, HIDDEN, CORE = 3, 5, 2
SPEC = ObservationSpec(
    categorical=(Column("kind", size=4), Column("object_kind", "file", size=3)),
    numeric=(
        Column("age"),
        Column("command", "process"),
        Column("port", "network"),
        Column("uid", "identity"),
        Column("tickets", "context"),
    ),
    n_entities=4,
)


def network_of(cell: str, seed: int = 0) -> Network:
    """A member whose every parameter is random, so that none hides behind a zero."""
    config = NetworkConfig(hidden=HIDDEN, memory=UNITS, cell=cell)
    fresh = init_network(jax.random.key(seed), vector_size(SPEC), config, n_core=CORE)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(0, 0.5, leaf.shape), jnp.float32), fresh)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def numpy_cell(cell: str, gates: np.ndarray, weight: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """The textbooks' equations in double precision, one event at a time."""
    gates, weight, memory = (np.asarray(x, np.float64) for x in (gates, weight, memory))
    if cell == "gru":
        w_z, w_r, w_n = np.split(weight, 3, axis=1)
        x_z, x_r, x_n = np.split(gates, 3)
        z, r = sigmoid(x_z + memory @ w_z), sigmoid(x_r + memory @ w_r)
        return (1 - z) * np.tanh(x_n + r * (memory @ w_n)) + z * memory
    h, c = np.split(memory, 2)
    w_i, w_f, w_g, w_o = np.split(weight, 4, axis=1)
    x_i, x_f, x_g, x_o = np.split(gates, 4)
    c = sigmoid(x_f + h @ w_f) * c + sigmoid(x_i + h @ w_i) * np.tanh(x_g + h @ w_g)
    return np.concatenate([sigmoid(x_o + h @ w_o) * np.tanh(c), c])


def gates_of(cell: str, *shape: int, seed: int = 1) -> np.ndarray:
    n = {"gru": 3, "lstm": 4, "none": 0}[cell] * UNITS
    return np.random.default_rng(seed).normal(size=(*shape, n)).astype(np.float32)


def memory_size(cell: str) -> int:
    return NetworkConfig(memory=UNITS, cell=cell).memory_size


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_a_cell_is_the_textbook_s(cell: str) -> None:
    network, gates = network_of(cell), gates_of(cell, 7)
    memory = np.random.default_rng(2).normal(size=(7, memory_size(cell))).astype(np.float32)
    found = cell_step(network, jnp.asarray(gates), jnp.asarray(memory))
    expected = [
        numpy_cell(cell, g, np.asarray(network.memory_gates), m) for g, m in zip(gates, memory, strict=True)
    ]
    np.testing.assert_allclose(found, expected, atol=1e-6)


def dictionary_memories(cell: str, weight: np.ndarray, gates: np.ndarray, history: History) -> np.ndarray:
    """The memory after each event: one dictionary of memories a lane, emptied where an episode ends."""
    steps, lanes = history.entity.shape
    written = np.zeros((steps, lanes, memory_size(cell)))
    for lane in range(lanes):
        held = {int(s): history.cells[0, lane, s] for s in np.flatnonzero(history.known[lane])}
        for t in range(steps):
            before = held.get(int(history.source[t, lane]), np.zeros(memory_size(cell)))
            written[t, lane] = numpy_cell(cell, gates[t, lane], weight, before)
            held[int(history.entity[t, lane])] = written[t, lane]
            if history.done[t, lane]:
                held = {}
    return written


def reads_of(cell: str, history: History) -> tuple[Any, jax.Array]:
    steps, lanes = history.entity.shape
    reads = run_table(history, np.zeros((steps, 1, lanes, memory_size(cell)), np.float32)).linked
    initial = history.cells[0][np.arange(lanes)[None], np.maximum(history.source, 0)]
    return reads, jnp.asarray(initial)


_unroll = eqx.filter_jit(unroll)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_unroll_is_a_dictionary_of_memories_per_process(cell: str) -> None:
    network = network_of(cell)
    for seed in range(20):
        history = random_history(seed, 1, memory_size(cell))
        gates = gates_of(cell, *history.entity.shape, seed=seed)
        reads, initial = reads_of(cell, history)
        found = _unroll(network, jnp.asarray(gates), reads, initial)
        expected = dictionary_memories(cell, np.asarray(network.memory_gates), gates, history)
        np.testing.assert_allclose(found, expected, atol=2e-6)


def test_without_memory_there_is_nothing_to_unroll() -> None:
    history = random_history(0, 1, 0)
    reads, initial = reads_of("none", history)
    shape = (*history.entity.shape, 0)
    assert unroll(network_of("none"), jnp.zeros(shape), reads, initial).shape == shape


def plain_loss(
    cell: str, weight: jax.Array, gates: jax.Array, history: History, pull: np.ndarray
) -> jax.Array:
    """A differentiable loss of all memories, with the truncations that ``unroll`` documents and no others."""
    step = eqx.tree_at(lambda n: n.memory_gates, network_of(cell), weight)
    total = jnp.zeros(())
    for lane in range(history.entity.shape[1]):
        held = {int(s): jnp.asarray(history.cells[0, lane, s]) for s in np.flatnonzero(history.known[lane])}
        for t in range(history.entity.shape[0]):
            entity, source = int(history.entity[t, lane]), int(history.source[t, lane])
            before = held.get(source, jnp.zeros(memory_size(cell)))
            if source != entity:
                before = jax.lax.stop_gradient(before)  # a child learns from its parent's memory, not for it
            held[entity] = cell_step(step, gates[t, lane], before)
            total = total + (held[entity] * pull[t, lane]).sum()
            if history.done[t, lane]:
                held = {}
    return total


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_the_gradient_flows_through_a_process_and_stops_where_it_says(cell: str) -> None:
    network = network_of(cell)
    for seed in range(2):
        history = random_history(seed, 1, memory_size(cell))
        shape = history.entity.shape
        gates = jnp.asarray(gates_of(cell, *shape, seed=seed))
        pull = np.random.default_rng(seed).normal(size=(*shape, memory_size(cell))).astype(np.float32)
        reads, initial = reads_of(cell, history)

        def loss(
            weight: jax.Array,
            gates: jax.Array,
            initial: jax.Array,
            reads: Any = reads,
            pull: np.ndarray = pull,
        ) -> jax.Array:
            member = eqx.tree_at(lambda n: n.memory_gates, network, weight)
            return (unroll(member, gates, reads, initial) * pull).sum()

        found = jax.grad(loss, (0, 1, 2))(network.memory_gates, gates, initial)
        expected = jax.grad(lambda w, g, h=history, p=pull: plain_loss(cell, w, g, h, p), (0, 1))(
            network.memory_gates, gates
        )
        for one, other in zip(found, expected, strict=False):
            np.testing.assert_allclose(one, other, atol=2e-5)
        np.testing.assert_array_equal(found[2], 0)


def test_the_gradient_reaches_the_first_event_of_a_process() -> None:
    """A mark 13 events ago is learned from: the chain is one process acting throughout."""
    base = random_history(0, 1, UNITS)
    history = base._replace(
        entity=np.zeros_like(base.entity),
        source=np.zeros_like(base.source),
        done=np.zeros_like(base.done),
        known=np.zeros_like(base.known),
    )
    reads, initial = reads_of("gru", history)
    network, gates = network_of("gru"), jnp.asarray(gates_of("gru", *history.entity.shape))
    slope = jax.grad(lambda g: unroll(network, g, reads, initial)[-1].sum())(gates)
    assert (np.abs(np.asarray(slope[0])).max(axis=-1) > 0).all()


# Views


def observation(seed: int, *shape: int) -> Observation:
    rng = np.random.default_rng(seed)
    sizes = [column.size for column in SPEC.categorical]
    return Observation(
        category=jnp.asarray(rng.integers(0, sizes, (*shape, 2)), jnp.int32),
        numeric=jnp.asarray(rng.normal(size=(*shape, 5)), jnp.float32),
        entity=jnp.zeros(shape, jnp.int32),
        source=jnp.zeros(shape, jnp.int32),
    )


def test_an_event_vector_is_one_hot_ids_then_numbers() -> None:
    seen = observation(0, 6, 2)
    found = np.asarray(event_vector(SPEC, seen))
    assert found.shape == (6, 2, vector_size(SPEC)) and vector_size(SPEC) == 4 + 3 + 5
    for at in np.ndindex(6, 2):
        kind, obj = np.asarray(seen.category[at])
        expected = [*np.eye(4)[kind], *np.eye(3)[obj], *np.asarray(seen.numeric[at])]
        np.testing.assert_array_equal(found[at], np.array(expected, np.float32))


PLACES = {
    "common": [0, 1, 2, 3, 7],
    "file": [4, 5, 6],
    "process": [8],
    "network": [9],
    "identity": [10],
    "context": [11],
}


@pytest.mark.parametrize("view", VIEWS)
def test_a_member_sees_its_sensor_and_what_all_see(view: str) -> None:
    mask = np.asarray(sensor_mask(SPEC, view))
    groups = list(PLACES) if view == "full" else ["common", "context", view]
    assert np.flatnonzero(mask).tolist() == sorted(sum((PLACES[group] for group in groups), []))
    network, vector = network_of("gru"), event_vector(SPEC, observation(0, 1))[0]

    def opinion(vector: jax.Array) -> np.ndarray:
        encoding = encode_events(network, jnp.asarray(mask), vector)
        after = cell_step(network, encoding.gates, jnp.ones(UNITS))
        logits = policy_logits(network, encoding, after)
        value = state_value(network, jnp.asarray(mask), vector, jnp.ones(CORE), after)
        return np.concatenate([logits, value[None]])

    for place in range(vector_size(SPEC)):
        changed = opinion(vector.at[place].add(3.0))
        assert np.array_equal(changed, opinion(vector)) == (not mask[place])


def test_unknown_views_and_cells_list_the_choices() -> None:
    with pytest.raises(UsageError, match=r"view 'all'.*full, process, file, network, identity"):
        sensor_mask(SPEC, "all")
    with pytest.raises(UsageError, match=r"cell 'rnn'.*none, gru, lstm"):
        NetworkConfig(cell="rnn")
    with pytest.raises(UsageError, match="uniform, allow"):
        NetworkConfig(start="block")
    with pytest.raises(UsageError, match="hidden=0"):
        NetworkConfig(hidden=0)


# Initialisation


@pytest.mark.parametrize("cell", ["gru", "lstm", "none"])
@pytest.mark.parametrize("start", ["uniform", "allow"])
def test_a_fresh_member_knows_nothing_and_its_critic_says_zero(cell: str, start: str) -> None:
    config = NetworkConfig(hidden=HIDDEN, memory=UNITS, cell=cell, start=start)
    network = init_network(jax.random.key(0), vector_size(SPEC), config, n_core=CORE)
    mask, vectors = sensor_mask(SPEC, "full"), event_vector(SPEC, observation(1, 50))
    memory = jnp.ones((50, config.memory_size))
    np.testing.assert_array_equal(state_value(network, mask, vectors, jnp.ones((50, CORE)), memory), 0)
    chances = np.asarray(
        jax.nn.softmax(policy_logits(network, encode_events(network, mask, vectors), memory))
    )
    if start == "uniform":
        np.testing.assert_allclose(chances, 0.25, atol=0.02)
    else:
        assert (chances[:, 0] > 0.9).all()


def test_an_lstm_remembers_at_first() -> None:
    config = NetworkConfig(hidden=HIDDEN, memory=UNITS, cell="lstm")
    bias = np.asarray(init_network(jax.random.key(0), 4, config).gate_bias)
    assert bias.tolist() == [0] * UNITS + [1] * UNITS + [0] * 2 * UNITS


def test_the_critic_sends_no_gradient_into_the_actor() -> None:
    network, mask = network_of("gru"), sensor_mask(SPEC, "full")
    vectors = event_vector(SPEC, observation(1, 9))

    def value(network: Network) -> jax.Array:
        encoding = encode_events(network, mask, vectors)
        memory = cell_step(network, encoding.gates, jnp.ones((9, UNITS)))
        return state_value(network, mask, vectors, jnp.ones((9, CORE)), memory).sum()

    slopes = jax.grad(value)(network)
    for name in Network.__dataclass_fields__:
        moved = bool(np.abs(np.asarray(getattr(slopes, name))).max() > 0)
        assert moved == name.startswith("value_"), name


@pytest.mark.parametrize("cell", ["gru", "lstm", "none"])
def test_a_value_is_two_layers_over_event_core_and_memory(cell: str) -> None:
    """In NumPy, in double precision; of an LSTM's memory only h is read."""
    network, mask = network_of(cell), sensor_mask(SPEC, "file")
    rng = np.random.default_rng(3)
    vectors, core = rng.normal(size=(7, vector_size(SPEC))), rng.normal(size=(7, CORE))
    memory = rng.normal(size=(7, {"gru": UNITS, "lstm": 2 * UNITS, "none": 0}[cell]))
    own = {name: np.asarray(getattr(network, name), np.float64) for name in Network.__dataclass_fields__}
    seen = (vectors * np.asarray(mask)) @ own["value_encoder"] + core @ own["value_core"]
    joint = np.concatenate([np.maximum(seen + own["value_encoder_bias"], 0), memory[:, :UNITS]], axis=1)
    hidden = np.maximum(joint @ own["value_hidden"] + own["value_hidden_bias"], 0)
    expected = hidden @ own["value_weight"] + own["value_bias"]
    inputs = (jnp.asarray(x, jnp.float32) for x in (vectors, core, memory))
    np.testing.assert_allclose(state_value(network, mask, *inputs), expected, rtol=1e-4, atol=1e-5)
