"""Anomaly detection without labels: how unlikely an event is for its command, by itself or summed over a process.

The surprise of an event is -log p(kind, path | command), with counts from the training episodes and additive smoothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phalanx.errors import UsageError
from phalanx.runtime.episodes import Seen
from phalanx.runtime.policies import ScoredPolicy, note, recall, without_repeats
from phalanx.runtime.tuning import Dimension
from phalanx.runtime.vocabulary import Vocabulary
from phalanx.types import Verdict

__all__ = [
    "CusumFamily",
    "CusumPolicy",
    "Surprise",
    "SurpriseFamily",
    "SurprisePolicy",
    "answer_dimension",
    "fit_surprise",
]

_GIVEN, _OUTCOME = "command", ("kind", "path")


class Surprise(eqx.Module):
    """Surprise in nats of each outcome of each command.

    Attributes:
        table: one row a command; outcomes are the ids of the other columns, the last one running fastest.
        given: place of the command's column, None where there is none.
        places, sizes: of the outcome's columns.
    """

    table: Float[Array, "given outcome"]
    given: int | None = eqx.field(static=True)
    places: tuple[int, ...] = eqx.field(static=True)
    sizes: tuple[int, ...] = eqx.field(static=True)

    def __call__(self, category: Int[Array, "*batch column"]) -> Float[Array, "*batch"]:
        """-log p of each event, >= 0."""
        return self.table[_cells(category, self.given, self.places, self.sizes)]


def _cells(category: Any, given: int | None, places: Sequence[int], sizes: Sequence[int]) -> tuple[Any, Any]:
    outcome = category[..., places[0]]
    for place, size in zip(places[1:], sizes[1:], strict=True):
        outcome = outcome * size + category[..., place]
    return (category[..., given] if given is not None else outcome * 0), outcome


def fit_surprise(
    vocabulary: Vocabulary, seen: Seen, weight: Float[np.ndarray, " env"], *, smoothing: float = 0.1
) -> tuple[Surprise, Float[np.ndarray, " row"]]:
    r"""Counts the outcomes of each command in episodes that nobody has labelled, attacks and all.

    :math:`p(o | c) = (n_{co} + a) / (n_c + a K)` with K possible outcomes.

    Args:
        vocabulary: of the environment; of kind, path and command those are used that are there.
        seen: the fitting episodes.
        weight: of each episode.
        smoothing: a, above 0.

    Returns:
        The surprise, and its values on the fitting events.

    Raises:
        UsageError: the environment shows neither kind nor path.

    Source:
        Additive smoothing: Manning, Raghavan, Schuetze (2008), "Introduction to information retrieval", section 13.2.
    """
    names = [name for name in _OUTCOME if name in vocabulary.places]
    if not names:
        raise UsageError(f"the environment shows none of {', '.join(_OUTCOME)}; surprise needs one of them")
    given = vocabulary.places.get(_GIVEN)
    places = tuple(vocabulary.places[name] for name in names)
    sizes = tuple(len(vocabulary.values[name]) for name in names)
    rows = 1 if given is None else len(vocabulary.values[_GIVEN])
    counts = np.zeros((rows, int(np.prod(sizes))))
    live = seen.live
    cells = _cells(seen.category[live], given, places, sizes)
    np.add.at(counts, cells, np.broadcast_to(weight[None], live.shape)[live])
    likely = (counts + smoothing) / (counts.sum(axis=1, keepdims=True) + smoothing * counts.shape[1])
    table = -np.log(likely)
    return Surprise(jnp.asarray(table, jnp.float32), given, places, sizes), table[cells]


class SurprisePolicy(ScoredPolicy):
    """One verdict for every event whose surprise reaches a threshold.

    Attributes:
        surprise: fitted.
        threshold: in nats, per environment.
        verdict: per environment.
        ticket_open: place of that column.
    """

    surprise: Surprise
    threshold: Float[Array, " env"]
    verdict: Int[Array, " env"]
    ticket_open: int | None = eqx.field(static=True)

    def init(self, n_envs: int) -> Any:
        """Nothing is carried."""
        return ()

    def judge(self, carried: Any, observation: Any, label: Any, key: Any, t: Any) -> tuple[Any, Any, Any]:
        """The suspicion is the surprise."""
        found = self.surprise(observation.category)
        answer = jnp.where(found >= self.threshold, self.verdict, int(Verdict.ALLOW))
        return carried, without_repeats(answer, observation.numeric, self.ticket_open), found


class CusumPolicy(ScoredPolicy):
    r"""One verdict when the surprise of a process adds up: :math:`S = \max(0, S + s - k)`, answered at S >= h.

    A child starts from its parent's sum; an answer sets the sum to 0.

    Attributes:
        surprise: fitted.
        drift: k in nats, per environment: what is usual.
        threshold: h in nats, per environment.
        verdict: per environment.
        n_entities: memory slots.
        ticket_open: place of that column.

    Source:
        Page (1954), "Continuous inspection schemes".
    """

    surprise: Surprise
    drift: Float[Array, " env"]
    threshold: Float[Array, " env"]
    verdict: Int[Array, " env"]
    n_entities: int = eqx.field(static=True)
    ticket_open: int | None = eqx.field(static=True)

    def init(self, n_envs: int) -> Any:
        """All sums are 0."""
        return jnp.zeros((n_envs, self.n_entities), jnp.float32)

    def judge(self, carried: Any, observation: Any, label: Any, key: Any, t: Any) -> tuple[Any, Any, Any]:
        """The suspicion is the sum before it is set back."""
        before = recall(carried, observation.source, 0.0)
        total = jnp.maximum(before + self.surprise(observation.category) - self.drift, 0.0)
        reached = total >= self.threshold
        answer = jnp.where(reached, self.verdict, int(Verdict.ALLOW))
        kept = note(carried, observation.entity, jnp.where(reached, 0.0, total))
        return kept, without_repeats(answer, observation.numeric, self.ticket_open), total


def answer_dimension() -> Dimension:
    """Which verdict to answer with: alert, block or quarantine."""
    return Dimension("answer", choices=("alert", "block", "quarantine"))


def _verdicts(settings: Sequence[Mapping[str, Any]], n_envs: int) -> Int[Array, " env"]:
    named = [int(Verdict[each["answer"].upper()]) for each in settings]
    return jnp.asarray(np.repeat(named, n_envs), jnp.int32)


def _each(values: Sequence[float], n_envs: int) -> Float[Array, " env"]:
    return jnp.asarray(np.repeat(values, n_envs), jnp.float32)


@dataclass(frozen=True, eq=False)
class SurpriseFamily:
    """Thresholds on the surprise; ``rarity`` 3 answers one in a thousand of the fitting events.

    Attributes:
        surprise: fitted.
        values: surprise of the fitting events.
        ticket_open: place of that column.
    """

    surprise: Surprise
    values: Float[np.ndarray, " row"]
    ticket_open: int | None

    @property
    def space(self) -> tuple[Dimension, ...]:
        """How rare an event must be, as -log10 of a share, and the verdict."""
        return Dimension("rarity", 0.5, 5.0), answer_dimension()

    def build(self, settings: Sequence[Mapping[str, Any]], n_envs: int) -> SurprisePolicy:
        """The policies of some settings side by side."""
        cuts = [self._cut(each) for each in settings]
        return SurprisePolicy(
            self.surprise, _each(cuts, n_envs), _verdicts(settings, n_envs), self.ticket_open
        )

    def explain(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The threshold in nats, and the verdict."""
        return {"threshold": self._cut(settings), "answer": settings["answer"]}

    def _cut(self, settings: Mapping[str, Any]) -> float:
        return float(np.quantile(self.values, 1.0 - 10.0 ** -settings["rarity"]))


