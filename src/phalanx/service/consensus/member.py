"""A member's own policy as the network sees it: asked for votes ahead of time, never able to stop the chain."""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from pathlib import Path
from typing import Protocol, runtime_checkable

from phalanx.service.consensus.extension import Vote
from phalanx.service.records import LiveEvent
from phalanx.verdicts import N_VERDICTS

__all__ = ["DrillMember", "Member", "Voter", "drill_member"]

_LOG = logging.getLogger(__name__)


@runtime_checkable
class Member(Protocol):
    """A member's own policy. All is called from one thread, in the order of the chain.

    Attributes:
        model: hash of its parameters, at most 64 printable ASCII characters.
        height: of the ledger: entries up to it are in its memory already (from a snapshot of its own); the events and
            answers after it are told anew when it starts.
    """

    model: str
    height: int

    def votes(self, events: Sequence[LiveEvent]) -> Sequence[int]:
        """Its votes on the next batch, each 0..3, without remembering it: that batch may not be the one that comes."""
        ...

    def take(self, events: Sequence[LiveEvent]) -> None:
        """Takes in the batch that was ordered; once a batch."""
        ...

    def answered(self, height: int, verdicts: Sequence[int]) -> None:
        """Takes in what the committee answered to the batch that was taken in last.

        Args:
            height: of the ledger's entry that says so.
            verdicts: one an event.
        """
        ...


class DrillMember:
    """A member for drills and tests: its votes are a hash of the event, now and then another one of its name.

    Args:
        name: of the member.
        dissent: how often it votes apart from the others, in [0, 1].

    Example:
        >>> event = LiveEvent("e", 1, "web", "web:1", "EXECUTE")
        >>> DrillMember("a", 0.0).votes([event]) == DrillMember("b", 0.0).votes([event])
        True
    """

    def __init__(self, name: str, dissent: float = 0.1) -> None:
        self.model = hashlib.sha256(b"drill").hexdigest()
        self.height = 0
        self._name = name
        self._dissent = int(dissent * (1 << 32))

    def votes(self, events: Sequence[LiveEvent]) -> list[int]:
        """See ``Member``."""
        return [self._vote(event) for event in events]

    def take(self, events: Sequence[LiveEvent]) -> None:
        """See ``Member``: it remembers nothing."""

    def answered(self, height: int, verdicts: Sequence[int]) -> None:
        """See ``Member``."""

    def _vote(self, event: LiveEvent) -> int:
        common = hashlib.sha256(event.id.encode()).digest()
        own = hashlib.sha256(f"{self._name}\n{event.id}".encode()).digest()
        chosen = own if int.from_bytes(own[:4], "big") < self._dissent else common
        return chosen[4] % N_VERDICTS


def drill_member(folder: Path, name: str, dissent: float = 0.1) -> DrillMember:
    """A node's ``member`` for drills."""
    return DrillMember(name, dissent)


class Voter:
    """Asks a member in a thread of its own, ahead of the engine's question, and answers None where it fails.

    Args:
        member: the policy.
        timeout_s: longest that the engine waits for votes.

    Attributes:
        failures: how often there was no vote, by reason: ``raised``, ``late``, ``lost`` (it could not take in a batch:
            its memory is not the committee's any more, and it abstains until it is started anew).
    """

    def __init__(self, member: Member, timeout_s: float = 2.0) -> None:
        self.failures: Counter[str] = Counter()
        self._member = member
        self._timeout_s = timeout_s
        self._lost = False
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="member")
        self._asked: tuple[str, Future[Vote | None]] | None = None

    def ask(self, batch: str, events: Sequence[LiveEvent]) -> None:
        """Begins to work out the votes on a batch, named by its digest."""
        if self._asked is None or self._asked[0] != batch:
            self._asked = batch, self._thread.submit(self._votes, events)

    def votes(self, batch: str, events: Sequence[LiveEvent]) -> Vote | None:
        """The member's votes on a batch; None where it abstains."""
        self.ask(batch, events)
        assert self._asked is not None
        try:
            return self._asked[1].result(self._timeout_s)
        except TooLate:
            self.failures["late"] += 1
            return None

    def answered(self, height: int, verdicts: Sequence[int]) -> None:
        """Tells the member what the committee answered."""
        self._thread.submit(self._tell, lambda: self._member.answered(height, verdicts))

    def take(self, events: Sequence[LiveEvent]) -> None:
        """Tells the member which batch was ordered."""
        self._asked = None
        self._thread.submit(self._tell, lambda: self._member.take(events))

    def close(self) -> None:
        """Ends the thread once it has done what was asked."""
        self._thread.shutdown()

    def _votes(self, events: Sequence[LiveEvent]) -> Vote | None:
        if self._lost:
            self.failures["lost"] += 1
            return None
        try:
            return Vote(self._member.model, tuple(int(vote) for vote in self._member.votes(events)))
        except Exception:
            _LOG.exception("the member cannot vote on a batch of %d events and abstains", len(events))
            self.failures["raised"] += 1
            return None

    def _tell(self, told: Callable[[], None]) -> None:
        if self._lost:
            return
        try:
            told()
        except Exception:
            _LOG.exception("the member cannot take in a batch; it abstains until it is started anew")
            self._lost = True
