"""How near simulated hosts and attacks are to what is known of real ones; what is measured is printed with ``-s``."""

from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phalanx.analysis.probe import fit_probe
from phalanx.envs.catalogue import BENIGN_KIND_MIX, KINDS, OPERATIONS_PER_S, PROGRAMS, ROLES, STAGES
from phalanx.envs.scenarios import SCENARIOS, scenario
from phalanx.envs.simulator import Simulator, SimulatorConfig

_NAMES = tuple(STAGES)
_NEEDED = np.array([stage.needed for stage in STAGES.values()])


@dataclass(frozen=True)
class Stream:
    """Unguarded episodes, event by event: every array is [event, episode].

    Attributes:
        config: of the simulator.
        time_s: of the event.
        role: of its host, index into ``catalogue.ROLES``.
        hosts: hosts of each role [episode, role].
        start_s: time of day at which the episode starts [episode].
        kind: index into ``catalogue.KINDS``.
        count: operations that the record stands for.
        campaign, stage: -1 for benign work.
        pace: of its campaign.
        finishes: a success that completes its stage.
        category, numeric: as it is observed.
        ended: it completes its campaign.
        live: whether the episode was still running.
    """

    config: SimulatorConfig
    time_s: np.ndarray
    role: np.ndarray
    hosts: np.ndarray
    start_s: np.ndarray
    kind: np.ndarray
    count: np.ndarray
    campaign: np.ndarray
    stage: np.ndarray
    pace: np.ndarray
    finishes: np.ndarray
    category: np.ndarray
    numeric: np.ndarray
    ended: np.ndarray
    live: np.ndarray


@eqx.filter_jit
def _unguarded(env: Simulator, keys: Any) -> Any:
    start, first = jax.vmap(env.reset)(keys)

    def one(carry: Any, key: Any) -> Any:
        state, shown = carry
        after, step = env.step(state, jnp.int32(0), key)
        event, c = state.event, jnp.maximum(state.event.campaign, 0)
        finishes = event.effective & (state.campaigns.progress[c] + 1 >= env.tables.needed[event.stage])
        row = {
            "time_s": event.time_s,
            "host": event.entity // env.config.slots_per_host,
            "kind": env.tables.kind[event.template],
            "count": event.count,
            "campaign": event.campaign,
            "stage": event.stage,
            "pace": state.campaigns.pace[c],
            "finishes": finishes & (event.campaign >= 0),
            "category": shown.category,
            "numeric": shown.numeric,
            "ended": step.terminated,
            "cut": step.truncated,
        }
        return (after, step.observation), row

    def body(carry: Any, index: Any) -> Any:
        return jax.vmap(one)(carry, jax.vmap(lambda key: jax.random.fold_in(key, index))(keys))

    _, rows = jax.lax.scan(body, (start, first), jnp.arange(env.episode_events))
    return start.world.program, start.world.start_s, rows


@cache
def stream(config: SimulatorConfig, n_envs: int, seed: int = 0) -> Stream:
    """Episodes of a world that nobody guards."""
    program, start_s, rows = _unguarded(Simulator(config), jax.random.split(jax.random.key(seed), n_envs))
    rows = {name: np.asarray(values) for name, values in rows.items()}
    rooted = np.asarray(program).reshape(n_envs, config.n_hosts, -1)
    programs = [[tuple(PROGRAMS).index(p) for p in role.programs] for role in ROLES.values()]
    mine = (rooted[:, :, None, : len(programs[0])] == np.array(programs)).all(-1)
    ended = np.cumsum(rows["ended"] | rows.pop("cut"), axis=0)
    live = np.concatenate([np.ones_like(ended[:1], bool), ended[:-1] == 0])
    role = mine.argmax(-1)[np.arange(n_envs), rows.pop("host")]
    return Stream(config=config, role=role, hosts=mine.sum(1), start_s=np.asarray(start_s), live=live, **rows)


@cache
def _office() -> Stream:
    return stream(scenario("office").config, 256)


