"""What the folder of a network says of it, and what is written of it into the folders of its nodes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.errors import DataError, RunError
from phalanx.files import read_structured, write_json
from phalanx.service.consensus import identity
from phalanx.service.consensus.chain import Chain
from phalanx.service.consensus.hosts import Hosts
from phalanx.service.consensus.listener import Address
from phalanx.service.consensus.node import DOOR_SOCKET, NodeFile
from phalanx.service.consensus.replacement import Replacement

__all__ = ["GATEWAY", "GATEWAY_KEY", "GATEWAY_TLS", "NetworkFile", "replacement_path"]

GATEWAY, GATEWAY_KEY, GATEWAY_TLS = "gateway", "gateway.pem", "gateway-tls.pem"
"""The gateway's name, the key that it signs with, and its key and certificate at the nodes' doors."""

_FILE, _FORMAT = "network.json", "phalanx-network-1"
_REPLACEMENTS = "replacements"


@dataclass(frozen=True)
class NetworkFile:
    """A network.

    Attributes:
        chain: what all its nodes agree on.
        peers: ids of its engines, by member.
        hosts: of its nodes; None where all are on this machine.
        member, options: what makes each node's member (see ``NodeFile``).
    """

    chain: Chain
    peers: Mapping[str, str]
    hosts: Hosts | None
    member: str
    options: Mapping[str, Any]

    def save(self, folder: Path) -> None:
        """Writes it into the network's folder."""
        form = {
            "format": _FORMAT,
            "chain": self.chain.to_json(),
            "peers": dict(self.peers),
            "hosts": self.hosts and self.hosts.to_json(),
            "member": self.member,
            "options": dict(self.options),
        }
        write_json(folder / _FILE, form)

    @classmethod
    def load(cls, folder: Path) -> "NetworkFile":
        """Reads it.

        Raises:
            RunError: the folder is no network.
            DataError: its file is malformed.
        """
        form = read_structured(folder / _FILE, "network's file")
        if not isinstance(form, dict) or form.get("format") != _FORMAT:
            raise RunError(f"{folder / _FILE}: not a network's file. Make the network anew")
        try:
            hosts = Hosts.from_json(form["hosts"]) if form["hosts"] else None
            return cls(Chain.from_json(form["chain"]), form["peers"], hosts, form["member"], form["options"])
        except KeyError as problem:
            raise DataError(f"{folder / _FILE}: {problem} is missing. Make the network anew") from None

    def write_node(self, folder: Path, name: str, time: str) -> None:
        """Writes a node's own file, and the genesis.

        Args:
            folder: of the node.
            name: of its member.
            time: when the chain begins, RFC 3339.
        """
        identity.genesis(
            folder / "config" / "genesis.json",
            chain=self.chain.name,
            time=time,
            validators={m.name: m.validator for m in self.chain.members},
            state=self.chain.to_json(),
        )
        # last: it says which chain all the rest is of
        NodeFile(self.chain, name, self.member, self.options, self.hosts).save(folder)

    def door(self, folder: Path, name: str) -> Address:
        """Where a node's door is, seen from the network's folder."""
        if self.hosts is None:
            return folder / name / DOOR_SOCKET
        return self.hosts.door(name, folder / GATEWAY_TLS)

    def replacements(self, folder: Path) -> tuple[Replacement, ...]:
        """Replacements of members that led to this chain, oldest first.

        Raises:
            DataError: the file of one is none.
        """
        chains = {self.chain.name, *(epoch.chain for epoch in self.chain.epochs)}
        return tuple(found for _, found in _found(folder) if found.chain.name in chains)

    def unfinished(self, folder: Path) -> tuple[Path, Replacement] | None:
        """The replacement that was proposed to follow this chain, if any."""
        return next(
            (
                (path, found)
                for path, found in _found(folder)
                if found.chain.epochs[-1].chain == self.chain.name
            ),
            None,
        )


def replacement_path(folder: Path, replacement: Replacement) -> Path:
    """Where a replacement lies in the network's folder."""
    return folder / _REPLACEMENTS / f"replacement-{replacement.entry.height:012d}.json"


def _found(folder: Path) -> list[tuple[Path, Replacement]]:
    paths = sorted((folder / _REPLACEMENTS).glob("replacement-*.json"))
    return [(path, Replacement.load(path)) for path in paths]
