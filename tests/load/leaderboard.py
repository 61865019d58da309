"""`make bench-leaderboard`: a leaderboard of 100,000, from a block's commit to the sockets of those concerned.

Blocks are committed by the real writer; a real worker measures the challenge, a real web process writes to real
sockets, and PostgreSQL says when each transaction was committed. A plain Python model of the whole order says who has
to be told what; a subscriber of every user's channel sees that they were, and that nobody else was.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import orjson

from config import logs
from config.embedded.postgres import Postgres
from config.embedded.valkey import Valkey
from config.settings import Settings
from handlers import standings
from handlers.deps import Deps
from handlers.rules.ids import bucket_id
from store import migrate
from store.leaderboards import Leaderboards
from store.records import Address
from store.redis import open_redis
from tests.flows.stack import Process
from tests.handlers import scripted
from tests.load.ingest import commit, machine
from tests.load.leaderboard_model import Oracle, Watch, everyone, measure_store, quantiles
from tests.load.listener import Listener
from tests.load.product import Product, Urls, environment_of, product
from tests.waiting import until
from watchers.ingest import Ledger, writer

TARGET_USD = 10_000
BASIS = 10_000
CENT = 10_000
"""Raw units of a cent of USDC; at this target a basis point of progress is a dollar."""
DOLLAR = 100 * CENT
NAME = "a house"
START = datetime(2026, 10, 31, tzinfo=UTC)
"""Before the first block of a script."""
CHAIN = scripted.make_chain()
CHAINS = f"""
[[chain]]
name = "scripted"
id = {CHAIN.id}
rpc = ["http://127.0.0.1:9"]
first_block = 0
confirmations = 2
finality_depth = 64
wallets = ["{scripted.WALLET}"]
factories = []

[[chain.token]]
address = "{scripted.USDC}"
symbol = "USDC"
decimals = 6
price = "usd"
"""


class Phone(Listener):
    """A participant's socket: what it was told of leaderboards, and when (ns, by the kernel)."""

    def __init__(self, user: Address) -> None:
        super().__init__(user)
        self.told: list[tuple[dict[str, Any], int]] = []

    def _packet(self, text: bytes, at_ns: int) -> None:
        if text.startswith(b'42["leaderboard_update"'):
            self.told.append((orjson.loads(text[2:])[1], at_ns))
        else:
            super()._packet(text, at_ns)


@dataclass
class Times:
    """Milliseconds of every change."""

    block_to_socket: list[float] = field(default_factory=list)
    block_to_score: list[float] = field(default_factory=list)
    score_to_publish: list[float] = field(default_factory=list)
    score_to_socket: list[float] = field(default_factory=list)


@dataclass
class Race:
    """One challenge of many, its movers, and everything that runs for it."""

    deps: Deps
    made: Product
    ledger: Ledger
    watch: Watch
    oracle: Oracle
    challenge: UUID
    users: Mapping[UUID, Address]
    phones: Mapping[UUID, Phone]
    script: scripted.Script
    times: Times = field(default_factory=Times)
    published_ns: int = 0
    """When the last one of the last move was published."""

    async def move(self, id_: UUID, score: int) -> None:
        """Commit a block that changes one score; wait for its end, and hold who was told against the model."""
        user, before = self.users[id_], self.oracle.scores[id_]
        expected = self.oracle.move(id_, score)
        heard, shown = len(self.watch.heard), {each: len(phone.told) for each, phone in self.phones.items()}
        await self.commit({user: score - before})
        await until(lambda: len(self.watch.heard) >= heard + len(expected), 10, what="everybody's event")
        here = {each for each in expected if each in self.phones}
        await until(lambda: all(len(self.phones[each].told) > shown[each] for each in here), 10, what="sockets")
        told = {name: (payload["rank"], payload["previousRank"]) for name, payload, _ in self.watch.heard[heard:]}
        assert told == {self.users[each]: said for each, said in expected.items()}
        for each, phone in self.phones.items():
            got = [(one["rank"], one["previousRank"]) for one, _ in phone.told[shown[each] :]]
            assert got == ([expected[each]] if each in expected else [])
        self.published_ns = max(ns for _, _, ns in self.watch.heard[heard:])

    async def commit(self, dollars: Mapping[Address, int]) -> None:
        """A block in which these move dollars into their bucket, or out of it."""
        events = [
            [scripted.fund(user, NAME, amount * DOLLAR)]
            if amount >= 0
            else [scripted.spend(user, NAME, -amount * DOLLAR)]
            for user, amount in dollars.items()
        ]
        block = self.script.block(*events)
        await self.ledger.apply(block, head=block.number, finalized=0)

    async def time(self, id_: UUID) -> None:
        """Note how long the last move took; when block and score were committed, PostgreSQL says."""
        row = await self.deps.pool.fetchrow(
            """SELECT pg_xact_commit_timestamp(b.xmin) AS block, pg_xact_commit_timestamp(p.xmin) AS score
               FROM blocks b, challenge_participants p WHERE b.number = $1 AND p.participant_id = $2""",
            self.script.number,
            id_,
        )
        assert row is not None
        block, score = row["block"].timestamp() * 1e3, row["score"].timestamp() * 1e3
        _, at_ns = self.phones[id_].told[-1]
        self.times.block_to_score.append(score - block)
        self.times.block_to_socket.append(at_ns / 1e6 - block)
        self.times.score_to_publish.append(self.published_ns / 1e6 - score)
        self.times.score_to_socket.append(at_ns / 1e6 - score)


