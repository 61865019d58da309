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
from realtime.rest import once, upload
from realtime.rest.call import CALL, Answer, Call, Download, Reply

JSON = "application/json"
V1 = "/api/"
"""Where the routes begin that the first front end calls; their paths match in any case."""

Access = Literal["public", "known", "user"]
"""Who may call: anyone; anyone, but who sends a token has to be signed in; those who are signed in."""
Answered: TypeAlias = Answer | Download | Mapping[str, object] | None
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
class Header:
    """A request header, `name` as it is written there, and what it means."""

    name: str
    description: str


@dataclass(frozen=True, slots=True)
class Body:
    """The JSON body."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A file, the one part of a multipart body, named as the parameter; at most `limit` bytes."""

    description: str
    limit: int


class UnsupportedMediaType(Problem):
    """The body is not JSON."""

    code, status, title = "unsupported_media_type", 415, "The body has to be JSON"


@dataclass(frozen=True, slots=True)
class Inputs:
    """What a route takes, as its function's signature says."""

    query: TypeAdapter[Any]
    repeated: frozenset[str]
    """Query parameters that are lists."""
    paths: Mapping[str, str]
    headers: Mapping[str, Header]
    body: TypeAdapter[Any] | None
    upload: tuple[str, Upload] | None


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
    medias: Sequence[str]
    """Media types of its success, where there are several."""
    later: type[BaseModel] | None
    """What it answers with 202 where it only begins what is asked for; None: it never does."""
    access: Access
    scope: str | None
    """Rate limit per user, or per address where nobody is signed in; None: the route counts by itself or not at all."""
    writes: bool
    tagged: bool
    """Whether it is answered with an ETag, and with 304 to who has it."""
    once: bool
    """Whether it takes an Idempotency-Key (realtime/rest/once.py)."""
    status: int
    """Status of its success."""
    inputs: Inputs
    problems: Sequence[type[Problem]]
    run: Run

    @property
    def is_v1(self) -> bool:
        """Whether it is for clients of the first front end: any case of path, refusals in its envelope."""
        return self.path.startswith(V1)

    @property
    def pattern(self) -> str:
        """The path as the router matches it."""
        return _in_any_case(self.path) if self.is_v1 else self.path

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Check a request, run it and answer; raises Problem. This is what aiohttp's router calls."""
        call = request[CALL]
        if self.access == "user" or (self.access == "known" and bearer(request)):
            await call.sign_in(bearer(request))
        if self.scope is not None:
            await call.charge(self.scope, call.identity.user if call.identity else call.site)
        arguments, raw = await self._arguments(request)
        work = self._reply(request, call, arguments, raw)
        return (await (call.web.writes.run(work) if self.writes else work)).response()

    async def _arguments(self, request: web.Request) -> tuple[dict[str, Any], bytes]:
        """What the function is called with, checked, and the body as it came."""
        inputs, raw = self.inputs, b""
        arguments: dict[str, Any] = {name: request.match_info[name] for name in inputs.paths}
        arguments |= {name: request.headers.get(mark.name) for name, mark in inputs.headers.items()}
        arguments |= dict(self._checked_query(request))
        if inputs.body is not None:
            raw = await _read_body(request)
            arguments["body"] = _checked_body(raw, inputs.body)
        if inputs.upload is not None:
            name, mark = inputs.upload
            raw = arguments[name] = await upload.read(request, name, limit=mark.limit)
        return arguments, raw

    async def _reply(
        self, request: web.Request, call: Call, arguments: Mapping[str, Any], raw: bytes
    ) -> Reply | Download:
        key = once.key_of(request) if self.once else None
        if key is None:
            answer = await self.run(call, **arguments)
            return answer if isinstance(answer, Download) else self._written(request, answer)

        async def run() -> Reply:
            answer = await self.run(call, **arguments)
            assert not isinstance(answer, Download)  # it can't be kept for the key
            return self._written(request, answer)

        print_ = once.fingerprint(request.method, request.path_qs, raw)
        call.cause = f"{key}:{print_.hex()}"
        return await once.once(call, key, print_, run)

    def _written(self, request: web.Request, answer: Answer | Mapping[str, object] | None) -> Reply:
        if answer is None:
            return Reply(204, b"", {})
        answer = answer if isinstance(answer, Answer) else Answer(body=answer)
        body = answer.body if isinstance(answer.body, bytes) else orjson.dumps(answer.body)
        headers = dict(answer.headers)
        if self.tagged:
            # A route may know a better tag than that of its bytes.
            headers = {"ETag": f'"{tag_of(body)}"', "Cache-Control": "private, no-cache", **headers}
            if request.method in {"GET", "HEAD"} and _has(request, headers["ETag"]):
                return Reply(304, b"", headers)
        if answer.later:
            return Reply(202, body, {"Content-Type": JSON, **headers})
        return Reply(self.status, body, {"Content-Type": self.media, **headers})

    def _checked_query(self, request: web.Request) -> Any:
        given = request.query
        twice = [name for name in set(given) - self.inputs.repeated if len(given.getall(name)) > 1]
        if twice:
            raise Invalid(
                "A query parameter is given twice.",
                errors=[FieldError(f"/query/{name}", "should be given once") for name in sorted(twice)],
            )
        values = {name: given.getall(name) if name in self.inputs.repeated else given[name] for name in given}
        return _checked(self.inputs.query, values, place="/query")


