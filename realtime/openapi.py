"""The OpenAPI 3.1 document, made from the endpoints themselves: what is not in the code can't be in it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from pydantic import TypeAdapter
from pydantic.alias_generators import to_camel

from handlers import resources
from handlers.errors import (
    Conflict,
    Internal,
    Invalid,
    OriginRefused,
    Problem,
    RateLimited,
    TooLarge,
    Unauthenticated,
    Unavailable,
)
from realtime.rest import once, shapes
from realtime.rest.api import JSON, Endpoint, Header, UnsupportedMediaType, Upload
from realtime.rest.boundary import PROBLEM_TYPE
from realtime.rest.upload import MULTIPART, NotMultipart

REF = "#/components/schemas/{model}"

TAGS = {
    "auth": "Sign in with Ethereum (EIP-4361), tokens and sessions.",
    "me": "The signed-in user.",
    "chains": "Chains and their heights.",
    "log": "State, events and transactions.",
    "categories": "Categories, their pictures, and the rules that lead to them.",
    "media": "Icons and pictures; public, since their names tell nothing.",
    "budgets": "Buckets and what they hold.",
    "accounts": "Spending, investment and savings accounts.",
    "goals": "Savings goals, the savings as a whole, and achievements.",
    "analytics": "What a user's history says; every answer names the blocks up to which it is complete.",
    "v1": "What the first front end calls: its paths in any case, its shapes, `{success, data | error}`.",
    "notifications": "The inbox, what is wanted where, and the devices that are told by push.",
    "friends": "Friends by address or invitation, and comparisons with them that tell of nobody.",
    "challenges": "Challenges between users, who see each other by the names they show and by nothing else.",
    "documents": "Exports, reports, and everything that is kept of a user.",
    "operations": "For operators.",
}

INFO = {
    "title": "Expendi realtime API",
    "version": "1.0.0",
    "description": (
        "Every answer carries `X-Request-Id`; every refusal is a problem (RFC 9457). Amounts are decimal strings, "
        "times ISO-8601 UTC. Lists are paged by cursor and carry no totals. Limits are told by `RateLimit` and "
        "`RateLimit-Policy`. The same log is pushed over Socket.IO at `/socket.io/`."
    ),
}

ONCE = (
    "A name that you choose for this call, good for 24 hours: sent again with the same body it brings the first "
    "answer and does nothing; while the first runs it is a conflict; with another body it is refused."
)

HEADERS = {
    "X-Request-Id": "Id of this call: the caller's, or ours.",
    "ETag": "Tag of this body, for If-None-Match.",
    "Link": 'The next page: `<…>; rel="next"`.',
    "RateLimit": "Calls left and seconds until all are free again.",
    "RateLimit-Policy": "Calls and window (s) of the limit.",
    "Retry-After": "Seconds to wait.",
}

SECURITY = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "The `accessToken` of a sign-in; opaque, revocable at once.",
    }
}


def document(endpoints: Sequence[Endpoint]) -> bytes:
    """The document of these endpoints as JSON."""
    schemas, components = _schemas(endpoints)
    paths: dict[str, dict[str, Any]] = {}
    for each in endpoints:
        paths.setdefault(each.path, {})[each.method.lower()] = _operation(each, schemas)
    return orjson.dumps(
        {
            "openapi": "3.1.0",
            "info": INFO,
            "servers": [{"url": "/"}],
            "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
            "security": [{"bearer": []}],
            "paths": paths,
            "components": {
                "schemas": components,
                "securitySchemes": SECURITY,
                "headers": {
                    name: {"description": text, "schema": {"type": "string"}} for name, text in HEADERS.items()
                },
            },
        }
    )


_Schemas = dict[tuple[str, str], dict[str, Any]]


def _schemas(endpoints: Iterable[Endpoint]) -> tuple[_Schemas, dict[str, Any]]:
    """Schema of every body and answer, by (operation, direction), and the components that they refer to."""
    inputs: list[Any] = [
        ("problem", "serialization", TypeAdapter(resources.Problem)),
        ("v1_refusal", "serialization", TypeAdapter(shapes.V1Refusal)),
    ]
    for each in endpoints:
        if each.answers is not None:
            inputs.append((each.name, "serialization", TypeAdapter(each.answers)))
        if each.later is not None:
            inputs.append((f"{each.name} later", "serialization", TypeAdapter(each.later)))
        if each.inputs.body is not None:
            inputs.append((each.name, "validation", each.inputs.body))
    found, defined = TypeAdapter.json_schemas(inputs, ref_template=REF)
    return {(str(key), str(mode)): dict(schema) for (key, mode), schema in found.items()}, defined["$defs"]


def _operation(each: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": to_camel(each.name),
        "tags": [each.tag],
        "summary": each.summary,
        "parameters": [*_path_parameters(each), *_query_parameters(each), *_header_parameters(each)],
        "responses": _responses(each, schemas),
    }
    if each.description:
        operation["description"] = each.description
    if each.access == "public":
        operation["security"] = []
    if each.inputs.body is not None:
        schema = schemas[each.name, "validation"]
        operation["requestBody"] = {"required": True, "content": {JSON: {"schema": schema}}}
    if each.inputs.upload is not None:
        operation["requestBody"] = {"required": True, "content": {MULTIPART: {"schema": _file(*each.inputs.upload)}}}
    return operation


def _file(name: str, mark: Upload) -> dict[str, Any]:
    facts = {"type": "string", "contentMediaType": "application/octet-stream", "description": mark.description}
    return {"type": "object", "required": [name], "properties": {name: facts}}


def _path_parameters(each: Endpoint) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "description": text, "schema": {"type": "string"}}
        for name, text in each.inputs.paths.items()
    ]


def _header_parameters(each: Endpoint) -> list[dict[str, Any]]:
    marks = [*each.inputs.headers.values(), *([Header(once.HEADER, ONCE)] if each.once else [])]
    return [
        {"name": mark.name, "in": "header", "description": mark.description, "schema": {"type": "string"}}
        for mark in marks
    ]


def _query_parameters(each: Endpoint) -> list[dict[str, Any]]:
    schema = each.inputs.query.json_schema(ref_template=REF)
    required = schema.get("required", [])
    found = []
    for name, facts in schema.get("properties", {}).items():
        description = facts.pop("description")
        found.append(
            {
                "name": name,
                "in": "query",
                "required": name in required,
                "description": description,
                "schema": _without_null(facts),
            }
        )
    return found


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that may be left out can't be null: no query says so."""
    schema = {key: value for key, value in schema.items() if key != "title" and (key, value) != ("default", None)}
    kinds = [kind for kind in schema.pop("anyOf", ()) if kind != {"type": "null"}]
    return {**schema, **kinds[0]} if len(kinds) == 1 else {**schema, **({"anyOf": kinds} if kinds else {})}


