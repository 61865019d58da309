"""`python -m store migrate|doctor|reseal`: bring both databases to this schema, say how they are, change keys."""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict

import asyncpg
import orjson
from clickhouse_connect.driver.exceptions import ClickHouseError

from config import logs
from config import settings as configuration
from config.settings import Settings, SettingsError, variable
from store import clickhouse, doctor, migrate, postgres
from store.reseal import reseal
from store.sealed import KeyRing, SealError

PAUSE_S = 0.25


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        settings = configuration.load()
        logs.configure(settings.log_level, process="store")
        return asyncio.run(_run(asked, settings))
    except (SettingsError, migrate.MigrationError, SealError, asyncpg.PostgresError, ClickHouseError) as error:
        sys.stderr.write(logs.scrub(f"{error}\n"))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m store", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    apply = verbs.add_parser("migrate", help="apply the schema files that PostgreSQL and ClickHouse do not have yet")
    apply.add_argument("--wait", type=float, default=30, metavar="SECONDS", help="time to wait for engines (30)")
    verbs.add_parser("doctor", help="one JSON line per engine; fails when one is not ok")
    verbs.add_parser("reseal", help="seal under the newest key what older ones sealed; fails when something won't open")
    return parser


async def _run(asked: argparse.Namespace, settings: Settings) -> int:
    if asked.verb == "doctor":
        return await _examine(settings)
    if asked.verb == "reseal":
        return await _reseal(settings)
    return await _migrate(settings, wait_s=asked.wait)


async def _examine(settings: Settings) -> int:
    findings = await doctor.examine(settings)
    for finding in findings:
        sys.stdout.write(orjson.dumps(asdict(finding)).decode() + "\n")
    return 0 if all(finding.ok for finding in findings) else 1


async def _migrate(settings: Settings, *, wait_s: float) -> int:
    deadline = asyncio.get_running_loop().time() + wait_s
    await _answers(lambda: _reach_postgres(settings), postgres.LOST, "database_url", deadline)
    await _answers(lambda: _reach_clickhouse(settings), clickhouse.AWAY, "clickhouse_url", deadline)
    analytics = clickhouse.Analytics(settings.clickhouse_url)
    try:
        # One lock for both: two that start at once must not run ClickHouse's files beside each other.
        async with migrate.locked(settings.database_url) as conn:
            await migrate.postgres(conn, told=lambda name: _say("postgresql", name))
            await migrate.clickhouse(analytics, told=lambda name: _say("clickhouse", name))
    finally:
        await analytics.close()
    return 0


async def _reseal(settings: Settings) -> int:
    pool = await postgres.open_pool(settings.database_url, size=1)
    failed = 0
    try:
        async for progress in reseal(pool, KeyRing.of(settings)):
            if progress.finished:
                failed += progress.failed
            sys.stdout.write(orjson.dumps(asdict(progress)).decode() + "\n")
            sys.stdout.flush()
    finally:
        await pool.close()
    return 1 if failed else 0


async def _reach_postgres(settings: Settings) -> None:
    conn = await postgres.connect(settings.database_url)
    await conn.close()


async def _reach_clickhouse(settings: Settings) -> None:
    analytics = clickhouse.Analytics(clickhouse.without_database(settings.clickhouse_url))
    try:
        await analytics.version()
    finally:
        await analytics.close()


def _say(engine: str, name: str) -> None:
    sys.stdout.write(f"{engine}: applied {name}\n")
    sys.stdout.flush()


async def _answers(
    reach: Callable[[], Awaitable[None]], away: tuple[type[BaseException], ...], setting: str, deadline: float
) -> None:
    while True:
        try:
            return await reach()
        except away as error:
            if asyncio.get_running_loop().time() > deadline:
                raise migrate.MigrationError(
                    f"{variable(setting)} names an engine that does not answer ({error}): start it, or change the url."
                ) from error
            await asyncio.sleep(PAUSE_S)


if __name__ == "__main__":
    sys.exit(main())
