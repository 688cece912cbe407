"""Presets: what each sets."""

from phalanx.runtime.config import PRESETS, RunConfig


def test_a_single_agent_and_a_team_of_four_share_one_reward() -> None:
    ppo, mappo = RunConfig.preset_named("ppo"), RunConfig.preset_named("mappo")
    for config, members in ((ppo, 1), (mappo, 4)):
        assert (config.members, config.credit, config.shadow) == (members, "committee", 0.0)
        assert config.env == "simulator" and not config.is_original
    assert ppo.f == 0 and mappo.f == 1


def test_every_preset_makes_settings_that_survive_their_file() -> None:
    for name in PRESETS:
        config = RunConfig.preset_named(name)
        assert config.preset == name and RunConfig.of(config.to_dict()) == config
