"""Evaluation of a run: detection open loop, response closed loop, beside baselines, on the test part.

Thresholds come from the validation part; the test part is only ever measured on.
"""

import dataclasses
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PRNGKeyArray

from phalanx.agents.memory import init_memory
from phalanx.analysis.metrics import committee_metrics, detection_metrics
from phalanx.analysis.verdict_rates import certain, verdict_rates
from phalanx.data.encoder import Encoder
from phalanx.envs.base import Environment
from phalanx.envs.constrained import Constrained
from phalanx.envs.original import OriginalEnv
from phalanx.envs.stream import StreamEnv
from phalanx.errors import PhalanxError, UsageError
from phalanx.runtime.attacked import Liars, LiarsAsked, asked_for, prepare
from phalanx.runtime.baselines import (
    fit_classifier,
)
from phalanx.runtime.config import RunConfig
from phalanx.runtime.cut import Cut, cut_of
from phalanx.runtime.decide import Committee, decide_events, init_guard, shielded, vote
from phalanx.runtime.fingerprint import check_unchanged
from phalanx.runtime.kept import load_committee
from phalanx.runtime.original import OriginalCommittee
from phalanx.runtime.original_judge import judge, majority, original_latency, original_specs
from phalanx.runtime.policies import CommitteePolicy
from phalanx.runtime.responded import RESPONSE, add_response
from phalanx.runtime.seeds import merged
from phalanx.runtime.specifications import load_specs
from phalanx.runtime.store import RunFolder, run_folders
from phalanx.runtime.task import Part, Task, build_task, data_part
from phalanx.runtime.watch import Watched, ballot, verdicts, watch
from phalanx.runtime.yardstick import (
    PROBE_ROWS,
    WATCH,
    Yardstick,
    detection_baselines,
    make_yardstick,
    streams,
)
from phalanx.stl.shield import Shield
from phalanx.stl.specs import Spec

__all__ = ["evaluate"]

_LOG = logging.getLogger("phalanx")
_TEST_LANES = 128  # places on recorded rows that start with blank memory, as many as in validation
_LATENCY_CALLS = 300


def evaluate(
    run: Path,
    *,
    data: Path | None = None,
    episodes: int = 64,
    seed: int = 0,
    positive: str = "alert",
    specs: Path | None = None,
    shield: Path | None = None,
    faulty: int | None = None,
    adversary: str | None = None,
) -> dict[str, Any]:
    """Measures a run and keeps the result as its ``eval.json``.

    Args:
        run: run folder, or the parent of one per seed.
        data: other recorded events to measure on, all rows; the test part of the run's own unless given.
        episodes: simulated episodes for detection, and episodes of the closed loop.
        seed: of the episodes.
        positive: alert, or restrict (block or more counts as positive, as the original counts).
        specs: what is to hold in the closed loop, see ``specifications.spec_file``; the run's own unless given, and
            ``office`` in the simulator where it has none.
        shield: specifications that a shield keeps there.
        faulty: members that are faulty, every set of them in equally many episodes; f where an adversary is given.
        adversary: of what kind (``committee.adversaries``); the worst case where ``faulty`` is given.

    Returns:
        The keys of CONTRACT.md; with several seeds their means, and ``per_seed``, ``intervals``.

    Raises:
        RunError: no run, a damaged one, or one whose own data changed since training.
        DataError: data that cannot be used.
    """
    folders = run_folders(run)
    first = RunConfig.of(folders[0].config())
    if data is not None and folders[0].read_specs():
        raise UsageError(
            f"--data {data}: the run learned under specifications and its members are shown their margins, which "
            "recorded events do not have; measure it in the simulator, without --data"
        )
    if shield is not None and first.is_original:
        raise UsageError("--shield: the original's committee decides by its own rule, without one")
    asked = asked_for(first.members, first.f, faulty, adversary)
    if asked is not None and first.is_original:
        raise UsageError(
            "--adversary: the original's committee decides by its own rule, which nobody attacks here"
        )
    task, part, notes = _parts(first, folders[0], data)
    part, task, measured = _watched_by(first, folders[0], part, task, specs)
    keeper = None if shield is None else Shield(load_specs(shield))
    key = jax.random.key(seed)
    results, yardstick = [], None
    for folder in folders:
        config = RunConfig.of(folder.config())
        committee, point = load_committee(folder, config, part.watch)
        if keeper is not None:
            committee = shielded(cast(Committee, committee), keeper)
        if isinstance(committee, OriginalCommittee):
            results.append(_evaluate_original(config, committee, point, task, part, key, positive, notes))
        else:
            yardstick = yardstick or make_yardstick(config, committee, task, key, episodes)
            liars = asked and _prepared(asked, config, committee, point, task, key, episodes)
            results.append(
                _evaluate_one(
                    config, committee, point, part, yardstick, key, episodes, positive, notes, measured, liars
                )
            )
        results[-1] |= {
            "data": None if data is None else str(data),
            "episodes": episodes,
            "seed": config.seed,
            "evaluation_seed": seed,
            "shield": keeper
            and {"file": str(shield), "names": keeper.names, "apart": keeper.apart, **results[-1]["shield"]},
        }
        folder.write_eval(results[-1])
    if len(results) == 1:
        return results[0]
    whole = merged(results)
    RunFolder(Path(run)).write_eval(whole)
    return whole


