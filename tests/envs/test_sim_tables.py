"""The catalogue as arrays: distributions, bait, what is held out."""

from typing import Any

import numpy as np
import pytest

from phalanx.data.events import event_class_of
from phalanx.envs.catalogue import (
    AREAS,
    BEACON,
    BENIGN_KIND_MIX,
    COMMANDS,
    COMMANDS_PER_PROGRAM,
    ENTRY_PROGRAMS,
    KINDS,
    NOTABLE_SHARE,
    OBJECT_KINDS,
    PATHS,
    PATHS_PER_AREA,
    PROGRAMS,
    ROLES,
    SOURCES,
    STAGES,
    TECHNIQUES,
    TEMPLATES,
    template_index,
)
from phalanx.envs.sim_tables import BEACON_INDEX, bait_templates, build_tables, program_mix
from phalanx.envs.sim_world import N_ROOTS

N = len(PROGRAMS)


def _shares(cumulative: Any) -> np.ndarray:
    return np.diff(np.asarray(cumulative, np.float64), axis=-1, prepend=0.0)


def _one(weights: dict[str, float]) -> np.ndarray:
    row = np.array([weights.get(name, 0.0) for name in TEMPLATES])
    return row / row.sum()


@pytest.mark.parametrize("settings", [{}, {"bait": 3.0, "new_bait": True, "new_techniques": True}])
def test_rows_are_distributions(settings: dict) -> None:
    tables = build_tables(**settings)
    for rows, shape in (
        (tables.mix, (2 * N + len(TECHNIQUES), len(TEMPLATES))),
        (tables.mimic, (len(TECHNIQUES), N, len(TEMPLATES))),
        (tables.child, (N, N)),
    ):
        shares = _shares(rows)
        assert shares.shape == shape and (shares >= -1e-6).all()
        np.testing.assert_allclose(np.asarray(rows)[..., -1], 1.0, atol=1e-5)


def test_every_template_is_a_row_of_known_things() -> None:
    tables = build_tables()
    for index, (name, template) in enumerate(TEMPLATES.items()):
        assert template_index(name) == index
        assert KINDS[tables.kind[index]] == template.kind and template.kind in KINDS
        assert OBJECT_KINDS[tables.object_kind[index]] == template.object_kind
        assert tuple(AREAS)[tables.area[index]] == template.area
        assert tables.event_class[index] == event_class_of(template.kind)
        assert float(tables.log_count[index]) == pytest.approx(np.log(template.count), rel=1e-6)
    assert len(PATHS) == len(AREAS) * PATHS_PER_AREA and len(COMMANDS) == N * COMMANDS_PER_PROGRAM
    assert set(BENIGN_KIND_MIX) <= set(KINDS) and len(set(COMMANDS)) == len(COMMANDS)


@pytest.mark.parametrize("technique", TECHNIQUES, ids=lambda t: t.attack)
def test_every_template_of_a_technique_is_in_the_mix_of_a_program_that_is_not_held_out(technique) -> None:
    for name in technique.mix:
        users = [
            p
            for p, program in PROGRAMS.items()
            if not program.held_out and program_mix(program).get(name, 0) > 0
        ]
        assert users, name
    row = 2 * N + TECHNIQUES.index(technique)
    np.testing.assert_allclose(_shares(build_tables().mix)[row], _one(technique.mix), atol=2e-6)


@pytest.mark.parametrize("name", PROGRAMS)
def test_half_of_a_programs_records_are_routine(name: str) -> None:
    program = PROGRAMS[name]
    routine = {
        name
        for name, each in TEMPLATES.items()
        if each.count > 10.0 or name.split("_")[0] in ("read", "write")
    }
    mix, drifted = program_mix(program), program_mix(program, drifted=True)
    assert sum(mix.values()) == pytest.approx(1.0) and sum(drifted.values()) == pytest.approx(1.0)
    notable = sum(program.notable.values())
    for template, weight in program.notable.items():
        if template not in routine:
            assert mix[template] == pytest.approx(NOTABLE_SHARE * weight / notable)
            assert drifted[template] == pytest.approx(mix[template]), "drift moves files alone"
    assert any(drifted[template] != pytest.approx(mix[template]) for template in mix)


