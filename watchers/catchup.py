"""Catch-up below the finalized height: log ranges instead of blocks. Nothing there is taken back any more.

Only blocks with logs of ours are told, and each range's last block, which moves the cursor. Token transfers are not
read here: they are followed from the first live block on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from itertools import groupby

import structlog

from config import abi
from config.chains import Chain
from store.chain import Header, LogFilter, PlacedLog, headers_at, logs_between
from store.records import Address, Block, Log
from store.rpc import Rpc, RpcError
from watchers.decode import accepted
from watchers.fetch import with_receipts

logger = structlog.get_logger(__name__)

FIRST_RANGE = 2_000
"""Blocks asked for at first: what most public nodes allow."""
LONGEST_RANGE = 10_000
RELAX_AFTER = 20
"""Ranges that must work before a longer one than was once refused is tried again."""

Wallets = Callable[[], Awaitable[Mapping[Address, Address | None]]]


class RangeSize:
    """How many blocks to ask for: less after a refusal, more after success."""

    def __init__(self) -> None:
        self.size = FIRST_RANGE
        self._ceiling = LONGEST_RANGE
        self._worked = 0
        self._since_refusal = 0

    def worked(self) -> None:
        """Ask for a quarter more next time, up to what was not refused."""
        self._worked = self.size
        self._since_refusal += 1
        if self._since_refusal % RELAX_AFTER == 0:
            self._ceiling = min(LONGEST_RANGE, self._ceiling * 2)
        self.size = min(self.size + self.size // 4 + 1, self._ceiling)

    def refused(self) -> None:
        """Go back to what worked, or halve."""
        self.size = self._worked if 0 < self._worked < self.size else max(1, self.size // 2)
        self._ceiling = self.size
        self._worked = self._since_refusal = 0


async def blocks_below(
    rpc: Rpc, chain: Chain, first: int, last: int, *, wallets: Wallets, size: RangeSize
) -> AsyncGenerator[Block, None]:
    """Blocks of `first` to `last`, all finalized, that hold logs of ours, and the last block of every range.

    `wallets` is asked before each range: whoever takes the blocks learns from them.
    """
    filters = _filters(chain)
    while first <= last:
        end = min(last, first + size.size - 1)
        try:
            placed, header = await logs_between(rpc, first, end, filters)
        except RpcError as error:
            if not error.too_much or size.size == 1:
                raise
            size.refused()
            logger.info("range_refused", chain=chain.id, first=first, last=end, size=size.size, error=str(error))
            if error.kind == "timeout":
                raise  # it may as well be a dead node: pause before the shorter range
            continue
        size.worked()
        for block in await _blocks(rpc, chain, placed, header, await wallets()):
            yield block
        first = end + 1


def has_history(chain: Chain) -> bool:
    """Whether anything below the live blocks can concern us."""
    return bool(chain.factories or chain.wallets or chain.yield_locks)


def _filters(chain: Chain) -> list[LogFilter]:
    # Half the contracts of a chain emit the notices: over ranges they are read from the table's own contracts only.
    filters = [
        LogFilter((*abi.FACTORY_TOPICS, *abi.WALLET_TOPICS)),
        LogFilter(abi.NOTICE_TOPICS, (*chain.factories, *chain.wallets)),
    ]
    return filters + ([LogFilter(abi.LOCK_TOPICS, chain.yield_locks)] if chain.yield_locks else [])


async def _blocks(
    rpc: Rpc, chain: Chain, placed: list[PlacedLog], last: Header, wallets: Mapping[Address, Address | None]
) -> list[Block]:
    ours = set(accepted((one.log for one in placed), chain, wallets))
    logs = {
        ref: tuple(one.log for one in group)
        for ref, group in groupby((one for one in placed if one.log in ours), key=lambda one: one.block)
    }
    others = [ref for ref in logs if ref.number != last.number]
    headers = [header for header in await headers_at(rpc, [ref.number for ref in others]) if header is not None]
    by_ref = {header.ref: header for header in (*headers, last)}
    if any(ref not in by_ref for ref in logs):
        raise rpc.fault("malformed", "logs of a block that is not the chain's", method="eth_getLogs")
    found: list[tuple[Header, tuple[Log, ...]]] = [(by_ref[ref], group) for ref, group in logs.items()]
    if last.ref not in logs:
        found.append((last, ()))
    return await with_receipts(rpc, chain.id, found)
