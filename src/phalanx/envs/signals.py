"""What specifications may speak of: the signals of a step, one sample an event."""

from collections.abc import Iterable
from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phalanx.errors import unknown_name
from phalanx.stl.demands import EFFECTS
from phalanx.types import Score, TimeStep, Verdict

__all__ = ["SIGNALS", "Signal", "check_signals", "signals_of"]


@dataclass(frozen=True)
class Signal:
    """One signal.

    Attributes:
        about: what it is, with its unit or range.
        observed: the members know it of all past events when they decide; else it takes the truth.
        gauge: an environment has to offer it (``Environment.gauges``).
    """

    about: str
    observed: bool = False
    gauge: bool = False


SIGNALS: dict[str, Signal] = {
    "severity": Signal("the verdict, 0 allow to 3 quarantine", observed=True),
    "allowed": Signal("1 where the verdict is allow, else 0", observed=True),
    "alerted": Signal("1 where it is alert", observed=True),
    "blocked": Signal("1 where it is block", observed=True),
    "quarantined": Signal("1 where it is quarantine", observed=True),
    "answered": Signal("1 where it is alert or more", observed=True),
    "restricted": Signal("1 where it is block or quarantine", observed=True),
    "threat": Signal("1 where the event is malicious"),
    "benign": Signal("1 where it is benign"),
    "missed": Signal("1 where a malicious event is allowed"),
    "caught": Signal("1 where a malicious event is answered"),
    "false_alert": Signal("1 where a benign event gets an alert"),
    "false_block": Signal("1 where a benign event is blocked or quarantined"),
    "ticket": Signal("tickets opened"),
    "work": Signal("benign events, those among them that silent processes would have had"),
    "lost": Signal("benign events denied or silenced"),
    "damage": Signal("damage done, in units of damage"),
    "loss": Signal("damage and what the answers cost, in units of damage"),
    "exposed_s": Signal("seconds since the oldest campaign that goes on was first shown, else 0", gauge=True),
}
"""Signals by name."""


def signals_of(
    before: Score, verdict: Int[Array, ""], step: TimeStep, gauges: dict[str, Float[Array, ""]]
) -> dict[str, Float[Array, ""]]:
    """The signals of one step.

    Args:
        before: totals before it.
        verdict: what was applied.
        step: its outcome.
        gauges: of the environment's state after it.
    """

    def flag(condition: Array) -> Float[Array, ""]:
        return condition.astype(jnp.float32)

    def grown(name: str) -> Float[Array, ""]:
        return getattr(step.score, name) - getattr(before, name)

    threat, benign = step.truth.label == 1, step.truth.label == 0
    return {
        **{name: jnp.asarray(values, jnp.float32)[verdict] for name, values in EFFECTS.items()},
        "threat": flag(threat),
        "benign": flag(benign),
        "missed": flag(threat & (verdict == Verdict.ALLOW)),
        "caught": flag(threat & (verdict >= Verdict.ALERT)),
        "false_alert": flag(benign & (verdict == Verdict.ALERT)),
        "false_block": flag(benign & (verdict >= Verdict.BLOCK)),
        "ticket": grown("alerts"),
        "work": grown("benign"),
        "lost": grown("benign_lost"),
        "damage": grown("damage"),
        "loss": grown("loss"),
        **gauges,
    }


def check_signals(name: str, wanted: Iterable[str], gauges: Iterable[str]) -> None:
    """Whether a specification can be watched.

    Args:
        name: of the specification.
        wanted: signals that it reads.
        gauges: those that the environment offers beside what every step tells.

    Raises:
        UsageError: a signal that there is not.
    """
    known = [each for each, signal in SIGNALS.items() if not signal.gauge] + list(gauges)
    for each in wanted:
        if each not in known:
            raise unknown_name(f"signal in specification {name!r} for this environment:", each, known)
