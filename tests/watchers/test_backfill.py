from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any

import aiohttp
import orjson
import pytest

from config.chains import Chain, Token
from config.embedded.chain import Anvil
from config.settings import Settings
from handlers import goal_edits, snapshot
from handlers.chain_events import DecodedBlock
from handlers.deps import Deps
from handlers.goal_edits import Base, Wanted
from store.postgres import Pool
from store.rpc import Rpc
from tests.handlers.ledger import Bench, make_deps, sign_in
from tests.handlers.scripted import make_chain
from tests.recompute import recompute, shown
from tests.sharing import check_shared
from watchers.backfill import Backfill, NothingToRebuild, Progress
from watchers.decode import decode
from watchers.devnet.people import USDC, Devnet
from watchers.devnet.person import person
from watchers.fetch import fetch_range, interest_in
from watchers.follower import Follower
from watchers.heads import Heads
from watchers.ingest import writer
from watchers.prices import Feeds

SHOP = person(99).address
FINAL = 70
"""Blocks that make everything before them final on anvil (64)."""


@dataclass
class Scene:
    devnet: Devnet
    session: aiohttp.ClientSession
    pool: Pool
    settings: Settings
    rpc_url: str
    kept: list[Progress] = field(default_factory=list)

    def chain(self, **overrides: Any) -> Chain:
        at = self.devnet.at
        row = make_chain(
            at.chain_id,
            rpc=(self.rpc_url,),
            wallets=(at.wallet,),
            factories=(at.factory,),
            first_block=at.first_block,
            tokens=(),
        )
        return replace(row, **overrides)

    def rpc(self) -> Rpc:
        return Rpc((self.rpc_url,), 10, self.session, chain_id=self.devnet.at.chain_id)

    async def watch(self, chain: Chain) -> Deps:
        """Follow the chain to its head, as a watcher does, and stop."""
        deps = make_deps(self.pool, self.settings, chain)
        async with writer(deps, chain) as ledger:
            await self._follow(chain, ledger)
        return deps

    async def _follow(self, chain: Chain, ledger: Any) -> None:
        heads = Heads(chain, self.rpc(), session=self.session, poll_s=1, timeout_s=10, stop=asyncio.Event())
        feeds = Feeds(chain, self.rpc(), every_blocks=150)
        follower = Follower(chain, self.rpc(), ledger, heads, asyncio.Event(), feeds=feeds)
        await follower.load()
        await follower.advance(await heads.poll())

    def backfill(self, deps: Deps, chain: Chain, *, first: int = 0) -> Backfill:
        return Backfill(deps, chain, self.rpc(), first, self.kept.append)

    async def canonical(self, chain: Chain) -> list[DecodedBlock]:
        head = int(await self.devnet.rpc_call("eth_blockNumber"), 16)
        wallets: Mapping[str, str | None] = dict.fromkeys(chain.wallets)
        blocks = fetch_range(self.rpc(), chain.id, chain.first_block, head, interest_in(chain))
        return [decode(block, chain, wallets) async for block in blocks]

    async def snapshot(self, deps: Deps, user: str) -> dict[str, Any]:
        taken: dict[str, Any] = orjson.loads((await snapshot.read(deps, user)).body)
        return taken


@pytest.fixture
async def scene(pool: Pool, make_settings: Callable[..., Settings], anvil: Anvil) -> AsyncIterator[Scene]:
    async with Devnet(anvil.rpc) as devnet, aiohttp.ClientSession() as session:
        yield Scene(devnet, session, pool, make_settings(), anvil.rpc)


@asynccontextmanager
async def someone_spends(scene: Scene) -> AsyncIterator[str]:
    """Alice spends below and above the finalized height."""
    alice = await scene.devnet.user(1)
    await scene.devnet.open_bucket(alice, "food", limit=100 * USDC, amount=50 * USDC)
    await scene.devnet.spend(alice, "food", 3 * USDC, SHOP)
    await scene.devnet.mine(FINAL)
    await scene.devnet.spend(alice, "food", 4 * USDC, SHOP)
    yield alice.address


