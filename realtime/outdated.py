"""What clients of older protocols are told, in their own words: of a refused request they show the status alone.

Such a client gets a session that says what is wrong, as the `error` event that its library hands to the application,
and then disconnects it for good. Nothing of it is kept here.
"""

from __future__ import annotations

from collections.abc import Sequence

import orjson
from aiohttp import web

from handlers.errors import OutdatedClient

OLDER = frozenset({"1", "2", "3"})
"""Values of EIO in use before ours; the Socket.IO clients 1.x and 2.x speak 2 and 3."""
GOODBYE_S = 2.0
"""Time a client has to answer the close of its websocket (s)."""


def packets(sid: str) -> tuple[str, str, str]:
    """Engine.IO OPEN, then Socket.IO ERROR and DISCONNECT of `/`, in ASCII: their payloads count characters."""
    problem = OutdatedClient("Update this client: it speaks a protocol older than Engine.IO 4, of Socket.IO 3 and 4.")
    opened = {"sid": sid, "upgrades": [], "pingInterval": 25_000, "pingTimeout": 20_000}
    error = {"message": problem.detail, "data": problem.body()}
    return f"0{orjson.dumps(opened).decode()}", f"44{orjson.dumps(error).decode()}", "41"


def payload(of: Sequence[str]) -> str:
    """Packets in one body, as these protocols write them."""
    return "".join(f"{len(packet)}:{packet}" for packet in of)


async def by_websocket(request: web.Request, sid: str) -> web.StreamResponse:
    """Tell it on a websocket, and close that."""
    ws = web.WebSocketResponse(compress=False, timeout=GOODBYE_S, max_msg_size=1024)
    try:
        await ws.prepare(request)
        for packet in packets(sid):
            await ws.send_str(packet)
        await ws.close()
    except ConnectionError:
        return web.Response()  # gone already
    return ws
