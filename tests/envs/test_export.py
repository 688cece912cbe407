"""Exported tables: what they hold is what was simulated and observed, on any clock, in any format, at any length."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.cli import main
from phalanx.data.events import EventTable
from phalanx.envs import export
from phalanx.envs.catalogue import BENIGN_KIND_MIX, KINDS, PROGRAMS, STAGES
from phalanx.envs.export import (
    LATE_S,
    MOST_CAMPAIGNS,
    Row,
    operations_of,
    rebase,
    row_of,
    simulate_table,
    table_of,
    write_table,
)
from phalanx.envs.scenarios import SCENARIOS, Scenario
from phalanx.envs.simulator import Simulator, SimulatorConfig
from phalanx.errors import UsageError
from phalanx.types import Verdict

EPOCH_NS = 1_704_067_200_000_000_000
SMALL = {"hosts": 2, "hours": 6.0, "campaigns": 3, "seed": 1}
STEPS = 320


@cache
def small() -> pl.DataFrame:
    return simulate_table(**SMALL).frame


@eqx.filter_jit
def roll(env: Simulator, state: Any, first: int, verdicts: jax.Array) -> tuple[Any, Any]:
    """The state after some answers; the states and observations on the way."""

    def body(state: Any, step: tuple[jax.Array, jax.Array]) -> tuple[Any, Any]:
        index, verdict = step
        after, time_step = env.step(state, verdict, jax.random.fold_in(jax.random.key(5), index))
        return after, (state, time_step.observation)

    return jax.lax.scan(body, state, (first + jnp.arange(len(verdicts)), verdicts))


def host(tree: Any) -> Any:
    return jax.tree.map(lambda x: x if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else np.asarray(x), tree)


def test_benign_operations_are_near_those_of_a_real_host_and_the_malicious_share_is_small() -> None:
    benign = small().filter(pl.col("label") == 0)
    kinds, counts = benign["kind"].to_numpy(), benign["count"].to_numpy()
    share = np.array([counts[kinds == kind].sum() for kind in KINDS]) / counts.sum()
    anchor = np.array([BENIGN_KIND_MIX.get(kind, 0.0) for kind in KINDS])
    assert np.abs(share - anchor / anchor.sum()).sum() / 2 < 0.15
    assert 0 < small()["label"].mean() < 0.1  # type: ignore[operator]
    rate_hz = small().height / (2 * 6 * 3600)
    assert 0.5 < rate_hz / SCENARIOS["office"].config.host_rate_hz < 2.0
    assert not small().filter(pl.col("label") == 1)["bait"].any() and benign["bait"].any()


@cache
def world() -> tuple[Simulator, Any, Any]:
    """A small world in which all happens early, and its states and observations when nothing is denied."""
    attack = replace(SimulatorConfig().attack, onset_share=0.05)
    env = Simulator(SimulatorConfig(n_hosts=2, drift=1.0, rollout=1.0, attack=attack))
    start, _ = env.reset(jax.random.key(3))
    return env, start, roll(env, start, 0, jnp.zeros(STEPS, jnp.int32))[1]


def test_an_exported_table_encodes_to_what_was_observed() -> None:
    env, _, (states, observations) = world()
    rows = host(jax.vmap(row_of)(states))
    assert (rows.campaign >= 0).any() and (rows.parent_command >= 0).any()
    encoded = env.encoder.encode(table_of(rows, env.tables))
    np.testing.assert_array_equal(encoded.category[1:], observations.category[:-1])
    numeric = observations.numeric[:-1, : encoded.numeric.shape[1]]
    np.testing.assert_allclose(encoded.numeric[1:], numeric, atol=2e-3)


def test_truth_names_campaign_stage_technique_and_cause() -> None:
    attack, benign = (small().filter(pl.col("label") == label) for label in (1, 0))
    assert set(attack["campaign"]) == {"campaign-0", "campaign-1", "campaign-2"}
    first = attack.group_by("campaign").agg(pl.col("time_ns").min())["time_ns"]
    start = small()["time_ns"].min()
    assert (first.to_numpy() - start < 3.1 * 3600e9).all()
    for stage, technique, cause in attack.select("stage", "technique", "cause").unique().iter_rows():
        known = {f"{t.attack} {t.about}" for t in STAGES[stage].techniques if not t.held_out}
        assert technique in known | {"T1071 beacon of the command channel"}
        assert technique.endswith(f" {cause}")
    for name in ("campaign", "stage", "technique"):
        assert (benign[name] == "").all()
    jobs = {program.job or name for name, program in PROGRAMS.items() if not program.held_out}
    assert set(benign["cause"]) <= jobs and {"browser", "scheduled jobs"} <= set(benign["cause"])


@cache
def start_ns() -> int:
    """When the small table starts: the time of day of the world that its seed makes."""
    env = Simulator(SimulatorConfig(n_hosts=2, episode_events=round(6 * 3600 * 2 * 0.1)))
    state, _ = env.reset(jax.random.fold_in(jax.random.key(1), 0))
    first_ns = small()["time_ns"][0] - EPOCH_NS - int(state.world.start_s) * 10**9
    assert first_ns / 1e9 == pytest.approx(float(state.event.time_s), abs=1e-6)
    return EPOCH_NS + int(state.world.start_s) * 10**9


def test_times_count_from_the_time_of_day_of_the_world() -> None:
    assert 0 <= start_ns() - EPOCH_NS < 86_400e9
    assert 5.8 < (small()["time_ns"][-1] - start_ns()) / 3600e9 <= 6.0


# Clocks


def times_of(tree: Any) -> dict[str, np.ndarray]:
    """All fields of a state that hold a time: floats whose names end in _s, durations aside."""
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path)
        durations = (".return_s", ".contain_s")
        if name.endswith("_s") and not name.endswith(durations) and jnp.issubdtype(leaf.dtype, jnp.floating):
            found[name] = np.asarray(leaf)
    return found


def test_a_rebased_state_has_all_its_times_on_the_new_clock() -> None:
    state = eqx.tree_at(lambda s: s.world.rollout_s, world()[1], jnp.float32(jnp.inf))
    before, after = times_of(state), times_of(rebase(state, jnp.int32(100_000)))
    assert {".world.rolling.last_s", ".world.drift_s", ".campaigns.next_s", ".event.time_s"} <= set(before)
    for name, times in before.items():
        np.testing.assert_allclose(after[name], times - 100_000.0, err_msg=name)
    assert np.isposinf(after[".world.rollout_s"])
    day = int(rebase(state, jnp.int32(100_000)).world.start_s)
    assert day == (int(state.world.start_s) + 100_000) % 86_400


def test_a_rebased_run_equals_the_plain_one() -> None:
    env, start, _ = world()
    drawn = np.random.default_rng(0).choice(4, 2 * STEPS, p=[0.9, 0.05, 0.03, 0.02]).astype(np.int32)
    drawn[STEPS - 8 : STEPS] = Verdict.ALERT  # tickets are open when the clock changes
    verdicts = jnp.asarray(drawn)
    half, _ = roll(env, start, 0, verdicts[:STEPS])
    assert np.isfinite(half.response.silent_until_s).any() and np.isfinite(half.response.ticket_done_s).any()
    shift = int(half.event.time_s)
    assert shift > 100
    plain, (path, _) = roll(env, half, STEPS, verdicts[STEPS:])
    moved, (other, _) = roll(env, rebase(half, jnp.int32(shift)), STEPS, verdicts[STEPS:])
    for name in ("entity", "campaign", "stage", "template", "path", "port", "child", "host"):
        np.testing.assert_array_equal(getattr(path.event, name), getattr(other.event, name), err_msg=name)
    for name, times in times_of(plain).items():
        np.testing.assert_allclose(times_of(moved)[name] + shift, times, atol=0.05, err_msg=name)
    np.testing.assert_allclose(moved.score.loss, plain.score.loss, rtol=1e-3)


def test_late_hours_have_times_as_fine_as_early_ones_and_no_campaigns_is_benign_work_alone() -> None:
    frame = simulate_table(hosts=1, hours=100.0, campaigns=0, scenario="single-host").frame
    assert frame["label"].max() == 0
    late_s = frame["time_ns"].to_numpy()[-1000:] / 1e9 % 1.0
    # 32-bit times would be multiples of 1/32 s by then; the clocks of a part are finer than 1/256 s
    assert (np.abs(late_s * 64 - np.rint(late_s * 64)) > 0.01).mean() > 0.5
    gaps_s = np.diff(frame["time_ns"].to_numpy()) / 1e9
    assert (gaps_s >= 0).all() and gaps_s.max() < 120.0


# Sensor faults


def test_late_events_carry_the_time_at_which_they_happened() -> None:
    env, _, (states, _) = world()
    rows = host(jax.vmap(row_of)(states))
    late = np.arange(STEPS) % 3 == 0
    plain, faulty = (
        table_of(eqx.tree_at(lambda r: r.late, rows, flags), env.tables) for flags in (late & False, late)
    )
    np.testing.assert_array_equal(plain.time_ns - faulty.time_ns, np.where(late, LATE_S * 1e9, 0))


def test_duplicates_are_equal_rows_even_of_late_events(monkeypatch: pytest.MonkeyPatch) -> None:
    world = replace(SCENARIOS["office"].config, duplicated=1.0, late=0.5)
    monkeypatch.setitem(SCENARIOS, "faulty", Scenario(world, "every event twice"))
    frame = simulate_table(hosts=2, hours=1.0, campaigns=1, scenario="faulty").frame
    rows = frame.rows()
    again = [a == b for a, b in zip(rows, rows[1:], strict=False)]
    assert 0.45 < np.mean(again) <= 0.5
    assert (np.diff(frame["time_ns"].to_numpy()) < 0).any()
    unfolded = simulate_table(hosts=2, hours=1.0, campaigns=1, scenario="faulty", operations=True).frame
    each = unfolded.group_by(unfolded.columns).agg(n=pl.len())["n"].to_numpy()
    assert ((each % 2) == 0).mean() > 0.9  # the operations of a duplicate are those of its record, again


# Operations


def rows_with(time_s: list[float], since_s: list[float], size: list[int], count: list[int]) -> Row:
    zero = np.zeros(len(count), np.int32)
    plain = Row(**dict.fromkeys(Row.__dataclass_fields__, zero))
    given = (np.array(time_s), np.array(since_s), np.array(size), np.array(count), np.arange(len(count)))
    return eqx.tree_at(lambda r: (r.time_s, r.since_s, r.size, r.count, r.serial), plain, given)


def test_operations_are_spread_since_the_record_before() -> None:
    rows = operations_of(rows_with([10.0, 12.0], [6.0, 12.0], [10, 7], [4, 2]))
    np.testing.assert_array_equal(rows.serial, [0, 0, 0, 0, 1, 1])
    np.testing.assert_array_equal(rows.time_s, [7.0, 8.0, 9.0, 10.0, 12.0, 12.0])
    np.testing.assert_array_equal(rows.size, [2, 3, 2, 3, 3, 4])
    np.testing.assert_array_equal(rows.count, np.ones(6))


records = st.lists(
    st.tuples(
        st.floats(0.0, 1e5), st.floats(0.0, 1e4), st.integers(0, 10**8), st.integers(1, 400)
    ),
    max_size=6,
)  # fmt: skip


@settings(max_examples=50)
@given(records)
def test_operations_keep_number_bytes_and_time(drawn: list[tuple[float, float, int, int]]) -> None:
    time_s, gap_s, size, count = (list(column) for column in zip(*drawn, strict=True)) if drawn else ([],) * 4
    since_s = [t - g for t, g in zip(time_s, gap_s, strict=True)]
    rows = operations_of(rows_with(time_s, since_s, size, count))
    assert len(rows.count) == sum(count)
    for record in range(len(count)):
        mine = rows.serial == record
        assert rows.size[mine].sum() == size[record] and np.ptp(rows.size[mine]) <= 1
        assert rows.time_s[mine][-1] == time_s[record]
        assert (rows.time_s[mine] >= since_s[record]).all() and (np.diff(rows.time_s[mine]) >= 0).all()


def test_a_table_of_operations_is_that_of_records_unfolded(tmp_path: Path) -> None:
    written = write_table(tmp_path / "a.parquet", **SMALL, operations=True)
    frame = pl.read_parquet(tmp_path / "a.parquet")
    assert written.events == frame.height == small()["count"].sum()
    assert (frame["count"] == 1).all() and frame["size"].sum() == small()["size"].sum()
    keys = ["subject", "kind", "path", "label", "stage", "technique", "bait"]
    unfolded = small().group_by(keys).agg(n=pl.col("count").sum()).sort(keys)
    assert unfolded.equals(frame.group_by(keys).agg(n=pl.len().cast(pl.Int64)).sort(keys))
    # a process's operations come after its record before: its rows are in time order
    for subject in frame["subject"].unique()[:20]:
        assert frame.filter(pl.col("subject") == subject)["time_ns"].is_sorted()
    # one that ran from the start has worked on its first record since then
    for subject in ("host-0/0", "host-0/1", "host-1/16"):
        record = small().filter(pl.col("subject") == subject).row(0, named=True)
        first_ns = frame.filter(pl.col("subject") == subject)["time_ns"][0]
        assert first_ns - start_ns() == pytest.approx(
            (record["time_ns"] - start_ns()) / record["count"], abs=2
        )


# Files


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".csv", ".ndjson", ".csv.gz"])
def test_a_streamed_file_holds_the_same_table(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export, "_GROUP", 1)
    path = tmp_path / f"events{suffix}"
    written = write_table(path, **SMALL)
    assert EventTable.read(path).frame.equals(small())
    assert (written.events, written.malicious) == (small().height, small()["label"].sum())
    assert written.campaigns == 3 and list(tmp_path.iterdir()) == [path]


def test_parts_are_joined_to_row_groups_and_no_row_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_GROUP", 5)
    frames = [pl.DataFrame({"n": range(at, at + 2)}) for at in range(0, 14, 2)]
    grouped = list(export._grouped(frames))
    assert [frame.height for frame in grouped] == [6, 6, 2]
    assert pl.concat(grouped)["n"].to_list() == list(range(14))


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"hosts": 0}, "hosts=0"),
        ({"hours": float("nan")}, "hours=nan"),
        ({"campaigns": MOST_CAMPAIGNS + 1}, f"from 0 to {MOST_CAMPAIGNS}"),
        ({"scenario": "offic"}, "unknown scenario 'offic'; choose one of: office"),
    ],
)
def test_wrong_numbers_and_names_are_told(tmp_path: Path, wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        write_table(tmp_path / "a.csv", **wrong)
    assert not list(tmp_path.iterdir())


def test_the_command_writes_scenarios_and_operations(tmp_path: Path, capsys: Any) -> None:
    out = tmp_path / "a.csv"
    flags = [
        "--hosts",
        "1",
        "--hours",
        "0.1",
        "--campaigns",
        "0",
        "--scenario",
        "single-host",
        "--operations",
    ]
    assert main(["simulate", "--out", str(out), *flags]) == 0
    assert "single-host" in capsys.readouterr().out
    assert EventTable.read(out).frame["count"].unique().to_list() == [1]
    assert main(["simulate", "--out", str(out), "--scenario", "offic"]) == 2
    assert "unknown scenario 'offic'" in capsys.readouterr().err
