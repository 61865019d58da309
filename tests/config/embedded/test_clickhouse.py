"""The ClickHouse front, through the official client: what a real server answers, this one answers."""

from __future__ import annotations

import asyncio
import datetime
import gzip
import uuid
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver.asyncclient import AsyncClient
from clickhouse_connect.driver.exceptions import DatabaseError

from config.embedded.clickhouse import ClickHouse

TYPES = {
    "id": ("UInt32", 7),
    "amount": ("Decimal128(18)", Decimal("1234567890123.500000000000000001")),
    "raw": ("UInt256", 2**255),
    "kind": ("Enum8('in' = 1, 'out' = 2)", "out"),
    "tags": ("Array(String)", ["a", "it's\ta tab"]),
    "facts": ("Map(String, UInt8)", {"k": 1}),
    "memo": ("Nullable(String)", None),
    "event": ("UUID", uuid.UUID(int=5)),
    "at": ("DateTime64(3, 'UTC')", datetime.datetime(2026, 11, 24, 10, 0, 0, 123000)),
    "token": ("LowCardinality(String)", "0xabc"),
}


@pytest.fixture(scope="module")
def front(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClickHouse]:
    with ClickHouse(tmp_path_factory.mktemp("clickhouse")) as engine:
        yield engine


async def connect(front: ClickHouse, **options: Any) -> AsyncClient:
    return await clickhouse_connect.get_async_client(dsn=front.url, autogenerate_session_id=False, **options)


@pytest.fixture
async def client(front: ClickHouse) -> AsyncIterator[AsyncClient]:
    client = await connect(front)
    yield client
    await client.close()


@pytest.fixture
async def table(client: AsyncClient) -> str:
    name = f"t_{uuid.uuid4().hex[:8]}"
    columns = ", ".join(f"{column} {kind}" for column, (kind, _) in TYPES.items())
    await client.command(
        f"CREATE TABLE {name} ({columns}) ENGINE = ReplacingMergeTree ORDER BY id "
        "SETTINGS non_replicated_deduplication_window = 100"
    )
    return name


def row(number: int) -> list[Any]:
    return [number, *[value for _, value in TYPES.values()][1:]]


async def test_the_database_is_ours_and_atomic(client: AsyncClient) -> None:
    assert await client.ping()
    assert await client.command("SELECT currentDatabase()") == "expendi"
    assert await client.command("SELECT engine FROM system.databases WHERE name = 'expendi'") == "Atomic"
    assert await client.command("SELECT timezone()") == "UTC"


async def test_every_type_we_use_comes_back_as_it_was_inserted(client: AsyncClient, table: str) -> None:
    summary = await client.insert(table, [row(1), row(2)], column_names=list(TYPES))
    assert summary.written_rows == 2
    found = await client.query(f"SELECT * FROM {table} WHERE id = {{id:UInt32}}", parameters={"id": 2})
    assert [list(values) for values in found.result_rows] == [row(2)]


async def test_the_same_token_inserts_once(client: AsyncClient, table: str) -> None:
    for _ in range(2):
        await client.insert(
            table, [row(1)], column_names=list(TYPES), settings={"insert_deduplication_token": "31337:0xaa:0"}
        )
    assert await client.command(f"SELECT count() FROM {table}") == 1


async def test_statements_of_each_shape_answer_as_a_server_does(client: AsyncClient, table: str) -> None:
    assert await client.command(f"INSERT INTO {table} (id, token) VALUES (1, 'a FORMAT Native\nb')") is not None
    assert await client.command(f"SELECT token FROM {table}") == "a FORMAT Native\\nb"
    await client.command(f"INSERT INTO {table} (id, token) SELECT number, 'FORMAT x' FROM numbers(10, 3)")
    columns = ["id", "token"]
    await client.raw_insert(table, columns, b'{"id": 20, "token": "j"}\n', fmt="JSONEachRow")
    await client.raw_insert(table, columns, gzip.compress(b"21,c\n"), fmt="CSV", compression="gzip")
    await client.raw_insert(table, columns, b"(22, 'v')", fmt="Values")
    assert await client.command(f"SELECT count() FROM {table}") == 7
    assert await client.command("SELECT 1, 'two'") == ["1", "two"]
    assert await client.raw_query("SELECT 1 AS a", fmt="JSONEachRow") == b'{"a":1}\n'
    some = f"SELECT id FROM {table} WHERE id IN {{ids:Array(UInt32)}} ORDER BY id"
    found = await client.query(some, parameters={"ids": [10, 12]})
    assert found.result_rows == [(10,), (12,)]
    assert (await client.query(f"SELECT id, token FROM {table} LIMIT 0")).column_names == ("id", "token")
    assert (await client.query(f"SELECT * FROM {table} WHERE id = 99")).result_rows == []


async def test_settings_and_databases_of_one_request_do_not_reach_the_next(
    front: ClickHouse, client: AsyncClient
) -> None:
    threads = "SELECT getSetting('max_threads')"
    before = (await client.query(threads)).result_rows
    assert (await client.query(threads, settings={"max_threads": 7})).result_rows == [(7,)]
    await client.command("CREATE DATABASE other ENGINE = Atomic")
    elsewhere = await connect(front, database="other")
    for _ in range(8):  # more than there are handles
        assert await elsewhere.command("SELECT currentDatabase()") == "other"
        assert await client.command("SELECT currentDatabase()") == "expendi"
        assert (await client.query(threads)).result_rows == before
    await client.command("DROP DATABASE other")
    with pytest.raises(DatabaseError) as refused:
        await elsewhere.command("SELECT currentDatabase()")
    assert refused.value.code == 81
    await elsewhere.close()


@pytest.mark.parametrize(
    ("sql", "settings", "code"),
    [
        ("SELECT nosuch FROM numbers(1)", {}, 47),
        ("SELECT * FROM nosuch", {}, 60),
        ("SELECT nosuch()", {}, 46),
        ("SELEC 1", {}, 62),
        ("SELECT 1", {"nosuch_setting": "1"}, 115),
        ("SELECT 1", {"a b": "1"}, 115),
    ],
)
async def test_errors_carry_their_code_and_leave_the_front_working(
    client: AsyncClient, sql: str, settings: dict[str, str], code: int
) -> None:
    with pytest.raises(DatabaseError) as refused:
        await client.raw_query(sql, settings=settings)
    assert refused.value.code == code
    assert await client.command("SELECT 1") == 1


async def test_many_queries_at_once_each_get_their_own_answer(client: AsyncClient) -> None:
    asks = [client.query("SELECT {n:UInt32}", parameters={"n": number}) for number in range(50)]
    assert [answer.result_rows[0][0] for answer in await asyncio.gather(*asks)] == list(range(50))


async def test_a_killed_front_has_lost_nothing(front: ClickHouse, client: AsyncClient, table: str) -> None:
    await client.insert(table, [row(number) for number in range(1000)], column_names=list(TYPES))
    front.kill()
    front.start()
    assert await client.command(f"SELECT count() FROM {table}") == 1000
    await client.insert(table, [row(5)], column_names=list(TYPES))
    assert await client.command(f"SELECT count() FROM {table} FINAL") == 1000