def _parts(config: RunConfig, folder: RunFolder, data: Path | None) -> tuple[Task | None, Part, list[str]]:
    """The run's own task where its data is what it was, the part to measure on, and what to say about them."""
    encoder, known = Encoder.from_dict(json.loads(folder.read_encoder())), folder.read_data()

    def own() -> Task:
        if known:
            check_unchanged(known, config.sources)
        return build_task(config, encoder, folder.read_specs())

    if data is None:
        task = own()
        return task, task.test, list(task.notes)
    part, notes = data_part(config, encoder, data)
    try:
        return own(), part, list(notes)
    except PhalanxError as error:
        return None, part, [*notes, f"no baselines: the run's own data cannot be used ({error})"]


def _watched_by(
    config: RunConfig, folder: RunFolder, part: Part, task: Task | None, given: Path | None
) -> tuple[Part, Task | None, tuple[Spec, ...]]:
    """The closed loops with the specifications to measure watched in them, and which these are.

    Raises:
        UsageError: specifications for answers that have no consequence, or that read what the environment has not.
    """
    specs = folder.read_specs() if given is None else load_specs(given)
    if part.act is None:
        if given is not None:
            raise UsageError(
                "--specs: answers have no consequence here (env stream), so nothing of them can hold"
            )
        return part, task, ()
    if given is None and not specs and config.env == "simulator":
        given = Path("office")
        specs = load_specs(given)
    if given is None or not specs:
        return part, task, specs
    part = replace(part, act=Constrained(part.act, specs, shown=False))
    if task is not None and task.validation.act is not None:
        loop = Constrained(task.validation.act, specs, shown=False)
        task = replace(task, validation=replace(task.validation, act=loop))
    return part, task, specs


def _evaluate_one(
    config: RunConfig,
    committee: Committee,
    point: Mapping[str, Any],
    part: Part,
    yardstick: Yardstick,
    key: PRNGKeyArray,
    episodes: int,
    positive: str,
    notes: list[str],
    specs: tuple[Spec, ...],
    liars: Liars | None,
) -> dict[str, Any]:
    threshold = _threshold(point)
    memory = config.network.memory_size
    own = jax.random.fold_in(streams(key)[2], WATCH)
    _LOG.info("seed %d: detection, with the same events for all", config.seed)
    places = _TEST_LANES if isinstance(part.watch, StreamEnv) else episodes
    test = watch(part.watch, committee, own, memory, n_lanes=places)
    alone = np.asarray(vote(jnp.asarray(test.log_probs), threshold=threshold))
    honest = verdicts(ballot(test, threshold, committee.f), committee.f)
    result = _detected(config, test, alone, (honest, test.score), point, positive, notes)
    if liars is not None:
        under, told = liars.detect(test, threshold, committee)
        own = result["committee"]
        result = _detected(config, test, alone, (under.verdict, under.score), point, positive, notes)
        result["committee"] = own | told
    result["latency_ms"] = _latency(committee, part.watch, threshold, memory)
    result["baselines"] = detection_baselines(yardstick.classifier, test, positive)
    if part.act is None:
        result |= dict.fromkeys(RESPONSE)
    else:
        _LOG.info("seed %d: response, %d episodes for each policy", config.seed, episodes)
        policy = CommitteePolicy(committee, threshold.arrays(), memory)
        if liars is not None:
            policy = liars.among(policy, part.act)
        add_response(result, policy, part.act, yardstick, streams(key), episodes, specs)
    return result


