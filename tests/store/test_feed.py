from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import pytest
from redis.asyncio import Redis

from config import keys, metrics
from config.embedded.children import free_port
from config.embedded.valkey import Valkey
from store.feed import Publisher, Subscriber
from store.resp import Endpoint, Link, RedisAway, command, connect
from tests.waiting import until


@dataclass
class Heard:
    """What a subscriber told."""

    messages: list[tuple[bytes, bytes]] = field(default_factory=list)
    batches: int = 0
    lost: int = 0
    restored: int = 0

    def on_message(self, channel: bytes, text: bytes) -> None:
        self.messages.append((channel, text))

    def on_batch(self) -> None:
        self.batches += 1

    def on_lost(self) -> None:
        self.lost += 1

    def on_restored(self) -> None:
        self.restored += 1

    async def until(self, count: int) -> None:
        await until(lambda: len(self.messages) == count, what=f"{count} messages, not {len(self.messages)}")

    def texts(self) -> list[bytes]:
        return [text for _, text in self.messages]


@asynccontextmanager
async def hearing(url: str, heard: Heard, *, keepalive_s: float = 5) -> AsyncIterator[Subscriber]:
    subscriber = Subscriber(
        url, heard.on_message, heard.on_lost, heard.on_restored, on_batch=heard.on_batch, keepalive_s=keepalive_s
    )
    await subscriber.start()
    try:
        yield subscriber
    finally:
        await subscriber.close()


@asynccontextmanager
async def publishing(url: str, *, timeout_s: float = 1) -> AsyncIterator[Publisher]:
    publisher = Publisher(url, timeout_s=timeout_s)
    try:
        yield publisher
    finally:
        await publisher.close()


@dataclass
class Proxy:
    """Forwards to Redis until it is told to go deaf: a half-open connection."""

    target: int
    port: int = field(default_factory=free_port)
    deaf: bool = False
    accepted: int = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        tasks: list[asyncio.Task[None]] = []
        writers: list[asyncio.StreamWriter] = []

        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.accepted += 1
            back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self.target)
            writers.extend((writer, back_writer))
            tasks.append(asyncio.create_task(self._pump(reader, back_writer)))
            tasks.append(asyncio.create_task(self._pump(back_reader, writer)))

        server = await asyncio.start_server(accept, "127.0.0.1", self.port)
        yield f"redis://127.0.0.1:{self.port}/0"
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for writer in writers:
            writer.close()
        await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if not self.deaf:
                    writer.write(data)
        writer.close()


def user() -> str:
    return "0x" + uuid.uuid4().hex + "0" * 8


async def test_what_is_published_arrives_in_order_and_on_its_channels_only(redis_url: str) -> None:
    heard, mine, other = Heard(), user(), user()
    async with hearing(redis_url, heard) as subscriber, publishing(redis_url) as publisher:
        assert await subscriber.subscribe(keys.user_channel(mine))
        assert await subscriber.subscribe(keys.blocks_channel(31337))
        frames = [(mine, b"event %d" % n) for n in range(200)]
        assert await publisher.publish([(other, b"not mine"), *frames], [(31337, b"{}")])
        await until(lambda: len(heard.messages) == 201)
    assert heard.texts() == [text for _, text in frames] + [b"{}"]
    assert heard.messages[-1][0] == b"chain:31337:blocks"
    assert heard.batches >= 1


async def test_texts_larger_than_a_slice_arrive_whole(redis_url: str) -> None:
    heard, mine = Heard(), user()
    sizes = (1, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 300_000, 5)
    texts = [bytes([65 + n]) * size for n, size in enumerate(sizes)]
    async with hearing(redis_url, heard) as subscriber, publishing(redis_url) as publisher:
        await subscriber.subscribe(keys.user_channel(mine))
        assert await publisher.publish([(mine, text) for text in texts])
        await until(lambda: len(heard.messages) == len(texts))
    assert heard.texts() == texts


async def test_an_unsubscribed_channel_is_quiet(redis_url: str) -> None:
    heard, mine, marker = Heard(), user(), user()
    async with hearing(redis_url, heard) as subscriber, publishing(redis_url) as publisher:
        await subscriber.subscribe(keys.user_channel(mine))
        subscriber.unsubscribe(keys.user_channel(mine))
        await subscriber.subscribe(keys.user_channel(marker))
        assert subscriber.channels == 1
        await publisher.publish([(mine, b"late"), (marker, b"end")])
        await until(lambda: b"end" in heard.texts())
    assert heard.texts() == [b"end"]


