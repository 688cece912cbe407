"""Response metrics against hand-counted cases and loops over episodes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.analysis.response import Budget, cvar, response_metrics
from phalanx.errors import DataError, UsageError
from phalanx.types import Score


def score_of(**totals: list[float]) -> Score:
    zero = dict.fromkeys(Score.__dataclass_fields__, jnp.zeros(2, jnp.float32))
    return Score(**{**zero, **{name: jnp.asarray(value, jnp.float32) for name, value in totals.items()}})


def test_response_counted_by_hand() -> None:
    policy = score_of(
        damage=[10.0, 20.0],
        benign=[600.0, 400.0],
        benign_lost=[3.0, 2.0],
        false_blocks=[1.0, 1.0],
        alerts=[2.0, 4.0],
        campaigns=[2.0, 1.0],
        contained=[2.0, 0.0],
        contain_s=[90.0, 0.0],
        duration_s=[3600.0, 3600.0],
    )
    found = response_metrics(policy, score_of(damage=[60.0, 60.0]), score_of(damage=[0.0, 20.0]))
    assert found.damage_prevented == pytest.approx(0.9)
    assert found.availability == pytest.approx(0.995)
    assert (found.time_to_contain_s, found.campaigns, found.censored) == (45.0, 3, 1)
    assert found.contained_share == pytest.approx(2 / 3)
    assert found.false_blocks_per_million == pytest.approx(2000.0)
    assert found.alerts_per_day == pytest.approx(72.0)


def test_response_anchors_and_undefined_values() -> None:
    allow, oracle_run = score_of(damage=[5.0, 5.0]), score_of(damage=[1.0, 1.0])
    assert response_metrics(allow, allow, oracle_run).damage_prevented == 0.0
    assert response_metrics(oracle_run, allow, oracle_run).damage_prevented == 1.0
    nothing = response_metrics(allow, allow, allow)
    assert nothing.damage_prevented is None
    assert (nothing.availability, nothing.time_to_contain_s, nothing.contained_share) == (None, None, None)
    assert (nothing.false_blocks_per_million, nothing.alerts_per_day) == (None, None)


def random_scores(seed: int, n: int = 12) -> tuple[Score, Score, Score, np.ndarray]:
    rng = np.random.default_rng(seed)

    def one(scale: float) -> Score:
        campaigns = rng.integers(0, 3, n)
        benign = rng.integers(0, 3, n) * 50.0
        return Score(
            **{
                **{name: jnp.asarray(rng.gamma(1.0, scale, n)) for name in ("damage", "loss", "contain_s")},
                **{name: jnp.zeros(n) for name in ("malicious", "events", "restrictions", "false_blocks")},
                "campaigns": jnp.asarray(campaigns.astype(float)),
                "contained": jnp.asarray(rng.integers(0, campaigns + 1).astype(float)),
                "benign": jnp.asarray(benign),
                "benign_lost": jnp.asarray(np.minimum(rng.integers(0, 2, n) * 1.0, benign)),
                "alerts": jnp.asarray(rng.integers(0, 30, n).astype(float)),
                "duration_s": jnp.asarray(rng.integers(0, 3, n) * 1_800.0),
                "furthest": jnp.asarray(rng.integers(0, 11, n).astype(float)),
            }
        )

    return one(2.0), one(8.0), one(0.5), rng.choice([0.0, 0.2, 1.0, 2.5], n, p=[0.1, 0.3, 0.3, 0.3])


@given(st.integers(0, 2**32 - 1))
def test_weighted_response_equals_a_loop_over_episodes(seed: int) -> None:
    policy, allow, perfect, weight = random_scores(seed)
    if not weight.any():
        return
    analysts, budget = 2, Budget(availability=0.985, alerts_per_analyst_day=120.0)
    found = response_metrics(policy, allow, perfect, weight=weight, analysts=analysts, budget=budget)
    keys = (
        "loss",
        "most",
        "least",
        "whole",
        "time",
        "campaigns",
        "contained",
        "waited",
        "attacked",
        "stages",
    )
    totals: dict[str, float] = dict.fromkeys((*keys, "alerts", "open", "short", "staffed", "flooded"), 0.0)
    for e, w in enumerate(weight.tolist()):
        row = {name: float(getattr(policy, name)[e]) for name in Score.__dataclass_fields__}
        totals["loss"] += w * row["loss"]
        totals["most"] += w * float(allow.loss[e])
        totals["least"] += w * float(perfect.loss[e])
        totals["whole"] += w
        totals["time"] += w * row["duration_s"]
        totals["alerts"] += w * row["alerts"]
        for name, key in (("campaigns",) * 2, ("contained",) * 2, ("contain_s", "waited")):
            totals[key] += w * row[name]
        if float(allow.campaigns[e]) > 0:
            totals["attacked"] += w
            totals["stages"] += w * row["furthest"]
        if row["benign"] > 0:
            totals["open"] += w
            totals["short"] += w * (1 - row["benign_lost"] / row["benign"] < 0.985)
        if row["duration_s"] > 0:
            totals["staffed"] += w
            totals["flooded"] += w * (row["alerts"] / analysts / row["duration_s"] * 8 * 3600 > 120.0)

    def over(part: str, whole: str):
        return None if totals[whole] == 0 else pytest.approx(totals[part] / totals[whole], rel=1e-5)

    assert found.loss == over("loss", "whole")
    assert found.normalised_score == (
        None
        if totals["most"] <= totals["least"]
        else pytest.approx(
            (totals["most"] - totals["loss"]) / (totals["most"] - totals["least"]), rel=1e-5, abs=1e-5
        )
    )
    assert found.contained_share == over("contained", "campaigns")
    assert found.time_to_contain_s == over("waited", "contained")
    assert found.furthest_stage == over("stages", "attacked")
    assert found.availability_violations == over("short", "open")
    assert found.alert_violations == over("flooded", "staffed")
    rate = over("alerts", "time")
    assert (found.alerts_per_analyst_day is None) == (rate is None)
    if found.alerts_per_analyst_day is not None:
        assert found.alerts_per_analyst_day * analysts / (8 * 3600) == rate


@given(st.integers(0, 2**32 - 1))
def test_scaling_all_weights_changes_nothing(seed: int) -> None:
    policy, allow, perfect, weight = random_scores(seed)
    plain, scaled = (
        vars(response_metrics(policy, allow, perfect, weight=factor * weight, analysts=1))
        for factor in (1.0, 7.0)
    )
    for name, value in plain.items():
        assert scaled[name] == (None if value is None else pytest.approx(value, rel=1e-9, abs=1e-9))


def test_a_peaceful_stratum_counts_for_its_weight() -> None:
    policy = score_of(benign=[100.0, 100.0], benign_lost=[10.0, 0.0], loss=[6.0, 1.0])
    found = response_metrics(policy, policy, policy, weight=[0.1, 0.9])
    assert found.availability == pytest.approx(0.99)
    assert found.loss == pytest.approx(1.5)


def test_budget_of_an_analyst() -> None:
    # two analysts for half an hour are an eighth of a shift: 12 tickets keep the budget of 100, 13 do not
    policy = score_of(
        alerts=[12.0, 13.0], duration_s=[1_800.0] * 2, benign=[200.0] * 2, benign_lost=[1.0, 2.0]
    )
    found = response_metrics(policy, policy, policy, analysts=2)
    assert found.alerts_per_analyst_day == pytest.approx(100.0)
    assert found.alert_violations == 0.5
    assert found.availability_violations == 0.5
    unknown = response_metrics(policy, policy, policy)
    assert (unknown.alerts_per_analyst_day, unknown.alert_violations) == (None, None)


def test_stages_are_those_of_episodes_that_always_allow_sees_attacked() -> None:
    allow = score_of(campaigns=[1.0, 0.0], furthest=[8.0, 0.0])
    early = score_of(campaigns=[0.0, 0.0], furthest=[0.0, 0.0])  # stopped before the first attempt
    assert response_metrics(allow, allow, early).furthest_stage == 8.0
    assert response_metrics(early, allow, early).furthest_stage == 0.0
    assert response_metrics(allow, early, early).furthest_stage is None


@given(
    st.lists(st.tuples(st.floats(-100, 100), st.integers(0, 3)), min_size=1, max_size=30),
    st.sampled_from([0.05, 0.3, 0.5, 1.0]),
)
def test_cvar_is_the_minimum_of_the_auxiliary_function(rows: list[tuple[float, int]], tail: float) -> None:
    loss, weight = np.array(rows).T
    if not weight.any():
        assert cvar(loss, weight, tail=tail) is None
        return
    # Rockafellar and Uryasev: min over a of a + E[(loss - a)+] / tail, attained at one of the losses
    excess = np.maximum(loss[None, :] - loss[:, None], 0.0) @ weight / weight.sum()
    assert cvar(loss, weight, tail=tail) == pytest.approx((loss + excess / tail).min(), abs=1e-9)


def test_cvar_of_twenty_episodes_is_the_worst_one() -> None:
    assert cvar(np.arange(20.0)) == 19.0
    assert cvar(np.arange(40.0)) == 38.5
    assert cvar(np.arange(3.0), tail=1.0) == 1.0
    assert cvar([]) is None


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: cvar([1.0], tail=0.0), UsageError, "tail=0.0"),
        (lambda: cvar([float("nan")]), DataError, "finite"),
        (lambda: Budget(availability=1.5), UsageError, "from 0 to 1"),
        (lambda: Budget(alerts_per_analyst_day=0.0), UsageError, "more than 0"),
        (lambda: response_metrics(score_of(), score_of(), score_of(), analysts=0), UsageError, "analysts=0"),
        (lambda: response_metrics(score_of(), score_of(), score_of(), weight=[1.0]), DataError, "2 rows"),
        (
            lambda: response_metrics(score_of(), score_of(), jax.tree.map(lambda leaf: leaf[:1], score_of())),
            DataError,
            "policy has 2, always_allow has 2, oracle has 1",
        ),
    ],
)
def test_bad_arguments_are_refused(call, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
