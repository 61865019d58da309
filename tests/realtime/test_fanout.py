from __future__ import annotations

import asyncio
import random
import socket
from contextlib import AsyncExitStack
from typing import Any

import orjson
import pytest

from config import metrics
from config.embedded.valkey import Valkey
from realtime import frames
from realtime.fanout import Feed, Hub, Member
from realtime.ports import RequestFacts
from tests.realtime.raw import Raw, raw
from tests.realtime.stage import FakePorts, Stage, new_user, staged
from tests.waiting import until

Frame = tuple[str, bytes]


async def reader(stage: Stage, stack: AsyncExitStack, user: str, *, recovery: bool = True) -> Raw:
    """A socket of a user that is live."""
    client = await stack.enter_async_context(raw(stage.url))
    await client.connect(token=f"{user}/s", recovery=recovery)
    await client.event("snapshot")
    await stage.live(user)
    return client


async def test_every_socket_of_a_user_gets_the_user_s_events_and_nobody_else_does(redis_url: str) -> None:
    mine, other = new_user(), new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        first, second, stranger = [await reader(stage, stack, user) for user in (mine, mine, other)]
        for n in range(10):
            await stage.tell(mine, n=n)
        await stage.tell(other, n=99)
        assert await first.seqs(10) == await second.seqs(10) == list(range(1, 11))
        _, (payload, _) = await stranger.event()
        assert payload["n"] == 99
        assert all(each.server.hub.dropped == 0 for each in [stage])


async def test_an_event_outside_the_log_is_passed_on_as_it_is_and_moves_no_position(redis_url: str) -> None:
    """To the user's sockets, with and without recovery, in its order among the others; nothing else is an event."""
    mine, other = new_user(), new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        first, second = await reader(stage, stack, mine), await reader(stage, stack, mine, recovery=False)
        stranger = await reader(stage, stack, other)
        passing = frames.best_effort("leaderboard_update", {"rank": 3, "progress": 'x","e:9'})
        before = stage.log.append(mine, n=1)
        await stage.publish(
            before, (mine, passing), (mine, b'["session"]'), (mine, b"x}]"), stage.log.append(mine, n=2)
        )
        for client in (first, second):
            names = [(await client.event())[0] for _ in range(3)]
            assert names == ["new_transaction", "leaderboard_update", "new_transaction"]
        await stage.tell(other, n=99)
        assert (await stranger.event())[1][0]["n"] == 99
        assert stage.server.hub.catch_ups == 3  # one when each came


async def test_an_event_outside_the_log_is_not_for_a_socket_that_is_being_brought_up(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        live = await reader(stage, stack, user)
        stage.log.gate = asyncio.Event()
        coming = await stack.enter_async_context(raw(stage.url))
        await coming.connect(token=f"{user}/s")
        await until(lambda: stage.log.snapshots == 2)
        await stage.publish((user, frames.best_effort("leaderboard_update", {"rank": 3})))
        assert (await live.event())[0] == "leaderboard_update"
        stage.log.gate.set()
        assert (await coming.event())[0] == "snapshot"


@pytest.mark.parametrize("seed", range(6))
async def test_lost_doubled_and_reordered_frames_leave_no_hole_and_no_double(redis_url: str, seed: int) -> None:
    chance = random.Random(seed)
    users = [new_user() for _ in range(3)]
    total = 120
    async with staged(redis_url, head_check_interval_s=0.2) as stage, AsyncExitStack() as stack:
        clients = {user: [await reader(stage, stack, user, recovery=chance.random() < 0.5)] for user in users}
        clients[users[0]].append(await reader(stage, stack, users[0]))
        late: list[Frame] = []
        for _ in range(total):
            for user in users:
                frame = stage.log.append(user)
                fate = chance.random()
                if fate < 0.15:
                    continue
                late.insert(chance.randrange(len(late) + 1) if fate < 0.4 else len(late), frame)
                if fate > 0.85:
                    late.append(frame)
            if chance.random() < 0.4:
                await stage.publish(*late)
                late.clear()
        await stage.publish(*late)
        for each in [client for of_user in clients.values() for client in of_user]:
            assert await each.seqs(total) == list(range(1, total + 1))


async def test_a_last_frame_that_was_lost_is_found_by_comparing_heads(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url, head_check_interval_s=0.15) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, user)
        stage.log.append(user)
        assert await client.seqs(1) == [1]
        await stage.tell(user)
        assert await client.seqs(1) == [2]


