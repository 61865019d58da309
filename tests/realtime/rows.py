"""Ledger rows for tests of what reads them, written through the store without a watcher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Any

from config.settings import Settings
from handlers.rules.holdings import vault_position_id
from handlers.rules.ids import bucket_id, event_id
from handlers.search import write as write_index
from store import accounts, cursors, ledger, log, search, sessions, spending, yields
from store.audit import Caller
from store.blind import Blinds
from store.postgres import Pool
from store.records import AccountType, BalanceKey, BlockRef, BucketRow, Draft, TransactionRow
from store.sealed import KeyRing
from store.search import BEFORE_ALL
from store.yields import Position
from tests.realtime.wiring import CHAIN, USDC

START = datetime(2026, 11, 1, tzinfo=UTC)
WALLET = "0x" + "aa" * 20
SHOP = "0x" + "5b" * 20


def hash_of(*parts: object) -> str:
    return "0x" + sha256(repr(parts).encode()).hexdigest()


def time_of(number: int) -> datetime:
    return START + timedelta(seconds=2 * number)


def spend(user: str, number: int, *, n: int = 0, chain_id: int = CHAIN.id, **changes: Any) -> TransactionRow:
    """A spend of 12.50 USDC in block `number`."""
    block_hash, tx_hash = hash_of(chain_id, number), hash_of(chain_id, number, "tx")
    row = TransactionRow(
        user=user,
        chain_id=chain_id,
        block_hash=block_hash,
        tx_hash=tx_hash,
        n=n,
        event_id=event_id("new_transaction", chain_id, block_hash, tx_hash, n, user),
        role="owner",
        log_index=n,
        block_number=number,
        block_time=time_of(number),
        type="spend",
        account_type="spending",
        direction="out",
        token=USDC,
        symbol="USDC",
        decimals=6,
        amount=12_500_000,
        usd=Decimal("12.5"),
        wallet=WALLET,
        bucket_id=bucket_id(chain_id, WALLET, user, b"Groceries"),
        bucket="Groceries",
        counterparty=SHOP,
        spender=user,
        fee_wei=21_000 * 10**9,
    )
    return replace(row, **changes)


async def write(pool: Pool, *rows: TransactionRow) -> None:
    async with pool.acquire() as conn, conn.transaction():
        for row in rows:
            ref = BlockRef(row.block_number, row.block_hash)
            parent = hash_of("parent", row.block_hash)
            await cursors.apply_block(conn, row.chain_id, ref, parent_hash=parent, time=row.block_time)
        await ledger.record(conn, rows)


async def stand(pool: Pool, chain_id: int, number: int, *, head: int | None = None, finalized: int = 0) -> None:
    """Let a chain's ledger stand at block `number`."""
    async with pool.acquire() as conn:
        ref = BlockRef(number, hash_of(chain_id, number))
        before = await cursors.cursor(conn, chain_id)
        await cursors.move(conn, before, chain_id, ref, time=time_of(number), head=head or number, finalized=finalized)


async def bucket(pool: Pool, user: str, name: bytes, *, chain_id: int = CHAIN.id, holds: int = 0) -> BucketRow:
    row = BucketRow(
        chain_id=chain_id,
        wallet=WALLET,
        user=user,
        bucket_id=bucket_id(chain_id, WALLET, user, name),
        name=name.decode(),
        raw_name=name,
        active=True,
        monthly_limit=100_000_000,
        spent=0,
        period_start=None,
        delegates=(),
    )
    key = BalanceKey(user, chain_id, "bucket", WALLET, row.bucket_id, USDC)
    async with pool.acquire() as conn, conn.transaction():
        await spending.save_buckets(conn, [row])
        await spending.save_balances(conn, {key: holds})
    return row


async def open_account(pool: Pool, user: str, kind: AccountType, *, chain_id: int = CHAIN.id, number: int = 1) -> None:
    """What a block does whose events belong to an account of the user for the first time."""
    async with pool.acquire() as conn, conn.transaction():
        await accounts.open_accounts(conn, chain_id, BlockRef(number, hash_of(chain_id, number)), {(user, kind): None})


VAULT = "0x" + "4e" * 20
PRICE_ONE = 10**12


async def hold(
    pool: Pool,
    user: str,
    *,
    at: datetime = START,
    number: int = 1,
    vault: str = VAULT,
    chain_id: int = CHAIN.id,
    shares: int = 100_000_000,
    percent: int = 100,
    **changes: Any,
) -> Position:
    """What a block does that moves a position: a vault's shares of 100 USDC, worth `percent` of what they cost.

    The price at its time is kept with it.
    """
    value = shares * percent // 100
    row = Position(
        user=user,
        chain_id=chain_id,
        position_id=vault_position_id(chain_id, vault),
        kind="vault",
        contract=vault,
        protocol="Morpho",
        asset=USDC,
        symbol="USDC",
        as_of_block=number,
        as_of=at,
        opened_block=1,
        opened_at=START,
        shares=shares,
        principal=shares,
        value=value,
    )
    row = replace(row, **changes)
    ref = BlockRef(number, hash_of(chain_id, number, user))
    price = {row.source: (PRICE_ONE * percent // 100, PRICE_ONE)}
    async with pool.acquire() as conn, conn.transaction():
        await yields.save(conn, ref, at, [row])
        await yields.record_prices(conn, chain_id, ref, at, price, moved=set(price))
    return row


async def value(pool: Pool, source: str, percent: int, *, at: datetime, number: int, chain_id: int = CHAIN.id) -> None:
    """What a block does at which nothing but the price of shares moves."""
    ref = BlockRef(number, hash_of(chain_id, number))
    async with pool.acquire() as conn, conn.transaction():
        price = {source: (PRICE_ONE * percent // 100, PRICE_ONE)}
        await yields.record_prices(conn, chain_id, ref, at, price, moved=set(price))


async def open_log(pool: Pool, *users: str) -> None:
    """What a first sign-in does."""
    async with pool.acquire() as conn, conn.transaction():
        await log.lock(conn, users)
        for user in users:
            await sessions.register(conn, user, chain_ids=[CHAIN.id], at=START)


async def tell(pool: Pool, user: str, count: int, *, filler: str = "") -> None:
    """Append `count` events to a user's log."""
    async with pool.acquire() as conn, conn.transaction():
        counters = await log.lock(conn, [user])
        first = counters[user].seq + 1
        drafts: Sequence[Draft] = [
            Draft(user, event_id("resync", user, first + i), "resync", 1, {"reason": "rebuild", "filler": filler})
            for i in range(count)
        ]
        await log.append(conn, counters, drafts, at=START)


async def index(pool: Pool, *users: str, **settings: Any) -> None:
    """What the jobs of search do, for all that these users have."""
    chosen = Settings(secret_key="k" * 32, **settings)
    for user in users:
        async with pool.acquire() as conn, conn.transaction():
            wanted = await search.of_user(conn, user, after=BEFORE_ALL, limit=10_000)
            await write_index(conn, wanted, ring=KeyRing.of(chosen), blinds=Blinds.of(chosen))


CALLER = Caller("203.0.113.7", "Phone/1.0")
