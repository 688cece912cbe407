"""Rules on a run's settings: what cannot work, or cannot be believed, whatever the data."""

from collections.abc import Mapping
from typing import Any

from phalanx.analysis.doctor.finding import Finding
from phalanx.errors import DataError

__all__ = ["SETTINGS", "check_members", "check_settings"]

SETTINGS: Mapping[str, tuple[type, ...]] = {
    "env": (str,),
    "preset": (str,),
    "gamma": (float, int),
    "members": (int,),
    "faults": (int, type(None)),
    "episode_events": (int, type(None)),
}
"""What is judged, and of which kind it is."""


_ANY = 2**53
_RANGES: Mapping[str, tuple[int, int]] = {
    "gamma": (0, 1),
    "members": (1, _ANY),
    "faults": (0, _ANY),
    "episode_events": (1, _ANY),
}


def check_settings(config: Mapping[str, Any]) -> list[Finding]:
    """The findings on the values of a ``config.json``.

    Args:
        config: its values; those that are missing are not judged.

    Raises:
        DataError: a value of another kind.

    Example:
        >>> [finding.symptom for finding in check_settings({"members": 3, "faults": None})]
        ['too-few-members']
    """
    for name, kinds in SETTINGS.items():
        value = config.get(name)
        if name in config and (not isinstance(value, kinds) or isinstance(value, bool)):
            raise DataError(f"{name}={value!r}: expected {' or '.join(kind.__name__ for kind in kinds)}")
        if value is not None and name in _RANGES and not _RANGES[name][0] <= value <= _RANGES[name][1]:
            low, high = _RANGES[name]
            raise DataError(f"{name}={value!r}: expected {low} {'or more' if high == _ANY else f'to {high}'}")
    return [*check_members(config), *_consequence(config), *_time_limit(config)]


def check_members(config: Mapping[str, Any]) -> list[Finding]:
    """n members tolerate f faults where n >= 3f + 1 (Pease, Shostak and Lamport 1980).

    Args:
        config: ``members`` and ``faults``; not judged without the first, and the second is taken for 1 if missing.

    Example:
        >>> check_members({"members": 4})
        []
    """
    n, f = config.get("members"), config.get("faults")
    if n is None or n == 1 and not f:  # one agent is no committee, and says so
        return []
    asked = 1 if f is None else f
    if n >= 3 * asked + 1:
        return []
    return [
        Finding(
            "too-few-members",
            "warning" if f is None else "error",
            {"members": n, "faults": asked, "tolerated": max((n - 1) // 3, 0)},
            f"{n} members tolerate {max((n - 1) // 3, 0)} that lie or die; for {asked} it takes {3 * asked + 1}",
            f"--members {3 * asked + 1}",
        )
    ]


def _consequence(config: Mapping[str, Any]) -> list[Finding]:
    gamma = config.get("gamma")
    if config.get("env") != "stream" or not gamma:
        return []
    return [
        Finding(
            "actions-without-consequence",
            "warning" if gamma > 0.5 else "info",
            {"env": "stream", "gamma": gamma},
            f"the next recorded event comes whatever the verdict, yet rewards are discounted by {gamma}: a "
            "return is mostly a sum of rewards that the verdict cannot change, and a critic can explain at most "
            f"(1 - gamma^2) R^2 = {100 * (1 - gamma**2):.2g} % of its variance where events are in random order "
            "and one reward's R^2 is 1",
            "--gamma 0, or an environment in which verdicts have consequences: --env simulator or replay",
        )
    ]


def _time_limit(config: Mapping[str, Any]) -> list[Finding]:
    """The original ends an episode after a number of steps as if it had terminated."""
    if config.get("preset") != "original":
        return []
    return [
        Finding(
            "time-limit-as-termination",
            "error",
            {"preset": "original", "episode_events": config.get("episode_events")},
            "this preset treats the end of its episodes, a clock that nobody observes, as a final state: "
            "returns tell how much time is left, and the critic cannot",
            "train with --preset default: its time limits bootstrap (Pardo et al., 1712.00378)",
        )
    ]
