"""From a function's signature to a route: parameters and body are checked by their annotations, or refused by name.

A route is `@endpoint("GET", "/v1/things/{id}", tag="things", answers=Thing)` over
`async def thing(call: Call, *, id: Annotated[str, Path("what it is")]) -> Answer`; the docstring is its documentation.
Nothing registers itself: each module lists its endpoints in ROUTES, and realtime/rest/routes.py lists the modules.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Literal, TypeAlias, get_args, get_origin, get_type_hints

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from handlers.errors import FieldError, Invalid, Problem
from realtime.rest.call import CALL, Answer

JSON = "application/json"

Access = Literal["public", "user"]
Answered: TypeAlias = Answer | Mapping[str, object] | None
Run: TypeAlias = Callable[..., Coroutine[Any, Any, Answered]]


@dataclass(frozen=True, slots=True)
class Query:
    """A query parameter and what it means; several values of a list are given by repeating it."""

    description: str
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Path:
    """A part of the path and what it is."""

    description: str


@dataclass(frozen=True, slots=True)
class Body:
    """The JSON body."""


class UnsupportedMediaType(Problem):
    """The body is not JSON."""

    code, status, title = "unsupported_media_type", 415, "The body has to be JSON"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A route: how it is called, what it answers, who may call it, and the function that does it."""

    method: str
    path: str
    name: str
    tag: str
    summary: str
    description: str
    answers: type[BaseModel] | None
    """None: no body (204), or one that is no JSON (`media`)."""
    media: str
    access: Access
    scope: str | None
    """Rate limit per user, or per address where nobody is signed in; None: the route counts by itself or not at all."""
    writes: bool
    tagged: bool
    """Whether it is answered with an ETag, and with 304 to who has it."""
    query: TypeAdapter[Any]
    repeated: frozenset[str]
    """Query parameters that are lists."""
    paths: Mapping[str, str]
    body: TypeAdapter[Any] | None
    problems: Sequence[type[Problem]]
    run: Run

    @property
    def status(self) -> int:
        """Status of its success."""
        return 204 if self.answers is None and self.media == JSON else 200

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Check a request, run it and answer; raises Problem. This is what aiohttp's router calls."""
        call = request[CALL]
        if self.access == "user":
            await call.sign_in(bearer(request))
        if self.scope is not None:
            await call.charge(self.scope, call.identity.user if call.identity else call.site)
        arguments: dict[str, Any] = {name: request.match_info[name] for name in self.paths}
        arguments |= dict(self._checked_query(request))
        if self.body is not None:
            arguments["body"] = await _checked_body(request, self.body)
        work = self.run(call, **arguments)
        answer = await (call.web.writes.run(work) if self.writes else work)
        return self._response(request, answer if isinstance(answer, Answer | None) else Answer(body=answer))

    def _response(self, request: web.Request, answer: Answer | None) -> web.Response:
        if answer is None:
            return web.Response(status=204)
        body = answer.body if isinstance(answer.body, bytes) else orjson.dumps(answer.body)
        headers = dict(answer.headers)
        if self.tagged:
            headers |= {"ETag": f'"{sha256(body).hexdigest()[:32]}"', "Cache-Control": "private, no-cache"}
            if _has(request, headers["ETag"]):
                return web.Response(status=304, headers=headers)
        return web.Response(body=body, headers={"Content-Type": self.media, **headers})

    def _checked_query(self, request: web.Request) -> Any:
        given = request.query
        twice = [name for name in set(given) - self.repeated if len(given.getall(name)) > 1]
        if twice:
            raise Invalid(
                "A query parameter is given twice.",
                errors=[FieldError(f"/query/{name}", "should be given once") for name in sorted(twice)],
            )
        values = {name: given.getall(name) if name in self.repeated else given[name] for name in given}
        return _checked(self.query, values, place="/query")


