"""`make bench-ingest`: events per second through decode, commit and publish, on one core beside PostgreSQL and Redis.

The blocks are made of raw logs, as a node would send them: decoding is in the figure, JSON-RPC is not.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from config import abi
from config.chains import Chain, Token
from config.embedded.postgres import Postgres
from config.embedded.valkey import Valkey
from config.settings import Settings
from handlers.deps import Deps
from store import log, migrate
from store.feed import Publisher
from store.postgres import Pool, open_pool
from store.records import Block, Log, Receipt
from watchers.decode import decode
from watchers.ingest import writer

WALLET = "0x" + "aa" * 20
USDC = "0x" + "cc" * 20
SHOP = "0x" + "55" * 20
CHAIN = Chain(
    name="bench",
    id=31337,
    rpc=("http://127.0.0.1:1",),
    ws=None,
    first_block=0,
    confirmations=2,
    finality_depth=64,
    wallets=(WALLET,),
    factories=(),
    yield_locks=(),
    tokens=(Token(USDC, "USDC", 6, "usd"),),
    vaults=(),
)
START = datetime(2026, 11, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Load:
    blocks: int
    spends: int
    """Per block; each is two logs (the token's Transfer and SpentFromBucket), counted as one event."""
    users: int


def word(value: int) -> str:
    return f"{value:064x}"


def text_words(text: str) -> str:
    raw = text.encode()
    return word(len(raw)) + raw.hex().ljust(64, "0")


def user(index: int) -> str:
    return f"0x{0xBE9C0000 + index:040x}"


def topic(address: str) -> str:
    return "0x" + "0" * 24 + address[2:]


def spend_logs(index: int, tx: str, who: str, *, amount: int) -> tuple[Log, Log]:
    transfer = Log(USDC, (abi.TRANSFER, topic(WALLET), topic(SHOP)), "0x" + word(amount), tx, 2 * index)
    head = word(0x80) + word(amount) + "0" * 24 + SHOP[2:] + "0" * 24 + USDC[2:]
    data = "0x" + head + text_words("groceries")
    return transfer, Log(WALLET, (abi.SPENT_FROM_BUCKET, topic(who)), data, tx, 2 * index + 1)


def make_block(number: int, parent: str, load: Load) -> Block:
    logs: list[Log] = []
    receipts: dict[str, Receipt] = {}
    for index in range(load.spends):
        who = user((number * load.spends + index) % load.users)
        tx = "0x" + sha256(f"{number}|{index}".encode()).hexdigest()
        logs += spend_logs(index, tx, who, amount=1 + index)
        receipts[tx] = Receipt(tx, who, WALLET, 2, 2 * index, 76_609, 10**9, 0)
    return Block(
        chain_id=CHAIN.id,
        number=number,
        hash="0x" + sha256(f"block {number}".encode()).hexdigest(),
        parent_hash=parent,
        time=START + timedelta(seconds=2 * number),
        logs=tuple(logs),
        receipts=receipts,
    )


def make_blocks(load: Load, *, first: int) -> list[Block]:
    blocks: list[Block] = []
    parent = "0x" + sha256(f"block {first - 1}".encode()).hexdigest()
    for number in range(first, first + load.blocks):
        blocks.append(make_block(number, parent, load))
        parent = blocks[-1].hash
    return blocks


async def sign_in_all(pool: Pool, load: Load) -> None:
    users = [user(i) for i in range(load.users)]
    async with pool.acquire() as conn, conn.transaction():
        await log.lock(conn, users)
        await conn.execute("UPDATE user_counters SET opened_at = now()")
        await conn.execute("INSERT INTO users (address) SELECT * FROM unnest($1::text[])", users)


async def run(deps: Deps, blocks: Sequence[Block]) -> tuple[float, float, int]:
    """Seconds of wall clock, of this process's CPU, and spends told."""
    told = 0
    async with writer(deps, CHAIN) as ledger:
        wallets = await ledger.wallets()
        started, cpu = time.perf_counter(), time.process_time()
        for block in blocks:
            decoded = decode(block, CHAIN, wallets)
            await ledger.apply(decoded, head=block.number, finalized=0)
            told += len(decoded.events)
        return time.perf_counter() - started, time.process_time() - cpu, told


async def measure(load: Load, *, database_url: str, redis_url: str, rounds: int) -> None:
    async with migrate.locked(database_url) as conn:
        await migrate.postgres(conn)
    settings = Settings(database_url=database_url, redis_url=redis_url)
    pool = await open_pool(database_url)
    publisher = Publisher(redis_url)
    deps = Deps(settings, {CHAIN.id: CHAIN}, pool, publisher, lambda: datetime.now(UTC))
    await sign_in_all(pool, load)
    first = 1
    for number in range(1, rounds + 1):
        blocks = make_blocks(load, first=first)
        first += load.blocks
        wall, cpu, logs = await run(deps, blocks)
        spends = load.blocks * load.spends
        print(
            f"round {number}: {spends / wall:9,.0f} spends/s ({logs / wall:,.0f} logs/s) wall, "
            f"{cpu / spends * 1e6:6.1f} us CPU per spend in the watcher = {spends / cpu:,.0f} spends/s per core, "
            f"block p50 {wall / load.blocks * 1e3:.0f} ms"
        )
    await publisher.close()
    await pool.close()


def machine() -> str:
    model = next(
        (line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line),
        platform.processor(),
    )
    return f"{model}, {os.cpu_count()} cores, Python {platform.python_version()}"


def commit() -> str:
    return subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True).stdout.strip()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--blocks", type=int, default=20)
    parser.add_argument("--spends", type=int, default=1000, help="spends per block")
    parser.add_argument("--users", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    load = Load(asked.blocks, asked.spends, asked.users)
    print(f"ingest: {load.spends} spends a block of {load.users} users, {machine()}, commit {commit()}")
    with tempfile.TemporaryDirectory() as folder, Postgres(Path(folder)) as postgres, Valkey(Path(folder)) as valkey:
        asyncio.run(measure(load, database_url=postgres.url, redis_url=valkey.url, rounds=asked.rounds))


if __name__ == "__main__":
    main()
