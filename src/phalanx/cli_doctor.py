"""``phalanx doctor``: what is wrong with a task, before a run is spent on it."""

import textwrap
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
    """Examines recorded events as a task before training: what the best policy can earn, and what will mislead.

    Reads what `phalanx ingest` reads and looks at all columns. Exit code 1 where something is wrong. docs/doctor.md has
    a section on each finding.

    Example: phalanx doctor --data records.parquet --label is_suspicious
    """

    data: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="FILE...")]
    """Recorded events: files, or the folder of a data set."""
    label: Annotated[str | None, tyro.conf.arg(metavar="COLUMN")] = None
    """Column that says which events are malicious; the reader's own choice unless given."""
    features: Annotated[tuple[str, ...], tyro.conf.arg(metavar="COLUMN...")] = ()
    """Columns that members are to see; those that training would choose unless given."""
    gamma: float = 0.99
    """Discount of later rewards."""
    split: Literal["time", "group", "stratified", "random"] | None = None
    """How training would split the events; as it would by itself unless given."""
    preset: Literal["default", "original"] | None = None
    """Whose task reward, split and columns: original (the notebook's) where events have no campaigns, unless given."""
    env: Literal["stream", "replay"] | None = None
    """stream: verdicts have no consequence; replay: a stopped campaign's later events vanish, the default where events
    have campaigns."""
    map: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON or TOML file that maps the source's columns to the event table's."""
    seed: int = 0
    """Seed of the split and of the probes."""
    json: bool = False
    """Print the result as one JSON object."""

    def run(self) -> dict[str, Any]:
        """The findings and the task's figures."""
        if not self.data:
            raise UsageError("doctor: no data. Name the events: phalanx doctor --data FILE --label COLUMN")
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
                seed=self.seed,
            )
        )
        return {**diagnosis(findings), "task": figures, "notes": list(notes)}

    def code(self, result: Mapping[str, Any]) -> int:
        """1 where there is an error or a warning."""
        return int(not result["healthy"])

    def render(self, result: Mapping[str, Any]) -> str:
        """For people."""
        task = result["task"]
        constants = ", ".join(f"{name} {value:.3f}" for name, value in task["reward_by_constant"].items())
        gain = [f"{task[name]:.3f}" for name in ("probe_gain", "probe_gain_low", "probe_gain_high")]
        lines = [
            f"{task['events']:,} events, {100 * task['base_rate']:.3g} % malicious; {task['reward']} reward, split by "
            f"{task['split']}, members see {', '.join(task['features'])}",
            f"reward an event, test part: {constants} for everything, a perfect policy {task['reward_perfect']:.3f}",
            f"best that a probe finds: {task['reward_probe']:.3f}, a gain of {gain[0]} (95 %: {gain[1]} to {gain[2]})",
            f"the probe's detection there: F1 {task['probe_f1']:.3f}, PR-AUC {task['probe_pr_auc']:.3f}",
            *(f"note: {note}" for note in result["notes"]),
            "",
            "healthy" if result["healthy"] else "NOT HEALTHY",
        ]
        for finding in result["findings"]:
            lines += ["", f"{finding['severity']}: {finding['symptom']}  ({finding['docs']})"]
            for text in (finding["cause"], f"remedy: {finding['remedy']}"):
                lines += textwrap.wrap(text, 110, initial_indent="  ", subsequent_indent="  ")
        return "\n".join(lines)


def command(arguments: Sequence[str]) -> Doctor:
    """The command that the arguments ask for."""
    return parse(Doctor, "doctor", arguments)
