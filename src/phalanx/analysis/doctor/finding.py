"""What the doctor says: a symptom with its evidence, the most likely cause and the remedy."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from phalanx.errors import unknown_name

__all__ = ["SEVERITIES", "SYMPTOMS", "Finding", "diagnosis", "explained", "identity", "subject"]

SEVERITIES = ("error", "warning", "info")

SYMPTOMS = (
    "actions-not-sampled",
    "actions-without-consequence",
    "actor-frozen",
    "constant-features",
    "critic-frozen",
    "dead-units",
    "duplicates-across-splits",
    "entropy-collapse",
    "entropy-high",
    "first-ratio-mismatch",
    "kl-explosion",
    "label-is-a-rule",
    "label-leak-by-position",
    "memory-not-reset",
    "no-true-positives",
    "non-finite",
    "normalizer-floor",
    "normalizer-stale",
    "policy-collapse-permissive",
    "policy-collapse-restrictive",
    "reward-falls",
    "reward-flat",
    "reward-scale",
    "spec-always-violated",
    "spec-ignores-actions",
    "spec-never-active",
    "split-ignores-time",
    "split-shift",
    "termination-as-time-limit",
    "time-limit-as-termination",
    "too-few-members",
    "unlearnable-observation",
    "updates-too-small",
    "value-loss-explosion",
    "value-loss-stuck",
    "votes-not-pivotal",
    "weights-vanish",
)
"""Names of what is looked for; docs/doctor.md has a section for each."""


@dataclass(frozen=True)
class Finding:
    """One symptom.

    Attributes:
        symptom: one of ``SYMPTOMS``.
        severity: ``error`` (training cannot work), ``warning`` (its result will mislead), ``info``.
        evidence: figures by name.
        cause: the most likely one, in a sentence.
        remedy: what to do, a command where there is one.
        iteration: where a run showed it first; None where no run was looked at.
    """

    symptom: str
    severity: str
    evidence: Mapping[str, Any]
    cause: str
    remedy: str
    iteration: int | None = None
    docs: str = field(init=False)

    def __post_init__(self) -> None:
        if self.symptom not in SYMPTOMS:
            raise unknown_name("symptom", self.symptom, SYMPTOMS)
        if self.severity not in SEVERITIES:
            raise unknown_name("severity", self.severity, SEVERITIES)
        object.__setattr__(self, "docs", f"docs/doctor.md#{self.symptom}")


def diagnosis(findings: Sequence[Finding]) -> dict[str, Any]:
    """The findings as ``phalanx doctor --json`` prints them, the gravest first.

    Example:
        >>> diagnosis([])
        {'healthy': True, 'findings': []}
    """
    ordered = sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))
    return {
        "healthy": all(finding.severity == "info" for finding in findings),
        "findings": [asdict(finding) for finding in ordered],
    }


def identity(finding: Finding) -> tuple[str, str, Any]:
    """What makes two findings the same one: symptom, severity, and what it is about."""
    return finding.symptom, finding.severity, subject(finding)


def subject(finding: Finding) -> Any:
    """The specification, or the term of the reward, that a finding is about; None where it is about the run."""
    return finding.evidence.get("spec", finding.evidence.get("term"))


def explained(finding: Finding | Mapping[str, Any], width: int = 110) -> list[str]:
    """A finding for people, in lines: what, since when, by what evidence, why, and what to do."""
    told = asdict(finding) if isinstance(finding, Finding) else finding
    since = "" if told["iteration"] is None else f" since iteration {told['iteration']}"
    lines = [f"{told['severity']}: {told['symptom']}{since}  ({told['docs']})"]
    seen = ", ".join(
        f"{name} {_short(value)}" for name, value in told["evidence"].items() if value is not None
    )
    for text in (
        told["cause"],
        f"seen: {seen}" if told["iteration"] is not None else "",
        f"remedy: {told['remedy']}",
    ):
        lines += textwrap.wrap(text, width, initial_indent="  ", subsequent_indent="  ")
    return lines


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
