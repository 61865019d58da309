"""The edge of REST: every request gets an id, every answer its headers, every refusal the same body, every call a line.

`/socket.io/` passes through untouched: the Socket.IO server answers for itself.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from time import monotonic
from typing import TypeAlias
from uuid import uuid4

import orjson
import structlog
from aiohttp import web

from config import metrics
from handlers.errors import Internal, Invalid, MethodNotAllowed, NotFound, OriginRefused, Problem, TooLarge, Unavailable
from realtime.rest.api import JSON, V1
from realtime.rest.call import CALL, WEB, Call
from store import clickhouse
from store.audit import Caller
from store.postgres import is_passing

logger = structlog.get_logger(__name__)

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

PROBLEM_TYPE = "application/problem+json"
SOCKETS = "/socket.io/"
FROM_ANYWHERE = "/v1/unsubscribe/"
"""Paths whose forms any page may send: the link itself says what it may do, and our own page tells no origin."""
CLIENT_CLOSED = 499
"""Status in our log of a request whose client went away; nobody receives it."""
REQUEST_S = 15.0
"""Time one request may take (s): a database that hangs, or a body that never ends, must not hold it for ever."""
ANALYTICS_S = 5.0
"""When to ask again while ClickHouse is away (s): about what its restart takes."""
PATH_MAX = 200
"""Characters of a path that are logged."""

PROBES = frozenset({"/healthz", "/readyz", "/metrics"})
"""Paths that machines ask every few seconds: their good answers are logged at debug only."""

_REQUEST_ID = re.compile(r"[A-Za-z0-9._\-]{1,64}")
_TOKEN = re.compile(r"exi_[A-Za-z0-9_\-]+")
"""Tokens of invitations, which are part of a path: they stay out of the logs."""

SECURITY = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-site",
    "Server": "expendi",
}
CORS = {
    "Access-Control-Allow-Methods": "GET, HEAD, POST, PUT, PATCH, DELETE",
    "Access-Control-Allow-Headers": (
        "Authorization, Content-Type, Idempotency-Key, If-Match, If-None-Match, X-Request-Id"
    ),
    "Access-Control-Max-Age": "600",
}
EXPOSED = "Content-Disposition, ETag, Link, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id"


@web.middleware
async def boundary(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Answer a request, whatever happens in it."""
    if request.path.startswith(SOCKETS):
        return await handler(request)
    facts = request.app[WEB].peers.facts(request)
    call = Call(_request_id(request), request.rel_url, request.app[WEB], Caller(facts.remote, facts.user_agent))
    request[CALL] = call
    began = monotonic()
    status = CLIENT_CLOSED
    with structlog.contextvars.bound_contextvars(request_id=call.id):
        try:
            response = await _answered(request, handler, call)
            status = response.status
        finally:
            _log(request, call, status, monotonic() - began)
    return response


def _request_id(request: web.Request) -> str:
    given = request.headers.get("X-Request-Id", "")
    return given if _REQUEST_ID.fullmatch(given) else uuid4().hex


async def _answered(request: web.Request, handler: Handler, call: Call) -> web.StreamResponse:
    origin = request.headers.get("Origin")
    welcome = origin is None or call.web.peers.allows(origin)
    try:
        if not welcome and not request.path.startswith(FROM_ANYWHERE):
            raise OriginRefused("Pages of this origin may not call us.")
        response = await _run(request, handler)
    except Exception as error:  # noqa: BLE001 - where a request's failure ends: logged, told without internals
        refuse = v1_refusal if request.path[: len(V1)].lower() == V1 else problem_response
        response = refuse(_problem_of(error), call.id, headers=_allow(error))
    response.headers.update({**call.told, **SECURITY, "X-Request-Id": call.id})
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.add("Vary", "Origin")
    if origin is not None and welcome:
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Access-Control-Expose-Headers"] = EXPOSED
    return response


async def _run(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
        return web.Response(status=204, headers=CORS)
    async with asyncio.timeout(REQUEST_S):
        return await handler(request)


def problem_response(problem: Problem, request_id: str, *, headers: Mapping[str, str] | None = None) -> web.Response:
    """A problem as an HTTP response."""
    return _refusal(problem, problem.body(request_id), PROBLEM_TYPE, headers or {})


def v1_refusal(problem: Problem, request_id: str, *, headers: Mapping[str, str] | None = None) -> web.Response:  # noqa: ARG001 - its clients know no request id
    """A problem in the envelope of the first front end, which looks for "not found" in the words of it."""
    return _refusal(problem, {"success": False, "error": problem.detail}, JSON, headers or {})


def _refusal(
    problem: Problem, body: Mapping[str, object], content_type: str, headers: Mapping[str, str]
) -> web.Response:
    told = {"Content-Type": content_type, **headers}
    if problem.status == 401:
        told["WWW-Authenticate"] = "Bearer"
    if problem.retry_after_s is not None:
        told["Retry-After"] = str(max(1, round(problem.retry_after_s)))
    return web.Response(status=problem.status, body=orjson.dumps(body), headers=told)


def _problem_of(error: Exception) -> Problem:
    """What a caller is told of an exception; what is a fault of ours is logged here, once."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, web.HTTPException):
        return _problem_of_http(error)
    if isinstance(error, web.RequestPayloadError):
        return Invalid("The body can't be read: its encoding or length is not what its headers say.")
    if clickhouse.is_away(error):
        logger.warning("analytics_away", error=repr(error)[:PATH_MAX])
        return Unavailable("Analytics do not answer; try again in a moment. All else works.", retry_after_s=ANALYTICS_S)
    if is_passing(error):
        logger.warning("request_failed", error=repr(error))
        return Unavailable("The database does not answer; try again.", retry_after_s=1)
    logger.error("request_failed", exc_info=error)
    return Internal("Something went wrong on our side; the request id tells us what.")


def _problem_of_http(error: web.HTTPException) -> Problem:
    if isinstance(error, web.HTTPMethodNotAllowed):
        return MethodNotAllowed(f"This path takes {', '.join(sorted(error.allowed_methods))}.")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return TooLarge("The body is larger than this route takes.")
    if isinstance(error, web.HTTPNotFound):
        return NotFound("There is no such path; /openapi.json lists all.")
    return Invalid("The request is not HTTP as it should be.")


def _allow(error: Exception) -> dict[str, str]:
    if isinstance(error, web.HTTPMethodNotAllowed):
        return {"Allow": ", ".join(sorted(error.allowed_methods))}
    return {}


def _log(request: web.Request, call: Call, status: int, took_s: float) -> None:
    resource = request.match_info.route.resource
    metrics.REQUESTS.labels(resource.canonical if resource is not None else "none", str(status)).inc()
    quiet = status < 400 and request.path in PROBES
    (logger.debug if quiet else logger.info)(
        "request",
        method=request.method,
        path=_TOKEN.sub("…", request.path)[:PATH_MAX],
        status=status,
        ms=round(took_s * 1000, 1),
        user=call.identity.user if call.identity else None,
        session=call.identity.session_id if call.identity else None,
        remote=call.caller.remote,
    )
