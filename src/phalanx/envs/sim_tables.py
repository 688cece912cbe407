"""The catalogue as arrays, for one kind of world: which techniques attackers use, how much bait there is."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from phalanx.data.events import event_class_of
from phalanx.envs.catalogue import (
    AREAS,
    BEACON,
    ENTRY_PROGRAMS,
    KINDS,
    NOTABLE_SHARE,
    OBJECT_KINDS,
    PORTS,
    PROGRAMS,
    ROLES,
    STAGES,
    TECHNIQUES,
    TEMPLATES,
    Program,
)

__all__ = ["BEACON_INDEX", "Tables", "bait_templates", "build_tables", "program_mix"]

_COMMON = 0.02
"""Mean share over the programs from which on a template is ordinary work, not bait."""

_FILE_SHARES = {"open": 0.17, "read": 0.355, "write": 0.245, "close": 0.23}
_DRIFT = 0.6
"""How far a drifted program's file work moves to its next area."""

_MIMIC_FLOOR = 1e-4


class Tables(eqx.Module):
    """The catalogue as arrays.

    Attributes:
        kind, object_kind, area, event_class: indices per template.
        log_size: mean log bytes per template, 0 where it has no size.
        log_count: mean log of the operations that a record stands for, 0 where it is always one.
        port: remote port per template and variant.
        bait: 1 where an attack technique uses the template and benign programs use it rarely.
        mix: cumulative shares of the templates; rows: programs, programs after the drift, techniques.
        mimic: the same of each technique's templates weighted by each program's own, row by technique and program.
        child: cumulative shares of the programs that a program starts.
        rate: records per program, relative, in thousandths.
        uid: per program.
        roles: long-lived programs per role.
        day: swing of the pace between night and day per role, in thousandths.
        entry: program that an attacker runs in a child of each program, -1 where he cannot come in.
        technique: number of a stage's first technique.
        choices: techniques that it has to choose from.
        needed, damage, child_of, moves, skipped: per stage, see ``catalogue.Stage``.
        log_delay: logs of the shortest and the longest delay per stage.
        gap_s: per stage.
    """

    kind: Int[Array, " template"]
    object_kind: Int[Array, " template"]
    area: Int[Array, " template"]
    event_class: Int[Array, " template"]
    log_size: Float[Array, " template"]
    log_count: Float[Array, " template"]
    port: Int[Array, "template 4"]
    bait: Int[Array, " template"]
    mix: Float[Array, "row template"]
    mimic: Float[Array, "technique program template"]
    child: Float[Array, "program program"]
    rate: Int[Array, " program"]
    uid: Int[Array, " program"]
    roles: Int[Array, "role process"]
    day: Int[Array, " role"]
    entry: Int[Array, " program"]
    technique: Int[Array, " stage"]
    choices: Int[Array, " stage"]
    needed: Int[Array, " stage"]
    damage: Float[Array, " stage"]
    child_of: Int[Array, " stage"]
    moves: Int[Array, " stage"]
    skipped: Float[Array, " stage"]
    log_delay: Float[Array, "stage 2"]
    gap_s: Float[Array, " stage"]


def bait_templates() -> dict[str, bool]:
    """Whether each template is bait: of use to an attack technique, and rare in benign work.

    Example:
        >>> bait_templates()["read_cred"], bait_templates()["read_lib"]
        (True, False)
    """
    used = {name for technique in TECHNIQUES for name in technique.mix}
    mean = np.mean([_shares(program_mix(p)) for p in PROGRAMS.values() if not p.held_out], axis=0)
    return {name: bool(name in used and mean[i] < _COMMON) for i, name in enumerate(TEMPLATES)}


def program_mix(program: Program, *, bait: float = 1.0, drifted: bool = False) -> dict[str, float]:
    """Weights of the templates among a program's records.

    Args:
        program: whose.
        bait: factor on all but births and routine work.
        drifted: its file work has moved on to other areas.
    """
    areas = _drifted(program.areas) if drifted else program.areas
    total = sum(areas.values())
    operations = {
        f"{verb}_{area}": program.file * weight / total * share
        for area, weight in areas.items()
        for verb, share in _FILE_SHARES.items()
    }
    network = "lan" if program.lan else "web"
    operations |= {
        "mmap": program.memory,
        "mprotect": program.protect,
        f"recv_{network}": program.receive,
        f"send_{network}": program.send,
    }
    scale = (1.0 - NOTABLE_SHARE) / sum(operations.values())
    weights = {name: value * scale for name, value in operations.items()}
    notable = {name: w * (1.0 if name == "fork" else bait) for name, w in program.notable.items()}
    scale = NOTABLE_SHARE / sum(program.notable.values())
    for name, value in notable.items():
        weights[name] = weights.get(name, 0.0) + value * scale
    return weights


