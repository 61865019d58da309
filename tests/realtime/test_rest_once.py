from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

import aiohttp
import orjson
import pytest
from aiohttp import web
from pydantic import BaseModel, ConfigDict

from handlers.deps import Deps
from handlers.errors import NotFound
from realtime.app import build
from realtime.openapi import document
from realtime.rest.api import Body, Endpoint, Header, Upload, endpoint
from realtime.rest.call import Call
from store import idempotency
from store.postgres import Pool
from store.redis import open_redis
from tests.conftest import MakeSettings
from tests.realtime.served import Client, Got
from tests.realtime.wallets import signed_by_key
from tests.realtime.wiring import busy, wire
from tests.waiting import until

LIMIT = 50_000


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: str


class Made(BaseModel):
    number: int
    key: str | None


class Shop:
    """Makes things, as slowly and as badly as a test wants."""

    def __init__(self) -> None:
        self.made = 0
        self.files: list[bytes] = []
        self.begun = asyncio.Event()
        self.go = asyncio.Event()
        self.go.set()

    def routes(self) -> tuple[Endpoint, ...]:
        @endpoint("POST", "/things", tag="t", answers=Made, writes=True, once=True, status=201)
        async def make(
            call: Call,
            *,
            body: Annotated[Thing, Body()],
            if_match: Annotated[str | None, Header("If-Match", "tag")] = None,
        ) -> Mapping[str, object]:
            self.begun.set()
            await self.go.wait()
            self.made += 1
            if body.name == "nothing":
                raise NotFound("There is no such thing.")
            if body.name == "broken":
                raise RuntimeError("broken")
            return {"number": self.made, "key": call.cause if if_match is None else if_match}

        @endpoint("POST", "/files", tag="t", writes=True, once=True)
        async def file(call: Call, *, image: Annotated[bytes, Upload("a file", LIMIT)]) -> None:
            self.files.append(image)

        return make, file


