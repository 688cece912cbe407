"""The decision path: policy -> votes -> verdict -> shield. Rollouts, evaluation and serving all go through
``decide_events``.

Each event is answered in five steps: every member reads its process's memory and computes its policy; the members tell
one another how suspicious the event is and agree on a middle; every member votes; the committee's rule turns the votes
received into the verdict; where that would break a specification that can still be kept, a shield puts the likeliest
verdict in its place that does not. Where members are faulty (``committee.adversaries``), what they tell and vote takes
the place of what they think.
"""

import dataclasses
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from phalanx.agents.memory import MemoryReads, MemoryTable, read, write
from phalanx.agents.network import (
    Network,
    cell_step,
    encode_events,
    event_vector,
    policy_logits,
    state_value,
)
from phalanx.agents.normalizer import NormalizerState, denormalize
from phalanx.committee.adversaries import hear
from phalanx.committee.agreement import agree
from phalanx.committee.faults import Faults, Respond, Statements
from phalanx.committee.voting import tally, verdict_of
from phalanx.errors import unknown_name
from phalanx.runtime.cut import Cut, Threshold
from phalanx.stl.shield import Shield, choose
from phalanx.types import N_VERDICTS, Decision, Observation, ObservationSpec, Verdict

__all__ = [
    "Committee",
    "Opinion",
    "appraise",
    "ballots",
    "consult",
    "decide_events",
    "deliberate",
    "deployed",
    "hearing",
    "init_guard",
    "respond_to",
    "settle",
    "shield_inputs",
    "shielded",
    "suspicion_told",
    "vote",
]


class Committee(eqx.Module):
    """Members that decide together.

    Attributes:
        networks: parameters, stacked along a member axis.
        masks: sensor view of each member over the event vector.
        normalizers: value statistics of each member.
        spec: what the members observe.
        f: faults tolerated.
        shield: what keeps verdicts within specifications; None lets all pass.
    """

    networks: Network
    masks: Float[Array, "member input"]
    normalizers: NormalizerState
    spec: ObservationSpec = eqx.field(static=True)
    f: int = eqx.field(static=True)
    shield: Shield | None = eqx.field(static=True, default=None)

    @property
    def n_members(self) -> int:
        """Number of members."""
        return self.masks.shape[0]


def deployed(committee: Committee) -> Committee:
    """The committee as it decides anywhere: its critics lose the input of the core state, which is for training."""
    return Committee(
        networks=eqx.tree_at(
            lambda n: n.value_core, committee.networks, committee.networks.value_core[:, :0]
        ),
        masks=committee.masks,
        normalizers=committee.normalizers,
        spec=dataclasses.replace(committee.spec, n_core=0),
        f=committee.f,
        shield=committee.shield,
    )


def shielded(committee: Committee, shield: Shield) -> Committee:
    """The committee behind a shield.

    Raises:
        UsageError: the shield's specifications read what the committee is not shown.
    """
    known = ["suspicion", *(column.name for column in committee.spec.numeric)]
    for name in shield.signals:
        if name not in known:
            raise unknown_name("signal in the shield's specifications", name, known)
    return dataclasses.replace(committee, shield=shield)


class Opinion(eqx.Module):
    """What the members think of an event, before they vote.

    Attributes:
        vector: the event vector.
        log_probs: log-probabilities of the four verdicts.
        memories: of the acting processes, with the event taken in.
        reads: where the memories came from.
        statements: what was received of them, where some are faulty.
    """

    vector: Float[Array, "env input"]
    log_probs: Float[Array, "member env verdict"]
    memories: Float[Array, "member env memory"]
    reads: MemoryReads
    statements: Statements | None = None


