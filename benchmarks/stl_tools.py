"""phalanx.stl beside RTAMT 0.4.10, mstlo-python 0.2.2 and stljax 1.1.3, in one run on one machine.

    python3 -m venv .cache/stl-tools && .cache/stl-tools/bin/pip install -r requirements/bench-stl.txt
    python benchmarks/stl_tools.py --others .cache/stl-tools [--out benchmarks/results/stl_tools.json]

RTAMT is one of the tools that the tests need; the others have the environment that is made above, or are left out.
Every figure comes from a process of its own.

- Online: an event is one sample of all signals; microseconds, after the windows have filled (``filled``: the share of
  them, where filling takes too long), ``quiet`` in the quietest tenth of the run, ``opening`` before the windows have
  filled, when a verdict is an interval or none, ``cpu_us`` the mean CPU time with the drawing of the sample. Monitors
  are built before (``build_ms``). mstlo takes one signal a call, so two signals are two calls; its verdicts are not
  read while it is timed, for reading RoSI's takes as long as the window. ``wrong`` is the share of the compared
  verdicts that differ from ``robustness`` of the whole trace; mstlo's until means something else, for it asks its left
  side on [t, t'], not on [t, t'). 99th percentiles show the machine's other load.
- Offline: one formula over a trace; CPU and wall time, and the peak that Python and numpy allocate above the input.
- Gradient: of the robustness at the first sample, compile time apart; stljax is a float32 tool.

``ratio`` is a tool's time over phalanx's for the same formula in the same run (quiet medians or CPU
times, whichever is less; CPU time a sample; gradients).
"""

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Update = Callable[[int, tuple[float, ...]], Any]
Read = Callable[[Any], list[tuple[float, float]]]

CHECKED = 200
"""Verdicts that are compared, where no window is longer than 1000 samples."""

WINDOWS = (10, 100, 1000, 10_000, 100_000)
ONLINE: dict[str, tuple[str, str, tuple[str, ...], int]] = {
    **{f"G[0,{w}] x < 100": (f"always[0,{w}](x < 100)", f"G[0,{w}](x < 100)", ("x",), w) for w in WINDOWS},
    "threat -> F[0,5] act": (
        "(threat > 0.5) -> (eventually[0,5](act > 0.5))",
        "threat > 0.5 -> F[0,5](act > 0.5)",
        ("threat", "act"),
        5,
    ),
    "G[0,60](threat -> F[0,5] act)": (
        "always[0,60]((threat > 0.5) -> (eventually[0,5](act > 0.5)))",
        "G[0,60](threat > 0.5 -> F[0,5](act > 0.5))",
        ("threat", "act"),
        65,
    ),
    **{
        f"x until[0,{w}] y": (f"(x > 50) until[0,{w}] (y > 50)", f"(x > 50) U[0,{w}] (y > 50)", ("x", "y"), w)
        for w in (50, 200)
    },
}
"""Names of formulas: text of RTAMT and phalanx, of mstlo, signals, samples that a verdict waits for."""


def samples(signals: tuple[str, ...]) -> Iterator[tuple[float, ...]]:
    """Numbers from 0 to 100 (truths where the signal is one), the same for all tools."""
    rng = random.Random(0)
    while True:
        yield tuple(rng.uniform(0, 100 if name in "xy" else 1) for name in signals)


def phalanx_online(name: str) -> tuple[Update, Read]:
    from phalanx.stl import Monitor

    text, _, signals, _ = ONLINE[name]
    monitor = Monitor(text)

    def update(t: int, sample: tuple[float, ...]) -> Any:
        return monitor.update(dict(zip(signals, sample, strict=True)))

    return update, lambda verdict: [(verdict.sample, verdict.lo)] if verdict.known else []


def rtamt_online(name: str) -> tuple[Update, Read]:
    import rtamt

    text, _, signals, horizon = ONLINE[name]
    spec = rtamt.StlDiscreteTimeOnlineSpecification()
    for signal in signals:
        spec.declare_var(signal, "float")
    spec.spec = text
    spec.parse()
    spec.pastify()

    def update(t: int, sample: tuple[float, ...]) -> Any:
        return t - horizon, spec.update(t, list(zip(signals, sample, strict=True)))

    return update, lambda told: [told] if told[0] >= 0 else []


def mstlo_online(semantics: str, name: str) -> tuple[Update, Read]:
    import mstlo_python as mstlo  # pyright: ignore[reportMissingImports]

    _, text, signals, _ = ONLINE[name]
    monitor = mstlo.Monitor(mstlo.parse_formula(text), semantics=semantics)

    def update(t: int, sample: tuple[float, ...]) -> Any:
        return [monitor.update(signal, v, float(t)) for signal, v in zip(signals, sample, strict=True)]

    def told(outputs: Any) -> list[tuple[float, float]]:
        found = [verdict for output in outputs for verdict in output.verdicts()]
        if semantics == "Rosi":
            return [(t, lo) for t, (lo, hi) in found if lo == hi]
        return found

    return update, told