@asynccontextmanager
async def open_for_business(deps: Deps, shop: Shop) -> AsyncIterator[Client]:
    redis = open_redis(deps.settings.redis_url)
    app = build(deps, redis, signed_by_key)
    for each in shop.routes():
        app.router.add_route(each.method, each.path, each.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession() as session:
            yield Client(session, f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()
        await redis.aclose()


@pytest.fixture
def shop() -> Shop:
    return Shop()


@pytest.fixture
async def anyone(pool: Pool, make_settings: MakeSettings, shop: Shop) -> AsyncIterator[Client]:
    async with open_for_business(wire(pool, busy(make_settings)), shop) as client:
        yield client


async def make(client: Client, key: str | None, name: str = "n") -> Got:
    return await client.post("/things", {"name": name}, headers={} if key is None else {"Idempotency-Key": key})


async def age(pool: Pool, seconds: float) -> None:
    await pool.execute("UPDATE idempotency_keys SET claimed_at = claimed_at - make_interval(secs => $1)", seconds)


async def test_sent_again_it_is_answered_again_and_done_once(me: Client, shop: Shop) -> None:
    first, second = await make(me, "a"), await make(me, "a")
    assert (first.status, first.json["number"], first.json["key"][:2]) == (201, 1, "a:")
    assert (second.status, second.json, second.headers["Content-Type"]) == (201, first.json, "application/json")
    assert [(await make(me, key)).json["number"] for key in ("b", None, None)] == [2, 3, 4]


async def test_a_key_means_nothing_to_another_user(me: Client, anyone: Client) -> None:
    other = await anyone.signed_in()
    assert [(await make(client, "a")).json["number"] for client in (me, other, me)] == [1, 2, 1]


async def test_another_body_under_a_key_is_refused(me: Client, shop: Shop) -> None:
    await make(me, "a")
    got = await make(me, "a", "other")
    assert (got.status, got.json["code"], shop.made) == (422, "idempotency_key_reused", 1)


@pytest.mark.parametrize("key", ["", "a b", "é", "k" * 201])
async def test_what_can_not_be_a_key_is_refused(me: Client, shop: Shop, key: str) -> None:
    got = await make(me, key)
    assert (got.status, [each["pointer"] for each in got.json["errors"]]) == (400, ["/header/Idempotency-Key"])
    assert shop.made == 0


async def test_a_call_that_runs_is_a_conflict_and_is_done_once(me: Client, shop: Shop) -> None:
    shop.go.clear()
    running = [asyncio.create_task(make(me, "a")) for _ in range(8)]
    await shop.begun.wait()
    await until(lambda: sum(task.done() for task in running) == 7)
    shop.go.set()
    got = await asyncio.gather(*running)
    assert sorted(each.status for each in got) == [201] + [409] * 7
    assert {each.headers["Retry-After"] for each in got if each.status == 409} == {"1"}
    assert shop.made == 1
    assert (await make(me, "a")).status == 201


async def test_a_refused_call_gives_its_key_back(me: Client, shop: Shop) -> None:
    assert [(await make(me, "a", "nothing")).status for _ in range(2)] == [404, 404]
    assert (await make(me, "a")).status == 201
    assert shop.made == 3


async def test_an_outcome_nobody_knows_holds_its_key_until_its_lease_ends(me: Client, shop: Shop, pool: Pool) -> None:
    assert [(await make(me, "a", "broken")).status for _ in range(2)] == [500, 409]
    await age(pool, idempotency.LEASE_S + 1)
    assert (await make(me, "a")).status == 422
    assert (await make(me, "a", "broken")).status == 500
    assert shop.made == 2


async def test_a_key_is_forgotten_after_a_day(me: Client, shop: Shop, pool: Pool) -> None:
    await make(me, "a")
    await make(me, "b")
    await age(pool, idempotency.KEPT_S + 1)
    assert (await make(me, "a", "other")).status == 201
    assert (shop.made, await idempotency.prune(pool, batch=10)) == (3, 1)
    assert (await make(me, "a", "other")).json["number"] == 3


async def test_a_client_that_went_away_finds_the_answer(me: Client, shop: Shop) -> None:
    shop.go.clear()
    gone = asyncio.create_task(make(me, "a"))
    await shop.begun.wait()
    gone.cancel()
    await asyncio.wait([gone])
    shop.go.set()
    got = await until(lambda: answered(me))
    assert (got.json["number"], shop.made) == (1, 1)


async def answered(client: Client) -> Got | None:
    got = await make(client, "a")
    return got if got.status == 201 else None


async def test_a_header_reaches_the_function(me: Client) -> None:
    got = await me.post("/things", {"name": "n"}, headers={"If-Match": '"t"'})
    assert got.json["key"] == '"t"'


async def send(client: Client, file: bytes, *, name: str = "image", **headers: str) -> Got:
    form = aiohttp.FormData()
    form.add_field(name, file, filename="f", content_type="image/png")
    return await client.call("POST", "/files", data=form, headers=headers)


async def test_a_file_comes_whole_and_once(me: Client, shop: Shop) -> None:
    file = bytes(range(256)) * 150 + b"\r\n--x\r\n"
    assert [(await send(me, file, **{"Idempotency-Key": "f"})).status for _ in range(2)] == [204, 204]
    assert shop.files == [file]
    assert (await send(me, file[:-1], **{"Idempotency-Key": "f"})).status == 422


WRONG_FILES: list[tuple[str, bytes | None, int, str]] = [
    ("multipart/form-data; boundary=x", b"", 400, "invalid_request"),
    ("multipart/form-data; boundary=x", b"--x\r\n\r\n", 400, "invalid_request"),
    ("multipart/form-data; boundary=x", b"no boundary at all", 400, "invalid_request"),
    ("multipart/form-data", b"--x--", 400, "invalid_request"),
    ("application/octet-stream", b"GIF89a", 415, "unsupported_media_type"),
    (
        "multipart/form-data; boundary=x",
        b"--x\r\nContent-Type: multipart/mixed; boundary=y\r\n\r\n--y--\r\n--x--\r\n",
        400,
        "invalid_request",
    ),
    (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="image"\r\n' + b"A: b\r\n" * 2000 + b"\r\nhi\r\n--x--\r\n",
        400,
        "invalid_request",
    ),
]


@pytest.mark.parametrize(("kind", "body", "status", "code"), WRONG_FILES)
async def test_what_is_no_file_is_refused(
    me: Client, shop: Shop, kind: str, body: bytes, status: int, code: str
) -> None:
    got = await me.call("POST", "/files", data=body, headers={"Content-Type": kind})
    assert (got.status, got.json["code"], shop.files) == (status, code, [])


async def test_a_part_of_another_name_is_refused(me: Client, shop: Shop) -> None:
    got = await send(me, b"x", name="picture")
    assert (got.status, [each["pointer"] for each in got.json["errors"]], shop.files) == (400, ["/image"], [])


async def test_a_file_that_is_too_large_is_cut_off(me: Client, shop: Shop) -> None:
    assert (await send(me, b"x" * LIMIT)).status == 204
    assert (await send(me, b"x" * (LIMIT + 1))).status == 413
    assert (await send(me, b"x" * 10 * LIMIT)).status == 413

    async def endless() -> AsyncIterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="image"\r\n\r\n'
        for _ in range(400):
            yield b"x" * 10_000

    got = await me.call("POST", "/files", data=endless(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert (got.status, len(shop.files)) == (413, 1)


async def test_the_document_tells_of_keys_headers_and_files(shop: Shop) -> None:
    paths: dict[str, Any] = orjson.loads(document(shop.routes()))["paths"]
    made, file = paths["/things"]["post"], paths["/files"]["post"]
    assert [each["name"] for each in made["parameters"]] == ["If-Match", "Idempotency-Key"]
    assert {"201", "409", "422"} <= made["responses"].keys()
    assert file["requestBody"]["content"]["multipart/form-data"]["schema"]["required"] == ["image"]
    assert {"204", "413", "415"} <= file["responses"].keys()
