"""A client of a run: speaks Engine.IO and Socket.IO over a websocket, keeps a view, and checks each event as it comes.

What it holds survives its connections: it comes back with pid and offset, or with epoch and since.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import aiohttp
import orjson

from watchers.devnet import view as views

BEST_EFFORT = frozenset({"session", "chain_status", "session_closed"})
OPEN_S = 15.0
"""Time a connect may take before it is tried again (s, virtual)."""


class Broken(AssertionError):
    """The server broke its word; the message says how."""


@dataclass
class Received:
    """A durable event as this client got it."""

    epoch: str
    seq: int
    event: str
    payload: Mapping[str, Any]


@dataclass
class Client:
    """One device of a user. `urls` gives the servers there are now."""

    user: str
    name: str
    http: aiohttp.ClientSession
    urls: Callable[[], list[str]]
    token: Callable[[], str]
    draw: random.Random
    faults: Counter[str]
    narrow: bool = False
    """Whether little fits into its line."""
    mode: Literal["official", "since"] = "official"
    trace: Callable[[str], None] = print
    epoch: str = ""
    seq: int = 0
    view: dict[str, Any] | None = None
    received: list[Received] = field(default_factory=list)
    live: bool = False
    """Whether the CONNECT of the present connection was answered and its snapshot or replay has begun."""
    recovered: int = 0
    snapshots: int = 0
    failures: list[str] = field(default_factory=list)
    reading: int = 0
    """Looks at the run's clock since it last did not read."""
    stalled: bool = False
    """Does not read: its server must cut it, and nobody else must wait."""
    _pid: str = ""
    _ids: set[str] = field(default_factory=set)
    _ws: aiohttp.ClientWebSocketResponse | None = None
    _session: Mapping[str, Any] | None = None
    _unstalled: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Connect, and connect again whatever ends that, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(None) as limit:
                    await self._connection(limit)
            except Broken as broken:
                self.failures.append(f"{self.name}: {broken}")
                return
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                self.trace(f"{self.name} away: {error!r}")
            self.live = False
            await asyncio.sleep(self.draw.uniform(0.01, 1.0))

    def cut(self) -> None:
        """Cut the connection, as a network does."""
        if self._transport("abort"):
            self.faults["client cut"] += 1

    def _transport(self, action: str) -> bool:
        connection = None if self._ws is None else self._ws._response.connection
        if connection is None or connection.transport is None or connection.transport.is_closing():
            return False
        getattr(connection.transport, action)()
        return True

    def stall(self, *, stop: bool) -> None:
        """Read no more, or again."""
        self.stalled = stop
        if stop:
            self._unstalled.clear()
            self._transport("pause_reading")
            self.faults["client stopped reading"] += 1
        else:
            self._unstalled.set()
            # What waits behind a narrow line trickles in by the kernel's timers, in real time: begin anew there.
            self._transport("abort" if self.narrow else "resume_reading")

    async def _connection(self, limit: asyncio.Timeout) -> None:
        urls = self.urls()
        if not urls:
            return
        loop = asyncio.get_running_loop()
        limit.reschedule(loop.time() + OPEN_S)
        url = self.draw.choice(urls) + "/socket.io/?EIO=4&transport=websocket"
        async with self.http.ws_connect(url, max_msg_size=0) as ws:
            self._ws, self._session = ws, None
            async for message in ws:
                if message.type is not aiohttp.WSMsgType.TEXT:
                    return
                if self.stalled:
                    await self._unstalled.wait()
                await self._packet(ws, message.data)
                if self.live:
                    limit.reschedule(None)

    async def _packet(self, ws: aiohttp.ClientWebSocketResponse, packet: str) -> None:
        match packet[:2]:
            case "2":
                await ws.send_str("3")
            case "40":
                self._accepted(orjson.loads(packet[2:]))
            case "42":
                event, *arguments = orjson.loads(packet[2:])
                self._event(event, arguments)
            case "43":
                answer = orjson.loads(packet[packet.index("[") :])[0]
                if not answer["ok"] and answer["error"]["status"] not in (429, 503):
                    raise Broken(f"an ack was refused: {answer}")
            case "44":
                problem = orjson.loads(packet[2:])
                if problem.get("data", {}).get("status", 0) != 503:
                    raise Broken(f"refused: {problem}")
                self.trace(f"{self.name} refused: {problem}")
                await ws.close()
            case _ if packet.startswith("0{"):
                await ws.send_str("40" + orjson.dumps(self._auth()).decode())

    def _auth(self) -> dict[str, Any]:
        auth: dict[str, Any] = {"token": self.token()}
        if self.mode == "since":
            auth["recovery"] = False
            if self.view is not None:
                auth |= {"epoch": self.epoch, "since": self.seq}
        elif self._pid and self.view is not None:
            auth |= {"pid": self._pid, "offset": f"{self.epoch}:{self.seq}"}
        return auth

    def _accepted(self, answer: Mapping[str, Any]) -> None:
        self._pid = answer.get("pid", "")
        if (self.mode == "official") != bool(self._pid):
            raise Broken(f"{self.mode} client got {answer}")

    def _event(self, event: str, arguments: list[Any]) -> None:
        payload = arguments[0]
        if event == "session":
            self._begin(payload)
        if event in BEST_EFFORT:
            return
        if self._session is None:
            raise Broken(f"{event} before session")
        self._check_offset(event, arguments)
        if event == "snapshot":
            self._reset(payload)
            return
        seq = int(payload["seq"])
        if self.view is None or not self.live:
            raise Broken(f"{event} {seq} before any snapshot")
        if seq != self.seq + 1:
            raise Broken(f"{event} {seq} after {self.seq}")
        if payload["id"] in self._ids:
            raise Broken(f"{event} {seq} came twice: {payload['id']}")
        self._ids.add(payload["id"])
        self.seq = seq
        self.received.append(Received(self.epoch, seq, event, payload))
        self.view = views.apply(self.view, event, payload)

    def _begin(self, session: Mapping[str, Any]) -> None:
        if session["userId"] != self.user:
            raise Broken(f"a session of {session['userId']}")
        if session["recovered"]:
            self.recovered += 1
            if session["epoch"] != self.epoch or self.view is None:
                raise Broken("recovered without a position")
            self.live = True
        self._session = session

    def _check_offset(self, event: str, arguments: list[Any]) -> None:
        if self.mode == "since":
            if len(arguments) != 1:
                raise Broken(f"{event} with {len(arguments)} arguments for a client without recovery")
        elif len(arguments) != 2 or arguments[1] != f"{self._epoch}:{arguments[0]['seq']}":
            raise Broken(f"{event} {arguments[0].get('seq')} has offset {arguments[1:]}")

    @property
    def _epoch(self) -> str:
        assert self._session is not None
        return str(self._session["epoch"])

    def _reset(self, payload: Mapping[str, Any]) -> None:
        seq = int(payload["seq"])
        if self.epoch == self._epoch and seq < self.seq:
            raise Broken(f"a snapshot at {seq} after {self.seq}")
        self.snapshots += 1
        self.epoch, self.seq, self.live = self._epoch, seq, True
        self.view = views.apply({}, "snapshot", payload)

    async def ack(self) -> None:
        """Say what was shown."""
        if self._ws is not None and not self._ws.closed and self.live and self.seq and not self.stalled:
            try:
                await self._ws.send_str(f'427["ack",{{"seq":{self.seq}}}]')
            except (ConnectionError, aiohttp.ClientError):
                self.trace(f"{self.name}: no ack, the connection is gone")
