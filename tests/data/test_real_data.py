"""The recorded data sets: what is documented about them is what the readers, splits and the encoder find."""

import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from phalanx.data.encoder import Encoder
from phalanx.data.events import EventTable
from phalanx.data.readers import read_events
from phalanx.data.splits import group_ids, split_rows

pytestmark = pytest.mark.shared


@pytest.fixture(scope="module")
def darpa(shared_data: Path) -> EventTable:
    return read_events(shared_data / "darpa_trace_e5" / "records.parquet").table


@pytest.fixture(scope="module")
def adfa(shared_data: Path) -> EventTable:
    return read_events(shared_data / "adfa_ld").table


def test_darpa_is_read_whole(darpa: EventTable) -> None:
    frame = darpa.frame
    assert len(darpa) == 500_000 and int((darpa.labels == 1).sum()) == 54_634
    assert int(darpa.timed.sum()) == 408_301
    events = frame.filter(frame["record_type"] == "RECORD_EVENT")
    assert events["subject"].n_unique() == 4_434
    assert frame["subject"].n_unique() == 4_434 + 91_699
    lineage = events.filter(events["kind"].is_in(["FORK", "CLONE"]))
    children = set(lineage["object"]) & set(events["subject"])
    assert len(children) == 973  # documented edges of lineage
    assert set(events.filter(events["parent"] != "")["subject"]) == children


def test_darpa_split_of_the_original(darpa: EventTable) -> None:
    splits = split_rows(darpa, "stratified", seed=42)
    assert [len(part) for part in splits.parts] == [349_999, 75_000, 75_001]
    assert [int((darpa.labels[part] == 1).sum()) for part in splits.parts] == [38_244, 8_195, 8_195]
    assert int((darpa.labels[splits.validation[:1600]] == 1).sum()) == 181


def test_darpa_is_encoded_in_seconds(darpa: EventTable) -> None:
    splits = split_rows(darpa, "time")
    assert len(splits.left_out) == 91_699
    started = time.perf_counter()
    encoder = Encoder.fit(darpa, splits.train)
    encoded = encoder.encode(darpa)
    assert time.perf_counter() - started < 20  # about 1 s on an idle core
    names = {column.name for column in (*encoder.categories, *encoder.numbers)}
    assert {"kind", "protection", "file_size"} <= names
    assert not names & {"sequence", "timestamp_ns", "is_suspicious", "subject_uuid", "event_id", "src_port"}
    assert (np.diff(encoded.time_s) >= 0).all() and np.abs(encoded.numeric).max() <= 8
    assert encoded.category.min() >= 0
    assert all(encoded.category[:, i].max() < c.size for i, c in enumerate(encoder.categories))


def test_adfa_traces_are_processes(adfa: EventTable) -> None:
    frame = adfa.frame
    assert len(adfa) == 1_575_503 and frame["subject"].n_unique() == 3_458
    assert frame.group_by("subject").agg(pl.col("label").n_unique())["label"].max() == 1
    assert adfa.order_only
    encoder = Encoder.fit(adfa, np.arange(0, len(adfa), 7))
    assert [column.name for column in encoder.categories] == ["kind"] and not encoder.numbers


def test_adfa_groups_keep_attack_runs_and_copies_together(adfa: EventTable) -> None:
    splits = split_rows(adfa, "group")
    side = np.empty(len(adfa), int)
    for index, part in enumerate(splits.parts):
        side[part] = index
    of_trace, of_run, kinds = {}, {}, {}
    first = np.flatnonzero(np.diff(adfa.frame["trace_id"].to_numpy(), prepend=-1))
    ends = [*first[1:], len(adfa)]
    calls = adfa.frame["syscall"].to_numpy()
    for start, end in zip(first.tolist(), ends, strict=True):
        run, trace = adfa.frame["campaign"][start], tuple(calls[start:end].tolist())
        assert (side[start:end] == side[start]).all()
        of_trace.setdefault(trace, set()).add(side[start])
        kinds[trace] = kinds.get(trace, 0) + 1
        if run:
            of_run.setdefault(run, set()).add(side[start])
    assert all(len(sides) == 1 for sides in of_trace.values())
    assert all(len(sides) == 1 for sides in of_run.values())
    assert sum(count for count in kinds.values() if count > 1) > 1000  # many copies: the law is not empty
    assert len(np.unique(group_ids(adfa))) <= len(kinds)
    shares = np.array([(adfa.labels[part] == 1).sum() for part in splits.parts]) / (adfa.labels == 1).sum()
    assert np.abs(shares - [0.7, 0.15, 0.15]).max() < 0.05


def test_nsl_kdd(shared_data: Path) -> None:
    table = read_events(shared_data / "nsl_kdd" / "test.parquet").table
    assert len(table) == 22_544
    encoder = Encoder.fit(table)
    names = {column.name for column in (*encoder.categories, *encoder.numbers)}
    assert len(names) == 40  # 41 features less the constant num_outbound_cmds
    assert not names & {"difficulty", "attack", "label"} and not encoder.rolling


def test_zeek(shared_data: Path) -> None:
    read = read_events(next((shared_data / "zeek").glob("*.log")))
    assert (len(read.table), len(read.rejects)) == (992, 0)
    assert int((read.table.labels == 1).sum()) == 244
    assert read.table.frame["time_ns"][0] == 19_981_745_000
