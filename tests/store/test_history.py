from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from store import history, ledger, search
from store.history import Filters, Position
from store.postgres import Pool
from store.records import TransactionRow
from store.search import Hits, Text
from tests.realtime.rows import SHOP, hash_of, spend, stand, time_of, write
from tests.realtime.wiring import CHAIN, OTHER_CHAIN, USDC

USER, OTHER = "0x" + "11" * 20, "0x" + "22" * 20
BOTH = (CHAIN.id, OTHER_CHAIN.id)
ID_2, ID_4 = spend(USER, 2).id, spend(USER, 4).id


async def listed(
    pool: Pool, *, limit: int = 100, below: Position | None = None, **filters: Any
) -> list[TransactionRow]:
    return await history.transactions(pool, USER, Filters(**{"chain_ids": BOTH, **filters}), below=below, limit=limit)


async def test_a_row_reads_back_as_it_was_written(pool: Pool) -> None:
    huge = spend(USER, 1, amount=2**256 - 1, usd=None, fee_wei=2**255, to_bucket="Rent")
    await write(pool, huge)
    assert await listed(pool) == [huge]
    assert await history.transaction(pool, USER, huge.id, chain_id=CHAIN.id) == huge


async def test_pages_are_newest_first_without_gap_or_repeat(pool: Pool) -> None:
    rows = [spend(USER, number // 3, n=number) for number in range(20)]  # several at one time
    await write(pool, *rows, *(spend(OTHER, number) for number in range(5)))
    seen: list[TransactionRow] = []
    below = None
    while page := await listed(pool, limit=3, below=below):
        seen += page
        below = Position(page[-1].block_time, page[-1].id)
    assert seen == sorted(rows, key=lambda row: (row.block_time, row.id), reverse=True)


async def test_what_was_reverted_is_in_no_list_but_is_found_by_its_id(pool: Pool) -> None:
    first, second = spend(USER, 1), spend(USER, 2)
    await write(pool, first, second)
    async with pool.acquire() as conn:
        await ledger.revert(conn, CHAIN.id, second.block_hash)
    assert await listed(pool) == [first]
    gone = await history.transaction(pool, USER, second.id, chain_id=CHAIN.id)
    assert gone is not None
    assert not gone.canonical
    again = spend(USER, 3, tx_hash=second.tx_hash)
    assert again.id == second.id
    await write(pool, again)
    assert await history.transaction(pool, USER, second.id, chain_id=CHAIN.id) == again


async def test_someone_elses_transaction_is_not_found(pool: Pool) -> None:
    theirs = spend(OTHER, 1)
    await write(pool, theirs)
    assert await history.transaction(pool, USER, theirs.id, chain_id=CHAIN.id) is None
    assert await listed(pool) == []


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, [5, 4, 3, 2, 1]),
        ({"chain_ids": [OTHER_CHAIN.id]}, [5]),
        ({"types": ["deposit", "transfer"]}, [3, 2]),
        ({"types": []}, []),
        ({"account_type": "savings"}, [4]),
        ({"bucket": "Rent"}, [4, 2]),
        ({"bucket": "rent"}, []),
        ({"token": USDC}, [5, 4, 2, 1]),
        ({"since": time_of(2), "until": time_of(4)}, [3, 2]),
        ({"min_usd": Decimal("12.5")}, [5, 4, 2, 1]),
        ({"min_usd": Decimal("12.51")}, [2]),
        ({"max_usd": Decimal("99.99")}, [5, 4, 1]),
        ({"prefixes": [SHOP[:10]]}, [5, 4, 2, 1]),
        ({"prefixes": ["0x77"]}, [3]),
        ({"prefixes": [hash_of(CHAIN.id, 1, "tx")[:12]]}, [1]),
        ({"prefixes": [SHOP, hash_of(CHAIN.id, 1, "tx")]}, [1]),
        ({"prefixes": ["0x77", SHOP]}, []),
        ({"prefixes": ["%"]}, []),
        ({"types": ["spend"], "bucket": "Rent", "prefixes": [SHOP[:4]], "since": time_of(5)}, []),
        ({"hits": Hits((), ())}, []),
        ({"hits": Hits([7], None)}, [4, 2]),
        ({"hits": Hits([7, 8], None)}, [5, 4, 2]),
        ({"hits": Hits([7], None), "types": ["spend"]}, [4]),
        ({"hits": Hits([7], [ID_2, ID_4])}, [4, 2]),
        ({"hits": Hits([7], [ID_2, ID_4]), "since": time_of(3)}, [4]),
        ({"hits": Hits([7], [ID_2, ID_4]), "until": time_of(4)}, [2]),
    ],
)
async def test_filters(pool: Pool, filters: dict[str, Any], expected: list[int]) -> None:
    await write(
        pool,
        spend(USER, 1),
        spend(USER, 2, type="deposit", bucket="Rent", usd=Decimal(100)),
        spend(USER, 3, type="transfer", token="0x" + "ee" * 20, usd=None, bucket=None, counterparty="0x" + "77" * 20),
        spend(USER, 4, account_type="savings", to_bucket="Rent"),
        spend(USER, 5, chain_id=OTHER_CHAIN.id),
    )
    async with pool.acquire() as conn, conn.transaction():
        rows = {(USER, ID_2): 7, (USER, ID_4): 7, (USER, spend(USER, 5, chain_id=OTHER_CHAIN.id).id): 8}
        await search.save(conn, [Text(USER, 7, "-", [1]), Text(USER, 8, "-", [1])], rows)
    assert [row.block_number for row in await listed(pool, **filters)] == expected


