"""What the desk comes to at a moment, as a value that any thread may read."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from phalanx.service.desk import Desk
from phalanx.service.restrictions import State

__all__ = ["Status", "status_of"]


@dataclass(frozen=True)
class Status:
    """State of the desk, as the deciding thread left it.

    Attributes:
        mode: ``shadow`` or ``enforce``.
        killed: whether the kill switch is pulled.
        fallback: why the service fell back into shadow mode; empty where it did not.
        height: of the ledger's last entry.
        synced: up to which height entries are known to be on the disk.
        torn: torn entries that the ledger keeps aside.
        broken: why the ledger takes nothing more; empty where it does.
        active, pending: restrictions in force, and waiting for approval.
        would: restrictions that would be in force, were the service enforcing.
        remembered, pinned: processes that have a place; of them those that keep it.
        counters: of the engine.
        counts: of safety, how often each effect and each rule occurred.
        model: hash of the committee's parameters.
    """

    mode: str = "shadow"
    killed: bool = False
    fallback: str = ""
    height: int = 0
    synced: int = 0
    torn: int = 0
    broken: str = ""
    active: int = 0
    pending: int = 0
    would: int = 0
    remembered: int = 0
    pinned: int = 0
    counters: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    model: str = ""


def status_of(desk: Desk) -> Status:
    """The desk's state; for the thread that the desk is in."""
    state, ledger, engine = desk.safety.state, desk.ledger, desk.engine
    open_ones = state.real.all_open()
    active = sum(each.state is State.ACTIVE for each in open_ones)
    return Status(
        mode=desk.mode,
        killed=state.killed,
        fallback=state.fallback or "",
        height=ledger.head.height,
        synced=ledger.synced,
        torn=ledger.torn,
        broken=ledger.broken or "",
        active=active,
        pending=len(open_ones) - active,
        would=len(state.shadow.all_open()),
        remembered=engine.remembered,
        pinned=engine.pinned,
        counters=dict(engine.counters),
        counts=dict(desk.safety.counts),
        model=engine.model.digest,
    )
