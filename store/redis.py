"""Redis for what asks and waits: rate limits and acks (pub/sub has its own connections, store/feed.py).

Nothing in it is the only copy, so nobody waits for it long: a call that fails is answered without Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any, TypeAlias, TypeVar

import redis.exceptions
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.cluster import RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

T = TypeVar("T")

Client: TypeAlias = "Redis | RedisCluster"

TIMEOUT_S = 0.5
"""Time one command may take (s), connecting included: Redis answers in a millisecond or is not well."""
CONNECTIONS = 32
"""Connections of one process; more callers than that wait for one."""
CLUSTER_SCHEMES = {"redis+cluster": "redis", "rediss+cluster": "rediss"}

AWAY = (redis.exceptions.RedisError, OSError, TimeoutError)
"""Redis does not answer, or not as it should."""


def open_redis(url: str) -> Client:
    """A client of a server or (`redis+cluster://`) of a cluster; it connects when it is first asked."""
    options: dict[str, Any] = {"socket_timeout": TIMEOUT_S, "socket_connect_timeout": TIMEOUT_S}
    scheme, colon, rest = url.partition(":")
    if scheme in CLUSTER_SCHEMES:
        return RedisCluster.from_url(CLUSTER_SCHEMES[scheme] + colon + rest, **options)
    pool = BlockingConnectionPool.from_url(
        url, max_connections=CONNECTIONS, timeout=TIMEOUT_S, retry=Retry(NoBackoff(), 0), **options
    )
    return Redis.from_pool(pool)


async def bounded(call: Awaitable[T]) -> T:
    """Await a command no longer than TIMEOUT_S; raises one of AWAY."""
    async with asyncio.timeout(TIMEOUT_S):
        return await call


async def answers(client: Client) -> bool:
    """Whether Redis answers now."""
    try:
        await bounded(client.ping())
    except AWAY:
        return False
    return True
