"""The verb that checks a trace: verdicts, exit codes, and one clear error for each bad input."""

import json
from pathlib import Path

import polars as pl
import pytest

from phalanx.cli import main
from phalanx.runtime.specifications import shipped_specs
from phalanx.stl import read_specs

SPEC = "always (threat > 0 -> eventually[0,2] contained > 0)"
THREAT = [-1, 1, -1, -1, 1, -1, -1, -1, -1]
CONTAINED = [-1, -1, -1, 1, -1, -1, -1, -1, -1]


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "trace.csv"
    pl.DataFrame({"time": range(9), "threat": THREAT, "contained": CONTAINED}).write_csv(path)
    return path


def test_a_violation_is_a_finding_with_its_cause(trace: Path, capsys) -> None:
    assert main(["monitor", SPEC, "--trace", str(trace), "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["satisfied"] is False and found["robustness"] == found["robustness_min"] == -1
    assert found["violated_samples"] == 5 and found["samples"] == 9 and found["period_s"] == 1
    assert [(c["text"], c["samples"]) for c in found["causes"]] == [
        ("threat > 0", [[4, 4]]),
        ("contained > 0", [[4, 6]]),
    ]


def test_people_get_a_verdict_a_plot_and_the_reason(trace: Path, capsys) -> None:
    assert main(["monitor", SPEC, "--trace", str(trace)]) == 1
    out = capsys.readouterr().out
    assert out.startswith(
        "VIOLATED: robustness -1\nasked anew at each of the 9 samples, of it and what follows: violated at 5"
    )
    assert "!!!!!" in out and "contained > 0          -1  at 4 to 6" in out


def test_what_holds_is_no_finding(trace: Path, capsys) -> None:
    assert (
        main(["monitor", "always (threat > 0 -> eventually[0,4] contained < 0)", "--trace", str(trace)]) == 0
    )
    assert capsys.readouterr().out.startswith("satisfied")


def test_a_stream_is_decided_as_soon_as_it_is_certain(trace: Path, capsys, tmp_path: Path) -> None:
    out = tmp_path / "verdicts.parquet"
    arguments = ["monitor", SPEC, "--trace", str(trace), "--online", "--out", str(out)]
    assert main([*arguments, "--json"]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["satisfied"] is False and found["decided_at"] == 6 and found["horizon"] is None
    inf = float("inf")
    assert pl.read_parquet(out)["hi"].to_list() == [inf, inf, 1, 1, 1, 1, -1, -1, -1]
    assert pl.read_parquet(out)["row"].to_list() == list(range(9))
    assert main(["monitor", "always threat > -2", "--trace", str(trace), "--online"]) == 0
    told = capsys.readouterr().out
    assert told.startswith("satisfied at sample 0, certain only at the end of the trace: robustness 1, ")
    assert told.endswith("robustness in [-inf, 1] before the end\n")
    assert (
        main(["monitor", "threat + 1 > 0", "--trace", str(trace), "--online"]) == 0
    )  # 0 is satisfied, as without
    assert main(["monitor", "threat + 1 > 0", "--trace", str(trace)]) == 0


def test_robustness_of_each_row_is_written(trace: Path, tmp_path: Path) -> None:
    out = tmp_path / "robustness.csv"
    assert main(["monitor", "eventually[0,1] threat > 0", "--trace", str(trace), "--out", str(out)]) == 0
    assert pl.read_csv(out)["robustness"].to_list() == [1, 1, -1, 1, 1, -1, -1, -1, -1]


@pytest.mark.parametrize("suffix", [".csv", ".ndjson", ".parquet", ".arrow"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"trace{suffix}"
    table = pl.DataFrame({"time_ns": [0, 100_000_000, 200_000_000], "x": [1.0, 2.0, -3.0]})
    {
        ".csv": table.write_csv,
        ".ndjson": table.write_ndjson,
        ".parquet": table.write_parquet,
        ".arrow": table.write_ipc,
    }[suffix](path)
    assert main(["monitor", "always[0,100ms] x > 0", "--trace", str(path)]) == 0
    assert main(["monitor", "always[0,200ms] x > 0", "--trace", str(path)]) == 1


@pytest.mark.parametrize(
    ("rows", "spec", "flags", "code", "told"),
    [
        ({"x": [1]}, "x > > 0", [], 2, "column 5: expected a formula"),
        ({"x": [1]}, "y > 0", [], 2, "has no column 'y', which the formula reads; it has: x"),
        ({"x": [1, 2]}, "F[0,500ms] x > 0", [], 2, "no multiple of the sampling period, 1 s"),
        ({"x": [1, 2]}, "F[0,500ms] x > 0", ["--period", "300ms"], 2, "0.3 s"),
        ({"x": [1]}, "x > 0", ["--period", "soon"], 2, "'soon' is no time; expected one such as 1s"),
        ({"x": [1.0, None], "y": [1, 2]}, "x > 0", [], 3, "row 2 (from 1), column 'x': nothing is no number"),
        ({"x": ["1", "b"]}, "x > 0", [], 3, "row 2 (from 1), column 'x': 'b' is no number"),
        ({"x": [1.0, float("nan")]}, "x > 0", ["--online"], 3, "row 2 (from 1), column 'x'"),
        ({"x": [1], "y": [1]}, "y = 1", [], 2, "'y' is defined in the formula and a column"),
        ({"time": [0, 2, 1], "x": [1, 2, 3]}, "x > 0", [], 3, "does not ascend at row 3"),
        ({"time": [0, 1, 3], "x": [1, 2, 3]}, "x > 0", ["--period", "1s"], 3, "row 3 (from 1) is 2 s after"),
        ({"time": ["a", "b"], "x": [1, 2]}, "x > 0", [], 3, "'time' is to hold a number"),
        ({"x": []}, "x > 0", [], 3, "without rows"),
        ({"x": [1, 0]}, "1 / x > 0", [], 3, "'1 / x' has no value at sample 1"),
        ({"x": [1, 0]}, "1 / x > 0", ["--online"], 3, "'1 / x' has no value at sample 1"),
        ({"x": [1, 0]}, "G F x > 0", ["--online"], 2, "has no bound"),
        ({"x": [1], "y": [1]}, "y = x > 0; y", [], 2, "'y' is defined in the formula and a column"),
        ({"x": [1]}, "x > 0", ["--name", "a"], 2, "give that file as SPEC"),
        ({"x": [1, 0]}, "rate(x, x - 1, 0) > 0", [], 3, "give rate a fourth argument"),
        ({"x": [1, 0]}, "rate(x, x - 1, 0) > 0", ["--online"], 3, "give rate a fourth argument"),
        ({"x": [1, 0]}, "sum(x, 500ms) > 0", [], 2, "the bound 0.5 s of sum is no multiple"),
        ({"x": [1, 0]}, "sum(x, 2) > sum(x)", [], 2, "column 13: sum takes 2 argument(s)"),
    ],
)
def test_bad_input_gets_one_clear_error(
    tmp_path: Path, capsys, rows: dict[str, list], spec: str, flags: list[str], code: int, told: str
) -> None:
    path = tmp_path / "trace.csv"
    pl.DataFrame(rows).write_csv(path)
    assert main(["monitor", spec, "--trace", str(path), *flags]) == code
    shown = capsys.readouterr()
    assert told in shown.err and not shown.out
    assert shown.err.count("phalanx: error:") == 1


SPECS = f"""\
@spec late
@priority 2
@text Threats are contained.
@why Damage doubles.
{SPEC}

@spec few
@severity high
@priority 1
always sum(contained, 3) < 5
"""


@pytest.fixture
def specs(tmp_path: Path) -> Path:
    path = tmp_path / "limits.stl"
    path.write_text(SPECS)
    return path


def test_all_specifications_of_a_file(trace: Path, specs: Path, capsys, tmp_path: Path) -> None:
    out = tmp_path / "robustness.csv"
    assert main(["monitor", str(specs), "--trace", str(trace), "--json", "--out", str(out)]) == 1
    found = json.loads(capsys.readouterr().out)
    assert found["satisfied"] is False and found["violated"] == ["late"] and found["spec"] == str(specs)
    few, late = found["specs"]
    assert (few["name"], few["severity"], few["priority"], few["satisfied"]) == ("few", "high", 1, True)
    assert main(["monitor", SPEC, "--trace", str(trace), "--json"]) == 1
    alone = json.loads(capsys.readouterr().out)
    assert {key: late[key] for key in alone if key != "out"} == {
        key: alone[key] for key in alone if key != "out"
    }
    rows = pl.read_csv(out)
    assert rows["spec"].to_list() == ["few"] * 9 + ["late"] * 9
    assert rows["robustness"][9] == -1 and rows["sample"].to_list() == [*range(9), *range(9)]


def test_people_are_told_of_each_specification(trace: Path, specs: Path, capsys) -> None:
    assert main(["monitor", str(specs), "--trace", str(trace)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("few (high, priority 1)\n  satisfied: robustness 6\n")
    assert (
        "late (medium, priority 2)\n  Threats are contained.\n  Damage doubles.\n  VIOLATED: robustness -1\n"
        in out
    )
    assert out.endswith("1 of 2 satisfied, late VIOLATED\n")
    assert main(["monitor", str(specs), "--trace", str(trace), "--online"]) == 1
    assert "VIOLATED at sample 0, certain from row 6" in capsys.readouterr().out


def test_one_specification_of_a_file(trace: Path, specs: Path, capsys) -> None:
    assert main(["monitor", str(specs), "--name", "few", "--trace", str(trace), "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)["specs"]] == ["few"]
    assert main(["monitor", str(specs), "--name", "lat", "--trace", str(trace)]) == 2
    assert "choose one of: few, late; did you mean 'late'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", shipped_specs())
def test_specifications_that_come_with_phalanx_have_names(name: str, tmp_path: Path, capsys) -> None:
    trace, specs = tmp_path / "trace.csv", read_specs(shipped_specs()[name])
    signals = {signal for spec in specs for signal in spec.formula.signals}
    pl.DataFrame({signal: [0.0, 1.0, 0.0] for signal in signals}).write_csv(trace)
    code = main(["monitor", name, "--trace", str(trace), "--json"])
    by_name = json.loads(capsys.readouterr().out)
    assert main(["monitor", str(shipped_specs()[name]), "--trace", str(trace), "--json"]) == code
    by_path = json.loads(capsys.readouterr().out)
    assert [each["name"] for each in by_name["specs"]] == [spec.name for spec in specs]
    assert {**by_name, "spec": ""} == {**by_path, "spec": ""} and by_name["spec"] == name
    assert main(["monitor", name, "--name", specs[0].name, "--trace", str(trace), "--json"]) in (0, 1)
    assert [each["name"] for each in json.loads(capsys.readouterr().out)["specs"]] == [specs[0].name]


def test_a_folder_and_names_that_are_signals(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in ("limits", "limits.stl", "a/b"):
        Path(folder).mkdir(parents=True)
        assert main(["monitor", folder, "--trace", "trace.csv"]) == 2
        told = f"{folder}: a folder; name one .stl file in it, or write ({folder}) if it is a signal"
        assert told in capsys.readouterr().err
    pl.DataFrame({"limits": [1], "office": [-2], "a/b": [3]}).write_csv("trace.csv")
    for name, value in (("limits", 1), ("office", -2), ("a/b", 3)):
        main(["monitor", f"({name})", "--trace", "trace.csv", "--json"])
        assert json.loads(capsys.readouterr().out)["robustness"] == value
    assert main(["monitor", "office", "--trace", "trace.csv"]) == 2
    assert "has no column 'alerted'" in capsys.readouterr().err
    long = "always (" + " + ".join(["limits"] * 60) + " > 0)"  # longer than a file's name may be
    assert main(["monitor", long, "--trace", "trace.csv"]) == 0


def test_the_period_is_the_traces_then_that_of_the_specification(tmp_path: Path, capsys) -> None:
    path, specs = tmp_path / "trace.csv", tmp_path / "limits.stl"
    specs.write_text("@spec fast\n@period 100ms\nalways[0,200ms] x > 0\n@spec slow\neventually[0,1] x < 0")

    def periods(*flags: str) -> list[float]:
        assert main(["monitor", str(specs), "--trace", str(path), "--json", *flags]) in (0, 1)
        return [each["period_s"] for each in json.loads(capsys.readouterr().out)["specs"]]

    pl.DataFrame({"x": [1, 2, -3]}).write_csv(path)
    assert periods() == [0.1, 1.0] and periods("--period", "50ms") == [0.05, 0.05]
    pl.DataFrame({"time": [0.0, 0.2, 0.4], "x": [1, 2, -3]}).write_csv(path)
    assert periods() == [0.2, 0.2]


@pytest.mark.parametrize(
    ("rows", "text", "flags", "code", "told"),
    [
        ({"x": [1]}, "@spec a\nx >\n", [], 2, "limits.stl: line 2, column 4: expected a formula, found the end"),
        ({"x": [1]}, "@spec a\n@why\nx", [], 2, "limits.stl: line 2, column 5: expected words"),
        ({"x": [1]}, "x > 0", [], 2, "expected '@spec NAME'"),
        ({"x": [1]}, "@spec a\nx\n@spec b\ny", [], 2, "has no column 'y'"),
        ({"x": [1, 2]}, "@spec a\nF[0,500ms] x", [], 2, "line 2, column 1: the bound 0.5 s"),
        ({"x": [1]}, "@spec a\nx\n\n@spec b\nF[0,1] x", ["--period", "300ms"], 2, "spec 'b': line 5, column 1:"),
        ({"x": [1]}, "@spec a\nG F x", ["--online"], 2, "spec 'a': line 2, column 3: F has no bound"),
        ({"x": [0]}, "@spec a\n1 / x > 0", [], 3, "spec 'a': line 2, column 3: '1 / x' has no value at sample 0"),
        ({"x": [0]}, "@spec a\n1 / x > 0", ["--online"], 3, "spec 'a': line 2, column 3: '1 / x' has no value"),
        ({"x": [1.0, None], "y": [1, 2]}, "@spec a\nx > 0", [], 3, "row 2 (from 1), column 'x'"),
        ({"time": [0, 2, 1], "x": [1, 2, 3]}, "@spec a\nx > 0", [], 3, "does not ascend at row 3"),
        ({"x": [1], "y": [1]}, "@spec a\ny = x; y", [], 2, "spec 'a': 'y' is defined in the formula and a column"),
    ],
)  # fmt: skip
def test_a_file_with_a_fault_gets_one_clear_error(
    tmp_path: Path, capsys, rows: dict[str, list], text: str, flags: list[str], code: int, told: str
) -> None:
    path, specs = tmp_path / "trace.csv", tmp_path / "limits.stl"
    pl.DataFrame(rows).write_csv(path)
    specs.write_text(text)
    assert main(["monitor", str(specs), "--trace", str(path), *flags]) == code
    shown = capsys.readouterr()
    assert told in shown.err and not shown.out
    assert shown.err.count("phalanx: error:") == 1


def test_files_that_cannot_be_read_or_written(trace: Path, tmp_path: Path, capsys) -> None:
    assert main(["monitor", "x", "--trace", str(tmp_path / "none.csv")]) == 3
    before = trace.read_bytes()
    assert main(["monitor", "threat", "--trace", str(trace), "--out", str(trace)]) == 2
    assert trace.read_bytes() == before and "is the trace itself" in capsys.readouterr().err
    (tmp_path / "torn.csv").write_text("x,y\n1,2\n3\n")
    assert main(["monitor", "x", "--trace", str(tmp_path / "torn.csv")]) == 3
    assert "row 2 (from 1) cannot be read: 1 fields" in capsys.readouterr().err
    assert main(["monitor", "threat", "--trace", str(trace), "--out", str(tmp_path / "out.txt")]) == 2
    (tmp_path / "broken.parquet").write_bytes(b"no parquet")
    assert main(["monitor", "x", "--trace", str(tmp_path / "broken.parquet")]) == 3
    assert capsys.readouterr().err.count("phalanx: error:") == 2
    assert main(["monitor", "none.stl", "--trace", str(trace)]) == 3
    assert "none.stl: cannot read the specifications" in capsys.readouterr().err
