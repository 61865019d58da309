"""Engine.IO 4 by hand: handshake, polling, upgrade, heartbeat and the errors of its document."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson
import pytest

from realtime.engine import MESSAGE_BYTES
from tests.realtime.stage import Stage, new_user, staged
from tests.waiting import until

UPGRADE_REQUEST = (
    b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Polling:
    """A session by long polling."""

    def __init__(self, session: aiohttp.ClientSession, stage: Stage) -> None:
        self.session = session
        self.stage = stage
        self.opened: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return f"{self.stage.url}/socket.io/?EIO=4&transport=polling&sid={self.opened['sid']}"

    async def open(self) -> None:
        async with self.session.get(f"{self.stage.url}/socket.io/?EIO=4&transport=polling") as response:
            body = await response.text()
            assert (response.status, body[0]) == (200, "0")
            assert response.content_type == "text/plain"
            self.opened = orjson.loads(body[1:])

    async def poll(self) -> tuple[int, str]:
        async with self.session.get(self.url) as response:
            return response.status, await response.text()

    async def post(self, body: str | bytes) -> tuple[int, str]:
        async with self.session.post(self.url, data=body) as response:
            return response.status, await response.text()

    async def connect(self, user: str) -> list[str]:
        """CONNECT, then poll until the snapshot came; returns the packets."""
        assert await self.post(f'40{{"token":"{user}/s"}}') == (200, "ok")
        packets: list[str] = []
        while not any(packet.startswith('42["snapshot"') for packet in packets):
            status, body = await self.poll()
            assert status == 200
            packets += body.split("\x1e")
        return packets


@asynccontextmanager
async def polling(stage: Stage) -> AsyncIterator[Polling]:
    async with aiohttp.ClientSession() as session:
        client = Polling(session, stage)
        await client.open()
        yield client


async def test_the_handshake_states_its_values_exactly(redis_url: str) -> None:
    async with staged(redis_url, ping_interval_s=0.3, ping_timeout_s=1.25) as stage, polling(stage) as client:
        assert set(client.opened) == {"sid", "upgrades", "pingInterval", "pingTimeout", "maxPayload"}
        assert client.opened["upgrades"] == ["websocket"]
        assert (client.opened["pingInterval"], client.opened["pingTimeout"]) == (300, 1250)
        assert client.opened["maxPayload"] == MESSAGE_BYTES
        url = f"{stage.url}/socket.io/?EIO=4&transport=websocket"
        async with client.session.ws_connect(url) as ws:
            opened = orjson.loads((await ws.receive()).data[1:])
            assert (opened["upgrades"], opened["pingInterval"]) == ([], 300)
        await client.post("1")


@pytest.mark.parametrize(
    ("method", "query", "code", "message"),
    [
        ("GET", "EIO=4", 0, "Transport unknown"),
        ("GET", "EIO=4&transport=smoke", 0, "Transport unknown"),
        ("GET", "EIO=4&transport=polling&sid=nobody", 1, "Session ID unknown"),
        ("POST", "EIO=4&transport=polling", 2, "Bad handshake method"),
        ("DELETE", "EIO=4&transport=polling", 2, "Bad handshake method"),
        ("GET", "EIO=4&transport=websocket", 3, "Bad request"),
        ("GET", "transport=polling", 5, "Unsupported protocol version"),
        ("GET", "EIO=abc&transport=polling", 5, "Unsupported protocol version"),
    ],
)
async def test_requests_that_the_protocol_does_not_have(
    redis_url: str, method: str, query: str, code: int, message: str
) -> None:
    async with (
        staged(redis_url) as stage,
        aiohttp.ClientSession() as session,
        session.request(method, f"{stage.url}/socket.io/?{query}") as response,
    ):
        assert response.status == 400
        assert await response.json() == {"code": code, "message": message}


async def test_preflight_and_cors_name_the_origin(redis_url: str) -> None:
    async with staged(redis_url) as stage, polling(stage) as client:
        headers = {"Origin": "https://app.example", "Access-Control-Request-Headers": "x-extra"}
        async with client.session.options(client.url, headers=headers) as response:
            assert response.status == 204
            assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"
            assert response.headers["Access-Control-Allow-Methods"] == "GET, POST, OPTIONS"
            assert response.headers["Access-Control-Allow-Headers"] == "x-extra"
            assert response.headers["Vary"] == "Origin"
        async with client.session.post(client.url, data="1", headers=headers) as response:
            assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"


async def test_a_polling_client_is_told_everything_in_order(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, polling(stage) as client:
        packets = await client.connect(user)
        assert packets[0].startswith('40{"sid":"')
        assert packets[1].startswith('42["session",')
        await stage.live(user)
        for _ in range(100):
            await stage.tell(user)
        seqs: list[int] = []
        while len(seqs) < 100:
            status, body = await client.poll()
            assert status == 200
            parts = body.split("\x1e")
            assert len(parts) <= 16
            seqs += [orjson.loads(part[2:])[1]["seq"] for part in parts]
        assert seqs == list(range(1, 101))
        assert await client.post('421["ack",{"seq":100}]\x1e422["ack",{"seq":0}]') == (200, "ok")
        answers = ""
        while "432[" not in answers:
            answers += (await client.poll())[1]
        assert answers.index("431[") < answers.index("432[")
        await client.post("1")


async def test_a_polling_client_that_does_not_fetch_is_closed_at_its_budget(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url, socket_buffer_bytes=16 * 1024) as stage, polling(stage) as client:
        await client.connect(user)
        await stage.live(user)
        for _ in range(20):
            await stage.tell(user, blob="x" * 1000)
        await until(lambda: not stage.server.server.eio.sockets)
        assert (await client.poll())[0] == 400


async def test_a_replay_waits_for_a_polling_client(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url, socket_buffer_bytes=16 * 1024) as stage, polling(stage) as client:
        for _ in range(100):
            stage.log.append(user, blob="x" * 1000)
        epoch = stage.log.epoch(user)
        await client.post("40" + orjson.dumps({"token": f"{user}/s", "epoch": epoch, "since": 0}).decode())
        seqs: list[int] = []
        while len(seqs) < 100:
            parts = (await client.poll())[1].split("\x1e")
            events = [orjson.loads(part[2:]) for part in parts if part.startswith('42["new')]
            seqs += [event[1]["seq"] for event in events]
        assert seqs == list(range(1, 101))
        await client.post("1")


@pytest.mark.parametrize("body", ["abc", "", "4", "2", b"\xff", "42[]", '42["e"]\x1eabc', "x" * (MESSAGE_BYTES + 1)])
async def test_a_bad_post_is_refused_and_ends_the_session(redis_url: str, body: str | bytes) -> None:
    async with staged(redis_url) as stage, polling(stage) as client:
        assert (await client.post(body))[0] == 400
        assert (await client.poll())[0] == 400


async def test_a_second_poll_ends_the_session(redis_url: str) -> None:
    async with staged(redis_url) as stage, polling(stage) as client:
        first = asyncio.create_task(client.poll())
        session = stage.server.server.eio.sockets[client.opened["sid"]]
        await until(lambda: session._poll is not None)
        assert (await client.poll())[0] == 400
        assert await first == (200, "1")
        assert (await client.poll())[0] == 400


async def test_a_second_post_ends_the_session(redis_url: str) -> None:
    async with staged(redis_url) as stage, polling(stage) as client:
        session = stage.server.server.eio.sockets[client.opened["sid"]]
        body_goes_on = asyncio.Event()

        async def slow_body() -> AsyncIterator[bytes]:
            yield b"42"
            await body_goes_on.wait()

        first = asyncio.create_task(client.post(slow_body()))  # type: ignore[arg-type]  # aiohttp streams it
        await until(lambda: session._posting)
        assert (await client.post("3"))[0] == 400
        body_goes_on.set()
        assert (await first)[0] == 400


async def test_a_close_by_the_client_ends_its_poll_with_a_noop(redis_url: str) -> None:
    async with staged(redis_url) as stage, polling(stage) as client:
        waiting = asyncio.create_task(client.poll())
        session = stage.server.server.eio.sockets[client.opened["sid"]]
        await until(lambda: session._poll is not None)
        assert await client.post("1") == (200, "ok")
        assert await waiting == (200, "6")
        assert (await client.poll())[0] == 400


async def test_last_words_wait_for_the_next_poll(redis_url: str) -> None:
    async with staged(redis_url) as stage, polling(stage) as client:
        await client.post('40{"token":"nobody"}')
        answer = await client.poll()
        assert answer[1].startswith("44{")
        (session,) = stage.server.server.eio.sockets.values()
        session.send_text("4last")
        session.end("done", "politely")
        assert await client.poll() == (200, "4last\x1e1")
        assert (await client.poll())[0] == 400


@pytest.mark.parametrize("cancelling", [True, False])
async def test_a_poll_whose_client_went_away_ends_the_session(redis_url: str, cancelling: bool) -> None:
    user = new_user()
    async with staged(redis_url, cancelling=cancelling) as stage, polling(stage) as client:
        await client.connect(user)
        await stage.live(user)
        waiting = asyncio.create_task(client.poll())
        session = stage.server.server.eio.sockets[client.opened["sid"]]
        await until(lambda: session._poll is not None)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        # What is told now would be lost with the answer that nobody reads: the client must resume from the log.
        await until(lambda: client.session.connector is not None and not client.session.connector._acquired)
        await stage.tell(user)
        await until(lambda: not stage.server.server.eio.sockets)


async def test_pings_come_and_a_client_that_does_not_answer_is_closed(redis_url: str) -> None:
    async with staged(redis_url, ping_interval_s=0.1, ping_timeout_s=0.2) as stage, polling(stage) as client:
        await client.connect(new_user())
        for _ in range(3):
            assert await client.poll() == (200, "2")
            assert await client.post("3") == (200, "ok")
        assert await client.poll() == (200, "2")
        assert await client.poll() == (200, "1")
        assert not stage.server.server.eio.sockets


async def test_a_websocket_that_does_not_answer_pings_is_closed(redis_url: str) -> None:
    async with (
        staged(redis_url, ping_interval_s=0.1, ping_timeout_s=0.2) as stage,
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{stage.url}/socket.io/?EIO=4&transport=websocket") as ws,
    ):
        await ws.send_str(f'40{{"token":"{new_user()}/s"}}')
        seen = [(await ws.receive()).data for _ in range(5)]
        assert [packet[:2] for packet in seen] == ["0{", "40", "42", "42", "2"]
        assert (await ws.receive()).type in {aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.CLOSE}


async def upgraded(client: Polling) -> aiohttp.ClientWebSocketResponse:
    url = client.url.replace("transport=polling", "transport=websocket")
    ws = await client.session.ws_connect(url)
    await ws.send_str("2probe")
    assert (await ws.receive()).data == "3probe"
    return ws


async def test_an_upgrade_moves_the_session_and_loses_nothing(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, polling(stage) as client:
        await client.connect(user)
        await stage.live(user)
        waiting = asyncio.create_task(client.poll())
        session = stage.server.server.eio.sockets[client.opened["sid"]]
        await until(lambda: session._poll is not None)
        ws = await upgraded(client)
        assert await waiting == (200, "6")
        for _ in range(5):
            await stage.tell(user)
        await until(lambda: len(session._queue) == 5)
        await ws.send_str("5")
        for _ in range(5):
            await stage.tell(user)
        seqs = [orjson.loads((await ws.receive()).data[2:])[1]["seq"] for _ in range(10)]
        assert seqs == list(range(1, 11))
        assert (await client.poll())[0] == 400
        assert (await client.post("3"))[0] == 400
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await upgraded(client)
        await ws.send_str('421["ack",{"seq":0}]')
        assert (await ws.receive()).data.startswith("431[")
        await ws.close()


@pytest.mark.parametrize("packets", [["4hello"], ["2probe", "4hello"], ["2"], []])
async def test_an_upgrade_that_fails_leaves_the_session_polling(redis_url: str, packets: list[str]) -> None:
    user = new_user()
    async with staged(redis_url) as stage, polling(stage) as client:
        await client.connect(user)
        await stage.live(user)
        url = client.url.replace("transport=polling", "transport=websocket")
        ws = await client.session.ws_connect(url)
        for packet in packets:
            await ws.send_str(packet)
        if not packets:
            await ws.close()
        while (await ws.receive()).type is aiohttp.WSMsgType.TEXT:
            pass
        session = stage.server.server.eio.sockets[client.opened["sid"]]
        await until(lambda: not session.upgrading)
        await stage.tell(user)
        assert (await client.poll())[1].startswith('42["new_transaction"')
        await client.post("1")


async def test_polls_during_an_upgrade_are_answered_at_once(redis_url: str) -> None:
    async with staged(redis_url) as stage, polling(stage) as client:
        ws = await upgraded(client)
        assert await client.poll() == (200, "6")
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await upgraded(client)
        await ws.send_str("5")
        await ws.send_str("1")
        assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
        await ws.close()


async def test_a_peer_that_is_gone_before_the_handshake_is_answered_leaves_nothing(redis_url: str) -> None:
    async with staged(redis_url) as stage:
        port = int(stage.url.rpartition(":")[2])
        loop = asyncio.get_running_loop()
        for _ in range(20):
            sock = socket.socket()
            sock.setblocking(False)
            await loop.sock_connect(sock, ("127.0.0.1", port))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, bytes((1, 0, 0, 0, 0, 0, 0, 0)))
            await loop.sock_sendall(sock, UPGRADE_REQUEST)
            sock.close()


async def test_a_malformed_websocket_handshake_leaves_nothing(redis_url: str) -> None:
    async with staged(redis_url) as stage, aiohttp.ClientSession() as session:
        headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        url = f"{stage.url}/socket.io/?EIO=4&transport=websocket"
        async with session.get(url, headers=headers) as response:
            assert response.status == 400
