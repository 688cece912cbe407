"""Metrics: what Prometheus reads, with labels of closed lists alone."""

from prometheus_client.parser import text_string_to_metric_families
from service.desks import HandDesk, event

from phalanx.service.admission import Reason
from phalanx.service.metrics import EVENT_OUTCOMES, HTTP_REFUSALS, Metrics, Source
from phalanx.service.openapi import PATHS
from phalanx.service.safety_rules import Rule
from phalanx.service.status import status_of


def read(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    found = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            found[sample.name, tuple(sample.labels.values())] = sample.value
    return found


def test_all_series_are_there_from_the_beginning_at_zero() -> None:
    found = read(Metrics())
    for name, values in (
        ("phalanx_events_total", EVENT_OUTCOMES),
        ("phalanx_events_refused_total", list(Reason)),
        ("phalanx_requests_refused_total", HTTP_REFUSALS),
        ("phalanx_rules_total", list(Rule)),
        ("phalanx_restrictions", ("active", "pending", "would")),
        ("phalanx_mode", ("shadow", "enforce")),
    ):
        assert {labels for key, labels in found if key == name} == {(str(value),) for value in values}
    assert found["phalanx_mode", ("shadow",)] == 1 and found["phalanx_ledger_height", ()] == 0
    assert all(name.startswith("phalanx_") for name, _ in found)


def test_numbers_are_those_of_their_owners() -> None:
    desk, metrics = HandDesk(), Metrics()
    answers = desk.decide([event(1), event(2, want="block"), event(1)])
    metrics.batch(answers, 0.004)
    metrics.source = Source(
        lambda: status_of(desk),
        admission={"nested": 3, "cut": 2},
        depth=lambda: 5,
        room=9,
        dropped=lambda: 7,
        watch=lambda: {"score": (0.3, 0.25, True)},
        backlog=lambda: 4,
        index_lag=lambda: 6,
    )
    metrics.page(2)
    found = read(metrics)
    for name, labels, value in (
        ("events_total", ("decided",), 2),
        ("events_total", ("repeated",), 1),
        ("events_total", ("refused",), 3),
        ("events_total", ("dropped",), 7),
        ("events_refused_total", ("nested",), 3),
        ("admission_total", ("cut",), 2),
        ("verdicts_total", ("block",), 1),
        ("verdicts_total", ("allow",), 1),
        ("effects_total", ("none",), 3),
        ("rules_total", ("shadow",), 1),
        ("restrictions", ("would",), 1),
        ("queue_events", (), 5),
        ("queue_room", (), 9),
        ("watch", ("score",), 0.3),
        ("watch_limit", ("score",), 0.25),
        ("watch_beyond", ("score",), 1),
        ("outbox_backlog", (), 4),
        ("index_lag", (), 6),
        ("pages_total", (), 2),
        ("ledger_height", (), 1),
        ("decide_seconds_count", (), 1),
        ("batch_events_sum", (), 3),
    ):
        assert found[f"phalanx_{name}", labels] == value, name


def test_nothing_that_is_sent_becomes_a_label() -> None:
    metrics = Metrics()
    metrics.refuse('evil"} 1\nphalanx_fake 1')
    metrics.request("post_events", 200, 0.1)
    metrics.request("other", 404, 0.1)
    metrics.request("other", 0, 0.1)
    found = read(metrics)
    assert found["phalanx_requests_refused_total", ("bad-request",)] == 1
    assert "evil" not in metrics.text().decode()
    told = {labels for name, labels in found if name == "phalanx_http_seconds_count"}
    assert told == {("post_events", "2xx"), ("other", "4xx"), ("other", "none")}
    assert {path.name for path in PATHS} >= {"post_events", "get_metrics"}
