"""The faults that the bench plants, and the symptoms that name each.

Operators of RLMutation (Tambon et al. 2023) and muPRL (2024) for PPO, and mistakes found in well-known code or made in
the notebook that phalanx grew from. The tuning faults were in sight while the doctor's rules were written. The test
faults and the symptoms that are right for them were written down before those rules, and are looked at once: some vary
a tuning fault (another size, another way to the same mistake), the others are new.
"""

from typing import NamedTuple

__all__ = ["TEST_FAULTS", "TUNING_FAULTS", "Planted"]


class Planted(NamedTuple):
    """A fault.

    Attributes:
        change: fields of ``learner.Fault``.
        symptoms: the findings that are right; the first is the name of the cause.
        memory: whether only tasks with a memory can have it.
        hyper: fields of ``learner.Hyper`` without which the fault is none.
        late: whether it may also begin in the middle of a run.
        new: whether it is of a kind that no tuning fault is of.
        begins: share of the budget after which it begins.
        only: tasks on which it changes anything; all unless given.
    """

    change: dict[str, float]
    symptoms: tuple[str, ...]
    memory: bool = False
    hyper: tuple[tuple[str, float], ...] = ()
    late: bool = False
    new: bool = False
    begins: float = 0.0
    only: tuple[str, ...] = ()


_RAW = (("normalized", 0.0),)
_NORMALIZED = (("normalized", 1.0),)
_CUT = ("Reacher", "Inventory")
"""Test tasks whose episodes are cut by a limit."""
_TOO_FAST = ("kl-explosion", "entropy-collapse", "value-loss-explosion", "non-finite", "reward-falls")
_NO_EFFECT = ("actions-without-consequence", "reward-flat")
_BLIND = ("unlearnable-observation", "constant-features", "reward-flat")
_TOO_SLOW = ("updates-too-small", "reward-flat")

TUNING_FAULTS: dict[str, Planted] = {
    "learning-rate-x100": Planted({"learning_rate_times": 100.0}, _TOO_FAST, late=True),
    "frozen-critic": Planted({"critic_rate_times": 0.0}, ("critic-frozen", "value-loss-stuck")),
    "reward-x1e5": Planted({"reward_times": 1e5}, ("reward-scale", "value-loss-explosion"), hyper=_RAW),
    "reward-x1e-5": Planted({"reward_times": 1e-5}, ("reward-scale", "value-loss-explosion"), hyper=_RAW),
    "dropout-in-update": Planted({"dropout": 0.3}, ("first-ratio-mismatch",)),
    "shuffled-actions": Planted({"shuffled_actions": 1.0}, _NO_EFFECT, late=True),
    "swapped-ends": Planted(
        {"swapped_ends": 1.0}, ("termination-as-time-limit", "time-limit-as-termination")
    ),
    "entropy-sign": Planted({"entropy_coef_plus": -0.1}, ("entropy-collapse",)),
    "entropy-too-high": Planted({"entropy_coef_plus": 1.0}, ("entropy-high",)),
    "mangled-observation": Planted({"mangled_observation": 1.0}, _BLIND),
    "loss-sign": Planted({"advantage_times": -1.0}, ("reward-falls", "reward-flat")),
    "memory-not-reset": Planted({"memory_not_reset": 1.0}, ("memory-not-reset",), memory=True),
    "memory-blank-in-update": Planted(
        {"memory_blank_in_update": 1.0}, ("first-ratio-mismatch",), memory=True
    ),
    "greedy-rollout": Planted({"greedy_rollout": 1.0}, ("actions-not-sampled",)),
    # the test faults of an earlier version of the rules
    "learning-rate-x30": Planted({"learning_rate_times": 30.0}, _TOO_FAST, late=True),
    "no-clip-x10": Planted({"clip_times": 1e6, "learning_rate_times": 10.0}, _TOO_FAST),
    "learning-rate-/1000": Planted({"learning_rate_times": 1e-3}, _TOO_SLOW),
    "shuffled-targets": Planted({"shuffled_targets": 1.0}, ("value-loss-stuck",)),
    "reward-x1e4": Planted({"reward_times": 1e4}, ("reward-scale", "value-loss-explosion"), hyper=_RAW),
    "stale-log-probs": Planted({"stale_log_probs": 1.0}, ("first-ratio-mismatch",)),
    "random-actions": Planted({"random_actions": 1.0}, (*_NO_EFFECT, "actions-not-sampled")),
    "time-limit-terminates": Planted({"all_ends_terminate": 1.0}, ("time-limit-as-termination",)),
    "no-end-terminates": Planted({"no_end_terminates": 1.0}, ("termination-as-time-limit",)),
    "saturated-head": Planted({"saturated_head": 1.0}, ("entropy-collapse",)),
    "frozen-observation": Planted({"frozen_observation": 1.0}, _BLIND),
    "reward-flipped": Planted({"reward_flipped": 1.0}, ("reward-falls", "reward-flat")),
    "shifted-advantages": Planted({"shifted_advantages": 1.0}, _NO_EFFECT),
    "strided-chunks": Planted({"strided_chunks": 1.0}, ("first-ratio-mismatch",), memory=True),
    "old-units": Planted({"old_units": 1.0}, ("normalizer-stale",), hyper=_NORMALIZED),
    "dead-layer": Planted({"dead_layer": 1.0}, ("dead-units",)),
    "non-finite": Planted({"non_finite_from": 30.0}, ("non-finite",)),
    "weight-decay": Planted({"weight_decay": 30.0}, ("weights-vanish", "entropy-high", "reward-flat")),
    "reward-noise": Planted({"reward_noise": 300.0}, ("reward-flat", *_BLIND, "value-loss-stuck")),
    "no-discounted-future": Planted(
        {"gamma_times": 0.0}, ("reward-flat", "value-loss-stuck", "normalizer-floor")
    ),
    # in sight, too: new in this version
    "frozen-actor": Planted({"actor_rate_times": 0.0}, ("actor-frozen", "reward-flat")),
}

