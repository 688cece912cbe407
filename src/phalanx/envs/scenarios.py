"""Named settings of the simulator: the worlds that policies learn in and those that they are only measured in."""

from dataclasses import dataclass, replace

from phalanx.envs.sim_config import SimulatorConfig
from phalanx.errors import unknown_name

__all__ = ["SCENARIOS", "Scenario", "scenario"]


@dataclass(frozen=True)
class Scenario:
    """A named world.

    Attributes:
        config: of its simulator.
        about: one line for people.
        base_rate: share of malicious events that its figures are weighted to; the simulated share where None. Episodes
            are then drawn in two strata, with and without attackers (``Environment.peaceful``).
        held_out: nothing may be trained, tuned or chosen in it.
    """

    config: SimulatorConfig
    about: str
    base_rate: float | None = None
    held_out: bool = False


_OFFICE = SimulatorConfig()
_FARM = SimulatorConfig(n_hosts=8, host_rate_hz=0.1, episode_events=2048, roles=(0.0, 1.0, 5.0, 4.0, 1.0))
_NOISY = replace(_OFFICE, bait=2.0, lost=0.1, duplicated=0.05, late=0.05, drift=0.7, rollout=0.6)
_STEALTHY = replace(_OFFICE, attack=replace(_OFFICE.attack, stealth=(0.7, 0.85), pace=(0.8, 2.0), latest=0.5))
_NEW = replace(_OFFICE, new_techniques=True, new_bait=True)


def _with_attack(about: str, **changes: object) -> Scenario:
    attack = replace(_OFFICE.attack, **changes)  # type: ignore[arg-type]
    return Scenario(replace(_OFFICE, attack=attack), about, held_out=True)


SCENARIOS: dict[str, Scenario] = {
    "office": Scenario(_OFFICE, "four hosts, most of them workstations; the default"),
    "single-host": Scenario(
        replace(_OFFICE, n_hosts=1, host_rate_hz=0.3), "one busy host, nowhere to move to"
    ),
    "server-farm": Scenario(_FARM, "eight hosts, most of them web and database servers"),
    "noisy": Scenario(
        _NOISY, "twice the bait; events are lost, reported twice and late; drift and roll-outs"
    ),
    "stealthy": Scenario(_STEALTHY, "patient attackers who mostly do ordinary work"),
    "base-1": Scenario(_OFFICE, "the office at 1 % malicious events", base_rate=0.01),
    "base-0.1": Scenario(_OFFICE, "the office at .1 % malicious events", base_rate=0.001),
    "base-0.02": Scenario(_OFFICE, "the office at .02 % malicious events", base_rate=0.0002),
    "new-techniques": Scenario(
        replace(_OFFICE, new_techniques=True), "techniques that nothing was trained on", held_out=True
    ),
    "new-bait": Scenario(
        replace(_OFFICE, new_bait=True), "administration tools that nothing was trained on", held_out=True
    ),
    "new-hosts": Scenario(
        replace(_OFFICE, n_hosts=12, host_rate_hz=0.1, episode_events=2048),
        "twelve hosts instead of four",
        held_out=True,
    ),
    "unseen": Scenario(
        replace(_NEW, n_hosts=6, episode_events=1536), "new techniques, new bait, six hosts", held_out=True
    ),
    "evade-padding": _with_attack("attackers hide one step in ten among ordinary work", stealth=(0.85, 0.95)),
    "evade-mimicry": _with_attack(
        "attackers choose the records that their program shows anyway", mimicry=0.9
    ),
    "evade-slow": _with_attack("attackers take three times as long", pace=(1.2, 4.8)),
    "evade-flood": Scenario(
        replace(_OFFICE, bait=3.0),
        "three times the bait, everywhere and at all times",
        held_out=True,
    ),
}


def scenario(name: str) -> Scenario:
    """A scenario by its name.

    Raises:
        UsageError: an unknown name.

    Example:
        >>> scenario("office").held_out, scenario("unseen").held_out
        (False, True)
    """
    if name not in SCENARIOS:
        raise unknown_name("scenario", name, SCENARIOS)
    return SCENARIOS[name]
