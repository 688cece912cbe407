"""Files that hold a JSON object and arrays, whole or not at all, and say so when they are damaged."""

import hashlib
import json
from pathlib import Path
from typing import Any, TypeVar

from phalanx.errors import RunError
from phalanx.files import write_bytes
from phalanx.runtime.checkpoints import tree_from_bytes, tree_to_bytes

__all__ = ["read_snapshot", "write_snapshot"]

Tree = TypeVar("Tree")

_MAGIC = b"phalanx-snapshot-1\n"
_DIGEST, _LENGTH = 64, 8


def write_snapshot(path: Path, head: dict[str, Any], tree: Any) -> None:
    """Writes an object and the arrays of a tree.

    Example:
        >>> import tempfile, numpy as np
        >>> path = Path(tempfile.mkdtemp()) / "state"
        >>> write_snapshot(path, {"height": 7}, [np.arange(3)])
        >>> read_snapshot(path, lambda head: [np.zeros(3, int)])
        ({'height': 7}, [array([0, 1, 2])])
    """
    text, arrays = json.dumps(head).encode(), tree_to_bytes(tree)
    content = len(text).to_bytes(_LENGTH, "big") + text + arrays
    write_bytes(path, _MAGIC + hashlib.sha256(content).hexdigest().encode() + content)


def read_snapshot(path: Path, like: Any) -> tuple[dict[str, Any], Any]:
    """What ``write_snapshot`` wrote.

    Args:
        path: file.
        like: makes, from the object, a tree of the same structure, shapes and types; it may raise to refuse.

    Raises:
        RunError: no such file, or a damaged one.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RunError(
            f"{path}: cannot be read ({error.strerror}); delete it to start from the ledger"
        ) from error
    begin = len(_MAGIC) + _DIGEST
    digest, content = content[:begin], content[begin:]
    if digest != _MAGIC + hashlib.sha256(content).hexdigest().encode():
        raise RunError(f"{path}: a damaged snapshot; delete it to start from the ledger")
    length = _LENGTH + int.from_bytes(content[:_LENGTH], "big")
    text, arrays = content[_LENGTH:length], content[length:]
    head = json.loads(text)
    return head, tree_from_bytes(arrays, like(head))
