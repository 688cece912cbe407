"""Fingerprints of the files a run was trained on, so that a changed file is not taken for them."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from phalanx.data.readers import source_files
from phalanx.errors import RunError

__all__ = ["check_unchanged", "fingerprints"]

_CHUNK = 1 << 20


def fingerprints(sources: Sequence[Path]) -> dict[str, str]:
    """SHA-256 of every file that is read from the sources, by its path; of a folder its data files, one by one.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "events.csv"
        >>> _ = file.write_text("")
        >>> fingerprints([file])[str(file)][:8]
        'e3b0c442'
    """
    files = source_files(sources) if sources else []
    return {str(file): _sha256(file) for file in files if file.is_file()}


def check_unchanged(before: Mapping[str, str], sources: Sequence[Path]) -> None:
    """Compares the files with what they were in training.

    Raises:
        RunError: a file was changed, added or taken away: the run's split would deal other rows into its test part,
            rows already learned from among them.
    """
    now = fingerprints(sources)
    changed = sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))
    if changed:
        raise RunError(
            f"{', '.join(changed)}: not the data that the run was trained on (SHA-256 differs, or a file came or "
            "went); its split would mix rows already learned from into the test part. Restore the data, or measure "
            "other events with --data"
        )


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
