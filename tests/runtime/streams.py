"""Random streams of observations, and policies driven over them by hand, so that plain loops can check them."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from phalanx.runtime.episodes import Seen
from phalanx.runtime.policies import Policy
from phalanx.types import Observation

__all__ = ["drive", "stream"]


def stream(
    sizes: tuple[int, ...],
    n_numbers: int,
    *,
    steps: int = 40,
    envs: int = 3,
    entities: int = 4,
    seed: int = 0,
) -> Seen:
    """Events of few processes; a process's first event reads its parent's slot or nothing, as births do at any time."""
    rng = np.random.default_rng(seed)
    entity = rng.integers(entities, size=(steps, envs))
    born = rng.random((steps, envs)) < 0.2
    source = np.where(born, rng.integers(-1, entities, size=(steps, envs)), entity)
    return Seen(
        category=np.stack([rng.integers(size, size=(steps, envs)) for size in sizes], axis=-1).astype(
            np.int32
        ),
        numeric=rng.normal(size=(steps, envs, n_numbers)).astype(np.float32),
        entity=entity.astype(np.int32),
        source=source.astype(np.int32),
        label=rng.integers(0, 2, size=(steps, envs)).astype(np.int8),
        live=np.ones((steps, envs), bool),
    )


def _judge(policy: Policy, *shown: Any) -> Any:
    return policy.judge(*shown)


_judge_compiled = eqx.filter_jit(_judge)


def drive(policy: Policy, seen: Seen) -> tuple[np.ndarray, np.ndarray]:
    """Verdicts and suspicions of a policy, ``[time, env]``."""
    carried: Any = policy.init(seen.label.shape[1])
    answers, suspicions = [], []
    for t in range(seen.label.shape[0]):
        shown = Observation(
            *(jnp.asarray(leaf[t]) for leaf in (seen.category, seen.numeric, seen.entity, seen.source))
        )
        unseen = jnp.full(seen.label.shape[1], -1, jnp.int32)
        judge = _judge if policy.on_host else _judge_compiled
        carried, answer, suspicion = judge(policy, carried, shown, unseen, jax.random.key(0), jnp.int32(t))
        answers.append(np.asarray(answer))
        suspicions.append(np.asarray(suspicion))
    return np.stack(answers), np.stack(suspicions)
