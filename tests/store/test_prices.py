from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal

from store import prices
from store.postgres import Pool
from store.prices import PriceRow
from store.records import BlockRef

ETH, CELO = "0x" + "00" * 20, "0x" + "ce" * 20
AT = datetime(2026, 11, 1, tzinfo=UTC)
LATER = datetime(2026, 11, 1, 1, tzinfo=UTC)


def ref(number: int, fork: str = "a") -> BlockRef:
    return BlockRef(number, "0x" + fork * 60 + f"{number:04x}")


def eth(usd: str | None, at: datetime = AT) -> PriceRow:
    return PriceRow(ETH, None if usd is None else Decimal(usd), None if usd is None else at)


async def numbers(pool: Pool) -> list[int]:
    return [row[0] for row in await pool.fetch("SELECT block_number FROM prices WHERE token = $1 ORDER BY 1", ETH)]


async def test_the_newest_of_each_token_and_chain(pool: Pool) -> None:
    assert await prices.latest(pool) == {}
    async with pool.acquire() as tx:
        await prices.record(tx, 1, ref(1), [eth("3000.00000001"), PriceRow(CELO, Decimal("0.5"), AT)])
        await prices.record(tx, 1, ref(2), [eth("3001")])
        await prices.record(tx, 2, ref(9), [eth("2999.123456789012345678")])
    assert await prices.latest(pool) == {
        (1, ETH): Decimal(3001),
        (1, CELO): Decimal("0.5"),
        (2, ETH): Decimal("2999.123456789012345678"),
    }


async def test_only_an_answer_that_differs_is_kept(pool: Pool) -> None:
    async with pool.acquire() as tx:
        for number, row in enumerate([eth("5"), eth("5"), eth("5", LATER), eth(None), eth(None), eth("5", LATER)]):
            await prices.record(tx, 1, ref(number), [row])
    assert await numbers(pool) == [0, 2, 3, 5]


async def test_reorg_makes_the_answer_before_it_the_newest(pool: Pool) -> None:
    async with pool.acquire() as tx:
        await prices.record(tx, 1, ref(1), [eth("5")])
        await prices.record(tx, 1, ref(2), [eth(None)])
        await prices.revert(tx, 2, ref(2).hash)
        assert await prices.latest(tx) == {(1, ETH): None}
        await prices.revert(tx, 1, ref(2).hash)
        assert await prices.latest(tx) == {(1, ETH): Decimal(5)}
        await prices.record(tx, 1, ref(2, "b"), [eth("6")])
    assert await prices.latest(pool) == {(1, ETH): Decimal(6)}
