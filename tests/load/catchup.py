"""`python -m tests.load.catchup`: blocks per second of a follower that catches up with anvil, ledger in memory.

Measures headers, logs by block hash, receipts, decoding and checks; committing is tests.load.ingest's.
"""

from __future__ import annotations

import asyncio
import platform
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter, process_time

import structlog

from config.chains import Chain, Token
from config.embedded.chain import Anvil
from handlers.chain_events import DecodedBlock
from tests.watchers.following import following
from tests.watchers.ledger import FakeLedger
from watchers.devnet import actions
from watchers.devnet.people import Devnet, Payment

EMPTY_BLOCKS = 4_000
FULL_BLOCKS = 400
SPENDS = 10
START = datetime(2026, 11, 24, tzinfo=UTC)


class UnkeptLedger(FakeLedger):
    """Finds wallets once, not by every event so far: the ledger's own cost is not what is measured."""

    async def wallets(self) -> dict[str, str | None]:
        return dict.fromkeys(self.chain.wallets)


async def main() -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger("warning"))
    sys.stdout.write(f"catching up with anvil (Python {platform.python_version()}, node on the same machine)\n")
    with tempfile.TemporaryDirectory() as folder, Anvil(Path(folder), block_time=None) as anvil:
        async with Devnet(anvil.rpc) as devnet:
            people = await devnet.users(SPENDS)
            for one in people:
                await devnet.open_bucket(one, "food")
            await devnet.set_automine(False)
            payment = Payment("food", 5, people[0].address)
            calls = [
                (one, actions.spend(devnet.at.wallet, payment, user=one.address, token=devnet.at.usdc))
                for one in people
            ]
            for _ in range(FULL_BLOCKS):
                await devnet.load(calls)
                await devnet.mine()
            full = await devnet.block_number()
            chain = Chain(
                "devnet", devnet.at.chain_id, (anvil.rpc,), wallets=(devnet.at.wallet,),
                factories=(devnet.at.factory,), tokens=(Token(devnet.at.usdc, "USDC", 6, "usd"),),
                finality_depth=10**9,
            )  # fmt: skip
            await measure(devnet, chain, f"{SPENDS} spends a block", after=full - FULL_BLOCKS)
            await devnet.mine(EMPTY_BLOCKS)
            await measure(devnet, chain, "empty blocks", after=full)
            await measure(devnet, chain, "by log ranges, below the finalized")


async def measure(devnet: Devnet, chain: Chain, what: str, *, after: int | None = None) -> None:
    """Time until a ledger stands at the head: block by block if it was live and stands `after` a block."""
    ledger = UnkeptLedger(chain)
    if after is not None:
        raw = await devnet.block(after)
        ledger.blocks.append(DecodedBlock(chain.id, after, raw["hash"], raw["parentHash"], START, (), {}))
    head = await devnet.block_number()
    started, cpu_started = perf_counter(), process_time()
    async with following(chain, ledger, poll_s=0.05, timeout_s=30) as run:
        ledger.on_apply = lambda block: run.stop.set() if block.number == head else None
        await asyncio.wait([run.task])
    took, cpu = perf_counter() - started, process_time() - cpu_started
    count = head - (after or 0)
    sys.stdout.write(
        f"{what:36} {count / took:8.0f} blocks/s, {cpu / count * 1e6:4.0f} us CPU a block   "
        f"({len(ledger.blocks)} applied, {len(ledger.events)} events)\n"
    )


if __name__ == "__main__":
    asyncio.run(main())
