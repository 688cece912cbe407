"""Syncing to the disk: a folder's names; and group commit, which syncs many appends at a time in the background."""

import os
import threading
from pathlib import Path

from phalanx.errors import DataError

__all__ = ["GroupCommit", "LedgerBrokenError", "sync_folder"]


class LedgerBrokenError(DataError):
    """The ledger takes no more entries until it is opened anew: its disk failed it, or somebody changed its files."""


class GroupCommit:
    """Syncs a file within a time after it was written to.

    A failed sync is final: the kernel may have dropped what it could not write and say at the next sync that all is
    well, so that only what is read back from the disk can be believed.

    Attributes:
        synced: the greatest mark that is on the disk.

    Source: Rebello et al., "Can applications recover from fsync failures?", USENIX ATC 2020.
    """

    def __init__(self, name: str, descriptor: int, mark: int, interval_s: float) -> None:
        self.synced = mark
        self._name = name
        self._descriptor = descriptor
        self._written = mark
        self._interval_s = interval_s
        self._failure: str | None = None
        self._syncing = threading.Lock()
        self._wanted = threading.Event()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        if interval_s > 0:
            self._thread = threading.Thread(target=self._run, name="ledger-sync", daemon=True)
            self._thread.start()

    @property
    def failure(self) -> str | None:
        """What went wrong; None where nothing did."""
        return self._failure

    def wrote(self, mark: int) -> None:
        """Says that all up to a mark is written; without an interval it is synced before this returns.

        Raises:
            LedgerBrokenError: the sync failed.
        """
        self._written = mark
        if self._thread is None:
            self.now()
        else:
            self._wanted.set()

    def now(self) -> int:
        """Syncs what is written, and returns the mark up to which that is.

        Raises:
            LedgerBrokenError: the sync failed, now or before.
        """
        with self._syncing:
            if self._failure is None and self._written > self.synced:
                mark = self._written
                try:
                    os.fsync(self._descriptor)
                except OSError as problem:
                    self._failure = (
                        f"{self._name}: the disk did not take what was written after height {self.synced} "
                        f"({problem.strerror}); it may be lost. Check the disk, then start again"
                    )
                else:
                    self.synced = mark
            if self._failure is not None:
                raise LedgerBrokenError(self._failure)
            return self.synced

    def moved(self, descriptor: int) -> None:
        """Goes on with another file; the one before must have been synced (``now``)."""
        with self._syncing:
            self._descriptor = descriptor

    def close(self) -> None:
        """Syncs a last time and ends.

        Raises:
            LedgerBrokenError: the sync failed, now or before.
        """
        self._ended.set()
        self._wanted.set()
        if self._thread is not None:
            self._thread.join()
        self.now()

    def _run(self) -> None:
        while True:
            self._wanted.wait()
            self._wanted.clear()
            if self._ended.wait(self._interval_s):
                return  # close() syncs
            try:
                self.now()
            except LedgerBrokenError:
                return  # told to whoever appends or syncs next


def sync_folder(path: Path) -> None:
    """Waits until the names in a folder are on the disk.

    Raises:
        OSError: the disk did not take them.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
