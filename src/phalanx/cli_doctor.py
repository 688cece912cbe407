"""``phalanx doctor``: why a run fails, or what is wrong with a task before a run is spent on it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from phalanx.cli_command import parse
from phalanx.errors import UsageError

__all__ = ["Doctor", "command"]


@dataclass(frozen=True)
class Doctor:
    """Says why a training run fails, from its log; or, before training, what a task allows at best.

    A log is a run folder of phalanx, Stable-Baselines3, CleanRL or RLlib, a TensorBoard folder, or a CSV or JSON-lines
    file. With --data, reads what `phalanx ingest` reads and looks at all columns. Exit code 1 where something is wrong.
    docs/doctor.md has a section on each finding.

    Example: phalanx doctor runs/first (or: phalanx doctor --data records.parquet --label is_suspicious)
    """

    log: Annotated[tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[RUN]")] = None
    """Run folder, TensorBoard folder, or log file."""
    data: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE...")] = ()
    """Recorded events of a task before training: files, or the folder of a data set."""
    config: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Settings alone: a run's config.json, or TOML or JSON of the same keys."""
    label: Annotated[str | None, tyro.conf.arg(metavar="COLUMN")] = None
    """With --data: column that says which events are malicious; the reader's own choice unless given."""
    features: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN...")] = ()
    """With --data: columns that members are to see; those that training would choose unless given."""
    gamma: float | None = None
    """With --data: discount of later rewards; .99 unless given."""
    split: Literal["time", "group", "stratified", "random"] | None = None
    """With --data: how training would split the events; as it would by itself unless given."""
    preset: Literal["default", "original"] | None = None
    """With --data: whose task reward, split and columns: original (the notebook's) where events have no campaigns,
    unless given."""
    env: Literal["stream", "replay"] | None = None
    """With --data: stream, verdicts have no consequence; replay, a stopped campaign's later events vanish, the default
    where events have campaigns."""
    map: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON or TOML file of names: of a log's columns (column = "loss/value", or "2*loss/value"), or with --data of the
    event table's (contract column = "source column")."""
    seed: int | None = None
    """With --data: seed of the split and of the probes; 0 unless given."""
    json: bool = False
    """Print the result as one JSON object."""

    def run(self) -> dict[str, Any]:
        """The findings, and what they were found in."""
        asked = [name for name in ("log", "data", "config") if getattr(self, name)]
        if len(asked) != 1:
            raise UsageError(
                f"doctor: {'nothing' if not asked else 'more than one thing'} to look at. Name a run or a log (phalanx "
                "doctor RUN), or events (--data FILE --label COLUMN), or settings (--config FILE)"
            )
        if not self.data:
            given = [name for name in _OF_DATA if getattr(self, name) not in (None, ())]
            if given:
                raise UsageError(f"doctor: --{given[0]} is about events: it goes with --data FILE")
        from phalanx.analysis.doctor import diagnosis

        if self.data:
            return self._examined()
        if self.config:
            from phalanx.runtime.checkup import checkup_settings

            return diagnosis(checkup_settings(self.config))
        from phalanx.files import read_structured
        from phalanx.runtime.checkup import checkup

        assert self.log is not None
        mapping = None if self.map is None else read_structured(self.map, "map")
        if mapping is not None and not (
            isinstance(mapping, dict) and all(isinstance(name, str) for name in mapping.values())
        ):
            raise UsageError(f'--map {self.map}: expected names by column, {{"vloss": "2*loss/value"}}')
        about, findings = checkup(self.log, mapping)
        return {**diagnosis(findings), "run": about}

    def _examined(self) -> dict[str, Any]:
        from phalanx.analysis.doctor import diagnosis
        from phalanx.runtime.examine import Question, examine

        figures, findings, notes = examine(
            Question(
                data=self.data,
                label=self.label,
                features=self.features,
                gamma=self.gamma,
                split=self.split,
                preset=self.preset,
                env=self.env,
                map=self.map,
                seed=self.seed or 0,
            )
        )
        return {**diagnosis(findings), "task": figures, "notes": list(notes)}

    def code(self, result: Mapping[str, Any]) -> int:
        """1 where there is an error or a warning."""
        return int(not result["healthy"])

    def render(self, result: Mapping[str, Any]) -> str:
        """For people."""
        from phalanx.analysis.doctor.finding import explained

        about = (
            _about_task(result) if "task" in result else _about_run(result["run"]) if "run" in result else []
        )
        lines = [*about, "healthy" if result["healthy"] else "NOT HEALTHY"]
        for finding in result["findings"]:
            lines += ["", *explained(finding)]
        return "\n".join(lines)


_OF_DATA = ("label", "features", "gamma", "split", "preset", "env", "seed")


def _about_task(result: Mapping[str, Any]) -> list[str]:
    task = result["task"]
    constants = ", ".join(f"{name} {value:.3f}" for name, value in task["reward_by_constant"].items())
    gain = [f"{task[name]:.3f}" for name in ("probe_gain", "probe_gain_low", "probe_gain_high")]
    return [
        f"{task['events']:,} events, {100 * task['base_rate']:.3g} % malicious; {task['reward']} reward, split by "
        f"{task['split']}, members see {', '.join(task['features'])}",
        f"reward an event, test part: {constants} for everything, a perfect policy {task['reward_perfect']:.3f}",
        *_played(task),
        f"best that a probe finds: {task['reward_probe']:.3f}, a gain of {gain[0]} (95 %: {gain[1]} to {gain[2]})",
        f"the probe's detection there: F1 {task['probe_f1']:.3f}, PR-AUC {task['probe_pr_auc']:.3f}",
        *(f"note: {note}" for note in result["notes"]),
        "",
    ]


def _played(task: Mapping[str, Any]) -> list[str]:
    """What the whole reward pays, where it has terms besides the task's."""
    if "reward_played" not in task:
        return []
    means = ", ".join(f"{policy} {mean:.3f}" for policy, mean in task["reward_played"].items())
    return [f"with the preset's bonus and penalty, played on the training part: {means}"]


def _about_run(run: Mapping[str, Any]) -> list[str]:
    tool = "some tool" if run["tool"] == "unknown" else run["tool"]
    seeds = f"{run['seeds']} seeds, " if run["seeds"] > 1 else ""
    done = f"{run['rows']}" if not run["budget"] else f"{run['rows']} of {run['budget']}"
    lines = [
        f"{run['source']}: a log of {tool}, {seeds}{done} update{'s' * (run['rows'] != 1)}, {len(run['read'])} "
        "quantities read"
    ]
    if run["missing"]:
        lines.append(f"not logged: {', '.join(run['missing'])}")
    return [*lines, *(f"note: {note}" for note in run["notes"]), ""]


def command(arguments: Sequence[str]) -> Doctor:
    """The command that the arguments ask for."""
    return parse(Doctor, "doctor", arguments)
