"""A network of nodes: made; on this machine started, watched over, stopped; its gateway and its enforcer."""

import secrets
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from phalanx.errors import DataError, RunError, UsageError
from phalanx.files import write_text
from phalanx.service.consensus import engine, identity
from phalanx.service.consensus.chain import Chain, ChainMember
from phalanx.service.consensus.client import Client
from phalanx.service.consensus.enforcer import Enforcer
from phalanx.service.consensus.follower import ask
from phalanx.service.consensus.hosts import DOOR_KEY, Host, Hosts, parse_hosts
from phalanx.service.consensus.listener import Address
from phalanx.service.consensus.network_file import GATEWAY, GATEWAY_KEY, GATEWAY_TLS, NetworkFile
from phalanx.service.consensus.node import MEMBER_KEY
from phalanx.service.consensus.replies import Agreed
from phalanx.service.consensus.supervise import Supervised
from phalanx.service.consensus.tls import make_certificate
from phalanx.service.keys import SigningKey
from phalanx.service.ledger_entry import Entry
from phalanx.service.records import LiveDecision, LiveEvent

__all__ = ["Network", "create_network"]

_DRILL = "phalanx.service.consensus.member:drill_member"
_LOOPBACK = "127.0.0.1"


def create_network(
    folder: Path,
    n: int,
    *,
    member: str = _DRILL,
    options: Mapping[str, Any] | None = None,
    mode: str = "shadow",
    batch_events: int = 1024,
    window: int = 512,
    hosts: Sequence[str] | None = None,
) -> None:
    """Makes keys, genesis and configuration of a network of nodes, on this machine or each on a host of its own.

    With hosts, each node's folder is all that its host needs: move it there and ``join`` it. What stays is the
    gateway's and the enforcer's.

    Args:
        folder: of the network; made anew.
        n: number of nodes, one member each.
        member: what makes each node's member, ``module:function`` (see ``NodeFile``).
        options: for it, JSON.
        mode, batch_events, window: see ``Chain``.
        hosts: where each node will be, ``10.0.0.5``, ``10.0.0.5:26656``, ``[fd00::5]:26656`` or ``db.example``; the
            port is that of the engine, the node's door is on the next one. None: all on this machine.

    Raises:
        UsageError: the folder is there, or a value is out of its range.
    """
    if n < 1:
        raise UsageError(
            f"a network of {n} nodes; at least 1 is needed, and 3f + 1 to tolerate f faulty ones"
        )
    places = None if hosts is None else parse_hosts(hosts, n)
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder}: is there already. Name another folder, or delete this one")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    gateway = SigningKey.create(folder / GATEWAY_KEY)
    names = [f"node{place}" for place in range(n)]
    members, peers = [], {}
    for name in names:
        keys = identity.make_keys(folder / name)
        peers[name] = keys.node
        public = SigningKey.create(folder / name / MEMBER_KEY).public
        members.append(ChainMember(name, public, keys.validator))
    chain = Chain(
        f"phalanx-{secrets.token_hex(6)}",
        tuple(members),
        {GATEWAY: gateway.public},
        mode,
        batch_events,
        window,
    )
    began = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    where = None
    if places is not None:
        where = Hosts(
            {
                name: Host(*place, peers[name], make_certificate(folder / name / DOOR_KEY, name))
                for name, place in zip(names, places, strict=True)
            },
            {GATEWAY: make_certificate(folder / GATEWAY_TLS, GATEWAY)},
        )
    file = NetworkFile(chain, peers, where, member, options or {})
    for name in names:
        file.write_node(folder / name, name, began)
    file.save(folder)  # last: a folder without it is not a network


