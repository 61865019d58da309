from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import aiohttp
import orjson
import pytest

from handlers.errors import RateLimited, Unavailable
from realtime.door import PACKETS_BURST, PACKETS_PER_S, TURN_PACKETS, Door, Pace, SignIns, of_network
from realtime.engine import MESSAGE_BYTES
from realtime.wire import EARLY_PACKETS, Socket
from tests.load.attackers import PING, frame
from tests.realtime.raw import raw
from tests.realtime.stage import new_user, staged
from tests.waiting import until

PONG_FRAME = 10


def test_a_burst_is_free_then_a_packet_has_its_time() -> None:
    pace = Pace()
    waits = [pace.charge(10, 100.0) for _ in range(PACKETS_BURST)]
    assert {wait for wait in waits if wait} == set()
    assert waits.count(0.0) == PACKETS_BURST // TURN_PACKETS
    more = [pace.charge(10, 100.0) for _ in range(TURN_PACKETS)]
    assert more[-1] == pytest.approx(TURN_PACKETS / PACKETS_PER_S)
    assert pace.charge(0, 1000.0) is None
    assert pace.taken == PACKETS_BURST + TURN_PACKETS + 1


def test_large_packets_count_as_many() -> None:
    pace = Pace()
    assert pace.charge(MESSAGE_BYTES, 0.0) == 0.0
    total = 1 + MESSAGE_BYTES // 1024
    for _ in range(9):
        wait = pace.charge(MESSAGE_BYTES, 0.0)
        total += 1 + MESSAGE_BYTES // 1024
    assert wait == pytest.approx((total - PACKETS_BURST) / PACKETS_PER_S)


def door(now: list[float], *, per_minute: int = 1000, each: int = 1000, all_: int = 1000) -> Door:
    return Door(per_minute=per_minute, waiting_each=each, waiting_all=all_, clock=lambda: now[0])


def test_an_address_may_connect_so_often_a_minute() -> None:
    now = [0.0]
    entrance = door(now, per_minute=3)
    for _ in range(3):
        entrance.leave(entrance.enter("192.0.2.1"))
    with pytest.raises(RateLimited) as refusal:
        entrance.enter("192.0.2.1")
    assert refusal.value.retry_after_s == 10
    entrance.enter("192.0.2.2")
    now[0] = 20.0
    entrance.enter("192.0.2.1")


def test_an_address_may_have_so_many_that_wait() -> None:
    entrance = door([0.0], each=2)
    callers = [entrance.enter("192.0.2.1") for _ in range(2)]
    with pytest.raises(RateLimited):
        entrance.enter("192.0.2.1")
    entrance.enter("192.0.2.2")
    entrance.leave(callers[0])
    entrance.enter("192.0.2.1")
    assert entrance.waiting == 3


def test_all_addresses_together_may_have_so_many_that_wait() -> None:
    entrance = door([0.0], all_=2)
    for number in range(2):
        entrance.enter(f"192.0.2.{number}")
    with pytest.raises(Unavailable):
        entrance.enter("192.0.2.9")


@pytest.mark.parametrize(
    ("address", "caller"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("", ""),
        ("no:address", "no:address"),
    ],
)
def test_addresses_of_one_network_are_one_caller(address: str, caller: str) -> None:
    assert of_network(address) == caller


