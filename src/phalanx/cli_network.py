"""``phalanx network``: how the nodes of a committee are, and new keys for one of its members."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from phalanx.cli_command import parse
from phalanx.errors import UsageError

__all__ = ["NetworkCommand", "command"]

_NEEDS = {
    "status": ("NETWORK",),
    "replace": ("NETWORK", "MEMBER"),
    "propose": ("NETWORK", "MEMBER"),
    "approve": ("NODE", "PROPOSAL"),
    "adopt": ("NODE", "PROPOSAL"),
    "finish": ("NETWORK", "PROPOSAL", "LEDGER"),
}


@dataclass(frozen=True)
class NetworkCommand:
    """Says how the nodes of a network are (`status NETWORK`), or gives a member new keys, because somebody has the old
    ones, or it lied. The chain of decisions goes on; docs/consensus.md says what is checked.

    On one machine, while the network is stopped: `replace NETWORK MEMBER`. Over hosts: `propose NETWORK MEMBER` where
    the gateway is; then on each other host, its node stopped, `approve NODE PROPOSAL`, and once a quorum has, `adopt
    NODE PROPOSAL`; then `finish NETWORK PROPOSAL LEDGER` where it was proposed, with the ledger of a node that adopted.

    Example: phalanx network replace runs/first-net node2 --why "its disk was stolen"
    """

    action: Annotated[
        Literal["status", "replace", "propose", "approve", "adopt", "finish"], tyro.conf.Positional
    ]
    """What to do."""
    about: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAMES")] = ()
    """Of what; see above."""
    why: str | None = None
    """With replace and propose: said in the ledger."""
    host: str | None = None
    """With propose: where the new node will be, if elsewhere."""
    seed: int = 0
    """Unused: keys are drawn by the system."""
    json: bool = False
    """Print the result as one JSON object."""

    def run(self) -> Mapping[str, Any]:
        """Does it."""
        needs = _NEEDS[self.action]
        if len(self.about) != len(needs):
            raise UsageError(
                f"network {self.action}: expected {' '.join(needs)}, got {len(self.about)} names"
            )
        if self.why is not None and self.action not in ("replace", "propose"):
            raise UsageError(f"network {self.action}: --why goes with replace and propose. Leave it out")
        if self.host is not None and self.action != "propose":
            raise UsageError(f"network {self.action}: --host goes with propose. Leave it out")
        first = Path(self.about[0])
        if self.action == "status":
            return self._status(first)
        return {"action": self.action, "about": list(self.about), "next": self._replaced(first)}

    def code(self, result: Mapping[str, Any]) -> int:
        """1 where fewer nodes answer than a decision needs."""
        return int(self.action == "status" and result["answering"] < result["quorum"])

    def render(self, result: Mapping[str, Any]) -> str:
        """A line a node, or what to do next."""
        if self.action != "status":
            return str(result["next"])
        lines = [
            f"{result['chain']}: {result['answering']} of {len(result['nodes'])} nodes answer, a decision needs "
            f"{result['quorum']}"
        ]
        for name, told in result["nodes"].items():
            if told is None:
                lines.append(f"{name}: does not answer")
                continue
            refused = {key: count for key, count in told["counters"].items() if count}
            counted = "".join(f", {ascii(key)[1:-1]} {count}" for key, count in sorted(refused.items()))
            model = ascii(told["model"])[1:17]
            lines.append(
                f"{name}: ledger at {told['ledger']}, block {told['height']}, model {model}{counted}"
            )
        return "\n".join(lines)

    def _status(self, folder: Path) -> Mapping[str, Any]:
        from phalanx.service.consensus.network import Network

        network = Network(folder)
        nodes = network.status()
        return {
            "chain": network.chain.name,
            "quorum": network.chain.quorum,
            "answering": sum(told is not None for told in nodes.values()),
            "nodes": nodes,
        }

    def _replaced(self, first: Path) -> str:
        from phalanx.service.consensus import replacing

        why = self.why or "replaced by its operator"
        if self.action == "replace":
            replacing.replace_member(first, self.about[1], why)
            return f"{self.about[1]} has new keys; start the network"
        if self.action == "propose":
            proposal = replacing.propose(first, self.about[1], why, host=self.host)
            then = f"phalanx network approve NODE {proposal.name}"
            return f"proposed in {proposal}. On each other host, its node stopped: {then}"
        if self.action == "approve":
            replacing.approve(first, Path(self.about[1]))
            return "approved; take the file to the next host. Once a quorum has approved, each adopts it"
        if self.action == "adopt":
            replacing.adopt(first, Path(self.about[1]))
            return "adopted; join the node again"
        replacing.finish(first, Path(self.about[1]), Path(self.about[2]))
        return "finished; bring the new node's folder to its host and join it"


def command(arguments: Sequence[str]) -> NetworkCommand:
    """The command that the arguments ask for."""
    return parse(NetworkCommand, "network", arguments)
