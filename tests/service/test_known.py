"""What is kept of the latest decisions: never fewer than were asked for, and no gap between kept and passing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.service import known as known_module
from phalanx.service.known import Known
from phalanx.service.records import LiveDecision
from phalanx.verdicts import Verdict


def decision(name: str, score: float = 0.1) -> LiveDecision:
    return LiveDecision(name, 5, "h", "p", Verdict.ALLOW, (), True, score, False, {}, (), "m")


@pytest.mark.parametrize("at_once", [1, 3, 1024])
@given(fewest=st.integers(1, 9), parts=st.lists(st.integers(0, 12), max_size=30))
def test_the_latest_are_kept_and_the_others_are_passing(at_once: int, fewest: int, parts: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(known_module, "_AT_ONCE", at_once)
        keeps_what_it_says(fewest, parts)


def keeps_what_it_says(fewest: int, parts: list[int]) -> None:
    known, names = Known(fewest), list[str]()
    missing: list[tuple[int, set[str]]] = []  # by how many had been put: what was not passing then
    for part in parts:
        for _ in range(part):
            names.append(f"e{len(names)}")
            known.put(names[-1], len(names), decision(names[-1]), len(names))
        kept = [name for name in names if name in known]
        least = min(len(names), part + fewest)
        assert kept == names[len(names) - len(kept) :] and len(kept) >= least  # none went while it was put
        assert all(name in known for put, of in missing if len(names) - put < fewest for name in of)
        known.let_go()
        kept = [name for name in names if name in known]
        assert min(fewest, len(names)) <= len(kept) <= 2 * fewest + 3 * known._step + 12
        passing = set(known.passing.among(names))
        assert passing >= set(names) - set(kept)
        missing.append((len(names), set(names) - passing))


def test_a_later_decision_takes_the_place_of_an_earlier_one() -> None:
    known = Known(2)
    for name in ("a", "b"):
        known.put(name, 1, decision(name), 3)
    known.let_go()
    known.put("a", 7, decision("a", 0.9), 5)
    assert known["a"] == known.get("a") == (7, decision("a", 0.9), 5) and known["b"][0] == 1
    assert known.get("c") is None and "c" not in known
