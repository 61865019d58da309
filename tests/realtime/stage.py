"""A Socket.IO server on loopback with a log in memory: what tests of the realtime core run against."""

from __future__ import annotations

import asyncio
import gc
import uuid
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from aiohttp import web

from config.settings import Settings
from handlers.commands import Command
from handlers.errors import RateLimited, Unauthenticated
from realtime.ports import Identity, Ports, RequestFacts
from realtime.sockets import RealtimeServer, build
from store.feed import Publisher
from store.log import frame_text
from store.records import Entry, Head
from tests.waiting import until


def new_user() -> str:
    return "0x" + uuid.uuid4().hex + "0" * 8


@dataclass(frozen=True)
class FakeIdentity:
    user: str
    session_id: str
    expires_at: datetime


@dataclass(frozen=True)
class FakeSnapshot:
    epoch: str
    seq: int
    body: str


@dataclass(frozen=True)
class FakeHeights:
    head: int
    confirmed: int
    finalized: int
    lag_blocks: int = 0


@dataclass
class FakeLog:
    """Committed events per user; also the snapshot, which is how often each user was told something."""

    epochs: dict[str, str] = field(default_factory=dict)
    entries: dict[str, list[Entry]] = field(default_factory=lambda: defaultdict(list))
    pruned: dict[str, int] = field(default_factory=dict)
    failure: Exception | None = None
    behind: int = 0
    """Newest entries that reads do not see yet, as on a replica that lags."""
    gate: asyncio.Event | None = None
    """While it is unset, reads of entries and snapshots wait."""
    queries: list[list[str]] = field(default_factory=list)
    pages: int = 0
    snapshots: int = 0

    def epoch(self, user: str) -> str:
        return self.epochs.setdefault(user, uuid.uuid4().hex)

    def append(self, user: str, event: str = "new_transaction", **payload: Any) -> tuple[str, bytes]:
        """Commit one event; returns its frame, to be published or lost."""
        entries = self.entries[user]
        seq = (entries[-1].seq if entries else self.pruned.get(user, 0)) + 1
        text = orjson.dumps({"id": uuid.uuid4().hex, "seq": seq, "v": 1, **payload}).decode()
        entries.append(Entry(seq, event, text))
        return user, frame_text(event, text, epoch=self.epoch(user), seq=seq).encode()

    def prune(self, user: str, *, through: int) -> None:
        self.entries[user] = [entry for entry in self.entries[user] if entry.seq > through]
        self.pruned[user] = through

    def restart(self, user: str) -> None:
        """As after a restore: a new epoch, and fewer events."""
        self.entries[user].clear()
        self.epochs[user] = uuid.uuid4().hex

    def _seen(self, user: str) -> list[Entry]:
        entries = self.entries[user]
        return entries[: len(entries) - self.behind] if self.behind else entries

    async def heads(self, users: Sequence[str]) -> Mapping[str, Head]:
        self.queries.append(list(users))
        await self._read()
        return {user: self._head(user) for user in users if not user.endswith("f")}

    def _head(self, user: str) -> Head:
        entries = self.entries[user]
        seq = entries[-1].seq if entries else self.pruned.get(user, 0)
        return Head(self.epoch(user), seq, self.pruned.get(user, 0) + 1)

    async def after(self, user: str, seq: int, *, limit: int, max_bytes: int) -> Sequence[Entry]:
        self.pages += 1
        await self._read()
        if self.gate is not None:
            await self.gate.wait()
        page: list[Entry] = []
        for entry in self._seen(user):
            if entry.seq > seq and len(page) < limit and sum(len(each.payload) for each in page) < max_bytes:
                page.append(entry)
        return page

    async def snapshot(self, user: str) -> FakeSnapshot:
        await self._read()
        head = self._head(user)  # a transaction sees what was committed when it began
        self.snapshots += 1
        if self.gate is not None:
            await self.gate.wait()
        return FakeSnapshot(head.epoch, head.seq, orjson.dumps({"seq": head.seq, "balances": []}).decode())

    async def _read(self) -> None:
        await asyncio.sleep(0)
        if self.failure is not None:
            raise self.failure


def all_ports(fake: object, **others: object) -> Ports:
    """Ports that one object answers, but for `others`; a port that is added later needs no change here."""
    chosen: dict[str, Any] = {each.name: others.get(each.name, fake) for each in fields(Ports)}
    return Ports(**chosen)


