"""``phalanx compare``: trained runs and baselines in the same episodes of named scenarios."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from phalanx.cli_command import Command, parse, value_of

__all__ = ["Compare", "command", "league_table"]

_COLUMNS: tuple[tuple[str, str, str], ...] = (
    ("loss", "loss", "{:.2f}"),
    ("cvar_loss", "worst 5 %", "{:.1f}"),
    ("damage_prevented", "prevented", "{:.3f}"),
    ("availability", "available", "{:.4f}"),
    ("false_blocks_per_million", "false blocks / 1M", "{:,.0f}"),
    ("alerts_per_analyst_day", "alerts / shift", "{:.1f}"),
    ("median_contain_s", "contained after", "{:.0f} s"),
    ("restricted_contain_s", "(cut mean)", "{:.0f} s"),
    ("furthest_stage", "stage", "{:.2f}"),
    ("pr_auc", "PR-AUC", "{:.3f}"),
)
"""Figure, heading and form."""

_LEGEND = (
    "score: 0 allows everything, 1 is the oracle. loss: damage, benign work lost and analysts' time of an episode, in\n"
    "benign records. prevented: share of the damage. available: share of the benign work done. contained after: the\n"
    "median over campaigns; (cut mean): the mean within half an episode. stage: the furthest of an attack's ten."
)


@dataclass(frozen=True)
class Compare:
    """Lets trained runs and baselines answer the same episodes and says who loses least.

    The score is 0 for allowing everything and 1 for the oracle. Baselines are fitted and tuned on episodes of their
    own (256 and 64, whatever --episodes says), each with the same number of trials: minutes. With --out, the file also
    holds the loss of every episode. With --attempts, trains the same task with other settings instead (phalanx compare
    --attempts popart --help). docs/arena.md says what each baseline does and how the arena is played.

    Example: phalanx compare runs/first --policies rules boosting-memory --scenario office --episodes 200
    """

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="[RUN ...]")] = ()
    """Folders that `phalanx train` wrote."""
    policies: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ()
    """Baselines, all unless given: always-allow, always-alert, always-block, always-quarantine, random, random-matched,
    rules, surprise, cusum, inspection, boosting, boosting-memory; oracle and always-allow always play."""
    scenario: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ...")] = ("office",)
    """Scenarios by name."""
    episodes: Annotated[int, tyro.conf.arg(metavar="N")] = 64
    """Test episodes of a scenario; as many again without attacks where it has a base rate."""
    trials: Annotated[int, tyro.conf.arg(metavar="N")] = 32
    """Settings that are tried for every baseline that has some."""
    fits: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Times that baselines are fitted and tuned anew."""
    poison: float = 0.0
    """Share of wrong labels in what baselines are fitted to; runs are poisoned by `phalanx train --poison`."""
    seed: int = 0
    """Seed of all randomness."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE")] = None
    """JSON file to write."""
    json: bool = False
    """Print the result as one JSON object."""

    def run(self) -> dict[str, Any]:
        """Plays the league and returns its tables."""
        from phalanx.files import write_json
        from phalanx.runtime.compile_cache import use_compile_cache
        from phalanx.runtime.league import League, compare

        league = League(
            runs=self.runs,
            policies=self.policies,
            scenarios=self.scenario,
            episodes=self.episodes,
            trials=self.trials,
            fits=self.fits,
            poison=self.poison,
            seed=self.seed,
        )
        use_compile_cache()
        result = compare(league, with_losses=self.out is not None)
        if self.out is not None:
            write_json(self.out, result)
            for each in result["scenarios"].values():
                each.pop("loss_by_episode")
                each.pop("weight_by_episode")
        return result

    def render(self, result: Mapping[str, Any]) -> str:
        """The result as a table a scenario."""
        return league_table(result)


def command(arguments: Sequence[str]) -> Command:
    """The command that the arguments ask for: a league of policies, or attempts at a training."""
    if value_of("--attempts", arguments) is not None:
        from phalanx.cli_attempts import command as attempts

        return attempts(arguments)
    return parse(Compare, "compare", arguments)


def league_table(result: Mapping[str, Any]) -> str:
    """One table a scenario, the best policy first.

    Args:
        result: what ``runtime.league.compare`` returns.
    """
    return "\n\n".join([*(_scenario(name, each) for name, each in result["scenarios"].items()), _LEGEND])


def _scenario(name: str, found: Mapping[str, Any]) -> str:
    rate = found["base_rate"]
    head = f"{name}: {found['about']}; {found['episodes']} episodes"
    head += "" if rate is None else f", {100 * rate:.3g} % of the events malicious"
    head += f"; held out, baselines tuned on {found['tuned_on']}" if found["held_out"] else ""
    rows = sorted(found["policies"].items(), key=lambda item: item[1]["loss"])
    shown = [column for column in _COLUMNS if any(row.get(column[0]) is not None for _, row in rows)]
    table = [["policy", "score", "95 %", *(heading for _, heading, _ in shown)]]
    table += [_cells(policy, row, shown) for policy, row in rows]
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))]
        )
        for row in table
    ]
    return "\n".join([head, *(line.rstrip() for line in lines), *_gap(found), *found["notes"]])


def _cells(policy: str, row: Mapping[str, Any], shown: Sequence[tuple[str, str, str]]) -> list[str]:
    score = row["score"]
    known = score["value"] is not None
    return [
        policy,
        _cell(score["value"], "{:.3f}"),
        f"{score['low']:.3f} to {score['high']:.3f}" if known else "-",
        *(_cell(row.get(name), form) for name, _, form in shown),
    ]


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _gap(found: Mapping[str, Any]) -> list[str]:
    gap = found.get("gap_closed")
    if not gap or gap["value"] is None:
        return []
    between = f"the gap between {found['best_baseline']} and the oracle"
    interval = (
        f"(95 % interval {gap['low']:.3f} to {gap['high']:.3f}, {gap['n']} seed{'s' * (gap['n'] != 1)})"
    )
    if gap["value"] <= 0:
        return [
            f"{found['committee']} does not beat {found['best_baseline']}: {gap['value']:.3f} of {between} {interval}"
        ]
    return [f"{found['committee']} closes {gap['value']:.3f} of {between} {interval}"]
