"""Files of specifications: what they say, their order, and errors that point into the file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.errors import DataError, UsageError
from phalanx.stl import robustness
from phalanx.stl.specs import SEVERITIES, Spec, parse_specs, read_specs

FILE = """\
// limits of the cell
/* an old one:
@spec old
@no directive
x > 9 */
@spec late
@priority 2
@severity high
@text Threats are answered  // within
@text two seconds.
@why Damage doubles each minute; see http://example.org/a
@period 500ms
@scale threat 4
// the formula
hot = threat > 0;
always (hot -> eventually[0,2] answer > 0.5) // so far

   @spec few
   @priority   1
answer
/* @text no directive
*/ < 9

@spec rest
answer > -1
"""


def test_what_a_file_says() -> None:
    few, late, rest = parse_specs(FILE, "limits.stl")
    assert (late.name, late.priority, late.severity) == ("late", 2, "high")
    assert late.text == "Threats are answered  // within two seconds."
    assert late.why == "Damage doubles each minute; see http://example.org/a"
    assert (late.period_s, late.scales, late.source, late.line) == (0.5, {"threat": 4.0}, "limits.stl", 6)
    assert late.written == "hot = threat > 0;\nalways (hot -> eventually[0,2] answer > 0.5)"
    assert few.written.startswith("answer\n/*") and few.written.endswith("*/ < 9") and few.line == 18
    assert (rest.name, rest.priority, rest.severity, rest.text, rest.scales) == (
        "rest",
        100,
        "medium",
        "",
        {},
    )
    signals = {"threat": [8.0, 0.0], "answer": [-3.0, -1.0]}
    assert robustness(late.formula, signals).tolist() == [-1.5, 0.0]
    assert robustness(late.normalised, signals).tolist() == [-2.0, 0.0]
    assert robustness(few.normalised, signals).tolist() == [12 / 9, 10 / 9]


def test_equal_priorities_stay_in_order() -> None:
    text = "".join(
        f"@spec {name}\n@priority {rank}\nx\n" for name, rank in zip("dcba", (7, 3, 7, 3), strict=True)
    )
    assert [spec.name for spec in parse_specs(text)] == ["c", "a", "d", "b"]


@given(
    st.integers(1, 999),
    st.sampled_from(SEVERITIES),
    st.lists(st.text("ab /*@", min_size=1).map(str.strip).filter(bool)),
)
def test_what_is_written_is_read(priority: int, severity: str, words: list[str]) -> None:
    lines = [f"@priority {priority}", f"@severity {severity}", *(f"@text {line}" for line in words)]
    (spec,) = parse_specs("\r\n".join(["@spec a", *lines, "x > 1", ""]))
    assert (spec.priority, spec.severity, spec.text) == (priority, severity, " ".join(words))


def test_an_error_in_evaluation_counts_lines_as_the_file_does() -> None:
    few, late, _ = parse_specs(FILE)
    with pytest.raises(UsageError, match="line 16, column 16: the bound 2 s of eventually") as caught:
        robustness(late.formula, {"threat": [1.0], "answer": [1.0]}, period=3)
    assert caught.value.__notes__[0].splitlines()[0].strip() == FILE.splitlines()[15]


@pytest.mark.parametrize(
    ("text", "place", "told"),
    [
        ("", "column 1", "expected '@spec NAME'"),
        ("// nothing\n", "line 1, column 1", "expected '@spec NAME'"),
        ("x > 0", "column 1", "expected '@spec NAME'"),
        ("x > 0\n@spec a\nx", "line 1, column 1", "expected '@spec NAME'"),
        ("@priority 3\n@spec a\nx", "line 1, column 1", "expected '@spec NAME'"),
        ("@spec\nx", "line 1, column 6", "a spec's name is letters, digits and _"),
        ("@spec 2nd\nx", "line 1, column 7", "not '2nd'"),
        ("@spec a b\nx", "line 1, column 7", "not 'a b'"),
        ("@spec é\nx", "line 1, column 7", "not 'é'"),
        ("@spec a", "column 1", "spec 'a' has no formula"),
        ("@spec a\n/* x */\n@spec b\nx", "line 1, column 1", "spec 'a' has no formula"),
        ("@spec a\nx\n@spec a\ny", "line 3, column 7", "spec 'a' is also defined at f.stl, line 1"),
        ("@spec a\nx\n  @why so\n", "line 3, column 3", "before the formula; move it up"),
        ("@spec a\n@sevrity high\nx", "line 2, column 1", "did you mean '@severity'?"),
        ("@spec a\n@ text b\nx", "line 2, column 1", "unknown directive '@'; choose one of: @spec, @priority"),
        ("@spec a\n@severity hihg\nx", "line 2, column 11", "info, low, medium, high, critical; did you mean 'high'"),
        ("@spec a\n@severity\nx", "line 2, column 10", "unknown severity ''"),
        *(
            (f"@spec a\n@priority {n}\nx", "line 2, column 11", "a whole number from 1")
            for n in ("0", "-1", "1.5", "x", "٣")
        ),
        ("@spec a\n@priority 1\n@priority 1\nx", "line 3, column 11", "@priority is given twice"),
        ("@spec a\n@text \nx", "line 2, column 7", "expected words"),
        ("@spec a\n@period 0s\nx", "line 2, column 9", "'0s' is no time"),
        ("@spec a\n@period .3ns\nx", "line 2, column 9", "whole nanoseconds"),
        *(
            (f"@spec a\n@scale {s}\nx", "line 2, column 8", "'@scale SIGNAL NUMBER'")
            for s in ("x", "x 0", "x -1", "x nan", "x y", "x 1 2")
        ),
        ("@spec a\n@scale lod 1\nload > 3", "line 2, column 8", "unknown signal 'lod'; choose one of: load"),
        ("@spec a\n@scale x 1\n@scale x 1\nx", "line 3, column 8", "'x' has two scales"),
        ("@spec a\n\nx >\n > 3", "line 4, column 2", "expected a formula, found '>'"),
        ("@spec a\nx >\n\n@spec b\nx", "line 2, column 4", "expected a formula, found the end"),
        ("@spec a\n(x > 3", "line 2, column 7", "for the '(' at line 2, column 1"),
        ("@spec a\nx > 3; y", "line 2, column 1", "followed by another"),
        ("@spec a\nx > @y", "line 2, column 5", "'@' is no part of the language"),
        ("@spec a\nx /* open\n@spec b\nx", "line 2, column 3", "a comment without an end"),
        ("@spec a\nG[0,1.5] x", "line 2, column 1", "no multiple of the sampling period, 1 s"),
        ("@spec a\n@period 400ms\nx and\nsum(x, 1) > 0", "line 4, column 1", "the bound 1 s of sum is no multiple"),
    ],
)  # fmt: skip
def test_an_error_points_into_the_file(text: str, place: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_specs(text, "f.stl")
    assert str(caught.value).startswith(f"f.stl: {place}: ") and told in str(caught.value)
    (note,) = caught.value.__notes__
    line, caret = note.split("\n")
    assert line[2:] in text.split("\n")
    assert len(caret) == 2 + int(place.split("column ")[1])


def test_files_and_folders(tmp_path: Path) -> None:
    (tmp_path / "b.stl").write_text("@spec second\nx > 1\n@spec first\n@priority 1\nx")
    (tmp_path / "a.stl").write_bytes(b"\xef\xbb\xbf@spec third\r\nx > 2\r\n")
    (tmp_path / "c.txt").write_text("no spec")
    assert [spec.name for spec in read_specs(tmp_path / "b.stl")] == ["first", "second"]
    specs = read_specs(tmp_path)
    assert [(spec.name, Path(spec.source).name) for spec in specs] == [
        ("first", "b.stl"),
        ("third", "a.stl"),
        ("second", "b.stl"),
    ]
    (tmp_path / "d.stl").write_text("\n@spec third\nx")
    with pytest.raises(UsageError, match=r"d\.stl: line 2, column 7: .*also defined at .*a\.stl, line 1"):
        read_specs(tmp_path)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the specifications"):
        read_specs(tmp_path / "none.stl")
    with pytest.raises(UsageError, match="no .stl file in this folder"):
        read_specs(tmp_path)
    (tmp_path / "bad.stl").write_bytes(b"@spec a\n\xff")
    with pytest.raises(DataError, match="not UTF-8"):
        read_specs(tmp_path / "bad.stl")


def test_the_manuals_example_is_one() -> None:
    manual = (Path(__file__).parents[2] / "docs" / "stl.md").read_text()
    (spec,) = parse_specs(
        next(block for block in manual.split("```") if "@spec" in block).removeprefix("text")
    )
    assert (spec.name, spec.severity, spec.scales) == ("contain", "critical", {"threat": 0.1})


def test_a_spec_is_a_value() -> None:
    (one,), (other,) = parse_specs("@spec a\n@scale x 2\nx"), parse_specs("@spec a\n@scale x 2\nx")
    assert one == other and len({one, other}) == 1
    assert Spec("a", one.formula).severity == "medium"
