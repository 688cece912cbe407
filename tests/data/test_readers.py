"""Readers: each format in the contract's columns, bad rows set aside, broken files named with a remedy."""

import gzip
import json
import re
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from phalanx.data.readers import READERS, ingest, read_events
from phalanx.data.readers.base import time_column
from phalanx.data.text_files import load_ndjson
from phalanx.errors import DataError, UsageError


def _write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


DARPA = {
    "record_type": ["RECORD_EVENT", "RECORD_EVENT", "RECORD_SUBJECT", "RECORD_EVENT"],
    "event_type": ["EVENT_FORK", "EVENT_EXECUTE", "SUBJECT_PROCESS", "EVENT_READ"],
    "timestamp_ns": [10**18, 10**18 + 1, 0, 10**18 + 2],
    "subject_uuid": ["a", "b", "", "b"],
    "object_uuid": ["b", "", "", "f"],
    "file_path": ["", "/bin/sh", "", "/etc/passwd"],
    "sequence": [1, 2, 0, 3],
    "is_suspicious": [False, True, False, False],
}


def test_darpa(tmp_path: Path) -> None:
    file = tmp_path / "records.parquet"
    pl.DataFrame(DARPA).write_parquet(file)
    read = read_events(file)
    frame = read.table.frame
    assert read.formats == ("darpa",) and not read.rejects
    assert frame["kind"].to_list() == ["FORK", "EXECUTE", "RECORD_SUBJECT", "READ"]
    assert frame["subject"].to_list() == ["a", "b", "row-3", "b"]
    assert frame["parent"].to_list() == ["", "a", "", "a"]
    assert frame["path"].to_list() == DARPA["file_path"]
    assert frame["time_ns"].to_list() == DARPA["timestamp_ns"]
    assert frame["label"].to_list() == [0, 1, 0, 0]
    assert set(DARPA) < set(frame.columns)
    assert any("time" in note for note in read.notes) and any("subject" in note for note in read.notes)


def test_the_label_can_be_another_column(tmp_path: Path) -> None:
    file = tmp_path / "records.parquet"
    pl.DataFrame({**DARPA, "truth": ["benign", "Malicious", None, "?"]}).write_parquet(file)
    read = read_events(file, label="truth")
    assert read.table.labels.tolist() == [0, 1, -1]
    (reject,) = read.rejects
    assert reject.row == 4 and "truth=?" in reject.reason and json.loads(reject.raw)["sequence"] == 3
    with pytest.raises(DataError, match=r"no column 'nope'.*record_type.*--label"):
        read_events(file, label="nope")


def _adfa(folder: Path, **changes: object) -> tuple[Path, Path]:
    traces = {
        "trace_id": [0, 1],
        "label": [0, 1],
        "attack_type": ["", "Adduser"],
        "attack_run": [0, 3],
        "length": [2, 1],
    }
    calls = {"trace_id": [0, 0, 1], "step": [0, 1, 0], "syscall": [6, 11, 102], **changes}
    pl.DataFrame(traces).write_parquet(folder / "traces.parquet")
    pl.DataFrame(calls, schema_overrides={"trace_id": pl.Int32}).write_parquet(folder / "events.parquet")
    return folder / "traces.parquet", folder / "events.parquet"


def test_adfa_from_its_folder_or_both_files(tmp_path: Path) -> None:
    traces, calls = _adfa(tmp_path)
    for sources in (tmp_path, [traces, calls], [calls, traces]):
        frame = read_events(sources).table.frame
        assert frame["subject"].to_list() == ["trace-0", "trace-0", "trace-1"]
        assert frame["kind"].to_list() == ["SYSCALL_6", "SYSCALL_11", "SYSCALL_102"]
        assert frame["label"].to_list() == [0, 0, 1]
        assert frame["campaign"].to_list() == ["", "", "Adduser_3"]
        assert frame["stage"].to_list() == ["", "", "Adduser"]
        assert frame["time_ns"].to_list() == [0, 1, 2]
    with pytest.raises(DataError, match="table of traces.*both files"):
        read_events(calls)


def test_adfa_calls_of_an_unknown_trace_are_set_aside(tmp_path: Path) -> None:
    _adfa(tmp_path, trace_id=[0, 0, 9])
    read = read_events(tmp_path)
    assert len(read.table) == 2
    assert [reject.row for reject in read.rejects] == [3] and "trace_id=9" in read.rejects[0].reason


