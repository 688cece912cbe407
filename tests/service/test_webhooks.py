"""Messages are believed when signed, whole and fresh; destinations are listed, encrypted and without surprises."""

import hashlib
import hmac
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from phalanx.errors import DataError, PhalanxError, UsageError
from phalanx.service.webhooks import (
    Destination,
    SignatureError,
    read_destinations,
    read_secret,
    sign,
    verify_signature,
)

SECRET, OTHER = b"s" * 32, b"t" * 32
NOW = 1_800_000_000


def test_the_signature_is_hmac_sha256_over_time_stamp_id_and_body() -> None:
    headers = sign(SECRET, "d-1", b'{"a":1}', NOW)
    expected = hmac.new(SECRET, b'1800000000.d-1.{"a":1}', hashlib.sha256).hexdigest()
    assert headers == {
        "Phalanx-Id": "d-1",
        "Phalanx-Timestamp": "1800000000",
        "Phalanx-Signature": f"v1={expected}",
    }


@given(st.binary(max_size=50), st.text("abc-_0", min_size=1, max_size=9), st.integers(-300, 300))
def test_what_is_signed_is_believed_within_the_window(body: bytes, message_id: str, age: int) -> None:
    headers = sign(SECRET, message_id, body, NOW)
    assert verify_signature(SECRET, headers, body, NOW + age) == message_id
    lower = {name.lower(): value for name, value in headers.items()}
    assert verify_signature([OTHER, SECRET], lower, body, NOW + age) == message_id


