"""A whole web application on loopback, over a test's own database, and a client that speaks REST to it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from aiohttp import web

from handlers.auth import SignatureCheck
from handlers.deps import Deps
from realtime.app import build
from store.redis import open_redis
from tests.realtime.conform import check
from tests.realtime.wallets import Wallet, signed_by_key


@dataclass(frozen=True)
class Got:
    """An answer, read."""

    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass
class Client:
    """Calls as one person; `token` is sent when there is one. Every answer is held to the OpenAPI document."""

    session: aiohttp.ClientSession
    base: str
    token: str = ""
    refresh: str = ""
    address: str = ""

    async def call(self, method: str, path: str, *, json: Any = None, **options: Any) -> Got:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        headers |= options.pop("headers", {})
        if json is not None:
            options["data"] = orjson.dumps(json)
            headers.setdefault("Content-Type", "application/json")
        async with self.session.request(method, self.base + path, headers=headers, **options) as response:
            got = Got(response.status, response.headers, await response.read())
        check(method, response.url.raw_path, got.status, got.headers, got.body)
        return got

    async def get(self, path: str, **options: Any) -> Got:
        return await self.call("GET", path, **options)

    async def post(self, path: str, json: Any = None, **options: Any) -> Got:
        return await self.call("POST", path, json=json, **options)

    async def signed_in(self, wallet: Wallet | None = None) -> Client:
        """Another client of this server, signed in."""
        wallet = wallet or Wallet()
        nonce = (await self.post("/v1/auth/nonce")).json["nonce"]
        text = wallet.message(nonce)
        got = await self.post("/v1/auth/verify", {"message": text, "signature": wallet.sign(text)})
        assert got.status == 200, got.body
        return Client(self.session, self.base, got.json["accessToken"], got.json["refreshToken"], wallet.address)


@asynccontextmanager
async def serving(deps: Deps, signatures: SignatureCheck = signed_by_key) -> AsyncIterator[Client]:
    """The application of these deps, listening until the end of the block; no node is asked unless a test says so."""
    redis = open_redis(deps.settings.redis_url)
    runner = web.AppRunner(
        build(deps, redis, signatures), access_log=None, handler_cancellation=True, shutdown_timeout=1
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            yield Client(session, f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()
        await redis.aclose()
