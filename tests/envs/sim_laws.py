"""Laws of cause and effect that every simulated episode keeps, and an account of verdicts kept apart from the engine's.

Each law marks the steps [time, env] that break it. The account follows processes by their serial numbers and parents
alone: it knows nothing of slots' bits, of the response's state or of the campaign's bookkeeping.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from envs.simulated import Episodes, take

from phalanx.envs.catalogue import PROGRAMS, ROLES, STAGES
from phalanx.types import Verdict

__all__ = ["LAWS", "Account", "account_of", "benign_rate"]

_NEEDED = np.array([stage.needed for stage in STAGES.values()])
_DAMAGE = np.array([stage.damage for stage in STAGES.values()])
_RATES = np.array([program.rate for program in PROGRAMS.values()])
_NAMES = tuple(PROGRAMS)
_SSH, _UPDATER = _NAMES.index("ssh"), _NAMES.index("updater")
_ROOTS = len(ROLES["web"].programs)


@dataclass(frozen=True)
class Account:
    """What the verdicts must have done.

    Attributes:
        ancestors: [env, serial, serial], a process itself among its own.
        until_s: [time, env, slot], the end of each process's silence after the answer, in s (-inf: awake).
        mute: [time, env], the acting process was silent at its event.
        mute_kin: [time, env], a living ancestor of it was.
        happened: [time, env], the event took place.
        ticket: [time, env], the answer opened a ticket.
        refusals: [time, env, campaign], refusals in a row after the answer.
        success: [time, env], it advances its campaign.
        finishes: [time, env], it would complete the campaign's stage.
    """

    ancestors: np.ndarray
    until_s: np.ndarray
    mute: np.ndarray
    mute_kin: np.ndarray
    happened: np.ndarray
    ticket: np.ndarray
    refusals: np.ndarray
    success: np.ndarray
    finishes: np.ndarray


def _ancestors(world: Any) -> np.ndarray:
    """Who descends from whom, by the parents' serial numbers."""
    n_envs, n = world.alive.shape[1], int(world.births.max())
    parent = np.full((n_envs, n), -1)
    t, e, slot = np.nonzero(world.alive)
    parent[e, world.serial[t, e, slot]] = world.born_of[t, e, slot]
    found = np.zeros((n_envs, n, n), bool)
    envs = np.arange(n_envs)
    for serial in range(n):
        mother = parent[:, serial]
        found[:, serial] = found[envs, np.maximum(mother, 0)] & (mother >= 0)[:, None]
        found[:, serial, serial] = True
    return found


