"""Cause and effect in the simulator: laws over random answers, each of which notices when it is broken."""

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
from envs.sim_laws import LAWS, Account, account_of
from envs.simulated import FAULTY, SMALL, Episodes, episodes, take

from phalanx.envs.simulator import SimulatorConfig

WORLDS = {"small": SMALL, "faulty": FAULTY}


@cache
def _run(world: str) -> tuple[Episodes, Account]:
    run = episodes(WORLDS[world], "random")
    return run, account_of(run)


def test_the_sweep_is_wide_and_much_happens_in_it() -> None:
    """The full sweep, more than 1e5 cases, is benchmarks/causality.py."""
    runs = [_run(world) for world in WORLDS]
    assert sum(run.cases for run, _ in runs) >= 20_000
    for run, account in runs:
        live = run.live
        quarantines = (run.verdict == 3) & live
        assert quarantines.sum() > 200 and (account.success & live).sum() > 1000
        assert (run.step.terminated & live).sum() > 20 and run.step.score.contained[-1].sum() > 50
        assert run.state.campaigns.returned[-1].sum() > 20 and account.ticket[live].sum() > 100
    event, live = runs[1][0].state.event, runs[1][0].live
    assert (event.late & live).sum() > 1000 and (event.duplicate & live).sum() > 1000


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("world", WORLDS)
def test_law(world: str, law: str) -> None:
    run, account = _run(world)
    broken = np.argwhere(LAWS[law](run, account) & run.live)
    assert len(broken) == 0, (
        f"{len(broken)} of {run.cases} cases break it, [step, episode]: {broken[:5].tolist()}"
    )


def _changed(
    run: Episodes, where: Callable[[Any], Any], change: Callable[[np.ndarray], np.ndarray]
) -> Episodes:
    state = eqx.tree_at(where, run.state, change(where(run.state)))
    return dataclasses.replace(run, state=state)


def _at(value: Any, index: Any) -> Callable[[np.ndarray], np.ndarray]:
    def change(old: np.ndarray) -> np.ndarray:
        new = old.copy()
        new[index] = value
        return new

    return change


def _scored(run: Episodes, name: str) -> Episodes:
    """One step's total is off by a half from there on."""
    total = getattr(run.step.score, name).copy()
    total[50:, 3] += 0.5
    step = eqx.tree_at(lambda s: getattr(s.score, name), run.step, total)
    return dataclasses.replace(run, step=step)


def _muted(run: Episodes) -> Episodes:
    """A verdict is turned into a quarantine afterwards: what followed took no notice of it."""
    verdict = run.verdict.copy()
    verdict[:20] = 3
    return dataclasses.replace(run, verdict=verdict)


TAMPERED: dict[str, Callable[[Episodes], Episodes]] = {
    "time never runs backwards": lambda r: _changed(r, lambda s: s.event.time_s, _at(1e-9, (50, 3))),
    "only living processes act, for the campaign that owns them": lambda r: _changed(
        r, lambda s: s.event.campaign, _at(1, (slice(40, 60), 3))
    ),
    "silent processes emit nothing": _muted,
    "nothing acts below a silent process": _muted,
    "silence is what the verdicts and the analysts ordered": _muted,
    "a denied attempt neither advances nor harms": lambda r: dataclasses.replace(
        r, verdict=np.full_like(r.verdict, 2)
    ),
    "stages are entered one after the other on the route, by success alone": lambda r: _changed(
        r, lambda s: s.campaigns.stage, _at(5, (50, 3))
    ),
    "damage is that of the successes": lambda r: _scored(r, "damage"),
    "campaigns end where all their processes are silent or the attacker gives up": lambda r: _changed(
        r, lambda s: s.campaigns.contained, _at(True, (slice(50, None), slice(None)))
    ),
    "campaigns that are over do not act": lambda r: _changed(
        r, lambda s: s.campaigns.stopped, _at(True, (slice(50, None), slice(None)))
    ),
    "work lost is what was denied and the silent time of benign processes": lambda r: _scored(
        r, "benign_lost"
    ),
    "a slot holds one process, births find it free": lambda r: _changed(
        r, lambda s: s.world.serial, _at(7, (50, 3, 0))
    ),
    "numbers of processes are unique and grow": lambda r: _changed(
        r, lambda s: s.world.serial, _at(1, (50, 3, 0))
    ),
    "bits of lineage are a walk over the parents": lambda r: _changed(
        r, lambda s: s.world.lineage, _at(3, (50, 3, 0))
    ),
    "the score adds up": lambda r: _scored(r, "loss"),
}


@pytest.mark.parametrize("law", LAWS)
def test_a_law_notices_when_it_is_broken(law: str) -> None:
    run, account = _run("small")
    tampered = TAMPERED[law](run)
    if tampered.verdict is not run.verdict and "denied" not in law:
        account = account_of(tampered)
    assert (LAWS[law](tampered, account) & run.live).any()


def test_the_worlds_of_the_sweep_differ_by_their_sensors_alone() -> None:
    changed = {
        f.name
        for f in dataclasses.fields(SimulatorConfig)
        if getattr(SMALL, f.name) != getattr(FAULTY, f.name)
    }
    assert changed == {"lost", "duplicated", "late"}


def test_a_quarantine_of_every_malicious_event_contains_every_campaign() -> None:
    score = episodes(SMALL, "oracle").step.score
    last = jax.tree.map(lambda x: x[-1], score)
    assert (last.contained == last.campaigns).all() and last.campaigns.sum() > 100
    assert (last.benign_lost == 0).all() and (last.damage == 0).all()


def test_blocking_every_attempt_keeps_the_damage_at_zero() -> None:
    run = episodes(SMALL, "block")
    assert (run.state.campaigns.stage == 0).all() and (run.state.campaigns.progress == 0).all()
    assert (run.step.score.damage == 0).all() and run.step.score.malicious[-1].sum() > 500


def test_a_first_event_reads_the_parents_memory() -> None:
    run = episodes(SMALL, "allow")
    world, event = run.state.world, run.state.event
    born, fresh = take(world.born_of, event.entity), take(world.rolling.events, event.entity) == 1
    assert (event.source[fresh & (born < 0)] == -1).all() and (fresh & (born >= 0)).sum() > 100
    known = fresh & (born >= 0) & (event.source >= 0)
    parent = np.maximum(event.source, 0)
    np.testing.assert_array_equal(take(world.serial, parent)[known], born[known])
    assert (event.source[~fresh] == event.entity[~fresh]).all() and known.sum() > 100
