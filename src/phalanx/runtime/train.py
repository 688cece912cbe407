"""Training: the loop around ``learner.iterate`` with checkpoints, metrics and resumption."""

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, TypeVar, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from phalanx.envs.constrained import Constrained
from phalanx.envs.original import OriginalEnv
from phalanx.errors import UsageError, unknown_name
from phalanx.runtime.config import RunConfig
from phalanx.runtime.fingerprint import check_unchanged, fingerprints
from phalanx.runtime.kept import best_so_far, choose_thresholds, keep_best
from phalanx.runtime.learner import TrainState, init_train_state, iterate, learner_config
from phalanx.runtime.original import OriginalState, check_original, init_originals, originals_step
from phalanx.runtime.progress import Progress
from phalanx.runtime.red_flags import ON_RED_FLAG, RedFlags
from phalanx.runtime.specifications import spec_file
from phalanx.runtime.store import RunFolder, run_folders
from phalanx.runtime.task import Task, build_task
from phalanx.runtime.validation import validate

__all__ = ["compiled_iteration", "initial_state", "train"]

State = TypeVar("State")

_LOG = logging.getLogger("phalanx")
_FREE_ON_RESUME = ("iterations", "eval_every", "checkpoint_every", "out", "cell")
_TRAINING_STREAM = 0  # all draws are from streams apart; 1 and 3 are validation's, 2 is evaluation's


def initial_state(config: RunConfig, task: Task) -> TrainState | OriginalState:
    """Fresh training states, stacked along a seed axis."""
    keys = jnp.stack(
        [jax.random.fold_in(jax.random.key(config.seed + i), _TRAINING_STREAM) for i in range(config.seeds)]
    )
    if config.is_original:
        return init_originals(config, cast(OriginalEnv, task.learn), keys)
    learner = learner_config(config)
    return eqx.filter_jit(jax.vmap(lambda env, key: init_train_state(env, learner, key), in_axes=(None, 0)))(
        task.learn, keys
    )


def train(
    config: RunConfig,
    *,
    resume: Path | None = None,
    progress: Callable[..., Progress] | None = None,
    on_red_flag: str | None = "warn",
) -> dict[str, Any]:
    """Trains a committee (several, with several seeds) and writes the run folder.

    Args:
        config: settings.
        resume: run to go on with; its checkpoint must fit the settings.
        progress: makes the display from the number of iterations.
        on_red_flag: ``warn`` logs what the doctor finds meanwhile, ``stop`` ends the run at its first error,
            None says nothing of it; the doctor is then asked only where the display shows what it says.

    Returns:
        What was reached: run folder, steps, time, and the validation of the kept checkpoint of each seed.

    Raises:
        UsageError: settings that cannot work, or an output folder in use.
        DataError: data that cannot be used.
        RunError: a run that cannot be resumed.
        RedFlagError: the run was stopped; its folder holds the state at that place.
    """
    if on_red_flag is not None and on_red_flag not in ON_RED_FLAG:
        raise unknown_name("--on-red-flag", on_red_flag, ON_RED_FLAG)
    path = resume or config.out or _free_folder(config)
    config = dataclasses.replace(
        config,
        out=path,
        data=tuple(source.resolve() for source in config.data),
        map=None if config.map is None else config.map.resolve(),
    )
    if resume is not None:
        parent = RunFolder.open(path)
        _check_resumable(config, RunConfig.of(parent.config()))
        if parent.read_data():
            check_unchanged(parent.read_data(), config.sources)
        done = min(max(each.checkpoints.iterations(), default=0) for each in run_folders(path))
        if done > config.iterations:
            raise UsageError(
                f"--iterations {config.iterations}: the run has done {done} already. Ask for more"
            )
    config = config.resolved
    if config.is_original:
        check_original(config)
    task = build_task(config, specs=(RunFolder.open(path).read_specs() or None) if resume else None)
    config = _without_idle_memory(config, task)
    folders = _folders(config, path, task, resume is not None)
    state = initial_state(config, task)
    start = 0
    if resume is not None:
        start, state = _resumed(folders, state)
    begun = time.monotonic()
    flags = RedFlags(path, on_red_flag, config.iterations, [folder.read_metrics() for folder in folders])
    try:
        _loop(config, task, folders, state, start, progress, flags)
        if isinstance(task.validation.watch, Constrained):
            choose_thresholds(config, task, folders)
    except KeyboardInterrupt:
        _LOG.info("%s", _what_is_kept(path, folders))
        raise
    return _summary(config, path, folders, time.monotonic() - begun, start)


