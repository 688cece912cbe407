"""Replay in a closed loop, against a plain loop over the same rows."""

from dataclasses import fields, replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from envs.contract import check_contract
from envs.tables import SPEC, table, tree_table
from hypothesis import given
from hypothesis import strategies as st

from phalanx.envs.recorded import lanes, record
from phalanx.envs.replay import ReplayConfig, ReplayEnv
from phalanx.envs.response import ResponseConfig
from phalanx.errors import UsageError
from phalanx.types import Score

RESPONSE = ResponseConfig(quarantine_ttl_s=12.0, analysts=2, service_s=5.0, max_wait_s=6.0)
CONFIG = ReplayConfig(response=RESPONSE, episode_events=9, n_entities=8, window=4)
N_ROWS = 60


def test_contract():
    check_contract(ReplayEnv(record(tree_table(1, 40)), SPEC, CONFIG), n_steps=24)


def test_contract_where_processes_are_evicted():
    env = ReplayEnv(record(tree_table(2, 40)), SPEC, replace(CONFIG, n_entities=2))
    check_contract(env, n_steps=24, n_envs=3)


@eqx.filter_jit
def _lane(env, start, first, stop, verdicts):
    state, seen = env.reset_lane(start, first, stop)

    def body(state, verdict):
        row, scored = env.row(state), env.scored(state)
        state, step = env.step(state, verdict, jax.random.key(0))
        return state, (row, scored, step)

    _, (rows, scored, steps) = jax.lax.scan(body, state, verdicts)
    return seen, rows, scored, steps


def _run(env, verdicts, start=0, first=0, stop=None):
    stop = env.events.n_rows if stop is None else stop
    start, first, stop = (jnp.asarray(x, jnp.int32) for x in (start, first, stop))
    return _lane(env, start, first, stop, jnp.asarray(verdicts, jnp.int32))


class _Loop:
    """The rules of the module's docstring, row by row in plain Python."""

    def __init__(self, encoded, start, first, stop):
        self.e, self.start, self.first, self.stop = encoded, start, first, stop
        self.above = dict(zip(encoded.subject.tolist(), encoded.parent.tolist(), strict=True))
        self.until, self.tickets, self.works_for, self.known = {}, {}, {}, set()
        self.free = [0.0] * RESPONSE.analysts
        self.attempted, self.contained = {}, set()
        self.total = dict.fromkeys((field.name for field in fields(Score)), 0.0)
        self.rows = []

    def line(self, subject, among=None):
        while subject >= 0 and (among is None or subject in among):
            yield subject
            subject = self.above[subject]

    def vanished(self, row):
        now = self.e.time_s[row] - self.e.time_s[self.start]
        quiet = any(self.until.get(s, -1) > now for s in self.line(int(self.e.subject[row])))
        return quiet or (self.e.label[row] == 1 and int(self.e.campaign[row]) in self.contained)

    def decide(self, row, verdict):
        e, total = self.e, self.total
        now, subject, label = (
            float(e.time_s[row] - e.time_s[self.start]),
            int(e.subject[row]),
            int(e.label[row]),
        )
        scored = row >= self.first
        self.known.add(subject)
        bad = [r for r in range(row + 1) if e.subject[r] == subject and e.label[r] == 1]
        self.works_for[subject] = int(e.campaign[bad[-1]]) if bad else None
        if scored:
            total["events"] += 1
            total["malicious"] += label == 1
            total["furthest"] = max(total["furthest"], (label == 1) * (int(e.stage[row]) + 1))
            total["benign"] += label == 0
            total["damage"] += label == 1 and verdict < 2
            total["benign_lost"] += label == 0 and verdict >= 2
            total["false_blocks"] += label == 0 and verdict >= 2
            total["restrictions"] += verdict >= 2
            if label == 1 and int(e.campaign[row]) not in self.attempted:
                self.attempted[int(e.campaign[row])] = now
                total["campaigns"] += 1
        self.close_tickets(now, scored)
        if verdict == 1:
            self.open_ticket(subject, now, scored)
        if verdict == 3:
            self.until[subject] = max(self.until.get(subject, -1.0), now + RESPONSE.quarantine_ttl_s)
            self.contain(self.works_for[subject], now, scored)

    def close_tickets(self, now, scored):
        due = [s for s, done in self.tickets.items() if done <= now]
        roots = [s for s in due if self.works_for[s] is not None]
        for subject in self.known:
            if any(s in roots for s in self.line(subject, self.known)):
                self.until[subject] = np.inf
                self.contain(self.works_for[subject], now, scored)
        for subject in due:
            del self.tickets[subject]

    def open_ticket(self, subject, now, scored):
        analyst = int(np.argmin(self.free))
        begin = max(now, self.free[analyst])
        if subject not in self.tickets and begin - now <= RESPONSE.max_wait_s:
            self.tickets[subject] = self.free[analyst] = begin + RESPONSE.service_s
            self.total["alerts"] += scored

    def contain(self, campaign, now, scored):
        if campaign is None or campaign in self.contained:
            return
        self.contained.add(campaign)
        if scored and campaign in self.attempted:
            self.total["contained"] += 1
            self.total["contain_s"] += now - self.attempted[campaign]

    def run(self, verdicts):
        row, answers = self.start, iter(verdicts)
        while row < self.stop:
            self.rows.append(row)
            self.decide(row, int(next(answers)))
            row += 1
            while row < self.stop and self.vanished(row):
                if row >= self.first:
                    self.total["benign"] += self.e.label[row] == 0
                    self.total["benign_lost"] += self.e.label[row] == 0
                row += 1
        self.total["duration_s"] = float(self.e.time_s[self.stop - 1] - self.e.time_s[self.first])
        return self