@given(st.binary(min_size=1, max_size=30), st.data())
def test_nothing_else_is(body: bytes, data: st.DataObject) -> None:
    headers = sign(SECRET, "d-1", body, NOW)
    place = data.draw(st.integers(0, len(body) - 1))
    changed = bytearray(body)
    changed[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(SignatureError, match="not that of this message"):
        verify_signature(SECRET, headers, bytes(changed), NOW)
    with pytest.raises(SignatureError, match="not that of this message"):
        verify_signature(OTHER, headers, body, NOW)
    with pytest.raises(SignatureError, match="not that of this message"):
        verify_signature([OTHER, OTHER[::-1]], headers, body, NOW)
    for name, value in (("Phalanx-Id", "d-2"), ("Phalanx-Timestamp", "1800000001")):
        with pytest.raises(SignatureError, match="not that of this message"):
            verify_signature(SECRET, headers | {name: value}, body, NOW)
    for age in (301, -301, 10**6, float("nan"), float("inf")):
        with pytest.raises(SignatureError, match="outside the window"):
            verify_signature(SECRET, headers, body, NOW + age)


@pytest.mark.parametrize("name", ["Phalanx-Id", "Phalanx-Timestamp", "Phalanx-Signature"])
@pytest.mark.parametrize("value", [None, "", " ", "\n", "é", "-1", "1.8e9", "0x1", "١", "a" * 100, "v1="])
def test_headers_that_are_none_are_refused(name: str, value: str | None) -> None:
    headers = sign(SECRET, "d-1", b"", NOW)
    if value is None:
        del headers[name]
    else:
        headers[name] = value
    with pytest.raises(SignatureError):
        verify_signature(SECRET, headers, b"", NOW)
    assert issubclass(SignatureError, PhalanxError)


def test_the_parts_of_what_is_signed_cannot_be_moved() -> None:
    # "1800000000" + "." + "d.x" + "." + "y" must not pass for the id "d" with the body "x.y"
    with pytest.raises(ValueError, match="expected letters"):
        sign(SECRET, "d.x", b"y", NOW)
    headers = sign(SECRET, "d", b"x.y", NOW)
    with pytest.raises(SignatureError):
        verify_signature(SECRET, headers | {"Phalanx-Id": "d.x"}, b"y", NOW)


def destination(**given_: Any) -> Destination:
    return Destination(
        **({"name": "soc", "url": "https://soc.example.net/x", "sends": ("ocsf",), "secret": SECRET} | given_)
    )


@pytest.mark.parametrize(
    "url",
    [
        *(
            "https://a.example.net",
            "https://a.example.net:8443/x?y=z",
            "http://127.0.0.1:1/x",
            "http://127.9.9.9/",
        ),
        *("http://localhost:9/", "http://[::1]:9/x", "HTTPS://a.example.net/"),
    ],
)
def test_urls_that_are_taken(url: str) -> None:
    assert destination(url=url).url == url


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://a.example.net/", "use https"),
        ("http://10.0.0.1/", "use https"),
        ("http://127.0.0.1.example.net/", "use https"),
        ("http://localhost.example.net/", "use https"),
        ("http://[::ffff:10.0.0.1]/", "use https"),
        ("http://2130706433/", "use https"),
        ("ftp://a/", "expected https"),
        ("file:///etc/passwd", "expected https"),
        ("//a/", "expected https"),
        ("https://", "expected https"),
        ("https:///x", "expected https"),
        ("https://a:x/", "expected https"),
        ("https://a /", "expected https"),
        ("https://a\\@b/", "expected https"),
        ("https://a/\n", "expected https"),
        ("https://é/", "expected https"),
        ("https://u:p@a/", "in the URL"),
        ("https://u@a/", "in the URL"),
        ("https://a/#x", "fragment"),
    ],
)
def test_urls_that_are_not(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        destination(url=url)
    assert "u:p" not in str(caught.value)


@pytest.mark.parametrize(
    ("given_", "words"),
    [
        ({"name": "A"}, "lower-case"),
        ({"name": "a:b"}, "lower-case"),
        ({"name": ""}, "lower-case"),
        ({"sends": ("oscf",)}, "unknown format of destination soc: 'oscf'.*did you mean 'ocsf'"),
        ({"sends": ()}, "sends nothing"),
        ({"timeout_s": 0.0}, "timeout_s"),
        ({"timeout_s": 61.0}, "timeout_s"),
        ({"secret": b"short"}, "a secret of 5 bytes"),
    ],
)
def test_destinations_that_are_none(given_: dict, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        destination(**given_)


def test_a_secret_is_never_shown() -> None:
    made = destination(secret=b"x1" * 20)
    assert "x1x1" not in repr(made) and "x1x1" not in str([made]) and made.origin == "https://soc.example.net"


def config(tmp_path: Path, text: str, mode: int = 0o600) -> Path:
    (tmp_path / "soc.secret").write_bytes(SECRET + b"\n")
    (tmp_path / "soc.secret").chmod(mode)
    path = tmp_path / "webhooks.toml"
    path.write_text(text)
    return path


GOOD = """[[destination]]
name = "soc"
url = "https://a.example.net/x"
sends = ["ocsf", "page"]
secret_file = "soc.secret"
"""


def test_destinations_are_read_with_their_secrets(tmp_path: Path) -> None:
    (found,) = read_destinations(config(tmp_path, GOOD + "timeout_s = 3\n"))
    assert (found.name, found.sends, found.secret, found.timeout_s) == ("soc", ("ocsf", "page"), SECRET, 3.0)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x = 1", r"expected tables \[\[destination\]\]"),
        (GOOD + "[more]\n", r"expected tables"),
        ("destination = [3]", "expected a table"),
        (GOOD.replace("sends", "send"), "unknown key in .*destination 1: 'send'"),
        (GOOD.replace('name = "soc"\n', ""), "no name; give name"),
        (GOOD.replace('"soc"', "3"), "name = 3 is of another type"),
        (GOOD + "timeout_s = true\n", "of another type"),
        (
            GOOD.replace("https", "http"),
            "webhooks.toml: destination 1: destination soc: http to another machine",
        ),
        (GOOD + GOOD, "two destinations of the name 'soc'"),
    ],
)
def test_what_is_wrong_in_the_list_is_said(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_destinations(config(tmp_path, text))


def test_files_that_cannot_be_used_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ca_file .* is no file"):
        read_destinations(config(tmp_path, GOOD + 'ca_file = "none.pem"\n'))
    for mode in (0o640, 0o604, 0o660):
        with pytest.raises(UsageError, match="chmod 600"):
            read_destinations(config(tmp_path, GOOD, mode))
    with pytest.raises(DataError, match="cannot read the secret"):
        read_secret(tmp_path / "none")
    with pytest.raises(DataError, match="cannot read the secret"):
        read_secret(tmp_path)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(DataError, match="no file of a secret"):
        read_secret(tmp_path / "pipe")
    with pytest.raises(DataError, match="cannot read the list of destinations"):
        read_destinations(tmp_path / "none.toml")
