"""``phalanx compare --attempts``: the settings that a name stands for, and attempts that go on where they stopped."""

import json
from pathlib import Path

import pytest

from phalanx.cli import main
from phalanx.cli_attempts import parse_attempt
from phalanx.errors import UsageError
from phalanx.runtime.config import RunConfig


def test_a_name_is_a_normalizer_and_what_differs() -> None:
    base = RunConfig(gamma=0.9, iterations=7)
    assert parse_attempt("batch", base).normalizer == "batch"
    other = parse_attempt("popart:returns=monte_carlo:learning-rate=3e-4", base)
    assert (other.returns, other.learning_rate, other.gamma, other.iterations) == (
        "monte_carlo",
        3e-4,
        0.9,
        7,
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("poparts", "unknown attempt 'poparts'; choose one of.*did you mean 'popart'?"),
        ("none:gamma", "'gamma' is no setting"),
        ("none:gama=1", "did you mean 'gamma'?"),
        ("none:seeds=3", "unknown setting"),
        ("none:gamma=7", "expected a number from 0 to 1"),
    ],
)
def test_an_attempt_that_there_is_not_is_named(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said.replace("?", r"\?")):
        parse_attempt(text, RunConfig())


def test_an_attempt_named_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "--attempts", "none,none"]) == 2
    assert "each once" in capsys.readouterr().err


@pytest.mark.slow
def test_attempts_are_trained_compared_and_gone_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from runtime.recorded import frame, write

    data = write(tmp_path / "events.parquet", frame())
    flags = (
        f"compare --attempts none,popart --env stream --data {data} --seeds 2 --envs 8 --steps 16 --hidden 8 "
        "--memory 8 "
        f"--minibatches 2 --eval-every 2 --out {tmp_path / 'attempts'} --json"
    ).split()
    assert main([*flags, "--iterations", "2"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert set(first["attempts"]) == {"none", "popart"}
    assert all(each["seeds"] == 2 and each["iterations"] == 2 for each in first["attempts"].values())
    assert main([*flags, "--iterations", "4"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert all(each["iterations"] == 4 for each in second["attempts"].values())
    assert main([*flags, "--iterations", "4"]) == 0  # read only
    assert json.loads(capsys.readouterr().out)["attempts"] == second["attempts"]
    assert (tmp_path / "attempts" / "attempts.html").stat().st_size > 1000
