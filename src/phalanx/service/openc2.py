"""Commands in OpenC2: deny (a block begins), contain (a quarantine begins), allow (either ends).

Every command has a duration: one without would be for ever. ``start_time`` stands beside it, so that a command that
arrives late still ends in time. ``command_id`` is the command's key: whoever gets it twice does it once. What OpenC2
has no field for is in the extensions ``x-phalanx``: where and on which subject, the object of a block, and for an allow
which command it undoes.

Source: OASIS OpenC2 Language Specification 1.0, 3.3.1 (commands), 3.3.1.4 (arguments), 3.1.4 (extensions).
"""

from typing import Any

from phalanx.service.commands import Command, key_of_beginning

__all__ = ["NAMESPACE", "openc2"]

NAMESPACE = "x-phalanx"
"""Of what OpenC2 has no field for."""


def openc2(command: Command) -> dict[str, Any]:
    """The OpenC2 command.

    Args:
        command: deny, contain or allow.

    Raises:
        ValueError: it is another, or not about a restriction that began.

    Example:
        >>> from phalanx.service.clock import Moment
        >>> from phalanx.service.restrictions import Restriction, Target
        >>> from phalanx.verdicts import Verdict
        >>> target = Target("web-1", "p7", "/etc/passwd")
        >>> now = Moment(10**9, 0)
        >>> begun = Restriction("r-1", target, Verdict.BLOCK, "e", 3, 900 * 10**9, now).apply(now)
        >>> command = Command("d-1", "deny", now, "l", "s", begun, "web-1", "p7")
        >>> made = openc2(command)
        >>> made["action"], made["args"]["start_time"], made["args"]["duration"], made["command_id"]
        ('deny', 1000, 900000, 'd-1')
    """
    restriction = command.restriction
    if (
        command.action not in ("deny", "contain", "allow")
        or restriction is None
        or restriction.applied is None
    ):
        raise ValueError(f"{command.action} is no command of OpenC2 here")
    actor = restriction.actor
    process: dict[str, Any] = {"name": restriction.target.subject}
    if actor is not None:
        process = {"name": actor.program or actor.subject}
        if actor.pid is not None:
            process["pid"] = actor.pid
        if actor.executable:
            process["executable"] = {"path": actor.executable}
    extension: dict[str, Any] = {"subtree": restriction.target.whole, **restriction.target.as_json()}
    extension |= {"restriction": restriction.id, "event": restriction.event_id, "height": restriction.height}
    begins = command.action != "allow"
    if not begins:
        extension["undoes"] = key_of_beginning(restriction)
    return {
        "action": command.action,
        "target": {"process": process},
        "args": {
            "start_time": (restriction.applied if begins else command.at).wall_ns // 1_000_000,
            "duration": max(1, restriction.duration_ns // 1_000_000),
            "response_requested": "ack",
            NAMESPACE: extension,
        },
        "actuator": {NAMESPACE: {"hostname": restriction.target.host}},
        "command_id": command.key,
    }
