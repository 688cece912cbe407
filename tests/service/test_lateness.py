"""Lateness: most of what came lately, whatever came before."""

from phalanx.service.lateness import Lateness


def test_what_came_before_the_start_is_not_judged() -> None:
    lateness = Lateness(fewest=10, since={"events": 1000, "late": 1000})
    lateness.look({"events": 1009, "late": 1009})
    assert not lateness.late  # too few to say
    lateness.look({"events": 1010, "late": 1005})
    assert not lateness.late
    lateness.look({"events": 1020, "late": 1011})
    assert lateness.late
    lateness.look({"events": 1031, "late": 1012})
    assert not lateness.late


def test_counters_may_go_back() -> None:
    lateness = Lateness(fewest=10, since={"events": 100, "late": 0})
    lateness.look({"events": 90, "late": 0})  # the last ten could not be written down
    lateness.look({"events": 99, "late": 9})
    assert not lateness.late
    lateness.look({"events": 100, "late": 10})
    assert lateness.late
