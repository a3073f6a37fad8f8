"""The OpenAPI 3.1 document, generated from the table of routes and the structs they decode and encode.

Written once when the application is made. Nothing in it is typed by hand that the code also knows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from transport.http.about import VERSION
from transport.http.errors import Code, ErrorBody
from transport.http.routing import JSON, Reply, Route
from transport.http.visit import Visit

PATH = "/openapi.json"
REF = "#/components/schemas/{name}"

_EVERY = (
    Code.MALFORMED_REQUEST,
    Code.INTERNAL_ERROR,
    Code.SERVICE_UNAVAILABLE,
    Code.OUTCOME_UNKNOWN,
    Code.TIMEOUT,
    Code.RATE_LIMIT_EXCEEDED,
)
_WITH_CREDENTIAL = (
    Code.AUTH_REQUIRED,
    Code.INVALID_API_KEY,
    Code.INSUFFICIENT_PERMISSIONS,
)
_WITH_PARAMETERS = (Code.INVALID_FIELD_VALUE, Code.MISSING_REQUIRED_FIELD)
_WITH_BODY = (
    Code.INVALID_REQUEST_BODY,
    Code.REQUEST_TIMEOUT,
    Code.PAYLOAD_TOO_LARGE,
    Code.UNSUPPORTED_MEDIA_TYPE,
)
UNPROCESSABLE = 422
"""JSON of the wrong shape; the codes are those of 400."""


def document_route(routes: Sequence[Route], title: str) -> Route:
    """The route that serves the document of these routes and itself."""
    encoded: list[bytes] = []

    async def serve(visit: Visit) -> Reply:
        return Reply(encoded[0])

    own = Route("GET", PATH, serve, "This document", dict[str, Any])
    encoded.append(msgspec.json.encode(document([*routes, own], title)))
    return own


def document(routes: Sequence[Route], title: str) -> dict[str, Any]:
    shapes = _shapes(routes)
    described, components = msgspec.json.schema_components(shapes, ref_template=REF)
    schema_of = dict(zip(shapes, described, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schema_of, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": VERSION,
            "description": "Signed events in, durable signed receipts and offline-verifiable proofs out.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "headers": _HEADERS,
            "securitySchemes": {
                "ApiKey": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "Bearer sk_… or ApiKey sk_… or ss_… (scheme in any case), or the bare key",
                },
                "XApiKey": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def _shapes(routes: Sequence[Route]) -> list[Any]:
    shapes: dict[Any, None] = {ErrorBody: None}
    for route in routes:
        for shape in (route.answers, route.path_shape, route.query_shape, route.body_shape):
            if shape is not None:
                shapes[shape] = None
    return list(shapes)


def _operation(route: Route, schema_of: dict[Any, Any], components: dict[str, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": route.summary,
        "operationId": _operation_id(route),
        "parameters": [
            *_parameters("path", schema_of[route.path_shape], components),
            *_parameters("query", schema_of[route.query_shape], components),
        ],
        "responses": _responses(route, schema_of),
    }
    if route.needed:
        operation["security"] = [{"ApiKey": []}, {"XApiKey": []}]
        operation["description"] = f"Needs {' or '.join(route.needed)}."
    if route.body_shape is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {JSON: {"schema": schema_of[route.body_shape]}},
        }
    return operation


def _operation_id(route: Route) -> str:
    words = route.path.replace("{", "").replace("}", "").replace("-", "_").replace(".", "_").split("/")
    return "_".join([route.method.lower(), *filter(None, words)])


def _parameters(where: str, schema: dict[str, Any], components: dict[str, Any]) -> list[dict[str, Any]]:
    """The members of a struct as parameters of a path or a query string."""
    struct = components[schema["$ref"].rpartition("/")[2]]
    required = struct.get("required", [])
    parameters = []
    for name, member in struct["properties"].items():
        plain = _without_null(member)
        parameter = {"name": name, "in": where, "required": where == "path" or name in required}
        if "description" in plain:
            parameter["description"] = plain["description"]
        parameters.append(parameter | {"schema": plain})
    return parameters


def _without_null(member: dict[str, Any]) -> dict[str, Any]:
    """A query string has no null: an optional parameter is left out instead."""
    if "anyOf" not in member:
        return member
    kinds = [kind for kind in member["anyOf"] if kind != {"type": "null"}]
    return kinds[0] if len(kinds) == 1 else {"anyOf": kinds}


def _responses(route: Route, schema_of: dict[Any, Any]) -> dict[str, Any]:
    content = {route.content_type: {"schema": schema_of[route.answers]}}
    responses: dict[str, Any] = {
        str(route.status): {
            "description": route.summary,
            "headers": _refs("x-request-id", *_RATE),
            "content": content,
        }
    }
    if route.pending is not None:
        responses["202"] = {
            "description": route.pending,
            "headers": _refs("x-request-id", "retry-after", *_RATE),
            "content": content,
        }
    for status, codes in sorted(_refusals(route).items()):
        headers = ["x-request-id", "x-error-code", *_RATE]
        if status in (429, 503, 504):
            headers.append("retry-after")
        responses[str(status)] = {
            "description": ", ".join(code.name for code in codes),
            "headers": _refs(*headers),
            "content": {JSON: {"schema": schema_of[ErrorBody]}},
        }
    return responses


def _refusals(route: Route) -> dict[int, list[Code]]:
    codes = [*_EVERY, *route.refuses]
    if route.needed:
        codes += _WITH_CREDENTIAL
    if route.needed or route.body_shape is not None:
        codes += _WITH_PARAMETERS
    by_status: dict[int, list[Code]] = {}
    if route.body_shape is not None:
        codes += _WITH_BODY
        by_status[UNPROCESSABLE] = [Code.INVALID_REQUEST_BODY, *_WITH_PARAMETERS]
    for code in dict.fromkeys(codes):
        by_status.setdefault(code.status, []).append(code)
    return by_status


def _refs(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


_RATE = ("ratelimit-limit", "ratelimit-remaining", "ratelimit-reset")
_HEADERS = {
    "x-request-id": {
        "description": "The caller's own, if it was 1 to 128 of [A-Za-z0-9._-], else a fresh one.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,128}$"},
    },
    "x-error-code": {"description": "As error.code.", "schema": {"type": "string"}},
    "retry-after": {"description": "Whole seconds.", "schema": {"type": "integer", "minimum": 1}},
    "ratelimit-limit": {
        "description": "Requests that may be made at once after a pause; absent when limits are off.",
        "schema": {"type": "integer", "minimum": 1},
    },
    "ratelimit-remaining": {
        "description": "Of these, how many are left.",
        "schema": {"type": "integer", "minimum": 0},
    },
    "ratelimit-reset": {
        "description": "Seconds until all are there again; with 429, until one is.",
        "schema": {"type": "integer", "minimum": 0},
    },
}
