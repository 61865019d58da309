"""The ClickHouse client: once per token, exact values, and one class of errors for an engine that is away."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from clickhouse_connect.driver.exceptions import ClickHouseError

from config.embedded.clickhouse import ClickHouse
from store import clickhouse
from store.clickhouse import Analytics, database_of, without_database

TABLE = """CREATE TABLE t (a UInt64, b Nullable(Decimal(38, 18)), c UInt256, at DateTime64(3, 'UTC'), d FixedString(4))
           ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100"""
COLUMNS = ("a", "b", "c", "at", "d")
AT = datetime(2026, 11, 24, 10, 0, 0, 123_000, tzinfo=UTC)
ROW = (1, Decimal("0.000000000000000001"), 2**256 - 1, AT, "0xab")


async def test_token_is_inserted_once_whatever_it_carries(analytics: Analytics) -> None:
    await analytics.command(TABLE)
    await analytics.insert("t", COLUMNS, [ROW], token="one")
    await analytics.insert("t", COLUMNS, [(2, *ROW[1:]), (3, *ROW[1:])], token="one")
    await analytics.insert("t", COLUMNS, [(4, *ROW[1:])], token="two")
    assert await analytics.rows("SELECT a FROM t ORDER BY a") == [(1,), (4,)]


async def test_many_rows_are_one_part_and_all_of_them_arrive(analytics: Analytics) -> None:
    await analytics.command(TABLE)
    rows = [(n, *ROW[1:]) for n in range(70_000)]  # what the client would cut in three
    for _ in range(2):
        await analytics.insert("t", COLUMNS, rows, token="one")
        assert await analytics.rows("SELECT count(), uniqExact(_part) FROM t") == [(70_000, 1)]


async def test_values_come_back_exact(analytics: Analytics) -> None:
    await analytics.command(TABLE)
    await analytics.insert("t", COLUMNS, [ROW], token="one")
    ((a, b, c, at, d),) = await analytics.rows("SELECT * FROM t WHERE a = {a:UInt64}", a=1)
    assert (a, b, c, d) == (1, ROW[1], 2**256 - 1, b"0xab")
    assert at == AT


async def test_one_client_serves_many_at_once(analytics: Analytics) -> None:
    answers = await asyncio.gather(*(analytics.rows("SELECT {n:UInt8}", n=n) for n in range(20)))
    assert [rows[0][0] for rows in answers] == list(range(20))


async def test_engine_that_is_away_raises_one_class_and_comes_back(private_clickhouse: ClickHouse) -> None:
    analytics = Analytics(private_clickhouse.url)
    try:
        assert await analytics.version()
        private_clickhouse.kill()
        with pytest.raises(clickhouse.AWAY):
            await analytics.version()
        private_clickhouse.start()
        assert await analytics.version()
    finally:
        await analytics.close()


async def test_error_of_a_statement_is_no_engine_that_is_away(analytics: Analytics) -> None:
    with pytest.raises(ClickHouseError) as caught:
        await analytics.rows("SELECT * FROM nowhere")
    assert not isinstance(caught.value, clickhouse.AWAY)


def test_urls_name_their_database() -> None:
    assert database_of("http://me:pw@host:8123/expendi") == "expendi"
    assert database_of("http://host:8123") == "default"
    assert without_database("http://me:pw@host:8123/expendi") == "http://me:pw@host:8123"