MONITORS: dict[str, Callable[[str], tuple[Update, Read]]] = {
    "phalanx": phalanx_online,
    "RTAMT": rtamt_online,
    "mstlo delayed": lambda name: mstlo_online("DelayedQuantitative", name),
    "mstlo RoSI": lambda name: mstlo_online("Rosi", name),
}


def online(tool: str, name: str, seconds: float) -> dict[str, Any]:
    """Time per event after the window has filled, and the first verdicts."""
    _, _, signals, horizon = ONLINE[name]
    MONITORS[tool](name)  # imports the tool
    begun = time.perf_counter()
    update, told = MONITORS[tool](name)
    build_ms = (time.perf_counter() - begun) * 1e3
    clock = time.perf_counter_ns
    source, verdicts, opening, times = samples(signals), {}, [], []

    def event(into: list[int]) -> Any:
        sample, t = next(source), len(opening) + len(times)
        at = clock()
        output = update(t, sample)
        into.append(clock() - at)
        return output

    checked = horizon + CHECKED if horizon <= 1000 else 0
    begun = time.perf_counter()
    while len(opening) < checked or (
        len(opening) < 1.05 * horizon + 100 and time.perf_counter() - begun < 10 * seconds
    ):
        output = event(opening)
        if len(opening) <= checked:
            verdicts.update(told(output))
    begun, cpu = time.perf_counter(), time.process_time()
    while len(times) < 30 or (len(times) < 20_000 and time.perf_counter() - begun < seconds):
        event(times)
    cpu = (time.process_time() - cpu) / len(times)
    tenth = len(times) // 10
    quiet = min(statistics.median(times[at * tenth :][:tenth]) for at in range(10))
    cut = [statistics.quantiles(times, n=100)[at] / 1e3 for at in (49, 98)]
    return {
        "p50_us": cut[0],
        "p99_us": cut[1],
        "quiet_p50_us": quiet / 1e3,
        "cpu_us": cpu * 1e6,
        "opening_p50_us": statistics.median(opening[:horizon]) / 1e3,
        "events": len(times),
        "filled": min(1.0, len(opening) / horizon),
        "build_ms": build_ms,
        "verdicts": sorted(verdicts.items()),
    }


def offline(tool: str, length: int, window: int) -> dict[str, float]:
    """CPU and wall time of a whole trace, and peak memory above the input."""
    import tracemalloc

    import numpy as np

    x = np.random.default_rng(0).uniform(0, 100, length)
    text = f"always[0,{window}](x < 100)"
    if tool == "phalanx":
        from phalanx.stl import robustness

        def work() -> None:
            robustness(text, {"x": x})

    else:
        import rtamt

        data = {"time": list(range(length)), "x": x.tolist()}

        def work() -> None:
            spec = rtamt.StlDiscreteTimeOfflineSpecification()
            spec.declare_var("x", "float")
            spec.spec = text
            spec.parse()
            spec.evaluate(data)

    walls, cpus = [], []
    for _ in range(9 if tool == "phalanx" else 1):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        walls.append((time.perf_counter() - wall) * 1e3)
        cpus.append((time.process_time() - cpu) * 1e3)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    work()
    peak = tracemalloc.get_traced_memory()[1] - before
    return {
        "cpu_ms": statistics.median(cpus),
        "fastest_cpu_ms": min(cpus),
        "wall_ms": statistics.median(walls),
        "peak_mb": peak / 1e6,
        "samples": length,
        "us_per_sample": statistics.median(cpus) * 1e3 / length,
    }


def stljax_value(window: int) -> Callable[[Any], Any]:
    from stljax.formula import Always, LessThan  # pyright: ignore[reportMissingImports]

    return Always(LessThan("x", 100.0), [0, window]).robustness


def phalanx_value(window: int) -> Callable[[Any], Any]:
    from phalanx.stl.smooth import smooth_robustness

    return lambda x: smooth_robustness(f"always[0,{window}](x < 100)", {"x": x})[0]


def phalanx_straight_through_value(window: int) -> Callable[[Any], Any]:
    from phalanx.stl.smooth import smooth_robustness

    text = f"always[0,{window}](x < 100)"
    return lambda x: smooth_robustness(text, {"x": x}, straight_through=True)[0]


GRADIENTS: dict[str, Callable[[int], Callable[[Any], Any]]] = {
    "phalanx, smooth": phalanx_value,
    "phalanx, straight-through": phalanx_straight_through_value,
    "stljax": stljax_value,
}
"""What makes the robustness at the first sample of ``G[0,W] x < 100``; exact, but for the smooth one."""


