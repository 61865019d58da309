"""Feeds on a real node: a contract with Chainlink's interface, read at blocks and by its rounds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import aiohttp
import orjson
import pytest

from config.chains import Chain, Feed, Token
from config.embedded.chain import Anvil
from config.settings import Settings
from handlers import snapshot
from handlers.deps import Deps
from handlers.rules.prices import EXACT
from store import prices
from store.postgres import Pool
from store.records import ZERO_ADDRESS, BlockRef
from store.rounds import Round, rounds_at
from store.rpc import Rpc, RpcError
from tests.handlers.ledger import make_deps, sign_in
from tests.handlers.scripted import make_chain
from tests.waiting import until
from tests.watchers.following import following
from tests.watchers.ledger import FakeLedger
from watchers.backfill import Backfill
from watchers.devnet.people import Devnet
from watchers.devnet.person import Person
from watchers.follower import Follower
from watchers.heads import Heads
from watchers.ingest import writer
from watchers.prices import Feeds, judged
from watchers.rounds import History

ETH = ZERO_ADDRESS
WEI = 10**18
FEED = Feed("0x" + "fe" * 20, 8, heartbeat_s=3600)
AT = 1_800_000_000


@pytest.mark.parametrize(
    ("each", "said"),
    [
        (Round(5, 312345678901, AT, 5), Decimal("3123.45678901")),
        (Round(5, 2**255 - 1, AT, 5), EXACT.scaleb(Decimal(2**255 - 1), -8)),
        (Round(5, 1, AT - 3600, 5), Decimal("0.00000001")),
        (Round(5, 1, AT - 3601, 5), "stale"),
        (Round(5, 0, AT, 5), "not_positive"),
        (Round(5, -1, AT, 5), "not_positive"),
        (Round(5, 1, AT, 4), "not_of_its_round"),
        (None, "silent"),
    ],
)
def test_answer_is_exact_or_refused_with_its_reason(each: Round | None, said: object) -> None:
    assert judged(each, FEED, at=AT) == said


@dataclass
class Market:
    """A devnet with a feed of ETH, and somebody who trades."""

    devnet: Devnet
    session: aiohttp.ClientSession
    url: str
    feed: str
    trader: Person
    owner: Person

    @property
    def chain(self) -> Chain:
        at = self.devnet.at
        tokens = (Token(at.usdc, "USDC", 6, "usd"), Token(ETH, "ETH", 18, Feed(self.feed, 8)))
        return make_chain(
            at.chain_id,
            rpc=(self.url,),
            wallets=(at.wallet,),
            factories=(at.factory,),
            first_block=at.first_block,
            tokens=tokens,
        )

    def rpc(self) -> Rpc:
        return Rpc((self.url,), 10, self.session, chain_id=self.devnet.at.chain_id)

    async def feed_does(self, function: str, *args: Any) -> None:
        await self.devnet.increase_time(12)  # else blocks of one second, which the rounds' own times can't tell apart
        await self.devnet.act(self.owner, "MockFeed", self.feed, function, *args)

    async def deposit(self, wei: int = WEI) -> int:
        """Pay ETH in; the number of its block."""
        tx = await self.devnet.deposit(self.trader, wei, token=ETH)
        return int((await self.devnet.receipt(tx))["blockNumber"], 16)

    async def now(self) -> int:
        return int((await self.devnet.block())["timestamp"], 16)

    async def follow(self, ledger: Any, *, every_blocks: int = 150, rpc: Rpc | None = None) -> None:
        """Follow the chain to its head, as a watcher does, and stop."""
        node = rpc or self.rpc()
        heads = Heads(self.chain, node, session=self.session, poll_s=1, timeout_s=10, stop=asyncio.Event())
        feeds = Feeds(self.chain, node, every_blocks=every_blocks)
        follower = Follower(self.chain, node, ledger, heads, asyncio.Event(), feeds=feeds)
        await follower.load()
        await follower.advance(await heads.poll())


@pytest.fixture
async def market(anvil: Anvil) -> AsyncIterator[Market]:
    async with Devnet(anvil.rpc) as devnet, aiohttp.ClientSession() as session:
        owner, trader = await devnet.user(0), await devnet.user(1)
        yield Market(devnet, session, anvil.rpc, await devnet.create("MockFeed", 8), trader, owner)


def value(ledger: FakeLedger, number: int) -> Decimal | None:
    return ledger.prices[number, ETH].usd


async def test_each_block_has_the_price_of_its_own_state(market: Market) -> None:
    await market.feed_does("set", 3000_00000000)
    first = await market.deposit()
    await market.feed_does("set", 3100_12345678)
    second = await market.deposit()
    await market.feed_does("setRound", 3200_00000000, await market.now() - 90_001, 3)
    stale = await market.deposit()
    await market.feed_does("setRound", 3300_00000000, await market.now(), 1)
    older = await market.deposit()
    await market.feed_does("set", 0)
    nothing = await market.deposit()
    await market.feed_does("setBroken", True)
    broken = await market.deposit()
    await market.feed_does("setBroken", False)
    await market.feed_does("set", 3400_00000000)
    again = await market.deposit()
    ledger = FakeLedger(market.chain)
    await market.follow(ledger)
    assert (value(ledger, first), value(ledger, second)) == (Decimal(3000), Decimal("3100.12345678"))
    assert [value(ledger, n) for n in (stale, older, nothing, broken)] == [None] * 4
    assert value(ledger, again) == Decimal(3400)


async def test_all_feeds_are_read_from_time_to_time_though_nobody_trades(market: Market) -> None:
    await market.feed_does("set", 3000_00000000)
    ledger = FakeLedger(market.chain)
    await market.follow(ledger)
    start = await market.devnet.block_number()
    await market.devnet.mine(25)
    await market.follow(ledger, every_blocks=10)
    assert sorted(number - start for number, _ in ledger.prices if number > start) == [1, 11, 21]


async def test_feeds_are_read_anew_after_a_reorg(market: Market) -> None:
    await market.feed_does("set", 3000_00000000)
    ledger = FakeLedger(market.chain)
    async with following(market.chain, ledger, every_blocks=1000) as run:
        head = await market.devnet.block_number()
        await until(lambda: ledger.tip is not None and ledger.tip.number == head)
        ledger.prices.clear()
        await market.devnet.reorg(2)
        newest = await market.devnet.block()
        await until(lambda: run.at(newest["hash"]), what="the reorg")
    assert set(ledger.prices) == {(head - 1, ETH)}


async def test_failing_node_is_an_error_and_never_no_price(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    await market.feed_does("set", 3000_00000000)
    await market.deposit()
    rpc, ledger = market.rpc(), FakeLedger(market.chain)
    answers = rpc.answers

    async def refusing(calls: Any, *, together: int = 1) -> list[Any]:
        found = await answers(calls, together=together)
        if calls and calls[0][0] == "eth_call":
            return [RpcError("jsonrpc", "missing trie node", method="eth_call")] * len(calls)
        return found

    monkeypatch.setattr(rpc, "answers", refusing)
    with pytest.raises(RpcError, match="missing trie node"):
        await market.follow(ledger, rpc=rpc)
    assert all(row.usd is not None for row in ledger.prices.values())


# The past ---------------------------------------------------------------------------------------------------------


async def test_rounds_say_of_any_block_what_its_state_said(market: Market, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("watchers.rounds.AT_ONCE", 4)
    monkeypatch.setattr("watchers.rounds.BEHIND", 1)
    first = await market.devnet.mine(3)
    for i in range(24):
        if i in (8, 16):
            await market.feed_does("nextPhase")
        await market.feed_does("set", (1000 + i) * 10**8)
    rpc = market.rpc()
    blocks = [await market.devnet.block(n) for n in range(first, await market.devnet.block_number() + 1)]
    seconds = {int(block["timestamp"], 16): BlockRef(int(block["number"], 16), block["hash"]) for block in blocks}
    said = {time: (await rounds_at(rpc, last, [market.feed]))[0] for time, last in seconds.items()}
    # Right after a change of phase the new aggregator has no answer yet, and what the old one said is believed.
    told = {time: each for time, each in said.items() if each is not None}
    assert len({each.id for each in told.values()}) == 24
    forward, back = History(rpc, market.feed), History(rpc, market.feed)
    assert {time: await forward.at(time) for time in told} == told
    assert {time: await back.at(time) for time in sorted(told, reverse=True)} == told
    assert await back.at(min(seconds)) is None


async def test_past_is_found_in_few_requests_however_long_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    async def newest(_: object, feed: str) -> tuple[Round, int]:
        return Round((2 << 64) + 900_000, 1, 9_999_990, (2 << 64) + 900_000), 10_000_000

    async def two(*_: object) -> list[tuple[int, int]]:
        return [(1, 100_000), (2, 900_000)]

    async def kept(_: object, feed: str, ids: list[int]) -> list[Round | None]:
        asked.append(len(ids))
        places = [(id_ % 2**64) - 1 + (100_000 if id_ >> 64 == 2 else 0) for id_ in ids]
        # Every tenth was left unanswered.
        return [None if p % 10 == 7 else Round(id_, p, 10 * p, id_) for id_, p in zip(ids, places, strict=True)]

    for name, fake in (("newest_round", newest), ("phases", two), ("rounds_by_id", kept)):
        monkeypatch.setattr(f"watchers.rounds.{name}", fake)
    history = History(Rpc((), 1, None, chain_id=1), "0x" + "fe" * 20)  # type: ignore[arg-type]  # never asked
    for time in (5_000_000, 5_000_079, 5_000_080, 0, 9, 999_999, 1_000_000, 9_999_989, 10_000_000):
        place = min(time // 10, 999_999)
        found = await history.at(time)
        assert found is not None
        assert found.answer == place - (place % 10 == 7)
    assert max(asked) <= 72
    assert len(asked) < 40
    asked.clear()
    for time in range(2_000_000, 2_050_000, 10):
        await history.at(time)
    assert len(asked) < 100


async def test_catching_up_prices_old_blocks_without_their_state(
    market: Market, monkeypatch: pytest.MonkeyPatch
) -> None:
    priced = {}
    for i in range(12):
        await market.feed_does("set", (2000 + i) * 10**8)
        priced[await market.deposit()] = Decimal(2000 + i)
    await market.devnet.mine(140)
    rpc, ledger = market.rpc(), FakeLedger(market.chain)
    answers, asked = rpc.answers, 0

    async def pruned(calls: Any, **options: Any) -> list[Any]:
        nonlocal asked
        asked += bool(calls) and calls[0][0] == "eth_call"
        return await answers(calls, **options)

    monkeypatch.setattr(rpc, "answers", pruned)
    await market.follow(ledger, rpc=rpc, every_blocks=1000)
    assert {number: value(ledger, number) for number in priced} == priced
    assert asked < 10


# The ledger -------------------------------------------------------------------------------------------------------


async def shown(deps: Deps, user: str) -> dict[str, Any]:
    taken: dict[str, Any] = orjson.loads((await snapshot.read(deps, user)).body)
    return taken["balances"][0]["amount"] if taken["balances"] else {}


async def test_rows_keep_the_value_at_their_block_and_balances_have_the_newest(
    market: Market, pool: Pool, make_settings: Callable[..., Settings]
) -> None:
    await sign_in(pool, market.trader.address)
    deps = make_deps(pool, make_settings(), market.chain)
    await market.feed_does("set", 3000_00000000)
    await market.deposit(WEI)
    async with writer(deps, market.chain) as ledger:
        await market.follow(ledger)
        assert await shown(deps, market.trader.address) == {
            "raw": str(WEI), "decimals": 18, "symbol": "ETH", "token": ETH, "usd": "3000.00"
        }  # fmt: skip
        await market.feed_does("set", 2500_50000000)
        await market.devnet.mine(1)
        await market.follow(ledger, every_blocks=1)  # nobody traded
        assert (await shown(deps, market.trader.address))["usd"] == "2500.50"
        row = await pool.fetchrow("SELECT usd, fee_usd, fee_wei, gas_used, gas_price FROM transactions")
        assert row is not None
        assert row["usd"] == 3000
        assert row["fee_usd"] == Decimal(row["fee_wei"]).scaleb(-18) * 3000
        assert row["gas_used"] * row["gas_price"] == row["fee_wei"]
        kept = await pool.fetchval("SELECT count(*) FROM prices")

        await market.devnet.reorg(2)  # the second answer is gone
        await market.devnet.mine(1)
        await market.follow(ledger)
        assert (await shown(deps, market.trader.address))["usd"] == "3000.00"
        assert await prices.latest(pool) == {(market.chain.id, ETH): Decimal(3000)}
        assert await pool.fetchval("SELECT count(*) FROM prices") < kept


async def test_backfill_values_the_rows_that_it_adds(
    market: Market, pool: Pool, make_settings: Callable[..., Settings]
) -> None:
    await sign_in(pool, market.trader.address)
    for i in range(3):
        await market.feed_does("set", (2000 + i) * 10**8)
        await market.deposit()
    await market.devnet.mine(70)
    await market.feed_does("set", 2100 * 10**8)
    await market.deposit()
    deps = make_deps(pool, make_settings(), market.chain)
    async with writer(deps, market.chain) as ledger:
        await market.follow(ledger)
    was = await values(pool)
    assert [usd for _, usd in was] == [2000, 2001, 2002, 2100]
    await pool.execute("DELETE FROM transactions")
    await Backfill(deps, market.chain, market.rpc(), 0, lambda _: None).run(asyncio.Event())
    assert await values(pool) == was


async def values(pool: Pool) -> list[tuple[int, Decimal]]:
    rows = await pool.fetch("SELECT block_number, usd, fee_usd FROM transactions WHERE canonical ORDER BY block_number")
    assert all(row["fee_usd"] > 0 for row in rows)
    return [(row["block_number"], row["usd"]) for row in rows]
