"""A process that is killed while it appends: what was acknowledged is there, and the chain verifies."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from service.ledgers import verified

from phalanx.service.keys import SigningKey
from phalanx.service.ledger import Ledger, read_entries

_A_LEDGER = 5  # kills of one ledger, which then has grown enough


@pytest.fixture
def appender(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    SigningKey.create(tmp_path / "key.pem")
    child = Path(__file__).with_name("ledger_child.py")
    with subprocess.Popen(
        [sys.executable, str(child)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as process:
        yield process
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait() == 0


def killed(stdin: IO[str], stdout: IO[str], folder: Path, seed: int) -> dict[int, str]:
    """What a process acknowledged, height and hash, before it was killed at some moment."""
    chance = random.Random(seed)
    stdin.write(f"{folder} {seed}\n")
    told = [stdout.readline()]
    while not told[-1].startswith("child"):  # the child may be the first to speak
        told.append(stdout.readline())
    pid = int(told.pop().split()[1])
    after = chance.choice(
        [0, 0, 1, 3, 10]
    )  # acknowledged entries, and then a moment: an opening may be met too
    while len(told) < after:
        told.append(stdout.readline())
    timer = threading.Timer(chance.uniform(0, 0.02), os.kill, (pid, signal.SIGKILL))
    timer.start()
    while (line := stdout.readline()) != "ended\n":
        told.append(line)
    timer.join()
    assert not [line for line in told if line.startswith("failed")]
    pairs = [line.split() for line in told]
    return {int(height): hashed for height, hashed in pairs}


def kills(process: subprocess.Popen[str], folder: Path, seeds: range) -> tuple[int, int]:
    """Kills processes that append, and checks after each; returns acknowledged and torn entries."""
    assert process.stdin is not None and process.stdout is not None
    key = SigningKey.load(folder / "key.pem")
    acknowledged: dict[int, str] = {}
    entries = torn = 0
    for seed in seeds:
        ledger_folder = folder / f"ledger-{seed // _A_LEDGER}"
        if seed % _A_LEDGER == 0:
            acknowledged = {}
        new = killed(process.stdin, process.stdout, ledger_folder, seed)
        assert not set(new) & set(acknowledged), "a height was given twice"
        acknowledged |= new
        entries += len(new)
        with Ledger.open(ledger_folder, key) as ledger:
            if seed % _A_LEDGER == _A_LEDGER - 1:
                torn += ledger.torn
        there = {entry.height: entry.hash for entry in read_entries(ledger_folder)}
        assert acknowledged.items() <= there.items(), f"seed {seed}: an acknowledged entry is gone"
        assert verified(ledger_folder, head=ledger.head).findings == ()
        if seed % _A_LEDGER == _A_LEDGER - 1:
            shutil.rmtree(ledger_folder)
    return entries, torn


def test_no_acknowledged_entry_is_lost_to_a_kill(appender: subprocess.Popen[str], tmp_path: Path) -> None:
    entries, _ = kills(appender, tmp_path, range(25))
    assert entries > 25


@pytest.mark.slow
def test_no_acknowledged_entry_is_lost_to_a_thousand_kills(
    appender: subprocess.Popen[str], tmp_path: Path
) -> None:
    entries, torn = kills(appender, tmp_path, range(1000, 2000))
    assert entries > 1000 and torn > 0, "some kills tear an entry, or this test looks elsewhere"
