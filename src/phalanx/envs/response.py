"""What the four verdicts do, defined once for the simulator and for replay.

- allow: the event happens.
- alert: it happens, and a ticket goes to the analysts (capacity, service time); a closed ticket on a malicious process
  contains it.
- block: this event is denied; the process goes on.
- quarantine: this event is denied, and the process and its descendants fall silent until the time to live has passed.

The environment supplies the truth, the damage and the process tree; this module keeps the silence, the tickets and the
costs.
"""

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from phalanx.types import N_VERDICTS, Column, Score, Verdict

__all__ = [
    "CONTEXT_COLUMNS",
    "Response",
    "ResponseConfig",
    "ResponseState",
    "charge",
    "context_features",
    "credit_by_verdict",
    "forget",
    "init_response",
    "respond",
    "silent",
    "subtree",
    "subtree_of_few",
]

CONTEXT_COLUMNS = (
    Column("answers_on_process", "context"),
    Column("ticket_open", "context"),
    Column("analyst_wait", "context"),
    Column("answer_rate", "context"),
    Column("silent_share", "context"),
)

_ANSWER_LOSS = (
    0.125  # powers of two: their products are exact, so that a fused multiply-add gives the same bits
)
_RATE_GAIN = 1.0 / 128.0
_TREE_DEPTH = 6


@dataclass(frozen=True)
class ResponseConfig:
    """Effects and costs of the verdicts.

    Attributes:
        quarantine_ttl_s: how long a quarantined process stays silent, in s.
        analysts: analysts who work on tickets side by side.
        service_s: working time of one ticket, in s.
        max_wait_s: a ticket that would wait longer is dropped (the alert then has no effect), in s.
        benign_cost: cost of one benign event denied or silenced, in units of damage.
        ticket_cost: cost of a ticket opened, in units of damage.
        alert_cost: cost of an alert on a process whose ticket is open already, in units of damage.
    """

    quarantine_ttl_s: float = 600.0
    analysts: int = 2
    service_s: float = 120.0
    max_wait_s: float = 1800.0
    benign_cost: float = 1.0
    ticket_cost: float = 3.0
    alert_cost: float = 0.5


class ResponseState(eqx.Module):
    """What earlier verdicts left behind.

    Attributes:
        silent_until_s: per process, the end of its quarantine (-inf: none).
        ticket_done_s: per process, when its open ticket is closed (inf: no ticket).
        analyst_free_s: per analyst, when they are free.
        answers: per process, decayed count of verdicts >= alert.
        answer_rate: decayed share of verdicts >= alert over all events.
    """

    silent_until_s: Float[Array, "*batch entity"]
    ticket_done_s: Float[Array, "*batch entity"]
    analyst_free_s: Float[Array, "*batch analyst"]
    answers: Float[Array, "*batch entity"]
    answer_rate: Float[Array, "*batch"]


class Response(eqx.Module):
    """What one verdict caused.

    Attributes:
        happened: the event took place (allow or alert).
        silenced: processes silenced by this verdict.
        contained: processes silenced for good by an analyst whose ticket fell due.
        ticket: a new ticket was opened.
    """

    happened: Bool[Array, "*batch"]
    silenced: Bool[Array, "*batch entity"]
    contained: Bool[Array, "*batch entity"]
    ticket: Bool[Array, "*batch"]


def init_response(config: ResponseConfig, n_entities: int) -> ResponseState:
    """The state before any verdict."""
    return ResponseState(
        silent_until_s=jnp.full(n_entities, -jnp.inf, jnp.float32),
        ticket_done_s=jnp.full(n_entities, jnp.inf, jnp.float32),
        analyst_free_s=jnp.zeros(config.analysts, jnp.float32),
        answers=jnp.zeros(n_entities, jnp.float32),
        answer_rate=jnp.zeros((), jnp.float32),
    )


