"""Several seeds' evaluations as one: means, intervals, and what each seed reached."""

from typing import Any

import numpy as np
import pytest

from phalanx.analysis.statistics import summary
from phalanx.runtime.seeds import merged


def result(
    seed: int, f1: float, held: float, changed: float | None, contained: float | None
) -> dict[str, Any]:
    return {
        "seed": seed,
        "f1": f1,
        "time_to_contain_s": contained,
        "threshold_source": "validation",
        "notes": [f"note of {seed}"],
        "course": {"committee": {"event": [seed]}},
        "damage_by_episode": [float(seed)],
        "baselines": {"oracle": {"f1": 1.0}},
        "latency_ms": {"p50": f1},
        "specs": {"budget": {"satisfied": held, "robustness_min": held - 1, "forecast": {"radius": held}}},
        "committee": {"n": 4, "agreement": f1 / 2},
        "shield": None
        if changed is None
        else {"file": "shield", "names": ("a", "b"), "apart": ((),), "changed": changed},
    }


GIVEN = [(3, 0.5, 0.75, 0.01, None), (4, 0.7, 1.0, 0.04, 12.0), (5, 0.9, 0.5, 0.01, 18.0)]


@pytest.fixture
def results() -> list[dict[str, Any]]:
    return [result(*each) for each in GIVEN]


def test_numbers_are_means_of_the_seeds_that_have_them(results: list[dict[str, Any]]) -> None:
    whole = merged(results)
    assert whole["f1"] == pytest.approx(0.7) and whole["time_to_contain_s"] == pytest.approx(15.0)
    assert whole["specs"]["budget"]["satisfied"] == pytest.approx(0.75)
    assert whole["specs"]["budget"]["forecast"]["radius"] == pytest.approx(0.75)
    assert whole["committee"] == {"n": 4.0, "agreement": pytest.approx(0.35)}
    assert whole["shield"] == {
        "file": "shield",
        "names": ("a", "b"),
        "apart": ((),),
        "changed": pytest.approx(0.02),
    }
    assert "seed" not in whole and "damage_by_episode" not in whole
    assert whole["notes"] == ["note of 3"] and whole["course"] == results[0]["course"]
    assert whole["threshold_source"] == "validation"


def test_each_seed_keeps_its_specifications_committee_and_shield(results: list[dict[str, Any]]) -> None:
    rows = merged(results)["per_seed"]
    assert [row["seed"] for row in rows] == [3, 4, 5]
    for row, own in zip(rows, results, strict=True):
        for name in ("f1", "time_to_contain_s", "specs", "committee", "shield"):
            assert row[name] == own[name]
        assert not {"baselines", "latency_ms", "course", "notes", "damage_by_episode"} & row.keys()
    held = [row["specs"]["budget"]["satisfied"] for row in rows]
    assert held == [0.75, 1.0, 0.5]
    assert merged(results)["intervals"]["specs/budget"] == summary(held)


def test_intervals_are_of_figures_that_some_seed_has(results: list[dict[str, Any]]) -> None:
    found = merged(results)["intervals"]
    assert set(found) == {"f1", "specs/budget"}
    assert found["f1"]["min"] == 0.5 and found["f1"]["n"] == 3
    assert found["f1"]["low"] <= np.mean([0.5, 0.7, 0.9]) <= found["f1"]["high"]


def test_without_a_shield_none_is_reported() -> None:
    whole = merged([result(seed, f1, held, None, None) for seed, f1, held, *_ in GIVEN])
    assert whole["shield"] is None and whole["time_to_contain_s"] is None
    assert [row["shield"] for row in whole["per_seed"]] == [None] * 3
