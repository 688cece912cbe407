"""``phalanx compare``: its flags, what it writes, and the table for people."""

import json
from pathlib import Path
from typing import Any

import pytest

from phalanx.cli import main
from phalanx.cli_compare import Compare, command, league_table
from phalanx.runtime.baselines import BASELINES


def row(loss: float, value: float | None, **figures: Any) -> dict[str, Any]:
    low, high = (None, None) if value is None else (value - 0.1, value + 0.1)
    return {"loss": loss, "score": {"value": value, "low": low, "high": high}, **figures}


RESULT: dict[str, Any] = {
    "scenarios": {
        "office": {
            "about": "four hosts",
            "episodes": 8,
            "base_rate": 0.0002,
            "held_out": True,
            "tuned_on": "home",
            "policies": {
                "rules": row(7.0, 0.3, availability=0.98, pr_auc=None),
                "own": row(2.5, 0.75, availability=None, pr_auc=0.5),
                "odd": row(9.0, None),
            },
            "committee": "own",
            "best_baseline": "rules",
            "gap_closed": {"value": 0.625, "low": 0.5, "high": 0.7, "n": 3},
            "notes": ["something is left out"],
        }
    }
}


def test_flags_become_the_league() -> None:
    found = command(
        [
            "runs/a",
            "runs/b",
            "--policies",
            "rules",
            "cusum",
            "--scenario",
            "office",
            "noisy",
            "--episodes",
            "9",
        ]
    )
    assert found == Compare(
        runs=(Path("runs/a"), Path("runs/b")),
        policies=("rules", "cusum"),
        scenario=("office", "noisy"),
        episodes=9,
    )
    assert command([]) == Compare()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policies", "luck"], "unknown policy 'luck'"),
        (["--scenario", "mars"], "unknown scenario 'mars'"),
        (["--episodes", "0"], "--episodes 0"),
        (["--trials", "0"], "--trials 0"),
        (["--poison", "1"], "--poison 1.0"),
    ],
)
def test_what_cannot_be_compared_is_a_usage_error(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *arguments]) == 2
    shown = capsys.readouterr()
    assert said in shown.err and not shown.out


def test_the_table_has_the_best_policy_first_and_only_known_columns() -> None:
    lines = league_table(RESULT).splitlines()
    assert (
        lines[0]
        == "office: four hosts; 8 episodes, 0.02 % of the events malicious; held out, baselines tuned on home"
    )
    assert lines[1].split() == ["policy", "score", "95", "%", "loss", "available", "PR-AUC"]
    assert [line.split()[0] for line in lines[2:5]] == ["own", "rules", "odd"]
    assert lines[2].split() == ["own", "0.750", "0.650", "to", "0.850", "2.50", "-", "0.500"]
    assert lines[4].split() == ["odd", "-", "-", "9.00", "-", "-"]
    assert lines[5].startswith("own closes 0.625 of the gap between rules and the oracle")
    assert lines[6] == "something is left out"
    assert "score: 0 allows everything, 1 is the oracle" in league_table(RESULT)
    lost = {**RESULT["scenarios"]["office"], "gap_closed": {"value": -0.5, "low": -1.0, "high": 0.0, "n": 1}}
    said = league_table({"scenarios": {"office": lost}})
    assert "own does not beat rules: -0.500 of the gap" in said and "1 seed)" in said


def test_the_help_names_every_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in BASELINES)


def test_losses_go_to_the_file_and_not_to_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def compare(league: Any, *, with_losses: bool) -> dict[str, Any]:
        asked.append(with_losses)
        extra = {"loss_by_episode": {"own": [[1.0]]}, "weight_by_episode": [1.0]} if with_losses else {}
        return {"scenarios": {"office": {**RESULT["scenarios"]["office"], **extra}}}

    monkeypatch.setattr("phalanx.runtime.league.compare", compare)
    out = tmp_path / "league.json"
    assert main(["compare", "--out", str(out), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert "loss_by_episode" not in shown["scenarios"]["office"]
    assert json.loads(out.read_text())["scenarios"]["office"]["loss_by_episode"] == {"own": [[1.0]]}
    assert main(["compare"]) == 0
    assert "own closes" in capsys.readouterr().out and asked == [True, False]
