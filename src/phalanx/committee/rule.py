"""The voting rule: from the members' votes to the committee's verdict.

With n = 3f + 1 members and S the votes received: fewer than 2f + 1 votes mean alert (no quorum); else quarantine if at
least 2f + 1 votes are quarantine; else block if more than half of S are block or more; else alert if at least f + 1 are
alert or more; else allow. At most f liars can then neither raise the verdict above the highest honest vote nor bring a
quarantine about with fewer than f + 1 honest votes for it.

Plain numbers here; ``phalanx.committee.voting`` is the same rule over JAX arrays. A node that only counts votes loads
no JAX.
"""

from collections.abc import Callable, Sequence
from typing import Any

from phalanx.errors import UsageError, unknown_name
from phalanx.verdicts import N_VERDICTS, Verdict

__all__ = ["decide", "faults_tolerated", "verdict_by_rule", "verdict_of_tally"]

_NAMES = tuple(verdict.name.lower() for verdict in Verdict)


def faults_tolerated(n_members: int, faults: int | None = None) -> int:
    """The number f of liars or crashes that n members tolerate, n >= 3f + 1.

    Args:
        n_members: size of the committee, at least 1.
        faults: faults to tolerate; None asks for the most that are possible.

    Raises:
        UsageError: the committee is too small for the faults asked for.

    Example:
        >>> faults_tolerated(4), faults_tolerated(3), faults_tolerated(7, faults=1)
        (1, 0, 1)

    Source: Pease, Shostak and Lamport, "Reaching agreement in the presence of faults", 1980.
    """
    if n_members < 1:
        raise UsageError(f"a committee of {n_members} members; at least 1 is needed")
    most = (n_members - 1) // 3
    if faults is None:
        return most
    if not 0 <= faults <= most:
        raise UsageError(
            f"{n_members} members tolerate {most} faulty ones (n >= 3f + 1), but {faults} were asked for; "
            f"use --members {3 * max(faults, 0) + 1} or more"
        )
    return faults


def verdict_by_rule(tallied: Any, f: int, where: Callable[[Any, Any, Any], Any]) -> Any:
    """The module's rule on a tally, whatever its numbers are.

    Args:
        tallied: ``#{votes >= v}`` for v = 0..3, numbers or arrays; ``tallied[0]`` is the number of votes received.
        f: faults tolerated.
        where: picks its second argument where its first holds, else its third: ``jnp.where`` for arrays.
    """
    received = tallied[Verdict.ALLOW]
    alert = where(tallied[Verdict.ALERT] >= f + 1, int(Verdict.ALERT), int(Verdict.ALLOW))
    block = where(2 * tallied[Verdict.BLOCK] > received, int(Verdict.BLOCK), alert)
    majority = where(tallied[Verdict.QUARANTINE] >= 2 * f + 1, int(Verdict.QUARANTINE), block)
    return where(received >= 2 * f + 1, majority, int(Verdict.ALERT))


def decide(votes: Sequence[Verdict | int | str], f: int) -> int:
    """The committee's verdict on the votes received.

    Args:
        votes: numbers 0..3 or names (allow, alert, block, quarantine); a missing vote is left out.
        f: faults tolerated, n = 3f + 1.

    Returns:
        The verdict, 0..3.

    Raises:
        UsageError: a vote is not a verdict, or f is negative.

    Example:
        >>> decide(["block", "block", "quarantine", "allow"], f=1)
        2
        >>> decide(["quarantine", "quarantine"], f=1)  # no quorum
        1
    """
    if f < 0:
        raise UsageError(f"f={f}; the number of faults tolerated is 0 or more")
    numbers = [_number(vote) for vote in votes]
    tallied = [sum(number >= severity for number in numbers) for severity in range(N_VERDICTS)]
    return verdict_of_tally(tallied, f)


def verdict_of_tally(tallied: Sequence[int], f: int) -> int:
    """The module's rule on the tally of the votes received.

    Args:
        tallied: ``#{votes >= v}`` for v = 0..3.
        f: faults tolerated.

    Example:
        >>> verdict_of_tally([4, 4, 3, 1], 1)
        2
    """
    return verdict_by_rule(tallied, f, _if)


def _if(holds: bool, this: int, other: int) -> int:
    return this if holds else other


def _number(vote: Verdict | int | str) -> int:
    if isinstance(vote, str):
        if vote.lower() not in _NAMES:
            raise unknown_name("vote", vote, _NAMES)
        return _NAMES.index(vote.lower())
    if isinstance(vote, bool) or int(vote) != vote or not 0 <= int(vote) < N_VERDICTS:
        raise unknown_name("vote", vote, [*_NAMES, *range(N_VERDICTS)])
    return int(vote)
