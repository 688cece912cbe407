"""What all verbs share: parsing flags into a dataclass, and showing a result."""

import contextlib
import io
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Protocol, TypeVar, runtime_checkable

import tyro

from phalanx.errors import UsageError

__all__ = ["Command", "parse", "show", "value_of"]

Parsed = TypeVar("Parsed")

_TITLE = re.compile("\u256d\u2500 (.*?) \u2500+\u256e")  # the parser draws its errors as a box with a title
_TWICE = re.compile(r"^([^:]+): \1:?", re.IGNORECASE)  # the title said again
_NEXT = re.compile(r"(?<![;.]) (Perhaps you meant|Argument helptext|For full helptext)")
_FRAME = re.compile("[\u2500-\u257f]+|-{5,}")  # dashes where stdout cannot show boxes


@runtime_checkable
class Command(Protocol):
    """A verb with its flags.

    It may also have ``render(result)``, which says it for people, and ``code(result)``, the exit code: 1 for a finding.
    """

    @property
    def json(self) -> bool:
        """Whether the result is wanted as JSON."""
        ...

    def run(self) -> Mapping[str, Any]:
        """Does the work and returns what is to be shown; logs and progress go to stderr."""
        ...


def parse(
    kind: type[Parsed], verb: str, arguments: Sequence[str], *, default: Parsed | None = None
) -> Parsed:
    """Parses the flags of a verb into its dataclass.

    Args:
        kind: the dataclass; its docstring is the help text.
        verb: for the help text and the errors.
        arguments: what follows the verb.
        default: values of the flags that are not given, instead of the dataclass's own.

    Raises:
        UsageError: flags that cannot be parsed, in one line.
        SystemExit: with code 0, after showing the help that was asked for.
    """
    error = io.StringIO()
    given: dict[str, Any] = {} if default is None else {"default": default}
    try:
        with contextlib.redirect_stderr(error):
            return tyro.cli(
                kind,
                prog=f"phalanx {verb}",
                args=list(arguments),
                config=(tyro.conf.FlagCreatePairsOff, tyro.conf.OmitArgPrefixes),
                **given,
            )
    except SystemExit as stop:
        if stop.code != 2:  # help was shown, or a signal ends the process
            raise
        raise UsageError(f"{verb}: {_sentence(error.getvalue())}") from None


def value_of(flag: str, arguments: Sequence[str]) -> str | None:
    """The value of a flag that must be known before the others are parsed."""
    for argument, following in zip(arguments, [*arguments[1:], None], strict=False):
        if argument == flag:
            return following
        if argument.startswith(f"{flag}="):
            return argument.removeprefix(f"{flag}=")
    return None


def _sentence(box: str) -> str:
    """The text of a box, without its frame, on one line."""
    text = " ".join(_FRAME.sub(" ", _TITLE.sub(r"\1:", box)).split())
    text = _TWICE.sub(r"\1:", text).removeprefix("Value error: ")
    return _NEXT.sub(r"; \1", text)


def show(
    result: Mapping[str, Any], *, as_json: bool, render: Callable[[Mapping[str, Any]], str] | None = None
) -> None:
    """Prints a result on stdout: one JSON object, or for people what ``render`` makes of it, else a line a value.

    Example:
        >>> show({"f1": 0.5, "committee": {"n": 4}}, as_json=False)
        f1           0.5
        committee.n  4
        >>> show({"f1": float("nan")}, as_json=True)
        {"f1": null}
    """
    from phalanx.files import json_safe, to_json

    if as_json:
        print(to_json(result), file=sys.stdout)
        return
    if render is not None:
        print(render(result), file=sys.stdout)
        return
    lines = list(_lines(json_safe(result)))
    width = max((len(name) for name, _ in lines), default=0)
    for name, text in lines:
        print(f"{name:<{width}}  {text}".rstrip(), file=sys.stdout)


def _lines(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping):
            yield from _lines(item, f"{name}.")
        elif isinstance(item, list) and any(isinstance(part, Mapping) for part in item):
            for index, part in enumerate(item):
                yield from _lines(part if isinstance(part, Mapping) else {"": part}, f"{name}[{index}].")
        else:
            yield name, _text(item)


def _text(item: Any) -> str:
    if item is None:
        return "-"
    if isinstance(item, float):
        return f"{item:.4g}"
    if isinstance(item, list):
        return ", ".join(map(_text, item)) or "none"
    return str(item)
