"""Simulated episodes as NumPy arrays: small worlds in which much happens, and random answers to them."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from phalanx.envs.response import ResponseConfig
from phalanx.envs.sim_campaign import AttackConfig
from phalanx.envs.simulator import Simulator, SimulatorConfig

__all__ = [
    "ALLOW",
    "FAULTY",
    "ORACLE",
    "SMALL",
    "Episodes",
    "answers",
    "episodes",
    "random_answers",
    "roll",
    "take",
]

SMALL = SimulatorConfig(
    n_hosts=2,
    episode_events=192,
    host_rate_hz=0.25,
    drift=0.5,
    rollout=0.8,
    attack=AttackConfig(onset_share=0.2, pace=(0.02, 0.1), stealth=(0.1, 0.5), reentry=0.4, reentry_s=30.0),
    response=ResponseConfig(quarantine_ttl_s=90.0, service_s=30.0, max_wait_s=45.0),
)
"""Two hosts, hasty attackers, sensors without faults."""

FAULTY = replace(SMALL, lost=0.25, duplicated=0.15, late=0.2)
"""The same hosts under sensors that lose, repeat and delay much."""

ALLOW = ((1.0, 0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0))
ORACLE = ((1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0))
"""Probabilities of the verdicts on benign and on malicious events."""

_FAST_COMPILE = {"xla_backend_optimization_level": 0}
"""A step compiles three times as fast and runs six times as slow: short runs gain."""


@dataclass(frozen=True)
class Episodes:
    """Episodes under some answers; every array is [time, env, ...].

    Attributes:
        config: of the simulator.
        state: before each step, the event that waits included.
        verdict: the answer to it.
        step: what followed.
        live: whether the episode was still running.
    """

    config: SimulatorConfig
    state: Any
    verdict: np.ndarray
    step: Any
    live: np.ndarray

    @property
    def cases(self) -> int:
        """Answered events whose consequence is known."""
        return int(self.live[:-1].sum())


def answers(*tables: Any, n_envs: int) -> np.ndarray:
    """Verdict probabilities [env, label, verdict]: each table for as many environments."""
    return np.repeat(np.array(tables, np.float32), n_envs, axis=0)


def random_answers(rng: np.random.Generator, n_envs: int) -> np.ndarray:
    """Verdict probabilities drawn per environment, mostly mild to benign events and of any kind to malicious ones."""
    benign = rng.dirichlet((8.0, 0.5, 0.5, 0.3), n_envs)
    malicious = rng.dirichlet((1.5, 0.3, 0.3, 0.15), n_envs)
    return np.stack([benign, malicious], axis=1).astype(np.float32)


def roll(env: Any, key: Any, table: np.ndarray, *, steps: int | None = None, copies: int = 1) -> Episodes:
    """Runs episodes side by side without resets.

    Args:
        env: the simulator, or an environment with its states and its ``config``.
        key: of the worlds and of the answers.
        table: verdict probabilities [env, label, verdict].
        steps: events; an episode's by default.
        copies: the same worlds so many times over, along the environments' axis.
    """
    keys = jnp.tile(jax.random.split(key, len(table) // copies), copies)
    arrays, static = eqx.partition(env, eqx.is_array)
    run = _compiled(static)
    state, verdict, step = jax.tree.map(
        _host, run(arrays, keys, jnp.asarray(table), jnp.zeros(steps or env.episode_events))
    )
    ended = np.cumsum(step.terminated | step.truncated, axis=0)
    live = np.concatenate([np.ones_like(ended[:1], bool), ended[:-1] == 0])
    return Episodes(env.config, state, verdict, step, live)


_PROGRAMS: dict[int, tuple[Any, Any]] = {}


def _compiled(static: Any) -> Any:
    """One compiled loop per configuration; what it was made of is kept, so that its id is not another's."""
    known = _PROGRAMS.get(id(static.config))
    if known is None:

        def run(arrays: Any, keys: Any, table: Any, time: Any) -> Any:
            return _loop(eqx.combine(arrays, static), keys, table, time.shape[0])

        known = _PROGRAMS[id(static.config)] = (
            static.config,
            jax.jit(run, compiler_options=_FAST_COMPILE),
        )
    return known[1]


def _loop(env: Any, keys: Any, table: Any, steps: int) -> Any:
    start, _ = jax.vmap(env.reset)(keys)
    odds = jnp.log(table)

    def one(state: Any, key: Any, odds: Any) -> Any:
        key_answer, key_step = jax.random.split(key)
        label = (state.event.campaign >= 0).astype(jnp.int32)
        verdict = jax.random.categorical(key_answer, odds[label]).astype(jnp.int32)
        after, step = env.step(state, verdict, key_step)
        return after, (state, verdict, step)

    def body(state: Any, index: Any) -> Any:
        now = jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
        return jax.vmap(one)(state, now, odds)

    return jax.lax.scan(body, start, jnp.arange(steps))[1]


def _host(x: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)


@cache
def episodes(config: SimulatorConfig, name: str, *, n_envs: int = 128, seed: int = 0) -> Episodes:
    """Episodes of a small world, kept for all tests of a process.

    Args:
        config: of the simulator.
        name: ``random``, or one of the fixed answers.
        n_envs: episodes.
        seed: of everything.
    """
    fixed = {"allow": ALLOW, "oracle": ORACLE, "block": (ALLOW[0], (0.0, 0.0, 1.0, 0.0))}
    key = jax.random.key(seed)
    if name == "random":
        table = random_answers(np.random.default_rng(seed), n_envs)
    else:
        table = answers(fixed[name], n_envs=n_envs)
    return roll(_simulator(config), key, table)


@cache
def _simulator(config: SimulatorConfig) -> Simulator:
    return Simulator(config)


def take(values: np.ndarray, index: np.ndarray) -> np.ndarray:
    """``values[t, e, index[t, e]]``."""
    return np.take_along_axis(values, index[..., None], axis=-1)[..., 0]
