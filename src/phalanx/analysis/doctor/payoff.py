"""What verdicts pay: the best constant policy, the best one that a probe of the observation finds, the perfect one."""

from typing import Any

import numpy as np
from jaxtyping import Float, Int

from phalanx.analysis.doctor.finding import Finding
from phalanx.analysis.doctor.task import DataTask
from phalanx.analysis.metrics import best_threshold, detection_metrics
from phalanx.analysis.probe import fit_probe
from phalanx.errors import DataError
from phalanx.types import Verdict

__all__ = ["check_consequence", "check_payoff", "halves_by_process", "past_of"]

_PROBE_ROWS = 100_000
_FADING = 0.8
_FEWEST = 20  # malicious events from which a probe, or a test of it, says something
_BLOCKS = 100  # of test rows, resampled whole, for neighbouring events are alike
_RESAMPLES = 2_000
_NEGLIGIBLE = 0.05
"""Share of the way from the best constant policy to the perfect one below which a gain is called negligible."""


def check_payoff(task: DataTask) -> tuple[dict[str, Any], list[Finding]]:
    """The rewards an event of constant, probed and perfect policies on the test part, and whether the probe gains any.

    The probe is gradient boosting on what members see, and where they remember processes a second one on top, which
    also knows what the first said of the process's past. It answers with the verdict of the highest expected reward
    under its calibrated probability (isotonic on the validation part), so that no policy of much more is likely to be
    found on these inputs.
    """
    train, validation, test = (_labelled(task, rows) for rows in task.parts)
    for name, rows in (("training", train), ("validation", validation), ("test", test)):
        if len(np.unique(task.label[rows])) < 2:
            raise DataError(
                f"the {name} part has events of one label alone ({len(rows):,} with a known one). Use another "
                "--split, or data with malicious and benign events throughout"
            )
    rng = np.random.default_rng(task.seed)
    score = _scores(task, train, rng)
    score = {"validation": score[validation], "test": score[test]}
    y = task.label[test]
    constant = int(np.argmax(_constant(task, train)))
    of_constant = task.reward[y, constant]
    chance = _calibrated(score["validation"], task.label[validation], score["test"])
    expected = (1.0 - chance)[:, None] * task.reward[0] + chance[:, None] * task.reward[1]
    of_probe = task.reward[y, expected.argmax(axis=1)]
    of_perfect = task.reward.max(axis=1)[y]
    low, high = _interval(of_probe - of_constant, rng)
    cut = best_threshold(task.label[validation], score["validation"]).threshold
    answers = np.where(score["test"] >= cut, int(Verdict.ALERT), int(Verdict.ALLOW))
    detection = detection_metrics(y, answers, score["test"])
    figures = {
        "events": len(task.label),
        "base_rate": float((task.label == 1).sum() / max((task.label >= 0).sum(), 1)),
        "reward_by_constant": {
            verdict.name.lower(): float(task.reward[y, int(verdict)].mean()) for verdict in Verdict
        },
        "best_constant": Verdict(constant).name.lower(),
        "reward_best_constant": float(of_constant.mean()),
        "reward_probe": float(of_probe.mean()),
        "reward_perfect": float(of_perfect.mean()),
        "probe_gain": float((of_probe - of_constant).mean()),
        "probe_gain_low": low,
        "probe_gain_high": high,
        "probe_f1": detection.f1,
        "probe_pr_auc": detection.pr_auc,
        "features": list(task.chosen),
    }
    room = figures["reward_perfect"] - figures["reward_best_constant"]
    share = figures["probe_gain"] / room if room > 0 else 0.0
    figures["probe_gain_share"] = float(share)
    if room > 0 and low > 0 and share >= _NEGLIGIBLE:
        return figures, []
    names = ("best_constant", "reward_best_constant", "reward_probe", "probe_gain_low", "probe_gain_high")
    evidence = {name: figures[name] for name in (*names, "reward_perfect", "probe_gain_share", "probe_f1")}
    cause = (
        "what members see hardly tells malicious from benign under this reward: the best policy that a probe "
        f"finds earns {figures['reward_probe']:.3f} an event, {figures['best_constant']} for everything "
        f"{figures['reward_best_constant']:.3f}, a perfect policy {figures['reward_perfect']:.3f}"
    )
    remedy = (
        "add columns that carry the label (--features; docs/recorded-data.md), or memory of a process's past; a "
        "policy that answers the same to everything is the optimum here and no bug of training"
    )
    few = min(int((task.label[train] == 1).sum()) // 2, int((y == 1).sum())) < _FEWEST
    certain = room <= 0 or (high < 2 * _NEGLIGIBLE * room and not few)
    if room <= 0:
        cause = (
            f"no policy earns more than {figures['best_constant']} for everything: the reward needs no label"
        )
    elif not certain:
        cause += (
            f"; {int((y == 1).sum())} malicious events among {len(test):,} of the test part are too few to tell "
            f"(the gain is {low:.3f} to {high:.3f})"
        )
    severity = "error" if certain else "warning"
    return figures, [Finding("unlearnable-observation", severity, evidence, cause, remedy)]


def _labelled(task: DataTask, rows: Int[np.ndarray, " _"]) -> Int[np.ndarray, " _"]:
    """The rows of known label, neighbours beside each other."""
    there = np.zeros(len(task.label), bool)
    there[rows] = task.label[rows] >= 0
    return task.order[there[task.order]]


def _constant(task: DataTask, rows: Int[np.ndarray, " _"]) -> Float[np.ndarray, " verdict"]:
    return task.reward[task.label[rows]].mean(axis=0)


def _scores(
    task: DataTask, train: Int[np.ndarray, " _"], rng: np.random.Generator
) -> Float[np.ndarray, " row"]:
    """How likely each row is malicious by the probe that was fitted to training rows, malicious ones first of all."""
    malicious, benign = (rng.permutation(train[task.label[train] == label]) for label in (1, 0))
    malicious = malicious[: _PROBE_ROWS // 2]
    drawn = np.concatenate([malicious, benign[: _PROBE_ROWS - len(malicious)]])
    halves = None if task.process is None else halves_by_process(drawn, task.process, task.label, rng)
    if halves is None:
        return _fitted(task.category, task.numeric, task.label, drawn, task.seed)
    assert task.process is not None
    alone = _fitted(task.category, task.numeric, task.label, halves[0], task.seed)
    inputs = np.column_stack([task.numeric, alone, *past_of(alone, task.process, task.order)])
    return _fitted(task.category, inputs, task.label, halves[1], task.seed)


def halves_by_process(
    rows: Int[np.ndarray, " _"], process: Int[np.ndarray, " row"], label: Any, rng: np.random.Generator
) -> tuple[Int[np.ndarray, " a"], Int[np.ndarray, " b"]] | None:
    """Rows in two halves of whole processes, for a second probe must not rely on what the first learned by heart of the
    same processes; None where a half would lack malicious or benign events."""
    known = np.unique(process[rows])
    guilty = np.isin(known, process[rows[label[rows] == 1]])
    first = np.zeros(int(process.max()) + 1, bool)
    for some in (known[guilty], known[~guilty]):
        first[rng.permutation(some)[: len(some) // 2]] = True
    halves = rows[first[process[rows]]], rows[~first[process[rows]]]
    enough = all(min((label[half] == kind).sum() for kind in (0, 1)) >= _FEWEST for half in halves)
    return halves if enough else None


def _fitted(category: Any, numeric: Any, label: Any, rows: Any, seed: int) -> Float[np.ndarray, " row"]:
    probe = fit_probe(category[rows], numeric[rows], label[rows], seed)
    return probe.score(category, numeric)


def past_of(
    score: Float[np.ndarray, " row"], process: Int[np.ndarray, " row"], order: Int[np.ndarray, " row"]
) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]]:
    """What was said of a process's earlier events: their fading mean and the most; NaN before the first.

    Example:
        >>> past_of(np.array([0.5, 0.1, 0.3]), np.array([0, 1, 0]), np.arange(3))[1].tolist()
        [nan, nan, 0.5]
    """
    mean, most = np.full(len(score), np.nan), np.full(len(score), np.nan)
    known: dict[int, tuple[float, float]] = {}
    for row, who, now in zip(order.tolist(), process[order].tolist(), score[order].tolist(), strict=True):
        before = known.get(who)
        if before is None:
            known[who] = now, now
        else:
            mean[row], most[row] = before
            known[who] = _FADING * before[0] + (1.0 - _FADING) * now, max(before[1], now)
    return mean, most


def _calibrated(
    score: Float[np.ndarray, " a"], label: Int[np.ndarray, " a"], asked: Float[np.ndarray, " b"]
) -> Float[np.ndarray, " b"]:
    """P(malicious) by isotonic regression of the labels on the scores."""
    from sklearn.isotonic import IsotonicRegression

    return np.asarray(
        IsotonicRegression(y_min=0.0, y_max=1.0, out_of_bounds="clip").fit(score, label).predict(asked)
    )


def _interval(gain: Float[np.ndarray, " row"], rng: np.random.Generator) -> tuple[float, float]:
    """95 % bootstrap interval of the mean over blocks of neighbouring rows."""
    blocks = np.array_split(gain, min(_BLOCKS, len(gain)))
    total, count = np.array([b.sum() for b in blocks]), np.array([len(b) for b in blocks])
    drawn = rng.integers(0, len(blocks), (_RESAMPLES, len(blocks)))
    means = total[drawn].sum(axis=1) / count[drawn].sum(axis=1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def check_consequence(task: DataTask, figures: dict[str, Any]) -> list[Finding]:
    """Whether a discount looks ahead to a future that verdicts cannot change."""
    if task.consequence or task.gamma == 0:
        return []
    bound = 1.0 - task.gamma**2
    evidence = {"gamma": task.gamma, "explained_variance_bound": bound}
    cause = (
        f"the next event does not depend on the verdict, yet gamma is {task.gamma:g}: returns are mostly later "
        f"rewards that it cannot change; of events in random order, a critic explains at most {100 * bound:.2g} "
        "% of them"
    )
    remedy = "set --gamma 0 for one decision at a time, or close the loop: --env replay, or --env simulator"
    severity = "info" if task.assumed else "warning"
    return [Finding("actions-without-consequence", severity, evidence, cause, remedy)]
