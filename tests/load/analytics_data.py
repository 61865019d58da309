"""Five million events for `make bench-analytics`: the same rows in both stores, made by each from the row's number.

Integer arithmetic and md5 exist in both, so that nothing has to travel. Users are skewed: the busiest of 10,000 has
about one row of twenty, most have some hundred.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from store.clickhouse import Analytics
from store.postgres import Pool
from tests.load.ingest import CHAIN, SHOP, USDC, WALLET

OTHER_TOKEN = "0x" + "dd" * 20
PER_BLOCK = 10
"""Rows of a block, as the statements below have it, too."""
USER_BASE = 0xBE9C0000
SPAN = timedelta(days=2 * 365)
CHUNK = 250_000
CATEGORIES = 9
"""Eight defaults, and none."""


@dataclass(frozen=True)
class Data:
    """How much there is, and when it ends."""

    events: int
    users: int
    end: datetime

    @property
    def begin(self) -> datetime:
        return self.end - SPAN

    @property
    def blocks(self) -> int:
        return self.events // PER_BLOCK + 1

    def user_of(self, number: int) -> str:
        """Whose row this is: the arithmetic of both stores, in Python."""
        even = number * 2_654_435_761 % 2**31
        cube = (even * even >> 31) * even >> 31
        return address(cube * self.users >> 31)


def address(index: int) -> str:
    return f"0x{USER_BASE + index:040x}"


POSTGRES = """
INSERT INTO transactions (user_address, chain_id, block_hash, tx_hash, n, id, event_id, role, canonical, log_index,
    block_number, block_time, type, account_type, direction, token, symbol, decimals, amount, usd, wallet, bucket_id,
    bucket, counterparty, spender, fee_wei, version)
SELECT user_address, $3::bigint, block_hash, tx_hash, 0, $3::bigint || ':' || tx_hash || ':0', md5('e' || i),
    'owner', true, 0,
    block, $4::timestamptz + i * ($5::float8 / $6::float8) * interval '1 s',
    kind, 'spending', CASE WHEN kind = 'deposit' THEN 'in' ELSE 'out' END,
    CASE WHEN i % 50 = 7 THEN $10::text ELSE $9::text END, CASE WHEN i % 50 = 7 THEN NULL ELSE 'USDC' END,
    CASE WHEN i % 50 = 7 THEN NULL ELSE 6 END, raw, CASE WHEN i % 50 = 7 THEN NULL ELSE raw::numeric / 1000000 END,
    $8::text, $3::bigint || ':b' || i % 5, 'Bucket ' || i % 5, $11::text, user_address, 21000000000000, i
FROM (
    SELECT i, '0x' || lpad(to_hex($12::bigint + ((((even * even >> 31) * even >> 31) * $7::bigint) >> 31)), 40, '0')
            AS user_address,
        '0x' || md5('t' || i) || md5('u' || i) AS tx_hash, i / 10 AS block,
        '0x' || md5('b' || i / 10) || md5('c' || i / 10) AS block_hash,
        CASE i % 10 WHEN 0 THEN 'deposit' WHEN 1 THEN 'transfer' ELSE 'spend' END AS kind,
        1000000 + i * 48271 % 100000000 AS raw
    FROM (SELECT i, i * 2654435761 % 2147483648 AS even FROM generate_series($1::bigint, $2::bigint) AS i) AS numbers
) AS made
"""

POSTGRES_CATEGORIES = """
INSERT INTO transaction_categories (user_address, transaction_id, chain_id, category_id, confidence_score, source)
SELECT '0x' || lpad(to_hex($4::bigint + ((((even * even >> 31) * even >> 31) * $5::bigint) >> 31)), 40, '0'),
    $3::bigint || ':0x' || md5('t' || i) || md5('u' || i) || ':0', $3::bigint,
    ('00000000-0000-4000-8000-00000000000' || i / 7 % 9)::uuid, 0.9, 'history'
FROM (SELECT i, i * 2654435761 % 2147483648 AS even FROM generate_series($1::bigint, $2::bigint) AS i) AS numbers
WHERE i % 10 > 1 AND i / 7 % 9 > 0
"""

CLICKHOUSE = """
INSERT INTO transaction_events (transaction_id, event_id, chain_id, user_id, role, transaction_hash, n, log_index,
    block_number, block_hash, timestamp, type, transaction_type, account_type, direction, amount_raw, token_decimals,
    amount, amount_usd, token_address, category_id, recipient_address, fee_wei, metadata, version)
