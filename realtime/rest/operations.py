"""For operators: is the process alive, can it serve, what does it count."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from handlers.errors import Unavailable
from realtime.rest import shapes
from realtime.rest.api import endpoint
from realtime.rest.call import Answer, Call
from store import postgres
from store.redis import answers

DATABASE_S = 2.0
"""Time the database may take to answer (s): one that is slower does not serve requests either."""


@endpoint("GET", "/healthz", tag="operations", answers=shapes.Health, access="public", scope=None)
async def healthz(call: Call) -> Mapping[str, object]:  # noqa: ARG001 - every route gets its call
    """Say that the process answers; it asks nothing else."""
    return {"status": "ok"}


@endpoint(
    "GET", "/readyz", tag="operations", answers=shapes.Readiness, access="public", scope=None, problems=(Unavailable,)
)
async def readyz(call: Call) -> Mapping[str, object]:
    """Say whether requests can be served: the database answers.

    Redis is reported and may be away: events then reach clients from the log, a little later.
    """
    try:
        async with asyncio.timeout(DATABASE_S):
            version = await postgres.version(call.deps.pool)
    except postgres.LOST as error:
        raise Unavailable("PostgreSQL does not answer.", retry_after_s=1) from error
    return {"status": "ok", "database": version, "redis": "ok" if await answers(call.web.redis) else "away"}


@endpoint("GET", "/metrics", tag="operations", media=CONTENT_TYPE_LATEST, access="public", scope=None)
async def metrics(call: Call) -> Answer:  # noqa: ARG001 - every route gets its call
    """Give the counters of this process in Prometheus' text format.

    They name chains and routes, never users; keep the path inside your network all the same.
    """
    return Answer(body=generate_latest())


@endpoint("GET", "/openapi.json", tag="operations", answers=shapes.OpenApi, access="public", scope=None, tagged=True)
async def openapi(call: Call) -> Answer:
    """Describe this API (OpenAPI 3.1)."""
    return Answer(body=call.web.openapi)


ROUTES = (healthz, readyz, metrics, openapi)
