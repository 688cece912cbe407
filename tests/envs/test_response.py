"""What the four verdicts do, against a plain Python account of tickets, silence and trees."""

import math
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from phalanx.envs.response import ResponseConfig, forget, init_response, respond, silent, subtree
from phalanx.types import Verdict

N = 6
CONFIG = ResponseConfig(analysts=2, service_s=20.0, max_wait_s=30.0, quarantine_ttl_s=50.0)
_subtree = eqx.filter_jit(subtree)


@eqx.filter_jit
def _respond(config: ResponseConfig, state: Any, *, parent: Any, **event: Any) -> Any:
    return respond(config, state, tree=lambda marked: subtree(marked, parent), **event)


@st.composite
def forests(draw: st.DrawFn, n: int = N) -> list[int]:
    """Parents under any numbering of the processes, -1 for roots."""
    order = draw(st.permutations(range(n)))
    parent = [-1] * n
    for place in range(1, n):
        above = draw(st.integers(-1, place - 1))
        parent[order[place]] = order[above] if above >= 0 else -1
    return parent


def _walk(roots: set[int], parent: list[int]) -> set[int]:
    def inside(slot: int) -> bool:
        return slot in roots or (parent[slot] >= 0 and inside(parent[slot]))

    return {slot for slot in range(len(parent)) if inside(slot)}


@given(forests(12), st.sets(st.integers(0, 11)))
def test_subtree_is_what_a_walk_finds(parent: list[int], roots: set[int]) -> None:
    mask = jnp.array([slot in roots for slot in range(12)])
    found = np.flatnonzero(np.asarray(_subtree(mask, jnp.array(parent, jnp.int32))))
    assert set(found.tolist()) == _walk(roots, parent)


def test_subtree_of_a_long_chain() -> None:
    chain = jnp.arange(48, dtype=jnp.int32) - 1
    assert np.asarray(subtree(jnp.arange(48) == 7, chain)).sum() == 41


class _Account:
    """The rules of the response, one process at a time."""

    def __init__(self) -> None:
        self.until, self.done = [-math.inf] * N, [math.inf] * N
        self.free = [0.0] * CONFIG.analysts

    def answer(
        self, verdict: int, entity: int, now: float, parent: list[int], bad: set[int]
    ) -> dict[str, Any]:
        due = {slot for slot in range(N) if self.done[slot] <= now}
        contained = _walk(due & bad, parent)
        for slot in due:
            self.done[slot] = math.inf
        for slot in contained:
            self.until[slot] = math.inf
        ticket = False
        if verdict == Verdict.ALERT and math.isinf(self.done[entity]):
            analyst = self.free.index(min(self.free))
            start = max(now, self.free[analyst])
            if start - now <= CONFIG.max_wait_s:
                ticket = True
                self.done[entity] = self.free[analyst] = start + CONFIG.service_s
        silenced = _walk({entity}, parent) if verdict == Verdict.QUARANTINE else set()
        for slot in silenced:
            self.until[slot] = max(self.until[slot], now + CONFIG.quarantine_ttl_s)
        return {
            "ticket": ticket,
            "contained": contained,
            "silenced": silenced,
            "happened": verdict < Verdict.BLOCK,
        }


_events = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, N - 1), st.integers(0, 20)), min_size=1, max_size=12
)


@given(forests(), st.sets(st.integers(0, N - 1)), _events)
def test_respond_agrees_with_a_plain_account(
    parent: list[int], bad: set[int], events: list[tuple[int, int, int]]
) -> None:
    state, account, now = init_response(CONFIG, N), _Account(), 0.0
    hostile = jnp.array([slot in bad for slot in range(N)])
    for verdict, entity, pause in events:
        now += pause
        state, effect = _respond(
            CONFIG, state, verdict=jnp.int32(verdict), entity=jnp.int32(entity), now_s=jnp.float32(now),
            parent=jnp.array(parent, jnp.int32), malicious=hostile,
        )  # fmt: skip
        expected = account.answer(verdict, entity, now, parent, bad)
        assert bool(effect.happened) == expected["happened"] and bool(effect.ticket) == expected["ticket"]
        for name in ("contained", "silenced"):
            got = set(np.flatnonzero(np.asarray(getattr(effect, name))).tolist())
            assert got == expected[name], name
        np.testing.assert_array_equal(np.asarray(state.silent_until_s), np.asarray(account.until, np.float32))
        np.testing.assert_array_equal(np.asarray(state.ticket_done_s), np.asarray(account.done, np.float32))
        np.testing.assert_array_equal(
            np.sort(state.analyst_free_s), np.sort(np.asarray(account.free, np.float32))
        )


def test_forget_clears_the_processes_that_ended_alone() -> None:
    parent = jnp.full(N, -1, jnp.int32)
    state = init_response(CONFIG, N)
    for entity in (1, 2):
        state, _ = _respond(
            CONFIG, state, verdict=jnp.int32(3), entity=jnp.int32(entity), now_s=jnp.float32(1.0),
            parent=parent, malicious=jnp.zeros(N, bool),
        )  # fmt: skip
    state = forget(state, jnp.arange(N) == 1)
    assert np.flatnonzero(np.asarray(silent(state, jnp.float32(2.0)))).tolist() == [2]
    assert np.flatnonzero(np.asarray(state.answers)).tolist() == [2]
