"""ClickHouse: analytics beside the truth. Opens when first used, so that no process waits for it to start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

import clickhouse_connect
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import ClickHouseError, OperationalError

CONNECT_TIMEOUT_S = 3
READ_TIMEOUT_S = 10
"""Time a query or insert may be silent (s): a job's own limit lies above it."""

AWAY = (OperationalError, OSError, TimeoutError)
"""ClickHouse does not answer: the same step may be tried again later. An insert may have arrived all the same."""


def is_away(error: BaseException) -> bool:
    """Whether this is ClickHouse not answering, and nothing else."""
    return isinstance(error, OperationalError)


REFUSED = (ClickHouseError,)
"""Whatever ClickHouse or its client says no with."""

SETTINGS: Mapping[str, Any] = {
    # One insert is one part, durable and visible when it returns; newer servers batch by default.
    "async_insert": 0,
    "wait_end_of_query": 1,
}
ONCE: Mapping[str, Any] = {
    "insert_deduplicate": 1,
    "deduplicate_blocks_in_dependent_materialized_views": 1,
    # Corrections may reach back over any number of months.
    "max_partitions_per_insert_block": 0,
}


class Analytics:
    """The client of one process and loop. Every call raises one of AWAY while ClickHouse does not answer."""

    def __init__(self, url: str, *, read_timeout_s: float = READ_TIMEOUT_S) -> None:
        """`url`: `http://user:password@host:port/database`."""
        self.url = url
        self._read_timeout_s = read_timeout_s
        self._client: AsyncClient | None = None
        self._opening = asyncio.Lock()
        self._types: dict[tuple[str, tuple[str, ...]], Any] = {}

    async def insert(self, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]], *, token: str) -> None:
        """Insert rows in one part; the same `token` a second time changes nothing (within the table's window)."""
        client = await self._opened()
        types = await self._column_types(client, table, tuple(columns))
        settings = {**ONCE, "insert_deduplication_token": token}
        context = await client.create_insert_context(table, list(columns), column_types=types, settings=settings)
        # One block, whatever its size: the client would cut one of some thousand rows in pieces, each under the same
        # token, of which only the first would count.
        context.req_block_size = len(rows)
        await client.insert(data=rows, context=context)

    async def rows(self, sql: str, **parameters: Any) -> list[tuple[Any, ...]]:
        """Rows of a query with `{name:Type}` parameters."""
        client = await self._opened()
        result = await client.query(sql, parameters=parameters)
        return [tuple(row) for row in result.result_rows]

    async def stream(self, sql: str, **parameters: Any) -> AsyncIterator[bytes]:
        """The answer of a query that names its own FORMAT, as it comes; `%(name)s` parameters are written into it.

        Errors come with the first bytes: the server holds an answer back until it is whole.
        """
        client = await self._opened()
        async with await client.raw_stream(sql, parameters=parameters) as chunks:
            async for chunk in chunks:
                yield chunk

    async def command(self, sql: str, **parameters: Any) -> None:
        """Run a statement that answers nothing."""
        client = await self._opened()
        await client.command(sql, parameters=parameters)

    async def version(self) -> str:
        """Server version, as `26.9.2.1`."""
        return str((await self.rows("SELECT version()"))[0][0])

    async def close(self) -> None:
        """Close the connections; a call after that opens them again."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()

    async def _opened(self) -> AsyncClient:
        async with self._opening:
            if self._client is None:
                self._client = await clickhouse_connect.get_async_client(
                    dsn=self.url,
                    connect_timeout=CONNECT_TIMEOUT_S,
                    send_receive_timeout=self._read_timeout_s,
                    settings=dict(SETTINGS),
                    tz_mode="schema",
                )
            return self._client

    async def _column_types(self, client: AsyncClient, table: str, columns: tuple[str, ...]) -> Any:
        # The client would ask the server for them before every insert.
        if (table, columns) not in self._types:
            context = await client.create_insert_context(table, list(columns))
            self._types[table, columns] = context.column_types
        return self._types[table, columns]


def database_of(url: str) -> str:
    """Database that a url names; `default` when it names none."""
    return urlsplit(url).path.strip("/") or "default"


def without_database(url: str) -> str:
    """The same server, before the database exists."""
    return urlsplit(url)._replace(path="").geturl()
