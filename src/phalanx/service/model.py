"""What decides live: the kept committee of a run, its operating point, and what it is shown."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from phalanx.data.encoder import Encoder
from phalanx.envs.base import Environment
from phalanx.envs.response import CONTEXT_COLUMNS
from phalanx.errors import UsageError
from phalanx.runtime.checkpoints import tree_to_bytes
from phalanx.runtime.config import RunConfig
from phalanx.runtime.cut import Cut, cut_of
from phalanx.runtime.decide import Committee, shielded
from phalanx.runtime.kept import load_committee
from phalanx.runtime.store import RunFolder, run_folders
from phalanx.runtime.task import build_task
from phalanx.service.live import watchable
from phalanx.stl.shield import Shield
from phalanx.stl.specs import Spec
from phalanx.types import ObservationSpec

__all__ = ["Model", "load_model"]


@dataclass(frozen=True)
class Model:
    """What decides: a committee at its operating point, and what turns events into what it is shown.

    Attributes:
        committee: deployed; behind its shield where it has one.
        threshold: its operating point, None: each member's likeliest verdict.
        memory_size: numbers per memory.
        encoder: of the run.
        specs: what is watched and explained.
        digest: SHA-256 over all of this, in hexadecimal digits.
    """

    committee: Committee
    threshold: float | Cut | None
    memory_size: int
    encoder: Encoder
    specs: tuple[Spec, ...]
    digest: str


def load_model(run: Path, *, specs: Sequence[Spec] = (), shield: Sequence[Spec] = ()) -> Model:
    """The kept committee of a run; of several seeds the first.

    Args:
        run: run folder.
        specs: to watch beside those of the run and of the shield; those that read the truth are left out.
        shield: specifications that a shield keeps; none: no shield.

    Raises:
        RunError: no run, or a damaged one.
        UsageError: a run whose committee cannot answer live events.
    """
    folder = run_folders(run)[0]
    config = RunConfig.of(folder.config())
    if config.is_original:
        raise UsageError(
            f"{run}: the original's committee reads whole tables; serve a run of the default preset"
        )
    encoder = Encoder.from_dict(json.loads(folder.read_encoder()))
    committee, point = load_committee(
        folder, config, cast(Environment, _Shown(_shown(config, folder, encoder)))
    )
    if shield:
        committee = shielded(committee, Shield(shield))
    watched = {each.name: each for each in (*folder.read_specs(), *shield, *specs)}
    kept = watchable(committee, tuple(watched.values()))
    content = hashlib.sha256(tree_to_bytes(committee))
    content.update(
        json.dumps(
            [
                point["threshold"],
                point.get("alert_threshold", point["threshold"]),
                config.network.memory_size,
                encoder.to_dict(),
                [each.formula.text for each in kept],
                [each.formula.text for each in shield],
            ],
            sort_keys=True,
        ).encode()
    )
    return Model(committee, cut_of(point), config.network.memory_size, encoder, kept, content.hexdigest())


@dataclass(frozen=True)
class _Shown:
    """An environment of which only what it shows matters."""

    spec: ObservationSpec


def _shown(config: RunConfig, folder: RunFolder, encoder: Encoder) -> ObservationSpec:
    """What the run's committee observes."""
    if config.env == "simulator":
        return build_task(config, encoder, folder.read_specs()).test.watch.spec
    return encoder.spec(config.entities, CONTEXT_COLUMNS)
