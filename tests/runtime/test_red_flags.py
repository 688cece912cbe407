"""Red flags: each symptom said once, a run stopped at its first error, and a sound one left alone."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from phalanx.cli import main
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
