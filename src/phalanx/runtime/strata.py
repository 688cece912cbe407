"""Sets of episodes: with attacks alone, or also without, weighted to a base rate.

At a base rate of one malicious event in 50,000 hardly any of a thousand simulated episodes would hold an attack. So
episodes with and without attacks are simulated in equal number, and each gets the weight with which the shares of
events add up (stratified sampling with known strata: Cochran, "Sampling techniques", 3rd ed. 1977, chapter 5).
"""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, PRNGKeyArray

from phalanx.analysis.metrics import base_rate_weights
from phalanx.envs.base import Environment
from phalanx.errors import UsageError
from phalanx.runtime.episodes import Course, Seen, observe_episodes, run_episodes, run_totals
from phalanx.runtime.policies import Policy, TablePolicy
from phalanx.types import N_VERDICTS, Score, Verdict

__all__ = ["EpisodeSet", "always", "draw_episodes"]


@dataclass(frozen=True, eq=False)
class EpisodeSet:
    """Episodes that every policy meets alike.

    Attributes:
        env: the closed loop.
        key: of all their draws.
        quiet: which of them are without attacks; all of those come last.
        weight: of each episode, mean 1.
        base_rate: share of malicious events, weighted, where everything is allowed; None without events.
    """

    env: Environment
    key: PRNGKeyArray
    quiet: Bool[np.ndarray, " episode"]
    weight: Float[np.ndarray, " episode"]
    base_rate: float | None

    @property
    def n(self) -> int:
        """Episodes in all."""
        return len(self.quiet)

    def play(self, policy: Policy, *, apply: bool = True) -> Course:
        """What happens under a policy; see ``run_episodes``."""
        return run_episodes(
            self.env, policy, self.key, n_envs=self.n, steps=self.env.episode_events, quiet=self._quiet,
            apply=apply,
        )  # fmt: skip

    def totals(self, policy: Policy, *, copies: int = 1) -> Score:
        """Totals under a policy or under several copies of it."""
        return run_totals(
            self.env, policy, self.key, n_envs=self.n, steps=self.env.episode_events, copies=copies,
            quiet=self._quiet,
        )  # fmt: skip

    def seen(self) -> Seen:
        """The events where everything is allowed."""
        return observe_episodes(
            self.env, self.key, n_envs=self.n, steps=self.env.episode_events, quiet=self._quiet
        )

    def mean(self, values: Float[np.ndarray, "*copy episode"]) -> Float[np.ndarray, "*copy"]:
        """Weighted mean over episodes."""
        return np.asarray(np.asarray(values, np.float64) @ self.weight / self.n)

    def standard_error(self, values: Float[np.ndarray, "*copy episode"]) -> Float[np.ndarray, "*copy"]:
        """Standard error of that mean, with the weights taken as known."""
        values = np.asarray(values, np.float64)
        apart = (values - self.mean(values)[..., None]) * self.weight
        return np.asarray(np.sqrt((apart**2).sum(axis=-1)) / self.n)

    @property
    def _quiet(self) -> np.ndarray | None:
        return self.quiet if self.quiet.any() else None  # without a mask, any environment will do


def draw_episodes(
    env: Environment, key: PRNGKeyArray, episodes: int, base_rate: float | None = None
) -> EpisodeSet:
    """A set of episodes; twice as many, half of them without attacks, where a base rate is wanted.

    Args:
        env: the closed loop.
        key: of the episodes.
        episodes: of each stratum.
        base_rate: wanted share of malicious events, in (0, 1); that of the simulated episodes unless given.

    Raises:
        UsageError: no episodes, or a base rate that attacks in every episode do not reach.
        DataError: a stratum without the events that it is for.
    """
    if episodes < 1:
        raise UsageError(f"episodes={episodes}; expected 1 or more")
    n = episodes if base_rate is None else 2 * episodes
    quiet = np.arange(n) >= episodes
    plain = EpisodeSet(env, key, quiet, np.ones(n), None)
    totals = plain.totals(always(Verdict.ALLOW, n))
    malicious = np.asarray(totals.malicious, np.float64)
    events = np.asarray(totals.events, np.float64)
    weight = plain.weight
    if base_rate is not None:
        weight = _weights(malicious, events, quiet, base_rate)
    whole = float(weight @ events)
    rate = float(weight @ malicious) / whole if whole else None
    return EpisodeSet(env, key, quiet, weight, rate)


def _weights(malicious: np.ndarray, events: np.ndarray, quiet: np.ndarray, base_rate: float) -> np.ndarray:
    peaceful, attack = base_rate_weights(
        malicious=float(malicious[~quiet].sum()),
        events=float(events[~quiet].sum()),
        peaceful_events=float(events[quiet].sum()),
        base_rate=base_rate,
    )
    return 2.0 * np.where(quiet, peaceful, attack)  # the two add up to 1 and the strata are of one size


def always(verdict: int, n_envs: int) -> TablePolicy:
    """The policy of one verdict, for so many environments.

    Example:
        >>> always(Verdict.BLOCK, 2).table[:, 0].tolist()
        [[0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0, 0.0]]
    """
    row = jnp.eye(N_VERDICTS, dtype=jnp.float32)[int(verdict)]
    return TablePolicy(jnp.broadcast_to(row, (n_envs, 2, N_VERDICTS)))
