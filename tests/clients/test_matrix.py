"""Official clients from 4.0 to the newest, over each transport; older protocols are told why they may not in."""

from __future__ import annotations

import asyncio

import aiohttp
import orjson
import pytest

from config import metrics
from tests.clients.many import NEWEST, Many, Told, many_clients
from tests.realtime.stage import Stage, new_user, staged
from tests.waiting import until

VERSIONS = (
    "client-3-1",
    "client-4-0",
    "client-4-1",
    "client-4-2",
    "client-4-3",
    "client-4-4",
    "client-4-5",
    "client-4-6",
    "client-4-7",
    NEWEST,
)
"""3.1 speaks the same protocols as 4.x (Engine.IO 4, Socket.IO 5)."""
TOO_OLD = "client-2-5"
EVENTS = 8


async def one_life(stage: Stage, many: Many, module: str, transports: list[str]) -> None:
    """Session, snapshot, live events in order, acknowledgements, binary."""
    user = new_user()
    options = {"auth": {"token": f"{user}/s"}, "transports": transports, "reconnection": False}
    client = many.connect(stage.url, module=module, **options)
    witness = many.connect(stage.url, module=module, **options)
    await until(lambda: len(client.events()) > 1 < len(witness.events()), what=f"{module}: snapshot")
    for each in (client, witness):
        assert [name for name, _ in each.events()][:2] == ["session", "snapshot"]
    if len(transports) == 2:
        assert (await client.next("upgrade"))["transport"] == "websocket"
    else:
        assert client.all("connect")[0]["transport"] == transports[0]
    for _ in range(EVENTS):
        await stage.tell(user)
    await until(lambda: all(len(each.durable()) == EVENTS for each in (client, witness)), what=f"{module}: live events")
    assert client.durable() == list(range(1, EVENTS + 1))
    assert await client.call("join_user_room", user) == {"ok": True, "data": {"room": f"user_{user}"}}
    refused = await client.call("join_user_room", new_user())
    assert (refused["ok"], refused["error"]["status"]) == (False, 403)
    await _binary_goes_both_ways(stage, client, witness, user)
    for each in (client, witness):
        each.do("disconnect")


def _blobs(client: Told) -> list[list[int]]:
    return [payload["bytes"]["data"] for name, payload in client.events() if name == "blob"]


async def _binary_goes_both_ways(stage: Stage, client: Told, witness: Told, user: str) -> None:
    """No command takes bytes: that is said in the acknowledgement, and the socket goes on."""
    refused = await client.call_with_bytes("join_user_room")
    assert (refused["ok"], refused["error"]["code"]) == (False, "invalid_request")
    await stage.server.server.emit("blob", {"bytes": b"\1\2"}, room=f"user_{user}")
    await until(lambda: all(_blobs(each) == [[1, 2]] for each in (client, witness)), what="the blob")
    await stage.tell(user)
    await until(
        lambda: all(each.durable() == list(range(1, EVENTS + 2)) for each in (client, witness)), what="they go on"
    )


@pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]], ids="-".join)
async def test_every_version_is_served_on_every_transport(redis_url: str, transports: list[str]) -> None:
    async with staged(redis_url) as stage, many_clients() as many:
        await asyncio.gather(*(one_life(stage, many, module, transports) for module in VERSIONS))


@pytest.mark.parametrize("version", [module for module in VERSIONS if module >= "client-4-6"])
async def test_versions_with_recovery_recover(redis_url: str, version: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, many_clients() as many:
        client = many.connect(stage.url, module=version, auth={"token": f"{user}/s"}, transports=["websocket"])
        await until(lambda: client.events()[1:], what="the snapshot")
        stage.log.append(user)
        for socket in list(stage.server.server.eio.sockets.values()):
            socket.end("transport error", "now")
        await until(lambda: client.durable() == [1], what="the missed event")
        assert [line["recovered"] for line in client.all("connect")] == [False, True]
        client.do("disconnect")


@pytest.mark.parametrize("transport", ["polling", "websocket"])
async def test_an_older_client_is_told_to_update_and_stays_away(redis_url: str, transport: str) -> None:
    """Client 2.5 (Engine.IO 3), with its own reconnection on: the application gets the reason, and no second try."""
    async with staged(redis_url) as stage, many_clients() as many:
        refused = metrics.SOCKETS_CLOSED.labels("outdated")._value
        before = refused.get()
        client = many.connect(stage.url, module=TOO_OLD, transports=[transport])
        error = (await client.next("error"))["error"]
        assert error["message"].startswith("Update this client")
        assert error["data"]["code"] == "unsupported_protocol"
        assert error["data"]["status"] == 400
        assert (await client.next("disconnect"))["reason"] == "io server disconnect"
        # Another one comes and goes meanwhile; the first one would have come back within its 50 ms.
        newer = many.connect(stage.url, auth={"token": f"{new_user()}/s"}, transports=["websocket"])
        await until(lambda: newer.events()[1:], what="the snapshot")
        newer.do("disconnect")
        await until(stage.nothing_is_left)
        assert refused.get() == before + 1
        assert not client.all("connect")


@pytest.mark.parametrize("query", ["", "EIO=", "EIO=5", "EIO=abc", "EIO=0", "EIO=33"])
async def test_no_protocol_of_any_client_is_refused_as_the_reference_server_does(redis_url: str, query: str) -> None:
    async with (
        staged(redis_url) as stage,
        aiohttp.ClientSession() as session,
        session.get(f"{stage.url}/socket.io/?transport=polling&{query}") as answer,
    ):
        assert answer.status == 400
        assert await answer.json() == {"code": 5, "message": "Unsupported protocol version"}


@pytest.mark.parametrize("version", ["1", "2", "3"])
async def test_an_older_client_is_told_in_the_form_of_its_protocol(redis_url: str, version: str) -> None:
    """Lengths before packets; an OPEN without upgrades, the error, the end. Each takes its place at the door."""
    async with staged(redis_url, connect_limit_per_minute=2) as stage, aiohttp.ClientSession() as session:
        url = f"{stage.url}/socket.io/?EIO={version}&transport=polling"
        async with session.get(url, headers={"Origin": "https://app.example"}) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "https://app.example"
            body = await answer.text()
        packets = []
        while body:
            size, _, rest = body.partition(":")
            packets.append(rest[: int(size)])
            body = rest[int(size) :]
        assert [packet[:2] for packet in packets] == ["0{", "44", "41"]
        assert orjson.loads(packets[0][1:])["upgrades"] == []
        async with session.ws_connect(url.replace("polling", "websocket")) as ws:
            assert [(await ws.receive()).data[:2] for _ in range(3)] == ["0{", "44", "41"]
            assert (await ws.receive()).type is aiohttp.WSMsgType.CLOSE
        async with session.get(url) as answer:
            assert answer.status == 429
        assert stage.server.server.eio.rules.door.waiting == 0
