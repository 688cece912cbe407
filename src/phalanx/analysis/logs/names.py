"""What other tools call the quantities of ``metrics.jsonl``, and by what factor theirs differ.

Read from the tools' sources: Stable-Baselines3 2.3 (``common/on_policy_algorithm.py``, ``ppo/ppo.py``, ``a2c/a2c.py``),
CleanRL's ``ppo.py`` and its variants (value loss with the factor 1/2), RLlib 2.9 and 2.40 (``ppo_torch_policy.py``,
``ppo_torch_learner.py``; squared errors cut at ``vf_clip_param`` before the mean).
"""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from phalanx.errors import UsageError, unknown_name

__all__ = ["AXES", "STANDARD", "VITALS", "Meaning", "canonical_names", "meaning_of"]

AXES = ("iteration", "env_steps", "wall_s")

STANDARD = (
    "loss/value",
    "loss/policy",
    "policy/entropy",
    "policy/approx_kl",
    "policy/clip_fraction",
    "value/explained_variance",
    "reward/episode",
)
"""What most tools log of a PPO run."""

VITALS = (
    "reward/step",
    "policy/first_ratio_error",
    "policy/sampling_z",
    "policy/effect_z",
    "policy/consequence_z",
    "policy/transition_z",
    "policy/entropy_share",
    "policy/pivotal_rate",
    "value/linear_r2",
    "value/end_bias",
    "value/preserved_error",
    "value/target_mean",
    "value/target_std",
    "value/scale",
    "value/on_floor",
    "features/constant",
    "features/predictable",
    "update/actor",
    "update/critic",
    "network/dead_units",
    "network/norm",
    "memory/not_blank",
    "episode/terminated",
    "episode/truncated",
    "episode/terminated_at_limit",
    "episode/truncated_spread",
    "committee/recall",
    "committee/false_alarm_rate",
    *(f"eval/{kind}{cell}" for kind in ("", "greedy_") for cell in ("tp", "fp", "tn", "fn")),
)
"""What rules look at beside it."""


class Meaning(NamedTuple):
    """What a column of a log holds.

    Attributes:
        name: as in ``metrics.jsonl``.
        factor: by which the log's value is multiplied.
        tool: that calls it so.
        agent: whose it is, where the column names one.
    """

    name: str
    factor: float = 1.0
    tool: str = "unknown"
    agent: str | None = None


_SB3 = {
    "time/iterations": ("iteration", 1),
    "time/total_timesteps": ("env_steps", 1),
    "time/time_elapsed": ("wall_s", 1),
    "rollout/ep_rew_mean": ("reward/episode", 1),
    "rollout/ep_len_mean": ("episode/length", 1),
    "train/value_loss": ("loss/value", 1),
    "train/policy_gradient_loss": ("loss/policy", 1),
    "train/policy_loss": ("loss/policy", 1),
    "train/entropy_loss": ("policy/entropy", -1),
    "train/approx_kl": ("policy/approx_kl", 1),
    "train/clip_fraction": ("policy/clip_fraction", 1),
    "train/explained_variance": ("value/explained_variance", 1),
    "train/learning_rate": ("optimizer/learning_rate", 1),
}
_CLEANRL = {
    "global_step": ("env_steps", 1),
    "charts/episodic_return": ("reward/episode", 1),
    "charts/episodic_length": ("episode/length", 1),
    "losses/value_loss": ("loss/value", 2),
    "losses/policy_loss": ("loss/policy", 1),
    "losses/entropy": ("policy/entropy", 1),
    "losses/approx_kl": ("policy/approx_kl", 1),
    "losses/clipfrac": ("policy/clip_fraction", 1),
    "losses/explained_variance": ("value/explained_variance", 1),
    "charts/learning_rate": ("optimizer/learning_rate", 1),
}
_RLLIB = {
    "training_iteration": ("iteration", 1),
    "timesteps_total": ("env_steps", 1),
    "num_env_steps_sampled": ("env_steps", 1),
    "num_env_steps_sampled_lifetime": ("env_steps", 1),
    "time_total_s": ("wall_s", 1),
    "episode_reward_mean": ("reward/episode", 1),
    "episode_len_mean": ("episode/length", 1),
    "env_runners/episode_return_mean": ("reward/episode", 1),
    "env_runners/episode_reward_mean": ("reward/episode", 1),
    "env_runners/episode_len_mean": ("episode/length", 1),
}
_RLLIB_AGENT = re.compile(
    r"^(?:info/learner/(?P<old>.+)/learner_stats|learners/(?P<new>[^/]+))/(?P<what>[^/]+)$"
)
_RLLIB_OF_AGENT = {
    "vf_loss": ("loss/value", 1),
    "policy_loss": ("loss/policy", 1),
    "entropy": ("policy/entropy", 1),
    "kl": ("policy/approx_kl", 1),
    "mean_kl_loss": ("policy/approx_kl", 1),
    "vf_explained_var": ("value/explained_variance", 1),
    "cur_lr": ("optimizer/learning_rate", 1),
    "default_optimizer_learning_rate": ("optimizer/learning_rate", 1),
}
_RLLIB_ALL = "__all_modules__"
_TABLES = {"stable-baselines3": _SB3, "cleanrl": _CLEANRL, "rllib": _RLLIB}
_OWN = re.compile(
    r"^(?:member/(?P<agent>[^/]+)/)?(?P<name>(?:loss|value|policy|reward|eval|stl|committee|credit|critic|normalizer"
    r"|target|advantage|optimizer|gradient|episode|rate|score|memory|network|update|features|data)/.+)$"
)

