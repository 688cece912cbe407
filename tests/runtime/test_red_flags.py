"""Red flags: each symptom said once, a run stopped at its first error, and a sound one left alone."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phalanx.analysis.doctor.finding import Finding
from phalanx.cli import main
from phalanx.runtime import red_flags
from phalanx.runtime.red_flags import RedFlags
from phalanx.runtime.store import RunFolder


def row(iteration: int, **changes: float) -> dict[str, Any]:
    done = 1.0 - np.exp(-iteration / 20.0)
    return {
        "iteration": iteration,
        "env_steps": 100 * iteration,
        "loss/value": 1.0 - 0.5 * done,
        "policy/entropy_share": 1.0 - 0.5 * done,
        "policy/approx_kl": 0.01,
        "value/explained_variance": 0.5 * done,
        "reward/step": -2.0 + done,
        "policy/first_ratio_error": 1e-6,
    } | changes


def feed(flags: RedFlags, n: int, **changes: float) -> tuple[Any, int]:
    for iteration in range(1, n + 1):
        finding = flags.update([row(iteration, **changes)])
        if finding:
            return finding, iteration
    return None, n


def test_a_sound_run_raises_none(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert feed(RedFlags(Path("run"), "stop", 60, [[]]), 60) == (None, 60)
    assert not caplog.records


def test_an_error_stops_soon_and_says_why_in_one_screen() -> None:
    flags = RedFlags(Path("runs/x"), "stop", 300, [[]])
    finding, iteration = feed(flags, 300, **{"policy/approx_kl": 9.0})
    assert finding.symptom == "kl-explosion" and iteration <= 8
    error = flags.error(finding, iteration)
    assert error.exit_code == 1
    assert f"after iteration {iteration} of 300" in str(error) and "--resume runs/x" in str(error)
    assert 3 <= len(error.__notes__) <= 24


def test_a_warning_says_each_symptom_once_and_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert feed(RedFlags(Path("run"), "warn", 60, [[]]), 60, **{"policy/approx_kl": 9.0})[0] is None
    assert [record.getMessage().split()[0] for record in caplog.records] == ["kl-explosion"]


def test_a_seed_is_named_and_a_resumed_run_keeps_its_past(caplog: pytest.LogCaptureFixture) -> None:
    before = [[row(i) for i in range(1, 8)], [row(i, **{"policy/approx_kl": 0.3}) for i in range(1, 4)]]
    before[1] += [row(i) for i in range(4, 8)]
    flags = RedFlags(Path("run"), "stop", 60, before)
    with caplog.at_level(logging.WARNING):
        assert flags.update([row(8), row(8)]) is None  # what was known when it went on is not said again
        assert not caplog.records
        for i in range(9, 13):
            found = flags.update([row(i), row(i, **{"policy/first_ratio_error": 0.5})])
    assert found is not None and found.symptom == "first-ratio-mismatch"
    assert "(seed-1, iteration 10)" in caplog.text


def test_what_the_doctor_says_now_is_known_after_each_look_and_asked_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[int] = []

    def examined(log: Any, budget: int) -> list[Finding]:
        looks.append(len(log))
        return [Finding("value-loss-stuck", "warning", {}, "", "", 4)] if len(log) == 4 else []

    monkeypatch.setattr(red_flags, "examine_run", examined)
    flags, said = RedFlags(Path("run"), "warn", 10, [[]]), []
    for iteration in range(1, 11):
        flags.update([row(iteration)], shown=True)
        said.append(None if flags.current is None else [finding.symptom for finding in flags.current])
    assert looks == [4, 8, 10]
    assert said == [None] * 3 + [["value-loss-stuck"]] * 4 + [[]] * 3


def test_without_a_mode_the_doctor_is_asked_for_a_display_alone(caplog: pytest.LogCaptureFixture) -> None:
    silent, displayed = (RedFlags(Path("run"), None, 8, [[]]) for _ in range(2))
    with caplog.at_level(logging.WARNING):
        for iteration in range(1, 9):
            sick = [row(iteration, **{"policy/approx_kl": 9.0})]
            assert silent.update(sick) is None
            assert displayed.update(sick, shown=True) is None
    assert not caplog.records
    assert silent.current is None
    assert displayed.current is not None and displayed.current[0].symptom == "kl-explosion"


def test_of_several_seeds_a_symptom_is_current_once() -> None:
    flags = RedFlags(Path("run"), "warn", 60, [[], [], []])
    for iteration in range(1, 9):
        sick = row(iteration, **{"policy/approx_kl": 9.0})
        flags.update([row(iteration), sick, sick])
    assert flags.current is not None
    (found,) = (finding for finding in flags.current if finding.symptom == "kl-explosion")
    assert found.evidence["seeds"] == "2 of 3"


def test_a_doctor_that_fails_has_nothing_to_say(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def failing(log: Any, budget: int) -> list[Finding]:
        raise ZeroDivisionError

    monkeypatch.setattr(red_flags, "examine_run", failing)
    flags = RedFlags(Path("run"), "stop", 4, [[]])
    assert feed(flags, 4) == (None, 4)
    assert flags.current is None and "the doctor failed" in caplog.text


@pytest.mark.slow
def test_an_exploding_run_ends_within_25_iterations(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    code = main(
        f"train --iterations 100 --envs 16 --steps 64 --learning-rate .3 --on-red-flag stop --out {out}".split()
    )
    said = capsys.readouterr().err
    rows = RunFolder.open(out).read_metrics()
    assert code == 1 and len(rows) <= 25
    assert "training stopped after iteration" in said and "kl-explosion" in said and "remedy" in said
    assert RunFolder.open(out).checkpoints.iterations()[-1] == len(rows)
    assert main(f"doctor {out} --json".split()) == 1
