r"""Fuzzing of everything that reads what others wrote: no input may lead to more than an answer or a refusal.

    pip install 'phalanx[fuzz]'
    python benchmarks/fuzzing.py code [--target frames ...] [--share 1.0] [--out benchmarks/results/fuzzing.json]
    python benchmarks/fuzzing.py replay TARGET FILE
    python benchmarks/fuzzing.py http [--requests 100000] [--out benchmarks/results/fuzzing.json]

``code`` is guided by coverage (atheris, which is libFuzzer for Python; only phalanx's own modules are instrumented).
Each target has a process of its own, of at most 2 GiB and 60 s an input. ``--share`` is of ten million inputs in all,
run in parts; results add up to those that the file has. Logs, corpora, which grow from run to run, and crashes are in
``build/fuzzing/TARGET``; ``replay`` shows a crash.

``http`` asks the real server (``fuzz/http_requests.py``).
"""

import argparse
import collections
import importlib
import json
import logging
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve()
BUILD = HERE.parent.parent / "build" / "fuzzing"
_MEMORY_MB, _PATIENCE_S = 2048, 60  # of time that the clock shows, on machines that do other things too
_PART = 1 / 10
_ADDED, _LARGEST = ("inputs", "crashes", "taken", "refused", "took_s"), ("slowest_input_s", "peak_memory_mb")


def child(name: str, folder: Path, flags: Sequence[str]) -> None:
    """Fuzzes one target in this process; does not return."""
    from phalanx.errors import ExtraMissingError

    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        raise ExtraMissingError("atheris", "fuzz", "fuzzing guided by coverage") from None
    with atheris.instrument_imports(include=["phalanx"]):
        from benchmarks.fuzz.targets import TARGETS

        case = TARGETS[name].open(folder)
    logging.disable(logging.CRITICAL)
    counts: collections.Counter[str] = collections.Counter()
    counted, last = folder / "outcomes.json", int(next(f for f in flags if "-runs=" in f).partition("=")[2])

    def try_one(data: bytes) -> None:
        counts[case.try_one(data)] += 1
        if (total := counts.total()) % 4096 == 0 or total == last:  # libFuzzer ends the process by itself
            counted.write_text(json.dumps(counts))

    corpus = BUILD / name / "corpus"
    for number, seed in enumerate(case.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], *flags, str(corpus)], try_one)
    atheris.Fuzz()


def fuzz(name: str, inputs: int, seed: int) -> dict[str, Any]:
    """Fuzzes a target with so many inputs; what came of it."""
    from benchmarks.fuzz.targets import TARGETS

    target, build = TARGETS[name], BUILD / name
    (build / "corpus").mkdir(parents=True, exist_ok=True)
    (build / "words").write_text("".join(f'"{_escaped(word)}"\n' for word in target.words))
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        flags = [f"-runs={inputs}", f"-seed={seed}", f"-max_len={target.longest}", "-print_final_stats=1"]
        flags += [f"-timeout={_PATIENCE_S}", f"-rss_limit_mb={_MEMORY_MB}", f"-artifact_prefix={build}/"]
        flags += [f"-dict={build / 'words'}"] if target.words else []
        begun = time.monotonic()
        command = [sys.executable, str(HERE), "child", name, folder, *flags]
        settings = {**os.environ, "POLARS_MAX_THREADS": "1", "JAX_PLATFORMS": "cpu"}
        with (build / "log").open("wb") as log:
            code = subprocess.call(command, stdout=log, stderr=log, env=settings)
        outcomes = Path(folder) / "outcomes.json"
        counts = json.loads(outcomes.read_text()) if outcomes.exists() else {}
    text = (build / "log").read_text(errors="replace")
    stats = {key: int(value) for key, value in re.findall(r"stat::(\w+):\s+(\d+)", text)}
    covered = (re.findall(r"cov: (\d+) ft: \d+ corp: (\d+)", text) or [("0", "0")])[-1]
    return {
        "inputs": stats.get("number_of_executed_units", 0),
        "crashes": int(code != 0 and "libFuzzer: run interrupted" not in text),
        "taken": counts.get("taken", 0),
        "refused": counts.get("refused", 0),
        "edges": int(covered[0]),
        "corpus": int(covered[1]),
        "slowest_input_s": stats.get("slowest_unit_time_sec", 0),
        "peak_memory_mb": stats.get("peak_rss_mb", 0),
        "took_s": round(time.monotonic() - begun, 1),
    }


def _escaped(word: str) -> str:
    return "".join(c if c.isalnum() else f"\\x{ord(c):02x}" for c in word)


def together(known: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    """Results of several runs of a target."""
    added = {name: round(known.get(name, 0) + found[name], 1) for name in _ADDED}
    return {**found, **added, **{name: max(known.get(name, 0), found[name]) for name in _LARGEST}}


def code(names: Sequence[str], share: float, out: Path | None) -> int:
    """Fuzzes targets, part by part; returns how many parts crashed."""
    from benchmarks.fuzz.targets import TARGETS

    crashed, left, part = 0, share, 0
    known = json.loads(out.read_text()) if out and out.exists() else {}
    results = known.setdefault("code", {})
    while left > 1e-9:
        for name in names or TARGETS:
            before = results.get(name, {})
            found = fuzz(
                name,
                max(1, round(min(left, _PART) * TARGETS[name].inputs)),
                1 + before.get("inputs", 0) % 2**31 + part,
            )
            crashed += found["crashes"]
            results[name] = together(before, found)
            print(name, results[name], flush=True)
            if out:
                write(out, {"code": results})
        left, part = left - _PART, part + 1
    return crashed


def write(out: Path, found: dict[str, Any]) -> None:
    """Writes results beside those of the other verb."""
    known = json.loads(out.read_text()) if out.exists() else {}
    out.write_text(json.dumps({**known, **found}, indent=1) + "\n")


def replay(name: str, file: Path) -> None:
    """Tries one input, and raises what it raises."""
    from benchmarks.fuzz.targets import TARGETS

    with tempfile.TemporaryDirectory() as folder:
        print(TARGETS[name].open(Path(folder)).try_one(file.read_bytes()))


def main(argv: Sequence[str]) -> int:
    """The exit code: 1 where anything crashed."""
    if argv[:1] == ["child"]:
        child(argv[1], Path(argv[2]), argv[3:])
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    fuzzed, again, http = (verbs.add_parser(name) for name in ("code", "replay", "http"))
    fuzzed.add_argument("--target", nargs="*", default=[])
    fuzzed.add_argument("--share", type=float, default=1.0)
    again.add_argument("target")
    again.add_argument("file", type=Path)
    http.add_argument("--requests", type=int, default=100_000)
    for each in (fuzzed, http):
        each.add_argument("--out", type=Path)
    given = parser.parse_args(argv)
    if given.verb == "code":
        return int(code(given.target, given.share, given.out) > 0)
    if given.verb == "replay":
        replay(given.target, given.file)
        return 0
    from benchmarks.fuzz.http_requests import attack

    found = attack(given.requests)
    print(json.dumps(found, indent=1))
    if given.out:
        write(given.out, {"http": found})
    return int(bool(found["problems"]))


if __name__ == "__main__":
    sys.path[0] = str(HERE.parent.parent)  # not this folder: its modules have names of tests' packages
    sys.exit(main(sys.argv[1:]))