def gradient(tool: str, length: int, window: int) -> dict[str, float]:
    """Forward and gradient of the robustness at the first sample, compile time apart."""
    import jax

    x = jax.random.uniform(jax.random.key(0), (length,), maxval=100.0)
    value = GRADIENTS[tool](window)
    found: dict[str, float] = {}
    for part, function in (("forward", value), ("gradient", jax.grad(value))):
        begun = time.perf_counter()
        compiled = jax.jit(function).lower(x).compile()
        found[f"{part}_compile_s"] = time.perf_counter() - begun
        times = []
        for _ in range(25 if tool.startswith("phalanx") else 5):
            begun = time.perf_counter()
            jax.block_until_ready(compiled(x))
            times.append((time.perf_counter() - begun) * 1e3)
        found[f"{part}_ms"] = statistics.median(times)
        found[f"{part}_fastest_ms"] = min(times)
    return found


JOBS: dict[str, Callable[..., dict[str, Any]]] = {"online": online, "offline": offline, "gradient": gradient}


def apart(python: Path, *job: Any) -> dict[str, Any] | None:
    """A job in a process of its own; None where it fails, which is printed."""
    done = subprocess.run([python, __file__, "--job", json.dumps(job)], capture_output=True, text=True)
    if done.returncode:
        told = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        print(f"{job}: {told[-1]}", file=sys.stderr, flush=True)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def wrong(name: str, verdicts: list[tuple[float, float]]) -> dict[str, float]:
    """The share of verdicts that are not those of the whole trace, of the samples whose horizon has passed."""
    import numpy as np

    from phalanx.stl import robustness

    text, _, signals, horizon = ONLINE[name]
    source = samples(signals)
    columns = np.array([next(source) for _ in range(horizon + CHECKED)]).T
    whole = robustness(text, dict(zip(signals, columns, strict=True)))
    told = {int(t): value for t, value in verdicts if t < CHECKED}
    if not told:
        return {}
    return {"wrong": sum(value != whole[t] for t, value in told.items()) / len(told), "compared": len(told)}


def rows(others: Path | None, seconds: float, rounds: int) -> Iterator[tuple[str, dict[str, float]]]:
    """All lines of the report."""
    own = Path(sys.executable)
    for name in ONLINE:
        base = math.nan
        for tool in MONITORS:
            python = others if tool.startswith("mstlo") else own
            if python is None:
                continue
            done = [apart(python, "online", tool, name, seconds) for _ in range(rounds)]
            if not (told := [each for each in done if each is not None]):
                continue
            found = min(told, key=lambda each: each["quiet_p50_us"])
            event_us = min(found["quiet_p50_us"], found["cpu_us"])  # a long event is always interrupted
            base = event_us if tool == "phalanx" else base
            found |= wrong(name, found.pop("verdicts")) | {"ratio": event_us / base}
            yield f"online {name}: {tool}", found
    base = math.nan
    for tool, length in (("phalanx", 1_000_000), ("RTAMT", 20_000), ("RTAMT", 60_000)):
        found = apart(own, "offline", tool, length, 1000)
        if found is not None:
            base = found["us_per_sample"] if tool == "phalanx" else base
            yield (
                f"offline G[0,1000] x < 100, {length} samples: {tool}",
                {**found, "ratio": found["us_per_sample"] / base},
            )
    base = math.nan
    for tool in GRADIENTS:
        python = others if tool == "stljax" else own
        if python is not None and (found := apart(python, "gradient", tool, 4000, 1000)) is not None:
            base = found["gradient_ms"] if math.isnan(base) else base
            yield (
                f"gradient G[0,1000] x < 100, 4000 samples: {tool}",
                {**found, "ratio": found["gradient_ms"] / base},
            )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--others", type=Path, help="environment of mstlo and stljax")
    parser.add_argument("--seconds", type=float, default=0.5, help="for each online figure")
    parser.add_argument(
        "--rounds", type=int, default=2, help="of each online figure; the quietest one counts"
    )
    parser.add_argument("--out", type=Path)
    parser.add_argument("--job", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.job:
        name, *given = json.loads(arguments.job)
        print(json.dumps(JOBS[name](*given)))
        return
    from machine import report

    load_before = os.getloadavg()[0]
    others = arguments.others and (arguments.others / "bin" / "python").absolute()
    found = {}
    for name, line in rows(others, arguments.seconds, arguments.rounds):
        print(name, flush=True)
        found[name] = {**line, "load": os.getloadavg()[0]}
    report(found, arguments.out, load_before)


if __name__ == "__main__":
    main()