SLOW = replace(
    scenario("office").config,
    host_rate_hz=0.02,
    attack=replace(scenario("office").config.attack, fewest=1, most=1, onset_share=0.05),
)
"""Little benign work, one attacker, three and a half hours: campaigns are not cut short."""


@cache
def _campaigns() -> Stream:
    return stream(SLOW, 256)


def _mix(run: Stream, chosen: np.ndarray) -> np.ndarray:
    """Shares of the kinds among the operations of the chosen events."""
    weights = np.bincount(run.kind[chosen], run.count[chosen].astype(np.float64), minlength=len(KINDS))
    return weights / weights.sum()


def _distance(share: np.ndarray) -> float:
    """Total variation from the real host's shares."""
    real = np.array([BENIGN_KIND_MIX.get(kind, 0.0) for kind in KINDS])
    return float(np.abs(share - real / real.sum()).sum() / 2)


def test_kinds_of_operations_are_those_of_a_real_host() -> None:
    run = _office()
    benign = run.live & (run.campaign < 0)
    found = {"all": _distance(_mix(run, benign))}
    for index, role in enumerate(ROLES):
        found[role] = _distance(_mix(run, benign & (run.role == index)))
    print("total variation of the kinds:", {name: round(value, 3) for name, value in found.items()})
    assert max(found.values()) < 0.1
    records = np.bincount(run.kind[benign], minlength=len(KINDS)) / benign.sum()
    assert _distance(records) > 0.2, "merged records are another thing than operations"


def _operations_per_s(run: Stream, hours: tuple[float, float]) -> dict[str, float]:
    """Benign operations per second and host in a part of the day, by role and over all."""
    since = (run.start_s + run.time_s - 3600.0 * hours[0]) / 3600.0 % 24.0
    inside = (since < (hours[1] - hours[0]) % 24.0) & run.live
    step_s = np.diff(run.time_s, axis=0, append=run.time_s[-1:]) * inside
    host_s = (step_s.sum(0)[:, None] * run.hosts).sum(0)
    count = run.count * (inside & (run.campaign < 0))
    done = np.bincount(run.role.ravel(), count.ravel().astype(np.float64), minlength=len(ROLES))
    rates = dict(zip(ROLES, (done / host_s).tolist(), strict=True))
    return {"all": float(done.sum() / host_s.sum()), **rates}


def test_operations_per_second_are_of_a_real_hosts_order() -> None:
    day, night = (_operations_per_s(_office(), hours) for hours in ((9.0, 19.0), (23.0, 5.0)))
    for name, found in (("day", day), ("night", night)):
        print(f"operations per second and host, {name}:", {k: round(v, 1) for k, v in found.items()})
    assert OPERATIONS_PER_S / 3 < day["all"] < OPERATIONS_PER_S * 3
    assert day["workstation"] > 2 * night["workstation"], "people sleep"
    assert day["database"] < night["database"], "backups run at night"


def test_attacks_are_a_small_part_of_the_events() -> None:
    run = _office()
    hostile = run.live & (run.campaign >= 0)
    records = hostile.sum() / run.live.sum()
    operations = run.count[hostile].sum() / run.count[run.live].sum()
    print(f"malicious share in the office: {records:.4f} of the records, {operations:.4f} of the operations")
    assert 0.005 < records < 0.1 and 0.0 < operations < records


def _waits(run: Stream) -> dict[int, np.ndarray]:
    """Waits before the first attempt in each stage, over the campaign's pace, in s."""
    found: dict[int, list[float]] = {stage: [] for stage in range(len(STAGES))}
    for env in range(run.live.shape[1]):
        mine = np.nonzero(run.live[:, env] & (run.campaign[:, env] == 0))[0]
        for this, following in zip(mine[:-1], mine[1:], strict=True):
            if run.finishes[this, env]:
                wait = float(run.time_s[following, env] - run.time_s[this, env]) / float(run.pace[this, env])
                found[int(run.stage[following, env])].append(wait)
    return {stage: np.array(values) for stage, values in found.items()}


