"""``phalanx train``: a committee, trained."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from phalanx.cli_command import parse, value_of
from phalanx.errors import UsageError
from phalanx.runtime.config import RunConfig

__all__ = ["Train", "command"]


@dataclass(frozen=True)
class Train:
    """Trains a committee of agents and writes its run folder.

    Flags override the preset's values and, with --resume, those of the run that goes on.

    Example: phalanx train --env replay --data events.parquet --label label --iterations 50 --out runs/first
    """

    config: RunConfig
    resume: Annotated[Path | None, tyro.conf.arg(metavar="RUN")] = None
    """Run to go on with, from its last checkpoint that is whole."""
    on_red_flag: Literal["warn", "stop"] = "warn"
    """What to do where the doctor finds something wrong meanwhile: say so, or end the run at the first error, exit
    code 1."""
    json: bool = False
    """Print the result as one JSON object."""

    def run(self) -> dict[str, Any]:
        """Trains and returns the summary."""
        from phalanx.runtime.compile_cache import use_compile_cache
        from phalanx.runtime.progress import progress_on
        from phalanx.runtime.train import train

        use_compile_cache()
        return train(self.config, resume=self.resume, progress=progress_on, on_red_flag=self.on_red_flag)


def command(arguments: Sequence[str]) -> Train:
    """The command that the arguments ask for; flags not given take the resumed run's values, or the preset's."""
    preset, resume = value_of("--preset", arguments), value_of("--resume", arguments)
    if preset and resume:
        raise UsageError("--preset and --resume exclude each other: a run that goes on keeps its settings")
    config = RunConfig.preset_named(preset) if preset else RunConfig()
    if resume:
        from phalanx.runtime.store import RunFolder

        config = RunConfig.of(RunFolder.open(Path(resume)).config())
    return parse(Train, "train", arguments, default=Train(config))
