from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from handlers.errors import Problem, TokenExpired, Unavailable
from realtime.resume import Handshake, Pids, Position, claimed, reachable
from store.records import Head
from tests.realtime.raw import Raw, raw
from tests.realtime.stage import FakePorts, Stage, new_user, staged
from tests.waiting import until

EPOCH = "e" * 32


async def connected(stage: Stage, stack: AsyncExitStack, **auth: Any) -> tuple[Raw, dict[str, Any]]:
    client = await stack.enter_async_context(raw(stage.url))
    return client, await client.connect(**auth)


async def test_first_connect_gets_session_then_snapshot_then_live_events(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, raw(stage.url) as client:
        for _ in range(3):
            stage.log.append(user)
        session = await client.connect(token=f"{user}/s1")
        epoch = stage.log.epoch(user)
        assert session["serverTime"].endswith("Z")
        del session["serverTime"]
        assert session == {"userId": user, "epoch": epoch, "seq": 3, "recovered": False, "replayed": 0}
        assert await client.event() == ("snapshot", [{"seq": 3, "balances": []}, f"{epoch}:3"])
        await stage.live(user)
        await stage.tell(user, amount="1")
        event, (payload, offset) = await client.event()
        assert (event, payload["seq"], payload["amount"], offset) == ("new_transaction", 4, "1", f"{epoch}:4")


async def test_resume_by_since_replays_what_was_missed_then_goes_live(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, raw(stage.url) as client:
        for _ in range(1200):
            stage.log.append(user)
        session = await client.connect(token=f"{user}/s", epoch=stage.log.epoch(user), since=150)
        assert (session["recovered"], session["replayed"], session["seq"]) == (True, 1050, 1200)
        assert await client.seqs(1050) == list(range(151, 1201))
        await stage.live(user)
        await stage.tell(user)
        assert await client.seqs(1) == [1201]
        assert stage.log.snapshots == 0


async def test_a_client_that_missed_nothing_gets_no_read_of_the_log(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, raw(stage.url) as client:
        stage.log.append(user)
        session = await client.connect(token=f"{user}/s", epoch=stage.log.epoch(user), since=1)
        assert (session["recovered"], session["replayed"]) == (True, 0)
        await stage.tell(user)
        assert await client.seqs(1) == [2]
        assert (stage.log.pages, stage.log.snapshots) == (0, 0)


@pytest.mark.parametrize(
    ("claim", "prune"),
    [
        ({"since": 3, "epoch": "f" * 32}, 0),
        ({"since": 11}, 0),
        ({"since": 2}, 4),
        ({"since": 3}, 0),
        ({"since": 10, "epoch": None}, 0),
    ],
    ids=["another epoch", "beyond the log", "pruned", "more than the limit", "no epoch"],
)
async def test_what_cannot_be_replayed_becomes_a_snapshot(redis_url: str, claim: dict[str, Any], prune: int) -> None:
    user = new_user()
    async with staged(redis_url, replay_limit=6) as stage, raw(stage.url) as client:
        for _ in range(10):
            stage.log.append(user)
        stage.log.prune(user, through=prune)
        session = await client.connect(token=f"{user}/s", **{"epoch": stage.log.epoch(user), **claim})
        assert (session["recovered"], session["replayed"]) == (False, 0)
        event, (snapshot, _) = await client.event()
        assert (event, snapshot["seq"]) == ("snapshot", 10)
        await stage.live(user)
        await stage.tell(user)
        assert await client.seqs(1) == [11]


async def test_the_last_position_that_pruning_leaves_is_still_resumed(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, raw(stage.url) as client:
        for _ in range(10):
            stage.log.append(user)
        stage.log.prune(user, through=4)
        session = await client.connect(token=f"{user}/s", epoch=stage.log.epoch(user), since=4)
        assert session["recovered"]
        assert await client.seqs(6) == list(range(5, 11))


async def test_without_recovery_no_event_has_an_offset_and_no_pid_is_given(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        stage.log.append(user)
        auth = {"token": f"{user}/s", "recovery": False}
        first, _ = await connected(stage, stack, **auth)
        assert set(first.answer) == {"sid"}
        assert await first.event() == ("snapshot", [{"seq": 1, "balances": []}])
        await stage.live(user)
        await stage.tell(user, note='ends in ","quote"')
        _, arguments = await first.event()
        assert len(arguments) == 1
        assert arguments[0]["note"] == 'ends in ","quote"'
        second, session = await connected(stage, stack, epoch=stage.log.epoch(user), since=1, **auth)
        assert session["recovered"]
        assert await second.event() == ("new_transaction", arguments)


async def test_official_recovery_keeps_sid_and_pid_and_closes_the_old_socket_first(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        stage.log.append(user)
        old, _ = await connected(stage, stack, token=f"{user}/s")
        _, (_, offset) = await old.event("snapshot")
        for _ in range(5):
            stage.log.append(user)
        # `offset` wins over `since`, which a client of ours may send beside it.
        auth = {"token": f"{user}/s", "pid": old.answer["pid"], "offset": offset, "since": 5}
        new, session = await connected(stage, stack, epoch=stage.log.epoch(user), **auth)
        await old.closed()
        assert new.answer == old.answer
        assert (session["recovered"], session["replayed"]) == (True, 5)
        assert await new.seqs(5) == [2, 3, 4, 5, 6]
        await stage.tell(user)
        assert await new.seqs(1) == [7]


async def test_official_recovery_on_another_node_closes_the_old_socket_there(redis_url: str) -> None:
    user, ports = new_user(), FakePorts()
    async with staged(redis_url, ports) as one, staged(redis_url, ports) as two, AsyncExitStack() as stack:
        old, _ = await connected(one, stack, token=f"{user}/s")
        bystander, _ = await connected(one, stack, token=f"{user}/s")
        _, (_, offset) = await old.event("snapshot")
        await bystander.event("snapshot")
        await one.tell(user)
        new, session = await connected(two, stack, token=f"{user}/s", pid=old.answer["pid"], offset=offset)
        assert session["recovered"]
        assert await new.seqs(1) == [1]
        await old.closed()
        await one.tell(user)
        assert await new.seqs(1) == [2]
        assert await bystander.seqs(2) == [1, 2]


@pytest.mark.parametrize("whose", ["stranger", "garbage", "pruned"])
async def test_a_recovery_that_fails_gets_a_new_sid_and_pid(redis_url: str, whose: str) -> None:
    user, stranger = new_user(), new_user()
    async with staged(redis_url) as stage, AsyncExitStack() as stack:
        for _ in range(4):
            stage.log.append(user)
        old, _ = await connected(stage, stack, token=f"{stranger if whose == 'stranger' else user}/s")
        offset = f"{stage.log.epoch(user)}:1"
        if whose == "pruned":
            stage.log.prune(user, through=3)
        pid = "x.y" if whose == "garbage" else old.answer["pid"]
        new, session = await connected(stage, stack, token=f"{user}/s", pid=pid, offset=offset)
        assert not session["recovered"]
        assert new.answer["sid"] != old.answer["sid"]
        assert new.answer["pid"] != pid
        _, (_, offset) = await new.event("snapshot")
        assert offset.endswith(":4")
        if whose == "stranger":
            await stage.tell(stranger)
            await old.event("snapshot")
            assert await old.seqs(1) == [1]


async def test_events_that_come_while_the_snapshot_is_read_follow_it_without_a_hole(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage, raw(stage.url) as client:
        stage.log.gate = asyncio.Event()
        await client.connect(token=f"{user}/s")
        await until(lambda: stage.log.snapshots)
        for _ in range(20):
            await stage.tell(user)
        lost = stage.log.append(user)
        stage.log.gate.set()
        _, (snapshot, _) = await client.event("snapshot")
        await stage.live(user)
        await stage.tell(user)
        await stage.publish(lost)
        seqs = await client.seqs(22 - snapshot["seq"])
        assert seqs == list(range(snapshot["seq"] + 1, 23))


async def test_an_event_between_the_head_and_the_registration_is_not_lost(redis_url: str) -> None:
    """The frame is heard while the head is on its way, and the head does not know it."""
    user = new_user()
    async with staged(redis_url, head_check_interval_s=60) as stage, raw(stage.url) as client:
        stage.log.append(user)
        heads = stage.log.heads

        async def slow_heads(users: Any) -> Any:
            found = await heads(users)
            if user in users:
                await stage.tell(user)
                feed = stage.server.hub.feed_of(user)
                assert feed is not None
                await until(lambda: feed.hint)
            return found

        stage.log.heads = slow_heads  # type: ignore[method-assign]  # the one read that is held up
        session = await client.connect(token=f"{user}/s", epoch=stage.log.epoch(user), since=1)
        assert session["seq"] == 1
        assert await client.seqs(1) == [2]


async def test_a_second_connect_in_a_new_epoch_closes_the_older_socket_not_itself(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url, head_check_interval_s=60) as stage, AsyncExitStack() as stack:
        stage.log.append(user)
        old, before = await connected(stage, stack, token=f"{user}/s")
        await stage.live(user)
        stage.log.restart(user)
        new, after = await connected(stage, stack, token=f"{user}/s", epoch=before["epoch"], since=1)
        assert after["epoch"] != before["epoch"]
        assert not after["recovered"]
        await old.closed()
        await new.event("snapshot")
        await stage.live(user)
        await stage.tell(user)
        assert await new.seqs(1) == [1]


@pytest.mark.parametrize(
    ("auth", "code"),
    [
        ({}, "unauthenticated"),
        ({"token": ""}, "unauthenticated"),
        ({"token": "nobody"}, "unauthenticated"),
        ({"token": 5}, "invalid_request"),
        ({"token": "0xaa/s", "since": -1, "epoch": EPOCH}, "invalid_request"),
        ({"token": "0xaa/s", "since": "3", "epoch": EPOCH}, "invalid_request"),
        ({"token": "0xff/s"}, "unauthenticated"),
    ],
    ids=["none", "empty", "unknown", "number", "negative", "text", "no log"],
)
async def test_a_refused_connect_gets_a_problem(redis_url: str, auth: dict[str, Any], code: str) -> None:
    async with staged(redis_url) as stage, raw(stage.url) as client:
        answer = await client.ask_to_connect(**auth)
        assert set(answer) == {"message", "data"}
        problem = answer["data"]
        assert (problem["code"], problem["type"]) == (code, f"urn:expendi:problem:{code}")
        assert set(problem) == {"type", "title", "status", "detail", "code", "requestId", "errors"}
        assert (code == "invalid_request") == bool(problem["errors"])


async def test_a_refused_connection_ends_soon(redis_url: str) -> None:
    async with staged(redis_url) as stage, raw(stage.url) as client:
        await client.ask_to_connect(token="nobody")
        await client.closed()


@pytest.mark.parametrize(
    ("failure", "code"),
    [
        (TokenExpired("Refresh it."), "token_expired"),
        (Unavailable("Away."), "unavailable"),
        (OSError("refused"), "unavailable"),
        (KeyError("a fault"), "internal"),
    ],
)
async def test_a_failing_verification_is_told_as_a_problem(redis_url: str, failure: Exception, code: str) -> None:
    ports = FakePorts(failure=failure)
    async with staged(redis_url, ports, socket_connect_timeout_s=0.5) as stage, raw(stage.url) as client:
        answer = await client.ask_to_connect(token="0xaa/s")
        assert answer["data"]["code"] == code
        assert "fault" not in answer["data"]["detail"] or code == "internal"


async def test_a_database_that_comes_back_in_time_is_no_refusal(redis_url: str) -> None:
    user, ports = new_user(), FakePorts(failure=Unavailable("Away."))
    ports.log.failure = OSError("away")
    async with staged(redis_url, ports) as stage, raw(stage.url) as client:
        asking = asyncio.create_task(client.connect(token=f"{user}/s"))
        feeds = stage.server.hub
        ports.failure = None
        await until(lambda: feeds.feeds == 1)
        await until(lambda: stage.log.queries)
        ports.log.failure = None
        assert (await asking)["userId"] == user
        await client.event("snapshot")


async def test_a_herd_shares_its_reads_of_heads_and_one_that_leaves_harms_nobody(redis_url: str) -> None:
    users = [new_user()[:-1] + "0" for _ in range(60)]
    async with staged(redis_url, head_check_interval_s=60) as stage, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(raw(stage.url)) for _ in users]
        before = len(stage.log.queries)
        asking = [
            asyncio.create_task(client.connect(token=f"{user}/s"))
            for client, user in zip(clients[:-1], users[:-1], strict=True)
        ]
        # The last one asks and is gone before it is answered.
        await clients[-1].ws.send_str(f'40{{"token":"{users[-1]}/s"}}')
        await clients[-1].ws.close()
        sessions = await asyncio.gather(*asking)
        assert [session["userId"] for session in sessions] == users[:-1]
        assert len(stage.log.queries) - before < 30


async def test_one_who_stops_waiting_for_a_head_does_not_stop_the_others(redis_url: str) -> None:
    user = new_user()
    async with staged(redis_url) as stage:
        repair = stage.server._repair
        first, second = (asyncio.create_task(repair.head(user)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).epoch == stage.log.epoch(user)
        assert first.cancelled()


async def test_the_head_is_read_after_the_subscription_is_confirmed(redis_url: str) -> None:
    user, confirmed = new_user(), asyncio.Event()
    async with staged(redis_url) as stage, raw(stage.url) as client:
        subscribe = stage.server._subscriber.subscribe

        async def slow_subscribe(channel: str) -> bool:
            await confirmed.wait()
            return await subscribe(channel)

        stage.server._subscriber.subscribe = slow_subscribe  # type: ignore[method-assign]  # a Redis that takes its time
        asking = asyncio.create_task(client.connect(token=f"{user}/s"))
        await until(lambda: stage.server.hub.feeds)
        assert not stage.log.queries
        confirmed.set()
        await asking
        assert stage.log.queries == [[user]]


def test_a_pid_is_its_user_s_and_nobody_else_s() -> None:
    pids = Pids(b"k" * 32)
    pid = pids.make("0xa", "sid-1")
    assert pids.sid_of("0xa", pid) == "sid-1"
    assert pids.sid_of("0xb", pid) is None
    assert pids.sid_of("0xa", pid.replace("sid-1", "sid-2")) is None
    assert pids.sid_of("0xa", pid[:-1]) is None
    assert pids.sid_of("0xa", "é.é") is None
    assert Pids(b"other").sid_of("0xa", pid) is None


@pytest.mark.parametrize(
    ("seq", "first", "since", "limit", "fits"),
    [
        (10, 1, 10, 5, True),
        (10, 1, 5, 5, True),
        (10, 1, 4, 5, False),
        (10, 1, 11, 5, False),
        (10, 6, 5, 5, True),
        (10, 7, 5, 5, False),
        (0, 1, 0, 5, True),
        (10, 11, 10, 5, True),
        (10, 11, 9, 5, False),
    ],
)
def test_reachable_positions(seq: int, first: int, since: int, limit: int, fits: bool) -> None:
    assert reachable(Position(EPOCH, since), Head(EPOCH, seq, first), limit=limit) is fits
    assert not reachable(Position("other", since), Head(EPOCH, seq, first), limit=limit)


def test_a_claim_needs_both_of_its_parts() -> None:
    pids = Pids(b"k")
    pid = pids.make("0xa", "s")

    def of(**auth: Any) -> Position | None:
        return claimed(Handshake.of({"token": "t", **auth}), "0xa", pids)

    assert of() is None
    assert of(since=3) is None
    assert of(epoch=EPOCH) is None
    assert of(epoch=EPOCH, since=3) == Position(EPOCH, 3)
    assert of(pid=pid, offset=f"{EPOCH}:7", epoch=EPOCH, since=3) == Position(EPOCH, 7, "s")
    assert of(pid=pid, offset="nonsense", epoch=EPOCH, since=3) == Position(EPOCH, 3)
    assert of(pid=pid, offset=f"{EPOCH}:7", recovery=False) is None


def test_fields_of_later_clients_are_passed_over() -> None:
    assert Handshake.of({"token": "t", "appVersion": "2"}).token == "t"
    with pytest.raises(Problem):
        Handshake.of({"token": "t", "recovery": "no"})
