"""What is to be expected of the voting rule under lies, from how members vote when they are honest: exact.

The input is the joint distribution of honest votes as it was measured, event by event, so that accuracy and correlation
of errors are in it and no model of them is needed. For each event the verdict's distribution follows by counting votes,
over all draws of those liars that draw. ``adversaries`` acts the same liars out, member by member; the two agree.
"""

import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from phalanx.committee.attacks import ballots_of, harm, omissions
from phalanx.committee.voting import verdict_of
from phalanx.errors import unknown_name
from phalanx.types import N_VERDICTS, Verdict

__all__ = ["PREDICTED", "Reaction", "alone", "predict", "votes_needed"]


@dataclass(frozen=True)
class Reaction:
    """How all members would vote on each event, whatever a given set of K liars says beforehand.

    Attributes:
        honest: where nobody lies.
        told: where so many of the liars (0..K) say quarantine with certainty and the others allow.
        unheard: where nothing is heard of the liars.
        faulty: the set.
        f: faults that the rule tolerates.
    """

    honest: Int[np.ndarray, "event member"]
    told: Int[np.ndarray, "alarmed event member"]
    unheard: Int[np.ndarray, "event member"]
    faulty: Bool[np.ndarray, " member"]
    f: int


def alone(votes: Int[np.ndarray, "event member"], faulty: Bool[np.ndarray, " member"], f: int) -> Reaction:
    """The reaction of members who do not heed one another: they vote as they vote.

    Example:
        >>> alone(np.array([[0, 1, 2, 3]]), np.array([True, False, False, False]), 1).told.shape
        (2, 1, 4)
    """
    return Reaction(votes, np.stack([votes] * (int(faulty.sum()) + 1)), votes, faulty, f)


@functools.cache
def _answers(n: int, f: int) -> Int[np.ndarray, "allow alert block quarantine"]:
    """The verdict for every number of votes of each kind, 0 to n."""
    counts = np.indices((n + 1,) * N_VERDICTS).reshape(N_VERDICTS, -1).T
    at_least = np.ascontiguousarray(counts[:, ::-1].cumsum(axis=1)[:, ::-1]).astype(np.int32)
    found = jax.jit(jax.vmap(lambda row: verdict_of(row, f)))(jnp.asarray(at_least))
    return np.asarray(found).reshape((n + 1,) * N_VERDICTS)


class _Count:
    """Votes of each kind on every distinct event, and the verdicts that they come to."""

    def __init__(self, reaction: Reaction) -> None:
        self.reaction, self.n = reaction, reaction.honest.shape[1]
        self.faulty = reaction.faulty
        self.liars = int(reaction.faulty.sum())
        self.least = 2 * reaction.f + 1
        self.fair = self.verdict(self.all_of(reaction.honest))

    def all_of(self, votes: Int[np.ndarray, "event member"]) -> Int[np.ndarray, "event verdict"]:
        return (votes[..., None] == np.arange(N_VERDICTS)).sum(axis=1)

    def honest_of(self, votes: Int[np.ndarray, "event member"]) -> Int[np.ndarray, "event verdict"]:
        return self.all_of(votes[:, ~self.faulty])

    def cast(self, lies: tuple[int, ...]) -> Int[np.ndarray, " verdict"]:
        return np.bincount([lie for lie in lies if lie >= 0], minlength=N_VERDICTS)

    def verdict(self, counts: Int[np.ndarray, "*batch verdict"]) -> Int[np.ndarray, "*batch"]:
        table = _answers(self.n, self.reaction.f)
        return table[tuple(np.moveaxis(counts, -1, 0))]

    def sure(self, verdict: Int[np.ndarray, " event"]) -> Float[np.ndarray, "event verdict"]:
        return np.eye(N_VERDICTS)[verdict]

    def agreed(self, code: int) -> Int[np.ndarray, " event"]:
        """The verdicts where all liars say and vote the same."""
        alarmed = 0 if code == Verdict.ALLOW else self.liars
        return self.verdict(self.honest_of(self.reaction.told[alarmed]) + self.cast((code,) * self.liars))

    def worst(
        self, lies: list[tuple[int, ...]], label: Int[np.ndarray, " event"], omit: int = 0
    ) -> Float[np.ndarray, "event verdict"]:
        """The most harmful verdict that one of these ballots brings about, after either end said beforehand, and with
        so many honest votes left out at most."""
        best, gain = self.fair.copy(), self._gain(self.fair, label)
        for alarmed in {0, self.liars}:
            honest = self.honest_of(self.reaction.told[alarmed])
            for out in omissions(omit):
                left = honest - out
                for lie in lies:
                    cast = self.cast(lie)
                    size = self.n - self.liars - int(out.sum()) + int(cast.sum())
                    possible = (left >= 0).all(axis=1) & (size >= self.least or not out.any())
                    reached = self.verdict(np.maximum(left, 0) + cast)
                    worth = np.where(possible, self._gain(reached, label), -1)
                    best, gain = np.where(worth > gain, reached, best), np.maximum(worth, gain)
        return self.sure(best)

    def _gain(self, verdict: np.ndarray, label: np.ndarray) -> np.ndarray:
        return _harms()[verdict, self.fair, label]