async def test_a_comparison_repairs_only_what_was_due_at_the_one_before(redis_url: str) -> None:
    """A frame may be on its way between commit and publish: reading the log for each of those would cost more."""
    user = new_user()
    async with staged(redis_url, head_check_interval_s=60) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, user)
        before = stage.server.hub.catch_ups
        stage.log.append(user)
        await stage.server._repair.compare(urgent=False)
        assert stage.server.hub.catch_ups == before
        await stage.server._repair.compare(urgent=False)
        assert stage.server.hub.catch_ups == before + 1
        assert await client.seqs(1) == [1]
        stage.log.append(user)
        await stage.server._repair.compare(urgent=True)
        assert await client.seqs(1) == [2]


async def test_what_was_lost_while_redis_was_away_is_looked_for_when_it_is_back(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url, head_check_interval_s=60) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, user)
        stage.log.append(user)
        stage.server._repair.restored()
        assert await client.seqs(1) == [1]


async def test_while_redis_is_away_events_come_from_the_log_and_sockets_still_connect(private_valkey: Valkey) -> None:
    user, newcomer = new_user(), new_user()
    async with staged(private_valkey.url, head_check_interval_s=60) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, user)
        private_valkey.kill()
        await until(lambda: stage.server._repair.away)
        stage.log.append(user)
        assert await client.seqs(1) == [1]
        late = await reader(stage, stack, newcomer)
        stage.log.append(newcomer)
        assert await late.seqs(1) == [1]
        private_valkey.start()
        await until(lambda: not stage.server._repair.away)
        stage.log.append(user)  # committed while nobody could publish
        await until(lambda: stage.publisher.wake("warm-up"))
        await stage.tell(newcomer)
        assert await late.seqs(1) == [2]
        await stage.tell(user)
        assert await client.seqs(2) == [2, 3]


async def test_redis_away_from_the_start_delays_nothing_but_events(private_valkey: Valkey) -> None:
    private_valkey.stop()
    user = new_user()
    async with staged(private_valkey.url) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, user)
        stage.log.append(user)
        assert await client.seqs(1) == [1]


async def test_a_flush_of_redis_loses_nothing(private_valkey: Valkey) -> None:
    user = new_user()
    async with staged(private_valkey.url) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, user)
        private_valkey.restart()
        await stage.tell(user)
        await stage.tell(user)
        assert await client.seqs(2) == [1, 2]


