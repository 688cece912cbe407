"""``phalanx compare --attempts``: the same task with other settings, side by side, all seeds in one program."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from phalanx.cli_command import parse, value_of
from phalanx.errors import UsageError, unknown_name
from phalanx.runtime.config import RunConfig

__all__ = ["Attempts", "command", "parse_attempt"]

_SHARED = ("out", "seed", "seeds", "iterations", "preset")


@dataclass(frozen=True)
class Attempts:
    """Trains attempts at one task that differ in a setting or two, and says what became of each.

    An attempt is a normaliser of the value targets and settings that differ: popart, or none:returns=gae:gamma=.9. The
    other flags are those of `phalanx train`. Attempts that lie in --out already go on, or are only read.

    Example: phalanx compare --attempts batch,none,running,popart --seeds 10 --iterations 100 --out runs/attempts
    """

    config: RunConfig
    attempts: Annotated[str, tyro.conf.arg(metavar="NAME,...")] = "batch,none,running,popart"
    """Attempts, separated by commas."""
    json: bool = False
    """Print the result as one JSON object."""

    def run(self) -> dict[str, Any]:
        """Trains and returns the table."""
        names = [name.strip() for name in self.attempts.split(",") if name.strip()]
        if not names or len(set(names)) < len(names):
            raise UsageError(f"--attempts {self.attempts!r}: name at least one attempt, each once")
        configs = {name: parse_attempt(name, self.config) for name in names}
        from phalanx.runtime.attempts import compare_attempts
        from phalanx.runtime.compile_cache import use_compile_cache
        from phalanx.runtime.progress import progress_on

        use_compile_cache()
        return compare_attempts(self.config.out or Path("runs/attempts"), configs, progress=progress_on)

    def render(self, result: Mapping[str, Any]) -> str:
        """The table, and where the page of curves is."""
        from phalanx.analysis.attempts import attempts_table

        return f"{attempts_table(result)}\n\ncurves: {result['report']}"


def command(arguments: Sequence[str]) -> Attempts:
    """The command that the arguments ask for."""
    preset = value_of("--preset", arguments)
    config = RunConfig.preset_named(preset) if preset else RunConfig()
    return parse(Attempts, "compare", arguments, default=Attempts(config))


def parse_attempt(text: str, base: RunConfig) -> RunConfig:
    """The settings of an attempt.

    Args:
        text: a normaliser and settings that differ, ``popart`` or ``none:returns=gae:learning_rate=1e-4``.
        base: all other settings.

    Raises:
        UsageError: a normaliser, a setting or a value that there is not.

    Example:
        >>> parse_attempt("none:gamma=0.5", RunConfig()).gamma
        0.5
    """
    from phalanx.agents.normalizer import NORMALIZERS

    name, *changes = text.split(":")
    if name not in NORMALIZERS:
        raise unknown_name("attempt", name, NORMALIZERS)
    arguments = ["--normalizer", name]
    known = sorted({field.name for field in dataclasses.fields(RunConfig)} - set(_SHARED))
    for change in changes:
        setting, equals, value = change.partition("=")
        setting = setting.replace("-", "_")
        if not equals:
            raise UsageError(f"attempt {text!r}: {change!r} is no setting; expected for instance returns=gae")
        if setting not in known:
            raise unknown_name("setting of an attempt", setting, known)
        arguments += [f"--{setting.replace('_', '-')}", value]
    return parse(RunConfig, f"compare --attempts {text}", arguments, default=base)
