import jax.numpy as jnp
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from phalanx.runtime.multipliers import MultiplierConfig, raised

shares = st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3)


@given(shares, st.lists(st.floats(0, 10, width=32), min_size=3, max_size=3), st.floats(0.5, 1.0))
def test_a_price_rises_with_violations_above_what_is_tolerated_and_falls_below(violated, before, level):
    config = MultiplierConfig(level=level, rate=0.5, most=10.0)
    after = np.asarray(
        raised(config, jnp.array(before, jnp.float32), jnp.array(violated, jnp.float32), jnp.array(True))
    )
    for new, old, share in zip(after, before, violated, strict=True):
        expected = min(max(old + 0.5 * (share - (1 - level)), 0.0), 10.0)
        assert abs(new - expected) < 1e-5


def test_prices_rest_while_nobody_heeds_them_and_where_they_are_not_to_move():
    prices, violated = jnp.array([0.5, 1.0], jnp.float32), jnp.ones(2, jnp.float32)
    for config, active in ((MultiplierConfig(), False), (MultiplierConfig(adapt=False), True)):
        assert raised(config, prices, violated, jnp.array(active)).tolist() == [0.5, 1.0]
