"""The voting rule: from the members' votes to the committee's verdict.

With n = 3f + 1 members and S the votes received: fewer than 2f + 1 votes mean alert (no quorum); else quarantine if at
least 2f + 1 votes are quarantine; else block if more than half of S are block or more; else alert if at least f + 1 are
alert or more; else allow. At most f liars can then neither raise the verdict above the highest honest vote nor bring a
quarantine about with fewer than f + 1 honest votes for it.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from phalanx.errors import UsageError, unknown_name
from phalanx.types import N_VERDICTS, Verdict

__all__ = ["decide", "faults_tolerated", "pivotal", "tally", "verdict_of"]


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


def tally(votes: Int[Array, " member"], received: Bool[Array, " member"]) -> Int[Array, " verdict"]:
    """How many received votes are at or above each severity: ``tally[v] = #{votes >= v}``."""
    severities = jnp.arange(N_VERDICTS, dtype=votes.dtype)
    return ((votes[:, None] >= severities[None, :]) & received[:, None]).sum(axis=0, dtype=jnp.int32)


def verdict_of(tallied: Int[Array, " verdict"], f: int) -> Int[Array, ""]:
    """The verdict for a tally (see the module's rule).

    Args:
        tallied: ``#{votes >= v}`` for v = 0..3; ``tallied[0]`` is the number of votes received.
        f: faults tolerated.
    """
    received = tallied[Verdict.ALLOW]
    majority = jnp.where(
        tallied[Verdict.QUARANTINE] >= 2 * f + 1,
        int(Verdict.QUARANTINE),
        jnp.where(
            2 * tallied[Verdict.BLOCK] > received,
            int(Verdict.BLOCK),
            jnp.where(tallied[Verdict.ALERT] >= f + 1, int(Verdict.ALERT), int(Verdict.ALLOW)),
        ),
    )
    return jnp.where(received >= 2 * f + 1, majority, int(Verdict.ALERT)).astype(jnp.int32)


def pivotal(votes: Int[Array, " member"], received: Bool[Array, " member"], f: int) -> Bool[Array, " member"]:
    """Which members could have changed the verdict by another vote, the others' votes being what they are."""
    n_members = votes.shape[0]
    severities = jnp.arange(N_VERDICTS, dtype=jnp.int32)
    own = (votes[:, None] >= severities[None, :]) & received[:, None]
    others = tally(votes, received)[None] - own.astype(jnp.int32)  # [member, verdict]
    alternatives = others[:, None, :] + (severities[:, None] >= severities[None, :]).astype(jnp.int32)[None]
    reached = jnp.stack(
        [jnp.stack([verdict_of(alternatives[m, v], f) for v in range(N_VERDICTS)]) for m in range(n_members)]
    )
    return received & (reached.max(axis=1) != reached.min(axis=1))


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
    received = jnp.ones(len(numbers), bool)
    return int(verdict_of(tally(jnp.asarray(numbers, jnp.int32).reshape(-1), received), f))


def _number(vote: Verdict | int | str) -> int:
    names = [verdict.name.lower() for verdict in Verdict]
    if isinstance(vote, str):
        if vote.lower() not in names:
            raise unknown_name("vote", vote, names)
        return names.index(vote.lower())
    if isinstance(vote, bool) or int(vote) != vote or not 0 <= int(vote) < N_VERDICTS:
        raise unknown_name("vote", vote, [*names, *range(N_VERDICTS)])
    return int(vote)
