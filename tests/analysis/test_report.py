"""The report says what the files say, says what is missing, and lets no data become markup."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from analysis.runs import CURVES, evaluation, write_run
from hypothesis import given, settings
from hypothesis import strategies as st

from phalanx.analysis import report_page
from phalanx.analysis.report import write_report
from phalanx.analysis.report_course import course_figure
from phalanx.analysis.report_data import load_report, number, series
from phalanx.analysis.report_figures import learning_figures, show
from phalanx.errors import RunError

VOID = {"meta", "link", "br", "img", "input", "hr"}


class Reader(HTMLParser):
    """Checks that elements nest, and collects elements and visible text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.words.append(data)


def read(path: Path) -> tuple[Reader, str]:
    reader = Reader()
    reader.feed(path.read_text())
    reader.close()
    assert not reader.open
    return reader, re.sub(r"\s+", " ", " ".join(reader.words))


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "a run")


def test_says_the_outcome_in_words(run: Path) -> None:
    assert write_report(run) == run / "report.html"
    _, words = read(run / "report.html")
    assert "Detects better than every baseline" in words
    assert "It finds 87.8 % of the malicious events; 91.6 % of its alarms are right (F1 0.9)." in words
    assert "prevents 91.0 % of the preventable damage and leaves 99.87 % of benign work undisturbed" in words
    assert "Trained for 40 iterations, 40,000 events in all." in words
    assert "48,211" in words and "87.8 % caught" in words
    assert "Value loss fell from" in words
    assert "The charts need JavaScript; tables and words do not." in words


def test_how_often_a_shield_changed_a_verdict_is_said_where_there_was_one(run: Path) -> None:
    assert "Verdicts that the shield changed 3.1 %" in read(write_report(run))[1]
    (run / "eval.json").write_text(json.dumps({**evaluation(), "shield": None}))
    assert "the shield changed" not in read(write_report(run))[1]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"f1": 0.5}, "Detects no better than <script>boom()</script> (F1 0.6)."),
        ({"recall": 0.0, "f1": 0.0}, "No malicious event is found."),
        ({"recall": None, "f1": None}, "Detection cannot be judged."),
        ({"damage_prevented": -0.1}, "No better than doing nothing."),
        ({"baselines": {}}, "Evaluated, without baselines to compare with."),
        ({"baselines": {"oracle": {"f1": 1.0}}}, "Evaluated, without baselines to compare with."),
    ],
)
def test_headline_follows_the_evaluation(run: Path, change: dict, sentence: str) -> None:
    (run / "eval.json").write_text(json.dumps({**evaluation(), **change}))
    assert sentence in read(write_report(run))[1]


def test_nothing_from_the_data_becomes_markup_and_nothing_points_outside(run: Path) -> None:
    text = write_report(run).read_text()
    reader, words = read(run / "report.html")
    assert "boom()" in words and "<script>boom" not in text and "<img" not in text
    assert [attrs.get("type") for tag, attrs in reader.elements if tag == "script"] == [
        "application/json",
        "application/octet-stream",
        None,
    ]
    assert "://" not in text
    assert all(attrs.get("src") is None for _, attrs in reader.elements)
    assert {attrs["href"] for _, attrs in reader.elements if "href" in attrs} == {"data:,"}


def test_every_figure_on_the_page_has_its_data(run: Path) -> None:
    text = write_report(run).read_text()
    found = re.search(r'<script type="application/json" id="figures">(.*?)</script>', text, re.S)
    assert found
    figures = json.loads(found[1])
    places = {
        attrs["data-figure"] for _, attrs in read(run / "report.html")[0].elements if "data-figure" in attrs
    }
    assert places == set(figures) and len(places) == CURVES + 1
    assert all(len(trace["x"]) == len(trace["y"]) > 0 for f in figures.values() for trace in f["data"])


def test_curves_hold_the_logged_numbers(run: Path) -> None:
    report = load_report(run)
    figure = next(f for f in learning_figures(report) if f.name == "explained_variance")
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    mean = figure.data[-1]
    assert mean["x"] == [row["iteration"] for row in rows]
    assert mean["y"] == [row["value/explained_variance"] for row in rows]
    assert [trace["y"] for trace in figure.data[:-1]] == [
        [row[f"member/{m}/value/explained_variance"] for row in rows] for m in range(4)
    ]


