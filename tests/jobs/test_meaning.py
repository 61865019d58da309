"""Search by meaning: the real local model, the real OpenAI client against a fake server, and who reads what."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from functools import partial
from typing import Any

import numpy as np
import pytest
from aiohttp import web

from handlers import memos, people, search
from handlers.deps import Deps
from jobs import meaning, rebuild
from jobs.job import Tools
from jobs.meaning import EMBED_TEXTS, FIRST
from jobs.outbound import vectors
from jobs.outbound.vectors import LOCAL, turned, written
from realtime.rest.paging import cursor_of
from store import outbox
from store.blind import Blind
from store.clickhouse import Analytics
from store.postgres import Pool
from store.questions import Desk, NoAnswer, Questions
from store.redis import open_redis
from tests.conftest import MakeSettings
from tests.jobs.outbound.fake_llm import FakeLlm, fake_llm
from tests.realtime.rows import index, spend, write
from tests.realtime.served import Client, serving
from tests.realtime.test_rest_exports import KEY
from tests.realtime.wiring import busy, wire

NEWER = "k2:" + "B" * 43 + "="
NOTES = {
    1: "cappuccino with Anna",
    2: "monthly flat rent",
    3: "train ticket to Lyon",
    4: "cinema evening",
    5: "dentist appointment",
}


@asynccontextmanager
async def working(deps: Deps) -> AsyncIterator[Tools]:
    """A worker's tools, and its desk for questions."""
    analytics, redis = Analytics(deps.settings.clickhouse_url), open_redis(deps.settings.redis_url)
    read = vectors.opened(deps.settings, deps.pool, deps.now)
    tools = Tools(deps, analytics, meaning=read)
    desk = Desk(redis, partial(meaning.answer, tools))
    desk.start()
    try:
        yield tools
    finally:
        await desk.stop()
        await read.close()
        await redis.aclose()
        await analytics.close()


async def note(deps: Deps, user: str, notes: dict[int, str]) -> dict[int, str]:
    """Spends with these notes, indexed; their ids."""
    rows = {number: spend(user, number, bucket=None, counterparty=None) for number in notes}
    await write(deps.pool, *rows.values())
    for number, row in rows.items():
        await memos.note_transaction(deps, user, row.id, notes[number])
    await index(deps.pool, user, seal_keys=deps.settings.seal_keys)
    return {number: row.id for number, row in rows.items()}


async def embed(tools: Tools, user: str) -> None:
    async with tools.deps.pool.acquire() as conn, conn.transaction():
        await outbox.request(conn, "slow", EMBED_TEXTS.name, {"user": user})
    while (row := await tools.deps.pool.fetchrow("SELECT id FROM outbox WHERE job = $1", EMBED_TEXTS.name)) is not None:
        claim = await outbox.begin(tools.deps.pool, row["id"])
        assert claim is not None
        await EMBED_TEXTS.run(tools, claim)


async def models(pool: Pool) -> set[tuple[str | None, int | None]]:
    return {(row["model"], row["dimension"]) for row in await pool.fetch("SELECT model, dimension FROM search_texts")}


async def found(client: Client, q: str, more: str = "") -> list[int]:
    got = await client.get(f"/v1/transactions?mode=semantic&q={q}{more}")
    assert got.status == 200, got.body
    return [each["blockNumber"] for each in got.json["data"]]


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings) -> Deps:
    return wire(pool, busy(make_settings, seal_keys=[KEY]))


async def test_what_is_meant_is_found_without_its_words(deps: Deps) -> None:
    async with serving(deps) as anyone, working(deps) as tools:
        me, other = await anyone.signed_in(), await anyone.signed_in()
        await note(deps, me.address, NOTES)
        await note(deps, other.address, {9: "espresso bar"})
        await embed(tools, me.address)
        await embed(tools, other.address)
        assert await models(deps.pool) == {(LOCAL, 384)}
        assert (await found(me, "coffee"))[0] == 1
        assert (await found(me, "apartment"))[0] == 2
        assert (await found(me, "railway+journey"))[0] == 3
        assert sorted(await found(me, "movies")) == [1, 2, 3, 4, 5]
        assert await found(me, "coffee", "&from=2026-11-01T00:00:05Z") != await found(me, "coffee")
        assert 1 not in await found(me, "coffee", "&from=2026-11-01T00:00:03Z")
        assert await found(me, "coffee", "&type=deposit") == []
        assert await found(other, "coffee") == [9]