@given(st.integers(0, 100_000), st.sampled_from([0, 5]))
def test_score_and_rows_match_a_plain_loop(seed, first):
    rng = np.random.default_rng(seed)
    encoded = tree_table(seed, N_ROWS, share=rng.choice([0.05, 0.3]))
    verdicts = rng.choice(4, N_ROWS, p=rng.dirichlet([1, 1, 0.5, 0.3]))
    env = ReplayEnv(record(encoded), SPEC, CONFIG)
    _, rows, _, steps = _run(env, verdicts, 0, first, N_ROWS)
    loop = _Loop(encoded, 0, first, N_ROWS).run(verdicts)
    decided = len(loop.rows)
    assert rows[:decided].tolist() == loop.rows
    assert int(np.argmax(np.asarray(steps.truncated))) == decided - 1
    del loop.total["loss"]  # checked below, from its parts
    for name, expected in loop.total.items():
        assert float(getattr(steps.score, name)[-1]) == pytest.approx(float(expected)), name
    costs = steps.score.damage[-1] + RESPONSE.benign_cost * steps.score.benign_lost[-1]
    alerted = (verdicts[:decided] == 1) & (np.asarray(loop.rows) >= first)
    tickets = loop.total["alerts"]
    costs = float(costs) + RESPONSE.ticket_cost * tickets + RESPONSE.alert_cost * (alerted.sum() - tickets)
    assert float(steps.reward.sum()) == pytest.approx(-costs, rel=1e-4, abs=1e-4)
    assert float(steps.score.loss[-1]) == pytest.approx(costs, rel=1e-4, abs=1e-4)


def test_the_window_changes_nothing_but_speed():
    encoded, verdicts = tree_table(3, N_ROWS), np.random.default_rng(0).integers(0, 4, N_ROWS)
    left, right = (
        _run(ReplayEnv(record(encoded), SPEC, replace(CONFIG, window=w)), verdicts) for w in (1, 64)
    )
    for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True):
        assert np.array_equal(np.asarray(a), np.asarray(b))


def test_allow_loses_no_benign_work_and_shows_every_row():
    encoded = tree_table(4, N_ROWS)
    env = ReplayEnv(record(encoded), SPEC, CONFIG)
    _, rows, _, steps = _run(env, np.zeros(N_ROWS + 6))
    assert rows.tolist() == list(range(N_ROWS + 6))
    score = jax.tree.map(lambda x: float(x[-1]), steps.score)
    assert score.benign_lost == score.alerts == score.restrictions == 0
    assert score.damage == score.malicious == (encoded.label == 1).sum()


def test_labels_do_not_show_in_the_observations():
    encoded = tree_table(5, N_ROWS)
    shuffled = np.random.default_rng(1).permutation(encoded.label)
    other = replace(encoded, label=shuffled, campaign=np.where(shuffled == 1, 0, -1).astype(np.int32))
    assert (other.label != encoded.label).any()
    seen = [_run(ReplayEnv(record(e), SPEC, CONFIG), np.zeros(N_ROWS)) for e in (encoded, other)]
    for a, b in zip(
        jax.tree.leaves((seen[0][0], seen[0][3].observation)),
        jax.tree.leaves((seen[1][0], seen[1][3].observation)),
        strict=True,
    ):
        assert np.array_equal(np.asarray(a), np.asarray(b))


