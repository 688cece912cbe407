"""Where the nodes of a network over several hosts are, and by which certificates they know one another."""

import dataclasses
import ipaddress
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.errors import DataError, UsageError
from phalanx.service.consensus.tls import TlsAddress, accepting, calling

__all__ = ["DOOR_KEY", "P2P_PORT", "Host", "Hosts", "parse_host", "parse_hosts"]

P2P_PORT = 26656
"""Port of a host's engine unless told otherwise; the node's door is on the next one."""

DOOR_KEY = "door.pem"
"""In a node's folder: key and certificate of its door."""

_NAME = re.compile(
    r"(?=.{1,253}$)[A-Za-z0-9]([A-Za-z0-9-]{0,62}[A-Za-z0-9])?(\.[A-Za-z0-9]([A-Za-z0-9-]{0,62}))*\.?"
)


@dataclass(frozen=True)
class Host:
    """Where one node is.

    Attributes:
        address: IP address or name, an IPv6 address without brackets.
        port: of its engine; its door is on the next one.
        engine: id of its engine among the others.
        certificate: of its door, PEM.
    """

    address: str
    port: int
    engine: str
    certificate: str

    @property
    def p2p(self) -> str:
        """``host:port`` of its engine."""
        return host_port(self.address, self.port)


@dataclass(frozen=True)
class Hosts:
    """All nodes of a network over several hosts, and who may come to their doors.

    Attributes:
        nodes: by name.
        gateways: certificates, PEM by name: they alone come to the doors, enforcers with that of the gateway.
    """

    nodes: Mapping[str, Host]
    gateways: Mapping[str, str]

    def peers(self, name: str) -> list[str]:
        """``id@host:port`` of every other node's engine."""
        return [f"{host.engine}@{host.p2p}" for other, host in self.nodes.items() if other != name]

    def door(self, name: str, own: Path) -> TlsAddress:
        """A node's door as others reach it.

        Args:
            name: of the node.
            own: key and certificate of whoever connects.
        """
        host = self.nodes[name]
        return calling(host.address, host.port + 1, own, name, host.certificate)

    def own_door(self, name: str, folder: Path, listen: str | None = None) -> TlsAddress:
        """A node's door as the node itself opens it.

        Args:
            name: of the node.
            folder: its own.
            listen: address to bind, where it is not the one under which others know the host.
        """
        host = self.nodes[name]
        return accepting(listen or host.address, host.port + 1, folder / DOOR_KEY, self.gateways)

    def to_json(self) -> dict[str, Any]:
        """Their form in the network's files."""
        return {
            "nodes": {name: dataclasses.asdict(host) for name, host in self.nodes.items()},
            "gateways": dict(self.gateways),
        }

    @classmethod
    def from_json(cls, form: Any) -> "Hosts":
        """From that form.

        Raises:
            DataError: it is another form.
        """
        try:
            nodes = {str(name): Host(**host) for name, host in form["nodes"].items()}
            for host in nodes.values():
                parse_host(host.p2p)
            return cls(nodes, {str(name): str(text) for name, text in form["gateways"].items()})
        except (KeyError, TypeError, AttributeError, UsageError) as problem:
            raise DataError(f"not the hosts of a network ({problem}). Make the network anew") from None


def host_port(address: str, port: int) -> str:
    """An address with its port; IPv6 in brackets.

    Example:
        >>> host_port("::1", 5), host_port("db.example", 5)
        ('[::1]:5', 'db.example:5')
    """
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def parse_host(text: str) -> tuple[str, int]:
    """Address and port of ``10.0.0.5``, ``10.0.0.5:26656``, ``[fd00::5]:26656`` or ``db.example:26656``.

    Raises:
        UsageError: it is none of these.

    Example:
        >>> parse_host("[fd00::5]"), parse_host("db.example:4000")
        (('fd00::5', 26656), ('db.example', 4000))
    """
    found = re.fullmatch(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::(\d{1,5}))?", text)
    if found is not None:
        six, other, digits = found.groups()
        port = P2P_PORT if digits is None else int(digits)
        if 1 <= port < 65535 and (_is_ipv6(six) if six is not None else _is_name(other)):
            return six or other, port
    raise UsageError(
        f"host {text!r}: expected an IPv4 address, an IPv6 address in brackets or a name, and after a colon, if you "
        f"like, a port from 1 to 65534 (without one {P2P_PORT}; the next one is the node's door)"
    )


def parse_hosts(hosts: Sequence[str], n: int) -> list[tuple[str, int]]:
    """Address and port of each member's host.

    Raises:
        UsageError: not one a member, one is malformed, or two share a port.
    """
    if len(hosts) != n:
        raise UsageError(f"{len(hosts)} hosts for {n} members; give one a member")
    taken: dict[tuple[str, int], int] = {}
    places = [parse_host(text) for text in hosts]
    for place, (address, port) in enumerate(places):
        for used in (port, port + 1):
            other = taken.setdefault((address.lower().rstrip("."), used), place)
            if other != place:
                raise UsageError(
                    f"hosts {hosts[other]!r} and {hosts[place]!r} both use port {used} of {address}; each has its own "
                    "port and the next one. Name another host, or a port at least two further"
                )
    return places


def _is_ipv6(text: str) -> bool:
    try:
        return "%" not in text and ipaddress.IPv6Address(text) is not None
    except ValueError:
        return False


def _is_name(text: str) -> bool:
    if re.fullmatch(r"[\d.]+", text):
        try:
            return ipaddress.IPv4Address(text) is not None
        except ValueError:
            return False
    return _NAME.fullmatch(text) is not None
