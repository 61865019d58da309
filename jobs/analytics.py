"""`python -m jobs.analytics rebuild`: make ClickHouse's tables again from the ledger, while traffic goes on."""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import asdict
from datetime import date

import orjson

from config import logs
from config import settings as configuration
from config.settings import Settings, SettingsError
from handlers import refill
from store.clickhouse import REFUSED, Analytics
from store.postgres import LOST, open_pool

READ_TIMEOUT_S = 3600.0
"""Time one statement may take (s): folding the hours of a large month takes minutes."""
COMMAND_TIMEOUT_S = 600.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    asked = _parser().parse_args(arguments)
    try:
        settings = configuration.load()
        logs.configure(settings.log_level, process="analytics")
        return asyncio.run(_rebuild(settings, chain_id=asked.chain, since=asked.since))
    except (SettingsError, refill.Busy, *REFUSED, *LOST) as error:
        sys.stderr.write(logs.scrub(f"{error}\n"))
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="expendi analytics", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True)
    rebuild = verbs.add_parser(
        "rebuild", help="fill ClickHouse anew from PostgreSQL; stopped, the next run goes on where it was"
    )
    rebuild.add_argument("--chain", type=int, metavar="ID", help="only this chain's rows (all)")
    rebuild.add_argument(
        "--from", dest="since", type=_month, metavar="YYYY-MM", help="only this month and later ones (all)"
    )
    return parser


def _month(text: str) -> date:
    try:
        return date.fromisoformat(f"{text[:7]}-01")
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is no month: write YYYY-MM") from error


async def _rebuild(settings: Settings, *, chain_id: int | None, since: date | None) -> int:
    pool = await open_pool(settings.database_url, size=4, command_timeout_s=COMMAND_TIMEOUT_S)
    analytics = Analytics(settings.clickhouse_url, read_timeout_s=READ_TIMEOUT_S)
    began = time.monotonic()
    try:
        async with aclosing(refill.run(pool, analytics, chain_id=chain_id, since=since)) as steps:
            async for progress in steps:
                told = {**asdict(progress), "seconds": int(time.monotonic() - began)}
                sys.stdout.write(orjson.dumps(told).decode() + "\n")
                sys.stdout.flush()
    finally:
        await analytics.close()
        await pool.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