def _campaign_of_two():
    """Processes 0 and 1 work for one campaign, 2 is benign and a child of 1."""
    subject = np.array([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2])
    label = (subject < 2).astype(int)
    return table(
        subject=subject,
        label=label,
        parent=np.where(subject == 2, 1, -1),
        campaign=np.where(label == 1, 0, -1),
        time_s=np.arange(12) * 10.0,
    )


def test_quarantine_of_one_malicious_process_removes_the_campaign_for_good():
    env = ReplayEnv(record(_campaign_of_two()), SPEC, CONFIG)
    _, rows, _, steps = _run(env, [3] + [0] * 11)
    assert rows[:5].tolist() == [0, 2, 5, 8, 11]
    assert bool(steps.truncated[4]) and float(steps.score.damage[-1]) == 0
    assert float(steps.score.contained[-1]) == 1 and float(steps.score.contain_s[-1]) == 0


def test_quarantine_of_a_benign_process_contains_nothing_and_ends():
    env = ReplayEnv(record(_campaign_of_two()), SPEC, CONFIG)
    _, rows, _, steps = _run(env, [0, 0, 3] + [0] * 9)  # process 2 at 20 s, silent until 32 s
    assert rows[:12].tolist() == list(range(12))
    assert float(steps.score.contained[-1]) == 0 and float(steps.score.benign_lost[-1]) == 1


def test_quarantine_silences_descendants_never_seen():
    encoded = table(
        subject=np.array([0, 1, 0, 1, 3, 1]),
        label=np.zeros(6),
        parent=np.array([-1, 2, -1, 2, -1, 2]),
        time_s=np.array([0.0, 3.0, 4.0, 5.0, 6.0, 20.0]),
    )
    chain = replace(encoded, parent=np.array([-1, 0, -1, 0, -1, 0], np.int32))
    env = ReplayEnv(record(chain), SPEC, CONFIG)
    _, rows, _, steps = _run(env, [3, 0, 0])
    assert rows.tolist() == [0, 4, 5]
    assert float(steps.score.benign_lost[-1]) == 4  # the denied event and rows 1, 2, 3


def test_an_analyst_contains_after_the_service_time():
    env = ReplayEnv(record(_campaign_of_two()), SPEC, CONFIG)
    _, rows, _, steps = _run(env, [1] + [0] * 11)  # ticket at 0 s, closed at the event of 10 s
    assert rows[:6].tolist() == [0, 1, 2, 5, 8, 11]
    assert float(steps.score.damage[-1]) == 2 and float(steps.score.contain_s[-1]) == 10


@pytest.mark.parametrize("warmup", [0, 6])
def test_lanes_score_each_row_exactly_once(warmup):
    encoded = tree_table(7, 34)
    env, cut = ReplayEnv(record(encoded), SPEC, CONFIG), lanes(40, 3, warmup)
    seen, malicious = [], 0.0
    for start, first, stop in zip(cut.start, cut.first, cut.stop, strict=True):
        _, rows, scored, steps = _run(env, np.zeros(24), start, first, stop)
        seen += np.asarray(rows)[np.asarray(scored)].tolist()
        malicious += float(steps.score.malicious[-1])
    assert seen == list(range(40))
    assert malicious == (encoded.label == 1).sum()


def test_an_evicted_process_comes_back_without_ticket_and_answers():
    encoded = table(subject=np.array([0, 1, 2, 0, 0]), label=np.zeros(5))
    env = ReplayEnv(record(encoded), SPEC, replace(CONFIG, n_entities=2))
    _, _, _, steps = _run(env, [1, 0, 0, 1, 1])
    assert steps.score.alerts.tolist() == [1, 1, 1, 2, 2]
    answers = np.asarray(steps.observation.numeric)[:, 3]
    assert answers[2] == 0 and answers[3] > 0
    assert steps.observation.source.tolist()[:3] == [-1, -1, -1]


def test_a_fixed_start_begins_every_episode_there():
    env = ReplayEnv(record(tree_table(1, 20)), SPEC, replace(CONFIG, start=5))
    shown = {float(env.reset(jax.random.key(seed))[1].numeric[0]) for seed in range(3)}
    assert shown == {5.0}


@pytest.mark.parametrize("wrong", [{"start": 99}, {"window": 0}, {"n_entities": 0}])
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(UsageError, match="expected"):
        ReplayEnv(record(tree_table(1, 20)), SPEC, replace(CONFIG, **wrong))
