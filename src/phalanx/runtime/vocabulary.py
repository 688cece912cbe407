"""What the ids and scaled numbers of an observation stand for, found by the names of its columns."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax.numpy as jnp
from jaxtyping import Array, Float

from phalanx.data.encoder import Encoder
from phalanx.envs.base import Environment

__all__ = ["UNSEEN_TEXT", "NumberScale", "Vocabulary", "program_of"]

UNSEEN_TEXT = "<unseen>"
"""Stands for a value that the encoder does not know."""


@dataclass(frozen=True)
class NumberScale:
    """How a numeric column was scaled: ``(sign(x) log(1 + |x|) - mean) / std``."""

    place: int
    mean: float
    std: float

    def raw(self, scaled: Float[Array, "..."]) -> Float[Array, "..."]:
        """The number before scaling, rounded to a whole one (exact for ports, user ids and small sizes).

        Example:
            >>> float(NumberScale(0, 1.0, 2.5).raw(jnp.asarray((jnp.log1p(22.0) - 1.0) / 2.5)))
            22.0
        """
        logs = scaled * self.std + self.mean
        return jnp.round(jnp.sign(logs) * jnp.expm1(jnp.abs(logs)))


@dataclass(frozen=True)
class Vocabulary:
    """The columns of an environment, by name.

    Attributes:
        places: categorical column -> its place in ``Observation.category``.
        values: categorical column -> the text of each id ("" for a missing value, ``UNSEEN_TEXT`` for an unknown one).
        scales: numeric column of the events -> its place and scale.
        numbers: any numeric column, context and statistics included -> its place.
    """

    places: Mapping[str, int] = field(default_factory=dict)
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    scales: Mapping[str, NumberScale] = field(default_factory=dict)
    numbers: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, env: Environment) -> "Vocabulary":
        """The vocabulary of an environment; without values where it has no encoder."""
        numbers = {column.name: place for place, column in enumerate(env.spec.numeric)}
        encoder: Encoder | None = getattr(env, "encoder", None)
        if encoder is None:
            return cls(numbers=numbers)
        return cls(
            places={column.name: place for place, column in enumerate(encoder.categories)},
            values={column.name: (UNSEEN_TEXT, "", *column.values) for column in encoder.categories},
            scales={
                column.name: NumberScale(place, column.mean, column.std)
                for place, column in enumerate(encoder.numbers)
            },
            numbers=numbers,
        )


def program_of(command: str) -> str:
    """The program that a command line runs.

    Example:
        >>> program_of("/usr/bin/python3 -c task"), program_of("scanner --service"), program_of("")
        ('python3', 'scanner', '')
    """
    words = command.split()
    return words[0].rsplit("/", 1)[-1] if words else ""
