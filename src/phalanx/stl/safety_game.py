"""Which verdicts keep several demands for ever, whatever the environment does: safety games on finite tables.

Demands are played together only where they can contradict each other. Verdicts are the bits of an integer.

Source: Bloem, Koenighofer, Koenighofer and Wang, "Shield synthesis", TACAS 2015; Alshiekh et al., "Safe reinforcement
learning via shielding", AAAI 2018, section 5 (the game and its maximal permissive strategy); the order of priorities
is ours.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import and_
from typing import Any

import numpy as np
from jaxtyping import Bool, Int, UInt8

from phalanx.errors import UsageError
from phalanx.stl.literals import Literal, Truths, possible_truths
from phalanx.stl.progress_automaton import Automaton
from phalanx.types import N_VERDICTS

__all__ = ["ALL", "Game", "Lone", "grouped", "narrowed", "play"]

ALL = (1 << N_VERDICTS) - 1
"""All verdicts."""


@dataclass(frozen=True, eq=False)
class Game:
    """Some demands played together, the first one first: tables over the reachable states of their product.

    With W_k the states from which demand k can be kept for ever by moves that demand k - 1 leaves:

    Attributes:
        demands: which ones, ascending.
        literals: what they read of the environment.
        inputs: truths that these can have.
        successor: the next state.
        violated: whether each demand fails at this sample.
        safe: verdicts that demand k - 1 leaves, that do not violate k and lead into W_k.
        now: verdicts that do not violate k at this sample.
        winning: whether a state lies in W_k.
    """

    demands: tuple[int, ...]
    literals: tuple[Literal, ...]
    inputs: tuple[Truths, ...]
    successor: Int[np.ndarray, "state input verdict"]
    violated: Bool[np.ndarray, "state input verdict demand"]
    safe: UInt8[np.ndarray, "state input demand"]
    now: UInt8[np.ndarray, "state input demand"]
    winning: Bool[np.ndarray, "state demand"]

    @cached_property
    def masks(self) -> dict[Truths, frozenset[int]]:
        """The masks that there are at each input, in any state."""
        left = np.full(self.successor.shape[:2], ALL, np.uint8)
        for k in range(len(self.demands)):
            left = narrowed(np, left, self.safe[..., k], self.now[..., k])
        return {truths: frozenset(np.unique(left[:, at]).tolist()) for at, truths in enumerate(self.inputs)}


@dataclass(frozen=True, eq=False)
class Lone:
    """A demand without a table, played by itself: the masks that it may have are all that is known of it."""

    demands: tuple[int, ...]
    allowed: frozenset[int]
    literals: tuple[Literal, ...] = ()

    @property
    def masks(self) -> dict[Truths, frozenset[int]]:
        """The masks that there are, whatever the input."""
        return {(): self.allowed}


def narrowed(xp: Any, left: Any, safe: Any, now: Any) -> Any:
    """What a demand leaves of the verdicts that those before it leave, never nothing.

    The safe ones; where there are none, those that do not violate it now; where there are none either, all.

    Example:
        >>> [int(narrowed(np, np.uint8(left), np.uint8(0b0110), np.uint8(0b1110))) for left in (0b0011, 0b1001, 1)]
        [2, 8, 1]
    """
    kept, spared = left & safe, left & now
    return xp.where(kept != 0, kept, xp.where(spared != 0, spared, left))


def play(tables: Mapping[int, Automaton], demands: Sequence[int], most_states: int) -> Game | None:
    """Solves the game of some demands, the first one first; None where it has too many states or inputs.

    Args:
        tables: automata by demand.
        demands: which ones play.
        most_states: of the product, as far as it can be reached.
    """
    chosen = [tables[at] for at in demands]
    literals = tuple(dict.fromkeys(literal for each in chosen for literal in each.literals))
    try:
        inputs = possible_truths(literals)
    except UsageError:
        return None
    rows = [_projection(literals, inputs, each) for each in chosen]
    product = _reachable(chosen, rows, most_states)
    if product is None:
        return None
    states, successor = product
    violated = np.stack([each.violated[states[:, k]][:, rows[k]] for k, each in enumerate(chosen)], axis=-1)
    moves = np.ones(successor.shape, bool)
    safe, now, winning = [], [], []
    for k in range(len(chosen)):
        spared = ~violated[..., k]
        won = _kept_for_ever(moves & spared, successor)
        kept = moves & spared & won[successor]
        safe.append(_bits(kept))
        now.append(_bits(spared))
        winning.append(won)
        spared &= moves
        moves = np.where(_any(kept), kept, np.where(_any(spared), spared, moves))
    stacked = (np.stack(each, axis=-1) for each in (safe, now, winning))
    return Game(tuple(demands), literals, inputs, successor, violated, *stacked)


def _projection(literals: tuple[Literal, ...], inputs: tuple[Truths, ...], part: Automaton) -> np.ndarray:
    """For each input the one that an automaton sees of it."""
    columns = [literals.index(each) for each in part.literals]
    position = {truths: at for at, truths in enumerate(part.inputs)}
    return np.array([position[tuple(truths[at] for at in columns)] for truths in inputs])


def _reachable(
    automata: Sequence[Automaton], rows: Sequence[np.ndarray], most_states: int
) -> tuple[Int[np.ndarray, "state demand"], Int[np.ndarray, "state input verdict"]] | None:
    """States of the product that any inputs and verdicts lead to, the first one first, and their successors."""
    sizes = [len(each.successor) for each in automata]
    if np.prod([float(size) for size in sizes]) >= 2.0**62:
        return None
    strides = np.cumprod([1, *sizes[:-1]])
    known = np.zeros(1, np.int64)  # codes in the order of discovery
    frontier, found = known, []
    while frontier.size:
        parts = frontier[:, None] // strides % sizes
        after = sum(
            each.successor[parts[:, k]][:, rows[k]].astype(np.int64) * strides[k]
            for k, each in enumerate(automata)
        )
        found.append(after)
        frontier = np.setdiff1d(after, known)
        known = np.concatenate([known, frontier])
        if known.size > most_states:
            return None
    order = np.argsort(known)
    successor = order[np.searchsorted(known, np.concatenate(found), sorter=order)]
    return known[:, None] // strides % sizes, successor.astype(np.int32)


def _kept_for_ever(
    moves: Bool[np.ndarray, "state input verdict"], successor: Int[np.ndarray, "state input verdict"]
) -> Bool[np.ndarray, " state"]:
    """The greatest set of states each of which has, at every input, a move that stays within."""
    won = np.ones(len(moves), bool)
    while True:
        still = won & _any(moves & won[successor])[:, :, 0].all(axis=-1)
        if (still == won).all():
            return won
        won = still


def _any(moves: Bool[np.ndarray, "state input verdict"]) -> Bool[np.ndarray, "state input 1"]:
    return np.logical_or.reduce(moves, axis=2, keepdims=True)


def _bits(moves: Bool[np.ndarray, "state input verdict"]) -> UInt8[np.ndarray, "state input"]:
    return np.packbits(moves, axis=2, bitorder="little")[..., 0]


def grouped(
    tables: Mapping[int, Automaton], lone: Iterable[Lone], most_states: int
) -> tuple[list[Game | Lone], list[tuple[int, ...]]]:
    """Games of demands that can contradict each other, as few of them together as possible.

    Demands whose masks meet at every input and in all states are kept together by keeping each: their masks' meet is
    the mask of their product. What contradicts does so in at most as many games as there are verdicts, for each verdict
    needs but one that takes it away.

    Args:
        tables: automata of demands, numbered in the order of their priorities.
        lone: demands that have none.
        most_states: of one game.

    Returns:
        The games, and the demands that can contradict each other but are not played together, for that takes too many
        states or one has no table.
    """
    games: list[Game | Lone] = [*lone, *(_solved(tables, (at,), most_states) for at in tables)]
    apart: list[tuple[int, ...]] = []
    while (chosen := _contradiction(games, apart)) is not None:
        demands = _demands(chosen)
        together = None if demands - tables.keys() else play(tables, sorted(demands), most_states)
        if together is None:
            apart.append(tuple(sorted(demands)))
        else:
            games = [game for game in games if game not in chosen] + [together]
    return games, apart


def _solved(tables: Mapping[int, Automaton], demands: Sequence[int], most_states: int) -> Game:
    game = play(tables, demands, most_states)
    assert game is not None  # an automaton has no more states than it may
    return game


def _demands(games: Iterable[Game | Lone]) -> set[int]:
    return {at for game in games for at in game.demands}


def _contradiction(
    games: Sequence[Game | Lone], apart: Sequence[tuple[int, ...]]
) -> tuple[Game | Lone, ...] | None:
    """The first few games, as few as possible, whose masks can leave nothing, but for those known to stay apart."""
    for size in range(2, N_VERDICTS + 1):
        for chosen in itertools.combinations(games, size):
            if not any(_demands(chosen).issuperset(each) for each in apart) and _contradict(chosen):
                return chosen
    return None


def _contradict(games: Sequence[Game | Lone]) -> bool:
    if not _meet_in_nothing([frozenset().union(*game.masks.values()) for game in games]):
        return False
    literals = tuple(dict.fromkeys(literal for game in games for literal in game.literals))
    try:
        inputs = possible_truths(literals)
    except UsageError:
        return True
    columns = [[literals.index(each) for each in game.literals] for game in games]
    return any(
        _meet_in_nothing(
            [game.masks[tuple(truths[c] for c in where)] for game, where in zip(games, columns, strict=True)]
        )
        for truths in inputs
    )


def _meet_in_nothing(families: Iterable[frozenset[int]]) -> bool:
    """Whether one mask of each family can be chosen so that no verdict is in all of them."""
    meets = reduce(lambda found, family: {and_(a, b) for a in found for b in family}, families, {ALL})
    return 0 in meets
