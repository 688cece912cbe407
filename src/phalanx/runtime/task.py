"""What a run learns and is measured on: the environments built from its settings."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from phalanx.data.encoder import Encoded, Encoder
from phalanx.data.events import EventTable
from phalanx.data.readers import read_events
from phalanx.data.splits import split_rows
from phalanx.envs.base import Environment
from phalanx.envs.constrained import Constrained
from phalanx.envs.original import FEATURES
from phalanx.envs.recorded import record
from phalanx.envs.replay import ReplayConfig, ReplayEnv
from phalanx.envs.scenarios import scenario
from phalanx.envs.simulator import Simulator
from phalanx.envs.stream import StreamConfig, StreamEnv
from phalanx.errors import UsageError
from phalanx.runtime.config import RunConfig
from phalanx.runtime.original import original_env
from phalanx.runtime.specifications import load_specs
from phalanx.stl.specs import Spec

__all__ = ["Part", "Task", "build_task", "data_part", "default_split", "recorded_part"]

_LOG = logging.getLogger("phalanx")


@dataclass(frozen=True)
class Part:
    """A part of the events: what detection reads in order, and where response is measured.

    Attributes:
        watch: events whose verdicts are logged, not applied: all rows in order, or simulated episodes.
        act: the closed loop; None where answers have no consequence.
        encoded: the rows; None in the simulator.
    """

    watch: Environment
    act: Environment | None
    encoded: Encoded | None = None


@dataclass(frozen=True)
class Task:
    """The three parts, the encoder, and what was said while they were built."""

    learn: Environment
    train: Part
    validation: Part
    test: Part
    encoder: Encoder
    notes: tuple[str, ...] = ()


def build_task(
    config: RunConfig, encoder: Encoder | None = None, specs: Sequence[Spec] | None = None
) -> Task:
    """Reads and splits the data, fits the encoder on the training part, and builds the environments.

    Args:
        config: settings.
        encoder: of an earlier run; fitted anew unless given.
        specs: of an earlier run; those of the settings unless given.

    Raises:
        UsageError: replay or stream without data.
        DataError: data that cannot be read or split.
    """
    if config.env == "simulator":
        if specs is None:
            specs = load_specs(config.specs) if config.specs else ()
        return _simulated(config, specs)
    if not config.data:
        raise UsageError(f"--env {config.env} needs recorded events: give --data FILE")
    read = read_events(config.data, label=config.label, mapping=config.map)
    notes = [*read.notes, *([f"{len(read.rejects)} bad rows were left out"] if read.rejects else [])]
    how = default_split(read.table) if config.split == "auto" else config.split
    seed = config.seed if config.split_seed is None else config.split_seed
    splits = split_rows(read.table, how, seed=seed)
    notes += [f"split by {how}", *splits.notes]
    if encoder is None:
        features, scaling = config.features or None, "log"
        if config.is_original:
            features, scaling = config.features or FEATURES, "max"
        encoder = Encoder.fit(read.table, splits.train, features=features, scaling=scaling)
        notes += encoder.notes
    parts = [
        recorded_part(config, encoder, read.table, rows)
        for rows in (splits.train, splits.validation, splits.test)
    ]
    train, validation, test = parts
    learn = (
        train.watch
        if config.is_original
        else train.act or _stream(config, encoder, train.encoded, learning=True)
    )
    for note in notes:
        _LOG.info(note)
    return Task(learn, train, validation, test, encoder, tuple(notes))


def _simulated(config: RunConfig, specs: Sequence[Spec]) -> Task:
    """One world for all three parts, whose episodes differ by their keys; only what is learned from may be poisoned."""
    world = replace(scenario(config.scenario).config, episode_events=config.episode_limit)

    def specified(env: Simulator) -> Environment:
        return Constrained(env, specs) if specs else env

    simulator = Simulator(world)
    env = specified(simulator)
    part = Part(watch=env, act=env)
    learn = specified(Simulator(replace(world, poison=config.poison))) if config.poison else env
    return Task(learn, replace(part, watch=learn), part, part, simulator.encoder)


def default_split(table: EventTable) -> str:
    """By time where events have times, by process where some have several events, else stratified."""
    if table.has_times:
        return "time"
    return "group" if table.frame["subject"].n_unique() < len(table) else "stratified"


def recorded_part(
    config: RunConfig, encoder: Encoder, table: EventTable, rows: np.ndarray | None = None
) -> Part:
    """Some rows of a table as a part, in the order in which they happened, where that is known; the original keeps the
    split's order."""
    rows = np.arange(len(table)) if rows is None else rows
    if config.is_original:
        encoded = encoder.encode(table, rows)
        return Part(watch=original_env(config, encoder.spec(1), encoded), act=None, encoded=encoded)
    rows = rows[np.argsort(table.time_ns[rows], kind="stable")]
    encoded = encoder.encode(table, rows)
    watch = _stream(config, encoder, encoded, learning=False)
    act = None
    if config.env == "replay":
        settings = ReplayConfig(episode_events=config.episode_limit, n_entities=config.entities)
        events = record(encoded, quarantine_ttl_s=settings.response.quarantine_ttl_s)
        act = ReplayEnv(events, encoder.spec(config.entities), settings)
    return Part(watch=watch, act=act, encoded=encoded)


def _stream(config: RunConfig, encoder: Encoder, encoded: Encoded | None, *, learning: bool) -> StreamEnv:
    assert encoded is not None
    settings = StreamConfig(
        order="recorded" if not learning or encoder.rolling else "shuffled",
        episode_events=config.episode_limit,
        n_entities=config.entities,
        seed=config.seed,
    )
    return StreamEnv(record(encoded), encoder.spec(config.entities), settings)


def data_part(config: RunConfig, encoder: Encoder, data: Path) -> tuple[Part, tuple[str, ...]]:
    """Another file as a part to be measured on, all rows of it.

    Returns:
        The part and what the reader has to say.
    """
    read = read_events(data, label=config.label, mapping=config.map)
    absent = encoder.missing(read.table)
    lacking = (f"{data} lacks {', '.join(absent)}: taken as missing in every event",) if absent else ()
    return recorded_part(config, encoder, read.table), (*read.notes, *lacking)
