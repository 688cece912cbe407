"""Inspection in turn, by a plain loop."""

import numpy as np
import pytest
from runtime.streams import drive, stream

from phalanx.errors import UsageError
from phalanx.runtime.inspection import InspectionFamily, fit_inspection
from phalanx.runtime.vocabulary import Vocabulary


def test_a_process_is_inspected_when_its_time_has_come_and_an_analyst_is_free() -> None:
    rng = np.random.default_rng(0)
    seen = stream((3,), 2, steps=200)
    numeric = np.stack([rng.random(seen.label.shape) < 0.3, rng.random(seen.label.shape)], axis=-1)
    seen = seen._replace(numeric=numeric.astype(np.float32))
    family = InspectionFamily(n_entities=4, ticket_open=0, analyst_wait=1)
    policy = family.build([{"pause": 12.4, "most_wait": 0.5}], 3)
    answers, suspicion = drive(policy, seen)
    expected = np.zeros_like(answers)
    for env in range(3):
        last: dict[int, int] = {}
        for t in range(200):
            process = int(seen.entity[t, env])
            if seen.source[t, env] != process:
                last.pop(process, None)  # another process was born in this slot
            waits, is_open = seen.numeric[t, env, 1], seen.numeric[t, env, 0]
            if not is_open and waits <= 0.5 and t - last.get(process, -(10**6)) >= 12:
                expected[t, env] = 1
                last[process] = t
    np.testing.assert_array_equal(answers, expected)
    assert 0 < answers.mean() < 0.5 and not suspicion.any()


def test_an_environment_that_shows_no_analysts_is_refused() -> None:
    with pytest.raises(UsageError, match="analyst_wait"):
        fit_inspection(Vocabulary(numbers={"ticket_open": 3}), 4)
    assert fit_inspection(Vocabulary(numbers={"ticket_open": 3, "analyst_wait": 5}), 4).analyst_wait == 5
