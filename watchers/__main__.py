"""`python -m watchers`: follow every chain of the table, as writer or hot standby. `doctor`: say how its nodes are.

`backfill`: rebuild the past of a running chain (watchers/backfill.py).
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from functools import partial

import aiohttp
import orjson
import structlog

from config import logs, metrics
from config import settings as configuration
from config.chains import Chain, ChainTableError, load_chains
from config.settings import Settings, SettingsError
from handlers.deps import Deps
from store.feed import Publisher
from store.postgres import patient_pool
from store.rpc import Rpc, RpcError
from watchers import doctor
from watchers.backfill import Backfill, NothingToRebuild, Progress, percent
from watchers.ingest import writer
from watchers.supervise import watch_all

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
        match asked.verb:
            case "doctor":
                return asyncio.run(_examine(settings, chains))
            case "backfill":
                return asyncio.run(_backfill(settings, chains, asked.first))
            case _:
                return asyncio.run(_follow(settings, chains))
    except (SettingsError, ChainTableError) as error:
        sys.stderr.write(logs.scrub(f"{error}\n"))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m watchers", description=__doc__)
    _add_chain(parser, None)
    verbs = parser.add_subparsers(dest="verb", metavar="doctor|backfill")
    verbs.add_parser("doctor", help="one JSON line per chain; fails when one is not ok")
    backfill = verbs.add_parser(
        "backfill",
        help="rebuild the past of running chains: state from each chain's first block, ledger rows that are missing",
    )
    _add_chain(backfill, argparse.SUPPRESS)
    backfill.add_argument(
        "--from", dest="first", type=int, metavar="BLOCK", help="add missing ledger rows from this block on only"
    )
    return parser


def _add_chain(parser: argparse.ArgumentParser, default: str | None) -> None:
    parser.add_argument(
        "--chain",
        type=int,
        action="append",
        metavar="ID",
        default=default,
        help="only this chain of the table; may be repeated",
    )


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
    stop = _stop_on_signals()
    pool = await patient_pool(settings.database_url, stop, size=POOL_SIZE)
    if pool is None:
        return 0
    publisher = Publisher(settings.redis_url)
    deps = Deps(settings=settings, chains=chains, pool=pool, publisher=publisher, now=lambda: datetime.now(UTC))
    try:
        async with aiohttp.ClientSession() as session:
            with metrics.served(settings.host, settings.metrics_port):
                await watch_all(deps, chains.values(), session=session, writer=writer, stop=stop)
    finally:
        await publisher.close()
        pool.terminate()
    return 0


async def _backfill(settings: Settings, chains: Mapping[int, Chain], first: int | None) -> int:
    """Rebuild the chains one after the other; stopped, the next call goes on where this one was."""
    stop = _stop_on_signals()
    pool = await patient_pool(settings.database_url, stop, size=POOL_SIZE)
    if pool is None:
        return 0
    publisher = Publisher(settings.redis_url)
    deps = Deps(settings=settings, chains=chains, pool=pool, publisher=publisher, now=lambda: datetime.now(UTC))
    try:
        async with aiohttp.ClientSession() as session:
            for chain in chains.values():
                rpc = Rpc(chain.rpc, settings.rpc_timeout_s, session, chain_id=chain.id)
                begin = chain.first_block if first is None else first
                say = partial(_tell_progress, chain)
                done = await Backfill(deps, chain, rpc, begin, say).run(stop)
                if done is None:
                    sys.stdout.write(f"{chain.name}: stopped; run backfill again to go on\n")
                    return 1
                sys.stdout.write(
                    f"{chain.name}: rebuilt through block {done.through}, {done.rows} rows added, "
                    f"{done.users} users told to resync\n"
                )
    except (NothingToRebuild, RpcError, TimeoutError) as error:
        sys.stderr.write(logs.scrub(f"{error}\n"))
        return 1
    finally:
        await publisher.close()
        await pool.close()
    return 0


def _tell_progress(chain: Chain, at: Progress) -> None:
    done = percent(at, first=chain.first_block)
    sys.stdout.write(f"{chain.name}: block {at.block} of {at.last} ({done} %), {at.rows} rows added\n")
    sys.stdout.flush()


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    return stop


if __name__ == "__main__":
    sys.exit(main())
