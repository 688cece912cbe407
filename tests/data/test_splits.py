"""Splits: they partition the rows, groups stay whole, time runs forward, and no part lacks a malicious row."""

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from sklearn.model_selection import train_test_split

from phalanx.data.events import EventTable
from phalanx.data.splits import SPLITS, Splits, group_ids, split_rows
from phalanx.errors import DataError, UsageError


def _table(n: int = 200, subjects: int = 40, seed: int = 0) -> EventTable:
    """Events of processes on four hosts; every fifth process is malicious and belongs to one of five campaigns."""
    draw = np.random.default_rng(seed)
    subject = draw.integers(0, subjects, n)
    evil = subject % 5 == 0
    campaign = np.where(evil, "c" + (subject // 5 % 5).astype(str).astype(object), "")
    return EventTable.of(
        pl.DataFrame(
            {
                "time_ns": draw.integers(1, 10**6, n) * 10**9,
                "subject": [f"p{name}" for name in subject],
                "host": [f"h{name % 4}" for name in subject],
                "kind": draw.choice(["READ", "WRITE", "OPEN", "CONNECT"], n),
                "label": evil.astype(int),
                "campaign": campaign.tolist(),
            }
        )
    )


def _same(a: Splits, b: Splits) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.parts, b.parts, strict=True))


@pytest.mark.parametrize("how", SPLITS)
@given(n=st.integers(60, 200), seed=st.integers(0, 99))
def test_splits_partition_the_rows(how: str, n: int, seed: int) -> None:
    table = _table(n, seed=seed)
    try:
        splits = split_rows(table, how, seed=seed, fractions=(0.5, 0.25, 0.25))
    except DataError:
        assume(False)
        raise
    rows = np.concatenate([*splits.parts, splits.left_out])
    assert np.array_equal(np.sort(rows), np.arange(n))
    assert all((table.labels[part] == 1).any() for part in splits.parts)
    assert _same(splits, split_rows(table, how, seed=seed, fractions=(0.5, 0.25, 0.25)))


def test_time_runs_forward_and_ties_keep_their_order() -> None:
    table = _table(300)
    splits = split_rows(table, "time")
    rows = np.concatenate(splits.parts)
    assert rows.tolist() == sorted(range(300), key=lambda row: table.frame["time_ns"][row])
    assert [len(part) for part in splits.parts] == [210, 45, 45]


def test_rows_without_time_are_left_out_or_train() -> None:
    frame = _table(300).frame.with_columns(
        time_ns=pl.when(pl.int_range(300) % 10 == 3).then(0).otherwise(pl.col("time_ns") + 10**18)
    )
    table = EventTable.of(frame)
    splits = split_rows(table, "time")
    assert splits.left_out.tolist() == list(range(3, 300, 10))
    assert "30 rows without time" in splits.notes[0]
    kept = split_rows(table, "time", keep_timeless=True)
    assert not len(kept.left_out) and set(splits.left_out) < set(kept.train)
    assert np.array_equal(kept.test, splits.test)


@pytest.mark.parametrize(("how", "strata"), [("stratified", True), ("random", False)])
def test_shuffled_splits_are_those_of_scikit_learn(how: str, strata: bool) -> None:
    table = _table(200)
    labels = table.labels
    train, rest = train_test_split(
        np.arange(200), test_size=1 - 0.7, stratify=labels if strata else None, random_state=42
    )
    validation, test = train_test_split(
        rest, test_size=0.5, stratify=labels[rest] if strata else None, random_state=42
    )
    splits = split_rows(table, how, seed=42)
    for ours, theirs in zip(splits.parts, (train, validation, test), strict=True):
        assert np.array_equal(ours, theirs)


@given(seed=st.integers(0, 999))
def test_groups_stay_whole(seed: int) -> None:
    table = _table(400, subjects=60, seed=seed)
    splits = split_rows(table, "group", seed=seed)
    side = np.empty(len(table), int)
    for index, part in enumerate(splits.parts):
        side[part] = index
        assert (np.diff(table.time_ns[part]) >= 0).all()
    frame = table.frame.with_columns(side=pl.Series(side))
    assert frame.group_by("subject").agg(pl.col("side").n_unique())["side"].max() == 1
    campaigns = frame.filter(pl.col("campaign") != "").group_by("campaign").agg(pl.col("side").n_unique())
    assert campaigns["side"].max() == 1
    shares = np.array([len(part) for part in splits.parts]) / len(table)
    assert np.abs(shares - [0.7, 0.15, 0.15]).max() < 0.1


