"""Schema migrations of PostgreSQL and ClickHouse: forward only, each file once, in order, under one lock.

A file is `NNNN_what_it_does.sql`. PostgreSQL runs it in one transaction together with its record. ClickHouse has no
transactions: its files are split at `;` ending a line, and every statement must be harmless the second time
(IF NOT EXISTS), since a run that was cut runs the file again.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg

from store.clickhouse import Analytics, database_of, without_database
from store.postgres import connect
from store.statements import load

SQL = load("migrate")
CLICKHOUSE_SQL = load("clickhouse/migrate")

POSTGRES = Path(__file__).parent / "schema"
CLICKHOUSE = POSTGRES / "clickhouse"

LOCK = 0x657870656E6469
"""Key of the advisory lock: `expendi` in ASCII."""
LOCK_WAIT_S = 120.0
"""How long to wait for another migration to end; ours take seconds."""
FILE_LIMIT_S = 86_400.0
"""Time one file may take: an index on a large table takes what it takes, and stopping it half-way helps nobody."""
TABLE_WAIT = "30s"
"""lock_timeout of a migration: a table that stays busy longer makes it fail rather than queue everyone behind it."""

_FILE = re.compile(r"^\d{4}_[a-z0-9_]+\.sql$")


class MigrationError(Exception):
    """The schema and these files can't be brought together; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file of a schema folder."""

    name: str
    sql: str
    checksum: str
    """SHA-256 of the text, hex."""


def read(folder: Path) -> tuple[Migration, ...]:
    """Migrations of a folder in order; MigrationError for a name or number that leaves the order open."""
    found: dict[str, Migration] = {}
    for path in sorted(folder.glob("*.sql")):
        if not _FILE.match(path.name):
            raise MigrationError(f"{path.name} is no migration: name it NNNN_what_it_does.sql.")
        number = path.name[:4]
        if number in found:
            raise MigrationError(f"{found[number].name} and {path.name} share a number: give one of them the next.")
        sql = path.read_text(encoding="utf-8")
        found[number] = Migration(path.stem, sql, hashlib.sha256(sql.encode()).hexdigest())
    return tuple(found.values())


def pending(files: Iterable[Migration], applied: Mapping[str, str]) -> tuple[Migration, ...]:
    """Which files are still to be applied, given (name -> checksum) of those that were; MigrationError otherwise."""
    known = {file.name: file for file in files}
    for name, checksum in applied.items():
        if name not in known:
            raise MigrationError(f"{name} was applied by a newer version of the code: deploy that one.")
        if known[name].checksum != checksum:
            raise MigrationError(f"{name} was applied and has changed since: restore it and write a new file instead.")
    rest = tuple(file for name, file in known.items() if name not in applied)
    last = max(applied, default="")
    for file in rest:
        if file.name < last:
            raise MigrationError(f"{file.name} sorts before {last}, which was applied: give it the next number.")
    return rest


@asynccontextmanager
async def locked(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Hold the migration lock on a connection of its own; MigrationError when another one keeps it too long."""
    # Direct, not through a pool or a transaction pooler: the lock lives exactly as long as this connection.
    conn = await connect(database_url)
    try:
        await _lock(conn)
        yield conn
    finally:
        await conn.close(timeout=5)


async def _lock(conn: asyncpg.Connection[asyncpg.Record]) -> None:
    try:
        await conn.execute(SQL["lock"], LOCK, timeout=LOCK_WAIT_S)
    except TimeoutError as error:
        raise MigrationError(f"another migration has run for {LOCK_WAIT_S:.0f} s: see what it waits for.") from error


async def postgres(
    conn: asyncpg.Connection[asyncpg.Record], folder: Path = POSTGRES, *, told: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Apply what is missing on a connection that is `locked`; `told` hears each name. Returns the names applied."""
    await conn.execute(SQL["create_table"])
    names = []
    for file in pending(read(folder), await _applied(conn)):
        await _apply(conn, file)
        told(file.name)
        names.append(file.name)
    return names


async def pending_postgres(conn: asyncpg.Connection[asyncpg.Record], folder: Path = POSTGRES) -> list[str]:
    """Names of the files that are still to be applied; changes nothing."""
    applied = await _applied(conn) if await conn.fetchval(SQL["table_exists"]) else {}
    return [file.name for file in pending(read(folder), applied)]


async def _applied(conn: asyncpg.Connection[asyncpg.Record]) -> dict[str, str]:
    return {row["name"]: row["checksum"] for row in await conn.fetch(SQL["applied"])}


async def _apply(conn: asyncpg.Connection[asyncpg.Record], file: Migration) -> None:
    try:
        async with conn.transaction():
            await conn.execute(f"SET LOCAL lock_timeout = '{TABLE_WAIT}'")
            await conn.execute(file.sql, timeout=FILE_LIMIT_S)
            await conn.execute(SQL["record"], file.name, file.checksum)
    except asyncpg.PostgresError as error:
        raise MigrationError(f"{file.name} failed and nothing of it was applied: {error}") from error


async def clickhouse(
    analytics: Analytics, folder: Path = CLICKHOUSE, *, told: Callable[[str], None] = lambda _: None
) -> list[str]:
    """Apply what is missing to the database of `analytics`, making it first; the caller holds the lock."""
    await _make_database(analytics.url)
    await analytics.command(CLICKHOUSE_SQL["create_table"])
    names = []
    for file in pending(read(folder), await _applied_clickhouse(analytics)):
        for statement in statements(file.sql):
            await analytics.command(statement)
        await analytics.command(CLICKHOUSE_SQL["record"], name=file.name, checksum=file.checksum)
        told(file.name)
        names.append(file.name)
    return names


async def pending_clickhouse(analytics: Analytics, folder: Path = CLICKHOUSE) -> list[str]:
    """Names of the files that are still to be applied; changes nothing."""
    ((exists,),) = await analytics.rows(CLICKHOUSE_SQL["table_exists"])
    applied = await _applied_clickhouse(analytics) if exists else {}
    return [file.name for file in pending(read(folder), applied)]


async def _applied_clickhouse(analytics: Analytics) -> dict[str, str]:
    return {str(name): str(checksum) for name, checksum in await analytics.rows(CLICKHOUSE_SQL["applied"])}


def statements(sql: str) -> list[str]:
    """Statements of a ClickHouse file: each ends with `;` at the end of a line."""
    parts = (part.strip() for part in re.split(r";[ \t]*$", sql, flags=re.MULTILINE))
    return [part for part in parts if any(line.strip() and not line.startswith("--") for line in part.splitlines())]


async def _make_database(url: str) -> None:
    server = Analytics(without_database(url))
    try:
        ((exists,),) = await server.rows(CLICKHOUSE_SQL["database_exists"], database=database_of(url))
        if not exists:
            await server.command(CLICKHOUSE_SQL["create_database"], database=database_of(url))
    finally:
        await server.close()
