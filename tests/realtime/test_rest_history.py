from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import quote

import orjson

from store import ledger, log
from store.postgres import Pool
from tests.conftest import MakeSettings
from tests.realtime.rows import bucket, index, spend, stand, tell, time_of, write
from tests.realtime.served import Client, Got, serving
from tests.realtime.wiring import CHAIN, OTHER_CHAIN, busy, wire


def following(got: Got) -> str | None:
    """The path of the next page, by header and body alike."""
    link = got.headers.get("Link")
    assert (link is not None) == got.json["hasMore"] == (got.json["nextCursor"] is not None)
    if link is None:
        return None
    assert link.endswith('>; rel="next"')
    assert quote(got.json["nextCursor"]) in link
    return str(link[1:].partition(">")[0])


async def pages(client: Client, path: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    following_path: str | None = path
    while following_path:
        got = await client.get(following_path)
        assert got.status == 200, got.body
        found += got.json["data"]
        following_path = following(got)
    return found


async def test_transactions_page_newest_first_with_their_status(me: Client, pool: Pool) -> None:
    rows = [spend(me.address, number) for number in range(1, 21)]
    await write(pool, *rows)
    await stand(pool, CHAIN.id, 20)
    found = await pages(me, "/v1/transactions?limit=7&type=spend&type=deposit")
    assert [each["id"] for each in found] == [row.id for row in reversed(rows)]
    assert [each["status"] for each in found] == ["included"] * 2 + ["confirmed"] * 8 + ["finalized"] * 10
    assert found[0]["amount"] == {
        "raw": "12500000",
        "decimals": 6,
        "symbol": "USDC",
        "token": rows[0].token,
        "usd": "12.50",
    }


async def test_a_new_transaction_moves_no_page_already_begun(me: Client, pool: Pool) -> None:
    await write(pool, *(spend(me.address, number) for number in range(1, 6)))
    first = await me.get("/v1/transactions?limit=2")
    await write(pool, spend(me.address, 9))
    rest = await pages(me, following(first) or "")
    assert [each["blockNumber"] for each in first.json["data"] + rest] == [5, 4, 3, 2, 1]


async def test_transactions_are_filtered(me: Client, pool: Pool) -> None:
    await write(
        pool,
        spend(me.address, 1),
        spend(me.address, 2, chain_id=OTHER_CHAIN.id, bucket="Rent"),
        spend(me.address, 3, type="deposit", account_type="savings", usd=None),
    )

    async def blocks(query: str) -> list[int]:
        return [each["blockNumber"] for each in await pages(me, f"/v1/transactions?{query}")]

    assert await blocks(f"chain={OTHER_CHAIN.id}") == [2]
    assert await blocks("chain=1") == []
    assert await blocks("type=deposit") == [3]
    assert await blocks("account=savings") == [3]
    assert await blocks("bucket=Rent") == [2]
    assert await blocks("token=0X" + spend(me.address, 1).token[2:].upper()) == [3, 2, 1]
    assert await blocks("min=12.5&max=12.50") == [2, 1]
    assert await blocks("min=12.500001") == []
    await index(pool, me.address)
    assert await blocks("q=REN") == [2]
    assert await blocks("q=groceries") == [3, 1]
    assert await blocks("q=groceries&type=deposit") == [3]
    assert await blocks(f"from={quote(time_of(2).isoformat())}") == [3, 2]
    assert await blocks(f"from=2026-11-01T00:00:02Z&to={quote(time_of(3).isoformat())}") == [2, 1]


WRONG = [
    ("/v1/transactions?limit=0", "/query/limit"),
    ("/v1/transactions?limit=201", "/query/limit"),
    ("/v1/transactions?limit=ten", "/query/limit"),
    ("/v1/transactions?limit=1&limit=2", "/query/limit"),
    ("/v1/transactions?category=food", "/query/category"),
    ("/v1/transactions?type=gift", "/query/type/0"),
    ("/v1/transactions?account=other", "/query/account"),
    ("/v1/transactions?token=0x12", "/query/token"),
    ("/v1/transactions?from=yesterday", "/query/from"),
    ("/v1/transactions?from=2026-11-24", "/query/from"),
    ("/v1/transactions?from=1700000000", "/query/from"),
    ("/v1/transactions?to=9999-12-31T23:59:59-10:00", "/query/to"),
    ("/v1/transactions?min=-1", "/query/min"),
    ("/v1/transactions?min=NaN", "/query/min"),
    ("/v1/transactions?max=1e1000", "/query/max"),
    ("/v1/transactions?q=", "/query/q"),
    ("/v1/transactions?q=a%00b", "/query/q"),
    ("/v1/transactions?cursor=abc", "/query/cursor"),
    ("/v1/transactions?cursor=%C3%A9", "/query/cursor"),
    ("/v1/transactions?chain=99999999999999999999999", "/query/chain"),
    ("/v1/buckets?chain=99999999999999999999999", "/query/chain"),
    ("/v1/buckets?type=x", "/query/type"),
    ("/v1/me?x=1", "/query/x"),
    ("/v1/me/audit?cursor=abc", "/query/cursor"),
    ("/v1/events?after=-1", "/query/after"),
    ("/v1/events?after=9223372036854775808", "/query/after"),
    ("/v1/events?limit=1001", "/query/limit"),
]


async def test_a_wrong_parameter_is_refused_by_name(me: Client) -> None:
    for path, pointer in WRONG:
        got = await me.get(path)
        assert (got.status, got.json["code"]) == (400, "invalid_request"), path
        assert [error["pointer"] for error in got.json["errors"]] == [pointer], path
        assert all(error["message"] for error in got.json["errors"]), path


async def test_a_cursor_works_only_where_it_was_given(me: Client, pool: Pool) -> None:
    await write(pool, *(spend(me.address, number) for number in (1, 2)))
    cursor = (await me.get("/v1/transactions?limit=1")).json["nextCursor"]
    assert (await me.get(f"/v1/transactions?cursor={cursor}")).status == 200
    assert (await me.get(f"/v1/buckets?cursor={cursor}")).status == 400
    forged = ("A" if cursor[0] != "A" else "B") + cursor[1:]
    assert (await me.get(f"/v1/transactions?cursor={forged}")).status == 400


async def test_one_transaction_and_what_became_of_it(me: Client, anyone: Client, pool: Pool) -> None:
    row = spend(me.address, 5)
    await write(pool, row)
    await stand(pool, CHAIN.id, 5)
    assert (await me.get(f"/v1/transactions/{row.id}")).json["status"] == "included"
    await stand(pool, CHAIN.id, 7)
    assert (await me.get(f"/v1/transactions/{row.id}")).json["status"] == "confirmed"
    async with pool.acquire() as conn:
        await ledger.revert(conn, CHAIN.id, row.block_hash)
    assert (await me.get(f"/v1/transactions/{row.id}")).json["status"] == "reverted"
    assert await pages(me, "/v1/transactions") == []


async def test_other_peoples_ids_and_ids_of_nothing_look_the_same(me: Client, anyone: Client, pool: Pool) -> None:
    other = await anyone.signed_in()
    theirs = spend(other.address, 5)
    await write(pool, theirs)
    assert (await other.get(f"/v1/transactions/{theirs.id}")).status == 200
    nobodys = theirs.id[:-1] + "9"
    answers = [await me.get(f"/v1/transactions/{id_}") for id_ in (theirs.id, nobodys, "x", "1:2:3", "%00", "9" * 500)]
    assert {got.status for got in answers} == {404}
    assert len({(got.json["detail"], got.json["code"]) for got in answers}) == 1
    assert await pages(me, "/v1/transactions") == []
    assert await pages(me, f"/v1/transactions?q={theirs.tx_hash}") == []


async def test_buckets_are_ones_own_and_page(me: Client, anyone: Client, pool: Pool) -> None:
    other = await anyone.signed_in()
    mine = [await bucket(pool, me.address, name.encode(), holds=i) for i, name in enumerate("ABCDE")]
    await bucket(pool, me.address, b"A", chain_id=OTHER_CHAIN.id)
    await bucket(pool, other.address, b"A", holds=5)
    found = await pages(me, f"/v1/buckets?limit=2&chain={CHAIN.id}")
    assert [each["id"] for each in found] == sorted(row.bucket_id for row in mine)
    held = {each["name"]: [balance["raw"] for balance in each["balances"]] for each in found}
    assert held == {"A": [], "B": ["1"], "C": ["2"], "D": ["3"], "E": ["4"]}
    assert len(await pages(me, "/v1/buckets")) == 6


async def test_the_log_comes_back_byte_for_byte(me: Client, pool: Pool) -> None:
    await tell(pool, me.address, 25, filler="ü\u2028 </script>")
    stored = await log.after(pool, me.address, 0, limit=100, max_bytes=2**30)
    raw = b""
    after, events = 0, []
    while True:
        got = await me.get(f"/v1/events?after={after}&limit=10")
        raw += got.body
        events += got.json["data"]
        assert [event["payload"]["seq"] for event in got.json["data"]] == list(range(after + 1, got.json["seq"] + 1))
        after = got.json["seq"]
        if not got.json["hasMore"]:
            break
    assert after == 25
    assert [event["event"] for event in events] == [entry.event for entry in stored]
    for entry in stored:
        assert f'{{"event":"{entry.event}","payload":{entry.payload}}}'.encode() in raw
        assert orjson.loads(entry.payload) == events[entry.seq - 1]["payload"]
    assert (await me.get("/v1/events?after=25")).json["data"] == []


async def test_a_page_of_the_log_is_bounded_in_bytes(me: Client, pool: Pool) -> None:
    await tell(pool, me.address, 30, filler="x" * 100_000)
    got = await me.get("/v1/events?limit=1000")
    assert got.json["hasMore"]
    assert 900_000 < len(got.body) < 1_300_000


async def test_a_log_that_does_not_reach_back_says_so(me: Client, pool: Pool) -> None:
    await tell(pool, me.address, 10)
    epoch = (await me.get("/v1/events")).json["epoch"]
    assert (await me.get("/v1/snapshot")).headers["Expendi-Epoch"] == epoch
    assert (await me.get(f"/v1/events?epoch={epoch}&after=3")).json["seq"] == 10
    await pool.execute("UPDATE user_counters SET first_seq = 5")
    statuses = {after: (await me.get(f"/v1/events?epoch={epoch}&after={after}")).status for after in (0, 3, 4, 10, 11)}
    assert statuses == {0: 410, 3: 410, 4: 200, 10: 200, 11: 410}
    other = await me.get("/v1/events?epoch=other&after=5")
    assert (other.status, other.json["code"]) == (410, "log_truncated")


async def test_nobody_reads_another_log(me: Client, anyone: Client, pool: Pool) -> None:
    other = await anyone.signed_in()
    await tell(pool, other.address, 3)
    assert (await me.get("/v1/events")).json["data"] == []
    assert (await me.get("/v1/snapshot")).json["seq"] == 0


async def test_the_snapshot_stands_at_the_logs_position(me: Client, pool: Pool) -> None:
    await tell(pool, me.address, 4)
    await bucket(pool, me.address, b"Rent", holds=7)
    snapshot = (await me.get("/v1/snapshot")).json
    assert snapshot["seq"] == 4
    assert [each["name"] for each in snapshot["buckets"]] == ["Rent"]
    assert snapshot["buckets"] == await pages(me, "/v1/buckets")


async def test_who_has_it_already_gets_304(me: Client) -> None:
    for path in ("/v1/snapshot", "/v1/events", "/v1/transactions", "/v1/buckets", "/v1/chains", "/v1/me"):
        got = await me.get(path)
        tag = got.headers["ETag"]
        assert got.headers["Cache-Control"] == "private, no-cache"
        for given in (tag, f"W/{tag}", f'"other", {tag}', "*"):
            again = await me.get(path, headers={"If-None-Match": given})
            assert (again.status, again.body, again.headers["ETag"]) == (304, b"", tag), path
        assert (await me.get(path, headers={"If-None-Match": '"other"'})).status == 200, path


async def test_the_tag_changes_with_the_state(me: Client, pool: Pool) -> None:
    tag = (await me.get("/v1/snapshot")).headers["ETag"]
    await tell(pool, me.address, 1)
    assert (await me.get("/v1/snapshot", headers={"If-None-Match": tag})).status == 200


async def test_chains_tell_their_heights(anyone: Client, pool: Pool) -> None:
    await stand(pool, CHAIN.id, 20, head=25, finalized=12)
    first, second = (await anyone.get("/v1/chains")).json["data"]
    heights = {key: first[key] for key in ("chainId", "head", "confirmed", "finalized", "lagBlocks")}
    assert heights == {"chainId": CHAIN.id, "head": 20, "confirmed": 20, "finalized": 15, "lagBlocks": 5}
    assert second["head"] is None


async def test_reads_are_counted_per_user(pool: Pool, make_settings: MakeSettings) -> None:
    async with serving(wire(pool, busy(make_settings, read_limit_per_minute=5))) as anyone:
        me, other = await anyone.signed_in(), await anyone.signed_in()
        results = await asyncio.gather(*(me.get("/v1/me") for _ in range(20)))
        assert [got.status for got in results].count(200) == 5
        assert (await other.get("/v1/me")).headers["RateLimit"] == '"read";r=4;t=12'
