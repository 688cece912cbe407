"""What each adversary says: one function a kind, from what it knows to codes (see ``faults.Speech``).

Liars know everything: the honest opinions, the threshold, the rule. Those that optimise need not search long. A verdict
depends on tallies alone, so of f votes only the multisets differ; and opinions reach the vote through a middle that is
monotone in each of them, so of all that liars may say beforehand only the two ends matter.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int

from phalanx.committee.faults import HONEST, NOTHING, Scene, Speech, outcome
from phalanx.types import N_VERDICTS, Verdict

__all__ = [
    "ENDS",
    "ballots_of",
    "collude",
    "flip",
    "harm",
    "omissions",
    "omit",
    "protect",
    "raise_alarms",
    "random",
    "reached",
    "silent",
    "sleeper",
    "speech_of",
    "suspicious_only",
    "worst_case",
    "worst_proposer",
]

ENDS = (int(Verdict.ALLOW), int(Verdict.QUARANTINE))
"""The two ends of what liars may say before the vote."""


def _both(scene: Scene, code: Int[Array, "env member"]) -> Speech:
    """The same code as opinion and as vote; nothing is left out."""
    return Speech(code, code, jnp.ones_like(scene.faults.faulty))


def _where(scene: Scene, lie: Bool[Array, " env"], code: int) -> Speech:
    """The code where there is reason to lie, else what is honest."""
    return _both(scene, jnp.where(lie[:, None], scene.all_say(code), HONEST))


def random(scene: Scene) -> Speech:
    """Each liar draws a verdict, says that it is certain of it, and votes for it."""
    return _both(scene, jax.random.randint(scene.key, scene.faults.faulty.shape, 0, N_VERDICTS))


def flip(scene: Scene) -> Speech:
    """The opposite end: allow where it would answer, quarantine where it would allow."""
    answers = scene.honest >= Verdict.ALERT
    return _both(scene, jnp.where(answers, scene.all_say(Verdict.ALLOW), int(Verdict.QUARANTINE)))


def suspicious_only(scene: Scene) -> Speech:
    """Honest but where the committee would answer: it says and votes allow there."""
    return _where(scene, scene.verdict >= Verdict.ALERT, Verdict.ALLOW)


def raise_alarms(scene: Scene) -> Speech:
    """Honest but where the committee would allow: it says and votes quarantine there."""
    return _where(scene, scene.verdict == Verdict.ALLOW, Verdict.QUARANTINE)


def protect(scene: Scene) -> Speech:
    """Honest but on one process (the memory slot ``target``), which it says and votes to allow."""
    return _where(scene, scene.entity == scene.faults.target, Verdict.ALLOW)


def silent(scene: Scene) -> Speech:
    """Neither opinion nor vote is received, as of a member that crashed."""
    return _both(scene, scene.all_say(NOTHING))


def sleeper(scene: Scene) -> Speech:
    """Honest until it wakes, then ``flip``."""
    awake = scene.faults.time >= scene.faults.wakes
    flipped = flip(scene)
    return _both(scene, jnp.where(awake[:, None], flipped.vote, HONEST))


def harm(
    verdict: Int[Array, "*batch env"], honest: Int[Array, " env"], label: Int[Array, " env"]
) -> Int[Array, "*batch env"]:
    """What a verdict is worth to a liar: the milder on malicious events, the more severe on benign ones; where it does
    not know the truth, the farther from the verdict of honest members, of two equally far ones the milder.

    Example:
        >>> harm(jnp.array([[0, 3], [2, 1]]), jnp.array([2, 2]), jnp.array([-1, 0])).tolist()
        [[5, 3], [0, 1]]
    """
    honest, label = (jnp.broadcast_to(each, verdict.shape) for each in (honest, label))
    away = 2 * jnp.abs(verdict - honest) + (verdict < honest).astype(jnp.int32)
    known = jnp.where(label == 1, N_VERDICTS - 1 - verdict, verdict)
    return jnp.where(label >= 0, known, away)


def ballots_of(liars: int) -> Int[np.ndarray, "option liar"]:
    """Every multiset of so many liars' votes and abstentions, of 1 or more.

    Example:
        >>> ballots_of(1).ravel().tolist()
        [-2, 0, 1, 2, 3]
    """
    options = itertools.combinations_with_replacement((NOTHING, *range(N_VERDICTS)), liars)
    return np.array(list(options), np.int32)


def omissions(most: int) -> Int[np.ndarray, "option verdict"]:
    """How many votes for each verdict are left out, at most so many in all.

    Example:
        >>> omissions(1).tolist()
        [[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0], [0, 1, 0, 0], [1, 0, 0, 0]]
    """
    counts = itertools.product(range(most + 1), repeat=N_VERDICTS)
    return np.array([count for count in counts if sum(count) <= most], np.int32)


def _lies(scene: Scene, ballots: Int[np.ndarray, "option liar"]) -> Int[Array, "option env member"]:
    """Each option's code for every member; what is there for honest members is not read."""
    return jnp.asarray(ballots)[:, jnp.maximum(scene.rank, 0)]


def _cast(
    scene: Scene, end: int, ballots: Int[np.ndarray, "option liar"]
) -> tuple[Int[Array, "option env member"], Bool[Array, "option env member"]]:
    """The votes cast and received where liars say ``end`` beforehand and then vote by each of the ballots."""
    own = scene.votes_if(scene.all_say(end))[None]
    votes = jnp.where(scene.faults.faulty[None], _lies(scene, ballots), own)
    return votes, votes >= 0