NSL = {
    "protocol_type": ["tcp", "udp"],
    "service": ["http", "domain"],
    "flag": ["SF", "S0"],
    "src_bytes": [1, 2],
    "dst_bytes": [3, 4],
    "attack": ["normal", "neptune"],
    "difficulty": [20, 3],
    "label": [0, 1],
}


def test_nsl_kdd(tmp_path: Path) -> None:
    file = tmp_path / "flows.parquet"
    pl.DataFrame(NSL).write_parquet(file)
    for label in (None, "attack"):
        table = read_events(file, label=label).table if label else read_events(file).table
        assert table.frame["stage"].to_list() == ["", "neptune"]
        assert table.frame["kind"].to_list() == ["FLOW", "FLOW"]
        assert table.frame["subject"].n_unique() == 2
        assert table.frame["time_ns"].to_list() == [0, 0]
    assert table.frame["difficulty"].to_list() == [20, 3]


ZEEK = """#separator \\x09
#set_separator\t,
#empty_field\t(empty)
#unset_field\t-
#fields\tts\tuid\tid.orig_h\tid.orig_p\tid.resp_h\tid.resp_p\tproto\tlocal_orig\ttunnel_parents   label   detailed-label
#types\ttime\tstring\taddr\tport\taddr\tport\tenum\tbool\tset[string]   string   string
1.500000\tC1\t10.0.0.1\t5\t10.0.0.2\t80\ttcp\tT\t(empty)   Benign   -
2.25\tC2\t10.0.0.1\t6\t10.0.0.3\t80\ttcp\tF\t-   Malicious   C&C
soon\tC3\t10.0.0.1\t6\t10.0.0.3\t80\ttcp\tF\t-   Malicious   C&C
3.0\tC4\t10.0.0.1
#close\t2018-01-01
"""


def test_zeek(tmp_path: Path) -> None:
    read = read_events(_write(tmp_path / "conn.log", ZEEK))
    frame = read.table.frame
    assert read.formats == ("zeek",)
    assert frame["time_ns"].to_list() == [1_500_000_000, 2_250_000_000]
    assert frame["host"].to_list() == ["10.0.0.1"] * 2
    assert frame["kind"].to_list() == ["CONNECT"] * 2
    assert frame["label"].to_list() == [0, 1]
    assert frame["stage"].to_list() == ["", "C&C"]
    assert frame["id.orig_p"].to_list() == [5, 6] and frame["local_orig"].to_list() == [True, False]
    assert {reject.row: reject.reason.split(";")[0] for reject in read.rejects} == {
        3: "ts=soon",
        4: "3 fields",
    }


GENERIC = "when,pid,name,evil,size\n1.5,7,EVENT_OPEN,yes,3\n2.5,7,READ,no,4\n3.5,8,READ,maybe,5\n"


def test_a_map_names_the_columns(tmp_path: Path) -> None:
    file = _write(tmp_path / "log.csv", GENERIC)
    columns = {"time_ns": "when", "subject": "pid", "kind": "name", "label": "evil"}
    mapping = {"columns": columns, "label_values": {"yes": 1, "no": 0}, "time_unit": "ms"}
    toml = _write(
        tmp_path / "map.toml",
        'time_ns = "when"\nsubject = "pid"\nkind = "name"\nlabel = "evil"\ntime_unit = "ms"\n'
        "[label_values]\nyes = 1\nno = 0\n",
    )
    as_json = _write(tmp_path / "map.json", json.dumps(mapping))
    for given_map in (mapping, toml, str(as_json)):
        read = read_events(file, mapping=given_map)
        frame = read.table.frame
        assert frame["time_ns"].to_list() == [1_500_000, 2_500_000]
        assert frame["subject"].to_list() == ["7", "7"]
        assert frame["kind"].to_list() == ["OPEN", "READ"]
        assert frame["label"].to_list() == [1, 0]
        assert [reject.row for reject in read.rejects] == [3]


