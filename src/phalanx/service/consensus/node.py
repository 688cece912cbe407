"""One node's application process: the engine's state machine, its member, its ledger, its own socket."""

import contextlib
import importlib
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from phalanx.errors import DataError, PhalanxError, UsageError
from phalanx.files import read_structured, write_json
from phalanx.service.canonical import canonical, digest
from phalanx.service.consensus.application import Application
from phalanx.service.consensus.chain import Chain
from phalanx.service.consensus.crash import crashing
from phalanx.service.consensus.door import Door
from phalanx.service.consensus.hosts import Hosts
from phalanx.service.consensus.listener import Address
from phalanx.service.consensus.member import Member, Voter
from phalanx.service.consensus.mending import open_mended
from phalanx.service.consensus.rpc import EngineRpc
from phalanx.service.consensus.server import Server
from phalanx.service.keys import SigningKey
from phalanx.service.ledger_entry import Entry
from phalanx.service.statements import Statement

__all__ = [
    "ABCI_SOCKET",
    "APPROVED",
    "DOOR_SOCKET",
    "LEDGER",
    "LISTEN_VARIABLE",
    "MEMBER_KEY",
    "RPC_SOCKET",
    "NodeFile",
    "main",
    "serve_node",
]

ABCI_SOCKET, RPC_SOCKET, DOOR_SOCKET = "abci.sock", "rpc.sock", "door.sock"
"""Sockets in a node's folder: of the application, of the engine, and of the node for everybody else."""

MEMBER_KEY, LEDGER, EVIDENCE = "member.pem", "ledger", "evidence"
"""In a node's folder: the member's key, the ledger, and evidence against members, a file each."""

LISTEN_VARIABLE = "PHALANX_LISTEN"
"""Address to bind of a node on a host of its own, where it is not the one under which others know the host."""

APPROVED = "approved.json"
"""In a node's folder: the replacement of a member that this one has signed; it takes no part in the chain before it."""

_FILE = "node.json"


@dataclass(frozen=True)
class NodeFile:
    """What a node's folder says of it.

    Attributes:
        chain: of the network.
        name: of its member.
        member: what makes the member, as ``module:function``; called with the node's folder and the options.
        options: for that function, JSON.
        hosts: of the network; None where all its nodes are on one machine.
    """

    chain: Chain
    name: str
    member: str
    options: Mapping[str, Any]
    hosts: Hosts | None = None

    def door(self, folder: Path) -> Address:
        """Where this node's door is to be, seen from itself.

        Args:
            folder: of the node.
        """
        if self.hosts is None:
            return folder / DOOR_SOCKET
        return self.hosts.own_door(self.name, folder, os.environ.get(LISTEN_VARIABLE))

    def save(self, folder: Path) -> None:
        """Writes it into a node's folder."""
        form = {
            "chain": self.chain.to_json(),
            "name": self.name,
            "member": self.member,
            "options": dict(self.options),
            "hosts": self.hosts and self.hosts.to_json(),
        }
        write_json(folder / _FILE, form)

    @classmethod
    def load(cls, folder: Path) -> "NodeFile":
        """Reads it.

        Raises:
            DataError: it is missing or malformed.
        """
        form = read_structured(folder / _FILE, "node's file")
        try:
            hosts = form.get("hosts")
            return cls(
                Chain.from_json(form["chain"]),
                form["name"],
                form["member"],
                form["options"],
                Hosts.from_json(hosts) if hosts else None,
            )
        except (KeyError, TypeError) as problem:
            raise DataError(f"{folder / _FILE}: no node's file ({problem}). Make the network anew") from None

    def make_member(self, folder: Path) -> Member:
        """The member that votes here.

        Raises:
            UsageError: there is no such function.
        """
        module, _, function = self.member.partition(":")
        try:
            make: Callable[..., Member] = getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError, ValueError) as problem:
            raise UsageError(
                f"member {self.member!r}: expected module:function of a Member ({problem})"
            ) from None
        return make(folder, self.name, **self.options)