def _drifted(areas: dict[str, float]) -> dict[str, float]:
    """Each area's work moves in part to the program's next area."""
    names = tuple(areas)
    return {
        name: (1.0 - _DRIFT) * areas[name] + _DRIFT * areas[names[index - 1]]
        for index, name in enumerate(names)
    }


def _shares(weights: dict[str, float]) -> np.ndarray:
    row = np.array([weights.get(name, 0.0) for name in TEMPLATES], np.float64)
    return row / row.sum()


def _cumulative(shares: np.ndarray) -> np.ndarray:
    return np.cumsum(shares, axis=-1).astype(np.float32)


def _children(program: Program, held_out: bool) -> np.ndarray:
    weights = np.array([program.children.get(name, 0.0) for name in PROGRAMS])
    if held_out and program.job == "scheduled jobs":  # new administration comes in as other scheduled jobs do
        new = np.array([2.0 * other.held_out for other in PROGRAMS.values()])
        weights = weights + new
    return weights / weights.sum()


def _technique_choice(held_out: bool) -> tuple[list[int], list[int]]:
    """The first technique of each stage and how many there are to choose from."""
    first, choices, at = [], [], 0
    for stage in STAGES.values():
        known = sum(not t.held_out for t in stage.techniques)
        assert all(t.held_out for t in stage.techniques[known:]), "held-out techniques come last"
        new = len(stage.techniques) - known
        first.append(at + known if held_out and new else at)
        choices.append(new if held_out and new else known)
        at += len(stage.techniques)
    return first, choices


def build_tables(*, bait: float = 1.0, new_bait: bool = False, new_techniques: bool = False) -> Tables:
    """The catalogue as arrays.

    Args:
        bait: factor on how often benign work looks like an attack.
        new_bait: held-out programs run as well.
        new_techniques: attackers use the held-out techniques, where a stage has some, instead of the others.
    """
    areas, programs, templates = tuple(AREAS), tuple(PROGRAMS), tuple(TEMPLATES.values())
    now = np.stack([_shares(program_mix(p, bait=bait)) for p in PROGRAMS.values()])
    later = np.stack([_shares(program_mix(p, bait=bait, drifted=True)) for p in PROGRAMS.values()])
    attack = np.stack([_shares(technique.mix) for technique in TECHNIQUES])
    mimic = attack[:, None, :] * (now + _MIMIC_FLOOR)[None]
    mimic /= mimic.sum(axis=-1, keepdims=True)
    first, choices = _technique_choice(new_techniques)
    stages = tuple(STAGES.values())

    def index(values: list[int]) -> Int[Array, " item"]:
        return jnp.asarray(np.array(values, np.int32))

    def number(values: list[float]) -> Float[Array, " item"]:
        return jnp.asarray(np.array(values, np.float32))

    return Tables(
        kind=index([KINDS.index(t.kind) for t in templates]),
        object_kind=index([OBJECT_KINDS.index(t.object_kind) for t in templates]),
        area=index([areas.index(t.area) for t in templates]),
        event_class=index([event_class_of(t.kind) for t in templates]),
        log_size=number([t.log_size for t in templates]),
        log_count=number([float(np.log(t.count)) for t in templates]),
        port=jnp.asarray(np.array([PORTS[t.port] for t in templates], np.int32)),
        bait=index([int(flag) for flag in bait_templates().values()]),
        mix=jnp.asarray(_cumulative(np.concatenate([now, later, attack]))),
        mimic=jnp.asarray(_cumulative(mimic)),
        child=jnp.asarray(_cumulative(np.stack([_children(p, new_bait) for p in PROGRAMS.values()]))),
        rate=index([round(1000 * p.rate) for p in PROGRAMS.values()]),
        uid=index([p.uid for p in PROGRAMS.values()]),
        roles=jnp.asarray(
            np.array([[programs.index(p) for p in role.programs] for role in ROLES.values()], np.int32)
        ),
        day=index([round(1000 * role.day) for role in ROLES.values()]),
        entry=index([programs.index(ENTRY_PROGRAMS[p]) if p in ENTRY_PROGRAMS else -1 for p in programs]),
        technique=index(first),
        choices=index(choices),
        needed=index([s.needed for s in stages]),
        damage=number([s.damage for s in stages]),
        child_of=index([programs.index(s.child) if s.child else -1 for s in stages]),
        moves=index([int(s.moves) for s in stages]),
        skipped=number([s.skipped for s in stages]),
        log_delay=jnp.asarray(np.log(np.array([s.delay_s for s in stages], np.float32))),
        gap_s=number([s.gap_s for s in stages]),
    )


BEACON_INDEX = TECHNIQUES.index(BEACON)
"""Number of the beacon among the techniques."""
