from __future__ import annotations

import pytest

from config.settings import Settings
from store import memos
from store.memos import MemoKey, Memos
from store.postgres import Pool, Tx
from store.sealed import KeyRing
from tests.factories import TIME, insert_transactions, make_address, make_hash, make_transaction
from tests.store.test_sealed import key

ANN, BOB = make_address("ann"), make_address("bob")
TX, OTHER_TX = make_hash("tx", 1), make_hash("tx", 2)
RING = KeyRing.of(Settings(seal_keys=[f"k1:{key(1)}"]))


@pytest.fixture(autouse=True)
async def registered(pool: Pool) -> None:
    await pool.executemany("INSERT INTO users (address) VALUES ($1)", [(ANN,), (BOB,)])


async def note(conn: Tx | Pool, key_: MemoKey, text: str) -> None:
    await memos.put(conn, key_, RING.seal(text, purpose="memo", owner=key_[0]), at=TIME)  # type: ignore[arg-type]  # a pool serves as well


async def test_a_row_shows_its_own_note_before_that_of_the_whole(pool: Pool) -> None:
    await note(pool, (ANN, 1, TX, None), "the whole")
    await note(pool, (ANN, 1, TX, 2), "row two")
    await note(pool, (ANN, 1, TX, 3), "")
    found = await memos.for_transactions(pool, RING, [ANN, BOB], [(1, TX), (1, OTHER_TX)])
    assert [found.of(ANN, 1, TX, n) for n in range(4)] == ["the whole", "the whole", "row two", None]
    assert found.of(BOB, 1, TX, 0) is None
    assert found.of(ANN, 2, TX, 0) is None
    assert found.of(ANN, 1, OTHER_TX, 0) is None
    assert found.by_id([(1, TX, 0), (1, TX, 3), (1, OTHER_TX, 0)]) == {ANN: {f"1:{TX}:0": "the whole"}}


async def test_a_delegates_row_shows_no_note(pool: Pool) -> None:
    await note(pool, (BOB, 8453, TX, None), "mine?")
    rows = [make_transaction(user=BOB, role=role, tx_hash=TX) for role in ("owner", "delegate")]
    found = await memos.for_rows(pool, RING, rows)
    assert [found.of_row(row) for row in rows] == ["mine?", None]
    assert (await memos.for_rows(pool, RING, rows[1:])).texts == {}


async def test_nobody_gets_anothers_note(pool: Pool) -> None:
    await note(pool, (ANN, 1, TX, None), "Ann's")
    assert (await memos.for_transactions(pool, RING, [BOB], [(1, TX)])).texts == {}
    # Copied to another user by hand, it does not even open.
    await pool.execute("UPDATE memos SET user_address = $1", BOB)
    assert (await memos.for_transactions(pool, RING, [BOB], [(1, TX)])).texts == {}


async def test_what_does_not_open_is_left_out_and_the_rest_read(pool: Pool, capsys: pytest.CaptureFixture[str]) -> None:
    await note(pool, (ANN, 1, TX, None), "readable words")
    old = KeyRing.of(Settings(seal_keys=[f"old:{key(2)}"])).seal("lost words", purpose="memo", owner=BOB)
    async with pool.acquire() as conn:
        await memos.put(conn, (BOB, 1, TX, None), old, at=TIME)
    found = await memos.for_transactions(pool, RING, [ANN, BOB], [(1, TX)])
    assert found.texts == {(ANN, 1, TX, None): "readable words"}
    said = capsys.readouterr()
    assert "seal_broken" in said.out + said.err
    assert "words" not in said.out + said.err


async def test_a_note_is_replaced_and_removed(pool: Pool) -> None:
    async with pool.acquire() as conn:
        for text in ("one", "two"):
            await note(conn, (ANN, 1, TX, None), text)
        await note(conn, (ANN, 1, TX, 0), "row")
        assert await conn.fetchval("SELECT count(*) FROM memos") == 2
        assert await memos.has_whole(conn, ANN, 1, TX)
        await memos.delete(conn, (ANN, 1, TX, None))
        assert not await memos.has_whole(conn, ANN, 1, TX)
        found = await memos.for_transactions(conn, RING, [ANN], [(1, TX)])
        assert found.texts == {(ANN, 1, TX, 0): "row"}


async def test_notes_are_sealed_at_rest(pool: Pool) -> None:
    await note(pool, (ANN, 1, TX, None), "dinner with Bob")
    assert b"dinner" not in await pool.fetchval("SELECT memo FROM memos")


async def test_the_users_own_canonical_rows_of_a_transaction_are_found(pool: Pool) -> None:
    rows = [make_transaction(user=ANN, tx_hash=TX, n=n, log_index=n) for n in (0, 3)]
    rows += [
        make_transaction(user=ANN, tx_hash=TX, n=4, log_index=4, role="delegate"),
        make_transaction(user=BOB, tx_hash=TX, n=5, log_index=5),
        make_transaction(user=ANN, tx_hash=TX, n=6, log_index=6, canonical=False),
        make_transaction(user=ANN, tx_hash=OTHER_TX, n=7, log_index=7),
    ]
    async with pool.acquire() as conn, conn.transaction():
        await insert_transactions(conn, rows)
        assert await memos.owned(conn, ANN, 8453, TX) == [f"8453:{TX}:0", f"8453:{TX}:3"]


def test_without_notes_nothing_is_looked_up() -> None:
    assert Memos({}).by_id([(1, TX, 0)]) == {}
