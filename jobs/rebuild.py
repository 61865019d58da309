"""`python -m jobs.rebuild search|embeddings`: make the search index, or the vectors of what texts mean, again.

User by user in the order of their addresses, one JSON line of progress for each some; it may run beside everything
else. Stopped, it goes on: texts that the settings' model has read are not read again, and `--from` skips users.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import orjson

from config import logs
from config import settings as configuration
from config.settings import Settings, SettingsError
from handlers import search as indexing
from handlers.deps import Deps
from jobs.job import Tools
from jobs.meaning import read
from jobs.outbound import vectors
from jobs.outbound.provider import ProviderFailed
from jobs.outbound.vectors import OverCap
from store import search
from store.blind import Blinds
from store.clickhouse import Analytics
from store.feed import Publisher
from store.postgres import LOST, Tx, in_transaction, open_pool
from store.records import Address
from store.sealed import KeyRing
from store.search import BEFORE_ALL, RowKey

USER_S = 86_400.0
"""Time that one user's texts may take (s): all that they need."""
USERS = 100
"""Users between two lines of progress."""


@dataclass(slots=True)
class Progress:
    """How far it is: the last user done, how many users, and transactions indexed or texts read; those left out."""

    what: str
    user: Address = ""
    users: int = 0
    count: int = 0
    left_out: int = 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code: 1 when something was left out."""
    parser = argparse.ArgumentParser(prog="expendi", description=__doc__)
    parser.add_argument("what", choices=("search", "embeddings"), help="the index of words, or the vectors of meaning")
    parser.add_argument("verb", choices=("rebuild",))
    parser.add_argument("--from", dest="after", default="", metavar="ADDRESS", help="begin after this user")
    asked = parser.parse_args(arguments)
    try:
        settings = configuration.load()
        logs.configure(settings.log_level, process=f"rebuild {asked.what}")
        return asyncio.run(_run(settings, asked.what, asked.after.lower()))
    except (SettingsError, ProviderFailed, *LOST) as error:
        sys.stderr.write(logs.scrub(f"{error}\n"))
        return 1


async def _run(settings: Settings, what: str, after: Address) -> int:
    async with AsyncExitStack() as closing:
        pool = await open_pool(settings.database_url, size=2)
        closing.push_async_callback(pool.close)
        publisher = Publisher(settings.redis_url)
        closing.push_async_callback(publisher.close)
        deps = Deps(settings, {}, pool, publisher, now=lambda: datetime.now(UTC))
        meaning = vectors.opened(settings, pool, deps.now)
        closing.push_async_callback(meaning.close)
        tools = Tools(deps, Analytics(settings.clickhouse_url), meaning=meaning)
        async for progress in rebuild(tools, what, after=after):
            sys.stdout.write(orjson.dumps(progress).decode() + "\n")
            sys.stdout.flush()
        return 1 if progress.left_out else 0


async def rebuild(tools: Tools, what: str, *, after: Address = "") -> AsyncIterator[Progress]:
    """Make the index (`search`) or the vectors (`embeddings`) of everyone after an address again."""
    progress = Progress(what, after)
    while users := await search.users(tools.deps.pool, after=progress.user, limit=USERS):
        for user in users:
            try:
                progress.count += await (_index(tools.deps, user) if what == "search" else _read(tools, user))
            except OverCap:
                progress.left_out += 1
            progress.user = user
            progress.users += 1
        yield progress
    yield progress


async def _index(deps: Deps, user: Address) -> int:
    """Index all of a user's transactions; returns how many."""
    after: RowKey = BEFORE_ALL
    count = 0
    while True:
        keys = await in_transaction(deps.pool, partial(_chunk, deps, user=user, after=after))
        count += len(keys)
        if len(keys) < indexing.CHUNK:
            return count
        after = keys[-1]


async def _chunk(deps: Deps, tx: Tx, *, user: Address, after: RowKey) -> list[RowKey]:
    await search.lock(tx, [user])
    keys = await search.of_user(tx, user, after=after, limit=indexing.CHUNK)
    await indexing.write(tx, keys, ring=KeyRing.of(deps.settings), blinds=Blinds.of(deps.settings))
    return keys


async def _read(tools: Tools, user: Address) -> int:
    assert tools.meaning is not None
    model = tools.meaning.of(consents=await indexing.consents(tools.deps, user))
    return (await read(tools, user, model, deadline=time.monotonic() + USER_S)).count


if __name__ == "__main__":
    sys.exit(main())
