"""Secrets in command lines and other texts become ``***`` before anything keeps, logs, sends or learns from them.

Each rule finds spans; all spans together are replaced, again until nothing more is found, so that redacting twice is
redacting once. No rule can take more than linear time: runs are possessive and begin at the boundary of a word. What
is found is listed in ``RULES``; a secret that has neither a name nor a known shape (a password as a plain argument)
cannot be told from other words.
"""

import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace

from phalanx.service.actors import ACTOR_ATTRIBUTES
from phalanx.service.records import LiveEvent, Value
from phalanx.service.secret_names import PROGRAM_FLAGS, is_secret_name

__all__ = ["COMMAND_ATTRIBUTES", "MASK", "RULES", "redact", "redact_command", "redact_event", "safe_text"]

MASK = "***"
"""What stands in the place of a secret."""

COMMAND_ATTRIBUTES = ("command", "command_line", "cmdline", "args", "argv")
"""Attributes of events that hold command lines."""

Span = tuple[int, int]
_PASSES = 4  # what still changes then was made to; all of it goes but the program

_NAME = re.compile(r"(?<![\w.-])([\w.-]++)\\?[\"'\]]?[ \t]{0,8}+(=>|:=|==?|:(?!//))[ \t]{0,8}+", re.ASCII)
_FLAG = re.compile(r"(?<!\S)--?([A-Za-z][\w.-]*+)(?:[ \t]++|\x00)(?!--[A-Za-z])", re.ASCII)
_SPOKEN = re.compile(
    r"(?<![\w-])(?:aws_secret_access_key|aws_session_token|ConvertTo-SecureString(?:[ ]{1,4}-String)?)[ ]{1,8}",
    re.ASCII | re.IGNORECASE,
)
_VALUE = re.compile(
    r"""
      \$?"(?P<double>(?:[^"\\]|\\.)*+)
    | \$?'(?P<single>[^']*+)
    | \\"(?P<escaped>[^"\\]*+)
    | (?P<bare>(?:[^\s"';\x00]|;(?![\w ]{1,40}+=)|["'](?![\s,})\]]|\Z))++)
    """,
    re.VERBOSE | re.DOTALL,
)
_PARAMETER = re.compile(r"[^\s\"'&#]++")
_HEADER = re.compile(r"[^\"'\r\n\x00]++")
_HEADER_NAMES = frozenset(("authorization", "proxy-authorization", "cookie", "set-cookie"))

_UNQUOTED = re.compile(r"[^\s\"']*+")
_USER = re.compile(r"[^:%]*+[:%](?!\d*+\Z)")
_SCHEME = re.compile(r"(?<![\w.+-])[A-Za-z][\w.+-]*+://", re.ASCII)
_USER_INFO = re.compile(r"([^\s/?#\"'@:]*+):([^\s/?#\"']*)@")
_ODD_USER_INFO = re.compile(r"([^\s/?#\"'@:]++):(?!\d{1,5}(?:[/?#\s\"']|\Z))([^\s\"']*)@", re.ASCII)
_LONE_USER = re.compile(r"([^\s/?#\"'@:]{20,}+)@")

_SHAPES = re.compile(
    r"""
      (?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}
    | gh[pousr]_[A-Za-z0-9]{20,255}+
    | github_pat_\w{20,255}+
    | gl(?:pat|dt|rt|ptt)-[\w-]{16,128}+
    | xox[abeoprs]-[A-Za-z0-9-]{10,250}+
    | hooks\.slack\.com/services/(?P<slack>[\w/]{8,100}+)
    | AIza[\w-]{35}
    | ya29\.[\w-]{16,500}+
    | [sr]k_(?:live|test)_[A-Za-z0-9]{16,128}+
    | (?<![\w-])sk-[\w-]{20,250}+
    | npm_[A-Za-z0-9]{36}
    | pypi-[\w-]{40,250}+
    | SG\.[\w-]{16,32}+\.[\w-]{16,64}+
    | do[opr]_v1_[a-f0-9]{64}
    | hv[sb]\.[\w-]{20,250}+
    | (?<![\w-])eyJ[\w-]{8,}+\.[\w-]{4,}+(?:\.[\w-]*+)?
    | AGE-SECRET-KEY-1[A-Z0-9]{58}
    | (?<!\d)\d{8,10}:[\w-]{35}(?![\w-])
    | (?<![\w-])[Bb]earer[ ]{1,8}(?P<bearer>[\w.~+/=-]{6,}+)
    | (?<![\w-])[Bb]asic[ ]{1,8}(?P<basic>[A-Za-z0-9+/]{8,}+={0,2}+)
    """,
    re.VERBOSE | re.ASCII,
)
_KEY_BEGINS = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----", re.ASCII)
_KEY_ENDS = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----", re.ASCII)

