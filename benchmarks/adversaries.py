"""What liars of every kind do to trained committees: detection beside what was predicted, and response.

    phalanx train --members 4 --rollouts together --seeds 5 --iterations 60 --out runs/n4
    phalanx train --members 4 --liars 1 --seeds 5 --iterations 60 --out runs/n4-liars
    python benchmarks/adversaries.py runs/n4 runs/n4-liars [--episodes 256] [--played 84] [--kinds flip silent]

Each run is measured with f faulty members (or K), every set of them in equally many episodes. *Predicted* is computed
from honest votes on the validation part, over all sets of liars; *expected* from honest votes on the very events that
*measured* is of, so that both are the same to rounding, but for liars that draw. *Apart* is predicted, too, but of
members that err independently: each member's opinions are dealt anew among the events of a class. Response is measured
in closed loop on the test part's episodes, the same for all. Runs of as many members, one that learned beside liars
and one that did not, are compared seed by seed.
"""

import argparse
import dataclasses
import functools
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from phalanx.analysis.metrics import committee_metrics, response_metrics
from phalanx.analysis.statistics import paired_difference, summary
from phalanx.analysis.verdict_rates import VerdictRates, certain, verdict_rates
from phalanx.committee.adversaries import ADVERSARIES, HELD_OUT
from phalanx.committee.faults import Threat
from phalanx.envs.base import Environment
from phalanx.envs.stream import StreamEnv
from phalanx.files import to_json, write_text
from phalanx.runtime.attacked import Liars, LiarsAsked, asked_for, horizon_of, prepare
from phalanx.runtime.baselines import references
from phalanx.runtime.compile_cache import use_compile_cache
from phalanx.runtime.config import RunConfig
from phalanx.runtime.cut import Cut, cut_of
from phalanx.runtime.decide import Committee, vote
from phalanx.runtime.episodes import run_totals
from phalanx.runtime.kept import load_committee
from phalanx.runtime.lies import expected
from phalanx.runtime.policies import CommitteePolicy
from phalanx.runtime.store import RunFolder, run_folders
from phalanx.runtime.task import Part, Task, build_task
from phalanx.runtime.watch import Watched, ballot, verdicts, watch
from phalanx.types import Score, Verdict

_LANES = 128
HONEST = "none"
_APART = ("silent", "flip", "worst-case", "worst-proposer")
RATES = (
    "recall",
    "false_alerts",
    "block_malicious",
    "block_benign",
    "quarantine_malicious",
    "quarantine_benign",
)
KEPT = tuple(f"kept_{verdict.name.lower()}" for verdict in Verdict)
RESPONSE = ("loss", "damage_prevented", "false_blocks_per_million", "alerts_per_day", "availability")


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


def independent(watched: Watched, seed: int = 0) -> Watched:
    """Members as accurate as these whose errors have nothing to do with one another: each one's opinions are dealt
    anew among the events of a class."""
    rng, log_probs = np.random.default_rng(seed), watched.log_probs.copy()
    for label in np.unique(watched.label):
        rows = np.flatnonzero(watched.label == label)
        for member in range(log_probs.shape[1]):
            log_probs[rows, member] = watched.log_probs[rng.permutation(rows), member]
    return watched._replace(log_probs=log_probs)


