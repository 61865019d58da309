from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

import aiohttp
import orjson
import pytest
from aiohttp import WSMsgType
from aiohttp.http_exceptions import BadStatusLine

from config.embedded.valkey import Valkey
from config.settings import variable
from handlers.deps import Deps
from realtime.app import BadRequests
from store import acks, log
from store.feed import Publisher
from store.postgres import Pool
from store.records import Draft
from store.redis import open_redis
from tests.conftest import MakeSettings
from tests.realtime.rows import START
from tests.realtime.served import Client, serving
from tests.realtime.wallets import Wallet
from tests.realtime.wiring import CHAINS, busy
from tests.waiting import until

DEADLINE_S = 10


@asynccontextmanager
async def socket(client: Client, **auth: Any) -> AsyncIterator[Line]:
    """A raw Socket.IO connection, through CONNECT."""
    url = f"{client.base}/socket.io/?EIO=4&transport=websocket"
    async with client.session.ws_connect(url) as line:
        assert (await line.receive_str()).startswith("0{")
        await line.send_str("40" + orjson.dumps({"token": client.token, **auth}).decode())
        yield Line(line)


class Line:
    def __init__(self, line: aiohttp.ClientWebSocketResponse) -> None:
        self.line = line

    async def event(self, name: str) -> Any:
        """The payload of the next event of that name."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                text = await self.line.receive_str()
                if text == "2":
                    await self.line.send_str("3")
                elif text.startswith("42") and (found := orjson.loads(text[2:]))[0] == name:
                    return found[1]

    async def ask(self, number: int, *command: Any) -> Any:
        await self.line.send_str(f"42{number}" + orjson.dumps(command).decode())
        async with asyncio.timeout(DEADLINE_S):
            while True:
                text = await self.line.receive_str()
                if text.startswith(f"43{number}"):
                    return orjson.loads(text.removeprefix(f"43{number}"))[0]

    async def closed(self) -> bool:
        """Wait until the server ends the connection or the namespace."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                message = await self.line.receive()
                if message.type in {WSMsgType.CLOSE, WSMsgType.CLOSED, WSMsgType.CLOSING, WSMsgType.ERROR}:
                    return True
                if message.type is WSMsgType.TEXT and message.data == "2":
                    await self.line.send_str("3")


@pytest.fixture
async def deps(pool: Pool, make_settings: MakeSettings) -> AsyncIterator[Deps]:
    settings = busy(make_settings)
    publisher = Publisher(settings.redis_url)
    yield Deps(settings, CHAINS, pool, publisher, lambda: datetime.now(UTC))
    await publisher.close()


async def tell(deps: Deps, user: str, number: int) -> None:
    """Append an event and publish it, as a writer does."""

    async def append() -> list[tuple[str, bytes]]:
        async with deps.pool.acquire() as conn, conn.transaction():
            counters = await log.lock(conn, [user])
            draft = Draft(user, f"{number:032x}", "resync", 1, {"reason": "rebuild"})
            return [(frame.user, frame.text) for frame in await log.append(conn, counters, [draft], at=START)]

    await deps.publisher.publish(await append())


async def test_a_socket_gets_what_rest_reads(deps: Deps) -> None:
    async with serving(deps) as anyone:
        me = await anyone.signed_in()
        async with socket(me) as line:
            session = await line.event("session")
            assert session["userId"] == me.address
            assert await line.event("snapshot") == (await me.get("/v1/snapshot")).json
            await tell(deps, me.address, 1)
            event = await line.event("resync")
        read = (await me.get(f"/v1/events?epoch={session['epoch']}")).json
        assert [each["payload"] for each in read["data"]] == [event]


async def test_revoking_a_session_closes_its_sockets_only(deps: Deps) -> None:
    async with serving(deps) as anyone, serving(deps) as elsewhere:
        wallet = Wallet()
        me, other = await anyone.signed_in(wallet), await anyone.signed_in(wallet)
        there = Client(elsewhere.session, elsewhere.base, me.token)
        async with socket(me) as here_line, socket(there) as there_line, socket(other) as other_line:
            for line in (here_line, there_line, other_line):
                await line.event("session")
            began = asyncio.get_running_loop().time()
            assert (await me.post("/v1/auth/logout")).status == 204
            assert await here_line.closed()
            assert await there_line.closed()
            assert asyncio.get_running_loop().time() - began < DEADLINE_S
            assert (await other_line.ask(1, "join_user_room", other.address))["ok"]


async def test_a_refused_join_is_in_the_audit_log(deps: Deps) -> None:
    async with serving(deps) as anyone:
        me = await anyone.signed_in()
        async with socket(me) as line:
            await line.event("session")
            answer = await line.ask(7, "join_user_room", "0x" + "11" * 20)
            assert not answer["ok"]

        async def noted() -> list[dict[str, Any]]:
            return [e for e in (await me.get("/v1/me/audit")).json["data"] if e["action"] == "join_refused"]

        [entry] = await until(noted)
        assert entry["ipAddress"] == "127.0.0.1"
        assert "11" * 20 in entry["metadata"]["room"]


