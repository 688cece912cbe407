"""The encoder: fitted on training rows alone, blind to the truth, the same from JSON, the same inside jitted code."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.data.columns import MISSING, UNSEEN
from phalanx.data.encoder import Encoded, Encoder
from phalanx.data.events import EventTable
from phalanx.data.features import command_name, group_of, path_class
from phalanx.data.history import rolling_features
from phalanx.data.rolling import EVENT_CLASSES, ROLLING_COLUMNS
from phalanx.envs.export import simulate_table
from phalanx.errors import DataError, UsageError
from phalanx.types import Column


def _table(n: int = 60, seed: int = 0) -> EventTable:
    draw = np.random.default_rng(seed)
    return EventTable.of(
        pl.DataFrame(
            {
                "time_ns": np.cumsum(draw.integers(0, 10**9, n)) + 10**18,
                "subject": draw.choice(["p", "q", "r", "s"], n),
                "parent": draw.choice(["", "p"], n),
                "host": draw.choice(["h0", "h1"], n),
                "kind": draw.choice(["READ", "OPEN", "CONNECT", "EXECUTE"], n, p=[0.5, 0.3, 0.15, 0.05]),
                "path": draw.choice(["", "/usr/bin/a", "/usr/bin/b", "/etc/passwd"], n),
                "command": draw.choice(["/bin/sh -c x", "sh", "python3 y"], n),
                "label": draw.integers(0, 2, n),
                "campaign": draw.choice(["", "c"], n),
                "stage": draw.choice(["", "entry", "exfil"], n),
                "size": draw.choice([np.nan, 1.0, 100.0, -5.0], n),
                "dst_port": draw.integers(0, 9, n),
                "protocol": draw.choice([6, 17], n),
                "protection": draw.choice(["", "3", "5"], n),
                "event_id": [f"e{row}" for row in range(n)],
                "note": [f"text {row}" for row in range(n)],
                "sequence": draw.integers(0, 99, n),
                "counter": np.arange(n) * 3 + 1,
                "difficulty": draw.integers(0, 9, n),
                "attack_name": draw.choice(["x", "y"], n),
                "is_suspicious": draw.choice([True, False], n),
                "constant": [4] * n,
            }
        )
    )


def _equal(a: Encoded, b: Encoded) -> bool:
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in Encoded.__dataclass_fields__)


def test_no_truth_of_a_simulated_table_is_an_input() -> None:
    table = simulate_table(hosts=2, hours=0.5, campaigns=2, seed=3)
    encoder = Encoder.fit(table, np.arange(len(table)))
    inputs = {column.source for column in encoder.categories} | {column.name for column in encoder.numbers}
    assert inputs & set(table.columns) and not inputs & {
        "label",
        "campaign",
        "stage",
        "technique",
        "cause",
        "bait",
    }
    assert any(note.startswith("left out as truth: ") and "technique" in note for note in encoder.notes)
    for name in ("technique", "cause", "bait"):
        with pytest.raises(UsageError, match="the truth itself"):
            Encoder.fit(table, np.arange(len(table)), features=["kind", name])


def test_what_is_filled_in_for_one_side_alone_is_no_input() -> None:
    frame = pl.DataFrame(
        {
            "time_ns": [5, 3, 9, 1],
            "subject": ["a", "b", "c", "d"],
            "kind": ["READ", "WRITE", "READ", "WRITE"],
            "label": [0, 1, 1, 0],
            "verdict_note": ["", "seen", "known", ""],
            "score": [None, 0.3, 0.2, None],
            "size": [1.0, 5.0, 2.0, 7.0],
        }
    )
    encoder = Encoder.fit(EventTable.of(frame), np.arange(4))
    assert [column.name for column in encoder.numbers if column.name in frame.columns] == ["size"]
    assert sum("filled in for the malicious rows alone" in note for note in encoder.notes) == 2


def test_default_features() -> None:
    encoder = Encoder.fit(_table())
    assert [column.name for column in encoder.categories] == [
        "kind",
        "path_class",
        "command_name",
        "protocol",
        "protection",
    ]
    assert [column.name for column in encoder.numbers] == ["size", "dst_port"]
    notes = "\n".join(encoder.notes)
    for name in ("constant", "event_id", "note", "sequence", "counter"):
        assert name in notes
    assert {column.name: column.group for column in encoder.categories}["path_class"] == "file"
    assert {column.name: column.group for column in encoder.numbers} == {
        "size": "file",
        "dst_port": "network",
    }


def test_ids_against_a_loop() -> None:
    table = _table()
    encoded = Encoder.fit(table).encode(table)
    for index, (source, reduce) in enumerate(
        [("kind", str), ("path", path_class), ("command", command_name)]
    ):
        values = [reduce(value) for value in table.frame[source]]
        counts = {value: values.count(value) for value in values if value}
        known = sorted(counts, key=lambda value: (-counts[value], value))
        expected = [known.index(value) + 2 if value else MISSING for value in values]
        assert encoded.category[:, index].tolist() == expected


def test_numbers_against_a_loop() -> None:
    table, rows = _table(), np.arange(0, 60, 2)
    encoded = Encoder.fit(table, rows).encode(table)
    raw = [np.nan if value is None else value for value in table.frame["size"]]
    logs = np.sign(raw) * np.log1p(np.abs(raw))
    expected = np.clip((logs - np.nanmean(logs[rows])) / np.nanstd(logs[rows]), -8, 8)
    np.testing.assert_allclose(encoded.numeric[:, 0], np.nan_to_num(expected), atol=1e-5)


def test_unseen_missing_and_rare_values() -> None:
    kinds = ["A"] * 5 + ["B"] * 3 + ["C"] * 2 + ["D"]
    flags = ["x", "x", "x", "y", "y", "z", "", "", "", "", "w"]
    columns = {"time_ns": range(11), "subject": ["p"] * 11, "kind": kinds, "flag": flags}
    table = EventTable.of(pl.DataFrame(columns))
    encoder = Encoder.fit(table, np.arange(10), max_values=2)
    assert encoder.categories[0].values == ("A", "B", "C")  # the kind is not cut at 64
    assert encoder.categories[1].values == ("x", "y")
    encoded = encoder.encode(table)
    assert encoded.category[10].tolist() == [UNSEEN, UNSEEN]
    assert encoded.category[5, 1] == UNSEEN and encoded.category[6, 1] == MISSING
    assert "2 most frequent of 3" in "\n".join(encoder.notes)


@given(seed=st.integers(0, 99), cut=st.integers(20, 50))
def test_only_training_rows_are_fitted(seed: int, cut: int) -> None:
    table, other = _table(seed=seed), _table(seed=seed + 100)
    mixed = EventTable.of(
        pl.concat([table.frame[:cut], other.frame[cut:].with_columns(pl.col("size") * 1e6)])
    )
    rows = np.arange(cut)
    assert Encoder.fit(table, rows) == Encoder.fit(mixed, rows)


@given(seed=st.integers(0, 99))
def test_the_truth_changes_no_observation(seed: int) -> None:
    table = _table(seed=seed)
    order = np.random.default_rng(seed).permutation(len(table))
    truth = table.frame.select("label", "campaign", "stage", "is_suspicious", "attack_name", "difficulty")[
        order
    ]
    blind = EventTable.of(table.frame.with_columns(truth))
    encoder = Encoder.fit(table)
    assert Encoder.fit(blind) == encoder
    a, b = encoder.encode(table), encoder.encode(blind)
    assert np.array_equal(a.category, b.category) and np.array_equal(a.numeric, b.numeric)
    assert np.array_equal(a.label[order], b.label)


@given(
    seed=st.integers(0, 99), features=st.sampled_from([None, ["size", "kind"], ["dst_port", "protection"]])
)
def test_an_encoder_survives_json(seed: int, features: list[str] | None) -> None:
    table = _table(seed=seed)
    encoder = Encoder.fit(table, np.arange(40), features=features)
    restored = Encoder.from_dict(json.loads(json.dumps(encoder.to_dict())))
    assert restored == encoder
    assert _equal(restored.encode(table), encoder.encode(table))


@pytest.mark.parametrize("saved", [{}, {"version": 99}, {"version": 1, "categories": [{}]}])
def test_a_damaged_encoder_is_refused(saved: dict) -> None:
    with pytest.raises(DataError, match="encoder"):
        Encoder.from_dict(saved)


def test_asked_for_features_alone() -> None:
    table = _table()
    encoder = Encoder.fit(table, features=["sequence", "constant", "protocol", "path"])
    assert [column.name for column in encoder.numbers] == ["sequence", "constant", "protocol"]
    assert [column.name for column in encoder.categories] == ["path_class"]
    encoded = encoder.encode(table)
    assert not encoder.rolling and encoded.numeric.shape == (60, 3)
    assert not encoded.numeric[:, 1].any() and "constant" in encoder.notes[0]


def test_the_originals_scaling() -> None:
    table = _table()
    encoder = Encoder.fit(table, features=["sequence", "dst_port", "constant"], scaling="max")
    rows = np.arange(10, 30)
    raw = table.frame.select("sequence", "dst_port", "constant").to_numpy()[rows].astype(float)
    np.testing.assert_allclose(encoder.encode(table, rows).numeric, raw / raw.max(axis=0), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"features": ["nope"]}, "unknown feature 'nope'.*size"),
        ({"features": ["label"]}, "the truth itself"),
        ({"features": []}, "empty list"),
        ({"scaling": "min"}, "log, max"),
        ({"max_values": 0}, "max_values=0"),
    ],
)
def test_wrong_settings(settings: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Encoder.fit(_table(), **settings)


def test_tables_without_anything_to_learn() -> None:
    table = EventTable.of(pl.DataFrame({"time_ns": [1, 2], "subject": ["p", "q"], "kind": ["A", "A"]}))
    with pytest.raises(DataError, match="no column"):
        Encoder.fit(table)
    with pytest.raises(DataError, match="no training rows"):
        Encoder.fit(table, np.arange(0))


def test_a_table_from_elsewhere_is_refused_and_missing_columns_are_named() -> None:
    encoder = Encoder.fit(_table(), features=["size", "protection"])
    bare = EventTable.of(_table().frame.select("time_ns", "subject", "kind"))
    with pytest.raises(DataError, match="none of the columns.*size"):
        encoder.encode(bare)
    partly = EventTable.of(_table().frame.drop("size"))
    assert encoder.missing(partly) == ("size",)
    assert not encoder.encode(partly).numeric.any()


def test_copies_of_the_label_and_of_the_kind_are_left_out() -> None:
    table = _table()
    frame = table.frame.with_columns(copy=pl.col("label") == 1, event_name="E_" + pl.col("kind"))
    encoder = Encoder.fit(EventTable.of(frame))
    names = [column.name for column in (*encoder.categories, *encoder.numbers)]
    assert "copy" not in names and "event_name" not in names
    assert any("same as the label" in note for note in encoder.notes)


def test_who_where_and_when() -> None:
    columns = {
        "time_ns": [0, 5 * 10**17, 10**18, 0, 10**18 - 10**9, 10**18 + 2 * 10**9],
        "subject": ["b", "a", "b", "c", "a", "d"],
        "parent": ["", "b", "", "gone", "b", "a"],
        "host": ["h", "g", "h", "h", "g", ""],
        "kind": ["MMAP", "READ", "READ", "NOVEL", "READ", "READ"],
        "campaign": ["", "y", "x", "", "y", ""],
        "label": [0, 1, 1, -1, 1, 0],
    }
    table = EventTable.of(pl.DataFrame(columns))
    encoded = Encoder.fit(table).encode(table, np.array([2, 3, 4, 5, 1]))
    assert encoded.subject.tolist() == [0, 1, 2, 3, 2]
    assert encoded.parent.tolist() == [-1, -1, 0, 2, 0]
    assert encoded.host.tolist() == [0, 0, 1, 2, 1]
    assert encoded.time_s.tolist() == [0, 0, 0, 2, 2]
    assert encoded.campaigns == ("x", "y") and encoded.campaign.tolist() == [0, -1, 1, -1, 1]
    assert encoded.stage.tolist() == [-1] * 5 and encoded.label.tolist() == [1, -1, 1, 0, 1]
    assert [EVENT_CLASSES[index] for index in encoded.event_class[:2]] == ["file", "other"]


@pytest.mark.parametrize("times", [[0, 0, 0, 0], [0, 1, 2, 3]])
def test_without_times_each_row_counts_a_second(times: list[int]) -> None:
    columns = {"time_ns": times, "subject": list("ppqq"), "kind": list("abab")}
    table = EventTable.of(pl.DataFrame(columns))
    assert Encoder.fit(table).encode(table).time_s.tolist() == [0, 1, 2, 3]


def test_no_rolling_statistics_without_processes() -> None:
    columns = {"time_ns": range(4), "subject": list("pqrs"), "kind": list("abab")}
    table = EventTable.of(pl.DataFrame(columns))
    encoder = Encoder.fit(table)
    assert not encoder.rolling and encoder.encode(table).numeric.shape == (4, 0)


def _loop(subject: list[int], event_class: list[int], time_s: list[float]) -> np.ndarray:
    """Rolling statistics written out, one process at a time."""
    out, seen = [], {}
    for who, kind, now in zip(subject, event_class, time_s, strict=True):
        count, first, last, shares = seen.get(who, (0, now, now, np.zeros(len(EVENT_CLASSES))))
        shares = 0.875 * shares + 0.125 * (np.arange(len(EVENT_CLASSES)) == kind)
        seen[who] = (count + 1, first, now, shares)
        ages = [np.log1p(count + 1) / 5, np.log1p(now - first) / 8, np.log1p(now - last) / 5]
        out.append([*ages, *shares])
    return np.array(out)


@given(
    rows=st.lists(
        st.tuples(st.integers(0, 3), st.integers(0, 5), st.integers(0, 1000)), min_size=1, max_size=40
    )
)
def test_rolling_statistics_against_a_loop(rows: list[tuple[int, int, int]]) -> None:
    subject, event_class = [row[0] for row in rows], [row[1] for row in rows]
    time_s = np.cumsum([row[2] / 8 for row in rows])
    found = rolling_features(
        np.array(subject, np.int32), np.array(event_class, np.int32), time_s.astype(np.float32)
    )
    assert found.shape == (len(rows), len(ROLLING_COLUMNS))
    np.testing.assert_allclose(found, _loop(subject, event_class, time_s.tolist()), atol=1e-5)


def test_rolling_statistics_across_chunks() -> None:
    draw = np.random.default_rng(0)
    subject, event_class = draw.integers(0, 3, 2500), draw.integers(0, 6, 2500)
    time_s = np.cumsum(draw.integers(0, 9, 2500)) / 4
    found = rolling_features(
        subject.astype(np.int32), event_class.astype(np.int32), time_s.astype(np.float32)
    )
    expected = _loop(subject.tolist(), event_class.tolist(), time_s.tolist())
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_jitted_helpers_encode_as_the_table_does() -> None:
    table = _table()
    encoder = Encoder.fit(table)
    encoded = encoder.encode(table)
    raw = table.frame.select(pl.col(column.name).cast(pl.Float32) for column in encoder.numbers)
    values = jnp.asarray(raw.fill_null(float("nan")).to_numpy())
    scaled = jax.jit(jax.vmap(encoder.scale))(values)
    np.testing.assert_array_equal(scaled, encoder.scale(values))
    np.testing.assert_allclose(scaled, encoded.numeric[:, : len(encoder.numbers)], atol=1e-5)
    names = ["READ", "NOVEL", ""]
    lookup = encoder.category_lookup("kind", names)
    rows = table.frame["kind"].to_list()
    assert lookup.tolist()[1:] == [UNSEEN, MISSING]
    assert lookup.tolist()[0] == encoded.category[rows.index("READ"), 0]
    assert encoder.category_lookup("path_class", ["/usr/bin/zzz"]) == encoder.category_lookup(
        "path_class", ["/usr/bin/a"]
    )
    with pytest.raises(UsageError, match="kind, path_class"):
        encoder.category_lookup("kinds", names)


def test_an_encoder_from_a_catalogue() -> None:
    encoder = Encoder.from_vocabulary(
        {"kind": ["READ", "OPEN"], "path_class": ["/etc"]}, {"size": (1.0, 2.0)}, groups={"size": "network"}
    )
    table = EventTable.of(
        pl.DataFrame(
            {
                "time_ns": [0, 1],
                "subject": ["p", "p"],
                "kind": ["OPEN", "X"],
                "path": ["/etc", ""],
                "size": [0.0, np.e**3 - 1],
            }
        )
    )
    encoded = encoder.encode(table)
    assert encoded.category.tolist() == [[3, 2], [0, 1]]
    np.testing.assert_allclose(encoded.numeric[:, 0], [-0.5, 1.0], atol=1e-6)
    spec = encoder.spec(5, (Column("wait", "context"),))
    assert [(column.name, column.size) for column in spec.categorical] == [("kind", 4), ("path_class", 3)]
    assert [column.name for column in spec.numeric] == ["size", *[c.name for c in ROLLING_COLUMNS], "wait"]
    assert spec.numeric[0].group == "network" and spec.n_entities == 5
    assert Encoder.from_dict(json.loads(json.dumps(encoder.to_dict()))) == encoder


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("kind", "common"),
        ("file_size", "file"),
        ("process_pid", "process"),
        ("protection", "process"),
        ("src_port", "network"),
        ("ip_protocol", "network"),
        ("uid", "identity"),
        ("logged_in", "identity"),
        ("whatever", "common"),
    ],
)
def test_groups(name: str, group: str) -> None:
    assert group_of(name) == group


@given(path=st.text(max_size=30))
def test_path_class_is_idempotent_and_short(path: str) -> None:
    found = path_class(path)
    assert path_class(found) == found
    assert found.strip("/").count("/") <= 1


def test_a_table_that_lacks_most_of_many_columns_is_refused() -> None:
    columns = {f"x{i}": [i + 5.0, 1.0, 2.0] for i in range(5)}
    frame = pl.DataFrame(
        {"time_ns": [1, 2, 3], "subject": ["p", "q", "p"], "kind": ["A", "B", "A"], **columns}
    )
    encoder = Encoder.fit(EventTable.of(frame))
    some = EventTable.of(frame.drop("x0", "x1"))
    assert encoder.encode(some).numeric.shape[0] == 3 and set(encoder.missing(some)) == {"x0", "x1"}
    with pytest.raises(DataError, match=r"has 2 of 6 of the columns.*lacks x0, x1, x2, x3"):
        encoder.encode(EventTable.of(frame.drop("x0", "x1", "x2", "x3")))


def test_what_repeats_the_process_is_no_feature_and_nulls_repeat_nothing() -> None:
    names = [f"p{i % 40}" for i in range(400)]
    frame = pl.DataFrame(
        {
            "time_ns": range(400),
            "subject": names,
            "kind": ["A", "B"] * 200,
            "proc": names,
            "colour": ["red", "blue", "green", "red"] * 100,
            "parent": pl.Series([None] * 400, dtype=pl.String),
            "label": [0, 0, 0, 1] * 100,
        }
    )
    encoder = Encoder.fit(EventTable.of(frame))
    assert any(note == "proc left out: the same as subject" for note in encoder.notes)
    assert "colour" in {column.source for column in encoder.categories}
