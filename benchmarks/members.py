"""What a committee adds to its members: its loss beside that of each member alone, in the same episodes, seed by seed.

    python benchmarks/members.py RUN [--episodes 256] [--seed 777] [--out benchmarks/results/members.json]

Committee and members are tuned alike, for least loss (8 thresholds on 64 episodes of their own).
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from phalanx.analysis.statistics import paired_difference, summary
from phalanx.envs.scenarios import scenario
from phalanx.envs.simulator import Simulator
from phalanx.files import write_json
from phalanx.runtime.compile_cache import use_compile_cache
from phalanx.runtime.league import committee_families
from phalanx.runtime.operating import CommitteeFamily
from phalanx.runtime.strata import EpisodeSet, draw_episodes
from phalanx.runtime.tuning import tune

_TRIALS, _TUNE_EPISODES = 8, 64


def alone(family: CommitteeFamily, member: int) -> CommitteeFamily:
    """One member as a committee of one."""
    whole = family.committee
    networks, masks, normalizers = jax.tree.map(
        lambda leaf: leaf[member : member + 1], (whole.networks, whole.masks, whole.normalizers)
    )
    one = replace(whole, networks=networks, masks=masks, normalizers=normalizers, f=0)
    return replace(family, committee=one)


def loss(family: CommitteeFamily, tuning: EpisodeSet, test: EpisodeSet, seed: int) -> float:
    """Mean loss of an episode at the best of the thresholds."""
    best = tune(family, tuning, trials=_TRIALS, seed=seed)
    return float(test.mean(np.asarray(test.totals(family.build([best.settings], test.n)).loss)))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    parser.add_argument("--scenario", default="office")
    parser.add_argument("--episodes", type=int, default=256)
    parser.add_argument("--members", type=int, help="members measured alone; all unless given")
    parser.add_argument("--seed", type=int, default=777)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    use_compile_cache()
    begun = time.perf_counter()
    where = scenario(arguments.scenario)
    env = Simulator(where.config)
    tuning, test = (
        draw_episodes(env, jax.random.fold_in(jax.random.key(arguments.seed), stream), n, where.base_rate)
        for stream, n in ((0, _TUNE_EPISODES), (1, arguments.episodes))
    )
    together, apart = [], []
    for seed, family in enumerate(committee_families(arguments.run, env)):
        count = min(arguments.members or family.committee.n_members, family.committee.n_members)
        together.append(loss(family, tuning, test, arguments.seed))
        apart.append([loss(alone(family, m), tuning, test, arguments.seed) for m in range(count)])
        print(seed, f"{together[-1]:.2f}", [f"{each:.2f}" for each in apart[-1]], flush=True)
    members = [float(np.mean(each)) for each in apart]
    found: dict[str, Any] = {
        "scenario": arguments.scenario,
        "episodes": arguments.episodes,
        "seed": arguments.seed,
        "committee": summary(together),
        "member_alone": summary(members),
        "loss_by_seed": [{"committee": c, "members": m} for c, m in zip(together, apart, strict=True)],
        "member_minus_committee": paired_difference(together, members),
    }
    print({name: found[name] for name in ("committee", "member_alone", "member_minus_committee")})
    print(f"{time.perf_counter() - begun:.0f} s")
    if arguments.out:
        write_json(arguments.out, found)


if __name__ == "__main__":
    main()