class _Books:
    """The account while it is kept: silence and tickets by serial number, analysts, refusals."""

    def __init__(self, run: Episodes, ancestors: np.ndarray) -> None:
        n_envs, n = ancestors.shape[:2]
        self.run, self.ancestors, self.envs = run, ancestors, np.arange(n_envs)
        self.until = np.full((n_envs, n), -np.inf, np.float32)
        self.ticket = np.full((n_envs, n), np.inf, np.float32)
        self.free = np.zeros((n_envs, run.config.response.analysts), np.float32)
        self.refusals = np.zeros((n_envs, run.config.attack.most), int)

    def _contain(self, alive: np.ndarray, hostile: np.ndarray, now: np.ndarray) -> np.ndarray:
        """Tickets that fall due: the living processes below a hostile one are silent for good."""
        due = alive & (self.ticket <= now[:, None])
        below = alive & (self.ancestors & (due & hostile)[:, None, :]).any(-1)
        self.ticket[due] = np.inf
        self.until[below] = np.inf
        return below

    def _open(self, alerted: np.ndarray, actor: np.ndarray, now: np.ndarray) -> np.ndarray:
        """Tickets that alerts open, if an analyst is free soon enough."""
        response, envs = self.run.config.response, self.envs
        analyst = self.free.argmin(-1)
        start = np.maximum(now, self.free[envs, analyst])
        opens = alerted & np.isinf(self.ticket[envs, actor])
        opens &= start - now <= np.float32(response.max_wait_s)
        done = start + np.float32(response.service_s)
        self.ticket[envs[opens], actor[opens]] = done[opens]
        self.free[envs[opens], analyst[opens]] = done[opens]
        return opens

    def answer(self, t: int) -> tuple[np.ndarray, ...]:
        """One step of all environments."""
        state, verdict, envs = self.run.state, self.run.verdict[t], self.envs
        world, event = state.world, state.event
        now, slot, serial = event.time_s[t], event.entity[t], world.serial[t]
        if t:  # a child whose birth was reported late is born into its parent's silence
            e, k = np.nonzero(world.alive[t] & (serial >= world.births[t - 1][:, None]))
            self.until[e, serial[e, k]] = self.until[e, world.born_of[t][e, k]]
        actor = serial[envs, slot]
        alive, hostile = np.zeros_like(self.until, bool), np.zeros_like(self.until, bool)
        e, k = np.nonzero(world.alive[t])
        alive[e, serial[e, k]] = True
        hostile[e, serial[e, k]] = world.campaign[t][e, k] >= 0
        quiet = self.until > now[:, None]
        mute, kin = quiet[envs, actor], (quiet & alive & self.ancestors[envs, actor]).any(-1)
        contained = self._contain(alive, hostile, now)[envs, actor]
        ticket = self._open(verdict == Verdict.ALERT, actor, now)
        below = alive & self.ancestors[envs, :, actor] & (verdict == Verdict.QUARANTINE)[:, None]
        end = (now + np.float32(self.run.config.response.quarantine_ttl_s))[:, None]
        self.until = np.where(below, np.maximum(self.until, end), self.until)
        happened = ((verdict < Verdict.BLOCK) & ~contained) | event.late[t]
        success, finishes = self._success(t, happened)
        self._count(t, happened, success)
        until = np.where(world.alive[t], np.take_along_axis(self.until, serial, 1), -np.inf)
        return until, mute, kin, happened, ticket, self.refusals.copy(), success, finishes

    def _success(self, t: int, happened: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """An effective attempt that happened, unless it ends in a move through a silent door."""
        state, envs, config = self.run.state, self.envs, self.run.config
        event, campaigns, c = state.event, state.campaigns, np.maximum(state.event.campaign[t], 0)
        stage = np.maximum(event.stage[t], 0)
        finishes = campaigns.progress[t][envs, c] + 1 >= _NEEDED[stage]
        moves = np.array([each.moves for each in STAGES.values()])[stage]
        program = state.world.program[t].reshape(len(envs), config.n_hosts, -1)[envs, event.host[t], :_ROOTS]
        door = event.host[t] * config.slots_per_host + (program == _SSH).argmax(-1)
        closed = self.until[envs, state.world.serial[t][envs, door]] > event.time_s[t]
        real = (event.campaign[t] >= 0) & event.effective[t] & ~event.duplicate[t]
        return happened & real & ~(closed & moves & finishes), finishes

    def _count(self, t: int, happened: np.ndarray, success: np.ndarray) -> None:
        event, envs = self.run.state.event, self.envs
        tried = (event.campaign[t] >= 0) & ~event.duplicate[t]
        c = np.maximum(event.campaign[t], 0)
        self.refusals[envs[tried & ~happened], c[tried & ~happened]] += 1
        self.refusals[envs[success], c[success]] = 0

    def comes_back(self, t: int) -> None:
        """A campaign that returns has forgotten its refusals."""
        returned = self.run.state.campaigns.returned
        self.refusals[returned[t + 1] & ~returned[t]] = 0


def account_of(run: Episodes) -> Account:
    """Keeps the account over all steps."""
    ancestors = _ancestors(run.state.world)
    books, rows = _Books(run, ancestors), []
    for t in range(len(run.verdict)):
        rows.append(books.answer(t))
        if t + 1 < len(run.verdict):
            books.comes_back(t)
    return Account(ancestors, *(np.stack(column) for column in zip(*rows, strict=True)))


def benign_rate(run: Episodes) -> np.ndarray:
    """Events per second of each slot's benign process [time, env, slot], in float64.

    Day and night are a triangle with its peak at 14:00 and its foot at 2:00; bursts are 3 times the mean pace, calm .7
    of it; updaters do six times as much in the ten minutes of a roll-out.
    """
    world, now = run.state.world, run.state.event.time_s.astype(np.float64)
    hour = (world.start_s + now) / 3600.0 % 24.0
    swing = 1.0 - np.minimum(np.abs(hour - 14.0), 24.0 - np.abs(hour - 14.0)) / 6.0
    pace = 1.0 + world.day / 1000.0 * swing[..., None]
    pace = np.repeat(pace, run.config.slots_per_host, axis=-1)
    rolls = (now >= world.rollout_s) & (now < world.rollout_s + 600.0)
    updates = np.where(rolls[..., None] & (world.program == _UPDATER), 6.0, 1.0)
    benign = world.alive & (world.campaign < 0)
    work = benign * _RATES[world.program] * np.where(world.burst, 3.0, 0.7) * pace * updates
    return work * run.config.host_rate_hz / 9.5


def _padded(broken: np.ndarray) -> np.ndarray:
    """Of transitions: the last step's consequence is not known."""
    return np.concatenate([broken, np.zeros_like(broken[:1])])


def _same(run: Episodes) -> np.ndarray:
    """Slots [time - 1, env, slot] that hold the same living process before and after a step."""
    world = run.state.world
    return world.alive[:-1] & world.alive[1:] & (world.serial[:-1] == world.serial[1:])


def _own(run: Episodes) -> np.ndarray:
    """The campaign [time, env, campaign] whose attempt waits, for the first time it is reported."""
    numbers = np.arange(run.state.campaigns.stage.shape[-1])
    return (run.state.event.campaign[..., None] == numbers) & ~run.state.event.duplicate[..., None]


def _unseen(run: Episodes) -> np.ndarray:
    """Attempts [time - 1, env, campaign] that no sensor reported after a step."""
    tried = np.diff(run.state.campaigns.attempts, axis=0)
    return tried - _own(run)[:-1]


def _expected(run: Episodes, account: Account) -> tuple[np.ndarray, np.ndarray]:
    """Stage and progress after each step [time - 1, env, campaign], but for attempts that nobody reports."""
    k = run.state.campaigns
    stage, progress = k.stage[:-1], k.progress[:-1]
    success = _own(run)[:-1] & account.success[:-1, :, None]
    finishes = success & (progress + 1 >= _NEEDED[stage])
    ahead = k.route[:-1] & (np.arange(len(STAGES)) > stage[..., None])
    following = np.where(ahead.any(-1), ahead.argmax(-1), stage)
    returns = k.returned[1:] & ~k.returned[:-1]
    stage = np.where(returns, 0, np.where(finishes, following, stage))
    progress = np.where(returns | finishes, 0, progress + success)
    return stage, progress


def _damage_of(run: Episodes, account: Account) -> np.ndarray:
    """Damage of each step [time - 1, env]: of the answered event and of attempts that nobody reports."""
    k, event = run.state.campaigns, run.state.event
    stage = np.maximum(event.stage[:-1], 0)
    c = np.maximum(event.campaign[:-1], 0)
    route = np.take_along_axis(k.route[:-1], c[..., None, None], axis=2)[:, :, 0]
    last = ~(route & (np.arange(len(STAGES)) > stage[..., None])).any(-1)
    final = last & account.finishes[:-1]
    done = account.success[:-1] * (_DAMAGE[stage] + final * run.config.attack.final_damage)
    secret = (k.progress[1:] - _expected(run, account)[1]).clip(0) * _DAMAGE[k.stage[1:]]
    return done + secret.sum(-1)


def _step_of(values: np.ndarray) -> np.ndarray:
    """What one step adds to a running total [time, env]."""
    return np.diff(values.astype(np.float64), axis=0, prepend=0.0)


def _time(run: Episodes, account: Account) -> np.ndarray:
    time = run.state.event.time_s
    return _padded(~(np.diff(time, axis=0) >= 0)) | ~np.isfinite(time)


def _actors(run: Episodes, account: Account) -> np.ndarray:
    event, world = run.state.event, run.state.world
    mine = take(world.campaign, event.entity) == event.campaign
    other = (take(world.uid, event.entity) != event.uid) & ~event.duplicate
    return ~take(world.alive, event.entity) | ~mine | other


def _record(run: Episodes, account: Account) -> np.ndarray:
    kept = run.state.response.silent_until_s[1:]
    now = run.state.event.time_s[:-1, :, None]
    own = account.until_s[:-1]
    return _padded((_same(run) & (kept != own) & ((kept > now) | (own > now))).any(-1))


def _denied(run: Episodes, account: Account) -> np.ndarray:
    """Denied attempts: no progress of the campaign and no damage but of attempts that nobody reports."""
    event, k = run.state.event, run.state.campaigns
    refused = (event.campaign >= 0) & (run.verdict >= Verdict.BLOCK) & ~event.late & ~event.duplicate
    own, unseen = _own(run)[:-1], _unseen(run)
    moved = (k.stage[1:] > k.stage[:-1]) | (k.progress[1:] > k.progress[:-1] + unseen)
    harmed = _step_of(run.step.score.damage)[:-1] > 0
    harmed &= (unseen == 0).all(-1)
    return _padded(refused[:-1] & ((own & moved).any(-1) | harmed))


def _stages(run: Episodes, account: Account) -> np.ndarray:
    k = run.state.campaigns
    stage, progress = _expected(run, account)
    secret, unseen = k.progress[1:] - progress, _unseen(run)
    wrong = (k.stage[1:] != stage) | (secret < 0) | (secret > unseen) | (unseen < 0)
    wrong |= (unseen > 0) & ((run.config.lost == 0.0) | (k.progress[1:] >= _NEEDED[k.stage[1:]]))
    complete = account.success & account.finishes
    return _padded(wrong.any(-1)) | (run.step.terminated & ~complete)


def _damage(run: Episodes, account: Account) -> np.ndarray:
    return _padded(_step_of(run.step.score.damage)[:-1] != _damage_of(run, account))


def _containment(run: Episodes, account: Account) -> np.ndarray:
    """A campaign ends exactly when none of its processes is awake or its attacker has had enough."""
    k, world = run.state.campaigns, run.state.world
    numbers = np.arange(k.stage.shape[-1])
    owned = world.alive[..., None, :] & (world.campaign[..., None, :] == numbers[:, None])
    awake = owned & (account.until_s <= run.state.event.time_s[..., None])[..., None, :]
    gives_up = (account.refusals >= k.patience) & ~k.stopped
    complete = _own(run) & run.step.terminated[..., None]
    ended = ((owned.any(-1) & ~awake.any(-1)) | gives_up) & ~complete
    wrong = (k.contained[1:] != (k.contained[:-1] | ended[:-1])).any(-1)
    orphans = (owned.any(-1) & k.stopped).any(-1)
    return _padded(wrong | orphans[1:])


def _quiet(run: Episodes, account: Account) -> np.ndarray:
    """Campaigns that are over act no more."""
    event, k = run.state.event, run.state.campaigns
    over = take(k.stopped, np.maximum(event.campaign, 0))
    return (event.campaign >= 0) & over


def _cost(run: Episodes, account: Account) -> np.ndarray:
    """Benign work lost: denied events, and the silent time of each process at its own pace."""
    world, event = run.state.world, run.state.event
    now, then = event.time_s[:-1].astype(np.float64), event.time_s[1:].astype(np.float64)
    until = account.until_s[:-1]
    silent_s = np.clip(np.minimum(until, then[..., None]) - now[..., None], 0.0, None)
    burst = np.where(_same(run), world.burst[1:], world.burst[:-1])
    pace = np.where(burst, 3.0, 0.7) / np.where(world.burst[:-1], 3.0, 0.7)
    work = benign_rate(run)[:-1] * pace * ~_ends(run)[:-1]
    lost = np.where(until > now[..., None], work * silent_s, 0.0).sum(-1)
    denied = (event.campaign < 0) & ~account.happened & ~event.duplicate
    found = _step_of(run.step.score.benign_lost)[:-1]
    return _padded(
        np.abs(found - lost - denied[:-1]) > 0.01 * lost + 2e-3 + 1e-6 * run.step.score.benign[:-1]
    )


def _ends(run: Episodes) -> np.ndarray:
    """The slot [time, env, slot] of a job that ends with its event."""
    event = run.state.event
    happened = (run.verdict < Verdict.BLOCK) | event.late
    acting = np.arange(run.state.world.alive.shape[-1]) == event.entity[..., None]
    return acting & (event.ends & happened & ~event.duplicate)[..., None]


def _slots(run: Episodes, account: Account) -> np.ndarray:
    """A slot holds one process from its birth to its end, and is free when one is born."""
    world, k = run.state.world, run.state.campaigns
    same, born = _same(run), world.alive[1:] & (world.serial[1:] >= world.births[:-1, :, None])
    wrong = world.alive[1:] & ~same & ~born
    for name in ("program", "command", "parent", "parent_command", "born_of", "campaign", "rate", "entry"):
        values = getattr(world, name)
        wrong |= same & (values[1:] != values[:-1])
    wrong |= same & (world.uid[1:] != world.uid[:-1]) & (world.uid[1:] != 0)
    over = (k.stopped[1:] | (k.returned[1:] & ~k.returned[:-1])).astype(int)
    owner = np.maximum(world.campaign[:-1], 0)
    dismissed = (world.campaign[:-1] >= 0) & (np.take_along_axis(over, owner, -1) > 0)
    gone = world.alive[:-1] & ~same
    wrong |= gone != (world.alive[:-1] & (_ends(run)[:-1] | dismissed))
    count = np.diff(world.births, axis=0)
    return _padded(wrong.any(-1) | (born.sum(-1) != count) | (count > 1))


def _serials(run: Episodes, account: Account) -> np.ndarray:
    """Living processes have numbers of their own, greater than their parents'."""
    world = run.state.world
    numbers = np.sort(np.where(world.alive, world.serial, -1 - np.arange(world.alive.shape[-1])), axis=-1)
    twice = (numbers[..., 1:] == numbers[..., :-1]).any(-1)
    return twice | (world.alive & (world.born_of >= world.serial)).any(-1)


def _lineage(run: Episodes, account: Account) -> np.ndarray:
    """The bits of a living process are its living ancestors on its host, by a walk over the parents."""
    world, n_hosts = run.state.world, run.config.n_hosts
    broken = np.zeros(run.live.shape, bool)
    envs = np.arange(run.live.shape[1])[:, None, None]
    host = np.arange(world.alive.shape[-1]) // (world.alive.shape[-1] // n_hosts)
    bit = 1 << (np.arange(len(host)) % (len(host) // n_hosts))
    near = host[:, None] == host[None, :]
    for t in range(len(broken)):
        serial, alive = world.serial[t], world.alive[t]
        kin = account.ancestors[envs, serial[:, :, None], serial[:, None, :]] & near & alive[:, None, :]
        broken[t] = (alive & ((kin * bit).sum(-1) != world.lineage[t])).any(-1)
    return broken


def _score(run: Episodes, account: Account) -> np.ndarray:
    """Counts, tickets and the loss."""
    event, score, config = run.state.event, run.step.score, run.config.response
    malicious = event.campaign >= 0
    wrong = _step_of(score.malicious) != malicious
    wrong |= _step_of(score.alerts) != account.ticket
    wrong |= _step_of(score.restrictions) != (run.verdict >= Verdict.BLOCK)
    alerts = np.where(account.ticket, config.ticket_cost, config.alert_cost) * (run.verdict == Verdict.ALERT)
    loss = (
        score.damage + config.benign_cost * score.benign_lost.astype(np.float64) + np.cumsum(alerts, axis=0)
    )
    wrong |= np.abs(loss - score.loss) > 1e-5 * loss + 2e-3
    return wrong | (np.abs(_step_of(score.loss) + run.step.reward) > 1e-6 * loss + 1e-3)


LAWS: dict[str, Callable[[Episodes, Account], np.ndarray]] = {
    "time never runs backwards": _time,
    "only living processes act, for the campaign that owns them": _actors,
    "silent processes emit nothing": lambda run, account: account.mute,
    "nothing acts below a silent process": lambda run, account: account.mute_kin,
    "silence is what the verdicts and the analysts ordered": _record,
    "a denied attempt neither advances nor harms": _denied,
    "stages are entered one after the other on the route, by success alone": _stages,
    "damage is that of the successes": _damage,
    "campaigns end where all their processes are silent or the attacker gives up": _containment,
    "campaigns that are over do not act": _quiet,
    "work lost is what was denied and the silent time of benign processes": _cost,
    "a slot holds one process, births find it free": _slots,
    "numbers of processes are unique and grow": _serials,
    "bits of lineage are a walk over the parents": _lineage,
    "the score adds up": _score,
}
"""Name -> law: which steps [time, env] break it."""