async def test_wallet_that_joined_the_table_late_gets_its_past(scene: Scene) -> None:
    async with someone_spends(scene) as alice:
        await scene.watch(scene.chain(wallets=()))
        chain = scene.chain()
        deps = make_deps(scene.pool, scene.settings, chain)
        await sign_in(scene.pool, alice)
        assert (await scene.snapshot(deps, alice))["buckets"] == []
        done = await scene.backfill(deps, chain).run(asyncio.Event())
        assert done is not None
        assert done.users == 1
        state = recompute(await scene.canonical(chain), alice).shown()
        assert shown(await scene.snapshot(deps, alice), chain_id=chain.id) == state
        types = await scene.pool.fetch("SELECT type FROM transactions WHERE canonical ORDER BY block_number")
        assert [row["type"] for row in types] == ["deposit", "bucket_funding", "spend", "spend"]
        told = await Bench(deps, chain, None).told(alice)  # type: ignore[arg-type]  # reads only
        assert [(event, payload["reason"]) for event, payload in told] == [("resync", "backfill")]


async def test_who_spent_from_a_shared_bucket_is_counted_anew_and_goes_with_a_reorg(scene: Scene) -> None:
    alice, bob, carol = [await scene.devnet.user(number) for number in (1, 2, 3)]
    await scene.devnet.open_bucket(alice, "food", limit=100 * USDC, amount=50 * USDC)
    await scene.devnet.add_delegate(alice, "food", bob)
    await scene.devnet.add_delegate(alice, "food", carol)
    await scene.devnet.spend(alice, "food", 3 * USDC, SHOP, delegate=bob)
    await scene.devnet.mine(FINAL)
    await scene.devnet.spend(alice, "food", 4 * USDC, SHOP)
    await scene.devnet.spend(alice, "food", 5 * USDC, SHOP, delegate=bob)
    await scene.watch(scene.chain(wallets=()))
    chain = scene.chain()
    deps = make_deps(scene.pool, scene.settings, chain)
    await sign_in(scene.pool, alice.address, bob.address, carol.address)
    assert await scene.backfill(deps, chain).run(asyncio.Event()) is not None
    blocks = await scene.canonical(chain)
    for user, shared in ((alice.address, 0), (bob.address, 1), (carol.address, 1)):
        assert check_shared(blocks, user, await scene.snapshot(deps, user), chain.id) == shared
        told = await Bench(deps, chain, None).told(user)  # type: ignore[arg-type]  # reads only
        assert [event for event, _ in told] == ["resync"]
    async with writer(deps, chain) as ledger:
        await ledger.revert()
    for user in (alice.address, bob.address):
        check_shared(blocks[:-1], user, await scene.snapshot(deps, user), chain.id)


async def test_lock_contract_that_joined_the_table_late_gets_its_locks(scene: Scene) -> None:
    devnet, alice = scene.devnet, await scene.devnet.user(1)
    await devnet.lock_up(alice, 5 * USDC, unlock_time=1, label="gone")
    await devnet.lock_up(alice, 7 * USDC, unlock_time=1, label="a house")
    await devnet.unlock(alice, 0)
    await devnet.mine(FINAL)
    await scene.watch(scene.chain())
    chain = scene.chain(yield_locks=(devnet.at.lock,), tokens=(Token(devnet.at.usdc, "USDC", 6, "usd"),))
    deps = make_deps(scene.pool, scene.settings, chain)
    await sign_in(scene.pool, alice.address)
    assert await scene.backfill(deps, chain).run(asyncio.Event()) is not None
    (position,) = (await scene.snapshot(deps, alice.address))["positions"]
    assert (position["label"], position["principal"]["raw"], position["value"]) == ("a house", str(7 * USDC), None)
    rows = await scene.pool.fetch("SELECT type, token, account_type FROM transactions ORDER BY block_number")
    assert [tuple(row) for row in rows] == [
        (kind, devnet.at.usdc, "investment") for kind in ("yield_lock", "yield_lock", "yield_unlock")
    ]
    await scene.watch(chain)
    await devnet.mine(1)
    await scene.watch(chain)
    (position,) = (await scene.snapshot(deps, alice.address))["positions"]
    assert position["value"]["raw"] == str(7 * USDC)