@functools.cache
def _harms() -> Int[np.ndarray, "verdict honest label"]:
    """``attacks.harm`` of every case; the label -1 is last."""
    cases = np.indices((N_VERDICTS, N_VERDICTS, 3)).reshape(3, -1).astype(np.int32)
    verdict, honest, label = map(jnp.asarray, cases)
    return np.asarray(harm(verdict, honest, jnp.where(label == 2, -1, label))).reshape(
        N_VERDICTS, N_VERDICTS, 3
    )


_Predict = Callable[[_Count, Int[np.ndarray, " event"]], Float[np.ndarray, "event verdict"]]


def _random(count: _Count, label: np.ndarray) -> np.ndarray:
    draws = list(itertools.product(range(N_VERDICTS), repeat=count.liars))
    total = np.zeros((len(count.fair), N_VERDICTS))
    for draw in draws:
        alarmed = sum(lie >= Verdict.ALERT for lie in draw)
        honest = count.honest_of(count.reaction.told[alarmed])
        total += count.sure(count.verdict(honest + count.cast(draw)))
    return total / len(draws)


def _flip(count: _Count, label: np.ndarray) -> np.ndarray:
    alarmed = (count.reaction.honest[:, count.faulty] == Verdict.ALLOW).sum(axis=1)
    honest = count.all_of(count.reaction.told[alarmed, np.arange(len(alarmed))][:, ~count.faulty])
    honest[:, Verdict.QUARANTINE] += alarmed
    honest[:, Verdict.ALLOW] += count.liars - alarmed
    return count.sure(count.verdict(honest))


def _targeted(count: _Count, label: np.ndarray) -> np.ndarray:
    lies = np.where(count.fair >= Verdict.ALERT, count.agreed(Verdict.ALLOW), count.fair)
    return count.sure(lies)


def _targeted_benign(count: _Count, label: np.ndarray) -> np.ndarray:
    return count.sure(np.where(count.fair == Verdict.ALLOW, count.agreed(Verdict.QUARANTINE), count.fair))


def _silent(count: _Count, label: np.ndarray) -> np.ndarray:
    return count.sure(count.verdict(count.honest_of(count.reaction.unheard)))


def _collude(count: _Count, label: np.ndarray) -> np.ndarray:
    return count.worst([(vote,) * count.liars for vote in range(N_VERDICTS)], label)


def _worst_case(count: _Count, label: np.ndarray) -> np.ndarray:
    return count.worst([tuple(row) for row in ballots_of(count.liars).tolist()], label)


def _room(count: _Count) -> int:
    return max(count.n - count.least, 0)


def _worst_proposer(count: _Count, label: np.ndarray) -> np.ndarray:
    return count.worst([tuple(row) for row in ballots_of(count.liars).tolist()], label, _room(count))


def _omit(count: _Count, label: np.ndarray) -> np.ndarray:
    votes = count.reaction.honest
    everybody = Reaction(votes, votes[None], votes, np.zeros(count.n, bool), count.reaction.f)
    return _Count(everybody).worst([()], label, _room(count))


def _honest(count: _Count, label: np.ndarray) -> np.ndarray:
    return count.sure(count.fair)


_KINDS: dict[str, _Predict] = {
    "random": _random,
    "flip": _flip,
    "collude": _collude,
    "silent": _silent,
    "targeted": _targeted,
    "targeted-benign": _targeted_benign,
    "worst-case": _worst_case,
    "omit": _omit,
    "worst-proposer": _worst_proposer,
}
PREDICTED = (*_KINDS, "sleeper", "targeted-process")
"""Adversaries of which the figures can be predicted: all but the learned one."""


