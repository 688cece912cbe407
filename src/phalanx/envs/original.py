"""The original notebook's task, faults included: the reference that ``--preset original`` trains on.

One row of the shuffled training part a step, the same for every member; seven features, each divided by its maximum;
a time limit that counts as termination; a reward for the committee's verdict with a penalty for violated specs.

Where the notebook's description leaves a choice, the reading is taken that reproduces what was measured of it:

- The rates over the last 100 verdicts include the current one, start empty with each episode, and are perfect while
  they have nothing to count (detection 1 without threats, false-positive rate 0 without benign rows).
- The response time's spec alone has units of ms, so its violation (-10 at worst) costs up to -55.
- The threat spec is +1 or -1: -1 while the oldest threat without a restrictive verdict since is 5 or more steps old.
- Accuracy is 1 where the committee's verdict is right, so that all members earn the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from phalanx.envs.base import Environment, empty_score
from phalanx.errors import DataError
from phalanx.types import Column, Observation, ObservationSpec, Score, TimeStep, Truth, Verdict

__all__ = [
    "FEATURES",
    "N_MEMBERS",
    "OriginalConfig",
    "OriginalEnv",
    "OriginalState",
    "OriginalStep",
    "Specs",
    "original_verdict",
    "task_reward",
]

FEATURES = ("sequence", "src_port", "dst_port", "ip_protocol", "file_size", "process_pid", "process_ppid")
N_MEMBERS = 3

_RATE_WINDOW = 100
_ANSWER_STEPS = 5
_TRUE_POSITIVE, _TRUE_NEGATIVE, _FALSE_POSITIVE, _FALSE_NEGATIVE = 10.0, 1.0, -8.0, -10.0
_RESTRICTION, _BONUS, _PENALTY = -1.5, 0.2, 5.0


@dataclass(frozen=True)
class OriginalConfig:
    """Settings of ``OriginalEnv``.

    Attributes:
        episode_events: steps until the episode ends, as if terminated.
        seed: of the shuffle of the rows.
        penalty: whether violated specs cost.
    """

    episode_events: int = 1000
    seed: int = 42
    penalty: bool = True


class Specs(eqx.Module):
    """Robustness of the four specs at a step; below 0 is violated.

    Attributes:
        response_time: 100 - response time, in ms.
        threat: 1, or -1 where a threat had no restrictive answer within 5 steps.
        rates: min(detection rate - .95, .05 - false-positive rate) over the last 100 verdicts.
        resources: distance of CPU and memory to the borders of [.2, .9], the lower of the two.
    """

    response_time: Float[Array, "*batch"]
    threat: Float[Array, "*batch"]
    rates: Float[Array, "*batch"]
    resources: Float[Array, "*batch"]

    def lowest(self) -> Float[Array, "*batch"]:
        """The minimum over all four, whatever their units."""
        worst = jnp.minimum(self.response_time, self.threat)
        return jnp.minimum(worst, jnp.minimum(self.rates, self.resources))


class OriginalStep(eqx.Module):
    """What a step of votes caused, besides its ``TimeStep``.

    Attributes:
        verdict: of the committee.
        task: reward of the task alone, true or false positives and the price of restriction.
        bonus: reward for agreement and for a right verdict.
        penalty: reward for violated specs, 0 or less; the reward is the sum of these three.
        specs: their robustness.
    """

    verdict: Int[Array, "*batch"]
    task: Float[Array, "*batch"]
    bonus: Float[Array, "*batch"]
    penalty: Float[Array, "*batch"]
    specs: Specs


class OriginalState(eqx.Module):
    """Where an episode stands.

    Attributes:
        place: place in the shuffled rows of the event shown.
        steps: steps of this episode so far.
        past_label: labels of the last 100 decided rows, -1 before the episode's first.
        past_positive: whether their verdicts were restrictive.
        unanswered: age in steps of the oldest threat without a restrictive verdict since, -1 none.
        score: totals.
    """

    place: Int[Array, "*batch"]
    steps: Int[Array, "*batch"]
    past_label: Int[Array, "*batch window"]
    past_positive: Bool[Array, "*batch window"]
    unanswered: Int[Array, "*batch"]
    score: Score


class OriginalEnv(Environment):
    """The original's stream of shuffled rows; see the module."""

    features: Float[Array, "row feature"]
    label: Int[Array, " row"]
    spec: ObservationSpec = eqx.field(static=True)
    config: OriginalConfig = eqx.field(static=True)

    def __init__(
        self,
        columns: dict[str, np.ndarray],
        label: Int[np.ndarray, " row"],
        config: OriginalConfig | None = None,
        *,
        features: Sequence[str] = FEATURES,
    ) -> None:
        """Takes one part of the data (train, validation or test).

        Args:
            columns: the raw numbers of ``features`` for the rows of the part.
            label: 1 threat, 0 benign.
            config: settings.
            features: columns that are shown; those of the original unless given.

        Raises:
            DataError: a missing column, no row, or a label other than 0 and 1.
        """
        missing = [name for name in features if name not in columns]
        if missing:
            raise DataError(
                f"columns {', '.join(missing)} missing for the original's task; expected {', '.join(features)}. "
                "Use --preset default for other data"
            )
        label = np.asarray(label)
        if label.size == 0 or not np.isin(label, (0, 1)).all():
            raise DataError(
                f"{label.size} labels with values {np.unique(label)[:5].tolist()} for the original's task; "
                "expected at least one row and only 0 or 1. Drop the rows of unknown label"
            )
        raw = np.stack([np.nan_to_num(np.asarray(columns[name], np.float64)) for name in features], axis=1)
        top = raw.max(axis=0)
        self.config = config or OriginalConfig()
        order = _shuffle(len(label), self.config.seed)
        scaled = raw / np.where(top == 0, 1.0, top)
        self.features = jnp.asarray(scaled[order], jnp.float32)
        self.label = jnp.asarray(label[order], jnp.int32)
        self.spec = ObservationSpec(
            categorical=(), numeric=tuple(Column(name) for name in features), n_entities=1
        )

    @property
    def order(self) -> Int[np.ndarray, " row"]:
        """The place in the part of each of the shuffled rows."""
        return _shuffle(self.label.shape[0], self.config.seed)

    def in_order(self) -> tuple[Float[np.ndarray, "row feature"], Int[np.ndarray, " row"]]:
        """Features and labels in the order of the part, before the shuffle."""
        back = np.argsort(self.order)
        return np.asarray(self.features)[back], np.asarray(self.label)[back]

    @property
    def episode_events(self) -> int:
        """Events after which an episode is cut."""
        return self.config.episode_events

    def reset(self, key: PRNGKeyArray) -> tuple[OriginalState, Observation]:
        """Starts at a random place of the shuffled rows."""
        place = jax.random.randint(key, (), 0, self.label.shape[0], jnp.int32)
        zero = jnp.zeros((), jnp.int32)
        state = OriginalState(
            place=place,
            steps=zero,
            past_label=jnp.full(_RATE_WINDOW, -1, jnp.int32),
            past_positive=jnp.zeros(_RATE_WINDOW, bool),
            unanswered=zero - 1,
            score=empty_score(),
        )
        return state, self._observe(state)

    def step(
        self, state: OriginalState, verdict: Int[Array, ""], key: PRNGKeyArray
    ) -> tuple[OriginalState, TimeStep]:
        """A step in which all members vote for ``verdict``."""
        state, time_step, _, _ = self.step_votes(state, jnp.full(N_MEMBERS, verdict, jnp.int32), key)
        return state, time_step

    def step_votes(
        self, state: OriginalState, votes: Int[Array, " member"], key: PRNGKeyArray
    ) -> tuple[OriginalState, TimeStep, Float[Array, " member"], OriginalStep]:
        """Decides by the original's rule and pays every member for the committee's verdict.

        Returns:
            The state, the time step (its reward is the members' mean), the reward of each member, and what caused it.
        """
        label = self.label[state.place]
        verdict = original_verdict(votes)
        positive = verdict >= Verdict.BLOCK
        unanswered = _unanswered(state.unanswered, label == 1, positive)
        past_label = jnp.roll(state.past_label, 1).at[0].set(label)
        past_positive = jnp.roll(state.past_positive, 1).at[0].set(positive)
        specs = _specs(_rates(past_label, past_positive), unanswered, verdict, key)
        task = task_reward(label)[verdict]
        agree, right = (votes == votes[0]).all(), positive == (label == 1)
        bonus = _BONUS * (agree.astype(jnp.float32) + 2.0 * right.astype(jnp.float32))
        lowest = specs.lowest()
        costs = (lowest < 0) & self.config.penalty
        penalty = jnp.where(costs, -_PENALTY * (1.0 - lowest), 0.0)
        reward = task + bonus + penalty
        score = _count(state.score, label, verdict)
        after = OriginalState(
            place=(state.place + 1) % self.label.shape[0],
            steps=state.steps + 1,
            past_label=past_label,
            past_positive=past_positive,
            unanswered=unanswered,
            score=score,
        )
        observation = self._observe(after)
        time_step = TimeStep(
            observation=observation,
            reward=reward,
            credit=task_reward(label),
            terminated=after.steps >= self.config.episode_events,
            truncated=jnp.zeros((), bool),
            final_observation=observation,
            truth=self.pending(state),
            score=score,
        )
        cause = OriginalStep(verdict=verdict, task=task, bonus=bonus, penalty=penalty, specs=specs)
        return after, time_step, jnp.broadcast_to(reward, votes.shape), cause

    def pending(self, state: OriginalState) -> Truth:
        """The truth of the row shown; the original knows no campaigns."""
        none = jnp.full((), -1, jnp.int32)
        return Truth(self.label[state.place], none, none, none, none + 1)

    def _observe(self, state: OriginalState) -> Observation:
        """The row; the memory of the one entity is carried on within the episode."""
        zero = jnp.zeros((), jnp.int32)
        return Observation(
            category=jnp.zeros(0, jnp.int32),
            numeric=self.features[state.place],
            entity=zero,
            source=jnp.where(state.steps == 0, zero - 1, zero),
        )


