"""Which process has which place in the committee's memory: bounded, a share a host, suspicious ones kept.

Places go to the process that acted least recently, never to one in the place of a pinned process (restricted or
suspicious until a time of the events' own clock), and no host takes more than its share. A process that finds no place
is answered without memory, in a place apart that remembers nothing.
"""

import heapq
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from phalanx.errors import UsageError

__all__ = ["Place", "Processes"]


class Place(NamedTuple):
    """Where a process is remembered.

    Attributes:
        slot: its place; ``Processes.apart`` where there was none to have.
        source: the place whose memory it continues: its own, at its first event its parent's, or -1.
        fresh: the place is new to it: what is kept there of another must go.
        parent: its parent's place, -1 where that has none.
        evicted: the place of another process that had to go for it, or -1 (it is then ``slot``).
    """

    slot: int
    source: int
    fresh: bool
    parent: int
    evicted: int = -1


class Processes:
    """The places of all hosts.

    Args:
        slots: places, at least 1.
        share: of the places that one host may have, in (0, 1].

    Example:
        >>> table = Processes(2)
        >>> [table.place("web", name, "").slot for name in ("a", "b", "a", "c")]  # c takes the place of b
        [0, 1, 0, 1]
        >>> table.pin(0, until_s=60.0)
        >>> table.pin(1, until_s=60.0)
        >>> table.place("web", "d", "").slot == table.apart
        True
        >>> table.pass_time(60.0)
        >>> table.place("web", "d", "").slot
        0
    """

    def __init__(self, slots: int, share: float = 1.0) -> None:
        if slots < 1:
            raise UsageError(f"{slots} places for processes; at least 1 is needed")
        if not 0.0 < share <= 1.0:
            raise UsageError(f"a host's share of {share} of the places; expected above 0, at most 1")
        self.slots, self.apart = slots, slots
        self.of_host = max(1, int(slots * share))
        self._slot_of: dict[tuple[str, str], int] = {}
        self._name_of: list[tuple[str, str] | None] = [None] * slots
        self._unused = list(range(slots))[::-1]
        self._idle: OrderedDict[int, None] = OrderedDict()  # least recently used first
        self._idle_on: dict[str, OrderedDict[int, None]] = {}
        self._on: dict[str, int] = {}
        self._until: dict[int, float] = {}
        self._ends: list[tuple[float, int]] = []
        self.turned_away = 0

    def __len__(self) -> int:
        return len(self._slot_of)

    @property
    def pinned(self) -> int:
        """Places that are kept whoever asks."""
        return len(self._until)

    def victim(self, host: str, subject: str) -> int:
        """The place whose process would have to go for this one, -1 where none has to (or none can)."""
        if (host, subject) in self._slot_of:
            return -1
        if self._on.get(host, 0) >= self.of_host:
            own = self._idle_on.get(host)
            return next(iter(own)) if own else -1
        if self._unused:
            return -1
        return next(iter(self._idle), -1)

    def place(self, host: str, subject: str, parent: str) -> Place:
        """The place of a process that acts now.

        Args:
            host: where it runs.
            subject: which it is there.
            parent: its parent there, empty where it is not known.
        """
        name = (host, subject)
        above = self._slot_of.get((host, parent), -1) if parent else -1
        slot = self._slot_of.get(name)
        if slot is not None:
            self._touch(slot, host)
            return Place(slot, slot, False, above)
        victim = self.victim(host, subject)
        if victim < 0 and (self._on.get(host, 0) >= self.of_host or not self._unused):
            self.turned_away += 1
            return Place(self.apart, above, True, above)
        if victim >= 0:
            self._leave(victim)
        slot = self._unused.pop()
        self._slot_of[name], self._name_of[slot] = slot, name
        self._on[host] = self._on.get(host, 0) + 1
        self._touch(slot, host)
        return Place(slot, above, True, -1 if above == slot else above, victim)

    def pin(self, slot: int, until_s: float) -> None:
        """Keeps a place for its process up to a time, or longer where it is kept longer already."""
        name = None if slot == self.apart else self._name_of[slot]
        if name is None or until_s <= self._until.get(slot, -1.0):
            return
        self._until[slot] = until_s
        heapq.heappush(self._ends, (until_s, slot))
        self._idle.pop(slot, None)
        self._idle_on[name[0]].pop(slot, None)

    def pass_time(self, now_s: float) -> None:
        """Lets go of the pins whose time has come; their processes count as used now."""
        while self._ends and self._ends[0][0] <= now_s:
            until_s, slot = heapq.heappop(self._ends)
            if self._until.get(slot) == until_s:
                del self._until[slot]
                name = self._name_of[slot]
                assert name is not None
                self._touch(slot, name[0])

    def shift_time(self, by_s: float) -> None:
        """Moves all pins earlier, as the clock they refer to is set back."""
        self._until = {slot: until_s - by_s for slot, until_s in self._until.items()}
        self._ends = sorted((until_s, slot) for slot, until_s in self._until.items())

    def _touch(self, slot: int, host: str) -> None:
        if slot not in self._until:
            for order in (self._idle, self._idle_on.setdefault(host, OrderedDict())):
                order[slot] = None
                order.move_to_end(slot)

    def _leave(self, slot: int) -> None:
        name = self._name_of[slot]
        assert name is not None
        del self._slot_of[name], self._idle[slot], self._idle_on[name[0]][slot]
        self._name_of[slot] = None
        self._on[name[0]] -= 1
        if not self._on[name[0]]:
            del self._on[name[0]], self._idle_on[name[0]]
        self._unused.append(slot)

    def copy(self) -> "Processes":
        """A table of its own that knows the same."""
        other = object.__new__(Processes)
        other.slots, other.apart, other.of_host = self.slots, self.apart, self.of_host
        other._slot_of, other._name_of = self._slot_of.copy(), self._name_of.copy()
        other._unused, other._idle = self._unused.copy(), self._idle.copy()
        other._idle_on = {host: order.copy() for host, order in self._idle_on.items()}
        other._on, other._until, other._ends = self._on.copy(), self._until.copy(), self._ends.copy()
        other.turned_away = self.turned_away
        return other

    def to_dict(self) -> dict[str, Any]:
        """What ``from_dict`` makes the same table of, through JSON."""
        return {
            "slots": self.slots,
            "of_host": self.of_host,
            "names": self._name_of,
            "unused": self._unused,
            "idle": list(self._idle),
            "until": [[slot, until_s] for slot, until_s in self._until.items()],
            "turned_away": self.turned_away,
        }

    @classmethod
    def from_dict(cls, saved: Mapping[str, Any]) -> "Processes":
        """The table that ``to_dict`` told of."""
        table = cls(saved["slots"])
        table.of_host = saved["of_host"]
        table._unused = list(saved["unused"])
        table._until = {int(slot): float(until_s) for slot, until_s in saved["until"]}
        table._ends = sorted((until_s, slot) for slot, until_s in table._until.items())
        table.turned_away = saved["turned_away"]
        for slot, name in enumerate(saved["names"]):
            if name is not None:
                host, subject = name
                table._name_of[slot] = (host, subject)
                table._slot_of[host, subject] = slot
                table._on[host] = table._on.get(host, 0) + 1
                table._idle_on.setdefault(host, OrderedDict())
        for slot in saved["idle"]:
            name = table._name_of[slot]
            assert name is not None
            table._touch(slot, name[0])
        return table