async def test_pages_are_nearest_first_without_gap_or_repeat(deps: Deps) -> None:
    async with serving(deps) as anyone, working(deps) as tools:
        me = await anyone.signed_in()
        await note(deps, me.address, {**NOTES, 6: NOTES[1], 7: NOTES[2]})
        await embed(tools, me.address)
        whole = await found(me, "coffee")
        assert whole[:2] == [6, 1]  # as near, newest first
        seen, cursor = [], ""
        while True:
            got = (await me.get(f"/v1/transactions?mode=semantic&q=coffee&limit=2{cursor}")).json
            seen += [each["blockNumber"] for each in got["data"]]
            if not got["hasMore"]:
                break
            cursor = f"&cursor={got['nextCursor']}"
        assert seen == whole
        assert len(seen) == 7
        words = (await me.get("/v1/transactions?limit=1")).json["nextCursor"]
        assert (await me.get(f"/v1/transactions?mode=semantic&q=coffee&cursor={words}")).status == 400
        assert (await me.get("/v1/transactions?mode=semantic")).json["errors"][0]["pointer"] == "/query/q"
        forged = cursor_of(deps.settings.model_copy(), "transactions", 0.1, "x", "y")
        assert (await me.get(f"/v1/transactions?mode=semantic&q=x&cursor={forged}")).status == 400