@pytest.mark.parametrize(
    ("mapping", "says"),
    [
        ({"subject": "nope"}, "'nope'.*when, pid"),
        ({"process": "pid"}, "'process' is no column.*subject"),
        ({"subject": 3}, "'subject' maps to 3"),
        ({"label": "evil", "label_values": {"yes": 2}}, "label_values"),
        ({"time_ns": "when", "time_unit": "h"}, "time_unit='h'"),
    ],
)
def test_a_wrong_map(mapping: dict, says: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=says):
        read_events(_write(tmp_path / "log.csv", GENERIC), mapping=mapping)


@pytest.mark.parametrize(("name", "text"), [("map.json", "{"), ("map.toml", "= 1"), ("absent.json", None)])
def test_a_broken_map(name: str, text: str | None, tmp_path: Path) -> None:
    if text is not None:
        _write(tmp_path / name, text)
    with pytest.raises(DataError, match=name):
        read_events(_write(tmp_path / "log.csv", GENERIC), mapping=tmp_path / name)


def test_missing_columns_are_filled_and_said(tmp_path: Path) -> None:
    read = read_events(_write(tmp_path / "rows.csv", "size,flag\n1,a\n2,b\n"))
    assert read.table.frame["time_ns"].to_list() == [0, 1]
    assert read.table.frame["subject"].n_unique() == 2
    assert read.table.frame["kind"].to_list() == ["RECORD"] * 2
    assert not read.rejects and len(read.notes) == 3


def test_empty_cells_are_filled_not_rejected(tmp_path: Path) -> None:
    text = "time_ns,subject,kind,label\n5,,READ,\n,p,,1\n"
    read = read_events(_write(tmp_path / "rows.csv", text))
    assert not read.rejects and len(read.table) == 2
    assert read.table.frame["time_ns"].to_list() == [5, 0]
    assert read.table.frame["subject"].to_list() == ["row-1", "p"]
    assert read.table.labels.tolist() == [-1, 1]


def test_sources_are_joined_in_order_with_subjects_apart(tmp_path: Path) -> None:
    first = _write(tmp_path / "a.csv", "size\n1\n2\n")
    second = _write(tmp_path / "b.ndjson", '{"size": 3.5, "more": "x"}\n')
    read = read_events([first, second])
    assert read.table.frame["size"].to_list() == [1.0, 2.0, 3.5]
    assert read.table.frame["subject"].n_unique() == 3
    assert read.table.frame["time_ns"].to_list() == [0, 1, 2]


_good = st.tuples(st.integers(0, 99), st.sampled_from(["READ", "OPEN"]), st.sampled_from([-1, 0, 1]))
_bad_csv = st.sampled_from(
    ["1,p", "x,p,READ,0", "1,p,READ,7", "1,p,READ,0,9", "1,p,READ,evil?", "1.5.2,p,READ,0"]
)
_bad_json = st.sampled_from(
    [
        "{",
        "[1]",
        "7",
        '{"time_ns": "x", "subject": "p", "kind": "READ", "label": 0}',
        '{"time_ns": 1, "subject": "p", "label": 3}',
    ]
)


@given(rows=st.lists(st.one_of(_good, _bad_csv), min_size=1, max_size=12))
def test_csv_rows_are_kept_or_set_aside(rows: list, tmp_path: Path) -> None:
    rows = [(5, "READ", 0), *rows]
    lines = [row if isinstance(row, str) else f"{row[0]},p,{row[1]},{row[2]}" for row in rows]
    read = read_events(_write(tmp_path / "rows.csv", "time_ns,subject,kind,label\n" + "\n".join(lines)))
    bad = [number for number, row in enumerate(rows, 1) if isinstance(row, str)]
    assert sorted(reject.row for reject in read.rejects) == bad
    assert list(
        zip(read.table.frame["time_ns"], read.table.frame["kind"], read.table.labels, strict=True)
    ) == [row for row in rows if not isinstance(row, str)]
    assert all(reject.reason and reject.raw for reject in read.rejects)


@given(rows=st.lists(st.one_of(_good, _bad_json), min_size=1, max_size=12))
def test_json_rows_are_kept_or_set_aside(rows: list, tmp_path: Path) -> None:
    rows = [(5, "READ", 0), *rows]
    lines = [
        row
        if isinstance(row, str)
        else json.dumps(dict(time_ns=row[0], subject="p", kind=row[1], label=row[2]))
        for row in rows
    ]
    read = read_events(_write(tmp_path / "rows.ndjson", "\n\n".join(lines)))
    bad = [number for number, row in enumerate(rows, 1) if isinstance(row, str)]
    assert sorted(reject.row for reject in read.rejects) == bad
    assert len(read.table) == len(rows) - len(bad)


