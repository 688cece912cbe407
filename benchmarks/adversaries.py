"""What liars of every kind do to trained committees: detection beside what was predicted, and response.

    phalanx train --members 4 --seeds 5 --iterations 100 --out runs/n4        # in the simulator, or on recorded events
    phalanx train --members 7 --seeds 5 --iterations 100 --out runs/n7
    phalanx train --members 7 --seeds 5 --iterations 100 --liars 2 --out runs/n7-liars
    python benchmarks/adversaries.py runs/n4 runs/n7 runs/n7-liars [--episodes 256] [--faulty K] [--kinds flip silent]

Each run is measured with f faulty members (or K), every set of them in equally many episodes. *Predicted* is computed
from honest votes on the validation part, over all sets of liars; *expected* from honest votes on the very events that
*measured* is of, so that both are the same to rounding, but for liars that draw. Response is measured in closed loop on
the test part's episodes, the same for all.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phalanx.analysis.metrics import committee_metrics, response_metrics
from phalanx.analysis.statistics import summary
from phalanx.analysis.verdict_rates import VerdictRates, certain, verdict_rates
from phalanx.committee.adversaries import ADVERSARIES
from phalanx.envs.stream import StreamEnv
from phalanx.files import write_json
from phalanx.runtime.attacked import LiarsAsked, asked_for, horizon_of, prepare
from phalanx.runtime.baselines import references
from phalanx.runtime.compile_cache import use_compile_cache
from phalanx.runtime.config import RunConfig
from phalanx.runtime.cut import Cut, cut_of
from phalanx.runtime.decide import Committee, vote
from phalanx.runtime.episodes import run_episodes
from phalanx.runtime.kept import load_committee
from phalanx.runtime.lies import expected
from phalanx.runtime.policies import CommitteePolicy
from phalanx.runtime.store import RunFolder, run_folders
from phalanx.runtime.task import Part, Task, build_task
from phalanx.runtime.watch import Watched, ballot, verdicts, watch
from phalanx.types import Score, Verdict

_LANES = 128
HONEST = "none"


def flat(rates: VerdictRates | None) -> dict[str, float | None]:
    """The figures that are shown."""
    if rates is None:
        return {}
    found = {"recall": rates.recall, "false_alerts": rates.false_alerts}
    for verdict in ("block", "quarantine"):
        found |= {
            f"{verdict}_malicious": rates.malicious[verdict],
            f"{verdict}_benign": rates.benign[verdict],
        }
    return found | {f"kept_{verdict}": share for verdict, share in rates.kept.items()}


def opinions(part: Part, committee: Committee, key: Any, memory: int, episodes: int) -> Watched:
    """What the members think of the part's events."""
    places = _LANES if isinstance(part.watch, StreamEnv) else episodes
    return watch(part.watch, committee, key, memory, n_lanes=places)


def ends_of(task: Task, key: Any, episodes: int) -> tuple[Score, Score] | None:
    """Totals of always-allow and of the oracle; None where answers have no consequence."""
    if task.test.act is None:
        return None
    courses = references(task.test.act, key, episodes, np.full(len(Verdict), 1 / len(Verdict), np.float32))
    return courses["always-allow"].score, courses["oracle"].score


def of_seed(
    folder: RunFolder,
    task: Task,
    kinds: Sequence[str],
    faulty: int,
    episodes: int,
    key: Any,
    ends: tuple[Score, Score] | None,
) -> dict[str, Any]:
    """One committee under every kind of liars, and without."""
    config = RunConfig.of(folder.config())
    committee, point = load_committee(folder, config, task.test.watch)
    cut, memory = cut_of(point) or Cut.of(float("inf")), config.network.memory_size
    keys = jax.random.split(key, 3)
    known, test = (
        opinions(part, committee, own, memory, episodes)
        for part, own in ((task.validation, keys[0]), (task.test, keys[1]))
    )
    alone = committee_metrics(np.asarray(vote(jnp.asarray(test.log_probs), threshold=cut)), test.label)
    found: dict[str, Any] = {
        "error_correlation": alone.error_correlation,
        "agreement": alone.agreement,
        "threshold": [float(cut.alert), float(cut.answer)],
        "kinds": {},
    }
    for kind in (HONEST, *kinds):
        begun = time.perf_counter()
        asked = LiarsAsked(kind, faulty)
        policy = CommitteePolicy(committee, cut.arrays(), memory)
        row: dict[str, Any] = {}
        if kind == HONEST:
            row["measured"] = flat(honest_rates(test, cut, committee.f))
            row["predicted"] = flat(honest_rates(known, cut, committee.f))
        else:
            liars = prepare(asked, lambda: known, cut, committee.f, keys[2])
            under, said = liars.detect(test, cut, committee)
            threat = asked.threat(committee.spec, horizon_of(known))
            row["measured"] = flat(under.rates(test.label)) | {"abstain": said["abstain"]}
            row["expected"] = flat(said["expected"] and VerdictRates(**said["expected"]))
            row["predicted"] = flat(expected(known, cut, committee.f, threat, every_set=True))
            if task.test.act is not None:
                policy = liars.among(policy, task.test.act)
        if task.test.act is not None and ends is not None:
            env = task.test.act
            course = run_episodes(env, policy, key, n_envs=episodes, steps=env.episode_events)
            worth = response_metrics(course.score, *ends)
            row["response"] = {
                "damage_prevented": worth.damage_prevented,
                "availability": worth.availability,
                "loss": worth.loss,
            }
        found["kinds"][kind] = row
        print(f"  {kind:18} {time.perf_counter() - begun:6.1f} s", flush=True)
    return found


