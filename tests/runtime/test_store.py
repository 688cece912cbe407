"""Run folders: what is written is read back, whatever interrupted the writing."""

import hashlib
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from phalanx.errors import RunError, UsageError
from phalanx.runtime.checkpoints import tree_from_bytes, tree_to_bytes
from phalanx.runtime.store import RunFolder, run_folders


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path / "run", {"members": 4})


def write_rows(folder: RunFolder, *iterations: int) -> None:
    with folder.metrics() as log:
        for iteration in iterations:
            log.write({"iteration": iteration, "loss/value": 0.5})


# Configuration


def test_config_is_kept_with_the_version_that_wrote_it(folder: RunFolder) -> None:
    raw = json.loads((folder.path / "config.json").read_text())
    assert raw["members"] == 4
    assert raw["phalanx_version"] == folder.version() == "0.1.0"
    assert folder.config() == {"members": 4}


def test_a_folder_in_use_is_refused(folder: RunFolder) -> None:
    with pytest.raises(UsageError, match=r"is not empty.*--out.*--resume"):
        RunFolder.create(folder.path, {"members": 7})
    assert folder.config() == {"members": 4}


def test_an_empty_folder_and_one_with_leftovers_of_a_kill_are_taken(tmp_path: Path) -> None:
    leftover = tmp_path / ".config.json.17.tmp"
    leftover.write_text("{")
    assert RunFolder.create(tmp_path, {"members": 4}).config() == {"members": 4}
    assert not leftover.exists()


def test_a_file_is_no_place_for_a_run(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    with pytest.raises(UsageError, match="is a file"):
        RunFolder.create(tmp_path / "run", {})


def test_resuming_keeps_what_is_there(folder: RunFolder) -> None:
    write_rows(folder, 1)
    again = RunFolder.create(folder.path, {"members": 4, "iterations": 9}, resume=True)
    assert again.config() == {"members": 4, "iterations": 9}
    assert [row["iteration"] for row in again.read_metrics()] == [1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "not a run: it has no config.json"),
        ("{", "not JSON"),
        ("", "not JSON"),
        ("[1]", "expected an object, found list"),
    ],
)
def test_what_is_no_run_is_named(tmp_path: Path, content: str | None, message: str) -> None:
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    for refused in (RunFolder.open, run_folders, lambda path: RunFolder.create(path, {}, resume=True)):
        with pytest.raises(RunError, match=message) as raised:
            refused(tmp_path)
        assert str(tmp_path) in str(raised.value)


def test_a_missing_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no such run"):
        RunFolder.open(tmp_path / "nowhere")


# Metrics


def test_numbers_that_are_not_finite_become_null(folder: RunFolder) -> None:
    with folder.metrics() as log:
        log.write(
            {"iteration": 1, "a": float("nan"), "b": jnp.float32(jnp.inf), "c": np.float32(0.5), "d": 3}
        )
    text = (folder.path / "metrics.jsonl").read_text()
    assert json.loads(text) == {"iteration": 1, "a": None, "b": None, "c": 0.5, "d": 3}


def test_a_row_needs_its_iteration(folder: RunFolder) -> None:
    with folder.metrics() as log, pytest.raises(UsageError, match="iteration"):
        log.write({"loss/value": 1.0})
    assert folder.read_metrics() == []


def test_a_torn_last_line_is_left_out_and_another_is_named(folder: RunFolder) -> None:
    write_rows(folder, 1, 2)
    path = folder.path / "metrics.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"iteration": 3, "loss')
    assert [row["iteration"] for row in folder.read_metrics()] == [1, 2]
    path.write_bytes(b'{"iteration": 0, "loss\n' + whole)
    with pytest.raises(RunError, match=r"metrics\.jsonl, line 1: expected an object"):
        folder.read_metrics()