def test_windows_line_ends_and_quoted_line_breaks(tmp_path: Path) -> None:
    text = 'time_ns;subject;kind;path\r\n1;p;READ;"a\r\nb"\r\n2;p;OPEN;c\r\n'
    frame = read_events(_write(tmp_path / "rows.csv", text)).table.frame
    assert frame["path"].to_list() == ["a\r\nb", "c"] and frame["kind"].to_list() == ["READ", "OPEN"]


def test_a_row_that_is_not_utf8_is_set_aside(tmp_path: Path) -> None:
    read = read_events(_write(tmp_path / "rows.csv", b"time_ns,subject,kind\n1,p,READ\n2,\xff\xfe,READ\n"))
    assert (
        len(read.table) == 1
        and "UTF-8" in read.rejects[0].reason
        and "\\xff" in read.rejects[0].raw.lower() + "\\xff"
    )


def _asking_for_much(folder: Path) -> bytes:
    """A Parquet file with a page of -17 values, a number that some readers take for one without a sign."""
    path = folder / "much.parquet"
    pl.DataFrame({"time_ns": [5, 6]}).write_parquet(path, compression="uncompressed", statistics=False)
    content = path.read_bytes()
    path.unlink()
    values = b",\x15\x04\x15\x10"  # 2, as Thrift writes it, and their encoding
    assert content.count(values) == 1
    return content.replace(values, b",\x15\x21\x15\x10")


def _arrow_named(name: bytes) -> bytes:
    """An Arrow file with a column of that name, of five bytes."""
    import io

    import pyarrow

    file = io.BytesIO()
    table = pyarrow.table({"time_ns": [5], "NAMED": ["a"]})
    with pyarrow.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue().replace(b"NAMED", name)


