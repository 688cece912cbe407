"""The simulator: hosts at work, campaigns among them, and verdicts that change what happens next.

A step answers one event. The time between benign events is exponential with the total rate of the processes that are
awake; a campaign's attempts have their own clock and random numbers (``sim_campaign``). Verdicts act only through
``envs.response``; a quarantined process emits nothing and its silent time is charged at its own rate.
"""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from phalanx.data.encoder import Encoder
from phalanx.envs.base import Environment, empty_score
from phalanx.envs.response import (
    CONTEXT_COLUMNS,
    ResponseState,
    charge,
    credit_by_verdict,
    forget,
    init_response,
    respond,
    silent,
)
from phalanx.envs.sim_campaign import Campaigns, init_campaigns, remaining_damage, worth_ahead
from phalanx.envs.sim_config import SimulatorConfig
from phalanx.envs.sim_core import core_features, core_size
from phalanx.envs.sim_effects import acted, apply_event, end_campaigns, event_damage
from phalanx.envs.sim_event import Event, no_event
from phalanx.envs.sim_next import next_event
from phalanx.envs.sim_tables import Tables, build_tables
from phalanx.envs.sim_vocabulary import VOCABULARY, catalogue_encoder, observe
from phalanx.envs.sim_world import Birth, World, init_world, subtree, turnover, work_rate
from phalanx.types import Observation, ObservationSpec, Score, TimeStep, Truth, Verdict

__all__ = ["Simulator", "SimulatorConfig", "SimulatorState"]

_DAY_S = 86_400
_POISON_WORTH = 10.0


class SimulatorState(eqx.Module):
    """Everything that the future depends on, the event that waits for its verdict included.

    ``ahead`` is the damage that follows each stage of each campaign's route, see ``sim_campaign.worth_ahead``.
    """

    world: World
    campaigns: Campaigns
    ahead: Float[Array, "campaign stage_end"]
    response: ResponseState
    event: Event
    score: Score
    steps: Int[Array, ""]


