"""Web processes as operators run them, with signed-in users and a writer of their logs: what the proofs run against."""

from __future__ import annotations

import asyncio
import base64
import os
import secrets
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import aiohttp

from config.embedded.children import free_port
from config.embedded.postgres import Postgres
from config.embedded.valkey import Valkey
from handlers.auth import ACCESS_PREFIX, TOKEN_BYTES, fingerprint
from store import log, migrate, sessions
from store.audit import Caller
from store.feed import Publisher
from store.postgres import Pool, Tx, in_transaction, open_pool
from store.records import Address, Draft, Frame
from tests.flows.stack import Process
from tests.load.deliver import favour
from tests.waiting import until

CHAINS = '[[chain]]\nname = "proof"\nid = 31337\nrpc = ["http://127.0.0.1:9"]\n'
TOKENS_LAST = timedelta(hours=1)
CALLER = Caller("127.0.0.1", "proof")


@dataclass(frozen=True)
class Urls:
    """Where the engines are."""

    database: str
    redis: str


@dataclass
class Product:
    """Running web processes, and who writes what they deliver. Events are committed first, then published."""

    pool: Pool
    publisher: Publisher
    urls: list[str] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    told: dict[Address, int] = field(default_factory=dict)
    """Seq of the last event of each user."""

    def pid(self, server: int) -> int:
        """Process id of a web process."""
        return self.processes[server].pid

    async def sign_in(self, count: int) -> dict[Address, str]:
        """New users, each with an access token."""
        users = {f"0x{secrets.token_hex(20)}": ACCESS_PREFIX + secrets.token_urlsafe(TOKEN_BYTES) for _ in range(count)}
        now = datetime.now(UTC)

        async def body(tx: Tx) -> None:
            await log.lock(tx, users)
            for user, token in users.items():
                await sessions.register(tx, user, chain_ids=(), at=now)
                session_id = await sessions.start(tx, user, CALLER, at=now)
                await sessions.add_access(tx, session_id, fingerprint(token), expires_at=now + TOKENS_LAST)

        await in_transaction(self.pool, body)
        self.told |= dict.fromkeys(users, 0)
        return users

    async def commit(self, users: Sequence[Address]) -> list[Frame]:
        """Append one event per mention of a user; its frames are not published yet."""
        drafts: list[Draft] = []
        for user in users:
            self.told[user] += 1
            body = {"hash": "0x" + secrets.token_hex(32), "amount": "12500000", "symbol": "USDC"}
            drafts.append(Draft(user, secrets.token_hex(16), "new_transaction", 1, body))

        async def append(tx: Tx) -> list[Frame]:
            return await log.append(tx, await log.lock(tx, users), drafts, at=datetime.now(UTC))

        return await in_transaction(self.pool, append)

    async def tell(self, users: Sequence[Address]) -> None:
        """Append one event per mention of a user and publish them."""
        frames = await self.commit(users)
        await self.publisher.publish([(frame.user, frame.text) for frame in frames])


@contextmanager
def engines(prefer: Callable[[int | None], None] = favour) -> Iterator[Urls]:
    """Engines of this run's own, migrated; `prefer` is called for the process that passes events on."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Postgres(Path(folder), options={"fsync": "off"}) as postgres,
        Valkey(Path(folder)) as valkey,
    ):
        prefer(valkey.pid)
        asyncio.run(_migrate(postgres.url))
        yield Urls(postgres.url, valkey.url)


async def _migrate(url: str) -> None:
    async with migrate.locked(url) as conn:
        await migrate.postgres(conn)


@asynccontextmanager
async def product(
    folder: Path, urls: Urls, *, servers: int, chains: str = CHAINS, **settings: str
) -> AsyncIterator[Product]:
    """`servers` web processes that are ready; they are stopped as operators do, and must end well."""
    pool, publisher = await open_pool(urls.database), Publisher(urls.redis)
    made = Product(pool, publisher)
    (folder / "chains.toml").write_text(chains)
    try:
        for number in range(servers):
            _start(made, folder, number, urls, settings)
        async with aiohttp.ClientSession() as session:
            for url, process in zip(made.urls, made.processes, strict=True):
                await until(partial(_answers, session, url, process), 30, what="a web process")
        yield made
        for process in made.processes:
            assert await process.stop() == 0, process.output[-4000:]
    finally:
        for process in made.processes:
            if process.running:
                process.kill()
        await publisher.close()
        await pool.close()


def _start(made: Product, folder: Path, number: int, urls: Urls, settings: dict[str, str]) -> None:
    port = free_port()
    environment = environment_of(folder, urls, port=str(port), **settings)
    log_file = folder / f"web-{number}.log"
    made.processes.append(Process("realtime", ["realtime"], environment=environment, log=log_file))
    made.urls.append(f"http://127.0.0.1:{port}")


def environment_of(folder: Path, urls: Urls, **settings: str) -> dict[str, str]:
    """What a process of the product is started with."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "EXPENDI_ENV": "production",
        "EXPENDI_SECRET_KEY": "a secret of this proof, 32 characters",
        "EXPENDI_SEAL_KEYS": "k1:" + base64.b64encode(b"seal key of this proof, 32 bytes").decode(),
        "EXPENDI_CHAINS_FILE": str(folder / "chains.toml"),
        "EXPENDI_DOMAIN": "localhost",
        "EXPENDI_DATA_DIR": str(folder / "data"),
        "EXPENDI_DATABASE_URL": urls.database,
        "EXPENDI_REDIS_URL": urls.redis,
        "EXPENDI_CLICKHOUSE_URL": "http://127.0.0.1:9/none",
        **{f"EXPENDI_{name.upper()}": value for name, value in settings.items()},
    }


async def _answers(session: aiohttp.ClientSession, url: str, process: Process) -> bool:
    assert process.running, process.output
    try:
        async with session.get(url + "/readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False
