"""`python -m realtime`: settings -> pools -> Deps -> application, and back in reverse on SIGTERM."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime

import aiohttp
import structlog
from aiohttp import web

from config import logs, settings
from config.chains import Chain, ChainTableError, load_chains
from config.settings import Settings, SettingsError
from handlers.deps import Deps
from realtime.app import build
from realtime.signatures import Signatures
from realtime.turns import Loop, settle
from store.feed import Publisher
from store.opening import DatabaseUnfit, open_when_ready
from store.postgres import Pool
from store.redis import open_redis

logger = structlog.get_logger("realtime")

DATABASE_S = 30.0
"""How long the database may take to answer at start (s): a container beside us may still be starting."""
POOL_SIZE = 20
"""Connections to the database: requests are short, and twenty at a time keep a core busy."""
POOL_CLOSE_S = 2.0
"""Time that connections may take to be handed back at a stop (s)."""
KEEPALIVE_S = 75.0
"""Time an idle connection is kept for its next request (s); proxies keep theirs for 60."""
BACKLOG = 1024
"""Connections that may wait in the kernel until they are taken: a herd reconnects after each deploy."""
LINGER_S = 1.0
"""Time in which the rest of a body that was refused is still read (s), so that its sender sees the answer."""
SHUTDOWN_S = 3.0
"""Time that requests under way may take at a stop (s)."""


class CanNotStart(Exception):
    """The process can't serve; the message says what to do."""


def main() -> int:
    """Serve until SIGTERM or SIGINT; returns the exit status."""
    try:
        settled = settings.load()
        chains = load_chains(settled.chains_file) if settled.chains_file else {}
    except (SettingsError, ChainTableError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    logs.configure(settled.log_level, process="web")
    try:
        with asyncio.Runner(loop_factory=Loop) as runner:
            runner.run(serve(settled, chains))
    except (CanNotStart, DatabaseUnfit) as error:
        sys.stderr.write(logs.scrub(f"{error}\n"))
        return 1
    return 0


async def serve(settled: Settings, chains: Mapping[int, Chain], *, stop: asyncio.Event | None = None) -> None:
    """Serve until `stop` is set or a signal comes; raises CanNotStart or DatabaseUnfit."""
    stop = stop or asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    async with AsyncExitStack() as stack:
        pool = await open_when_ready(settled.database_url, size=POOL_SIZE, timeout_s=DATABASE_S, stop=stop)
        if pool is None:
            return
        stack.push_async_callback(_close, pool)
        redis = open_redis(settled.redis_url)
        stack.push_async_callback(redis.aclose)
        publisher = Publisher(settled.redis_url)
        stack.push_async_callback(publisher.close)
        deps = Deps(settled, chains, pool, publisher, now=lambda: datetime.now(UTC))
        nodes = await stack.enter_async_context(aiohttp.ClientSession())
        app = build(deps, redis, Signatures(chains, nodes))
        await stack.enter_async_context(_listening(app, settled))
        await stop.wait()
        logger.info("stopping")


@asynccontextmanager
async def _listening(app: web.Application, settled: Settings) -> AsyncIterator[None]:
    # handler_cancellation: a long poll whose client has gone ends at once; writes are shielded (rest/call.py).
    runner = web.AppRunner(
        app,
        access_log=None,
        handler_cancellation=True,
        shutdown_timeout=SHUTDOWN_S,
        keepalive_timeout=KEEPALIVE_S,
        lingering_time=LINGER_S,
    )
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, settled.host, settled.port, backlog=BACKLOG, reuse_address=True).start()
        except OSError as error:
            raise CanNotStart(
                f"{settled.host}:{settled.port} can't be listened on ({error.strerror}): "
                f"set {settings.variable('host')} and {settings.variable('port')}."
            ) from error
        settle()
        host, port = runner.addresses[0][:2]
        logger.info("listening", host=host, port=port)
        sys.stdout.write(f"listening on http://{_shown(host)}:{port}\n")
        sys.stdout.flush()
        yield
    finally:
        await runner.cleanup()


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _close(pool: Pool) -> None:
    """Close the pool; a database that is gone may not hold up the end."""
    try:
        async with asyncio.timeout(POOL_CLOSE_S):
            await pool.close()
    except TimeoutError:
        pool.terminate()


if __name__ == "__main__":
    sys.exit(main())
