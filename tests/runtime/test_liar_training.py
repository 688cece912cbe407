"""A liar that learns finds what pays, and is bounded by the liar that knows the truth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from phalanx.committee.faults import Threat
from phalanx.errors import DataError
from phalanx.runtime.liar_training import train_liar
from phalanx.runtime.lies import lied
from phalanx.runtime.watch import Watched


def watched_of(seed: int, *, told_by_all: bool = True) -> Watched:
    """Four members who see malicious events as more suspicious, each with noise of its own."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, 1200)
    truth = np.where(label == 1, 1.5, -1.5)[:, None, None] if told_by_all else 0.0
    logits = rng.normal(0, 1.5, (1200, 4, 4))
    logits[..., 1:] += truth
    nothing = np.zeros((1200, 0))
    return Watched(
        label=label,
        log_probs=np.asarray(jax.nn.log_softmax(jnp.asarray(logits, jnp.float32))),
        category=nothing.astype(int),
        numeric=nothing,
        lane=np.arange(1200) // 12,
        time=np.arange(1200) % 12,
        entity=np.zeros(1200, int),
    )


def pay(verdict: np.ndarray, label: np.ndarray) -> float:
    gain = np.where(label == 1, 3 - verdict, verdict) / 3
    return float(np.mean([gain[label == one].mean() for one in (0, 1)]))


@pytest.mark.parametrize("threshold", [0.6, None])
def test_a_trained_liar_does_more_harm_on_new_events_than_an_untrained_or_an_honest_one(
    threshold: float | None,
) -> None:
    liar, report = train_liar(watched_of(0), threshold, 1, 1, jax.random.key(0))
    assert report.after > max(report.honest, report.before) + 0.02
    test, threat = watched_of(1), Threat(("learned",), 1, 12)
    found = lied(test, threshold, 1, threat, jax.random.key(1), learned=liar)
    got, honest = pay(found.verdict, test.label), pay(found.honest, test.label)
    assert got == pytest.approx(report.after, abs=0.05)
    assert got > honest + 0.02
    worst = Threat(("worst-case",), 1, 12)
    knowing = lied(test, threshold, 1, worst, jax.random.key(1), label=test.label)
    assert got < pay(knowing.verdict, test.label)


def test_what_is_reported_is_what_the_liar_then_does() -> None:
    own = watched_of(2)
    liar, report = train_liar(own, 0.6, 1, 1, jax.random.key(0))
    each = [
        lied(
            own._replace(lane=np.full(1200, m)),
            0.6,
            1,
            Threat(("learned",), 1, 12),
            jax.random.key(0),
            learned=liar,
        )
        for m in range(4)
    ]
    # in training every event has one of the four liars, here all of them in turn
    assert np.mean([pay(one.verdict, own.label) for one in each]) == pytest.approx(report.after, abs=0.02)
    assert pay(each[0].honest, own.label) == pytest.approx(report.honest, abs=1e-5)


def test_where_opinions_tell_nothing_there_is_little_to_learn() -> None:
    liar, _ = train_liar(watched_of(3, told_by_all=False), 0.6, 1, 1, jax.random.key(0))
    test = watched_of(4, told_by_all=False)
    found = lied(test, 0.6, 1, Threat(("learned",), 1, 12), jax.random.key(0), learned=liar)
    assert pay(found.verdict, test.label) == pytest.approx(0.5, abs=0.05)


def test_events_of_one_kind_are_refused() -> None:
    own = watched_of(0)
    with pytest.raises(DataError, match="1200 benign and 0 malicious"):
        train_liar(own._replace(label=np.zeros(1200, int)), 0.6, 1, 1, jax.random.key(0))
