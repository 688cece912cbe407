"""``phalanx ledger``: verifies a ledger of decisions, decides its events again, names its head, shows its entries."""

import collections
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from phalanx.cli_command import parse
from phalanx.errors import DataError, UsageError

__all__ = ["Ledger", "command"]


@dataclass(frozen=True)
class Ledger:
    """Verifies a ledger of decisions, or replays it (exit code 1 where anything is wrong), names its head, or shows its
    entries.

    `verify` finds edits, removals, insertions, another order, signatures that do not hold, decisions that do not follow
    from their votes; with a head that was kept elsewhere also a cut tail, and a ledger written anew. `head` prints that
    head. `show` prints the last entries. `replay` decides all recorded events again with the run that decided them: a
    verdict or a vote that does not come out again was not what the model, or the member, says. The format:
    docs/ledger.md.

    Example: phalanx ledger head decisions > head.json; phalanx ledger verify decisions --head head.json
    """

    action: Annotated[Literal["verify", "replay", "head", "show"], tyro.conf.Positional]
    """What to do."""
    ledger: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="LEDGER")]
    """Its folder, or a file that holds all of it."""
    head: str | None = None
    """With verify: a file with a head that was kept elsewhere, or its JSON text."""
    keys: Path | None = None
    """With verify: the file of public keys; members.json beside the ledger unless given, which whoever changes the
    ledger can change too."""
    signatures: int | None = None
    """With verify: signatures that an entry needs; f + 1 of the members at its height unless given."""
    last: int | None = None
    """With show: how many entries; 10 unless given."""
    start: int | None = None
    """With show: the first height, instead of the last entries."""
    run_dir: Annotated[Path | None, tyro.conf.arg(name="run", metavar="RUN")] = None
    """With replay: the run that decided."""
    specs: Path | None = None
    """With replay: what `serve --specs` was given."""
    shield: Path | None = None
    """With replay: what `serve --shield` was given."""
    known: tuple[str, ...] = ()
    """With replay, of a committee of nodes: models that were rolled out, by the beginning of their hashes; their votes
    are left out. A vote by any other is a finding."""
    slots: int | None = None
    """With replay: processes remembered; what the service's or the node's folder says unless given, else 4096."""
    seed: int = 0
    """Unused: nothing here is random."""
    json: bool = False
    """Print the result as one JSON object."""

    def run(self) -> dict[str, Any]:
        """The findings, the head, or the entries."""
        for action, names in _OF_ACTION.items():
            given = [name.removesuffix("_dir") for name in names if getattr(self, name) not in (None, ())]
            if given and action != self.action:
                raise UsageError(f"ledger {self.action}: --{given[0]} goes with {action}. Leave it out")
        for name in ("signatures", "last", "start", "slots"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"ledger: --{name} {value}: expected 1 or more")
        does = {"verify": self._verify, "replay": self._replay, "head": self._head, "show": self._show}
        return does[self.action]()

    def _verify(self) -> dict[str, Any]:
        from phalanx.service.ledger_entry import Head
        from phalanx.service.ledger_verify import verify_ledger

        head = None if self.head is None else Head.read(self.head)
        members, notes = self._members()
        found = verify_ledger(self.ledger, members, head=head, needed=self.signatures)
        return {
            "verified": not found.findings,
            "entries": found.entries,
            "decisions": found.decisions,
            "head": found.head.to_json(),
            "findings": found.findings,
            "more": found.more,
            "notes": [*found.notes, *notes],
        }

    def _replay(self) -> dict[str, Any]:
        if self.run_dir is None:
            raise UsageError("ledger replay: with which model? Name the run that decided: --run RUN")
        from phalanx.runtime.compile_cache import use_compile_cache
        from phalanx.runtime.one_thread import use_one_thread
        from phalanx.runtime.specifications import load_specs
        from phalanx.service.engine import EngineConfig
        from phalanx.service.model import load_model
        from phalanx.service.replay import replay

        use_compile_cache()
        use_one_thread()  # as whoever decided
        specs, shield = (() if each is None else load_specs(each) for each in (self.specs, self.shield))
        model = load_model(self.run_dir, specs=specs, shield=shield)
        slots = self._slots()
        config = EngineConfig(slots=slots, batch=max(1, min(EngineConfig.batch, slots // 4)))
        found = replay(self.ledger, model, config, known=self.known)
        return {
            "verified": found.same,
            "batches": found.batches,
            "events": found.events,
            "elsewhere": found.elsewhere,
            "votes": found.votes,
            "otherwise": found.otherwise,
            "foreign": found.foreign,
            "verdicts": found.verdicts,
            "differences": [str(each) for each in found.differences],
        }

    def _slots(self) -> int:
        """As the folder of a service, or of a node, says them."""
        from phalanx.files import read_structured
        from phalanx.service.engine import EngineConfig

        if self.slots is not None:
            return self.slots
        beside = (self.ledger if self.ledger.is_dir() else self.ledger.parent).resolve().parent
        for name, what in (("settings.json", "settings"), ("node.json", "node's file")):
            if (beside / name).exists():
                form: Any = read_structured(beside / name, what)
                found = form.get("options", form).get("slots", EngineConfig.slots)
                return found if type(found) is int and found > 0 else EngineConfig.slots
        return EngineConfig.slots

    def _members(self) -> tuple[Any, list[str]]:
        from phalanx.service.ledger import MEMBERS_FILE
        from phalanx.service.members import Members

        if self.keys is not None:
            return Members.load(self.keys), []
        beside = (self.ledger if self.ledger.is_dir() else self.ledger.parent) / MEMBERS_FILE
        if self.ledger.exists() and not beside.exists():
            within = self.ledger / "ledger"
            if within.is_dir():
                raise UsageError(f"{self.ledger}: the folder of a service or a node. Its ledger is {within}")
            raise UsageError(f"{beside}: no public keys beside the ledger. Name the file: --keys FILE")
        if not self.ledger.exists():
            raise DataError(f"{self.ledger}: no such ledger. Check the path")
        note = f"keys from {beside}: whoever can change the ledger can change them too; give --keys from elsewhere"
        return Members.load(beside), [note]

    def _head(self) -> dict[str, Any]:
        from phalanx.service.ledger_entry import Head
        from phalanx.service.ledger_files import ending

        last = ending(self.ledger).entry
        return (last.head if last else Head()).to_json()

    def _show(self) -> dict[str, Any]:
        from phalanx.service.ledger_files import ending, read_entries

        count, start = self.last or 10, self.start
        if start is None:
            end = ending(self.ledger).entry
            start = max(1, (end.height if end else 0) - count + 1)
        return {"entries": list(itertools.islice(read_entries(self.ledger, start), count))}

    def code(self, result: Mapping[str, Any]) -> int:
        """1 where a verification found anything, or a replay another decision."""
        return int(not result.get("verified", True))

    def render(self, result: Mapping[str, Any]) -> str:
        """For people; a head stays JSON, to be kept."""
        from phalanx.files import to_json

        if self.action == "head":
            return to_json(result)
        lines = {"verify": _verified, "replay": _replayed}.get(self.action)
        return "\n".join(_shown(result["entries"]) if lines is None else lines(result))


_OF_ACTION = {
    "verify": ("head", "keys", "signatures"),
    "replay": ("run_dir", "specs", "shield", "known", "slots"),
    "show": ("last", "start"),
}


def _replayed(result: Mapping[str, Any]) -> Iterator[str]:
    yield from result["differences"]
    compared, otherwise = sum(result["votes"]), sum(result["otherwise"])
    yield (
        f"{'the same' if result['verified'] else 'NOT THE SAME'}: {result['events']:,} events decided again, "
        f"{result['verdicts']:,} other verdicts or scores, {otherwise:,} of {compared:,} votes otherwise"
    )
    for place, (count, wrong) in enumerate(zip(result["votes"], result["otherwise"], strict=True)):
        if wrong:
            yield f"member {place}: {wrong:,} of {count:,} votes are not its model's"
    for place, count in enumerate(result["foreign"]):
        if count:
            yield f"member {place}: {count:,} votes by another model; name those that were rolled out: --known HASH"
    if result["elsewhere"]:
        yield f"note: {result['elsewhere']:,} decisions of other models, or without a quorum, were left out"


def _verified(result: Mapping[str, Any]) -> Iterator[str]:
    yield from map(str, result["findings"])
    if result["more"]:
        yield f"and {result['more']} more"
    head = result["head"]
    yield (
        f"{'verified' if result['verified'] else 'NOT VERIFIED'}: {result['entries']:,} entries, "
        f"{result['decisions']:,} decisions, up to height {head['height']}, hash {head['hash']}"
    )
    for note in result["notes"]:
        yield f"note: {note}"


def _shown(entries: Sequence[Any]) -> Iterator[str]:
    """A line an entry, in ASCII without control characters."""
    from phalanx.service.canonical import canonical
    from phalanx.service.ledger_bodies import batch_flaw
    from phalanx.types import Verdict

    for entry in entries:
        if entry.kind == "batch" and batch_flaw(entry.body) is None:
            given = collections.Counter(decision["verdict"] for decision in entry.body["decisions"])
            counts = ", ".join(
                f"{given[verdict]} {verdict.name.lower()}" for verdict in Verdict if given[verdict]
            )
            about = f"{sum(given.values())} decisions ({ascii(entry.body['mode'])[1:-1]}): {counts}"
        else:
            about = canonical(dict(entry.body))
        yield f"{entry.height} {entry.kind}: {about if len(about) <= 160 else about[:157] + '...'}"


def command(arguments: Sequence[str]) -> Ledger:
    """The command that the arguments ask for."""
    return parse(Ledger, "ledger", arguments)