class Response:
    """Closed loop: the same episodes for every policy, and for every kind of liars among its members."""

    def __init__(self, env: Environment, key: Any, episodes: int, n_sets: int, kinds: Sequence[str]) -> None:
        """Every set of liars is in equally many episodes; kinds come in turn, block by block of as many episodes as
        there are sets. Where the number of blocks has no divisor in common with the number of kinds, each episode
        meets each kind once in as many copies as there are kinds; so the first kind is there more than once if need
        be."""
        self.env, self.key, self.kinds = env, key, list(dict.fromkeys(kinds))
        blocks = max(round(episodes / n_sets), 1)
        self.in_turn = list(self.kinds)
        while math.gcd(blocks, len(self.in_turn)) > 1:
            self.in_turn.append(self.kinds[0])
        self.episodes = blocks * n_sets
        place = np.arange(self.episodes * len(self.in_turn))
        self.kind = place // n_sets % len(self.in_turn)

    @functools.cached_property
    def ends(self) -> tuple[Score, Score]:
        """Totals of always-allow and of the oracle."""
        uniform = np.full(len(Verdict), 1 / len(Verdict), np.float32)
        courses = references(self.env, self.key, self.episodes, uniform)
        return courses["always-allow"].score, courses["oracle"].score

    def honest(self, policy: CommitteePolicy) -> dict[str, float | None]:
        """Without liars."""
        steps = self.env.episode_events
        return self._figures(run_totals(self.env, policy, self.key, n_envs=self.episodes, steps=steps))

    def under(self, policy: CommitteePolicy, liars: dict[str, Liars]) -> dict[str, dict[str, float | None]]:
        """With each kind of liars, in one compiled loop."""
        spec, steps, most = policy.committee.spec, self.env.episode_events, liars[self.kinds[0]].asked.faulty
        threat = Threat(tuple(self.in_turn), most, steps, spec.n_entities)
        learned = liars["learned"].learned if "learned" in liars else None
        among = dataclasses.replace(policy, threat=threat, key=self.key, learned=learned)
        score = run_totals(
            self.env, among, self.key, n_envs=self.episodes, steps=steps, copies=len(self.in_turn)
        )
        found = {}
        for place, kind in enumerate(self.kinds):
            these = np.flatnonzero(self.kind == place)
            order = these[np.argsort(these % self.episodes)]
            found[kind] = self._figures(jax.tree.map(lambda leaf, rows=order: leaf[rows], score))
        return found

    def _figures(self, score: Score) -> dict[str, float | None]:
        worth = response_metrics(score, *self.ends)
        return {name: getattr(worth, name) for name in RESPONSE}


def honest_rates(watched: Watched, cut: Cut, f: int) -> VerdictRates:
    """Without liars."""
    answers = verdicts(ballot(watched, cut, f), f)
    return verdict_rates(watched.label, certain(answers), answers)


def of_seed(
    folder: RunFolder,
    task: Task,
    asked: Sequence[LiarsAsked],
    response: Response | None,
    key: Any,
    episodes: int,
) -> dict[str, Any]:
    """One committee under every kind of liars, and without."""
    config = RunConfig.of(folder.config())
    committee, point = load_committee(folder, config, task.test.watch)
    cut, memory, f = cut_of(point) or Cut.of(float("inf")), config.network.memory_size, committee.f
    keys = jax.random.split(key, 3)
    known, test = (
        opinions(part, committee, own, memory, episodes)
        for part, own in ((task.validation, keys[0]), (task.test, keys[1]))
    )
    strangers = independent(known)
    alone = np.asarray(vote(jnp.asarray(test.log_probs), threshold=cut))
    policy = CommitteePolicy(committee, cut.arrays(), memory)
    found: dict[str, Any] = {
        "seed": config.seed,
        "episodes": episodes,
        "played": response.episodes if response else 0,
        "events": len(test.label),
        "threshold": [float(cut.alert), float(cut.answer)],
        "members": {
            "error_correlation": committee_metrics(alone, test.label).error_correlation,
            "recall": float((alone[test.label == 1] >= Verdict.ALERT).mean()),
            "false_alerts": float((alone[test.label == 0] >= Verdict.ALERT).mean()),
        },
    }
    found["kinds"] = {
        HONEST: {
            "measured": flat(honest_rates(test, cut, f)),
            "predicted": flat(honest_rates(known, cut, f)),
            "apart": flat(honest_rates(strangers, cut, f)),
            "response": response.honest(policy) if response else {},
        }
    }
    everyone: dict[str, Liars] = {}
    for each in asked:
        begun = time.process_time()
        liars = everyone[each.adversary] = prepare(each, lambda: known, cut, f, keys[2])
        under, said = liars.detect(test, cut, committee)
        threat = each.threat(committee.spec, horizon_of(known))
        found["kinds"][each.adversary] = {
            "measured": flat(under.rates(test.label)),
            "expected": flat(said["expected"] and VerdictRates(**said["expected"])),
            "predicted": flat(expected(known, cut, f, threat, every_set=True)),
            "apart": flat(expected(strangers, cut, f, threat, every_set=True))
            if each.adversary in _APART
            else {},
            "response": {},
        }
        print(f"  {each.adversary:18} {time.process_time() - begun:6.1f} s of CPU", flush=True)
    if response:
        begun = time.process_time()
        for kind, figures in response.under(policy, everyone).items():
            found["kinds"][kind]["response"] = figures
        print(f"  {'closed loop':18} {time.process_time() - begun:6.1f} s of CPU", flush=True)
    return found


