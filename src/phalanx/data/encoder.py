"""Encoder: event-table columns -> category ids and scaled numbers, fitted on training rows alone."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import polars as pl
from jaxtyping import Array, Float, Float32, Int, Int8, Int32

from phalanx.data.columns import (
    MISSING,
    CategoryColumn,
    NumericColumn,
    by_unique,
    category_ids,
    fit_category,
    fit_number,
    raw_number,
    scale_numbers,
)
from phalanx.data.events import EventTable, event_class_of
from phalanx.data.features import choose_features, group_of
from phalanx.data.history import rolling_features
from phalanx.data.rolling import ROLLING_COLUMNS
from phalanx.errors import DataError, UsageError, unknown_name
from phalanx.types import Column, ObservationSpec

__all__ = ["Encoded", "Encoder"]

_VERSION = 1
_FEW = 4  # columns of an encoder, of which some may well be optional


@dataclass(frozen=True, eq=False)
class Encoded:
    """Rows of an event table as arrays, in the order asked for.

    Attributes:
        category: ids, one per categorical column.
        numeric: scaled numbers followed by ``ROLLING_COLUMNS`` (where the encoder has them).
        event_class: index into ``EVENT_CLASSES``.
        subject: process, dense ids by first appearance in these rows.
        parent: process id of the acting process's parent, -1 where there is none among these rows.
        host: host, dense ids by first appearance.
        time_s: time since the first timed row, in s, float32, non-decreasing: a row earlier than one
            before it, or without time, takes the latest time so far. Tables without times count 1 s a row.
        label: 1 malicious, 0 benign, -1 unknown.
        campaign: index into ``campaigns``, -1 for none.
        stage: index into ``stages``, -1 for none.
        campaigns: names, of the whole table.
        stages: names, of the whole table.
    """

    category: Int32[np.ndarray, "event column"]
    numeric: Float32[np.ndarray, "event feature"]
    event_class: Int32[np.ndarray, " event"]
    subject: Int32[np.ndarray, " event"]
    parent: Int32[np.ndarray, " event"]
    host: Int32[np.ndarray, " event"]
    time_s: Float32[np.ndarray, " event"]
    label: Int8[np.ndarray, " event"]
    campaign: Int32[np.ndarray, " event"]
    stage: Int32[np.ndarray, " event"]
    campaigns: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.subject)


@dataclass(frozen=True)
class Encoder:
    """What turns events into observations; the same class serves recorded tables and the simulator.

    Attributes:
        categories: categorical columns.
        numbers: numeric columns.
        rolling: whether ``ROLLING_COLUMNS`` follow the numeric columns.
        scaling: ``log`` (see ``NumericColumn``), or ``max``: each number divided by the largest of the rows encoded
            together, as the original does.
        notes: what was left out and why.

    Example:
        >>> columns = {"time_ns": [0, 1, 2], "subject": ["p"] * 3, "kind": ["OPEN", "READ", "READ"]}
        >>> table = EventTable.of(pl.DataFrame(columns))
        >>> encoder = Encoder.fit(table, np.arange(3))
        >>> encoder.encode(table).category[:, 0].tolist(), encoder.categories[0].values
        ([3, 2, 2], ('READ', 'OPEN'))
    """

    categories: tuple[CategoryColumn, ...]
    numbers: tuple[NumericColumn, ...]
    rolling: bool = True
    scaling: str = "log"
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(
        cls,
        table: EventTable,
        rows: Int[np.ndarray, " row"] | None = None,
        *,
        features: Sequence[str] | None = None,
        max_values: int = 64,
        scaling: str = "log",
    ) -> "Encoder":
        """Learns vocabulary and scale from the given rows alone; the label is read only to leave out its copies.

        Args:
            table: events.
            rows: training rows; ``None``: all.
            features: exactly these source columns (numbers as numbers, no rolling statistics); ``None``: the default.
            max_values: known values of a categorical column (the kind keeps 512).
            scaling: ``log`` or ``max``.

        Raises:
            UsageError: unknown features or scaling.
            DataError: no rows, or no column that varies.
        """
        if scaling not in ("log", "max"):
            raise unknown_name("scaling", scaling, ("log", "max"))
        if max_values < 1:
            raise UsageError(f"max_values={max_values}; expected at least 1")
        rows = np.arange(len(table)) if rows is None else np.asarray(rows, np.int64)
        if not len(rows):
            raise DataError("no training rows to fit the encoder on. Check the split")
        chosen = choose_features(table, rows, features, max_values)
        frame, notes = table.frame[rows], list(chosen.notes)
        categories = tuple(
            fit_category(frame, f, max_values, notes) for f in chosen.features if not f.numeric
        )
        numbers = tuple(fit_number(frame, f) for f in chosen.features if f.numeric)
        rolling = features is None and frame["subject"].n_unique() < frame.height
        if features is None and not rolling:
            notes.append("no rolling statistics: every subject has one row")
        if features is None:
            kept = [c for c in categories if c.values]
            categories = tuple(kept)
        if not categories and not numbers and not rolling:
            raise DataError(
                "no column of the training rows varies, so there is nothing to learn from. Name --features"
            )
        return cls(categories, numbers, rolling, scaling, tuple(notes))

    @classmethod
    def from_vocabulary(
        cls,
        categories: Mapping[str, Sequence[str]],
        numbers: Mapping[str, tuple[float, float]],
        *,
        groups: Mapping[str, str] | None = None,
        rolling: bool = True,
    ) -> "Encoder":
        """An encoder without fitted statistics, for the simulator's catalogue.

        Args:
            categories: column -> known values in id order; ``path_class`` and ``command_name`` read ``path`` and
                ``command``.
            numbers: column -> (mean, std) of the logarithm.
            groups: column -> sensor group, where it differs from ``group_of``.
            rolling: whether rolling statistics follow.
        """
        groups = groups or {}
        sources = {"path_class": "path", "command_name": "command"}
        return cls(
            tuple(
                CategoryColumn(
                    name,
                    sources.get(name, name),
                    name if name in sources else "none",
                    groups.get(name, group_of(name)),
                    tuple(values),
                )
                for name, values in categories.items()
            ),
            tuple(
                NumericColumn(n, groups.get(n, group_of(n)), float(m), float(s))
                for n, (m, s) in numbers.items()
            ),
            rolling,
        )

    def spec(self, n_entities: int, context: Sequence[Column] = ()) -> ObservationSpec:
        """The observation's columns: categories, then numbers, rolling statistics and context.

        Args:
            n_entities: memory slots.
            context: columns that the environment appends.
        """
        return ObservationSpec(
            categorical=tuple(Column(c.name, c.group, c.size) for c in self.categories),
            numeric=(
                *(Column(c.name, c.group) for c in self.numbers),
                *(ROLLING_COLUMNS if self.rolling else ()),
                *context,
            ),
            n_entities=n_entities,
        )

    def category_lookup(self, column: str, values: Sequence[str]) -> Int[Array, " value"]:
        """Ids of raw values of a column, as a table for ``table[index]`` inside jitted code.

        Args:
            column: name of a categorical column.
            values: raw values (paths and commands before their reduction).
        """
        found = {c.name: c for c in self.categories}
        if column not in found:
            raise unknown_name("categorical column", column, found)
        return jnp.asarray(category_ids(found[column], pl.Series(column, list(values), pl.String)), jnp.int32)

    def scale(self, raw: Float[Array, "*batch number"]) -> Float[Array, "*batch number"]:
        """Scaled values of raw numbers, in the order of ``numbers``; NaN (missing) becomes 0. Jittable.

        Only for ``scaling="log"``: ``max`` needs the rows that are encoded together.
        """
        return scale_numbers(raw, self.numbers, jnp)

    def encode(self, table: EventTable, rows: Int[np.ndarray, " row"] | None = None) -> Encoded:
        """Encodes rows in the order given.

        Columns that the table lacks count as missing (id 1, number 0); ``missing`` names them; half of
        them at most, where the encoder knows four or more.

        Args:
            table: events.
            rows: which, in which order; ``None``: all, in file order.

        Raises:
            DataError: the table has none of the encoder's columns, or of many less than half.
        """
        absent, known = self.missing(table), len(self.categories) + len(self.numbers)
        if len(absent) == known or (known >= _FEW and 2 * len(absent) > known):
            has = "none" if len(absent) == known else f"{known - len(absent)} of {known}"
            raise DataError(
                f"the event table has {has} of the columns that the encoder knows; it lacks "
                f"{', '.join(absent)}: it comes from another source than the training data. Pass data of the "
                f"same format"
            )
        rows = np.arange(len(table)) if rows is None else np.asarray(rows, np.int64)
        part = table.take(rows)
        category, scaled = self.encode_columns(part)
        subject, names = _dense(part.strings("subject"))
        event_class = by_unique(part.strings("kind"), event_class_of, pl.Int32)
        time_s = _seconds(part.time_ns, table)
        if self.rolling:
            scaled = np.concatenate([scaled, rolling_features(subject, event_class, time_s)], axis=1)
        known = {name: index for index, name in enumerate(names)}
        campaign, campaigns = _named(table, part, "campaign")
        stage, stages = _named(table, part, "stage")
        return Encoded(
            category=category,
            numeric=scaled,
            event_class=event_class,
            subject=subject,
            parent=by_unique(
                part.strings("parent"), lambda name: known.get(name, -1) if name else -1, pl.Int32
            ),
            host=_dense(part.strings("host"))[0],
            time_s=time_s,
            label=part.labels.copy(),
            campaign=campaign,
            stage=stage,
            campaigns=campaigns,
            stages=stages,
        )

    def encode_columns(
        self, table: EventTable
    ) -> tuple[Int32[np.ndarray, "event column"], Float32[np.ndarray, "event number"]]:
        """Category ids and scaled numbers alone, without rolling statistics: what live events need."""
        category = np.full((len(table), len(self.categories)), MISSING, np.int32)
        for index, column in enumerate(self.categories):
            if column.source in table.columns:
                category[:, index] = category_ids(column, table.frame[column.source].cast(pl.String))
        raw = np.full((len(table), len(self.numbers)), np.nan, np.float32)
        for index, number in enumerate(self.numbers):
            if number.name in table.columns:
                raw[:, index] = raw_number(table.frame[number.name])
        if self.scaling == "max" and len(table):
            largest = np.nan_to_num(raw).max(axis=0)
            return category, np.nan_to_num(raw / np.where(largest > 0, largest, 1.0)).astype(np.float32)
        return category, scale_numbers(raw, self.numbers, np)

    def missing(self, table: EventTable) -> tuple[str, ...]:
        """Columns that the encoder reads and the table does not have."""
        sources = [c.source for c in self.categories] + [c.name for c in self.numbers]
        return tuple(name for name in sources if name not in table.columns)

    def to_dict(self) -> dict[str, Any]:
        """A dictionary for JSON; ``from_dict`` restores the encoder."""
        return {"version": _VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "Encoder":
        """Restores what ``to_dict`` gave, also after a trip through JSON.

        Raises:
            DataError: the dictionary is no encoder of this version.
        """
        try:
            if saved["version"] != _VERSION:
                raise DataError(
                    f"encoder of version {saved['version']}; expected {_VERSION}. Train the run again"
                )
            return cls(
                tuple(
                    CategoryColumn(**{**column, "values": tuple(column["values"])})
                    for column in saved["categories"]
                ),
                tuple(NumericColumn(**column) for column in saved["numbers"]),
                bool(saved["rolling"]),
                saved["scaling"],
                tuple(saved["notes"]),
            )
        except (KeyError, TypeError) as problem:
            raise DataError(
                f"damaged encoder in the run folder ({problem!r}). Restore it or train the run again"
            ) from problem


def _dense(names: pl.Series) -> tuple[Int32[np.ndarray, " event"], list[str]]:
    """Ids by first appearance, and the names in that order."""
    uniques = names.unique(maintain_order=True).to_list()
    ids = {name: index for index, name in enumerate(uniques)}
    return by_unique(names, ids.__getitem__, pl.Int32), uniques


def _named(
    table: EventTable, part: EventTable, column: str
) -> tuple[Int32[np.ndarray, " event"], tuple[str, ...]]:
    """Indices into the sorted names of the whole table, so that parts of it agree; -1 where empty."""
    names = tuple(sorted(name for name in table.strings(column).unique().to_list() if name))
    ids = {name: index for index, name in enumerate(names)}
    return by_unique(part.strings(column), lambda name: ids.get(name, -1), pl.Int32), names


def _seconds(time_ns: Int[np.ndarray, " event"], table: EventTable) -> Float32[np.ndarray, " event"]:
    """See ``Encoded.time_s``."""
    if not len(time_ns):
        return np.zeros(0, np.float32)
    if not table.time_ns.any():
        return np.arange(len(time_ns), dtype=np.float32)
    timed = time_ns != 0 if not table.timed.all() else np.ones(len(time_ns), bool)
    if not timed.any():
        return np.zeros(len(time_ns), np.float32)
    unit = 1.0 if table.order_only else 1e-9
    start = time_ns[timed][0]
    since = np.where(timed, (time_ns - start) * unit, 0.0)
    return np.maximum.accumulate(np.maximum(since, 0.0)).astype(np.float32)
