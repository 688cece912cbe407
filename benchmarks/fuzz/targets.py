"""What is fuzzed: each target is set up once, has inputs to begin with, and takes any bytes.

``try_one`` returns ``taken`` or ``refused``: both must come, or the inputs reach nothing. What it raises is a crash:
the product's own errors are caught there, an ``AssertionError`` says that what must hold of any input does not.
Committees, laws and second definitions are those of the tests.
"""

import sys
from collections.abc import Mapping
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))

from benchmarks.fuzz.consensus_targets import abci, answers, door, extensions, frames, submissions
from benchmarks.fuzz.file_targets import file_reader
from benchmarks.fuzz.service_targets import admission, asked, ledger
from benchmarks.fuzz.target import Target

__all__ = ["TARGETS"]

_JSON = (
    "true",
    "false",
    "null",
    "\\u0000",
    "\\ud800",
    "1e999",
    "-0.0",
    "9223372036854775808",
    "{}",
    "[]",
    '""',
)
_EVENT = ("time_ns", "host", "subject", "parent", "kind", "EVENT_", "id", "label", "path", "command")
_WORDS = ("do", "submit", "raw", "follow", "from", "entry", "height", "status", "said", "content", "member")

TARGETS: Mapping[str, Target] = {
    "frames": Target(frames, 6_000_000, 96),
    "door": Target(door, 1_200_000, 2048, (*_JSON, *_WORDS)),
    "answers": Target(answers, 100_000, 8192, (*_JSON, *_WORDS, "batch", "votes", "verdicts", "submissions")),
    "abci": Target(abci, 400_000, 8192),
    "extensions": Target(extensions, 1_000_000, 512),
    "submissions": Target(
        submissions, 400_000, 2048, (*_JSON, *_EVENT, "base", "chain", "events", "gateway")
    ),
    "ledger": Target(ledger, 150_000, 8192, (*_JSON, *_WORDS, "events", "decisions", "digest", "consensus")),
    "admission": Target(admission, 200_000, 2048, (*_JSON, *_EVENT)),
    "asked": Target(asked, 300_000, 512, (*_JSON, "Bearer ", "charset=utf-8", "sha256:", "verdict=")),
    "csv": Target(
        file_reader("csv"),
        60_000,
        1024,
        (*_EVENT, '"', "\r\n", "inf", "nan", "__row__", "record_type", "syscall", "-", "1e30"),
    ),
    "ndjson": Target(file_reader("ndjson"), 60_000, 1024, (*_JSON, *_EVENT)),
    "zeek": Target(
        file_reader("log"),
        50_000,
        1024,
        ("#fields", "#types", "#unset_field", "#empty_field", "\\x2c", "   ", "#separator", "\\x09"),
    ),
    "arrow": Target(file_reader("arrow"), 40_000, 4096, ("ARROW1",)),
    "parquet": Target(file_reader("parquet"), 40_000, 4096, ("PAR1",)),
}
