"""Presets: what each sets."""

from typing import Any

import pytest

from phalanx.errors import UsageError
from phalanx.runtime.config import PRESETS, RunConfig


def test_a_single_agent_and_a_team_of_four_share_one_reward() -> None:
    ppo, mappo = RunConfig.preset_named("ppo"), RunConfig.preset_named("mappo")
    for config, members in ((ppo, 1), (mappo, 4)):
        assert (config.members, config.credit, config.shadow) == (members, "committee", 0.0)
        assert config.rollouts == "together"
        assert config.env == "simulator" and not config.is_original
    assert ppo.f == 0 and mappo.f == 1


def test_every_preset_makes_settings_that_survive_their_file() -> None:
    for name in PRESETS:
        config = RunConfig.preset_named(name)
        assert config.preset == name and RunConfig.of(config.to_dict()) == config


def test_what_is_left_open_depends_on_the_environment_and_on_the_credit() -> None:
    def open_ones(**given: Any) -> tuple[Any, ...]:
        own = RunConfig(**given).resolved
        return own.credit, own.lam, own.entropy_coef, own.epochs, own.average

    assert open_ones() == ("lookahead", 0.9, 0.015, 2, 0.1)
    assert open_ones(credit="blend") == ("blend", 0.95, 0.05, 4, 0.0)
    assert open_ones(env="replay") == ("blend", 0.95, 0.2, 2, 0.0)
    assert open_ones(env="replay", credit="lookahead") == ("lookahead", 0.9, 0.015, 2, 0.1)
    given = open_ones(lam=0.5, entropy_coef=0.1, epochs=3, average=0.0)
    assert given == ("lookahead", 0.5, 0.1, 3, 0.0)
    for name in ("ppo", "mappo"):
        own = RunConfig.preset_named(name).resolved
        assert (own.credit, own.lam, own.entropy_coef, own.gamma) == ("committee", 0.95, 0.05, 0.99)
        assert (own.epochs, own.average) == (4, 0.0)


def test_members_learn_apart_in_the_simulator_and_together_from_recorded_events() -> None:
    apart, together = (
        RunConfig(members=4, envs=8, steps=16),
        RunConfig(env="stream", members=4, envs=8, steps=16),
    )
    assert (apart.resolved.rollouts, together.resolved.rollouts) == ("apart", "together")
    assert (apart.rollout_steps, together.rollout_steps) == (4 * 8 * 16, 8 * 16)
    assert RunConfig(rollouts="together").resolved.rollouts == "together"


def test_a_run_from_before_the_choice_learned_together() -> None:
    saved = {name: value for name, value in RunConfig().to_dict().items() if name != "rollouts"}
    assert RunConfig.of(saved).resolved.rollouts == "together"


def test_credit_that_is_about_the_others_votes_needs_others() -> None:
    assert RunConfig(credit="difference").resolved.rollouts == "together"
    with pytest.raises(UsageError, match="--rollouts together"):
        RunConfig(credit="dictator", rollouts="apart")
