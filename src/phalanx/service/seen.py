"""Whether a name came before, in little memory: a filter that never misses one of the latest, and may mistake a few."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

__all__ = ["Seen"]

_BITS = 32  # an element
_PLACES = 8  # set for each; of new names (1 - exp(-8/32))^8 = 6e-6 are then mistaken where a filter is full
_WORD = 2**64 - 1


class Seen:
    """A Bloom filter of names, in two generations: when the younger is full, the elder is forgotten.

    Bloom, "Space/time trade-offs in hash coding with allowable errors", CACM 13(7), 1970; all places from one hash:
    Kirsch and Mitzenmacher, "Less hashing, same performance", ESA 2006. The hash is Python's own, whose key no sender
    knows.

    Names are added by one thread; any other may ask meanwhile.

    Args:
        capacity: names that are never missed, at least the latest so many; twice as many at most. A power of two; 8
            bytes of memory each.

    Example:
        >>> seen = Seen(1024)
        >>> seen.add(["a", "b"])
        >>> seen.among(["b", "c", "a"])
        ['b', 'a']
    """

    def __init__(self, capacity: int = 2**22) -> None:
        assert capacity.bit_count() == 1
        self.capacity = capacity
        self._count = 0
        self._parts = (self._blank(), self._blank())

    def add(self, names: Sequence[str]) -> None:
        """Takes names in, at most ``capacity`` at once."""
        if self._count + len(names) > self.capacity:
            self._parts, self._count = (self._blank(), self._parts[0]), 0
        places = self._places(names)
        np.bitwise_or.at(self._parts[0], places >> 3, (1 << (places & 7)).astype(np.uint8))
        self._count += len(names)

    def among(self, names: Sequence[str]) -> list[str]:
        """Those that may have come before; those left out did not, or long ago."""
        places = self._places(names)
        bits = (1 << (places & 7)).astype(np.uint8)
        young, old = ((part[places >> 3] & bits).astype(bool).all(axis=1) for part in self._parts)
        return [names[at] for at in np.flatnonzero(young | old).tolist()]

    def _blank(self) -> np.ndarray:
        return np.zeros(self.capacity * _BITS // 8, np.uint8)

    def _places(self, names: Sequence[str]) -> Int64[np.ndarray, "name place"]:
        hashed = np.array([hash(name) & _WORD for name in names], np.uint64)
        first, step = hashed & np.uint64(2**32 - 1), (hashed >> np.uint64(32)) | np.uint64(1)
        places = first[:, None] + np.arange(_PLACES, dtype=np.uint64) * step[:, None]
        return (places & np.uint64(self.capacity * _BITS - 1)).astype(np.int64)
