"""Recorded events whose answers have no consequence: the supervised setting, seen as an environment.

The next event never depends on the verdict, so the reward of a verdict is exact at once: ``credit`` is the row of the
reward table for the event's label. Nothing is contained, and campaigns are not counted.
"""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from phalanx.envs.base import Environment, empty_score
from phalanx.envs.recorded import RecordedEvents, recorded_spec
from phalanx.envs.response import CONTEXT_COLUMNS
from phalanx.envs.slots import SlotTable, claim, init_slots
from phalanx.errors import UsageError, unknown_name
from phalanx.types import Observation, ObservationSpec, Score, TimeStep, Truth, Verdict

__all__ = ["ORDERS", "StreamConfig", "StreamEnv", "StreamState", "TaskReward"]

ORDERS = ("recorded", "shuffled")


@dataclass(frozen=True)
class TaskReward:
    """Reward of a verdict by the event's label, in units of damage; 0 for an unknown label.

    With the defaults alert is the best answer to an event that is malicious with probability .38 to .58, allow below
    and block above. That holds for the expected reward, the committee's objective; the local one (``agents.credit``)
    knows the label, for which alert is never best.

    Attributes:
        damage: of a malicious event that is allowed.
        alert_share: share of that damage that happens in spite of an alert, in [0, 1].
        ticket_cost: of every alert.
        benign_cost: of a benign event blocked.
        quarantine_cost: of a benign event answered with quarantine, which costs more than the event.
    """

    damage: float = 1.0
    alert_share: float = 0.2
    ticket_cost: float = 0.3
    benign_cost: float = 1.0
    quarantine_cost: float = 2.0

    def by_verdict(self, label: Int[Array, ""]) -> Float[Array, " verdict"]:
        """The reward of each verdict on an event of this label.

        Example:
            >>> TaskReward().by_verdict(jnp.array(1)).tolist()
            [-1.0, -0.5, 0.0, 0.0]
        """
        malicious = [-self.damage, -self.alert_share * self.damage - self.ticket_cost, 0.0, 0.0]
        benign = [0.0, -self.ticket_cost, -self.benign_cost, -self.quarantine_cost]
        table = jnp.array([benign, malicious, [0.0] * 4], jnp.float32)
        return table[label]  # -1, unknown, is the last row


@dataclass(frozen=True)
class StreamConfig:
    """Settings of ``StreamEnv``.

    Attributes:
        order: ``recorded`` (contiguous rows from a random one on, wrapping) or ``shuffled`` (one fixed shuffle).
        episode_events: events until truncation.
        n_entities: memory slots.
        seed: of the shuffle.
        reward: the task.
    """

    order: str = "recorded"
    episode_events: int = 1024
    n_entities: int = 128
    seed: int = 0
    reward: TaskReward = TaskReward()


class StreamState(eqx.Module):
    """Where an episode stands.

    Attributes:
        place: place in the order of the event shown.
        first: places before this one are not scored.
        left: events until truncation.
        slots: memory slots.
        entity: slot of the event shown.
        source: slot whose memory it continues.
        score: totals.
    """

    place: Int[Array, "*batch"]
    first: Int[Array, "*batch"]
    left: Int[Array, "*batch"]
    slots: SlotTable
    entity: Int[Array, "*batch"]
    source: Int[Array, "*batch"]
    score: Score


