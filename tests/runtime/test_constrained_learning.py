"""Learning under specifications, on the toy: prices rise until they are heeded."""

from typing import Any

import equinox as eqx
import jax
import numpy as np
import pytest
from runtime.committees import Rewarded, settings

from phalanx.envs.constrained import Constrained
from phalanx.runtime.learner import init_train_state, iterate
from phalanx.runtime.multipliers import MultiplierConfig
from phalanx.stl.specs import parse_specs

SPECS = parse_specs(
    "@spec budget\n@priority 1\nsum(restricted, 15) <= 2\n@spec free\n@priority 2\nsum(restricted, 15) <= 99"
)
ITERATIONS = 45
PRICED = MultiplierConfig(level=0.95, rate=0.5)


def run(prices: MultiplierConfig, iterations: int = ITERATIONS, **changes: Any) -> dict[str, Any]:
    """Metrics of each iteration."""
    small = dict(
        envs=16, steps=32, hidden=16, memory=16, iterations=ITERATIONS, gamma=0.9, learning_rate=3e-3
    )
    config = settings(**{**small, "entropy_coef": 0.1, "credit": "committee", "prices": prices, **changes})
    env = Constrained(Rewarded(32), SPECS)
    state = eqx.filter_jit(lambda: init_train_state(env, config, jax.random.key(1)))()
    advance = eqx.filter_jit(lambda state: iterate(env, config, state))
    rows = []
    for _ in range(iterations):
        state, metrics = advance(state)
        rows.append({name: np.asarray(value) for name, value in metrics.items()})
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


@pytest.fixture(scope="module")
def priced() -> dict[str, Any]:
    return run(PRICED)


def test_prices_follow_the_violations(priced: dict[str, Any]) -> None:
    for name in ("budget", "free"):
        price = 0.0
        for violated, now in zip(
            priced[f"stl/violated_{name}"], priced[f"stl/multiplier_{name}"], strict=True
        ):
            price = min(max(price + 0.5 * (float(violated) - 0.05), 0.0), 10.0)
            assert float(now) == pytest.approx(price, abs=1e-4)
    assert priced["stl/multiplier_budget"].max() > 0.2
    assert priced["stl/multiplier_free"].max() == 0.0


def test_a_specification_with_a_price_is_kept_and_one_without_is_not(priced: dict[str, Any]) -> None:
    alone = run(MultiplierConfig(adapt=False))
    last = slice(-8, None)
    assert alone["stl/multiplier_budget"].max() == 0.0
    assert alone["stl/violated_budget"][last].mean() > 0.3, "threats are many"
    assert priced["stl/violated_budget"][last].mean() < 0.1
    robust = [float(each["stl/robustness_budget"][last].mean()) for each in (alone, priced)]
    assert robust[1] > robust[0]


def test_members_that_learn_apart_share_a_price_that_rests_while_they_only_imitate() -> None:
    found = run(PRICED, iterations=2, rollouts="apart", credit="lookahead")
    assert found["stl/violated_budget"].shape == (2, 4)
    assert found["stl/multiplier_budget"].tolist() == [0.0, 0.0]
    assert (found["stl/violated_budget"] > 0.05).any()