def reached(scene: Scene, ballots: Int[np.ndarray, "option liar"]) -> Int[Array, "end option env"]:
    """The verdict for each of the two ends said beforehand and each of the ballots cast then."""
    return jnp.stack([outcome(*_cast(scene, end, ballots), scene.f) for end in ENDS])


def speech_of(
    scene: Scene, ballots: Int[np.ndarray, "option liar"], choice: Int[Array, " env"]
) -> tuple[Int[Array, "env member"], Int[Array, "env member"]]:
    """Opinion and vote of a choice, counted through the options of both ends."""
    end, option = choice // ballots.shape[0], choice % ballots.shape[0]
    vote = jnp.take_along_axis(_lies(scene, ballots), option[None, :, None], axis=0)[0]
    return jnp.broadcast_to(jnp.asarray(ENDS)[end][:, None], vote.shape), vote


def _best(scene: Scene, ballots: Int[np.ndarray, "option liar"]) -> Speech:
    """The most harmful of the options; honest where none harms more than that."""
    verdict = reached(scene, ballots)
    worth = harm(verdict.reshape(-1, verdict.shape[-1]), scene.verdict, scene.faults.label)
    lie = worth.max(axis=0) > harm(scene.verdict, scene.verdict, scene.faults.label)
    opinion, vote = (
        jnp.where(lie[:, None], code, HONEST)
        for code in speech_of(scene, ballots, jnp.argmax(worth, axis=0).astype(jnp.int32))
    )
    return Speech(opinion, vote, jnp.ones_like(scene.faults.faulty))


def collude(scene: Scene) -> Speech:
    """All liars say the same and vote the same: what moves the verdict most."""
    liars = scene.faults.threat.most
    return _best(scene, np.tile(np.arange(N_VERDICTS, dtype=np.int32)[:, None], (1, liars)))


def worst_case(scene: Scene) -> Speech:
    """The most harmful of all that f members can say, vote, or keep back; exact."""
    return _best(scene, ballots_of(scene.faults.threat.most))


def _left_out(
    votes: Int[Array, "*option env member"], omitted: Int[np.ndarray, "omission verdict"], who: Array
) -> Bool[Array, "omission *option env member"]:
    """Which votes are left out: the first so many for each verdict, among the members ``who``."""
    out = jnp.zeros((len(omitted), *votes.shape), bool)
    for verdict in Verdict:
        these = (votes == verdict) & who
        place = jnp.cumsum(these, axis=-1, dtype=jnp.int32) - 1
        count = jnp.asarray(omitted[:, verdict]).reshape(-1, *(1,) * votes.ndim)
        out = out | (these[None] & (place[None] < count))
    return out


def _room(scene: Scene) -> int:
    """Votes that may be missing without the proposal being refused: 2f + 1 must be in it."""
    return max(scene.faults.faulty.shape[1] - (2 * scene.f + 1), 0)


def omit(scene: Scene) -> Speech:
    """Members are honest in what they say, but the proposer, one of the liars, leaves out up to f votes: those whose
    absence moves the verdict most. It proposes on every event; in a network honest members have their turn, too.
    """
    votes, faults = scene.honest, scene.faults
    out = _left_out(votes, omissions(_room(scene)), jnp.ones_like(votes, bool))
    verdict = outcome(jnp.broadcast_to(votes[None], out.shape), ~out, scene.f)
    worth = harm(verdict, scene.verdict, faults.label)
    best = jnp.argmax(worth, axis=0)
    chosen = jnp.take_along_axis(out, best[None, :, None], axis=0)[0]
    honest = scene.all_say(HONEST)
    return Speech(honest, honest, ~(chosen & faults.faulty.any(axis=1)[:, None]))


def worst_proposer(scene: Scene) -> Speech:
    """``worst_case`` and ``omit`` together: the most harmful of all that f members can say and vote while one of them
    proposes; exact. The strongest adversary there is, event by event."""
    faults, ballots = scene.faults, ballots_of(scene.faults.threat.most)
    omitted = omissions(_room(scene))
    least = 2 * scene.f + 1
    worths, outs = [], []
    for end in ENDS:
        votes, received = _cast(scene, end, ballots)
        out = _left_out(votes, omitted, ~faults.faulty[None])
        there = received[None] & ~out
        verdict = outcome(jnp.broadcast_to(votes[None], out.shape), there, scene.f)
        worth = harm(verdict, scene.verdict, faults.label)
        # a proposal with fewer votes than a quorum is refused, unless that many liars keep theirs back
        short = (there.sum(axis=-1) < least) & out.any(axis=-1)
        worths.append(jnp.where(short, -1, worth))
        outs.append(out)
    worth = jnp.stack(worths, axis=1)  # [omission, end, option, env]
    flat = worth.reshape(-1, worth.shape[-1])
    best = jnp.argmax(flat, axis=0).astype(jnp.int32)
    lie = flat.max(axis=0) > harm(scene.verdict, scene.verdict, faults.label)
    per = len(ENDS) * len(ballots)
    opinion, vote = speech_of(scene, ballots, best % per)
    out = jnp.stack(outs, axis=1).reshape(-1, *faults.faulty.shape)
    chosen = jnp.take_along_axis(out, best[None, :, None], axis=0)[0]
    act = (lie & faults.faulty.any(axis=1))[:, None]
    return Speech(jnp.where(act, opinion, HONEST), jnp.where(act, vote, HONEST), ~(chosen & act))
