"""New heads by websocket, as soon as a node announces them; a connection that ends or is silent is opened again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import aiohttp
import orjson
import structlog

from config import metrics
from store.chain import Header, header_from
from store.rpc import RpcError, WrongChain, host, quantity

logger = structlog.get_logger(__name__)

SILENCE_S = 60.0
"""Silence of a websocket (s) after which it counts as dead: five times the slowest block time we follow."""
PING_S = 10.0
"""How often a websocket is pinged (s). Without a pong for half of it, it is half-open: the other end went unheard."""
RECONNECT_S = (0.5, 30.0)
"""First and longest pause before a websocket is opened again (s); polling goes on meanwhile."""
MESSAGE_LIMIT_BYTES = 1024 * 1024
"""Longest websocket message: a header has some 2 KB."""


async def heads(
    url: str, session: aiohttp.ClientSession, *, chain_id: int, timeout_s: float, silence_s: float = SILENCE_S
) -> AsyncGenerator[Header, None]:
    """New headers as a node announces them, over connections that are opened again; ends only on a wrong chain.

    Heads are lost while it reconnects, come twice, or come late: whoever follows them compares and polls.
    """
    first, longest = RECONNECT_S
    pause = first
    while True:
        try:
            async with aclosing(_subscription(url, session, chain_id, timeout_s, silence_s)) as headers:
                async for header in headers:
                    pause = first
                    yield header
        except RpcError as error:
            metrics.HEADS_LOST.labels(str(chain_id), error.kind).inc()
            logger.warning("heads_lost", chain=chain_id, node=host(url), error=str(error), again_in_s=pause)
        except WrongChain as error:
            metrics.HEADS_LOST.labels(str(chain_id), "wrong_chain").inc()
            logger.error("rpc_wrong_chain", chain=chain_id, node=host(url), error=str(error))
            return
        await asyncio.sleep(pause)
        pause = min(pause * 2, longest)


async def _subscription(
    url: str, session: aiohttp.ClientSession, chain_id: int, timeout_s: float, silence_s: float
) -> AsyncGenerator[Header, None]:
    try:
        async with asyncio.timeout(timeout_s):
            socket = await session.ws_connect(url, max_msg_size=MESSAGE_LIMIT_BYTES, heartbeat=min(PING_S, silence_s))
        async with socket:
            async with asyncio.timeout(timeout_s):
                serves = quantity(await _answer(socket, 1, "eth_chainId", []))
                if serves != chain_id:
                    raise WrongChain(f"serves chain {serves}")
                subscription = await _answer(socket, 2, "eth_subscribe", ["newHeads"])
            while True:
                async with asyncio.timeout(silence_s):
                    text = await socket.receive()
                if isinstance(text.data, aiohttp.ServerTimeoutError):
                    raise RpcError("timeout", "half-open: no pong", method="newHeads", node=host(url))
                message = orjson.loads(text.data)
                params = message.get("params") or {}
                if message.get("method") == "eth_subscription" and params.get("subscription") == subscription:
                    yield header_from(params["result"])
    except TimeoutError:
        raise RpcError("timeout", "silent", method="newHeads", node=host(url)) from None
    except (aiohttp.ClientError, OSError) as error:
        raise RpcError("transport", type(error).__name__, method="newHeads", node=host(url)) from None
    except (TypeError, ValueError, LookupError, AttributeError) as error:
        # What a closed socket receives is no JSON.
        raise RpcError("transport", "closed, or not JSON-RPC", method="newHeads", node=host(url)) from error


async def _answer(socket: aiohttp.ClientWebSocketResponse, id_: int, method: str, params: list[Any]) -> Any:
    await socket.send_str(orjson.dumps({"jsonrpc": "2.0", "id": id_, "method": method, "params": params}).decode())
    while True:
        message = orjson.loads(await socket.receive_str())
        if message.get("id") == id_:
            return message["result"]
