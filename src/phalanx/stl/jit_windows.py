"""Sliding windows over many streams at once, inside a jitted program: a constant number of steps a sample.

All entities share one clock, so every ring is read and written a whole row at a time; what came before an entity's
trace began is masked by its ``age``, the number of samples that its trace has had before this one (below 0: the
trace has not reached this operator yet, and its value means nothing). Rings are written before they are read:
otherwise XLA copies them at every step.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phalanx.stl.derived import rank

__all__ = [
    "CLAMPS",
    "GREATEST",
    "LEAST",
    "SUM",
    "Aggregate",
    "Cell",
    "Delay",
    "Pointwise",
    "Running",
    "Sliding",
]

_INF = float("inf")


class Cell(ABC):
    """A part of a monitor that is stepped once a sample."""

    @abstractmethod
    def init(self, n: int, dtype: Any) -> Any:
        """What it holds for ``n`` entities before the first sample."""

    @abstractmethod
    def step(
        self, held: Any, age: Int[Array, " entity"], *given: Float[Array, " entity"]
    ) -> tuple[Any, Array]:
        """Takes one sample in: what it holds then, and its value."""


@dataclass(frozen=True)
class Aggregate:
    """An associative way to put the samples of a window together.

    Attributes:
        combine: (older, newer) -> both, arrays of ``row entity``.
        neutral: one number a row; combined with it everything stays what it is.
        lift: one sample's values -> rows. The first row of what all rows combine to is the window's value.
    """

    combine: Callable[[Array, Array], Array]
    neutral: tuple[float, ...]
    lift: Callable[..., Array] = lambda value: value[None]

    def nothing(self, n: int, dtype: Any) -> Float[Array, "row entity"]:
        """The neutral element for ``n`` entities."""
        return jnp.stack([jnp.full((n,), number, dtype) for number in self.neutral])


def _clamped(outer: Float[Array, "2 entity"], inner: Float[Array, "2 entity"]) -> Float[Array, "2 entity"]:
    """x -> max(low, min(high, x)) of ``inner``, then of ``outer``; rows are low and high."""
    return jnp.maximum(outer[:1], jnp.minimum(outer[1:], inner))


def _clamp(left: Float[Array, " entity"], right: Float[Array, " entity"]) -> Float[Array, "2 entity"]:
    """A step of until (and since), x -> max(right, min(left, x))."""
    return jnp.stack([right, jnp.maximum(left, right)])


LEAST = Aggregate(jnp.minimum, (_INF,))
GREATEST = Aggregate(jnp.maximum, (-_INF,))
SUM = Aggregate(jnp.add, (0.0,))
CLAMPS = {
    "until": Aggregate(_clamped, (-_INF, _INF), _clamp),
    "since": Aggregate(lambda older, newer: _clamped(newer, older), (-_INF, _INF), _clamp),
}
"""Steps of until, of which the newest is taken first, and of since, of which it is taken last."""


@dataclass(frozen=True)
class Age(Cell):
    """Seconds since a value was last greater than 0 (``derived.Age``)."""

    period: float

    def init(self, n: int, dtype: Any) -> Float[Array, " entity"]:
        return jnp.full((n,), _INF, dtype)

    def step(
        self, held: Float[Array, " entity"], age: Int[Array, " entity"], *given: Float[Array, " entity"]
    ) -> tuple[Array, Array]:
        steps = jnp.where(given[0] > 0.0, 0.0, jnp.where(age <= 0, _INF, held + 1.0))
        return steps, steps * self.period


@dataclass(frozen=True)
class Pointwise(Cell):
    """An operator at one sample, from the operator table."""

    function: Callable[..., Array]

    def init(self, n: int, dtype: Any) -> None:
        return None

    def step(
        self, held: None, age: Int[Array, " entity"], *given: Float[Array, " entity"]
    ) -> tuple[None, Array]:
        return None, self.function(jnp, *given)


class _Ring(eqx.Module):
    at: Int[Array, ""]
    rows: Float[Array, "slot entity"]


@dataclass(frozen=True)
class Delay(Cell):
    """What came ``length`` samples ago; ``pad`` where the trace had not begun by then (without one, anything)."""

    length: int
    pad: float | None = None

    def init(self, n: int, dtype: Any) -> _Ring:
        return _Ring(jnp.zeros((), jnp.int32), jnp.zeros((self.length + 1, n), dtype))

    def step(
        self, held: _Ring, age: Int[Array, " entity"], *given: Float[Array, " entity"]
    ) -> tuple[_Ring, Array]:
        (value,) = given
        rows = jax.lax.dynamic_update_index_in_dim(held.rows, value, held.at, 0)
        after = (held.at + 1) % (self.length + 1)
        before = jax.lax.dynamic_index_in_dim(rows, after, 0, keepdims=False)
        if self.pad is not None:
            before = jnp.where(age < self.length, self.pad, before)
        return _Ring(after, rows), before


@dataclass(frozen=True)
class Running(Cell):
    """All samples of the trace so far, put together."""

    aggregate: Aggregate

    def init(self, n: int, dtype: Any) -> Array:
        return self.aggregate.nothing(n, dtype)

    def step(
        self, held: Array, age: Int[Array, " entity"], *given: Float[Array, " entity"]
    ) -> tuple[Array, Array]:
        nothing = self.aggregate.nothing(age.size, held.dtype)
        held = self.aggregate.combine(jnp.where(age[None] <= 0, nothing, held), self.aggregate.lift(*given))
        return held, held[0]


class _Blocks(eqx.Module):
    """What a window of 2 B + 1 samples holds; this sample is number j of block k.

    Attributes:
        at: j, plus B where k is odd.
        ring: sample i of block k, and where that is not known yet of block k - 1; beside it the suffix from sample i
            to the end of block k - 1, else of block k - 2. Blocks are written up and down in turn, so that what is
            read last in one is what is overwritten first.
        ahead: the two rows that the next step reads.
        prefix: of block k up to j.
        middle: all of block k - 1.
        suffix: of block k - 1 from its sample B - 1 - j on.
        last: the whole window, one sample ago.
    """

    at: Int[Array, ""]
    ring: Float[Array, "slot 2 row entity"]
    ahead: Float[Array, "2 row entity"]
    prefix: Float[Array, "row entity"]
    middle: Float[Array, "row entity"]
    suffix: Float[Array, "row entity"]
    last: Float[Array, "row entity"]


@dataclass(frozen=True)
class Sliding(Cell):
    """The last ``length`` samples put together, each counted once, at the same few steps a sample whatever the length.

    The trace is cut into blocks of B = (length - 1) // 2 samples. A window of 2 B + 1 samples that ends at sample j of
    a block is a suffix of the block before the last from j on, the whole last block, and a prefix of this one. While a
    block is filled, the suffixes of the one before are made, backwards, one a sample: they are complete when they are
    needed. A window of 2 B + 2 samples is the one that ended a sample ago, and this sample.

    Attributes:
        aggregate: how.
        length: 1 or more.
        cut: the window is cut where the trace begins; without it nothing is said there.

    Source: Tangwongsan, Hirzel and Schneider, "In-order sliding-window aggregation in worst-case constant time", 2021
    (no inverse, no amortisation); van Herk, "A fast algorithm for local minimum and maximum filters", 1992 (blocks).
    """

    aggregate: Aggregate
    length: int
    cut: bool

    @property
    def _block(self) -> int:
        return (self.length - 1) // 2

    def init(self, n: int, dtype: Any) -> _Blocks:
        def nothing(*shape: int) -> Array:
            rows = self.aggregate.nothing(n, dtype)
            return jnp.broadcast_to(rows, (*shape, *rows.shape)).copy()

        at = jnp.zeros((), jnp.int32)
        return _Blocks(at, nothing(self._block, 2), nothing(2), nothing(), nothing(), nothing(), nothing())

    def step(
        self, held: _Blocks, age: Int[Array, " entity"], *given: Float[Array, " entity"]
    ) -> tuple[_Blocks, Array]:
        combine, newest = self.aggregate.combine, self.aggregate.lift(*given)
        if self.cut:
            held = self._cut(held, age)
        odd = newest
        if self._block:
            held, odd = self._advance(held, newest)
        whole = odd if self.length % 2 else combine(held.last, newest)
        return eqx.tree_at(lambda blocks: blocks.last, held, odd), whole[0]

    def _cut(self, held: _Blocks, age: Int[Array, " entity"]) -> _Blocks:
        """The same without what came before the trace began."""
        nothing = self.aggregate.nothing(age.size, held.last.dtype)
        size = self._block
        j = held.at % max(size, 1)
        reaches = jnp.stack([age > 2 * j, age > size + j])  # back to the sample, and to the end of the suffix
        begins = age[None] <= 0

        def old(rows: Array) -> Array:
            return jnp.where(begins, nothing, rows)

        return _Blocks(
            held.at,
            held.ring,
            jnp.where(reaches[:, None], held.ahead, nothing[None]),
            old(held.prefix),
            old(held.middle),
            old(held.suffix),
            old(held.last),
        )

    def _advance(self, held: _Blocks, newest: Float[Array, "row entity"]) -> tuple[_Blocks, Array]:
        """Takes a sample in: the window of 2 B + 1 samples that it ends."""
        combine, size = self.aggregate.combine, self._block
        nothing = self.aggregate.nothing(newest.shape[-1], newest.dtype)
        j = held.at % size
        middle = jnp.where(j == 0, held.prefix, held.middle)
        prefix = combine(jnp.where(j == 0, nothing, held.prefix), newest)
        before, oldest = held.ahead
        suffix = combine(before, jnp.where(j == 0, nothing, held.suffix))
        window = combine(combine(oldest, middle), prefix)

        def slot(i: Array) -> Array:
            return jnp.where(held.at < size, i, size - 1 - i)

        ring = jax.lax.dynamic_update_index_in_dim(held.ring, jnp.stack([newest, suffix]), slot(j), 0)
        following = slot(jnp.minimum(j + 1, size - 1))  # after the last sample of a block, that one again
        ahead = jax.lax.dynamic_index_in_dim(ring, following, 0, keepdims=False)
        at = (held.at + 1) % (2 * size)
        return _Blocks(at, ring, ahead, prefix, middle, suffix, held.last), window


@dataclass(frozen=True)
class Quantile(Cell):
    """The lower quantile of the last ``length`` samples (``derived.Quantile``), kept in order.

    Unlike other windows a step passes over all of it: what leaves and what comes move all that lies between.
    """

    share: float
    length: int

    def init(self, n: int, dtype: Any) -> tuple[_Ring, Array]:
        return Delay(self.length).init(n, dtype), jnp.full((self.length, n), _INF, dtype)

    def step(
        self, held: tuple[_Ring, Array], age: Int[Array, " entity"], *given: Float[Array, " entity"]
    ) -> tuple[tuple[_Ring, Array], Array]:
        ring, leaves = Delay(self.length, _INF).step(held[0], age, *given)
        edge = jnp.full((1, age.size), _INF, leaves.dtype)
        ordered = jnp.where(age[None] <= 0, _INF, held[1])  # what the window lacks stands at the end
        left = jnp.where(ordered < leaves[None], ordered, jnp.concatenate([ordered[1:], edge]))
        ordered = jnp.maximum(jnp.concatenate([-edge, left[:-1]]), jnp.minimum(left, given[0][None]))
        ranks = jnp.array([rank(self.share, count + 1) - 1 for count in range(self.length)])
        at = ranks[jnp.clip(age, 0, self.length - 1)]
        return (ring, ordered), jnp.take_along_axis(ordered, at[None], axis=0)[0]
