"""`python -m handlers.catalogue`: writes docs/events.md from the catalogue; a test fails when the page is stale."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic.json_schema import models_json_schema

from handlers.events import CATALOGUE, Event

PAGE = Path(__file__).parents[1] / "docs" / "events.md"

_INTRO = """\
# Events
Made from `handlers/events.py` by `python -m handlers.catalogue`. Durable events are in the user's log: each carries
`id`, `seq` (+1 each time), `ts`, `v` and, when it takes events back, `corrects`; on sockets with connection state
recovery the offset `<epoch>:<seq>` follows as last argument.
"""


def page() -> str:
    """The page as text."""
    _, document = models_json_schema([(event, "serialization") for event in CATALOGUE], by_alias=True)
    definitions: dict[str, Any] = document["$defs"]
    parts = [_INTRO, *(_section(event, definitions) for event in CATALOGUE), "\n## Resources\n"]
    named = {event.__name__ for event in CATALOGUE}
    parts += [_resource(name, schema) for name, schema in sorted(definitions.items()) if name not in named]
    return "\n".join(parts)


def _section(event: type[Event], definitions: dict[str, Any]) -> str:
    kind = f"durable, version {event.version}" if event.durable else "best effort"
    schema = definitions[event.__name__]
    return (
        "\n".join(
            [
                f"## `{event.name}`",
                f"{inspect.cleandoc(event.__doc__ or '')} *({kind}; push: {event.push.value})*\n",
                *_table(schema),
            ]
        )
        + "\n"
    )


def _resource(name: str, schema: dict[str, Any]) -> str:
    return "\n".join([f"### {name}", f"{schema.get('description', '')}\n", *_table(schema)]) + "\n"


def _table(schema: dict[str, Any]) -> Iterator[str]:
    yield "| key | type | |"
    yield "| --- | --- | --- |"
    required = set(schema.get("required", ()))
    for key, field in schema.get("properties", {}).items():
        optional = "" if key in required else " (may be absent)"
        yield f"| `{key}` | {_type(field)}{optional} | {_about(field)} |"


def _about(field: dict[str, Any]) -> str:
    inner = [field, *field.get("anyOf", ()), field.get("items", {})]
    return next((str(one["description"]) for one in inner if "description" in one), "")


def _type(field: dict[str, Any]) -> str:
    if "$ref" in field:
        name = str(field["$ref"]).rsplit("/", 1)[1]
        return f"[{name}](#{name.lower()})"
    if "anyOf" in field:
        return " or ".join(_type(one) for one in field["anyOf"])
    if "enum" in field:
        return " · ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{field['const']}`"
    if field.get("type") == "array":
        return f"list of {_type(field['items'])}"
    return str(field.get("type", "any"))


def main() -> None:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
