"""Findings in the Open Cybersecurity Schema Framework: Detection Finding (2004) with the Security Control profile.

| what happens | activity | action | disposition | status |
|---|---|---|---|---|
| alert, or approval asked for | create | 3 observed | 19 alert | new |
| a block begins | create (update after approval) | 2 denied | 2 blocked | in progress |
| a quarantine begins | create (update after approval) | 2 denied | 3 quarantined | in progress |
| a restriction ends by itself | close | 1 allowed | 1 allowed | resolved |
| an operator lifts one | close | 1 allowed | 1 allowed | suppressed |
| what waited is not approved | close | 3 observed | 19 alert | suppressed by an operator, else resolved |

What OCSF has no field for (votes, dissent, quorum, robustness, the model's hash, the rules that spoke) is in
``unmapped.phalanx``. Attributes are those of versions 1.5 and later.

Source: schema.ocsf.io, classes/detection_finding and profiles/security_control.
"""

import posixpath
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from phalanx.service.actors import actor_of
from phalanx.service.commands import Command
from phalanx.service.records import LiveDecision, LiveEvent
from phalanx.service.redaction import COMMAND_ATTRIBUTES, safe_text
from phalanx.service.restrictions import State
from phalanx.verdicts import Verdict

__all__ = ["OCSF_VERSION", "finding"]

OCSF_VERSION = "1.8.0"

_ACTIVITIES = {1: "Create", 2: "Update", 3: "Close"}
_STATUSES = {1: "New", 2: "In Progress", 3: "Suppressed", 4: "Resolved"}
_ACTIONS = {1: "Allowed", 2: "Denied", 3: "Observed"}
_DISPOSITIONS = {1: "Allowed", 2: "Blocked", 3: "Quarantined", 19: "Alert"}
_SEVERITIES = {
    Verdict.ALLOW: (1, "Informational"),
    Verdict.ALERT: (3, "Medium"),
    Verdict.BLOCK: (4, "High"),
    Verdict.QUARANTINE: (5, "Critical"),
}
_TITLES = {
    "alert": "Suspicious activity",
    "drop": "Not approved",
    "deny": "Activity blocked",
    "contain": "Process quarantined",
    "allow": "Restriction ended",
}


def finding(
    command: Command,
    event: LiveEvent | None = None,
    decision: LiveDecision | None = None,
    *,
    schema: str = OCSF_VERSION,
) -> dict[str, Any]:
    """The finding that tells of a command.

    Args:
        command: alert, ask, drop, deny, contain or allow.
        event: that was decided, where it is still known.
        decision: the committee's, where it is still known.
        schema: OCSF version to name in the metadata.

    Raises:
        ValueError: the command is a page.

    Example:
        >>> from phalanx.service.clock import Moment
        >>> command = Command("f-1", "alert", Moment(5_000_000, 0), "l", "s", host="web-1", subject="p", event_id="e")
        >>> found = finding(command)
        >>> found["class_uid"], found["type_uid"], found["action_id"], found["disposition_id"], found["time"]
        (2004, 200401, 3, 19, 5)
    """
    if command.action == "page":
        raise ValueError("a page is no finding")
    activity, status = _stage(command)
    action, disposition = _outcome(command)
    verdict = _verdict(command, decision)
    severity, severity_name = _SEVERITIES[verdict]
    restriction, title = command.restriction, _title(command, verdict)
    where = f"{safe_text(command.subject, 120)} on {safe_text(command.host, 120)}"
    found: dict[str, Any] = {
        "category_uid": 2,
        "category_name": "Findings",
        "class_uid": 2004,
        "class_name": "Detection Finding",
        "activity_id": activity,
        "activity_name": _ACTIVITIES[activity],
        "type_uid": 200400 + activity,
        "type_name": f"Detection Finding: {_ACTIVITIES[activity]}",
        "time": command.at.wall_ns // 1_000_000,
        "severity_id": severity,
        "severity": severity_name,
        "status_id": status,
        "status": _STATUSES[status],
        "action_id": action,
        "action": _ACTIONS[action],
        "disposition_id": disposition,
        "disposition": _DISPOSITIONS[disposition],
        "is_alert": activity == 1,
        "message": f"{title}: {where}",
        "metadata": {
            "version": schema,
            "uid": command.key,
            "profiles": ["security_control"],
            "product": {"name": "phalanx", "vendor_name": "phalanx", "version": _product_version()},
        },
        "finding_info": {
            "uid": restriction.id if restriction is not None else command.key,
            "title": title,
            "analytic": {"name": "phalanx committee", "type_id": 4, "type": "Learning (ML/DL)"},
            "created_time": (restriction.asked if restriction else command.at).wall_ns // 1_000_000,
        },
        "device": {"hostname": command.host, "type_id": 0, "type": "Unknown"},
        "evidences": [_evidence(command, event)],
        "unmapped": {"phalanx": _unmapped(command, decision)},
    }
    if event is not None:
        found["start_time"] = found["end_time"] = event.time_ns // 1_000_000
    if decision is not None:
        found["confidence_score"] = round(100 * decision.score)
        found["finding_info"]["analytic"]["version"] = decision.model
        found["finding_info"]["related_events"] = [{"uid": each} for each in decision.evidence]
        found["finding_info"]["related_events_count"] = len(decision.evidence)
    return found


