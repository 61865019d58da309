"""`make bench-analytics`: how long analytics and history take on five million events of ten thousand users.

The events are loaded set-based into both embedded engines (tests/load/analytics_data.py), then a web process as
operators run it is asked over HTTP, one call at a time, by users as they come: the busy ones come more often. Cold: no
answer is in Redis. Warm: the same again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from statistics import quantiles
from urllib.parse import quote

import aiohttp
import orjson

from config.embedded.clickhouse import ClickHouse
from config.embedded.postgres import Postgres
from config.embedded.valkey import Valkey
from handlers.auth import ACCESS_PREFIX, TOKEN_BYTES, fingerprint
from store import log, migrate, sessions
from store.clickhouse import Analytics
from store.postgres import Pool, open_pool
from store.records import Address
from store.redis import open_redis
from tests.load.analytics_data import Data, load_clickhouse, load_postgres
from tests.load.deliver import commit, machine
from tests.load.ingest import CHAIN, USDC, WALLET
from tests.load.product import CALLER, Urls, product

BULK = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "max_wal_size": "8GB",
    "maintenance_work_mem": "1GB",
    "shared_buffers": "1GB",
}
"""What loading wants; a database that is only read afterwards is as quick as any."""
CHAINS = f"""[[chain]]
name = "bench"
id = {CHAIN.id}
rpc = ["http://127.0.0.1:9"]
wallets = ["{WALLET}"]
[[chain.token]]
address = "{USDC}"
symbol = "USDC"
decimals = 6
price = "usd"
"""
FOOD, TRANSPORT = (f"00000000-0000-4000-8000-00000000000{number}" for number in (1, 2))
HISTORY_TARGET_MS, TRENDS_TARGET_MS = 50, 150
DEEP_PAGES = 5

Get = Callable[[str], Awaitable[tuple[float, bytes]]]


@dataclass(frozen=True)
class Route:
    """One way to ask; `target_ms` is for the 99th percentile. `deep` follows the cursor and times the last page."""

    name: str
    path: str
    target_ms: float | None = None
    is_kept: bool = True
    deep: int = 0


def routes(now: datetime) -> tuple[Route, ...]:
    year = f"from={quote((now - timedelta(days=365)).isoformat())}&to={quote(now.isoformat())}"
    trends = [
        Route(f"trends {each}", f"/v1/analytics/trends?timeframe={each}", TRENDS_TARGET_MS)
        for each in ("hour", "day", "week", "month", "year")
    ]
    return (
        *trends,
        Route("trends day, a year of it", f"/v1/analytics/trends?timeframe=day&{year}", TRENDS_TARGET_MS),
        Route(
            "trends of 2 categories",
            f"/v1/analytics/trends?timeframe=month&categoryIds={FOOD},{TRANSPORT}",
            TRENDS_TARGET_MS,
        ),
        Route("forecast 30 days", "/v1/analytics/forecast?days=30"),
        Route("summary", "/v1/summary"),
        Route("buckets", "/v1/analytics/buckets", is_kept=False),
        Route("history page", "/v1/transactions?limit=50", HISTORY_TARGET_MS, is_kept=False),
        Route(
            f"history page {DEEP_PAGES}", "/v1/transactions?limit=50", HISTORY_TARGET_MS, is_kept=False, deep=DEEP_PAGES
        ),
        Route("history of spends", "/v1/transactions?limit=50&type=spend", HISTORY_TARGET_MS, is_kept=False),
        Route("history of a category", f"/v1/transactions?limit=50&category={FOOD}", HISTORY_TARGET_MS, is_kept=False),
    )


@dataclass
class Timed:
    """Milliseconds of calls."""

    cold: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    largest: int = 0


def say(text: str) -> None:
    print(f"  {text}", flush=True)


def percentiles(times: Sequence[float]) -> tuple[float, float]:
    if len(times) < 2:
        return (times[0], times[0]) if times else (0.0, 0.0)
    cuts = quantiles(times, n=100, method="inclusive")
    return cuts[49], cuts[98]


async def sign_in(pool: Pool, users: Sequence[Address]) -> dict[Address, str]:
    """An access token for each of these users."""
    tokens = {user: ACCESS_PREFIX + secrets.token_urlsafe(TOKEN_BYTES) for user in users}
    now = datetime.now(UTC)
    async with pool.acquire() as conn, conn.transaction():
        await log.lock(conn, sorted(tokens))
        for user, token in tokens.items():
            session_id = await sessions.start(conn, user, CALLER, at=now)
            await sessions.add_access(conn, session_id, fingerprint(token), expires_at=now + timedelta(hours=2))
    return tokens


async def measure_user(get: Get, asked: Sequence[Route], timed: Mapping[str, Timed]) -> None:
    for route in asked:
        figures, path = timed[route.name], route.path
        for _ in range(route.deep - 1):
            _, body = await get(path)
            cursor = orjson.loads(body)["nextCursor"]
            path = route.path if cursor is None else f"{route.path}&cursor={quote(cursor)}"
        took, body = await get(path)
        figures.cold.append(took)
        figures.largest = max(figures.largest, len(body))
        figures.warm.append((await get(path))[0])


async def measure(url: str, tokens: Mapping[Address, str], order: Sequence[Address], now: datetime) -> dict[str, Timed]:
    asked = routes(now)
    timed = {route.name: Timed() for route in asked}
    async with aiohttp.ClientSession() as session:
        for place, user in enumerate(order):
            headers = {"Authorization": f"Bearer {tokens[user]}"}

            async def get(path: str, headers: Mapping[str, str] = headers) -> tuple[float, bytes]:
                began = time.perf_counter()
                async with session.get(url + path, headers=headers) as response:
                    body = await response.read()
                assert response.status == 200, (path, response.status, body[:500])
                return (time.perf_counter() - began) * 1000, body

            if place == 0:  # connections, prepared statements, the client of ClickHouse
                for route in asked:
                    await get(route.path)
                continue
            await measure_user(get, asked, timed)
            if place % 50 == 0:
                say(f"{place} of {len(order) - 1} users asked")
    return timed


def report(timed: Mapping[str, Timed], asked: Sequence[Route]) -> bool:
    """Print the table; whether every target is met."""
    met = True
    print(f"\n{'route':<28}{'cold p50':>10}{'p99':>9}{'warm p50':>10}{'p99':>9}{'largest':>12}  target")
    for route in asked:
        figures = timed[route.name]
        (cold50, cold99), (warm50, warm99) = percentiles(figures.cold), percentiles(figures.warm)
        verdict = ""
        if route.target_ms is not None:
            passed = cold99 < route.target_ms
            met &= passed
            verdict = f"p99 < {route.target_ms:.0f} ms: {'met' if passed else 'MISSED'}"
        print(
            f"{route.name:<28}{cold50:>10.1f}{cold99:>9.1f}{warm50:>10.1f}{warm99:>9.1f}"
            f"{figures.largest / 1024:>9.0f} KB  {verdict}"
        )
    return met


def memory_mib(pid: int) -> float:
    """Memory of a process and its children that no other process has (MiB): shared pages are divided among sharers."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents.setdefault(int(stat.read_text().rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    total, waiting = 0, [pid]
    while waiting:
        each = waiting.pop()
        waiting += parents.get(each, [])
        with suppress(OSError):
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


