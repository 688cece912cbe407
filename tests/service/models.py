"""A model for live tests: a small committee with random parameters, and recorded rows as live events."""

from dataclasses import replace

import numpy as np
from runtime.committees import committee_of
from runtime.recorded import frame

from phalanx.data.encoder import Encoder
from phalanx.data.events import EventTable
from phalanx.envs.recorded import record
from phalanx.envs.stream import StreamConfig, StreamEnv
from phalanx.runtime.decide import deployed
from phalanx.service.engine import EngineConfig
from phalanx.service.live import watchable
from phalanx.service.model import Model
from phalanx.service.records import LiveEvent
from phalanx.stl.specs import parse_specs

__all__ = ["ENCODER", "SMALL", "SPECS", "TABLE", "environment", "events", "many", "model"]

TABLE = EventTable.of(frame(3))
ENCODER = Encoder.fit(TABLE)
SPECS = parse_specs(
    """
@spec few_alerts
always (sum(alerted, 15) <= 3)
@spec calm
always (suspicion <= 0.5)
@spec truth
always (missed <= 0)
"""
)
SMALL = EngineConfig(slots=64, batch=16, host_share=1.0)


def environment() -> StreamEnv:
    """The recorded rows as evaluation watches them."""
    return StreamEnv(record(ENCODER.encode(TABLE)), ENCODER.spec(16), StreamConfig(n_entities=16))


def model(threshold: float = 0.5, seed: int = 0) -> Model:
    """A committee with random parameters, behind no shield."""
    committee = deployed(committee_of(environment(), seed=seed))
    return Model(committee, threshold, 4, ENCODER, watchable(committee, tuple(SPECS)), f"model {seed}")


def events(table: EventTable = TABLE) -> list[LiveEvent]:
    """The rows as live events."""
    own = ("time_ns", "host", "subject", "parent", "kind", "label", "campaign")
    return [
        LiveEvent(
            id=f"e{i}",
            time_ns=row["time_ns"],
            host=row["host"],
            subject=row["subject"],
            parent=row["parent"],
            kind=row["kind"],
            attributes={name: value for name, value in row.items() if name not in own},
        )
        for i, row in enumerate(table.frame.iter_rows(named=True))
    ]


def many(n: int, processes: int, seed: int, hosts: int = 2) -> list[LiveEvent]:
    """Events of more processes than there are places, some with earlier times."""
    rng, rows = np.random.default_rng(seed), events()
    base = [rows[i] for i in rng.integers(0, len(rows), n)]
    time_ns = np.cumsum(rng.integers(-(10**9), 60 * 10**9, n)) + 10**18
    return [
        replace(
            event,
            id=f"m{i}",
            time_ns=int(time_ns[i]),
            host=f"h{rng.integers(0, hosts)}",
            subject=f"p{rng.integers(0, processes)}",
            parent=f"p{rng.integers(0, processes)}",
        )
        for i, event in enumerate(base)
    ]