def _in_any_case(path: str) -> str:
    """A path whose fixed parts match without regard to case: aiohttp knows no such router."""
    parts = path.strip("/").split("/")
    return "".join(f"/{part}" if part[0] == "{" else f"/{{{part.replace('-', '_')}:(?i:{part})}}" for part in parts)


def tag_of(body: bytes) -> str:
    """Opaque tag of a body: what stands between the quotes of its ETag."""
    return sha256(body).hexdigest()[:32]


def _has(request: web.Request, tag: str) -> bool:
    """Whether If-None-Match names this tag (weak comparison, as for every GET)."""
    return any(given.value in {"*", tag.strip('"')} for given in request.if_none_match or ())


def bearer(request: web.Request) -> str:
    """The access token of a request; '' when there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


async def _read_body(request: web.Request) -> bytes:
    if request.headers.get("Content-Type") and not _is_json(request.content_type):
        raise UnsupportedMediaType("Send the body as application/json.")
    return await request.read()


def _checked_body(raw: bytes, adapter: TypeAdapter[Any]) -> Any:
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
    medias: Sequence[str] = (),
    later: type[BaseModel] | None = None,
    access: Access = "user",
    scope: str | None = "read",
    writes: bool = False,
    tagged: bool = False,
    once: bool = False,
    status: int | None = None,
    problems: Sequence[type[Problem]] = (),
) -> Callable[[Run], Endpoint]:
    """Make a route of a function; `problems` are those beyond what every route may answer.

    `status` of its success; None: 204 where there is no body, else 200. `once` needs `writes` and a signed-in user.
    """

    def make(run: Run) -> Endpoint:
        summary, _, description = (inspect.getdoc(run) or "").partition("\n\n")
        return Endpoint(
            method=method,
            path=path,
            name=run.__name__,
            tag=tag,
            summary=" ".join(summary.split()),
            description=" ".join(description.split()),
            answers=answers,
            media=medias[0] if medias else media,
            medias=medias or (media,),
            later=later,
            access=access,
            scope=scope,
            writes=writes,
            tagged=tagged,
            once=once,
            status=status or (204 if answers is None and media == JSON and not medias else 200),
            inputs=_read_signature(run),
            problems=problems,
            run=run,
        )

    return make


def _read_signature(run: Run) -> Inputs:
    hints = get_type_hints(run, include_extras=True)
    paths: dict[str, str] = {}
    headers: dict[str, Header] = {}
    fields: dict[str, Any] = {}
    repeated: set[str] = set()
    body, file = None, None
    for name, parameter in list(inspect.signature(run).parameters.items())[1:]:
        hint = hints[name]
        match _mark_of(hint):
            case Path(description):
                paths[name] = description
            case Header() as mark:
                headers[name] = mark
            case Upload() as mark:
                file = name, mark
            case Body():
                body = TypeAdapter(hint)
            case mark:
                alias = mark.name or name
                default = ... if parameter.default is inspect.Parameter.empty else parameter.default
                fields[name] = (hint, Field(default, alias=alias, description=mark.description))
                kind = get_args(hint)[0]
                if any(get_origin(each) is list for each in (kind, *get_args(kind))):
                    repeated.add(alias)
    # Without parameters too: an unknown one is refused on every route.
    model = create_model(f"{run.__name__}_query", __config__=ConfigDict(extra="forbid"), **fields)
    return Inputs(TypeAdapter(model), frozenset(repeated), paths, headers, body, file)


def _mark_of(hint: Any) -> Query | Path | Header | Body | Upload:
    for each in get_args(hint)[1:]:
        if isinstance(each, Query | Path | Header | Body | Upload):
            return each
    raise TypeError(f"{hint} is marked neither Query, Path, Header, Body nor Upload")