def serve_node(folder: Path, ended: threading.Event, ready: Callable[[], None]) -> None:
    """Serves a node until it is told to end.

    Args:
        folder: of the node.
        ended: set to end it.
        ready: called once the engine can connect.

    Raises:
        PhalanxError: the folder is not a node's, its key or ledger does not fit, another process serves it.
    """
    file = NodeFile.load(folder)
    chain, name = file.chain, file.name
    key = SigningKey.load(folder / MEMBER_KEY)
    if chain.members[chain.place_of(name)].public != key.public:
        raise UsageError(
            f"{folder / MEMBER_KEY}: not the key of member {name!r} in this network. Give its own"
        )
    if (folder / APPROVED).exists():
        raise UsageError(
            f"{folder / APPROVED}: this member has signed that the network goes on with another member. Adopt that "
            "here; or delete the file where no node has adopted it and none will"
        )
    with contextlib.ExitStack() as stack:
        where = folder / LEDGER
        ledger = stack.enter_context(open_mended(where, key, member=name, members=chain.keys))
        member = file.make_member(folder)
        voter = Voter(member)
        stack.callback(voter.close)
        doors: list[Door] = []

        def publish(entry: Entry) -> None:
            for door in doors:
                door.publish(entry)

        application = Application(
            chain,
            name,
            key,
            ledger,
            where,
            voter,
            resume=member.height,
            publish=publish,
            accuse=lambda body: _keep_evidence(folder, body),
        )
        server = Server(folder / ABCI_SOCKET, crashing(application, folder))

        def status() -> dict[str, Any]:
            state = application.state
            said = Statement.signed(
                key, name, state.head.height, "status", {"ledger": state.head.height}, chain.name
            )
            counted = {**application.counters, **{f"member/{k}": v for k, v in voter.failures.items()}}
            counted |= {f"socket/{k}": v for k, v in server.errors.items()}
            return {
                "said": said.to_json(),
                "member": name,
                "model": member.model,
                "height": state.height,
                "ledger": state.head.height,
                "head": state.head.hash,
                "pending": state.pending is not None,
                "app_hash": state.app_hash.hex(),
                "counters": counted,
            }

        rpc = EngineRpc(folder / RPC_SOCKET)
        doors.append(
            stack.enter_context(
                Door(
                    file.door(folder),
                    chain,
                    name,
                    key,
                    where,
                    height=ledger.head.height,
                    forward=rpc.submit,
                    status=status,
                    engine=rpc.status,
                )
            )
        )
        stack.enter_context(server)
        ready()
        ended.wait()


def _keep_evidence(folder: Path, body: Mapping[str, Any]) -> None:
    name = f"{body['member']}-{body['height']}-{digest('evidence', canonical(dict(body)))[:16]}.json"
    write_json(folder / EVIDENCE / name, dict(body))


def main(arguments: Sequence[str] | None = None) -> int:
    """``python -m phalanx.service.consensus FOLDER``: serves a node until SIGTERM, or until its standard input ends.

    Whoever started it holds the other end of its standard input: it does not outlive them. ``ready`` on standard output
    says that the engine can connect.
    """
    words = sys.argv[1:] if arguments is None else list(arguments)
    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s", level=logging.INFO)
    logging.getLogger("jax").setLevel(logging.WARNING)
    if len(words) != 1:
        print("usage: python -m phalanx.service.consensus FOLDER", file=sys.stderr)
        return 2
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    threading.Thread(target=_watch_input, args=(ended,), daemon=True).start()
    # a member's arrays must not keep the consensus thread from the interpreter for long
    sys.setswitchinterval(0.001)
    try:
        serve_node(Path(words[0]), ended, _say_ready)
    except PhalanxError as problem:
        print(f"phalanx: error: {problem}", file=sys.stderr)
        return problem.exit_code
    return 0


def _say_ready() -> None:
    print(json.dumps({"ready": os.getpid()}), flush=True)
    os.dup2(2, 1)  # nobody reads further output: a member that prints must not wait for it


def _watch_input(ended: threading.Event) -> None:
    with contextlib.suppress(OSError):
        while os.read(0, 4096):
            pass
    ended.set()
