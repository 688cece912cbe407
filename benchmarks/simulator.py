"""The committee on the simulator beside its baselines, over seeds, and the critic beside a regression.

    python benchmarks/simulator.py [--seeds 5] [--iterations 60] [--out benchmarks/results/simulator.json]

Two questions: does the committee prevent more damage than always-allow, always-block, random and the tuned threshold
classifier at equal availability; and does the critic explain as much of the returns as a regression of the same inputs
does (the better of ridge and gradient boosting, cross-validated, whole environments held out)?
"""

import argparse
import json
import tempfile
from pathlib import Path

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, PRNGKeyArray

from phalanx.agents.network import encode_events, unroll
from phalanx.agents.targets import gae, monte_carlo
from phalanx.analysis.metrics import explained_variance
from phalanx.analysis.probe import regression_ceiling
from phalanx.analysis.statistics import paired_difference, summary
from phalanx.envs.base import Environment
from phalanx.runtime.compile_cache import use_compile_cache
from phalanx.runtime.config import RunConfig
from phalanx.runtime.decide import Committee
from phalanx.runtime.evaluate import evaluate
from phalanx.runtime.learner import LearnerConfig, init_train_state, learner_config
from phalanx.runtime.responded import TUNED
from phalanx.runtime.rollout import Rollout, collect, init_world
from phalanx.runtime.store import run_folders
from phalanx.runtime.task import build_task
from phalanx.runtime.train import train

RIVALS = ("always-allow", "always-block", "random", TUNED)


FRESH_ENVS, FRESH_STEPS, SETTLE, TAIL = 512, 384, 512, 128


@eqx.filter_jit
def _roll(
    env: Environment, committee: Committee, key: PRNGKeyArray, learner: LearnerConfig
) -> tuple[Rollout, Array]:
    """What a trained committee meets in fresh environments, and the first member's memories after each event.

    The first episodes are left out: they begin with up to a whole episode of events that nobody answered, which a
    committee in training does not meet any more.
    """
    key_world, key_settle, key_steps = jax.random.split(key, 3)
    memory = learner.network.memory_size
    world = init_world(env, committee, FRESH_ENVS, memory, key_world, stagger=learner.stagger)
    world, _ = collect(env, committee, world, key_settle, steps=SETTLE)
    rollout = collect(env, committee, world, key_steps, steps=FRESH_STEPS)[1]
    first = jax.tree.map(lambda leaf: leaf[0], committee.networks)
    gates = encode_events(first, committee.masks[0], rollout.vectors).gates
    return rollout, unroll(first, gates, rollout.reads, rollout.initial[0])


def critic(run: Path) -> list[dict[str, float | None]]:
    """Explained variance of the returns in fresh episodes, of each seed's first member at the end of training.

    The critic's, and that of a regression of the same returns on the same inputs: event vector, memory, core state. Of
    two kinds of returns: the lambda-returns that the critic learns, and Monte Carlo returns, which rest on its value
    only where an episode is cut. The regression is fitted on 65,536 events of 256 environments, twice.
    """
    found = []
    for folder in run_folders(run):
        config = RunConfig.of(folder.config())
        learner, env = learner_config(config), build_task(config).learn
        like = init_train_state(env, learner, jax.random.key(0))
        committee = folder.checkpoints.load(like)[1].committee
        rollout, memories = _roll(env, committee, jax.random.key(10_000 + config.seed), learner)
        rewards, values, following = rollout.reward, rollout.value[:, 0], rollout.next_value[:, 0]
        ends, gamma = (rollout.terminated, rollout.truncated), config.gamma
        returns = {
            "lambda": gae(rewards, values, following, *ends, gamma=gamma, lam=learner.lam).value_targets,
            "monte carlo": monte_carlo(rewards, following, *ends, gamma=gamma),
        }
        kept = slice(0, FRESH_STEPS - TAIL)  # the last returns rest on the bootstrap more than on rewards
        inputs = np.concatenate([np.asarray(x)[kept] for x in (rollout.vectors, memories, rollout.core)], -1)
        inputs = inputs.reshape(-1, inputs.shape[-1])
        groups = np.broadcast_to(np.arange(FRESH_ENVS), (FRESH_STEPS - TAIL, FRESH_ENVS)).ravel()
        line: dict[str, float | None] = {}
        for name, each in returns.items():
            goal = np.asarray(each)[kept].ravel()
            line[f"critic, {name}"] = explained_variance(np.asarray(values)[kept].ravel(), goal)
            line[f"regression, {name}"] = regression_ceiling(inputs, goal, groups, folds=2, threads=2)
        found.append(line)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--iterations", type=int, default=60)
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--evaluation-seed", type=int, default=1000, help="unseen while settings were chosen")
    parser.add_argument("--run", type=Path, help="an existing run instead of a new one")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    use_compile_cache()
    run = arguments.run or Path(tempfile.mkdtemp()) / "run"
    if arguments.run is None:
        print(train(RunConfig(iterations=arguments.iterations, seeds=arguments.seeds, out=run)))
    evaluate(run, episodes=arguments.episodes, seed=arguments.evaluation_seed)
    rows = [folder.read_eval() or {} for folder in run_folders(run)]
    first = {name: value for name, value in run_folders(run)[0].config().items() if name != "out"}
    result: dict[str, object] = {
        "command": f"python benchmarks/simulator.py --seeds {len(rows)} --iterations {first['iterations']} "
        f"--episodes {arguments.episodes} --evaluation-seed {arguments.evaluation_seed}",
        "settings": first,
        "episodes": arguments.episodes,
        "evaluation seed": arguments.evaluation_seed,
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
