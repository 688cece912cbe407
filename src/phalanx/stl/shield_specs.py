"""What a shield is given, checked: specifications in any of their forms, and the signals that a verdict sets."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from phalanx.errors import UsageError
from phalanx.stl.arguments import expect_mapping, number
from phalanx.stl.demands import Budget, Obligation, demands_of
from phalanx.stl.formula import Formula
from phalanx.stl.parser import parse
from phalanx.stl.places import named
from phalanx.types import N_VERDICTS

__all__ = ["ShieldSpec", "effects_of", "shield_specs"]


@dataclass(frozen=True)
class ShieldSpec:
    """What a shield shall keep.

    Attributes:
        name: for people.
        formula: ``always PHI``, or its text.
        priority: the lower, the earlier: where not all can be kept, the later ones give way.
        source: the file that it is from.
    """

    name: str
    formula: Formula | str
    priority: int = 0
    source: str = ""

    def demands(self, effects: Mapping[str, Sequence[float]]) -> list[Obligation | Budget]:
        """What it asks for; errors name it."""
        try:
            return demands_of(parse(self.formula), effects)
        except UsageError as error:
            where = f"{self.source}: " if self.source else ""
            raise named(error, f"{where}specification {self.name!r}") from None


def shield_specs(given: Iterable[Any]) -> list[ShieldSpec]:
    """Specifications in the order of their priorities.

    Args:
        given: (name, formula, priority) each, or objects with these attributes.

    Raises:
        UsageError: what is none, a name twice, none at all, a period other than 1 s.

    Example:
        >>> [each.name for each in shield_specs([("b", "always x > 0", 2), ("a", "always y > 0", 1)])]
        ['a', 'b']
    """
    if isinstance(given, str | bytes) or not isinstance(given, Iterable):
        raise UsageError(f"specs: expected a list of specifications, got {type(given).__name__}")
    found = sorted(map(_spec, given), key=lambda each: each.priority)
    names = tuple(each.name for each in found)
    if len(set(names)) < len(names) or not names:
        raise UsageError(f"specifications need names of their own, and there has to be one; given: {names}")
    return found


def _spec(given: Any) -> ShieldSpec:
    each: Any = ShieldSpec(*given) if isinstance(given, tuple) and 2 <= len(given) <= 4 else given
    if not all(hasattr(each, name) for name in ("name", "formula", "priority")):
        raise UsageError(
            f"specification {given!r}: expected (name, formula, priority), or what read_specs() returns"
        )
    if not isinstance(each.name, str):
        raise UsageError(f"specification {each.name!r}: expected a text as its name")
    if math.isnan(number(each.priority)):
        raise UsageError(f"specification {each.name!r}: priority {each.priority!r} is no number")
    if getattr(each, "period_s", 1.0) != 1.0:
        raise UsageError(f"specification {each.name!r}: a shield counts samples; its @period has to be 1 s")
    return ShieldSpec(each.name, each.formula, each.priority, getattr(each, "source", ""))


def effects_of(given: Mapping[str, Sequence[float]]) -> dict[str, tuple[float, ...]]:
    """The signals that a verdict sets (``demands.EFFECTS``), as numbers.

    Raises:
        UsageError: no mapping, or not one number for each verdict.
    """
    expect_mapping("effects", given)
    found = {}
    for name, values in given.items():
        each = tuple(map(number, values)) if isinstance(values, Iterable) else ()
        if len(each) != N_VERDICTS or any(map(math.isnan, each)):
            raise UsageError(
                f"effect {name!r} {values!r}: expected {N_VERDICTS} numbers, one for each verdict"
            )
        found[name] = each
    return found
