from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Annotated, Any

import aiohttp
import pytest
import structlog
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from config.embedded.postgres import Postgres
from handlers.deps import Deps
from handlers.errors import NotFound
from realtime.app import build
from realtime.rest.api import Body, Endpoint, Path, Query, endpoint
from realtime.rest.boundary import CLIENT_CLOSED
from realtime.rest.call import WEB, Call, Writes
from store.postgres import Pool, open_pool
from store.redis import open_redis
from tests.conftest import MakeSettings
from tests.realtime.served import Client, serving
from tests.realtime.wallets import signed_by_key
from tests.realtime.wiring import busy, wire
from tests.waiting import until


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Annotated[str, Field(min_length=1)]
    sizes: list[int] = []


class Kept(BaseModel):
    kept: str


class Stage:
    """What the test's own routes do and wait for."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.began = asyncio.Event()
        self.ended: list[str] = []

    def routes(self) -> tuple[Endpoint, ...]:
        @endpoint("POST", "/things/{thing}", tag="t", answers=Kept, access="public", scope=None)
        async def keep(
            call: Call,
            *,
            thing: Annotated[str, Path("id")],
            body: Annotated[Thing, Body()],
            tag: Annotated[list[int] | None, Query("tags")] = None,
        ) -> Mapping[str, object]:
            return {"kept": f"{thing} {body.name} {tag}"}

        @endpoint("GET", "/broken", tag="t", answers=Kept, access="public", scope=None)
        async def broken(call: Call) -> Mapping[str, object]:
            raise RuntimeError("the password is hunter2")

        @endpoint("GET", "/missing", tag="t", answers=Kept, access="public", scope=None, problems=(NotFound,))
        async def missing(call: Call) -> Mapping[str, object]:
            raise NotFound("Nothing here.")

        @endpoint("POST", "/write", tag="t", access="public", scope=None, writes=True)
        async def write(call: Call) -> None:
            await self._work("write")

        @endpoint("GET", "/read", tag="t", access="public", scope=None)
        async def read(call: Call) -> None:
            await self._work("read")

        return keep, broken, missing, write, read

    async def _work(self, name: str) -> None:
        self.began.set()
        try:
            await self.go.wait()
            self.ended.append(name)
        except asyncio.CancelledError:
            self.ended.append(f"{name} cancelled")
            raise


@asynccontextmanager
async def on_stage(deps: Deps, stage: Stage) -> AsyncIterator[tuple[Client, web.Application]]:
    redis = open_redis(deps.settings.redis_url)
    app = build(deps, redis, signed_by_key)
    for each in stage.routes():
        app.router.add_route(each.method, each.path, each.handle)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession() as session:
            yield Client(session, f"http://127.0.0.1:{runner.addresses[0][1]}"), app
    finally:
        await runner.cleanup()
        await redis.aclose()


@pytest.fixture
def deps(pool: Pool, make_settings: MakeSettings) -> Deps:
    return wire(pool, busy(make_settings, origins="https://app.expendi.example", env="production"))


@pytest.fixture
def stage() -> Stage:
    return Stage()


@pytest.fixture
async def client(deps: Deps, stage: Stage) -> AsyncIterator[Client]:
    async with on_stage(deps, stage) as (client, _):
        yield client


async def refused(client: Client, method: str, path: str, **options: Any) -> tuple[int, str, list[str]]:
    got = await client.call(method, path, **options)
    assert got.headers["Content-Type"] == "application/problem+json"
    assert set(got.json) == {"type", "title", "status", "detail", "code", "requestId", "errors"}
    assert got.json["status"] == got.status
    assert got.json["type"] == f"urn:expendi:problem:{got.json['code']}"
    return got.status, got.json["code"], [error["pointer"] for error in got.json["errors"]]


async def test_path_query_and_body_reach_the_function_checked(client: Client) -> None:
    got = await client.post("/things/a%2Fb?tag=1&tag=2", {"name": "n", "sizes": [1]})
    assert (got.status, got.json) == (200, {"kept": "a/b n [1, 2]"})
    assert (await client.post("/things/7", {"name": "n"})).json == {"kept": "7 n None"}


@pytest.mark.parametrize(
    ("data", "kind", "expected"),
    [
        (b'{"name":""}', "application/json", (400, "invalid_request", ["/name"])),
        (b'{"name":"n","sizes":[1,"x",2.5]}', "application/json", (400, "invalid_request", ["/sizes/1", "/sizes/2"])),
        (b'{"name":"n","nom":1,"a~/":2}', "application/json", (400, "invalid_request", ["/nom", "/a~0~1"])),
        (b"[]", "application/json", (400, "invalid_request", [""])),
        (b"{", "application/json", (400, "invalid_request", [""])),
        (b"", "application/json", (400, "invalid_request", [""])),
        (b'{"name":NaN}', "application/json", (400, "invalid_request", [""])),
        (b'{"name":"\xff"}', "application/json", (400, "invalid_request", [""])),
        (b"[" * 60_000, "application/json", (400, "invalid_request", [""])),
        (b'{"name":"n"}', "text/plain", (415, "unsupported_media_type", [])),
        (b'{"name":"n"}', "application/x-www-form-urlencoded", (415, "unsupported_media_type", [])),
        (b'{"name":"' + b"n" * 70_000 + b'"}', "application/json", (413, "too_large", [])),
    ],
)
async def test_a_bad_body_is_refused(
    client: Client, data: bytes, kind: str, expected: tuple[int, str, list[str]]
) -> None:
    assert await refused(client, "POST", "/things/1", data=data, headers={"Content-Type": kind}) == expected


async def test_a_body_that_never_says_its_length_is_bounded_too(client: Client) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b" " * 1024

    headers = {"Content-Type": "application/json"}
    assert (await refused(client, "POST", "/things/1", data=endless(), headers=headers))[:2] == (413, "too_large")


async def test_a_body_that_is_not_what_its_headers_say_is_refused(client: Client) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    got = await client.post("/things/1", data=b'{"name":"n"}', headers=headers)
    assert (got.status, got.json["code"]) == (400, "invalid_request")


async def test_what_is_no_http_costs_one_line_of_log(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(client.base.rpartition(":")[2]))
    writer.write(b"GET /v1/me HTTP/1.1\r\nHost: x\r\nX-Bad: \x01\r\n\r\n")
    assert (await reader.readline()).split()[1] == b"400"
    writer.close()
    assert [(record.name, record.exc_info) for record in caplog.records] == [("aiohttp.server", None)]


async def test_paths_and_methods_that_are_not_there(client: Client) -> None:
    assert await refused(client, "GET", "/v1/nothing") == (404, "not_found", [])
    assert await refused(client, "GET", "/v1/me/") == (404, "not_found", [])
    assert await refused(client, "GET", "/socket.io") == (404, "not_found", [])
    assert await refused(client, "DELETE", "/v1/me") == (405, "method_not_allowed", [])
    got = await client.call("PUT", "/v1/auth/sessions")
    assert got.headers["Allow"] == "DELETE, GET, HEAD"
    assert await refused(client, "OPTIONS", "/v1/me") == (405, "method_not_allowed", [])


async def test_a_fault_of_ours_tells_nothing_of_itself(client: Client) -> None:
    with structlog.testing.capture_logs() as logs:
        got = await client.get("/broken")
    assert got.status == 500
    assert got.json["code"] == "internal"
    assert b"hunter2" not in got.body
    assert b"RuntimeError" not in got.body
    assert [entry["event"] for entry in logs] == ["request_failed", "request"]


async def test_request_ids_come_in_and_go_out(client: Client) -> None:
    good = "Trace-1.a_b"
    assert (await client.get("/missing", headers={"X-Request-Id": good})).json["requestId"] == good
    assert (await client.get("/healthz", headers={"X-Request-Id": good})).headers["X-Request-Id"] == good
    for bad in ("a b", "a" * 65, "", 'x"y', "é"):
        given = (await client.get("/healthz", headers={"X-Request-Id": bad})).headers["X-Request-Id"]
        assert given != bad
        assert len(given) == 32


async def test_every_answer_carries_the_headers_of_a_careful_server(client: Client) -> None:
    for path in ("/healthz", "/missing", "/broken", "/v1/me", "/nothing", "/v1/chains"):
        headers = (await client.get(path)).headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert headers["Cache-Control"] in {"no-store", "private, no-cache"}
        assert headers["Vary"] == "Origin"
        assert "aiohttp" not in headers["Server"]


async def test_head_answers_like_get_without_a_body(client: Client) -> None:
    head, get = await client.call("HEAD", "/v1/chains"), await client.get("/v1/chains")
    assert (head.status, head.body) == (200, b"")
    assert head.headers["ETag"] == get.headers["ETag"]


async def test_pages_of_allowed_origins_may_call_and_read(client: Client) -> None:
    origin = {"Origin": "https://app.expendi.example"}
    got = await client.get("/v1/chains", headers=origin)
    assert got.headers["Access-Control-Allow-Origin"] == origin["Origin"]
    assert "RateLimit" in got.headers["Access-Control-Expose-Headers"]
    asked = {**origin, "Access-Control-Request-Method": "DELETE", "Access-Control-Request-Headers": "authorization"}
    preflight = await client.call("OPTIONS", "/v1/auth/sessions/1", headers=asked)
    assert preflight.status == 204
    assert "DELETE" in preflight.headers["Access-Control-Allow-Methods"]
    assert "Authorization" in preflight.headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Credentials" not in preflight.headers
    assert "Access-Control-Allow-Origin" in (await client.get("/missing", headers=origin)).headers


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "http://app.expendi.example", "http://localhost:3000"]
)
async def test_pages_of_other_origins_are_refused(client: Client, origin: str) -> None:
    headers = {"Origin": origin, "Access-Control-Request-Method": "GET"}
    for method, path in (("GET", "/v1/chains"), ("POST", "/v1/auth/nonce"), ("OPTIONS", "/v1/me")):
        assert await refused(client, method, path, headers=headers) == (403, "origin_not_allowed", [])
        assert "Access-Control-Allow-Origin" not in (await client.call(method, path, headers=headers)).headers


async def test_development_serves_pages_of_the_own_machine(pool: Pool, make_settings: MakeSettings) -> None:
    async with serving(wire(pool, busy(make_settings))) as anyone:
        got = await anyone.get("/v1/chains", headers={"Origin": "http://localhost:5173"})
        assert got.headers["Access-Control-Allow-Origin"] == "http://localhost:5173"
        assert (await anyone.get("/v1/chains", headers={"Origin": "http://localhost.evil"})).status == 403


async def test_the_access_log_names_ids_and_no_secret(pool: Pool, make_settings: MakeSettings) -> None:
    async with serving(wire(pool, busy(make_settings))) as anyone:
        me = await anyone.signed_in()
        with structlog.testing.capture_logs() as logs:
            await me.get("/v1/me?secret=hunter2")
            await me.post("/v1/auth/refresh", {"refreshToken": me.refresh})
    first, second = (entry for entry in logs if entry["event"] == "request")
    assert (first["user"], first["status"], first["path"]) == (me.address, 400, "/v1/me")
    assert second["status"] == 200
    for secret in (me.token, me.refresh, "hunter2"):
        assert secret not in repr(logs)


async def test_a_write_runs_to_its_end_when_its_client_has_gone(deps: Deps, stage: Stage) -> None:
    async with on_stage(deps, stage) as (client, app):
        call = asyncio.create_task(client.post("/write"))
        await stage.began.wait()
        call.cancel()
        writes = app[WEB].writes
        with structlog.testing.capture_logs() as logs:
            await until(lambda: [entry["status"] for entry in logs if entry["event"] == "request"] == [CLIENT_CLOSED])
        stage.go.set()
        await until(lambda: stage.ended)
        assert stage.ended == ["write"]
        await writes.ended(timeout_s=5)


async def test_a_read_ends_with_its_client(client: Client, stage: Stage) -> None:
    call = asyncio.create_task(client.get("/read"))
    await stage.began.wait()
    call.cancel()
    await until(lambda: stage.ended == ["read cancelled"])


async def test_a_stop_waits_for_writes_and_then_cuts_them() -> None:
    writes, ended = Writes(), []
    short, endless = asyncio.Event(), asyncio.Event()

    async def work(name: str, go: asyncio.Event) -> None:
        try:
            await go.wait()
            ended.append(name)
        except asyncio.CancelledError:
            ended.append(f"{name} cut")
            raise

    calls = [asyncio.create_task(writes.run(work(*each))) for each in (("short", short), ("endless", endless))]
    asyncio.get_running_loop().call_later(0.02, short.set)
    await asyncio.sleep(0)
    await writes.ended(timeout_s=0.2)
    assert ended == ["short", "endless cut"]
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(results[1], asyncio.CancelledError)


async def test_a_request_that_takes_too_long_is_answered(
    client: Client, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("realtime.rest.boundary.REQUEST_S", 0.05)
    assert await refused(client, "GET", "/read") == (503, "unavailable", [])
    assert stage.ended == ["read cancelled"]


async def test_a_database_that_is_away_is_said_and_comes_back(
    private_postgres: Postgres, make_settings: MakeSettings
) -> None:
    pool = await open_pool(private_postgres.url)
    settings = busy(make_settings, database_url=private_postgres.url)
    async with serving(wire(pool, settings)) as anyone:
        me = await anyone.signed_in()
        private_postgres.stop()
        for path in ("/v1/chains", "/readyz"):
            got = await me.get(path)
            assert (got.status, got.json["code"]) == (503, "unavailable"), path
            assert got.headers["Retry-After"] == "1"
        assert (await anyone.post("/v1/auth/nonce")).status == 503
        assert (await anyone.get("/healthz")).status == 200

        private_postgres.start()

        async def ready() -> bool:
            return (await me.get("/readyz")).status == 200

        await until(ready)
        assert (await me.get("/v1/me")).status == 200
    await pool.close()