def test_a_column_can_be_the_group() -> None:
    table = _table(400)
    splits = split_rows(table, "group", group="host", fractions=(0.5, 0.25, 0.25))
    hosts = [set(table.frame["host"][part]) for part in splits.parts]
    assert sum(map(len, hosts)) == len(set.union(*hosts)) == 4


def test_the_seed_moves_groups() -> None:
    table = _table(400, subjects=200)
    assert not _same(split_rows(table, "group", seed=0), split_rows(table, "group", seed=1))


def _traces(*sequences: str) -> EventTable:
    rows = [(f"t{index}", kind) for index, sequence in enumerate(sequences) for kind in sequence]
    columns = {
        "time_ns": range(len(rows)),
        "subject": [row[0] for row in rows],
        "kind": [row[1] for row in rows],
    }
    return EventTable.of(pl.DataFrame(columns))


def test_copies_of_a_trace_are_one_group() -> None:
    table = _traces("abcde", "abcdf", "abcde", "edcba", "ab", "ab", "abcdea")
    groups = dict(zip(table.frame["subject"], group_ids(table).tolist(), strict=True))
    assert groups["t0"] == groups["t2"]
    # a short sequence proves nothing, and order and length count
    assert len({groups[name] for name in ("t0", "t1", "t3", "t4", "t5", "t6")}) == 6


def test_copies_tie_campaigns_together() -> None:
    table = _traces("abcde", "abcde", "xyxyx", "zzzzz")
    frame = table.frame.with_columns(
        campaign=pl.when(pl.col("subject").is_in(["t0", "t2"])).then(pl.lit("c")).otherwise(pl.lit(""))
    )
    groups = dict(zip(frame["subject"], group_ids(EventTable.of(frame)).tolist(), strict=True))
    assert groups["t0"] == groups["t1"] == groups["t2"] != groups["t3"]


def _rows(times: list[int], labels: list[int], subjects: list[str]) -> EventTable:
    return EventTable.of(
        pl.DataFrame({"time_ns": times, "subject": subjects, "kind": ["READ"] * len(times), "label": labels})
    )


@pytest.mark.parametrize(
    ("how", "table", "says"),
    [
        ("time", _rows([1] * 9, [0, 1] * 4 + [1], ["p"] * 9), "needs times.*stratified"),
        (
            "time",
            _rows(list(range(9)), [1] * 4 + [0] * 5, ["p"] * 9),
            "no malicious row.*validation.*--split",
        ),
        ("time", _rows([1, 2], [1, 1], ["p"] * 2), "part empty"),
        (
            "group",
            _rows(list(range(9)), [1] * 9, ["p", "q", "q"] * 3),
            "at least three groups; the table has 2",
        ),
        ("group", _rows(list(range(9)), [0, 0, 1] * 3, ["p", "q", "r"] * 3), "no malicious row"),
        ("stratified", _rows(list(range(9)), [0] * 8 + [1], ["p"] * 9), "cannot be split in three"),
        ("random", _rows(list(range(9)), [0] * 8 + [1], ["p"] * 9), "no malicious row"),
        ("random", _rows([1, 2], [0, 1], ["p"] * 2), "split in three|empty"),
    ],
)
def test_a_split_that_cannot_serve_is_refused(how: str, table: EventTable, says: str) -> None:
    with pytest.raises(DataError, match=says):
        split_rows(table, how)


def test_tables_without_labels_can_be_split() -> None:
    table = _rows(list(range(20)), [-1] * 20, ["p"] * 20)
    assert [len(part) for part in split_rows(table, "time").parts] == [14, 3, 3]


@pytest.mark.parametrize(
    ("how", "settings", "says"),
    [
        ("chronological", {}, "time, group, stratified, random"),
        ("time", {"fractions": (0.5, 0.5, 0.5)}, "add up to 1"),
        ("time", {"fractions": (1.0, 0.0, 0.0)}, "add up to 1"),
        ("time", {"group": "host"}, "goes with the split 'group'"),
        ("group", {"group": "nope"}, "unknown group column"),
    ],
)
def test_wrong_settings(how: str, settings: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        split_rows(_table(), how, **settings)
