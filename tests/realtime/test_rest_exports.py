"""Exports as clients see them: the list's own filters, exact figures, and streams that cost nobody else anything."""

from __future__ import annotations

import asyncio
import csv
import io
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import quote

import orjson
import pytest
from aiohttp import ClientPayloadError

from handlers import persistence
from handlers.deps import Deps
from handlers.extracts import Extract
from realtime import app
from realtime.rest import streams
from store import persistence as stored
from store.clickhouse import Analytics
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.realtime.rows import SHOP, index, spend, stand, time_of, write
from tests.realtime.served import Client, Got, serving
from tests.realtime.wiring import CHAIN, OTHER_CHAIN, busy, wire
from tests.waiting import until

KEY = "k1:" + "A" * 43 + "="
FOOD = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings) -> Deps:
    return wire(pool, busy(make_settings, seal_keys=[KEY], export_limit_per_minute=1_000_000))


def table(got: Got) -> list[dict[str, str]]:
    assert (got.status, got.headers["Content-Type"]) == (200, "text/csv; charset=utf-8"), got.body
    assert got.body.startswith(b"\xef\xbb\xbf")
    return list(csv.DictReader(io.StringIO(got.body.decode("utf-8-sig"), newline=""), strict=True))


def records(got: Got) -> list[dict[str, Any]]:
    assert (got.status, got.headers["Content-Type"]) == (200, "application/x-ndjson"), got.body
    return [orjson.loads(line) for line in got.body.splitlines()]


async def test_an_export_holds_what_the_list_holds_with_all_that_is_known(me: Client, pool: Pool) -> None:
    rows = [spend(me.address, number) for number in range(1, 8)]
    await write(pool, *rows)
    await stand(pool, CHAIN.id, 7)
    await me.call("PUT", f"/v1/transactions/{rows[0].id}/memo", json={"memo": '=HYPERLINK("x"), and more'})
    await me.call("PUT", f"/v1/contacts/{SHOP}", json={"label": "Corner, shop"})
    await me.call("PUT", f"/v1/transactions/{rows[1].id}/category", json={"categoryId": FOOD})
    listed = (await me.get("/v1/transactions")).json["data"]
    got = await me.get("/v1/transactions/export?format=ndjson")
    found = records(got)
    assert got.headers["Content-Disposition"].startswith('attachment; filename="expendi-transactions-')
    assert [each["id"] for each in found] == [each["id"] for each in listed]
    for mine, shown in zip(found, listed, strict=True):
        assert (mine["amountRaw"], mine["usd"]) == (shown["amount"]["raw"], shown["amount"]["usd"])
        assert (mine["memo"], mine["status"], mine["bucket"]) == (shown["memo"], shown["status"], shown["bucket"])
        assert mine["category"] == (shown["category"] or {}).get("name")
        assert mine["counterpartyLabel"] == "Corner, shop"
    cells = table(await me.get("/v1/transactions/export?format=csv"))
    assert [each["id"] for each in cells] == [each["id"] for each in found]
    assert cells[-1]["memo"] == '\'=HYPERLINK("x"), and more'
    assert cells[-2]["category"] == "Food & Dining"
    assert Decimal(cells[0]["amount"]) == Decimal("12.5")


async def test_an_export_takes_the_filters_of_the_list(me: Client, pool: Pool) -> None:
    await write(
        pool,
        spend(me.address, 1),
        spend(me.address, 2, chain_id=OTHER_CHAIN.id, bucket="Rent", usd=Decimal(3)),
        spend(me.address, 3, type="deposit", account_type="savings", usd=None),
    )
    await index(pool, me.address, seal_keys=[KEY])
    for query in (
        f"chain={OTHER_CHAIN.id}",
        "type=deposit&type=spend",
        "account=savings",
        "bucket=Rent",
        "token=0X" + spend(me.address, 1).token[2:].upper(),
        "min=3&max=12.5",
        "q=ren",
        "q=" + SHOP[:9],
        f"from={quote(time_of(2).isoformat())}",
        f"category={FOOD}",
    ):
        listed = [each["id"] for each in (await me.get(f"/v1/transactions?{query}")).json["data"]]
        found = records(await me.get(f"/v1/transactions/export?format=ndjson&{query}"))
        assert [each["id"] for each in found] == listed, query