def _responses(each: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    told = ["X-Request-Id", *(["RateLimit", "RateLimit-Policy"] if each.scope else [])]
    told += ["ETag"] if each.tagged else []
    told += (
        ["Link"] if each.answers is not None and "cursor" in str(each.inputs.query.json_schema()["properties"]) else []
    )
    success: dict[str, Any] = {"description": "Done.", "headers": _headers(told)}
    if each.answers is not None:
        success["content"] = {each.media: {"schema": schemas[each.name, "serialization"]}}
    elif each.media != JSON:
        success["content"] = {media: {"schema": {} if media == JSON else {"type": "string"}} for media in each.medias}
    responses = {str(each.status): success}
    if each.later is not None:
        schema = schemas[f"{each.name} later", "serialization"]
        begun = {"description": "Begun.", "headers": _headers(told), "content": {JSON: {"schema": schema}}}
        responses["202"] = begun
    if each.tagged and each.method == "GET":
        responses["304"] = {"description": "The caller has it already.", "headers": _headers(["ETag"])}
    for status, titles in sorted(_problems(each).items()):
        responses[str(status)] = {
            "description": " / ".join(titles),
            "headers": _headers(["X-Request-Id", *(["Retry-After"] if status in {429, 503} else [])]),
            "content": _refusals(each, schemas),
        }
    return responses


def _refusals(each: Endpoint, schemas: _Schemas) -> dict[str, Any]:
    if each.is_v1:
        return {JSON: {"schema": schemas["v1_refusal", "serialization"]}}
    return {PROBLEM_TYPE: {"schema": schemas["problem", "serialization"]}}


def _headers(names: Iterable[str]) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _problems(each: Endpoint) -> dict[int, list[str]]:
    classes: list[type[Problem]] = [Invalid, OriginRefused, Internal, Unavailable, *each.problems]
    classes += [Unauthenticated] if each.access != "public" else []
    classes += [RateLimited] if each.scope or each.tag == "auth" else []
    classes += [TooLarge, UnsupportedMediaType] if each.inputs.body is not None else []
    classes += [TooLarge, NotMultipart] if each.inputs.upload is not None else []
    classes += [Conflict, once.KeyReused] if each.once else []
    found: dict[int, list[str]] = {}
    for kind in classes:
        if kind.title not in found.setdefault(kind.status, []):
            found[kind.status].append(kind.title)
    return found