async def test_left_and_wanted_again_in_one_breath_is_confirmed_by_the_last_subscribe(redis_url: str) -> None:
    heard, mine = Heard(), user()
    channel = keys.user_channel(mine)
    async with hearing(redis_url, heard) as subscriber, publishing(redis_url) as publisher:
        for n in range(50):
            first = asyncio.create_task(subscriber.subscribe(channel))
            await asyncio.sleep(0)
            subscriber.unsubscribe(channel)
            assert await subscriber.subscribe(channel)
            assert await first
            await publisher.publish([(mine, b"%d" % n)])
            await heard.until(n + 1)
            subscriber.unsubscribe(channel)


async def test_the_confirmation_of_a_subscription_that_was_left_confirms_nothing(redis_url: str) -> None:
    """SUBSCRIBE, UNSUBSCRIBE, SUBSCRIBE: between the first two answers the channel is not heard."""
    channel = keys.user_channel(user())
    async with hearing(redis_url, Heard()) as subscriber:
        held: list[Any] = []
        assert subscriber._link is not None
        answer, subscriber._link.on_reply = subscriber._link.on_reply, held.append
        first = asyncio.create_task(subscriber.subscribe(channel))
        await until(lambda: len(held) == 1)
        subscriber.unsubscribe(channel)
        again = asyncio.create_task(subscriber.subscribe(channel))
        await until(lambda: len(held) == 3)
        for reply, done in zip(held, (False, False, True), strict=True):
            answer(reply)
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert (first.done(), again.done()) == (done, done)


async def test_a_herd_of_subscriptions_goes_out_in_a_few_commands(redis_url: str) -> None:
    heard = Heard()
    users = [user() for _ in range(1200)]
    async with hearing(redis_url, heard) as subscriber, publishing(redis_url) as publisher:
        confirmed = await asyncio.gather(*(subscriber.subscribe(keys.user_channel(each)) for each in users))
        assert all(confirmed)
        await publisher.publish([(each, each.encode()) for each in users])
        await until(lambda: len(heard.messages) == len(users))
    assert sorted(heard.texts()) == sorted(each.encode() for each in users)


