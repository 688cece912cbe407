"""The simulator: hosts at work, campaigns among them, and verdicts that change what happens next.

A step answers one event. The time between benign events is exponential with the total rate of the processes that are
awake; a campaign's attempts have their own clock and random numbers (``sim_campaign``). Verdicts act only through
``envs.response``; a quarantined process emits nothing and its silent time is charged at its own rate.
"""

from dataclasses import dataclass, replace

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from phalanx.data.encoder import Encoder
from phalanx.data.rolling import RollingState, rolling_step
from phalanx.envs.base import Environment, empty_score
from phalanx.envs.catalogue import (
    COMMANDS,
    KINDS,
    OBJECT_KINDS,
    PATHS,
    PROGRAMS,
    ROLES,
    STAGES,
    Tables,
    build_tables,
    template_index,
)
from phalanx.envs.response import (
    CONTEXT_COLUMNS,
    ResponseConfig,
    ResponseState,
    charge,
    context_features,
    credit_by_verdict,
    forget,
    init_response,
    respond,
    silent,
    subtree,
)
from phalanx.envs.sim_campaign import (
    AttackConfig,
    Campaigns,
    choose_turn,
    future_worth,
    init_campaigns,
    remaining_damage,
    stop,
)
from phalanx.envs.sim_core import core_features, core_size
from phalanx.envs.sim_event import N_BENIGN_DRAWS, Event, attack_event, benign_event
from phalanx.envs.sim_world import World, free_slot, init_world, kill, spawn, work_rate
from phalanx.errors import UsageError
from phalanx.types import Observation, ObservationSpec, Score, TimeStep, Truth, Verdict

__all__ = ["Simulator", "SimulatorConfig", "SimulatorState", "catalogue_encoder"]

_SPARE_SLOTS = 2
_MILLI = 1000.0
_START = len(ROLES["server"])
_MEAN_RELATIVE_RATE = 9.5
_VOCABULARY = {"kind": KINDS, "object_kind": OBJECT_KINDS, "path": PATHS, "command": COMMANDS}
_NUMBERS = {"size": (4.0, 4.0), "remote_port": (1.0, 2.5), "uid": (4.0, 3.0)}
_GROUPS = {
    "kind": "common",
    "object_kind": "file",
    "path": "file",
    "command": "process",
    "size": "file",
    "remote_port": "network",
    "uid": "identity",
}


@dataclass(frozen=True)
class SimulatorConfig:
    """Size and pace of the simulated world.

    Attributes:
        n_hosts: hosts.
        slots_per_host: process slots of a host, more than the processes of a role at the start.
        episode_events: events of an episode; then it is truncated.
        host_rate_hz: benign events of a host per second, about.
        attack: how attackers behave.
        response: effects and costs of the verdicts.
    """

    n_hosts: int = 4
    slots_per_host: int = 12
    episode_events: int = 512
    host_rate_hz: float = 0.25
    attack: AttackConfig = AttackConfig()
    response: ResponseConfig = ResponseConfig()

    def __post_init__(self) -> None:
        if self.slots_per_host <= _START + _SPARE_SLOTS or self.n_hosts < 1:
            raise UsageError(
                f"n_hosts={self.n_hosts}, slots_per_host={self.slots_per_host} in SimulatorConfig; needs at least one "
                f"host and more than {_START + _SPARE_SLOTS} slots each. Raise slots_per_host"
            )
        if not 0 <= self.attack.fewest <= self.attack.most or self.attack.most < 1:
            raise UsageError(
                f"campaigns from {self.attack.fewest} to {self.attack.most} in AttackConfig; "
                "needs 0 <= fewest <= most and most >= 1. Swap or raise them"
            )

    @property
    def duration_s(self) -> float:
        """Expected duration of an episode in which nothing is silent, in s."""
        return self.episode_events / (self.n_hosts * self.host_rate_hz)


