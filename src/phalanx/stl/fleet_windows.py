"""Sliding windows of many entities side by side, each at its own place in its stream.

A window is the end of one block as long as it is and the beginning of the next: the end was aggregated from right to
left when its block closed, the beginning grows from left to right (van Herk's two passes, as a stream). Blocks of the
entities begin at different times where that changes nothing, so that no call has to close all of them.

``rows`` are the entities of a call, none twice; None for all of them.

Source: van Herk, "A fast algorithm for local minimum and maximum filters on rectangular and octagonal kernels", 1992;
Tangwongsan, Hirzel and Schneider, "In-order sliding-window aggregation in worst-case constant time", 2021.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["FleetDelay", "FleetSteps", "FleetWindow", "Rows", "Series", "Values"]

Series = NDArray[np.float64]
Values = Series | np.float64  # the latter of what is the same for all entities
Rows = NDArray[np.intp] | None
_MANY = 256  # samples, from which on closing blocks one by one, in place, is faster than copying them
_LINE = 8  # numbers in a line of a cache


class _Ring:
    """So many places an entity, and where it is in them.

    Where they are many, each call would find an eighth of the entities at a place that no cache has yet. With ``lines``
    those in lockstep come to a new line of the cache in one and the same call: there the waits overlap.
    """

    def __init__(
        self, entities: int, length: int, starts: NDArray[np.intp] | int = 0, *, lines: bool = False
    ) -> None:
        self.length = length
        self._starts = np.broadcast_to(np.asarray(starts, np.intp), (entities,))
        # one place to spare; an odd stride, of places or of lines, spreads the entities over the caches
        self._width = (-(-(length + _LINE) // _LINE) | 1) * _LINE if lines else length + 1 | 1
        self._first = np.arange(entities) * self._width + (-self._starts % _LINE if lines else 0)
        self._at = self._first + self._starts
        self._last = self._first + length

    def places(self, rows: Rows) -> NDArray[np.intp]:
        return self._at if rows is None else self._at[rows]

    def move(self, rows: Rows, places: NDArray[np.intp]) -> NDArray[np.intp]:
        """Goes on by one; the rows that have come to the end of their places and are at the first one again."""
        if rows is None:
            self._at += 1
            full = np.flatnonzero(self._at == self._last)
        else:
            self._at[rows] = places + 1
            full = rows[places + 1 == self._last[rows]]
        if full.size:
            self._at[full] = self._first[full]
        return full

    def empty(self, value: float) -> Series:
        return np.full(self._first.size * self._width, value)

    def table(self, flat: Series) -> Series:
        """A row an entity, what is to spare too; its places begin with the row, with ``lines`` up to a line later."""
        return flat.reshape(-1, self._width)

    def block(self, flat: Series, row: np.intp) -> Series:
        """An entity's places."""
        return flat[self._first[row] : self._last[row]]

    def restart(self, rows: NDArray[np.intp]) -> None:
        self._at[rows] = self._first[rows] + self._starts[rows]

    @property
    def nbytes(self) -> int:
        return self._first.nbytes + self._at.nbytes + self._last.nbytes


class FleetDelay:
    """What each entity took in ``length`` calls ago; the pad until then."""

    def __init__(self, entities: int, length: int, pad: float) -> None:
        self._ring, self._pad = _Ring(entities, length, lines=length >= _MANY), pad
        self._held = self._ring.empty(pad)

    def __call__(self, rows: Rows, values: Values) -> Series:
        places = self._ring.places(rows)
        found = self._held[places]
        self._held[places] = values
        self._ring.move(rows, places)
        return found

    def reset(self, rows: NDArray[np.intp]) -> None:
        self._ring.table(self._held)[rows] = self._pad
        self._ring.restart(rows)

    @property
    def nbytes(self) -> int:
        return self._held.nbytes + self._ring.nbytes


