"""Records that cross rooms: verdicts, observations, decisions, time steps and scores.

Shapes are written for one environment; ``vmap`` adds leading axes.
"""

from dataclasses import dataclass

import equinox as eqx
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from phalanx.verdicts import N_VERDICTS, Verdict

__all__ = [
    "N_VERDICTS",
    "Column",
    "Decision",
    "Observation",
    "ObservationSpec",
    "Score",
    "TimeStep",
    "Truth",
    "Verdict",
]


@dataclass(frozen=True)
class Column:
    """One column of an observation.

    ``group`` names the sensor that sees it: ``common`` and ``context`` are seen by every member,
    ``process``, ``file``, ``network`` and ``identity`` by the members with that view (or ``full``).
    ``size`` is the number of ids of a categorical column (id 0: never seen in training) and 1 for numbers.
    """

    name: str
    group: str = "common"
    size: int = 1


@dataclass(frozen=True)
class ObservationSpec:
    """What an environment shows: its columns, how many processes it can tell apart at a time, and how many numbers of
    its core state it tells the critic in training (``Environment.core``)."""

    categorical: tuple[Column, ...]
    numeric: tuple[Column, ...]
    n_entities: int
    n_core: int = 0


class Observation(eqx.Module):
    """One event as the members see it, before their sensor views.

    Attributes:
        category: ids, one per categorical column, in [0, size).
        numeric: scaled numbers, one per numeric column, of order 1.
        entity: memory slot of the acting process, in [0, n_entities).
        source: slot whose memory is read: ``entity`` itself, its parent's at its first event, or -1 for blank memory.
    """

    category: Int[Array, "*batch column"]
    numeric: Float[Array, "*batch feature"]
    entity: Int[Array, "*batch"]
    source: Int[Array, "*batch"]


class Truth(eqx.Module):
    """What only the evaluator knows of an event.

    Attributes:
        label: 1 malicious, 0 benign, -1 unknown.
        campaign: id of the campaign, -1 where there is none.
        stage: index of the attack stage, -1 where there is none.
        cause: index of the technique or of the benign job behind the event, -1 where the source does not say.
        bait: 1 where a benign event is of a rare type that attacks use as well, else 0.
    """

    label: Int[Array, "*batch"]
    campaign: Int[Array, "*batch"]
    stage: Int[Array, "*batch"]
    cause: Int[Array, "*batch"]
    bait: Int[Array, "*batch"]


class Score(eqx.Module):
    """Running totals of an episode, kept in the environment's core state and never taken from the reward.

    Attributes:
        damage: sum of the damage of the malicious events that happened.
        malicious: malicious events that were attempted.
        benign: benign events that were attempted or would have been, had their process not been silent.
        benign_lost: benign events that were denied or silenced.
        false_blocks: benign events answered with block or quarantine.
        alerts: tickets opened (an alert on a process whose ticket is open opens none).
        restrictions: events answered with block or quarantine.
        campaigns: campaigns with at least one attempted event.
        contained: campaigns stopped by a quarantine (the committee's or an analyst's).
        contain_s: sum over contained campaigns of the time from the first attempted event to the quarantine, in s.
        duration_s: simulated or recorded time that the episode covers, in s.
        events: events decided.
        loss: the damage plus what the answers cost (benign work denied or silenced, the analysts' time), in units of
            damage; what a perfect answer keeps at 0.
        furthest: attack stages that any campaign has entered, 0 before the first.
    """

    damage: Float[Array, "*batch"]
    malicious: Float[Array, "*batch"]
    benign: Float[Array, "*batch"]
    benign_lost: Float[Array, "*batch"]
    false_blocks: Float[Array, "*batch"]
    alerts: Float[Array, "*batch"]
    restrictions: Float[Array, "*batch"]
    campaigns: Float[Array, "*batch"]
    contained: Float[Array, "*batch"]
    contain_s: Float[Array, "*batch"]
    duration_s: Float[Array, "*batch"]
    events: Float[Array, "*batch"]
    loss: Float[Array, "*batch"]
    furthest: Float[Array, "*batch"]


class TimeStep(eqx.Module):
    """The outcome of one verdict.

    Attributes:
        observation: the next event (after a reset, the first of the new episode).
        reward: the committee's reward for its verdict, delayed consequences that fell due included.
        credit: what each of the four verdicts is worth on this event: its immediate reward and the environment's
            estimate of what it causes later; only differences between verdicts matter (see ``agents.credit``).
        terminated: the episode ended in a final state: no value follows.
        truncated: the episode was cut by its time limit: the value of ``final_observation`` follows.
        final_observation: the next event of the *old* episode, also when a reset replaced it in ``observation``.
        truth: of the event that was decided.
        score: totals of the episode up to this step, before any reset.
        robustness: of each specification that is watched (``envs.constrained``), none unless any is.
    """

    observation: Observation
    reward: Float[Array, "*batch"]
    credit: Float[Array, "*batch verdict"]
    terminated: Bool[Array, "*batch"]
    truncated: Bool[Array, "*batch"]
    final_observation: Observation
    truth: Truth
    score: Score
    robustness: Float[Array | np.ndarray, "*batch spec"] = eqx.field(
        default_factory=lambda: np.zeros(0, np.float32)
    )

    @property
    def done(self) -> Bool[Array, "*batch"]:
        """Whether the episode ended, for either reason."""
        return self.terminated | self.truncated


class Decision(eqx.Module):
    """What the committee answered and why.

    Attributes:
        action: the verdict that takes effect, 0..3.
        votes: one verdict per member, -1 where none was received of a faulty one.
        tally: votes at or above each severity, ``tally[v] = #{votes >= v}``.
        quorum: whether at least 2f+1 votes were received.
        score: mean over members, as they tell it, of P(verdict >= alert), in [0, 1].
        shielded: whether a shield put ``action`` in the place of what the votes came to.
    """

    action: Int[Array, "*batch"]
    votes: Int[Array, "*batch member"]
    tally: Int[Array, "*batch verdict"]
    quorum: Bool[Array, "*batch"]
    score: Float[Array, "*batch"]
    shielded: Bool[Array, "*batch"]
