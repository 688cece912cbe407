"""Training logs of several tools become one record: what is logged comes back, in the units of metrics.jsonl."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboardX import SummaryWriter

from phalanx.analysis.logs import TrainingLog, read_log
from phalanx.errors import DataError, UsageError


def write_jsonl(path: Path, rows: list[dict[str, Any]], end: str = "\n") -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + end)
    return path


def write_csv(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def values(log: TrainingLog, name: str) -> list[float]:
    return log.series[name].value.tolist()


def rllib_row(iteration: int, agents: dict[str, dict[str, float]], old: bool) -> dict[str, Any]:
    if old:
        learner = {name: {"learner_stats": stats, "num_agent_updates": 1} for name, stats in agents.items()}
        return {
            "training_iteration": iteration,
            "timesteps_total": 4000 * iteration,
            "episode_reward_mean": 10.0 * iteration,
            "done": False,
            "info": {"learner": learner},
        }
    everybody = {"__all_modules__": {"num_env_steps_trained": 1}}
    return {
        "training_iteration": iteration,
        "num_env_steps_sampled_lifetime": 4000 * iteration,
        "env_runners": {"episode_return_mean": 10.0 * iteration},
        "learners": everybody | agents,
    }


@pytest.mark.parametrize("old", [True, False])
def test_rllib_nests_by_agent(tmp_path: Path, old: bool) -> None:
    kl = "kl" if old else "mean_kl_loss"
    stats = [{"vf_loss": 8.0 / i, "vf_explained_var": 0.1 * i, "entropy": 0.6, kl: 0.01} for i in (1, 2, 3)]
    one = [rllib_row(i, {"default_policy": stats[i - 1]}, old) for i in (1, 2, 3)]
    write_jsonl(tmp_path / "result.json", one)
    log = read_log(tmp_path)
    assert (log.tool, log.iteration.tolist(), log.env_steps.tolist()) == (
        "rllib",
        [1, 2, 3],
        [4000, 8000, 12000],
    )
    assert (
        values(log, "loss/value") == pytest.approx([8, 4, 8 / 3])
        and values(log, "policy/approx_kl") == [0.01] * 3
    )
    assert values(log, "reward/episode") == [10, 20, 30] and not any(
        name.startswith("member/") for name in log.series
    )
    assert "vf_clip_param" in log.notes[0]
    two = [rllib_row(1, {"red": stats[0], "blue": stats[2]}, old)]
    log = read_log(write_jsonl(tmp_path / "two.json", two))
    assert values(log, "member/red/loss/value") == [8] and values(
        log, "member/blue/loss/value"
    ) == pytest.approx([8 / 3])
    assert values(log, "loss/value") == pytest.approx([(8 + 8 / 3) / 2])


def test_what_is_not_finite_stays_and_what_was_not_logged_is_absent(tmp_path: Path) -> None:
    rows = [
        {"iteration": 1, "env_steps": 10, "loss/value": 1.0, "eval/f1": None, "policy/rate_allow": 1.0},
        {"iteration": 2, "env_steps": 20, "loss/value": None},
        {"iteration": 3, "env_steps": 30, "loss/value": 3.0, "eval/f1": 0.5},
    ]
    log = read_log(write_jsonl(tmp_path / "metrics.jsonl", rows))
    assert log.tool == "phalanx" and len(log) == 3
    assert log.series["eval/f1"].row.tolist() == [0, 2] and math.isnan(log.series["eval/f1"].value[0])
    assert log.series["loss/value"].row.tolist() == [0, 1, 2] and math.isnan(
        log.series["loss/value"].value[1]
    )
    text = "time/total_timesteps,train/value_loss,train/entropy_loss,odd\n512,,,x\n1024,inf,-0.69,y\n1536,nan,-0.5,z\n"
    log = read_log(write_csv(tmp_path / "progress.csv", text))
    assert log.tool == "stable-baselines3" and log.unread == () and log.iteration.tolist() == [1, 2, 3]
    assert log.series["loss/value"].row.tolist() == [1, 2] and log.series["loss/value"].value[0] == math.inf
    assert values(log, "policy/entropy") == [0.69, 0.5]


def test_a_torn_last_line_is_left_out_and_any_other_is_an_error(tmp_path: Path) -> None:
    rows = [{"iteration": i, "loss/value": float(i)} for i in (1, 2, 3)]
    whole = write_jsonl(tmp_path / "whole.jsonl", rows)
    torn = tmp_path / "torn.jsonl"
    torn.write_text(whole.read_text()[:-9])
    assert values(read_log(torn), "loss/value") == [1, 2]
    torn.write_text(whole.read_text().replace('{"iteration": 2', '{"iteration" 2'))
    with pytest.raises(DataError, match="line 2 is no JSON object"):
        read_log(torn)
    table = write_csv(tmp_path / "a.csv", "iteration,loss/value\n1,1.0\n2")
    assert read_log(table).iteration.tolist() == [1]
    with pytest.raises(DataError, match="row 2 has 3 cells, the header 2"):
        read_log(write_csv(tmp_path / "b.csv", "iteration,loss/value\n1,1.0,2\n"))


def test_a_torn_number_is_not_taken_for_a_whole_one(tmp_path: Path) -> None:
    log = read_log(write_csv(tmp_path / "a.csv", "loss/value,env_steps\n0.5,1000\n0.4,2000\n0.3,30"))
    assert values(log, "loss/value") == [0.5, 0.4] and log.env_steps.tolist() == [1000, 2000]


@pytest.mark.parametrize(
    ("steps", "kept"),
    [([1, 2, 3, 1, 2], [3, 4]), ([1, 2, 3, 4, 3, 4, 5], [0, 1, 4, 5, 6]), ([1, 2, 2, 3], [0, 2, 3])],
)
def test_what_a_run_wrote_again_replaces_what_it_had_written(
    tmp_path: Path, steps: list[int], kept: list[int]
) -> None:
    """A counter that goes back: to its start, to a checkpoint, by none."""
    rows = [{"iteration": i, "loss/value": float(n)} for n, i in enumerate(steps)]
    log = read_log(write_jsonl(tmp_path / "a.jsonl", rows))
    assert log.iteration.tolist() == [steps[n] for n in kept] and values(log, "loss/value") == kept
    assert log.series["loss/value"].row.tolist() == list(range(len(kept)))
    assert f"{len(steps) - len(kept)} rows are left out" in log.notes[0]


def test_an_alias_that_is_silent_does_not_hide_the_one_that_speaks(tmp_path: Path) -> None:
    rows = [
        {"training_iteration": i, "timesteps_total": None, "num_env_steps_sampled_lifetime": 4000 * i,
         "episode_reward_mean": None, "env_runners": {"episode_return_mean": 2.0 * i}}
        for i in (1, 2)
    ]  # fmt: skip
    log = read_log(write_jsonl(tmp_path / "result.json", rows))
    assert log.env_steps.tolist() == [4000, 8000] and values(log, "reward/episode") == [2, 4]


def test_names_that_anybody_may_use_are_not_taken_for_phalanxs(tmp_path: Path) -> None:
    with SummaryWriter(str(tmp_path)) as writer:
        for step in (0, 2048, 4096):
            writer.add_scalar("loss/value", 1.0, step)
    log = read_log(tmp_path)
    assert (
        log.tool == "unknown"
        and log.iteration.tolist() == [1, 2, 3]
        and log.env_steps.tolist() == [0, 2048, 4096]
    )


@pytest.mark.parametrize(
    "text",
    [
        "loss/value,hist\n1.0," + "x" * 200_000 + "\n2.0,y\n",
        '{"loss/value": 1.0, "n": ' + "9" * 400 + "}\n" + '{"loss/value": 2.0}\n',
        '{"loss/value": 1.0, "note": "a\u2028b"}\n{"loss/value": 2.0}\n',
        '{"iteration": 1e30, "loss/value": 1.0}\n{"iteration": 1e31, "loss/value": 2.0}\n',
        "iteration, loss/value\n1, 1.0\n2, 2.0\n",
    ],
)
def test_odd_files_are_read_all_the_same(tmp_path: Path, text: str) -> None:
    assert values(read_log(write_csv(tmp_path / "odd.log", text)), "loss/value") == [1.0, 2.0]


def test_the_only_run_below_a_folder_is_meant(tmp_path: Path) -> None:
    (tmp_path / "PPO_0").mkdir()
    write_jsonl(tmp_path / "PPO_0" / "result.json", [rllib_row(1, {"p": {"vf_loss": 3.0}}, True)])
    with SummaryWriter(str(tmp_path / "PPO_0")) as writer:
        writer.add_scalar("losses/value_loss", 1.0, 1)
    assert read_log(tmp_path).tool == "rllib"


def test_a_map_names_what_is_not_known(tmp_path: Path) -> None:
    file = write_csv(tmp_path / "mine.csv", "step,vf,ent,junk\n10,0.5,1.0,7\n20,0.25,0.9,8\n")
    with pytest.raises(DataError, match=r"no known quantity among its 4 columns \(step, vf, ent, junk\)"):
        read_log(file)
    log = read_log(file, {"vf": "2*loss/value", "ent": "policy/entropy", "step": "env_steps"})
    assert (
        values(log, "loss/value") == [1.0, 0.5]
        and log.env_steps.tolist() == [10, 20]
        and log.unread == ("junk",)
    )
    for mapping, said in (
        ({"vfx": "loss/value"}, "no column 'vfx'"),
        ({"vf": "value"}, "unknown quantity 'value'"),
        ({"vf": "reward/epsode"}, "did you mean 'reward/episode'"),
        ({"vf": "x*loss/value"}, "'x' in"),
    ):
        with pytest.raises(UsageError, match=said):
            read_log(file, mapping)


def test_a_run_without_an_update_yet_is_said_to_be_one(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").touch()
    (tmp_path / "tensorboard").mkdir()
    (tmp_path / "tensorboard" / "events.out.tfevents.1").touch()
    with pytest.raises(DataError, match="no update has ended yet"):
        read_log(tmp_path)


def test_what_is_no_log_is_said_to_be_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        read_log(tmp_path / "nothing")
    with pytest.raises(DataError, match="no training log in it"):
        read_log(tmp_path)
    empty = tmp_path / "empty.csv"
    empty.write_text("")
    with pytest.raises(DataError, match="no row with a number"):
        read_log(empty)
    empty.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="cannot be read as text"):
        read_log(empty)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_jsonl(tmp_path / name / "metrics.jsonl", [{"loss/value": 1.0}])
    with pytest.raises(UsageError, match="holds 2 runs"):
        read_log(tmp_path)


PEERS = Path(__file__).parent / "peers"


@pytest.mark.parametrize("run", ["sb3-ppo", "sb3-a2c"])
def test_stable_baselines_three_formats_of_one_run_agree(run: str) -> None:
    """Stable-Baselines3 logged the same run as CSV, JSON lines and TensorBoard events."""
    table = read_log(PEERS / run / "progress.csv")
    with (PEERS / run / "progress.csv").open() as file:
        raw = list(csv.DictReader(file))
    assert values(table, "loss/value") == [
        float(row["train/value_loss"]) for row in raw if row["train/value_loss"]
    ]
    assert values(table, "policy/entropy") == [
        -float(row["train/entropy_loss"]) for row in raw if row["train/entropy_loss"]
    ]
    lines = read_log(PEERS / run / "progress.json")
    events = read_log(next((PEERS / run).glob("*tfevents*")))
    assert {log.tool for log in (table, lines, events)} == {"stable-baselines3"}
    assert set(table.series) == set(lines.series) == set(events.series)
    for name, series in table.series.items():
        np.testing.assert_array_equal(series.row, lines.series[name].row)
        np.testing.assert_allclose(series.value, lines.series[name].value, rtol=1e-6)
        np.testing.assert_allclose(series.value[-5:], events.series[name].value[-5:], rtol=1e-5)
    assert events.env_steps[-1] == table.env_steps[-1]


def test_a_log_with_the_tags_of_cleanrl() -> None:
    log = read_log(PEERS / "cleanrl")
    assert log.tool == "cleanrl" and len(log) == log.iteration[-1] == 40
    assert np.all(np.diff(log.env_steps) == 512) and log.unread == ("losses/old_approx_kl", "charts/SPS")
    assert values(log, "reward/episode")[-1] > 2 * values(log, "reward/episode")[0]
    assert (
        0
        < values(log, "policy/entropy")[-1]
        < values(log, "policy/entropy")[0]
        == pytest.approx(math.log(2), rel=0.03)
    )
