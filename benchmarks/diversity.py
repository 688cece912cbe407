"""Whether committees of unlike members err less alike, and what that is worth under lies.

    phalanx train --members 4 --seeds 5 --iterations 200 --specs office --no-multipliers --out runs/n4
    phalanx train --members 4 --seeds 5 --views full process file network --out runs/views      # if sensors may differ
    python benchmarks/diversity.py runs/n4 [runs/views ...] [--episodes 256] [--false-alerts .002] [--out FILE]

All committees judge the same events, open loop, so members of different trainings can be put together: *clones* are
one member many times over, *one training* is a run as it is, *trainings* takes members of different seeds in turn (of
the first run). Seven members of four-member runs are always taken in turn. Each committee answers from the suspicion
on that gives it so many false alerts on the validation part, so that recall can be compared. Under liars the rates are
the exact ones, over all sets of f of them, on the test part's events; *predicted* is the same of the validation part's,
and *apart* what it would be if the members erred independently.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phalanx.analysis.metrics import committee_metrics
from phalanx.analysis.statistics import paired_difference, summary
from phalanx.analysis.verdict_rates import VerdictRates, certain, verdict_rates
from phalanx.committee.faults import Threat
from phalanx.committee.rule import faults_tolerated
from phalanx.files import write_json
from phalanx.runtime.attacked import horizon_of
from phalanx.runtime.compile_cache import use_compile_cache
from phalanx.runtime.config import RunConfig
from phalanx.runtime.decide import vote
from phalanx.runtime.kept import load_committee
from phalanx.runtime.lies import expected
from phalanx.runtime.store import run_folders
from phalanx.runtime.task import Task, build_task
from phalanx.runtime.watch import Watched, ballot, operating_score, verdicts, watch
from phalanx.verdicts import Verdict

KINDS = ("silent", "flip", "worst-case", "worst-proposer")
_COLUMNS = ("error_correlation", "member_recall", "recall", "false_alerts") + tuple(
    f"{kind}_{rate}" for kind in KINDS for rate in ("recall", "false_alerts")
)

Pair = tuple[Watched, Watched]
"""Opinions on the validation part and on the test part."""


def watched_of(run: Path, tasks: dict[Any, Task], key: Any, episodes: int) -> list[Pair]:
    """The opinions of every seed's members, all on the same events."""
    found, (key_known, key_test) = [], jax.random.split(key)
    for folder in run_folders(run):
        config = RunConfig.of(folder.config())
        own = (config.scenario, config.specs, config.episode_limit)
        if own not in tasks:
            tasks[own] = build_task(config)
        task = tasks[own]
        committee, _ = load_committee(folder, config, task.test.watch)
        memory = config.network.memory_size
        found.append(
            (
                watch(task.validation.watch, committee, key_known, memory, n_lanes=episodes),
                watch(task.test.watch, committee, key_test, memory, n_lanes=episodes),
            )
        )
        print(f"  {folder.path}: {len(found[-1][1].label)} events", flush=True)
    return found


def joined(seeds: list[Pair], members: list[tuple[int, int]]) -> Pair:
    """A committee of these members: (place of the seed, member of it)."""

    def part(which: int) -> Watched:
        picked = [seeds[seed][which].log_probs[:, member] for seed, member in members]
        return seeds[0][which]._replace(log_probs=np.stack(picked, axis=1))

    return part(0), part(1)


