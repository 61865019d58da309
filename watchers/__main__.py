"""`python -m watchers`: follow every chain of the table, as writer or hot standby. `doctor`: say how its nodes are."""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import aiohttp
import orjson
import structlog

from config import logs
from config import settings as configuration
from config.chains import Chain, ChainTableError, load_chains
from config.settings import Settings, SettingsError
from handlers.deps import Deps
from store.feed import Publisher
from store.postgres import LOST, Pool, open_pool
from watchers import doctor
from watchers.ingest import writer
from watchers.pacing import Backoff, rest
from watchers.supervise import WRITER_RETRY_S, watch_all

logger = structlog.get_logger(__name__)

POOL_SIZE = 2
"""Pooled connections: writers have their own, these serve reads beside them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb, or follow the chains; returns the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        settings = configuration.load()
        logs.configure(settings.log_level, process="watchers")
        chains = _chosen(load_chains(settings.chains_file) if settings.chains_file else {}, asked.chain)
        return asyncio.run(_examine(settings, chains) if asked.verb == "doctor" else _follow(settings, chains))
    except (SettingsError, ChainTableError) as error:
        sys.stderr.write(logs.scrub(f"{error}\n"))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m watchers", description=__doc__)
    parser.add_argument(
        "--chain", type=int, action="append", metavar="ID", help="only this chain of the table; may be repeated"
    )
    verbs = parser.add_subparsers(dest="verb", metavar="doctor")
    verbs.add_parser("doctor", help="one JSON line per chain; fails when one is not ok")
    return parser


def _chosen(chains: Mapping[int, Chain], ids: Sequence[int] | None) -> Mapping[int, Chain]:
    """The table, or the chains asked for."""
    for chain_id in ids or ():
        if chain_id not in chains:
            listed = ", ".join(map(str, chains)) or "none"
            raise ChainTableError(f"--chain {chain_id} is not in the chain table; it lists {listed}.")
    return {chain_id: chain for chain_id, chain in chains.items() if not ids or chain_id in ids}


async def _examine(settings: Settings, chains: Mapping[int, Chain]) -> int:
    findings = await doctor.examine_all(chains.values(), timeout_s=settings.rpc_timeout_s)
    for finding in findings:
        sys.stdout.write(orjson.dumps(asdict(finding)).decode() + "\n")
    return 0 if all(finding.ok for finding in findings) else 1


async def _follow(settings: Settings, chains: Mapping[int, Chain]) -> int:
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    pool = await _patient_pool(settings, stop)
    if pool is None:
        return 0
    publisher = Publisher(settings.redis_url)
    deps = Deps(settings=settings, chains=chains, pool=pool, publisher=publisher, now=lambda: datetime.now(UTC))
    try:
        async with aiohttp.ClientSession() as session:
            await watch_all(deps, chains.values(), session=session, writer=writer, stop=stop)
    finally:
        await publisher.close()
        pool.terminate()
    return 0


async def _patient_pool(settings: Settings, stop: asyncio.Event) -> Pool | None:
    """Open the pool as soon as PostgreSQL is there; None when told to stop before."""
    pause = Backoff(*WRITER_RETRY_S)
    while not stop.is_set():
        try:
            return await open_pool(settings.database_url, size=POOL_SIZE)
        except LOST as error:
            logger.warning("database_lost", error=repr(error))
            await rest(stop, pause.next_s())
    return None


if __name__ == "__main__":
    sys.exit(main())