class SimulatorState(eqx.Module):
    """Everything that the future depends on, the event that waits for its verdict included."""

    world: World
    campaigns: Campaigns
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
    worth: Float[Array, " success"]
    offset: Int[Array, " stage"]
    lookup: dict[str, Int[Array, " value"]]
    config: SimulatorConfig = eqx.field(static=True)
    encoder: Encoder = eqx.field(static=True)
    spec: ObservationSpec = eqx.field(static=True)

    def __init__(self, config: SimulatorConfig | None = None) -> None:
        """Builds the catalogue's arrays for a configuration (default: ``SimulatorConfig()``)."""
        self.config = SimulatorConfig() if config is None else config
        self.tables = build_tables()
        self.worth = jnp.asarray(future_worth(self.config.attack))
        needed = self.tables.needed
        self.offset = jnp.cumsum(needed) - needed
        self.encoder = catalogue_encoder()
        self.lookup = {name: self.encoder.category_lookup(name, raw) for name, raw in _VOCABULARY.items()}
        spec = self.encoder.spec(self.config.n_hosts * self.config.slots_per_host, CONTEXT_COLUMNS)
        self.spec = replace(spec, n_core=core_size(self.config.attack.most))

    @property
    def episode_events(self) -> int:
        """Events after which an episode is cut."""
        return self.config.episode_events

    @property
    def _unit_hz(self) -> float:
        """Events per second of a relative rate of one thousandth."""
        return self.config.host_rate_hz / (_MEAN_RELATIVE_RATE * _MILLI)

    def reset(self, key: PRNGKeyArray) -> tuple[SimulatorState, Observation]:
        """Starts an episode: roles of the hosts, campaigns, the first event."""
        key_role, key_attack, key_event = jax.random.split(key, 3)
        config = self.config
        role = jnp.floor(jax.random.uniform(key_role, (config.n_hosts,)) * len(ROLES)).astype(jnp.int32)
        world = init_world(self.tables, role, config.slots_per_host)
        campaigns = init_campaigns(config.attack, key_attack, config.duration_s)
        response = init_response(config.response, world.alive.shape[0])
        world, response, event, _ = self._next(world, campaigns, response, jnp.float32(0.0), key_event)
        score = eqx.tree_at(lambda s: s.duration_s, empty_score(), event.time_s)
        score = self._meet(score, campaigns, event)
        campaigns = _first_attempt(campaigns, event)
        world, observation = self._observe(world, response, event)
        return SimulatorState(world, campaigns, response, event, score, jnp.int32(0)), observation

    def step(
        self, state: SimulatorState, verdict: Int[Array, ""], key: PRNGKeyArray
    ) -> tuple[SimulatorState, TimeStep]:
        """Answers the event shown last."""
        config, event, before = self.config.response, state.event, state.score
        now_s, malicious = event.time_s, event.campaign >= 0
        hostile = state.world.alive & (state.world.campaign >= 0)
        credit = self._credit(state)
        response, effect = respond(
            config, state.response, verdict=verdict, entity=event.entity, now_s=now_s,
            parent=state.world.parent, malicious=hostile,
        )  # fmt: skip
        happened = effect.happened & ~effect.contained[event.entity]
        world, campaigns, response, damage, complete = self._apply(state, response, happened)
        world, campaigns, response, newly = self._contain(world, campaigns, response, complete, now_s)

        world, response, following, lost = self._next(world, campaigns, response, now_s, key)
        denied = ~malicious & ~happened
        score = Score(
            damage=before.damage + damage,
            malicious=before.malicious + _number(malicious),
            benign=before.benign + _number(~malicious) + lost,
            benign_lost=before.benign_lost + _number(denied) + lost,
            false_blocks=before.false_blocks + _number(~malicious & (verdict >= Verdict.BLOCK)),
            alerts=before.alerts + _number(effect.ticket),
            restrictions=before.restrictions + _number(verdict >= Verdict.BLOCK),
            campaigns=before.campaigns,
            contained=before.contained + newly.sum(dtype=jnp.float32),
            contain_s=before.contain_s
            + jnp.where(newly, now_s - campaigns.first_s, 0.0).sum(dtype=jnp.float32),
            duration_s=following.time_s,
            events=before.events + 1.0,
            loss=before.loss,
            furthest=jnp.maximum(before.furthest, 1.0 + campaigns.stage.max()),
        )
        score, loss = charge(
            config, before=before, after=score, alerted=verdict == Verdict.ALERT, ticket=effect.ticket
        )
        score = self._meet(score, campaigns, following)
        campaigns = _first_attempt(campaigns, following)
        world, observation = self._observe(world, response, following)
        steps = state.steps + 1
        terminated = complete.any()
        time_step = TimeStep(
            observation=observation,
            reward=-loss,
            credit=credit,
            terminated=terminated,
            truncated=(steps >= self.config.episode_events) & ~terminated,
            final_observation=observation,
            truth=self.pending(state),
            score=score,
        )
        return SimulatorState(world, campaigns, response, following, score, steps), time_step

    def pending(self, state: SimulatorState) -> Truth:
        """The truth of the event that waits."""
        event = state.event
        return Truth(
            (event.campaign >= 0).astype(jnp.int32), event.campaign, event.stage, jnp.int32(-1), jnp.int32(0)
        )

    def core(self, state: SimulatorState) -> Float[Array, " core"]:
        """What the critic is told: see ``sim_core.core_features``."""
        event, campaigns = state.event, state.campaigns
        rate = work_rate(state.world, self.tables)
        return core_features(
            world=state.world,
            campaigns=campaigns,
            response=state.response,
            event=event,
            worth=self.worth,
            passed=self._passed(campaigns),
            rate_hz=rate.astype(jnp.float32) * self._unit_hz,
            damage=jnp.where(event.campaign >= 0, self._damage(campaigns, event), 0.0),
            credit=self._credit(state),
            ttl_s=self.config.response.quarantine_ttl_s,
        )

    def _passed(self, campaigns: Campaigns) -> Int[Array, " campaign"]:
        """Successful events of each campaign so far."""
        return self.offset[campaigns.stage] + campaigns.progress

    def _credit(self, state: SimulatorState) -> Float[Array, " verdict"]:
        """What each verdict is worth; a quarantine prevents the share of the campaign's footholds that it covers."""
        event, world, campaigns = state.event, state.world, state.campaigns
        malicious, c = event.campaign >= 0, jnp.maximum(event.campaign, 0)
        left = jnp.maximum(self.config.episode_events - state.steps, 0).astype(jnp.float32)
        left_s = left / (self.config.n_hosts * self.config.host_rate_hz)
        inside = subtree(jnp.arange(world.alive.shape[0]) == event.entity, world.parent)
        rate = jnp.where(inside, work_rate(world, self.tables), 0).sum(dtype=jnp.int32)
        silence_s = jnp.minimum(self.config.response.quarantine_ttl_s, left_s)
        awake = world.alive & (world.campaign == c) & ~silent(state.response, event.time_s)
        reached = (inside & awake).sum(dtype=jnp.float32) / jnp.maximum(awake.sum(dtype=jnp.float32), 1.0)
        passed = self._passed(campaigns)[c]
        future = remaining_damage(
            self.config.attack,
            campaigns,
            self.worth,
            campaign=c,
            passed=passed + event.effective.astype(jnp.int32),
            left_s=left_s,
        )
        return credit_by_verdict(
            self.config.response,
            state.response,
            entity=event.entity,
            now_s=event.time_s,
            malicious=malicious,
            damage=jnp.where(malicious, self._damage(campaigns, event), 0.0),
            silence_loss=rate.astype(jnp.float32) * self._unit_hz * silence_s,
            remaining_damage=jnp.where(malicious, future * reached, 0.0),
        )

    def _damage(self, campaigns: Campaigns, event: Event) -> Float[Array, ""]:
        """Damage of a campaign's event if it happens, the final damage included."""
        stage = jnp.maximum(event.stage, 0)
        c = jnp.maximum(event.campaign, 0)
        last = (stage == len(STAGES) - 1) & (campaigns.progress[c] + 1 >= self.tables.needed[stage])
        damage = self.tables.damage[stage] + jnp.where(last, self.config.attack.final_damage, 0.0)
        return jnp.where(event.effective, damage, 0.0)

    def _apply(
        self, state: SimulatorState, response: ResponseState, happened: Bool[Array, ""]
    ) -> tuple[World, Campaigns, ResponseState, Float[Array, ""], Bool[Array, " campaign"]]:
        """What the event changes: births, exits, user ids, a campaign's progress; returns damage and completion."""
        event, world, campaigns, tables = state.event, state.world, state.campaigns, self.tables
        slots = jnp.arange(world.alive.shape[0])
        acting = slots == event.entity
        malicious, c = event.campaign >= 0, jnp.maximum(event.campaign, 0)
        stage = jnp.maximum(event.stage, 0)

        door = world.alive & (world.program == _program("ssh")) & (world.host == event.host)
        door = jnp.argmax(door & (world.campaign < 0)).astype(jnp.int32)
        moves = tables.moves[stage] > 0
        closed = malicious & moves & silent(response, event.time_s)[door]
        finishes = campaigns.progress[c] + 1 >= tables.needed[stage]
        success = malicious & happened & event.effective & ~(closed & finishes)
        advances = success & finishes
        final = advances & (stage == len(STAGES) - 1)
        damage = jnp.where(success, self._damage(campaigns, event), 0.0)

        forks = (event.template == template_index("fork")) | (event.template == template_index("clone"))
        slot, free = free_slot(world, event.host)
        births = jnp.where(
            malicious, advances & (event.child >= 0) & (free > 0), forks & (free >= _SPARE_SLOTS)
        )
        roots = ~malicious & (event.template == template_index("change_principal"))
        world = eqx.tree_at(
            lambda w: (w.uid, w.burst, w.first),
            world,
            (
                jnp.where(acting & roots & happened, 0, world.uid),
                world.burst ^ (acting & event.turns_burst),
                world.first & ~acting,
            ),
        )
        parent = jnp.where(malicious & moves, door, event.entity)
        world, new = spawn(
            world,
            when=births & happened,
            slot=slot,
            parent=parent,
            program=jnp.maximum(event.child, 0),
            variant=event.variant,
            uid=world.uid[parent],
            campaign=event.campaign,
        )
        gone = acting & happened & ~malicious & (event.template == template_index("exit"))
        world = kill(world, gone)
        mine = (jnp.arange(campaigns.stage.shape[0]) == c) & malicious
        campaigns = eqx.tree_at(
            lambda k: (k.attempts, k.next_s, k.stage, k.progress),
            campaigns,
            (
                campaigns.attempts + mine.astype(jnp.int32),
                jnp.where(mine, event.time_s + event.wait_s, campaigns.next_s),
                jnp.where(mine & advances & ~final, campaigns.stage + 1, campaigns.stage),
                jnp.where(mine & success, jnp.where(advances, 0, campaigns.progress + 1), campaigns.progress),
            ),
        )
        return world, campaigns, forget(response, new | gone), damage, mine & final

    def _contain(
        self,
        world: World,
        campaigns: Campaigns,
        response: ResponseState,
        complete: Bool[Array, " campaign"],
        now_s: Float[Array, ""],
    ) -> tuple[World, Campaigns, ResponseState, Bool[Array, " campaign"]]:
        """Ends the campaigns whose processes are all silent and those that are complete."""
        n = complete.shape[0]
        owned = world.alive[None, :] & (world.campaign[None, :] == jnp.arange(n)[:, None])
        at_large = (owned & ~silent(response, now_s)[None, :]).any(axis=1)
        contained = owned.any(axis=1) & ~at_large & ~complete
        newly = contained & ~campaigns.contained
        campaigns = stop(campaigns, contained=contained, complete=complete, now_s=now_s)
        gone = (owned & (contained | complete)[:, None]).any(axis=0)
        return kill(world, gone), campaigns, forget(response, gone), newly

    def _next(
        self,
        world: World,
        campaigns: Campaigns,
        response: ResponseState,
        now_s: Float[Array, ""],
        key: PRNGKeyArray,
    ) -> tuple[World, ResponseState, Event, Float[Array, ""]]:
        """Draws the next event and counts the benign events that silent processes would have emitted until then."""
        config, tables = self.config, self.tables
        u = jax.random.uniform(key, (N_BENIGN_DRAWS,))
        rate = work_rate(world, tables)
        muted = silent(response, now_s)
        total = jnp.where(muted, 0, rate).sum(dtype=jnp.int32)
        gap_s = -jnp.log1p(-u[9]) / (jnp.maximum(total, 1).astype(jnp.float32) * self._unit_hz)
        wakes_s = jnp.where(muted & (rate > 0), response.silent_until_s, jnp.inf).min()
        benign_s = now_s + jnp.where(total > 0, gap_s, 0.0)
        benign_s = jnp.where(total > 0, benign_s, wakes_s)

        awake = world.alive & ~muted
        free = (~world.alive).reshape(config.n_hosts, -1).sum(axis=1, dtype=jnp.int32)
        turn = choose_turn(config.attack, campaigns, world, tables, awake=awake, now_s=now_s, free=free)
        attacks = turn.possible & (turn.time_s <= benign_s)
        time_s = jnp.where(attacks, turn.time_s, benign_s)
        lost = self._silent_work(rate, response, muted, now_s, time_s)

        ready = jnp.where(silent(response, time_s), 0, rate)
        chosen = jnp.cumsum(ready)
        aim = jnp.floor(u[10] * chosen[-1].astype(jnp.float32)).astype(jnp.int32)
        slot = jnp.minimum((chosen <= aim).sum(dtype=jnp.int32), ready.shape[0] - 1)
        benign = benign_event(
            tables, world, slot=slot, time_s=time_s, u=u, slots_per_host=config.slots_per_host
        )

        entry, _ = free_slot(world, world.host[turn.slot])
        world, new = spawn(
            world,
            when=attacks & turn.enters,
            slot=entry,
            parent=turn.slot,
            program=jnp.maximum(tables.entry[world.program[turn.slot]], 0),
            variant=jnp.floor(turn.draws[11] * 3.0).astype(jnp.int32),
            uid=world.uid[turn.slot],
            campaign=turn.campaign,
        )
        actor = jnp.where(turn.enters, entry, turn.slot)
        hostile = attack_event(tables, world, campaigns, turn, slot=actor, n_hosts=config.n_hosts)
        event = jax.tree.map(lambda a, b: jnp.where(attacks, a, b), hostile, benign)
        return world, forget(response, new), event, lost

    def _silent_work(
        self,
        rate: Int[Array, " slot"],
        response: ResponseState,
        muted: Bool[Array, " slot"],
        now_s: Float[Array, ""],
        then_s: Float[Array, ""],
    ) -> Float[Array, ""]:
        """Benign events that the silent processes would have emitted from ``now_s`` to ``then_s``."""
        silent_s = jnp.minimum(response.silent_until_s, then_s) - now_s
        work = jnp.where(muted, rate.astype(jnp.float32) * silent_s, 0.0)
        return work.sum(dtype=jnp.float32) * self._unit_hz

    def _observe(self, world: World, response: ResponseState, event: Event) -> tuple[World, Observation]:
        """Shows an event: its ids and numbers, its process's statistics and the state of the response."""
        tables, entity = self.tables, event.entity
        before = jax.tree.map(lambda x: x[entity], world.rolling)
        after, rolling = rolling_step(before, tables.event_class[event.template], event.time_s)
        acting = jnp.arange(world.alive.shape[0]) == entity

        def put(new: Array, old: Array) -> Array:
            mask = acting.reshape(-1, *(1,) * new.ndim)
            return jnp.where(mask, new, old)

        kept: RollingState = jax.tree.map(put, after, world.rolling)
        world = eqx.tree_at(
            lambda w: (w.rolling, w.last), world, (kept, jnp.where(acting, event.template, world.last))
        )
        lookup = self.lookup
        category = jnp.stack(
            [
                lookup["kind"][tables.kind[event.template]],
                lookup["object_kind"][tables.object_kind[event.template]],
                lookup["path"][event.path],
                lookup["command"][world.command[entity]],
            ]
        )
        raw = jnp.stack([event.size, event.port.astype(jnp.float32), event.uid.astype(jnp.float32)])
        scaled = self.encoder.scale(raw)
        context = context_features(self.config.response, response, entity, event.time_s)
        numeric = jnp.concatenate([scaled, rolling, context])
        return world, Observation(category=category, numeric=numeric, entity=entity, source=event.source)

    def _meet(self, score: Score, campaigns: Campaigns, event: Event) -> Score:
        """Counts a campaign at its first event."""
        c = jnp.maximum(event.campaign, 0)
        new = (event.campaign >= 0) & jnp.isinf(campaigns.first_s[c])
        return eqx.tree_at(lambda s: s.campaigns, score, score.campaigns + _number(new))


def _number(condition: Bool[Array, ""]) -> Float[Array, ""]:
    return condition.astype(jnp.float32)


def _program(name: str) -> int:
    return tuple(PROGRAMS).index(name)


def _first_attempt(campaigns: Campaigns, event: Event) -> Campaigns:
    mine = jnp.arange(campaigns.stage.shape[0]) == event.campaign
    first_s = jnp.where(mine, jnp.minimum(campaigns.first_s, event.time_s), campaigns.first_s)
    return eqx.tree_at(lambda c: c.first_s, campaigns, first_s)


def catalogue_encoder() -> Encoder:
    """The encoder of the catalogue's vocabulary, for the simulator and for tables that it wrote."""
    known = {name: tuple(value for value in raw if value) for name, raw in _VOCABULARY.items()}
    return Encoder.from_vocabulary(known, _NUMBERS, groups=_GROUPS)
