"""Training of a liar: a contextual bandit against a committee that stays as it is.

On every event the liar wants one of the verdicts that some lie leads to (``committee.learned``), and is paid for what
the committee then answers: the milder the better on malicious events, the more severe the better on benign ones, both
classes counting alike. All verdicts' pay is known in training, so the gradient of the mean pay is exact and nothing is
drawn,

    J = E[sum_v pi(v | x) pay(v, label)],   pay(v, 1) = (3 - v) / 3,   pay(v, 0) = v / 3.

It learns from the labels of the events that it is trained on and is never shown one again: what it knows of a later
event's truth is what the honest members' opinions tell.

Source: the policy gradient with all actions, Allen et al., "Mean actor critic", 1709.00503, eq. 4, for one step.
"""

from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, PRNGKeyArray

from phalanx.committee.adversaries import scene_of
from phalanx.committee.attacks import ballots_of, reached
from phalanx.committee.faults import Faults, Threat, init_faults
from phalanx.committee.learned import LearnedLiar, can_reach, init_liar, traits
from phalanx.errors import DataError
from phalanx.runtime.cut import Cut
from phalanx.runtime.decide import respond_to
from phalanx.runtime.watch import Watched
from phalanx.types import N_VERDICTS

__all__ = ["LiarReport", "train_liar"]

_STEPS, _RATE, _MOST = 400, 0.02, 16_384


@dataclass(frozen=True)
class LiarReport:
    """What training a liar came to, as mean pay in [0, 1].

    Attributes:
        honest: of a liar that never lies.
        before: of the untrained one.
        after: of the trained one.
    """

    honest: float
    before: float
    after: float


def train_liar(
    watched: Watched, threshold: float | Cut | None, f: int, faulty: int, key: PRNGKeyArray
) -> tuple[LearnedLiar, LiarReport]:
    """Trains a liar on events whose truth is known.

    Args:
        watched: opinions, honestly held, on events that nothing is measured on later.
        threshold: operating point of the committee; None where members take their likeliest verdict.
        f: faults that the rule tolerates.
        faulty: liars, each set of them on equally many events.
        key: of the liar's first parameters and of the choice of events.

    Raises:
        DataError: no event of a class.
    """
    key_liar, key_rows, key_faults = jax.random.split(key, 3)
    known = np.flatnonzero(watched.label >= 0)
    classes = [int((watched.label == label).sum()) for label in (0, 1)]
    if min(classes) == 0:
        raise DataError(
            f"a liar learns from events of both kinds; here are {classes[0]} benign and {classes[1]} malicious ones"
        )
    rows = _both_kinds(watched.label, known, key_rows)
    label = watched.label[rows]
    verdict = np.arange(N_VERDICTS, dtype=np.float32) / (N_VERDICTS - 1)
    gain = np.where((label == 1)[:, None], 1.0 - verdict, verdict)
    pay = jnp.asarray(gain * (0.5 / np.bincount(label)[label])[:, None], jnp.float32)
    faults = init_faults(
        Threat(("learned",), faulty, horizon=1), watched.log_probs.shape[1], len(rows), key_faults
    )
    log_probs = jnp.moveaxis(jnp.asarray(watched.log_probs[rows]), 1, 0)
    cut = None if threshold is None else Cut.of(threshold).arrays()
    liar, found = _learn(init_liar(key_liar), faults, log_probs, cut, pay, f)
    return liar, LiarReport(*(float(each) for each in found))


def _both_kinds(label: np.ndarray, known: np.ndarray, key: PRNGKeyArray) -> np.ndarray:
    """At most so many events, half of them malicious where there are enough."""
    order = known[np.asarray(jax.random.permutation(key, len(known)))]
    malicious, benign = order[label[order] == 1], order[label[order] == 0]
    half = _MOST // 2
    take = max(half, _MOST - len(benign))
    return np.concatenate([malicious[:take], benign[: _MOST - min(take, len(malicious))]])


def _mean_pay(liar: LearnedLiar, seen: Array, possible: Array, pay: Array) -> Array:
    """Of the verdict that it wants most, as it acts."""
    wanted = jnp.argmax(liar.log_probs(seen, possible), axis=-1)
    return jnp.take_along_axis(pay, wanted[:, None], axis=1).sum()


@eqx.filter_jit
def _learn(
    liar: LearnedLiar, faults: Faults, log_probs: Array, threshold: Cut | None, pay: Array, f: int
) -> tuple[LearnedLiar, tuple[Array, Array, Array]]:
    """The trained liar, and the pay of an honest, an untrained and a trained one."""
    entity = jnp.zeros(pay.shape[0], jnp.int32)
    scene = scene_of(faults, log_probs, respond_to(log_probs, f, threshold=threshold), f, entity)
    seen, possible = traits(scene), can_reach(scene, reached(scene, ballots_of(faults.threat.most)))
    optimizer = optax.adam(optax.linear_schedule(_RATE, 0.1 * _RATE, _STEPS))

    def loss(liar: LearnedLiar) -> Array:
        return -(jnp.exp(liar.log_probs(seen, possible)) * pay).sum()

    def step(carry: Any, _: None) -> tuple[Any, None]:
        liar, state = carry
        with jax.numpy_dtype_promotion("standard"):  # optax raises a Python float to an integer count
            updates, state = optimizer.update(jax.grad(loss)(liar), state)
        return (eqx.apply_updates(liar, updates), state), None

    start: Any = liar
    (trained, _), _ = jax.lax.scan(step, (start, optimizer.init(start)), None, length=_STEPS)
    honest = jnp.take_along_axis(pay, scene.verdict[:, None], axis=1).sum()
    return trained, (honest, _mean_pay(liar, seen, possible, pay), _mean_pay(trained, seen, possible, pay))