def _broken(folder: Path) -> dict[str, tuple[Path, str]]:
    good = folder / "good.parquet"
    pl.DataFrame(DARPA).write_parquet(good)
    content = good.read_bytes()
    good.unlink()
    cases: dict[str, tuple[str, bytes, str]] = {
        "empty": ("a.csv", b"", "is empty"),
        "blank": ("a.ndjson", b"\n \n", "is empty"),
        "text as parquet": ("a.parquet", b"time_ns,subject\n1,p\n", "not a parquet file.*text"),
        "noise as parquet": ("a.parquet", bytes(range(256)) * 4, "not a parquet file"),
        "cut parquet": ("a.parquet", content[: len(content) // 2], "damaged Parquet"),
        "flipped parquet": ("a.parquet", content[:4] + b"\xff" * 300 + content[304:], "damaged Parquet"),
        "cut arrow": ("a.arrow", b"ARROW1\0\0half", "damaged Arrow"),
        "binary as csv": ("a.csv", b"PK\x03\x04\0\0\0\x08" * 9, "binary content"),
        "cut gzip": (
            "a.csv.gz",
            gzip.compress(b"time_ns,subject,kind\n1,p,READ\n" * 99)[:-9],
            "damaged gzip",
        ),
        "header alone": ("a.csv", b"time_ns,subject,kind\n", "header without rows"),
        "twice": ("a.csv", b"time_ns,kind,kind\n1,p,READ\n", "'kind' occurs twice"),
        "all rows bad": (
            "a.csv",
            b"time_ns,subject,kind\nx,p,READ\ny,p,READ\n",
            "none of its 2 rows.*row 1.*time_ns=x",
        ),
        "no JSON": ("a.ndjson", b"hello\nworld\n", "none of its 2 rows"),
        "JSON array": ("a.json", b'[{"a": 1}]', "JSON array.*jq"),
        "damaged gzip": ("b.csv.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x01\x05\x00\x00\x00abc", "damaged gzip"),
        "parquet that asks for 2 EiB": ("b.parquet", _asking_for_much(folder), "damaged Parquet"),
        "arrow name with NUL": ("b.arrow", _arrow_named(b"pa\0th"), "damaged Arrow.*NUL"),
        "arrow name of noise": ("b.arrow", _arrow_named(b"pa\xffth"), "damaged Arrow"),
        "csv header of noise": (
            "c.csv",
            b"time_ns,\xed,kind\n1,p,READ\n",
            "the header: bytes that are not UTF-8",
        ),
        "csv header with a field without end": (
            "c.csv",
            b'"' + b"x" * ((1 << 24) + 1),
            "the header is not CSV",
        ),
        "nothing but a mark of UTF-8": ("c.csv", b"\xef\xbb\xbf", "the header: no column is named"),
        "adfa without runs": (
            "d.csv",
            b"trace_id,step,syscall,label,attack_type\n1,0,5,1,adduser\n",
            "without the table of traces",
        ),
        "numbers as record types": (
            "d.csv",
            b"record_type,event_type,timestamp_ns,subject_uuid\n1,2,3,4\n",
            "format 'darpa', but not its values.*--format generic",
        ),
        "zeek separator of nothing": (
            "d.log",
            b"#separator \n#fields\tts\n1\n",
            "#separator ''.*one character",
        ),
        "zeek separator of noise": ("d.log", b"#separator \xff\n#fields\tts\n1\n", "one character"),
        "zeek names of noise": (
            "d.log",
            b"#separator \\x09\n#fields\tts\t\xff\n1.5\tC\n",
            "the header: bytes",
        ),
        "headless zeek": ("a.log", b"#separator \\x09\n1.0\tC1\n", "#fields"),
    }
    return {
        name: (_write(folder / f"{i}-{case[0]}", case[1]), case[2])
        for i, (name, case) in enumerate(cases.items())
    }


def test_broken_files_are_named_with_the_reason(tmp_path: Path) -> None:
    for name, (file, says) in _broken(tmp_path).items():
        try:
            read_events(file)
            message = "no error"
        except DataError as problem:
            message = str(problem)
        assert re.search(says, message) and file.name in message, (name, message)


def test_names_that_are_no_text_and_odd_spaces_cost_one_row_of_json(tmp_path: Path) -> None:
    rows = [
        b'{"kind": "A"}',
        b'{"\\u0000": 1}',
        b'{"\\ud800": 1}',
        b"\x1d",
        b" \t",
        b"1" * 5000,
        b'{"kind": "B"}',
    ]
    read = read_events(_write(tmp_path / "a.ndjson", b"\r\n".join(rows)))
    assert read.table.frame["kind"].to_list() == ["A", "B"]
    assert [reject.row for reject in read.rejects] == [2, 3, 4, 5]
    alone = read_events(_write(tmp_path / "b.ndjson", b'{"kind": "A"}\n{"a\\u0000": 1}\n'))
    assert len(alone.table) == 1 and "NUL" in alone.rejects[0].reason


def test_words_of_a_file_reach_no_terminal_as_they_are(tmp_path: Path) -> None:
    label = _write(tmp_path / "a.ndjson", b'{"kind": "READ", "label": "b\\n\\u001b[2Jign"}\n')
    with pytest.raises(DataError) as refused:
        read_events(label)
    assert str(refused.value).isprintable() and r"label=b \x1b[2Jign" in str(refused.value)
    odd = b'{"k\\u001b\\n": "%s", "kind": "READ", "ts": 5}'
    read = read_events(
        _write(tmp_path / "b.ndjson", b"\n".join(odd % b"1" for _ in range(200)) + b"\n" + odd % b"x")
    )
    assert any("no numbers" in note for note in read.notes) and all(note.isprintable() for note in read.notes)


def test_separators_within_a_field_of_zeek_end_no_row(tmp_path: Path) -> None:
    fields = "#fields\tts\tuid\tid.orig_h\tid.resp_h\n"
    rows = "1.5\tC\x1c1\ta\tb\r\n2.5\tC\u20282\ta\tb\n"
    read = read_events(_write(tmp_path / "a.log", f"#separator \\x09\n{fields}{rows}".encode()))
    assert read.table.frame["subject"].to_list() == ["C\x1c1", "C\u20282"] and not read.rejects


def test_missing_sources(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        read_events(tmp_path / "absent.csv")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="no data file in this folder"):
        read_events(tmp_path / "folder")
    with pytest.raises(DataError, match="no source"):
        read_events([])


def test_formats_by_name(tmp_path: Path) -> None:
    file = _write(tmp_path / "log.csv", GENERIC)
    with pytest.raises(UsageError, match="auto, phalanx, darpa"):
        read_events(file, format="darpas")
    with pytest.raises(DataError, match="not of the format 'darpa'.*when, pid"):
        read_events(file, format="darpa")
    assert list(READERS)[-1] == "generic"


def test_ingest_writes_table_and_rejects(tmp_path: Path) -> None:
    file = _write(tmp_path / "log.csv", "time_ns,subject,kind,label\n1,p,READ,0\n2,p,READ,9\n3,p\n")
    out = tmp_path / "new" / "events.parquet"
    report = ingest(file, out)
    assert (report.rows, report.rejected) == (1, 2)
    assert (
        report.rejects_file is not None and report.rejects_file == tmp_path / "new" / "events.rejects.jsonl"
    )
    rejects = [json.loads(line) for line in report.rejects_file.read_text().splitlines()]
    assert sorted(rejects[0]) == ["raw", "reason", "row", "source"]
    assert sorted(reject["row"] for reject in rejects) == [2, 3]
    assert sorted(path.name for path in out.parent.iterdir()) == ["events.parquet", "events.rejects.jsonl"]
    with pytest.raises(UsageError, match="one of the sources"):
        ingest(out, out)
    good = _write(tmp_path / "good.csv", "time_ns,subject,kind,label\n1,p,READ,0\n")
    clean = ingest(good, out)
    assert clean.rejects_file is None and not report.rejects_file.exists() and clean.rows == 1


@pytest.mark.parametrize(
    ("values", "unit", "expected"),
    [
        ([1_700_000_000, 1_700_000_001], None, [1_700_000_000 * 10**9, 1_700_000_001 * 10**9]),
        ([1_700_000_000_000], None, [1_700_000_000 * 10**9]),
        ([1_700_000_000 * 10**9], None, [1_700_000_000 * 10**9]),
        ([0.25, 1.5], None, [250_000_000, 1_500_000_000]),
        (["1.5", "x"], None, [1_500_000_000, None]),
        (["2024-01-01T00:00:00Z", "later"], None, [1_704_067_200 * 10**9, None]),
        ([2, 3], "ms", [2_000_000, 3_000_000]),
        ([2**62, 1], "s", [None, 10**9]),
        ([float("inf"), 1.0], "s", [None, 10**9]),
    ],
)
def test_times(values: list, unit: str | None, expected: list) -> None:
    times, bad, _ = time_column(pl.Series("t", values), unit)
    assert times.to_list() == expected
    assert bad.to_list() == [value is None for value in expected]


_fields = {
    "a": st.none() | st.integers(-(2**70), 2**70),
    "b": st.none() | st.integers(-9, 9) | st.floats(-9, 9),
    "c": st.none()
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=3)
    | st.sampled_from(["1", "1.0", "true"]),
    "d": st.none() | st.booleans(),
    "e": st.none() | st.just([1]),
}


@given(rows=st.lists(st.fixed_dictionaries({"f": st.just(1)}, optional=_fields), min_size=1, max_size=6))
def test_the_fast_way_through_json_is_the_slow_one(rows: list[dict], tmp_path: Path) -> None:
    text = "\n".join(json.dumps(row) for row in rows)
    fast = load_ndjson(_write(tmp_path / "rows.ndjson", text), text.encode())
    spoilt = text + "\n{"
    slow = load_ndjson(tmp_path / "rows.ndjson", spoilt.encode())
    assert len(slow.rejects) == 1
    assert_frame_equal(fast.frame, slow.frame, check_column_order=False)


@pytest.mark.parametrize(("odd", "said"), [(1, True), (2, True), (3, False), (0, False)])
def test_a_column_of_numbers_with_few_other_values_is_noted(tmp_path: Path, odd: int, said: bool) -> None:
    """It is read as text, and text that is different in every row teaches nothing: without a note it would be lost."""
    values = ["NaNish"] * odd + [str(n) for n in range(200 - odd)]
    file = tmp_path / "events.csv"
    file.write_text("subject,kind,bytes\n" + "".join(f"p{i % 7},READ,{v}\n" for i, v in enumerate(values)))
    read = read_events(file)
    assert len(read.table) == 200 and not read.rejects
    notes = [note for note in read.notes if "column bytes" in note]
    assert len(notes) == said
    if said:
        assert f"{odd} of 200 values are no numbers (first: 'NaNish')" in notes[0]
