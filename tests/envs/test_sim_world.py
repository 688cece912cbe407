"""Processes in slots, against plain Python: births, deaths, subtrees, choices, the pace of work."""

from dataclasses import dataclass, field

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.envs.catalogue import COMMANDS, COMMANDS_PER_PROGRAM, ENTRY_PROGRAMS, PROGRAMS, ROLES
from phalanx.envs.sim_tables import build_tables
from phalanx.envs.sim_world import (
    N_ROOTS,
    Birth,
    World,
    bits,
    free_slots,
    host_of,
    init_world,
    pick,
    subtree,
    turnover,
    work_rate,
)

HOSTS, SLOTS = 2, 11
N = HOSTS * SLOTS
NAMES = tuple(PROGRAMS)
TABLES = build_tables()


def _world(start_s: int = 0, drift_s: float = np.inf, rollout_s: float = np.inf, roles=(0, 3)) -> World:
    return init_world(
        TABLES,
        jnp.array(roles, jnp.int32),
        SLOTS,
        start_s=jnp.int32(start_s),
        drift_s=jnp.float32(drift_s),
        rollout_s=jnp.float32(rollout_s),
    )


_turnover = eqx.filter_jit(turnover)
_subtree = eqx.filter_jit(subtree)


@dataclass
class Process:
    """A process as plain Python keeps it."""

    serial: int
    program: int
    parent: "Process | None"
    campaign: int = -1
    ancestors: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        above = {self.parent.serial, *self.parent.ancestors} if self.parent else set()
        self.ancestors = above


class Plain:
    """The slots of all hosts as a list."""

    def __init__(self, world: World) -> None:
        self.slots: list[Process | None] = [
            Process(k, int(world.program[k]), None) if bool(world.alive[k]) else None for k in range(N)
        ]
        self.births = N

    def turn(self, gone: list[int], birth: tuple[int, int, int, int] | None) -> None:
        """Ends processes, then starts one: slot, parent's slot, program, campaign."""
        mother = self.slots[birth[1]] if birth else None
        for slot in gone:
            self.slots[slot] = None
        if birth and mother:
            slot, _, program, campaign = birth
            self.slots[slot] = Process(self.births, program, mother, campaign)
            self.births += 1

    def below(self, marked: set[int]) -> list[bool]:
        """Which slots descend from the processes in the marked ones."""
        roots = {p.serial for k, p in enumerate(self.slots) if p and k in marked}
        return [bool(p and roots & {p.serial, *p.ancestors}) for p in self.slots]


def test_hosts_start_with_the_processes_of_their_roles() -> None:
    world, roles = _world(), [ROLES["workstation"], ROLES["database"]]
    np.testing.assert_array_equal(host_of(world), np.repeat(np.arange(HOSTS), SLOTS))
    np.testing.assert_array_equal(bits(world), np.tile(2 ** np.arange(SLOTS), HOSTS))
    for slot in range(N):
        host, place = divmod(slot, SLOTS)
        assert bool(world.alive[slot]) == bool(world.first[slot]) == (place < N_ROOTS)
        if place < N_ROOTS:
            name = roles[host].programs[place]
            assert NAMES[world.program[slot]] == name and COMMANDS[world.command[slot]].startswith(name)
            assert (
                world.rate[slot] == round(1000 * PROGRAMS[name].rate)
                and world.uid[slot] == PROGRAMS[name].uid
            )
            assert (world.entry[slot] >= 0) == (name in ENTRY_PROGRAMS)
            assert world.lineage[slot] == 1 << place and world.parent[slot] == world.born_of[slot] == -1
        else:
            assert world.rate[slot] == 0 and world.entry[slot] == -1
    assert len(set(np.asarray(world.serial).tolist())) == N and int(world.births) == N


@given(seed=st.integers(0, 2**32 - 1), steps=st.integers(1, 40))
def test_births_deaths_and_subtrees_are_those_of_a_plain_forest(seed: int, steps: int) -> None:
    rng, world, tables = np.random.default_rng(seed), _world(), TABLES
    plain = Plain(world)
    for _ in range(steps):
        living = [k for k, p in enumerate(plain.slots) if p]
        mother = int(rng.choice(living))
        jobs = [k for k in living if k % SLOTS >= N_ROOTS and k != mother]
        gone = [k for k in jobs if rng.random() < 0.2]
        host = mother // SLOTS
        free = [k for k in range(host * SLOTS, (host + 1) * SLOTS) if not plain.slots[k] or k in gone]
        birth = None
        if free and rng.random() < 0.8:
            birth = (int(rng.choice(free)), mother, int(rng.integers(len(NAMES))), int(rng.integers(-1, 2)))
        mask = jnp.zeros(N, bool).at[jnp.array(gone, jnp.int32)].set(True)
        slot, parent, program, campaign = birth or (0, 0, 0, -1)
        born = Birth(
            when=jnp.asarray(birth is not None),
            **{
                name: jnp.int32(value)
                for name, value in {
                    "slot": slot,
                    "parent": parent,
                    "program": program,
                    "variant": 1,
                    "uid": 5,
                    "campaign": campaign,
                }.items()
            },
        )
        before = world
        world, changed = _turnover(world, tables, mask, born)
        plain.turn(gone, birth)
        assert np.nonzero(changed)[0].tolist() == sorted({*gone, *([slot] if birth else [])})
        if birth:
            _check_birth(before, world, birth)
    _check_forest(world, plain, rng)


