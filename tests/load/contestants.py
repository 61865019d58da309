"""The servers that `make bench` compares, one process each: ours, and stock python-socketio with its Redis manager."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

import socketio
from aiohttp import web

from config import logs
from handlers.commands import Command
from realtime.fanout import Hub
from realtime.ports import Ports, RequestFacts
from realtime.sockets import RealtimeServer, build
from realtime.turns import Loop
from store.records import Entry, Head
from tests.realtime.stage import FakeHeights, FakeIdentity, FakeSnapshot, all_ports, settings

EPOCH = "e" * 32
LONG_S = 3600
"""No pings while a round runs: the generator does not answer any."""


class Bench:
    """Ports that cost nothing: the log is where its readers are, so nothing is ever repaired."""

    hub: Hub

    def as_ports(self) -> Ports:
        return all_ports(self)

    async def verify(self, token: str) -> FakeIdentity:
        return FakeIdentity(token, token, datetime.now(UTC) + timedelta(seconds=LONG_S))

    async def revoked_since(self, since: datetime) -> Sequence[str]:
        return ()

    async def heads(self, users: Sequence[str]) -> Mapping[str, Head]:
        return {user: Head(EPOCH, self._seq(user), 1) for user in users}

    def _seq(self, user: str) -> int:
        feed = self.hub.feed_of(user)
        return 0 if feed is None else feed.seq

    async def after(self, user: str, seq: int, *, limit: int, max_bytes: int) -> Sequence[Entry]:
        return ()

    async def snapshot(self, user: str) -> FakeSnapshot:
        return FakeSnapshot(EPOCH, self._seq(user), '{"seq":0}')

    async def acked(self, user: str, session_id: str, seq: int) -> None:
        """Nothing is kept."""

    async def act(self, user: str, command: Command) -> Mapping[str, object]:
        return {}

    async def refused_join(self, identity: object, room: str, facts: RequestFacts) -> None:
        """Nothing is kept."""

    async def allow(self, scope: str, subject: str) -> None:
        """Everything is allowed."""

    async def heights(self) -> Mapping[int, FakeHeights]:
        return {}

    async def unfinal(self, users: Sequence[str]) -> Mapping[str, Mapping[int, int]]:
        return {}


async def ours(app: web.Application, redis_url: str) -> RealtimeServer:
    bench = Bench()
    server = build(app, bench.as_ports(), settings(redis_url, ping_interval_s=LONG_S))
    bench.hub = server.hub
    await server.start()
    return server


async def stock(app: web.Application, redis_url: str) -> RealtimeServer | None:
    server = socketio.AsyncServer(
        async_mode="aiohttp", client_manager=socketio.AsyncRedisManager(redis_url), ping_interval=LONG_S
    )
    server.attach(app)

    @server.event  # type: ignore[untyped-decorator]  # socketio ships no types
    async def connect(sid: str, environ: dict[str, object], auth: dict[str, str]) -> None:
        await server.enter_room(sid, f"user_{auth['token']}")

    return None


CONTESTANTS = {"ours": ours, "stock": stock}


async def serve(name: str, redis_url: str) -> None:
    logs.configure("warning", process="bench")
    app = web.Application()
    started = await CONTESTANTS[name](app, redis_url)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=4096).start()
    gc.freeze()
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    print(runner.addresses[0][1], flush=True)
    await stopped.wait()
    if started is not None:
        hub = started.hub
        print(f"       catch-ups {hub.catch_ups}, dropped {hub.dropped}, delivered {hub.delivered}", file=sys.stderr)
    os._exit(0)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=Loop if sys.argv[1] == "ours" else None) as runner:
        runner.run(serve(sys.argv[1], sys.argv[2]))