def test_truncation_drops_later_rows_and_the_torn_line(folder: RunFolder) -> None:
    write_rows(folder, 1, 2, 3)
    path = folder.path / "metrics.jsonl"
    path.write_bytes(path.read_bytes() + b'{"iter')
    folder.truncate_metrics(2)
    assert path.read_bytes().endswith(b"\n")
    write_rows(folder, 3)
    assert [row["iteration"] for row in folder.read_metrics()] == [1, 2, 3]


def test_tensorboard_shows_what_the_table_shows(folder: RunFolder) -> None:
    event_pb2 = importlib.import_module("tensorboardX.proto.event_pb2")
    with folder.metrics() as log:
        log.write({"iteration": 1, "loss/value": 0.5, "a": float("nan")})
    (file,) = (folder.path / "tensorboard").iterdir()
    seen, content = [], file.read_bytes()
    while content:  # TFRecord: length (8 bytes), its checksum (4), payload, its checksum (4)
        length = int.from_bytes(content[:8], "little")
        event = event_pb2.Event.FromString(content[12 : 12 + length])
        seen += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
        content = content[16 + length :]
    assert seen == [(1, "loss/value", 0.5)]


def test_evaluation_and_encoder_are_kept(folder: RunFolder) -> None:
    assert folder.read_eval() is None
    with pytest.raises(RunError, match="encoder.json: missing"):
        folder.read_encoder()
    with pytest.raises(RunError, match=r"operating_point.json: missing.*--resume"):
        folder.read_operating_point()
    folder.write_operating_point({"threshold": 0.25})
    assert folder.read_operating_point() == {"threshold": 0.25}
    folder.write_eval({"f1": 0.5, "per_seed": [{"f1": float("nan")}]})
    folder.write_encoder('{"columns": ["kind"]}')
    assert folder.read_eval() == {"f1": 0.5, "per_seed": [{"f1": None}]}
    assert folder.read_encoder() == '{"columns": ["kind"]}'
    assert not [entry for entry in folder.path.rglob("*.tmp")]


# Seeds


def test_a_parent_stands_for_its_seeds_in_their_order(tmp_path: Path) -> None:
    parent = RunFolder.create(tmp_path / "runs", {"seeds": 11})
    for index in range(11):
        RunFolder.create(parent.seed_path(index), {"seed": 100 + index})
    assert [child.config()["seed"] for child in run_folders(parent.path)] == list(range(100, 111))
    assert run_folders(parent.seed_path(3)) == (RunFolder(parent.seed_path(3)),)


# Checkpoints

arrays = st.one_of(
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_side=4), elements=st.floats(width=32)),
    hnp.arrays(np.int32, hnp.array_shapes(min_dims=0, max_side=4)),
    hnp.arrays(np.bool_, hnp.array_shapes(min_dims=0, max_side=4)),
)
keys = st.integers(0, 2**32 - 1).map(lambda seed: jax.random.split(jax.random.key(seed), 3))
trees = st.recursive(
    arrays.map(jnp.asarray) | arrays | keys,
    lambda leaf: st.lists(leaf, max_size=3) | st.dictionaries(st.text(max_size=3), leaf, max_size=3),
    max_leaves=5,
)


def bits(leaf: object) -> tuple[str, tuple[int, ...], bytes]:
    """Type, shape and bytes: equal for equal NaNs, different for 0.0 and -0.0."""
    if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return str(leaf.dtype), leaf.shape, np.asarray(jax.random.key_data(leaf)).tobytes()
    array = np.asarray(leaf)
    return str(array.dtype), array.shape, array.tobytes()


def blank_like(leaf: jax.Array | np.ndarray) -> jax.Array | np.ndarray:
    """Another value of the same type and shape."""
    if isinstance(leaf, np.ndarray):
        return np.zeros_like(leaf)
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return jax.random.split(jax.random.key(77), leaf.shape)
    return jnp.zeros_like(leaf)


