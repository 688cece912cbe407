"""The course of a campaign: both sides beside each other, stages by name in an attack's order, every answer marked."""

from typing import Any

from analysis.runs import evaluation

from phalanx.analysis.report_course import course_figure

STAGES = ["initial_access", "execution", "credentials", "impact"]


def side(damage: list[float], verdict: list[int], stage: list[Any]) -> dict[str, list[Any]]:
    label = [int(at != -1) for at in stage]
    return {"cumulative_damage": damage, "verdict": verdict, "stage": stage, "label": label}


def course(**more: Any) -> dict[str, Any]:
    ours = side([0, 2, 2, 2], [0, 0, 3, 1], [-1, 0, 2, -1])
    theirs = side([0, 2, 8, 8, 38], [0, 0, 0, 0, 0], [-1, 0, 2, -1, 3])
    return {"course": {"committee": ours, "always-allow": theirs, **more}}


def drawn(figure: Any) -> dict[tuple[str, str], tuple[list[float], list[float]]]:
    """Points by name and vertical axis."""
    return {(trace["name"], trace["yaxis"]): (trace["x"], trace["y"]) for trace in figure.data}


def test_both_sides_show_damage_stages_and_answers() -> None:
    figure = course_figure(course(stages=STAGES))
    assert figure.title == "This campaign costs 2 under the committee, 38 when everything is allowed"
    assert drawn(figure) == {
        ("committee", "y"): ([0, 1, 2, 3], [0, 2, 2, 2]),
        ("alert", "y"): ([3], [2]),
        ("quarantine", "y"): ([2], [2]),
        ("allow", "y3"): ([1], [0]),
        ("quarantine", "y3"): ([2], [1]),
        ("always-allow", "y2"): ([0, 1, 2, 3, 4], [0, 2, 8, 8, 38]),
        ("allow", "y4"): ([1, 2, 4], [0, 1, 2]),
    }
    layout = figure.layout
    assert (
        layout["yaxis3"]["ticktext"]
        == layout["yaxis4"]["ticktext"]
        == ["initial access", "credentials", "impact"]
    )
    assert [note["text"] for note in layout["annotations"]] == ["under the committee", "everything allowed"]
    left, right = layout["xaxis"]["domain"], layout["xaxis2"]["domain"]
    assert left[1] < right[0] and abs((left[1] - left[0]) - (right[1] - right[0])) < 1e-9
    assert layout["xaxis2"]["matches"] == "x" and layout["yaxis2"]["matches"] == "y"


def test_answers_tell_what_they_answered_and_stand_in_the_legend_once() -> None:
    figure = course_figure(course(stages=STAGES))
    texts = {
        trace["name"]: trace["text"] for trace in figure.data if trace["yaxis"] == "y" and "text" in trace
    }
    assert texts == {"alert": ["alert: benign"], "quarantine": ["quarantine: malicious, credentials"]}
    listed = [trace["name"] for trace in figure.data if trace["showlegend"]]
    assert sorted(listed) == ["alert", "allow", "always-allow", "committee", "quarantine"]


def test_stages_without_names_are_numbered_from_one_and_named_ones_keep_their_names() -> None:
    assert course_figure(course()).layout["yaxis3"]["ticktext"] == ["stage 1", "stage 3", "stage 4"]
    named = side([1, 2], [0, 0], ["lateral_movement", "<b>impact</b>"])
    figure = course_figure({"course": {"committee": named, "always-allow": named}})
    assert figure.layout["yaxis3"]["ticktext"] == ["lateral movement", "&lt;b&gt;impact&lt;/b&gt;"]


def test_one_side_alone_takes_the_whole_width() -> None:
    found = course(stages=STAGES)
    del found["course"]["always-allow"]
    figure = course_figure(found)
    assert figure.layout["xaxis"]["domain"] == [0.0, 1.0] and "xaxis2" not in figure.layout
    assert figure.title.endswith("costs 2 under the committee")


def test_without_attack_events_there_are_no_rows_of_stages() -> None:
    calm = side([0, 0], [0, 1], [-1, -1])
    layout = course_figure({"course": {"committee": calm, "always-allow": calm}}).layout
    assert "yaxis3" not in layout and layout["yaxis"]["domain"] == [0.0, 1.0]


def test_nothing_evaluated_is_said() -> None:
    assert course_figure({}).data == () and "not evaluated yet" in course_figure({}).title
    assert course_figure(evaluation()).data
