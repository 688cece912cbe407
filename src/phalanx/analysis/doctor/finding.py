"""What the doctor says: a symptom with its evidence, the most likely cause and the remedy."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from phalanx.errors import unknown_name

__all__ = ["SEVERITIES", "SYMPTOMS", "Finding", "diagnosis"]

SEVERITIES = ("error", "warning", "info")

SYMPTOMS = (
    "actions-without-consequence",
    "constant-features",
    "duplicates-across-splits",
    "label-is-a-rule",
    "label-leak-by-position",
    "split-ignores-time",
    "split-shift",
    "unlearnable-observation",
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
