"""Rules on what the committee answers: threats and harmless events told apart or not, votes that count or not."""

import numpy as np
from jaxtyping import Float

from phalanx.analysis.doctor.course import Course, lasting, trailing
from phalanx.analysis.doctor.finding import Finding

__all__ = ["check_collapse", "check_detection", "check_pivotal", "check_specs", "same_answers"]

_WARM_UP = 0.3
"""Share of the budget after which an evaluation should find something."""


def same_answers(course: Course) -> tuple[Float[np.ndarray, " row"], Float[np.ndarray, " row"]] | None:
    """Recall and false-alarm rate of late, where threats and harmless events get the same answer after the warm-up,
    else NaN; None where no log tells.

    Judged by what is answered to each kind, never by how often one verdict is given: in telemetry of 99 % benign events
    a correct policy allows 99 %.
    """
    # what it answers by itself where that was evaluated, not at a threshold that makes the best of it
    kind = "eval/greedy_" if course.has("eval/greedy_tp") else "eval/"
    if course.has(f"{kind}tp", f"{kind}fp"):
        tp, fn, fp, tn = (course(f"{kind}{cell}") for cell in ("tp", "fn", "fp", "tn"))
        recall, alarms, window = _share(tp, fn), _share(fp, tn), 2
    elif course.has("committee/recall", "committee/false_alarm_rate"):
        recall, alarms, window = course("committee/recall"), course("committee/false_alarm_rate"), 10
    else:
        return None
    judged = np.arange(len(course)) >= max(10, round(_WARM_UP * course.budget))
    recall, alarms = trailing(recall, window), trailing(alarms, window)
    same = judged & (np.abs(recall - alarms) < 0.01)
    return np.where(same, recall, np.nan), np.where(same, alarms, np.nan)


def check_collapse(course: Course) -> list[Finding]:
    """Malicious and benign events get the same verdict."""
    rates = same_answers(course)
    if rates is None:
        return []
    recall_now, alarms_now = rates
    found = []
    for symptom, mask, words in (
        ("policy-collapse-permissive", recall_now < 0.01, "allow"),
        ("policy-collapse-restrictive", alarms_now > 0.99, "stop"),
    ):
        row = lasting(mask)
        if row is not None:
            found.append(
                Finding(
                    symptom,
                    "error",
                    {"recall": float(recall_now[row]), "false_alarm_rate": float(alarms_now[row])},
                    f"threats and harmless events get the same answer: {words} everything",
                    "phalanx doctor --data F --label C says whether that is the best policy there is under this "
                    "reward and these columns; if it is not, look at the findings on the critic and on the votes",
                    course.iteration(row),
                )
            )
    return found


def _share(hit: np.ndarray, missed: np.ndarray) -> np.ndarray:
    """NaN where there was nothing to hit."""
    return np.where(hit + missed > 0.0, hit / np.maximum(hit + missed, 1.0), np.nan)


def check_detection(course: Course) -> list[Finding]:
    """No evaluation after warm-up finds a threat."""
    name = "eval/greedy_tp" if course.has("eval/greedy_tp") else "eval/tp"
    if not course.has(name):
        return []
    threats = course(name) + course(name.replace("tp", "fn"))
    tp = np.where(threats == 0.0, np.nan, course(name))  # an evaluation without threats says nothing of them
    rows = np.flatnonzero(np.isfinite(tp))
    late = rows[rows >= _WARM_UP * course.budget]
    if len(late) < 2 or np.any(tp[late] > 0):
        return []
    return [
        Finding(
            "no-true-positives",
            "error",
            {"evaluations": len(late), "true_positives": 0},
            f"none of the {len(late)} evaluations after the first three tenths of the budget finds a single threat",
            "phalanx doctor --data F --label C: can these columns tell a threat at all, and does the reward pay "
            "for it?",
            course.iteration(int(late[1])),
        )
    ]


def check_pivotal(course: Course) -> list[Finding]:
    """A member's vote hardly ever changes the verdict that it is paid for."""
    rate = trailing(course("policy/pivotal_rate"), 10)
    apart = trailing(course("committee/recall") - course("committee/false_alarm_rate"), 10) > 0.05
    row = lasting((rate < 0.002) & ~course.improved & ~apart)  # a good committee agrees, too
    if row is None:
        return []
    return [
        Finding(
            "votes-not-pivotal",
            "warning",
            {"pivotal_rate": float(rate[row])},
            "hardly any vote changes the verdict, so hardly any reward tells a member whether its vote was "
            "right: with a quorum, a committee that agrees on the wrong answer cannot be left by one member",
            "pay a member for its own vote at first: --credit schedule or --credit half",
            course.iteration(row),
        )
    ]


def check_specs(course: Course) -> list[Finding]:
    """A specification is violated at nearly every step."""
    found = []
    for name in course.log.series:
        if not name.startswith("stl/violated_"):
            continue
        share = trailing(course(name), 5)
        row = lasting(share > 0.95)
        if row is not None:
            found.append(
                Finding(
                    "spec-always-violated",
                    "warning",
                    {"spec": name.removeprefix("stl/violated_"), "violated": float(share[row])},
                    f"{name.removeprefix('stl/violated_')} is violated at nearly every step: what it "
                    "costs, if anything, is a constant that hides the rest of the reward",
                    "state what the policy can reach from where it starts, weigh the penalty, or leave the "
                    "specification out",
                    course.iteration(row),
                )
            )
    return found
