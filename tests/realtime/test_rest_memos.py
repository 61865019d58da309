from __future__ import annotations

import asyncio
from typing import Any

import orjson
import pytest

from handlers.deps import Deps
from store import ledger, log
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.realtime.rows import hash_of, spend, write
from tests.realtime.served import Client, Got
from tests.realtime.test_rest_people import KEYS, waits
from tests.realtime.wiring import CHAIN, busy, wire
from tests.waiting import until

OTHER_HASH = hash_of("not sent yet")


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings) -> Deps:
    return wire(pool, busy(make_settings, seal_keys=KEYS))


async def note(client: Client, id_: str, memo: Any) -> Got:
    return await client.call("PUT", f"/v1/transactions/{id_}/memo", json={"memo": memo})


async def note_ahead(client: Client, tx_hash: str, memo: Any, *, chain_id: int = CHAIN.id, **options: Any) -> Got:
    return await client.post("/v1/memos", {"chainId": chain_id, "txHash": tx_hash, "memo": memo}, **options)


async def memos(client: Client) -> list[str | None]:
    """Memos of every transaction, oldest first; each is the same when read alone."""
    listed = (await client.get("/v1/transactions")).json["data"][::-1]
    alone = [(await client.get(f"/v1/transactions/{each['id']}")).json for each in listed]
    assert alone == listed
    return [each["memo"] for each in listed]


async def asked(pool: Pool) -> list[tuple[str, str, str]]:
    rows = await pool.fetch("SELECT queue, args FROM outbox WHERE job = 'categorize_again' ORDER BY created_at")
    return [(row["queue"], row["args"]["user"], row["args"]["transactionId"]) for row in rows]


async def test_a_memo_is_shown_replaced_and_removed(me: Client, pool: Pool) -> None:
    rows = [spend(me.address, number) for number in (1, 2)]
    await write(pool, *rows)
    got = await note(me, rows[0].id, " dinner\u202e with\n Bob 🍜 ")
    assert (got.status, got.json["id"], got.json["memo"]) == (200, rows[0].id, "dinner with Bob 🍜")
    assert await memos(me) == ["dinner with Bob 🍜", None]
    await note(me, rows[0].id, "x" * 280)
    assert await memos(me) == ["x" * 280, None]
    for nothing in ("", None, " \u200b "):
        await note(me, rows[0].id, "something")
        assert (await note(me, rows[0].id, nothing)).json["memo"] is None
    assert await memos(me) == [None, None]
    assert await pool.fetchval("SELECT count(*) FROM memos") == 0


async def test_a_memo_lets_the_category_be_thought_over(me: Client, pool: Pool, deps: Deps) -> None:
    rows = [spend(me.address, 1, n=n) for n in (0, 1)]
    await write(pool, *rows)
    await note(me, rows[0].id, "taxi")
    assert await asked(pool) == [("slow", me.address, rows[0].id)]
    assert getattr(deps.publisher, "woken") == ["jobs:wake"]  # noqa: B009 - of the fake, which the port does not show
    await pool.execute("DELETE FROM outbox")
    await note_ahead(me, rows[0].tx_hash, "groceries")
    assert await asked(pool) == [("slow", me.address, row.id) for row in rows]
    await pool.execute("DELETE FROM outbox")
    await note_ahead(me, OTHER_HASH, "rent")
    assert await asked(pool) == []


async def test_a_memo_written_before_sending_is_joined_when_the_log_arrives(me: Client, pool: Pool) -> None:
    rows = [spend(me.address, 1, n=n, log_index=n) for n in range(3)]
    got = await note_ahead(me, "0x" + rows[0].tx_hash[2:].upper(), " for   the trip ")
    assert got.json == {"chainId": CHAIN.id, "txHash": rows[0].tx_hash, "memo": "for the trip"}
    await write(pool, *rows)
    assert await memos(me) == ["for the trip"] * 3
    await note(me, rows[1].id, "the hotel")
    await note(me, rows[2].id, "")
    assert await memos(me) == ["for the trip", "the hotel", None]
    await note_ahead(me, rows[0].tx_hash, "for the holiday")
    assert await memos(me) == ["for the holiday", "the hotel", None]
    await note_ahead(me, rows[0].tx_hash, None)
    assert await memos(me) == [None, "the hotel", None]


