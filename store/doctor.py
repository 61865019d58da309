"""What `python -m store doctor` says: who each engine is, whether it can be worked with, and what to do if not."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

import asyncpg
from clickhouse_connect.driver.exceptions import ClickHouseError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from config.settings import Settings, variable
from store import migrate, postgres
from store.clickhouse import Analytics

PATIENCE_S = 10.0
"""Time an engine has to answer (s)."""
OLDEST = {"postgresql": 15, "redis": 7, "queue": 7, "clickhouse": 24}
"""Oldest major version that our statements need."""


class Unfit(Exception):
    """The engine answers and can't be used as it is; the message says what to do."""

    def __init__(self, version: str, advice: str) -> None:
        super().__init__(advice)
        self.version = version


@dataclass(frozen=True, slots=True)
class Finding:
    """One engine's answer; `url` bears no password, `advice` is empty when all is well."""

    name: str
    url: str
    version: str
    ok: bool
    advice: str


async def examine(settings: Settings) -> list[Finding]:
    """Ask PostgreSQL, Redis and ClickHouse beside each other; the queue's Redis too when it is another one."""
    asked = [
        _ask("postgresql", "database_url", settings.database_url, _postgres),
        _ask("redis", "redis_url", settings.redis_url, _redis),
        _ask("clickhouse", "clickhouse_url", settings.clickhouse_url, _clickhouse),
    ]
    if settings.queue != settings.redis_url:
        asked.append(_ask("queue", "queue_url", settings.queue, _redis))
    return list(await asyncio.gather(*asked))


async def _ask(name: str, setting: str, url: str, version_of: Callable[[str], Awaitable[str]]) -> Finding:
    try:
        async with asyncio.timeout(PATIENCE_S):
            version = await version_of(url)
    except Unfit as error:
        return Finding(name, without_secrets(url), error.version, ok=False, advice=str(error))
    except (*postgres.LOST, asyncpg.PostgresError, RedisError, ClickHouseError) as error:
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        advice = f"start it, or change {variable(setting)}: it does not answer ({why})."
        return Finding(name, without_secrets(url), "", ok=False, advice=advice)
    if int(version.partition(".")[0]) < OLDEST[name]:
        return Finding(name, without_secrets(url), version, ok=False, advice=f"update it to {OLDEST[name]} or newer.")
    return Finding(name, without_secrets(url), version, ok=True, advice="")


async def _postgres(url: str) -> str:
    conn = await postgres.connect(url)
    try:
        version = str(await conn.fetchval("SHOW server_version")).partition(" ")[0]
        await _refuse_pending(version, migrate.pending_postgres(conn))
        return version
    finally:
        await conn.close(timeout=1)


async def _redis(url: str) -> str:
    redis = Redis.from_url(url.replace("+cluster", "", 1), socket_timeout=PATIENCE_S, socket_connect_timeout=PATIENCE_S)
    try:
        return str((await redis.info("server"))["redis_version"])
    finally:
        await redis.aclose()


async def _clickhouse(url: str) -> str:
    analytics = Analytics(url)
    try:
        version = await analytics.version()
        await _refuse_pending(version, migrate.pending_clickhouse(analytics))
        return version
    finally:
        await analytics.close()


async def _refuse_pending(version: str, asked: Awaitable[list[str]]) -> None:
    try:
        names = await asked
    except migrate.MigrationError as error:
        raise Unfit(version, str(error)) from error
    if names:
        raise Unfit(version, f"run `expendi migrate`: {', '.join(names)} not applied yet.")


def without_secrets(url: str) -> str:
    """A url without its password and its parameters."""
    parts = urlsplit(url)
    credentials, at, host = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{credentials.partition(':')[0]}{at}{host}", query="", fragment="").geturl()