async def test_a_resync_is_followed_by_a_fresh_snapshot(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        clients = [await reader(stage, stack, user) for _ in range(2)]
        snapshots = stage.log.snapshots
        await stage.tell(user, "resync", reason="backfill")
        await stage.tell(user)
        for client in clients:
            assert (await client.event())[0] == "resync"
            event, (snapshot, offset) = await client.event()
            assert (event, offset) == ("snapshot", f"{stage.log.epoch(user)}:{snapshot['seq']}")
        await stage.live(user)
        await stage.tell(user)
        for client in clients:
            assert (await client.event("new_transaction"))[1][0]["seq"] in {2, 3}
            assert client.events[-1][1][0]["seq"] == client.events[-2][1][0]["seq"] + 1
        assert stage.log.snapshots - snapshots <= 2


async def test_a_resync_in_a_replay_is_followed_by_a_snapshot_and_what_comes_after_it(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, raw(stage.url) as client:
        for event in ("new_transaction", "resync", "new_transaction"):
            stage.log.append(user, event)
        await client.connect(token=f"{user}/s", epoch=stage.log.epoch(user), since=0)
        await stage.live(user)
        await stage.tell(user)
        names = [(await client.event())[0] for _ in range(4)]
        assert names == ["new_transaction", "resync", "snapshot", "new_transaction"]
        assert [arguments[0]["seq"] for _, arguments in client.events[1:]] == [1, 2, 3, 4]


async def test_a_slow_client_is_cut_at_its_budget_and_others_are_on_time(redis_url: str) -> None:
    slow_user, user = new_user(), new_user()
    budget, count, blob = 64 * 1024, 400, "x" * 16_000
    async with staged(redis_url, socket_buffer_bytes=budget) as stage, AsyncExitStack() as stack:
        quick = await reader(stage, stack, user)
        slow = await stack.enter_async_context(not_reading(stage, slow_user))
        await stage.live(slow_user)
        cut = metrics.SOCKETS_CLOSED.labels("slow")._value.get()
        member = next(each for each in stage.server.hub.members() if each.user == slow_user)
        biggest = 0
        for n in range(count):
            await stage.tell(slow_user, blob=blob)
            await stage.tell(user, n=n)
            if member.is_in:
                assert member.socket.transport is not None
                biggest = max(biggest, member.socket.transport.get_write_buffer_size())
        assert await quick.seqs(count) == list(range(1, count + 1))
        await until(lambda: metrics.SOCKETS_CLOSED.labels("slow")._value.get() == cut + 1)
        assert not member.is_in
        assert biggest <= budget
        slow.close()
        resumed = await stack.enter_async_context(raw(stage.url))
        session = await resumed.connect(token=f"{slow_user}/s", epoch=stage.log.epoch(slow_user), since=0)
        assert session["replayed"] == count
        assert await resumed.seqs(count) == list(range(1, count + 1))


def not_reading(stage: Stage, user: str, **auth: Any) -> _Deaf:
    return _Deaf(stage, user, auth)


class _Deaf:
    """A client that connects and then never reads again, its kernel buffer small."""

    def __init__(self, stage: Stage, user: str, auth: dict[str, Any]) -> None:
        self.port = int(stage.url.rpartition(":")[2])
        self.auth = {"token": f"{user}/s", **auth}
        self.sock = socket.socket()

    async def __aenter__(self) -> socket.socket:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        self.sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(self.sock, ("127.0.0.1", self.port))
        await loop.sock_sendall(
            self.sock,
            b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        )
        auth = b"40" + orjson.dumps(self.auth)
        await loop.sock_sendall(self.sock, bytes((0x81, 0xFE, 0, len(auth), 0, 0, 0, 0)) + auth)
        return self.sock

    async def __aexit__(self, *_: object) -> None:
        self.sock.close()


async def test_a_replay_larger_than_the_budget_waits_for_its_reader(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url, socket_buffer_bytes=32 * 1024) as stage, raw(stage.url) as client:
        for _ in range(3000):
            stage.log.append(user, blob="x" * 1000)
        await client.connect(token=f"{user}/s", epoch=stage.log.epoch(user), since=0)
        await stage.tell(user)  # live frames meanwhile only say how far to go
        assert await client.seqs(3001) == list(range(1, 3002))
        assert stage.log.pages > 3_000_000 // (8 * 1024) / 2


async def test_a_replay_stops_for_a_client_that_does_not_read_and_keeps_it(redis_url: str) -> None:
    user, budget = new_user(), 32 * 1024
    async with staged(redis_url, socket_buffer_bytes=budget) as stage, AsyncExitStack() as stack:
        for _ in range(3000):
            stage.log.append(user, blob="x" * 1000)
        await stack.enter_async_context(not_reading(stage, user, epoch=stage.log.epoch(user), since=0))
        member = await until(lambda: next(stage.server.hub.members(), None))
        await until(lambda: member.socket.transport.get_write_buffer_size() > budget // 4)
        for _ in range(50):
            await asyncio.sleep(0)
            assert member.is_in
            assert member.socket.transport.get_write_buffer_size() <= budget
        assert 0 < member.pos < 3000
        assert not member.catching_up.done()


@pytest.mark.parametrize("change", ["epoch", "epoch of as many events", "fewer events"])
async def test_a_log_that_began_anew_closes_its_sockets(redis_url: str, change: str) -> None:
    user = new_user()
    async with staged(redis_url, head_check_interval_s=0.15) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, user)
        await stage.tell(user)
        await stage.tell(user)
        assert await client.seqs(2) == [1, 2]
        if change == "epoch":
            stage.log.restart(user)
        elif change == "fewer events":
            stage.log.entries[user].pop()
        else:
            stage.log.epochs[user] = "f" * 32
        await client.closed()


async def test_a_frame_of_another_epoch_makes_the_log_be_asked_not_believed(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url, head_check_interval_s=60) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, user)
        asked = len(stage.log.queries)
        forged = frames.durable("new_transaction", '{"seq":1}', f"{'0' * 32}:1")
        await stage.publish((user, forged), (user, b"nonsense"), (user, b""), (user, b'["x"]'))
        await until(lambda: len(stage.log.queries) > asked)
        await stage.tell(user)
        assert await client.seqs(1) == [1]
        assert client.events[-1][1][1].startswith(stage.log.epoch(user))


async def test_a_log_that_lags_behind_its_frames_is_asked_again(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, user)
        stage.log.behind = 2
        stage.log.append(user)
        await stage.tell(user)
        await until(lambda: stage.log.pages >= 3)
        stage.log.behind = 0
        assert await client.seqs(2) == [1, 2]


async def test_a_log_with_a_hole_is_never_told_as_if_it_had_none(redis_url: str) -> None:
    """Pruned while a socket was behind: it must not be led past what it did not get."""
    user = new_user()
    async with staged(redis_url, head_check_interval_s=60) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, user)
        for _ in range(5):
            stage.log.append(user)
        stage.log.prune(user, through=3)
        await stage.tell(user)
        await client.closed()
        assert {name for name, _ in client.events} == {"session", "snapshot"}


async def test_a_snapshot_begun_before_a_resync_does_not_answer_it(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, user)
        stage.log.gate = asyncio.Event()
        other = await stack.enter_async_context(raw(stage.url))
        await other.connect(token=f"{user}/s")
        await until(lambda: stage.log.snapshots == 2)
        await stage.tell(user, "resync", reason="rebuild")
        assert (await client.event())[0] == "resync"
        stage.log.gate.set()
        _, (snapshot, _) = await client.event("snapshot")
        assert snapshot["seq"] == 1
        seqs = [(await other.event())[1][0]["seq"] for _ in range(3)]
        assert seqs == [0, 1, 1]


