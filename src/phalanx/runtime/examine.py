"""Builds the task that a run would train on from recorded events, for the doctor to examine before any training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from phalanx.analysis.doctor import DataTask, Finding, examine_task
from phalanx.analysis.doctor.rehearsal import Rehearsal
from phalanx.data.encoder import Encoder
from phalanx.data.events import TRUTH_COLUMNS, EventTable
from phalanx.data.features import is_identity, is_truth
from phalanx.data.readers import read_events
from phalanx.data.splits import split_rows
from phalanx.envs.original import FEATURES, task_reward
from phalanx.envs.stream import TaskReward
from phalanx.errors import DataError, UsageError, unknown_name
from phalanx.runtime.config import RunConfig
from phalanx.runtime.rehearsal import rehearse
from phalanx.runtime.task import default_split

__all__ = ["Question", "examine"]

_ASSUMED = (
    "the notebook's seven columns are there, so its task is judged: those columns, its reward, three members; "
    "--preset default judges another"
)

_PRESETS = ("default", "original")
_ORIGINAL_SEED = 42
_WHO = ("host", "subject", "parent", "object")


@dataclass(frozen=True)
class Question:
    """A task before training.

    Attributes:
        data: recorded events, anything that ``phalanx ingest`` reads.
        label: source column of the truth; the reader's own choice unless given.
        features: columns that members see; those that training would choose unless given.
        gamma: discount; .99 unless given.
        split: as in training; the one that training would choose unless given.
        preset: whose reward and features; ``original`` where the events have no campaigns, unless given.
        env: ``stream`` or ``replay``; ``replay`` where the events have campaigns, unless given.
        map: contract column -> source column.
        seed: of the split and the probes.
    """

    data: tuple[Path, ...]
    label: str | None = None
    features: tuple[str, ...] = ()
    gamma: float | None = None
    split: str | None = None
    preset: str | None = None
    env: str | None = None
    map: Path | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.gamma is not None and not 0.0 <= self.gamma <= 1.0:
            raise UsageError(f"--gamma {self.gamma}: expected a number from 0 to 1")
        if self.preset is not None and self.preset not in _PRESETS:
            raise unknown_name("preset", self.preset, _PRESETS)
        if self.preset == "original" and self.env == "replay":
            raise UsageError(
                "--preset original is a stream: its verdicts have no consequence. Leave out --env replay"
            )


def examine(question: Question) -> tuple[dict[str, Any], list[Finding], tuple[str, ...]]:
    """Figures of the task, findings, and notes on how it was read.

    Raises:
        UsageError: settings that do not go together.
        DataError: data that cannot be read or split, or that has no labels of both kinds.
    """
    read = read_events(question.data, label=question.label, mapping=question.map)
    table = read.table
    labels = table.labels
    if not {0, 1} <= set(np.unique(labels).tolist()):
        raise DataError(
            f"{question.data[0]}: the labels are {sorted(set(labels.tolist()))}; expected 0 and 1 among them. "
            "Name the column that holds the truth with --label"
        )
    campaigns = "campaign" in table.columns and bool((table.frame["campaign"] != "").any())
    original = question.preset == "original" or (question.preset is None and not campaigns)
    notebook = original and all(
        name in table.columns for name in FEATURES
    )  # its reward alone fits other data, too
    how = question.split or ("stratified" if notebook else default_split(table))
    splits = split_rows(table, how, seed=_ORIGINAL_SEED if notebook else question.seed)
    features = question.features or (FEATURES if notebook else None)
    encoder = Encoder.fit(table, splits.train, features=features)
    rows = np.arange(len(table))
    encoded = encoder.encode(table, rows)
    sources = {column.source for column in encoder.categories} | {column.name for column in encoder.numbers}
    preset = _preset(question, notebook)
    alone = table.frame["subject"].n_unique() == len(table)
    task = DataTask(
        frame=table.frame.drop(_hidden(table, question.label, sources, alone)),
        label=labels,
        chosen=tuple(name for name in table.columns if name in sources),
        identities=tuple(name for name in table.columns if name in _WHO or is_identity(name)),
        category=encoded.category,
        numeric=encoded.numeric,
        process=None if notebook or alone else encoded.subject,
        order=np.argsort(table.time_ns, kind="stable") if table.has_times else rows,
        timed=table.has_times,
        parts=splits.parts,
        split=how,
        reward=_reward(original),
        consequence=(question.env or ("replay" if campaigns and not original else "stream")) == "replay",
        gamma=0.99 if question.gamma is None else question.gamma,
        assumed=not notebook and question.env is question.preset is question.gamma is None,
        seed=question.seed,
        rehearsal=_rehearsal(preset, labels[splits.train], question.seed),
        members=RunConfig.preset_named(preset).members,
    )
    figures, findings = examine_task(task)
    figures |= {"split": how, "reward": "original" if original else "default"}
    chosen = [_ASSUMED] if notebook and question.preset is None else []
    bad = [f"{len(read.rejects)} bad rows were left out"] if read.rejects else []
    return figures, findings, (*chosen, *read.notes, *bad, *splits.notes, *encoder.notes)


def _preset(question: Question, notebook: bool) -> str:
    """What a run on these events would be: the original's where asked for or where its columns are, on its stream."""
    if question.env == "replay":
        return "default"
    return "original" if notebook or question.preset == "original" else "default"


def _rehearsal(preset: str, label: np.ndarray, seed: int) -> Rehearsal | None:
    """The preset's reward as fixed policies earn it on the training events; None where the task's is all of it."""
    known = label[label >= 0]
    return rehearse(known, seed=seed) if preset == "original" and len(known) else None


def _hidden(table: EventTable, label: str | None, sources: set[str], alone: bool) -> list[str]:
    """Columns that are no business of the checks: the truth, unless members see it, and what a reader filled in."""
    truth = [name for name in table.columns if name in (*TRUTH_COLUMNS, label) or is_truth(name)]
    filled_in = [*(["subject"] if alone else []), *([] if table.has_times else ["time_ns"])]
    return [name for name in (*truth, *filled_in) if name not in sources and name in table.columns]


def _reward(original: bool) -> np.ndarray:
    """Of each verdict on a benign and on a malicious event."""
    by_verdict = task_reward if original else TaskReward().by_verdict
    return np.stack([np.asarray(by_verdict(jnp.array(label)), float) for label in (0, 1)])
