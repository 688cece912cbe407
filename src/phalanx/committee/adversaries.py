"""Liars and crashes by name, and what is received of a committee that holds some.

``hear`` turns the opinions that members honestly hold into what they tell one another and the votes that are
received. It assumes that an opinion told is told to all alike: a network has to see to that (vote extensions of the
height before, say), for a liar that tells each member something else would split whether they answer.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from phalanx.committee import attacks
from phalanx.committee.faults import HONEST, NOTHING, Faults, Respond, Scene, Speech, Statements, Threat, say
from phalanx.committee.learned import learned
from phalanx.errors import UsageError, unknown_name

__all__ = ["ADVERSARIES", "HELD_OUT", "TRAINING", "Adversary", "hear", "scene_of", "threat_of"]


@dataclass(frozen=True)
class Adversary:
    """A kind of faulty member.

    Attributes:
        attack: what it says.
        about: in a few words.
        trains: whether committees may learn beside it; the others are kept for tests.
    """

    attack: Callable[[Scene], Speech]
    about: str
    trains: bool = False


ADVERSARIES: dict[str, Adversary] = {
    "random": Adversary(attacks.random, "a verdict at random", trains=True),
    "flip": Adversary(attacks.flip, "allow where it would answer, else quarantine", trains=True),
    "collude": Adversary(attacks.collude, "all the same: what moves the verdict most", trains=True),
    "silent": Adversary(attacks.silent, "nothing is received of it", trains=True),
    "sleeper": Adversary(attacks.sleeper, "honest until it wakes, then flip", trains=True),
    "learned": Adversary(learned, "what a trained policy wants", trains=True),
    "targeted": Adversary(attacks.suspicious_only, "allow where the committee would answer"),
    "targeted-benign": Adversary(attacks.raise_alarms, "quarantine where the committee would allow"),
    "targeted-process": Adversary(attacks.protect, "allow whatever one process does"),
    "worst-case": Adversary(attacks.worst_case, "the most harmful of all that can be said and voted"),
    "omit": Adversary(attacks.omit, "its proposer leaves out up to f honest votes"),
    "worst-proposer": Adversary(attacks.worst_proposer, "worst-case and omit together"),
}
"""Adversaries by name."""

TRAINING = tuple(name for name, each in ADVERSARIES.items() if each.trains and name != "learned")
"""Those that committees learn beside; ``learned`` joins them where one was trained."""

HELD_OUT = tuple(name for name, each in ADVERSARIES.items() if not each.trains)
"""Those that no committee has met in training."""


def threat_of(
    kinds: Sequence[str], most: int, *, n_members: int, horizon: int, n_entities: int, drawn: bool = False
) -> Threat:
    """What may go wrong, checked.

    Args:
        kinds: names of ``ADVERSARIES``.
        most: faulty members at a time, 1 to ``n_members``.
        n_members: size of the committee.
        horizon, n_entities, drawn: see ``Threat``.

    Raises:
        UsageError: an unknown name, none at all, or a number of members that is not there.

    Example:
        >>> threat_of(["flip"], 1, n_members=4, horizon=100, n_entities=8).most
        1
    """
    if not kinds:
        raise UsageError(f"no adversary; choose from {', '.join(ADVERSARIES)}")
    for kind in kinds:
        if kind not in ADVERSARIES:
            raise unknown_name("adversary", kind, ADVERSARIES)
    if not 1 <= most <= n_members:
        raise UsageError(f"{most} faulty members of {n_members}; expected 1 to {n_members}")
    return Threat(tuple(kinds), most, horizon, n_entities, drawn)


def scene_of(
    faults: Faults,
    log_probs: Float[Array, "member env verdict"],
    respond: Respond,
    f: int,
    entity: Int[Array, " env"],
) -> Scene:
    """What adversaries know of one event per environment; arguments as of ``hear``."""
    return Scene(log_probs, faults, respond, f, entity, jax.random.fold_in(faults.key, 2 * faults.clock))


def hear(
    faults: Faults,
    log_probs: Float[Array, "member env verdict"],
    respond: Respond,
    f: int,
    entity: Int[Array, " env"],
) -> Statements:
    """What is received of the members on one event per environment.

    Args:
        faults: who is faulty, and how.
        log_probs: opinions that all members honestly hold.
        respond: how members vote on what they are told.
        f: faults that the rule tolerates.
        entity: memory slot of the acting process.
    """
    scene = scene_of(faults, log_probs, respond, f, entity)
    speeches = [ADVERSARIES[kind].attack(scene) for kind in faults.threat.kinds]
    speech = speeches[0]
    for place, other in enumerate(speeches[1:], start=1):
        here = (faults.kind == place)[:, None]
        speech = jax.tree.map(lambda new, old, here=here: jnp.where(here, new, old), other, speech)
    told, heard = say(log_probs, faults.faulty, speech.opinion)
    own = respond(told, heard)
    code = jnp.where(faults.faulty, speech.vote, HONEST)
    received = (code != NOTHING) & speech.kept
    votes = jnp.where(received, jnp.where(code >= 0, code, own), -1)
    return Statements(told=told, heard=heard, votes=votes, received=received, own=own)
