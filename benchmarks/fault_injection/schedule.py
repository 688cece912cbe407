"""Which faults, where, in which order and for how long: from a seed alone."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from phalanx.service.consensus.crash import REQUESTS

__all__ = ["BOUNDARIES", "NEED_SPACES", "WEIGHTS", "Fault", "schedule"]

WEIGHTS = {
    "kill the application": 5,
    "kill the engine": 5,
    "kill application and engine": 5,
    "kill at an ABCI boundary": 18,
    "kill f + 1 nodes": 3,
    "pause the application": 5,
    "pause the engine": 5,
    "pause application and engine": 5,
    "partition: one node away": 6,
    "partition: two and two": 4,
    "partition: two nodes cannot hear each other": 5,
    "slow link": 4,
    "lossy link": 4,
    "slow and lossy, all links": 3,
    "kill behind lossy links": 3,
    "full disk": 4,
    "full disk, and killed": 3,
    "torn ledger": 6,
    "torn engine log": 6,
    "torn ledger and engine log": 3,
    "lost ledger": 3,
    "lost ledger and engine data": 3,
    "kill the enforcer": 4,
    "kill the enforcer between acting and writing": 4,
}
"""The kinds, and how often each comes among the others."""

NEED_SPACES = frozenset(
    kind for kind in WEIGHTS if "link" in kind or kind.startswith(("partition", "full disk"))
)
"""Kinds that need namespaces of networks and mounts."""

BOUNDARIES = tuple(f"{request}:{when}" for request in REQUESTS[:-1] for when in ("before", "after"))
"""Where an application is killed; ``init_chain`` comes once a network, when that begins."""

_EACH = ("kill at an ABCI boundary",)


@dataclass(frozen=True)
class Fault:
    """One fault.

    Attributes:
        number: its place in the schedule.
        kind: a key of ``WEIGHTS``.
        places: the nodes that it befalls, those of one side where it parts them.
        seconds: how long it lasts, where it does.
        seed: for what else is drawn.
        boundary: where the application is killed, for that kind.
    """

    number: int
    kind: str
    places: tuple[int, ...]
    seconds: float
    seed: int
    boundary: str = ""


def schedule(seed: int, count: int, kinds: Sequence[str] = tuple(WEIGHTS), n: int = 4) -> tuple[Fault, ...]:
    """The faults of a run: each kind as often as its weight says, every boundary in turn.

    Args:
        seed: of the run.
        count: how many.
        kinds: of ``WEIGHTS``.
        n: nodes.

    Example:
        >>> [fault.kind for fault in schedule(0, 2, ["full disk", "torn ledger"])]
        ['torn ledger', 'full disk']
    """
    dice = random.Random(seed)
    boundaries = _in_turn(dice, BOUNDARIES)
    order = [kind for kind, _ in zip(_in_turn(dice, _spread(kinds)), range(count), strict=False)]
    return tuple(
        Fault(
            number,
            kind,
            tuple(sorted(dice.sample(range(n), 2 if kind in _PAIRS else 1))),
            round(dice.uniform(0.2, 5.0) if dice.random() < 0.25 else dice.uniform(0.2, 2.0), 2),
            dice.randrange(2**32),
            f"{next(boundaries)}" if kind in _EACH else "",
        )
        for number, kind in enumerate(order)
    )


_PAIRS = frozenset(
    ["kill f + 1 nodes", "partition: two and two", "partition: two nodes cannot hear each other"]
)


def _spread(kinds: Sequence[str]) -> list[str]:
    """Each kind as often as its weight, divided so that a short run, too, has every kind."""
    least = min(WEIGHTS[kind] for kind in kinds)
    return [kind for kind in kinds for _ in range(round(WEIGHTS[kind] / least))]


def _in_turn(dice: random.Random, items: Sequence[str]) -> Iterator[str]:
    """All items in an order of chance, then all again in another."""
    while True:
        yield from dice.sample(list(items), len(items))
