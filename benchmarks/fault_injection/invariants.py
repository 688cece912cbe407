"""What must hold in a network whatever happens to f of its nodes; looked at after every fault."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from phalanx.errors import DataError
from phalanx.service.consensus.audit import votes_flaw
from phalanx.service.consensus.network import Network
from phalanx.service.consensus.node import RPC_SOCKET
from phalanx.service.consensus.rpc import EngineRpc
from phalanx.service.ledger_files import read_entries
from phalanx.service.ledger_verify import verify_ledger

from .load import Enforcing, Load, Watch

__all__ = ["BrokenError", "Invariants"]

_AGAIN = 8  # entries that are looked at again, for a node that was torn wrote them anew
_HEADERS = 20  # as many as an engine tells at once


class BrokenError(Exception):
    """Something that must hold does not."""


class Invariants:
    """Reads every node's ledger as it grows.

    Attributes:
        entries: hash of each entry, in order: the same on every node.
        batches: digest of each entry's batch.
        verdicts: of each event, by id: each event is there once.
    """

    def __init__(self, network: Network, load: Load, watch: Watch, enforcing: Enforcing) -> None:
        self.entries: list[str] = []
        self.batches: list[str] = []
        self.verdicts: dict[str, int] = {}
        self.acted_again = 0
        self._network = network
        self._load = load
        self._watch = watch
        self._enforcing = enforcing
        self._seen = [0] * network.chain.n
        self._looked_up: set[str] = set()

    def check(self) -> None:
        """Looks at what has come since the last time.

        Raises:
            BrokenError: something does not hold.
        """
        told, acts = dict(self._load.told), self._lines()  # before the ledgers, which grow on
        for place in range(self._network.chain.n):
            self._ledger(place)
        self._acknowledged(told)
        self._acts(acts)
        for problem in (self._watch.problem, self._load.problem):
            if problem:
                raise BrokenError(problem)
        if self._load.evidence or self._enforcing.evidence.exists():
            raise BrokenError("there is evidence against a member, and none lied")
        for place, told in enumerate(self._watch.counters):
            wrong = {k: v for k, v in told.items() if k in ("misbehavior", "evidence", "flawed/block")}
            if wrong:
                raise BrokenError(f"node {place} counts {wrong}")

    def check_all(self) -> None:
        """Looks at everything, once all nodes have the same ledger and the enforcer has all of it.

        Raises:
            BrokenError: something does not hold.
        """
        self.check()
        chain, folder = self._network.chain, self._network.folder
        self._blocks()
        for place, member in enumerate(chain.members):
            if self._seen[place] != len(self.entries):
                raise BrokenError(f"node {place} has {self._seen[place]} entries of {len(self.entries)}")
            findings = verify_ledger(folder / member.name / "ledger", chain.keys, needed=1).findings
            if findings:
                raise BrokenError(f"the ledger of node {place} does not verify: {findings[0]}")
            if any((folder / member.name / "evidence").glob("*")):
                raise BrokenError(f"node {place} has evidence against a member, and none lied")
        for entry in read_entries(folder / chain.members[0].name / "ledger"):
            flaw = votes_flaw(entry, chain.keys)
            if flaw:
                raise BrokenError(f"entry {entry.height}: {flaw}")
        findings = verify_ledger(folder / "enforcer", chain.keys).findings
        if findings:
            raise BrokenError(f"the enforcer's ledger does not verify: {findings[0]}")
        enforced = [entry.hash for entry in read_entries(folder / "enforcer")]
        if enforced != self.entries or self.acted() != len(self.entries):
            raise BrokenError(f"the enforcer has {len(enforced)} entries of {len(self.entries)}, or others")
        missing = set(self.verdicts) - set(self._load.told)
        if missing:
            raise BrokenError(f"{len(missing)} events were decided and their gateway was not told")

    def acted(self) -> int:
        """The height up to which the enforcer has acted."""
        acts = self._lines()
        return acts[-1][0] if acts else 0

    def _ledger(self, place: int) -> None:
        folder = self._network.folder / self._network.chain.members[place].name / "ledger"
        last = 0
        try:
            for entry in read_entries(folder, max(1, self._seen[place] - _AGAIN)):
                last = entry.height
                if entry.height > len(self.entries):
                    self._first(entry.height, entry.hash, entry.body)
                if entry.hash != self.entries[entry.height - 1]:
                    raise BrokenError(
                        f"fork: entry {entry.height} of node {place} is not that of another node"
                    )
        except DataError as problem:
            raise BrokenError(f"the ledger of node {place}: {problem}") from None
        if last < self._seen[place]:
            raise BrokenError(f"node {place} had {self._seen[place]} entries and has {last}")
        self._seen[place] = last

    def _first(self, height: int, name: str, body: object) -> None:
        assert isinstance(body, dict)
        if height != len(self.entries) + 1:
            raise BrokenError(f"entry {height} after {len(self.entries)}")
        self.entries.append(name)
        self.batches.append(body["digest"])
        for event, decision in zip(body["events"], body["decisions"], strict=True):
            if event["id"] in self.verdicts:
                raise BrokenError(f"event {event['id']} was decided twice, again in entry {height}")
            self.verdicts[event["id"]] = decision["verdict"]

    def _acknowledged(self, told: Mapping[str, int]) -> None:
        for event, verdict in told.items():
            if event in self._looked_up:
                continue
            if event not in self.verdicts:
                raise BrokenError(f"event {event} was acknowledged and is in no ledger")
            if self.verdicts[event] != verdict:
                raise BrokenError(
                    f"event {event}: verdict {verdict} was told, {self.verdicts[event]} is written"
                )
            self._looked_up.add(event)

    def _lines(self) -> list[tuple[int, str, int]]:
        acts: Path = self._enforcing.acts
        if not acts.exists():
            return []
        whole = acts.read_text().rpartition("\n")[0].split("\n")
        fields = [line.split(" ") for line in whole if line]
        return [(int(height), digest, int(number)) for height, digest, number in fields]

    def _acts(self, acts: Sequence[tuple[int, str, int]]) -> None:
        """Each height once and in order; once more only by the process after one that was killed."""
        before, process = 0, -1
        done: Counter[str] = Counter()
        for height, digest, number in acts:
            again = height == before and number > process
            if height != before + 1 and not again:
                raise BrokenError(f"the enforcer acted on height {height} after {before} (process {number})")
            if height > len(self.entries) or digest != self.batches[height - 1]:
                raise BrokenError(f"the enforcer acted on {digest} at height {height}: not what was decided")
            done[digest] += 1
            before, process = height, number
        if len(done) != before:
            raise BrokenError("the enforcer met a batch at two heights")
        self.acted_again = sum(done.values()) - len(done)
        if self.acted_again > self._enforcing.kills:
            raise BrokenError(f"{self.acted_again} acts came again after {self._enforcing.kills} kills")

    def _blocks(self) -> None:
        """Every block and app hash is the same on every engine."""
        known: dict[int, tuple[str, str]] = {}
        for place, member in enumerate(self._network.chain.members):
            rpc = EngineRpc(self._network.folder / member.name / RPC_SOCKET)
            height = int(rpc.call("status", {})["sync_info"]["latest_block_height"])
            while height > 0:
                asked = {"minHeight": str(max(1, height - _HEADERS + 1)), "maxHeight": str(height)}
                for meta in rpc.call("blockchain", asked)["block_metas"]:
                    told = meta["block_id"]["hash"], meta["header"]["app_hash"]
                    at = int(meta["header"]["height"])
                    if known.setdefault(at, told) != told:
                        raise BrokenError(f"fork: block {at} of node {place} is not that of another node")
                height -= _HEADERS
