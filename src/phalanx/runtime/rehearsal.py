"""Plays the original's reward with fixed policies before any training, for the doctor to judge.

The environment itself is played (``envs.original``, the one definition of reward and specs). Its events do not depend
on verdicts, so all policies meet the same ones, with the same random numbers: what differs is due to the answers.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from phalanx.analysis.doctor.finding import Finding, identity
from phalanx.analysis.doctor.rehearsal import Rehearsal, check_specs, check_terms
from phalanx.envs.original import N_MEMBERS, OriginalConfig, OriginalEnv, OriginalState, OriginalStep
from phalanx.runtime.config import PRESETS
from phalanx.runtime.original import ORIGINAL_SPECS
from phalanx.types import Verdict

__all__ = ["rehearse", "rehearse_settings"]

_RANDOM, _PERFECT = "random", "perfect"
_POLICIES = (*(verdict.name.lower() for verdict in Verdict), _RANDOM, _PERFECT)
_TERMS = ("task", "bonus", "penalty")
_EPISODES = 16
_ROWS_ASSUMED = 20_000
_LONGEST = 5_000
"""Steps of an episode that are played at most."""
_BASE_RATES = (0.1, 0.01, 0.5)
"""Shares of malicious events that are assumed where there are settings and no data; the first is the original's."""


def rehearse(
    label: Int[np.ndarray, " row"],
    *,
    episodes: int = _EPISODES,
    episode_events: int = PRESETS["original"]["episode_events"],
    seed: int = 0,
) -> Rehearsal:
    """The original's reward under each verdict for everything, votes at random, and a policy that knows the labels.

    Args:
        label: 1 malicious, 0 benign, of the rows that a run would learn from.
        episodes: how many are played, each from a random row on.
        episode_events: steps of each.
        seed: of first rows, votes and chance.

    Raises:
        DataError: no row, or a label other than 0 and 1.

    Example:
        >>> played = rehearse(np.array([0, 0, 1]), episodes=1, episode_events=5)
        >>> float(played.terms["penalty"][played.policies.index("perfect")].sum())
        0.0
    """
    env = OriginalEnv(
        {"event": np.zeros(len(label))},
        label,
        OriginalConfig(episode_events=episode_events),
        features=("event",),
    )
    played = _played(env, jax.random.key(seed), episodes)

    def lanes(values: Any) -> np.ndarray:  # from [time lane episode] to [lane step]
        return np.moveaxis(np.asarray(values, float), 0, -1).reshape(len(_POLICIES) + len(Verdict), -1)

    by_term = {name: lanes(getattr(played, name)) for name in _TERMS}
    by_spec = {name: lanes(getattr(played.specs, name)) for name in ORIGINAL_SPECS}

    return Rehearsal(
        policies=_POLICIES,
        untrained=_RANDOM,
        informed=(_PERFECT,),
        terms={name: values[: len(_POLICIES)] for name, values in by_term.items()},
        choices={name: values[len(_POLICIES) :].T for name, values in by_term.items()},
        specs={name: values[: len(_POLICIES)] for name, values in by_spec.items()},
    )


@eqx.filter_jit
def _played(env: OriginalEnv, key: PRNGKeyArray, episodes: int) -> OriginalStep:
    """What the steps caused, [time lane episode]: a lane for each policy, then one for each verdict in place of the
    random votes, from the state that those had come to and with the same chance."""
    key_start, key_steps = jax.random.split(key)
    fresh, _ = jax.vmap(env.reset)(jax.random.split(key_start, episodes))
    start = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(_POLICIES), *leaf.shape)), fresh)
    untrained, n_verdicts = _POLICIES.index(_RANDOM), len(Verdict)

    def caused(state: OriginalState, votes: Array, key: PRNGKeyArray) -> tuple[OriginalState, OriginalStep]:
        after, _, _, cause = env.step_votes(state, votes, key)
        return after, cause

    all_lanes = jax.vmap(jax.vmap(caused), in_axes=(0, 0, None))

    def step(states: OriginalState, key: PRNGKeyArray) -> tuple[OriginalState, OriginalStep]:
        key_votes, key_chance = jax.random.split(key)
        votes = _votes(env, states.place[0], key_votes)
        lanes = jax.tree.map(
            lambda leaf: jnp.concatenate([leaf, jnp.repeat(leaf[untrained][None], n_verdicts, axis=0)]),
            states,
        )
        asked = jnp.concatenate([votes, votes[:n_verdicts]])
        after, steps = all_lanes(lanes, asked, jax.random.split(key_chance, episodes))
        return jax.tree.map(lambda leaf: leaf[: len(_POLICIES)], after), steps

    return jax.lax.scan(step, start, jax.random.split(key_steps, env.episode_events))[1]


def _votes(
    env: OriginalEnv, place: Int[Array, " episode"], key: PRNGKeyArray
) -> Int[Array, "policy episode member"]:
    """The votes of all policies on the rows shown, which are the same for all of them; those of one verdict first."""
    shape = (place.shape[0], N_MEMBERS)
    alike = [jnp.full(shape, int(verdict), jnp.int32) for verdict in Verdict]
    drawn = jax.random.randint(key, shape, 0, len(Verdict), jnp.int32)
    right = jnp.where(env.label[place] == 1, int(Verdict.BLOCK), int(Verdict.ALLOW)).astype(jnp.int32)
    return jnp.stack([*alike, drawn, jnp.broadcast_to(right[:, None], shape)])


def rehearse_settings(config: Mapping[str, Any]) -> list[Finding]:
    """What can be said of a reward and its specifications from settings alone, on made-up labels.

    Rows are shuffled there, so that their share of malicious ones is all that matters of the data. Findings are those
    at the original's share; each says at which others it holds.

    Args:
        config: settings, those of the preset filled in; nothing is found unless they are the original's on the stream.
    """
    if config.get("preset") != "original" or config.get("env") != "stream":
        return []
    rng = np.random.default_rng(0)
    uniform = rng.random(_ROWS_ASSUMED)
    found = [_assumed(uniform < rate, config) for rate in _BASE_RATES]
    return [
        _with_rates(finding, [rate for rate, others in zip(_BASE_RATES, found, strict=True) if key in others])
        for key, finding in found[0].items()
    ]


def _assumed(label: np.ndarray, config: Mapping[str, Any]) -> dict[Any, Finding]:
    length = config.get("episode_events")
    length = PRESETS["original"]["episode_events"] if length is None else min(length, _LONGEST)
    played = rehearse(label.astype(np.int32), episode_events=length)
    return {identity(finding): finding for finding in (*check_terms(played), *check_specs(played))}


def _with_rates(finding: Finding, holds: list[float]) -> Finding:
    """The finding with what was assumed of the data, and the shares of malicious events at which it holds."""
    assumed, *others = (f"{100 * rate:.3g} %" for rate in _BASE_RATES)
    also = [f"{100 * rate:.3g} %" for rate in holds[1:]]
    more = f"the same at {' and '.join(also)}" if also else f"not so at {' and '.join(others)}"
    if also and len(also) < len(others):
        more += f", not at {' and '.join(rate for rate in others if rate not in also)}"
    return dataclasses.replace(
        finding,
        evidence={
            **finding.evidence,
            "base_rate_assumed": _BASE_RATES[0],
            "holds_at_base_rates": sorted(holds),
        },
        cause=f"{finding.cause} (on made-up events, {assumed} of them malicious; {more})",
    )
