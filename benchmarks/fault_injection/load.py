"""What goes on meanwhile: a client that submits all the time, an enforcer that acts, a watch over the nodes."""

import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from phalanx.errors import DataError
from phalanx.service.consensus.chain import Chain
from phalanx.service.consensus.enforcer import Enforcer
from phalanx.service.consensus.follower import ask
from phalanx.service.consensus.network import Network
from phalanx.service.records import LiveDecision, LiveEvent

__all__ = ["Enforcing", "Load", "Watch"]

_PARALLEL = multiprocessing.get_context("forkserver")
_PARALLEL.set_forkserver_preload(["phalanx.service.consensus.enforcer"])


def _events(number: int, count: int) -> list[LiveEvent]:
    return [
        LiveEvent(
            f"f-{number}-{i}",
            10**18 + 1000 * number + i,
            f"web-{number % 5}",
            f"web-{number % 5}:{i}",
            "EXECUTE",
            "",
            {"path": "/usr/bin/id", "number": number},
        )
        for i in range(count)
    ]


class Load:
    """Submits batches while its block runs, a few on their way at a time.

    Attributes:
        told: the verdict that was told about each event, by its id.
        problem: why it ended, if it did.
    """

    def __init__(self, network: Network, seed: int, *, at_once: int = 2, pause_s: float = 0.25) -> None:
        self.told: dict[str, int] = {}
        self.problem: str | None = None
        self.submitted = 0
        self._client = network.client()
        self._dice = random.Random(seed)
        self._at_once = at_once
        self._pause_s = pause_s
        self._waiting: list[tuple[float, Future[tuple[LiveDecision, ...]]]] = []
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="load", daemon=True)

    @property
    def oldest_s(self) -> float:
        """How long the oldest submission has been waiting for its answer."""
        return max((time.monotonic() - since for since, _ in list(self._waiting)), default=0.0)

    @property
    def evidence(self) -> Sequence[dict[str, Any]]:
        """Evidence against members that said two things."""
        return self._client.follower.evidence

    def __enter__(self) -> "Load":
        self._client.__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()
        self._client.__exit__()

    def finish(self, patience_s: float) -> bool:
        """Submits no more; whether all was answered in time."""
        self._stopping.set()
        self._thread.join()
        deadline = time.monotonic() + patience_s
        while self._waiting and time.monotonic() < deadline:
            self._collect()
            time.sleep(0.05)
        return not self._waiting

    def _run(self) -> None:
        try:
            while not self._stopping.wait(self._pause_s):
                self._collect()
                if len(self._waiting) < self._at_once:
                    self.submitted += 1
                    happened = _events(self.submitted, self._dice.randint(1, 6))
                    self._waiting.append((time.monotonic(), self._client.submit(happened)))
        except Exception as problem:
            self.problem = f"the client failed: {problem!r}"

    def _collect(self) -> None:
        for item in [item for item in self._waiting if item[1].done()]:
            self._waiting.remove(item)
            for decision in item[1].result():
                self.told[decision.event_id] = int(decision.verdict)


class Watch:
    """Asks every node for its state all the time while its block runs.

    Attributes:
        height: the last that each node told of.
        app_hash: by height; what two nodes told differently is in ``problem``.
    """

    def __init__(self, network: Network, tick_s: float = 0.1) -> None:
        self.height = [0] * network.chain.n
        self.app_hash: dict[int, str] = {}
        self.counters: list[dict[str, int]] = [{} for _ in network.doors]
        self.problem: str | None = None
        self._tick_s = tick_s
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(place, door), name=f"watch {place}", daemon=True)
            for place, door in enumerate(network.doors)
        ]

    def __enter__(self) -> "Watch":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()

    def _run(self, place: int, door: Path) -> None:
        while not self._stopping.wait(self._tick_s):
            try:
                told = ask(door, {"do": "status"}, 1.0)
            except (OSError, DataError):
                continue
            height, app_hash = told["height"], told["app_hash"]
            known = self.app_hash.setdefault(height, app_hash)
            if known != app_hash:
                self.problem = f"height {height}: app hash {app_hash} on node {place}, {known} on another"
            self.height[place] = height
            self.counters[place] = told["counters"]


class Enforcing:
    """An enforcer in a process of its own, which notes what it does; killed and started again.

    Each line of ``acts`` is a height, a batch's digest and the number of the process that acted.
    """

    def __init__(self, network: Network) -> None:
        self.acts = network.folder / "acts"
        self.kills = 0
        self.evidence = network.folder / "enforcer.evidence"
        self._crash = network.folder / "enforcer.crash"
        self._arguments = (
            network.chain.to_json(),
            list(network.doors),
            network.folder,
            self.acts,
            self._crash,
        )
        self._process: Any = None

    def start(self) -> None:
        """Starts the process."""
        self._process = _PARALLEL.Process(target=_enforce, args=(*self._arguments, self.kills), daemon=True)
        self._process.start()

    def kill(self) -> None:
        """Kills it, now."""
        self._process.kill()
        self._process.join()
        self.kills += 1

    def crash(self, wait_s: float) -> bool:
        """Has it kill itself between acting and writing that down; whether it did in time."""
        self._crash.touch()
        self._process.join(wait_s)
        if self._process.is_alive():
            self._crash.unlink(missing_ok=True)
            return False
        self.kills += 1
        return True

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.is_alive()

    def stop(self) -> None:
        """Ends it as an operator would."""
        self._process.terminate()
        self._process.join(30)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _enforce(chain: Any, doors: Sequence[Path], folder: Path, acts: Path, crash: Path, number: int) -> None:
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    file = os.open(acts, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def act(entry: Any) -> None:
        os.write(file, f"{entry.height} {entry.body['digest']} {number}\n".encode())
        if crash.exists():
            crash.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    with Enforcer(Chain.from_json(chain), doors, folder / "enforcer", act) as enforcer:
        while not ended.wait(0.2):
            if enforcer.evidence:
                (folder / "enforcer.evidence").write_text(str(list(enforcer.evidence)))