_ONLY_OWN = re.compile(r"^member/|^policy/(first_ratio_error|rate_)|^eval/greedy_")
"""Names that no other tool uses: "loss/value" may be anybody's."""


def canonical_names() -> tuple[str, ...]:
    """The names that the tables lead to.

    Example:
        >>> "loss/value" in canonical_names()
        True
    """
    found = [name for table in (*_TABLES.values(), _RLLIB_OF_AGENT) for name, _ in table.values()]
    return tuple(dict.fromkeys(found))


def meaning_of(column: str, mapping: Mapping[str, str] | None = None) -> Meaning | None:
    """What a column of some tool's log holds; None where it is not known.

    Args:
        column: its name, nested ones joined by "/".
        mapping: names that the user gave; a factor may precede one: {"vloss": "2*loss/value"}.

    Raises:
        UsageError: a mapping that is not a name, or whose factor is no number.

    Example:
        >>> meaning_of("losses/value_loss")
        Meaning(name='loss/value', factor=2.0, tool='cleanrl', agent=None)
    """
    if mapping and column in mapping:
        return _given(column, mapping[column])
    name = column.removeprefix("ray/tune/")
    for tool, table in _TABLES.items():
        if name in table:
            return Meaning(table[name][0], float(table[name][1]), tool)
    nested = _RLLIB_AGENT.match(name)
    if nested:
        agent = nested["old"] or nested["new"]
        found = _RLLIB_OF_AGENT.get(nested["what"])
        return (
            None
            if found is None or agent == _RLLIB_ALL
            else Meaning(found[0], float(found[1]), "rllib", agent)
        )
    own = _OWN.match(name)
    if own:
        return Meaning(own["name"], 1.0, "phalanx" if _ONLY_OWN.match(name) else "unknown", own["agent"])
    return Meaning(name, 1.0, "unknown") if name in AXES else None


def _given(column: str, target: str) -> Meaning:
    factor, star, name = target.rpartition("*")
    if not star and name.startswith("-"):
        factor, star, name = "-1", "*", name[1:]
    try:
        times = float(factor) if star else 1.0
        if not math.isfinite(times):
            raise ValueError
    except ValueError:
        raise UsageError(
            f"column {column!r}: {factor!r} in {target!r} is no number; expected for instance '2*loss/value'"
        ) from None
    known = tuple(dict.fromkeys((*AXES, *canonical_names(), *VITALS)))
    if name not in known and not name.startswith("stl/violated_"):
        raise UsageError(f"column {column!r}: {unknown_name('quantity', name, known)}")
    return Meaning(name, times)
