"""A ledger under test: the real writer on a real database, a clock that stands still, a publisher that keeps."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from config.chains import Chain
from config.settings import Settings
from handlers import budgets, categories, snapshot
from handlers.chain_events import DecodedBlock
from handlers.deps import Deps
from handlers.events import BY_NAME
from handlers.rules.holdings import NOTHING_READ, Values
from store import log
from store.postgres import Pool
from store.records import Address, Entry
from tests.exact import exact
from watchers.ingest import Ledger, writer

NOW = datetime(2026, 12, 24, 12, tzinfo=UTC)


@dataclass
class Kept:
    """A publisher that keeps what it was given."""

    frames: list[tuple[str, bytes]] = field(default_factory=list)
    blocks: list[tuple[int, bytes]] = field(default_factory=list)

    async def publish(self, frames: Sequence[tuple[str, bytes]], blocks: Sequence[tuple[int, bytes]] = ()) -> bool:
        self.frames += frames
        self.blocks += blocks
        return True

    async def wake(self, channel: str) -> bool:
        return True


def make_deps(pool: Pool, settings: Settings, *chains: Chain, publisher: Any = None) -> Deps:
    return Deps(
        settings=settings,
        chains={chain.id: chain for chain in chains},
        pool=pool,
        publisher=publisher or Kept(),
        now=lambda: NOW,
    )


async def set_budget(deps: Deps, user: Address, category_id: str | None, amount: Decimal | None) -> None:
    """As `PUT /v1/budgets` does; without a category, the total."""
    if category_id is None:
        await budgets.set_total(deps, user, amount)
    else:
        change = {"monthly_budget": amount}
        await categories.prefer(deps, user, category_id, change, budget_changed=budgets.budget_changed)


@dataclass
class Bench:
    """One chain's ledger and everyone's view of it."""

    deps: Deps
    chain: Chain
    ledger: Ledger

    async def apply(
        self,
        *blocks: DecodedBlock,
        openings: Mapping[Address, Mapping[Address, int]] | None = None,
        values: Values = NOTHING_READ,
    ) -> None:
        for block in blocks:
            await self.ledger.apply(block, head=block.number, finalized=0, openings=openings, values=values)

    async def revert(self, depth: int = 1) -> None:
        for _ in range(depth):
            await self.ledger.revert()

    async def snapshot(self, user: Address) -> dict[str, Any]:
        taken: dict[str, Any] = exact((await snapshot.read(self.deps, user)).body)
        BY_NAME["snapshot"].model_validate(taken)
        return taken

    async def log_after(self, user: Address, seq: int = 0) -> list[Entry]:
        return await log.after(self.deps.pool, user, seq, limit=100_000, max_bytes=2**40)

    async def told(self, user: Address, seq: int = 0) -> list[tuple[str, dict[str, Any]]]:
        """Events after `seq`, each checked against the catalogue."""
        entries = [(entry.event, exact(entry.payload)) for entry in await self.log_after(user, seq)]
        for event, payload in entries:
            BY_NAME[event].model_validate(payload)
        return entries


async def sign_in(pool: Pool, *users: Address, chains: Sequence[int] = ()) -> None:
    """What a first sign-in does to the log: it exists from here on."""
    for user in users:
        async with pool.acquire() as conn, conn.transaction():
            await log.lock(conn, [user])
            await conn.execute("INSERT INTO users (address) VALUES ($1) ON CONFLICT DO NOTHING", user)
            await conn.execute("UPDATE user_counters SET opened_at = now() WHERE user_address = $1", user)
            for chain_id in chains:
                await conn.execute(
                    "INSERT INTO wallet_scopes (chain_id, user_address) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                    chain_id,
                    user,
                )


@asynccontextmanager
async def bench(pool: Pool, settings: Settings, chain: Chain) -> AsyncIterator[Bench]:
    deps = make_deps(pool, settings, chain)
    async with writer(deps, chain) as ledger:
        yield Bench(deps, chain, ledger)
