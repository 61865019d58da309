"""What runs are set on: settings, people's wallets, virtual wall clocks, and the product's log as part of the trace."""

from __future__ import annotations

import random
import socket
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import coincurve
import structlog

from config.settings import Settings
from tests.factories import make_hash
from tests.realtime.wallets import Wallet
from tests.sim.clock import wall_ms
from watchers import catchup


def narrow_socket(address: Any) -> socket.socket:
    made = socket.socket(address[0], address[1], address[2])
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    # Segments of the loopback's 64 KB would never fit: the kernel would send by timers of its own, in real time.
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 512)
    return made


def wallet(seed: int, who: int) -> Wallet:
    return Wallet(coincurve.PrivateKey(bytes.fromhex(make_hash("key", seed, who)[2:])))


def settings(database_url: str, redis_url: str, draw: random.Random) -> Settings:
    plenty = dict.fromkeys(("sign_in_limit_per_minute", "read_limit_per_minute", "command_limit_per_minute"), 1_000_000)
    return Settings(
        database_url=database_url,
        redis_url=redis_url,
        clickhouse_url="http://127.0.0.1:9/unused",
        data_dir=Path("/nonexistent"),
        chains_file=Path("/nonexistent/chains.toml"),
        secret_key="k" * 32,
        access_token_ttl_s=365 * 86_400,
        rpc_timeout_s=3,
        poll_interval_s=1,
        socket_buffer_bytes=draw.choice((16 * 1024, 16 * 1024, 256 * 1024)),
        **plenty,
    )


@contextmanager
def virtual_wall() -> Iterator[None]:
    """arq's clock is ours, and catch-up takes small steps."""
    with (
        mock.patch("arq.worker.timestamp_ms", wall_ms),
        mock.patch("arq.connections.timestamp_ms", wall_ms),
        mock.patch("jobs.worker.timestamp_ms", wall_ms),
        mock.patch.object(catchup, "FIRST_RANGE", 5),
    ):
        yield


@contextmanager
def listening_to_logs(trace: Callable[[str], None]) -> Iterator[None]:
    """Warnings and errors of the product go into the trace."""

    def keep(_: Any, level: str, event: dict[str, Any]) -> Any:
        if level not in ("debug", "info"):
            facts = {key: value for key, value in event.items() if key not in ("event", "exc_info")}
            trace(f"    {level}: {event['event']} {facts}")
            if event.get("exc_info"):
                trace(traceback.format_exc())
        raise structlog.DropEvent

    processors = structlog.get_config()["processors"]
    before = list(processors)
    processors[:] = [keep]
    try:
        yield
    finally:
        processors[:] = before
