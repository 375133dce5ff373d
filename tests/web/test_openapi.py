import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from service import Service

CASES = 12
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


def references(value: Any) -> Iterator[str]:
    match value:
        case {"$ref": str(reference)}:
            yield reference
        case dict():
            for part in value.values():
                yield from references(part)
        case list():
            for part in value:
                yield from references(part)


async def description(service: Service) -> dict[str, Any]:
    reply = await service.call("GET", "/openapi.json", key=None)
    assert reply.status == 200
    described: dict[str, Any] = reply.body
    return described


async def test_every_operation_is_described_once(service: Service) -> None:
    described = await description(service)
    assert described["openapi"] == "3.1.0"
    listed = [
        (path, method.upper(), one["operationId"])
        for path, methods in described["paths"].items()
        for method, one in methods.items()
    ]
    assert {(of.path, of.method, of.id) for of in service.operations} <= set(listed)
    assert len({id_ for _, _, id_ in listed}) == len(listed)
    for operation in service.operations:
        responses = described["paths"][operation.path][operation.method.lower()]["responses"]
        assert (("401" in responses) and ("403" in responses)) == bool(operation.scopes)
        assert operation.example is not None or operation.body is None or operation.method == "PATCH"


async def test_every_reference_leads_somewhere(service: Service) -> None:
    described = await description(service)
    schemas = described["components"]["schemas"]
    found = set(references(described))
    assert len(found) > 20
    assert "detail" in schemas["ProblemDocument"]["required"]
    assert {reference.removeprefix("#/components/schemas/") for reference in found} <= set(schemas)


async def test_the_page_to_try_it_needs_nothing_from_elsewhere(service: Service) -> None:
    page = await service.call("GET", "/docs", key=None)
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html")
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    text = page.raw.decode()
    assert "//" not in text.replace("<!doctype html>", "")
    for asset in ("swagger-ui.css", "swagger-ui-bundle.js", "start.js", "favicon-32x32.png"):
        assert f"/docs/{asset}" in text
        assert (await service.call("GET", f"/docs/{asset}", key=None)).status == 200
    assert (await service.call("GET", "/docs/core.py", key=None)).status == 404


def examine(operation: Any, url: str, keys: dict[str, str], mode: GenerationMode) -> None:
    """Sends generated calls with a key that may make them, and holds the answers to the description."""
    scopes = operation.definition.raw.get("x-scopes", [])
    secret = next((secret for scope, secret in keys.items() if scope in scopes), None)
    headers = {} if secret is None else {"Authorization": f"Bearer {secret}"}

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=CASES,
        deadline=None,
        database=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def send(case: schemathesis.Case) -> None:
        response = case.call(base_url=url, headers=headers, allow_redirects=False)
        if response.status_code == 400 and response.headers["content-type"][0].startswith("text/plain"):
            return  # from aiohttp's own server, which stands for ours here: what it does not parse is not ours to refuse
        case.validate_response(response, checks=CHECKS)

    with contextlib.suppress(Unsatisfiable):  # what takes nothing cannot be called wrongly
        send()


@pytest.mark.slow
@pytest.mark.parametrize("mode", list(GenerationMode))
async def test_generated_calls_find_no_fault_and_no_undescribed_answer(
    service: Service, mode: GenerationMode
) -> None:
    await service.plant()
    await service.go_live()
    url = str(service.client.make_url("")).rstrip("/")
    schema = schemathesis.openapi.from_dict(await description(service))
    for operation in schema.get_all_operations():
        await asyncio.to_thread(examine, operation.ok(), url, service.keys, mode)
