"""The load: raw websockets on epoll and a raw publisher, so that it costs less than what it measures."""

from __future__ import annotations

import random
import select
import socket
import struct
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

from tests.load.contestants import EPOCH

PAD = "x" * 420
"""Fills the event to the 582 bytes that the reference figures were measured with."""
BATCH = 50
QUIET_S = 0.5
DRAIN_S = 10


def user_of(index: int) -> str:
    return f"0x{index:040x}"


def event_ours(index: int, seq: int) -> bytes:
    body = orjson.dumps({"id": f"{seq:032x}", "seq": seq, "ts": "2026-11-24T10:00:00.123Z", "v": 1, "transaction": PAD})
    return b'["new_transaction",%b,"%b:%d"]' % (body, EPOCH.encode(), seq)


def publish_ours(index: int, seq: int) -> bytes:
    return _publish(b"user:" + user_of(index).encode(), event_ours(index, seq))


def publish_stock(index: int, seq: int) -> bytes:
    """What an AsyncRedisManager in write-only mode sends."""
    payload = {"id": f"{seq:032x}", "seq": seq, "ts": "2026-11-24T10:00:00.123Z", "v": 1, "transaction": PAD}
    message = {
        "method": "emit",
        "event": "new_transaction",
        "data": [payload],
        "binary": False,
        "namespace": "/",
        "room": f"user_{user_of(index)}",
        "skip_sid": None,
        "callback": None,
        "host_id": "generator",
    }
    return _publish(b"socketio", orjson.dumps(message))


PUBLISHERS: dict[str, Callable[[int, int], bytes]] = {"ours": publish_ours, "stock": publish_stock}


def _publish(channel: bytes, text: bytes) -> bytes:
    return b"*3\r\n$7\r\nPUBLISH\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(channel), channel, len(text), text)


@dataclass(slots=True)
class Client:
    """One websocket of one user: how much it got, and when what is under way was published."""

    sock: socket.socket
    sent: int = 0
    got: int = 0
    rest: bytes = b""
    times: deque[float] = field(default_factory=deque)

    def take(self, data: bytes) -> int:
        """Count the frames in what was read."""
        if self.rest:
            data = self.rest + data
        at, end, count = 0, len(data), 0
        while end - at >= 2:
            length, head = data[at + 1], 2
            if length == 126:
                if end - at < 4:
                    break
                length, head = int.from_bytes(data[at + 2 : at + 4], "big"), 4
            if end - at < head + length:
                break
            at += head + length
            count += 1
        self.rest = data[at:]
        self.got += count
        return count


@dataclass(frozen=True)
class Outcome:
    """What one run did, and the latencies (s) when they were taken."""

    events: int
    seconds: float
    latencies: list[float]
    lost: int


class Generator:
    """Many clients of one server and the publisher of their events, in one thread."""

    def __init__(self, contestant: str, *, port: int, redis_port: int, clients: int) -> None:
        self._event = PUBLISHERS[contestant]
        self._redis = socket.create_connection(("127.0.0.1", redis_port))
        self._redis.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._redis.sendall(b"*3\r\n$6\r\nCLIENT\r\n$5\r\nREPLY\r\n$3\r\nOFF\r\n")
        self.clients = [Client(_connected(port, user_of(index))) for index in range(clients)]
        self._poll = select.epoll()
        self._by_fd = {client.sock.fileno(): client for client in self.clients}
        for descriptor in self._by_fd:
            self._poll.register(descriptor, select.EPOLLIN)
        self._settle()

    def close(self) -> None:
        self._poll.close()
        self._redis.close()
        for client in self.clients:
            client.sock.close()

    def _settle(self) -> None:
        """Read what a connect brings until it is quiet; counting begins after that."""
        while self._read(QUIET_S):
            pass
        for client in self.clients:
            client.got = 0

    def _read(self, timeout_s: float, latencies: list[float] | None = None) -> int:
        count = 0
        for descriptor, _ in self._poll.poll(timeout_s):
            client = self._by_fd[descriptor]
            data = client.sock.recv(65536)
            if not data:
                raise ConnectionError("the server closed a client")
            taken = client.take(data)
            count += taken
            if latencies is not None:
                now = time.perf_counter()
                latencies.extend(now - client.times.popleft() for _ in range(taken))
        return count

    def _write(self, count: int, *, timed: bool = False) -> None:
        commands: list[bytes] = []
        for _ in range(count):
            index = random.randrange(len(self.clients))
            client = self.clients[index]
            client.sent += 1
            commands.append(self._event(index, client.sent))
            if timed:
                client.times.append(time.perf_counter())
        self._redis.sendall(b"".join(commands))

    def saturate(self, *, seconds: float, window: int) -> Outcome:
        """Keep `window` events in flight."""
        began, flying, events = time.perf_counter(), 0, 0
        while time.perf_counter() - began < seconds:
            while flying < window:
                self._write(BATCH)
                flying += BATCH
            read = self._read(1.0)
            flying -= read
            events += read
        took = time.perf_counter() - began
        return Outcome(events, took, [], self._drained(flying))

    def steady(self, *, seconds: float, rate: int) -> Outcome:
        """Publish at a fixed rate, whatever the server does, and time each event."""
        latencies: list[float] = []
        began, written = time.perf_counter(), 0
        while (elapsed := time.perf_counter() - began) < seconds:
            due = int(elapsed * rate) - written
            if due > 0:
                self._write(due, timed=True)
                written += due
            self._read(0.0005, latencies)
        missing = written - len(latencies)
        return Outcome(len(latencies), seconds, latencies, self._drained(missing, latencies))

    def _drained(self, flying: int, latencies: list[float] | None = None) -> int:
        ends = time.perf_counter() + DRAIN_S
        while flying and time.perf_counter() < ends:
            flying -= self._read(0.1, latencies)
        return flying

    def misplaced(self) -> int:
        """Clients that got another number of events than was published for them."""
        return sum(client.got != client.sent for client in self.clients)


def _connected(port: int, user: str) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", port))
    sock.sendall(
        b"GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\n"
        b"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    seen = b""
    while b'"sid"' not in seen:
        seen += sock.recv(4096)
    auth = b"40" + orjson.dumps({"token": user})
    sock.sendall(struct.pack(">BBI", 0x81, 0x80 | len(auth), 0) + auth)
    seen = b""
    while b'40{"sid"' not in seen:
        part = sock.recv(4096)
        assert part, seen
        seen += part
    rest = seen.partition(b'40{"sid"')[2]
    client = Client(sock)
    # Whatever follows the answer's own end may be cut anywhere: go on where its frame ends.
    answer_end = rest.index(b"}") + 1
    client.take(rest[answer_end:])
    while client.rest:
        client.take(sock.recv(4096))
    return sock