def over_seeds(seeds: list[dict[str, Any]]) -> dict[str, Any]:
    """Every figure, seed by seed: kind, part, name."""
    return {
        kind: {
            part: {
                name: [_short(seed["kinds"][kind][part].get(name)) for seed in seeds]
                for name in figures
                if part in ("measured", "response") or name in RATES
            }
            for part, figures in row.items()
            if part != "expected"
        }
        for kind, row in seeds[0]["kinds"].items()
    }


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")


def from_expected(seeds: list[dict[str, Any]]) -> dict[str, float]:
    """By kind, the largest distance of a measured rate from the one expected on the same events."""
    found: dict[str, float] = {}
    for kind, row in seeds[0]["kinds"].items():
        if row.get("expected"):
            pairs = [
                (seed["kinds"][kind]["measured"][name], seed["kinds"][kind]["expected"][name])
                for seed in seeds
                for name in (*RATES, *KEPT)
            ]
            gaps = [abs(a - b) for a, b in pairs if a is not None and b is not None]
            found[kind] = float(f"{max(gaps):.3g}")
    return found


def from_predicted(run: dict[str, Any], part: str = "predicted") -> dict[str, Any]:
    """By rate, measured less predicted over all kinds and seeds: mean, mean distance, largest distance, and how much of
    the variance of what was measured the prediction explains."""
    found = {}
    for name in RATES:
        pairs = [
            (measured, told)
            for row in run["figures"].values()
            if name in row.get(part, {})
            for measured, told in zip(row["measured"][name], row[part][name], strict=True)
            if measured is not None and told is not None
        ]
        measured, told = np.array(pairs, np.float64).T
        gap, spread = measured - told, float(measured.var())
        found[name] = {
            "mean": _short(float(gap.mean())),
            "mean_distance": _short(float(np.abs(gap).mean())),
            "largest": _short(float(np.abs(gap).max())),
            "explained": _short(1.0 - float((gap**2).mean()) / spread) if spread else None,
        }
    return found


