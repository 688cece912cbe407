"""Whose signatures count when: the file of public keys."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service.ledgers import key_of

from phalanx.errors import DataError, UsageError
from phalanx.service.members import MemberKey, Members

A, B, C = (key_of(number).public for number in range(3))


def file_of(members: Any) -> dict[str, Any]:
    return {"format": "phalanx-members-1", "members": members}


def test_the_file_says_what_it_says(tmp_path: Path) -> None:
    path = tmp_path / "members.json"
    path.write_text(
        json.dumps(
            file_of(
                {"a": [{"public": A, "from": 1, "until": 9}, {"public": B, "from": 10}], "b": [{"public": C}]}
            )
        )
    )
    members = Members.load(path)
    assert [members.public("a", height) for height in (1, 9, 10, 10**9)] == [A, A, B, B]
    assert members.public("b", 1) == C and members.public("c", 1) is None and members.public("a", 0) is None
    assert members.knows("a") and not members.knows("c") and members.at(5) == ("a", "b")
    members.save(tmp_path / "again.json")
    assert Members.load(tmp_path / "again.json") == members


@given(st.lists(st.integers(1, 50), unique=True, max_size=6), st.integers(1, 60))
def test_replacements_leave_one_key_a_height(heights: list[int], height: int) -> None:
    members = Members.of({"a": key_of(0).public})
    keys = {0: key_of(0).public}
    for number, first in enumerate(sorted(heights), start=1):
        if first == 1:
            with pytest.raises(UsageError, match="later"):
                members.replaced("a", key_of(number).public, first)
            continue
        keys[first] = key_of(number).public
        members = members.replaced("a", keys[first], first)
    assert members.public("a", height) == keys[max(first for first in keys if first <= height)]
    assert members.at(height) == ("a",)
    assert Members.from_json(members.to_json()) == members


@pytest.mark.parametrize(("n", "needed"), [(1, 1), (3, 1), (4, 2), (6, 2), (7, 3), (10, 4)])
def test_one_more_signature_than_liars_is_needed(n: int, needed: int) -> None:
    assert Members.of({f"m{number}": key_of(number).public for number in range(n)}).needed(5) == needed


def test_members_join_and_count_from_their_height_on() -> None:
    members = Members.of({f"m{number}": key_of(number).public for number in range(3)})
    members = members.replaced("m3", key_of(3).public, 8)
    assert (members.needed(7), members.needed(8)) == (1, 2)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ([], "no file of public keys"),
        ({"format": "phalanx-members-2", "members": {}}, "phalanx-members-1"),
        ({**file_of({}), "more": 1}, "nothing else"),
        (file_of([]), "an object by name"),
        (file_of({"a": []}), "list of objects"),
        (file_of({"a": A}), "list of objects"),
        (file_of({"a": [{"public": A, "till": 3}]}), "public, from and until"),
        (file_of({"a": [{"public": 1}]}), "public is text"),
        (file_of({"a": [{"public": A, "from": True}]}), "heights"),
        (file_of({"a": [{"public": A, "from": 0}]}), "1 <= from"),
        (file_of({"a": [{"public": A, "from": 3, "until": 2}]}), "1 <= from <= until"),
        (file_of({"a": [{"public": A.upper()}]}), "lower case"),
        (file_of({"a": [{"public": A[:-1]}]}), "64 hexadecimal"),
        (file_of({"a b": [{"public": A}]}), "letters, digits"),
        (file_of({"": [{"public": A}]}), "letters, digits"),
        (file_of({"a": [{"public": A}, {"public": B, "from": 7}]}), "two keys at height 7"),
        (file_of({"a": [{"public": A}], "b": [{"public": A}]}), "have one key"),
    ],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, content: Any, said: str) -> None:
    path = tmp_path / "members.json"
    path.write_text(json.dumps(content))
    with pytest.raises(DataError) as caught:
        Members.load(path)
    assert said in str(caught.value) and str(path) in str(caught.value)


def test_an_open_range_covers_what_comes() -> None:
    key = MemberKey("a", A, 3)
    assert [key.signs(height) for height in (2, 3, 10**12)] == [False, True, True]
