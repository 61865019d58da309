"""Socket.IO at `/socket.io/`: the one entry point that realtime/app.py uses."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from config.settings import Settings
from realtime.ports import Ports


@dataclass(slots=True)
class RealtimeServer:
    """The running Socket.IO server; `start` before the first request, `stop` before the pools are closed."""

    ports: Ports
    settings: Settings

    async def start(self) -> None:
        """Subscribe, read heights, start the loops. Works while Redis is away."""

    async def stop(self) -> None:
        """Take no more sockets, close those there are so that they reconnect elsewhere, stop the loops."""


def build(app: web.Application, ports: Ports, settings: Settings) -> RealtimeServer:
    """Add the Socket.IO routes to `app` and return the server that answers them."""
    server = RealtimeServer(ports, settings)
    app.on_shutdown.append(lambda _: server.stop())
    return server