def test_a_log_with_members_only_gets_their_mean(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(
        '{"iteration": 1, "member/0/loss/value": 1, "member/1/loss/value": 3}'
    )
    figure = learning_figures(load_report(tmp_path))[0]
    assert [trace["y"] for trace in figure.data] == [[1.0], [3.0], [2.0]]


def test_spikes_survive_thinning(tmp_path: Path) -> None:
    rows = [{"iteration": i, "loss/value": 1e4 if i == 1234 else 1.0 + i % 2} for i in range(5000)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    trace = learning_figures(load_report(tmp_path))[0].data[0]
    assert len(trace["x"]) < 500 and (1234, 1e4) in zip(trace["x"], trace["y"], strict=True)
    assert (trace["x"][0], trace["x"][-1]) == (0, 4999)


def test_seeds_are_averaged_with_their_range(tmp_path: Path) -> None:
    for seed, f1 in enumerate([0.7, 0.8, 0.9]):
        write_run(tmp_path / f"seed-{seed}", seed=seed, iterations=5 + seed, f1=f1)
    _, words = read(write_report(tmp_path))
    assert "Trained for 5 to 7 iterations for each of 3 seeds" in words
    assert "Mean over 3 seeds; the band spans the lowest to the highest seed." in words
    assert "(F1 0.8)" in words and "means over seeds" in words
    for cell in ("interquartile mean 0.800", "worst seed 0.700", "seed-2 0.900"):
        assert cell in words
    report = load_report(tmp_path)
    low, high, mean = next(f for f in learning_figures(report) if f.name == "kl").data
    values = [series(run, "policy/approx_kl")[1] for run in report.runs]
    assert (low["y"][2], high["y"][2]) == (min(v[2] for v in values), max(v[2] for v in values))
    assert mean["y"][2] == pytest.approx(sum(v[2] for v in values) / 3)
    assert mean["y"][-1] == values[2][-1]  # only the longest run has this iteration


def test_the_parents_table_comes_first(tmp_path: Path) -> None:
    write_run(tmp_path / "seed-0")
    write_run(tmp_path / "seed-10", f1=None)
    write_run(tmp_path / "seed-9", f1=None)
    (tmp_path / "eval.json").write_text(
        json.dumps({"f1": 0.25, "recall": 0.5, "per_seed": [{"seed": 5, "f1": 0.25}]})
    )
    assert "(F1 0.25)" in read(write_report(tmp_path))[1]
    assert [run.name for run in load_report(tmp_path).runs] == ["seed-0", "seed-9", "seed-10"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "metrics.jsonl is missing, empty or torn"),
        ("", "metrics.jsonl holds no readable iteration"),
        ('{"iteration": 1, "loss/v', "line 1 could not be read"),
        ('{"iteration": 1}\n[1]\n{"it', "2 lines, the first at 2 could not be read"),
        ('{"iteration": 1}\n{"iteration": 1, "loss/value": 2}', "1 iterations were logged again"),
        (
            '{"iteration": 1, "loss/value": 2}\n{"iteration": 2, "loss/value": null}',
            "Not finite in 1 logged values",
        ),
        ('{"iteration": 1, "loss/value": NaN}', "Not logged in this run: Value loss"),
        ("\x00\udcff\n", "line 1 could not be read"),
    ],
)
def test_damaged_logs_are_described(tmp_path: Path, content: str | None, words: str) -> None:
    (tmp_path / "checkpoints").mkdir()
    if content is not None:
        (tmp_path / "metrics.jsonl").write_bytes(content.encode("utf-8", "surrogateescape"))
    found = read(write_report(tmp_path))[1]
    assert words in found and "Not evaluated yet" in found


@pytest.mark.parametrize("name", ["config.json", "eval.json"])
@pytest.mark.parametrize("content", ["{", "[]", "7", '{"a": ' * 100_000])
def test_damaged_objects_are_described(run: Path, name: str, content: str) -> None:
    (run / name).write_text(content)
    words = read(write_report(run))[1]
    assert "Read with care" in words and name in words


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds none of config.json"):
        write_report(tmp_path)
    with pytest.raises(RunError, match="is not a folder"):
        write_report(tmp_path / "nowhere")
    assert not list(tmp_path.iterdir())


def test_an_interrupted_write_leaves_the_old_page(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = write_report(run).read_text()
    names = sorted(run.iterdir())

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_report(run)
    assert (run / "report.html").read_text() == before
    assert sorted(run.iterdir()) == names


def test_the_same_run_gives_the_same_page(run: Path) -> None:
    assert write_report(run).read_bytes() == write_report(run).read_bytes()


def test_course_without_numbers_of_events() -> None:
    figure = course_figure(
        {"course": {"committee": {"cumulative_damage": [0, None, 2.5], "verdict": ["block"]}}}
    )
    assert figure.title == "This campaign costs 2.5 under the committee"
    line, marks = figure.data
    assert (line["x"], line["y"], marks["x"]) == ([0.0, 2.0], [0.0, 2.5], [0.0])


words = st.text(max_size=8) | st.sampled_from(["<script>", "</script>", "f1", "\ud800", "course", "%{x}"])
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | words | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=8,
)
KEYS = (*evaluation(), "per_seed", "contained_share")
LOGGED = (
    "iteration",
    "env_steps",
    "loss/value",
    "member/0/loss/value",
    "policy/first_ratio_error",
    "eval/f1",
)
courses = st.fixed_dictionaries(
    {
        "committee": st.dictionaries(
            st.sampled_from(("event", "cumulative_damage", "verdict", "label")), json_values
        )
    }
)


@settings(max_examples=60)
@given(
    st.dictionaries(st.sampled_from(KEYS) | words, json_values | courses, max_size=6),
    st.lists(st.dictionaries(st.sampled_from(LOGGED), json_values, max_size=4), max_size=5),
    json_values,
)
def test_whatever_the_files_hold_a_page_is_written(
    tmp_path_factory: pytest.TempPathFactory, found: dict, rows: list, config: object
) -> None:
    folder = tmp_path_factory.mktemp("run")
    (folder / "eval.json").write_text(json.dumps(found))
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, rows)))
    reader, _ = read(write_report(folder))
    assert sum(tag == "script" for tag, _ in reader.elements) in (1, 3)


@given(st.floats(allow_nan=False, allow_infinity=False, min_value=1e-12, max_value=1e12))
def test_shown_numbers_keep_three_digits(value: float) -> None:
    assert float(show(value).replace(",", "")) == pytest.approx(value, rel=0.051)
    assert show(-value) == f"-{show(value)}"


def test_numbers_that_json_can_hold_but_floats_cannot() -> None:
    assert number(10**400) is None and number(float("inf")) is None and number(None) is None


def test_embedded_json_cannot_end_its_script() -> None:
    value = {"a": "</script><!--&\u2028"}
    text = report_page._embedded(value)
    assert "<" not in text and "&" not in text and json.loads(text) == value