_ELEMENT = re.compile(r"<([\w.:-]++)>([^<]*+)<", re.ASCII)
_SEGMENT = re.compile(r"[^;|&\r\n]++")
_PROGRAM = re.compile(r"(?<![\w.-])([\w.-]++)", re.ASCII)
_PIPED = re.compile(r"[^|\r\n]++")
_SAYS = re.compile(r"(?<![\w.-])(?:echo|printf)\s++(?:-\w++\s++)*+", re.ASCII)
_LISTENS = re.compile(
    r"\bchpasswd\b|--stdin\b|--password-stdin\b|\bsudo\b[^\n]{0,200}?\s-\w{0,8}S\b", re.ASCII
)
_ORACLE_PROGRAM = re.compile(r"(?<![\w.-])(?:sqlplus|expdp|impdp|rman)(?![\w-])", re.ASCII)
_ORACLE = re.compile(r"(?<!\S)[\w.$#]++/(?!/)([^\s@]++)@", re.ASCII)
_WORD = re.compile(r"\S++")
_TAIL = re.compile(r"\S*+\s?")
_ASSIGNS = re.compile(r"[A-Za-z_]\w*+=", re.ASCII)
_LOGINS = {
    "docker": "login",
    "podman": "login",
    "az": "login",
}  # -p is a port, or a path, of their other verbs
_QUOTED = re.compile(r"\$?[\"']|\\\"")
_PAIR_FLAGS = frozenset(("-u", "-U", "-a ", "user", "proxy-user"))  # user:password, user%password


def _named(text: str) -> Iterator[Span]:
    done = looked = 0  # where the latest value without quotes ends: what begins within it ends with it
    for found in _NAME.finditer(text):
        name, at = found[1].lstrip("-"), found.end()
        if found[2] == ":" and name.lower() in _HEADER_NAMES:
            if at >= done and (value := _HEADER.match(text, at)):
                done = value.end()
                yield value.span()
        elif is_secret_name(name):
            if at >= done or _QUOTED.match(text, at):
                asked = found.start() and text[found.start() - 1] in "?&"
                end = yield from _value(text, at, name, _PARAMETER if asked else _VALUE)
                done = max(done, end)
        elif name in _PAIR_FLAGS and at >= looked:
            looked = yield from _value(text, at, name)


def _flagged(text: str) -> Iterator[Span]:
    for pattern in (_FLAG, _SPOKEN):
        for found in pattern.finditer(text):
            name = found[1] if pattern is _FLAG else "secret"
            if is_secret_name(name) or name in _PAIR_FLAGS:
                yield from _value(text, found.end(), name)


def _value(text: str, at: int, flag: str, pattern: re.Pattern[str] = _VALUE) -> Generator[Span, None, int]:
    """The value that begins at a place, without its quotes; where it is a user with a password, the password alone.

    Returns:
        Where it ends.
    """
    value = pattern.match(text, at)
    if value is None:
        return at
    start, end = value.span(value.lastgroup or 0)
    if flag in _PAIR_FLAGS:
        user = _USER.match(text, start, end)
        start = user.end() if user is not None else end
    if start < end:
        yield start, end
    return value.end()


def _elements(text: str) -> Iterator[Span]:
    at = 0
    while found := _ELEMENT.search(text, at):
        at = found.end() - 1
        if is_secret_name(found[1]):
            yield found.span(2)


def _urls(text: str) -> Iterator[Span]:
    schemes = [found.span() for found in _SCHEME.finditer(text)]
    ends = [start for start, _ in schemes[1:]] + [len(text)]
    for (_, at), following in zip(schemes, ends, strict=False):
        whole = _UNQUOTED.match(text, at, following)
        end = whole.end() if whole is not None else at
        info = _USER_INFO.match(text, at, end) or _ODD_USER_INFO.match(text, at, end)
        if info is not None:
            yield info.span(2)
        elif lone := _LONE_USER.match(text, at, end):
            yield lone.span(1)