class StreamEnv(Environment):
    """Recorded events in their order, or shuffled; see the module.

    The observation ends with the columns of ``response.CONTEXT_COLUMNS``, all 0, so that it has the form of replay's.
    """

    events: RecordedEvents
    order: Int[Array, " row"]
    spec: ObservationSpec = eqx.field(static=True)
    config: StreamConfig = eqx.field(static=True)

    def __init__(
        self, events: RecordedEvents, spec: ObservationSpec, config: StreamConfig | None = None
    ) -> None:
        """Prepares the order of the rows.

        Args:
            events: the rows.
            spec: their columns; ``n_entities`` is replaced by the config's, or 1 where no process has two rows.
            config: settings.

        Raises:
            UsageError: an unknown order, or a count below 1.
        """
        config = config or StreamConfig()
        if config.order not in ORDERS:
            raise unknown_name("order", config.order, ORDERS)
        if min(config.episode_events, config.n_entities) < 1:
            raise UsageError(
                f"episode_events={config.episode_events}, n_entities={config.n_entities}; expected 1 or more of each"
            )
        rows = np.arange(events.n_rows)
        if config.order == "shuffled":
            rows = np.random.default_rng(config.seed).permutation(rows)
        self.events = events
        self.order = jnp.asarray(rows, jnp.int32)
        self.config = config
        self.spec = recorded_spec(events, spec, config.n_entities)

    @property
    def episode_events(self) -> int:
        """Events after which an episode is cut."""
        return self.config.episode_events

    def reset(self, key: PRNGKeyArray) -> tuple[StreamState, Observation]:
        """Starts at a random place."""
        place = jax.random.randint(key, (), 0, self.events.n_rows, jnp.int32)
        return self._start(place, place, jnp.asarray(self.config.episode_events, jnp.int32))

    def reset_lane(
        self, start: Int[Array, ""], first: Int[Array, ""], stop: Int[Array, ""]
    ) -> tuple[StreamState, Observation]:
        """Starts an evaluation lane: rows from ``start`` to ``stop``, scored from ``first`` on, then truncation."""
        return self._start(start, first, stop - start)

    def step(
        self, state: StreamState, verdict: Int[Array, ""], key: PRNGKeyArray
    ) -> tuple[StreamState, TimeStep]:
        """Scores the verdict and shows the next event, whatever the verdict was; after the end nothing counts."""
        row = self.row(state)
        score = _count(self.events, state, row, verdict, self.scored(state))
        credit = self.config.reward.by_verdict(self.events.label[row])
        reward = jnp.where(self.scored(state), credit[verdict], 0.0)
        live = (state.left > 0).astype(jnp.int32)
        place = state.place + live
        left = state.left - live
        truncated = left <= 0
        state, observation = self._show(
            StreamState(place, state.first, left, state.slots, state.entity, state.source, score)
        )
        return state, TimeStep(
            observation=observation,
            reward=reward,
            credit=credit,
            terminated=jnp.zeros((), bool),
            truncated=truncated,
            final_observation=observation,
            truth=self.events.truth(row),
            score=score,
        )

    def pending(self, state: StreamState) -> Truth:
        """The truth of the event shown."""
        return self.events.truth(self.row(state))

    def row(self, state: StreamState) -> Int[Array, ""]:
        """The row shown."""
        return self.order[state.place % self.events.n_rows]

    def scored(self, state: StreamState) -> Array:
        """Whether the verdict on the event shown will count."""
        return (state.left > 0) & (state.place >= state.first)

    def _start(
        self, start: Int[Array, ""], first: Int[Array, ""], left: Int[Array, ""]
    ) -> tuple[StreamState, Observation]:
        none = jnp.zeros((), jnp.int32)
        slots = init_slots(self.spec.n_entities)
        return self._show(StreamState(start, first, left, slots, none, none, empty_score()))

    def _show(self, state: StreamState) -> tuple[StreamState, Observation]:
        row = self.row(state)
        held = jnp.zeros(self.spec.n_entities, bool)
        slots, given = claim(state.slots, self.events.subject[row], self.events.parent[row], held)
        context = jnp.zeros(len(CONTEXT_COLUMNS), jnp.float32)
        observation = self.events.observe(row, given.entity, given.source, context)
        shown = StreamState(
            state.place, state.first, state.left, slots, given.entity, given.source, state.score
        )
        return shown, observation


def _count(
    events: RecordedEvents, state: StreamState, row: Int[Array, ""], verdict: Int[Array, ""], scored: Array
) -> Score:
    """Adds one verdict to the totals; rows of unknown label are not counted."""
    label = events.label[row]
    counted = scored & (label >= 0)
    malicious, benign = counted & (label == 1), counted & (label == 0)
    denied = verdict >= Verdict.BLOCK
    old = state.score

    def one(event: Array) -> Array:
        return event.astype(jnp.float32)

    following = events.time_s[jnp.minimum(row + 1, events.n_rows - 1)]
    return Score(
        damage=old.damage + one(malicious & ~denied) * events.damage[row],
        malicious=old.malicious + one(malicious),
        benign=old.benign + one(benign),
        benign_lost=old.benign_lost + one(benign & denied),
        false_blocks=old.false_blocks + one(benign & denied),
        alerts=old.alerts + one(counted & (verdict == Verdict.ALERT)),
        restrictions=old.restrictions + one(counted & denied),
        campaigns=old.campaigns,
        contained=old.contained,
        contain_s=old.contain_s,
        duration_s=old.duration_s + one(scored) * (following - events.time_s[row]),
        events=old.events + one(counted),
        loss=old.loss + one(malicious & ~denied) * events.damage[row] + one(benign & denied),
        furthest=jnp.maximum(old.furthest, one(malicious) * (events.stage[row] + 1).astype(jnp.float32)),
    )