def _shuffle(n_rows: int, seed: int) -> Int[np.ndarray, " row"]:
    return np.random.default_rng(seed).permutation(n_rows)


def original_verdict(votes: Int[Array, " member"]) -> Int[Array, ""]:
    """The proposal that most members agree with: block with quarantine, allow with alert; ties to the first member.

    The quorum is 2f+1 with f = floor((3-1)/3) = 0: one vote, so that some proposal always wins.

    Example:
        >>> int(original_verdict(jnp.array([2, 0, 3])))
        2
    """
    restrictive = votes >= Verdict.BLOCK
    agreeing = (restrictive[:, None] == restrictive[None, :]).sum(axis=1)
    return votes[jnp.argmax(agreeing)]


def task_reward(label: Int[Array, ""]) -> Float[Array, " verdict"]:
    """The reward of each verdict by the label alone: TP, TN, FP, FN and the price of restriction.

    Example:
        >>> task_reward(jnp.array(1)).tolist()
        [-10.0, -10.0, 8.5, 8.5]
    """
    lenient = jnp.where(label == 1, _FALSE_NEGATIVE, _TRUE_NEGATIVE)
    severe = jnp.where(label == 1, _TRUE_POSITIVE, _FALSE_POSITIVE) + _RESTRICTION
    return jnp.stack([lenient, lenient, severe, severe]).astype(jnp.float32)


