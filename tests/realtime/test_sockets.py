from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest
import socketio

from config import keys
from realtime import chains
from realtime.ports import RequestFacts
from realtime.sockets import REVOCATIONS_S
from tests.realtime.raw import Raw, raw
from tests.realtime.stage import FakeHeights, FakePorts, Stage, new_user, staged
from tests.waiting import until


async def reader(stage: Stage, stack: AsyncExitStack, token: str, **headers: str) -> Raw:
    client = await stack.enter_async_context(raw(stage.url, headers=headers))
    await client.connect(token=token)
    await client.event("snapshot")
    await stage.live(token.partition("/")[0])
    return client


async def test_own_rooms_are_joined_in_any_letter_case(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, f"{user}/s")
        loud = "0x" + user[2:].upper()
        answer = await client.call("join_user_room", loud)
        assert answer == {"ok": True, "data": {"room": f"user_{user}"}}
        answer = await client.call("subscribe_notifications", {"userId": user})
        assert answer == {"ok": True, "data": {"room": f"notifications_{user}"}}
        assert stage.server.server.rooms(client.answer["sid"]) == [
            client.answer["sid"],
            keys.user_room(user),
            keys.notifications_room(user),
        ]
        assert not stage.ports.refused


@pytest.mark.parametrize("command", ["join_user_room", "subscribe_notifications"])
async def test_another_user_s_room_is_refused_and_audited(redis_url: str, command: str) -> None:
    user, victim = new_user(), new_user()
    async with staged(redis_url, trusted_proxies=("127.0.0.0/8",)) as stage, AsyncExitStack() as stack:
        headers = {"X-Forwarded-For": "203.0.113.7", "User-Agent": "a phone"}
        client = await reader(stage, stack, f"{user}/s", **headers)
        await reader(stage, stack, f"{victim}/s")
        answer = await client.call(command, victim)
        assert (answer["ok"], answer["error"]["code"], answer["error"]["status"]) == (False, "forbidden", 403)
        room = f"{'user' if command == 'join_user_room' else 'notifications'}_{victim}"
        assert stage.ports.refused == [(user, room, RequestFacts("203.0.113.7", "a phone"))]
        await stage.tell(victim)
        await stage.tell(user, mine=True)
        _, (payload, _) = await client.event()
        assert payload["mine"]


async def test_the_server_itself_cannot_put_a_socket_into_another_user_s_room(redis_url: str) -> None:
    user, victim = new_user(), new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, f"{user}/s")
        for room in (keys.user_room(victim), keys.notifications_room(victim)):
            with pytest.raises(ValueError, match="another user"):
                await stage.server.server.enter_room(client.answer["sid"], room)
        assert victim not in str(stage.server.server.rooms(client.answer["sid"]))


async def test_a_plain_emit_to_a_user_s_room_reaches_the_same_sockets_once(redis_url: str) -> None:
    user, other = new_user(), new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        first, second, stranger = [await reader(stage, stack, f"{each}/s") for each in (user, user, other)]
        sio = stage.server.server
        both = [keys.user_room(user), keys.notifications_room(user)]
        await sio.emit("leaderboard_update", {"rank": 1}, room=both)
        await sio.emit("leaderboard_update", {"rank": 2}, to=keys.user_room(user), skip_sid=second.answer["sid"])
        await sio.emit("leaderboard_update", {"rank": 3})
        await sio.emit("leaderboard_update", {"rank": 4}, to=stranger.answer["sid"])
        for client, ranks in ((first, [1, 2, 3]), (second, [1, 3]), (stranger, [3, 4])):
            assert [(await client.event())[1][0]["rank"] for _ in ranks] == ranks
        with pytest.raises(ValueError, match="ends in a string"):
            await sio.emit("note", "looks like an offset", room=both)


