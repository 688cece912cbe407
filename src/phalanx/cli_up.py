"""``phalanx up``: live decisions of a committee of nodes, over HTTP."""

import logging
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from phalanx.cli_command import parse
from phalanx.cli_service import ServiceOptions
from phalanx.errors import UsageError

__all__ = ["Up", "command"]

_LOG = logging.getLogger("phalanx")
_MEMBER = "phalanx.service.consensus.committee_member:committee_member"
_GATEWAY = "gateway"


@dataclass(frozen=True)
class Up(ServiceOptions):
    """Decides events as `serve` does, with every member of the committee as a node of its own; docs/consensus.md.

    Of n = 3f + 1 nodes up to f may lie, crash or fall silent. Without --hosts and --join all nodes run on this machine,
    with this command. With --hosts it makes a folder for every host, to be moved there; each host joins with --join,
    and this command, given again without --hosts, is their gateway. Needs the consensus engine CometBFT, which
    scripts/build-cometbft builds.

    Example: phalanx up runs/first --nodes 4
    """

    nodes: int | None = None
    """How many; one a member, which is what the run has."""
    folder: Annotated[Path | None, tyro.conf.arg(metavar="NETWORK")] = None
    """Of the network: a folder a node, and the gateway's; RUN-net beside the run unless given."""
    hosts: Annotated[tuple[str, ...], tyro.conf.arg(metavar="HOST[:PORT]")] = ()
    """Make a network over these hosts, one a member, and end: 10.0.0.5, [fd00::5]:26656, db.example. The engine uses
    the port, 26656 unless given, the node itself the next one."""
    join: Annotated[Path | None, tyro.conf.arg(metavar="NODE")] = None
    """Run one node of a network over hosts here: its folder, as --hosts made it."""
    listen: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """With --join: address to bind, where it is not the one under which others know this host."""
    quorum_s: float = 5.0
    """How long the committee may take until the answer is an alert without a quorum, in s."""

    def run(self) -> Mapping[str, Any]:
        """Serves until a signal; or makes a network, runs one node, makes a token."""
        if self.new_token is not None:
            return self._token(self._folder())
        run, folder = self.checked_run(), self._folder()
        assert folder is not None
        if not 0.0 < self.quorum_s <= 3600.0:
            raise UsageError(f"up: --quorum-s {self.quorum_s}: expected above 0, at most 3600")
        if self.listen is not None and self.join is None:
            raise UsageError("up: --listen goes with --join NODE; where the gateway listens is --host")
        if self.join is not None and self.hosts:
            raise UsageError("up: --hosts makes a network and --join runs a node of one: give one of them")
        if self.join is not None:
            return self._join(run, self.join)
        if self.hosts:
            return self._make_for_hosts(run, folder)
        return self._serve(run, folder)

    def render(self, result: Mapping[str, Any]) -> str:
        """What to do next, or what was served."""
        if "next" in result:
            return "\n".join(result["next"])
        if "node" in result:
            return f"node {result['node']} has ended"
        return super().render(result)

    def _token(self, folder: Path | None) -> Mapping[str, Any]:
        if self.tokens is None and folder is not None and not (folder / "network.json").exists():
            raise UsageError(
                f"up: {folder}: no network yet. Start it first: phalanx up RUN makes it, and the first tokens"
            )
        return self.token(folder and folder / _GATEWAY)

    def _folder(self) -> Path | None:
        return self.folder or self.beside("-net")

    def _members(self, run: Path) -> int:
        """How many members the run's committee has.

        Raises:
            UsageError: other than nodes were asked for.
        """
        from phalanx.runtime.config import RunConfig
        from phalanx.runtime.store import run_folders

        members = RunConfig.of(run_folders(run)[0].config()).members
        asked = len(self.hosts) or self.nodes or members
        if self.hosts and asked != members:
            raise UsageError(
                f"up: {asked} hosts for a committee of {members}: a host has one member. Name {members} hosts"
            )
        if self.nodes not in (None, asked):
            raise UsageError(f"up: --nodes {self.nodes} and {asked} hosts. Leave out --nodes")
        if asked != members:
            raise UsageError(
                f"up: {asked} nodes for a committee of {members}: a node has one member. Train a run with "
                f"--members {asked}, or ask for --nodes {members}"
            )
        if members < 4:
            _LOG.warning("%d nodes tolerate no faulty one; 4 tolerate one, 7 two", members)
        return members

    def _options(self, run: Path) -> dict[str, Any]:
        from phalanx.service.engine import EngineConfig

        return {
            "run": str(run.resolve()),
            "batch": self.batch,
            "slots": self.slots or EngineConfig.slots,
        }

    def _serve(self, run: Path, folder: Path) -> Mapping[str, Any]:
        from phalanx.runtime.compile_cache import use_compile_cache
        from phalanx.service.consensus import engine
        from phalanx.service.consensus.join import alone
        from phalanx.service.consensus.network import Network, create_network
        from phalanx.service.serving import serve

        made = (folder / "network.json").exists()
        if not made:
            engine.find()  # before anything is made
        members = self._members(run)
        if not made:
            create_network(folder, members, member=_MEMBER, options=self._options(run))
        with alone(folder, "this network's gateway"):
            network = Network(folder)
            if network.chain.n != members:
                raise UsageError(
                    f"up: {folder} has {network.chain.n} nodes, the committee of {run} {members} members. Name "
                    "another folder with --folder"
                )
            if not network.remote:
                self._adopt(run, [folder / member.name for member in network.chain.members])
            use_compile_cache()
            config = replace(self.service(folder / _GATEWAY), patience_s=self.quorum_s)
            if network.remote:  # it serves without them, too: alerts, undo, what ends in time
                return serve(config, self._model(run), network=network)
            _LOG.info("%s: waiting until %d of its %d nodes run", folder, network.chain.quorum, members)
            with network:
                return serve(config, self._model(run), network=network)

    def _adopt(self, run: Path, nodes: Sequence[Path]) -> None:
        """Lets nodes vote with this run from their next start on; all of them, or none.

        Raises:
            UsageError: they remember another number of processes, on which their votes depend.
        """
        from phalanx.service.consensus.node import NodeFile

        changed = []
        for node in nodes:
            file = NodeFile.load(node)
            if file.member != _MEMBER:
                _LOG.warning("node %s has a member of its own, %s, and keeps it", file.name, file.member)
                continue
            slots = file.options.get("slots")
            if self.slots is not None and slots not in (None, self.slots):
                raise UsageError(
                    f"up: {node} was begun with --slots {slots}, on which its votes depend. Leave --slots out, or make "
                    "another network"
                )
            options = {**self._options(run), **({} if slots is None else {"slots": slots})}
            if options["run"] != file.options.get("run"):
                _LOG.info("node %s votes with %s from now on", file.name, run)
            if options != file.options:
                changed.append((node, replace(file, options=options)))
        for node, file in changed:
            file.save(node)

    def _model(self, run: Path) -> Callable[[], Any]:
        def load() -> Any:
            from phalanx.service.model import load_model

            return load_model(run)

        return load

    def _make_for_hosts(self, run: Path, folder: Path) -> Mapping[str, Any]:
        from phalanx.service.consensus.network import Network, create_network

        members = self._members(run)
        create_network(folder, members, member=_MEMBER, options=self._options(run), hosts=self.hosts)
        names = [member.name for member in Network(folder).chain.members]
        told = [
            "Move each folder to its host, by a way that nobody reads, and start it there, the run beside it:"
        ]
        for name, host in zip(names, self.hosts, strict=True):
            node = shlex.quote(str(folder / name))
            told.append(f"  {host}:  phalanx up RUN --join {name}   # {node}")
        gateway = f"phalanx up {shlex.quote(str(run))} --folder {shlex.quote(str(folder))}"
        told.append(f"Then start their gateway here: {gateway}")
        return {"network": str(folder), "hosts": dict(zip(names, self.hosts, strict=True)), "next": told}

    def _join(self, run: Path, node: Path) -> Mapping[str, Any]:
        from phalanx.service.consensus.join import join
        from phalanx.service.consensus.node import NodeFile

        members, file = self._members(run), NodeFile.load(node)
        if file.chain.n != members:
            raise UsageError(
                f"up: {node} is one of {file.chain.n} nodes, the committee of {run} has {members} members"
            )
        self._adopt(run, [node])
        join(node, listen=self.listen)
        return {"node": file.name, "folder": str(node)}


def command(arguments: Sequence[str]) -> Up:
    """The command that the arguments ask for."""
    return parse(Up, "up", arguments)