TEST_FAULTS: dict[str, Planted] = {
    "learning-rate-x60": Planted({"learning_rate_times": 60.0}, _TOO_FAST, late=True),
    "learning-rate-/300": Planted({"learning_rate_times": 1 / 300}, _TOO_SLOW),
    "critic-rate-/1e4": Planted({"critic_rate_times": 1e-4}, ("critic-frozen", "value-loss-stuck")),
    "reward-x1e7": Planted({"reward_times": 1e7}, ("reward-scale", "value-loss-explosion"), hyper=_RAW),
    "reward-/1e4": Planted({"reward_times": 1e-4}, ("reward-scale", "value-loss-explosion"), hyper=_RAW),
    "dropout-.1-in-update": Planted({"dropout": 0.1}, ("first-ratio-mismatch",)),
    "half-greedy": Planted({"greedy_rollout": 0.5}, ("actions-not-sampled",)),
    "entropy-too-high-.5": Planted({"entropy_coef_plus": 0.5}, ("entropy-high",)),
    "memory-kept-in-rollout": Planted(
        {"memory_kept_in_rollout": 1.0}, ("memory-not-reset", "first-ratio-mismatch"), memory=True
    ),
    "late-statistics": Planted({"late_statistics": 1.0}, ("normalizer-stale",), hyper=_NORMALIZED),
    "neighbours-observation": Planted(
        {"neighbours_observation": 1.0}, ("unlearnable-observation", *_NO_EFFECT), new=True
    ),
    "reward-one-step-late": Planted({"late_reward": 1.0}, (*_NO_EFFECT, "unlearnable-observation"), new=True),
    "action-one-step-late": Planted({"late_action": 1.0}, _NO_EFFECT),
    "other-actions-log-prob": Planted({"other_log_prob": 1.0}, ("first-ratio-mismatch",)),
    "inverted-ratio": Planted({"inverted_ratio": 1.0}, ("reward-falls", "reward-flat")),
    "unscaled-observation": Planted(
        {"observation_times": 1e3}, ("dead-units", *_TOO_FAST, "reward-flat"), new=True
    ),
    "no-reward": Planted(
        {"reward_times": 0.0}, ("reward-flat", "normalizer-floor", "reward-scale"), new=True
    ),
    "clip-1e-4": Planted({"clip_times": 5e-4}, (*_TOO_SLOW, "entropy-high"), new=True),
    "misaligned-minibatch": Planted({"misaligned_minibatch": 1.0}, ("first-ratio-mismatch",), new=True),
    "saturated-trunk": Planted(
        {"saturated_trunk": 1.0}, ("dead-units", "entropy-collapse", "kl-explosion"), new=True
    ),
    "reinitialised-midway": Planted(
        {"reinitialised_midway": 1.0}, ("reward-falls", "kl-explosion"), new=True, begins=0.5
    ),
    "value-loss-sign": Planted({"value_coef_times": -1.0}, ("value-loss-explosion", "non-finite"), new=True),
    "value-of-next-episode": Planted(
        {"value_of_next_episode": 1.0},
        ("termination-as-time-limit", "time-limit-as-termination"),
        new=True,
        only=_CUT,
    ),
}
