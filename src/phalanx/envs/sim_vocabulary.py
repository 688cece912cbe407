"""How simulated events are shown: the catalogue's vocabulary as an encoder, and one event as an observation."""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from phalanx.data.encoder import Encoder
from phalanx.data.rolling import rolling_step
from phalanx.envs.catalogue import COMMANDS, COMMANDS_PER_PROGRAM, KINDS, OBJECT_KINDS, PATHS, PROGRAMS
from phalanx.envs.response import ResponseConfig, ResponseState, context_features
from phalanx.envs.sim_event import Event
from phalanx.envs.sim_tables import Tables
from phalanx.envs.sim_world import World
from phalanx.types import Observation

__all__ = ["VOCABULARY", "catalogue_encoder", "observe"]

VOCABULARY: dict[str, tuple[str, ...]] = {
    "kind": KINDS,
    "object_kind": OBJECT_KINDS,
    "path": PATHS,
    "command": COMMANDS,
    "parent_command": (*COMMANDS, ""),
}
"""Raw values of the categorical columns, by the catalogue's numbers; no parent comes last."""

_NUMBERS = {"size": (6.0, 5.0), "count": (2.0, 2.5), "remote_port": (1.0, 2.5), "uid": (4.0, 3.0)}
_GROUPS = {
    "kind": "common",
    "object_kind": "file",
    "path": "file",
    "command": "process",
    "parent_command": "process",
    "size": "file",
    "count": "common",
    "remote_port": "network",
    "uid": "identity",
}


def catalogue_encoder() -> Encoder:
    """The encoder of the catalogue's vocabulary, for the simulator and for tables that it wrote.

    Commands of held-out programs are no part of it: they show as values that training never saw.
    """
    known = {name: tuple(value for value in raw if value) for name, raw in VOCABULARY.items()}
    unseen = {
        COMMANDS[index * COMMANDS_PER_PROGRAM + variant]
        for index, program in enumerate(PROGRAMS.values())
        for variant in range(COMMANDS_PER_PROGRAM)
        if program.held_out
    }
    for name in ("command", "parent_command"):
        known[name] = tuple(value for value in known[name] if value not in unseen)
    return Encoder.from_vocabulary(known, _NUMBERS, groups=_GROUPS)


def observe(
    config: ResponseConfig,
    encoder: Encoder,
    tables: Tables,
    lookup: Mapping[str, Int[Array, " value"]],
    world: World,
    response: ResponseState,
    event: Event,
) -> tuple[World, Observation]:
    """Shows an event: its ids and numbers, its process's statistics and the state of the response.

    Args:
        config: of the response.
        encoder: scales the numbers.
        tables: the catalogue.
        lookup: ids of the raw values of ``VOCABULARY``.
        world: the processes; the acting one's statistics are updated.
        response: what earlier verdicts left behind.
        event: to be shown.
    """
    entity = event.entity
    fresh = world.first[entity]
    before = jax.tree.map(lambda x: jnp.where(fresh, jnp.zeros((), x.dtype), x[entity]), world.rolling)
    after, rolling = rolling_step(before, tables.event_class[event.template], event.time_s)
    acting = jnp.arange(world.alive.shape[0]) == entity

    def put(new: Array, old: Array) -> Array:
        return jnp.where(acting.reshape(-1, *(1,) * new.ndim), new, old)

    world = eqx.tree_at(
        lambda w: (w.rolling, w.first),
        world,
        (jax.tree.map(put, after, world.rolling), world.first & ~acting),
    )
    parent = world.parent_command[entity]
    category = jnp.stack(
        [
            lookup["kind"][tables.kind[event.template]],
            lookup["object_kind"][tables.object_kind[event.template]],
            lookup["path"][event.path],
            lookup["command"][world.command[entity]],
            lookup["parent_command"][jnp.where(parent >= 0, parent, len(COMMANDS))],
        ]
    )
    raw = jnp.stack([event.size, event.count, event.port.astype(jnp.float32), event.uid.astype(jnp.float32)])
    context = context_features(config, response, entity, event.time_s)
    numeric = jnp.concatenate([encoder.scale(raw), rolling, context])
    return world, Observation(category=category, numeric=numeric, entity=entity, source=event.source)