class Network:
    """A network of nodes. Those on this machine run while its block does; those on hosts of their own run there.

    Args:
        folder: that ``create_network`` made.
        environment: further variables for each node's application, by place (drills).
        addresses: where the engines listen for one another, ``host:port``, one a node; None: free ports of 127.0.0.1.
        wrap: words before a node's commands, by place, as in ``Supervised`` (drills).

    Attributes:
        chain: what all its nodes agree on.
        doors: where the nodes' doors are, by place.
        nodes: those that run on this machine, by place.

    Raises:
        RunError: the folder is no network.
        UsageError: there is no consensus engine, the error says how to get one; or not one address a node.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[int, Mapping[str, str]] | None = None,
        *,
        addresses: Sequence[str] | None = None,
        wrap: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        self._file = NetworkFile.load(folder)
        self.folder = folder
        self.chain = self._file.chain
        self._client: Client | None = None
        if addresses is not None and len(addresses) != self.chain.n:
            raise UsageError(f"{len(addresses)} addresses for {self.chain.n} nodes; give one a node")
        self._addresses = addresses
        self.doors: tuple[Address, ...] = tuple(
            self._file.door(folder, member.name) for member in self.chain.members
        )
        self.nodes: tuple[Supervised, ...] = ()
        if not self.remote:
            begun = self._file.unfinished(folder)
            if begun is not None:
                raise UsageError(
                    f"{folder}: the replacement of {begun[1].member!r} was interrupted. Replace it again"
                )
            binary, drills, words = engine.find(), environment or {}, wrap or {}
            self.nodes = tuple(
                Supervised(folder / member.name, binary, drills.get(place), wrap=words.get(place, ()))
                for place, member in enumerate(self.chain.members)
            )

    @property
    def remote(self) -> bool:
        """Whether its nodes run on hosts of their own, joined there, and nothing is started here."""
        return self._file.hosts is not None

    def start(self, wait_s: float = 120.0) -> None:
        """Starts all nodes, except those on hosts of their own, and waits until enough of them take part.

        Raises:
            RunError: they do not in time; the nodes are stopped.
        """
        if not self.remote:
            self._configure()
        for node in self.nodes:
            node.start()
        try:
            self.wait(self.chain.quorum, wait_s)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends the client, then all nodes, except those on hosts of their own."""
        if self._client is not None:
            self._client.__exit__()
            self._client = None
        for node in self.nodes:
            node.end()
        for node in self.nodes:
            node.stop()

    def __enter__(self) -> "Network":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait(self, wanted: int, wait_s: float = 60.0) -> None:
        """Waits until so many nodes take part in the consensus.

        Raises:
            RunError: they do not in time.
        """
        deadline = time.monotonic() + wait_s
        while (taking_part := sum(map(_takes_part, self.doors))) < wanted:
            if time.monotonic() > deadline:
                where = "on their hosts" if self.remote else f"under {self.folder}"
                raise RunError(
                    f"{taking_part} of {self.chain.n} nodes take part after {wait_s:g} s, {wanted} are needed; see "
                    f"node.log and engine.log in their folders {where}"
                )
            time.sleep(0.05)

    def client(
        self, *, agreed: Callable[[Agreed], None] = lambda agreed: None, since: int | None = None
    ) -> Client:
        """A gateway to this network, to be used in a with block; see ``Client``."""
        key = SigningKey.load(self.folder / GATEWAY_KEY)
        return Client(self.chain, self.doors, GATEWAY, key, agreed=agreed, since=since)

    def enforcer(self, act: Callable[[Entry], None]) -> Enforcer:
        """What acts on this network's decisions, to be used in a with block; see ``Enforcer``."""
        replacements = [found.entry for found in self._file.replacements(self.folder)]
        return Enforcer(self.chain, self.doors, self.folder / "enforcer", act, replacements=replacements)

    def submit(self, events: Sequence[LiveEvent]) -> "Future[tuple[LiveDecision, ...]]":
        """Hands events to the committee through a client of the network's own; see ``Client.submit``."""
        if self._client is None:
            self._client = self.client().__enter__()
        return self._client.submit(events)

    def decisions(self, events: Sequence[LiveEvent], timeout_s: float = 30.0) -> tuple[LiveDecision, ...]:
        """The committee's decisions on events.

        Raises:
            TimeoutError: there are none in time.
        """
        return self.submit(events).result(timeout_s)

    def status(self) -> dict[str, Any]:
        """What each node says of itself, by name; None where it does not answer."""
        names = (member.name for member in self.chain.members)
        return {name: _asked(door, "status") for name, door in zip(names, self.doors, strict=True)}

    def _configure(self) -> None:
        """Gives the engines their addresses, or ports that are free now."""
        given = self._addresses or [f"{_LOOPBACK}:{port}" for port in _free_ports(self.chain.n)]
        addresses = {member.name: address for member, address in zip(self.chain.members, given, strict=True)}
        for name in addresses:
            peers = [f"{self._file.peers[other]}@{addresses[other]}" for other in addresses if other != name]
            text = engine.configuration(moniker=name, p2p=addresses[name], peers=peers)
            write_text(self.folder / name / "config" / "config.toml", text)


def _asked(door: Address, what: str) -> Any:
    try:
        return ask(door, {"do": what}, 2.0)
    except (OSError, DataError):
        return None


def _takes_part(door: Address) -> bool:
    told = _asked(door, "engine")
    return isinstance(told, dict) and told.get("takes_part") is True


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    try:
        for one in sockets:
            one.bind((_LOOPBACK, 0))
        return [one.getsockname()[1] for one in sockets]
    finally:
        for one in sockets:
            one.close()