def consult(committee: Committee, table: MemoryTable, observation: Observation) -> Opinion:
    """Every member's policy on one event per environment."""
    vector = event_vector(committee.spec, observation)
    memories, reads = read(table, observation)
    seen, axis = (vector, None) if len(vector) > 1 else (_for_each(committee, vector), 0)
    encoding = jax.vmap(encode_events, in_axes=(0, 0, axis))(committee.networks, committee.masks, seen)
    if memories.shape[-1]:
        memories = jax.vmap(cell_step)(committee.networks, encoding.gates, memories)
    logits = jax.vmap(policy_logits)(committee.networks, encoding, memories)
    return Opinion(vector, jax.nn.log_softmax(logits), memories, reads)


def _for_each(committee: Committee, vector: Float[Array, "env input"]) -> Float[Array, "member env input"]:
    """A copy for each member: of one input that they share, XLA makes one product for which it lays all weights out
    anew, at a cost that only many events are worth."""
    return jnp.broadcast_to(vector, (committee.n_members, *vector.shape))


def appraise(
    committee: Committee, opinion: Opinion, core: Float[Array, "env core"]
) -> Float[Array, "member env"]:
    """Every member's V of the events, in reward units; in training only.

    Args:
        committee: whose critics.
        opinion: on the events.
        core: what the environments tell of their core states.
    """
    emitted = jax.vmap(state_value, in_axes=(0, 0, None, None, 0))(
        committee.networks, committee.masks, opinion.vector, core, opinion.memories
    )
    return jax.vmap(denormalize)(committee.normalizers, emitted)


def vote(
    log_probs: Float[Array, "*batch verdict"],
    *,
    key: PRNGKeyArray | None = None,
    threshold: Threshold | None = None,
) -> Int[Array, "*batch"]:
    """A member's vote.

    With a key it is drawn from the policy. With a threshold it is the likeliest verdict among alert, block and
    quarantine where P(verdict >= alert) reaches the threshold, else allow; between the two of a ``Cut`` it is alert.
    With neither it is the likeliest verdict.

    Args:
        log_probs: log-probabilities of the four verdicts.
        key: for drawing.
        threshold: on P(verdict >= alert), in [0, 1]; one for all, or one along the last axis.
    """
    if key is not None:
        return jax.random.categorical(key, log_probs).astype(jnp.int32)
    if threshold is None:
        return jnp.argmax(log_probs, axis=-1).astype(jnp.int32)
    return _answer(log_probs, jax.nn.sigmoid(_log_odds(log_probs)), Cut.of(threshold))


def deliberate(
    log_probs: Float[Array, "member *batch verdict"],
    f: int,
    heard: Bool[Array, "member *batch"] | None = None,
) -> Float[Array, "*batch"]:
    """The suspicion that the members agree on: the middle of their log-odds of alert or more, as a probability.

    Members who judge alone split where an event is doubtful, and the rule makes an alert of two votes against two.

    Args:
        log_probs: log-probabilities of the four verdicts, as told.
        f: faults tolerated, n >= 3f + 1.
        heard: whose opinion was received; all unless given.

    Example:
        >>> suspicious, calm, liar = [0.1, 0.0, 0.9, 0.0], [0.3, 0.0, 0.7, 0.0], [1.0, 0.0, 0.0, 0.0]
        >>> members = jnp.log(jnp.array([suspicious, suspicious, calm, liar]) + 1e-9)
        >>> round(deliberate(members, f=1).item(), 2)
        0.82

    Source: ``committee.agreement``.
    """
    return jax.nn.sigmoid(agree(_log_odds(log_probs), f, heard))


