"""Simulated events as an event table with truth, of any length."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Int, PRNGKeyArray

from phalanx.data.events import EventTable
from phalanx.envs.catalogue import COMMANDS, KINDS, OBJECT_KINDS, PATHS, STAGES, Tables
from phalanx.envs.sim_campaign import AttackConfig
from phalanx.envs.simulator import Simulator, SimulatorConfig, SimulatorState
from phalanx.errors import UsageError

__all__ = ["Row", "row_of", "simulate_table", "table_of"]

_EPOCH_NS = 1_704_067_200_000_000_000
_CHUNK = 4096
_HOST_RATE_HZ = 0.55
_PACE_S = (30.0, 120.0)
_REENTRY_S = 1800.0


class Row(eqx.Module):
    """What a table keeps of an event: indices into the catalogue, process numbers and truth; see ``Event``."""

    time_s: Any
    host: Any
    serial: Any
    born_of: Any
    command: Any
    template: Any
    path: Any
    size: Any
    port: Any
    uid: Any
    campaign: Any
    stage: Any


def row_of(state: SimulatorState) -> Row:
    """The row of the event that waits for its verdict."""
    event, world, slot = state.event, state.world, state.event.entity
    return Row(
        time_s=event.time_s,
        host=world.host[slot],
        serial=world.serial[slot],
        born_of=world.born_of[slot],
        command=world.command[slot],
        template=event.template,
        path=event.path,
        size=event.size,
        port=event.port,
        uid=event.uid,
        campaign=event.campaign,
        stage=event.stage,
    )


def table_of(rows: Row, tables: Tables) -> EventTable:
    """An event table of rows; ``bait`` marks benign events of a rare type that attack stages use.

    Args:
        rows: NumPy arrays, one item per event, in time order.
        tables: the simulator's catalogue.
    """
    malicious = rows.campaign >= 0
    path = _names(PATHS, rows.path)
    port = rows.port.astype(np.int64)
    subject, parent = (_subjects(rows.host, serial) for serial in (rows.serial, rows.born_of))
    frame = pl.DataFrame(
        {
            "time_ns": _EPOCH_NS + (rows.time_s.astype(np.float64) * 1e9).astype(np.int64),
            "host": [f"host-{host}" for host in rows.host],
            "subject": subject,
            "parent": parent,
            "object": [
                name or (f"remote:{number}" if number else "")
                for name, number in zip(path, port, strict=True)
            ],
            "object_kind": _names(OBJECT_KINDS, np.asarray(tables.object_kind)[rows.template]),
            "kind": _names(KINDS, np.asarray(tables.kind)[rows.template]),
            "path": path,
            "command": _names(COMMANDS, rows.command),
            "size": rows.size.astype(np.int64),
            "remote_port": port,
            "uid": rows.uid.astype(np.int64),
            "label": malicious.astype(np.int8),
            "campaign": [f"campaign-{c}" if c >= 0 else "" for c in rows.campaign],
            "stage": _names((*STAGES, ""), rows.stage),
            "bait": ~malicious & (np.asarray(tables.bait)[rows.template] > 0),
        }
    )
    return EventTable.of(frame)


def simulate_table(*, hosts: int = 8, hours: float = 6.0, campaigns: int = 3, seed: int = 0) -> EventTable:
    """Simulates hosts that nobody guards, about 2,000 events per host and hour.

    Campaigns start in the first half and take their time (30 to 120 s between attempts).

    Args:
        hosts: number of hosts.
        hours: simulated time, in h.
        campaigns: number of campaigns; 0 for benign work alone.
        seed: of all randomness.

    Raises:
        UsageError: a number out of its range.

    Example:
        >>> simulate_table(hosts=1, hours=0.05, campaigns=0).frame["label"].sum()
        0
    """
    if hosts < 1 or not 0 < hours < float("inf") or campaigns < 0:
        raise UsageError(
            f"hosts={hosts}, hours={hours}, campaigns={campaigns}; needs hosts >= 1, hours > 0 and campaigns >= 0"
        )
    end_s = hours * 3600.0
    most = max(campaigns, 1)
    config = SimulatorConfig(
        n_hosts=hosts,
        episode_events=max(round(end_s * hosts * _HOST_RATE_HZ), 1),
        host_rate_hz=_HOST_RATE_HZ,
        attack=AttackConfig(fewest=most, most=most, onset_share=0.5, pace_s=_PACE_S, reentry_s=_REENTRY_S),
    )
    env, key = Simulator(config), jax.random.key(seed)
    state, _ = eqx.filter_jit(env.reset)(jax.random.fold_in(key, 0))
    if not campaigns:
        state = _peaceful(state)
    parts, done = [], False
    while not done:
        state, rows = _advance(env, state, jax.random.fold_in(key, len(parts) + 1))
        rows = jax.tree.map(np.asarray, rows)
        keep = rows.time_s <= end_s
        done = not keep.all()
        parts.append(jax.tree.map(lambda x, k=keep: x[k], rows))
    return table_of(jax.tree.map(lambda *x: np.concatenate(x), *parts), env.tables)


@eqx.filter_jit
def _advance(env: Simulator, state: SimulatorState, key: PRNGKeyArray) -> tuple[SimulatorState, Row]:
    def body(state: SimulatorState, key: PRNGKeyArray) -> tuple[SimulatorState, Row]:
        after, _ = env.step(state, jnp.int32(0), key)
        return after, row_of(state)

    return jax.lax.scan(body, state, jax.random.split(key, _CHUNK))


def _peaceful(state: SimulatorState) -> SimulatorState:
    quiet = jnp.ones_like(state.campaigns.stopped)
    return eqx.tree_at(lambda s: s.campaigns.stopped, state, quiet)


def _names(names: tuple[str, ...], index: Int[np.ndarray, " event"]) -> list[str]:
    return [names[i] for i in index]


def _subjects(host: Int[np.ndarray, " event"], serial: Int[np.ndarray, " event"]) -> list[str]:
    """Process names, unique in the table; empty where there is none."""
    return [f"host-{h}/{s}" if s >= 0 else "" for h, s in zip(host, serial, strict=True)]