async def test_without_a_worker_it_says_so_and_words_go_on(deps: Deps, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("store.questions.ANSWER_S", 0.5)
    async with serving(deps) as anyone:
        me = await anyone.signed_in()
        await note(deps, me.address, NOTES)
        got = await me.get("/v1/transactions?mode=semantic&q=coffee")
        assert (got.status, got.json["code"], got.headers["Retry-After"]) == (503, "unavailable", "5")
        assert len((await me.get("/v1/transactions?q=cappuccino")).json["data"]) == 1


async def test_what_nobody_has_read_yet_is_asked_for_and_not_called_empty(deps: Deps) -> None:
    async with serving(deps) as anyone, working(deps) as tools:
        me = await anyone.signed_in()
        assert await found(me, "coffee") == []  # there is nothing to be read
        await note(deps, me.address, NOTES)
        await deps.pool.execute("DELETE FROM outbox")
        got = await me.get("/v1/transactions?mode=semantic&q=coffee")
        assert got.status == 503
        assert await deps.pool.fetchval("SELECT count(*) FROM outbox WHERE job = 'embed_texts'") == 1
        await embed(tools, me.address)
        assert (await found(me, "coffee"))[0] == 1
        await people.name_contact(deps, me.address, "0x" + "5b" * 20, "x")
        assert await deps.pool.fetchval("SELECT count(*) FROM outbox WHERE job = 'embed_texts'") == 0


def openai(fake: FakeLlm, make_settings: MakeSettings, **changes: Any) -> Any:
    facts = {"embeddings": "openai", "openai_api_key": "key", "openai_base_url": f"{fake.url}/v1"}
    return busy(make_settings, seal_keys=[KEY], **{**facts, **changes})


async def embedded(fake: FakeLlm, path: str, body: dict[str, Any]) -> web.Response:
    """Vectors of six numbers: how often each of six letters is in a text."""
    assert path == "/v1/embeddings"
    data = [
        {"object": "embedding", "index": at, "embedding": [text.count(letter) + 0.01 for letter in "abcdef"]}
        for at, text in enumerate(body["input"])
    ]
    usage = {"prompt_tokens": 10 * len(data), "total_tokens": 10 * len(data)}
    return web.json_response({"object": "list", "model": body["model"], "data": data[::-1], "usage": usage})


async def test_openai_reads_where_the_setting_and_the_user_say_so(pool: Pool, make_settings: MakeSettings) -> None:
    async with fake_llm() as fake:
        fake.then(embedded)
        deps = wire(pool, openai(fake, make_settings))
        async with serving(deps) as anyone, working(deps) as tools:
            me, shy = await anyone.signed_in(), await anyone.signed_in()
            await me.call("PATCH", "/v1/me", json={"aiConsent": True})
            mine = {1: "aaaa 0x" + "ab" * 20, 2: "bbbb"}
            for client, notes in ((me, mine), (shy, {3: "private note"})):
                await note(deps, client.address, notes)
                await embed(tools, client.address)
            assert await models(pool) == {("text-embedding-3-small", 6), (LOCAL, 384)}
            assert await found(me, "aab") == [1, 2]
            assert await found(me, "bba") == [2, 1]
            assert await found(shy, "note") == [3]
            sent = "".join(fake.raw)
            assert "private" not in sent
            assert "abab" not in sent  # no address
            usage = (await me.get("/v1/me/ai-usage")).json
            assert "text-embedding-3-small" in str(usage)
            # Consent taken back: what was made with it is not compared, and others' models read nothing more.
            await me.call("PATCH", "/v1/me", json={"aiConsent": False})
            calls = len(fake.raw)
            assert (await me.get("/v1/transactions?mode=semantic&q=aab")).status == 503
            await embed(tools, me.address)
            assert len(await found(me, "aab")) == 2
            assert len(fake.raw) == calls
            assert await models(pool) == {(LOCAL, 384)}


async def failing(fake: FakeLlm, path: str, body: dict[str, Any]) -> web.Response:
    return web.json_response({"error": {"message": "no"}}, status=500)


async def short(fake: FakeLlm, path: str, body: dict[str, Any]) -> web.Response:
    return web.json_response(
        {"object": "list", "model": "m", "data": [], "usage": {"prompt_tokens": 1, "total_tokens": 1}}
    )


async def test_a_model_that_fails_is_an_error_and_one_over_the_cap_a_limit(
    pool: Pool, make_settings: MakeSettings
) -> None:
    async with fake_llm() as fake:
        deps = wire(pool, openai(fake, make_settings))
        async with serving(deps) as anyone, working(deps):
            me = await anyone.signed_in()
            await me.call("PATCH", "/v1/me", json={"aiConsent": True})
            await note(deps, me.address, NOTES)
            for reply in (failing, short):
                fake.then(reply)
                assert (await me.get("/v1/transactions?mode=semantic&q=x")).status == 503
        poor = wire(pool, openai(fake, make_settings, ai_daily_cap_usd=Decimal(0)))
        async with serving(poor) as anyone, working(poor) as tools:
            me = await anyone.signed_in()
            await me.call("PATCH", "/v1/me", json={"aiConsent": True})
            calls = len(fake.raw)
            got = await me.get("/v1/transactions?mode=semantic&q=x")
            assert (got.status, got.json["code"]) == (429, "rate_limited")
            await note(poor, me.address, NOTES)
            await embed(tools, me.address)  # ends, without a call
            assert len(fake.raw) == calls


async def test_rebuild_reads_with_the_new_model_and_goes_on_where_it_was(
    pool: Pool, make_settings: MakeSettings
) -> None:
    async with fake_llm() as fake:
        fake.then(embedded)
        before, after = wire(pool, busy(make_settings, seal_keys=[KEY])), wire(pool, openai(fake, make_settings))
        async with serving(before) as anyone, working(before) as tools:
            users = [await anyone.signed_in() for _ in range(3)]
            for client in users:
                await client.call("PATCH", "/v1/me", json={"aiConsent": True})
                await note(before, client.address, NOTES)
                await embed(tools, client.address)
        assert await models(pool) == {(LOCAL, 384)}
        async with working(after) as tools:
            lines = [replace_(each) async for each in rebuild.rebuild(tools, "embeddings")]
            assert lines[-1] == ("embeddings", 3, 15, 0)
            assert await models(pool) == {("text-embedding-3-small", 6)}
            calls = len(fake.raw)
            lines = [replace_(each) async for each in rebuild.rebuild(tools, "embeddings")]
            assert lines[-1] == ("embeddings", 3, 0, 0)
            assert len(fake.raw) == calls


def replace_(progress: rebuild.Progress) -> tuple[str, int, int, int]:
    return progress.what, progress.users, progress.count, progress.left_out


async def test_rebuild_hashes_everything_with_the_newest_key(pool: Pool, make_settings: MakeSettings) -> None:
    old, new = (wire(pool, busy(make_settings, seal_keys=keys)) for keys in ([KEY], [NEWER, KEY]))
    async with serving(old) as anyone, working(old) as tools:
        me = await anyone.signed_in()
        await note(old, me.address, NOTES)
        await embed(tools, me.address)
    async with serving(new) as anyone, working(new) as tools:
        me = replace(me, session=anyone.session, base=anyone.base)
        assert (await found(me, "coffee"))[0] == 1  # by the old key, too
        assert [replace_(each) async for each in rebuild.rebuild(tools, "search")][-1] == ("search", 1, 5, 0)
        assert await pool.fetchval("SELECT array_agg(DISTINCT key_id) FROM search_texts") == ["k2"]
        assert len((await me.get("/v1/transactions?q=cappuccino")).json["data"]) == 1
        await embed(tools, me.address)
        assert (await found(me, "coffee"))[0] == 1


def test_a_turned_vector_keeps_its_distances_and_shows_nothing_of_itself() -> None:
    rng = np.random.default_rng(1)
    for length in (6, 384, 1536):
        one, other = (each / np.linalg.norm(each) for each in rng.standard_normal((2, length)))
        blind, another = Blind("k", b"a" * 32), Blind("k", b"b" * 32)
        assert turned(one, blind) @ turned(other, blind) == pytest.approx(one @ other)
        assert np.linalg.norm(turned(one, blind)) == pytest.approx(1)
        assert np.allclose(turned(one, blind), turned(one, blind))
        if length > 6:
            # As far from itself, and from itself under another key, as two drawn at random are.
            assert abs(turned(one, blind) @ one) < 6 / length**0.5
            assert abs(turned(one, blind) @ turned(one, another)) < 6 / length**0.5
            first = np.eye(length)[0]
            assert abs(turned(first, blind)).max() < 8 / length**0.5  # a special direction shows no more
    assert written(np.asarray([0.5, -1e-9], dtype=np.float32)) == "[0.5,-1e-09]"


async def test_waiting_texts_are_those_that_still_say_what_they_said(deps: Deps) -> None:
    async with serving(deps) as anyone:
        me = await anyone.signed_in()
        ids = await note(deps, me.address, NOTES)
        assert len((await search.waiting(deps, me.address, LOCAL, above=FIRST)).texts) == 5
        await memos.note_transaction(deps, me.address, ids[1], "tea")  # not indexed yet
        texts = [each.text for each in (await search.waiting(deps, me.address, LOCAL, above=FIRST)).texts]
        assert sorted(texts) == sorted(NOTES[number] for number in (2, 3, 4, 5))


async def test_a_flood_of_questions_is_turned_away(
    make_settings: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.questions.ANSWER_S", 1.0)
    redis = open_redis(make_settings().redis_url)
    questions = Questions(redis)
    asked = [asyncio.create_task(questions.ask({"ask": "x"})) for _ in range(30)]
    began = time.monotonic()
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert all(isinstance(each, NoAnswer) for each in results)
    assert time.monotonic() - began < 8
    await redis.delete("questions")
    await redis.aclose()
