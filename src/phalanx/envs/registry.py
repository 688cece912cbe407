"""Environments by name: ``phalanx.envs.make``."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from phalanx.data.encoder import Encoder
from phalanx.data.readers import read_events
from phalanx.envs.base import Environment
from phalanx.envs.recorded import RecordedEvents, record
from phalanx.envs.replay import ReplayConfig, ReplayEnv
from phalanx.envs.simulator import Simulator, SimulatorConfig
from phalanx.envs.stream import StreamConfig, StreamEnv
from phalanx.errors import UsageError, unknown_name
from phalanx.types import ObservationSpec

__all__ = ["ENVIRONMENTS", "make"]

Config = TypeVar("Config", SimulatorConfig, ReplayConfig, StreamConfig)


def make(name: str, **config: Any) -> Environment:
    """An environment by its name.

    Args:
        name: simulator, replay or stream.
        **config: fields of ``SimulatorConfig``, ``ReplayConfig`` or ``StreamConfig``. For recorded events also ``data``
            (a file or several, anything that ``phalanx ingest`` reads), ``label``, ``mapping``, ``features`` and
            ``encoder`` (of an earlier fit; fitted on all rows unless given).

    Raises:
        UsageError: an unknown name or setting, or recorded events without data.
        DataError: data that cannot be used.

    Example:
        >>> make("simulator", n_hosts=2).spec.n_entities
        24
    """
    if name not in ENVIRONMENTS:
        raise unknown_name("environment", name, ENVIRONMENTS)
    return ENVIRONMENTS[name](config)


def _settings(kind: type[Config], given: dict[str, Any]) -> Config:
    known = [field.name for field in dataclasses.fields(kind)]
    for name in given:
        if name not in known:
            raise unknown_name("setting", name, known)
    return kind(**given)


def _rows(name: str, config: dict[str, Any]) -> tuple[RecordedEvents, ObservationSpec, dict[str, Any]]:
    """The rows in time order, their columns, and the settings that are left."""
    data = config.pop("data", None)
    if data is None:
        raise UsageError(f"environment {name!r} needs recorded events: give data=FILE")
    sources = [Path(data)] if isinstance(data, str | Path) else [Path(part) for part in data]
    table = read_events(sources, label=config.pop("label", None), mapping=config.pop("mapping", None)).table
    features, encoder = config.pop("features", None), config.pop("encoder", None)
    encoder = encoder or Encoder.fit(table, features=features)
    rows = np.argsort(table.time_ns, kind="stable")
    return record(encoder.encode(table, rows)), encoder.spec(config.get("n_entities", 128)), config


def _simulator(config: dict[str, Any]) -> Environment:
    return Simulator(_settings(SimulatorConfig, config))


def _replay(config: dict[str, Any]) -> Environment:
    events, spec, rest = _rows("replay", dict(config))
    return ReplayEnv(events, spec, _settings(ReplayConfig, rest))


def _stream(config: dict[str, Any]) -> Environment:
    events, spec, rest = _rows("stream", dict(config))
    return StreamEnv(events, spec, _settings(StreamConfig, rest))


ENVIRONMENTS: dict[str, Callable[[dict[str, Any]], Environment]] = {
    "simulator": _simulator,
    "replay": _replay,
    "stream": _stream,
}
"""Name -> builder from a dictionary of settings."""
