"""``phalanx monitor``: whether a trace satisfies a formula, and why not."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from phalanx.cli_command import parse
from phalanx.errors import DataError, UsageError, unknown_name

__all__ = ["Monitor", "command"]

_BARS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_WIDTH = 72


@dataclass(frozen=True)
class Monitor:
    """Checks a trace against a formula of Signal Temporal Logic, and says which predicates decide, and when.

    The trace satisfies the formula if it holds at the first sample (put `always` before what is to hold at all). Exit
    code 1 if not. A column `time` (seconds) or `time_ns` must ascend by one period a row. docs/stl.md has the language.

    Columns of 0 and 1 are compared with a half: > and >= are one.

    Example: phalanx monitor "always (threat > .5 -> eventually[0,5] contained > .5)" --trace trace.csv
    """

    spec: Annotated[str, tyro.conf.Positional]
    """The formula; or a file of specifications whose name ends in .stl, or one that comes with phalanx by its name
    (office, original or shield): all are checked, and exit code 1 says that one is violated. A signal of such a name is
    written in parentheses."""
    trace: Path
    """Table with a column for each signal: .csv, .ndjson, .parquet or .arrow."""
    name: str | None = None
    """Check only this one of a file's specifications."""
    period: str | None = None
    """Time between rows, as in 1s, 250ms; that of the time column, else of the specification's @period, else 1s, unless
    given."""
    online: bool = False
    """Read the trace as a stream and say from which row on the verdict was certain; --out then has what was known at
    each row."""
    out: Path | None = None
    """File to write the robustness of each row to: .csv, .ndjson, .parquet or .arrow."""
    seed: int = 0
    """Unused: nothing here is random."""
    json: bool = False
    """Print the result as one JSON object; null stands for infinite."""

    def run(self) -> dict[str, Any]:
        """The verdict, or those of a file's specifications."""
        import polars as pl

        from phalanx.data.files import write_frame
        from phalanx.stl import parse as parse_formula

        if self.out and self.out.resolve() == self.trace.resolve():
            raise UsageError(f"--out {self.out} is the trace itself; name another file")
        file = self._file()
        if file is not None:
            result, rows = self._specs(file)
        elif self.name is not None:
            raise UsageError(
                f"--name {self.name} names one of a file's specifications; give that file as SPEC"
            )
        else:
            formula = parse_formula(self.spec)
            trace = self._trace(formula.signals)
            result, found = self._checked(formula, trace, trace.period_s)
            result, rows = {"spec": self.spec, **result}, pl.DataFrame(found)
        if self.out:
            write_frame(rows, self.out)
        return {**result, "out": self.out}

    def _trace(self, signals: Sequence[str]) -> Any:
        from phalanx.data.traces import read_trace
        from phalanx.stl.tokens import seconds

        return read_trace(self.trace, signals, None if self.period is None else seconds(self.period))

    def _file(self) -> Path | None:
        """The file of specifications that SPEC is; None where it is a formula."""
        from phalanx.runtime.specifications import shipped_specs, spec_file

        if self.spec in shipped_specs() or os.path.isdir(self.spec):
            try:
                return spec_file(Path(self.spec))
            except UsageError as error:
                raise UsageError(f"{error}, or write ({self.spec}) if it is a signal") from None
        return Path(self.spec) if self.spec.endswith(".stl") else None

    def _specs(self, file: Path) -> tuple[dict[str, Any], Any]:
        """The verdicts of a file's specifications, and the rows of all of them."""
        import polars as pl

        from phalanx.data.traces import TIME_COLUMNS
        from phalanx.stl.places import named
        from phalanx.stl.specs import read_specs

        specs = read_specs(file)
        if self.name is not None:
            names = [spec.name for spec in specs]
            specs = tuple(spec for spec in specs if spec.name == self.name)
            if not specs:
                raise unknown_name(f"spec of {self.spec}", self.name, names)
        trace = self._trace(sorted({name for spec in specs for name in spec.formula.signals}))
        timed = trace.frame.height > 1 and not TIME_COLUMNS.keys().isdisjoint(trace.frame.columns)
        results, tables = [], []
        for spec in specs:
            period = trace.period_s if timed or self.period is not None else spec.period_s
            try:
                result, rows = self._checked(spec.formula, trace, period)
            except (UsageError, DataError) as error:
                raise named(error, f"{spec.source}: spec {spec.name!r}") from None
            about = {
                key: getattr(spec, key) for key in ("name", "priority", "severity", "text", "why", "line")
            }
            results.append({**about, "spec": spec.written, **result})
            tables.append(pl.DataFrame(rows).select(pl.lit(spec.name).alias("spec"), pl.all()))
        violated = [result["name"] for result in results if not result["satisfied"]]
        whole = {"spec": self.spec, "satisfied": not violated, "violated": violated, "specs": results}
        return whole, pl.concat(tables)

    def _checked(self, formula: Any, trace: Any, period: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """The verdict on one formula, and what is known at each row."""
        table = trace.frame
        taken = [name for name in (*formula.names, *formula.constants) if name in table.columns]
        if taken:
            raise UsageError(
                f"{taken[0]!r} is defined in the formula and a column of {self.trace}; rename one"
            )
        signals = {name: table[name] for name in formula.signals} or {"": range(table.height)}
        watch = self._stream if self.online else self._whole
        result, rows = watch(formula, signals, period)
        return {"samples": table.height, "period_s": period, **result}, rows

    def _whole(
        self, formula: Any, signals: Mapping[str, Any], period: float
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        from phalanx.stl import diagnose, robustness

        values = robustness(formula, signals, period)
        found = diagnose(formula, signals, period=period)
        worst = int(values.argmin())
        result = {
            "satisfied": found.satisfied,
            "robustness": found.robustness,
            "robustness_min": float(values[worst]),
            "least_at": worst,
            "violated_samples": int((values < 0.0).sum()),
            "critical": None
            if found.critical is None
            else {"text": found.critical[0], "sample": found.critical[1]},
            "causes": [
                {
                    "text": cause.text,
                    "signals": list(cause.signals),
                    "samples": _ranges(cause.samples),
                    "robustness": cause.value,
                }
                for cause in found.causes
            ],
            "plot": _plot(values.tolist()),
        }
        return result, {"sample": list(range(len(values))), "robustness": values}

    def _stream(
        self, formula: Any, signals: Mapping[str, Any], period: float
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        from phalanx.stl import Monitor as Streaming

        monitor = Streaming(formula, period)
        columns = {name: list(values) for name, values in signals.items()}
        length = len(next(iter(columns.values())))
        verdicts = [monitor.update({name: each[t] for name, each in columns.items()}) for t in range(length)]
        first = [verdict for verdict in verdicts if verdict.sample == 0]
        decided = next((t for t, verdict in enumerate(first) if verdict.satisfied is not None), None)
        last = next((verdict for verdict in monitor.finish() if verdict.sample == 0), first[-1])
        result = {
            "satisfied": last.satisfied,
            "robustness": last.lo,
            "lo": first[-1].lo,
            "hi": first[-1].hi,
            "decided_at": decided,
            "horizon": monitor.horizon,
        }
        rows = {
            "row": list(range(length)),
            "sample": [verdict.sample for verdict in verdicts],
            "lo": [verdict.lo for verdict in verdicts],
            "hi": [verdict.hi for verdict in verdicts],
        }
        return result, rows

    def code(self, result: Mapping[str, Any]) -> int:
        """1 where the trace violates the formula."""
        return int(not result["satisfied"])

    def render(self, result: Mapping[str, Any]) -> str:
        """For people."""
        if "specs" not in result:
            return self._verdict(result)
        parts = []
        for each in result["specs"]:
            head = f"{each['name']} ({each['severity']}, priority {each['priority']})"
            words = [f"  {each[key]}" for key in ("text", "why") if each[key]]
            lines = self._verdict(each).splitlines()
            parts.append("\n".join([head, *words, *(f"  {line}".rstrip() for line in lines)]))
        count = len(result["specs"])
        held = count - len(result["violated"])
        told = f"{held} of {count} satisfied" + "".join(f", {name} VIOLATED" for name in result["violated"])
        return "\n\n".join([*parts, told])

    def _verdict(self, result: Mapping[str, Any]) -> str:
        """One formula's, for people."""
        word = "satisfied" if result["satisfied"] else "VIOLATED"
        if self.online:
            known = f"robustness in [{result['lo']:.6g}, {result['hi']:.6g}] before the end"
            when = (
                "only at the end of the trace"
                if result["decided_at"] is None
                else f"from row {result['decided_at']}"
            )
            return f"{word} at sample 0, certain {when}: robustness {result['robustness']:.6g}, {known}"
        lines = [
            f"{word}: robustness {result['robustness'] + 0.0:.6g}"
            + (
                ", on the border (> and >= are one: compare flags with .5)"
                if result["robustness"] == 0.0
                else ""
            ),
            f"asked anew at each of the {result['samples']} samples, of it and what follows: violated at "
            f"{result['violated_samples']}, least {result['robustness_min']:.6g} at sample {result['least_at']}",
            "",
            result["plot"],
        ]
        if result["causes"]:
            lines += ["", "because of"]
            width = max(len(cause["text"]) for cause in result["causes"])
            for cause in result["causes"]:
                at = ", ".join(f"{a}" if a == b else f"{a} to {b}" for a, b in cause["samples"])
                lines.append(f"  {cause['text']:<{width}}  {cause['robustness']:>10.4g}  at {at}")
        return "\n".join(lines)


def command(arguments: Sequence[str]) -> Monitor:
    """The command that the arguments ask for."""
    return parse(Monitor, "monitor", arguments)


def _ranges(samples: Sequence[int]) -> list[tuple[int, int]]:
    """Runs of neighbours: [1, 2, 3, 7] -> [(1, 3), (7, 7)]."""
    runs: list[tuple[int, int]] = []
    for sample in samples:
        if runs and runs[-1][1] == sample - 1:
            runs[-1] = (runs[-1][0], sample)
        else:
            runs.append((sample, sample))
    return runs


def _plot(values: Sequence[float]) -> str:
    """Robustness over time as a line of bars, the least of each bar's samples, above a line that marks violations."""
    import math

    size = -(-len(values) // _WIDTH)
    least = [min(values[at : at + size]) for at in range(0, len(values), size)]
    finite = [value for value in least if math.isfinite(value)]
    if not finite:
        return "  infinite everywhere: the windows lie outside the trace"
    low, high = min(finite), max(finite)
    spread = (high - low) or 1.0
    heights = [min(max((value - low) / spread, 0.0), 1.0) for value in least]
    bars = "".join(_BARS[round(height * (len(_BARS) - 1))] for height in heights)
    marks = "".join("!" if value < 0.0 else " " for value in least)
    each = "a sample" if size == 1 else f"{size} samples"
    return f"  {bars}  {low:.4g} to {high:.4g}, {each} a bar\n  {marks}".rstrip()