@dataclass(frozen=True, eq=False)
class CusumFamily:
    """Sums of the surprise per process; drift and threshold in standard deviations of the fitting events' surprise.

    Attributes:
        surprise: fitted.
        values: surprise of the fitting events.
        n_entities: memory slots.
        ticket_open: place of that column.
    """

    surprise: Surprise
    values: Float[np.ndarray, " row"]
    n_entities: int
    ticket_open: int | None

    @property
    def space(self) -> tuple[Dimension, ...]:
        """Drift above the mean, threshold, and the verdict."""
        return (
            Dimension("drift", -0.5, 2.5),
            Dimension("threshold", 0.5, 50.0, log=True),
            answer_dimension(),
        )

    def build(self, settings: Sequence[Mapping[str, Any]], n_envs: int) -> CusumPolicy:
        """The policies of some settings side by side."""
        limits = [self._limits(each) for each in settings]
        return CusumPolicy(
            surprise=self.surprise,
            drift=_each([drift for drift, _ in limits], n_envs),
            threshold=_each([threshold for _, threshold in limits], n_envs),
            verdict=_verdicts(settings, n_envs),
            n_entities=self.n_entities,
            ticket_open=self.ticket_open,
        )

    def explain(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Drift and threshold in nats, and the verdict."""
        drift, threshold = self._limits(settings)
        return {"drift": drift, "threshold": threshold, "answer": settings["answer"]}

    def _limits(self, settings: Mapping[str, Any]) -> tuple[float, float]:
        mean, spread = float(self.values.mean()), float(self.values.std())
        return mean + settings["drift"] * spread, settings["threshold"] * spread
