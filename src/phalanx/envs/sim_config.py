"""Size and ways of a simulated world."""

from dataclasses import dataclass

from phalanx.envs.catalogue import ROLES
from phalanx.envs.response import ResponseConfig
from phalanx.envs.sim_campaign import AttackConfig
from phalanx.envs.sim_world import N_ROOTS
from phalanx.errors import UsageError

__all__ = ["SPARE_SLOTS", "SimulatorConfig"]

SPARE_SLOTS = 2
"""Slots of a host that benign work leaves to attackers."""

_MOST_SLOTS = 31
_MEAN_RELATIVE_RATE = 9.5


@dataclass(frozen=True)
class SimulatorConfig:
    """Size and ways of the simulated world.

    Attributes:
        n_hosts: hosts.
        slots_per_host: process slots of a host, more than its long-lived processes and at most 31.
        episode_events: events of an episode; then it is truncated.
        host_rate_hz: benign events of a host per second in the mean over the day, about.
        roles: weights of the roles that hosts are drawn from, in the order of ``catalogue.ROLES``.
        bait: factor on how often benign work looks like an attack.
        new_bait: programs run that nothing was trained on.
        new_techniques: attackers use the techniques that nothing was trained on.
        drift: share of the episodes in which programs change their ways at some time.
        rollout: share of the episodes in which updates roll out to all hosts at once.
        lost: probability that an attack step which starts no process and completes no stage is never reported; benign
            events that are lost have no effect and are not simulated.
        duplicated: probability that an event is reported once more.
        late: probability that an event inside an attack or of benign work is reported after it happened.
        poison: share of the events whose truth is wrong in what members and baselines learn from (``TimeStep.credit``
            and ``learned_label``); the world and the score never see it.
        attacked: whether there are attackers at all; without, the same hosts are at peace.
        attack: how attackers behave.
        response: effects and costs of the verdicts.
    """

    n_hosts: int = 4
    slots_per_host: int = 16
    episode_events: int = 1024
    host_rate_hz: float = 0.1
    roles: tuple[float, ...] = (4.0, 2.0, 1.0, 1.0, 1.0)
    bait: float = 1.0
    new_bait: bool = False
    new_techniques: bool = False
    drift: float = 0.3
    rollout: float = 0.2
    lost: float = 0.0
    duplicated: float = 0.0
    late: float = 0.0
    poison: float = 0.0
    attacked: bool = True
    attack: AttackConfig = AttackConfig()
    response: ResponseConfig = ResponseConfig()

    def __post_init__(self) -> None:
        if not N_ROOTS + SPARE_SLOTS < self.slots_per_host <= _MOST_SLOTS or self.n_hosts < 1:
            raise UsageError(
                f"n_hosts={self.n_hosts}, slots_per_host={self.slots_per_host} in SimulatorConfig; needs at least one "
                f"host and from {N_ROOTS + SPARE_SLOTS + 1} to {_MOST_SLOTS} slots each. Change slots_per_host"
            )
        if not 0 <= self.attack.fewest <= self.attack.most or self.attack.most < 1:
            raise UsageError(
                f"campaigns from {self.attack.fewest} to {self.attack.most} in AttackConfig; "
                "needs 0 <= fewest <= most and most >= 1. Swap or raise them"
            )
        if len(self.roles) != len(ROLES) or min(self.roles) < 0 or sum(self.roles) <= 0:
            raise UsageError(
                f"roles={self.roles} in SimulatorConfig; needs {len(ROLES)} weights from 0 up, one above 0: "
                f"{', '.join(ROLES)}"
            )
        for name in ("drift", "rollout", "lost", "duplicated", "late", "poison"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise UsageError(
                    f"{name}={getattr(self, name)} in SimulatorConfig; needs a probability from 0 to 1"
                )

    @property
    def duration_s(self) -> float:
        """Expected duration of an episode in which nothing is silent, in s."""
        return self.episode_events / (self.n_hosts * self.host_rate_hz)

    @property
    def unit_hz(self) -> float:
        """Events per second of a relative rate of one thousandth."""
        return self.host_rate_hz / (_MEAN_RELATIVE_RATE * 1000.0)