async def test_a_socket_that_leaves_its_room_hears_no_more(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client, other = [await reader(stage, stack, f"{user}/s") for _ in range(2)]
        await stage.server.server.leave_room(client.answer["sid"], keys.user_room(user))
        await stage.tell(user)
        assert await other.seqs(1) == [1]
        assert (await client.call("ack", {"seq": 0}))["ok"]
        assert "new_transaction" not in dict(client.events)


async def test_an_ack_is_stored_up_to_the_end_of_the_log(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, f"{user}/s1")
        await stage.tell(user)
        await client.seqs(1)
        stage.log.append(user)  # committed, not told yet: another device may have shown it
        for seq in (0, 1, 2):
            assert await client.call("ack", {"seq": seq}) == {"ok": True, "data": {"seq": seq}}
        for bad in (3, -1, 1.5, "1", True, None, 1 << 60):
            answer = await client.call("ack", {"seq": bad})
            assert answer["error"]["code"] == "invalid_request", bad
        assert stage.ports.acks == [(user, "s1", seq) for seq in (0, 1, 2)]


@pytest.mark.parametrize(
    ("name", "arguments", "pointer"),
    [
        ("no_such_command", [], None),
        ("ack", [], "/seq"),
        ("ack", [{"seq": 1, "more": 1}], "/more"),
        ("ack", [{"seq": 1}, {"seq": 2}], None),
        ("ack", [[1]], ""),
        ("ack", ["1"], ""),
        ("join_user_room", ["0x12"], "/userId"),
        ("join_user_room", [{"userId": 5}], "/userId"),
        ("join_user_room", [None], "/userId"),
        ("renew", [{"token": ""}], "/token"),
    ],
)
async def test_a_malformed_command_names_its_fault(
    redis_url: str, name: str, arguments: list[Any], pointer: str | None
) -> None:
    user = new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, f"{user}/s")
        answer = await client.call(name, *arguments)
        assert (answer["ok"], answer["error"]["code"]) == (False, "invalid_request")
        assert [each["pointer"] for each in answer["error"]["errors"]] == ([] if pointer is None else [pointer])


async def test_a_command_without_acknowledgement_is_done_in_silence(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, f"{user}/s")
        await client.ws.send_str('42["ack",{"seq":0}]')
        await client.ws.send_str('42["nonsense"]')
        assert (await client.call("ack", {"seq": 0}))["ok"]
        assert len(stage.ports.acks) == 2
        assert [packet for packet in client.packets if packet.startswith("43")] == [client.packets[-1]]


async def test_commands_of_one_socket_are_answered_in_order_and_a_flood_is_refused(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, f"{user}/s")
        go = asyncio.Event()

        async def acked(user: str, session_id: str, seq: int) -> None:
            await go.wait()

        stage.ports.acked = acked  # type: ignore[method-assign]  # one that takes its time
        for n in range(40):
            await client.ws.send_str(f'42{n}["ack",{{"seq":0}}]')
        refused = [await client.packet() for _ in range(7)]
        assert all(packet is not None and '"rate_limited"' in packet for packet in refused)
        go.set()
        answered = [await client.packet() for _ in range(33)]
        assert [int(str(packet)[2:].partition("[")[0]) for packet in answered] == list(range(33))


async def test_commands_are_limited_per_user(redis_url: str) -> None:
    user, ports = new_user(), FakePorts(calls_left=2)
    async with staged(redis_url, ports) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, f"{user}/s")
        codes = [(await client.call("ack", {"seq": 0})).get("error", {}).get("code") for _ in range(3)]
        assert codes == [None, None, "rate_limited"]


@pytest.mark.parametrize(("failure", "code"), [(OSError("away"), "unavailable"), (KeyError("secret"), "internal")])
async def test_a_failing_command_is_told_without_its_insides(redis_url: str, failure: Exception, code: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, f"{user}/s")

        async def acked(user: str, session_id: str, seq: int) -> None:
            raise failure

        stage.ports.acked = acked  # type: ignore[method-assign]  # one that fails
        answer = await client.call("ack", {"seq": 0})
        assert answer["error"]["code"] == code
        assert "secret" not in str(answer)


async def test_an_expired_token_closes_the_socket_with_a_reason(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, f"{user}/s+0.2")
        _, (closed,) = await client.event("session_closed")
        assert (closed["reason"], closed["error"]["code"]) == ("token_expired", "token_expired")
        assert await client.packet() == "41"
        await client.closed()