def _what_is_kept(path: Path, folders: list[RunFolder]) -> str:
    """What an interrupted run has lost, and how it goes on."""
    done = len(folders[0].read_metrics())
    kept = min(max(folder.checkpoints.iterations(), default=0) for folder in folders)
    if not kept:
        return f"stopped after iteration {done}, before the first checkpoint: nothing is kept but {path}'s settings"
    return f"stopped after iteration {done}; phalanx train --resume {path} goes on from iteration {kept}"


def _without_idle_memory(config: RunConfig, task: Task) -> RunConfig:
    """Without a recurrent cell where every process has one event: nothing could be remembered, and it costs time."""
    if config.is_original or config.cell == "none" or task.learn.spec.n_entities > 1 or config.entities == 1:
        return config
    _LOG.info("every process has one event: --cell none")
    return dataclasses.replace(config, cell="none")


def _check_resumable(config: RunConfig, saved: RunConfig) -> None:
    """Refuses to go on with other settings: another split, say, would make test rows of rows already learned from.

    Raises:
        UsageError: a setting differs that a run cannot change on its way.
    """
    given, before = config.resolved.to_dict(), saved.resolved.to_dict()
    changed = [
        f"{name} {given[name]!r} (was {before[name]!r})"
        for name in before
        if name not in _FREE_ON_RESUME and given[name] != before[name]
    ]
    if changed:
        raise UsageError(
            f"--resume: {', '.join(changed)}: a run goes on with its own settings, except "
            f"{', '.join(_FREE_ON_RESUME)}. Train anew with --out for others"
        )


def _free_folder(config: RunConfig) -> Path:
    base = Path("runs") / f"{config.env}-{config.seed}"
    path, number = base, 1
    while path.exists():
        number += 1
        path = base.with_name(f"{base.name}-{number}")
    return path


def _folders(config: RunConfig, path: Path, task: Task, resume: bool) -> list[RunFolder]:
    """The run's folder, or with several seeds one below it for each."""
    parent = RunFolder.create(path, config.to_dict(), resume=resume)
    folders = [parent]
    if config.seeds > 1:
        folders = []
        for index in range(config.seeds):
            own = dataclasses.replace(config, seed=config.seed + index, seeds=1, out=parent.seed_path(index))
            # a kill may have come before this seed's folder was made
            there = resume and (parent.seed_path(index) / "config.json").exists()
            folders.append(RunFolder.create(parent.seed_path(index), own.to_dict(), resume=there))
    known = fingerprints(config.sources)
    for folder in {parent, *folders}:
        folder.write_data(known)
    if config.specs:
        for folder in (parent, *folders):
            folder.write_specs(spec_file(config.specs) if folder is parent else parent.path / "specs.stl")
    for folder in folders:
        folder.write_encoder(json.dumps(task.encoder.to_dict()))
    return folders


def _seed_of(state: State, index: int) -> State:
    arrays, static = eqx.partition(state, eqx.is_array)
    return eqx.combine(jax.tree.map(lambda leaf: leaf[index], arrays), static)


def _resumed(folders: list[RunFolder], like: State) -> tuple[int, State]:
    """The newest checkpoint that all seeds have, or the beginning, and their metrics cut back to it."""
    if not all(folder.checkpoints.iterations() for folder in folders):  # killed before the first checkpoint
        _LOG.info("no checkpoint yet: the run starts from its beginning")
        for folder in folders:
            folder.truncate_metrics(0)
        return 0, like
    loaded = [folder.checkpoints.load(_seed_of(like, i)) for i, folder in enumerate(folders)]
    start = min(iteration for iteration, _ in loaded)
    states = [
        state if iteration == start else folder.checkpoints.load(_seed_of(like, i), iteration=start)[1]
        for i, ((iteration, state), folder) in enumerate(zip(loaded, folders, strict=True))
    ]
    for folder in folders:
        folder.truncate_metrics(start)
    arrays = [eqx.partition(state, eqx.is_array)[0] for state in states]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *arrays)
    return start, eqx.combine(stacked, eqx.partition(like, eqx.is_array)[1])


