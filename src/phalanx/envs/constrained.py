"""An environment under specifications: they are watched at every step, shown to the members, and a violation costs.

    r'_t = r_t - sum_i m_i [rho_i(t) < 0]

with the multipliers m of the Lagrangian (``runtime.multipliers`` adapts them). The monitors are part of the state, so
that looking ahead sees what a verdict does to a specification; what the members may know of them is part of the
observation, and the critics are told all of it, so that the problem stays Markov.

Source: Altman, "Constrained Markov decision processes", 1999, chapter 3; Balakrishnan and Deshmukh, "Structured reward
shaping using signal temporal logic specifications", IROS 2019 (robustness of a monitor in the state).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from phalanx.envs.base import Environment, empty_score
from phalanx.envs.signals import SIGNALS, check_signals, signals_of
from phalanx.stl.jitted import JitMonitor
from phalanx.stl.specs import Spec
from phalanx.types import Column, Observation, ObservationSpec, Score, TimeStep, Truth

__all__ = ["MARGIN", "Constrained", "ConstrainedState", "unconstrained"]

MARGIN = "margin_"
"""What the column of a specification's margin begins with."""


class ConstrainedState(eqx.Module):
    """Where an episode stands, and its specifications.

    Attributes:
        inner: state of the environment beneath.
        monitors: of each specification.
        robustness: normalised, of each, as far as it is known; 1 before, within [-1, 1].
        score: totals so far.
    """

    inner: Any
    monitors: tuple[Any, ...]
    robustness: Float[Array, "*batch spec"]
    score: Score


class Constrained(Environment):
    """An environment under specifications.

    Attributes:
        inner: the environment beneath.
        multipliers: price of each specification's violation, in units of reward a step.
        specs: what has to hold at each sample, in the order of ``TimeStep.robustness``; an outermost ``always`` says
            the same.
        shown: whether members are shown the margins that they can know, and critics all of them; else the
            specifications are only watched.
    """

    inner: Environment
    multipliers: Float[Array, " spec"]
    specs: tuple[Spec, ...] = eqx.field(static=True)
    monitors: tuple[JitMonitor, ...] = eqx.field(static=True)
    shown: bool = eqx.field(static=True)
    spec: ObservationSpec = eqx.field(static=True)

    def __init__(self, inner: Environment, specs: Sequence[Spec], *, shown: bool = True) -> None:
        """Puts an environment under specifications, at multipliers of 0.

        Raises:
            UsageError: a signal that the environment does not have, or a formula that cannot be watched.
        """
        gauges = eqx.filter_eval_shape(lambda: inner.gauges(inner.reset(jax.random.key(0))[0]))
        for each in specs:
            check_signals(each.name, each.formula.signals, gauges)
        self.inner = inner
        self.multipliers = jnp.zeros(len(specs), jnp.float32)
        self.specs = tuple(specs)
        self.monitors = tuple(JitMonitor(each.at_each_sample, each.period_s) for each in specs)
        self.shown = shown
        spec = inner.spec
        if shown:
            margins = tuple(Column(f"{MARGIN}{self.specs[i].name}", "context") for i in self._observed)
            spec = replace(spec, numeric=(*spec.numeric, *margins), n_core=spec.n_core + len(self.specs))
        self.spec = spec

    @property
    def _observed(self) -> list[int]:
        """Specifications whose margin members can know."""
        return [
            i
            for i, each in enumerate(self.specs)
            if all(name in SIGNALS and SIGNALS[name].observed for name in each.formula.signals)
        ]

    @property
    def episode_events(self) -> int:
        """Events after which an episode is cut."""
        return self.inner.episode_events

    def at(self, multipliers: Float[Array, " spec"]) -> "Constrained":
        """The same environment at other prices."""
        return eqx.tree_at(lambda env: env.multipliers, self, multipliers)

    def reset(self, key: PRNGKeyArray) -> tuple[ConstrainedState, Observation]:
        """Starts an episode; nothing is violated yet."""
        inner, observation = self.inner.reset(key)
        state = ConstrainedState(
            inner=inner,
            monitors=tuple(monitor.init(1) for monitor in self.monitors),
            robustness=jnp.ones(len(self.specs), jnp.float32),
            score=empty_score(),
        )
        return state, self._show(observation, state.robustness)

    def step(
        self, state: ConstrainedState, verdict: Int[Array, ""], key: PRNGKeyArray
    ) -> tuple[ConstrainedState, TimeStep]:
        """Answers the event shown last, and charges for what is violated now."""
        inner, step = self.inner.step(state.inner, verdict, key)
        signals = signals_of(state.score, verdict, step, self.inner.gauges(inner))
        monitors, robustness = [], []
        for i, monitor in enumerate(self.monitors):
            own = {name: signals[name][None] for name in monitor.formula.signals}
            after, found = monitor.step(state.monitors[i], own)
            monitors.append(after)
            robustness.append(
                jnp.where(found.known[0], jnp.clip(found.value[0], -1.0, 1.0), state.robustness[i])
            )
        known = jnp.stack(robustness) if robustness else state.robustness
        after = ConstrainedState(inner, tuple(monitors), known, step.score)
        price = (self.multipliers * (known < 0.0).astype(jnp.float32)).sum()
        return after, replace(
            step,
            observation=self._show(step.observation, known),
            final_observation=self._show(step.final_observation, known),
            reward=step.reward - price,
            robustness=known,
        )

    def pending(self, state: ConstrainedState) -> Truth:
        """The truth of the event that waits."""
        return self.inner.pending(state.inner)

    def learned_label(self, state: ConstrainedState) -> Int[Array, ""]:
        """The label of the waiting event as training data has it."""
        return self.inner.learned_label(state.inner)

    def gauges(self, state: ConstrainedState) -> dict[str, Float[Array, ""]]:
        """Those of the environment beneath."""
        return self.inner.gauges(state.inner)

    def peaceful(self) -> "Constrained":
        """The same world without attackers."""
        return eqx.tree_at(lambda env: env.inner, self, self.inner.peaceful())

    def core(self, state: ConstrainedState) -> Float[Array, " core"]:
        """What the critic is told: the inner core state and every margin."""
        inner = self.inner.core(state.inner)
        return jnp.concatenate([inner, state.robustness]) if self.shown else inner

    def _show(self, observation: Observation, robustness: Float[Array, " spec"]) -> Observation:
        """The observation with the margins that members can know."""
        if not self.shown or not self._observed:
            return observation
        margins = robustness[jnp.array(self._observed)]
        return eqx.tree_at(lambda o: o.numeric, observation, jnp.concatenate([observation.numeric, margins]))


def unconstrained(env: Environment) -> Environment:
    """The environment beneath all specifications."""
    while isinstance(env, Constrained):
        env = env.inner
    return env
