"""A node's folder on a small disk of its own, in memory, that can be full."""

import contextlib
import os
import shutil
from pathlib import Path

from .isolation import run

__all__ = ["Disk"]

_ROOM = "2g"
_PAGE = 4096
_TRIES = 50


class Disk:
    """Moves a folder's files onto a disk of its own; call inside ``isolation.run_isolated``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        aside = folder.with_name(folder.name + ".aside")
        shutil.copytree(folder, aside)
        run("mount", "-t", "tmpfs", "-o", f"size={_ROOM},mode=700", "none", str(folder))
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        shutil.rmtree(aside)

    def fill(self, left: int = 0) -> None:
        """Leaves so many bytes of room, or a few more."""
        for _ in range(_TRIES):
            about = os.statvfs(self._folder)
            used = (about.f_blocks - about.f_bfree) * about.f_frsize
            with contextlib.suppress(RuntimeError):  # more was written meanwhile
                run("mount", "-o", f"remount,size={used + max(left, _PAGE)}", str(self._folder))
                return
        raise RuntimeError(f"{self._folder}: its disk cannot be filled")

    def free(self) -> None:
        """Makes room again."""
        run("mount", "-o", f"remount,size={_ROOM}", str(self._folder))

    def keep(self) -> None:
        """Leaves the files in the folder below, where they outlive the disk."""
        aside = self._folder.with_name(self._folder.name + ".aside")
        with contextlib.suppress(shutil.Error):  # sockets are no files
            shutil.copytree(self._folder, aside)
        self.drop()
        shutil.copytree(aside, self._folder, dirs_exist_ok=True)
        shutil.rmtree(aside)

    def drop(self) -> None:
        """Takes the disk away, and its files with it."""
        run("umount", "-l", str(self._folder))
