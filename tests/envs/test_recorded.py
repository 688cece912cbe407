"""Rows, their look-ahead numbers and evaluation lanes, against plain loops."""

import jax
import numpy as np
import pytest
from envs.tables import table, tree_table
from hypothesis import given
from hypothesis import strategies as st

from phalanx.envs.recorded import lanes, preorder, record
from phalanx.errors import DataError, UsageError


@given(st.integers(0, 10_000))
def test_look_ahead_numbers_match_a_plain_loop(seed):
    encoded, ttl_s = tree_table(seed, 30), 7.0
    events = jax.tree.map(np.asarray, record(encoded, quarantine_ttl_s=ttl_s))
    label, time_s, subject = encoded.label, encoded.time_s, encoded.subject
    campaign = events.campaign
    for row in range(len(label)):
        own = subject == subject[row]
        after = np.arange(len(label)) > row
        near = after & own & (label == 0) & (time_s < time_s[row] + ttl_s)
        assert events.silence_loss[row] == near.sum()
        bad = [r for r in range(row + 1) if own[r] and label[r] == 1]
        works_for = int(campaign[bad[-1]]) if bad else -1
        assert int(events.process_campaign[row]) == works_for
        later = int((after & (campaign == works_for)).sum()) if bad else 0
        prevented = sum((10 / 11) ** k for k in range(1, later + 1))
        assert float(events.remaining_damage[row]) == pytest.approx(prevented, rel=1e-5)
        assert int(events.benign_before[row]) == (label[:row] == 0).sum()
        assert float(events.damage[row]) == (label[row] == 1)


def test_campaigns_keep_their_rows_and_a_process_without_one_is_its_own():
    encoded = table(
        subject=np.array([0, 1, 2, 0, 2, 1]),
        label=np.array([1, 1, 1, 1, 0, 1]),
        campaign=np.array([4, 4, -1, 9, -1, -1]),
    )
    campaign = np.asarray(record(encoded).campaign)
    assert campaign[0] == campaign[1] and campaign[4] == -1
    assert len({int(campaign[row]) for row in (0, 2, 3, 5)}) == 4
    assert sorted(set(campaign.tolist()) - {-1}) == [0, 1, 2, 3]


@given(st.integers(2, 9), st.data())
def test_preorder_ranges_are_the_descendants(n_subjects, data):
    parent = np.array(
        data.draw(st.lists(st.integers(-1, n_subjects - 1), min_size=n_subjects, max_size=n_subjects))
    )
    order, end = preorder(np.arange(n_subjects), parent)
    assert sorted(order.tolist()) == list(range(n_subjects))
    for root in range(n_subjects):
        inside = {s for s in range(n_subjects) if order[root] <= order[s] < end[order[root]]}
        below = {s for s in range(n_subjects) if root in _ancestors(s, parent)}
        if not any(_in_circle(s, parent) for s in range(n_subjects)):
            assert inside == below
        else:
            assert root in inside and inside <= below


def _ancestors(subject, parent):
    """The subject and those above it, in a circle once each."""
    seen = [subject]
    while parent[seen[-1]] >= 0 and parent[seen[-1]] not in seen:
        seen.append(int(parent[seen[-1]]))
    return set(seen)


def _in_circle(subject, parent):
    at = parent[subject]
    for _ in parent:
        if at == subject:
            return parent[subject] != subject
        at = parent[at] if at >= 0 else -1
    return False


def test_chosen_rows_are_the_only_ones_seen():
    encoded = table(subject=np.array([0, 0, 1, 0, 1]), label=np.array([0, 1, 0, 0, 1]))
    events = record(encoded, np.array([0, 3, 4]))
    assert events.numeric[:, 0].tolist() == [0.0, 3.0, 4.0]
    assert events.silence_loss.tolist() == [1.0, 0.0, 0.0]
    assert events.n_campaigns == 1 and events.has_processes
    assert not record(encoded, np.array([0, 2])).has_processes


def test_wrong_rows_are_refused():
    encoded = table(subject=np.zeros(3), label=np.zeros(3), time_s=np.array([0.0, 5.0, 4.0]))
    with pytest.raises(DataError, match="backwards at chosen row 2"):
        record(encoded)
    with pytest.raises(DataError, match="0 rows"):
        record(encoded, np.array([], int))


@given(st.integers(1, 300), st.integers(1, 20), st.integers(0, 50))
def test_lanes_score_each_row_once(n_rows, n_lanes, warmup):
    n_lanes = min(n_lanes, n_rows)
    cut = lanes(n_rows, n_lanes, warmup)
    start, first, stop = (np.asarray(x) for x in (cut.start, cut.first, cut.stop))
    scored = np.concatenate([np.arange(a, b) for a, b in zip(first, stop, strict=True)])
    assert scored.tolist() == list(range(n_rows))
    assert (np.minimum(first, warmup) == first - start).all()
    assert np.ptp(stop - first) <= 1


@pytest.mark.parametrize(("n_lanes", "warmup"), [(0, 0), (6, 0), (2, -1)])
def test_impossible_lanes_are_refused(n_lanes, warmup):
    with pytest.raises(UsageError, match="expected"):
        lanes(5, n_lanes, warmup)
