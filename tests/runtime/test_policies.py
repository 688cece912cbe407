"""What policies keep of processes, and alerts that reach nobody."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.runtime.policies import TablePolicy, note, number_column, recall, without_repeats
from phalanx.types import Column, ObservationSpec


@given(st.integers(0, 10**6), st.booleans())
def test_processes_are_recalled_and_noted_as_in_a_loop(seed: int, compiled: bool) -> None:
    rng = np.random.default_rng(seed)
    table = rng.normal(size=(3, 4, 2)).astype(np.float32)
    source, entity = rng.integers(-1, 4, 3), rng.integers(0, 4, 3)
    row = rng.normal(size=(3, 2)).astype(np.float32)
    found = [table[e, source[e]] if source[e] >= 0 else np.full(2, 7.0, np.float32) for e in range(3)]
    written = table.copy()
    for e in range(3):
        written[e, entity[e]] = row[e]
    own = jnp.asarray if compiled else np.array
    np.testing.assert_array_equal(recall(own(table), own(source), 7.0), np.stack(found))
    np.testing.assert_array_equal(note(own(table), own(entity), own(row)), written)


@pytest.mark.parametrize("own", [jnp.asarray, np.asarray])
def test_only_an_alert_on_an_open_ticket_is_left_out(own: object) -> None:
    answer, numeric = np.array([0, 1, 1, 2, 3]), np.array([[1.0], [1.0], [0.0], [1.0], [1.0]])
    kept = without_repeats(own(answer), own(numeric), 0)  # type: ignore[operator]
    assert np.asarray(kept).tolist() == [0, 0, 1, 2, 3]
    assert without_repeats(answer, numeric, None).tolist() == answer.tolist()


def test_a_column_that_is_not_shown_has_no_place() -> None:
    spec = ObservationSpec((), (Column("size"), Column("ticket_open")), 1)
    assert number_column(spec, "ticket_open") == 1 and number_column(spec, "uid") is None


def test_of_all_policies_the_table_alone_is_shown_the_label() -> None:
    from phalanx.runtime import episodes, inspection, playbook, policies, rules, surprise

    found = {
        kind
        for module in (episodes, inspection, playbook, policies, rules, surprise)
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, policies.Policy) and kind.sees_truth
    }
    assert found == {TablePolicy}
