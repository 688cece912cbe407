"""Frames, however a stream is cut; and whatever comes instead of them."""

import os
import random

import pytest
from google.protobuf.internal.decoder import _DecodeVarint  # type: ignore[attr-defined]
from hypothesis import given
from hypothesis import strategies as st

from phalanx.service.consensus.framing import FrameError, Framer, frame, uvarint

messages = st.lists(st.binary(max_size=300), max_size=8)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in zip(ends, ends[1:], strict=False)]


@given(messages, st.lists(st.integers(0, 10_000), max_size=20))
def test_messages_come_back_however_the_stream_is_cut(sent: list[bytes], cuts: list[int]) -> None:
    framer = Framer()
    got = [m for piece in pieces(b"".join(map(frame, sent)), cuts) for m in framer.feed(piece)]
    assert got == sent
    assert framer.pending == 0


@given(st.integers(0, 2**40))
def test_lengths_are_what_protobuf_reads(number: int) -> None:
    assert _DecodeVarint(uvarint(number), 0) == (number, len(uvarint(number)))


@given(messages, st.binary(max_size=300))
def test_a_message_that_is_not_whole_waits(sent: list[bytes], last: bytes) -> None:
    framer = Framer()
    whole = frame(last)
    assert framer.feed(b"".join(map(frame, sent)) + whole[:-1]) == sent
    assert framer.feed(whole[-1:]) == [last]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\x65", "longer than 100"),  # 101
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", "longer than 100"),
        (b"\x80\x00", "not in its shortest form"),
        (b"\x81\x80\x80\x00", "not in its shortest form"),
        (b"\x80" * 20, "not in its shortest form"),
    ],
)
def test_lengths_that_cannot_be_are_refused_for_good(data: bytes, words: str) -> None:
    framer = Framer(limit=100)
    with pytest.raises(FrameError, match=words):
        for byte in data:  # one at a time: it need not be whole to be refused
            framer.feed(bytes([byte]))
    with pytest.raises(FrameError, match="lost its place"):
        framer.feed(frame(b"fine"))


def test_the_limit_itself_is_accepted() -> None:
    assert Framer(limit=100).feed(frame(bytes(100))) == [bytes(100)]


def by_definition(data: bytes, limit: int) -> tuple[list[bytes], bool]:
    """The messages in a stream and whether it is a stream of frames so far, a byte at a time."""
    got, at = [], 0
    while at < len(data):
        number, shift, start = 0, 0, at
        while at < len(data):
            byte = data[at]
            at += 1
            number += (byte % 128) * 2**shift
            shift += 7
            if number > limit or (byte == 0 and at - start > 1) or at - start > 9:
                return got, False
            if byte < 128:
                break
        else:
            return got, True
        if at + number > len(data):
            return got, True
        got.append(data[at : at + number])
        at += number
    return got, True


def fuzz(inputs: int, seed: int) -> None:
    """Streams that are frames, nearly frames, and noise, against the definition; nothing else is ever raised."""
    rng = random.Random(seed)
    for _ in range(inputs):
        kind = rng.randrange(4)
        if kind == 0:
            data = rng.randbytes(rng.randrange(12))
        else:
            data = b"".join(frame(rng.randbytes(rng.randrange(6))) for _ in range(rng.randrange(4)))
        if kind >= 2 and data:
            edited = bytearray(data)
            edited[rng.randrange(len(data))] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
            data = bytes(edited)
        limit = rng.choice((0, 3, 200))
        framer, got, fine = Framer(limit), [], True
        cut = rng.randrange(len(data) + 1)
        try:
            got += framer.feed(data[:cut])
            got += framer.feed(data[cut:])
        except FrameError:
            fine = False
        wanted, wanted_fine = by_definition(data, limit)
        assert fine == wanted_fine, data
        # messages before the place that was lost may have been cut off with it
        assert got == wanted[: len(got)] and (len(got) == len(wanted) or not fine), data


def test_fuzzed_streams_do_what_the_definition_says() -> None:
    fuzz(100_000, seed=1)


@pytest.mark.slow
def test_fuzzed_for_longer() -> None:
    """A million streams; as many as $PHALANX_FUZZ_INPUTS where that is set."""
    fuzz(int(os.environ.get("PHALANX_FUZZ_INPUTS", "1000000")), seed=2)
