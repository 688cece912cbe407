"""Keeps one node running: its application process, its engine, both started anew when one of them ends."""

import contextlib
import json
import logging
import os
import select
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from phalanx.errors import RunError
from phalanx.service.consensus.node import RPC_SOCKET

__all__ = ["Supervised"]

_LOG = logging.getLogger(__name__)
_READY_S = 120.0
_STOP_S = 10.0
_BACKOFF_S = (0.1, 5.0)
_STEADY_S = 5.0  # a node whose engine ran as long starts again without delay
_IN_A_ROW = 3  # failures of an engine until its application, too, is started anew
_TICK_S = 0.02
_ROOM, _ROOM_TICK_S = 16 << 20, 0.2  # bytes that a start needs: the engine's tables are written anew
_DEAD = b"CONSENSUS FAILURE"  # the engine says so and lives on, deciding nothing


class Supervised:
    """A node's two processes.

    The application holds the other end of a pipe from this process, and the engine ends when the application does: none
    outlives this process, however that ends.

    An engine whose consensus has failed (a disk that was full, above all) does not end by itself, and answers as if it
    were well: it is known by its log and killed. On a full disk nothing is started until there is room.

    Args:
        folder: of the node.
        engine: the binary.
        environment: further variables for the application.
        wrap: words before both commands, which must end in a call of exec: ``ip netns exec x0``, ``nice``.

    Attributes:
        environment: of the application, from its next start on.
        restarts: how often the node was started again.
    """

    def __init__(
        self,
        folder: Path,
        engine: Path,
        environment: Mapping[str, str] | None = None,
        *,
        wrap: Sequence[str] = (),
    ) -> None:
        self.restarts = 0
        self._wrap = tuple(wrap)
        self._folder = folder
        self._engine_path = engine
        self.environment = dict(environment or {})
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._application: subprocess.Popen[bytes] | None = None
        self._engine: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None

    @property
    def pids(self) -> tuple[int | None, int | None]:
        """Of the application and of the engine; None where it does not run."""
        return _pid(self._application), _pid(self._engine)

    def start(self) -> None:
        """Begins to keep the node running; returns at once."""
        if self._thread is None:
            self._stopping.clear()
            self._thread = threading.Thread(target=self._run, name=f"node {self._folder.name}", daemon=True)
            self._thread.start()

    def end(self) -> None:
        """Begins to end both processes, the engine first; returns at once, ``stop`` waits."""
        self._stopping.set()

    def stop(self, number: int | None = None) -> None:
        """Ends both processes and keeps them ended.

        Args:
            number: the signal; None ends the engine, then the application; SIGKILL for drills.
        """
        self._stopping.set()
        if number is not None:
            self.send(number)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def send(self, number: int, *, application: bool = True, engine: bool = True) -> None:
        """Sends a signal to the node's processes."""
        with self._lock:
            wanted = ((self._engine, engine), (self._application, application))
            for process, wished in wanted:
                if wished and process is not None and process.poll() is None:
                    process.send_signal(number)

    def _run(self) -> None:
        wait, failures = 0.0, 0
        while not self._stopping.wait(wait):
            self._wait_for_room()
            ran_s = 0.0
            try:
                if not _runs(self._application):
                    _ended(self._application, _STOP_S)
                    self._start_application()
                self._start_engine()
                began = time.monotonic()
                self._wait_for_an_end()
                ran_s = time.monotonic() - began
            except (OSError, RunError) as problem:
                _LOG.error("%s: %s", self._folder, problem)
            steady = ran_s > _STEADY_S
            failures = 0 if steady else failures + 1
            # an application that lost its engine serves the next one, and keeps its member as it is
            keep = _runs(self._application) and failures <= _IN_A_ROW and not self._stopping.is_set()
            self._end(engine_only=keep)
            if self._stopping.is_set():
                return
            self.restarts += 1
            wait = _BACKOFF_S[0] if steady else min(max(2 * wait, _BACKOFF_S[0]), _BACKOFF_S[1])
            what = "engine" if keep else "application or engine"
            _LOG.warning(
                "node %s: its %s ended and is started again in %.1f s", self._folder.name, what, wait
            )

    def _start_application(self) -> None:
        if self._stopping.is_set():
            return
        with open(self._folder / "node.log", "ab") as log, self._lock:
            self._application = subprocess.Popen(
                [*self._wrap, sys.executable, "-m", "phalanx.service.consensus", str(self._folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=os.environ | self.environment,
                start_new_session=True,
            )
        output = self._application.stdout
        assert output is not None
        deadline = time.monotonic() + _READY_S
        while not self._stopping.is_set():
            if select.select([output], [], [], _TICK_S)[0]:
                line = output.readline()
                try:
                    if json.loads(line)["ready"]:
                        return
                except (ValueError, KeyError, TypeError):
                    raise RunError(
                        f"the application did not start; see {self._folder / 'node.log'}"
                    ) from None
            if time.monotonic() > deadline:
                raise RunError(
                    f"the application was not ready in {_READY_S:g} s; see {self._folder / 'node.log'}"
                )

    def _start_engine(self) -> None:
        if self._stopping.is_set():
            return
        (self._folder / RPC_SOCKET).unlink(missing_ok=True)
        with self._lock:
            self._engine = subprocess.Popen(
                [*self._wrap, self._engine_path, "start", "--home", "."],
                cwd=self._folder,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        threading.Thread(
            target=_keep_log,
            args=(self._engine, self._folder / "engine.log"),
            name=f"log of {self._folder.name}",
            daemon=True,
        ).start()

    def _wait_for_room(self) -> None:
        free = _free(self._folder)
        if free < _ROOM and not self._stopping.is_set():
            _LOG.error(
                "%s: %d bytes are free; the node starts once there are %d. Make room",
                self._folder,
                free,
                _ROOM,
            )
        while _free(self._folder) < _ROOM and not self._stopping.wait(_ROOM_TICK_S):
            pass

    def _wait_for_an_end(self) -> None:
        while not self._stopping.wait(_TICK_S):
            for process in (self._application, self._engine):
                if process is None or process.poll() is not None:
                    return

    def _end(self, *, engine_only: bool) -> None:
        """Ends the engine, then the application where it is not to be kept."""
        # an engine whose application has gone waits for it in vain when it is asked to end
        _ended(self._engine, _STOP_S if _runs(self._application) else 0.0)
        if not engine_only:
            _ended(self._application, _STOP_S)
        with self._lock:
            self._engine = None
            if not engine_only:
                self._application = None


def _ended(process: subprocess.Popen[bytes] | None, patience_s: float) -> None:
    if process is None:
        return
    if process.poll() is None:
        if patience_s > 0.0:
            process.terminate()
        try:
            process.wait(patience_s)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    if process.stdin is not None:  # an application's; an engine's output is read to its end elsewhere
        process.stdin.close()
        if process.stdout is not None:
            process.stdout.close()


def _keep_log(engine: "subprocess.Popen[bytes]", path: Path) -> None:
    """Writes an engine's output to its log until it ends, and kills it once it says that it decides nothing more."""
    output = engine.stdout
    assert output is not None
    with output:
        for line in output:
            with contextlib.suppress(OSError), open(path, "ab") as log:
                log.write(line)
            if _DEAD in line:
                _LOG.error("%s: its engine's consensus has failed; see %s", path.parent, path.name)
                engine.kill()


def _free(folder: Path) -> int:
    about = os.statvfs(folder)
    return about.f_bavail * about.f_frsize


def _runs(process: subprocess.Popen[bytes] | None) -> bool:
    return process is not None and process.poll() is None


def _pid(process: subprocess.Popen[bytes] | None) -> int | None:
    return process.pid if process is not None and _runs(process) else None