async def test_an_ack_is_kept(deps: Deps) -> None:
    redis = open_redis(deps.settings.redis_url)
    async with serving(deps) as anyone:
        me = await anyone.signed_in()
        async with socket(me) as line:
            await line.event("session")
            await tell(deps, me.address, 1)
            await line.event("resync")
            assert (await line.ask(1, "ack", {"seq": 1}))["ok"]
        assert await acks.shown(redis, me.address) == 1
    await redis.aclose()


async def test_a_bad_token_is_refused_on_sockets_too(deps: Deps) -> None:
    async with serving(deps) as anyone:
        for token in ("", "exa_" + "x" * 43):
            async with socket(Client(anyone.session, anyone.base, token)) as line:
                text = await line.line.receive_str()
                assert text.startswith("44")
                assert orjson.loads(text[2:])["data"]["code"] == "unauthenticated"


@pytest.fixture
def environ(database_url: str, tmp_path: Path) -> dict[str, str]:
    chains = tmp_path / "chains.toml"
    chains.write_text('[[chain]]\nname = "devnet"\nid = 31337\nrpc = ["http://127.0.0.1:1"]\n')
    ours = {
        "database_url": database_url,
        "redis_url": "redis://127.0.0.1:1/0",
        "clickhouse_url": "http://127.0.0.1:1",
        "chains_file": str(chains),
        "data_dir": str(tmp_path / "data"),
        "sign_in_limit_per_minute": "1000",
        "port": "0",
    }
    return {**os.environ, **{variable(name): value for name, value in ours.items()}}


@contextmanager
def process(environ: Mapping[str, str], errors: TextIO) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-m", "realtime"], env=dict(environ), stdout=subprocess.PIPE, stderr=errors, text=True
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()


async def line_of(child: subprocess.Popen[str]) -> str:
    assert child.stdout is not None
    async with asyncio.timeout(30):
        return await asyncio.to_thread(child.stdout.readline)


async def exit_of(child: subprocess.Popen[str]) -> int:
    return await asyncio.to_thread(child.wait, 30)


async def test_the_process_serves_without_redis_and_stops_when_told(
    environ: dict[str, str], private_valkey: Valkey, tmp_path: Path
) -> None:
    private_valkey.stop()
    environ[variable("redis_url")] = private_valkey.url
    with (tmp_path / "errors").open("w") as errors, process(environ, errors) as child:
        base = (await line_of(child)).split()[-1]
        async with aiohttp.ClientSession() as session:
            anyone = Client(session, base)
            assert (await anyone.get("/readyz")).json["redis"] == "away"
            me = await anyone.signed_in()
            private_valkey.start()

            async def back() -> bool:
                return bool((await anyone.get("/readyz")).json["redis"] == "ok")

            await until(back)
            async with socket(me) as line:
                await line.event("session")
                child.send_signal(signal.SIGTERM)
                assert await line.closed()
            assert await exit_of(child) == 0
    told = (tmp_path / "errors").read_text()
    assert '"event":"listening"' in told
    assert "Traceback" not in told
    assert me.token not in told


async def test_a_start_that_can_not_work_says_what_to_change(environ: dict[str, str], tmp_path: Path) -> None:
    taken = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = taken.sockets[0].getsockname()[1]
    cases: list[tuple[dict[str, str], int, str]] = [
        ({variable("port"): str(port)}, 1, variable("port")),
        ({variable("prot"): "1"}, 2, "did you mean EXPENDI_PORT?"),
        ({variable("chains_file"): str(tmp_path / "none.toml")}, 2, "none.toml"),
        ({variable("database_url"): environ[variable("database_url")] + "_not"}, 1, variable("database_url")),
    ]

    async def run(number: int, changes: dict[str, str], status: int, words: str) -> None:
        path = tmp_path / f"errors{number}"
        with path.open("w") as errors, process({**environ, **changes}, errors) as child:
            assert await exit_of(child) == status, path.read_text()
        told = [text for text in path.read_text().splitlines() if not text.startswith("{")]
        assert len(told) == 1, told
        assert words in told[0]

    await asyncio.gather(*(run(number, *case) for number, case in enumerate(cases)))
    taken.close()
    await taken.wait_closed()


def test_bad_http_costs_a_line_a_minute_and_never_a_traceback() -> None:
    now = 100.0
    bad_requests = BadRequests(clock=lambda: now)

    def logged(error: Exception) -> logging.LogRecord | None:
        record = logging.LogRecord("aiohttp.server", logging.ERROR, "", 1, "Error", (), (type(error), error, None))
        return record if bad_requests.filter(record) else None

    first = logged(BadStatusLine("\x16\x03"))
    assert first is not None
    assert first.exc_info is None
    assert [logged(BadStatusLine("x")) for _ in range(1000)] == [None] * 1000
    ours = logged(RuntimeError("a fault of ours"))
    assert ours is not None
    assert ours.exc_info is not None
    now += 60
    assert logged(BadStatusLine("x")) is not None
