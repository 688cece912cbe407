"""Specifications and terms of a made-up reward, played by a plain loop: what is planted is found, and nothing else."""

import dataclasses
import functools
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.analysis.doctor import Finding
from phalanx.analysis.doctor.rehearsal import Rehearsal, check_specs, check_terms

POLICIES = ("allow", "block", "random", "perfect")
STEPS = 5_000


@functools.cache
def made_up(specs: tuple[str, ...] = (), n: int = STEPS, **weights: float) -> Rehearsal:
    """Threats at 10 % of the steps, answered by 0 or 1; +1 where right; terms and specs by name."""
    chance = random.Random(0)
    threats = [chance.random() < 0.1 for _ in range(n)]
    noise = [chance.random() for _ in range(n)]
    votes = [chance.random() < 0.5 for _ in range(n)]

    def answer(policy: str, step: int) -> bool:
        return {"allow": False, "block": True, "random": votes[step], "perfect": threats[step]}[policy]

    spec = {
        "constant": lambda answer, step: 0.25,
        "chance": lambda answer, step: noise[step] - 0.3,
        "out of reach": lambda answer, step: -1.0 - 0.1 * answer,
        "right": lambda answer, step: 0.1 if answer == threats[step] and not noise[step] < 0 else -1.0,
        "too easy": lambda answer, step: 0.1 + 0.2 * answer + noise[step],
        "reacts": lambda answer, step: 0.5 - answer,
    }
    term = {
        "task": lambda answer, step: float(answer == threats[step]),
        "penalty": lambda answer, step: -1.0,
        "hint": lambda answer, step: 1.0 if answer == threats[step] else -1.0,
        "noise": lambda answer, step: noise[step] - 0.5,
    }
    weights = {"task": 1.0, **weights}
    return Rehearsal(
        policies=POLICIES,
        untrained="random",
        informed=("perfect",),
        terms={
            name: np.array(
                [[weight * term[name](answer(policy, t), t) for t in range(n)] for policy in POLICIES]
            )
            for name, weight in weights.items()
        },
        choices={
            name: np.array(
                [
                    [weight * term[name](verdict, t) for verdict in (False, False, True, True)]
                    for t in range(n)
                ]
            )
            for name, weight in weights.items()
        },
        specs={
            name: np.array([[spec[name](answer(policy, t), t) for t in range(n)] for policy in POLICIES])
            for name in specs
        },
    )


def said(found: list[Finding]) -> dict[str, str]:
    return {finding.evidence["spec"]: finding.symptom for finding in found}


def test_each_specification_is_told_by_what_explains_most() -> None:
    found = check_specs(made_up(("constant", "chance", "out of reach", "right", "too easy", "reacts")))
    assert said(found) == {
        "constant": "spec-ignores-actions",
        "chance": "spec-ignores-actions",
        "out of reach": "spec-always-violated",
        "too easy": "spec-never-active",
    }
    cause = {finding.evidence["spec"]: finding.cause for finding in found}
    assert "a constant and never violated" in cause["constant"]
    assert "chance, violated at 3" in cause["chance"] and "charged" in cause["chance"]
    assert "no policy that was tried keeps it" in cause["out of reach"]
    assert all(f.severity == "warning" and f.remedy and f.evidence["steps"] == STEPS for f in found)


def test_what_only_a_knowing_policy_keeps_is_always_violated_where_learning_starts() -> None:
    played = made_up(("right",))
    assert check_specs(played) == []  # whoever allows everything is right at nine in ten
    kept = {"rates": np.where(np.arange(4)[:, None] == 3, 0.05, -np.ones((4, STEPS)))}
    (finding,) = check_specs(dataclasses.replace(played, specs=kept))
    assert finding.symptom == "spec-always-violated" and "perfect: violated at 0 %" in finding.cause
    assert finding.evidence["violated_perfect"] == 0.0 and finding.evidence["violated_allow"] == 1.0
    met = dataclasses.replace(played, informed=(), specs=kept)
    assert check_specs(met) == []  # a policy within reach keeps it