def ballots(
    log_probs: Float[Array, "member *batch verdict"],
    threshold: Threshold,
    f: int,
    *,
    told: Float[Array, "member *batch verdict"] | None = None,
    heard: Bool[Array, "member *batch"] | None = None,
) -> Int[Array, "member *batch"]:
    """Every member's vote once they have deliberated: its likeliest verdict among alert, block and quarantine where the
    suspicion that they agree on reaches the threshold, else allow; alert between the two of a ``Cut``.

    Whether to answer is agreed on; which answer it is each decides by itself. A member whose own suspicion falls short
    of the threshold (the second of a ``Cut``) votes for a block at most: its preference among answers it would not give
    is noise, and a quarantine takes f + 1 honest members who would answer alone.

    Args:
        log_probs: log-probabilities of the four verdicts.
        threshold: on the suspicion, in [0, 1].
        f: faults tolerated.
        told: what the members told one another, where that is not what they think.
        heard: whose opinion was received; all unless given.
    """
    agreed = deliberate(log_probs if told is None else told, f, heard)
    cut = Cut.of(threshold)
    votes = _answer(log_probs, jnp.broadcast_to(agreed, log_probs.shape[:-1]), cut)
    alone = vote(log_probs, threshold=cut.answer)
    return jnp.where(alone == Verdict.ALLOW, jnp.minimum(votes, int(Verdict.BLOCK)), votes)


def _log_odds(log_probs: Float[Array, "*batch verdict"]) -> Float[Array, "*batch"]:
    """Log-odds of alert or more."""
    return jax.nn.logsumexp(log_probs[..., Verdict.ALERT :], axis=-1) - log_probs[..., Verdict.ALLOW]


def _answer(
    log_probs: Float[Array, "*batch verdict"], suspicion: Float[Array, "*batch"], cut: Cut
) -> Int[Array, "*batch"]:
    """The likeliest verdict among alert, block and quarantine where there is reason to act, an alert where there is
    some, else allow."""
    alert, answer = (jnp.broadcast_to(jnp.asarray(each, suspicion.dtype), suspicion.shape) for each in cut)
    likeliest = 1 + jnp.argmax(log_probs[..., Verdict.ALERT :], axis=-1)
    milder = jnp.where(suspicion >= alert, int(Verdict.ALERT), int(Verdict.ALLOW))
    return jnp.where(suspicion >= answer, likeliest, milder).astype(jnp.int32)


def settle(
    votes: Int[Array, "env member"],
    received: Bool[Array, "env member"],
    score: Float[Array, " env"],
    f: int,
) -> Decision:
    """The committee's decision on the votes received."""
    tallied = jax.vmap(tally)(votes, received)
    return Decision(
        action=jax.vmap(lambda row: verdict_of(row, f))(tallied),
        votes=votes,
        tally=tallied,
        quorum=tallied[:, Verdict.ALLOW] >= 2 * f + 1,
        score=score,
        shielded=jnp.zeros(score.shape, bool),
    )


def init_guard(committee: Committee, n_envs: int) -> Any:
    """What the committee's shield knows before the first event of each environment; None without a shield."""
    return None if committee.shield is None else committee.shield.init(n_envs)


def shield_inputs(
    committee: Committee,
    observation: Observation,
    log_probs: Float[Array, "member env verdict"],
    heard: Bool[Array, "member env"] | None = None,
) -> dict[str, Float[Array, " env"]]:
    """What a shield's specifications may read beside the verdict: ``suspicion``, on which the members agree (from the
    opinions told and heard), and every number of the observation, by the name of its column."""
    shown = {column.name: observation.numeric[..., i] for i, column in enumerate(committee.spec.numeric)}
    return shown | {"suspicion": deliberate(log_probs, committee.f, heard)}


def _guard(
    committee: Committee, guard: Any, observation: Observation, opinion: Opinion, decision: Decision
) -> tuple[Any, Decision]:
    """The decision within the shield's specifications, and what the shield knows after it."""
    shield = committee.shield
    if shield is None:
        return guard, decision
    told, heard, each_heard = opinion.log_probs, None, None
    if opinion.statements is not None:
        told, heard = opinion.statements.told, opinion.statements.heard
        each_heard = jnp.broadcast_to(heard[..., None], told.shape)
    known = shield_inputs(committee, observation, told, heard)
    inputs = {name: known[name] for name in shield.signals}
    allowed = shield.mask(guard, inputs)
    voted = jax.nn.one_hot(decision.action, N_VERDICTS, dtype=jnp.float32)
    # the verdict that was voted for where it is allowed, else the likeliest to the middle of the members
    middle = agree(told, committee.f, each_heard)
    action = choose(allowed, jnp.where(voted > 0.0, jnp.inf, middle))
    guard, _ = shield.step(guard, inputs, action)
    return guard, dataclasses.replace(decision, action=action, shielded=action != decision.action)


