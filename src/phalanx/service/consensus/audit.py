"""Whether an entry's decisions are those of the votes that members signed: from the ledger and their keys alone."""

from phalanx.errors import DataError
from phalanx.service.consensus.aggregate import decide_batch
from phalanx.service.consensus.extension import Ballot, read_vote
from phalanx.service.ledger_bodies import decisions_of, events_of
from phalanx.service.ledger_entry import Entry
from phalanx.service.members import Members

__all__ = ["votes_flaw"]


def votes_flaw(entry: Entry, members: Members) -> str | None:
    """Why an entry's decisions do not follow from signed votes; None where they do.

    Whether the voters were all who voted cannot be seen from here: that, the nodes' engines checked.

    Args:
        entry: of a network's ledger.
        members: their keys, in the order of their places.
    """
    told = entry.body.get("consensus")
    try:
        events, decisions = events_of(entry.body), decisions_of(entry.body)
        if not isinstance(told, dict):
            return "no network decided it"
        ballot = Ballot(told["chain"], told["ordered"], entry.body["digest"], len(events))
        names = members.at(entry.height)
        if not set(told["extensions"]) <= set(names):
            return "votes of one who was no member"
        votes = []
        for name in names:
            public = members.public(name, entry.height)
            raw = bytes.fromhex(told["extensions"].get(name, ""))
            votes.append(read_vote(raw, str(public), name, ballot))
        wanted = decide_batch(events, votes, entry.body["f"])
    except (DataError, KeyError, TypeError, ValueError, AttributeError) as problem:
        return f"not an entry of a network ({problem})"
    for place, (decision, other) in enumerate(zip(decisions, wanted, strict=True)):
        if decision != other:
            return f"decision {place} is not that of the signed votes"
    return None