async def test_a_page_ends_at_until_even_when_it_begins_later(pool: Pool) -> None:
    await write(pool, *(spend(USER, number) for number in range(1, 6)))
    below = Position(time_of(5), "")
    assert [row.block_number for row in await listed(pool, below=below, until=time_of(3))] == [2, 1]
    below = Position(time_of(2), "~")
    assert [row.block_number for row in await listed(pool, below=below, until=time_of(5))] == [2, 1]


async def test_unfinal_names_the_highest_block_above_finality_by_user_and_chain(pool: Pool) -> None:
    await write(
        pool,
        *(spend(USER, number) for number in (3, 8, 9)),
        spend(USER, 7, chain_id=OTHER_CHAIN.id),
        spend(OTHER, 5),
        spend("0x" + "33" * 20, 9),
    )
    for chain_id in BOTH:
        await stand(pool, chain_id, 10)
    users = [USER, OTHER]
    assert await history.unfinal(pool, users, {CHAIN.id: 4, OTHER_CHAIN.id: 4}) == {
        USER: {CHAIN.id: 9, OTHER_CHAIN.id: 7},
        OTHER: {CHAIN.id: 5},
    }
    assert await history.unfinal(pool, users, {CHAIN.id: 8, OTHER_CHAIN.id: 7}) == {USER: {CHAIN.id: 9}}
    assert await history.unfinal(pool, users, {CHAIN.id: 9}) == {}
    async with pool.acquire() as conn:
        await ledger.revert(conn, CHAIN.id, spend(USER, 9).block_hash)
    assert await history.unfinal(pool, users, {CHAIN.id: 4}) == {USER: {CHAIN.id: 8}, OTHER: {CHAIN.id: 5}}


async def test_a_deep_page_enters_the_index_where_it_begins(pool: Pool) -> None:
    await write(pool, *(spend(USER, number) for number in range(1, 200)))
    below = Position(time_of(1) + timedelta(seconds=1), "")
    async with pool.acquire() as conn:
        await conn.execute("SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off")
        nothing = [None] * 7
        plan = await conn.fetch(
            f"EXPLAIN (ANALYZE) {history.SQL['transactions']}",
            USER, list(BOTH), *nothing, history.BEGINNING, below.block_time, below.id, 10, None, None,
        )  # fmt: skip
    text = "\n".join(row[0] for row in plan)
    assert "transactions_history" in text
    assert "Rows Removed by Filter" not in text