async def test_a_renewed_token_keeps_the_socket_and_moves_it_to_its_sign_in(redis_url: str) -> None:
    user, other = new_user(), new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, f"{user}/s1+1")
        refused = await client.call("renew", {"token": f"{other}/s2"})
        assert refused["error"]["code"] == "forbidden"
        assert (await client.call("renew", {"token": "nobody"}))["error"]["code"] == "unauthenticated"
        renewed = await client.call("renew", {"token": f"{user}/s2+3600"})
        assert renewed["ok"]
        assert renewed["data"]["expiresAt"].endswith("Z")
        member = stage.server.hub.of_session("s2")[0]
        assert member.expiry is not None
        assert member.expiry.when() - asyncio.get_running_loop().time() > 3000
        assert not stage.server.hub.of_session("s1")
        stage.ports.revoked.append("s1")
        await stage.server.close_revoked()
        await stage.tell(user)
        assert await client.seqs(1) == [1]


async def test_a_revoked_session_s_sockets_close_on_every_node_and_no_others(redis_url: str) -> None:
    user, ports = new_user(), FakePorts()
    async with staged(redis_url, ports) as one, staged(redis_url, ports) as two, AsyncExitStack() as stack:
        clients = [await reader(stage, stack, f"{user}/s1") for stage in (one, one, two)]
        spared = await reader(two, stack, f"{user}/s2")
        await until(lambda: one.server._subscriber.connected)
        ports.revoked.append("s1")
        await one.publisher.wake(keys.REVOCATIONS)
        for client in clients:
            _, (closed,) = await client.event("session_closed")
            assert (closed["reason"], closed["error"]["code"]) == ("revoked", "unauthenticated")
            assert await client.packet() == "41"
            await client.closed()
        await one.tell(user)
        assert await spared.seqs(1) == [1]


async def test_a_revocation_whose_wake_up_was_lost_is_found_by_looking(redis_url: str) -> None:
    user, ports = new_user(), FakePorts()
    async with staged(redis_url, ports) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, f"{user}/s1")
        ports.failure = OSError("away for a moment")
        ports.revoked.append("s1")
        ports.failure = None
        async with asyncio.timeout(REVOCATIONS_S * 2):
            await client.event("session_closed")
        await client.closed()


async def test_a_look_at_revocations_that_failed_is_made_up_for(redis_url: str) -> None:
    async with staged(redis_url) as stage:
        looks: list[Any] = []

        async def revoked_since(since: Any) -> list[str]:
            looks.append(since)
            if len(looks) == 1:
                raise OSError("away")
            return []

        stage.ports.revoked_since = revoked_since  # type: ignore[method-assign]  # one that notes how it is asked
        stage.server._auth = stage.ports
        with pytest.raises(OSError, match="away"):
            await stage.server.close_revoked()
        await stage.server.close_revoked()
        await stage.server.close_revoked()
        assert looks[0] == looks[1] < looks[2]


async def test_one_socket_too_many_replaces_the_oldest(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url, max_sockets_per_user=2) as stage, AsyncExitStack() as stack:
        oldest, middle, newest = [await reader(stage, stack, f"{user}/s") for _ in range(3)]
        await oldest.closed()
        assert oldest.packets[-1] == "41"
        await stage.tell(user)
        assert await middle.seqs(1) == await newest.seqs(1) == [1]


async def test_chain_status_follows_session_and_then_only_what_is_not_final(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chains, "TICK_S", 0.05)
    user, idle = new_user(), new_user()
    ports = FakePorts(chain_heights={1: FakeHeights(10, 8, 5, 2), 2: FakeHeights(7, 7, 7)}, pending={user: {1: 9}})
    async with staged(redis_url, ports) as stage, AsyncExitStack() as stack:
        await until(lambda: len(stage.server._chains._frames) == 2)
        client, other = [await reader(stage, stack, f"{each}/s") for each in (user, idle)]
        for each in (client, other):
            names = [name for name, _ in each.events]
            assert names == ["session", "chain_status", "chain_status", "snapshot"]
            status = each.events[1][1][0]
            at = status.pop("at")
            assert at.endswith("Z")
            assert status == {"chainId": 1, "head": 10, "confirmed": 8, "finalized": 5, "lagBlocks": 2}
        await until(lambda: stage.server._chains.waiting == 1)
        for head, finalized in ((11, 6), (20, 12), (30, 25)):
            ports.chain_heights = {1: FakeHeights(head, head, finalized), 2: FakeHeights(head, head, head)}
            await block(stage, 1, head, [])
            if head < 30:
                _, (status,) = await client.event("chain_status")
                assert (status["chainId"], status["head"], status["finalized"]) == (1, head, finalized)
        await until(lambda: stage.server._chains._heights[1].head == 30)
        assert stage.server._chains.waiting == 0
        await block(stage, 2, 31, [idle])
        ports.chain_heights = {1: FakeHeights(31, 31, 26), 2: FakeHeights(32, 32, 30)}
        _, (status,) = await other.event("chain_status")
        assert (status["chainId"], status["head"]) == (2, 32)