@given(trees)
def test_load_of_save_is_the_same_bit_for_bit(tree: object) -> None:
    blank = jax.tree.map(blank_like, tree)
    loaded = tree_from_bytes(tree_to_bytes(tree), blank)
    assert jax.tree.structure(loaded) == jax.tree.structure(tree)
    for one, other in zip(jax.tree.leaves(loaded), jax.tree.leaves(tree), strict=True):
        assert type(one) is type(other)
        assert bits(one) == bits(other)


def tree(value: float) -> dict[str, np.ndarray]:
    return {"weight": np.full(3, value, np.float32)}


def test_the_last_two_and_the_best_are_kept(folder: RunFolder) -> None:
    for iteration in (10, 20, 30, 40):
        folder.checkpoints.save(iteration, tree(iteration))
        if iteration == 20:
            folder.checkpoints.save_best(iteration, tree(iteration))
    assert folder.checkpoints.iterations() == (30, 40)
    files = {file.name for file in (folder.path / "checkpoints").iterdir()}
    assert files == {"30.eqx", "40.eqx", "best.eqx", "manifest.json"}
    assert folder.checkpoints.load(tree(0))[0] == 40
    iteration, best = folder.checkpoints.load(tree(0), best=True)
    assert iteration == 20
    np.testing.assert_array_equal(best["weight"], [20, 20, 20])


def test_the_manifest_holds_the_hash_of_the_bytes(folder: RunFolder) -> None:
    folder.checkpoints.save(10, tree(1))
    manifest = json.loads((folder.path / "checkpoints" / "manifest.json").read_text())
    content = (folder.path / "checkpoints" / "10.eqx").read_bytes()
    assert manifest["checkpoints"][0]["sha256"] == hashlib.sha256(content).hexdigest()


