"""The doctor's command line: one thing to look at, one clear error otherwise, and the shape of what it prints."""

import json
from pathlib import Path

import pytest

from phalanx.cli import main

LOG = Path(__file__).parent / "analysis" / "logs" / "peers" / "sb3-ppo"


def test_a_log_of_another_tool_needs_no_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", str(LOG)]) == 0
    out = capsys.readouterr().out
    assert "a log of stable-baselines3" in out and out.rstrip().endswith("healthy")


def test_json_has_the_keys_that_programs_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "log.csv"
    rows = [f"{i},{1.0 / i},{25.0 if i > 3 else 0.01}" for i in range(1, 20)]
    log.write_text("\n".join(["update,vloss,kl", *rows]) + "\n")
    names = tmp_path / "names.json"
    names.write_text(json.dumps({"update": "iteration", "vloss": "2*loss/value", "kl": "policy/approx_kl"}))
    assert main(["doctor", str(log), "--map", str(names), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["healthy"] is False and found["run"]["rows"] == 19
    first = found["findings"][0]
    assert set(first) == {"symptom", "severity", "iteration", "evidence", "cause", "remedy", "docs"}
    assert (first["symptom"], first["severity"], first["iteration"]) == ("kl-explosion", "error", 4)


def test_a_parent_of_seeds_tells_how_many_show_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed, kl in enumerate((0.01, 9.0)):
        folder = tmp_path / f"seed-{seed}"
        folder.mkdir()
        lines = [json.dumps({"iteration": i, "policy/approx_kl": kl, "loss/value": 1.0}) for i in range(1, 9)]
        (folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert main(["doctor", str(tmp_path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["run"]["seeds"] == 2 and found["findings"][0]["evidence"]["seeds"] == "1 of 2"


def test_settings_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.toml"
    config.write_text('members = 3\nenv = "stream"\ngamma = 0.99\n')
    assert main(["doctor", "--config", str(config)]) == 1
    out = capsys.readouterr().out
    assert "too-few-members" in out and "actions-without-consequence" in out
    config.write_text("members = 4\nfaults = 1\n")
    assert main(["doctor", "--config", str(config)]) == 0


def test_a_preset_is_judged_with_its_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "config.json"
    config.write_text('{"preset": "original", "members": 4}')
    assert main(["doctor", "--config", str(config), "--json"]) == 1
    found = {f["symptom"]: f["evidence"] for f in json.loads(capsys.readouterr().out)["findings"]}
    assert set(found) == {
        "time-limit-as-termination",
        "actions-without-consequence",
        "reward-scale",
        "spec-always-violated",
        "spec-ignores-actions",
    }
    config.write_text('{"preset": "original"}')
    assert main(["doctor", "--config", str(config)]) == 1
    assert "too-few-members" in capsys.readouterr().out
    config.write_text('{"preset": "default"}')
    assert main(["doctor", "--config", str(config)]) == 0


def test_what_a_runs_log_and_its_settings_both_say_is_said_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"phalanx_version": "0", "preset": "original", "env": "stream", "members": 3, "gamma": 0.99}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    lines = [
        json.dumps({"iteration": i, "stl/violated_rates": 0.99, "stl/violated_threat": 1.0}) for i in range(9)
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    assert main(["doctor", str(tmp_path), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)["findings"]
    always = [f for f in found if f["symptom"] == "spec-always-violated"]
    assert [(f["evidence"]["spec"], f["iteration"] is None) for f in always] == [
        ("rates", False),
        ("threat", False),
    ]
    assert [f["evidence"]["spec"] for f in found if f["symptom"] == "spec-ignores-actions"] == ["resources"]


@pytest.mark.parametrize(
    ("arguments", "said", "code"),
    [
        ([], "nothing to look at", 2),
        ([str(LOG), "--data", "x.csv"], "more than one thing", 2),
        ([str(LOG), "--label", "y"], "--label is about events", 2),
        (["nowhere"], "no such file or folder", 3),
        (["--config", "nowhere.json"], "cannot read the file of settings", 3),
    ],
)
def test_wrong_usage_is_named(
    arguments: list[str], said: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *arguments]) == code
    assert said in capsys.readouterr().err


def test_settings_without_any_setting_are_no_settings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "config.json"
    config.write_text("{}")
    assert main(["doctor", "--config", str(config)]) == 3
    assert "none of the settings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"preset": "foo"}, "unknown preset 'foo'"),
        ({"gamma": 1.5}, "gamma=1.5: expected 0 to 1"),
        ({"members": 4, "faults": -5}, "faults=-5: expected 0 or more"),
        ({"members": -1}, "members=-1: expected 1 or more"),
        ({"preset": "original", "episode_events": 0}, "episode_events=0: expected 1 or more"),
        ({"memebrs": 3, "gamma": 0.9}, "did you mean 'members'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(
    settings: dict[str, object], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(settings))
    assert main(["doctor", "--config", str(file)]) == 3
    assert said in capsys.readouterr().err


def test_a_log_that_says_little_is_not_called_healthy_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "log.csv"
    file.write_text("iteration,reward/episode\n1,0.5\n")
    assert main(["doctor", str(file)]) == 0
    shown = capsys.readouterr().out
    assert "1 update," in shown and "few updates: 1" in shown and "healthy says little" in shown
    assert "not logged: loss/value, loss/policy" in shown
