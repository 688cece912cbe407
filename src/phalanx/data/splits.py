"""Training, validation and test rows: by time, by group, stratified or at random."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from jaxtyping import Int, Int8

from phalanx.data.events import EventTable
from phalanx.errors import DataError, UsageError, unknown_name

__all__ = ["SPLITS", "Splits", "group_ids", "split_rows"]

_PARTS = ("training", "validation", "test")
_MIN_TRACE = 5


@dataclass(frozen=True)
class Splits:
    """Rows of each part; no row is in two.

    ``time`` and ``group`` give rows by time (equal times in file order), ``stratified`` and ``random``
    in shuffled order.

    Attributes:
        train: training rows.
        validation: validation rows.
        test: test rows.
        left_out: rows in no part (those without time, where the split is by time).
        notes: what was left out or could not be kept.
    """

    train: Int[np.ndarray, " train"]
    validation: Int[np.ndarray, " validation"]
    test: Int[np.ndarray, " test"]
    left_out: Int[np.ndarray, " left_out"]
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[Int[np.ndarray, " row"], ...]:
        """Training, validation and test rows."""
        return self.train, self.validation, self.test


def split_rows(
    table: EventTable,
    how: str,
    *,
    fractions: Sequence[float] = (0.7, 0.15, 0.15),
    seed: int = 0,
    group: str | None = None,
    keep_timeless: bool = False,
) -> Splits:
    """Splits the rows of a table.

    - ``time``: forward in time. Rows without time are left out, unless ``keep_timeless``: then they train.
    - ``group``: whole groups (see ``group_ids``), assigned so that parts get their share of malicious and of all rows.
    - ``stratified``: scikit-learn's ``train_test_split``, stratified by label, twice; fractions .7, .15, .15 with
      seed 42 are the original's split.
    - ``random``: the same without strata.

    Args:
        table: events.
        how: one of ``SPLITS``.
        fractions: shares of the three parts, in (0, 1), adding up to 1.
        seed: of the shuffling, not used by ``time``.
        group: column whose values are the groups, for ``group``.
        keep_timeless: see ``time``.

    Raises:
        UsageError: an unknown split, or fractions that are none.
        DataError: a part would be empty, or hold no malicious row although the table has some labels.

    Example:
        >>> table = EventTable.of(pl.DataFrame({"time_ns": range(1, 11), "subject": ["p"] * 10, "kind": ["READ"] * 10}))
        >>> [part.tolist() for part in split_rows(table, "time", fractions=(0.6, 0.2, 0.2)).parts]
        [[0, 1, 2, 3, 4, 5], [6, 7], [8, 9]]
    """
    if how not in SPLITS:
        raise unknown_name("split", how, SPLITS)
    if len(fractions) != 3 or not all(0 < share < 1 for share in fractions) or abs(sum(fractions) - 1) > 1e-6:
        raise UsageError(
            f"split fractions {tuple(fractions)}; expected three numbers in (0, 1) that add up to 1"
        )
    if group is not None and how != "group":
        raise UsageError(f"a group column ({group!r}) goes with the split 'group', not with {how!r}")
    splits = SPLITS[how](table, tuple(fractions), seed, group, keep_timeless)
    _check(table, splits, how)
    return splits


def _check(table: EventTable, splits: Splits, how: str) -> None:
    labels = table.labels
    remedy = {
        "time": "Use --split group; or stratified (one process on both sides); or data of more time",
        "group": "Use --split time; or stratified (one process on both sides); or data of more groups",
    }.get(how, "Use more rows")
    for name, rows in zip(_PARTS, splits.parts, strict=True):
        if not len(rows):
            raise DataError(f"the {how} split of {len(table)} rows leaves the {name} part empty. {remedy}")
        if (labels >= 0).any() and not (labels[rows] == 1).any():
            raise DataError(
                f"the {how} split leaves no malicious row among the {len(rows)} of the {name} part "
                f"({int((labels == 1).sum())} of {len(table)} rows are malicious). {remedy}"
            )


def _by_time(
    table: EventTable, fractions: tuple[float, ...], seed: int, group: str | None, keep_timeless: bool
) -> Splits:
    times = table.time_ns
    if not len(times) or times.min() == times.max():
        raise DataError(
            "the time split needs times, and all rows have the same. "
            "Use --split stratified, or group where there are groups"
        )
    timed = table.timed
    order = np.flatnonzero(timed)
    order = order[np.argsort(times[order], kind="stable")]
    timeless = np.flatnonzero(~timed)
    first = round(fractions[0] * len(order))
    second = round((fractions[0] + fractions[1]) * len(order))
    notes: tuple[str, ...] = ()
    if len(timeless):
        kept = "train" if keep_timeless else "are left out"
        notes = (f"{len(timeless)} rows without time {kept}: they have no place in a split by time",)
    train = order[:first]
    if keep_timeless:
        train, timeless = np.concatenate([timeless, train]), timeless[:0]
    return Splits(train, order[first:second], order[second:], timeless, notes)


def _shuffled(stratify: bool) -> Callable[..., Splits]:
    def split(
        table: EventTable, fractions: tuple[float, ...], seed: int, group: str | None, keep_timeless: bool
    ) -> Splits:
        from sklearn.model_selection import train_test_split

        labels = table.labels
        rows, strata = np.arange(len(table)), labels if stratify else None
        try:
            parts = train_test_split(rows, test_size=1 - fractions[0], stratify=strata, random_state=seed)
            train, rest = np.asarray(parts[0]), np.asarray(parts[1])
            strata = labels[rest] if stratify else None
            share = fractions[2] / (fractions[1] + fractions[2])
            halves = train_test_split(rest, test_size=share, stratify=strata, random_state=seed)
        except ValueError as problem:
            raise DataError(
                f"{len(table)} rows cannot be split in three: {problem}. Use more rows"
            ) from problem
        return Splits(train, np.asarray(halves[0]), np.asarray(halves[1]), rows[:0])

    return split


def group_ids(table: EventTable, group: str | None = None) -> Int[np.ndarray, " event"]:
    """The group of each row, as dense ids.

    With a column: its values; rows where it is empty go by subject. Without: subjects, joined where they take part in
    one campaign or where they are exact duplicates (the same sequence of at least five events: kind, path, command and
    object kind), so that neither a campaign nor a copy of a trace stands on two sides.

    Raises:
        UsageError: an unknown column.
    """
    frame = table.frame
    if group is not None and group not in frame.columns:
        raise unknown_name("group column", group, frame.columns)
    subject = _dense(table.strings("subject"))
    if group is not None and group not in ("subject", "campaign"):
        values = frame[group].cast(pl.String).fill_null("")
        keys = pl.DataFrame({"value": values, "subject": subject})
        lone = (
            pl.when(pl.col("value") == "")
            .then(pl.format("subject {}", "subject"))
            .otherwise("value " + pl.col("value"))
        )
        return _dense(keys.select(lone.alias("key"))["key"])
    n_subjects = int(subject.max(initial=-1)) + 1
    ties = [_campaign_ties(table, subject, n_subjects)]
    if group is None or group == "subject":
        ties.append(_duplicate_ties(table, subject, n_subjects))
    return _components(n_subjects, ties)[subject]


def _dense(names: pl.Series) -> Int[np.ndarray, " event"]:
    return (names.rank("dense").cast(pl.Int64) - 1).to_numpy()


def _campaign_ties(
    table: EventTable, subject: Int[np.ndarray, " event"], n_subjects: int
) -> Int[np.ndarray, "2 _"]:
    """Pairs of subject and campaign; campaigns are numbered after the subjects."""
    campaign = table.strings("campaign")
    rows = np.flatnonzero((campaign != "").to_numpy())
    return np.stack([subject[rows], n_subjects + (_dense(campaign.gather(rows)) if len(rows) else rows)])


def _duplicate_ties(
    table: EventTable, subject: Int[np.ndarray, " event"], n_subjects: int
) -> Int[np.ndarray, "2 _"]:
    """Pairs of each subject and the first one with the same events."""
    contents = [pl.Series(name, table.strings(name)) for name in ("kind", "path", "command", "object_kind")]
    codes = pl.DataFrame([column for column in contents]).hash_rows(seed=0)
    traces = (
        pl.DataFrame({"subject": subject, "code": codes})
        .group_by("subject", maintain_order=True)
        .agg(pl.col("code"))
        .filter(pl.col("code").list.len() >= _MIN_TRACE)
    )
    first: dict[bytes, int] = {}
    left, right = [], []
    for name, events in zip(traces["subject"].to_list(), traces["code"], strict=True):
        left.append(name)
        right.append(first.setdefault(events.to_numpy().tobytes(), name))
    return np.asarray([left, right], np.int64)


def _components(n_subjects: int, ties: Sequence[Int[np.ndarray, "2 _"]]) -> Int[np.ndarray, " subject"]:
    """Connected components of subjects (and of whatever is numbered after them)."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    left, right = np.concatenate(ties, axis=1)
    size = max(n_subjects, int(right.max(initial=0)) + 1)
    graph = coo_matrix((np.ones(len(left), bool), (left, right)), shape=(size, size))
    return connected_components(graph, directed=False)[1][:n_subjects]


