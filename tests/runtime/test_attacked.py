"""An evaluation with liars in the committee: what is asked for, what it writes, and that it is what was expected."""

import json
from pathlib import Path
from typing import Any

import pytest
from runtime.recorded import frame, small_run, write

from phalanx.analysis.table import evaluation_table
from phalanx.errors import UsageError
from phalanx.runtime.attacked import LiarsAsked, asked_for
from phalanx.runtime.evaluate import evaluate
from phalanx.runtime.train import train


@pytest.mark.parametrize(
    ("faulty", "adversary", "expected"),
    [
        (None, None, None),
        (0, None, None),
        (None, "silent", LiarsAsked("silent", 2)),
        (1, None, LiarsAsked("worst-case", 1)),
        (3, "flip", LiarsAsked("flip", 3)),
    ],
)
def test_one_of_the_two_flags_is_enough(faulty: Any, adversary: Any, expected: Any) -> None:
    assert asked_for(7, 2, faulty, adversary) == expected


@pytest.mark.parametrize(
    ("n", "f", "faulty", "adversary", "message"),
    [
        (7, 2, 8, "flip", "8 faulty members of 7; expected 1 to 7"),
        (7, 2, -1, None, "expected 1 to 7"),
        (7, 2, 1, "flap", "unknown adversary.*worst-proposer"),
        (3, 0, None, "flip", "3 members tolerate no faulty one; give --faulty"),
        (4, 1, 0, "flip", "--faulty 0 with --adversary flip"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    n: int, f: int, faulty: Any, adversary: Any, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        asked_for(n, f, faulty, adversary)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    data = write(folder / "events.parquet", frame())
    train(
        small_run(data, env="replay", out=folder / "run", iterations=2, seed=7, rollouts="together", liars=1)
    )
    return folder / "run"


@pytest.mark.slow  # trains and measures whole
def test_liars_are_trained_beside_measured_and_expected(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert all(0.0 <= row["committee/faulty"] <= 0.25 for row in rows)
    plain = evaluate(run, episodes=8)
    committee = plain["committee"]
    assert committee["faulty"] == 0 and committee["adversary"] is None and committee["expected"] is None
    assert all(share in (None, 1.0) for share in committee["verdicts"]["kept"].values())
    for adversary in ("worst-proposer", "silent", "learned"):
        found = json.loads(json.dumps(evaluate(run, episodes=8, adversary=adversary), allow_nan=False))
        own = found["committee"]
        assert (own["n"], own["f"], own["faulty"], own["adversary"]) == (4, 1, 1, adversary)
        for name in ("agreement", "error_correlation"):
            assert own[name] == committee[name], "of what members think, lies aside"
        assert found["damage_prevented"] is not None
        if adversary == "learned":
            assert own["expected"] is None
        else:
            assert own["verdicts"]["recall"] == pytest.approx(own["expected"]["recall"])
            assert own["verdicts"]["malicious"] == pytest.approx(own["expected"]["malicious"])
        assert own["abstain"] == pytest.approx(0.25) if adversary == "silent" else own["abstain"] <= 0.5
        shown = evaluation_table(found)
        assert f"with 1 of 4 members faulty ({adversary}):" in shown and "measured" in shown
    assert json.loads((run / "eval.json").read_text())["committee"]["adversary"] == "learned"