class FleetWindow:
    """The last ``length`` values of each entity added up, or the least or greatest of them; all where it is None.

    Args:
        combine: np.minimum, np.maximum or np.add.
        pad: what changes nothing.
        begun: calls before an entity's first value, in which it takes pads (of sums, whose blocks begin with it).
    """

    def __init__(
        self, entities: int, combine: np.ufunc, pad: float, length: int | None, begun: int = 0
    ) -> None:
        self._combine, self._pad = combine, pad
        self._sum = np.full(entities, pad)
        self._ring = self._held = None
        if length is not None:
            apart = combine is not np.add  # the order of terms matters to sums only
            starts = np.arange(entities) * length // entities if apart else -begun % length
            self._ring = _Ring(entities, length, starts, lines=length >= _MANY)
            self._held = self._ring.empty(pad)

    def __call__(self, rows: Rows, values: Values) -> Series:
        if rows is None:
            grown = self._combine(self._sum, values, out=self._sum)
        else:
            self._sum[rows] = grown = self._combine(self._sum[rows], values)
        if self._ring is None or self._held is None:
            return grown.copy()
        places = self._ring.places(rows)
        found = self._combine(grown, self._held[places + 1])
        self._held[places] = values
        full = self._ring.move(rows, places)
        if full.size:
            self._close(self._held, self._ring, full)
        return found

    def _close(self, held: Series, ring: _Ring, rows: NDArray[np.intp]) -> None:
        """Combines each value of a full block with all after it."""
        self._sum[rows] = self._pad
        if ring.length < _MANY:
            table = ring.table(held)
            blocks = table[rows, : ring.length][:, ::-1]
            table[rows, : ring.length] = self._combine.accumulate(blocks, axis=1)[:, ::-1]
            return
        for row in rows:
            backwards = ring.block(held, row)[::-1]
            self._combine.accumulate(backwards, out=backwards)

    def reset(self, rows: NDArray[np.intp]) -> None:
        self._sum[rows] = self._pad
        if self._ring is not None and self._held is not None:
            self._ring.table(self._held)[rows] = self._pad
            self._ring.restart(rows)

    @property
    def nbytes(self) -> int:
        held = 0 if self._ring is None or self._held is None else self._held.nbytes + self._ring.nbytes
        return self._sum.nbytes + held


class FleetSteps:
    """The last ``length`` steps x -> max(right, min(left, x)) of each entity in a row, from x = -inf; all where it is
    None.

    Any number of them in a row is max(low, min(high, x)) again. With ``newest_last`` the newest is taken last (since),
    else first (until).
    """

    def __init__(self, entities: int, length: int | None, newest_last: bool) -> None:
        self._newest_last = newest_last
        self._low, self._high = np.full(entities, -math.inf), np.full(entities, math.inf)
        self._ring = None
        self._lows = self._highs = np.empty(0)
        if length is not None:
            phases = min(
                entities, math.isqrt(length) + 1
            )  # closing few blocks takes as many calls as closing many
            starts = np.arange(entities) * phases // entities * length // phases
            self._ring = _Ring(entities, length, starts)
            self._lows, self._highs = self._ring.empty(-math.inf), self._ring.empty(math.inf)

    def __call__(self, rows: Rows, left: Values, right: Values) -> Series:
        every: Any = slice(None) if rows is None else rows
        low, high = right, np.maximum(left, right)
        grown = self._joined((self._low[every], self._high[every]), (low, high))
        self._low[every], self._high[every] = grown
        if self._ring is None:
            return grown[0]
        places = self._ring.places(rows)
        before = self._lows[places + 1], self._highs[places + 1]
        found = self._joined(before, grown)[0]
        self._lows[places], self._highs[places] = low, high
        full = self._ring.move(rows, places)
        if full.size:
            self._close(full, self._ring)
        return found

    def _joined(self, older: tuple[Any, Any], newer: tuple[Any, Any]) -> tuple[Any, Any]:
        """Two clamps in a row."""
        outer, inner = (newer, older) if self._newest_last else (older, newer)
        return (
            np.maximum(outer[0], np.minimum(outer[1], inner[0])),
            np.maximum(outer[0], np.minimum(outer[1], inner[1])),
        )

    def _close(self, rows: NDArray[np.intp], ring: _Ring) -> None:
        """Joins each step of a full block with all after it: in about sqrt(length) pieces side by side, then one piece
        after the other."""
        self._low[rows], self._high[rows] = -math.inf, math.inf
        length = ring.length
        width = math.isqrt(length - 1) + 1
        pieces = -(-length // width)
        ends = []
        for flat, nothing in ((self._lows, -math.inf), (self._highs, math.inf)):
            steps = np.full((rows.size, pieces * width), nothing)
            steps[:, :length] = ring.table(flat)[rows, :length]
            ends.append(np.ascontiguousarray(steps.reshape(rows.size, pieces, width).transpose(2, 1, 0)))
        low, high = ends
        for at in range(width - 2, -1, -1):
            low[at], high[at] = self._joined((low[at], high[at]), (low[at + 1], high[at + 1]))
        for piece in range(pieces - 2, -1, -1):
            after = low[0, piece + 1], high[0, piece + 1]
            low[:, piece], high[:, piece] = self._joined((low[:, piece], high[:, piece]), after)
        for flat, steps in ((self._lows, low), (self._highs, high)):
            ring.table(flat)[rows, :length] = steps.transpose(2, 1, 0).reshape(rows.size, -1)[:, :length]

    def reset(self, rows: NDArray[np.intp]) -> None:
        self._low[rows], self._high[rows] = -math.inf, math.inf
        if self._ring is not None:
            self._ring.table(self._lows)[rows] = -math.inf
            self._ring.table(self._highs)[rows] = math.inf
            self._ring.restart(rows)

    @property
    def nbytes(self) -> int:
        held = self._lows.nbytes + self._highs.nbytes + (self._ring.nbytes if self._ring else 0)
        return self._low.nbytes + self._high.nbytes + held
