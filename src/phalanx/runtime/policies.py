"""Ways of answering events: what every policy offers, and those that need only a table, a classifier or a committee."""

import abc
from collections.abc import Callable
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from phalanx.agents.memory import init_memory
from phalanx.committee.faults import Faults, Threat, advance, init_faults
from phalanx.runtime.cut import Threshold
from phalanx.runtime.decide import Committee, decide_events, init_guard
from phalanx.types import Observation, ObservationSpec, Verdict

__all__ = [
    "CommitteePolicy",
    "Policy",
    "ScoredPolicy",
    "TablePolicy",
    "ThresholdPolicy",
    "note",
    "number_column",
    "recall",
    "without_repeats",
]


class Policy(eqx.Module):
    """A way of answering. Arrays are leaves, so that policies of one kind share a compiled loop."""

    on_host: ClassVar[bool] = False
    """``act`` is NumPy code, called between steps instead of being compiled into them."""
    sees_truth: ClassVar[bool] = False
    """It is shown the label; every other policy gets -1 in its place."""
    scored: ClassVar[bool] = False
    """It says how suspicious an event is, not only how to answer it."""

    @abc.abstractmethod
    def init(self, n_envs: int) -> Any:
        """What it carries from event to event, for a number of environments."""

    @abc.abstractmethod
    def act(
        self, carried: Any, observation: Observation, label: Int[Array, " env"], key: PRNGKeyArray, t: Any
    ) -> tuple[Any, Any]:
        """The verdict on the event that waits in each environment. Only an oracle may look at the label."""

    def judge(
        self, carried: Any, observation: Observation, label: Any, key: PRNGKeyArray, t: Any
    ) -> tuple[Any, Any, Any]:
        """What ``act`` gives, and how suspicious each event is (0 where the policy does not say)."""
        carried, verdict = self.act(carried, observation, label, key, t)
        return carried, verdict, jnp.zeros(verdict.shape, jnp.float32)

    def overruled(self, carried: Any) -> Any:
        """Which of the verdicts given last a shield has put in the place of the policy's own, from what is carried;
        None where there is no shield."""
        return None


class ScoredPolicy(Policy):
    """A policy whose verdict follows from how suspicious it finds an event: more is worse, the unit is its own."""

    scored: ClassVar[bool] = True

    def act(self, carried: Any, observation: Observation, label: Any, key: Any, t: Any) -> tuple[Any, Any]:
        """The verdict alone."""
        return self.judge(carried, observation, label, key, t)[:2]

    @abc.abstractmethod
    def judge(
        self, carried: Any, observation: Observation, label: Any, key: Any, t: Any
    ) -> tuple[Any, Any, Any]:
        """The verdict, and how suspicious each event is."""


class TablePolicy(Policy):
    """Each verdict with a fixed probability, by the event's label: every policy that needs no training is one of these.

    Always-allow puts all weight on allow for both labels; the oracle, which sees the label, puts it on quarantine for
    malicious events and on allow for the others; a random policy has the same probabilities for both.

    Attributes:
        table: probabilities of the four verdicts per environment: on other events, and on malicious ones.
    """

    table: Float[Array, "env label verdict"]
    sees_truth: ClassVar[bool] = True

    def init(self, n_envs: int) -> Any:
        """Nothing is carried."""
        return ()

    def act(self, carried: Any, observation: Any, label: Any, key: Any, t: Any) -> tuple[Any, Any]:
        """Draws from the row of the event's label."""
        threat = (label == 1)[:, None]
        probabilities = jnp.where(threat, self.table[:, 1], self.table[:, 0])
        return carried, jax.random.categorical(key, jnp.log(probabilities)).astype(jnp.int32)


class ThresholdPolicy(ScoredPolicy):
    """A classifier of single events and one verdict for whatever scores at least the threshold.

    Attributes:
        score: (category, numeric) -> P(malicious), in NumPy.
        threshold: chosen on validation data, per environment.
        verdict: alert, block or quarantine, per environment.
    """

    score: Callable[[np.ndarray, np.ndarray], np.ndarray] = eqx.field(static=True)
    threshold: Float[np.ndarray, " env"]
    verdict: Int[np.ndarray, " env"]
    on_host: ClassVar[bool] = True

    def init(self, n_envs: int) -> Any:
        """Nothing is carried."""
        return ()

    def judge(self, carried: Any, observation: Any, label: Any, key: Any, t: Any) -> tuple[Any, Any, Any]:
        """Scores the events as they are, without memory."""
        scores = self.score(np.asarray(observation.category), np.asarray(observation.numeric))
        answer = np.where(scores >= self.threshold, self.verdict, int(Verdict.ALLOW))
        return carried, answer.astype(np.int32), scores.astype(np.float32)


