"""A shield: before each verdict, the verdicts that keep specifications satisfiable, whatever the environment does.

Source: Alshiekh et al., "Safe reinforcement learning via shielding", AAAI 2018 (preemptive shields); Koenighofer et
al., "Shield synthesis", Formal Methods in System Design, 2017.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int, UInt8
from numpy.typing import ArrayLike

from phalanx.errors import UsageError
from phalanx.stl.arguments import expect_mapping, whole_number
from phalanx.stl.demands import EFFECTS, Budget, Obligation
from phalanx.stl.progress_automaton import automaton_of
from phalanx.stl.safety_game import ALL, Game, Lone, grouped, narrowed
from phalanx.stl.shield_specs import effects_of, shield_specs
from phalanx.types import N_VERDICTS, Verdict

__all__ = ["Shield", "ShieldState", "choose"]


class ShieldState(eqx.Module):
    """What a shield remembers of each entity.

    Attributes:
        index: the state of each game.
        ages: of each budget without a table, samples since its latest uses, the latest first.
    """

    index: tuple[Int[Array, "*batch"], ...]
    ages: tuple[Int[Array, "*batch _"], ...]


class Shield:
    """Masks verdicts so that specifications stay satisfiable; never all of them.

    Specifications are ``always PHI`` and conjunctions of such, in samples. Predicates are about the verdict of a sample
    (``demands.EFFECTS``: ``severity``, ``answered``, ``restricted``, ...) or about signals of the environment that are
    known when it is answered, never about both. PHI joins them by and, or, not and bounded future operators, or is a
    budget ``sum(SIGNAL, W) <= K``.

    Specification k is kept for ever from every state of W_k, the greatest set from each of whose states, at every
    input, a move that the specifications before leave leads into W_k without violating k. The mask holds exactly those
    moves; elsewhere those that do not violate k now, and where there are none it leaves k alone.

    Args:
        specs: (name, formula, priority) each, or objects with these attributes. A conjunction is its parts in order.
        effects: signals that the verdict sets: name -> value after each verdict.
        most_states: that a table may have. Longer budgets count by themselves, without looking ahead together with
            others: see ``apart``.

    Attributes:
        names: of the specifications in the order of their priorities, as in all results.
        signals: that ``inputs`` has to hold.
        together: names of the specifications of each table, which are looked ahead together; what stands in different
            tables cannot contradict each other, but for
        apart: names of those that can, and are not looked ahead together: all but the first may have to give way, and
            nothing is promised of what has a lower priority than these.
        table_states, table_bytes: sizes.

    Raises:
        UsageError: a formula that no shield can keep or see, a name twice, one that takes too many states, or
            arguments of other types.

    Example:
        >>> shield = Shield([("ban", "always (protected > .5 -> severity < 2.5)", 0),
        ...                  ("deadline", "always (suspicion > .9 -> eventually[0,1] answered > .5)", 1)])
        >>> state = shield.init(1)
        >>> inputs = {"protected": jnp.ones(1), "suspicion": jnp.ones(1)}
        >>> shield.mask(state, inputs)  # may still wait, may not quarantine
        Array([[ True,  True,  True, False]], dtype=bool)
        >>> state, violated = shield.step(state, inputs, jnp.zeros(1, jnp.int32))
        >>> shield.mask(state, inputs), violated
        (Array([[False,  True,  True, False]], dtype=bool), Array([[False, False]], dtype=bool))
        >>> shield.reasons(state, inputs)
        [{'ban': (<Verdict.QUARANTINE: 3>,), 'deadline': (<Verdict.ALLOW: 0>,)}]

    Source: Alshiekh et al., AAAI 2018, section 5.
    """

    def __init__(
        self,
        specs: Sequence[Any],
        *,
        effects: Mapping[str, Sequence[float]] = EFFECTS,
        most_states: int = 100_000,
    ) -> None:
        most_states = whole_number("most_states", most_states, 1)
        chosen, effects = shield_specs(specs), effects_of(effects)
        self.names = tuple(each.name for each in chosen)
        self._owner: list[int] = []
        demands: list[Obligation | Budget] = []
        for at, each in enumerate(chosen):
            found = each.demands(effects)
            demands += found
            self._owner += [at] * len(found)
        tables, self._budgets = {}, {}
        for at, demand in enumerate(demands):
            automaton = automaton_of(demand, most_states)
            if automaton is not None:
                tables[at] = automaton
            elif isinstance(demand, Budget):
                self._budgets[at] = demand
            else:
                raise UsageError(
                    f"specification {self.names[self._owner[at]]!r} takes more than {most_states} states; shorten its "
                    "bounds, split it, or raise most_states"
                )
        lone = [
            Lone((at,), frozenset([ALL, ALL & ~budget.uses or ALL])) for at, budget in self._budgets.items()
        ]
        games, apart = grouped(tables, lone, most_states)
        self._games = [_Table(game) for game in games if isinstance(game, Game)]
        self.signals = tuple(sorted({name for table in self._games for name in table.signals}))
        self.together = tuple(self._named(table.game.demands) for table in self._games)
        self.apart = tuple(self._named(each) for each in apart)
        self._n_sure = min((each[1] for each in apart), default=len(demands))
        self.table_states = tuple(len(table.game.successor) for table in self._games)
        self.table_bytes = sum(table.n_bytes for table in self._games)

    def _named(self, demands: Sequence[int]) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.names[self._owner[at]] for at in demands))

    def init(self, n: int | tuple[int, ...] = ()) -> ShieldState:
        """The state before the first sample, of so many entities."""
        sizes = n if isinstance(n, tuple) else (n,)
        shape = tuple(whole_number("n", size, 0) for size in sizes)
        return ShieldState(
            tuple(jnp.zeros(shape, jnp.int32) for _ in self._games),
            tuple(
                jnp.full((*shape, budget.most), budget.window + 1, jnp.int32)
                for budget in self._budgets.values()
            ),
        )

    def reset(self, state: ShieldState, start: Bool[Array, "*batch"]) -> ShieldState:
        """The state with those entities forgotten that start anew."""
        return jax.tree.map(
            lambda old, new: jnp.where(start.reshape(start.shape + (1,) * (old.ndim - start.ndim)), new, old),
            state,
            self.init(start.shape),
        )

    def mask(self, state: ShieldState, inputs: Mapping[str, ArrayLike]) -> Bool[Array, "*batch verdict"]:
        """The verdicts that may be given now.

        Args:
            state: of the entities.
            inputs: the environment's signals of this sample, one value an entity. They are compared as float32; NaN
                counts as less than any number.

        Returns:
            Never all False.
        """
        *_, left = self._narrowing(state, inputs)
        return jnp.stack([(left & np.uint8(1 << verdict)) != 0 for verdict in Verdict], axis=-1)

    def step(
        self, state: ShieldState, inputs: Mapping[str, ArrayLike], verdict: ArrayLike
    ) -> tuple[ShieldState, Bool[Array, "*batch spec"]]:
        """Takes a sample in, whether or not its verdict was in the mask.

        Args:
            state, inputs: see ``mask``.
            verdict: that was given, 0..3, one an entity. One in a traced program is not checked: what is out of range
                counts as the nearest of them.

        Returns:
            The next state, and whether each specification failed at this sample. After a failure an obligation starts
            anew with this sample, and a budget remembers its latest K uses.

        Raises:
            UsageError: a missing input; verdicts that are no whole numbers, or not 0..3.
        """
        signals, given = self._read(inputs), _verdicts(verdict)
        failed: dict[int, Array] = {}
        index, ages = [], []
        for table, at in zip(self._games, state.index, strict=True):
            move = table.row(at, signals) * N_VERDICTS + given
            index.append(jnp.asarray(table.successor)[move])
            violated = jnp.asarray(table.violated)[move]
            failed |= {demand: violated[..., k] for k, demand in enumerate(table.game.demands)}
        for (at, budget), held in zip(self._budgets.items(), state.ages, strict=True):
            used = (np.int32(budget.uses) >> given & np.int32(1)).astype(bool)
            failed[at] = used & _is_full(budget, held)
            older = jnp.minimum(held + 1, budget.window + 1)
            newer = jnp.concatenate([jnp.ones_like(older[..., :1]), older[..., :-1]], axis=-1)
            ages.append(jnp.where(used[..., None], newer, older))
        return ShieldState(tuple(index), tuple(ages)), self._by_spec(failed, jnp.logical_or)

    def winning(self, state: ShieldState) -> Bool[Array, "*batch spec"]:
        """Whether each specification is sure to be kept for ever from here by verdicts within the masks, whatever the
        environment does (never of those that ``apart`` promises nothing of)."""
        won: dict[int, Array] = {}
        for table, at in zip(self._games, state.index, strict=True):
            inside = jnp.asarray(table.game.winning)[at]
            won |= {demand: inside[..., k] for k, demand in enumerate(table.game.demands)}
        for (at, budget), held in zip(self._budgets.items(), state.ages, strict=True):
            won[at] = jnp.full(held.shape[:-1], budget.uses != ALL)
        for demand in range(self._n_sure, len(won)):
            won[demand] = jnp.zeros_like(won[demand])
        return self._by_spec(won, jnp.logical_and)

    def reasons(
        self, state: ShieldState, inputs: Mapping[str, ArrayLike]
    ) -> list[dict[str, tuple[Verdict, ...]]]:
        """For people: the verdicts that each specification takes away from what those before it leave, an entity each.

        Args:
            state, inputs: see ``mask``; of one axis.
        """
        steps = [np.atleast_1d(np.asarray(each)) for each in self._narrowing(state, inputs)]
        found: list[dict[str, tuple[Verdict, ...]]] = [{} for _ in steps[0]]
        for owner, before, after in zip(self._owner, steps, steps[1:], strict=False):
            for entity, taken in enumerate(before & ~after):
                verdicts = tuple(verdict for verdict in Verdict if taken >> verdict & 1)
                if verdicts:
                    known = found[entity].get(self.names[owner], ())
                    found[entity][self.names[owner]] = tuple(sorted(known + verdicts))
        return found

    def _read(self, inputs: Mapping[str, ArrayLike]) -> dict[str, Array]:
        expect_mapping("inputs", inputs)
        missing = [name for name in self.signals if name not in inputs]
        if missing:
            known = ", ".join(sorted(inputs)) or "none"
            raise UsageError(f"the shield needs the signal {missing[0]!r}; inputs have: {known}")
        signals = {name: jnp.asarray(inputs[name]).astype(jnp.float32) for name in self.signals}
        return {name: jnp.where(jnp.isnan(each), -jnp.inf, each) for name, each in signals.items()}

    def _narrowing(
        self, state: ShieldState, inputs: Mapping[str, ArrayLike]
    ) -> Iterator[UInt8[Array, "*batch"]]:
        """All verdicts, and what is left of them after each demand in turn."""
        signals = self._read(inputs)
        moves: dict[int, tuple[Array, Array]] = {}
        for table, at in zip(self._games, state.index, strict=True):
            row = table.row(at, signals)
            safe, now = jnp.asarray(table.safe)[row], jnp.asarray(table.now)[row]
            moves |= {demand: (safe[..., k], now[..., k]) for k, demand in enumerate(table.game.demands)}
        for (at, budget), held in zip(self._budgets.items(), state.ages, strict=True):
            left = jnp.where(_is_full(budget, held), np.uint8(ALL & ~budget.uses), np.uint8(ALL))
            moves[at] = (left, left)
        left = jnp.full(jnp.broadcast_shapes(*(each.shape for each, _ in moves.values())), ALL, jnp.uint8)
        yield left
        for at in sorted(moves):
            left = narrowed(jnp, left, *moves[at])
            yield left

    def _by_spec(self, parts: Mapping[int, Array], join: Any) -> Bool[Array, "*batch spec"]:
        found: list[Any] = [None] * len(self.names)
        for at in sorted(parts):
            owner = self._owner[at]
            found[owner] = parts[at] if found[owner] is None else join(found[owner], parts[at])
        return jnp.stack(found, axis=-1)


def choose(
    mask: Bool[Array, "*batch verdict"], preference: Float[Array, "*batch verdict"]
) -> Int[Array, "*batch"]:
    """The most preferred verdict of those allowed; the first of several.

    Args:
        mask: of ``Shield.mask``.
        preference: any numbers, the greater the better, such as log-probabilities; NaN is least.

    Example:
        >>> choose(jnp.array([True, False, True, True]), jnp.array([0.0, 5.0, 2.0, 1.0]))
        Array(2, dtype=int32)
    """
    lowest = jnp.finfo(preference.dtype).min
    finite = jnp.nan_to_num(preference, nan=lowest, posinf=-lowest, neginf=lowest)
    return jnp.argmax(jnp.where(mask, finite, -jnp.inf), axis=-1).astype(jnp.int32)


class _Table:
    """A game's tables, flat, for look-up by numbers."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self.signals = sorted({name for literal in game.literals for name in literal.predicate.signals})
        self._n_inputs = len(game.inputs)
        self._input = np.zeros(1 << len(game.literals), np.int32)  # by the literals' truths as bits
        for at, truths in enumerate(game.inputs):
            self._input[sum(1 << bit for bit, held in enumerate(truths) if held)] = at
        n_demands = len(game.demands)
        self.successor = game.successor.reshape(-1)
        self.violated = game.violated.reshape(-1, n_demands)
        self.safe, self.now = game.safe.reshape(-1, n_demands), game.now.reshape(-1, n_demands)
        self.n_bytes = sum(each.nbytes for each in (self.successor, self.violated, self.safe, self.now))

    def row(self, state: Int[Array, "*batch"], signals: Mapping[str, Array]) -> Int[Array, "*batch"]:
        """The row of a state and an input."""
        code = jnp.zeros_like(state)
        for bit, literal in enumerate(self.game.literals):
            code = code | literal.holds(jnp, signals).astype(jnp.int32) << bit
        return state * self._n_inputs + jnp.asarray(self._input)[code]


def _verdicts(given: ArrayLike) -> Int[Array, "*batch"]:
    """Verdicts as indices into tables; beyond their range a look-up would be that of another state."""
    known = np.empty(0, given.dtype) if isinstance(given, Tracer) else np.asarray(given)
    beyond = (known < 0) | (known >= N_VERDICTS) if known.dtype.kind in "iu" else None
    bad = [known.dtype.name] if beyond is None else known[beyond].tolist()
    if bad:
        names = ", ".join(f"{verdict.value} ({verdict.name.lower()})" for verdict in Verdict)
        raise UsageError(f"verdict: expected whole numbers, {names}; got {bad[0]}")
    return jnp.clip(jnp.asarray(given).astype(jnp.int32), 0, N_VERDICTS - 1)


def _is_full(budget: Budget, ages: Int[Array, "*batch use"]) -> Bool[Array, "*batch"]:
    return ages[..., -1] <= budget.window