def test_a_user_may_connect_so_often_a_minute() -> None:
    now = [0.0]
    sign_ins = SignIns(2, clock=lambda: now[0])
    for _ in range(2):
        sign_ins.enter("0x1")
    with pytest.raises(RateLimited):
        sign_ins.enter("0x1")
    sign_ins.enter("0x2")


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_a_full_door_answers_a_problem_and_closes_the_connection(redis_url: str, transport: str) -> None:
    limits: dict[str, Any] = {"waiting_sockets_per_address": 1, "waiting_sockets": 2}
    async with staged(redis_url, trusted_proxies=("127.0.0.1/32",), **limits) as stage, AsyncExitStack() as stack:

        def headers(address: str) -> dict[str, str]:
            return {"X-Forwarded-For": address, "Origin": "https://app.example"}

        for address in ("192.0.2.1", "192.0.2.2"):
            await stack.enter_async_context(raw(stage.url, headers=headers(address)))
        session = await stack.enter_async_context(aiohttp.ClientSession())
        url = f"{stage.url}/socket.io/?EIO=4&transport={transport}"
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket"} if transport == "websocket" else {}
        for waiting, status, code in ((2, 503, "unavailable"), (3, 429, "rate_limited")):
            stage.server.server.eio.rules.door._all = waiting
            async with session.get(url, headers={**headers("192.0.2.1"), **upgrade}) as response:
                assert response.status == status
                assert response.content_type == "application/problem+json"
                assert (await response.json())["code"] == code
                assert response.headers["Retry-After"] == "5"
                assert response.headers["Connection"] == "close"
                assert response.headers["Access-Control-Allow-Origin"] == "https://app.example"


async def test_who_has_signed_in_or_gone_does_not_wait_at_the_door(redis_url: str) -> None:
    async with staged(redis_url, waiting_sockets_per_address=1) as stage, AsyncExitStack() as stack:
        door = stage.server.server.eio.rules.door
        for _ in range(3):
            client = await stack.enter_async_context(raw(stage.url))
            assert door.waiting == 1
            await client.connect(token=f"{new_user()}/s")
            assert door.waiting == 0
        async with raw(stage.url):
            assert door.waiting == 1
        await until(lambda: door.waiting == 0)
        assert not door._waiting


async def test_a_user_that_connects_too_often_is_told_so(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url, socket_connects_per_minute=1) as stage, AsyncExitStack() as stack:
        first, second, third = [await stack.enter_async_context(raw(stage.url)) for _ in range(3)]
        await first.connect(token=f"{user}/s")
        refusal = await second.ask_to_connect(token=f"{user}/s")
        assert refusal["data"]["code"] == "rate_limited"
        await third.connect(token=f"{new_user()}/s")


FLOODS = {
    "pongs": frame("3"),
    "unasked acknowledgements": frame('437["x"]'),
    "unknown namespaces": frame("40/nowhere,{}"),
    "websocket pings": frame(b"", opcode=PING),
    "websocket pongs": frame(b"", opcode=PONG_FRAME),
}


