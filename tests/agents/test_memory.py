"""The memory table against a dictionary per process."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from agents.histories import History, histories, random_history
from hypothesis import given

from phalanx.agents.memory import (
    MemoryReads,
    MemoryTable,
    clear,
    init_memory,
    initial_memories,
    link_reads,
    read,
    start_rollout,
    write,
)
from phalanx.types import Observation

MEMBERS, UNITS = 2, 3


class Run(NamedTuple):
    """What a table gave back over a history of events."""

    memories: np.ndarray
    reads: MemoryReads
    linked: MemoryReads
    end: MemoryTable


@eqx.filter_jit
def _scan(table: MemoryTable, inputs: Any) -> Any:
    def step(table: MemoryTable, at: Any) -> Any:
        t, entity, source, done, written = at
        blank = jnp.zeros((*entity.shape, 0))
        observation = Observation(blank.astype(jnp.int32), blank, entity, source)
        memories, reads = read(table, observation)
        return clear(write(table, entity, written, t), done), (memories, reads)

    end, (memories, reads) = jax.lax.scan(step, table, inputs)
    return end, memories, reads, link_reads(reads, inputs[1] == inputs[2])


def table_of(history: History) -> MemoryTable:
    start = MemoryTable(
        cells=jnp.asarray(history.cells),
        known=jnp.asarray(history.known),
        writer=jnp.full(history.known.shape, 77, jnp.int32),  # of the rollout before, to be forgotten
    )
    return start_rollout(start)


def run(history: History, written: np.ndarray) -> Run:
    steps = jnp.arange(history.entity.shape[0], dtype=jnp.int32)
    inputs = (steps, *(jnp.asarray(part) for part in (history.entity, history.source, history.done, written)))
    end, memories, reads, linked = _scan(table_of(history), inputs)
    return Run(np.asarray(memories), reads, linked, end)


@given(histories(MEMBERS, UNITS))
def test_each_event_reads_what_its_process_or_parent_wrote_last(history: History) -> None:
    written = np.random.default_rng(0).normal(size=(*history.entity.shape, MEMBERS, UNITS))
    written = np.moveaxis(written, 2, 1).astype(np.float32)  # [time, member, env, unit]
    found = run(history, written)
    for lane in range(history.entity.shape[1]):
        held = {s: (history.cells[:, lane, s], -1) for s in np.flatnonzero(history.known[lane])}
        for t in range(history.entity.shape[0]):
            memory, writer = held.get(history.source[t, lane], (None, -1))
            assert bool(found.reads.known[t, lane]) == (memory is not None)
            assert int(found.reads.previous[t, lane]) == writer
            expected = np.zeros((MEMBERS, UNITS)) if memory is None else memory
            np.testing.assert_array_equal(found.memories[t, :, lane], expected)
            held[history.entity[t, lane]] = (written[t, :, lane], t)
            if history.done[t, lane]:
                held = {}
        known = np.asarray(found.end.known[lane])
        assert set(np.flatnonzero(known)) == set(held)
        for slot, (memory, _) in held.items():
            np.testing.assert_array_equal(found.end.cells[:, lane, slot], memory)


@given(histories(MEMBERS, UNITS))
def test_what_an_event_wrote_is_followed_by_the_next_own_read(history: History) -> None:
    steps, lanes = history.entity.shape
    linked = run(history, np.zeros((steps, MEMBERS, lanes, UNITS), np.float32)).linked
    for lane in range(lanes):
        for t in range(steps):
            following = -1
            for later in range(t + 1, steps):
                if history.done[t:later, lane].any():
                    break
                if history.entity[later, lane] != history.entity[t, lane]:
                    continue
                if history.source[later, lane] == history.entity[t, lane]:
                    following = later
                break  # another writer of the slot, or a new process in it
            assert int(linked.following[t, lane]) == following


def test_a_child_and_its_parent_read_the_same_memory_but_only_the_parent_follows() -> None:
    """A fork: event 0 of process 0; its child 1 starts; then process 0 goes on."""
    history = random_history(0, MEMBERS, UNITS)._replace(
        entity=np.array([[0], [1], [0], [1]], np.int32),
        source=np.array([[-1], [0], [0], [1]], np.int32),
        done=np.zeros((4, 1), bool),
        known=np.zeros((1, 4), bool),
        cells=np.zeros((MEMBERS, 1, 4, UNITS), np.float32),
    )
    linked = run(history, np.ones((4, MEMBERS, 1, UNITS), np.float32)).linked
    assert linked.previous[:, 0].tolist() == [-1, 0, 0, 1]
    assert linked.following[:, 0].tolist() == [2, 3, -1, -1]


def test_a_finished_episode_is_forgotten_and_others_are_not() -> None:
    table = init_memory(1, 2, 3, UNITS)
    table = write(table, jnp.array([1, 1]), jnp.ones((1, 2, UNITS)), jnp.int32(4))
    after = clear(table, jnp.array([True, False]))
    assert after.known.tolist() == [[False] * 3, [False, True, False]]
    assert after.writer.tolist() == [[-1] * 3, [-1, 4, -1]]


@pytest.mark.parametrize("seed", range(3))
def test_initial_memories_are_those_of_the_slots_read(seed: int) -> None:
    history = random_history(seed, MEMBERS, UNITS)
    found = np.asarray(initial_memories(jnp.asarray(history.cells[0]), jnp.asarray(history.source)))
    for t, lane in np.argwhere(history.source >= 0):
        np.testing.assert_array_equal(found[t, lane], history.cells[0, lane, history.source[t, lane]])