@dataclass(frozen=True)
class Load:
    """How large, how often, and how many sockets of people whom nothing concerns."""

    participants: int
    movers: int
    moves: int
    bystanders: int = 20


@dataclass
class Plan:
    """Who begins where and what happens, drawn before anything runs: it says who needs a socket."""

    scores: dict[UUID, int]
    movers: list[UUID]
    moves: list[tuple[UUID, int]]
    concerned: set[UUID]

    @classmethod
    def drawn(cls, load: Load, chance: random.Random) -> Plan:
        """Scores with ties everywhere (basis points), and movers who only save more."""
        ids = [UUID(int=chance.getrandbits(128), version=4) for _ in range(load.participants)]
        movers = ids[: load.movers]
        scores = {id_: chance.randrange(BASIS // 10 if id_ in movers else BASIS) for id_ in ids}
        model, moves, concerned = Oracle.of(scores), list[tuple[UUID, int]](), set(movers)
        for number in range(load.moves):
            id_ = movers[number % len(movers)]
            score = model.scores[id_] + chance.randrange(1, 1 + 8 * BASIS * len(movers) // load.moves // 10)
            moves.append((id_, score))
            concerned |= set(model.move(id_, score))
        return cls(scores, movers, moves, concerned)


async def fill(deps: Deps, plan: Plan, users: Mapping[UUID, Address]) -> UUID:
    """The challenge and everybody's rows; movers begin at nothing, since their savings are yet to be made."""
    challenge = uuid4()
    crowd = [users[id_] for id_ in plan.scores]
    async with deps.pool.acquire() as conn, conn.transaction():
        await conn.execute("INSERT INTO users (address) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING", crowd)
        await conn.execute(
            """INSERT INTO challenges (id, name, measure, visibility, target, starts_at, ends_at, participants)
               VALUES ($1, 'A house', 'savings_progress', 'public', $2, $3, $4, $5)""",
            challenge,
            TARGET_USD,
            START,
            START + timedelta(days=3650),
            len(crowd),
        )
        bucket = {id_: [bucket_id(CHAIN.id, scripted.WALLET, users[id_], NAME.encode())] for id_ in plan.movers}
        await conn.copy_records_to_table(
            "challenge_participants",
            records=[
                (challenge, users[id_], id_, START, bucket.get(id_, []), 0 if id_ in bucket else score)
                for id_, score in plan.scores.items()
            ],
            columns=["challenge_id", "user_address", "participant_id", "joined_at", "buckets", "score"],
        )
    await deps.pool.execute("ANALYZE challenge_participants")
    return challenge


async def ready(race: Race, plan: Plan) -> None:
    """Let everybody who moves have saved what the plan begins with, in blocks as any other."""
    for start in range(0, len(plan.movers), 20):
        part = plan.movers[start : start + 20]
        opened = [
            [scripted.created(race.users[id_], NAME), scripted.deposit(race.users[id_], 2 * TARGET_USD * DOLLAR)]
            for id_ in part
        ]
        block = race.script.block(*opened)
        await race.ledger.apply(block, head=block.number, finalized=0)
        await race.commit({race.users[id_]: plan.scores[id_] for id_ in part if plan.scores[id_]})

    async def measured() -> bool:
        rows = await race.deps.pool.fetch(
            "SELECT participant_id, score FROM challenge_participants WHERE participant_id = ANY ($1)", plan.movers
        )
        return all(row["score"] == plan.scores[row["participant_id"]] for row in rows)

    await until(measured, 60, what="the scores to begin with")


async def run(load: Load, urls: Urls, folder: Path, *, seed: int = 1, timed: bool = True) -> Race:
    """Everything from filling to the last comparison; returns what was measured. Asserts who was told.

    `timed` needs a PostgreSQL with `track_commit_timestamp`.
    """
    plan = Plan.drawn(load, random.Random(seed))
    settings = Settings(database_url=urls.database, redis_url=urls.redis, leaderboard_interval_s=0)
    quiet = {"leaderboard_interval_s": "0"}
    async with AsyncExitStack() as stack:
        made = await stack.enter_async_context(product(folder, urls, servers=1, chains=CHAINS, **quiet))
        deps = Deps(settings, {CHAIN.id: CHAIN}, made.pool, made.publisher, now=lambda: datetime.now(UTC))
        tokens = await made.sign_in(len(plan.concerned) + load.bystanders)
        users, phones = _people(plan, list(tokens), load)
        challenge = await fill(deps, plan, users)
        redis = open_redis(urls.redis)
        stack.push_async_callback(redis.aclose)
        boards = Leaderboards(redis)
        await standings.rebuild(deps, boards, challenge)
        worker = Process(
            "jobs", ["jobs", "quick"], environment=environment_of(folder, urls, **quiet), log=folder / "jobs"
        )
        stack.callback(worker.kill)
        await until(lambda: "worker_started" in worker.output, 30, what="a worker")
        for phone in phones.values():
            stack.callback(phone.close)
            await phone.connect(made.urls[0], tokens[phone.user], own_address="127.0.0.1")
        ledger = await stack.enter_async_context(writer(deps, CHAIN))
        watch = await stack.enter_async_context(Watch.on(redis))
        model = Oracle.of(plan.scores)
        race = Race(deps, made, ledger, watch, model, challenge, users, phones, scripted.Script(CHAIN.id))
        await ready(race, plan)
        await until(lambda: all(phone.start >= 0 for phone in phones.values()), 30, what="every snapshot")
        await _settled(race, boards)
        for id_, score in plan.moves:
            await race.move(id_, score)
            if timed:
                await race.time(id_)
        await _compare(race, boards)
        assert await worker.stop() == 0, worker.output[-4000:]
        return race


def _people(plan: Plan, signed_in: list[Address], load: Load) -> tuple[dict[UUID, Address], dict[UUID, Phone]]:
    """Whose participants are whose: those concerned and some others have sockets, the crowd has none."""
    quiet = [id_ for id_ in plan.scores if id_ not in plan.concerned][: load.bystanders]
    online = dict(zip([*sorted(plan.concerned), *quiet], signed_in, strict=False))
    users = {id_: online.get(id_) or f"0x{number:040x}" for number, id_ in enumerate(plan.scores, start=1)}
    return users, {id_: Phone(user) for id_, user in online.items()}


async def _settled(race: Race, boards: Leaderboards) -> None:
    """Wait until the standings are those of the plan, and let everybody begin as if nothing had been told."""

    async def level() -> bool:
        return await everyone(boards, race.challenge) == race.oracle.ranked()

    await until(level, 30, what="the standings to begin with")
    await boards.drop(race.challenge)
    await standings.rebuild(race.deps, boards, race.challenge)
    race.watch.heard.clear()
    for phone in race.phones.values():
        phone.told.clear()


async def _compare(race: Race, boards: Leaderboards) -> None:
    """The live standings, those made again beside them and after a flush, and plain Python: every rank the same."""
    live = await everyone(boards, race.challenge)
    began = time.perf_counter()
    assert await standings.rebuild(race.deps, boards, race.challenge) == len(live)
    took = time.perf_counter() - began
    assert await everyone(boards, race.challenge) == live == race.oracle.ranked()
    began = time.perf_counter()
    assert await standings.repair(race.deps, boards, race.challenge) == 0
    compared = time.perf_counter() - began
    await boards.drop(race.challenge)
    assert await standings.repair(race.deps, boards, race.challenge) == -1
    assert await everyone(boards, race.challenge) == live
    print(
        f"rebuilt from PostgreSQL in {took:.2f} s, compared with it in {compared:.2f} s: all {len(live):,} ranks "
        "equal, live, rebuilt beside, rebuilt from nothing, and in plain Python"
    )


@contextmanager
def engines(folder: Path) -> Iterator[Urls]:
    """Engines of this run's own, migrated; commits reach the disk, and PostgreSQL remembers when."""
    with Postgres(folder, options={"track_commit_timestamp": "on"}) as postgres, Valkey(folder) as valkey:
        asyncio.run(_migrate(postgres.url))
        yield Urls(postgres.url, valkey.url)


async def _migrate(url: str) -> None:
    async with migrate.locked(url) as conn:
        await migrate.postgres(conn)


def report(times: Times) -> None:
    told = {
        "from the block's commit to the mover's socket": times.block_to_socket,
        "  of which to the score's commit": times.block_to_score,
        "  and from there to the last one's publish": times.score_to_publish,
        "  or to the mover's socket": times.score_to_socket,
    }
    for what, values in told.items():
        print(f"{what:48}{quantiles(values)}")


async def _alone(url: str, load: Load) -> None:
    client = open_redis(url)
    await measure_store(client, Leaderboards(client), uuid4(), count=load.participants, updates=2000)
    await client.aclose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--participants", type=int, default=100_000)
    parser.add_argument("--moves", type=int, default=300)
    parser.add_argument("--movers", type=int, default=50)
    asked = parser.parse_args()
    logs.configure("warning", process="bench")
    load = Load(asked.participants, asked.movers, asked.moves)
    print(f"leaderboard: {load.participants:,} participants, {load.moves} blocks, {machine()}, commit {commit()}")
    with tempfile.TemporaryDirectory() as name, engines(Path(name)) as urls:
        asyncio.run(_alone(urls.redis, load))
        race = asyncio.run(run(load, urls, Path(name)))
        told = len(race.watch.heard)
        print(f"{load.moves} changes told {told} of {load.participants:,}, each their own place, nobody else anything")
        report(race.times)


if __name__ == "__main__":
    main()
