"""Recorded events in a closed loop: answers remove later events, as they would have in the host.

Effects and costs are those of ``response``, applied to recorded time. What the counterfactual assumes:

- An event that no answer reaches happens as recorded: neither attackers nor benign work adapt to a denied event.
- Block denies one event; the process goes on as recorded.
- Quarantine silences the process and its descendants until the time to live has passed: their rows vanish, also those
  of descendants that the committee has not met. Vanished benign rows are benign work lost, vanished malicious rows were
  never attempted. Then the process goes on with the rows that follow; nothing is caught up.
- A process works for the campaign of its last malicious row. Quarantine of such a process, or an analyst who closes a
  ticket on it, contains the campaign: its malicious rows vanish for the rest of the episode on every process.
  Quarantine of another process contains nothing, even where it silences a malicious descendant for a while.
- Analysts are looked at when an event is decided: a ticket that falls due between two events closes at the second.
- The recorded numbers of a row (rolling statistics) are those of the recording; vanished rows still count in them.
- An evicted process (see ``slots.claim``) loses its open ticket and its count of answers; its silence lasts.

Rows of unknown label take part, cost nothing and count as neither malicious nor benign; an alert costs on any row.
The data's end, like the limit of events, is a truncation.
"""

from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from phalanx.envs.base import Environment, empty_score
from phalanx.envs.recorded import RecordedEvents, recorded_spec
from phalanx.envs.response import (
    Response,
    ResponseConfig,
    ResponseState,
    charge,
    context_features,
    credit_by_verdict,
    init_response,
    respond,
    silent,
    subtree,
)
from phalanx.envs.slots import SlotTable, claim, init_slots
from phalanx.errors import UsageError
from phalanx.types import Observation, ObservationSpec, Score, TimeStep, Truth, Verdict

__all__ = ["ReplayConfig", "ReplayEnv", "ReplayState"]

_NO_LIMIT = 2**31 - 1
_MOST_GAIN = 5.0  # of a quarantine over a block, in units of damage, in the estimate that members learn from


@dataclass(frozen=True)
class ReplayConfig:
    """Settings of ``ReplayEnv``.

    Attributes:
        response: effects and costs of verdicts.
        episode_events: decided events until truncation.
        n_entities: memory slots.
        start: first row of every episode; None draws it so that an unanswered episode fits in, if the data is longer.
        window: rows looked at together when vanished rows are skipped (speed only).
    """

    response: ResponseConfig = ResponseConfig()
    episode_events: int = 1024
    n_entities: int = 128
    start: int | None = None
    window: int = 256


class ReplayState(eqx.Module):
    """Where an episode stands.

    Attributes:
        row: row shown; ``stop`` after the end.
        start: first row of the episode, where its time starts.
        first: rows before this one are not scored.
        stop: one past the last row.
        left: decided events until truncation.
        slots: memory slots.
        entity: slot of the event shown.
        source: slot whose memory it continues.
        response: what earlier verdicts left behind, per slot.
        quiet_until_s: per subject of the rows, met or not, end of its silence (-inf: none).
        works_for: campaign that each slot's process works for, as far as decided events show; -1 none.
        campaigns: per campaign, inf before its first scored event, then its time since the start in s; negative once
            the campaign is contained (``-1 - slot`` of the process that was caught).
        score: totals.
    """

    row: Int[Array, "*batch"]
    start: Int[Array, "*batch"]
    first: Int[Array, "*batch"]
    stop: Int[Array, "*batch"]
    left: Int[Array, "*batch"]
    slots: SlotTable
    entity: Int[Array, "*batch"]
    source: Int[Array, "*batch"]
    response: ResponseState
    quiet_until_s: Float[Array, "*batch subject"]
    works_for: Int[Array, "*batch entity"]
    campaigns: Float[Array, "*batch campaign"]
    score: Score


