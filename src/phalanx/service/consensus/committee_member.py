"""A member of a trained committee in a network of nodes.

Every node has the whole committee's parameters and works out what its honest members would say and vote, deliberation
included; it signs the vote of its own member alone. So nodes need not exchange opinions before they vote, a liar's
opinion moves nobody, and while nobody lies the network answers what one process would. What is remembered is what the
network answered: where that is not what the committee here had come to, the events are gone through again with it.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from phalanx.errors import DataError, RunError, UsageError
from phalanx.service.engine import Engine, EngineConfig, Mark
from phalanx.service.model import Model, load_model
from phalanx.service.records import LiveDecision, LiveEvent

__all__ = ["CommitteeMember", "committee_member"]

_LOG = logging.getLogger(__name__)
_STATE = "member.state"


@dataclass(frozen=True)
class _Ahead:
    """A batch whose answer is not known yet.

    Attributes:
        events: of it.
        before: what the engine knew before; None where the batch has not been gone through.
        decisions: what the committee here came to.
    """

    events: tuple[LiveEvent, ...]
    before: Mark | None = None
    decisions: tuple[LiveDecision, ...] = ()


class CommitteeMember:
    """Votes as one member of a committee (``consensus.member.Member``).

    Args:
        model: the committee.
        place: of the member in it.
        config: bounds of its memory, alike on all nodes.
        snapshot: file that keeps what is remembered over a restart; None: nothing does.
        snapshot_every: events between snapshots: what a restart has to go through again, at most about that many.
        ledger_height: of the node's ledger; a snapshot beyond it is of another one. None: not compared.

    Raises:
        UsageError: there is no such member, or the committee is behind a shield.
    """

    def __init__(
        self,
        model: Model,
        place: int,
        config: EngineConfig,
        *,
        snapshot: Path | None = None,
        snapshot_every: int = 50_000,
        ledger_height: int | None = None,
    ) -> None:
        n = model.committee.n_members
        if not 0 <= place < n:
            raise UsageError(
                f"member {place} of a committee of {n}: a network has one node a member, {n} nodes"
            )
        if model.committee.shield is not None:
            raise UsageError("a network of nodes has no shield; serve the run with `phalanx serve --shield`")
        self.model = model.digest
        self.height = 0
        self._place = place
        self._snapshot, self._snapshot_every = snapshot, snapshot_every
        self._since = 0
        self._engine = Engine(model, config)
        self._taken: _Ahead | None = None
        self._asked: _Ahead | None = None
        if snapshot is not None and snapshot.exists():
            self._restore(model, config, snapshot, ledger_height)
        self._engine.warm()

    def votes(self, events: Sequence[LiveEvent]) -> list[int]:
        """See ``consensus.member.Member``."""
        votes = [decision.votes[self._place] for decision in self.expected(events)]
        return [0 if vote is None else int(vote) for vote in votes]

    def expected(self, events: Sequence[LiveEvent]) -> tuple[LiveDecision, ...]:
        """What the whole committee would answer to the next batch, without remembering it."""
        wanted = tuple(events)
        if self._asked is None or self._asked.events != wanted:
            self._drop_asked()
            if self._taken is not None and self._taken.before is None:
                self._taken = self._gone_through(self._taken.events)
            self._asked = self._gone_through(wanted)
        return self._asked.decisions

    def take(self, events: Sequence[LiveEvent]) -> None:
        """See ``consensus.member.Member``."""
        ordered = tuple(events)
        if self._asked is not None and self._asked.events == ordered:
            self._taken, self._asked = self._asked, None
        else:
            self._drop_asked()
            self._taken = _Ahead(ordered)

    def answered(self, height: int, verdicts: Sequence[int]) -> None:
        """See ``consensus.member.Member``."""
        taken, self._taken = self._taken, None
        if taken is None:
            raise RunError(f"an answer at height {height} to no batch that was taken in")
        if taken.before is None:
            self._engine.decide(taken.events, verdicts)
        elif [int(decision.verdict) for decision in taken.decisions] != list(verdicts):
            self._asked = None  # it was gone through after what turns out otherwise
            self._engine.back(taken.before)
            self._engine.decide(taken.events, verdicts)
        self.height = height
        self._since += len(verdicts)
        if self._snapshot is not None and self._since >= self._snapshot_every:
            self._drop_asked()
            self._since = 0
            try:
                self._engine.save(self._snapshot, height=height)
            except (OSError, DataError) as problem:  # it only shortens the next start
                _LOG.error("no snapshot: %s", problem)

    def _gone_through(self, events: tuple[LiveEvent, ...]) -> _Ahead:
        before = self._engine.mark()
        return _Ahead(events, before, tuple(self._engine.decide(events)))

    def _drop_asked(self) -> None:
        if self._asked is not None and self._asked.before is not None:
            self._engine.back(self._asked.before)
        self._asked = None

    def _restore(self, model: Model, config: EngineConfig, path: Path, ledger_height: int | None) -> None:
        try:
            height = int(self._engine.restore(path)["height"])
            if ledger_height is not None and height > ledger_height:
                raise RunError(f"{path}: a snapshot at height {height} of a ledger at {ledger_height}")
            self.height = height
        except RunError as problem:
            _LOG.warning("%s; the ledger is gone through from its beginning", problem)
            self._engine = Engine(model, config)


def committee_member(
    folder: Path, name: str, run: str, slots: int = EngineConfig.slots, batch: int = EngineConfig.batch
) -> CommitteeMember:
    """A node's ``member``: that of a trained run, whose place in the committee is the node's in the network.

    Args:
        folder: of the node.
        name: of the node's member.
        run: run folder.
        slots, batch: see ``EngineConfig``.

    Raises:
        UsageError: the committee has not as many members as the network has nodes.
        RunError: no run.
    """
    from phalanx.runtime.compile_cache import use_compile_cache
    from phalanx.runtime.one_thread import use_one_thread
    from phalanx.service.consensus.node import LEDGER, NodeFile
    from phalanx.service.ledger_files import ending

    use_compile_cache()
    use_one_thread()
    chain, model = NodeFile.load(folder).chain, load_model(Path(run))
    last = ending(folder / LEDGER).entry
    if model.committee.n_members != chain.n:
        raise UsageError(
            f"{run}: a committee of {model.committee.n_members} in a network of {chain.n} nodes; "
            "a network has one node a member"
        )
    return CommitteeMember(
        model,
        chain.place_of(name),
        EngineConfig(slots=slots, batch=batch),
        snapshot=folder / _STATE,
        ledger_height=last.height if last else 0,
    )
