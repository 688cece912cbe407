"""The filter misses none of the latest names, mistakes few new ones, and takes no more memory than it says."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from phalanx.service.seen import Seen

CAPACITY = 1024


@given(parts=st.lists(st.integers(0, CAPACITY), max_size=12), seed=st.integers(0, 2**32 - 1))
def test_the_latest_are_never_missed(parts: list[int], seed: int) -> None:
    seen, added = Seen(CAPACITY), []
    rng = np.random.default_rng(seed)
    for size in parts:
        names = [rng.bytes(6).hex() for _ in range(size)]
        seen.add(names)
        added += names
        latest = added[-CAPACITY:]
        assert seen.among(latest) == latest


def test_few_that_are_new_are_mistaken_however_many_came() -> None:
    seen = Seen(CAPACITY)
    assert seen.among([]) == [] and seen.among(["a", ""]) == []
    for part in range(40):
        seen.add([f"{part}/{i}" for i in range(CAPACITY // 4)])
    new = [f"new {i}" for i in range(200_000)]
    # both generations are at most full: twice 6e-6 of them, and 8e-6 more because a filter so small has few pairs of
    # first place and step; 4 are expected (4.0 on average over 60 keys of the hash), and 25 not in 1e11 runs
    assert len(seen.among(new)) < 25
    assert len(seen.among([f"0/{i}" for i in range(CAPACITY // 4)])) < 10  # long ago
    assert sum(part.nbytes for part in seen._parts) == 8 * CAPACITY


def test_what_is_no_ascii_is_a_name_too() -> None:
    seen = Seen(CAPACITY)
    names = ["", "\u00e9", "\ud800", "\U0001f600", "a" * 10_000]
    seen.add(names)
    assert seen.among([*names, "e"]) == names