class ReplayEnv(Environment):
    """Recorded events in time order, closed loop; see the module."""

    events: RecordedEvents
    spec: ObservationSpec = eqx.field(static=True)
    config: ReplayConfig = eqx.field(static=True)

    def __init__(
        self, events: RecordedEvents, spec: ObservationSpec, config: ReplayConfig | None = None
    ) -> None:
        """Checks the settings.

        Args:
            events: the rows.
            spec: their columns; ``n_entities`` is replaced by the config's, or 1 where no process has two rows.
            config: settings.

        Raises:
            UsageError: a start outside the rows, or a count below 1.
        """
        config = config or ReplayConfig()
        if min(config.episode_events, config.n_entities, config.window) < 1:
            raise UsageError(
                f"episode_events={config.episode_events}, n_entities={config.n_entities}, window={config.window}; "
                "expected 1 or more of each"
            )
        if config.start is not None and not 0 <= config.start < events.n_rows:
            raise UsageError(
                f"start={config.start} for {events.n_rows} rows; expected 0 to {events.n_rows - 1}"
            )
        self.events = events
        self.config = config
        self.spec = recorded_spec(events, spec, config.n_entities)

    @property
    def episode_events(self) -> int:
        """Events after which an episode is cut."""
        return self.config.episode_events

    def reset(self, key: PRNGKeyArray) -> tuple[ReplayState, Observation]:
        """Starts at a random row, or at the config's."""
        n_rows = self.events.n_rows
        if self.config.start is None:
            latest = max(1, n_rows - self.config.episode_events + 1)
            start = jax.random.randint(key, (), 0, latest, jnp.int32)
        else:
            start = jnp.asarray(self.config.start, jnp.int32)
        stop = jnp.asarray(n_rows, jnp.int32)
        return self._start(start, start, stop, jnp.asarray(self.config.episode_events, jnp.int32))

    def reset_lane(
        self, start: Int[Array, ""], first: Int[Array, ""], stop: Int[Array, ""]
    ) -> tuple[ReplayState, Observation]:
        """Starts an evaluation lane: rows from ``start`` to ``stop``, scored from ``first`` on, then truncation.

        Verdicts take effect in the warm-up too; only their score is left out.
        """
        return self._start(start, first, stop, jnp.asarray(_NO_LIMIT, jnp.int32))

    def step(
        self, state: ReplayState, verdict: Int[Array, ""], key: PRNGKeyArray
    ) -> tuple[ReplayState, TimeStep]:
        """Applies the verdict and shows the next event that is left; after the end nothing counts."""
        config, events = self.config.response, self.events
        row, scored = self.row(state), self.scored(state)
        now_s = events.time_s[row] - events.time_s[state.start]
        here = jnp.arange(self.spec.n_entities) == state.entity
        works_for = jnp.where(here, events.process_campaign[row], state.works_for)
        credit = self._credit(state, row)
        response, outcome = respond(
            config,
            state.response,
            verdict=verdict,
            entity=state.entity,
            now_s=now_s,
            tree=lambda marked: subtree(marked, state.slots.parent),
            malicious=works_for >= 0,
        )
        campaigns, attempts = self._attempt(state.campaigns, row, now_s, scored)
        caught = outcome.contained | (here & (verdict == Verdict.QUARANTINE))
        campaigns, contained, waited_s = _contain(campaigns, jnp.where(caught, works_for, -1), now_s)
        quiet_until_s = self._silence(state, works_for, verdict, now_s)
        moved = self._advance(row, state.stop, state.start, quiet_until_s, campaigns)
        following = jnp.where(state.row < state.stop, moved, state.row)

        score = self._count(state.score, row, verdict, outcome, scored)
        score = self._pass(score, state, row, following)
        score = eqx.tree_at(
            lambda s: (s.campaigns, s.contained, s.contain_s),
            score,
            (
                score.campaigns + attempts,
                score.contained + jnp.where(scored, contained, 0.0),
                score.contain_s + jnp.where(scored, waited_s, 0.0),
            ),
        )
        alerted = verdict == Verdict.ALERT
        score, loss = charge(
            config, before=state.score, after=score, alerted=alerted & scored, ticket=outcome.ticket
        )
        left = jnp.maximum(state.left - 1, 0)
        state, observation = self._show(
            ReplayState(
                row=following,
                start=state.start,
                first=state.first,
                stop=state.stop,
                left=left,
                slots=state.slots,
                entity=state.entity,
                source=state.source,
                response=response,
                quiet_until_s=quiet_until_s,
                works_for=works_for,
                campaigns=campaigns,
                score=score,
            )
        )
        return state, TimeStep(
            observation=observation,
            reward=-loss,
            credit=credit,
            terminated=jnp.zeros((), bool),
            truncated=(following >= state.stop) | (left <= 0),
            final_observation=observation,
            truth=events.truth(row),
            score=score,
        )

    def pending(self, state: ReplayState) -> Truth:
        """The truth of the event shown."""
        return self.events.truth(self.row(state))

    def row(self, state: ReplayState) -> Int[Array, ""]:
        """The row shown."""
        return jnp.minimum(state.row, state.stop - 1)

    def scored(self, state: ReplayState) -> Bool[Array, ""]:
        """Whether the verdict on the event shown will count."""
        return (state.row < state.stop) & (state.row >= state.first)

    def _start(
        self, start: Int[Array, ""], first: Int[Array, ""], stop: Int[Array, ""], left: Int[Array, ""]
    ) -> tuple[ReplayState, Observation]:
        n_entities = self.spec.n_entities
        none = jnp.zeros((), jnp.int32)
        return self._show(
            ReplayState(
                row=start,
                start=start,
                first=first,
                stop=stop,
                left=left,
                slots=init_slots(n_entities),
                entity=none,
                source=none,
                response=init_response(self.config.response, n_entities),
                quiet_until_s=jnp.full(self.events.subtree_end.shape[0], -jnp.inf, jnp.float32),
                works_for=jnp.full(n_entities, -1, jnp.int32),
                campaigns=jnp.full(max(self.events.n_campaigns, 1), jnp.inf, jnp.float32),
                score=empty_score(),
            )
        )

    def _show(self, state: ReplayState) -> tuple[ReplayState, Observation]:
        """Gives the row's process a slot, in which nothing is left of an evicted one."""
        events, row = self.events, self.row(state)
        now_s = events.time_s[row] - events.time_s[state.start]
        held = silent(state.response, now_s)
        slots, given = claim(state.slots, events.subject[row], events.parent[row], held)
        new = given.fresh & (jnp.arange(self.spec.n_entities) == given.entity)
        old = state.response
        response = ResponseState(
            silent_until_s=jnp.where(new, -jnp.inf, old.silent_until_s),
            ticket_done_s=jnp.where(new, jnp.inf, old.ticket_done_s),
            analyst_free_s=old.analyst_free_s,
            answers=jnp.where(new, 0.0, old.answers),
            answer_rate=old.answer_rate,
        )
        state = eqx.tree_at(
            lambda s: (s.slots, s.entity, s.source, s.response, s.works_for),
            state,
            (slots, given.entity, given.source, response, jnp.where(new, -1, state.works_for)),
        )
        context = context_features(self.config.response, response, given.entity, now_s)
        return state, events.observe(row, given.entity, given.source, context)

    def _credit(self, state: ReplayState, row: Int[Array, ""]) -> Array:
        """The worth of each verdict, that of silencing the process bounded.

        A recorded process may do thousands of benign events within a quarantine's time to live. As they stand, such
        numbers would be all that members learn from: what tells allow from block is of the order of 1.
        """
        events = self.events
        malicious = events.label[row] == 1
        pays = malicious & ~_stopped(state.campaigns, events.process_campaign[row])
        remaining = jnp.where(pays, events.remaining_damage[row], 0.0)
        gain = remaining - events.silence_loss[row]
        bounded = gain / (1.0 + jnp.abs(gain) / _MOST_GAIN)
        return credit_by_verdict(
            self.config.response,
            state.response,
            entity=state.entity,
            now_s=events.time_s[row] - events.time_s[state.start],
            malicious=malicious,
            damage=events.damage[row],
            silence_loss=remaining - bounded,
            remaining_damage=remaining,
        )

    def _attempt(
        self,
        campaigns: Float[Array, " campaign"],
        row: Int[Array, ""],
        now_s: Float[Array, ""],
        scored: Array,
    ) -> tuple[Float[Array, " campaign"], Float[Array, ""]]:
        """Notes the first scored event of a campaign; the second result is 1 if this is one."""
        campaign = self.events.campaign[row]
        is_first = scored & (campaign >= 0) & (campaigns[campaign] == jnp.inf)
        campaigns = campaigns.at[jnp.where(is_first, campaign, campaigns.shape[0])].set(now_s, mode="drop")
        return campaigns, is_first.astype(jnp.float32)

    def _count(
        self, old: Score, row: Int[Array, ""], verdict: Int[Array, ""], outcome: Response, scored: Array
    ) -> Score:
        """Adds the decided event to the totals."""
        label = self.events.label[row]
        malicious, benign = scored & (label == 1), scored & (label == 0)
        denied = ~outcome.happened

        def one(event: Array) -> Array:
            return event.astype(jnp.float32)

        return Score(
            damage=old.damage + one(malicious & ~denied) * self.events.damage[row],
            malicious=old.malicious + one(malicious),
            benign=old.benign + one(benign),
            benign_lost=old.benign_lost + one(benign & denied),
            false_blocks=old.false_blocks + one(benign & denied),
            alerts=old.alerts + one(scored & outcome.ticket),
            restrictions=old.restrictions + one(scored & denied),
            campaigns=old.campaigns,
            contained=old.contained,
            contain_s=old.contain_s,
            duration_s=old.duration_s,
            events=old.events + one(scored),
            loss=old.loss,
            furthest=jnp.maximum(
                old.furthest, one(malicious) * (self.events.stage[row] + 1).astype(jnp.float32)
            ),
        )

    def _pass(
        self, score: Score, state: ReplayState, row: Int[Array, ""], following: Int[Array, ""]
    ) -> Score:
        """Adds what vanished between the decided row and the next: all rows between them did."""
        events = self.events
        begin = jnp.maximum(row + 1, state.first)
        lost = events.benign_before[jnp.maximum(following, begin)] - events.benign_before[begin]
        lost = jnp.where(state.row < state.stop, lost, 0).astype(jnp.float32)
        until = jnp.minimum(following, state.stop - 1)
        since = jnp.maximum(row, state.first)
        passed_s = jnp.where(until > since, events.time_s[until] - events.time_s[since], 0.0)
        return eqx.tree_at(
            lambda s: (s.benign, s.benign_lost, s.duration_s),
            score,
            (score.benign + lost, score.benign_lost + lost, score.duration_s + passed_s),
        )

    def _silence(
        self,
        state: ReplayState,
        works_for: Int[Array, " entity"],
        verdict: Int[Array, ""],
        now_s: Float[Array, ""],
    ) -> Float[Array, " subject"]:
        """Silences the descendants of whoever ``respond`` silenced, those without a slot too; one root at a time."""
        ends, slots = self.events.subtree_end, jnp.arange(self.spec.n_entities)
        subjects = jnp.arange(ends.shape[0])
        due = (state.response.ticket_done_s <= now_s) & (works_for >= 0)
        roots = due | ((slots == state.entity) & (verdict == Verdict.QUARANTINE))
        ttl_s = self.config.response.quarantine_ttl_s

        def spread(carry: tuple[Array, Array]) -> tuple[Array, Array]:
            quiet_until_s, left = carry
            slot = jnp.argmax(left)
            root = state.slots.subject[slot]
            until_s = jnp.where(due[slot], jnp.inf, now_s + ttl_s)
            below = (subjects >= root) & (subjects < ends[root])
            quiet_until_s = jnp.where(below, jnp.maximum(quiet_until_s, until_s), quiet_until_s)
            return quiet_until_s, left & (slots != slot)

        return jax.lax.while_loop(lambda carry: carry[1].any(), spread, (state.quiet_until_s, roots))[0]

    def _advance(
        self,
        row: Int[Array, ""],
        stop: Int[Array, ""],
        start: Int[Array, ""],
        quiet_until_s: Float[Array, " subject"],
        campaigns: Float[Array, " campaign"],
    ) -> Int[Array, ""]:
        """The next row that is left, or ``stop``; looks at ``window`` rows at a time."""
        events, origin_s = self.events, self.events.time_s[start]
        offsets = jnp.arange(self.config.window, dtype=jnp.int32)

        def look(carry: tuple[Array, Array]) -> tuple[Array, Array]:
            at, _ = carry
            rows = jnp.minimum(at + offsets, events.n_rows - 1)
            quiet = quiet_until_s[events.subject[rows]] > events.time_s[rows] - origin_s
            shown = (at + offsets < stop) & ~quiet & ~_stopped(campaigns, events.campaign[rows])
            found = shown.any()
            step = jnp.where(found, jnp.argmax(shown).astype(jnp.int32), self.config.window)
            return at + step, found

        at, _ = jax.lax.while_loop(
            lambda carry: ~carry[1] & (carry[0] < stop), look, (row + 1, jnp.zeros((), bool))
        )
        return jnp.minimum(at, stop)


def _stopped(campaigns: Float[Array, " campaign"], campaign: Int[Array, "*row"]) -> Bool[Array, "*row"]:
    """Whether a campaign is contained; none never is."""
    return (campaign >= 0) & (campaigns[campaign] < 0)


def _contain(
    campaigns: Float[Array, " campaign"], caught: Int[Array, " entity"], now_s: Float[Array, ""]
) -> tuple[Float[Array, " campaign"], Float[Array, ""], Float[Array, ""]]:
    """Contains the campaigns of caught processes.

    Args:
        campaigns: as in ``ReplayState``.
        caught: per slot, the campaign that its process worked for if it was caught now, else -1.
        now_s: time since the start of the episode.

    Returns:
        The campaigns, how many attempted ones stopped now, and the sum of their times to containment in s.
    """
    mark = -1.0 - jnp.arange(caught.shape[0], dtype=jnp.float32)
    before = campaigns[caught]
    after = campaigns.at[jnp.where(caught >= 0, caught, campaigns.shape[0])].min(mark, mode="drop")
    new = (caught >= 0) & (before >= 0) & jnp.isfinite(before) & (after[caught] == mark)
    return after, new.sum(dtype=jnp.float32), jnp.where(new, now_s - before, 0.0).sum()
