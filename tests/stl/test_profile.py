"""The choices of the semantics, each as its example shows it: on whole traces, on streams, and in the manual."""

from pathlib import Path

import pytest

from phalanx.errors import DataError
from phalanx.stl import Monitor, robustness
from phalanx.stl.profile import PROFILE, PROFILE_X

MANUAL = Path(__file__).parents[2] / "docs" / "stl.md"


def _on_a_whole_trace(text: str) -> list[float]:
    return robustness(text, {"x": list(PROFILE_X)}).tolist()


def _on_a_stream(text: str) -> list[float]:
    monitor = Monitor(text)
    verdicts = [monitor.update({"x": x}) for x in PROFILE_X]
    known = [each for t, each in enumerate(verdicts) if monitor.horizon is not None and t >= monitor.horizon]
    return [verdict.lo for verdict in known + monitor.finish()]


@pytest.mark.parametrize("name", PROFILE)
def test_a_choice_is_what_its_example_shows(name: str) -> None:
    choice = PROFILE[name]
    if choice.values is None:
        for watch in (_on_a_whole_trace, _on_a_stream):
            with pytest.raises(DataError, match="no value"):
                watch(choice.example)
        return
    assert tuple(_on_a_whole_trace(choice.example)) == choice.values
    streamed = _on_a_stream(choice.example)
    assert tuple(streamed) == choice.values[: len(streamed)] and streamed


@pytest.mark.parametrize("name", PROFILE)
def test_the_manual_has_it(name: str) -> None:
    choice = PROFILE[name]
    assert f"| {name} | {choice.rule} | `{choice.example}` |" in MANUAL.read_text()
