"""``phalanx evaluate``: a trained run, measured."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from phalanx.cli_command import parse
from phalanx.errors import UsageError

__all__ = ["Evaluate", "command"]


@dataclass(frozen=True)
class Evaluate:
    """Measures a trained run: detection with its verdicts logged only, response with its verdicts applied.

    Takes minutes, most of them compilation and the baselines' fits: few --episodes hardly shorten it.
    The result is printed and kept in the run's eval.json; with several seeds it holds the means and a line for each.

    Example: phalanx evaluate runs/first --positive restrict --json
    """

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN")]
    """Folder that `phalanx train` wrote."""
    data: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Recorded events to measure detection on; the test part of the run's own data unless given."""
    episodes: Annotated[int | None, tyro.conf.arg(metavar="N")] = None
    """Simulated episodes to detect on, and episodes of the closed loop; 64 unless given."""
    positive: Literal["alert", "restrict"] = "alert"
    """Least verdict that counts as a detection: alert, or restrict (block)."""
    specs: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Specifications to measure in the closed loop: a file, or a name such as office; the run's own unless given."""
    shield: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """Specifications that a shield keeps in the closed loop, whatever the members vote: a file, or the name shield."""
    faulty: Annotated[int | None, tyro.conf.arg(metavar="K")] = None
    """Members that are faulty, every set of them in equally many episodes; none unless given, and as many as the
    committee tolerates where --adversary is."""
    adversary: Annotated[str | None, tyro.conf.arg(metavar="NAME")] = None
    """What faulty members do: random, flip, collude, silent, sleeper, learned, targeted, targeted-benign,
    targeted-process, worst-case, omit or worst-proposer (docs/adversaries.md); worst-case unless given."""
    seed: int = 0
    """Seed of all randomness."""
    json: bool = False
    """Print the result as one JSON object."""

    def run(self) -> dict[str, Any]:
        """Evaluates and returns every figure."""
        if self.episodes is not None and self.episodes < 1:
            raise UsageError(f"--episodes {self.episodes}: expected 1 or more")
        from phalanx.runtime.compile_cache import use_compile_cache
        from phalanx.runtime.evaluate import evaluate

        use_compile_cache()
        given = {} if self.episodes is None else {"episodes": self.episodes}
        return evaluate(
            self.run_dir,
            data=self.data,
            seed=self.seed,
            positive=self.positive,
            specs=self.specs,
            shield=self.shield,
            faulty=self.faulty,
            adversary=self.adversary,
            **given,
        )

    def render(self, result: Mapping[str, Any]) -> str:
        """The result as a table for people."""
        from phalanx.analysis.table import evaluation_table

        return evaluation_table(result)


def command(arguments: Sequence[str]) -> Evaluate:
    """The command that the arguments ask for."""
    return parse(Evaluate, "evaluate", arguments)
