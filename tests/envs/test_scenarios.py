"""Scenarios: what may be trained in and what is only measured in."""

from dataclasses import replace
from functools import cache

import jax
import numpy as np
import pytest
from envs.simulated import ALLOW, SMALL, Episodes, answers, episodes, roll

from phalanx.data.encoder import Encoder
from phalanx.envs.catalogue import COMMANDS, COMMANDS_PER_PROGRAM, PROGRAMS, TECHNIQUES
from phalanx.envs.scenarios import SCENARIOS, scenario
from phalanx.envs.sim_tables import BEACON_INDEX
from phalanx.envs.sim_vocabulary import VOCABULARY, catalogue_encoder
from phalanx.envs.simulator import Simulator, SimulatorConfig
from phalanx.errors import UsageError


@pytest.mark.parametrize("name", SCENARIOS)
def test_what_is_held_out_is_in_held_out_scenarios_alone(name: str) -> None:
    each = SCENARIOS[name]
    if each.config.new_bait or each.config.new_techniques or name.startswith(("evade-", "new-")):
        assert each.held_out
    assert each.about and scenario(name) is each
    assert each.base_rate is None or 0.0 < each.base_rate < 0.05
    assert not (each.held_out and each.base_rate is not None)


def test_there_are_scenarios_to_train_in_and_to_be_measured_in() -> None:
    held_out = {name for name, each in SCENARIOS.items() if each.held_out}
    assert {"office", "single-host", "server-farm", "noisy", "stealthy"} <= SCENARIOS.keys() - held_out
    assert len(held_out) >= 6 and SCENARIOS["office"].config == SimulatorConfig()
    assert sum(each.base_rate is not None for each in SCENARIOS.values()) == 3
    assert len({repr(SCENARIOS[name].config) for name in held_out}) == len(held_out), "each is another world"


def test_an_unknown_scenario_is_named() -> None:
    with pytest.raises(UsageError, match=r"scenario 'offce'; choose one of: office, single-host"):
        scenario("offce")


@cache
def _new() -> Episodes:
    """A small world with new techniques and new programs."""
    world = replace(SMALL, new_bait=True, new_techniques=True)
    return roll(Simulator(world), jax.random.key(1), answers(ALLOW, n_envs=64))


def _known() -> Episodes:
    return episodes(SMALL, "allow")


def _techniques(run: Episodes) -> set[int]:
    hostile = run.live & (run.state.event.campaign >= 0)
    return set(run.state.event.cause[hostile].tolist())


def test_held_out_techniques_occur_in_held_out_worlds_alone() -> None:
    new = {index for index, technique in enumerate(TECHNIQUES) if technique.held_out}
    known, held_out = _techniques(_known()), _techniques(_new())
    assert not known & new and len(known) > 10
    assert len(held_out & new) >= 8 and held_out - new <= {BEACON_INDEX}, "every stage has a new one"


def test_held_out_programs_run_in_held_out_worlds_alone() -> None:
    new = [index for index, program in enumerate(PROGRAMS.values()) if program.held_out]
    known, held_out = (np.isin(r.state.world.program, new) & r.state.world.alive for r in (_known(), _new()))
    assert not known.any() and held_out.any()


def test_commands_of_held_out_programs_show_as_unknown() -> None:
    run, world = _new(), _new().state.world
    slot = run.state.event.entity[1:]
    acting = np.take_along_axis(world.program[1:], slot[..., None], -1)[..., 0]
    new = np.isin(acting, [index for index, program in enumerate(PROGRAMS.values()) if program.held_out])
    names = [column.name for column in Simulator(SMALL).spec.categorical]
    shown = run.step.observation.category[:-1, :, names.index("command")]
    assert new.sum() > 10
    np.testing.assert_array_equal(shown == 0, new)
    mothers = run.step.observation.category[:-1, :, names.index("parent_command")]
    assert (mothers == 0).any(), "their children show an unknown parent"


def test_the_encoder_knows_the_catalogue_but_for_held_out_commands() -> None:
    encoder = catalogue_encoder()
    assert isinstance(encoder, Encoder)
    for name, raw in VOCABULARY.items():
        ids = np.asarray(encoder.category_lookup(name, raw))
        for index, value in enumerate(raw):
            program = (
                tuple(PROGRAMS.values())[index // COMMANDS_PER_PROGRAM] if index < len(COMMANDS) else None
            )
            unseen = "command" in name and program is not None and program.held_out
            assert (ids[index] == 0) == unseen, (name, value)
        known = {(value, int(number)) for value, number in zip(raw, ids, strict=True) if number > 0}
        assert len({number for _, number in known}) == len(known), "every value has an id of its own"