def honest_rates(watched: Watched, cut: Cut, f: int) -> VerdictRates:
    """Without liars."""
    answers = verdicts(ballot(watched, cut, f), f)
    return verdict_rates(watched.label, certain(answers), answers)


def over_seeds(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Interquartile means and intervals of every figure, where all seeds have one."""
    found: dict[str, Any] = {}
    for kind, row in seeds[0]["kinds"].items():
        for part, figures in row.items():
            for name in figures:
                values = [seed["kinds"][kind][part][name] for seed in seeds]
                if all(value is not None for value in values):
                    found.setdefault(kind, {}).setdefault(part, {})[name] = summary(values)
    return found


_SHOWN = ("recall", "false_alerts", "block_malicious", "quarantine_malicious", "quarantine_benign")


def table(found: dict[str, Any]) -> str:
    """A run's figures as Markdown: measured (predicted), then response."""
    lines = [
        f"| {' | '.join(('liars', *_SHOWN, 'damage_prevented', 'availability'))} |".replace("_", " "),
        "|---|" + "---|" * (len(_SHOWN) + 2),
    ]
    for kind, parts in found["summary"].items():
        cells = []
        for name in _SHOWN:
            values = [parts.get(part, {}).get(name) for part in ("measured", "predicted")]
            shown = ["-" if value is None else f"{value['iqm']:.4f}" for value in values]
            cells.append(f"{shown[0]} ({shown[1]})")
        for name in ("damage_prevented", "availability"):
            value = parts.get("response", {}).get(name)
            cells.append("-" if value is None else f"{value['iqm']:.3f}")
        lines.append(f"| {' | '.join((kind, *cells))} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--faulty", type=int, help="as many as each run tolerates unless given")
    parser.add_argument("--kinds", nargs="+", default=list(ADVERSARIES), choices=list(ADVERSARIES))
    parser.add_argument("--seed", type=int, default=313)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    use_compile_cache()
    begun, key = time.perf_counter(), jax.random.key(arguments.seed)
    found: dict[str, Any] = {}
    for run in arguments.runs:
        folders = run_folders(run)
        first = RunConfig.of(folders[0].config())
        asked = asked_for(first.members, first.f, arguments.faulty, arguments.kinds[0])
        assert asked is not None
        task = build_task(first)
        ends = ends_of(task, key, arguments.episodes)
        print(f"{run.name}: {first.members} members, {asked.faulty} faulty, {len(folders)} seeds", flush=True)
        seeds = [
            of_seed(folder, task, arguments.kinds, asked.faulty, arguments.episodes, key, ends)
            for folder in folders
        ]
        found[run.name] = {
            "n": first.members,
            "f": first.f,
            "faulty": asked.faulty,
            "learned_beside_liars": first.liars,
            "error_correlation": [seed["error_correlation"] for seed in seeds],
            "agreement": [seed["agreement"] for seed in seeds],
            "summary": over_seeds(seeds),
            "by_seed": seeds,
        }
        print(table(found[run.name]), flush=True)
    if arguments.out:
        write_json(
            arguments.out,
            {
                "episodes": arguments.episodes,
                "seed": arguments.seed,
                "minutes": (time.perf_counter() - begun) / 60,
                "runs": found,
            },
        )


if __name__ == "__main__":
    main()
