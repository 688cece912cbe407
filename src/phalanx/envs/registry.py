"""Environments by name: ``phalanx.envs.make``."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from phalanx.data.encoder import Encoded, Encoder
from phalanx.data.readers import read_events
from phalanx.envs.base import Environment
from phalanx.envs.recorded import record
from phalanx.envs.replay import ReplayConfig, ReplayEnv
from phalanx.envs.scenarios import scenario
from phalanx.envs.simulator import Simulator, SimulatorConfig
from phalanx.envs.stream import StreamConfig, StreamEnv
from phalanx.errors import UsageError, unknown_name

__all__ = ["ENVIRONMENTS", "make"]

Config = TypeVar("Config", SimulatorConfig, ReplayConfig, StreamConfig)


def make(name: str, **config: Any) -> Environment:
    """An environment by its name.

    Args:
        name: simulator, replay or stream.
        **config: fields of ``SimulatorConfig``, ``ReplayConfig`` or ``StreamConfig``. For the simulator also
            ``scenario`` (a name of ``envs.scenarios``), whose settings hold where none is given. For recorded
            events also ``data`` (a file or several, anything that ``phalanx ingest`` reads), ``label``, ``mapping``,
            ``features`` and ``encoder`` (of an earlier fit; fitted on all rows unless given).

    Raises:
        UsageError: an unknown name or setting, or recorded events without data.
        DataError: data that cannot be used.

    Example:
        >>> make("simulator", n_hosts=2).spec.n_entities
        32
    """
    if name not in ENVIRONMENTS:
        raise unknown_name("environment", name, ENVIRONMENTS)
    return ENVIRONMENTS[name](config)


def _settings(kind: type[Config], given: dict[str, Any], start: Config | None = None) -> Config:
    known = [field.name for field in dataclasses.fields(kind)]
    for name in given:
        if name not in known:
            raise unknown_name("setting", name, known)
    return kind(**given) if start is None else dataclasses.replace(start, **given)


def _rows(name: str, config: dict[str, Any]) -> tuple[Encoded, Encoder]:
    """The rows in time order and their encoder; what is left in ``config`` are the environment's own settings."""
    data = config.pop("data", None)
    if data is None:
        raise UsageError(f"environment {name!r} needs recorded events: give data=FILE")
    sources = [Path(data)] if isinstance(data, str | Path) else [Path(part) for part in data]
    table = read_events(sources, label=config.pop("label", None), mapping=config.pop("mapping", None)).table
    features, encoder = config.pop("features", None), config.pop("encoder", None)
    features = (features,) if isinstance(features, str) else features
    encoder = encoder or Encoder.fit(table, features=features)
    return encoder.encode(table, np.argsort(table.time_ns, kind="stable")), encoder


def _simulator(config: dict[str, Any]) -> Environment:
    world = scenario(config.pop("scenario", "office")).config
    return Simulator(_settings(SimulatorConfig, config, world))


def _replay(config: dict[str, Any]) -> Environment:
    encoded, encoder = _rows("replay", config)
    settings = _settings(ReplayConfig, config)
    events = record(encoded, quarantine_ttl_s=settings.response.quarantine_ttl_s)
    return ReplayEnv(events, encoder.spec(settings.n_entities), settings)


def _stream(config: dict[str, Any]) -> Environment:
    encoded, encoder = _rows("stream", config)
    settings = _settings(StreamConfig, config)
    return StreamEnv(record(encoded), encoder.spec(settings.n_entities), settings)


ENVIRONMENTS: dict[str, Callable[[dict[str, Any]], Environment]] = {
    "simulator": _simulator,
    "replay": _replay,
    "stream": _stream,
}
"""Name -> builder from a dictionary of settings."""