def _shapes(text: str) -> Iterator[Span]:
    for found in _SHAPES.finditer(text):
        yield found.span(found.lastgroup or 0)


def _key_blocks(text: str) -> Iterator[Span]:
    at = 0
    while begin := _KEY_BEGINS.search(text, at):
        end = _KEY_ENDS.search(text, begin.end())
        at = end.end() if end else len(text)
        yield begin.start(), at


def _short_flags(text: str) -> Iterator[Span]:
    for segment in _SEGMENT.finditer(text):
        names = {word[1].removesuffix(".exe") for word in _PROGRAM.finditer(segment[0])}
        known = [name for name in names & PROGRAM_FLAGS.keys() if _LOGINS.get(name, name) in names]
        flags = {flag for name in known for flag in PROGRAM_FLAGS[name]}
        if flags:
            yield from _behind(text, segment.span(), sorted(flags, key=len, reverse=True))
        if "htpasswd" in names:
            yield [word.span() for word in _WORD.finditer(text, *segment.span())][-1]
    if _ORACLE_PROGRAM.search(text):
        yield from (found.span(1) for found in _ORACLE.finditer(text))


def _behind(text: str, segment: Span, flags: Sequence[str]) -> Iterator[Span]:
    """Values behind short flags. A value may go beyond its segment: what parts commands may be part of a password."""
    at = segment[0]
    while (word := _WORD.search(text, at)) and word.start() < segment[1]:
        at = word.end()
        first = word.start() + (word[0][0] in "\"'")
        for flag in flags:
            bare = flag.rstrip()
            if not text.startswith(bare, first) or text.startswith("--", first):
                continue
            begin = first + len(bare)
            if begin < word.end() and flag != bare:
                continue
            if begin >= word.end() and (following := _WORD.search(text, begin)):
                begin = following.start()
            yield from _value(text, begin, flag)
            break


def _piped(text: str) -> Iterator[Span]:
    """What is said to a program that reads a password: ``echo ... | chpasswd``."""
    said: Span | None = None
    for segment in _PIPED.finditer(text):
        if said is not None and _LISTENS.search(segment[0]):
            yield said
        says = _SAYS.search(text, *segment.span())
        start, end = (says.end(), segment.end()) if says is not None else (0, 0)
        end = start + len(text[start:end].rstrip())
        said = (start, end) if start < end else None


RULES: Mapping[str, tuple[Callable[[str], Iterator[Span]], str]] = {
    "named": (
        _named,
        "the value of a variable, field, header or parameter whose name says so: PASSWORD=x, token: x",
    ),
    "flagged": (_flagged, "the word after a flag whose name says so: --password x, -passin x"),
    "elements": (_elements, "the content of an XML element whose name says so: <password>x</password>"),
    "short flags": (_short_flags, "the value of a short flag of a listed program: mysql -px, curl -u user:x"),
    "urls": (_urls, "the password of a URL: postgres://user:x@host"),
    "shapes": (
        _shapes,
        "tokens known by their shape (AWS, GitHub, GitLab, Slack, JWT ...), bearer and basic headers",
    ),
    "key blocks": (_key_blocks, "private keys: -----BEGIN ... PRIVATE KEY----- to its end"),
    "piped": (_piped, "what is said to a program that reads a password: echo x | chpasswd"),
}
"""Rule -> what finds its spans, and what it finds."""


def redact(text: str) -> str:
    """The text with every secret that can be recognised as ``***``.

    Args:
        text: of any length and content.

    Example:
        >>> redact("mysqldump -uroot -phunter2 --all-databases")
        'mysqldump -uroot -p*** --all-databases'
        >>> redact("curl -H 'Authorization: Bearer abc123.def' https://bob:pw@example.net/?api_key=9&page=2")
        "curl -H 'Authorization: ***' https://bob:***@example.net/?api_key=***&page=2"
    """
    return _redact(text, _no_program)


def redact_command(line: str) -> str:
    """A command line with its secrets as ``***``; the base name of its program stays, whatever it looks like.

    Example:
        >>> redact_command("PGPASSWORD=x /opt/ghp_0123456789abcdefghij -v")
        'PGPASSWORD=*** /opt/ghp_0123456789abcdefghij -v'
    """
    return _redact(line, _program_of)


