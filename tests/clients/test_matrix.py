"""Official clients from 4.0 to the newest, over each transport; older protocols are told why they may not in."""

from __future__ import annotations

import asyncio

import aiohttp
import pytest

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
    """Session, snapshot, live events in order, acknowledgements; binary ends that client only."""
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
    await _binary_ends_the_sender_only(stage, client, witness, user)
    witness.do("disconnect")


async def _binary_ends_the_sender_only(stage: Stage, client: Told, witness: Told, user: str) -> None:
    client.do("binary", name="join_user_room")
    await client.next("disconnect")
    await stage.tell(user)
    await until(lambda: witness.durable() == list(range(1, EVENTS + 2)), what="the witness goes on")
    assert witness.is_connected
    assert client.durable() == list(range(1, EVENTS + 1))


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


async def test_older_protocols_are_refused_with_a_clear_message(redis_url: str) -> None:
    """Client 2.x (Engine.IO 3): the answer names the reason; its error shows the status, which is all it reads."""
    async with staged(redis_url) as stage, many_clients() as many:
        by_polling = many.connect(stage.url, module=TOO_OLD, transports=["polling"], reconnection=False)
        by_websocket = many.connect(stage.url, module=TOO_OLD, transports=["websocket"], reconnection=False)
        assert (await by_polling.next("connect_error"))["status"] == 400
        assert (await by_websocket.next("connect_error"))["message"] == "websocket error"
        assert not by_polling.all("connect")
        async with aiohttp.ClientSession() as session:
            for old in ("1", "2", "3"):
                async with session.get(f"{stage.url}/socket.io/?EIO={old}&transport=polling") as answer:
                    assert answer.status == 400
                    assert await answer.json() == {"code": 5, "message": "Unsupported protocol version"}
