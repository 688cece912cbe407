"""The live engine: the same answers as the path that evaluation takes, whatever the batches, across a restart."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from service.models import SMALL, TABLE, environment, events, many, model

from phalanx.data.events import EventTable
from phalanx.errors import RunError, UsageError
from phalanx.runtime.cut import Cut
from phalanx.runtime.decide import Committee
from phalanx.runtime.watch import ballot, verdicts, watch
from phalanx.service.engine import Engine
from phalanx.service.live import LivePath
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.stl.offline import robustness
from phalanx.types import Verdict

MODEL = model()


EVENTS = events()


def in_parts(engine: Engine, items: Sequence[LiveEvent], cuts: Sequence[int]) -> list[LiveDecision]:
    """The decisions where events come in batches that end at the cuts."""
    ends = sorted({min(cut, len(items)) for cut in cuts} | {len(items)})
    found: list[LiveDecision] = []
    for begin, end in zip([0, *ends], ends, strict=False):
        found += engine.decide(items[begin:end])
    return found


def test_answers_are_those_of_evaluation() -> None:
    engine = Engine(MODEL, dataclasses.replace(SMALL, answering="nothing"))
    decided = engine.decide(EVENTS)
    env = environment()
    watched = watch(env, MODEL.committee, jax.random.key(0), 4, n_lanes=1)
    votes = ballot(watched, 0.5, MODEL.committee.f)
    assert [list(map(int, each.votes)) for each in decided] == votes.tolist()  # type: ignore[arg-type]
    assert [int(each.verdict) for each in decided] == verdicts(votes, MODEL.committee.f).tolist()
    np.testing.assert_allclose([each.score for each in decided], watched.score, rtol=1e-5)
    assert len({each.verdict for each in decided}) > 1


@given(
    cuts=st.lists(st.integers(1, 199), max_size=12),
    seed=st.integers(0, 3),
    answering=st.sampled_from(("alerts", "all")),
)
def test_batches_make_no_difference(cuts: list[int], seed: int, answering: str) -> None:
    items = many(200, processes=90, seed=seed)
    config = dataclasses.replace(SMALL, answering=answering, slots=32)
    assert in_parts(Engine(MODEL, config), items, cuts) == Engine(MODEL, config).decide(items)


@pytest.mark.parametrize(
    ("answering", "processes", "seed"), [("nothing", 40, 8), ("alerts", 40, 8), ("alerts", 8, 10)]
)
def test_looking_at_the_process_alone_is_looking_at_all(
    answering: str, processes: int, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = many(400, processes=processes, seed=seed)
    config = dataclasses.replace(SMALL, answering=answering, slots=32)
    found = Engine(MODEL, config).decide(items)
    monkeypatch.setattr(LivePath, "_silencing", True)
    assert Engine(MODEL, config).decide(items) == found
    alerts = sum(each.verdict >= Verdict.ALERT for each in found)
    assert 20 < alerts < 380  # tickets are opened, and closed again after two minutes


@pytest.mark.parametrize("at", [0, 1, 57, 160])
def test_a_restart_makes_no_difference(tmp_path: Path, at: int) -> None:
    items = many(200, processes=90, seed=5)
    config = dataclasses.replace(SMALL, answering="all", slots=32)
    whole = Engine(MODEL, config)
    expected = whole.decide(items)
    first = Engine(MODEL, config)
    found = first.decide(items[:at])
    first.save(tmp_path / "state", height=7)
    second = Engine(MODEL, config)
    assert second.restore(tmp_path / "state") == {"height": 7}
    assert found + second.decide(items[at:]) == expected
    assert second.counters == whole.counters and second.counters["without_memory"] > 0


def test_a_damaged_or_foreign_snapshot_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state"
    engine = Engine(MODEL, SMALL)
    engine.decide(EVENTS[:20])
    engine.save(path)
    with pytest.raises(RunError, match="another model"):
        Engine(model(seed=1), SMALL).restore(path)
    content = bytearray(path.read_bytes())
    for place in (0, 20, 90, len(content) // 2, len(content) - 1):
        path.write_bytes(bytes([*content[:place], content[place] ^ 1, *content[place + 1 :]]))
        with pytest.raises(RunError, match="damaged"):
            Engine(MODEL, SMALL).restore(path)
    path.write_bytes(bytes(content[:-3]))
    with pytest.raises(RunError, match="damaged"):
        Engine(MODEL, SMALL).restore(path)


def test_robustness_is_that_of_the_whole_trace() -> None:
    decided = Engine(MODEL, SMALL).decide(EVENTS)
    assert [each.name for each in MODEL.specs] == ["few_alerts", "calm"]  # the truth is not known live
    alerted = np.array([float(each.verdict == Verdict.ALERT) for each in decided])
    expected = robustness("sum(alerted, 15) <= 3", {"alerted": alerted})
    # a window cut at the trace's beginning is judged as far as it goes; predicates are in units of their limits
    np.testing.assert_allclose([each.robustness["few_alerts"] for each in decided], expected / 3, atol=1e-6)


def test_the_doubtful_gets_an_alert() -> None:
    cautious = dataclasses.replace(MODEL, threshold=Cut(0.0, 2.0))  # nothing is sure, everything is doubtful
    assert {each.verdict for each in Engine(cautious, SMALL).decide(EVENTS[:40])} == {Verdict.ALERT}


def test_evidence_names_the_latest_events_of_the_process() -> None:
    decided = Engine(MODEL, SMALL).decide(EVENTS)
    for i, each in enumerate(decided):
        own = [event.id for event in EVENTS[: i + 1] if event.subject == each.subject]
        assert each.evidence == tuple(own[-8:])


def test_another_model_takes_over_with_what_is_known_of_processes() -> None:
    other = model(seed=4)
    engine = Engine(MODEL, SMALL)
    engine.decide(EVENTS[:100])
    engine.swap(other)
    after = engine.decide(EVENTS[100:])
    assert {each.model for each in after} == {other.digest}
    # an engine that had the other model's parameters all along and forgets what members remember at that place
    fresh = Engine(dataclasses.replace(other, threshold=0.5), SMALL)
    assert [each.evidence for each in after] != [each.evidence for each in fresh.decide(EVENTS[100:])]


@pytest.mark.parametrize("answering", ["alerts", "all"])
def test_time_is_set_back_without_a_change_of_answers(
    monkeypatch: pytest.MonkeyPatch, answering: str
) -> None:
    items = [dataclasses.replace(e, time_ns=e.time_ns + 10**9 * 300 * i) for i, e in enumerate(EVENTS)]
    config = dataclasses.replace(SMALL, answering=answering)
    expected = Engine(MODEL, config).decide(items)
    monkeypatch.setattr("phalanx.service.engine._REBASE_S", 2048.0)
    found = in_parts(Engine(MODEL, config), items, range(0, 300, 16))
    assert [e.verdict for e in found] == [e.verdict for e in expected]
    np.testing.assert_allclose([e.score for e in found], [e.score for e in expected], atol=1e-3)


def test_a_past_time_counts_as_the_latest_seen() -> None:
    late = dataclasses.replace(EVENTS[50], time_ns=EVENTS[0].time_ns - 10**15)
    now = dataclasses.replace(EVENTS[50], time_ns=EVENTS[49].time_ns)
    engines = [Engine(MODEL, SMALL) for _ in range(2)]
    answers = [
        engine.decide([*EVENTS[:50], event, *EVENTS[51:80]])
        for engine, event in zip(engines, (late, now), strict=True)
    ]
    assert [e.score for e in answers[0]] == [e.score for e in answers[1]]
    assert [engine.counters["from_the_past"] for engine in engines] == [1, 0]


def test_too_little_memory_is_refused() -> None:
    with pytest.raises(UsageError, match="at least 32 a host"):
        Engine(MODEL, dataclasses.replace(SMALL, slots=16))


def test_one_program_serves_every_number_of_events(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(MODEL, SMALL)
    engine.decide(EVENTS[:3])
    counted: list[Any] = []
    decide = Committee.n_members.fget
    monkeypatch.setattr(
        Committee,
        "n_members",
        property(lambda self: counted.append(1) or decide(self)),  # type: ignore[misc]
    )
    for n in (1, 2, 16):
        engine.decide(EVENTS[3 : 3 + n])
    assert not counted  # nothing was traced again


def test_rows_of_another_type_are_as_a_table_has_them() -> None:
    frame_ = TABLE.frame.with_columns(pl.col("size").cast(pl.Int64))
    assert Engine(MODEL, SMALL).decide(events(EventTable.of(frame_)))[0].event_id == "e0"