def compare(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """What learning beside liars changed, seed by seed: by kind, then of all kinds met and of all held out."""
    common = sorted(set(before["seeds"]) & set(after["seeds"]))

    def values(run: dict[str, Any], kind: str, part: str, name: str) -> np.ndarray:
        own = run["figures"][kind][part][name]
        return np.array([own[run["seeds"].index(seed)] for seed in common], np.float64)

    parts = [("measured", name) for name in RATES] + [("response", name) for name in RESPONSE]
    kinds = list(before["figures"])
    groups = {kind: [kind] for kind in kinds} | {
        "met": [kind for kind in kinds if kind not in (HONEST, "learned", *HELD_OUT)],
        "held out": [kind for kind in kinds if kind in HELD_OUT or kind == "learned"],
    }
    found: dict[str, Any] = {"seeds": common, "difference": {}}
    for group, members in groups.items():
        for part, name in parts:
            if members and name in before["figures"][members[0]].get(part, {}):
                old, new = (
                    np.mean([values(run, kind, part, name) for kind in members], axis=0)
                    for run in (before, after)
                )
                gain = paired_difference(old.tolist(), new.tolist())
                found["difference"].setdefault(group, {})[name] = {
                    key: _short(gain[key]) for key in ("iqm", "low", "high")
                }
    return found


def _cell(values: Sequence[float | None] | None, digits: int = 3) -> str:
    """Interquartile mean and interval over seeds."""
    if not values or all(value is None for value in values):
        return "-"
    own = summary(values)
    return f"{own['iqm']:.{digits}f} ({own['low']:.{digits}f} to {own['high']:.{digits}f})"


def _rows(run: dict[str, Any], parts: Sequence[tuple[str, str, int]]) -> list[str]:
    return [
        f"| {' | '.join((kind, *(_cell(row.get(part, {}).get(name), digits) for part, name, digits in parts)))} |"
        for kind, row in run["figures"].items()
    ]


def tables(name: str, run: dict[str, Any]) -> str:
    """A run's figures as Markdown."""
    lines = [f"### {name}: {run['n']} members, {run['faulty']} faulty, {len(run['seeds'])} seeds"]
    for heading, parts in (
        (
            "measured, predicted",
            [
                (part, rate, 4)
                for rate in RATES
                if rate != "block_benign"
                for part in ("measured", "predicted")
            ],
        ),
        ("apart", [("apart", rate, 4) for rate in RATES]),
        ("kept", [("measured", kept, 3) for kept in KEPT]),
        ("response", [("response", figure, 3) for figure in RESPONSE]),
    ):
        names = [figure if part == "measured" else f"{figure} {part}" for part, figure, _ in parts]
        lines += [f"\n{heading}\n", f"| liars | {' | '.join(names)} |", "|---|" + "---|" * len(parts)]
        lines += _rows(run, parts)
    return "\n".join(lines)


def task_of(config: RunConfig, made: dict[Any, Any]) -> Task:
    """One environment for all runs that are measured in the same, so that loops are compiled once."""
    own = (config.env, config.scenario, config.specs, config.episode_limit, config.poison)
    if config.env != "simulator":
        return build_task(config)
    if own not in made:
        made[own] = build_task(config)
    return made[own]


def of_run(run: Path, arguments: argparse.Namespace, made: dict[Any, Any]) -> dict[str, Any]:
    """All seeds of a run under every kind of liars."""
    folders, key = run_folders(run), jax.random.key(arguments.seed)
    first = RunConfig.of(folders[0].config())
    tried = (asked_for(first.members, first.f, arguments.faulty, kind) for kind in arguments.kinds)
    asked = [each for each in tried if each is not None]
    task, faulty, response = task_of(first, made), asked[0].faulty, None
    if task.test.act is not None and arguments.played:
        place = (id(task), first.members, faulty)
        if place not in made:
            n_sets = math.comb(first.members, faulty)
            made[place] = Response(task.test.act, key, arguments.played, n_sets, arguments.kinds)
        response = made[place]
    print(f"{run.name}: {first.members} members, {faulty} faulty, {len(folders)} seeds", flush=True)
    seeds: list[dict[str, Any]] = []
    for folder in folders:
        kept = arguments.kept and arguments.kept / f"{run.name}-{folder.path.name}.json"
        if kept and kept.exists():
            seeds.append(json.loads(kept.read_text()))
            continue
        seeds.append(of_seed(folder, task, asked, response, key, arguments.episodes))
        if kept:
            write_text(kept, to_json(seeds[-1]))
    found = {
        "n": first.members,
        "f": first.f,
        "faulty": faulty,
        "learned_beside_liars": first.liars,
        "iterations": first.iterations,
        "rollouts": first.rollouts,
        "seeds": [seed["seed"] for seed in seeds],
        "episodes": sorted({seed["episodes"] for seed in seeds}),
        "played": sorted({seed["played"] for seed in seeds}),
        "events": [seed["events"] for seed in seeds],
        "threshold": [seed["threshold"] for seed in seeds],
        "members": {name: [_short(seed["members"][name]) for seed in seeds] for name in seeds[0]["members"]},
        "figures": over_seeds(seeds),
        "from_expected": from_expected(seeds),
    }
    return found | {"from_predicted": from_predicted(found), "from_apart": from_predicted(found, "apart")}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--episodes", type=int, default=256, help="watched in open loop")
    parser.add_argument("--played", type=int, default=84, help="in closed loop, each kind, about; 0: none")
    parser.add_argument("--faulty", type=int, help="as many as each run tolerates unless given")
    parser.add_argument("--kinds", nargs="+", default=list(ADVERSARIES), choices=list(ADVERSARIES))
    parser.add_argument("--seed", type=int, default=313)
    parser.add_argument("--kept", type=Path, help="folder for each seed's figures: not measured again")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    use_compile_cache()
    found: dict[str, Any] = {}
    made: dict[Any, Any] = {}
    for run in arguments.runs:
        found[run.name] = of_run(run, arguments, made)
        print(tables(run.name, found[run.name]), flush=True)
    compared = {
        f"{after} - {before}": compare(old, new)
        for before, old in found.items()
        for after, new in found.items()
        if old["n"] == new["n"] and not old["learned_beside_liars"] and new["learned_beside_liars"]
    }
    if arguments.out:
        told = {"seed": arguments.seed, "runs": found, "compared": compared}
        write_text(arguments.out, to_json(told) + "\n")


if __name__ == "__main__":
    main()
