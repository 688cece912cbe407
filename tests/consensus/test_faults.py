"""The faults of ``benchmarks/faults.py``: that they are what they say, that what must hold is looked at, and a few."""

import importlib
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from consensus.fake_engine import Committee
from hypothesis import given, settings
from hypothesis import strategies as st

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
DEADLINE_S = 300.0  # for machines with much else to do


def injection(name: str) -> ModuleType:
    """A module of the faults, which are no part of the package."""
    sys.path.append(str(BENCHMARKS))
    try:
        return importlib.import_module(f"fault_injection.{name}")
    finally:
        sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope="module")
def spaces() -> None:
    """Skips where there can be no namespaces."""
    lacking = injection("isolation").why_not()
    if lacking:
        pytest.skip(f"no network namespaces: {lacking}")


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), count=st.integers(0, 400))
def test_a_seed_gives_a_schedule_with_every_kind_as_often_as_it_should_come(seed: int, count: int) -> None:
    module = injection("schedule")
    faults = module.schedule(seed, count)
    assert faults == module.schedule(seed, count) and len(faults) == count
    assert [fault.number for fault in faults] == list(range(count))
    kinds = Counter(fault.kind for fault in faults)
    weights: dict[str, int] = module.WEIGHTS
    round_ = sum(round(weight / min(weights.values())) for weight in weights.values())
    for kind, weight in weights.items():
        each = round(weight / min(weights.values()))
        assert count // round_ * each <= kinds[kind] <= -(-count // round_) * each
    boundaries = Counter(fault.boundary for fault in faults if fault.boundary)
    assert set(boundaries) <= set(module.BOUNDARIES)
    assert not boundaries or max(boundaries.values()) <= -(
        -sum(boundaries.values()) // len(module.BOUNDARIES)
    )
    for fault in faults:
        assert 0.2 <= fault.seconds <= 5.0 and set(fault.places) <= set(range(4))
        assert len(set(fault.places)) == len(fault.places) <= 2
        assert (fault.kind == "kill at an ABCI boundary") == bool(fault.boundary)


def test_every_kind_has_its_injection_or_is_the_enforcers() -> None:
    kinds = set(injection("schedule").WEIGHTS)
    assert {kind for kind in kinds if "enforcer" not in kind} == set(injection("injections").INJECTIONS)
    assert injection("schedule").schedule(1, 50) != injection("schedule").schedule(2, 50)


PROGRAM = """
import subprocess, sys, time
sys.path.insert(0, sys.argv[1])
from fault_injection.isolation import run
from fault_injection.links import Links
run("mount", "-t", "tmpfs", "none", "/run")
links = Links(3)
here = subprocess.Popen(
    [*links.words(0), sys.executable, "-c", '''
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("0.0.0.0", 7))
while True:
    data, where = s.recvfrom(100)
    s.sendto(data, where)
'''])
ASK = '''
import socket, sys, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.settimeout(float(sys.argv[2]))
back, late = 0, []
for i in range(int(sys.argv[1])):
    began = time.monotonic()
    try:
        s.sendto(b"%d" % i, ("10.77.0.11", 7))
        while s.recv(100) != b"%d" % i:
            pass
        back += 1
        late.append(time.monotonic() - began)
    except OSError:
        pass
print(back, min(late, default=0.0))
'''
def asked(place, times, wait_s):
    done = subprocess.run([*links.words(place), sys.executable, "-c", ASK, str(times), str(wait_s)],
                          capture_output=True, text=True, check=True)
    back, soonest = done.stdout.split()
    return int(back), float(soonest)
time.sleep(0.5)
while not asked(1, 1, 5)[0]:
    pass
found = {"plain": asked(1, 5, 5)}
links.impair(0, 0.05, 0.01, 0.0, 1); found["slow"] = asked(1, 5, 5); links.heal()
links.impair(1, 0.0, 0.0, 1.0, 1); found["lost"] = asked(1, 5, 0.1); links.heal()
links.impair(1, 0.0, 0.0, 0.4, 1); found["lossy"] = asked(1, 50, 0.1); links.heal()
links.split([[1, 2], [0]]); found["split"] = asked(1, 5, 0.1); links.heal()
links.cut(0, 1); found["cut"] = asked(1, 5, 0.1); found["not cut"] = asked(2, 5, 5); links.heal()
found["healed"] = asked(1, 5, 5)
here.kill()
import json
print(json.dumps(found))
"""