def _unanswered(age: Int[Array, ""], threat: Bool[Array, ""], positive: Bool[Array, ""]) -> Int[Array, ""]:
    """Age of the oldest threat that no restrictive verdict has followed, this step included; -1 none."""
    older = jnp.where(age >= 0, age + 1, jnp.where(threat, 0, -1))
    return jnp.where(positive, -1, older).astype(jnp.int32)


def _specs(
    rates: Float[Array, ""], unanswered: Int[Array, ""], verdict: Int[Array, ""], key: PRNGKeyArray
) -> Specs:
    key_time, key_cpu, key_memory = jax.random.split(key, 3)
    slow_ms = jnp.where(verdict == Verdict.QUARANTINE, 30.0, 0.0)
    response_ms = 50.0 + jax.random.uniform(key_time, (), jnp.float32, -20.0, 30.0) + slow_ms
    cpu = 0.3 + jax.random.uniform(key_cpu, (), jnp.float32, 0.0, 0.4)
    memory = 0.4 + jax.random.uniform(key_memory, (), jnp.float32, 0.0, 0.3)
    used = jnp.stack([cpu, memory])
    return Specs(
        response_time=100.0 - response_ms,
        threat=jnp.where(unanswered >= _ANSWER_STEPS, -1.0, 1.0),
        rates=rates,
        resources=jnp.minimum(used - 0.2, 0.9 - used).min(),
    )


def _rates(label: Int[Array, " window"], positive: Bool[Array, " window"]) -> Float[Array, ""]:
    """min(detection rate - .95, .05 - false-positive rate) of past verdicts."""
    threats, benign = (label == 1).sum(dtype=jnp.float32), (label == 0).sum(dtype=jnp.float32)
    found = ((label == 1) & positive).sum(dtype=jnp.float32)
    false = ((label == 0) & positive).sum(dtype=jnp.float32)
    detection = jnp.where(threats > 0, found / jnp.maximum(threats, 1.0), 1.0)
    return jnp.minimum(detection - 0.95, 0.05 - false / jnp.maximum(benign, 1.0))


def _count(old: Score, label: Int[Array, ""], verdict: Int[Array, ""]) -> Score:
    """Adds one verdict to the totals; there is no time and there are no campaigns."""
    positive = verdict >= Verdict.BLOCK
    threat = label == 1
    added = {
        "damage": threat & ~positive,
        "malicious": threat,
        "benign": ~threat,
        "benign_lost": ~threat & positive,
        "false_blocks": ~threat & positive,
        "alerts": verdict == Verdict.ALERT,
        "restrictions": positive,
        "events": jnp.ones((), bool),
    }
    totals = {field.name: getattr(old, field.name) for field in fields(Score)}
    return Score(
        **{name: x + added[name].astype(x.dtype) if name in added else x for name, x in totals.items()}
    )
