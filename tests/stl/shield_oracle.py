"""What a shield must do, straight from the definition: games whose states are histories, and adversaries that play."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phalanx.stl import Formula, parse, robustness
from phalanx.stl.shield import Shield, choose

__all__ = ["ADVERSARIES", "EFFECTS", "Phi", "Played", "brute_force", "faults", "player"]

EFFECTS = {
    "severity": (0, 1, 2, 3),
    "allowed": (1, 0, 0, 0),
    "alerted": (0, 1, 0, 0),
    "blocked": (0, 0, 1, 0),
    "quarantined": (0, 0, 0, 1),
    "answered": (0, 1, 1, 1),
    "restricted": (0, 0, 1, 1),
}


_BLOCK = 64


@dataclass(frozen=True)
class Phi:
    """A specification ``always (text)``; ``ahead`` and ``back`` are the samples that the text depends on."""

    name: str
    text: str
    priority: int
    ahead: int = 0
    back: int = 0

    @property
    def formula(self) -> str:
        return f"always ({self.text})"

    @cached_property
    def parsed(self) -> Formula:
        return parse(self.text)


# Exhaustive games in plain Python. A sample is a dict of signals, a history a tuple of samples as sorted pairs.


def kleene(formula: Formula, history: Sequence[Mapping[str, float]], index: int, t: int) -> int:
    """1 where a node holds at t, -1 where it does not, 0 where that depends on samples still to come."""
    node = formula.nodes[index]
    begin, end = (int(bound // 10**9) for bound in node.bounds) if node.bounds else (0, 0)
    match node.op:
        case "not":
            return -kleene(formula, history, node.args[0], t)
        case "and":
            return min(kleene(formula, history, arg, t) for arg in node.args)
        case "or":
            return max(kleene(formula, history, arg, t) for arg in node.args)
        case "always":
            return min(kleene(formula, history, node.args[0], u) for u in range(t + begin, t + end + 1))
        case "eventually":
            return max(kleene(formula, history, node.args[0], u) for u in range(t + begin, t + end + 1))
        case "next":
            return kleene(formula, history, node.args[0], t + 1)
        case "until":
            left, right = node.args
            return max(
                min(
                    [kleene(formula, history, right, u)]
                    + [kleene(formula, history, left, w) for w in range(t, u)]
                )
                for u in range(t + begin, t + end + 1)
            )
        case "difference":
            if t >= len(history):
                return 0
            a, b = (
                history[t][each.name] if each.op == "signal" else each.value
                for each in (formula.nodes[arg] for arg in node.args)
            )
            return 1 if a > b else -1
    raise AssertionError(node.op)


def budget_of(phi: Phi) -> tuple[str, int, int] | None:
    """Signal, window and limit where it is a budget."""
    nodes = phi.parsed.nodes
    total = next((node for node in nodes if node.op == "sum"), None)
    if total is None:
        return None
    limit = next(node.value for node in nodes if node.op == "constant")
    assert total.bounds
    return nodes[total.args[0]].name, total.bounds.end_ns // 10**9, int(limit)


def after(phi: Phi, history: tuple, sample: tuple) -> tuple[tuple, bool]:
    """The history that still counts after a sample, and whether the specification fails at it."""
    whole = (*history, sample)
    budget = budget_of(phi)
    if budget:
        signal, window, limit = budget
        whole = whole[-window - 1 :]
        uses = [t for t, each in enumerate(whole) if dict(each)[signal] == 1]
        failed = len(uses) > limit
        if failed:
            whole = whole[uses[-limit] :] if limit else ()
        return whole[-window:] if window else (), failed
    samples = [dict(each) for each in whole]
    failed = any(kleene(phi.parsed, samples, phi.parsed.root, t) < 0 for t in range(len(whole)))
    if failed:
        whole = (sample,) if kleene(phi.parsed, [dict(sample)], phi.parsed.root, 0) >= 0 else ()
    return whole[-phi.ahead :] if phi.ahead else (), failed


@dataclass(frozen=True)
class Histories:
    """All histories that inputs and verdicts lead to: successors, failures, and the step that first led to each."""

    successor: np.ndarray  # (history, input, verdict)
    failed: np.ndarray  # (history, input, verdict, specification)
    levels: list[list[tuple[int, int]]]  # by length: (place in the level before, letter)


def histories(specs: Sequence[Phi], inputs: Sequence[Mapping[str, float]]) -> Histories:
    letters = [(i, v) for i in range(len(inputs)) for v in range(4)]

    def sample(phi: Phi, i: int, v: int) -> tuple:
        signals = {**inputs[i], **{name: each[v] for name, each in EFFECTS.items()}}
        return tuple((name, float(signals[name])) for name in phi.parsed.signals)

    seen = [[sample(phi, i, v) for i, v in letters] for phi in specs]
    advance = cache(after)
    index: dict[tuple, int] = {tuple(() for _ in specs): 0}
    level, levels = list(index), [[(0, 0)]]
    successor, failed = [], []
    while level:
        fresh, came = [], []
        for at, node in enumerate(level):
            for letter in range(len(letters)):
                parts = [advance(phi, node[k], seen[k][letter]) for k, phi in enumerate(specs)]
                target = tuple(history for history, _ in parts)
                if target not in index:
                    index[target] = len(index)
                    fresh.append(target)
                    came.append((at, letter))
                successor.append(index[target])
                failed.append([bad for _, bad in parts])
        level = fresh
        levels += [came] if came else []
    shape = (len(index), len(inputs), 4)
    return Histories(np.array(successor).reshape(shape), np.array(failed).reshape(*shape, -1), levels)


def solution(game: Histories) -> tuple[np.ndarray, np.ndarray]:
    """The moves that are left after all specifications in turn, and from where each can be kept for ever."""
    n, n_inputs, _ = game.successor.shape
    moves, won = np.ones(game.successor.shape, bool), []
    for k in range(game.failed.shape[-1]):
        inside = set(range(n))

        def keeps(s: int, i: int, v: int, k: int = k, inside: set[int] = inside) -> bool:
            return bool(
                moves[s, i, v] and not game.failed[s, i, v, k] and int(game.successor[s, i, v]) in inside
            )

        while out := {
            s for s in inside if not all(any(keeps(s, i, v) for v in range(4)) for i in range(n_inputs))
        }:
            inside -= out
        won.append([s in inside for s in range(n)])
        for s, i in itertools.product(range(n), range(n_inputs)):
            left = [v for v in range(4) if moves[s, i, v]]
            fine = [v for v in left if not game.failed[s, i, v, k]]
            kept = [v for v in fine if keeps(s, i, v)] or fine or left
            moves[s, i] = [v in kept for v in range(4)]
    return moves, np.array(won).T


def shielded(
    shield: Shield, game: Histories, inputs: Sequence[Mapping[str, float]]
) -> tuple[np.ndarray, ...]:
    """What a shield says of each history: masks by input, what is winning, and the failures told of each letter."""
    letters = [(i, v) for i in range(len(inputs)) for v in range(4)]
    signals = {name: jnp.array([inputs[i][name] for i, _ in letters], jnp.float32) for name in inputs[0]}
    verdict = jnp.array([v for _, v in letters], jnp.int32)
    masks, won, told = [], [], []

    def at_once(state: Any) -> Any:  # all letters of a block of histories
        spread = jax.tree.map(lambda leaf: jnp.repeat(leaf[:, None], len(letters), axis=1), state)
        many = {name: jnp.broadcast_to(each, (_BLOCK, len(letters))) for name, each in signals.items()}
        later, failed = shield.step(spread, many, jnp.broadcast_to(verdict, (_BLOCK, len(letters))))
        return shield.mask(spread, many)[:, ::4], shield.winning(state), failed, later

    states = jax.tree.map(np.asarray, shield.init(1))
    at_once = jax.jit(at_once)
    for came, following in itertools.zip_longest(game.levels, game.levels[1:]):
        later = []
        for first in range(0, len(came), _BLOCK):
            block = jax.tree.map(lambda leaf, first=first: leaf[first : first + _BLOCK], states)
            size = min(_BLOCK, len(came) - first)
            padded = jax.tree.map(
                lambda leaf: np.concatenate([leaf] + [leaf[:1]] * (_BLOCK - len(leaf))), block
            )
            found = jax.tree.map(lambda leaf, size=size: np.asarray(leaf)[:size], at_once(padded))
            for kept, each in zip((masks, won, told, later), found, strict=True):
                kept.append(each)
        everywhere = jax.tree.map(lambda *leaves: np.concatenate(leaves), *later)
        reached = tuple(np.array(following or [(0, 0)]).T)
        states = jax.tree.map(lambda leaf, reached=reached: leaf[reached], everywhere)
    return tuple(np.concatenate(each) for each in (masks, won, told))


def brute_force(specs: Sequence[Phi], values: Mapping[str, Sequence[float]]) -> dict[str, int]:
    """Compares a shield's masks with those of the game over all histories, whatever was answered before.

    Returns the number of histories, of pairs of history and input, of verdicts that the game and that both allow, of
    those that only the shield allows, of histories in which ``winning`` differs, and of failures told otherwise.
    """
    specs = sorted(specs, key=lambda phi: phi.priority)
    inputs = [dict(zip(values, each, strict=True)) for each in itertools.product(*values.values())]
    game = histories(specs, inputs)
    moves, won = solution(game)
    shield = Shield([(phi.name, phi.formula, phi.priority) for phi in specs])
    masks, winning, told = shielded(shield, game, inputs)
    return {
        "histories": len(moves),
        "pairs": len(moves) * len(inputs),
        "allowed_by_game": int(moves.sum()),
        "allowed_by_shield": int((masks & moves).sum()),
        "only_by_shield": int((masks & ~moves).sum()),
        "winning_differs": int((winning != won).sum()),
        "failures_differ": int((told.reshape(game.failed.shape) != game.failed).sum()),
    }


# Adversaries that play many steps in lanes.

ADVERSARIES = ("random", "greedy", "cyclic")


@dataclass(frozen=True)
class Played:
    """What happened, in arrays (step, lane, ...)."""

    signals: dict[str, np.ndarray]
    verdict: np.ndarray
    allowed: np.ndarray
    violated: np.ndarray
    winning: np.ndarray


def player(
    shield: Shield, values: Mapping[str, Sequence[float]], adversary: str, steps: int, lanes: int
) -> Callable[[int], Played]:
    """An adversary against a shielded policy, by seed: a third of the lanes answers at random within the mask, one as
    mildly and one as severely as it may.

    random: inputs are drawn, each lane with shares of its own; greedy: of all inputs that which, given what the policy
    will answer, leaves the fewest specifications winning and the fewest verdicts; cyclic: a pattern of up to 12 inputs
    a lane.
    """
    names = sorted(values)
    table = jnp.asarray(list(itertools.product(*(values[name] for name in names))), jnp.float32)
    n_inputs = len(table)
    kind = jnp.arange(lanes) % 3
    mild = jnp.arange(0.0, -4.0, -1.0)

    def inputs_of(chosen: Any) -> dict[str, Any]:
        return {name: table[chosen, at] for at, name in enumerate(names)}

    def answer(mask: Any, noise: Any) -> Any:
        wanted = jnp.where(
            (kind == 0)[:, None], noise, jnp.where((kind == 1)[:, None], mild[None], -mild[None])
        )
        return choose(mask, wanted)

    def worst(state: Any, noise: Any, key: Any) -> Any:
        def score(chosen: Any) -> Any:
            inputs = inputs_of(jnp.full(lanes, chosen))
            mask = shield.mask(state, inputs)
            later, violated = shield.step(state, inputs, answer(mask, noise))
            won = shield.winning(later).sum(-1) - violated.sum(-1)
            return won.astype(jnp.float32) + mask.sum(-1).astype(jnp.float32) / 8.0

        scores = jnp.stack([score(chosen) for chosen in range(n_inputs)])
        return jnp.argmin(scores + jax.random.uniform(key, scores.shape) / 16.0, axis=0)

    def advance(carry: Any, t: Any) -> Any:
        state, key, shares, pattern, period = carry
        key, key_input, key_answer = jax.random.split(key, 3)
        noise = jax.random.uniform(key_answer, (lanes, 4))
        if adversary == "greedy":
            chosen = worst(state, noise, key_input)
        elif adversary == "random":
            chosen = jax.random.categorical(key_input, shares)
        else:
            chosen = jnp.take_along_axis(pattern, (t % period)[:, None], axis=1)[:, 0]
        inputs = inputs_of(chosen)
        mask, won = shield.mask(state, inputs), shield.winning(state)
        verdict = answer(mask, noise)
        state, violated = shield.step(state, inputs, verdict)
        out = (
            chosen.astype(jnp.int8),
            verdict.astype(jnp.int8),
            mask.sum(-1).astype(jnp.int8),
            violated,
            won,
        )
        return (state, key, shares, pattern, period), out

    @jax.jit
    def run(key: Any) -> Any:
        key, key_shares, key_pattern, key_period = jax.random.split(key, 4)
        shares = 2.0 * jax.random.normal(key_shares, (lanes, n_inputs))
        pattern = jax.random.randint(key_pattern, (lanes, 12), 0, n_inputs)
        period = jax.random.randint(key_period, (lanes,), 1, 13)
        carry = shield.init(lanes), key, shares, pattern, period
        return jax.lax.scan(advance, carry, jnp.arange(steps))[1]

    def played(seed: int) -> Played:
        chosen, verdict, allowed, violated, winning = map(np.asarray, run(jax.random.key(seed)))
        signals = {name: np.asarray(table)[chosen, at] for at, name in enumerate(names)}
        return Played(signals, verdict, allowed, violated, winning)

    return played


def faults(specs: Sequence[Phi], played: Played) -> dict[str, int]:
    """Counts what must not happen, by robustness on the recorded traces.

    empty: masks without a verdict; shieldable: violations told although the specification was winning; unexplained:
    samples at which it is violated by robustness, and no violation from a state that was not winning is told where that
    sample is decided; invented: violations told where robustness sees none. violated: samples violated by robustness,
    which may happen.
    """
    specs = sorted(specs, key=lambda phi: phi.priority)
    steps, lanes = played.verdict.shape
    found = {
        "steps": steps * lanes,
        "empty": int((played.allowed == 0).sum()),
        "shieldable": int((played.violated & played.winning).sum()),
        "unexplained": 0,
        "invented": 0,
        "violated": 0,
    }
    effects = {name: np.array(each, np.float64) for name, each in EFFECTS.items()}
    for lane in range(lanes):
        trace = {name: each[:, lane] for name, each in played.signals.items()}
        trace |= {name: each[played.verdict[:, lane]] for name, each in effects.items()}
        for k, phi in enumerate(specs):
            bad = robustness(phi.parsed, {name: trace[name] for name in phi.parsed.signals}) < 0.0
            bad = bad[: steps - phi.ahead]
            told = played.violated[:, lane, k]
            found["violated"] += int(bad.sum())
            explained = _near(told & ~played.winning[:, lane, k], phi.back, phi.ahead)
            found["unexplained"] += int((bad & ~explained[: bad.size]).sum())
            found["invented"] += int((told[: bad.size] & ~_near(bad, phi.ahead, 0)).sum())
    return found


def _near(where: np.ndarray, back: int, ahead: int) -> np.ndarray:
    """Whether it is true at any of the samples from so many before to so many after."""
    total = np.concatenate([[0], np.cumsum(where)])
    t = np.arange(where.size)
    return total[np.minimum(t + ahead + 1, where.size)] > total[np.maximum(t - back, 0)]
