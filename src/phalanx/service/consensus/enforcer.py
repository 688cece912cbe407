"""Acts on what f + 1 nodes answer alike, once a batch, in order, and keeps the committee's ledger."""

import fcntl
import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from phalanx.errors import DataError, UsageError
from phalanx.service.consensus.asking import entry_of
from phalanx.service.consensus.chain import Chain
from phalanx.service.consensus.follower import Follower
from phalanx.service.consensus.listener import Address
from phalanx.service.consensus.replacement import members_after
from phalanx.service.consensus.replies import Agreed
from phalanx.service.ledger import MEMBERS_FILE
from phalanx.service.ledger_entry import Entry, entry_line
from phalanx.service.ledger_files import ending, segment_name

__all__ = ["Enforcer"]


class Enforcer:
    """Follows a network while its block runs, and acts.

    Each entry is fetched from any node and believed because its hash is the one that f + 1 members signed. It is acted
    on, then written to a ledger of its own with those signatures, as many as ``phalanx ledger verify`` asks for. After
    a kill in between it is acted on again: whoever acts must take a batch's digest that it has seen as done.

    Args:
        chain: of the network.
        doors: addresses of the nodes' sockets.
        folder: of the enforcer's ledger.
        act: what to do with a decided batch; in the order of the ledger, each height once a run.
        replacements: entries that replaced a member, signed by those who agreed (``replacing``). Members other than the
            folder's are believed where these lead to them alone.

    Raises:
        UsageError: another enforcer uses the folder, or it knows other members.
        DataError: the ledger there does not verify at its end, or goes on otherwise than a replacement says.
    """

    def __init__(
        self,
        chain: Chain,
        doors: Sequence[Address],
        folder: Path,
        act: Callable[[Entry], None],
        *,
        replacements: Sequence[Entry] = (),
    ) -> None:
        self._chain = chain
        self._doors = doors
        self._act = act
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(self._folder)
            raise UsageError(
                f"{folder}: another enforcer uses this folder. Stop it, or name another"
            ) from None
        try:
            members_after(folder, chain.keys, replacements).save(folder / MEMBERS_FILE)
        except BaseException:
            os.close(self._folder)
            raise
        found = ending(folder)
        path = folder / segment_name(1)
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.ftruncate(self._file, found.size)
        height = found.entry.height if found.entry else 0
        self._acting = threading.RLock()  # whoever acts may close it
        self._closed = False
        self._follower = Follower(chain, doors, height + 1, self._take)

    @property
    def height(self) -> int:
        """The last height that was acted on."""
        return self._follower.height

    @property
    def evidence(self) -> Sequence[dict[str, Any]]:
        """Evidence against members that said two things: bodies of entries of evidence."""
        return self._follower.evidence

    def __enter__(self) -> "Enforcer":
        self._follower.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._follower.__exit__()
        with self._acting:  # whoever acts ends what was begun
            self._closed = True
            os.fsync(self._file)
            os.close(self._file)
            os.close(self._folder)

    def _take(self, agreed: Agreed) -> None:
        entry = entry_of(self._doors, agreed, ending=self._follower.ending)
        with self._acting:
            if self._closed:
                raise DataError("the enforcer was closed before it acted")
            if entry.kind == "batch":
                self._act(entry)
            line = memoryview(entry_line(entry))
            while line:
                line = line[os.write(self._file, line) :]
