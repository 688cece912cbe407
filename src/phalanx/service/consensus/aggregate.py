"""From the votes that a block carries to the committee's decisions: the same on every node, whole numbers alone."""

from collections.abc import Sequence

from phalanx.committee.rule import verdict_of_tally
from phalanx.service.consensus.extension import Vote
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.verdicts import N_VERDICTS, Verdict

__all__ = ["decide_batch"]


def decide_batch(
    events: Sequence[LiveEvent], votes: Sequence[Vote | None], f: int
) -> tuple[LiveDecision, ...]:
    """The committee's decisions on a batch.

    Args:
        events: of the batch.
        votes: of each member, by place, on all events; None where it abstained or its vote was not received.
        f: faults tolerated, n >= 3f + 1.

    Returns:
        One decision an event. Its score is the share of the votes received that are alert or more.

    Example:
        >>> event = LiveEvent("e", 1, "web", "web:1", "EXECUTE")
        >>> votes = [Vote("m", (2,)), Vote("m", (2,)), Vote("m", (3,)), None]
        >>> (decision,) = decide_batch([event], votes, f=1)
        >>> decision.verdict.name, decision.quorum, decision.score
        ('BLOCK', True, 1.0)
    """
    columns = [vote.votes if vote is not None else (None,) * len(events) for vote in votes]
    model = "+".join(dict.fromkeys(vote.model for vote in votes if vote is not None))
    received = sum(vote is not None for vote in votes)
    answers: dict[tuple[int | None, ...], tuple[Verdict, tuple[Verdict | None, ...], float]] = {}
    decisions = []
    for event, cast in zip(events, zip(*columns, strict=True), strict=True):
        if cast not in answers:
            tally = tuple(sum(vote is not None and vote >= v for vote in cast) for v in range(N_VERDICTS))
            named = tuple(None if vote is None else Verdict(vote) for vote in cast)
            answers[cast] = (
                Verdict(verdict_of_tally(tally, f)),
                named,
                tally[Verdict.ALERT] / max(1, received),
            )
        verdict, named, score = answers[cast]
        decisions.append(
            LiveDecision(
                event_id=event.id,
                time_ns=event.time_ns,
                host=event.host,
                subject=event.subject,
                verdict=verdict,
                votes=named,
                quorum=received >= 2 * f + 1,
                score=score,
                shielded=False,
                robustness={},
                evidence=(event.id,),
                model=model,
                tolerates=f,
            )
        )
    return tuple(decisions)