class Simulator(Environment):
    """Simulated hosts under attack as an environment.

    Example:
        >>> env = Simulator(SimulatorConfig(n_hosts=2))
        >>> state, observation = env.reset(jax.random.key(0))
        >>> state, time_step = env.step(state, jnp.int32(0), jax.random.key(1))
        >>> float(time_step.score.events)
        1.0
    """

    tables: Tables
    lookup: dict[str, Int[Array, " value"]]
    config: SimulatorConfig = eqx.field(static=True)
    encoder: Encoder = eqx.field(static=True)
    spec: ObservationSpec = eqx.field(static=True)

    def __init__(self, config: SimulatorConfig | None = None) -> None:
        """Builds the catalogue's arrays for a configuration (default: ``SimulatorConfig()``)."""
        self.config = own = SimulatorConfig() if config is None else config
        self.tables = build_tables(bait=own.bait, new_bait=own.new_bait, new_techniques=own.new_techniques)
        self.encoder = catalogue_encoder()
        self.lookup = {name: self.encoder.category_lookup(name, raw) for name, raw in VOCABULARY.items()}
        spec = self.encoder.spec(own.n_hosts * own.slots_per_host, CONTEXT_COLUMNS)
        self.spec = replace(spec, n_core=core_size(own.attack.most))

    @property
    def episode_events(self) -> int:
        """Events after which an episode is cut."""
        return self.config.episode_events

    def reset(self, key: PRNGKeyArray) -> tuple[SimulatorState, Observation]:
        """Starts an episode: roles of the hosts, campaigns, the first event."""
        key_world, key_attack, key_event = jax.random.split(key, 3)
        config, tables = self.config, self.tables
        u = jax.random.uniform(key_world, (config.n_hosts + 5,))
        shares = np.cumsum(config.roles) / np.sum(config.roles)
        role = (u[5:, None] >= jnp.asarray(shares[:-1], jnp.float32)[None]).sum(axis=1, dtype=jnp.int32)
        world = init_world(
            tables,
            role,
            config.slots_per_host,
            start_s=jnp.floor(u[0] * _DAY_S).astype(jnp.int32),
            drift_s=jnp.where(u[1] < config.drift, u[2] * config.duration_s, jnp.inf),
            rollout_s=jnp.where(u[3] < config.rollout, u[4] * config.duration_s, jnp.inf),
        )
        campaigns = init_campaigns(
            config.attack,
            tables,
            key_attack,
            duration_s=config.duration_s,
            one_host=config.n_hosts == 1,
            attacked=config.attacked,
        )
        start = SimulatorState(
            world=world,
            campaigns=campaigns,
            ahead=worth_ahead(config.attack, tables, campaigns),
            response=init_response(config.response, world.alive.shape[0]),
            event=no_event(),
            score=empty_score(),
            steps=jnp.int32(0),
        )
        nobody = jnp.zeros(world.alive.shape, bool)
        zero = jnp.int32(0)
        birth = Birth(jnp.zeros((), bool), zero, zero, zero, zero, zero, jnp.int32(-1))
        state, observation, _, _ = self._move_on(start, gone=nobody, birth=birth, key=key_event)
        score = eqx.tree_at(lambda s: s.duration_s, state.score, state.event.time_s)
        return eqx.tree_at(lambda s: s.score, state, score), observation

    def step(
        self, state: SimulatorState, verdict: Int[Array, ""], key: PRNGKeyArray
    ) -> tuple[SimulatorState, TimeStep]:
        """Answers the event shown last."""
        config, event, before, world = self.config, state.event, state.score, state.world
        now_s, malicious = event.time_s, event.campaign >= 0
        credit = self._credit(state)
        response, effect = respond(
            config.response,
            state.response,
            verdict=verdict,
            entity=event.entity,
            now_s=now_s,
            tree=lambda marked: subtree(world, marked),
            malicious=world.alive & (world.campaign >= 0),
        )
        # what is reported late has happened, and a duplicate has as well: no verdict undoes them
        happened = (effect.happened & ~effect.contained[event.entity]) | event.late
        denied = ~happened & ~event.duplicate
        campaigns, birth, damage, complete = apply_event(
            config.attack, self.tables, world, state.campaigns, response, event, happened
        )
        furthest = jnp.maximum(before.furthest, _furthest(campaigns))
        going = campaigns
        campaigns, gone, newly = end_campaigns(config.attack, campaigns, world, response, complete, now_s)
        acting = jnp.arange(gone.shape[0]) == event.entity
        gone = world.alive & (gone | (acting & event.ends & happened & ~event.duplicate))
        over = campaigns.stopped | (campaigns.returned & ~going.returned)
        orphan = gone[birth.parent] | ((birth.campaign >= 0) & over[jnp.maximum(birth.campaign, 0)])
        birth = eqx.tree_at(lambda b: b.when, birth, birth.when & ~orphan)
        after = SimulatorState(
            world=acted(world, event, happened & ~event.duplicate),
            campaigns=campaigns,
            ahead=state.ahead,
            response=response,
            event=event,
            score=before,
            steps=state.steps + 1,
        )
        after, observation, lost, unseen = self._move_on(after, gone=gone, birth=birth, key=key)

        new = _number(~malicious & ~event.duplicate)
        restricts = verdict >= Verdict.BLOCK
        known = jnp.where(newly, now_s - state.campaigns.first_s, 0.0)
        score = Score(
            damage=before.damage + damage + unseen,
            malicious=before.malicious + _number(malicious),
            benign=before.benign + new + lost,
            benign_lost=before.benign_lost + _number(~malicious & denied) + lost,
            false_blocks=before.false_blocks + new * _number(restricts),
            alerts=before.alerts + _number(effect.ticket),
            restrictions=before.restrictions + _number(restricts),
            campaigns=before.campaigns,
            contained=before.contained + newly.sum(dtype=jnp.float32),
            contain_s=before.contain_s + known.sum(dtype=jnp.float32),
            duration_s=after.event.time_s,
            events=before.events + 1.0,
            loss=before.loss,
            furthest=furthest,
        )
        score, loss = charge(
            config.response,
            before=before,
            after=score,
            alerted=verdict == Verdict.ALERT,
            ticket=effect.ticket,
        )
        after = eqx.tree_at(lambda s: s.score, after, _met(score, campaigns, after.event))
        terminated = complete.any()
        return after, TimeStep(
            observation=observation,
            reward=-loss,
            credit=credit,
            terminated=terminated,
            truncated=(after.steps >= config.episode_events) & ~terminated,
            final_observation=observation,
            truth=self.pending(state),
            score=after.score,
        )

    def pending(self, state: SimulatorState) -> Truth:
        """The truth of the event that waits."""
        event = state.event
        malicious = event.campaign >= 0
        bait = jnp.where(malicious, 0, self.tables.bait[event.template])
        return Truth(malicious.astype(jnp.int32), event.campaign, event.stage, event.cause, bait)

    def peaceful(self) -> "Simulator":
        """The same world without attackers."""
        return Simulator(replace(self.config, attacked=False))

    def learned_label(self, state: SimulatorState) -> Int[Array, ""]:
        """The label of the waiting event as training data has it: wrong for a share ``poison`` of the events."""
        event = state.event
        malicious = event.campaign >= 0
        if self.config.poison > 0.0:
            key = jax.random.fold_in(jax.random.fold_in(state.campaigns.key, 2), state.steps)
            malicious = malicious ^ (jax.random.uniform(key) < self.config.poison)
        return malicious.astype(jnp.int32)

    def core(self, state: SimulatorState) -> Float[Array, " core"]:
        """What the critic is told: see ``sim_core.core_features``."""
        event, config = state.event, self.config
        rate = work_rate(state.world, event.time_s)
        return core_features(
            world=state.world,
            campaigns=state.campaigns,
            response=state.response,
            event=event,
            ahead=state.ahead,
            rate_hz=rate.astype(jnp.float32) * config.unit_hz,
            damage=event_damage(config.attack, self.tables, state.campaigns, event),
            credit=self._credit(state),
            ttl_s=config.response.quarantine_ttl_s,
        )

    def gauges(self, state: SimulatorState) -> dict[str, Float[Array, ""]]:
        """``exposed_s``: how long the oldest campaign that goes on has been shown, in s; 0 where there is none.

        One that was contained begins anew when it comes back.
        """
        since_s = jnp.where(state.campaigns.stopped, jnp.inf, state.campaigns.since_s).min()
        return {"exposed_s": jnp.maximum(state.event.time_s - since_s, 0.0)}

    def _credit(self, state: SimulatorState) -> Float[Array, " verdict"]:
        """What each verdict is worth; a quarantine prevents the share of the campaign's footholds that it covers.

        A block is judged as the first of those that make the attacker leave, and so prevents the rest of the campaign:
        judged alone it would be worth the less the more patient the attacker is, and nobody would begin. The work that
        silence costs counts at each process's mean pace. Where labels are poisoned, the worth is that of what the label
        says.
        """
        event, world, campaigns, config = state.event, state.world, state.campaigns, self.config
        hostile, c = event.campaign >= 0, jnp.maximum(event.campaign, 0)
        left = jnp.maximum(config.episode_events - state.steps, 0).astype(jnp.float32)
        left_s = left / (config.n_hosts * config.host_rate_hz)
        inside = subtree(world, jnp.arange(world.alive.shape[0]) == event.entity)
        rate = jnp.where(inside, world.rate, 0).sum(dtype=jnp.int32)
        silence_s = jnp.minimum(config.response.quarantine_ttl_s, left_s)
        awake = world.alive & (world.campaign == c) & ~silent(state.response, event.time_s)
        reached = (inside & awake).sum(dtype=jnp.float32) / jnp.maximum(awake.sum(dtype=jnp.float32), 1.0)
        damage = event_damage(config.attack, self.tables, campaigns, event)
        future = remaining_damage(config.attack, self.tables, campaigns, state.ahead, left_s=left_s)[c]
        later = jnp.maximum(future - damage, 0.0)
        refusable = hostile & ~event.late & ~event.duplicate
        worth = jnp.where(hostile, later * reached, _POISON_WORTH)
        labelled = self.learned_label(state) == 1
        return credit_by_verdict(
            config.response,
            state.response,
            entity=event.entity,
            now_s=event.time_s,
            malicious=labelled,
            damage=jnp.where(labelled, damage, 0.0),
            silence_loss=rate.astype(jnp.float32) * config.unit_hz * silence_s,
            remaining_damage=jnp.where(labelled, worth, 0.0),
            refusal_damage=jnp.where(labelled & refusable, later, 0.0),
        )

    def _move_on(
        self, state: SimulatorState, *, gone: Bool[Array, " slot"], birth: Birth, key: PRNGKeyArray
    ) -> tuple[SimulatorState, Observation, Float[Array, ""], Float[Array, ""]]:
        """Ends and starts processes, draws the next event and shows it.

        Returns:
            The state with the next event, its observation, the benign events that silent processes would have emitted
            until then, and the damage of attack steps that nobody reports.
        """
        config = self.config
        coming = next_event(
            config,
            self.tables,
            state.world,
            state.campaigns,
            state.response,
            state.event,
            gone=gone,
            birth=birth,
            key=key,
        )
        world, changed = turnover(state.world, self.tables, gone, coming.birth)
        response = _inherit(forget(state.response, changed), state.response, coming.birth)
        world, observation = observe(
            config.response, self.encoder, self.tables, self.lookup, world, response, coming.event
        )
        after = SimulatorState(
            world=world,
            campaigns=_first_shown(coming.campaigns, coming.event),
            ahead=state.ahead,
            response=response,
            event=coming.event,
            score=_met(state.score, coming.campaigns, coming.event),
            steps=state.steps,
        )
        return after, observation, coming.lost, coming.unseen