async def test_a_cancelled_waiter_does_not_cancel_the_others(redis_url: str) -> None:
    heard, channel = Heard(), keys.user_channel(user())
    async with hearing(redis_url, heard) as subscriber:
        first, second = (asyncio.create_task(subscriber.subscribe(channel)) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        assert await second


async def test_a_restart_of_redis_is_told_and_every_channel_is_heard_again(private_valkey: Valkey) -> None:
    heard, mine = Heard(), user()
    url = private_valkey.url
    async with hearing(url, heard) as subscriber, publishing(url) as publisher:
        assert await subscriber.subscribe(keys.user_channel(mine))
        private_valkey.kill()
        await until(lambda: heard.lost == 1)
        assert not subscriber.connected
        late = user()
        assert not await subscriber.subscribe(keys.user_channel(late))
        assert not await publisher.publish([(mine, b"lost")])
        private_valkey.start()
        await until(lambda: subscriber.connected)
        assert (heard.lost, heard.restored) == (1, 2)
        await until(lambda: publisher.publish([(mine, b"again"), (late, b"too")]))
        await until(lambda: len(heard.messages) == 2)
    assert heard.texts() == [b"again", b"too"]


async def test_starting_without_redis_is_no_error(private_valkey: Valkey) -> None:
    private_valkey.stop()
    heard, mine = Heard(), user()
    async with hearing(private_valkey.url, heard) as subscriber:
        assert (heard.lost, heard.restored, subscriber.connected) == (1, 0, False)
        assert not await subscriber.subscribe(keys.user_channel(mine))
        private_valkey.start()
        await until(lambda: subscriber.connected)
        async with publishing(private_valkey.url) as publisher:
            await publisher.publish([(mine, b"here")])
            await until(lambda: heard.texts() == [b"here"])


async def test_a_connection_that_went_silent_is_replaced(redis_url: str) -> None:
    heard, mine = Heard(), user()
    proxy = Proxy(Endpoint.of(redis_url).port)
    async with proxy.running() as url, hearing(url, heard, keepalive_s=0.1) as subscriber:
        await subscriber.subscribe(keys.user_channel(mine))
        await asyncio.wait([asyncio.create_task(subscriber.subscribe(keys.user_channel(user())))])
        # Pings alone keep a quiet connection: several keepalive rounds pass without a loss.
        loop = asyncio.get_running_loop()
        rounds = loop.time() + 0.6
        await until(lambda: loop.time() > rounds)
        assert heard.lost == 0
        proxy.deaf = True
        await until(lambda: heard.lost == 1)
        proxy.deaf = False
        await until(lambda: subscriber.connected)
        assert proxy.accepted >= 2


async def test_publishing_waits_no_longer_than_its_timeout(redis_url: str) -> None:
    proxy = Proxy(Endpoint.of(redis_url).port)
    failures = metrics.PUBLISH_FAILURES._value.get()
    async with proxy.running() as url, publishing(url, timeout_s=0.1) as publisher:
        assert await publisher.publish([(user(), b"first")])
        proxy.deaf = True
        assert not await publisher.publish([(user(), b"unheard")])
        assert metrics.PUBLISH_FAILURES._value.get() == failures + 1
        proxy.deaf = False
        assert await publisher.publish([(user(), b"again")])


async def test_many_publishers_of_one_process_share_a_connection(redis_url: str) -> None:
    heard, mine = Heard(), user()
    async with hearing(redis_url, heard) as subscriber, publishing(redis_url) as publisher:
        await subscriber.subscribe(keys.user_channel(mine))
        taken = await asyncio.gather(*(publisher.publish([(mine, b"%d" % n)] * (n % 3)) for n in range(100)))
        assert all(taken)
        await until(lambda: len(heard.messages) == sum(n % 3 for n in range(100)))


async def test_a_publish_given_up_does_not_disturb_the_next(redis_url: str) -> None:
    async with publishing(redis_url) as publisher:
        assert await publisher.publish([(user(), b"opens the connection")])
        given_up = asyncio.create_task(publisher.publish([(user(), b"x")] * 100))
        await asyncio.sleep(0)
        assert publisher._batches
        given_up.cancel()
        await asyncio.gather(given_up, return_exceptions=True)
        assert await publisher.publish([(user(), b"y")])
        assert not publisher._batches


async def test_wake_reaches_any_channel(redis_url: str) -> None:
    heard, channel = Heard(), f"wake:{uuid.uuid4().hex}"
    async with hearing(redis_url, heard) as subscriber, publishing(redis_url) as publisher:
        await subscriber.subscribe(channel)
        assert await publisher.wake(channel)
        await until(lambda: heard.texts() == [b""])


async def test_redis_away_is_answered_at_once_and_tried_again_later(private_valkey: Valkey) -> None:
    private_valkey.stop()
    async with publishing(private_valkey.url) as publisher:
        assert [await publisher.publish([(user(), b"x")]) for _ in range(20)] == [False] * 20
        assert await publisher.publish([])
        private_valkey.start()
        await until(lambda: publisher.publish([(user(), b"x")]))


async def test_the_address_of_an_existing_client_is_enough(redis_url: str) -> None:
    client = Redis.from_url(redis_url)
    async with publishing(redis_url):
        publisher = Publisher(client)
        assert await publisher.publish([(user(), b"x")])
        await publisher.close()
    await client.aclose()


async def test_a_refused_sign_in_says_what_to_change(redis_url: str) -> None:
    link = Link(lambda _: None)
    endpoint = Endpoint(port=Endpoint.of(redis_url).port, username="nobody", password="wrong")
    with pytest.raises(RedisAway, match="user name or password"):
        await connect(endpoint, link, timeout_s=2)
    await link.closed


def with_user(valkey: Valkey) -> str:
    return f"redis://feed:secret@127.0.0.1:{valkey.port}/0"


async def test_a_user_without_rights_to_a_channel_is_a_loss_that_heals(private_valkey: Valkey) -> None:
    admin: Any = Redis.from_url(private_valkey.url)
    await admin.execute_command("ACL", "SETUSER", "feed", "on", ">secret", "+@all", "&user:*")
    heard = Heard()
    async with hearing(with_user(private_valkey), heard) as subscriber:
        assert await subscriber.subscribe(keys.user_channel(user()))
        assert not await subscriber.subscribe("forbidden")
        await until(lambda: heard.lost == 1)
        await admin.execute_command("ACL", "SETUSER", "feed", "&forbidden")
        await until(lambda: subscriber.connected)
    await admin.aclose()


@pytest.mark.parametrize(
    ("url", "host", "port", "path", "tls"),
    [
        ("redis://10.0.0.1:7000/3", "10.0.0.1", 7000, None, False),
        ("redis://u:p%40@h", "h", 6379, None, False),
        ("rediss://h:1/", "h", 1, None, True),
        ("unix:///run/redis.sock", "127.0.0.1", 6379, "/run/redis.sock", False),
    ],
)
def test_endpoint_of_a_url(url: str, host: str, port: int, path: str | None, tls: bool) -> None:
    endpoint = Endpoint.of(url)
    assert (endpoint.host, endpoint.port, endpoint.path, endpoint.tls is not None) == (host, port, path, tls)
    if "@" in url:
        assert (endpoint.username, endpoint.password) == ("u", "p@")


def test_a_command_is_resp() -> None:
    assert command(b"SUBSCRIBE", b"a") == b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n"
