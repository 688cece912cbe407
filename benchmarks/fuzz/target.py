"""What a target is."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["REFUSED", "TAKEN", "Case", "Target", "TryOne"]

TAKEN, REFUSED = "taken", "refused"
TryOne = Callable[[bytes], str]


@dataclass(frozen=True)
class Case:
    """A target that is set up.

    Attributes:
        seeds: inputs to begin with.
        try_one: takes any bytes.
        close: ends what was set up.
    """

    seeds: Sequence[bytes]
    try_one: TryOne
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Target:
    """Something that reads what others wrote.

    Attributes:
        open: sets it up in an empty folder.
        inputs: how many it gets of ten million.
        longest: bytes of an input.
        words: that occur in its inputs.
    """

    open: Callable[[Path], Case]
    inputs: int
    longest: int = 4096
    words: tuple[str, ...] = ()
