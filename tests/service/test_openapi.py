"""The schema says what is answered: requests made from it, right and wrong ones, get answers that conform to it."""

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from service.apps import TOKENS, Site, sent, site
from service.desks import HandDesk

from phalanx.service.openapi import PATHS, schema
from phalanx.service.policy import SafetyPolicy

schemathesis = pytest.importorskip("schemathesis")
# what it does itself is not ours
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings(
        "ignore:Do not use the `random` module:hypothesis.errors.HypothesisDeprecationWarning"
    ),
]

EXAMPLES = int(os.environ.get("PHALANX_EXAMPLES", "15"))


@pytest.fixture(scope="module")
def here() -> Iterator[Site]:
    with site(HandDesk(SafetyPolicy(enforce=True))) as running:
        running.ask("POST", "/v1/events", "", [sent(n, want=w, subject=w) for n, w in enumerate(WANTS)])
        yield running


WANTS = ("allow", "alert", "block", "quarantine")


@schemathesis.serializer("application/x-ndjson")
def as_lines(ctx: Any, value: Any) -> bytes:
    """What is to be a body of lines: a text as it is, anything else as a line."""
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else json.dumps(value).encode()


def checks() -> list[Any]:
    from schemathesis.checks import not_a_server_error
    from schemathesis.specs.openapi.checks import (
        content_type_conformance,
        response_schema_conformance,
        status_code_conformance,
    )

    return [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
    ]


def asked(here: Site, path: Any, examples: int, token: str | None = "") -> None:
    """So many requests of an endpoint, made from its schema, half of them not as it wants them."""
    from schemathesis.generation import GenerationMode

    loaded = schemathesis.openapi.from_dict(schema("phalanx", "1"))
    loaded.app = here.app
    operation = loaded[path.path.replace(":path", "")][path.method]
    cases = st.one_of(
        *(
            operation.as_strategy(generation_mode=mode)
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
        )
    )
    given_headers = {"Authorization": f"Bearer {TOKENS.get(path.scope, '')}"} if token == "" else {}

    @settings(
        max_examples=examples,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        deadline=None,
    )
    @given(case=cases)
    def ask(case: Any) -> None:
        if case.headers:
            case.headers.pop("Authorization", None)
        answer = case.call(headers=given_headers)
        case.validate_response(answer, checks=checks())
        assert here.worker.alive

    ask()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_answers_conform_to_the_schema(here: Site, path: Any) -> None:
    asked(here, path, 2 * EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_a_hundred_thousand_requests_conform(here: Site, path: Any) -> None:
    asked(here, path, 100_000 // len(PATHS))


def test_the_schema_has_every_endpoint_with_its_scope() -> None:
    whole = schema("phalanx", "1")
    operations = {
        (method.upper(), path): operation
        for path, methods in whole["paths"].items()
        for method, operation in methods.items()
    }
    assert set(operations) == {(path.method, path.path.replace(":path", "")) for path in PATHS}
    for path in PATHS:
        operation = operations[path.method, path.path.replace(":path", "")]
        assert ("security" in operation) == bool(path.scope) and operation["summary"]
        assert ("401" in operation["responses"]) == bool(path.scope)
    text = str(whole)
    for reference in text.split("'$ref': '")[1:]:
        name = reference.partition("'")[0].removeprefix("#/components/schemas/")
        assert name in whole["components"]["schemas"]


def test_the_schema_is_served() -> None:
    with site() as running:
        found = running.ask("GET", "/openapi.json")
        assert found.status_code == 200 and found.json()["paths"] == schema("phalanx", "x")["paths"]
