"""Simulated events as an event table with truth, of any length: whole in memory, or straight into a file.

Nobody guards these hosts: every event is answered with allow. Time is kept in chunks, each on a clock that starts near
its first event, so that neither the length of a table nor the 32-bit time of the simulator limits it.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array, Int, PRNGKeyArray

from phalanx.data.events import EventTable
from phalanx.data.sinks import write_frames
from phalanx.envs.catalogue import COMMANDS, KINDS, OBJECT_KINDS, PATHS, PROGRAMS, STAGES, TECHNIQUES
from phalanx.envs.scenarios import scenario
from phalanx.envs.sim_tables import Tables
from phalanx.envs.simulator import Simulator, SimulatorConfig, SimulatorState
from phalanx.errors import UsageError

__all__ = [
    "LATE_S",
    "MOST_CAMPAIGNS",
    "Row",
    "Written",
    "operations_of",
    "rebase",
    "row_of",
    "simulate_table",
    "table_of",
    "write_table",
]

LATE_S = 2.0
"""How long before its report a late event happened, in s."""

MOST_CAMPAIGNS = 1000
"""Campaigns of a table: each step looks at every one of them."""

_EPOCH_NS = 1_704_067_200_000_000_000  # 2024-01-01, 0:00
_NS = 1_000_000_000
_CHUNK = 4096
_GROUP = 65_536
_DAY_S = 86_400
_ONSET_SHARE = 0.5


class Row(eqx.Module):
    """What a table keeps of an event: indices into the catalogue, process numbers and truth; see ``Event``.

    ``since_s`` is the time of the process's record before this one, from which on its operations are spread.
    """

    time_s: Any
    since_s: Any
    late: Any
    host: Any
    serial: Any
    born_of: Any
    command: Any
    parent_command: Any
    template: Any
    path: Any
    size: Any
    count: Any
    port: Any
    uid: Any
    campaign: Any
    stage: Any
    cause: Any


@dataclass(frozen=True)
class Written:
    """What a table that was written holds: rows, malicious rows, and campaigns that show in it."""

    events: int
    malicious: int
    campaigns: int


def row_of(state: SimulatorState) -> Row:
    """The row of the event that waits for its verdict."""
    event, world, slot = state.event, state.world, state.event.entity
    n_slots, n_hosts = world.alive.shape[0], world.day.shape[0]
    return Row(
        time_s=event.time_s,
        since_s=event.time_s,
        late=event.late,
        host=slot // (n_slots // n_hosts),
        serial=world.serial[slot],
        born_of=world.born_of[slot],
        command=world.command[slot],
        parent_command=world.parent_command[slot],
        template=event.template,
        path=event.path,
        size=event.size,
        count=event.count,
        port=event.port,
        uid=event.uid,
        campaign=event.campaign,
        stage=event.stage,
        cause=event.cause,
    )


def table_of(rows: Row, tables: Tables, *, origin_ns: int = _EPOCH_NS) -> EventTable:
    """An event table of rows; ``bait`` marks benign events of a rare type that attack stages use.

    Late events carry the time at which they happened, so that such a table is not in time order.

    Args:
        rows: NumPy arrays, one item per event, in the order of their reports.
        tables: the simulator's catalogue.
        origin_ns: the time at which the rows' clock is 0, in ns since 1970.
    """
    malicious = rows.campaign >= 0
    time_s = np.asarray(rows.time_s, np.float64) - LATE_S * np.asarray(rows.late)
    path, port = _names(PATHS, rows.path), pl.Series(rows.port, dtype=pl.Int64)
    remote = pl.select(pl.when(port > 0).then(pl.format("remote:{}", port)).otherwise(pl.lit(""))).to_series()
    causes = (
        *(technique.about for technique in TECHNIQUES),
        *(program.job or name for name, program in PROGRAMS.items()),
    )
    attacks = (*(f"{technique.attack} {technique.about}" for technique in TECHNIQUES), "")
    columns = {
        "time_ns": origin_ns + np.rint(time_s * _NS).astype(np.int64),
        "host": _numbered("host-{}", rows.host),
        "subject": _processes(rows.host, rows.serial),
        "parent": _processes(rows.host, rows.born_of),
        "object": path.zip_with(path != "", remote),
        "object_kind": _names(OBJECT_KINDS, np.asarray(tables.object_kind)[rows.template]),
        "kind": _names(KINDS, np.asarray(tables.kind)[rows.template]),
        "path": path,
        "command": _names(COMMANDS, rows.command),
        "parent_command": _names((*COMMANDS, ""), rows.parent_command),
        "size": np.asarray(rows.size, np.int64),
        "count": np.asarray(rows.count, np.int64),
        "remote_port": port,
        "uid": np.asarray(rows.uid, np.int64),
        "label": malicious.astype(np.int8),
        "campaign": _numbered("campaign-{}", rows.campaign),
        "stage": _names((*STAGES, ""), rows.stage),
        "technique": _names(attacks, np.where(malicious, rows.cause, -1)),
        "cause": _names(causes, rows.cause),
        "bait": ~malicious & (np.asarray(tables.bait)[rows.template] > 0),
    }
    return EventTable.of(pl.DataFrame(columns))


def _names(names: tuple[str, ...], index: Int[np.ndarray, " event"]) -> pl.Series:
    """Names by number; -1 is the last."""
    at = np.asarray(index, np.int64)
    return pl.Series(names, dtype=pl.String).gather(np.where(at < 0, len(names) - 1, at))


def _numbered(form: str, number: Int[np.ndarray, " event"]) -> pl.Series:
    """``form`` with each number; empty where it is -1."""
    numbers = pl.Series(number, dtype=pl.Int64)
    named = pl.when(numbers >= 0).then(pl.format(form, numbers)).otherwise(pl.lit(""))
    return pl.select(named).to_series()


def _processes(host: Int[np.ndarray, " event"], serial: Int[np.ndarray, " event"]) -> pl.Series:
    """Process names, unique in the table; empty where there is none."""
    number = _numbered("/{}", serial)
    return pl.select(
        pl.when(number != "").then(_numbered("host-{}", host) + number).otherwise(pl.lit(""))
    ).to_series()


def operations_of(rows: Row) -> Row:
    """One row for each operation that a record stands for.

    A record's operations are spread evenly over the time since its process's record before it, the last at the record's
    own time; its size is divided among them to the byte. All else is the record's.

    Args:
        rows: NumPy arrays, one item per record.
    """
    count = np.maximum(np.asarray(rows.count, np.int64), 1)
    index = np.repeat(np.arange(len(count)), count)
    each = jax.tree.map(lambda x: np.asarray(x)[index], rows)
    number = np.arange(len(index)) - np.repeat(np.cumsum(count) - count, count) + 1
    of, size = count[index], np.asarray(each.size, np.int64)
    since_s, time_s = np.asarray(each.since_s, np.float64), np.asarray(each.time_s, np.float64)
    return eqx.tree_at(
        lambda r: (r.time_s, r.size, r.count),
        each,
        (
            time_s - (time_s - since_s) * ((of - number) / of),
            size * number // of - size * (number - 1) // of,
            np.ones_like(of),
        ),
    )


def rebase(state: SimulatorState, shift_s: Int[Array, ""]) -> SimulatorState:
    """The same state on a clock that starts ``shift_s`` later; the time of day stays what it is."""

    def clocks(s: SimulatorState) -> tuple[Any, ...]:
        world, campaigns, response = s.world, s.campaigns, s.response
        return (
            world.drift_s, world.rollout_s, world.rolling.first_s, world.rolling.last_s,
            campaigns.next_s, campaigns.first_s, campaigns.since_s,
            response.silent_until_s, response.ticket_done_s, response.analyst_free_s,
            s.event.time_s, s.score.duration_s,
        )  # fmt: skip

    shifted = tuple(time_s - shift_s.astype(jnp.float32) for time_s in clocks(state))
    state = eqx.tree_at(clocks, state, shifted)
    return eqx.tree_at(lambda s: s.world.start_s, state, (state.world.start_s + shift_s) % _DAY_S)


def simulate_table(
    *,
    hosts: int = 8,
    hours: float = 6.0,
    campaigns: int = 3,
    seed: int = 0,
    scenario: str = "office",
    operations: bool = False,
) -> EventTable:
    """Simulates hosts that nobody guards; see ``write_table``, which keeps no more than a part in memory.

    Args:
        hosts: number of hosts.
        hours: simulated time, in h.
        campaigns: number of campaigns, at most ``MOST_CAMPAIGNS``; 0 for benign work alone.
        seed: of all randomness.
        scenario: name of the world, see ``scenarios``.
        operations: a row for each operation instead of each record.

    Raises:
        UsageError: a number out of its range, or no such scenario.

    Example:
        >>> simulate_table(hosts=1, hours=0.05, campaigns=0).frame["label"].sum()
        0
    """
    config = _config(scenario, hosts, hours, campaigns)
    parts = _tables(config, end_s=3600.0 * hours, seed=seed, operations=operations)
    return EventTable(pl.concat([part.frame for part in parts]))


def write_table(
    path: str | Path,
    *,
    hosts: int = 8,
    hours: float = 6.0,
    campaigns: int = 3,
    seed: int = 0,
    scenario: str = "office",
    operations: bool = False,
) -> Written:
    """Simulates hosts that nobody guards straight into a file, whole or not at all; memory is flat in the hours.

    All campaigns start in the first half. The rows are in the order of their reports (late ones not in time order,
    and operations after those of the records before); times count from 2024-01-01 at the time of day of the world.

    Args:
        path: file to write; the suffix names the format, as for ``EventTable.write``.
        hosts, hours, campaigns, seed, scenario, operations: see ``simulate_table``.

    Raises:
        UsageError: a number out of its range, no such scenario, or a suffix that names no format.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "events.csv"
        >>> write_table(path, hosts=1, hours=0.05, campaigns=0).malicious, path.exists()
        (0, True)
    """
    config = _config(scenario, hosts, hours, campaigns)
    tally = _Tally()
    parts = _tables(config, end_s=3600.0 * hours, seed=seed, operations=operations)
    write_frames(_grouped(tally.counted(parts)), Path(path))
    return Written(tally.events, tally.malicious, len(tally.campaigns))


@dataclass
class _Tally:
    """Counts what passes."""

    events: int = 0
    malicious: int = 0
    campaigns: set[str] = field(default_factory=set)

    def counted(self, parts: Iterable[EventTable]) -> Iterator[pl.DataFrame]:
        for part in parts:
            self.events += len(part)
            self.malicious += int((part.labels == 1).sum())
            self.campaigns |= set(part.frame["campaign"].unique()) - {""}
            yield part.frame


def _config(name: str, hosts: int, hours: float, campaigns: int) -> SimulatorConfig:
    """The scenario's world in the wanted size."""
    if hosts < 1 or not 0 < hours < float("inf") or not 0 <= campaigns <= MOST_CAMPAIGNS:
        raise UsageError(
            f"hosts={hosts}, hours={hours}, campaigns={campaigns} for a simulated table; needs hosts >= 1, hours > 0 "
            f"and campaigns from 0 to {MOST_CAMPAIGNS}"
        )
    world, most = scenario(name).config, max(campaigns, 1)
    attack = replace(world.attack, fewest=most, most=most, onset_share=_ONSET_SHARE)
    events = max(round(hours * 3600.0 * hosts * world.host_rate_hz), 1)
    return replace(world, n_hosts=hosts, episode_events=events, attacked=campaigns > 0, attack=attack)


