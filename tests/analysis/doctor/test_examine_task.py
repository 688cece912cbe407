"""Faults that are planted in a sound task are found, each by its name, and a sound task is healthy."""

import dataclasses
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.analysis.doctor import DataTask, diagnosis, examine_task
from phalanx.analysis.doctor.payoff import halves_by_process, past_of
from phalanx.errors import DataError

N = 12_000
REWARD = np.array([[0.0, -0.3, -1.0, -2.0], [-1.0, -0.5, 0.0, 0.0]])


def sound(seed: int = 0, n: int = N) -> DataTask:
    """Malicious events in runs, seen through one noisy number and one noisy category; split by time."""
    rng = np.random.default_rng(seed)
    label = np.repeat(rng.random(n // 50) < 0.15, 50).astype(np.int8)
    size = rng.normal(2.5 * label, 1.0)
    kind = np.where(rng.random(n) < 0.2 + 0.4 * label, "odd", "even")
    frame = pl.DataFrame({"time_ns": np.sort(rng.integers(1, 10**12, n)), "kind": kind, "size": size})
    return of(frame, label)


def of(frame: pl.DataFrame, label: np.ndarray, **changes: Any) -> DataTask:
    n = len(label)
    rows = np.arange(n)
    task = DataTask(
        frame=frame,
        label=label.astype(np.int8),
        chosen=("kind", "size"),
        identities=("pid",),
        category=(frame["kind"] == "odd").to_numpy().astype(np.int64)[:, None],
        numeric=frame["size"].to_numpy()[:, None],
        process=None,
        order=rows,
        timed=True,
        parts=(rows[: n * 7 // 10], rows[n * 7 // 10 : n * 17 // 20], rows[n * 17 // 20 :]),
        split="time",
        reward=REWARD,
        consequence=True,
        gamma=0.99,
    )
    return dataclasses.replace(task, **changes)


def symptoms(task: DataTask, least: str = "warning") -> list[str]:
    graded = ("info", "warning", "error")
    return [f.symptom for f in examine_task(task)[1] if graded.index(f.severity) >= graded.index(least)]


@pytest.mark.parametrize("seed", range(4))
def test_a_sound_task_is_healthy(seed: int) -> None:
    figures, findings = examine_task(sound(seed))
    assert diagnosis(findings)["healthy"], findings
    assert figures["probe_gain_share"] > 0.3 and figures["probe_pr_auc"] > 0.6


def test_figures_are_the_means_of_the_reward_table() -> None:
    task = sound()
    y = task.label[task.parts[2]]
    figures, _ = examine_task(task)
    rate = float(y.mean())
    assert figures["reward_by_constant"]["allow"] == pytest.approx(-rate)
    assert figures["reward_by_constant"]["alert"] == pytest.approx(-0.3 * (1 - rate) - 0.5 * rate)
    assert figures["reward_by_constant"]["quarantine"] == pytest.approx(-2.0 * (1 - rate))
    assert figures["reward_perfect"] == 0.0 and figures["best_constant"] == "allow"
    assert figures["reward_best_constant"] <= figures["reward_probe"] <= 0.0
    told = dataclasses.replace(task, numeric=task.label[:, None].astype(float))
    assert examine_task(told)[0]["reward_probe"] == 0.0  # the label itself is seen


@pytest.mark.parametrize("factor", [1e-4, 1e5])
def test_the_scale_of_the_reward_changes_no_finding(factor: float) -> None:
    for task in (sound(), dataclasses.replace(sound(), numeric=np.random.default_rng(1).normal(size=(N, 1)))):
        assert symptoms(task) == symptoms(dataclasses.replace(task, reward=factor * REWARD))


def test_an_observation_that_tells_nothing_is_said_to() -> None:
    rng = np.random.default_rng(0)
    blind = dataclasses.replace(sound(), category=rng.integers(0, 2, (N, 1)), numeric=rng.normal(size=(N, 1)))
    _, findings = examine_task(blind)
    found = [f for f in findings if f.severity != "info"]
    assert [(f.symptom, f.severity) for f in found] == [("unlearnable-observation", "error")]
    assert "allow for everything" in found[0].cause


def test_a_label_that_the_reward_ignores_cannot_be_learned_for_either() -> None:
    indifferent = dataclasses.replace(sound(), reward=np.array([[0.0, -1.0, -1.0, -1.0]] * 2))
    assert symptoms(indifferent) == ["unlearnable-observation"]


def test_a_processs_past_counts_where_members_remember_it() -> None:
    """Each event alone is hardly told; malicious processes are, by their past."""
    rng = np.random.default_rng(0)
    process = rng.integers(0, 240, N)
    label = (process < 24).astype(np.int8)
    size = rng.normal(0.9 * label, 1.0)
    frame = pl.DataFrame({"kind": ["even"] * N, "size": size})
    forgetful = of(frame, label)
    known = dataclasses.replace(forgetful, process=process)
    assert "unlearnable-observation" in symptoms(forgetful) and "unlearnable-observation" not in symptoms(
        known
    )


def test_verdicts_without_consequence_need_no_discount() -> None:
    task = dataclasses.replace(sound(), consequence=False)
    assert symptoms(task) == ["actions-without-consequence"]
    assert symptoms(dataclasses.replace(task, gamma=0.0)) == []


@pytest.mark.parametrize("wrong", [0.0, 0.003])
def test_a_label_made_by_a_rule_is_told_with_its_rule(wrong: float) -> None:
    rng = np.random.default_rng(0)
    kind = rng.choice(["read", "write", "exec", "mmap", "open"], N)
    port = rng.integers(0, 1000, N)
    label = (np.isin(kind, ["exec", "mmap"]) | (port > 900)) ^ (rng.random(N) < wrong)
    frame = pl.DataFrame({"kind": kind, "port": port, "size": rng.normal(size=N) + label})
    _, findings = examine_task(of(frame, label))
    rule = next(f for f in findings if f.symptom == "label-is-a-rule")
    assert rule.evidence["columns"] == ["kind", "port"] and rule.evidence["f1"] >= 0.99
    assert "kind in {exec, mmap}" in rule.cause and "port > 900.5" in rule.cause
    noisy = label ^ (rng.random(N) < 0.05)
    assert "label-is-a-rule" not in symptoms(of(frame, noisy))


PLACES = {
    "counter": lambda rng, n: np.arange(n) * 3 + 7,
    "falling": lambda rng, n: -np.arange(n),
    "in five stretches": lambda rng, n: np.arange(n) % (n // 5),
    "starting anew each thousand": lambda rng, n: (
        np.arange(n) % 1000 + 10_000 * rng.permutation(n // 1000)[np.arange(n) // 1000]
    ),
    "for a third of the rows, else 0": lambda rng, n: np.where(rng.random(n) < 0.33, np.arange(n), 0),
    "with gaps": lambda rng, n: np.where(rng.random(n) < 0.5, np.arange(n, dtype=float), np.nan),
    "a clock with noise": lambda rng, n: np.arange(n) + rng.normal(0, 5, n),
    "its logarithm": lambda rng, n: np.log1p(np.arange(n)),
}


@pytest.mark.parametrize("how", PLACES)
@pytest.mark.parametrize("seen", [False, True])
def test_a_column_that_tells_the_place_leaks_the_label(how: str, seen: bool) -> None:
    task = sound()
    place = PLACES[how](np.random.default_rng(1), N)
    frame = task.frame.with_columns(pl.Series("seq_no", place))
    chosen = (*task.chosen, "seq_no") if seen else task.chosen
    _, findings = examine_task(dataclasses.replace(task, frame=frame, chosen=chosen, split="stratified"))
    found = [
        f for f in findings if f.symptom == "label-leak-by-position" and "seq_no" in f.evidence["columns"]
    ]
    assert [f.severity for f in found] == ["error" if seen else "info"]


def test_a_place_that_members_see_is_no_error_where_time_is_split() -> None:
    task = sound()
    frame = task.frame.with_columns(pl.Series("seq_no", np.arange(N)))
    _, findings = examine_task(dataclasses.replace(task, frame=frame, chosen=(*task.chosen, "seq_no")))
    found = next(f for f in findings if "leak" in f.symptom and f.evidence["among_features"])
    assert found.severity == "warning" and "--split time" not in found.remedy


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [1.0, 0.3])
def test_campaigns_that_come_in_bursts_shift_no_split(seed: int, share: float) -> None:
    rng = np.random.default_rng(seed)
    label = np.zeros(40_000, np.int8)
    for start in rng.integers(0, 39_000, 40):
        label[start : start + int(100 / share)] |= rng.random(int(100 / share)) < share
    frame = pl.DataFrame({"kind": np.where(label == 1, "odd", "even"), "size": rng.normal(3.0 * label, 1.0)})
    assert "split-shift" not in symptoms(of(frame, label))


def test_few_malicious_events_are_said_to_be_too_few() -> None:
    rng = np.random.default_rng(0)
    label = (np.arange(N) % 1500 == 700).astype(np.int8)
    frame = pl.DataFrame({"kind": ["even"] * N, "size": rng.normal(3.0 * label, 1.0)})
    found = examine_task(of(frame, label))[1]
    assert [(f.symptom, f.severity) for f in found if f.severity != "info"] == [
        ("unlearnable-observation", "warning")
    ]
    assert "too few to tell" in found[0].cause


def test_labels_of_one_kind_in_a_part_are_refused() -> None:
    task = sound()
    label = task.label.copy()
    label[task.parts[1]] = np.where(label[task.parts[1]] == 0, -1, 1)
    with pytest.raises(DataError, match="the validation part has events of one label alone"):
        examine_task(dataclasses.replace(task, label=label))


@pytest.mark.parametrize("n_bad", [60, 600])
def test_a_rule_over_a_rare_value_is_found_and_ground_truth_by_process_is_none(n_bad: int) -> None:
    rng = np.random.default_rng(0)
    label = np.zeros(N, np.int8)
    label[rng.permutation(N)[:n_bad]] = 1
    kind = np.where(label == 1, "EXPLOIT", rng.choice(["READ", "WRITE"], N))
    frame = pl.DataFrame(
        {"kind": kind, "size": rng.normal(size=N), "huge": np.where(rng.random(N) < 0.1, 1e300, -1e300)}
    )
    found = next(f for f in examine_task(of(frame, label))[1] if f.symptom == "label-is-a-rule")
    assert "kind in {EXPLOIT}" in found.cause
    pid = rng.integers(0, 300, N)
    by_process = of(
        pl.DataFrame({"kind": rng.choice(["READ", "WRITE"], N), "size": rng.normal(size=N), "pid": pid}),
        (pid < 30).astype(np.int8),
    )
    assert "label-is-a-rule" not in symptoms(by_process)


@given(st.integers(0, 10**6), st.integers(2, 60))
def test_the_two_probes_share_no_process(seed: int, n_processes: int) -> None:
    rng = np.random.default_rng(seed)
    process = rng.integers(0, n_processes, 600)
    label = (rng.random(n_processes) < 0.4)[process].astype(np.int8)
    rows = rng.permutation(600)[:500]
    halves = halves_by_process(rows, process, label, rng)
    if halves is None:
        return
    first, second = halves
    assert sorted([*first, *second]) == sorted(rows)
    assert not set(process[first]) & set(process[second])
    assert all((label[half] == kind).sum() >= 20 for half in halves for kind in (0, 1))


def test_what_tells_no_place_or_no_label_leaks_none() -> None:
    task = sound()
    rng = np.random.default_rng(2)
    drawn = task.frame.with_columns(pl.Series("noise", rng.integers(0, 10**6, N)))
    leaks = [f for f in examine_task(dataclasses.replace(task, frame=drawn))[1] if "leak" in f.symptom]
    assert all("noise" not in f.evidence["columns"] and "size" not in f.evidence["columns"] for f in leaks)
    shuffled = rng.permutation(N)
    alone = of(
        task.frame.select("kind", "size")[shuffled].with_columns(pl.Series("seq_no", np.arange(N))),
        task.label[shuffled],
    )
    assert [f for f in examine_task(alone)[1] if "leak" in f.symptom] == []


def test_constant_columns_matter_where_members_see_them() -> None:
    task = sound()
    frame = task.frame.with_columns(pl.lit(0).alias("port"), pl.lit("").alias("host"))
    assert symptoms(dataclasses.replace(task, frame=frame)) == []
    found = examine_task(dataclasses.replace(task, frame=frame, chosen=(*task.chosen, "port")))[1]
    constant = next(f for f in found if f.symptom == "constant-features")
    assert constant.severity == "warning" and constant.evidence == {
        "columns": ["port", "host"],
        "among_features": ["port"],
    }


def test_splits_that_differ_mix_time_or_share_rows() -> None:
    task = sound()
    train, validation, test = task.parts
    assert symptoms(dataclasses.replace(task, split="random")) == ["split-ignores-time"]
    assert symptoms(dataclasses.replace(task, split="random", timed=False)) == []
    rng = np.random.default_rng(3)
    label = (rng.random(N) < 0.15).astype(np.int8)
    alike = of(task.frame.with_columns(pl.Series("size", rng.normal(3.0 * label, 1.0))), label)
    few = test[(label[test] == 0) | (np.arange(len(test)) % 3 == 0)]
    assert symptoms(alike) == []
    assert symptoms(dataclasses.replace(alike, parts=(train, validation, few))) == ["split-shift"]
    frame = task.frame.with_row_index("row")
    again = pl.concat([frame, frame[test[:200]]]).drop("row")
    twice = of(again, np.concatenate([task.label, task.label[test[:200]]]))
    parts = (np.concatenate([train, np.arange(N, N + 200)]), validation, test)
    found = [f for f in examine_task(dataclasses.replace(twice, parts=parts))[1] if "duplicates" in f.symptom]
    assert [f.severity for f in found] == ["warning"] and found[0].evidence["rows"] == 200


@given(st.lists(st.tuples(st.integers(0, 3), st.floats(0, 1)), min_size=1, max_size=40), st.randoms())
def test_the_past_of_a_process_is_what_a_loop_over_its_events_finds(
    events: list[tuple[int, float]], random: Any
) -> None:
    process = np.array([who for who, _ in events])
    score = np.array([value for _, value in events])
    order = np.array(random.sample(range(len(events)), len(events)))
    mean, most = past_of(score, process, order)
    for place, row in enumerate(order):
        earlier = [score[r] for r in order[:place] if process[r] == process[row]]
        if not earlier:
            assert np.isnan(mean[row]) and np.isnan(most[row])
            continue
        fading = earlier[0]
        for value in earlier[1:]:
            fading = 0.8 * fading + 0.2 * value
        assert mean[row] == pytest.approx(fading) and most[row] == max(earlier)


def test_the_column_that_the_label_was_read_from_is_worth_knowing_and_hides_no_other_rule() -> None:
    task = sound()
    frame = task.frame.with_columns(is_bad=pl.Series(task.label).cast(pl.Boolean))
    found = [
        f for f in examine_task(dataclasses.replace(task, frame=frame))[1] if f.symptom == "label-is-a-rule"
    ]
    assert [(f.severity, f.evidence["columns"]) for f in found] == [("info", ["is_bad"])]
    frame = frame.with_columns(score=pl.Series(np.where(task.label == 1, 0.9, 0.1)))
    found = [
        f for f in examine_task(dataclasses.replace(task, frame=frame))[1] if f.symptom == "label-is-a-rule"
    ]
    assert {f.severity: f.evidence["columns"] for f in found} == {"info": ["is_bad"], "warning": ["score"]}
    seen = dataclasses.replace(task, frame=frame.drop("score"), chosen=(*task.chosen, "is_bad"))
    assert [f.severity for f in examine_task(seen)[1] if f.symptom == "label-is-a-rule"] == ["warning"]