def predict(
    kind: str,
    reaction: Reaction,
    *,
    label: Int[np.ndarray, " event"] | None = None,
    lies: Float[np.ndarray, " event"] | None = None,
) -> Float[np.ndarray, "event verdict"]:
    """The probability of each verdict on each event, the set of liars given.

    Args:
        kind: name in ``PREDICTED``, or ``none`` for members who are all honest.
        reaction: how members vote.
        label: what the liars are shown of the truth; nothing unless given.
        lies: for ``sleeper`` and ``targeted-process`` the probability that they lie on an event, in [0, 1]: whether
            they are awake, the chance that it is their process.

    Raises:
        UsageError: an adversary that is unknown or learned.

    Example:
        >>> votes = np.array([[0, 0, 0, 0], [1, 1, 0, 0]])
        >>> predict("random", alone(votes, np.array([True, False, False, False]), 1)).round(2).tolist()
        [[1.0, 0.0, 0.0, 0.0], [0.25, 0.75, 0.0, 0.0]]
    """
    if kind in ("sleeper", "targeted-process"):
        share = np.ones(len(reaction.honest)) if lies is None else lies
        awake = "flip" if kind == "sleeper" else "protect"
        told, honest = (_distinct(name, reaction, label) for name in (awake, "none"))
        return share[:, None] * told + (1 - share[:, None]) * honest
    if kind not in (*_KINDS, "none"):
        raise unknown_name("adversary of which figures can be predicted", kind, PREDICTED)
    return _distinct(kind, reaction, label)


def votes_needed(
    n: int, f: int, kind: str = "worst-case", faulty: int | None = None
) -> dict[str, tuple[int | None, int | None]]:
    """How many honest votes for a verdict make it possible, and how many make it sure, whatever liars do.

    The other honest members vote allow. Liars know what they want: with fewer votes than the first number they cannot
    bring the verdict about, with the second number or more they cannot prevent it (or a more severe one).

    Args:
        n: members.
        f: faults that the rule tolerates.
        kind: ``worst-case``, or ``worst-proposer`` where one of them leaves votes out, too.
        faulty: liars; f unless given.

    Returns:
        By verdict, alert to quarantine: the two numbers, None where no number does.

    Example:
        >>> votes_needed(4, 1)
        {'alert': (1, 2), 'block': (2, 3), 'quarantine': (2, 3)}
        >>> votes_needed(4, 1, "worst-proposer")
        {'alert': (1, 3), 'block': (1, 3), 'quarantine': (2, None)}
    """
    liars = f if faulty is None else faulty
    honest = n - liars
    cases = np.arange(honest + 1)
    found: dict[str, tuple[int | None, int | None]] = {}
    for verdict in (Verdict.ALERT, Verdict.BLOCK, Verdict.QUARANTINE):
        votes = np.zeros((honest + 1, n), np.int32)
        votes[:, liars:] = np.where(np.arange(honest)[None] < cases[:, None], int(verdict), 0)
        own = alone(votes, np.arange(n) < liars, f)
        reached = [
            predict(kind, own, label=np.full(honest + 1, label)).argmax(axis=1) >= verdict for label in (0, 1)
        ]
        first = [next((int(case) for case in cases if each[case:].all()), None) for each in reached]
        found[verdict.name.lower()] = (first[0], first[1])
    return found


def _protect(count: _Count, label: np.ndarray) -> np.ndarray:
    return count.sure(count.agreed(Verdict.ALLOW))


def _distinct(
    kind: str, reaction: Reaction, label: Int[np.ndarray, " event"] | None
) -> Float[np.ndarray, "event verdict"]:
    """Predicts each distinct event once."""
    n_events = len(reaction.honest)
    shown = np.full(n_events, -1) if label is None else label
    parts = [reaction.honest, reaction.unheard, *reaction.told, shown[:, None]]
    packed = np.ascontiguousarray(np.concatenate(parts, axis=1), np.int8)
    # as one item of so many bytes each: many times faster than by columns
    items = packed.view(np.dtype((np.void, packed.shape[1]))).reshape(-1)
    _, first, place = np.unique(items, return_index=True, return_inverse=True)
    rows, n = packed[first].astype(np.int64), reaction.honest.shape[1]
    honest, unheard, *told = (rows[:, n * i : n * (i + 1)] for i in range(2 + len(reaction.told)))
    own = Reaction(honest, np.stack(told), unheard, reaction.faulty, reaction.f)
    predicted = {**_KINDS, "none": _honest, "protect": _protect}[kind](_Count(own), rows[:, -1])
    return predicted[place.reshape(-1)]