async def test_reorg_right_after_a_backfill_restores_the_rebuilt_state(scene: Scene) -> None:
    async with someone_spends(scene) as alice:
        await scene.watch(scene.chain(wallets=()))
        chain = scene.chain()
        deps = make_deps(scene.pool, scene.settings, chain)
        await sign_in(scene.pool, alice)
        await scene.backfill(deps, chain).run(asyncio.Event())
        async with writer(deps, chain) as ledger:
            await ledger.revert()
        state = recompute((await scene.canonical(chain))[:-1], alice).shown()
        assert shown(await scene.snapshot(deps, alice), chain_id=chain.id) == state


async def test_backfill_of_what_is_right_changes_and_tells_nothing(scene: Scene) -> None:
    async with someone_spends(scene) as alice:
        chain = scene.chain()
        deps = await scene.watch(chain)
        await sign_in(scene.pool, alice)
        before = await scene.snapshot(deps, alice)
        done = await scene.backfill(deps, chain).run(asyncio.Event())
        assert done is not None
        assert (done.rows, done.users) == (0, 0)
        assert await scene.snapshot(deps, alice) == before


async def test_goal_over_a_wrong_balance_is_corrected_with_the_rebuild(scene: Scene) -> None:
    async with someone_spends(scene) as alice:
        chain = scene.chain(tokens=(Token(scene.devnet.at.usdc.lower(), "USDC", 6, "usd"),))
        deps = await scene.watch(chain)
        await sign_in(scene.pool, alice)
        await scene.pool.execute("UPDATE balances SET amount = 100000000 WHERE scope = 'bucket'")
        bucket = await scene.pool.fetchval("SELECT bucket_id FROM buckets")
        link = Wanted("bucket", None, bucket)
        await goal_edits.create(deps, alice, Base("Bike", Decimal(100), Decimal(0), None, None, link))
        await scene.backfill(deps, chain).run(asyncio.Event())
        (goal,) = (await scene.snapshot(deps, alice))["goals"]
        assert (goal["currentAmount"], goal["milestones"], goal["isCompleted"]) == ("43.00", [25], False)
        told = await Bench(deps, chain, None).told(alice)  # type: ignore[arg-type]  # reads only
        milestones = {payload["milestone"]: payload["id"] for event, payload in told if event == "goal_milestone"}
        (correction,) = [payload for _, payload in told if payload.get("corrects") and "goal" in payload]
        assert {milestones[percent] for percent in (50, 75, 100)} < set(correction["corrects"])
        assert milestones[25] not in correction["corrects"]


async def test_stopped_backfill_goes_on_from_its_checkpoint(scene: Scene) -> None:
    async with someone_spends(scene) as alice:
        await scene.watch(scene.chain(wallets=()))
        chain = scene.chain()
        deps = make_deps(scene.pool, scene.settings, chain)
        await sign_in(scene.pool, alice)
        stop = asyncio.Event()
        stop.set()
        assert await scene.backfill(deps, chain).run(stop) is None
        (first,) = scene.kept
        assert first.block < first.last
        done = await scene.backfill(deps, chain).run(asyncio.Event())
        assert done is not None
        assert await scene.pool.fetchval("SELECT count(*) FROM backfills") == 0
        state = recompute(await scene.canonical(chain), alice).shown()
        assert shown(await scene.snapshot(deps, alice), chain_id=chain.id) == state


async def test_chain_without_a_ledger_is_refused(scene: Scene) -> None:
    chain = scene.chain()
    with pytest.raises(NothingToRebuild, match="run a watcher first"):
        await scene.backfill(make_deps(scene.pool, scene.settings, chain), chain).run(asyncio.Event())
