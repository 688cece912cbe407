"""Checkpoints of a run: array trees in files whose hashes are known, so that a torn one is noticed and left out.

A checkpoint file takes its place before the manifest names it, ``best.eqx`` after the manifest knows both its old and
its new hash; hence a kill at any moment leaves a checkpoint that loads.
"""

import hashlib
import io
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp

from phalanx.errors import RunError
from phalanx.files import write_bytes, write_json

__all__ = ["Checkpoint", "Checkpoints", "tree_from_bytes", "tree_to_bytes"]

Tree = TypeVar("Tree")

_log = logging.getLogger("phalanx")
_KEPT = 2
_BEST = "best.eqx"


@dataclass(frozen=True)
class Checkpoint:
    """One line of the manifest.

    Attributes:
        iteration: after which it was taken.
        file: its name in ``checkpoints/``.
        sha256: of the file's bytes, in hexadecimal digits.
    """

    iteration: int
    file: str
    sha256: str


@dataclass(frozen=True)
class Checkpoints:
    """The folder ``checkpoints/`` of a run: the newest two and the best.

    Attributes:
        path: the folder.
    """

    path: Path

    def save(self, iteration: int, tree: Any) -> None:
        """Keeps a tree as the newest checkpoint; older ones than the last two go.

        Args:
            iteration: after which the tree was taken, >= 0; a resumed run may write the same one again.
            tree: arrays (typed PRNG keys too); other leaves are not saved.
        """
        content = tree_to_bytes(tree)
        saved = Checkpoint(iteration, f"{iteration}.eqx", hashlib.sha256(content).hexdigest())
        older, bests = self._manifest()
        write_bytes(self.path / saved.file, content)
        kept = [*(entry for entry in older if entry.iteration < iteration), saved][-_KEPT:]
        write_json(self.path / "manifest.json", {"checkpoints": kept, "best": bests})
        names = {entry.file for entry in kept} | {_BEST}
        for file in self.path.glob("*.eqx"):
            if file.name not in names:
                file.unlink(missing_ok=True)

    def save_best(self, iteration: int, tree: Any) -> None:
        """Replaces ``best.eqx`` by a tree, which may be a part of what ``save`` keeps.

        Args:
            iteration: after which the tree was taken.
            tree: as for ``save``.
        """
        content = tree_to_bytes(tree)
        saved = Checkpoint(iteration, _BEST, hashlib.sha256(content).hexdigest())
        kept, bests = self._manifest()
        present = _hash_of(self.path / _BEST)
        valid = [entry for entry in bests if entry.sha256 == present]
        write_json(self.path / "manifest.json", {"checkpoints": kept, "best": [saved, *valid]})
        write_bytes(self.path / _BEST, content)

    def load(self, like: Tree, *, best: bool = False, iteration: int | None = None) -> tuple[int, Tree]:
        """The newest checkpoint that is whole, or the best one, with the iteration after which it was taken.

        Args:
            like: a tree of the same structure, shapes and types.
            best: the best instead of the newest.
            iteration: only a checkpoint that was taken after this one.

        Raises:
            RunError: where there is none, none is whole, or it holds another network than ``like``.
        """
        kept, bests = self._manifest()
        entries = bests if best else kept[::-1]
        if iteration is not None:
            entries = [entry for entry in entries if entry.iteration == iteration]
        if not entries:
            what = "best checkpoint" if best else "checkpoint"
            what += "" if iteration is None else f" of iteration {iteration}"
            raise RunError(
                f"{self.path}: no {what} was written. Train for longer, or start anew with `phalanx train`"
            )
        contents = {entry.file: _read(self.path / entry.file) for entry in entries}
        for entry in entries:
            content = contents[entry.file]
            if content is not None and hashlib.sha256(content).hexdigest() == entry.sha256:
                return entry.iteration, _tree_of(self.path / entry.file, content, like)
            if not best:
                _log.warning(
                    "checkpoint %s is damaged (its hash is not the manifest's); the previous one is taken",
                    self.path / entry.file,
                )
        raise RunError(
            f"{self.path}: every checkpoint is damaged ({', '.join(contents)}). Restore the folder, or train anew"
        )

    def iterations(self) -> tuple[int, ...]:
        """The iterations of the kept checkpoints, in ascending order."""
        return tuple(entry.iteration for entry in self._manifest()[0])

    def _manifest(self) -> tuple[list[Checkpoint], list[Checkpoint]]:
        path = self.path / "manifest.json"
        content = _read(path)
        if content is None:
            return [], []
        try:
            manifest = json.loads(content)
            kept = [Checkpoint(**entry) for entry in manifest["checkpoints"]]
            return kept, [Checkpoint(**entry) for entry in manifest["best"]]
        except (ValueError, TypeError, KeyError) as error:
            raise RunError(
                f"{path}: not a manifest of checkpoints ({error}). Restore it, or train anew"
            ) from error


def tree_to_bytes(tree: Any) -> bytes:
    """The arrays of a tree, one after the other (typed PRNG keys as their data).

    Example:
        >>> import numpy as np
        >>> tree_from_bytes(tree_to_bytes({"w": np.arange(3)}), {"w": np.zeros(3, int)})
        {'w': array([0, 1, 2])}
    """
    buffer = io.BytesIO()
    eqx.tree_serialise_leaves(buffer, jax.tree.map(_key_to_data, tree))
    return buffer.getvalue()


def tree_from_bytes(content: bytes, like: Tree) -> Tree:
    """The inverse of ``tree_to_bytes``, bit for bit.

    Raises:
        RuntimeError: where shapes or types differ from ``like``.
    """
    buffer = io.BytesIO(content)
    loaded = eqx.tree_deserialise_leaves(buffer, jax.tree.map(_key_to_data, like))
    if buffer.read(1):
        raise RuntimeError("it holds more arrays than expected")
    return jax.tree.map(_data_to_key, loaded, like)


def _tree_of(path: Path, content: bytes, like: Tree) -> Tree:
    try:
        return tree_from_bytes(content, like)
    except (RuntimeError, ValueError, EOFError) as error:
        reason = " ".join(str(error).split())
        raise RunError(
            f"{path}: holds another network than config.json describes ({reason}). "
            "Resume with the settings it was trained with"
        ) from error


def _is_key(leaf: Any) -> bool:
    dtype = getattr(leaf, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)


def _key_to_data(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _data_to_key(leaf: Any, like: Any) -> Any:
    if not _is_key(like):
        return leaf
    return jax.random.wrap_key_data(leaf, impl=str(jax.random.key_impl(like)))


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _hash_of(path: Path) -> str | None:
    content = _read(path)
    return None if content is None else hashlib.sha256(content).hexdigest()