def redact_event(event: LiveEvent) -> LiveEvent:
    """An event without secrets: in its attributes by their names, in command lines, and in all other texts.

    Example:
        >>> event = LiveEvent("e", 0, "h", "p", "EXECUTE", attributes={"command": "x --token abc", "password": "abc"})
        >>> dict(redact_event(event).attributes)
        {'command': 'x --token ***', 'password': '***'}
    """
    attributes = {name: _attribute(name, value) for name, value in event.attributes.items()}
    return replace(event, attributes=attributes)


def safe_text(text: str, limit: int = 500) -> str:
    """A text as it may be shown on a terminal or in a log line: on one line, of bounded length, nothing invisible.

    Control characters, line breaks, marks that turn the direction of writing, zero-width ones and lone surrogates are
    written as escapes. What exceeds the limit is cut off and counted.

    Args:
        text: attackers may have written it.
        limit: characters of the result at most, at least 20.

    Example:
        >>> safe_text("a" + chr(27) + "[31m b" + chr(10) + chr(0x202E) + "c")
        'a\\\\x1b[31m b\\\\n\\\\u202ec'
        >>> safe_text("x" * 100, limit=20)
        'xxxxxxxxxxx...[+89]'
    """
    if text.isprintable() and len(text) <= limit:
        return text
    shown: list[str] = []
    used, fits, at_fit = 0, True, 0
    room = limit - len(f"...[+{len(text)}]")
    for place, character in enumerate(text):
        escaped = character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        if used + len(escaped) <= room:
            at_fit = place + 1
        elif used + len(escaped) > limit:
            fits = False
            break
        used += len(escaped)
        shown.append(escaped)
    return "".join(shown if fits else [*shown[:at_fit], f"...[+{len(text) - at_fit}]"])


def _attribute(name: str, value: Value) -> Value:
    if not isinstance(value, str):
        return MASK if is_secret_name(name) and not isinstance(value, bool) and value is not None else value
    if is_secret_name(name):
        return MASK if value else value
    if name in COMMAND_ATTRIBUTES:
        return redact_command(value)
    if name in ACTOR_ATTRIBUTES["executable"] or name in ACTOR_ATTRIBUTES["name"]:
        return redact_command(value) if value.strip() else value
    return redact(value)


def _program_of(line: str) -> Span | None:
    """Where the base name of a command line's program is: of its first word that sets no variable."""
    at = 0
    while word := _WORD.search(line, at):
        if not _ASSIGNS.match(word[0]):
            bare = word[0].rstrip("\"'")
            name = re.split(r"[/\\]", bare)[-1].lstrip("\"'")
            end = word.start() + len(bare)
            return (end - len(name), end) if name else None
        value = _VALUE.match(line, line.index("=", word.start()) + 1)
        at = max(word.end(), value.end() if value else 0)
    return None


def _no_program(text: str) -> Span | None:
    return None


def _redact(text: str, program_of: Callable[[str], Span | None]) -> str:
    """The text once nothing more is found in it: what comes of it again is the same by construction."""
    program = program_of(text)
    kept = "" if program is None else f"{text[slice(*program)]} {MASK}"
    for _ in range(_PASSES):
        again = _pass(text, program_of(text))
        if again == text:
            return text
        text = again
    return kept if kept and _pass(kept, program_of(kept)) == kept else MASK


def _pass(text: str, program: Span | None) -> str:
    """The text with all spans replaced once, the program's name and what ends it aside."""
    spans = sorted({span for find, _ in RULES.values() for span in find(text) if span[0] < span[1]})
    if program is not None:
        kept = program[0], _TAIL.match(text, program[1]).end()  # type: ignore[union-attr]  # it matches anywhere
        spans = sorted(part for span in spans for part in _without(span, kept))
    merged: list[Span] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = merged[-1][0], max(merged[-1][1], end)
        else:
            merged.append((start, end))
    parts: list[str] = []
    at = 0
    for start, end in merged:
        parts += [text[at:start], MASK]
        at = end
    return "".join([*parts, text[at:]])


def _without(span: Span, kept: Span) -> list[Span]:
    """The span without what is kept."""
    parts = [(span[0], min(span[1], kept[0])), (max(span[0], kept[1]), span[1])]
    return [(start, end) for start, end in parts if start < end]