def forget(state: ResponseState, renewed: Bool[Array, " entity"]) -> ResponseState:
    """Drops what is kept of processes that ended, so that the next process of a slot starts without it."""
    return eqx.tree_at(
        lambda s: (s.silent_until_s, s.ticket_done_s, s.answers),
        state,
        (
            jnp.where(renewed, -jnp.inf, state.silent_until_s),
            jnp.where(renewed, jnp.inf, state.ticket_done_s),
            jnp.where(renewed, 0.0, state.answers),
        ),
    )


def silent(state: ResponseState, now_s: Float[Array, ""]) -> Bool[Array, " entity"]:
    """Which processes are in quarantine at a time."""
    return state.silent_until_s > now_s


def subtree(roots: Bool[Array, " entity"], parent: Int[Array, " entity"]) -> Bool[Array, " entity"]:
    """The given processes and their descendants (to a depth of 64).

    Args:
        roots: mask of processes.
        parent: slot of each process's parent, -1 where there is none.
    """
    mask, ancestor = roots, parent
    for _ in range(_TREE_DEPTH):
        mask, ancestor = _twice_as_far(mask, ancestor)
    return mask


def subtree_of_few(roots: Bool[Array, " entity"], parent: Int[Array, " entity"]) -> Bool[Array, " entity"]:
    """The same as ``subtree``, at no cost where there are no roots: for large tables, outside any ``vmap``.

    A loop of no rounds and not a branch: around a branch XLA copies whatever a surrounding loop carries.
    """
    rounds = jnp.where(roots.any(), _TREE_DEPTH, 0)
    return jax.lax.fori_loop(0, rounds, lambda _, pair: _twice_as_far(*pair), (roots, parent))[0]


def _twice_as_far(
    mask: Bool[Array, " entity"], ancestor: Int[Array, " entity"]
) -> tuple[Bool[Array, " entity"], Int[Array, " entity"]]:
    """A round of pointer doubling: each looks twice as far up."""
    has = ancestor >= 0
    return mask | (has & mask[ancestor]), jnp.where(has, ancestor[ancestor], -1)


def respond(
    config: ResponseConfig,
    state: ResponseState,
    *,
    verdict: Int[Array, ""],
    entity: Int[Array, ""],
    now_s: Float[Array, ""],
    tree: Callable[[Bool[Array, " entity"]], Bool[Array, " entity"]],
    malicious: Bool[Array, " entity"],
) -> tuple[ResponseState, Response]:
    """Applies a verdict to the event of ``entity`` at ``now_s``.

    Args:
        config: effects.
        state: what earlier verdicts left.
        verdict: 0..3.
        entity: slot of the acting process.
        now_s: time of the event since the start of the episode, in s.
        tree: from marked processes to all that descend from them, the marked ones among them.
        malicious: which processes work for a campaign; an analyst who closes such a ticket contains the subtree.
    """
    acting = jnp.arange(malicious.shape[0]) == entity

    due = state.ticket_done_s <= now_s
    contained = tree(due & malicious)
    ticket_done_s = jnp.where(due, jnp.inf, state.ticket_done_s)
    silent_until_s = jnp.where(contained, jnp.inf, state.silent_until_s)

    analyst = jnp.argmin(state.analyst_free_s)
    start_s = jnp.maximum(now_s, state.analyst_free_s[analyst])
    ticket = (
        (verdict == Verdict.ALERT) & jnp.isinf(ticket_done_s[entity]) & (start_s - now_s <= config.max_wait_s)
    )
    done_s = start_s + config.service_s
    ticket_done_s = jnp.where(acting & ticket, done_s, ticket_done_s)
    busy = (jnp.arange(config.analysts) == analyst) & ticket
    analyst_free_s = jnp.where(busy, done_s, state.analyst_free_s)

    quarantined = verdict == Verdict.QUARANTINE
    silenced = tree(acting) & quarantined
    until_s = now_s + config.quarantine_ttl_s
    silent_until_s = jnp.where(silenced, jnp.maximum(silent_until_s, until_s), silent_until_s)

    answered = (verdict >= Verdict.ALERT).astype(jnp.float32)
    state = ResponseState(
        silent_until_s=silent_until_s,
        ticket_done_s=ticket_done_s,
        analyst_free_s=analyst_free_s,
        answers=jnp.where(acting, state.answers - _ANSWER_LOSS * state.answers + answered, state.answers),
        answer_rate=state.answer_rate + _RATE_GAIN * (answered - state.answer_rate),
    )
    happened = verdict < Verdict.BLOCK
    return state, Response(happened=happened, silenced=silenced, contained=contained, ticket=ticket)


