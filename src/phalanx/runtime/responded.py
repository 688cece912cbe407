"""Response of an evaluation: what the committee's and the baselines' answers did to the same episodes."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from phalanx.analysis.metrics import response_metrics
from phalanx.envs.base import Environment
from phalanx.envs.catalogue import STAGES
from phalanx.envs.constrained import unconstrained
from phalanx.envs.simulator import Simulator
from phalanx.runtime.baselines import choose_playbook, rates_of, references
from phalanx.runtime.episodes import Course, run_episodes
from phalanx.runtime.policies import CommitteePolicy, ThresholdPolicy
from phalanx.runtime.specifications import forecast, held
from phalanx.runtime.yardstick import PLAY, Yardstick
from phalanx.stl.specs import Spec
from phalanx.types import Verdict

__all__ = ["RESPONSE", "TUNED", "add_response"]

TUNED = "tuned threshold classifier"


def add_response(
    result: dict[str, Any],
    policy: CommitteePolicy,
    env: Environment,
    yardstick: Yardstick,
    keys: list[PRNGKeyArray],
    episodes: int,
    specs: tuple[Spec, ...],
) -> None:
    """Adds what the committee's and the baselines' answers did to the same episodes.

    Args:
        result: keys of ``eval.json``; its baselines hold how they detect, or are empty.
        policy: the committee.
        env: the test part's closed loop.
        yardstick: what all seeds are measured against.
        keys: of what is drawn for the three parts (``yardstick.streams``).
        episodes: of each policy.
        specs: what is watched.
    """
    steps = env.episode_events
    key = jax.random.fold_in(keys[2], PLAY)
    course = run_episodes(env, policy, key, n_envs=episodes, steps=steps)
    result["specs"] = held(specs, course.robustness, course.live)
    result["shield"] = {"changed": course.changed}
    courses = references(env, key, episodes, rates_of(course))
    if yardstick.classifier is not None and yardstick.act is not None and yardstick.ends is not None:
        own = jax.random.fold_in(keys[1], PLAY)
        known = run_episodes(yardstick.act, policy, own, n_envs=episodes, steps=yardstick.act.episode_events)
        if isinstance(unconstrained(env), Simulator):  # else validation and test are not draws of one world
            told = forecast(specs, (known.robustness, known.live), (course.robustness, course.live))
            for name, said in told.items():
                result["specs"][name]["forecast"] = said
        availability = response_metrics(known.score, *yardstick.ends).availability
        book = choose_playbook(yardstick.tried, 1.0 if availability is None else availability)
        tuned = ThresholdPolicy(
            yardstick.classifier.probe.score,
            np.full(episodes, book["threshold"]),
            np.full(episodes, int(Verdict[book["verdict"].upper()])),
        )
        courses[TUNED] = run_episodes(env, tuned, key, n_envs=episodes, steps=steps)
        result["playbook"] = {**book, "committee_availability": availability}
    ends = courses["always-allow"].score, courses["oracle"].score
    result |= dataclasses.asdict(response_metrics(course.score, *ends))
    result["damage_by_episode"] = np.asarray(course.score.damage, float).tolist()
    for name, each in courses.items():
        row = result["baselines"].setdefault(name, {})
        reached = dataclasses.asdict(response_metrics(each.score, *ends))
        row |= {metric: reached[metric] for metric in RESPONSE}
    names = {"stages": list(STAGES)} if isinstance(unconstrained(env), Simulator) else {}
    result["course"] = names | _course(course, courses["always-allow"])


RESPONSE = (
    "normalised_score",
    "loss",
    "cvar_loss",
    "furthest_stage",
    "damage_prevented",
    "availability",
    "time_to_contain_s",
    "contained_share",
    "false_blocks_per_million",
    "alerts_per_day",
)
"""Keys of what answers did; null where they have no consequence."""


def _course(committee: Course, allowed: Course) -> dict[str, Any]:
    """One campaign's course under both: the episode in which always-allow suffers the median damage above none."""
    total = np.asarray(allowed.score.damage)
    order = np.argsort(total, kind="stable")
    struck = order[total[order] > 0]
    episode = int(struck[len(struck) // 2]) if len(struck) else 0

    def side(course: Course) -> dict[str, list[Any]]:
        live = course.live[:, episode]
        return {
            "event": np.arange(live.sum()).tolist(),
            "cumulative_damage": course.damage[live, episode].astype(float).tolist(),
            "verdict": course.verdict[live, episode].tolist(),
            "label": course.label[live, episode].tolist(),
            "stage": course.stage[live, episode].tolist(),
        }

    return {"committee": side(committee), "always-allow": side(allowed)}