def _by_group(
    table: EventTable, fractions: tuple[float, ...], seed: int, group: str | None, keep_timeless: bool
) -> Splits:
    ids = np.unique(group_ids(table, group), return_inverse=True)[1]
    sizes = np.bincount(ids)
    if len(sizes) < 3:
        raise DataError(
            f"the group split needs at least three groups; the table has {len(sizes)}. "
            "Use --split time or stratified"
        )
    positives = np.bincount(ids, weights=table.labels == 1).astype(np.int64)
    part_of = _assign(sizes, positives, fractions, seed)[ids]
    order = np.argsort(table.time_ns, kind="stable")
    train, validation, test = (order[part_of[order] == part] for part in range(3))
    return Splits(train, validation, test, order[:0])


def _assign(
    sizes: Int[np.ndarray, " group"],
    positives: Int[np.ndarray, " group"],
    fractions: tuple[float, ...],
    seed: int,
) -> Int8[np.ndarray, " group"]:
    """The part of each group: malicious groups by their share of malicious rows, then the others by rows.

    Each goes where most is missing, large ones first, equal ones in seeded order. No part is left without a malicious
    group while there are enough of them.
    """
    shuffled = np.random.default_rng(seed).permutation(len(sizes))
    part_of = np.zeros(len(sizes), np.int8)
    rows = np.zeros(3)
    for weights, chosen in ((positives, positives > 0), (sizes, positives == 0)):
        groups = shuffled[chosen[shuffled]]
        groups = groups[np.argsort(-weights[groups], kind="stable")]
        have = rows.copy() if weights is sizes else np.zeros(3)
        goal = np.asarray(fractions) * weights.sum()
        filled = np.zeros(3, np.int64)
        for index, member in enumerate(groups):
            empty = np.flatnonzero(filled == 0)
            candidates = empty if len(groups) - index <= len(empty) else np.arange(3)
            part = candidates[np.argmax((goal - have)[candidates])]
            part_of[member] = part
            have[part] += weights[member]
            rows[part] += sizes[member]
            filled[part] += 1
    return part_of


SPLITS: Mapping[str, Callable[..., Splits]] = {
    "time": _by_time,
    "group": _by_group,
    "stratified": _shuffled(stratify=True),
    "random": _shuffled(stratify=False),
}
"""Ways to split, by name."""
