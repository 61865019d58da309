"""What positions are worth at a block: share prices of vaults and assets of locks, read in a batch before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import structlog

from config import abi
from config.chains import Chain
from handlers.chain_events import DecodedBlock, ShareTransfer, VaultDeposit, VaultWithdraw, YieldLockCreated
from handlers.rules.holdings import NOTHING_READ, Values, lock_position_id
from handlers.rules.yields import PRECISE, Rate
from handlers.yields import named
from store.chain import calls_at
from store.records import Address, BlockRef
from store.rpc import Rpc, RpcError
from store.yields import Source

logger = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be read; `full`: everything that is open on the chain is among it."""

    sources: tuple[Source, ...] = ()
    full: bool = False


NOTHING_WANTED = Wanted()


def touched_vaults(block: DecodedBlock) -> Mapping[Address, set[Address]]:
    """Vaults that said something in a block, with the addresses they named."""
    vaults: dict[Address, set[Address]] = {}
    for event in block.events:
        if isinstance(event, VaultDeposit | VaultWithdraw | ShareTransfer):
            vaults.setdefault(event.emitter, set()).update(named(event))
    return vaults


def touched_locks(block: DecodedBlock) -> Iterator[Source]:
    """Locks that a block makes; one that was paid out needs no value."""
    for event in block.events:
        if isinstance(event, YieldLockCreated):
            yield Source(event.emitter, event.lock_id)


async def read_values(rpc: Rpc, chain: Chain, block: BlockRef, wanted: Wanted) -> Values:
    """Read everything wanted at the end of a block, in batches.

    Nothing when the node refuses to look at that block's state: positions are valued with a later one. A contract that
    does not answer is left out.
    """
    if not wanted.sources:
        return Values(full=wanted.full) if wanted.full else NOTHING_READ
    asked = [call for source in wanted.sources for call in _calls(chain, source)]
    try:
        answers = iter([_words(answer) for answer in await calls_at(rpc, block, asked)])
    except RpcError as error:
        if error.kind != "jsonrpc":
            raise
        logger.warning("values_refused", chain=chain.id, number=block.number, error=str(error))
        return NOTHING_READ
    rates: dict[Address, Rate] = {}
    locks: dict[str, int] = {}
    silent: list[str] = []
    for source in wanted.sources:
        words = [next(answers) for _ in _calls(chain, source)]
        if source.lock_id is not None:
            (found,) = words
            if len(found) == 2:
                locks[lock_position_id(chain.id, source.contract, source.lock_id)] = found[1]
                continue
        elif rate := _rate(chain, source.contract, words):
            rates[source.contract] = rate
            continue
        silent.append(source.contract)
    if silent:
        logger.error("position_without_value", chain=chain.id, number=block.number, contracts=sorted(set(silent)))
    return Values(rates, locks, wanted.full)


def _words(answer: str | None) -> list[int]:
    """The numbers of an answer; none of a contract that reverts, or has no code."""
    digits = (answer or "0x")[2:]
    return [int(digits[at : at + 64], 16) for at in range(0, len(digits), 64)] if len(digits) % 64 == 0 else []


def _calls(chain: Chain, source: Source) -> list[tuple[Address, str]]:
    if source.lock_id is not None:
        return [(source.contract, abi.GET_ACCRUED_YIELD + f"{source.lock_id:064x}")]
    return [(source.contract, abi.CONVERT_TO_ASSETS + f"{shares:064x}") for shares in _shares(chain, source.contract)]


def _shares(chain: Chain, vault: Address) -> tuple[int, int]:
    """So many that every digit shows; and one share, for a vault that refuses such numbers."""
    listed = chain.vault(vault)
    return PRECISE, 10 ** (listed.decimals if listed else 18)


def _rate(chain: Chain, vault: Address, words: Sequence[Sequence[int]]) -> Rate | None:
    for shares, found in zip(_shares(chain, vault), words, strict=True):
        if len(found) == 1:
            return Rate(found[0], shares)
    return None