def test_links_are_slow_lossy_split_and_cut_as_they_are_told_to_be(spaces: None) -> None:
    flags = injection("isolation").flags()
    words = ["unshare", *flags, sys.executable, "-c", PROGRAM, str(BENCHMARKS)]
    done = subprocess.run(words, capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for all_came in ("plain", "slow", "not cut", "healed"):
        assert found[all_came][0] == 5, found
    for none_came in ("lost", "split", "cut"):
        assert found[none_came][0] == 0, found
    assert found["slow"][1] >= 0.1  # there and back
    assert 0 < found["lossy"][0] < 50, found


class Seen:
    """What ``Invariants`` looks at, of a network that runs in this process."""

    def __init__(self, folder: Path) -> None:
        self.committee = Committee(folder)
        for batch in range(4):
            self.committee.step([self.committee.submission(batch)])
            self.committee.step()
        self.load = SimpleNamespace(told={}, problem=None, evidence=())
        self.watch = SimpleNamespace(problem=None, counters=[{}] * 4)
        acts, evidence = folder / "acts", folder / "enforcer.evidence"
        self.enforcing = SimpleNamespace(acts=acts, evidence=evidence, kills=0)
        entries = self.committee.nodes[0].entries
        for entry in entries:
            for event, decision in zip(entry.body["events"], entry.body["decisions"], strict=True):
                self.load.told[event["id"]] = decision["verdict"]
        acts.write_text("".join(f"{entry.height} {entry.body['digest']} 0\n" for entry in entries))
        self.folder = folder
        network: Any = SimpleNamespace(chain=self.committee.chain, folder=folder)
        self.invariants = injection("invariants").Invariants(network, self.load, self.watch, self.enforcing)

    def check(self) -> None:
        self.invariants.check()


@pytest.fixture
def seen(tmp_path: Path) -> Iterator[Seen]:
    found = Seen(tmp_path)
    yield found
    found.committee.close()


def fork(seen: Seen) -> None:
    """Gives node 2 the ledger of another chain with as many entries."""
    other = seen.folder / "other"
    other.mkdir()
    committee = Committee(other)
    for batch in range(10, 14):
        committee.step([committee.submission(batch)])
        committee.step()
    committee.close()
    name = "ledger-00000001.ndjson"
    (seen.folder / "node2" / "ledger" / name).write_bytes((other / "node2" / "ledger" / name).read_bytes())


def act(seen: Seen, change: Callable[[list[str]], object]) -> None:
    lines = seen.enforcing.acts.read_text().splitlines(keepends=True)
    change(lines)
    seen.enforcing.acts.write_text("".join(lines))


def tell(seen: Seen, change: Callable[[dict[str, int]], None]) -> None:
    change(seen.load.told)


WRONG: dict[str, tuple[Callable[[Seen], None], str]] = {
    "fork": (fork, "fork: entry 1 of node 2"),
    "lost": (lambda seen: tell(seen, lambda told: told.update(new=1)), "acknowledged and is in no ledger"),
    "told otherwise": (
        lambda seen: tell(seen, lambda told: told.update({k: 3 - v for k, v in told.items()})),
        "was told",
    ),
    "acted twice": (
        lambda seen: act(seen, lambda lines: lines.insert(2, lines[1])),
        "acted on height 2 after 2",
    ),
    "left out": (lambda seen: act(seen, lambda lines: lines.pop(1)), "acted on height 3 after 1"),
    "out of order": (lambda seen: act(seen, list.reverse), "acted on height 4 after 0"),
    "acted on another": (
        lambda seen: act(seen, lambda lines: lines.__setitem__(0, f"1 {'0' * 64} 0\n")),
        "not what was decided",
    ),
    "acted again without a kill": (
        lambda seen: act(seen, lambda lines: lines.append(lines[-1].replace(" 0\n", " 1\n"))),
        "1 acts came again after 0 kills",
    ),
    "app hashes": (lambda seen: setattr(seen.watch, "problem", "height 3: app hash"), "height 3: app hash"),
    "evidence": (lambda seen: seen.enforcing.evidence.touch(), "evidence against a member"),
    "misbehavior": (lambda seen: setattr(seen.watch, "counters", [{"misbehavior": 1}]), "misbehavior"),
    "shorter": (
        lambda seen: (seen.check(), os.truncate(seen.folder / "node1/ledger/ledger-00000001.ndjson", 0))[0],
        "node 1 had 4 entries and has 0",
    ),
}


def test_a_network_that_is_well_passes(seen: Seen) -> None:
    for _ in range(2):
        seen.check()
    assert len(seen.invariants.entries) == 4 and len(seen.invariants.verdicts) == 16


@pytest.mark.parametrize("wrong", WRONG)
def test_what_must_not_be_is_noticed(seen: Seen, wrong: str) -> None:
    change, words = WRONG[wrong]
    change(seen)
    with pytest.raises(injection("invariants").BrokenError, match=words):
        seen.check()


@pytest.mark.parametrize("differ", [False, True])
def test_two_app_hashes_of_one_height_are_noticed(monkeypatch: pytest.MonkeyPatch, differ: bool) -> None:
    module = injection("load")
    asked = Counter()

    def ask(door: int, request: object, timeout_s: float) -> dict[str, Any]:
        asked[door] += 1
        app_hash = f"{asked[door]}{'x' if differ and door == 1 and asked[door] == 3 else ''}"
        return {"height": asked[door], "app_hash": app_hash, "counters": {}}

    monkeypatch.setattr(module, "ask", ask)
    network = SimpleNamespace(chain=SimpleNamespace(n=2), doors=[0, 1])
    watch = module.Watch(network, tick_s=0.001)
    with watch:
        deadline = time.monotonic() + DEADLINE_S
        while min(watch.height) < 5:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    assert (watch.problem is not None and watch.problem.startswith("height 3")) == differ


def faults(*words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        # as a shell starts what it runs in the background
        ["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, str(BENCHMARKS / "faults.py"), *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


KINDS = (
    "kill the engine",
    "kill at an ABCI boundary",
    "pause application and engine",
    "partition: one node away",
    "lossy link",
    "full disk",
    "torn ledger and engine log",
    "kill the enforcer between acting and writing",
)


@pytest.mark.network
def test_a_network_lives_through_a_fault_of_each_of_eight_kinds(spaces: None, tmp_path: Path) -> None:
    out = tmp_path / "faults.json"
    running = faults(
        "--faults", "8", "--seed", "7", "--folder", str(tmp_path / "n"), "--out", str(out), "--kinds", *KINDS
    )
    said, _ = running.communicate(timeout=DEADLINE_S)
    assert running.returncode == 0, said
    figures = json.loads(out.read_text())["settings"]
    assert figures["all faults"]["count"] == 8 and figures["totals"]["networks"] == 1
    assert figures["totals"]["events acknowledged"] == figures["totals"]["events"] > 0
    assert not (tmp_path / "n").exists()


@pytest.mark.network
@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_a_run_that_is_interrupted(spaces: None, tmp_path: Path, number: int) -> None:
    folder = tmp_path / "n"
    running = faults("--faults", "50", "--folder", str(folder), "--kinds", "pause the engine", "slow link")
    assert running.stdout is not None
    for line in running.stdout:
        if "recovered in" in line:
            break
    assert any(str(folder) in words for words in commands())
    running.send_signal(number)
    running.communicate(timeout=DEADLINE_S)
    deadline = time.monotonic() + DEADLINE_S
    while any(str(folder) in words for words in commands()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert str(folder) not in Path("/proc/mounts").read_text()


def commands() -> Iterator[str]:
    """The command lines of all processes."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            yield Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
        except OSError:
            continue


@pytest.mark.network
@pytest.mark.slow
def test_without_namespaces_kills_and_torn_files_remain(tmp_path: Path) -> None:
    kinds = ("kill the application", "torn engine log", "slow link")
    running = faults("--no-namespaces", "--faults", "4", "--folder", str(tmp_path / "n"), "--kinds", *kinds)
    said, _ = running.communicate(timeout=DEADLINE_S)
    assert running.returncode == 0 and "without faults of links and disks" in said, said
    assert "slow link" not in said and "all faults {'count': 4" in said


def test_the_figures_are_those_of_the_seconds(tmp_path: Path) -> None:
    campaign = injection("campaign").Campaign(tmp_path, 0, None)
    for seconds, kind in zip([1.0, 2.0, 7.0], itertools.repeat("full disk")):
        campaign.recovery[kind].append(seconds)
    found = campaign.figures()["full disk"]
    assert (found["count"], found["p50_s"], found["max_s"], found["over_5_s"]) == (3, 2.0, 7.0, 1)