@pytest.mark.parametrize("damage", ["cut", "flip", "delete"])
def test_a_damaged_newest_checkpoint_gives_way_to_the_previous_aloud(
    folder: RunFolder, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    folder.checkpoints.save(10, tree(10))
    folder.checkpoints.save(20, tree(20))
    newest = folder.path / "checkpoints" / "20.eqx"
    content = newest.read_bytes()
    if damage == "delete":
        newest.unlink()
    else:
        newest.write_bytes(content[:-2] if damage == "cut" else content[:-1] + bytes([content[-1] ^ 1]))
    iteration, loaded = folder.checkpoints.load(tree(0))
    assert iteration == 10
    np.testing.assert_array_equal(loaded["weight"], [10, 10, 10])
    assert "20.eqx is damaged" in caplog.text
    (folder.path / "checkpoints" / "10.eqx").unlink()
    with pytest.raises(RunError, match="every checkpoint is damaged"):
        folder.checkpoints.load(tree(0))


def test_going_back_leaves_no_later_checkpoint(folder: RunFolder) -> None:
    for iteration in (10, 20):
        folder.checkpoints.save(iteration, tree(iteration))
    folder.checkpoints.save(15, tree(15))
    assert folder.checkpoints.iterations() == (10, 15)


def test_a_checkpoint_can_be_asked_for_by_its_iteration(folder: RunFolder) -> None:
    for iteration in (10, 20):
        folder.checkpoints.save(iteration, tree(iteration))
    iteration, loaded = folder.checkpoints.load(tree(0), iteration=10)
    assert iteration == 10
    np.testing.assert_array_equal(loaded["weight"], [10, 10, 10])
    with pytest.raises(RunError, match="no checkpoint of iteration 15"):
        folder.checkpoints.load(tree(0), iteration=15)


def test_a_best_checkpoint_loads_on_both_sides_of_its_replacement(folder: RunFolder) -> None:
    best = folder.path / "checkpoints" / "best.eqx"
    folder.checkpoints.save_best(10, tree(10))
    before = best.read_bytes()
    folder.checkpoints.save_best(20, tree(20))
    assert folder.checkpoints.load(tree(0), best=True)[0] == 20
    best.write_bytes(before)  # a kill between the manifest and the file
    assert folder.checkpoints.load(tree(0), best=True)[0] == 10


def test_no_checkpoint_a_torn_manifest_and_another_network_are_named(folder: RunFolder) -> None:
    with pytest.raises(RunError, match="no checkpoint was written"):
        folder.checkpoints.load(tree(0))
    folder.checkpoints.save(10, tree(10))
    with pytest.raises(RunError, match="no best checkpoint"):
        folder.checkpoints.load(tree(0), best=True)
    for other in ({"weight": np.zeros(4, np.float32)}, {"weight": np.zeros(3, np.int32)}, {}):
        with pytest.raises(RunError, match="holds another network"):
            folder.checkpoints.load(other)
    with pytest.raises(RunError, match="holds another network"):
        folder.checkpoints.load({**tree(0), "zero": np.zeros(1)})
    (folder.path / "checkpoints" / "manifest.json").write_text('{"checkpoints": [{}]}')
    with pytest.raises(RunError, match="not a manifest"):
        folder.checkpoints.load(tree(0))


# A kill at any moment

_KILLED = '''
"""Writes a run in a loop in a child, kills it at a random moment, keeps a copy, goes on where it stopped."""
import os, random, shutil, signal, sys, time
from pathlib import Path
import numpy as np
from phalanx.runtime.store import RunFolder

base, rounds = Path(sys.argv[1]), int(sys.argv[2])
random.seed(0)
like = {"weight": np.zeros(20_000, np.float32)}

def write():
    run = RunFolder.create(base / "run", {"members": 4}, resume=(base / "run" / "config.json").exists())
    start = 0
    if run.checkpoints.iterations():
        start, _ = run.checkpoints.load(like)
    run.truncate_metrics(start)
    with run.metrics() as log:
        (base / "started").touch()
        for iteration in range(start + 1, 10**6):
            log.write({"iteration": iteration, "loss/value": 0.5})
            weight = np.full(20_000, iteration, np.float32)
            run.checkpoints.save(iteration, {"weight": weight})
            if iteration % 3 == 0:
                run.checkpoints.save_best(iteration, {"weight": weight})
            run.write_eval({"iteration": iteration, "pad": "x" * 1000})

for number in range(rounds):
    (base / "started").unlink(missing_ok=True)
    child = os.fork()
    if child == 0:
        try:
            write()
        finally:
            os._exit(1)
    while not (base / "started").exists() and os.waitpid(child, os.WNOHANG)[0] == 0:
        time.sleep(0.002)
    time.sleep(random.uniform(0.0, 0.15))
    os.kill(child, signal.SIGKILL)
    status = os.waitpid(child, 0)[1]
    assert os.WIFSIGNALED(status), f"the writer failed by itself in round {number}"
    shutil.copytree(base / "run", base / f"killed-{number}")
'''


def test_a_kill_at_any_moment_leaves_a_run_that_reads_and_resumes(tmp_path: Path, caplog) -> None:
    rounds = 8
    script = tmp_path / "killed.py"
    script.write_text(_KILLED)
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(rounds)], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    like = {"weight": np.zeros(20_000, np.float32)}
    reached = 0
    for number in range(rounds):
        run = RunFolder.open(tmp_path / f"killed-{number}")
        assert run.config() == {"members": 4}
        iterations = [row["iteration"] for row in run.read_metrics()]
        assert iterations == list(range(1, len(iterations) + 1))
        if run.checkpoints.iterations():
            iteration, loaded = run.checkpoints.load(like)
            assert np.all(loaded["weight"] == iteration)
            assert len(iterations) - 1 <= iteration <= len(iterations)
            reached = max(reached, iteration)
        if reached >= 4:
            best, loaded = run.checkpoints.load(like, best=True)
            assert best % 3 == 0 and np.all(loaded["weight"] == best)
        evaluation = run.read_eval()
        assert evaluation is None or len(evaluation["pad"]) == 1000
    assert reached > rounds
    assert "damaged" not in caplog.text
    shutil.rmtree(tmp_path)