def _has(request: web.Request, tag: str) -> bool:
    """Whether If-None-Match names this tag (weak comparison, as for every GET)."""
    return any(given.value in {"*", tag.strip('"')} for given in request.if_none_match or ())


def bearer(request: web.Request) -> str:
    """The access token of a request; '' when there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def _checked_body(request: web.Request, adapter: TypeAdapter[Any]) -> Any:
    if request.headers.get("Content-Type") and not _is_json(request.content_type):
        raise UnsupportedMediaType("Send the body as application/json.")
    raw = await request.read()
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise Invalid("The body is not JSON.", errors=[FieldError("", "should be JSON (UTF-8)")]) from None
    return _checked(adapter, value, place="")


def _is_json(content_type: str) -> bool:
    return content_type == JSON or content_type.endswith("+json")


def _checked(adapter: TypeAdapter[Any], value: Any, *, place: str) -> Any:
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        errors = error.errors(include_input=False, include_url=False, include_context=False)
        raise Invalid(
            "A part of the request is not as it should be; `errors` names it.",
            errors=[FieldError(pointer(place, each["loc"]), _cause(each["type"], each["msg"])) for each in errors],
        ) from None


def pointer(place: str, loc: Sequence[str | int]) -> str:
    """JSON pointer (RFC 6901) of a place in a body, or `/query/…` of a query parameter."""
    return place + "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in loc)


def _cause(kind: str, message: str) -> str:
    words = {"extra_forbidden": "is not known here", "missing": "is missing"}
    return words.get(kind) or message.removeprefix("Value error, ").replace("Input should", "should")


def endpoint(
    method: str,
    path: str,
    *,
    tag: str,
    answers: type[BaseModel] | None = None,
    media: str = JSON,
    access: Access = "user",
    scope: str | None = "read",
    writes: bool = False,
    tagged: bool = False,
    problems: Sequence[type[Problem]] = (),
) -> Callable[[Run], Endpoint]:
    """Make a route of a function; `problems` are those beyond what every route may answer."""

    def make(run: Run) -> Endpoint:
        query, repeated, paths, body = _read_signature(run)
        summary, _, description = (inspect.getdoc(run) or "").partition("\n\n")
        return Endpoint(
            method=method,
            path=path,
            name=run.__name__,
            tag=tag,
            summary=" ".join(summary.split()),
            description=" ".join(description.split()),
            answers=answers,
            media=media,
            access=access,
            scope=scope,
            writes=writes,
            tagged=tagged,
            query=query,
            repeated=repeated,
            paths=paths,
            body=body,
            problems=problems,
            run=run,
        )

    return make


def _read_signature(
    run: Run,
) -> tuple[TypeAdapter[Any], frozenset[str], dict[str, str], TypeAdapter[Any] | None]:
    hints = get_type_hints(run, include_extras=True)
    paths: dict[str, str] = {}
    fields: dict[str, Any] = {}
    repeated: set[str] = set()
    body = None
    for name, parameter in list(inspect.signature(run).parameters.items())[1:]:
        hint = hints[name]
        mark = _mark_of(hint)
        if isinstance(mark, Path):
            paths[name] = mark.description
        elif isinstance(mark, Body):
            body = TypeAdapter(hint)
        else:
            alias = mark.name or name
            default = ... if parameter.default is inspect.Parameter.empty else parameter.default
            fields[name] = (hint, Field(default, alias=alias, description=mark.description))
            kind = get_args(hint)[0]
            if any(get_origin(each) is list for each in (kind, *get_args(kind))):
                repeated.add(alias)
    # Without parameters too: an unknown one is refused on every route.
    model = create_model(f"{run.__name__}_query", __config__=ConfigDict(extra="forbid"), **fields)
    return TypeAdapter(model), frozenset(repeated), paths, body


def _mark_of(hint: Any) -> Query | Path | Body:
    for each in get_args(hint)[1:]:
        if isinstance(each, Query | Path | Body):
            return each
    raise TypeError(f"{hint} is marked neither Query, Path nor Body")
