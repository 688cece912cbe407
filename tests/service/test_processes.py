"""Places of processes against a list that is searched from the front, and the two promises of the threat model."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.errors import UsageError
from phalanx.service.processes import Processes


class Slow:
    """The same rules over one list, least recently used first: [host, subject, slot, pinned until]."""

    def __init__(self, slots: int, of_host: int) -> None:
        self.slots, self.of_host = slots, of_host
        self.known: list[list[Any]] = []
        self.free = list(range(slots))[::-1]

    def pass_time(self, now_s: float) -> None:
        for due in sorted((e for e in self.known if 0.0 < e[3] <= now_s), key=lambda e: (e[3], e[2])):
            due[3] = 0.0
            self.known.remove(due)
            self.known.append(due)

    def place(self, host: str, subject: str) -> tuple[int, int]:
        """Its place, and whose it was."""
        for entry in self.known:
            if entry[:2] == [host, subject]:
                self.known.remove(entry)
                self.known.append(entry)
                return entry[2], -1
        own = [entry for entry in self.known if entry[0] == host]
        candidates, evicted = [], -1
        if len(own) >= self.of_host:
            candidates = own
        elif not self.free:
            candidates = self.known
        if len(own) >= self.of_host or not self.free:
            victim = next((entry for entry in candidates if not entry[3]), None)
            if victim is None:
                return self.slots, -1
            self.known.remove(victim)
            self.free.append(victim[2])
            evicted = victim[2]
        slot = self.free.pop()
        self.known.append([host, subject, slot, 0.0])
        return slot, evicted

    def pin(self, slot: int, until_s: float) -> None:
        for entry in self.known:
            if entry[2] == slot:
                entry[3] = max(entry[3], until_s)


ACTS = st.lists(
    st.tuples(st.sampled_from("xyz"), st.integers(0, 6), st.integers(0, 6), st.sampled_from([0, 0, 0, 2, 9])),
    max_size=120,
)


@given(acts=ACTS, slots=st.integers(1, 6), share=st.sampled_from([0.34, 0.5, 1.0]))
def test_places_are_those_of_the_plain_rules(acts: list[Any], slots: int, share: float) -> None:
    table = Processes(slots, share)
    slow = Slow(slots, table.of_host)
    for now_s, (host, subject, parent, pinned_s) in enumerate(acts, start=1):
        for each in (table, slow):
            each.pass_time(float(now_s))
        before = {(e[0], e[1]): e[2] for e in slow.known}
        place = table.place(host, str(subject), str(parent))
        expected, evicted = slow.place(host, str(subject))
        assert (place.slot, place.evicted) == (expected, evicted)
        assert place.fresh == ((host, str(subject)) not in before)
        above = before.get((host, str(parent)), -1)
        own = before.get((host, str(subject)))
        assert place.source == (above if own is None else own)
        if pinned_s and place.slot < slots:
            for each in (table, slow):
                each.pin(place.slot, float(now_s + pinned_s))
        table = Processes.from_dict(json.loads(json.dumps(table.to_dict())))  # a restart at every step
    assert table.pinned == sum(1 for e in slow.known if e[3])


def test_no_flood_evicts_a_pinned_process_or_another_hosts() -> None:
    table = Processes(100, 0.5)
    suspicious = table.place("victim", "implant", "")
    table.pin(suspicious.slot, 1e9)
    others = [table.place("calm", f"p{i}", "").slot for i in range(30)]
    for i in range(10_000):
        table.place("victim", f"flood{i}", "implant")
    assert not table.place("victim", "implant", "").fresh
    assert [table.place("calm", f"p{i}", "").slot for i in range(30)] == others
    assert len(table) <= 80


def test_a_host_full_of_suspicion_is_answered_without_memory() -> None:
    table = Processes(4, 1.0)
    for i in range(4):
        table.pin(table.place("h", f"p{i}", "").slot, 50.0)
    late = table.place("h", "new", "p0")
    assert (late.slot, late.fresh, late.source, table.turned_away) == (table.apart, True, 0, 1)
    table.pin(late.slot, 99.0)  # nothing is kept there
    table.pass_time(50.0)
    assert table.place("h", "new", "p0").slot == 0 and table.pinned == 0


@pytest.mark.parametrize(("slots", "share"), [(0, 1.0), (4, 0.0), (4, 1.5)])
def test_bounds_are_checked(slots: int, share: float) -> None:
    with pytest.raises(UsageError):
        Processes(slots, share)
