"""Canonical JSON: the one encoding of what is hashed and signed.

Keys in the order of their code points, no white space, nothing but ASCII (everything else as ``\\uXXXX``), so that a
value has one encoding, an entry is one line, and no string of an attacker reaches a terminal as it is. Integers in
decimal, of any size (readers that make floats of them lose what lies beyond 2^53); floats the shortest decimal that
reads back as the same double, as Python writes it (``1.0``, ``0.1``, ``1e+16``, ``-0.0``), so that 1 and 1.0 differ.
Numbers that are not finite are refused.

RFC 8785 differs: it writes numbers as ECMAScript does and sorts by UTF-16 units.

The definition is Python's own encoder. What msgspec writes alike, it writes, in less than half the time: nearly all.
"""

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from json.encoder import encode_basestring_ascii
from typing import Any

from phalanx.errors import DataError

try:
    import msgspec
except ImportError:  # who only looks at a ledger may do without
    msgspec = None

__all__ = ["Encoded", "canonical", "digest"]

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False).encode
_encode_quickly = None if msgspec is None else msgspec.json.Encoder(order="sorted").encode


def canonical(value: Any) -> str:
    """The canonical JSON of a value.

    Args:
        value: of JSON's own types: dict with text as keys, list or tuple, str, int, float, bool, None.

    Raises:
        DataError: it has no form in JSON; the error says where.

    Example:
        >>> canonical({"b": [1, 1.0, None], "a": "\\u00e9\\n"})
        '{"a":"\\\\u00e9\\\\n","b":[1,1.0,null]}'
        >>> canonical({"score": float("nan")})
        Traceback (most recent call last):
        ...
        phalanx.errors.DataError: nan at score has no form in JSON; give a finite number, or text
    """
    text = _quickly(value)
    if text is not None:
        return text
    try:
        if isinstance(value, _NESTED):
            _refuse_other_keys(value)
        return _encode(value)
    except (TypeError, ValueError, RecursionError) as problem:
        try:
            place, found, allowed = next(_misfits(value, ""), ("value", type(value).__name__, str(problem)))
        except RecursionError:
            place, found, allowed = "value", "nesting too deep", "nest less"
    raise DataError(f"{found} at {place or 'the top'} has no form in JSON; give {allowed}")


class Encoded(dict[str, Any]):
    """An object with its canonical JSON: encoded once, though it is hashed, signed and written. Not to be changed.

    Args:
        value: of JSON's own types.
        known: canonical JSON of fields that were encoded before, by name; believed.

    Attributes:
        text: the canonical JSON.

    Raises:
        DataError: see ``canonical``.

    Example:
        >>> body = {"f": 1, "events": [{"id": "e"}]}
        >>> Encoded(body, {"events": '[{"id":"e"}]'}).text == canonical(body)
        True
    """

    __slots__ = ("text",)

    def __init__(self, value: Mapping[str, Any], known: Mapping[str, str] | None = None) -> None:
        super().__init__(value)
        known = known or {}
        rest = {name: item for name, item in value.items() if name not in known}
        texts = {name: canonical({name: item})[1:-1] for name, item in rest.items()}
        texts |= {name: f"{canonical(name)}:{text}" for name, text in known.items()}
        self.text = "{" + ",".join(texts[name] for name in sorted(texts)) + "}"


def digest(domain: str, text: str) -> str:
    """SHA-256, in hex, of a canonical encoding under a domain: what is hashed for one purpose serves no other.

    Args:
        domain: the purpose.
        text: canonical JSON.

    Example:
        >>> digest("batch", canonical([])) == digest("entry", canonical([]))
        False
    """
    return hashlib.sha256(f"phalanx {domain} 1\n{text}".encode("ascii")).hexdigest()


def _quickly(value: Any) -> str | None:
    """The text as msgspec writes it, what is beyond printable ASCII escaped; None where it may differ from
    ``_encode``'s."""
    if _encode_quickly is None:
        return None
    try:
        text = _encode_quickly(_written_alike(value)).decode()
    except (TypeError, ValueError, OverflowError, RecursionError):
        return None
    if text.isascii() and "\x7f" not in text:
        return text
    return _BEYOND_ASCII.sub(lambda found: encode_basestring_ascii(found[0])[1:-1], text)


def _written_alike(value: Any) -> Any:
    """A value that msgspec writes as ``_encode`` writes this one, characters beyond printable ASCII aside: itself, or a
    copy that has the text of each float for which either may take an exponent.

    Raises:
        TypeError: it is not of just JSON's types, or a key is not text.
        ValueError: a number that is not finite.
    """
    kind, changed = type(value), None
    if kind is dict:
        if not _TEXT.issuperset(map(type, value)):
            raise TypeError("key")
        places = value.items()
    elif kind is list or kind is tuple:
        if _PLAIN.issuperset(map(type, value)):
            return value
        places = enumerate(value)
    elif kind is float:
        if not math.isfinite(value):
            raise ValueError("not finite")
        assert msgspec is not None
        return msgspec.Raw(repr(value).encode())
    elif kind in _PLAIN:
        return value
    else:
        raise TypeError("kind")
    for place, item in places:
        of = type(item)
        if of in _PLAIN or (of is float and (_LEAST <= abs(item) < _BEYOND or item == 0.0)):
            continue
        written = _written_alike(item)
        if written is not item:
            changed = changed or (value.copy() if kind is dict else list(value))
            changed[place] = written
    return value if changed is None else changed


_LEAST, _BEYOND = 1e-4, 1e16  # between them neither takes an exponent
_BEYOND_ASCII = re.compile(r"[^\x20-\x7e]")  # in strings alone: there is no other white space
_PLAIN = frozenset((str, int, bool, type(None)))
_TEXT = frozenset((str,))


def _refuse_other_keys(value: Any) -> None:
    """Raises where a key is not text: JSON would make text of it, in another order.

    Raises:
        TypeError: so that ``canonical`` looks for the place.
    """
    if isinstance(value, dict):
        if not _fits("".join(value)):  # which refuses what is no text
            raise TypeError("key")
        value = value.values()
    for item in value:
        if isinstance(item, _NESTED):
            _refuse_other_keys(item)


_NESTED = (dict, list, tuple)


def _fits(key: object) -> bool:
    # two halves of a surrogate pair read back as one character, which sorts elsewhere
    return isinstance(key, str) and (key.isascii() or not any("\ud800" <= c <= "\udfff" for c in key))


def _misfits(value: Any, place: str) -> Iterator[tuple[str, str, str]]:
    """What has no form: where, what it is, what is allowed."""
    if isinstance(value, dict):
        for key, item in value.items():
            if not _fits(key):
                yield place, f"a key {ascii(key)[:40]}", "keys that are text without lone surrogates"
            else:
                yield from _misfits(
                    item, f"{place}.{ascii(key)[1:-1][:40]}" if place else ascii(key)[1:-1][:40]
                )
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from _misfits(item, f"{place}[{index}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield place, str(float(value)), "a finite number, or text"
    elif isinstance(value, int) and value.bit_length() > 10_000:
        yield place, f"an integer of {value.bit_length()} bits", "one of at most 10,000 bits, or text"
    elif not (value is None or isinstance(value, bool | int | float | str)):
        yield place, type(value).__name__, "text, a number, true, false, null, a list or an object"
