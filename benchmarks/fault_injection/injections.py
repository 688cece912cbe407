"""How each kind of fault is done and undone."""

import os
import random
import shutil
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from phalanx.service.consensus.network import Network

from .disks import Disk
from .invariants import BrokenError
from .links import Links
from .load import Watch
from .schedule import Fault

__all__ = ["INJECTIONS", "Stage", "hit"]

_MARKED_S = 90.0  # until a request comes at which an application kills itself
_CALM_S = 1.0  # until what was on its way when more than f nodes went has arrived


@dataclass
class Stage:
    """A network that runs, and what surrounds it.

    Attributes:
        links, disks: of the nodes; none where there are no namespaces.
        notes: what happened beside, counted.
    """

    network: Network
    watch: Watch
    links: Links | None
    disks: Mapping[int, Disk]
    notes: dict[str, int] = field(default_factory=dict)

    def folder(self, place: int) -> Path:
        """Of a node."""
        return self.network.folder / self.network.chain.members[place].name

    def send(self, place: int, number: int, *, application: bool = True, engine: bool = True) -> None:
        """Sends a signal to a node's processes."""
        self.network.nodes[place].send(number, application=application, engine=engine)

    def note(self, what: str) -> None:
        """Counts something."""
        self.notes[what] = self.notes.get(what, 0) + 1


def hit(stage: Stage, fault: Fault) -> tuple[float, tuple[int, ...]]:
    """Does a fault and undoes it; when it was undone, and the nodes that have something to catch up on.

    A node that was killed starts by itself at once: the kill is the moment from which it recovers.
    """
    healed = INJECTIONS[fault.kind](stage, fault)
    everybody = fault.kind in _STOPS_ALL or "all links" in fault.kind
    return healed, tuple(range(stage.network.chain.n)) if everybody else fault.places


def _kill(*, application: bool, engine: bool) -> Callable[[Stage, Fault], float]:
    def done(stage: Stage, fault: Fault) -> float:
        for place in fault.places:
            stage.send(place, signal.SIGKILL, application=application, engine=engine)
        return time.monotonic()

    return done


def _pause(*, application: bool, engine: bool) -> Callable[[Stage, Fault], float]:
    def done(stage: Stage, fault: Fault) -> float:
        for number in (signal.SIGSTOP, signal.SIGCONT):
            for place in fault.places:
                stage.send(place, number, application=application, engine=engine)
            if number == signal.SIGSTOP:
                time.sleep(fault.seconds)
        return time.monotonic()

    return done


def _at_a_boundary(stage: Stage, fault: Fault) -> float:
    place = fault.places[0]
    folder = stage.folder(place)
    mark = folder / "drill.crashed"
    mark.unlink(missing_ok=True)
    count = 1 if fault.boundary.startswith("info") else 1 + fault.seed % 3
    told = folder / "drill.crash.new"
    told.write_text(f"{fault.boundary}:{count}")
    os.replace(told, folder / "drill.crash")
    if fault.boundary.startswith("info"):  # comes when an engine starts
        stage.send(place, signal.SIGKILL, application=False)
    deadline = time.monotonic() + _MARKED_S
    while not mark.exists():
        if time.monotonic() > deadline:
            raise BrokenError(f"no request {fault.boundary} came to node {place} in {_MARKED_S:g} s")
        time.sleep(0.01)
    return time.monotonic()


def _stands(stage: Stage, fault: Fault, what: str) -> None:
    """Waits as long as a fault lasts and counts whether its node stood still: that it had its effect."""
    before = stage.watch.height[fault.places[0]]
    time.sleep(fault.seconds)
    stood = stage.watch.height[fault.places[0]] <= before + 2
    stage.note(f"{what}: the node {'stood' if stood else 'went on'}")


def _halted(stage: Stage, seconds: float) -> None:
    """Looks on while more than f nodes are away.

    One block may still come: where enough members had signed before they went, and one that is left, or that just comes
    back, has their votes in its log.

    Raises:
        BrokenError: more blocks were decided.
    """
    time.sleep(_CALM_S)
    before = max(stage.watch.height)
    time.sleep(max(0.5, seconds))
    after = max(stage.watch.height)
    if after > before:
        stage.note("more than f away: a block that was signed before was finished")
        time.sleep(_CALM_S)
        after = max(stage.watch.height)
    if after > before + 1:
        raise BrokenError(f"more than f nodes were away, and the chain went on from {before} to {after}")


def _more_than_f(stage: Stage, fault: Fault) -> float:
    for place in fault.places:
        stage.network.nodes[place].stop(signal.SIGKILL)
    _halted(stage, fault.seconds)
    for place in fault.places:
        stage.network.nodes[place].start()
    return time.monotonic()


def _links(stage: Stage) -> Links:
    if stage.links is None:
        raise RuntimeError("this kind of fault needs network namespaces")
    return stage.links


def _away(stage: Stage, fault: Fault) -> float:
    others = [place for place in range(stage.network.chain.n) if place not in fault.places]
    _links(stage).split([others, fault.places])
    _stands(stage, fault, "partition")
    _links(stage).heal()
    return time.monotonic()


