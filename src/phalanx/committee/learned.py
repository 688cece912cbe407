"""A liar that learned what to lie about: a small policy says which verdict it wants, a search finds the lie.

It knows the honest opinions, as every adversary does, and not the truth; what it learned is when which change of the
verdict does harm. The search is exact (``attacks.reached``), so that nothing has to be learned of the rule.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from phalanx.committee.attacks import ballots_of, reached, speech_of
from phalanx.committee.faults import HONEST, Scene, Speech
from phalanx.errors import UsageError
from phalanx.types import N_VERDICTS, Verdict

__all__ = ["N_TRAITS", "LearnedLiar", "can_reach", "init_liar", "learned", "traits"]

_CLIP = 8.0  # log-odds beyond which an opinion is as good as certain
N_TRAITS = 3 + 2 * N_VERDICTS
"""Numbers that a learned liar sees of an event."""


class LearnedLiar(eqx.Module):
    """A policy over the verdict that is wanted: one hidden layer.

    Attributes:
        weight_in, bias_in, weight_out, bias_out: parameters.
    """

    weight_in: Float[Array, "trait hidden"]
    bias_in: Float[Array, " hidden"]
    weight_out: Float[Array, "hidden verdict"]
    bias_out: Float[Array, " verdict"]

    def log_probs(
        self, seen: Float[Array, "*batch trait"], possible: Bool[Array, "*batch verdict"]
    ) -> Float[Array, "*batch verdict"]:
        """Log-probabilities of wanting each verdict that can be reached."""
        bias_in, bias_out = (
            jnp.expand_dims(bias, tuple(range(seen.ndim - 1))) for bias in (self.bias_in, self.bias_out)
        )
        logits = jnp.tanh(seen @ self.weight_in + bias_in) @ self.weight_out + bias_out
        return jax.nn.log_softmax(jnp.where(possible, logits, -1e9))


def init_liar(key: PRNGKeyArray, hidden: int = 16) -> LearnedLiar:
    """A liar that has learned nothing: it wants every verdict alike."""
    scale = N_TRAITS**-0.5
    return LearnedLiar(
        weight_in=scale * jax.random.normal(key, (N_TRAITS, hidden), jnp.float32),
        bias_in=jnp.zeros(hidden, jnp.float32),
        weight_out=jnp.zeros((hidden, N_VERDICTS), jnp.float32),
        bias_out=jnp.zeros(N_VERDICTS, jnp.float32),
    )


def traits(scene: Scene) -> Float[Array, "env trait"]:
    """What a learned liar sees: the honest members' log-odds of alert or more (least, mean, most), how many of them
    would vote for what, and the honest verdict."""
    honest = ~scene.faults.faulty
    odds = jax.nn.logsumexp(scene.log_probs[..., Verdict.ALERT :], axis=-1) - scene.log_probs[..., 0]
    odds = jnp.clip(odds, -_CLIP, _CLIP).T / _CLIP
    number = jnp.maximum(honest.sum(axis=1), 1).astype(odds.dtype)
    spread = jnp.stack(
        [
            jnp.where(honest, odds, 1.0).min(axis=1),
            jnp.where(honest, odds, 0.0).sum(axis=1) / number,
            jnp.where(honest, odds, -1.0).max(axis=1),
        ],
        axis=1,
    )
    cast = jax.nn.one_hot(scene.honest, N_VERDICTS, dtype=odds.dtype) * honest[..., None].astype(odds.dtype)
    verdict = jax.nn.one_hot(scene.verdict, N_VERDICTS, dtype=odds.dtype)
    return jnp.concatenate([spread, cast.sum(axis=1) / number[:, None], verdict], axis=1)


def can_reach(scene: Scene, verdict: Int[Array, "end option env"]) -> Bool[Array, "env verdict"]:
    """Which verdicts some lie leads to, the honest one included."""
    flat = verdict.reshape(-1, verdict.shape[-1])
    found = (flat[..., None] == jnp.arange(N_VERDICTS, dtype=flat.dtype)[None, None]).any(axis=0)
    return found | jax.nn.one_hot(scene.verdict, N_VERDICTS, dtype=bool)


def learned(scene: Scene) -> Speech:
    """Says and votes what leads to the verdict that its policy wants most.

    Raises:
        UsageError: no liar was trained.
    """
    liar = scene.faults.learned
    if not isinstance(liar, LearnedLiar):
        raise UsageError("the adversary 'learned' has to be trained first: see phalanx.runtime.liar_training")
    ballots = ballots_of(scene.faults.threat.most)
    verdict = reached(scene, ballots)
    wanted = jnp.argmax(liar.log_probs(traits(scene), can_reach(scene, verdict)), axis=-1)
    flat = verdict.reshape(-1, verdict.shape[-1])
    choice = jnp.argmax(flat == wanted[None].astype(flat.dtype), axis=0).astype(jnp.int32)
    lie = (wanted != scene.verdict) & scene.faults.faulty.any(axis=1)
    opinion, vote = (jnp.where(lie[:, None], code, HONEST) for code in speech_of(scene, ballots, choice))
    return Speech(opinion, vote, jnp.ones_like(scene.faults.faulty))