def _check_birth(before: World, world: World, birth: tuple[int, int, int, int]) -> None:
    """Nothing of the slot's earlier process remains."""
    slot, parent, program, campaign = birth
    assert bool(world.first[slot]) and not bool(world.burst[slot]) and int(world.uid[slot]) == 5
    assert int(world.parent[slot]) == parent and int(world.parent_command[slot]) == int(
        before.command[parent]
    )
    assert int(world.command[slot]) == program * COMMANDS_PER_PROGRAM + 1
    hostile = campaign >= 0
    assert int(world.rate[slot]) == (0 if hostile else round(1000 * PROGRAMS[NAMES[program]].rate))
    assert (int(world.entry[slot]) >= 0) == (not hostile and NAMES[program] in ENTRY_PROGRAMS)


def _check_forest(world: World, plain: Plain, rng: np.random.Generator) -> None:
    assert int(world.births) == plain.births
    for slot, process in enumerate(plain.slots):
        assert bool(world.alive[slot]) == (process is not None)
        if process is None:
            assert int(world.campaign[slot]) == -1 and int(world.rate[slot]) == 0
            continue
        assert (int(world.serial[slot]), int(world.program[slot])) == (process.serial, process.program)
        assert int(world.campaign[slot]) == process.campaign
        if process.parent:
            assert int(world.born_of[slot]) == process.parent.serial
    for marked in [{slot} for slot in range(N)] + [set(rng.choice(N, 3).tolist()) for _ in range(5)]:
        mask = jnp.zeros(N, bool).at[jnp.array(sorted(marked), jnp.int32)].set(True)
        assert np.asarray(_subtree(world, mask)).tolist() == plain.below(marked), marked


@given(
    mask=st.lists(st.booleans(), min_size=1, max_size=40), u=st.floats(0.0, 1.0, exclude_max=True, width=32)
)
def test_a_pick_is_one_of_the_marked_slots(mask: list[bool], u: float) -> None:
    marked = np.nonzero(np.array(mask))[0]
    found = int(pick(jnp.array(mask), jnp.float32(u)))
    assert found == (marked[int(np.float32(u) * np.float32(len(marked)))] if len(marked) else 0)


def test_picks_are_uniform() -> None:
    mask = jnp.array([False, True, False, True, True, False])
    u = (jnp.arange(3000, dtype=jnp.float32) + 0.5) / 3000
    counts = np.bincount(jax.vmap(lambda each: pick(mask, each))(u), minlength=6)
    assert counts.tolist() == [0, 1000, 0, 1000, 1000, 0]


def test_free_slots_are_a_hosts_first_one_and_their_number() -> None:
    world = _world()
    for host in range(HOSTS):
        slot, count = free_slots(world, jnp.int32(host))
        assert (int(slot), int(count)) == (host * SLOTS + N_ROOTS, SLOTS - N_ROOTS)
    full = eqx.tree_at(lambda w: w.alive, world, jnp.ones(N, bool))
    assert int(free_slots(full, jnp.int32(1))[1]) == 0


def _expected_rate(world: World, now: float) -> np.ndarray:
    """Relative rates as the description has them, in exact numbers."""
    hour = (int(world.start_s) + now) / 3600.0 % 24.0
    away = min(abs(hour - 14.0), 24.0 - abs(hour - 14.0))
    found = np.zeros(N)
    for slot in range(N):
        name = NAMES[world.program[slot]]
        pace = 1.0 + float(world.day[slot // SLOTS]) / 1000.0 * (1.0 - away / 6.0)
        burst = 3.0 if world.burst[slot] else 0.7
        rolls = name == "updater" and world.rollout_s <= now < world.rollout_s + 600.0
        found[slot] = int(world.rate[slot]) * burst * pace * (6.0 if rolls else 1.0)
    return found


@given(
    start_s=st.integers(0, 86_399),
    now=st.floats(0.0, 20_000.0, width=32),
    rollout_s=st.sampled_from([0.0, 100.0, 5000.0, np.inf]),
    roles=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    bursts=st.lists(st.booleans(), min_size=N, max_size=N),
)
def test_work_follows_the_day_bursts_and_roll_outs(start_s, now, rollout_s, roles, bursts) -> None:
    world = _world(start_s, rollout_s=rollout_s, roles=roles)
    world = eqx.tree_at(lambda w: w.burst, world, jnp.array(bursts))
    found, expected = np.asarray(work_rate(world, jnp.float32(now))), _expected_rate(world, now)
    assert found.dtype == np.int32, "whole numbers: their sums are exact"
    np.testing.assert_allclose(found, expected, rtol=0.01, atol=8)
    assert (found[~np.asarray(world.alive)] == 0).all()


@pytest.mark.parametrize(("hour", "pace"), [(14, 1.7), (2, 0.3), (8, 1.0), (20, 1.0)])
def test_a_workstation_works_by_day(hour: int, pace: float) -> None:
    world = _world(start_s=hour * 3600)
    rate = np.asarray(work_rate(world, jnp.float32(0.0)))[:N_ROOTS]
    mean = np.array([PROGRAMS[name].rate for name in ROLES["workstation"].programs]) * 1000 * 0.7
    np.testing.assert_allclose(rate, mean * pace, rtol=5e-3)


def test_a_day_is_as_long_as_its_mean() -> None:
    """The swing cancels over 24 hours, so that ``host_rate_hz`` is the mean."""
    world = _world()
    hours = jnp.arange(0.0, 86_400.0, 600.0, dtype=jnp.float32)
    total = np.asarray(jax.vmap(lambda now: work_rate(world, now))(hours)).astype(float).mean(0)
    mean = np.asarray(world.rate) * 0.7
    np.testing.assert_allclose(total, mean, rtol=0.01)