def _halves(stage: Stage, fault: Fault) -> float:
    others = [place for place in range(stage.network.chain.n) if place not in fault.places]
    _links(stage).split([others, fault.places])
    _halted(stage, fault.seconds)
    _links(stage).heal()
    return time.monotonic()


def _deaf(stage: Stage, fault: Fault) -> float:
    _links(stage).cut(*fault.places)
    time.sleep(fault.seconds)
    _links(stage).heal()
    return time.monotonic()


def _bad_links(
    delay_s: float, loss: float, *, everywhere: bool = False, kill: bool = False
) -> Callable[[Stage, Fault], float]:
    def done(stage: Stage, fault: Fault) -> float:
        dice = random.Random(fault.seed)
        for place in range(stage.network.chain.n) if everywhere else fault.places:
            delay = dice.uniform(0.2, 1.0) * delay_s
            _links(stage).impair(place, delay, delay / 2, dice.uniform(0.2, 1.0) * loss, fault.seed)
        if kill:
            stage.send(fault.places[0], signal.SIGKILL)
        time.sleep(1.0 + fault.seconds)
        _links(stage).heal()
        return time.monotonic()

    return done


def _full_disk(*, kill: bool) -> Callable[[Stage, Fault], float]:
    def done(stage: Stage, fault: Fault) -> float:
        place = fault.places[0]
        disk = stage.disks[place]
        disk.fill(random.Random(fault.seed).choice([0, 0, 8192, 32768]))
        if kill:
            stage.send(place, signal.SIGKILL)
        time.sleep(1.0)
        _stands(stage, fault, "full disk")
        disk.free()
        return time.monotonic()

    return done


def _lost(*, data: bool) -> Callable[[Stage, Fault], float]:
    def done(stage: Stage, fault: Fault) -> float:
        place = fault.places[0]
        stage.network.nodes[place].stop(signal.SIGKILL)
        shutil.rmtree(stage.folder(place) / "ledger")
        if data:
            for path in (stage.folder(place) / "data").iterdir():
                if path.is_dir():
                    shutil.rmtree(path)
                elif path.name != "priv_validator_state.json":  # what it signed must not be forgotten
                    path.unlink()
        stage.network.nodes[place].start()
        return time.monotonic()

    return done


def _torn(*, ledger: bool, log: bool) -> Callable[[Stage, Fault], float]:
    def done(stage: Stage, fault: Fault) -> float:
        place = fault.places[0]
        stage.network.nodes[place].stop(signal.SIGKILL)
        dice = random.Random(fault.seed)
        folder = stage.folder(place)
        if ledger:
            segment = max((folder / "ledger").glob("ledger-*.ndjson"))
            stage.note(f"torn ledger: {_tear(segment, dice)}")
        if log:
            # wal, or wal.000 and on where the last was full just now
            files = [path for path in (folder / "data" / "cs.wal").iterdir() if path.suffix != ".CORRUPTED"]
            newest = max(files, key=lambda path: (path.stat().st_mtime_ns, path.name))
            stage.note(f"torn engine log: {_tear(newest, dice)}")
        stage.network.nodes[place].start()
        return time.monotonic()

    return done


def _tear(path: Path, dice: random.Random) -> str:
    """Damages the last bytes of a file, in one of five ways; which one."""
    size = path.stat().st_size
    some = min(size, dice.choice([dice.randint(1, 64), dice.randint(64, 4096)]))
    how = dice.choice(["cut", "garbage", "zeros", "garbage after it", "zeros after it"])
    with open(path, "r+b") as file:
        if how == "cut":
            file.truncate(size - some)
        else:
            file.seek(size if how.endswith("after it") else size - some)
            file.write(dice.randbytes(some) if how.startswith("garbage") else bytes(some))
    return how


INJECTIONS: Mapping[str, Callable[[Stage, Fault], float]] = {
    "kill the application": _kill(application=True, engine=False),
    "kill the engine": _kill(application=False, engine=True),
    "kill application and engine": _kill(application=True, engine=True),
    "kill at an ABCI boundary": _at_a_boundary,
    "kill f + 1 nodes": _more_than_f,
    "pause the application": _pause(application=True, engine=False),
    "pause the engine": _pause(application=False, engine=True),
    "pause application and engine": _pause(application=True, engine=True),
    "partition: one node away": _away,
    "partition: two and two": _halves,
    "partition: two nodes cannot hear each other": _deaf,
    "slow link": _bad_links(0.1, 0.0),
    "lossy link": _bad_links(0.0, 0.2),
    "slow and lossy, all links": _bad_links(0.03, 0.05, everywhere=True),
    "kill behind lossy links": _bad_links(0.02, 0.05, kill=True),
    "full disk": _full_disk(kill=False),
    "full disk, and killed": _full_disk(kill=True),
    "torn ledger": _torn(ledger=True, log=False),
    "torn engine log": _torn(ledger=False, log=True),
    "torn ledger and engine log": _torn(ledger=True, log=True),
    "lost ledger": _lost(data=False),
    "lost ledger and engine data": _lost(data=True),
}
"""Undone when they return, at the time that they return; those of the enforcer are the campaign's own."""

_STOPS_ALL = ("kill f + 1 nodes", "partition: two and two")