SELECT concat(toString({chain:UInt64}), ':', tx_hash, ':0'), lower(hex(MD5(concat('e', toString(i))))), {chain:UInt64},
    concat('0x', leftPad(lower(hex({base:UInt64} + bitShiftRight(
        bitShiftRight(bitShiftRight(even * even, 31) * even, 31) * {users:UInt64}, 31))), 40, '0')),
    'owner', tx_hash, 0, 0, intDiv(i, 10),
    concat('0x', lower(hex(MD5(concat('b', toString(intDiv(i, 10)))))),
           lower(hex(MD5(concat('c', toString(intDiv(i, 10))))))),
    fromUnixTimestamp64Milli({begin:Int64} + toInt64(i * ({span_ms:Float64} / {events:Float64})), 'UTC'),
    ['deposit', 'transfer', 'spend', 'spend', 'spend', 'spend', 'spend', 'spend', 'spend', 'spend'][i % 10 + 1] AS kind,
    kind, 'spending', if(kind = 'deposit', 'in', 'out'), raw, if(i % 50 = 7, NULL, 6),
    if(i % 50 = 7, NULL, toDecimal128(raw, 18) / 1000000), if(i % 50 = 7, NULL, toDecimal128(raw, 18) / 1000000),
    if(i % 50 = 7, {other:String}, {usdc:String}),
    if(i % 10 > 1 AND intDiv(i, 7) % 9 > 0,
       concat('00000000-0000-4000-8000-00000000000', toString(intDiv(i, 7) % 9)), ''),
    if(kind = 'deposit', '', {shop:String}), 21000000000000,
    concat('{"symbol":"USDC","wallet":"', {wallet:String}, '","bucketId":"', toString({chain:UInt64}), ':b',
           toString(i % 5), '","bucket":"Bucket ', toString(i % 5), '"}'), i
FROM (
    SELECT number AS i, bitAnd(i * 2654435761, 2147483647) AS even, 1000000 + i * 48271 % 100000000 AS raw,
        concat('0x', lower(hex(MD5(concat('t', toString(i))))), lower(hex(MD5(concat('u', toString(i)))))) AS tx_hash
    FROM numbers({first:UInt64}, {count:UInt64})
)
"""

PEOPLE = (
    """INSERT INTO users (address, time_zone, monthly_budget)
       SELECT '0x' || lpad(to_hex($1::bigint + i), 40, '0'),
              (ARRAY['UTC', 'Europe/Berlin', 'America/New_York', 'Asia/Kolkata'])[1 + i % 4], 500 + i % 1000
       FROM generate_series(0, $2::bigint - 1) AS i""",
    """INSERT INTO user_counters (user_address, opened_at)
       SELECT '0x' || lpad(to_hex($1::bigint + i), 40, '0'), now() FROM generate_series(0, $2::bigint - 1) AS i""",
    """INSERT INTO user_categories (user_address, category_id, monthly_budget)
       SELECT '0x' || lpad(to_hex($1::bigint + i), 40, '0'), ('00000000-0000-4000-8000-00000000000' || c)::uuid, 100
       FROM generate_series(0, $2::bigint - 1) AS i, generate_series(1, 3) AS c""",
)
HOLDINGS = (
    """INSERT INTO buckets (chain_id, wallet, user_address, bucket_id, name, raw_name, active, monthly_limit, spent)
       SELECT $3::bigint, $4::text, u, $3::bigint || ':' || u || ':b' || b, 'Bucket ' || b,
              convert_to('Bucket ' || b, 'UTF8'), true, 500000000, 0
       FROM (SELECT '0x' || lpad(to_hex($1::bigint + i), 40, '0') AS u FROM generate_series(0, $2::bigint - 1) AS i)
            AS p, generate_series(0, 4) AS b""",
    """INSERT INTO balances (user_address, chain_id, scope, wallet, bucket_id, token, amount)
       SELECT u, $3::bigint, 'bucket', $4::text, $3::bigint || ':' || u || ':b' || b, $5::text, 250000000
       FROM (SELECT '0x' || lpad(to_hex($1::bigint + i), 40, '0') AS u FROM generate_series(0, $2::bigint - 1) AS i)
            AS p, generate_series(0, 4) AS b""",
)
INDEXES = """
SELECT c.conname AS name, pg_get_constraintdef(c.oid) AS def, NULL AS index FROM pg_constraint AS c
WHERE c.conrelid = $1::text::regclass AND c.contype IN ('p', 'u')
UNION ALL
SELECT i.relname, NULL, pg_get_indexdef(x.indexrelid) FROM pg_index AS x JOIN pg_class AS i ON i.oid = x.indexrelid
WHERE x.indrelid = $1::text::regclass
    AND NOT EXISTS (SELECT FROM pg_constraint AS c WHERE c.conindid = x.indexrelid AND c.contype IN ('p', 'u'))