class CommitteePolicy(ScoredPolicy):
    """The committee at its operating point, through the decision path.

    Attributes:
        committee: who decides.
        threshold: its operating point, one for all environments or one for each.
        memory_size: numbers per memory.
        threat: faulty members; nobody is faulty unless given.
        key: of their draws.
        learned: parameters of those that were trained.
    """

    committee: Committee
    threshold: Threshold
    memory_size: int = eqx.field(static=True)
    threat: Threat | None = eqx.field(static=True, default=None)
    key: PRNGKeyArray | None = None
    learned: Any = None

    def init(self, n_envs: int) -> Any:
        """Blank memories, a shield that has seen nothing and changed nothing, and faulty members where there are
        any."""
        committee = self.committee
        table = init_memory(committee.n_members, n_envs, committee.spec.n_entities, self.memory_size)
        changed = None if committee.shield is None else jnp.zeros(n_envs, bool)
        carried = (table, init_guard(committee, n_envs), changed)
        if self.threat is None:
            return carried
        key = jax.random.key(0) if self.key is None else self.key
        return (*carried, init_faults(self.threat, committee.n_members, n_envs, key, learned=self.learned))

    def judge(self, carried: Any, observation: Any, label: Any, key: Any, t: Any) -> tuple[Any, Any, Any]:
        """Decides; the label and the key are not used."""
        table, guard, changed, *more = carried
        faults: Faults | None = more[0] if more else None
        table, guard, decision, _ = decide_events(
            self.committee, table, observation, t, threshold=self.threshold, guard=guard, faults=faults
        )
        changed = None if changed is None else decision.shielded
        if faults is not None:
            more = [advance(faults, jnp.zeros(faults.time.shape, bool))]
        return (table, guard, changed, *more), decision.action, decision.score

    def overruled(self, carried: Any) -> Any:
        """Where the committee's shield did not let its verdict pass."""
        return carried[2]


def recall(table: Any, source: Any, blank: Any) -> Any:
    """What is kept of the processes whose memory the events read; ``blank`` where there is none.

    Args:
        table: ``[env, entity, ...]``, NumPy or JAX.
        source: slot per environment, see ``Observation``.
        blank: in the place of a process of which nothing is known.

    Example:
        >>> recall(np.array([[5, 7], [8, 9]]), np.array([1, -1]), 0).tolist()
        [7, 0]
    """
    xp = jnp if isinstance(table, jax.Array) else np
    row = table[xp.arange(source.shape[0]), xp.maximum(source, 0)]
    known = (source >= 0).reshape(-1, *(1,) * (row.ndim - 1))
    return xp.where(known, row, xp.asarray(blank, row.dtype))


def note(table: Any, entity: Any, row: Any) -> Any:
    """The table with what is kept of the acting processes written anew; a NumPy table is changed in its place."""
    if isinstance(table, jax.Array):
        return table.at[jnp.arange(entity.shape[0]), entity].set(row, unique_indices=True)
    table[np.arange(entity.shape[0]), entity] = row
    return table


def number_column(spec: ObservationSpec, name: str) -> int | None:
    """The place of a numeric column, None where the environment does not show it."""
    names = [column.name for column in spec.numeric]
    return names.index(name) if name in names else None


def without_repeats(answer: Any, numeric: Any, ticket_open: int | None) -> Any:
    """The answers without alerts on processes whose ticket is open: those reach no analyst and still cost.

    Args:
        answer: verdicts, one per environment, NumPy or JAX.
        numeric: the observation's numbers.
        ticket_open: place of the column of that name; all alerts stay where it is None.
    """
    if ticket_open is None:
        return answer
    xp = jnp if isinstance(answer, jax.Array) else np
    repeated = (answer == int(Verdict.ALERT)) & (numeric[:, ticket_open] > 0.5)
    return xp.where(repeated, int(Verdict.ALLOW), answer).astype(xp.int32)
