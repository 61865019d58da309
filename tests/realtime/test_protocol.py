"""The hardening of realtime/protocol.py, a test for each point, and the decoder by itself."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st
from socketio import packet

from config import metrics
from realtime.engine import MESSAGE_BYTES
from realtime.packets import RESERVED, BadPacket, Packet
from tests.realtime.raw import Raw, raw
from tests.realtime.stage import Stage, new_user, staged
from tests.waiting import until


def bad_packets() -> float:
    """Sockets closed for a bad packet so far."""
    return float(metrics.SOCKETS_CLOSED.labels("bad_packet")._value.get())


async def connected(stage: Stage, stack: AsyncExitStack, user: str) -> Raw:
    client = await stack.enter_async_context(raw(stage.url))
    await client.connect(token=f"{user}/s")
    await client.event("snapshot")
    return client


@pytest.mark.parametrize(
    "sent",
    [
        *(f'42["{name}","forged",{{}}]' for name in sorted(RESERVED)),
        '42["e",NaN]',
        '42["e",Infinity]',
        '42["e","\\ud800"]',
        '42["e",' + "[" * 2000 + "]" * 2000 + "]",
        '459-["e"]',
        '4599999999-["e"]',
        '45-["e"]',
        "461-[]",
        '441-["e"]',
        "44{}",
        "42{}",
        "42[]",
        "42[5]",
        '42"e"',
        "42[",
        "4",
        "48[]",
        "43[]",
        "43",
        '411{"x":1}',
        '40{"token":"again"}',
        "42123456789012345678901234567890[1]",
        '42/admin,["e"]',
        "0{}",
        "2",
        "5",
        "6",
        "x",
        "",
        "hello",
        "3probe",
    ],
)
async def test_a_bad_packet_closes_its_socket_and_nobody_else_s(redis_url: str, sent: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client, other = [await connected(stage, stack, user) for _ in range(2)]
        before = bad_packets()
        await client.ws.send_str(sent)
        await client.closed()
        assert bad_packets() == before + 1
        await stage.live(user)
        await stage.tell(user)
        assert await other.seqs(1) == [1]
        assert stage.server.hub.feed_of(user).members[0].sid == other.answer["sid"]  # type: ignore[union-attr]  # it is there


async def test_a_binary_message_closes_its_socket(redis_url: str) -> None:
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client = await connected(stage, stack, new_user())
        await client.ws.send_bytes(b"\x04binary")
        await client.closed()


async def test_a_message_over_the_limit_closes_its_socket(redis_url: str) -> None:
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client = await connected(stage, stack, new_user())
        await client.ws.send_str("42" + f'["e","{"x" * MESSAGE_BYTES}"]')
        await client.closed()


@pytest.mark.parametrize("sent", ['42["ack",{"seq":0}]', "41", "430[]"])
async def test_a_packet_before_connect_closes_the_socket(redis_url: str, sent: str) -> None:
    async with staged(redis_url) as stage, raw(stage.url) as client:
        await client.ws.send_str(sent)
        await client.closed()


async def test_an_event_while_connect_is_being_answered_closes_the_socket(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, raw(stage.url) as client:
        before = bad_packets()
        await client.ws.send_str(f'40{{"token":"{user}/s"}}')
        await client.ws.send_str('42["ack",{"seq":0}]')
        await client.closed()
        assert bad_packets() == before + 1
        assert not stage.ports.acks


async def test_a_socket_that_never_connects_is_closed_though_it_answers_pings(redis_url: str) -> None:
    async with (
        staged(redis_url, socket_connect_timeout_s=0.4, ping_interval_s=0.05) as stage,
        raw(stage.url) as client,
    ):
        await client.closed()


async def test_the_handshake_s_deadline_runs_until_connect_is_answered(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url, socket_connect_timeout_s=0.3) as stage, raw(stage.url) as client:
        hanging = asyncio.Event()

        async def verify(token: str) -> Any:
            await hanging.wait()

        stage.ports.verify = verify  # type: ignore[method-assign]  # a database that hangs
        await client.ws.send_str(f'40{{"token":"{user}/s"}}')
        await client.closed()


async def test_a_client_that_left_may_connect_again_and_must_do_so_in_time(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url, socket_connect_timeout_s=0.3) as stage, AsyncExitStack() as stack:
        client = await connected(stage, stack, user)
        await client.ws.send_str("41")
        await until(lambda: stage.server.hub.feeds == 0)
        await client.connect(token=f"{user}/s")
        await client.event("snapshot")
        await stage.live(user)
        await stage.tell(user)
        assert await client.seqs(1) == [1]
        await client.ws.send_str("41")
        await client.closed()


async def test_an_unknown_namespace_is_answered_as_the_reference_server_does(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client = await connected(stage, stack, user)
        await client.ws.send_str('40/nowhere?x=1,{"token":"t"}')
        assert await client.packet() == '44/nowhere,{"message":"Invalid namespace"}'
        assert (await client.call("ack", {"seq": 0}))["ok"]


async def test_a_namespace_with_handlers_works_as_in_the_stock_server(redis_url: str) -> None:
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        sio = stage.server.server
        seen: list[tuple[str, Any]] = []
        sio.on("echo", lambda _, data: data, namespace="/other")
        sio.on("disconnect", lambda _, reason: seen.append(("disconnect", reason)), namespace="/other")
        client = await connected(stage, stack, new_user())
        await client.ws.send_str("40/other,")
        answer = await client.packet()
        assert str(answer).startswith('40/other,{"sid":"')
        await client.ws.send_str('42/other,7["echo",{"a":1}]')
        assert await client.packet() == '43/other,7[{"a":1}]'
        await sio.emit("note", "a string is fine here", namespace="/other")
        assert await client.packet() == '42/other,["note","a string is fine here"]'
        await sio.emit("blob", b"\x01\x02", namespace="/other")
        assert await client.packet() == '451-/other,["blob",{"_placeholder":true,"num":0}]'
        assert (await client.ws.receive()).data == b"\x01\x02"
        await client.ws.close()
        await until(lambda: seen)
        assert seen == [("disconnect", "transport close")]


async def test_a_call_is_answered_by_its_own_acknowledgement(redis_url: str) -> None:
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client = await connected(stage, stack, new_user())
        calling = asyncio.create_task(stage.server.server.call("question", {"n": 1}, to=client.answer["sid"]))
        assert await client.packet() == '421["question",{"n":1}]'
        for unasked in ("430[1]", "437[1]"):
            await client.ws.send_str(unasked)
        await client.ws.send_str('431["answer"]')
        assert await calling == "answer"


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": "https://app.example"}, True),
        ({"Origin": "https://APP.example"}, True),
        ({"Origin": "https://evil.example"}, False),
        ({"Origin": "http://app.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "http://localhost:5173"}, False),
        ({"Origin": "https://evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}, False),
        ({"Origin": "https://evil.example", "Host": "evil.example"}, False),
    ],
)
@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_origins(redis_url: str, headers: dict[str, str], allowed: bool, transport: str) -> None:
    async with staged(redis_url) as stage, aiohttp.ClientSession() as session:
        if transport == "websocket":
            headers = {
                **headers,
                "Connection": "Upgrade",
                "Upgrade": "websocket",
                "Sec-WebSocket-Version": "13",
                "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            }
        url = f"{stage.url}/socket.io/?EIO=4&transport={transport}"
        async with session.get(url, headers=headers) as response:
            if allowed:
                assert response.status == (101 if transport == "websocket" else 200)
                assert response.headers.get("Access-Control-Allow-Origin") in {headers.get("Origin"), None}
            else:
                assert response.status == 403
                assert response.content_type == "application/problem+json"
                assert (await response.json())["code"] == "origin_not_allowed"
                assert "Access-Control-Allow-Origin" not in response.headers
                assert not stage.server.server.eio.sockets
        for socket in list(stage.server.server.eio.sockets.values()):
            socket.end("done", "now")


async def test_pages_of_this_machine_may_connect_in_development(redis_url: str) -> None:
    async with staged(redis_url, env="development", clickhouse_url="http://unused") as stage:
        for origin, allowed in (
            ("http://localhost:5173", True),
            ("http://127.0.0.1", True),
            ("http://[::1]:3000", True),
            ("https://evil.example", False),
            ("http://localhost.evil.example", False),
            ("file://localhost", False),
            ("http://[", False),
        ):
            assert stage.server.server.eio.rules.peers.allows(origin) is allowed, origin


async def test_compression_is_not_negotiated(redis_url: str) -> None:
    async with staged(redis_url) as stage, aiohttp.ClientSession() as session:
        url = f"{stage.url}/socket.io/?EIO=4&transport=websocket"
        async with session.ws_connect(url, compress=15) as ws:
            assert ws.compress == 0


@pytest.mark.parametrize(
    ("proxies", "forwarded", "remote"),
    [
        ((), "203.0.113.7", "127.0.0.1"),
        (("127.0.0.1/32",), "203.0.113.7", "203.0.113.7"),
        (("127.0.0.1/32",), "6.6.6.6, 203.0.113.7", "203.0.113.7"),
        (("127.0.0.1/32", "10.0.0.0/8"), "6.6.6.6, 203.0.113.7, 10.1.2.3", "203.0.113.7"),
        (("127.0.0.1/32",), "203.0.113.7, nonsense", "127.0.0.1"),
        (("127.0.0.1/32", "10.0.0.0/8"), "10.9.9.9", "10.9.9.9"),
        (("127.0.0.1/32",), "2001:db8::1", "2001:db8::1"),
        (("::/0",), "203.0.113.7", "127.0.0.1"),
        (("127.0.0.1/32",), "::ffff:203.0.113.7", "203.0.113.7"),
    ],
)
async def test_the_caller_s_address_is_the_nearest_one_that_is_no_trusted_proxy(
    redis_url: str, proxies: tuple[str, ...], forwarded: str, remote: str
) -> None:
    headers = {"X-Forwarded-For": forwarded, "User-Agent": "x" * 1000}
    async with staged(redis_url, trusted_proxies=proxies) as stage, raw(stage.url, headers=headers):
        (environ,) = stage.server.server.environ.values()
        assert environ["REMOTE_ADDR"] == remote
        assert environ["HTTP_USER_AGENT"] == "x" * 256


def decoded(text: str) -> tuple[int, str, int | None, Any]:
    pkt = Packet(encoded_packet=text)
    return pkt.packet_type, pkt.namespace, pkt.id, pkt.data


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", (packet.CONNECT, "/", None, None)),
        ('0{"token":"t"}', (packet.CONNECT, "/", None, {"token": "t"})),
        ("0/admin,", (packet.CONNECT, "/admin", None, None)),
        ("0/admin", (packet.CONNECT, "/admin", None, None)),
        ('0/admin?a=b,{"x":1}', (packet.CONNECT, "/admin", None, {"x": 1})),
        ("1", (packet.DISCONNECT, "/", None, None)),
        ("1/admin,", (packet.DISCONNECT, "/admin", None, None)),
        ('2["e"]', (packet.EVENT, "/", None, ["e"])),
        ('20["e",1]', (packet.EVENT, "/", 0, ["e", 1])),
        ('2/admin,456["e",{"a":[]}]', (packet.EVENT, "/admin", 456, ["e", {"a": []}])),
        ("312[]", (packet.ACK, "/", 12, [])),
        ('2["e","\\n/x,"]', (packet.EVENT, "/", None, ["e", "\n/x,"])),
    ],
)
def test_packets_that_a_client_may_send(text: str, expected: tuple[int, str, int | None, Any]) -> None:
    assert decoded(text) == expected


@given(st.text(alphabet=st.sampled_from('0123456789[]{}",/-?eé\n \ud800'), max_size=30))
def test_any_text_is_a_packet_or_a_bad_one(text: str) -> None:
    try:
        kind, _, number, data = decoded(text or " ")
    except BadPacket:
        return
    assert kind in {packet.CONNECT, packet.DISCONNECT, packet.EVENT, packet.ACK}
    if kind == packet.EVENT:
        assert isinstance(data[0], str)
        assert data[0] not in RESERVED
    if kind == packet.ACK:
        assert number is not None
