"""The committee on the simulator beside its baselines, over seeds, and the critic beside a regression.

    python benchmarks/simulator.py [--seeds 5] [--iterations 60] [--out benchmarks/results/simulator.json]

Two questions: does the committee prevent more damage than always-allow, always-block, random and the tuned threshold
classifier at equal availability; and does the critic explain as much of the returns as gradient boosting on the same
inputs does (cross-validated, whole environments held out)?
"""

import argparse
import json
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from phalanx.agents.targets import gae
from phalanx.analysis.metrics import explained_variance
from phalanx.analysis.probe import regression_ceiling
from phalanx.analysis.statistics import paired_difference, summary
from phalanx.envs.base import Environment
from phalanx.runtime.compile_cache import use_compile_cache
from phalanx.runtime.config import RunConfig
from phalanx.runtime.decide import Committee
from phalanx.runtime.evaluate import TUNED, evaluate, load_committee
from phalanx.runtime.learner import LearnerConfig
from phalanx.runtime.rollout import Rollout, collect, init_world
from phalanx.runtime.store import run_folders
from phalanx.runtime.task import build_task
from phalanx.runtime.train import learner_config, train

RIVALS = ("always-allow", "always-block", "random", TUNED)


@eqx.filter_jit
def _roll(
    env: Environment, committee: Committee, key: PRNGKeyArray, learner: LearnerConfig, steps: int
) -> Rollout:
    key_world, key_steps = jax.random.split(key)
    memory = learner.network.memory_size
    world = init_world(env, committee, learner.n_envs, memory, key_world, stagger=learner.stagger)
    return collect(env, committee, world, key_steps, steps=steps)[1]


def critic(run: Path, steps: int = 512) -> list[dict[str, float | None]]:
    """Explained variance of the returns in fresh episodes: the critic's, and the ceiling of a regression."""
    found = []
    for folder in run_folders(run):
        config = RunConfig.of(folder.config())
        learner, env = learner_config(config), build_task(config).learn
        committee, _ = load_committee(folder, config, env)
        rollout = _roll(env, committee, jax.random.key(10_000 + config.seed), learner, steps)
        values = rollout.value[:, 0]
        targets = gae(
            rollout.reward,
            values,
            rollout.next_value[:, 0],
            rollout.terminated,
            rollout.truncated,
            gamma=config.gamma,
            lam=config.lam,
        ).value_targets
        kept = slice(0, steps - 100)  # the last returns rest on the bootstrap more than on rewards
        returns, inputs = np.asarray(targets)[kept], np.asarray(rollout.vectors)[kept]
        groups = np.broadcast_to(np.arange(returns.shape[1]), returns.shape)
        ceiling = regression_ceiling(inputs.reshape(-1, inputs.shape[-1]), returns.ravel(), groups.ravel())
        own = explained_variance(np.asarray(values)[kept].ravel(), returns.ravel())
        found.append({"critic": own, "regression": ceiling})
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--run", type=Path, help="an existing run instead of a new one")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    use_compile_cache()
    run = arguments.run or Path(tempfile.mkdtemp()) / "run"
    if arguments.run is None:
        print(train(RunConfig(iterations=arguments.iterations, seeds=arguments.seeds, out=run)))
    evaluate(run, episodes=arguments.episodes)
    rows = [folder.read_eval() or {} for folder in run_folders(run)]
    first = {name: value for name, value in run_folders(run)[0].config().items() if name != "out"}
    result: dict[str, object] = {
        "command": f"python benchmarks/simulator.py --seeds {len(rows)} --iterations {first['iterations']}",
        "settings": first,
        "episodes": arguments.episodes,
        "committee": {
            m: summary([row[m] for row in rows]) for m in ("damage_prevented", "availability", "f1", "pr_auc")
        },
    }
    for rival in RIVALS:
        theirs = [row["baselines"].get(rival, {}) for row in rows]
        line = {m: summary([each.get(m) for each in theirs]) for m in ("damage_prevented", "availability")}
        line["gain"] = paired_difference(
            [each.get("damage_prevented") for each in theirs], [row["damage_prevented"] for row in rows]
        )
        result[rival] = line
    result["gradient boosting f1"] = summary([row["baselines"]["gradient boosting"]["f1"] for row in rows])
    result["explained variance"] = critic(run)
    text = json.dumps(result, indent=1, default=str)
    print(text)
    if arguments.out:
        arguments.out.write_text(text + "\n")


if __name__ == "__main__":
    main()
