"""The links between nodes: each node in a network namespace of its own, on a bridge; cut, split, slow or lossy."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from .isolation import run

__all__ = ["Links"]

_PORT = 26656
_IMPAIRMENT = Path(__file__).with_name("impairment.py")


class Links:
    """A network namespace a node, all on one bridge; call inside ``isolation.run_isolated``."""

    def __init__(self, n: int) -> None:
        self._n = n
        self._bad: dict[int, subprocess.Popen[bytes]] = {}
        self._cut: set[tuple[int, int]] = set()
        for bridge in range(n):
            run("ip", "link", "add", f"br{bridge}", "type", "bridge", "forward_delay", "0")
            run("ip", "link", "set", f"br{bridge}", "up")
        for place in range(n):
            space = f"n{place}"
            run("ip", "netns", "add", space)
            run("ip", "link", "add", f"p{place}", "type", "veth", "peer", "name", "e0", "netns", space)
            run("ip", "-n", space, "addr", "add", f"{self.host(place)}/24", "dev", "e0")
            for interface in ("lo", "e0"):
                run("ip", "-n", space, "link", "set", interface, "up")
            run(*self.words(place), sys.executable, str(_IMPAIRMENT), "--no-offload", "e0")
            run("ip", "link", "set", f"p{place}", "master", "br0", "up")
            run("ip", "link", "add", f"i{place}", "type", "veth", "peer", "name", f"j{place}")
            run("ip", "link", "set", f"i{place}", "up")
            run("ip", "link", "set", f"j{place}", "master", "br0", "up")

    @staticmethod
    def host(place: int) -> str:
        """A node's address."""
        return f"10.77.0.{11 + place}"

    def address(self, place: int) -> str:
        """Where a node's engine listens."""
        return f"{self.host(place)}:{_PORT}"

    @staticmethod
    def words(place: int) -> list[str]:
        """What runs a command in a node's namespace."""
        return ["nsenter", f"--net=/run/netns/n{place}"]

    def split(self, groups: Sequence[Sequence[int]]) -> None:
        """Nodes reach those of their own group alone."""
        for bridge, group in enumerate(groups):
            for place in group:
                run("ip", "link", "set", f"p{place}", "master", f"br{bridge}")

    def cut(self, one: int, other: int) -> None:
        """Two nodes do not reach one another; both reach the others."""
        for here, there in ((one, other), (other, one)):
            run("ip", "-n", f"n{here}", "route", "add", "blackhole", f"{self.host(there)}/32")
            self._cut.add((here, there))

    def impair(self, place: int, delay_s: float, jitter_s: float, loss: float, seed: int) -> None:
        """All that goes to and from a node is late, and some of it is lost."""
        run("ip", "link", "set", f"p{place}", "nomaster")
        words = [f"{1e3 * delay_s:g}", f"{1e3 * jitter_s:g}", f"{loss:g}", str(seed)]
        carrier = subprocess.Popen(
            [sys.executable, "-S", str(_IMPAIRMENT), f"p{place}", f"i{place}", *words], stdout=subprocess.PIPE
        )
        assert carrier.stdout is not None
        self._bad[place] = carrier
        if carrier.stdout.readline() != b"ready\n":
            raise RuntimeError("frames cannot be carried between interfaces")

    def heal(self) -> None:
        """All links are as they were made."""
        for carrier in self._bad.values():
            carrier.kill()
            carrier.wait()
            if carrier.stdout is not None:
                carrier.stdout.close()
        self._bad.clear()
        for here, there in self._cut:
            run("ip", "-n", f"n{here}", "route", "del", "blackhole", f"{self.host(there)}/32")
        self._cut.clear()
        self.split([range(self._n)])
