"""The OpenAPI 3.1 description, made from the same table as the routes."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import NODEFAULT

from adserve.web.forms import CONTENT_TYPE as FORM
from adserve.web.forms import Form
from adserve.web.operations import PATH_PARAMETERS, Operation
from adserve.web.problems import CONTENT_TYPE, KINDS, ProblemDocument

_SECURITY = "key"
_HEADER_STRING = {"type": "string", "minLength": 1, "maxLength": 200}


def describe(operations: Sequence[Operation], version: str) -> dict[str, Any]:
    types: list[Any] = [ProblemDocument]
    for operation in operations:
        form = None if operation.form is None else operation.form.type
        types += [type_ for type_ in (operation.body, operation.answer, form) if type_ is not None]
        types += [field.type for field in msgspec.structs.fields(operation.query)]
    schemas, components = msgspec.json.schema_components(types, ref_template="#/components/schemas/{name}")
    of_type = dict(zip(types, schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, of_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "adserve",
            "version": version,
            "description": "Chooses, rolls out and bills the ads between ephemeral Status posts.",
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {_SECURITY: {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation, of_type: dict[Any, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": _parameters(operation, of_type),
        "responses": _responses(operation, of_type),
    }
    if operation.description:
        described["description"] = operation.description
    if operation.scopes:
        described["security"] = [{_SECURITY: []}]
        described["x-scopes"] = sorted(operation.scopes)
    if operation.body is not None:
        content: dict[str, Any] = {"schema": of_type[operation.body]}
        if operation.example is not None:
            content["example"] = operation.example
        contents = {"application/json": content}
        if operation.form is not None:
            contents[FORM] = _form(operation.form, of_type)
        described["requestBody"] = {"required": True, "content": contents}
    return described


def _form(form: Form[Any], of_type: dict[Any, Any]) -> dict[str, Any]:
    return {
        "schema": {
            "type": "object",
            "properties": {
                form.file: {"type": "string", "format": "binary"},
                form.fields: of_type[form.type],
            },
            "required": [form.file, form.fields],
            "additionalProperties": False,
        },
        "encoding": {form.fields: {"contentType": "application/json"}},
    }


def _parameters(operation: Operation, of_type: dict[Any, Any]) -> list[dict[str, Any]]:
    parameters: list[dict[str, Any]] = []
    for name in operation.parameters:
        known = PATH_PARAMETERS[name]
        schema = known.schema | ({} if "minimum" in known.schema else {"pattern": f"^{known.pattern}$"})
        parameters.append(
            {"name": name, "in": "path", "required": True, "schema": schema, "description": known.description}
        )
    for field in msgspec.structs.fields(operation.query):
        schema = dict(of_type[field.type])
        if field.default is not NODEFAULT and field.default is not None:
            schema["default"] = msgspec.to_builtins(field.default)
        parameters.append(
            {"name": field.encode_name, "in": "query", "required": field.required, "schema": schema}
        )
    if operation.conditional:
        parameters.append({"name": "If-Match", "in": "header", "required": True, "schema": _HEADER_STRING})
    if operation.idempotent:
        parameters.append({"name": "Idempotency-Key", "in": "header", "schema": _HEADER_STRING})
    return parameters


def _responses(operation: Operation, of_type: dict[Any, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": "As asked"}
    if operation.answer is not None:
        schema = of_type[operation.answer]
        answer["content"] = {
            kind: {"schema": schema if kind == "application/json" else {"type": "string"}}
            for kind in operation.content_types
        }
    elif 200 in operation.statuses:
        answer["content"] = {kind: {} for kind in operation.content_types}
    responses = {str(status): answer for status in operation.statuses}
    problem = {CONTENT_TYPE: {"schema": of_type[ProblemDocument]}}
    for status in sorted(_refusals(operation)):
        responses[str(status)] = {"description": KINDS[status].title, "content": problem}
    return responses


def _refusals(operation: Operation) -> set[int]:
    implied: Iterable[tuple[bool, tuple[int, ...]]] = (
        (True, operation.refusals),
        (operation.query.__struct_config__.forbid_unknown_fields, (400,)),
        (bool(operation.parameters), (404,)),
        (bool(operation.scopes), (401, 403)),
        (operation.body is not None, (400, 408, 413, 415)),
        (operation.form is not None, (503,)),
        (operation.idempotent, (409,)),
        (operation.conditional, (412, 428)),
    )
    return set(itertools.chain.from_iterable(statuses for holds, statuses in implied if holds))
