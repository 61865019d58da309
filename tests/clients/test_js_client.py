from __future__ import annotations

import random
from contextlib import AsyncExitStack

import pytest

from tests.clients.js_client import JsClient, js_client
from tests.realtime.stage import FakePorts, Stage, new_user, staged
from tests.waiting import until

WEBSOCKET = ["websocket"]


async def gone(stage: Stage, client: JsClient) -> None:
    """Disconnect, and wait until the server knows: a client that polls needs requests for it."""
    client.do("disconnect")
    await until(lambda: not stage.server.server.eio.sockets, what="the client has left")


async def live(stage: Stage, client: JsClient, user: str, *, after: int = 0) -> None:
    await client.next("connect", after=after)
    await stage.live(user)


@pytest.mark.parametrize("transports", [["websocket"], ["polling"], ["polling", "websocket"]])
async def test_every_transport_gets_every_event_once_and_in_order(redis_url: str, transports: list[str]) -> None:
    user = new_user()
    async with staged(redis_url) as stage, js_client() as client:
        await client.connect(stage.url, auth={"token": f"{user}/s"}, transports=transports)
        await live(stage, client, user)
        for _ in range(200):
            await stage.tell(user)  # the upgrade happens somewhere in here
        first = (await client.until(lambda: client.events("snapshot")))[0]["args"][0]["seq"] + 1
        await client.until(lambda: len(client.seqs()) == 201 - first)
        assert client.seqs() == list(range(first, 201))
        if len(transports) == 2:
            await client.next("upgrade")
        assert await client.call("join_user_room", user) == {"ok": True, "data": {"room": f"user_{user}"}}
        await gone(stage, client)


@pytest.mark.parametrize("seed", [1, 2])
async def test_official_recovery_survives_cuts_and_a_bad_channel(redis_url: str, seed: int) -> None:
    """Twenty cuts in six hundred events over two servers of one log, with frames lost, doubled and reordered."""
    chance, user, ports, total = random.Random(seed), new_user(), FakePorts(), 600
    async with (
        staged(redis_url, ports, head_check_interval_s=0.2) as one,
        staged(redis_url, ports, head_check_interval_s=0.2) as two,
        js_client() as client,
    ):
        await client.connect(one.url, auth={"token": f"{user}/s"}, transports=WEBSOCKET)
        await live(one, client, user)
        await client.until(lambda: client.events("snapshot"))
        cuts = 0
        for n in range(total):
            frame = one.log.append(user)
            times = chance.choices((0, 1, 2), (5, 90, 5))[0]
            await one.publish(*[frame] * times)
            if n % 30 == 15:
                position = len(client.lines)
                client.do("move", url=chance.choice((one.url, two.url)))
                client.do("cut")
                cuts += 1
                again = await client.next("connect", after=position)
                assert again["recovered"], f"cut {cuts}"
        await client.until(lambda: len(client.seqs()) == total)
        assert client.seqs() == list(range(1, total + 1))
        assert len({line["id"] for line in client.lines if line["is"] == "connect"}) == 1
        assert len(client.events("session")) == cuts + 1
        assert one.server.hub.delivered + two.server.hub.delivered >= total
        assert two.server.hub.delivered > 0
        await gone(one, client)


async def test_recovery_goes_on_after_its_server_was_stopped(redis_url: str) -> None:
    """The client finds the same log behind another process on the same address."""
    user, ports = new_user(), FakePorts()
    async with AsyncExitStack() as stack, js_client() as client:
        async with staged(redis_url, ports) as one:
            await client.connect(one.url, auth={"token": f"{user}/s"}, transports=WEBSOCKET)
            await live(one, client, user)
            await one.tell(user)
            await client.until(lambda: client.seqs() == [1])
            await one.server.stop()
            assert (await client.next("disconnect"))["reason"] == "transport close"
        ports.log.append(user)
        position = len(client.lines)
        two = await stack.enter_async_context(staged(redis_url, ports, port=int(one.url.rpartition(":")[2])))
        assert (await client.next("connect", after=position))["recovered"]
        await client.until(lambda: client.seqs() == [1, 2])
        await gone(two, client)
        assert two.log.snapshots == 1


async def test_a_recovery_beyond_the_log_becomes_a_snapshot_and_says_so(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url, replay_limit=3) as stage, js_client() as client:
        await client.connect(stage.url, auth={"token": f"{user}/s"}, transports=WEBSOCKET)
        await live(stage, client, user)
        await client.until(lambda: client.events("snapshot"))
        position = len(client.lines)
        for _ in range(5):
            stage.log.append(user)
        client.do("cut")
        again = await client.next("connect", after=position)
        assert not again["recovered"]
        assert again["id"] != client.lines[1]["id"]
        await client.until(lambda: len(client.events("snapshot")) == 2)
        assert client.events("snapshot")[1]["args"][0]["seq"] == 5


async def test_without_our_recovery_the_client_has_none(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, js_client() as client:
        auth = {"token": f"{user}/s", "recovery": False}
        await client.connect(stage.url, auth=auth, transports=WEBSOCKET)
        await live(stage, client, user)
        await stage.tell(user)
        await client.until(lambda: client.seqs() == [1])
        assert all(len(event["args"]) == 1 for event in client.events())
        position = len(client.lines)
        stage.log.append(user)
        client.do("auth", auth={**auth, "epoch": stage.log.epoch(user), "since": 1})
        client.do("cut")
        assert not (await client.next("connect", after=position))["recovered"]
        await client.until(lambda: client.seqs() == [1, 2])
        assert client.events("session")[1]["args"][0]["recovered"]


@pytest.mark.parametrize("transports", [["websocket"], ["polling"]])
async def test_a_refusal_is_a_connect_error_with_a_problem(redis_url: str, transports: list[str]) -> None:
    user = new_user()
    async with staged(redis_url) as stage, js_client() as client:
        await client.connect(stage.url, auth={"token": "nobody"}, transports=transports)
        refused = await client.next("connect_error")
        assert (refused["data"]["code"], refused["data"]["status"], refused["active"]) == (
            "unauthenticated",
            401,
            False,
        )
        assert refused["message"] == refused["data"]["title"]
        client.do("auth", auth={"token": f"{user}/s"})
        client.do("reconnect")
        await live(stage, client, user)
        await gone(stage, client)


async def test_a_revoked_session_is_told_why_and_stays_away(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, js_client() as client:
        await client.connect(stage.url, auth={"token": f"{user}/s"}, transports=WEBSOCKET)
        await live(stage, client, user)
        stage.ports.revoked.append("s")
        await stage.server.close_revoked()
        assert (await client.next("disconnect"))["reason"] == "io server disconnect"
        assert client.events("session_closed")[0]["args"][0]["reason"] == "revoked"


async def test_forged_names_and_values_end_the_sender_only(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, js_client() as forger, js_client() as witness:
        for client in (forger, witness):
            await client.connect(
                stage.url, auth={"token": f"{user}/s"}, transports=WEBSOCKET, reconnection=False
            )  # fmt: skip
            await live(stage, client, user)
        forger.do("forge", packet='2["disconnect","forged"]')
        await forger.next("disconnect")
        await stage.tell(user)
        await witness.until(lambda: witness.seqs() == [1])
