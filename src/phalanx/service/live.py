"""The decision path over a stream of events of many hosts: one compiled step, whatever the number of events.

Events of a batch are answered one after the other, each knowing what was answered before. The loop's length is a
number, not a shape, so that one program serves every batch up to its size and an answer does not depend on how the
events came in batches.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from phalanx.agents.memory import MemoryTable, init_memory
from phalanx.data.rolling import ROLLING_COLUMNS, RollingState, init_rolling, rolling_step
from phalanx.envs.constrained import MARGIN
from phalanx.envs.response import (
    CONTEXT_COLUMNS,
    ResponseConfig,
    ResponseState,
    context_features,
    init_response,
    respond,
    subtree_of_few,
)
from phalanx.errors import UsageError, unknown_name
from phalanx.runtime.cut import Cut
from phalanx.runtime.decide import Committee, decide_events, init_guard, shield_inputs
from phalanx.stl.demands import EFFECTS
from phalanx.stl.jitted import JitMonitor
from phalanx.stl.specs import Spec
from phalanx.types import Observation

__all__ = ["ANSWERING", "LiveAnswers", "LiveBatch", "LivePath", "LiveState", "watchable"]

ANSWERING = ("nothing", "alerts", "all")
"""Which verdicts have an effect that later events are told of: none (as where detection is measured), alerts alone
(shadow mode: what would restrict is told as an alert), or all."""


class LiveBatch(eqx.Module):
    """Events in their order, padded.

    Attributes:
        category, numeric: as encoded, without rolling statistics and context.
        event_class: index into ``EVENT_CLASSES``.
        slot, source, fresh, parent: see ``service.processes.Place``.
        time_s: non-decreasing.
        before_s: of the event before, whose process that may have been.
        answered: the verdict where others gave it, -1 where the committee here does.
    """

    category: Int[Array | np.ndarray, "*event column"]
    numeric: Float[Array | np.ndarray, "*event number"]
    event_class: Int[Array | np.ndarray, "*event"]
    slot: Int[Array | np.ndarray, "*event"]
    source: Int[Array | np.ndarray, "*event"]
    fresh: Bool[Array | np.ndarray, "*event"]
    parent: Int[Array | np.ndarray, "*event"]
    time_s: Float[Array | np.ndarray, "*event"]
    before_s: Float[Array | np.ndarray, "*event"]
    answered: Int[Array | np.ndarray, "*event"]


class LiveState(eqx.Module):
    """What is known after some events. The last place of each table is for processes that are not remembered.

    Attributes:
        memory: of each member and process.
        rolling: statistics of each process.
        response: what earlier answers left behind. Unless processes are silenced, a ticket that is over is still there
            until its process is looked at.
        parent: place of each process's parent, -1 none; kept only where processes are silenced.
        guard: what the shield knows.
        watches: what each specification's monitor knows.
        margins: robustness of each as far as it is known, within [-1, 1]; 1 before.
    """

    memory: MemoryTable
    rolling: RollingState
    response: ResponseState
    parent: Int[Array, " slot"]
    guard: Any
    watches: tuple[Any, ...]
    margins: Float[Array, " spec"]


class LiveAnswers(eqx.Module):
    """The committee's answers, padded like the events.

    Attributes:
        verdict, votes, quorum, score, shielded: see ``types.Decision``; the verdict is that of others where they gave
            it.
        robustness: of each specification that is watched; NaN where it is not known yet.
    """

    verdict: Int[Array, "*event"]
    votes: Int[Array, "*event member"]
    quorum: Bool[Array, "*event"]
    score: Float[Array, "*event"]
    shielded: Bool[Array, "*event"]
    robustness: Float[Array, "*event spec"]


def watchable(committee: Committee, specs: tuple[Spec, ...]) -> tuple[Spec, ...]:
    """Those specifications that read nothing but what is known as events are answered."""
    known = {"suspicion", *EFFECTS, *(column.name for column in committee.spec.numeric)}
    return tuple(each for each in specs if set(each.formula.signals) <= known)


@dataclass(frozen=True)
class LivePath:
    """The compiled path.

    Attributes:
        committee: who decides.
        threshold: its operating point, see ``runtime.cut``; None: members vote for their likeliest verdict.
        memory_size: numbers per memory.
        slots: processes remembered.
        size: events of a batch, at most.
        specs: what is watched.
        answering: see ``ANSWERING``.
        response: effects of verdicts.
    """

    committee: Committee
    threshold: float | Cut | None
    memory_size: int
    slots: int
    size: int = 256
    specs: tuple[Spec, ...] = ()
    answering: str = "alerts"
    response: ResponseConfig = ResponseConfig()

    def __post_init__(self) -> None:
        if self.answering not in ANSWERING:
            raise unknown_name("answering", self.answering, ANSWERING)
        if self.size < 1:
            raise UsageError(f"batches of {self.size} events; at least 1 is needed")
        n_shown = len(self.committee.spec.numeric) - self.n_numbers
        if self.n_numbers < 0 or n_shown != len(self._derived):
            raise UsageError("the committee is shown other numbers than a live event has; train another run")

    @property
    def _rolling(self) -> bool:
        names = [column.name for column in self.committee.spec.numeric]
        return ROLLING_COLUMNS[0].name in names

    @property
    def _derived(self) -> tuple[Any, ...]:
        shown = [self.committee.spec.numeric[-i - 1] for i in range(len(self._shown))][::-1]
        return (*(ROLLING_COLUMNS if self._rolling else ()), *CONTEXT_COLUMNS, *shown)

    @property
    def _shown(self) -> list[int]:
        """The specifications whose margins the members are shown, in the order in which they are."""
        places = {f"{MARGIN}{each.name}": i for i, each in enumerate(self.specs)}
        names = [column.name for column in self.committee.spec.numeric]
        return [places[name] for name in names if name.startswith(MARGIN) and name in places]

    @property
    def n_numbers(self) -> int:
        """Numbers of an event that are encoded; the others are computed on the way."""
        return len(self.committee.spec.numeric) - len(self._derived)

    def monitors(self) -> tuple[JitMonitor, ...]:
        """One of each specification."""
        return tuple(JitMonitor(each.at_each_sample, each.period_s) for each in self.specs)

    def init(self) -> LiveState:
        """Nothing has happened."""
        n = self.slots + 1
        state = LiveState(
            memory=init_memory(self.committee.n_members, 1, n, self.memory_size),
            rolling=init_rolling((n,)),
            response=init_response(self.response, n),
            parent=jnp.full(n, -1, jnp.int32),
            guard=init_guard(self.committee, 1),
            watches=tuple(monitor.init(1) for monitor in self.monitors()),
            margins=jnp.ones(len(self.specs), jnp.float32),
        )
        return jax.tree.map(lambda leaf: jnp.array(leaf, copy=True), state)  # donated: no leaf may be shared

    def compiled(self) -> Callable[[LiveState, LiveBatch, int], tuple[LiveState, LiveAnswers]]:
        """``(state, batch, n) -> (state, answers)`` for the first n events; the state given is used up."""
        arrays, static = eqx.partition(self.committee, eqx.is_array)
        monitors = self.monitors()
        threshold = None if self.threshold is None else Cut.of(self.threshold).arrays()

        def run(arrays: Any, state: LiveState, batch: LiveBatch, n: Array) -> tuple[LiveState, LiveAnswers]:
            committee = eqx.combine(arrays, static)

            def body(i: Array, carry: tuple[LiveState, LiveAnswers]) -> tuple[LiveState, LiveAnswers]:
                state, answers = carry
                event = jax.tree.map(lambda leaf: leaf[i], batch)
                state, answer = self._answer(committee, monitors, threshold, state, event)
                return state, jax.tree.map(lambda all_, one: all_.at[i].set(one), answers, answer)

            return jax.lax.fori_loop(0, n, body, (state, self._blank()))

        jitted = jax.jit(run, donate_argnums=1)
        return lambda state, batch, n: jitted(arrays, state, batch, np.int32(n))

    def _blank(self) -> LiveAnswers:
        size = self.size
        return LiveAnswers(
            verdict=jnp.zeros(size, jnp.int32),
            votes=jnp.zeros((size, self.committee.n_members), jnp.int32),
            quorum=jnp.zeros(size, bool),
            score=jnp.zeros(size, jnp.float32),
            shielded=jnp.zeros(size, bool),
            robustness=jnp.full((size, len(self.specs)), jnp.nan, jnp.float32),
        )

    def _answer(
        self,
        committee: Committee,
        monitors: tuple[JitMonitor, ...],
        threshold: Cut | None,
        state: LiveState,
        event: Any,
    ) -> tuple[LiveState, LiveAnswers]:
        """One event of a ``LiveBatch``: what is shown of it, the decision, and what that leaves behind."""
        slot, now_s = event.slot, event.time_s
        rolling, statistics = rolling_step(self._rolling_of(state, event), event.event_class, now_s)
        parent = self._parents(state, event)
        kept, entity = self._answers_of(state, event)
        context = context_features(self.response, kept, entity, now_s)
        margins = state.margins[jnp.asarray(self._shown, jnp.int32)]
        numbers = [event.numeric, *([statistics] if self._rolling else []), context, margins]
        observation = Observation(
            category=event.category[None],
            numeric=jnp.concatenate(numbers)[None],
            entity=slot[None],
            source=event.source[None],
        )
        memory, guard, decision, opinion = decide_events(
            committee, state.memory, observation, jnp.int32(0), threshold=threshold, guard=state.guard
        )
        verdict = jnp.where(event.answered < 0, decision.action[0], event.answered)
        known = shield_inputs(committee, observation, opinion.log_probs)
        known |= {name: jnp.asarray(values, jnp.float32)[verdict][None] for name, values in EFFECTS.items()}
        watches, robustness = [], []
        for monitor, watch in zip(monitors, state.watches, strict=True):
            after, found = monitor.step(watch, {name: known[name] for name in monitor.formula.signals})
            watches.append(after)
            robustness.append(jnp.where(found.known[0], found.value[0], jnp.nan).astype(jnp.float32))
        told = {"nothing": jnp.zeros_like(verdict), "alerts": jnp.minimum(verdict, 1), "all": verdict}
        kept, _ = respond(
            self.response,
            kept,
            verdict=told[self.answering],
            entity=entity,
            now_s=now_s,
            tree=self._tree(parent),
            malicious=jnp.zeros(kept.answers.shape, bool),  # nobody knows
        )
        found = jnp.stack(robustness) if robustness else jnp.zeros(0, jnp.float32)
        margins = jnp.where(jnp.isnan(found), state.margins, jnp.clip(found, -1.0, 1.0))
        answers = LiveAnswers(
            verdict=verdict,
            votes=decision.votes[0],
            quorum=decision.quorum[0],
            score=decision.score[0],
            shielded=decision.shielded[0],
            robustness=found,
        )
        after = LiveState(
            memory=memory,
            rolling=jax.tree.map(lambda all_, one: _put(all_, slot, one), state.rolling, rolling),
            response=self._with_answers(state.response, slot, kept),
            parent=parent,
            guard=guard,
            watches=tuple(watches),
            margins=margins,
        )
        return after, answers

    @property
    def _silencing(self) -> bool:
        """Whether an answer reaches further than the process whose event it answers."""
        return self.answering == "all"

    def _tree(self, parent: Int[Array, " slot"]) -> Callable[[Array], Array]:
        """From processes to all that descend from them; not computed where nobody is ever silenced."""
        if not self._silencing:
            return lambda roots: roots
        return lambda roots: subtree_of_few(roots, parent)

    def _rolling_of(self, state: LiveState, event: LiveBatch) -> RollingState:
        """Statistics of the event's process, none where its place is new to it."""
        return jax.tree.map(
            lambda table: jnp.where(event.fresh, jnp.zeros((), table.dtype), _get(table, event.slot)),
            state.rolling,
        )

    def _parents(self, state: LiveState, event: LiveBatch) -> Int[Array, " slot"]:
        """Who descends from whom, with the process where it is new: nobody is a child of the one before it."""
        if not self._silencing:
            return state.parent
        slot, fresh = event.slot, event.fresh
        parent = jnp.where(fresh & (state.parent == slot), -1, state.parent)
        return _put(parent, slot, jnp.where(fresh, event.parent, _get(parent, slot)))

    def _answers_of(self, state: LiveState, event: LiveBatch) -> tuple[ResponseState, Int[Array, ""]]:
        """What earlier answers left behind as far as this one may reach, and the process's place in it.

        That is the table where processes are silenced with all that descend from them, else the process alone: whatever
        is done for each place of a table costs more than all the rest.
        """
        response, slot, fresh = state.response, event.slot, event.fresh
        blank = {"silent_until_s": -jnp.inf, "ticket_done_s": jnp.inf, "answers": 0.0}
        own = {
            name: jnp.where(fresh, jnp.float32(value), _get(getattr(response, name), slot))
            for name, value in blank.items()
        }
        if self._silencing:
            settled = {name: _put(getattr(response, name), slot, value) for name, value in own.items()}
            return replace(response, **settled), jnp.asarray(slot)
        # closed when the event before came, as it would have been in the table
        own["ticket_done_s"] = jnp.where(
            own["ticket_done_s"] <= event.before_s, jnp.inf, own["ticket_done_s"]
        )
        alone = {name: value[None] for name, value in own.items()}
        return replace(response, **alone), jnp.zeros((), jnp.int32)

    def _with_answers(
        self, response: ResponseState, slot: Int[Array, ""], kept: ResponseState
    ) -> ResponseState:
        """The table with what ``_answers_of`` took from it put back."""
        if self._silencing:
            return kept
        return replace(
            kept,
            silent_until_s=response.silent_until_s,
            ticket_done_s=_put(response.ticket_done_s, slot, kept.ticket_done_s[0]),
            answers=_put(response.answers, slot, kept.answers[0]),
        )


def _get(table: Array, slot: Array | np.ndarray) -> Array:
    return table.at[slot].get(mode="promise_in_bounds")


def _put(table: Array, slot: Array | np.ndarray, value: Array) -> Array:
    """One place anew, without a branch: those copy the whole state."""
    return table.at[slot].set(value, mode="promise_in_bounds", unique_indices=True)