@dataclass
class FakePorts:
    """Everything else that a server asks, in memory. A token is `<user>/<session>[+<life in s>]`."""

    log: FakeLog = field(default_factory=FakeLog)
    expires_s: float = 3600
    revoked: list[str] = field(default_factory=list)
    acks: list[tuple[str, str, int]] = field(default_factory=list)
    refused: list[tuple[str, str, RequestFacts]] = field(default_factory=list)
    acted: list[tuple[str, Command]] = field(default_factory=list)
    calls_left: int = 1_000_000
    chain_heights: dict[int, FakeHeights] = field(default_factory=dict)
    pending: dict[str, dict[int, int]] = field(default_factory=dict)
    failure: Exception | None = None

    def as_ports(self) -> Ports:
        return all_ports(self, log=self.log, snapshots=self.log)

    async def verify(self, token: str) -> Identity:
        if self.failure is not None:
            raise self.failure
        user, _, rest = token.partition("/")
        session, _, life = rest.partition("+")
        if not user.startswith("0x") or session in self.revoked:
            raise Unauthenticated("The access token is unknown or its session was ended; sign in again.")
        return FakeIdentity(user, session, datetime.now(UTC) + timedelta(seconds=float(life or self.expires_s)))

    async def revoked_since(self, since: datetime) -> Sequence[str]:
        if self.failure is not None:
            raise self.failure
        return list(self.revoked)

    async def acked(self, user: str, session_id: str, seq: int) -> None:
        self.acks.append((user, session_id, seq))

    async def refused_join(self, identity: Identity, room: str, facts: RequestFacts) -> None:
        self.refused.append((identity.user, room, facts))

    async def allow(self, scope: str, subject: str) -> None:
        self.calls_left -= 1
        if self.calls_left < 0:
            raise RateLimited("Too many calls; try again in 1 s.", retry_after_s=1)

    async def act(self, user: str, command: Command) -> Mapping[str, object]:
        self.acted.append((user, command))
        return {"acted": command.name}

    async def heights(self) -> Mapping[int, FakeHeights]:
        return dict(self.chain_heights)

    async def unfinal(self, users: Sequence[str]) -> Mapping[str, Mapping[int, int]]:
        return {user: self.pending[user] for user in users if user in self.pending}


@dataclass
class Stage:
    """A running server with its fakes and a publisher on the same Redis."""

    server: RealtimeServer
    ports: FakePorts
    publisher: Publisher
    url: str

    @property
    def log(self) -> FakeLog:
        return self.ports.log

    async def tell(self, user: str, event: str = "new_transaction", **payload: Any) -> None:
        """Commit one event, then publish it."""
        await self.publisher.publish([self.log.append(user, event, **payload)])

    async def publish(self, *frames: tuple[str, bytes]) -> None:
        assert await self.publisher.publish(frames)

    async def live(self, user: str) -> None:
        """Wait until every socket of a user gets events live."""

        def is_live() -> bool:
            feed = self.server.hub.feed_of(user)
            return feed is not None and bool(feed.members) and all(member.due for member in feed.members)

        await until(is_live, what=f"{user} is live")

    def nothing_is_left(self) -> bool:
        hub, manager, eio = self.server.hub, self.server.server.manager, self.server.server.eio
        counts = (hub.feeds, hub.sessions, len(manager.rooms), len(manager._joined), len(eio.sockets))
        return not any(counts) and not self.server.server.environ and not manager.callbacks


def settings(redis_url: str, **overrides: Any) -> Settings:
    defaults: dict[str, Any] = {
        "env": "production",
        "database_url": "postgresql://unused",
        "clickhouse_url": "http://unused",
        "secret_key": "k" * 32,
        "redis_url": redis_url,
        "origins": ("https://app.example",),
    }
    return Settings(**{**defaults, **overrides})


@asynccontextmanager
async def staged(
    redis_url: str, ports: FakePorts | None = None, *, port: int = 0, cancelling: bool = True, **overrides: Any
) -> AsyncIterator[Stage]:
    """Run a server; at the end nothing of any socket may be left in it.

    `cancelling`: whether requests whose client has gone are cancelled, as in the real process.
    """
    ports = ports or FakePorts()
    app = web.Application()
    server = build(app, ports.as_ports(), settings(redis_url, **overrides))
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1, handler_cancellation=cancelling)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True)
    await site.start()
    await server.start()
    # The comparison that follows the first subscription must not repair what a test means to lose.
    server._repair._urgent.clear()
    port = runner.addresses[0][1]
    publisher = Publisher(redis_url)
    stage = Stage(server, ports, publisher, f"http://127.0.0.1:{port}")
    try:
        yield stage
        await until(stage.nothing_is_left, 5, what="feeds, rooms and sockets are gone")
        assert not server.hub._dirty
    finally:
        await server.stop()
        await publisher.close()
        await runner.cleanup()
    gc.collect()
