"""Frames of the engine's socket: each message behind its length as an unsigned varint."""

from phalanx.errors import DataError

__all__ = ["FrameError", "Framer", "frame", "uvarint"]

MAX_MESSAGE = 16 << 20
"""Bytes of the longest message that is read."""


class FrameError(DataError):
    """Bytes that are no frame."""


def uvarint(number: int) -> bytes:
    """The number in groups of seven bits, the lowest first, all but the last marked.

    Example:
        >>> uvarint(1).hex(), uvarint(300).hex()
        ('01', 'ac02')

    Source: Protocol Buffers, "Encoding", base 128 varints.
    """
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def frame(message: bytes) -> bytes:
    """The message behind its length.

    Example:
        >>> frame(b"abc")
        b'\\x03abc'
    """
    return uvarint(len(message)) + message


class Framer:
    """Messages from a stream of bytes, however it is cut into pieces.

    Args:
        limit: bytes of the longest message that is accepted.

    Example:
        >>> framer = Framer()
        >>> framer.feed(b"\\x03ab"), framer.feed(b"c\\x01d\\x02"), framer.pending
        ([], [b'abc', b'd'], 1)
    """

    def __init__(self, limit: int = MAX_MESSAGE) -> None:
        self._limit = limit
        self._buffer = bytearray()
        self._broken = False

    @property
    def pending(self) -> int:
        """Bytes of a message that is not whole yet."""
        return len(self._buffer)

    def feed(self, data: bytes | memoryview) -> list[bytes]:
        """The messages that are whole once ``data`` has come.

        Raises:
            FrameError: a length longer than the limit, or not in its shortest form. The stream has lost its place:
                every later call raises too.
        """
        if self._broken:
            raise FrameError("the stream lost its place at an earlier frame; open a new connection")
        buffer = self._buffer
        buffer += data
        messages = []
        start = 0
        while True:
            body = self._length(start)
            if body is None or body[0] + body[1] > len(buffer):
                break
            at, length = body
            start = at + length
            messages.append(bytes(memoryview(buffer)[at:start]))
        if start:
            del buffer[:start]
        return messages

    def _length(self, start: int) -> tuple[int, int] | None:
        """Where the message begins whose length is at ``start``, and that length; None where it is not whole yet."""
        number = 0
        for i in range(start, len(self._buffer)):
            byte = self._buffer[i]
            number |= (byte & 0x7F) << 7 * (i - start)
            # a last group of zero adds nothing: the number had a shorter form
            if number > self._limit or (byte == 0 and i > start) or i - start > 8:
                self._broken = True
                what = "longer than" if number > self._limit else "not in its shortest form, which is within"
                raise FrameError(f"a frame's length is {what} {self._limit} bytes; close the connection")
            if byte < 0x80:
                return i + 1, number
        return None
