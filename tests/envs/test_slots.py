"""The slot table against an ordered dictionary."""

from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from phalanx.envs.slots import claim, init_slots

N_SLOTS, N_SUBJECTS, LENGTH = 4, 9, 60


@jax.jit
def _claims(subject, parent, held):
    def body(table, at):
        table, given_slot = claim(table, *at)
        return table, (given_slot, table.parent, table.subject)

    return jax.lax.scan(body, init_slots(N_SLOTS), (subject, parent, held))[1]


class _Lru:
    """Slots by use, oldest first; ``parent`` per process as of its last arrival."""

    def __init__(self):
        self.slot_of, self.parent = OrderedDict(), {}

    def claim(self, subject, parent, held):
        if subject in self.slot_of:
            self.slot_of.move_to_end(subject)
            return self.slot_of[subject], self.slot_of[subject], False
        source = self.slot_of.get(parent, -1)
        if len(self.slot_of) < N_SLOTS:
            slot = len(self.slot_of)
        else:
            free = [s for s in self.slot_of if not held[self.slot_of[s]]] or list(self.slot_of)
            slot = self.slot_of.pop(free[0])
        self.slot_of[subject] = slot
        self.parent[subject] = parent
        return slot, source, True


@given(st.integers(0, 100_000), st.sampled_from([0.0, 0.0, 0.3, 0.9]))
def test_slots_match_an_ordered_dictionary(seed, share_held):
    rng = np.random.default_rng(seed)
    subject = rng.integers(0, N_SUBJECTS, LENGTH)
    parent = np.array([rng.integers(-1, s) if s else -1 for s in range(N_SUBJECTS)])[subject]
    held = rng.random((LENGTH, N_SLOTS)) < share_held
    held[: np.argmax(np.array([len(set(subject[: i + 1])) for i in range(LENGTH)]) >= N_SLOTS) + 1] = False
    claims, links, owners = _claims(
        jnp.asarray(subject, jnp.int32), jnp.asarray(parent, jnp.int32), jnp.asarray(held)
    )
    oracle = _Lru()
    for row in range(LENGTH):
        slot, source, fresh = oracle.claim(int(subject[row]), int(parent[row]), held[row])
        assert (int(claims.entity[row]), int(claims.source[row]), bool(claims.fresh[row])) == (
            slot,
            source,
            fresh,
        )
        for process, at in oracle.slot_of.items():
            assert int(owners[row, at]) == process
            assert int(links[row, at]) == oracle.slot_of.get(oracle.parent[process], -1)


def test_a_child_may_inherit_from_the_very_slot_it_takes():
    subject, parent = jnp.array([0, 1, 2, 3, 4], jnp.int32), jnp.array([-1, -1, -1, -1, 0], jnp.int32)
    claims, links, _ = _claims(subject, parent, jnp.zeros((5, N_SLOTS), bool))
    assert int(claims.entity[-1]) == int(claims.source[-1]) == 0 and bool(claims.fresh[-1])
    assert int(links[-1, 0]) == -1