async def test_parquet_is_refused_while_the_analytics_store_is_away(pool: Pool, make_settings: MakeSettings) -> None:
    nowhere = make_settings(clickhouse_url="http://127.0.0.1:1/nothing")
    async with serving(wire(pool, nowhere)) as anyone:
        me = await anyone.signed_in()
        got = await me.get("/v1/transactions/export?format=parquet")
        assert (got.status, got.json["code"]) == (503, "unavailable")
        assert (await me.get("/v1/transactions/export?format=ndjson")).status == 200


async def test_parquet_has_the_same_rows_from_the_analytics_store(
    anyone: Client, me: Client, pool: Pool, analytics: Analytics
) -> None:
    other = await anyone.signed_in()
    rows = [
        spend(me.address, 1, amount=2**255, usd=None),
        spend(me.address, 2, chain_id=OTHER_CHAIN.id, bucket="Rent", usd=Decimal("3.5")),
        spend(me.address, 3, type="deposit", account_type="savings"),
        spend(me.address, 4, canonical=False),
        spend(other.address, 5),
    ]
    events = [persistence.event(stored.LedgerRow(row, 1)) for row in rows]
    await stored.insert(analytics, events, token="t")
    await write(pool, *(row for row in rows if row.canonical))
    await index(pool, me.address, seal_keys=[KEY])

    async def blocks(query: str = "") -> list[int]:
        got = await me.get(f"/v1/transactions/export?format=parquet{query}")
        assert got.headers["Content-Type"] == "application/vnd.apache.parquet"
        return [row["blockNumber"] for row in await unpacked(analytics, got.body)]

    assert await blocks() == [3, 2, 1]
    assert await blocks(f"&chain={OTHER_CHAIN.id}") == [2]
    assert await blocks("&type=deposit") == [3]
    assert await blocks("&account=savings&token=" + rows[0].token) == [3]
    assert await blocks("&bucket=Rent") == [2]
    assert await blocks("&bucket=%27+OR+1%3D1+--+") == []
    assert await blocks("&min=3.5&max=4") == [2]
    assert await blocks("&min=99999999999999999999.5") == []
    assert await blocks("&q=rent") == [2]
    assert await blocks("&q=nothing") == []
    assert await blocks("&q=" + SHOP[:9]) == [3, 2, 1]
    assert await blocks(f"&from={quote(time_of(2).isoformat())}&to={quote(time_of(3).isoformat())}") == [2]
    got = await me.get("/v1/transactions/export?format=parquet&q=groceries")
    [latest, first] = await unpacked(analytics, got.body)
    assert (first["amountRaw"], first["usd"], first["symbol"]) == (str(2**255), None, "USDC")
    assert Decimal(str(latest["amount"])) == Decimal("12.5")
    names = (await me.get("/v1/transactions/export/columns?format=parquet")).json["columns"]
    assert [each["name"] for each in names] == list(first)


async def unpacked(analytics: Analytics, body: bytes) -> list[dict[str, Any]]:
    """The rows of a Parquet file, read by ClickHouse's own reader."""
    assert (body[:4], body[-4:]) == (b"PAR1", b"PAR1")
    sql = "SELECT * FROM format(Parquet, unhex(%(body)s)) FORMAT JSONEachRow"
    text = b"".join([chunk async for chunk in analytics.stream(sql, body=body.hex())])
    return [orjson.loads(line) for line in text.splitlines()]


async def test_columns_are_explained(me: Client) -> None:
    got = (await me.get("/v1/transactions/export/columns")).json
    assert got["format"] == "csv"
    head = (await me.get("/v1/transactions/export?format=csv")).body.decode("utf-8-sig")
    assert head == ",".join(each["name"] for each in got["columns"]) + "\r\n"
    assert (await me.get("/v1/transactions/export?format=xml")).status == 400
    assert (await me.get("/v1/transactions/export")).status == 400
    assert (await me.call("HEAD", "/v1/transactions/export?format=csv")).status == 200


