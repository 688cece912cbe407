"""Attempts side by side: what the table says of each, from logs whose numbers are known."""

from typing import Any

import pytest

from phalanx.analysis.attempts import attempt_row, attempts_page, attempts_table, outcome
from phalanx.analysis.doctor import Finding


def rows(scale: float, n: int = 60, hits: int | None = 40) -> list[dict[str, Any]]:
    told = []
    for i in range(1, n + 1):
        row: dict[str, Any] = {
            "iteration": i,
            "loss/value": scale * (1 + 1 / i),
            "value/explained_variance": 0.5 * i / n,
        }
        if i % 20 == 0:
            found = 0 if hits is None or i < hits else 5
            row |= {"eval/greedy_tp": found, "eval/greedy_f1": 0.1 * found, "eval/tp": 9, "eval/f1": 0.9}
        told.append(row)
    return told


def finding(symptom: str, severity: str = "error") -> Finding:
    return Finding(symptom, severity, {"figure": 1.0}, "because", "do", 3)


def test_a_row_tells_the_loss_at_fixed_iterations_and_the_first_true_positive_of_each_seed() -> None:
    row = attempt_row([rows(1.0), rows(3.0, hits=None)], [], True)
    assert list(row["value_loss"]) == ["10", "50", "60"]
    assert row["value_loss"]["10"]["mean"] == pytest.approx(2.0 * 1.1)
    assert row["value_loss"]["10"]["n"] == 2
    assert row["first_true_positive"] == [40, None]
    assert row["f1"]["mean"] == pytest.approx(0.25)  # of the members' own verdicts, not of a tuned threshold
    assert row["explained_variance"]["iqm"] == pytest.approx(0.5)


def test_seeds_that_got_less_far_decide_how_far_the_row_goes() -> None:
    assert attempt_row([rows(1.0, 60), rows(1.0, 30)], [], True)["iterations"] == 30


def test_an_outcome_names_the_causes_in_their_order_and_infos_do_not_count() -> None:
    both = [finding("policy-collapse-permissive"), finding("value-loss-stuck")]
    assert outcome(both, 0.0, False) == "constant critic, allows everything, F1 0.000"
    assert outcome([finding("value-loss-stuck", "info")], 0.75, True) == "learns: F1 0.750"
    assert outcome([], None, True) == "learns"
    assert outcome([], 0.0, False) == "no better than untrained yet: F1 0.000"


def test_the_table_shows_intervals_only_over_several_seeds() -> None:
    result = {
        "attempts": {
            "batch": attempt_row([rows(1.0), rows(1.0)], [finding("value-loss-stuck")], False),
            "none": attempt_row([rows(90_000.0, hits=None)], [finding("reward-scale")], False),
        }
    }
    lines = attempts_table(result).split("\n")
    assert lines[0].split()[:3] == ["attempt", "loss", "at"]
    assert lines[2].startswith("  95 %") and " to " in lines[2]
    assert lines[3].startswith("none") and "99,000" in lines[3] and "never" in lines[3]
    assert lines[1].endswith("constant critic, F1 0.500") and "40 (2 of 2)" in lines[1]


def test_the_page_escapes_names_and_draws_each_attempt() -> None:
    name = "<b>popart</b>"
    several = {name: [rows(1.0), rows(1.2)]}
    result = {"attempts": {name: attempt_row(several[name], [], True)}}
    page = attempts_page(result, several)
    assert "<b>popart" not in page and "&lt;b&gt;popart" in page
    assert page.count('"figures"') == 1 and "value_explained_variance" in page
