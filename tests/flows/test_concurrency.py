"""Two chains' writers, REST-like writes and jobs append for the same users at once, thousands of times."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from config.chains import Chain
from config.settings import Settings
from handlers.chain_events import DecodedBlock
from handlers.rules.ids import event_id
from store import log
from store.postgres import Pool, Tx, in_transaction
from store.records import Address, Draft
from tests.handlers.ledger import NOW, Bench, bench, make_deps, sign_in
from tests.handlers.scripted import Script, address, created, deposit, fund, make_chain, spend
from tests.recompute import recompute, shown

PEOPLE = tuple(address(0xC0 + i) for i in range(8))
BLOCKS = 120
WRITERS = 6
WRITES = 150


def history(chain: Chain, seed: int) -> Script:
    """Everyone opens a bucket, then random people spend in random order."""
    source = random.Random(seed)
    script = Script(chain.id)
    script.block(*([created(user, "food", 500), deposit(user, 10_000), fund(user, "food", 9_000)] for user in PEOPLE))
    for _ in range(BLOCKS):
        spenders = source.sample(PEOPLE, k=source.randint(1, len(PEOPLE)))
        script.block(*([spend(user, "food", source.randint(1, 20))] for user in spenders))
    return script


async def write_chain(made: Bench, blocks: Sequence[DecodedBlock], source: random.Random) -> None:
    """Apply every block; now and then a few come off and on again."""
    done = 0
    while done < len(blocks):
        await made.apply(blocks[done])
        done += 1
        if done > 3 and source.random() < 0.05:
            depth = source.randint(1, 3)
            await made.revert(depth)
            done -= depth


async def write_rest(pool: Pool, number: int, source: random.Random) -> int:
    """What a REST write or a job does: its own transaction over some users, in whatever order they come."""
    told = 0
    for turn in range(WRITES):
        users = source.sample(PEOPLE, k=source.randint(1, 4))

        async def body(tx: Tx, turn: int = turn, users: Sequence[Address] = users) -> None:
            counters = await log.lock(tx, users)
            drafts = [
                Draft(user, event_id("resync", user, number, turn), "resync", 1, {"reason": "rebuild"})
                for user in users
            ]
            await log.append(tx, counters, drafts, at=NOW)

        await in_transaction(pool, body)
        told += len(users)
    return told


async def read_log(pool: Pool, user: Address, stopped: asyncio.Event) -> list[int]:
    """Follow a log while it grows: an entry that commits later than a higher seq would show as a hole."""
    seen: list[int] = []
    last_round = False
    while True:
        seen += [entry.seq for entry in await log.after(pool, user, len(seen), limit=500, max_bytes=2**30)]
        if last_round:
            return seen
        last_round = stopped.is_set()
        await asyncio.sleep(0)


async def test_concurrent_writers_keep_every_log_gapless_and_every_figure_exact(
    pool: Pool, make_settings: Callable[..., Settings]
) -> None:
    settings = make_settings()
    chains = (make_chain(101), make_chain(102))
    deps = make_deps(pool, settings, *chains)
    scripts = [history(chain, seed) for seed, chain in enumerate(chains)]
    await sign_in(pool, *PEOPLE)
    stopped = asyncio.Event()
    readers = [asyncio.create_task(read_log(pool, user, stopped)) for user in PEOPLE[:2]]
    async with bench(pool, settings, chains[0]) as first, bench(pool, settings, chains[1]) as second:
        work = [
            write_chain(made, script.made, random.Random(chain.id))
            for made, script, chain in zip((first, second), scripts, chains, strict=True)
        ]
        rest = [write_rest(pool, number, random.Random(number)) for number in range(WRITERS)]
        await asyncio.gather(*work, *rest)
    stopped.set()
    for user, reader in zip(PEOPLE, readers, strict=False):
        seen = await reader
        assert seen == list(range(1, len(seen) + 1))
        assert len(seen) == (await log.heads(pool, [user]))[user].seq
    both = Bench(deps, chains[0], first.ledger)
    total = 0
    for user in PEOPLE:
        entries = await both.log_after(user)
        total += len(entries)
        assert [entry.seq for entry in entries] == list(range(1, len(entries) + 1))
        snapshot = await both.snapshot(user)
        for chain, script in zip(chains, scripts, strict=True):
            assert shown(snapshot, chain_id=chain.id) == recompute(script.made, user).shown()
    assert total > 2_000
