"""Committees with drawn opinions, and what liars can do to them by trying everything, in plain Python."""

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phalanx.committee.agreement import agree
from phalanx.committee.faults import Faults, Threat, init_faults

__all__ = [
    "NOTHING",
    "everything",
    "faults_of",
    "majority_answer",
    "opinions",
    "respond_to",
    "rule",
    "told_votes",
]

NOTHING = -2


def rule(votes: Sequence[int], f: int) -> int:
    """The rule as CONTRACT.md words it, on the votes received."""
    if len(votes) < 2 * f + 1:
        return 1
    if sum(v == 3 for v in votes) >= 2 * f + 1:
        return 3
    if sum(v >= 2 for v in votes) > len(votes) / 2:
        return 2
    return int(sum(v >= 1 for v in votes) >= f + 1)


def opinions(seed: int, n: int, n_envs: int, spread: float = 2.0) -> np.ndarray:
    """Log-probabilities ``[member, env, verdict]`` of members that mostly, not always, see an event alike."""
    rng = np.random.default_rng(seed)
    common, own = rng.normal(0, spread, (1, n_envs, 4)), rng.normal(0, 1.5, (n, n_envs, 4))
    return np.asarray(jax.nn.log_softmax(jnp.asarray((common + own).astype(np.float32))))


def respond_to(log_probs: np.ndarray, f: int) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Members that answer, each its own likeliest way, where the middle of what they are told is suspicious."""
    kinds = 1 + jnp.argmax(jnp.asarray(log_probs)[..., 1:], axis=-1).astype(jnp.int32)

    def respond(told: jax.Array, heard: jax.Array) -> jax.Array:
        odds = jax.nn.logsumexp(told[..., 1:], axis=-1) - told[..., 0]
        return jnp.where((agree(odds, f, heard) >= 0.0)[None], kinds, 0).T

    return respond


def told_votes(log_probs: np.ndarray, said: Sequence[float | None], f: int) -> list[int]:
    """The same for one event in plain Python: ``said`` are log-odds, None where nothing is heard."""
    heard = sorted(each for each in said if each is not None)
    trim = min(f, (len(heard) - 1) // 2) if heard else 0
    middle = heard[trim : len(heard) - trim]
    act = bool(middle) and sum(middle) / len(middle) >= 0.0
    return [1 + int(np.argmax(row[1:])) if act else 0 for row in log_probs]


def log_odds(log_probs: np.ndarray) -> np.ndarray:
    wide = log_probs.astype(np.float64)
    return np.log(np.exp(wide[..., 1:]).sum(-1)) - wide[..., 0]


def everything(
    log_probs: np.ndarray, liars: Sequence[int], f: int, sayings: Sequence[float | None], omit: int = 0
) -> Iterator[int]:
    """Every verdict on one event that liars can bring about: all that they may say (``sayings``, log-odds or nothing)
    and vote, each by itself, and each set of up to ``omit`` honest votes left out that leaves a quorum."""
    n = len(log_probs)
    honest = [m for m in range(n) if m not in liars]
    odds = log_odds(log_probs)
    answers = {
        tuple(
            told_votes(log_probs, [said[liars.index(m)] if m in liars else odds[m] for m in range(n)], f)[m]
            for m in honest
        )
        for said in itertools.product(sayings, repeat=len(liars))
    }
    for votes in answers:
        for lies in itertools.product((NOTHING, 0, 1, 2, 3), repeat=len(liars)):
            cast = [lie for lie in lies if lie != NOTHING]
            for size in range(omit + 1):
                if size and len(votes) - size + len(cast) < 2 * f + 1:
                    continue
                for out in itertools.combinations(range(len(votes)), size):
                    yield rule([v for i, v in enumerate(votes) if i not in out] + cast, f)


def faults_of(kind: str, n: int, n_envs: int, faulty: int, *, seed: int = 0, **threat: int) -> Faults:
    """That many liars of one kind in every environment, every set of them in turn."""
    settings: dict[str, Any] = {"horizon": 10, "n_entities": 4} | threat
    return init_faults(Threat((kind,), faulty, **settings), n, n_envs, jax.random.key(seed))


def majority_answer(votes: np.ndarray, received: np.ndarray, f: int) -> list[int]:
    """The rule on each row of votes."""
    return [rule(row[there].tolist(), f) for row, there in zip(votes, received, strict=True)]