def _tables(config: SimulatorConfig, *, end_s: float, seed: int, operations: bool) -> Iterator[EventTable]:
    """The parts of a table, at least one."""
    env, key = Simulator(config), jax.random.key(seed)
    state, _ = eqx.filter_jit(env.reset)(jax.random.fold_in(key, 0))
    start_ns = _EPOCH_NS + _NS * int(state.world.start_s)
    row = eqx.tree_at(lambda r: r.since_s, eqx.filter_jit(row_of)(state), jnp.float32(0.0))
    origin_s, part, done = 0, 0, False
    while not done:
        part += 1
        state, row, rows, at_s = _advance(env, state, row, jax.random.fold_in(key, part))
        rows = jax.tree.map(np.asarray, rows)
        keep = origin_s + rows.time_s.astype(np.float64) <= end_s
        done = not keep.all()
        rows = jax.tree.map(lambda x, k=keep: x[k], rows)
        for piece in _pieces(rows) if operations else (rows,):
            yield table_of(piece, env.tables, origin_ns=start_ns + _NS * origin_s)
        origin_s += int(at_s)


@eqx.filter_jit
def _advance(
    env: Simulator, state: SimulatorState, row: Row, key: PRNGKeyArray
) -> tuple[SimulatorState, Row, Row, Int[Array, ""]]:
    """A chunk of events, and the state and its row on the next chunk's clock, which starts at the time returned."""

    def body(carry: tuple[SimulatorState, Row], key: PRNGKeyArray) -> tuple[tuple[SimulatorState, Row], Row]:
        state, row = carry
        after, _ = env.step(state, jnp.int32(0), key)
        return (after, _following(state, row, after)), row

    (state, row), rows = jax.lax.scan(body, (state, row), jax.random.split(key, _CHUNK))
    at_s = jnp.floor(state.event.time_s).astype(jnp.int32)
    clocks = (row.time_s - at_s.astype(jnp.float32), row.since_s - at_s.astype(jnp.float32))
    return rebase(state, at_s), eqx.tree_at(lambda r: (r.time_s, r.since_s), row, clocks), rows, at_s


