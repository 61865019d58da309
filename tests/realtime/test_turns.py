from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import Iterator
from selectors import EVENT_READ, EVENT_WRITE
from typing import Any

import pytest

from realtime import turns
from realtime.turns import AT_ONCE, READ_BYTES, Loop, Turns, hear_first, settle
from tests.waiting import until

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    made = [socket.socketpair() for _ in range(AT_ONCE * 3)]
    yield made
    for pair in made:
        for end in pair:
            end.close()


@pytest.fixture
def watched(pairs: list[Pair]) -> Iterator[Turns]:
    selector = Turns()
    for number, (ours, _) in enumerate(pairs):
        selector.register(ours, EVENT_READ, number)
    yield selector
    selector.close()


def told(selector: Turns, timeout: float = 0) -> list[Any]:
    return [key.data for key, _ in selector.select(timeout)]


def test_a_turn_takes_a_few_connections_and_the_others_come_next(watched: Turns, pairs: list[Pair]) -> None:
    for _, theirs in pairs:
        theirs.send(b"x")
    seen: set[int] = set()
    for _ in range(3):
        some = told(watched)
        assert len(some) == AT_ONCE
        seen.update(some)
    assert seen == set(range(len(pairs)))


def test_what_comes_first_does_so_however_many_wait(watched: Turns, pairs: list[Pair]) -> None:
    watched.first(pairs[-1][0])
    for _, theirs in pairs:
        theirs.send(b"x")
    for _ in range(4):
        some = told(watched)
        assert some[0] == len(pairs) - 1
        assert len(some) == len(set(some))
    for ours, _ in pairs[2:-1]:
        watched.unregister(ours)
    assert told(watched) == [len(pairs) - 1, 0, 1]


def test_what_came_first_is_an_ordinary_one_after_it_was_unregistered(watched: Turns, pairs: list[Pair]) -> None:
    ours, theirs = pairs[-1]
    watched.first(ours)
    watched.unregister(ours)
    theirs.send(b"x")
    assert told(watched) == []
    watched.register(ours, EVENT_READ, "again")
    assert told(watched) == ["again"]
    watched.first(theirs)  # never registered: nothing to put first
    assert watched._first == set()


def test_a_closed_connection_can_be_unregistered(watched: Turns, pairs: list[Pair]) -> None:
    fd = pairs[0][0].fileno()
    watched.first(fd)
    pairs[0][0].close()
    watched.unregister(fd)
    with pytest.raises(KeyError):
        watched.get_key(fd)
    assert watched._first == set()


def test_readers_and_writers_are_told_apart(watched: Turns, pairs: list[Pair]) -> None:
    (first, _), (second, theirs) = pairs[:2]
    watched.modify(first, EVENT_READ | EVENT_WRITE, "both")
    assert [(key.data, events) for key, events in watched.select(0)] == [("both", EVENT_WRITE)]
    watched.modify(first, EVENT_READ, "reads")
    theirs.close()
    assert [(key.data, events) for key, events in watched.select(0)] == [(1, EVENT_READ)]
    with pytest.raises(KeyError):
        watched.register(second, EVENT_READ)
    assert watched.get_map()[second.fileno()].data == 1


class _Heard(asyncio.Protocol):
    def __init__(self, sizes: list[int], lost: list[object]) -> None:
        self.sizes, self.lost = sizes, lost

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.append(exc)

    def data_received(self, data: bytes) -> None:
        self.sizes.append(len(data))


async def _many_arrive() -> None:
    """Bytes come in small reads, connections a few per turn; the kernel holds the others."""
    loop = asyncio.get_running_loop()
    sizes: list[int] = []
    made: list[int] = []
    lost: list[object] = []
    ticks = 0

    def protocol() -> _Heard:
        made.append(ticks)
        return _Heard(sizes, lost)

    server = await loop.create_server(protocol, "127.0.0.1", 0, backlog=200)
    port = server.sockets[0].getsockname()[1]
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(100)]
    for client in clients[:3]:
        client.sendall(os.urandom(READ_BYTES * 4))

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await until(lambda: sum(sizes) == READ_BYTES * 12 and len(made) == 100)
    ticking.cancel()
    assert max(sizes) == READ_BYTES
    assert max(made.count(number) for number in set(made)) <= AT_ONCE
    server.close()
    for client in clients:
        client.close()
    await until(lambda: len(lost) == 100)


def test_the_loop_takes_connections_and_bytes_in_small_lots() -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(_many_arrive())


async def _first_heard() -> None:
    ours, theirs = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    hear_first(writer.transport)
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    assert loop._turns._first == {ours.fileno()}
    theirs.send(b"x")
    assert await reader.read(1) == b"x"
    writer.close()
    await writer.wait_closed()
    assert not loop._turns._first
    theirs.close()


def test_a_transport_is_heard_first_until_it_is_closed() -> None:
    with asyncio.Runner(loop_factory=Loop) as runner:
        runner.run(_first_heard())


async def test_another_loop_serves_all_alike() -> None:
    ours, theirs = socket.socketpair()
    _, writer = await asyncio.open_connection(sock=ours)
    hear_first(writer.transport)
    writer.close()
    await writer.wait_closed()
    theirs.close()


def test_what_was_loaded_at_the_start_is_not_collected_again() -> None:
    thresholds = gc.get_threshold()
    try:
        settle()
        assert gc.get_freeze_count() > 10_000
        assert len(gc.get_objects(2)) < 1_000
        assert gc.get_threshold()[:2] == (turns.YOUNGEST, turns.YOUNG)
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
