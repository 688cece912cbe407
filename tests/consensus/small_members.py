"""Members of the tests' small committee for nodes in processes of their own: honest ones and a liar."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from phalanx.service.consensus.committee_member import CommitteeMember
from phalanx.service.consensus.node import NodeFile
from phalanx.service.engine import EngineConfig
from phalanx.service.records import LiveEvent

__all__ = ["Liar", "honest", "liar"]


def honest(folder: Path, name: str, **options: Any) -> CommitteeMember:
    """A member of the small committee."""
    from service.models import model

    from phalanx.runtime.compile_cache import use_compile_cache

    use_compile_cache()
    config = EngineConfig(slots=64, batch=16)
    place = NodeFile.load(folder).chain.place_of(name)
    return CommitteeMember(model(threshold=0.5), place, config, snapshot=folder / "member.state")


class Liar:
    """Allows what its member would answer, and has quarantined what it would allow."""

    def __init__(self, member: CommitteeMember) -> None:
        self.model, self.height, self._member = member.model, member.height, member

    def votes(self, events: Sequence[LiveEvent]) -> list[int]:
        return [0 if vote else 3 for vote in self._member.votes(events)]

    def take(self, events: Sequence[LiveEvent]) -> None:
        self._member.take(events)

    def answered(self, height: int, verdicts: Sequence[int]) -> None:
        self._member.answered(height, verdicts)


def liar(folder: Path, name: str, **options: Any) -> Liar:
    """A member that lies."""
    return Liar(honest(folder, name))