def _threshold(point: Mapping[str, Any]) -> Cut:
    return cut_of(point) or Cut.of(float("inf"))


def _prepared(
    asked: LiarsAsked,
    config: RunConfig,
    committee: Committee,
    point: Mapping[str, Any],
    task: Task | None,
    key: PRNGKeyArray,
    episodes: int,
) -> Liars:
    """The liars asked for; those that learn are shown opinions on the validation part."""

    def known() -> Watched:
        if task is None:
            raise UsageError(
                "--adversary learned: it learns on the run's own validation part, which cannot be read"
            )
        env = task.validation.watch
        places = _TEST_LANES if isinstance(env, StreamEnv) else episodes
        own = jax.random.fold_in(streams(key)[1], WATCH)
        return watch(env, committee, own, config.network.memory_size, n_lanes=places)

    return prepare(asked, known, _threshold(point), committee.f, streams(key)[2])


def _detected(
    config: RunConfig,
    test: Watched,
    votes: Int[np.ndarray, "event member"],
    answered: tuple[Int[np.ndarray, " event"], Float[np.ndarray, " event"]],
    point: Mapping[str, Any],
    positive: str,
    notes: list[str],
) -> dict[str, Any]:
    """Detection and voting on the watched events; nothing of response, and no spec yet. ``votes`` are those of members
    who have not heard one another: how alike they think. ``answered`` are the committee's verdicts and scores."""
    answers, score = answered
    found = dataclasses.asdict(detection_metrics(test.label, answers, score, positive=positive))
    voting = committee_metrics(votes, test.label, positive=positive)
    given = verdict_rates(test.label, certain(answers), answers)
    return {
        **found,
        "shield": {"changed": None},
        "threshold": point["threshold"],
        "alert_threshold": point.get("alert_threshold", point["threshold"]),
        "threshold_source": point["threshold_source"],
        "positive": positive,
        "events": len(test.label),
        "specs": {},
        "committee": {
            "n": config.members,
            "f": config.f,
            "faulty": 0,
            "adversary": None,
            **dataclasses.asdict(voting),
            "verdicts": dataclasses.asdict(given),
            "expected": None,
        },
        "notes": notes,
    }


def _evaluate_original(
    config: RunConfig,
    committee: OriginalCommittee,
    point: Mapping[str, Any],
    task: Task | None,
    part: Part,
    key: PRNGKeyArray,
    positive: str,
    notes: list[str],
) -> dict[str, Any]:
    """The original's committee: greedy, by the verdict of most members; without response, for the stream has none."""
    env = cast(OriginalEnv, part.watch)
    test = judge(env, committee)
    votes = ballot(test, None, 0)
    result = _detected(config, test, votes, (majority(votes), test.score), point, positive, notes)
    result["specs"] = original_specs(env, votes, key)
    result["latency_ms"] = original_latency(env, committee)
    classifier = None
    if task is not None:
        known = (cast(OriginalEnv, each.watch) for each in (task.train, task.validation))
        train, validation = (judge(each, committee, PROBE_ROWS) for each in known)
        classifier = fit_classifier(train, validation, config.seed)
    result["baselines"] = detection_baselines(classifier, test, positive)
    return result | dict.fromkeys(RESPONSE)


def _latency(committee: Committee, env: Environment, threshold: Cut, memory: int) -> dict[str, float]:
    """Time of one decision, one event at a time, in ms; compilation apart."""
    observation = jax.tree.map(lambda leaf: leaf[None], env.reset(jax.random.key(0))[1])
    table = init_memory(committee.n_members, 1, env.spec.n_entities, memory)
    decide = eqx.filter_jit(
        lambda c, t, g, o: decide_events(c, t, o, jnp.zeros((), jnp.int32), threshold=threshold, guard=g)[:3]
    )
    guard = init_guard(committee, 1)
    taken = []
    for call in range(_LATENCY_CALLS + 10):
        begun = time.perf_counter()
        table, guard, decision = decide(committee, table, guard, observation)
        decision.action.block_until_ready()
        if call >= 10:
            taken.append(1e3 * (time.perf_counter() - begun))
    return {"p50": float(np.percentile(taken, 50)), "p99": float(np.percentile(taken, 99))}