async def many(pool: Pool, user: str, count: int) -> None:
    """So many transactions, made by the database itself."""
    await write(pool, spend(user, 1))
    await pool.execute(
        """
        INSERT INTO transactions (user_address, chain_id, block_hash, tx_hash, n, id, event_id, role, log_index,
            block_number, block_time, type, account_type, direction, token, symbol, decimals, amount, usd, wallet,
            bucket_id, bucket, counterparty, spender, fee_wei)
        SELECT user_address, chain_id, block_hash, tx_hash, k, concat_ws(':', chain_id, tx_hash, k), 'e' || k, role, k,
            block_number, block_time + k * interval '1 s', type, account_type, direction, token, symbol, decimals, k,
            usd, wallet, bucket_id, bucket, counterparty, spender, fee_wei
        FROM transactions, generate_series(1, $2::int) AS k WHERE user_address = $1
        """,
        user,
        count - 1,
    )


async def test_a_client_that_leaves_midway_frees_its_connection(me: Client, pool: Pool) -> None:
    await many(pool, me.address, 30_000)
    before = pool.get_size() - pool.get_idle_size()
    headers = {"Authorization": f"Bearer {me.token}"}
    url = f"{me.base}/v1/transactions/export?format=ndjson"
    async with me.session.get(url, headers=headers) as response:
        await response.content.readline()
        assert pool.get_size() - pool.get_idle_size() > before
        response.close()
    await until(lambda: pool.get_size() - pool.get_idle_size() == before)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> streams.Streams:
    """The turns of the application, which has less patience."""
    made = streams.Streams(stall_s=2.0)
    monkeypatch.setattr(app, "Streams", lambda: made)
    return made


async def test_a_reader_that_stops_is_cut_and_leaves_no_more_than_its_turns(
    hasty: streams.Streams, anyone: Client, pool: Pool
) -> None:
    me = await anyone.signed_in()
    await many(pool, me.address, 60_000)
    head = f"GET /v1/transactions/export?format=ndjson HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {me.token}\r\n\r\n"
    host, port = me.base.removeprefix("http://").split(":")
    ends = [await asyncio.open_connection(host, int(port), limit=1024) for _ in range(streams.AT_ONCE)]
    for _, writer in ends:
        writer.write(head.encode())
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # a stream's transport reads
    await until(lambda: hasty.turns.locked())
    refused = await me.get("/v1/transactions/export?format=csv")
    assert (refused.status, refused.json["code"]) == (503, "unavailable")
    assert (await me.get("/v1/transactions?limit=1")).status == 200  # others have their connections
    await until(lambda: pool.get_size() == pool.get_idle_size())
    assert len(records(await me.get("/v1/transactions/export?format=ndjson&type=deposit"))) == 0
    for _, writer in ends:
        writer.transport.abort()
    await asyncio.gather(*(writer.wait_closed() for _, writer in ends), return_exceptions=True)


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


async def read_away(client: Client, path: str) -> tuple[int, float]:
    """Lines of a download that nobody keeps, and the most memory that was resident meanwhile (MiB)."""
    lines, most = 0, 0.0
    async with client.session.get(client.base + path, headers={"Authorization": f"Bearer {client.token}"}) as response:
        assert response.status == 200
        async for chunk in response.content.iter_any():
            lines += chunk.count(b"\n")
            most = max(most, resident_mb())
    return lines, most


@pytest.mark.parametrize("rows", [40_000, pytest.param(100_000, marks=pytest.mark.slow)])
async def test_many_rows_take_no_more_memory_than_ten_thousand(me: Client, pool: Pool, rows: int) -> None:
    await many(pool, me.address, rows)
    _, before = await read_away(me, "/v1/transactions/export?format=csv&max=0.01")  # warm, and empty
    until_ = quote(time_of(1).replace(hour=3).isoformat())
    some, small = await read_away(me, f"/v1/transactions/export?format=csv&to={until_}")
    assert 5_000 < some < 20_000
    lines, large = await read_away(me, "/v1/transactions/export?format=csv")
    assert lines == rows + 1
    assert large - max(small, before) < 16


async def test_what_breaks_in_the_middle_is_not_taken_for_the_whole(
    me: Client, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    await many(pool, me.address, 3_000)
    calls = iter(range(100))
    real = Extract.of

    async def once(self: Extract, *words: Any) -> Any:
        if next(calls) == 2:
            raise RuntimeError("broken")
        return await real(self, *words)

    monkeypatch.setattr(Extract, "of", once)
    headers = {"Authorization": f"Bearer {me.token}"}
    async with me.session.get(f"{me.base}/v1/transactions/export?format=csv", headers=headers) as response:
        assert response.status == 200
        with pytest.raises(ClientPayloadError):
            await response.read()
    assert pool.get_size() == pool.get_idle_size()
