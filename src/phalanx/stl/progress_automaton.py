"""Deterministic automata that say, sample by sample, whether a demand has failed.

Source: Bacchus and Kabanza, "Using temporal logics to express search control knowledge for planning", 2000 (progression
of formulas); Hopcroft, Motwani and Ullman, "Introduction to automata theory", 3rd ed., 4.4 (minimisation).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from phalanx.stl.demands import Budget, Clauses, Obligation, without_implied
from phalanx.stl.literals import Literal, Truths
from phalanx.types import N_VERDICTS

__all__ = ["Automaton", "automaton_of", "n_windows"]


@dataclass(frozen=True, eq=False)
class Automaton:
    """What is left of a demand after each sample; the first state is that before any.

    Attributes:
        literals: what it reads of the environment.
        inputs: truths that these can have.
        successor: the next state.
        violated: whether the demand fails at this sample.
    """

    literals: tuple[Literal, ...]
    inputs: tuple[Truths, ...]
    successor: Int[np.ndarray, "state input verdict"]
    violated: Bool[np.ndarray, "state input verdict"]


def automaton_of(demand: Obligation | Budget, most_states: int) -> Automaton | None:
    """The demand's automaton with the fewest states; None where it takes more than ``most_states``.

    After a failure an obligation is forgiven what it owes from earlier samples; what the failing sample itself asks for
    still counts unless it is that which failed. A budget that is overdrawn counts as many of its latest uses as it
    allows.

    Example:
        >>> from phalanx.stl.demands import EFFECTS, demands_of
        >>> from phalanx.stl.parser import parse
        >>> demand, = demands_of(parse("always (hot > .5 -> eventually[0,2] answered > .5)"), EFFECTS)
        >>> automaton_of(demand, 100).successor[:, 0, 0]  # hot and never answered
        array([1, 2, 1], dtype=int32)
    """
    if isinstance(demand, Budget):
        return _window(demand, most_states)
    return _progression(demand, most_states)


def _progression(demand: Obligation, most_states: int) -> Automaton | None:
    n_letters = N_VERDICTS * len(demand.inputs)
    letters = (1 << n_letters) - 1
    samples = range(0, max(map(int.bit_length, demand.clauses), default=0), n_letters)
    named = {clause >> sample & letters for clause in demand.clauses for sample in samples}
    kinds: dict[tuple[int, ...], int] = {}  # letters that no clause tells apart are one
    kind_of = [
        kinds.setdefault(tuple(each >> letter & 1 for each in named), len(kinds))
        for letter in range(n_letters)
    ]
    examples = [kind_of.index(kind) for kind in range(len(kinds))]
    fresh = [_progressed(demand.clauses, letter, n_letters) for letter in examples]
    index: dict[Clauses, int] = {frozenset(): 0}
    queue = [Clauses()]
    successor, violated = [], []
    for state in queue:
        if len(queue) > most_states:
            return None
        rows = []
        for letter, (began, began_badly) in zip(examples, fresh, strict=True):
            left, failed = _progressed(state, letter, n_letters)
            failed |= began_badly
            after = without_implied(began if failed else left | began) if not began_badly else frozenset()
            if after not in index:
                index[after] = len(index)
                queue.append(after)
            rows.append((index[after], failed))
        successor.append([rows[kind][0] for kind in kind_of])
        violated.append([rows[kind][1] for kind in kind_of])
    shape = (len(queue), len(demand.inputs), N_VERDICTS)
    return Automaton(
        demand.literals,
        demand.inputs,
        *_minimised(np.array(successor, np.int32).reshape(shape), np.array(violated, bool).reshape(shape)),
    )


def _progressed(clauses: Clauses, letter: int, n_letters: int) -> tuple[Clauses, bool]:
    """What is left of clauses after a letter, and whether one of them can no more be hit."""
    left = frozenset(clause >> n_letters for clause in clauses if not clause >> letter & 1)
    return left - {0}, 0 in left


def _minimised(
    successor: Int[np.ndarray, "state input verdict"], violated: Bool[np.ndarray, "state input verdict"]
) -> tuple[Int[np.ndarray, "fewer input verdict"], Bool[np.ndarray, "fewer input verdict"]]:
    """The same machine with the states merged that nothing tells apart; the first one stays the first."""
    kinds, n_kinds = np.zeros(len(successor), np.int64), 0
    flat = violated.reshape(len(violated), -1)
    while True:
        signature = np.concatenate([flat, kinds[successor].reshape(flat.shape)], axis=1)
        _, first, kinds = np.unique(signature, axis=0, return_index=True, return_inverse=True)
        if len(first) == n_kinds:
            break
        n_kinds = len(first)
    order = np.argsort(np.argsort(first))  # kinds in the order in which they were met
    kinds, first = order[kinds.reshape(-1)], np.sort(first)
    return kinds[successor[first]].astype(np.int32), violated[first]


def n_windows(budget: Budget) -> int:
    """States of a budget's automaton: the ways to place up to ``most`` uses in a window.

    Example:
        >>> n_windows(Budget(uses=0b10, window=10, most=2))
        56
    """
    found, ways = 1, 1
    for used in range(1, budget.most + 1 if budget.most <= budget.window else 1):
        ways = ways * (budget.window - used + 1) // used
        found += ways
    return found


def _window(demand: Budget, most_states: int) -> Automaton | None:
    if n_windows(demand) > most_states:
        return None
    held = 0 if demand.most > demand.window else demand.most
    index: dict[tuple[int, ...], int] = {(): 0}  # samples since each use, the latest first
    queue: list[tuple[int, ...]] = [()]
    successor, violated = [], []
    for ages in queue:
        older = tuple(age + 1 for age in ages if age < demand.window)
        rows = []
        for verdict in range(N_VERDICTS):
            used = bool(demand.uses >> verdict & 1)
            after = ((1, *older) if used else older)[:held]
            if after not in index:
                index[after] = len(index)
                queue.append(after)
            rows.append((index[after], used and len(ages) >= demand.most))
        successor.append([row[0] for row in rows])
        violated.append([row[1] for row in rows])
    shape = (len(queue), 1, N_VERDICTS)
    successor = np.array(successor, np.int32).reshape(shape)
    return Automaton((), ((),), successor, np.array(violated, bool).reshape(shape))