def test_waits_before_stages_are_the_catalogues() -> None:
    waits = _waits(_campaigns())
    assert waits.pop(0).size == 0, "the first stage begins with the onset"
    for index, found in waits.items():
        low, high = STAGES[_NAMES[index]].delay_s
        print(
            f"{_NAMES[index]}: {found.size} waits, median {np.median(found):.0f} s of {low:.0f} to {high:.0f} s"
        )
        assert found.size > 30
        slack = 0.01 + 2e-3 * high  # float32 seconds since the start
        assert found.min() > low - slack and found.max() < high + slack
        middle = np.sqrt(low * high)
        assert middle / 1.5 < np.median(found) < middle * 1.5, "log-uniform"


def _reached(run: Stream) -> np.ndarray:
    """Time from a campaign's first event to the success that completes each stage [episode, stage], in s."""
    found = np.full((run.live.shape[1], len(STAGES)), np.nan)
    for env in range(run.live.shape[1]):
        mine = np.nonzero(run.live[:, env] & (run.campaign[:, env] == 0))[0]
        for this in mine[::-1]:
            if run.finishes[this, env]:
                found[env, run.stage[this, env]] = run.time_s[this, env] - run.time_s[mine[0], env]
    return found


def test_stages_are_reached_as_soon_as_in_the_engagements() -> None:
    reached = _reached(_campaigns())
    for index, name in enumerate(_NAMES):
        known = reached[:, index][np.isfinite(reached[:, index])]
        print(
            f"{name}: {known.size} campaigns, quartiles {np.round(np.quantile(known, (0.25, 0.5, 0.75)) / 60, 1)} min"
        )
    within = {"elevation": (30.0, 1800.0), "credentials": (60.0, 3600.0), "lateral_movement": (180.0, 7200.0)}
    for name, (low, high) in within.items():
        times = reached[:, _NAMES.index(name)]
        times = times[np.isfinite(times)]
        assert ((times >= low) & (times <= high)).mean() > 0.9, name
    medians = np.nanmedian(reached, axis=0)
    assert (np.diff(medians[:9]) > 0).all(), "one after the other"


def test_whole_campaigns_last_as_long_as_in_the_engagements() -> None:
    run = _campaigns()
    step, env = np.nonzero(run.ended & run.live)
    first = np.array([np.nonzero(run.campaign[:, e] == 0)[0][0] for e in env])
    minutes = (run.time_s[step, env] - run.time_s[first, env]) / 60.0
    inside = ((minutes >= 8.0) & (minutes <= 90.0)).mean()
    quantiles = np.round(np.quantile(minutes, (0.05, 0.25, 0.5, 0.75, 0.95)), 1)
    print(f"{minutes.size} campaigns of 256 complete, {inside:.2f} in 8 to 90 min, quantiles {quantiles} min")
    assert minutes.size > 200 and inside >= 0.8


def _pr_auc(config: SimulatorConfig, n_envs: int) -> float:
    """Gradient boosting on single events, fitted on one half of the episodes, on the other half."""
    from sklearn.metrics import average_precision_score

    run = stream(config, n_envs)
    label = (run.campaign >= 0).astype(int)
    half = np.arange(n_envs) < n_envs // 2
    fit, test = run.live & half, run.live & ~half
    probe = fit_probe(run.category[fit], run.numeric[fit], label[fit])
    return float(average_precision_score(label[test], probe.score(run.category[test], run.numeric[test])))


@pytest.mark.parametrize(
    "name",
    ["office", *(pytest.param(n, marks=pytest.mark.slow) for n in ("noisy", "stealthy", "server-farm"))],
)
def test_single_events_neither_give_attacks_away_nor_hide_them(name: str) -> None:
    config = SCENARIOS[name].config
    found = _pr_auc(config, 256 if name == "office" else 128)
    print(f"gradient boosting on held-out episodes of {name}: PR-AUC {found:.3f}")
    assert 0.1 < found < 0.9
