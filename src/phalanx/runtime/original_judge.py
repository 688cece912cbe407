"""What the original's committee says of rows: greedy, each row from zero state, the verdict that of most members."""

import time
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from phalanx.agents.original import fresh_outputs
from phalanx.analysis.metrics import detection_metrics
from phalanx.envs.original import OriginalEnv, Specs, original_verdict
from phalanx.runtime.original import ORIGINAL_SPECS, OriginalCommittee
from phalanx.runtime.watch import Watched, ballot

__all__ = ["judge", "majority", "original_latency", "original_specs", "validate_original"]

_VALIDATION_ROWS = 1_600
_CHUNK = 4_096
_LATENCY_CALLS = 300
_COUNTS = ("tp", "tn", "fp", "fn", "precision", "recall", "f1", "pr_auc")


@eqx.filter_jit
def _log_probs(
    committee: OriginalCommittee, features: Float[Array, "row feature"]
) -> Float[Array, "row member verdict"]:
    logits = jax.vmap(fresh_outputs, in_axes=(0, None))(committee.networks, features).logits
    return jnp.moveaxis(jax.nn.log_softmax(logits), 0, 1)


def judge(env: OriginalEnv, committee: OriginalCommittee, most: int | None = None) -> Watched:
    """What the members say of the rows of a part, in the split's order, of the first ``most`` of them."""
    features, label = (leaf[:most] for leaf in env.in_order())
    parts = []
    for begin in range(0, len(label), _CHUNK):
        chunk = features[begin : begin + _CHUNK]
        padded = np.pad(chunk, ((0, min(_CHUNK, len(label)) - len(chunk)), (0, 0)))
        parts.append(np.asarray(_log_probs(committee, jnp.asarray(padded)))[: len(chunk)])
    return Watched(label, np.concatenate(parts), np.zeros((len(label), 0), np.int32), features)


def majority(votes: Int[np.ndarray, "row member"]) -> Int[np.ndarray, " row"]:
    """The original's verdict on each row of votes.

    Example:
        >>> majority(np.array([[0, 2, 3], [0, 1, 3]])).tolist()
        [2, 0]
    """
    return np.asarray(jax.vmap(original_verdict)(jnp.asarray(votes, jnp.int32)))


def validate_original(env: OriginalEnv, committee: OriginalCommittee) -> dict[str, float]:
    """The original's validation: greedy, the first 1,600 rows of the part; block or quarantine is positive.

    Returns:
        Keys ``eval/...``; NaN where undefined.
    """
    judged = judge(env, committee, _VALIDATION_ROWS)
    verdict = majority(ballot(judged, None, 0))
    found = detection_metrics(judged.label, verdict, judged.score, positive="restrict")
    values = {name: getattr(found, name) for name in _COUNTS}
    return {f"eval/{name}": np.nan if value is None else float(value) for name, value in values.items()}


def original_specs(
    env: OriginalEnv, votes: Int[np.ndarray, "row member"], key: PRNGKeyArray
) -> dict[str, dict[str, float]]:
    """The four specs while the committee answers all rows once, as one episode.

    Args:
        env: a part.
        votes: of the members, in the order of the part.
        key: of response times and loads.

    Returns:
        By spec: ``satisfied``, 1 where it held at every step of that one episode, else 0; ``steps_satisfied``, the
        share of the steps with robustness >= 0; ``robustness_min``.
    """
    specs = _specs_along(env, jnp.asarray(votes[env.order], jnp.int32), key)
    values = {name: np.asarray(getattr(specs, name)) for name in ORIGINAL_SPECS}
    return {
        name: {
            "satisfied": float(value.min() >= 0),
            "steps_satisfied": float((value >= 0).mean()),
            "robustness_min": float(value.min()),
        }
        for name, value in values.items()
    }


@eqx.filter_jit
def _specs_along(env: OriginalEnv, votes: Int[Array, "row member"], key: PRNGKeyArray) -> Specs:
    key_start, key_steps = jax.random.split(key)

    def step(state: Any, key: PRNGKeyArray) -> tuple[Any, Specs]:
        state, _, _, cause = env.step_votes(state, votes[state.place], key)
        return state, cause.specs

    keys = jax.random.split(key_steps, votes.shape[0])
    return jax.lax.scan(step, env.reset(key_start)[0], keys)[1]


def original_latency(env: OriginalEnv, committee: OriginalCommittee) -> dict[str, float]:
    """Time of one greedy decision, one row at a time, in ms; compilation apart."""
    row, taken = env.features[:1], []
    for call in range(_LATENCY_CALLS + 10):
        begun = time.perf_counter()
        jax.block_until_ready(_log_probs(committee, row))
        if call >= 10:
            taken.append(1e3 * (time.perf_counter() - begun))
    return {"p50": float(np.percentile(taken, 50)), "p99": float(np.percentile(taken, 99))}
