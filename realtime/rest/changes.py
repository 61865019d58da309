"""What every PATCH needs: bodies in which what is left out stays, and the resource that If-Match names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from pydantic import ConfigDict

from handlers.resources import Resource
from realtime.rest.api import tag_of


def _no_defaults(schema: dict[str, Any]) -> None:
    for facts in schema["properties"].values():
        facts.pop("default", None)


class Changes(Resource):
    """Base of bodies that change some of a resource; their defaults are never used, so no document shows them."""

    model_config = ConfigDict(json_schema_extra=_no_defaults)


def given(body: Resource) -> dict[str, Any]:
    """The fields that were sent, null ones too; what was left out stays as it is."""
    return {name: getattr(body, name) for name in body.model_fields_set}


def is_not(if_match: str | None) -> Callable[[Mapping[str, object]], bool]:
    """Whether a resource, as it is shown, is another one than If-Match names."""
    tags = None if if_match is None else [each.strip().removeprefix("W/") for each in if_match.split(",")]
    return lambda shown: tags is not None and "*" not in tags and f'"{tag_of(orjson.dumps(shown))}"' not in tags