def credit_by_verdict(
    config: ResponseConfig,
    state: ResponseState,
    *,
    entity: Int[Array, ""],
    now_s: Float[Array, ""],
    malicious: Bool[Array, ""],
    damage: Float[Array, ""],
    silence_loss: Float[Array, ""],
    remaining_damage: Float[Array, ""],
    refusal_damage: Float[Array, ""] | float = 0.0,
) -> Float[Array, "4"]:
    """What each verdict is worth on this event: its immediate reward and an estimate of what it causes later.

    Only differences between verdicts matter. The estimate serves the credit of a member for its own vote; the reward
    itself counts what really happened.

    Args:
        config: costs.
        state: before the verdict.
        entity: slot of the acting process.
        now_s: time of the event, in s.
        malicious: whether the event belongs to a campaign.
        damage: of the event if it happens (0 for a benign one).
        silence_loss: benign events that a quarantine of this process is expected to silence.
        remaining_damage: damage that containing this process now is expected to prevent later (0 for a benign one).
        refusal_damage: damage that refusing this and what follows is expected to prevent later, where attackers who are
            refused give up.
    """
    benign = 1.0 - malicious.astype(jnp.float32)
    wait_s = jnp.maximum(state.analyst_free_s.min() - now_s, 0.0)
    opens = jnp.isinf(state.ticket_done_s[entity]) & (wait_s <= config.max_wait_s)
    served = jnp.exp(-(wait_s + config.service_s) / config.quarantine_ttl_s)
    alert_cost = jnp.where(opens, config.ticket_cost, config.alert_cost)
    allow = -damage
    alert = -damage - alert_cost + jnp.where(opens, served * remaining_damage, 0.0)
    block = -config.benign_cost * benign + refusal_damage
    quarantine = -config.benign_cost * (benign + silence_loss) + jnp.maximum(remaining_damage, refusal_damage)
    credit = jnp.stack([allow, alert, block, quarantine])
    assert credit.shape == (N_VERDICTS,)
    return credit


def context_features(
    config: ResponseConfig, state: ResponseState, entity: Int[Array, ""], now_s: Float[Array, ""]
) -> Float[Array, " context"]:
    """The response's own state as the members see it, in the order of ``CONTEXT_COLUMNS``, each in [0, 1] or near."""
    return jnp.stack(
        [
            state.answers[entity] * _ANSWER_LOSS,
            jnp.isfinite(state.ticket_done_s[entity]).astype(jnp.float32),
            jnp.clip((state.analyst_free_s.min() - now_s) / config.max_wait_s, 0.0, 1.0),
            state.answer_rate,
            silent(state, now_s).mean(dtype=jnp.float32),
        ]
    )


def charge(
    config: ResponseConfig,
    *,
    before: Score,
    after: Score,
    alerted: Bool[Array, ""],
    ticket: Bool[Array, ""],
) -> tuple[Score, Float[Array, ""]]:
    """Adds one step's loss to the totals: its damage, the benign work lost and the analysts' time.

    Args:
        config: costs.
        before: totals before the step.
        after: totals after it, but for the loss.
        alerted: the verdict was alert.
        ticket: it opened a ticket.

    Returns:
        The totals, and the step's loss. The committee's reward is its negative; the score never rests on the reward.
    """
    damage = after.damage - before.damage
    lost = after.benign_lost - before.benign_lost
    alert_cost = jnp.where(alerted, jnp.where(ticket, config.ticket_cost, config.alert_cost), 0.0)
    loss = damage + config.benign_cost * lost + alert_cost
    return eqx.tree_at(lambda score: score.loss, after, before.loss + loss), loss