def decide_events(
    committee: Committee,
    table: MemoryTable,
    observation: Observation,
    step: Int[Array, ""],
    *,
    key: PRNGKeyArray | None = None,
    threshold: Threshold | None = None,
    guard: Any = None,
    faults: Faults | None = None,
) -> tuple[MemoryTable, Any, Decision, Opinion]:
    """Decides one event per environment.

    Args:
        committee: who decides.
        table: memories; the acting processes' are updated.
        observation: the events.
        step: number of the step in the current rollout, for the memory's bookkeeping.
        key: draws the votes from the policies (training).
        threshold: operating point, see ``ballots``; with neither, every member votes for its likeliest verdict.
        guard: what the committee's shield knows (``init_guard``).
        faults: which members are faulty, and how; nobody is unless given. Who decides event after event advances them
            itself (``committee.faults.advance``).

    Returns:
        The memories, what the shield knows, the decision, and what the members think.
    """
    opinion = consult(committee, table, observation)
    table = write(table, observation.entity, opinion.memories, step)
    if faults is not None:
        opinion = dataclasses.replace(
            opinion,
            statements=hearing(
                opinion.log_probs, faults, observation.entity, committee.f, key=key, threshold=threshold
            ),
        )
    guard, decision = _guard(
        committee, guard, observation, opinion, _ruling(committee, opinion, key, threshold)
    )
    return table, guard, decision, opinion


def hearing(
    log_probs: Float[Array, "member env verdict"],
    faults: Faults,
    entity: Int[Array, " env"],
    f: int,
    *,
    key: PRNGKeyArray | None = None,
    threshold: Threshold | None = None,
) -> Statements:
    """What is received of members of whom some are faulty: opinions, and votes cast as ``decide_events`` would.

    Args:
        log_probs: what the members think, the faulty ones too.
        faults: who is faulty, and how.
        entity: memory slots of the acting processes.
        f: faults tolerated.
        key, threshold: see ``decide_events``.
    """
    return hear(faults, log_probs, respond_to(log_probs, f, key=key, threshold=threshold), f, entity)


def respond_to(
    log_probs: Float[Array, "member env verdict"],
    f: int,
    *,
    key: PRNGKeyArray | None = None,
    threshold: Threshold | None = None,
) -> Respond:
    """How members who think this vote on what they are told; arguments as of ``hearing``."""

    def respond(told: Array, heard: Array) -> Array:
        if threshold is None:
            return vote(log_probs, key=key).T
        return ballots(log_probs, threshold, f, told=told, heard=heard).T

    return respond


def _ruling(
    committee: Committee,
    opinion: Opinion,
    key: PRNGKeyArray | None,
    threshold: Threshold | None,
) -> Decision:
    """The decision on the votes received, before any shield."""
    statements = opinion.statements
    if statements is not None:
        score = suspicion_told(statements)
        return settle(statements.votes, statements.received, score, committee.f)
    if threshold is None:
        votes = vote(opinion.log_probs, key=key).T
    else:
        votes = ballots(opinion.log_probs, threshold, committee.f).T
    received = jnp.ones_like(votes, bool)
    score = 1.0 - jnp.exp(opinion.log_probs[..., Verdict.ALLOW]).mean(axis=0)
    return settle(votes, received, score, committee.f)


def suspicion_told(statements: Statements) -> Float[Array, " env"]:
    """Mean of P(verdict >= alert) over the opinions heard, lies included; 0 where none is."""
    heard = statements.heard.astype(statements.told.dtype)
    suspicion = 1.0 - jnp.exp(statements.told[..., Verdict.ALLOW])
    return (suspicion * heard).sum(axis=0) / jnp.maximum(heard.sum(axis=0), 1.0)