def test_bait_scales_what_looks_like_an_attack_but_births() -> None:
    shell = PROGRAMS["shell"]
    mild, loud = program_mix(shell), program_mix(shell, bait=3.0)
    total = sum(loud.values())
    assert loud["execute"] == pytest.approx(3.0 * mild["execute"]) and loud["fork"] == pytest.approx(
        mild["fork"]
    )
    row = _shares(build_tables(bait=3.0).mix)[tuple(PROGRAMS).index("shell")]
    assert row[template_index("execute")] == pytest.approx(loud["execute"] / total, rel=1e-3)


def test_bait_is_what_techniques_use_and_benign_work_rarely() -> None:
    used = {name for technique in TECHNIQUES for name in technique.mix}
    mean = np.mean([_one(program_mix(p)) for p in PROGRAMS.values() if not p.held_out], axis=0)
    for index, (name, bait) in enumerate(bait_templates().items()):
        assert bait == (name in used and mean[index] < 0.02), name
    flags = np.asarray(build_tables().bait)
    assert 10 < flags.sum() < len(flags) / 2


def test_attackers_choose_among_known_techniques_or_the_held_out_ones_where_there_are_some() -> None:
    for held_out in (False, True):
        tables = build_tables(new_techniques=held_out)
        for index, stage in enumerate(STAGES.values()):
            first, choices = int(tables.technique[index]), int(tables.choices[index])
            chosen = TECHNIQUES[first : first + choices]
            wanted = [t for t in stage.techniques if t.held_out == held_out] or list(stage.techniques)
            assert list(chosen) == wanted and choices >= 1
    assert TECHNIQUES[BEACON_INDEX] is BEACON


def test_held_out_programs_start_in_held_out_worlds_alone() -> None:
    new = np.array([program.held_out for program in PROGRAMS.values()])
    plain, mixed = (_shares(build_tables(new_bait=flag).child) for flag in (False, True))
    assert (plain[~new][:, new] < 1e-7).all()
    assert (mixed[~new][:, new] > 0.01).any() and new.sum() >= 2
    np.testing.assert_allclose(plain[tuple(PROGRAMS).index("office")], mixed[tuple(PROGRAMS).index("office")])
    assert not any(PROGRAMS[name].held_out for role in ROLES.values() for name in role.programs)
    assert not any(PROGRAMS[child].held_out for child in ENTRY_PROGRAMS.values())


def test_mimicry_prefers_what_the_program_does_anyway() -> None:
    tables = build_tables()
    mix, mimic = _shares(tables.mix), _shares(tables.mimic)
    for technique in range(len(TECHNIQUES)):
        own = mix[2 * N + technique]
        expected = own[None] * (mix[:N] + 1e-4)
        expected /= expected.sum(1, keepdims=True)
        np.testing.assert_allclose(mimic[technique], expected, atol=2e-5)


def test_roles_stages_and_doors_name_programs_that_exist() -> None:
    tables, names = build_tables(), tuple(PROGRAMS)
    for index, role in enumerate(ROLES.values()):
        assert [names[p] for p in tables.roles[index]] == list(role.programs) and len(
            role.programs
        ) == N_ROOTS
        assert "ssh" in role.programs, "attackers move in through it"
        assert set(role.programs) & set(ENTRY_PROGRAMS), "attackers come in through something"
        assert int(tables.day[index]) == round(1000 * role.day)
    for index, name in enumerate(names):
        entry = int(tables.entry[index])
        assert entry == (names.index(ENTRY_PROGRAMS[name]) if name in ENTRY_PROGRAMS else -1)
        assert set(PROGRAMS[name].children) <= set(names) and set(PROGRAMS[name].notable) <= set(TEMPLATES)
    for stage in STAGES.values():
        assert stage.source in SOURCES and 0 < stage.delay_s[0] < stage.delay_s[1] and stage.needed >= 1
        assert not stage.child or stage.child in names
    np.testing.assert_allclose(np.exp(tables.log_delay), [s.delay_s for s in STAGES.values()], rtol=1e-5)