def committees(
    name: str, seeds: list[Pair], first: bool, sizes: Sequence[int]
) -> Iterator[tuple[str, int, list[Pair]]]:
    """How members are put together, one committee for each seed."""
    each, own = range(len(seeds)), seeds[0][0].log_probs.shape[1]
    if first:
        for n in sizes:
            yield "clones", n, [joined(seeds, [(seed, 0)] * n) for seed in each]
    yield name, own, [joined(seeds, [(seed, member) for member in range(own)]) for seed in each]
    if first and len(seeds) > 1:
        for n in sizes:
            turns = [
                [((seed + k) % len(seeds), (seed + k) // len(seeds) % own) for k in range(n)] for seed in each
            ]
            yield "trainings", n, [joined(seeds, members) for members in turns]


def apart(watched: Watched) -> Watched:
    """Members as accurate as these that err independently: opinions dealt anew among the events of a class."""
    rng, log_probs = np.random.default_rng(0), watched.log_probs.copy()
    for label in np.unique(watched.label):
        rows = np.flatnonzero(watched.label == label)
        for member in range(log_probs.shape[1]):
            log_probs[rows, member] = watched.log_probs[rng.permutation(rows), member]
    return watched._replace(log_probs=log_probs)


def rates_of(watched: Watched, threshold: float, f: int, kind: str | None) -> VerdictRates:
    """Exact rates, with f liars of a kind or without any."""
    if kind is None:
        answers = verdicts(ballot(watched, threshold, f), f)
        return verdict_rates(watched.label, certain(answers), answers)
    rates = expected(watched, threshold, f, Threat((kind,), f, horizon_of(watched)), every_set=True)
    assert rates is not None
    return rates


def figures(pair: Pair, false_alerts: float) -> dict[str, float | None]:
    """What one committee comes to."""
    known, test = pair
    f = faults_tolerated(known.log_probs.shape[1])
    calm = operating_score(known.log_probs, f)[known.label == 0]
    threshold = float(np.quantile(calm, 1.0 - false_alerts, method="higher"))
    alone = np.asarray(vote(jnp.asarray(test.log_probs), threshold=threshold))
    found: dict[str, float | None] = {
        "threshold": threshold,
        "error_correlation": committee_metrics(alone, test.label).error_correlation,
        "member_recall": float((alone[test.label == 1] >= Verdict.ALERT).mean()),
        "member_false_alerts": float((alone[test.label == 0] >= Verdict.ALERT).mean()),
    }
    for kind in (None, *KINDS):
        own = "" if kind is None else f"{kind}_"
        for part, watched in (("", test), ("predicted_", known), ("apart_", apart(known))):
            rates = rates_of(watched, threshold, f, kind)
            found |= {f"{part}{own}recall": rates.recall, f"{part}{own}false_alerts": rates.false_alerts}
    return found


def row(name: str, n: int, found: list[dict[str, float | None]]) -> str:
    """One line of the table: interquartile means over seeds."""
    cells = []
    for column in _COLUMNS:
        value = summary([one[column] for one in found])["iqm"]
        cells.append("-" if value is None else f"{value:.4f}" if "false" in column else f"{value:.3f}")
    return f"| {name}, {n} | {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--false-alerts", type=float, default=0.002, help="share of benign events")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[4, 7], help="of committees that are put together"
    )
    parser.add_argument("--seed", type=int, default=314)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    use_compile_cache()
    spent, key = time.process_time(), jax.random.key(arguments.seed)
    tasks: dict[Any, Task] = {}
    found: dict[str, Any] = {}
    print(f"| committee | {' | '.join(_COLUMNS)} |\n|---|{'---|' * len(_COLUMNS)}")
    for place, run in enumerate(arguments.runs):
        seeds = watched_of(run, tasks, key, arguments.episodes)
        for name, n, pairs in committees(run.name, seeds, place == 0, arguments.sizes):
            own = [figures(pair, arguments.false_alerts) for pair in pairs]
            print(row(name, n, own), flush=True)
            found[f"{name}, {n}"] = {
                key: {
                    "values": [one[key] for one in own],
                    **{part: summary([one[key] for one in own])[part] for part in ("iqm", "low", "high")},
                }
                for key in own[0]
            }
    first = f"{arguments.runs[0].name}, 4"
    gains = {
        f"{name} - {first}": {
            column: paired_difference(found[first][column]["values"], own[column]["values"])
            for column in ("recall", "worst-case_recall", "worst-case_false_alerts")
        }
        for name, own in found.items()
        if name != first
        and first in found
        and len(own["recall"]["values"]) == len(found[first]["recall"]["values"])
    }
    if arguments.out:
        write_json(
            arguments.out,
            {
                "episodes": arguments.episodes,
                "false_alerts": arguments.false_alerts,
                "seed": arguments.seed,
                "cpu_minutes": round((time.process_time() - spent) / 60, 1),
                "committees": found,
                "gains": gains,
            },
        )


if __name__ == "__main__":
    main()
