"""A run of many faults: networks that begin anew now and then, a fault after the other, a check after each."""

import shutil
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from phalanx.service.consensus.crash import CRASH_VARIABLE
from phalanx.service.consensus.network import Network, create_network

from .disks import Disk
from .injections import Stage, hit
from .invariants import BrokenError, Invariants
from .links import Links
from .load import Enforcing, Load, Watch
from .schedule import Fault

__all__ = ["Campaign"]

_N = 4
_RECOVERY_S = 120.0
_ANSWER_S = 120.0
_REST_S = 0.3
_TICK_S = 0.02
_LONG_S = 2.0


@dataclass
class Campaign:
    """What a run has found.

    Args:
        folder: below which the networks lie; on a failure the last one stays there.
        seed: of the run.
        links: of the nodes; None: on this machine's own loopback, without faults of links and disks.
        ahead: -20..19, which of the scheduler's groups of processes the nodes' are: below 0 ahead of other work.

    Attributes:
        recovery: seconds from the end of each fault until its nodes had caught up, by kind.
        totals: what was counted over all networks.
    """

    folder: Path
    seed: int
    links: Links | None
    ahead: int = 0
    recovery: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    totals: Counter[str] = field(default_factory=Counter)

    def run(self, faults: Sequence[Fault], a_network: int, so_far: Callable[[], None] = lambda: None) -> None:
        """Runs all faults, so many a network.

        Args:
            faults: in their order.
            a_network: how many befall a network before the next one begins.
            so_far: called after each network.

        Raises:
            BrokenError: something that must hold does not, or nodes do not recover in time.
        """
        for begin in range(0, len(faults), a_network):
            self._network(begin // a_network, faults[begin : begin + a_network])
            so_far()

    def figures(self) -> dict[str, dict[str, float]]:
        """By kind, and over all."""
        found = {kind: _figures(seconds) for kind, seconds in sorted(self.recovery.items())}
        every = [second for seconds in self.recovery.values() for second in seconds]
        return {**found, "all faults": _figures(every), "totals": dict(sorted(self.totals.items()))}

    def _network(self, number: int, faults: Sequence[Fault]) -> None:
        folder = self.folder / f"net{number}"
        create_network(folder, _N, options={"dissent": 0.3})
        names = [f"node{place}" for place in range(_N)]
        disks = {place: Disk(folder / names[place]) for place in range(_N)} if self.links else {}
        # the first request of a chain comes only here
        first = folder / names[number % _N]
        (first / "drill.crash").write_text(f"init_chain:{'before' if number % 2 else 'after'}:1")
        network = Network(
            folder,
            {place: {CRASH_VARIABLE: "watch"} for place in range(_N)},
            addresses=[self.links.address(place) for place in range(_N)] if self.links else None,
            wrap={place: self._words(place) for place in range(_N)},
        )
        step: Fault | None = None
        try:
            with ExitStack() as stack:
                stack.enter_context(network)
                network.wait(_N, _RECOVERY_S)
                if not (first / "drill.crashed").exists():
                    raise BrokenError("the first node was not killed at init_chain")
                self.totals["killed at init_chain"] += 1
                watch = stack.enter_context(Watch(network))
                load = stack.enter_context(Load(network, self.seed + number))
                enforcing = Enforcing(network)
                enforcing.start()
                stack.callback(enforcing.stop)
                stage = Stage(network, watch, self.links, disks)
                invariants = Invariants(network, load, watch, enforcing)
                for step in faults:
                    self._fault(step, stage, load, enforcing, invariants)
                step = None
                self._end(network, load, enforcing, invariants)
                self.totals.update(stage.notes)
        except BaseException as problem:
            where = "at the end" if step is None else f"at step {step.number}: {step}"
            print(f"seed {self.seed}, {where}\n{problem!r}\nfiles are kept in {folder}", file=sys.stderr)
            if self.links:
                self.links.heal()
            for disk in disks.values():
                disk.keep()
            raise
        for disk in disks.values():
            disk.drop()
        shutil.rmtree(folder)

    def _words(self, place: int) -> list[str]:
        into = self.links.words(place) if self.links else []
        grouped = f'echo {self.ahead} > /proc/self/autogroup; exec "$@"'
        return [*into, "sh", "-c", grouped, "sh"] if self.ahead else into

    def _fault(
        self, fault: Fault, stage: Stage, load: Load, enforcing: Enforcing, invariants: Invariants
    ) -> None:
        began, told = time.monotonic(), len(load.told)
        if "enforcer" in fault.kind:
            took = self._enforcer(fault, stage, enforcing, invariants)
        else:
            healed, victims = hit(stage, fault)
            took = self._recovered(stage, victims, healed)
            if len(victims) == 1 and time.monotonic() - began > _LONG_S:
                on = "went on" if len(load.told) > told else "stood"
                stage.note(f"one node faulty for {_LONG_S:g} s or more: the others {on}")
        self.recovery[fault.kind].append(took)
        invariants.check()
        if load.oldest_s > _ANSWER_S:
            raise BrokenError(f"a submission was not answered in {load.oldest_s:.0f} s")
        if not enforcing.alive:
            raise BrokenError("the enforcer ended by itself")
        print(
            f"{fault.number:5d} {fault.kind} {fault.boundary or ''} {fault.places} "
            f"took {time.monotonic() - began:.1f} s, recovered in {took:.2f} s, "
            f"{len(load.told) - told} events answered, height {max(stage.watch.height)}",
            flush=True,
        )
        time.sleep(_REST_S)

    def _recovered(self, stage: Stage, victims: Sequence[int], healed: float) -> float:
        """Waits until nodes carry out blocks that were decided after a fault ended."""
        target = max(stage.watch.height)
        while not all(stage.watch.height[place] > target for place in victims):
            if time.monotonic() - healed > _RECOVERY_S:
                raise BrokenError(
                    f"nodes {victims} did not come back in {_RECOVERY_S:g} s: heights {stage.watch.height}, "
                    f"one beyond {target} was to come"
                )
            time.sleep(_TICK_S)
        return time.monotonic() - healed

    def _enforcer(self, fault: Fault, stage: Stage, enforcing: Enforcing, invariants: Invariants) -> float:
        if "between" in fault.kind:
            if not enforcing.crash(_ANSWER_S):
                raise BrokenError("the enforcer had nothing to act on")
        else:
            enforcing.kill()
        time.sleep(fault.seconds)
        enforcing.start()
        healed = time.monotonic()
        target = max(told["ledger"] for told in stage.network.status().values() if told)
        while invariants.acted() < target:
            if time.monotonic() - healed > _RECOVERY_S:
                raise BrokenError(f"the enforcer did not come back: at {invariants.acted()} of {target}")
            time.sleep(_TICK_S)
        return time.monotonic() - healed

    def _end(self, network: Network, load: Load, enforcing: Enforcing, invariants: Invariants) -> None:
        if not load.finish(_ANSWER_S):
            raise BrokenError("submissions were not answered at the end")
        deadline = time.monotonic() + _RECOVERY_S
        while True:
            heights = [told["ledger"] if told else -1 for told in network.status().values()]
            if len(set(heights)) == 1 and invariants.acted() == heights[0]:
                break
            if time.monotonic() > deadline:
                raise BrokenError(f"at the end: ledgers {heights}, the enforcer at {invariants.acted()}")
            time.sleep(0.1)
        time.sleep(0.5)
        enforcing.stop()
        invariants.check_all()
        self.totals.update(
            networks=1,
            entries=len(invariants.entries),
            events=len(invariants.verdicts),
            **{"acts that came again after a kill": invariants.acted_again},
            **{"events acknowledged": len(load.told), "kills of the enforcer": enforcing.kills},
        )


def _figures(seconds: Sequence[float]) -> dict[str, float]:
    if not seconds:
        return {"count": 0}
    p50, p99 = np.percentile(np.asarray(seconds), [50, 99])
    late = sum(second > 5.0 for second in seconds)
    return {
        "count": len(seconds),
        "p50_s": float(p50),
        "p99_s": float(p99),
        "max_s": max(seconds),
        "over_5_s": late,
    }