def _loop(
    config: RunConfig,
    task: Task,
    folders: list[RunFolder],
    state: TrainState | OriginalState,
    start: int,
    progress: Callable[..., Progress] | None,
    flags: RedFlags,
) -> None:
    _LOG.info("compiling the first iteration: up to some minutes; kept for the next run of the same shape")
    advance = originals_step(config) if config.is_original else compiled_iteration(config)
    keys = [jax.random.key(config.seed + i) for i in range(config.seeds)]
    best = [best_so_far(folder) for folder in folders]
    begun = time.monotonic() - max((row["wall_s"] for row in folders[0].read_metrics()[-1:]), default=0.0)
    with ExitStack() as stack:
        logs = [stack.enter_context(folder.metrics()) for folder in folders]
        shown = stack.enter_context(progress(config.iterations)) if progress else Progress()
        shown.diagnose(flags.current)
        if shown.shows_findings:
            shown.recall(
                [_mean_row(rows) for rows in zip(*(f.read_metrics() for f in folders), strict=False)]
            )
        for iteration in range(start + 1, config.iterations + 1):
            state, metrics = advance(task.learn, state)
            rows = _rows(config, jax.tree.map(np.asarray, metrics), iteration, time.monotonic() - begun)
            last = iteration == config.iterations
            if last or iteration % config.eval_every == 0:
                for i, (row, folder) in enumerate(zip(rows, folders, strict=True)):
                    own = _seed_of(state, i)
                    point = validate(config, task, own, keys[i])
                    row.update(point.metrics)
                    best[i] = keep_best(folder, own, iteration, point, best[i])
            for log, row in zip(logs, rows, strict=True):
                log.write(row)
            flag = flags.update(rows, shown=shown.shows_findings)
            if last or flag or iteration % config.checkpoint_every == 0:
                for i, folder in enumerate(folders):
                    folder.checkpoints.save(iteration, _seed_of(state, i))
            shown.diagnose(flags.current)
            shown.update(_mean_row(rows))
            if flag:
                raise flags.error(flag, iteration)


def compiled_iteration(config: RunConfig) -> Callable[[Any, Any], tuple[Any, dict[str, jax.Array]]]:
    """One compiled iteration of all seeds."""
    learner = learner_config(config)
    return eqx.filter_jit(
        jax.vmap(lambda env, s: iterate(env, learner, s), in_axes=(None, 0)), donate="all-except-first"
    )


def _rows(
    config: RunConfig, metrics: dict[str, np.ndarray], iteration: int, wall_s: float
) -> list[dict[str, float]]:
    """One row of ``metrics.jsonl`` per seed: means over members, and each member's own."""
    rows = []
    for seed in range(config.seeds):
        row: dict[str, float] = {
            "iteration": iteration,
            "env_steps": iteration * config.rollout_steps,
            "wall_s": wall_s,
        }
        for name, values in metrics.items():
            known = values[seed][np.isfinite(values[seed])]  # a member alone may have ended no episode
            # the mean of several z values is none: their sum in its own standard deviations is
            joined = known.sum() / np.sqrt(known.size) if name.endswith("_z") and known.size else None
            row[name] = (float(known.mean()) if joined is None else float(joined)) if known.size else np.nan
            if values.ndim > 1:
                row |= {f"member/{i}/{name}": float(value) for i, value in enumerate(values[seed])}
        rows.append(row)
    return rows


def _mean_row(rows: Sequence[Mapping[str, float | None]]) -> dict[str, float]:
    """Means over seeds of what is a mean over members; null where one seed has none."""
    names = [name for name in rows[0] if not name.startswith("member/")]
    return {name: float(np.mean(np.array([row.get(name) for row in rows], dtype=float))) for name in names}


def _summary(
    config: RunConfig, path: Path, folders: list[RunFolder], elapsed_s: float, start: int
) -> dict[str, Any]:
    wall_s = [row["wall_s"] for row in folders[0].read_metrics() if row["iteration"] > start]
    iteration_s = float(np.median(np.diff(wall_s))) if len(wall_s) > 1 else None
    points = [folder.read_operating_point() for folder in folders]
    rows = [folder.read_metrics()[-1] for folder in folders]

    def mean(name: str) -> float | None:
        values = [row.get(name) for row in rows]
        return None if any(value is None for value in values) else float(np.mean(values))  # type: ignore[arg-type]

    return {
        "run": str(path),
        "iterations": config.iterations,
        "seeds": config.seeds,
        "env_steps": config.iterations * config.rollout_steps,
        "elapsed_s": elapsed_s,
        "iteration_s": iteration_s,
        "agent_steps_per_s": iteration_s and config.rollout_agent_steps * config.seeds / iteration_s,
        "loss_value": mean("loss/value"),
        "explained_variance": mean("value/explained_variance"),
        "validation_f1": float(np.mean([point.get("eval/f1") or 0.0 for point in points])),
        "kept_iteration": [point["iteration"] for point in points],
    }
