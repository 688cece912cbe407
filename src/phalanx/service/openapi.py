"""Every endpoint in one table, and the OpenAPI schema that it makes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from phalanx.service.replies import components
from phalanx.verdicts import Verdict

__all__ = ["PATHS", "Path", "schema"]


@dataclass(frozen=True)
class Path:
    """An endpoint.

    Attributes:
        name: of the method that answers it.
        method: of HTTP.
        path: pattern.
        scope: that a token needs; empty where none is needed.
        about: in a sentence.
        reply: component that a 200 has, or a media type.
        statuses: others that it can have.
        body: schema of what is sent, by media type.
        query: schemas of parameters, by name.
        needs_body: whether the body may be left out.
    """

    name: str
    method: str
    path: str
    scope: str
    about: str
    reply: str
    statuses: tuple[int, ...] = ()
    body: Mapping[str, Any] = field(default_factory=dict)
    query: Mapping[str, Any] = field(default_factory=dict)
    needs_body: bool = True


_TEXT = {"type": "string"}
_WHY = {
    "type": "object",
    "properties": {"why": {"type": "string", "maxLength": 500}},
    "additionalProperties": False,
}
_MODE = {
    "type": "object",
    "required": ["mode"],
    "properties": {
        "mode": {"type": "string", "enum": ["shadow", "enforce"]},
        "why": {"type": "string", "maxLength": 500},
    },
    "additionalProperties": False,
}
_LABELS = {
    "type": "array",
    "minItems": 1,
    "maxItems": 1000,
    "items": {
        "type": "object",
        "required": ["id", "malicious"],
        "properties": {
            "id": {"type": "string", "minLength": 1, "maxLength": 256},
            "malicious": {"type": "boolean"},
        },
        "additionalProperties": False,
    },
}
_EVENT = {
    "type": "object",
    "description": "One event; further names are its attributes, as members were trained on them.",
    "required": ["time_ns", "subject", "kind"],
    "properties": {
        "id": {
            "type": ["string", "null"],
            "minLength": 1,
            "maxLength": 128,
            "description": "names it, once and for all",
        },
        "time_ns": {"type": "integer", "minimum": 1, "maximum": 2**63 - 1, "description": "ns since 1970"},
        "host": {"type": ["string", "null"], "maxLength": 256},
        "subject": {
            "type": "string",
            "minLength": 1,
            "maxLength": 256,
            "description": "the process, on its host",
        },
        "parent": {"type": ["string", "null"], "maxLength": 256},
        "kind": {"type": "string", "minLength": 1, "maxLength": 256, "description": "a DARPA CDM name"},
    },
    "propertyNames": {"pattern": "^[A-Za-z0-9_.-]{1,64}$"},
    "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
}
_EVENTS = {"oneOf": [_EVENT, {"type": "array", "minItems": 1, "maxItems": 1024, "items": _EVENT}]}
_LINES = {"type": "string", "description": "an event a line"}
_JSON, _NDJSON = "application/json", "application/x-ndjson"
_OPERATED = (400, 404, 408, 409, 413, 415, 503)
_SWITCHED = (400, 408, 409, 413, 415, 503)
_PAGE = {
    "host": _TEXT,
    "subject": _TEXT,
    "since_ns": {"type": "integer", "minimum": 0, "maximum": 2**63 - 1},
    "verdict": {"type": "string", "enum": [verdict.name.lower() for verdict in Verdict]},
    "after": _TEXT,
    "limit": {"type": "integer", "minimum": 1, "maximum": 1000},
}
_STATE = {"state": {"type": "string", "enum": ["open", "all"]}}

PATHS = (
    Path(
        "post_events",
        "POST",
        "/v1/events",
        "ingest",
        "Decides an event, or several; a bad one does not lose the good ones.",
        "Events",
        (400, 408, 413, 415, 429, 503),
        {_JSON: _EVENTS, _NDJSON: _LINES},
    ),
    Path(
        "post_stream",
        "POST",
        "/v1/stream",
        "ingest",
        "Decides a line an event, and answers a line a result, while they come.",
        _NDJSON,
        (400, 415),
        {_NDJSON: _LINES},
    ),
    Path(
        "get_decisions",
        "GET",
        "/v1/decisions",
        "read",
        "Decisions, the latest first; verdict: at least that one.",
        "Decisions",
        (400, 503),
        query=_PAGE,
    ),
    Path(
        "get_decision",
        "GET",
        "/v1/decisions/{event_id:path}",
        "read",
        "One decision with its votes, dissent, specifications and evidence.",
        "Decision",
        (404, 503),
    ),
    Path(
        "get_restrictions",
        "GET",
        "/v1/restrictions",
        "read",
        "Restrictions that wait or are in force, in shadow mode those that would be; or all that are remembered.",
        "Restrictions",
        (400, 503),
        query=_STATE,
    ),
    *(
        Path(
            f"post_{action}",
            "POST",
            f"/v1/restrictions/{{restriction_id}}/{action}",
            "approve",
            about,
            "Restricted",
            _OPERATED,
            {_JSON: _WHY},
            needs_body=False,
        )
        for action, about in (
            ("approve", "Lets a restriction begin that waits for approval."),
            ("deny", "Refuses a restriction that waits for approval."),
            ("undo", "Lifts a restriction that is in force."),
        )
    ),
    Path(
        "post_labels",
        "POST",
        "/v1/labels",
        "approve",
        "Says what was true of events that were decided: for calibration.",
        "Labels",
        (400, 408, 413, 415, 503),
        {_JSON: _LABELS},
    ),
    Path(
        "post_kill",
        "POST",
        "/v1/kill",
        "kill",
        "Stops all enforcement and lifts what is in force, until it is released.",
        "Mode",
        _SWITCHED,
        {_JSON: _WHY},
        needs_body=False,
    ),
    Path(
        "post_release",
        "POST",
        "/v1/release",
        "kill",
        "Lets restrictions begin again.",
        "Mode",
        _SWITCHED,
        {_JSON: _WHY},
        needs_body=False,
    ),
    Path(
        "post_mode",
        "POST",
        "/v1/mode",
        "kill",
        "Puts the service into shadow mode, or ends that.",
        "Mode",
        _SWITCHED,
        {_JSON: _MODE},
    ),
    Path(
        "get_head",
        "GET",
        "/v1/ledger/head",
        "read",
        "The ledger's head, signed: to be kept elsewhere.",
        "Head",
    ),
    Path("get_health", "GET", "/healthz", "", "Whether events are decided.", "Health", (503,)),
    Path(
        "get_metrics",
        "GET",
        "/metrics",
        "read",
        "Counts and times, as Prometheus reads them.",
        "text/plain",
        (503,),
    ),
    Path("get_openapi", "GET", "/openapi.json", "read", "This schema.", "OpenApi"),
)
"""All endpoints."""

_ABOUT = {
    400: "not what is expected here",
    401: "no token, or an unknown one",
    403: "the token lacks the scope",
    404: "there is none",
    408: "the body came too slowly",
    409: "the state of things does not allow it",
    413: "too much",
    415: "another media type",
    429: "no room now; Retry-After says when to come again",
    503: "not now: nothing is decided, or the database does not answer",
}
_HEAD = {
    "type": "object",
    "required": ["format", "height", "hash", "signatures"],
    "properties": {
        "format": _TEXT,
        "height": {"type": "integer"},
        "hash": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
        "signatures": {"type": "object", "additionalProperties": _TEXT},
    },
}


def schema(title: str, version: str) -> dict[str, Any]:
    """The OpenAPI schema of all endpoints.

    Example:
        >>> sorted(schema("phalanx", "1")["paths"])[:3]
        ['/healthz', '/metrics', '/openapi.json']
    """
    forms = {**components(), "Head": _HEAD, "OpenApi": {"type": "object"}}
    paths: dict[str, Any] = {}
    for path in PATHS:
        paths.setdefault(path.path.replace(":path", ""), {})[path.method.lower()] = _operation(path)
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {
            "schemas": forms,
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "scopes: ingest, read, approve, kill",
                }
            },
        },
    }


def _operation(path: Path) -> dict[str, Any]:
    told = {_JSON: {"schema": {"$ref": f"#/components/schemas/{path.reply}"}}}
    if "/" in path.reply:
        told = {path.reply: {"schema": _TEXT}}
    responses = {"200": {"description": "done", "content": told}}
    for status in sorted({*path.statuses, *((401, 403, 400) if path.scope else ())}):
        own = path.reply in ("Events", "Health")  # which say the same of each event, or of the service
        forms = [{"$ref": "#/components/schemas/ErrorReply"}]
        forms += [{"$ref": f"#/components/schemas/{path.reply}"}] if own else []
        responses[str(status)] = {
            "description": _ABOUT[status],
            "content": {_JSON: {"schema": {"anyOf": forms} if own else forms[0]}},
        }
    operation: dict[str, Any] = {"operationId": path.name, "summary": path.about, "responses": responses}
    parameters = [
        {
            "name": name.strip("{}").partition(":")[0],
            "in": "path",
            "required": True,
            "schema": {**_TEXT, "minLength": 1},
        }
        for name in path.path.split("/")
        if name.startswith("{")
    ]
    parameters += [{"name": name, "in": "query", "schema": form} for name, form in path.query.items()]
    if path.name == "post_events":
        about = {"type": "string", "minLength": 1, "maxLength": 128, "pattern": "^[ -~]+$"}
        parameters.append({"name": "Idempotency-Key", "in": "header", "schema": about})
    if parameters:
        operation["parameters"] = parameters
    if path.body:
        content = {kind: {"schema": form} for kind, form in path.body.items()}
        operation["requestBody"] = {"required": path.needs_body, "content": content}
    if path.scope:
        operation["security"] = [{"token": []}]
        operation["description"] = f"Needs a token with the scope {path.scope}."
    return operation
