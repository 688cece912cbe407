"""Carries frames between two network interfaces, late, and drops some: a bad cable, where the kernel has no netem.

    python impairment.py INTERFACE INTERFACE DELAY_MS JITTER_MS LOSS SEED
    python impairment.py --no-offload INTERFACE

Frames keep their order. Whoever sends must write whole checksums into them (``--no-offload``).
"""

import array
import contextlib
import fcntl
import heapq
import random
import select
import socket
import struct
import sys
import time

_EVERYTHING = 0x0003  # ETH_P_ALL
_OUTGOING = 4  # PACKET_OUTGOING
_SET, _OFFLOADS = 0x8946, (0x17, 0x1F, 0x24)  # SIOCETHTOOL; checksums, segmentation
_MOST = 20_000  # frames on their way; further ones are dropped, as by any queue


def _opened(interface: str) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_EVERYTHING))
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    opened.bind((interface, 0))
    opened.setblocking(False)
    return opened


def carry(one: str, other: str, delay_s: float, jitter_s: float, loss: float, seed: int) -> None:
    """Carries frames both ways until it is killed."""
    dice = random.Random(seed)
    ends = [_opened(one), _opened(other)]
    last = {end.fileno(): 0.0 for end in ends}
    waiting: list[tuple[float, int, socket.socket, bytes]] = []
    number = 0
    print("ready", flush=True)
    while True:
        patience = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
        for end in select.select(ends, [], [], patience)[0]:
            out = ends[1 - ends.index(end)]
            with contextlib.suppress(BlockingIOError):
                while True:
                    data, about = end.recvfrom(1 << 17)
                    if about[2] == _OUTGOING or dice.random() < loss or len(waiting) >= _MOST:
                        continue
                    due = max(last[end.fileno()], time.monotonic() + delay_s + dice.random() * jitter_s)
                    last[end.fileno()] = due
                    number += 1
                    heapq.heappush(waiting, (due, number, out, data))
        while waiting and waiting[0][0] <= time.monotonic():
            _, _, out, data = heapq.heappop(waiting)
            with contextlib.suppress(OSError):
                out.send(data)


def write_checksums(interface: str) -> None:
    """Has an interface's sender work out checksums and segments itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for command in _OFFLOADS:
            value = array.array("I", [command, 0])
            request = struct.pack("16sP16x", interface.encode(), value.buffer_info()[0])
            fcntl.ioctl(any_socket, _SET, request)


if __name__ == "__main__":
    if sys.argv[1] == "--no-offload":
        write_checksums(sys.argv[2])
    else:
        delay_ms, jitter_ms, share = map(float, sys.argv[3:6])
        carry(sys.argv[1], sys.argv[2], delay_ms / 1e3, jitter_ms / 1e3, share, int(sys.argv[6]))