def _number(condition: Bool[Array, ""]) -> Float[Array, ""]:
    return condition.astype(jnp.float32)


def _inherit(response: ResponseState, before: ResponseState, birth: Birth) -> ResponseState:
    """A child of a silent process is silent as long as its parent (a birth that is reported late cannot be undone)."""
    child = (jnp.arange(response.silent_until_s.shape[0]) == birth.slot) & birth.when
    until_s = jnp.where(child, before.silent_until_s[birth.parent], response.silent_until_s)
    return eqx.tree_at(lambda r: r.silent_until_s, response, until_s)


def _met(score: Score, campaigns: Campaigns, event: Event) -> Score:
    """Counts a campaign at its first event that is shown; ``campaigns`` are those before it was."""
    new = (event.campaign >= 0) & jnp.isinf(campaigns.first_s[jnp.maximum(event.campaign, 0)])
    return eqx.tree_at(lambda s: s.campaigns, score, score.campaigns + _number(new))


def _first_shown(campaigns: Campaigns, event: Event) -> Campaigns:
    mine = jnp.arange(campaigns.stage.shape[0]) == event.campaign
    times = (campaigns.first_s, campaigns.since_s)
    shown = tuple(jnp.where(mine, jnp.minimum(each, event.time_s), each) for each in times)
    return eqx.tree_at(lambda c: (c.first_s, c.since_s), campaigns, shown)


def _furthest(campaigns: Campaigns) -> Float[Array, ""]:
    """Stages that any campaign has entered, counted along the catalogue; 0 before the first event."""
    known = jnp.isfinite(campaigns.first_s)
    return jnp.where(known, campaigns.stage + 1, 0).max().astype(jnp.float32)