"""


def chunks(data: Data) -> Iterator[tuple[int, int]]:
    """First and last number of each chunk."""
    for first in range(1, data.events + 1, CHUNK):
        yield first, min(first + CHUNK - 1, data.events)


async def load_postgres(pool: Pool, data: Data, say: Callable[[str], None]) -> None:
    began = time.perf_counter()
    async with pool.acquire() as conn:
        made = {table: await conn.fetch(INDEXES, table) for table in ("transactions", "transaction_categories")}
        for table, indexes in made.items():
            for each in indexes:
                what = f"CONSTRAINT {each['name']}" if each["def"] else ""
                await conn.execute(f"ALTER TABLE {table} DROP {what}" if what else f"DROP INDEX {each['name']}")
        facts = (CHAIN.id, data.begin, SPAN.total_seconds(), data.events, data.users)
        for first, last in chunks(data):
            await conn.execute(POSTGRES, first, last, *facts, WALLET, USDC, OTHER_TOKEN, SHOP, USER_BASE, timeout=300)
            await conn.execute(POSTGRES_CATEGORIES, first, last, CHAIN.id, USER_BASE, data.users, timeout=300)
            say(f"PostgreSQL {last:,} of {data.events:,} rows, {time.perf_counter() - began:.0f} s")
        for table, indexes in made.items():
            for each in indexes:
                await conn.execute(
                    f"ALTER TABLE {table} ADD CONSTRAINT {each['name']} {each['def']}"
                    if each["def"]
                    else each["index"],
                    timeout=600,
                )
                say(f"PostgreSQL index {each['name']}, {time.perf_counter() - began:.0f} s")
        await _people(conn, data)
        for table in ("transactions", "transaction_categories", "buckets", "balances", "users"):
            await conn.execute(f"VACUUM (ANALYZE) {table}", timeout=600)
        say(f"PostgreSQL vacuumed, {time.perf_counter() - began:.0f} s")


async def _people(conn: object, data: Data) -> None:
    execute = getattr(conn, "execute")  # noqa: B009 - a pool's proxy
    for sql in PEOPLE:
        await execute(sql, USER_BASE, data.users)
    await execute(HOLDINGS[0], USER_BASE, data.users, CHAIN.id, WALLET)
    await execute(HOLDINGS[1], USER_BASE, data.users, CHAIN.id, WALLET, USDC)
    await execute(
        """INSERT INTO chain_cursors (chain_id, number, hash, block_time, head, finalized)
           VALUES ($1, $2, $3, $4, $2, $2)""",
        CHAIN.id,
        data.blocks,
        "0x" + "0b" * 32,
        data.end,
    )


async def load_clickhouse(store: Analytics, data: Data, say: Callable[[str], None]) -> None:
    began = time.perf_counter()
    for first, last in chunks(data):
        await store.command(
            CLICKHOUSE,
            first=first,
            count=last - first + 1,
            chain=CHAIN.id,
            base=USER_BASE,
            users=data.users,
            begin=int(data.begin.timestamp() * 1000),
            span_ms=SPAN.total_seconds() * 1000,
            events=float(data.events),
            other=OTHER_TOKEN,
            usdc=USDC,
            shop=SHOP,
            wallet=WALLET,
        )
        say(f"ClickHouse {last:,} of {data.events:,} rows, {time.perf_counter() - began:.0f} s")