@pytest.mark.parametrize("kind", FLOODS)
async def test_a_flood_is_taken_a_few_packets_per_turn_and_then_read_later(
    redis_url: str, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one read of the socket brings is not taken in one turn, and what is over the pace stays unread."""
    user, ticks, per_tick = new_user(), 0, {0: 0}

    def charge(self: Pace, size: int, now: float, /) -> float | None:
        per_tick[ticks] = per_tick.get(ticks, 0) + 1
        return charged(self, size, now)

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async with staged(redis_url) as stage, raw(stage.url) as client:
        await client.connect(token=f"{user}/s")
        await client.event("snapshot")
        (session,) = stage.server.server.eio.sockets.values()
        charged = Pace.charge
        monkeypatch.setattr(Pace, "charge", charge)
        transport = client.ws._response.connection.transport  # type: ignore[union-attr]  # it is open
        transport.write(FLOODS[kind] * 3000)  # type: ignore[union-attr]  # the same
        ticking = asyncio.create_task(tick())
        await until(lambda: session._pace.taken > PACKETS_BURST)
        await until(lambda: session.transport is not None and not session.transport.is_reading())
        ticking.cancel()
        assert max(per_tick.values()) <= TURN_PACKETS
        assert session._pace.taken < PACKETS_BURST + 8 * TURN_PACKETS
        assert not session.closing
        monkeypatch.setattr("realtime.wire.HELD_S", 0.1)
        await client.closed()


async def test_a_post_of_many_packets_is_taken_a_few_per_turn(redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ticks, per_tick = 0, {0: 0}
    taken = Socket.take

    def take(self: Socket, packet: str) -> None:
        per_tick[ticks] = per_tick.get(ticks, 0) + 1
        taken(self, packet)

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    monkeypatch.setattr(Socket, "take", take)
    user = new_user()
    async with staged(redis_url) as stage, aiohttp.ClientSession() as session:
        url = f"{stage.url}/socket.io/?EIO=4&transport=polling"
        async with session.get(url) as response:
            sid = orjson.loads((await response.read())[1:])["sid"]
        async with session.post(f"{url}&sid={sid}", data=f'40{{"token":"{user}/s"}}'):
            await stage.live(user)
        ticking = asyncio.create_task(tick())
        body = "\x1e".join(["3"] * PACKETS_BURST)
        async with session.post(f"{url}&sid={sid}", data=body) as response:
            assert response.status == 200
        ticking.cancel()
        assert max(per_tick.values()) <= TURN_PACKETS
        async with session.post(f"{url}&sid={sid}", data="1") as response:
            assert response.status == 200


async def test_a_stranger_that_says_too_much_is_closed(redis_url: str) -> None:
    async with staged(redis_url) as stage, raw(stage.url) as client:
        transport = client.ws._response.connection.transport  # type: ignore[union-attr]  # it is open
        transport.write(FLOODS["pongs"] * (EARLY_PACKETS + 1))  # type: ignore[union-attr]  # the same
        await client.closed()


@pytest.mark.parametrize(
    "sent",
    [
        '42["e"' + ",[]" * 300 + "]",
        '42["e",' + "[" * 300 + "]" * 300 + "]",
        '42["e",' + '{"a":' * 300 + "1" + "}" * 300 + "]",
    ],
)
async def test_a_packet_of_too_many_parts_is_refused_before_it_is_parsed(
    redis_url: str, sent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with staged(redis_url) as stage, raw(stage.url) as client:
        await client.connect(token=f"{new_user()}/s")
        parsed: list[str] = []
        monkeypatch.setattr("realtime.packets.orjson.loads", parsed.append)
        await client.ws.send_str(sent)
        await client.closed()
        assert not parsed


@pytest.mark.parametrize("sent", ['42["e"]', "40" + '{"token":"' + "x" * 5000 + '"}'])
async def test_a_stranger_s_packet_is_looked_at_before_it_is_parsed(
    redis_url: str, sent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with staged(redis_url) as stage, raw(stage.url) as client:
        parsed: list[str] = []
        monkeypatch.setattr("realtime.packets.orjson.loads", parsed.append)
        await client.ws.send_str(sent)
        await client.closed()
        assert not parsed


async def test_attachments_are_paced_as_packets_are(redis_url: str) -> None:
    async with staged(redis_url) as stage, raw(stage.url) as client:
        await client.connect(token=f"{new_user()}/s")
        (session,) = stage.server.server.eio.sockets.values()
        before = session._pace.taken
        await client.ws.send_str('452-["e"]')
        for _ in range(2):
            await client.ws.send_bytes(bytes(10 * 1024))
        await until(lambda: session._pace.taken == before + 1 + 2 * 11)


async def test_a_socket_is_read_on_however_much_it_has_sent_in_its_life(redis_url: str) -> None:
    """One packet at a time, as pongs and commands come, past every bound of a turn and of a burst."""
    async with staged(redis_url) as stage, raw(stage.url) as client:
        await client.connect(token=f"{new_user()}/s")
        await client.event("snapshot")
        (session,) = stage.server.server.eio.sockets.values()
        for number in range(PACKETS_BURST + 2 * TURN_PACKETS):
            await client.ws.send_str("3")
            await until(lambda number=number: session._pace.taken > number)  # type: ignore[misc]  # bound at once
            session._pace._through = 0.0  # as if each came much later
        assert (await client.call("ack", {"seq": 0}))["ok"]


async def test_the_end_of_a_socket_is_seen_right_after_its_turn(redis_url: str) -> None:
    async with staged(redis_url) as stage, raw(stage.url) as client:
        await client.connect(token=f"{new_user()}/s")
        (session,) = stage.server.server.eio.sockets.values()
        while session._pace._in_turn:
            before = session._pace.taken
            await client.ws.send_str("3")
            await until(lambda before=before: session._pace.taken > before)  # type: ignore[misc]  # bound at once
        await client.ws.close()
        await until(stage.nothing_is_left, 3)
