"""Files of events that are ingested: each row ends in the table or among the rejects."""

import gzip
import io
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import polars as pl

from benchmarks.fuzz.target import REFUSED, TAKEN, Case
from phalanx.data.files import load_frame
from phalanx.data.readers import ingest
from phalanx.errors import PhalanxError

__all__ = ["file_reader"]


def file_reader(suffix: str) -> Callable[[Path], Case]:
    """A target that ingests a file: each row ends in the table or among the rejects."""

    def opened(folder: Path) -> Case:
        file, out = folder / f"fuzzed.{suffix}", folder / "out.parquet"

        def try_one(data: bytes) -> str:
            file.write_bytes(data)
            try:
                loaded = load_frame(file)
                if (
                    suffix == "ndjson"
                    and data[:2] != b"\x1f\x8b"
                    and not data.startswith((b"PAR1", b"ARROW1"))
                ):
                    rows = sum(
                        bool(line.strip(b" \t\r")) for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
                    )
                    assert loaded.frame.height + len(loaded.rejects) == rows, "rows were lost"
                if zlib.crc32(data) % 8 == 0:  # it takes ten times as long
                    report = ingest(file, out)
                    assert report.rows + report.rejected == loaded.frame.height + len(loaded.rejects)
            except PhalanxError as problem:
                assert str(problem).isprintable(), problem
                return REFUSED
            return TAKEN

        return Case(_binaries(suffix) if suffix in ("arrow", "parquet") else _texts(suffix), try_one)

    return opened


_TEXTS: Mapping[str, tuple[str, ...]] = {
    "csv": (
        'time_ns,host,subject,kind,path,label\n5,web,web:1,EXECUTE,/bin/id,0\n6,web,web:1,READ,"/a,b",1\n',
        "record_type,event_type,timestamp_ns,subject_uuid,object_uuid,is_suspicious\n"
        "RECORD_EVENT,EVENT_FORK,1523551440000000000,u1,u2,0\nRECORD_HOST,,,,,1\n",
        "trace_id,step,syscall,label,attack_type,attack_run\n1,0,5,1,adduser,2\n1,1,,0,,\n",
        "duration,protocol_type,service,flag,src_bytes,dst_bytes,attack\n0,tcp,http,SF,1,2,normal.\n"
        "1,udp,x,S0,3,4,neptune.\n",
        "timestamp;processId;eventName;evil\n1809.495787;381;close;0\n2024-01-01T00:00:00Z;382;open;1\n",
        "ts|uid|id.orig_h|id.resp_h|label\n1.5|C1|10.0.0.1|10.0.0.2|Malicious\n",
    ),
    "ndjson": (
        '{"time_ns": 5, "subject": "a", "kind": "READ", "label": 0, "n": 1.5}\n'
        '{"time_ns": 6, "subject": "a", "kind": "X"}\n',
        '{"timestamp": "2024-01-01T00:00:00Z", "pid": 4, "action": "open", "x": {"y": [1]}}\n\n'
        '{"pid": null, "b": true}\n',
        '{"ts": 1.5, "uid": "C", "id.orig_h": "a", "id.resp_h": "b", "label": "benign"}\n{"ts": 9e99}\n[1]\n',
    ),
    "log": (
        "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn\n"
        "#fields\tts\tuid\tid.orig_h\tid.resp_h\tid.resp_p\tlocal_orig\tlabel\n"
        "#types\ttime\tstring\taddr\taddr\tport\tbool\tstring\n"
        "1.5\tC1\t10.0.0.1\t10.0.0.2\t80\tT\tBenign\n2.5\tC2\t10.0.0.1\t10.0.0.3\t-\tF\tMalicious\n#close\t2024\n",
    ),
}


def _texts(suffix: str) -> list[bytes]:
    texts = [text.encode() for text in _TEXTS[suffix]]
    return [*texts, gzip.compress(texts[0], mtime=0)]


def _binaries(suffix: str) -> list[bytes]:
    found = []
    for text in _TEXTS["csv"][:2]:
        frame, file = pl.read_csv(text.encode()), io.BytesIO()
        if suffix == "parquet":
            frame.write_parquet(file, compression="uncompressed", statistics=False)
        else:
            frame.write_ipc(file, compression="uncompressed")
        found.append(file.getvalue())
    return found
