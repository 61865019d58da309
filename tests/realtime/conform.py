"""Hold answers to the OpenAPI document: a small JSON Schema checker that refuses keywords it does not know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import orjson

from realtime.openapi import document
from realtime.rest.routes import ENDPOINTS
from tests.exact import exact

_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
_NOTES = {"title", "description", "default", "examples", "format"}


@cache
def openapi() -> dict[str, Any]:
    loaded: dict[str, Any] = orjson.loads(document(ENDPOINTS))
    return loaded


def operation_of(method: str, path: str) -> tuple[str, dict[str, Any]] | None:
    """Template and operation that a call belongs to; None for what is not in the document."""
    for template, methods in openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(template)), path):
            operation = methods.get("get" if method == "HEAD" else method.lower())
            return (template, operation) if operation else None
    return None


def check(method: str, path: str, status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Assert that an answer is one that the document promises."""
    found = operation_of(method, path)
    if found is None:
        return
    told = found[1]["responses"].get(str(status))
    assert told is not None, f"{method} {path}: {status} is not documented"
    for name in told.get("headers", {}):
        if name not in {"Link", "Retry-After"}:
            assert name in headers or status >= 400, f"{method} {path}: {status} without {name}"
    if method == "HEAD":
        return
    content = told.get("content")
    if content is None:
        assert body == b"", f"{method} {path}: {status} with a body"
        return
    media = headers["Content-Type"]
    assert media in content, f"{method} {path}: {media} is not documented"
    facts = content[media]
    if media == "application/json" or media.endswith("+json"):
        # The first front end reads rates in percent as numbers; its amounts are strings of integers.
        read = exact if path.startswith("/v1/") else orjson.loads
        validate(read(body), facts["schema"], f"{method} {path} {status}")


def resolve(ref: str) -> Any:
    assert ref.startswith("#/"), ref
    here: Any = openapi()
    for step in ref[2:].split("/"):
        here = here[step.replace("~1", "/").replace("~0", "~")]
    return here


def validate(value: Any, schema: Mapping[str, Any], at: str) -> None:
    for keyword, wanted in schema.items():
        if keyword in _NOTES:
            continue
        rule = _RULES.get(keyword)
        assert rule is not None, f"{at}: keyword {keyword} is not known"
        rule(value, wanted, schema, at)


def _type(value: Any, wanted: Any, _: Any, at: str) -> None:
    kinds = _TYPES[wanted]
    assert isinstance(value, kinds) and not (isinstance(value, bool) and bool not in kinds), f"{at}: {value!r}"  # noqa: PT018 - one fact: what type it has


def _properties(value: Any, wanted: Any, _: Any, at: str) -> None:
    for name in value.keys() & wanted.keys() if isinstance(value, dict) else ():
        validate(value[name], wanted[name], f"{at}/{name}")


def _additional(value: Any, wanted: Any, schema: Any, at: str) -> None:
    for name in value.keys() - schema.get("properties", {}).keys() if isinstance(value, dict) else ():
        assert wanted is not False, f"{at}: {name} is not documented"
        if isinstance(wanted, dict):
            validate(value[name], wanted, f"{at}/{name}")


def _any_of(value: Any, wanted: Any, _: Any, at: str) -> None:
    refusals = []
    for each in wanted:
        try:
            return validate(value, each, at)
        except AssertionError as error:
            refusals.append(str(error))
    raise AssertionError(f"{at}: {refusals}")


def _items(value: Any, wanted: Any, _: Any, at: str) -> None:
    for index, each in enumerate(value if isinstance(value, list) else ()):
        validate(each, wanted, f"{at}/{index}")


def _holds(test: Any, *kinds: type) -> Any:
    """A keyword that says something of these types only, as JSON Schema has it."""

    def rule(value: Any, wanted: Any, _: Any, at: str) -> None:
        assert (kinds and not isinstance(value, kinds)) or test(value, wanted), f"{at}: {value!r} against {wanted!r}"

    return rule


_RULES: dict[str, Any] = {
    "$ref": lambda value, wanted, _, at: validate(value, resolve(wanted), at),
    "type": _type,
    "properties": _properties,
    "required": _holds(lambda value, wanted: set(wanted) <= set(value), dict),
    "additionalProperties": _additional,
    "items": _items,
    "anyOf": _any_of,
    "enum": _holds(lambda value, wanted: value in wanted),
    "const": _holds(lambda value, wanted: value == wanted),
    "pattern": _holds(lambda value, wanted: re.search(wanted, value), str),
    "minLength": _holds(lambda value, wanted: len(value) >= wanted, str),
    "maxLength": _holds(lambda value, wanted: len(value) <= wanted, str),
    "minimum": _holds(lambda value, wanted: value >= wanted, int, float),
    "maximum": _holds(lambda value, wanted: value <= wanted, int, float),
}
