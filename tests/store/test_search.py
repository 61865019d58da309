from __future__ import annotations

from store import search
from store.postgres import Pool
from store.search import BEFORE_ALL, Hits, Parts, Text
from tests.realtime.rows import SHOP, spend, write
from tests.realtime.wiring import CHAIN

USER, OTHER = "0x" + "11" * 20, "0x" + "22" * 20


async def save(pool: Pool, texts: list[Text], rows: dict[tuple[str, str], int | None]) -> None:
    async with pool.acquire() as conn, conn.transaction():
        await search.lock(conn, {user for user, _ in rows})
        await search.save(conn, texts, rows)


async def texts(pool: Pool) -> list[tuple[str, int]]:
    return [tuple(row) for row in await pool.fetch("SELECT user_address, id FROM search_texts ORDER BY 1, 2")]


async def test_a_text_that_nobody_has_any_more_goes(pool: Pool) -> None:
    shared, own, others = Text(USER, 1, "k", [1, 2]), Text(USER, 2, "k", [3]), Text(OTHER, 1, "k", [1])
    await save(pool, [shared, own, others], {(USER, "a"): 1, (USER, "b"): 1, (USER, "c"): 2, (OTHER, "a"): 1})
    await save(pool, [own], {(USER, "a"): 2})
    assert await texts(pool) == [(USER, 1), (USER, 2), (OTHER, 1)]
    await save(pool, [], {(USER, "b"): None, (USER, "never"): None})
    assert await texts(pool) == [(USER, 2), (OTHER, 1)]
    await save(pool, [own], {(USER, "a"): 2, (USER, "c"): 2})  # the same again
    assert await texts(pool) == [(USER, 2), (OTHER, 1)]
    assert await pool.fetchval("SELECT count(*) FROM search_rows") == 3


async def find(pool: Pool, *words: Parts) -> Hits:
    return await search.find(pool, USER, [words])


async def test_every_word_has_to_be_there_whole_or_half_where_nobody_has_it_whole(pool: Pool) -> None:
    await save(
        pool,
        [Text(USER, 10, "k", [1, 2, 3]), Text(USER, 20, "k", [1, 4, 5, 6]), Text(OTHER, 30, "k", [1, 2, 3, 4, 5, 6])],
        {(USER, "a"): 10, (USER, "b"): 20, (OTHER, "c"): 30},
    )
    assert await find(pool, Parts([1], [])) == Hits([10, 20], ["a", "b"])
    assert await find(pool, Parts([1, 2], [1, 9])) == Hits([10], ["a"])
    assert await find(pool, Parts([1], []), Parts([4], [])) == Hits([20], ["b"])
    assert await find(pool, Parts([2], []), Parts([4], [])) == Hits((), ())
    assert await find(pool, Parts([9], [])) == Hits((), ())
    assert await find(pool, Parts([9], [4, 5, 9, 8])) == Hits([20], ["b"])
    assert await find(pool, Parts([9], [4, 9, 8])) == Hits((), ())
    assert await find(pool, Parts([3], []), Parts([9], [4, 5])) == Hits((), ())
    assert await find(pool, Parts([1], []), Parts([9], [4, 5]), Parts([8], [5, 6, 7])) == Hits([20], ["b"])


async def test_each_key_finds_what_it_hashed_and_both_say_what_is_known(pool: Pool) -> None:
    await save(pool, [Text(USER, 10, "new", [1]), Text(USER, 20, "old", [101])], {(USER, "a"): 10, (USER, "b"): 20})
    asked = [[Parts([1], [])], [Parts([101], [])]]
    assert await search.find(pool, USER, asked) == Hits([10, 20], ["a", "b"])
    # Whole under the old key alone: the new one may not take it for a typing error.
    assert await search.find(pool, USER, [[Parts([2], [1])], [Parts([101], [])]]) == Hits([20], ["b"])


async def test_many_transactions_are_not_fetched_by_their_ids(pool: Pool) -> None:
    rows: dict[tuple[str, str], int | None] = {(USER, str(n)): 1 for n in range(search.FEW + 1)}
    await save(pool, [Text(USER, 1, "k", [1])], rows)
    assert await find(pool, Parts([1], [])) == Hits([1], None)
    await save(pool, [], {(USER, "0"): None})
    found = await find(pool, Parts([1], []))
    assert found.ids is not None
    assert len(found.ids) == search.FEW


async def test_pages_of_what_is_to_be_indexed(pool: Pool) -> None:
    rows = [spend(user, number, n=n) for user in (USER, OTHER) for number in (1, 2) for n in (0, 1)]
    await write(pool, *rows)
    keys = sorted((row.user, row.id) for row in rows)
    first = await search.of_block(pool, CHAIN.id, rows[0].block_hash, after=BEFORE_ALL, limit=3)
    rest = await search.of_block(pool, CHAIN.id, rows[0].block_hash, after=first[-1], limit=3)
    assert first + rest == [key for key in keys if f":{rows[0].tx_hash}:" in key[1]]
    assert len(await search.of_payee(pool, USER, SHOP, after=BEFORE_ALL, limit=9)) == 4
    assert await search.of_payee(pool, USER, OTHER, after=BEFORE_ALL, limit=9) == []
    assert len(await search.of_hash(pool, USER, CHAIN.id, rows[0].tx_hash, after=BEFORE_ALL, limit=9)) == 2
    assert await search.of_user(pool, USER, after=keys[1], limit=9) == keys[2:4]
    assert await search.users(pool, after="", limit=9) == [USER, OTHER]
    assert await search.users(pool, after=USER, limit=9) == [OTHER]
    assert await search.users(pool, after=OTHER, limit=9) == []