async def test_a_snapshot_of_another_epoch_is_not_shown(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url, head_check_interval_s=60) as stage, raw(stage.url) as client:
        stage.log.append(user)
        snapshot = stage.log.snapshot

        async def after_a_restore(user: str) -> Any:
            stage.log.restart(user)
            return await snapshot(user)

        stage.log.snapshot = after_a_restore  # type: ignore[method-assign]  # the log begins anew in between
        await client.connect(token=f"{user}/s")
        await client.closed()
        assert not [packet for packet in client.packets if packet.startswith('42["snapshot"')]


async def test_a_log_that_never_has_what_was_told_closes_the_socket(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url, head_check_interval_s=60) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, user)
        text = frames.durable("new_transaction", '{"seq":5}', f"{stage.log.epoch(user)}:5")
        await stage.publish((user, text))
        await client.closed()


async def test_a_database_that_is_away_delays_a_replay_and_keeps_its_socket(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, user)
        stage.log.append(user)
        stage.log.failure = OSError("away")
        await stage.tell(user)
        await until(lambda: stage.log.pages >= 2)
        stage.log.failure = None
        assert await client.seqs(2) == [1, 2]


async def test_a_broken_read_closes_the_socket_instead_of_leaving_it_silent(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        client = await reader(stage, stack, user)
        stage.log.append(user)
        stage.log.failure = KeyError("a fault")
        await stage.tell(user)
        await client.closed()
        stage.log.failure = None


async def test_the_subscription_lasts_as_long_as_a_socket_of_the_user(redis_url: str) -> None:
    user, ports = new_user(), FakePorts()
    async with staged(redis_url, ports) as stage:
        subscriber = stage.server._subscriber
        before = await until(lambda: subscriber.channels)  # the revocations'
        async with AsyncExitStack() as stack:
            await reader(stage, stack, user)
            async with AsyncExitStack() as inner:
                await reader(stage, inner, user)
                assert subscriber.channels == before + 1
            await until(lambda: stage.server.hub.feed_of(user).members[1:] == [])  # type: ignore[union-attr]  # it is there
            assert subscriber.channels == before + 1
        await until(lambda: subscriber.channels == before)


class FakeSocket:
    """Notes what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closing = False
        self.owner: Member | None = None

    def send_frame(self, frame: bytes) -> None:
        self.written.append(frame)


class FakeChannels:
    async def subscribe(self, channel: str) -> bool:
        return True

    def unsubscribe(self, channel: str) -> None:
        """Nothing."""


async def _never(_: Member) -> None:
    raise AssertionError("no catch-up is due")


async def small_hub(user: str, sockets: int) -> tuple[Hub, Feed, list[FakeSocket]]:
    hub = Hub(_never)
    hub.channels = FakeChannels()
    feed = hub.hold(user)
    feed.begin("e%1", 0)
    fakes = [FakeSocket() for _ in range(sockets)]
    for n, fake in enumerate(fakes):
        member = Member(
            fake,  # type: ignore[arg-type]  # the part of a socket that delivery uses
            feed,
            sid=str(n),
            session_id="s",
            wants_offsets=n % 2 == 0,
            facts=RequestFacts("", ""),
        )
        member.go_live()
        hub.enter(member)
    await feed.heard
    return hub, feed, fakes


async def test_what_one_read_brings_for_a_socket_is_one_write() -> None:
    user = new_user()
    hub, _, (first, second) = await small_hub(user, 2)
    channel = f"user:{user}".encode()
    texts = [frames.durable("e", f'{{"n":{n}}}', f"e%1:{n}") for n in range(1, 4)]
    for text in [*texts, texts[0], texts[2]]:
        hub.on_message(channel, text)
    assert not first.written
    hub.on_batch()
    assert first.written == [b"".join(frames.event_frame(text) for text in texts)]
    cut = [f'["e",{{"n":{n}}}]'.encode() for n in range(1, 4)]
    assert second.written == [b"".join(frames.event_frame(text) for text in cut)]
    assert (hub.delivered, hub.dropped) == (6, 4)
    hub.on_batch()
    assert len(first.written) == 1


async def test_a_socket_that_ended_in_the_middle_of_a_read_is_not_written_to() -> None:
    user = new_user()
    hub, _, (first,) = await small_hub(user, 1)
    hub.on_message(f"user:{user}".encode(), frames.durable("e", "{}", "e%1:1"))
    first.closing = True
    hub.on_batch()
    assert not first.written
    assert hub.delivered == 0