def _following(state: SimulatorState, row: Row, after: SimulatorState) -> Row:
    """The row of the event that waits next; a duplicate has the times of the event that it repeats."""
    following, slot, before = row_of(after), after.event.entity, state.world
    # a process's statistics hold its last record; those that ran from the start have worked since then
    known = (before.serial[slot] == after.world.serial[slot]) & (
        ~before.first[slot] | (before.parent[slot] < 0)
    )
    since_s = jnp.where(known, jnp.minimum(before.rolling.last_s[slot], following.time_s), following.time_s)
    again = after.event.duplicate
    return eqx.tree_at(
        lambda r: (r.time_s, r.since_s, r.late),
        following,
        (
            following.time_s,
            jnp.where(again, row.since_s, since_s),
            jnp.where(again, row.late, following.late),
        ),
    )


def _pieces(rows: Row) -> Iterator[Row]:
    """The operations of rows in parts of some ``_GROUP`` rows."""
    part = np.cumsum(np.asarray(rows.count, np.int64)) // _GROUP
    for number in np.unique(part) if len(part) else (0,):
        yield operations_of(jax.tree.map(lambda x, k=part == number: x[k], rows))


def _grouped(parts: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    """The parts joined to some ``_GROUP`` rows, so that a file's row groups are no smaller."""
    held: list[pl.DataFrame] = []
    for part in parts:
        held.append(part)
        if sum(frame.height for frame in held) >= _GROUP:
            yield pl.concat(held)
            held = []
    if held:
        yield pl.concat(held)