async def test_sockets_that_were_there_before_the_first_heights_are_told_them(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chains, "TICK_S", 0.05)
    user, ports = new_user(), FakePorts()
    async with staged(redis_url, ports) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, f"{user}/s")
        ports.chain_heights = {1: FakeHeights(10, 8, 5)}
        stage.server._chains._has_blocks = True
        stage.server._chains._woken.set()
        _, (status,) = await client.event("chain_status")
        assert status["head"] == 10


async def test_a_user_whose_block_was_not_heard_is_found_by_asking(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(chains, "TICK_S", 0.05)
    monkeypatch.setattr(chains, "IDLE_S", 0.1)
    user, ports = new_user(), FakePorts(chain_heights={1: FakeHeights(10, 8, 5)})
    async with staged(redis_url, ports) as stage, AsyncExitStack() as stack:
        await until(lambda: stage.server._chains._frames)
        client = await reader(stage, stack, f"{user}/s")
        ports.pending = {user: {1: 11}}
        await until(lambda: stage.server._chains.waiting == 1)
        ports.chain_heights = {1: FakeHeights(11, 9, 6)}
        await client.event("chain_status")
        assert client.events[-1][1][0]["head"] == 11


async def block(stage: Stage, chain_id: int, number: int, users: list[str]) -> None:
    text = f'{{"chainId":{chain_id},"number":{number},"kind":"apply","users":{users}}}'.replace("'", '"')
    await stage.publisher.publish([], [(chain_id, b"nonsense"), (chain_id, text.encode())])


async def test_a_stop_closes_sockets_so_that_they_come_back_and_takes_no_more(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, f"{user}/s")
        stopping = asyncio.create_task(stage.server.stop())
        await client.closed()
        assert client.packets[-1][:2] != "41"  # a DISCONNECT would keep clients from coming back
        assert client.ws.close_code == 1000
        await stopping
        with pytest.raises(Exception, match="503"):
            await stack.enter_async_context(raw(stage.url))


async def test_python_s_own_client_gets_its_events(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage:
        for transports in (["websocket"], ["polling"], ["polling", "websocket"]):
            seen = Seen()
            client = socketio.AsyncClient(reconnection=False)
            client.on("*", seen.take)
            auth = {"token": f"{user}/s", "recovery": False}
            await client.connect(stage.url, auth=auth, transports=transports)
            await until(lambda: seen.has(2))  # noqa: B023 - awaited at once
            await stage.live(user)
            for _ in range(30):
                await stage.tell(user)
            await until(lambda: seen.has(32))  # noqa: B023 - awaited at once
            assert seen.names[:2] == ["session", "snapshot"]
            first = seen.payloads[1]["seq"] + 1
            assert [payload["seq"] for payload in seen.payloads[2:]] == list(range(first, first + 30))
            answer = await client.call("join_user_room", user)
            assert answer == {"ok": True, "data": {"room": f"user_{user}"}}
            await client.disconnect()


class Seen:
    """Events of a python-socketio client, whose handlers take one argument."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.payloads: list[dict[str, Any]] = []

    def take(self, event: str, payload: dict[str, Any]) -> None:
        self.names.append(event)
        self.payloads.append(payload)

    def has(self, count: int) -> bool:
        return len(self.names) == count


async def test_python_s_own_client_is_told_why_it_is_refused(redis_url: str) -> None:
    async with staged(redis_url) as stage:
        told: list[Any] = []
        client = socketio.AsyncClient(reconnection=False)
        client.on("connect_error", told.append)
        with pytest.raises(socketio.exceptions.ConnectionError):
            await client.connect(stage.url, auth={"token": "nobody"}, transports=["websocket"])
        assert told[0]["data"]["code"] == "unauthenticated"
        await client.shutdown()