async def same_in_both(pool: Pool, store: Analytics, user: Address) -> None:
    row = await pool.fetchrow("SELECT count(*), sum(usd) FROM transactions WHERE user_address = $1", user)
    sql = "SELECT count(), sum(amount_usd) FROM transaction_events FINAL WHERE user_id = {user:String}"
    (other,) = await store.rows(sql, user=user)
    assert row is not None
    assert (row[0], row[1]) == (other[0], other[1]), f"the stores differ for {user}: {tuple(row)} and {other}"


async def run(
    asked: argparse.Namespace, folder: Path, postgres: Postgres, clickhouse: ClickHouse, valkey: Valkey
) -> bool:
    data = Data(asked.events, asked.users, datetime.now(UTC).replace(minute=0, second=0, microsecond=0))
    store = Analytics(clickhouse.url)
    async with migrate.locked(postgres.url) as conn:
        await migrate.postgres(conn)
    await migrate.clickhouse(store)
    pool = await open_pool(postgres.url)
    await asyncio.gather(load_postgres(pool, data, say), load_clickhouse(store, data, say))
    chance = Random(asked.seed)
    order = [data.user_of(chance.randint(1, data.events)) for _ in range(asked.samples + 1)]
    order = list(dict.fromkeys([data.user_of(1), *order]))
    for user in order[1:6]:
        await same_in_both(pool, store, user)
    say(f"the same figures in both stores; {len(order) - 1} users ask")
    tokens = await sign_in(pool, order)
    redis = open_redis(valkey.url)
    await redis.flushdb()
    await redis.aclose()
    urls = Urls(postgres.url, valkey.url)
    (folder / "bench.toml").write_text(CHAINS)
    settings = {"clickhouse_url": clickhouse.url, "chains_file": str(folder / "bench.toml")}
    async with product(folder, urls, servers=1, read_limit_per_minute="1000000", **settings) as made:
        timed = await measure(made.urls[0], tokens, order, data.end)
        pids = {"web": made.pid(0), "PostgreSQL": postgres.pid, "ClickHouse": clickhouse.pid, "Valkey": valkey.pid}
        memory = ", ".join(f"{name} {memory_mib(pid):,.0f} MiB" for name, pid in pids.items() if pid)
    met = report(timed, routes(data.end))
    print(f"\nmemory: {memory}")
    await store.close()
    await pool.close()
    return met


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=200, help="users who ask, drawn by their number of events")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    print(f"analytics: {asked.events:,} events of {asked.users:,} users")
    print(f"machine: {machine()}\ncommit: {commit()}\nload average: {os.getloadavg()[0]:.1f}, seed: {asked.seed}")
    began = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as name,
        Postgres(Path(name), options=BULK) as postgres,
        ClickHouse(Path(name)) as clickhouse,
        Valkey(Path(name)) as valkey,
    ):
        met = asyncio.run(run(asked, Path(name), postgres, clickhouse, valkey))
    print(f"{'all targets met' if met else 'TARGETS MISSED'}, {time.perf_counter() - began:.0f} s in all")
    raise SystemExit(0 if met else 1)


if __name__ == "__main__":
    main()