def test_the_bound_of_what_is_never_active_is_clopper_and_pearsons() -> None:
    (finding,) = check_specs(made_up(("too easy",)))
    assert finding.evidence["violated_upper_bound"] == pytest.approx(1.0 - 0.025 ** (1.0 / STEPS), rel=1e-9)
    few = made_up(("too easy",), 1_000)
    assert check_specs(few) == []  # too short a time to say never


@given(st.integers(0, 3), st.integers(0, STEPS - 1), st.floats(0.01, 100.0))
def test_one_step_that_an_answer_moves_is_an_effect(policy: int, step: int, size: float) -> None:
    robustness = np.tile(np.random.default_rng(0).normal(size=STEPS), (4, 1))
    played = dataclasses.replace(made_up(), specs={"spec": robustness})
    assert said(check_specs(played)) == {"spec": "spec-ignores-actions"}
    moved = robustness.copy()
    moved[policy, step] += size
    assert check_specs(dataclasses.replace(played, specs={"spec": moved})) == []


def test_robustness_without_a_bound_is_compared_too() -> None:
    played = dataclasses.replace(made_up(), specs={"spec": np.full((4, STEPS), np.inf)})
    assert said(check_specs(played)) == {"spec": "spec-ignores-actions"}


def test_a_term_buries_the_task_where_what_no_answer_decides_exceeds_what_one_does() -> None:
    """The task's reward is 0 or 1 by the verdict: a spread of 1/2, so that a constant of more than that buries it."""
    assert check_terms(made_up()) == []
    assert check_terms(made_up(penalty=0.49)) == []
    (finding,) = check_terms(made_up(penalty=0.6))
    assert (finding.symptom, finding.severity, finding.evidence["term"]) == (
        "reward-scale",
        "warning",
        "penalty",
    )
    assert finding.evidence["ratio"] == pytest.approx(1.2) and finding.evidence[
        "task_decided"
    ] == pytest.approx(0.5)
    assert finding.evidence["penalty_allow"] == pytest.approx(-0.6)
    assert finding.evidence["variance_share"] == pytest.approx(0.0) and finding.evidence[
        "decided"
    ] == pytest.approx(0)


def test_what_a_verdict_decides_buries_nothing_and_noise_does() -> None:
    assert check_terms(made_up(hint=1_000.0)) == []
    (finding,) = check_terms(made_up(noise=10.0, hint=1.0))
    assert finding.evidence["term"] == "noise" and finding.evidence["ratio"] == pytest.approx(
        10.0 / np.sqrt(12.0) / 0.5, rel=0.03
    )
    noise, rest = (
        100.0 / 12.0,
        (1.0 + 2.0) ** 2 / 4.0,
    )  # variances of the noise, and of task and hint together
    assert finding.evidence["variance_share"] == pytest.approx(noise / (noise + rest), abs=0.03)
    assert abs(finding.evidence["difference_share"]) < 1e-6


def test_a_task_that_pays_for_nothing_is_buried_by_anything() -> None:
    (finding,) = check_terms(made_up(task=0.0, penalty=1.0))
    assert finding.evidence["ratio"] is None and finding.evidence["difference_share"] is None


@given(st.floats(1e-6, 1e6), st.sampled_from([0.1, 0.4, 0.6, 5.0]))
def test_units_change_nothing(factor: float, penalty: float) -> None:
    specs = ("constant", "chance", "out of reach", "too easy", "reacts")
    one = made_up(specs, penalty=penalty)
    other = dataclasses.replace(
        one,
        terms={name: factor * values for name, values in one.terms.items()},
        choices={name: factor * values for name, values in one.choices.items()},
        specs={name: factor * values for name, values in one.specs.items()},
    )
    assert said(check_specs(one)) == said(check_specs(other))
    ratios = [[f.evidence["ratio"] for f in check_terms(each)] for each in (one, other)]
    assert ratios[0] == pytest.approx(ratios[1]) and len(ratios[0]) == (penalty > 0.5)