def _title(command: Command, verdict: Verdict) -> str:
    if command.action == "ask":
        return f"{verdict.name.capitalize()} waits for approval"
    return _TITLES[command.action]


def _stage(command: Command) -> tuple[int, int]:
    """Activity and status."""
    restriction = command.restriction
    if command.action == "drop":
        return 3, 3 if restriction is not None and restriction.by else 4
    if command.action == "allow" and restriction is not None:
        return 3, 3 if restriction.state is State.LIFTED else 4
    if command.action in ("deny", "contain"):
        return (2 if restriction is not None and restriction.by else 1), 2
    return 1, 1


def _outcome(command: Command) -> tuple[int, int]:
    """Action and disposition."""
    return {"deny": (2, 2), "contain": (2, 3), "allow": (1, 1)}.get(command.action, (3, 19))


def _verdict(command: Command, decision: LiveDecision | None) -> Verdict:
    if command.restriction is not None:
        return command.restriction.verdict
    return Verdict.ALERT if decision is None else max(decision.verdict, Verdict.ALERT)


def _evidence(command: Command, event: LiveEvent | None) -> dict[str, Any]:
    actor = command.restriction.actor if command.restriction is not None else None
    if actor is None and event is not None:
        actor = actor_of(event)
    process: dict[str, Any] = {"uid": command.subject}
    if actor is not None:
        if actor.pid is not None:
            process["pid"] = actor.pid
        if actor.program:
            process["name"] = actor.program
        if actor.executable:
            process["file"] = _file(actor.executable)
        if actor.ancestors:
            process["parent_process"] = {"uid": actor.ancestors[0]}
    attributes: Mapping[str, Any] = event.attributes if event is not None else {}
    line = next((attributes[name] for name in COMMAND_ATTRIBUTES if attributes.get(name)), None)
    if line is not None:
        process["cmd_line"] = str(line)
    evidence: dict[str, Any] = {"uid": command.event_id, "process": process}
    if actor is not None and actor.path.startswith("/"):
        evidence["file"] = _file(actor.path)
    data: dict[str, Any] = {"kind": event.kind} if event is not None else {}
    if command.restriction is not None:
        data["target"] = command.restriction.target.as_json()
    return evidence | ({"data": data} if data else {})


def _file(path: str) -> dict[str, Any]:
    return {"name": posixpath.basename(path) or path, "path": path, "type_id": 0, "type": "Unknown"}


def _unmapped(command: Command, decision: LiveDecision | None) -> dict[str, Any]:
    told: dict[str, Any] = {
        "event": command.event_id,
        "height": command.height,
        "reasons": list(command.reasons),
    }
    restriction = command.restriction
    if restriction is not None:
        told["restriction"] = {
            "id": restriction.id,
            "state": restriction.state.value,
            "duration_ms": restriction.duration_ns // 1_000_000,
            "by": restriction.by,
            "why": restriction.why,
        }
    if decision is not None:
        told |= {
            "verdict": decision.verdict.name.lower(),
            "votes": [None if vote is None else vote.name.lower() for vote in decision.votes],
            "dissent": list(decision.dissent),
            "quorum": decision.quorum,
            "shielded": decision.shielded,
            "robustness": {name: _finite(value) for name, value in decision.robustness.items()},
            "model": decision.model,
            "tolerates": decision.tolerates,
        }
    return told


def _finite(value: float) -> float | str:
    """JSON has no infinity."""
    return value if abs(value) < float("inf") else str(value)


def _product_version() -> str:
    try:
        return version("phalanx")
    except PackageNotFoundError:
        return "unknown"