async def test_a_memo_survives_a_reorg(me: Client, pool: Pool) -> None:
    row = spend(me.address, 1)
    await write(pool, row)
    await note(me, row.id, "lunch")
    await pool.execute("DELETE FROM outbox")
    async with pool.acquire() as conn:
        await ledger.revert(conn, CHAIN.id, row.block_hash)
    assert (await me.get(f"/v1/transactions/{row.id}")).json["memo"] == "lunch"
    # Still the user's to change; there is no category to think over until a block brings it again.
    assert (await note(me, row.id, "late lunch")).json["status"] == "reverted"
    assert await asked(pool) == []
    again = spend(me.address, 1, block_hash=hash_of("another block"), block_number=2, event_id="0" * 32)
    await write(pool, again)
    assert await memos(me) == ["late lunch"]


async def test_nobody_elses_transaction_can_be_noted_on(me: Client, anyone: Client, pool: Pool) -> None:
    other = await anyone.signed_in()
    theirs = spend(other.address, 1)
    delegated = spend(me.address, 2, role="delegate")
    await write(pool, theirs, delegated)
    unknown = [
        theirs.id,
        delegated.id,
        "nonsense",
        f"999:{theirs.tx_hash}:0",
        f"{CHAIN.id}:{theirs.tx_hash}:99999999999",
        f"0{CHAIN.id}:{theirs.tx_hash}:0",
        f"{CHAIN.id}:{theirs.tx_hash}:2147483648",
    ]
    for id_ in unknown:
        got = await note(me, id_, "mine")
        assert (got.status, got.json["code"]) == (404, "not_found"), id_
    await note_ahead(me, theirs.tx_hash, "mine")
    await note_ahead(me, delegated.tx_hash, "mine")
    assert await memos(me) == [None]
    assert await memos(other) == [None]
    assert await asked(pool) == []
    assert (await note(anyone, theirs.id, "x")).status == 401


async def test_a_memo_that_can_not_be_is_refused_by_name(me: Client, pool: Pool) -> None:
    row = spend(me.address, 1)
    await write(pool, row)
    for memo in ("x" * 281, 5, {"a": 1}, "\u200bx" * 600):
        got = await note(me, row.id, memo)
        assert (got.status, got.json["errors"][0]["pointer"]) == (400, "/memo"), memo
    assert (await me.call("PUT", f"/v1/transactions/{row.id}/memo", json={})).status == 400
    for body, pointer in (
        ({"chainId": 999}, "/chainId"),
        ({"chainId": str(CHAIN.id)}, "/chainId"),
        ({"txHash": "0x12"}, "/txHash"),
        ({"memo": "x" * 281}, "/memo"),
        ({"n": 1}, "/n"),
    ):
        got = await me.post("/v1/memos", {"chainId": CHAIN.id, "txHash": OTHER_HASH, "memo": "x", **body})
        assert (got.status, got.json["errors"][0]["pointer"]) == (400, pointer), body


async def test_a_memo_is_sealed_and_said_nowhere(me: Client, pool: Pool, capfd: pytest.CaptureFixture[str]) -> None:
    row = spend(me.address, 1)
    await write(pool, row)
    await note(me, row.id, "clandestine")
    await note_ahead(me, OTHER_HASH, "clandestine")
    tables = ("memos", "outbox", "audit_logs", "user_log")
    kept = [await pool.fetch(f"SELECT * FROM {table}") for table in tables]
    assert len(kept[0]) == 2
    assert "clandestine" not in repr(kept)
    assert all(b"clandestine" not in memo["memo"] for memo in kept[0])
    said = capfd.readouterr()
    assert "clandestine" not in said.out + said.err


async def test_a_memo_waits_for_the_block_that_brings_its_transaction(me: Client, pool: Pool) -> None:
    """Either the block reads the memo, or the memo finds the block's rows: never neither."""
    row = spend(me.address, 1)
    async with pool.acquire() as conn:
        block = conn.transaction()
        await block.start()
        await log.lock(conn, [me.address])
        sending = asyncio.create_task(note_ahead(me, row.tx_hash, "taxi"))
        await until(lambda: waits(pool), what="the memo waits for the user's lock")
        await ledger.record(conn, [row])
        await block.commit()
    assert (await sending).status == 200
    assert await asked(pool) == [("slow", me.address, row.id)]


async def test_an_idempotency_key_is_taken(me: Client) -> None:
    headers = {"Idempotency-Key": "one"}
    first = await note_ahead(me, OTHER_HASH, "a", headers=headers)
    assert (await note_ahead(me, OTHER_HASH, "a", headers=headers)).body == first.body
    assert (await note_ahead(me, OTHER_HASH, "b", headers=headers)).status == 422
    assert orjson.loads(first.body)["memo"] == "a"
