"""What positions are worth and when their yield is told: loaded, valued and written within a block's transaction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal

from config.chains import Chain
from handlers.chain_events import (
    AccountOperation,
    ChainEvent,
    DecodedBlock,
    ShareTransfer,
    VaultDeposit,
    VaultWithdraw,
    WalletEvent,
    YieldLockCreated,
    YieldLockWithdrawn,
)
from handlers.rules import wire
from handlers.rules.accounts import ACCOUNT_TYPES
from handlers.rules.book import Book
from handlers.rules.holdings import NOTHING_READ, Holdings, Values, lock_position_id
from handlers.rules.money import dollars
from handlers.rules.prices import Prices
from handlers.rules.yields import (
    apy,
    is_step,
    priced,
    totals,
    valued,
    window_start,
)
from store import yields
from store.postgres import Tx
from store.records import Address, BlockRef
from store.yields import Position, PricePoint

MOVING = (VaultDeposit, VaultWithdraw, ShareTransfer, YieldLockCreated, YieldLockWithdrawn, AccountOperation)
"""What may move a position."""


@dataclass(frozen=True, slots=True)
class Step:
    """When yield that moved by itself is told: by so many dollars, at most every so many blocks."""

    usd: Decimal
    blocks: int


def concerned(
    chain: Chain, events: Iterable[ChainEvent], openings: Mapping[Address, Mapping[Address, int]]
) -> set[Address]:
    """Whose positions these events may move; most blocks have none."""
    # Who is opened with this block may have had a position before it.
    users: set[Address] = set(openings) if chain.vaults else set()
    for event in events:
        if not isinstance(event, MOVING):
            continue
        match event:
            case VaultDeposit() | VaultWithdraw():
                users.add(event.owner)
            case ShareTransfer():
                users.update((event.sender, event.recipient))
            case YieldLockCreated() | YieldLockWithdrawn():
                users.add(event.user)
            case AccountOperation() if ACCOUNT_TYPES[event.account_type] == "investment":
                users.add(event.user)
    return users


def named(event: ChainEvent) -> tuple[Address, ...]:
    """Addresses that an event of a vault names: some of them may be users."""
    match event:
        case VaultDeposit():
            return (event.sender, event.owner)
        case VaultWithdraw():
            return (event.owner, event.receiver)
        case ShareTransfer():
            return (event.sender, event.recipient)
        case WalletEvent():
            return (event.user,)
    return ()


async def drifted(tx: Tx, chain: Chain, values: Values, *, number: int, prices: Prices, step: Step) -> list[Position]:
    """Open positions whose yield has moved far enough to be told, as they were told last.

    Read before anybody is locked: only the chain's one writer changes them.
    """
    if not values.full:
        return []
    due: list[Position] = []
    for told in await yields.open_positions(tx, chain.id):
        value = values.of(told)
        if value is None or (told.value is not None and number - told.as_of_block < step.blocks):
            continue
        if is_step(told, priced(valued(told, value), chain, prices), step_usd=step.usd):
            due.append(told)
    return due


async def load(tx: Tx, users: Iterable[Address], *, values: Values, drifting: Sequence[Position]) -> Holdings:
    """Positions of these users and of those whose yield moved; without any, nothing is asked."""
    wanted = sorted({*users, *(one.user for one in drifting)})
    if not wanted:
        return Holdings(values=values)
    known = {one.key: one for one in await yields.positions_of(tx, wanted)}
    return Holdings(known, values, drifted=dict.fromkeys(one.key for one in drifting))


async def settle(tx: Tx, book: Book) -> None:
    """Give what moved its value, yield and APY at this block, and tell each user once."""
    holdings, number, at = book.holdings, book.block.number, book.block.time
    moved = [holdings.positions[key] for key in {**holdings.changed, **holdings.drifted}]
    if not moved:
        return
    asked = [(one.source, window_start(one, at)) for one in moved if one.kind != "account" and one.is_open]
    bases = await yields.base_prices(tx, book.chain.id, asked)
    for position in moved:
        now = valued(position, holdings.values.of(position))
        price = holdings.values.price(position) if now.is_open else None
        since = bases.get((now.source, window_start(now, at)))
        rate = apy(since, PricePoint(at, price.assets, price.shares)) if price else None
        now = replace(
            now,
            apy=rate.rate if rate else None,
            apy_window_s=int(rate.window.total_seconds()) if rate else None,
            as_of_block=number,
            as_of=at,
        )
        holdings.positions[now.key] = priced(now, book.chain, book.prices)
    for user in dict.fromkeys(one.user for one in moved):
        mine = [holdings.positions[one.key] for one in moved if one.user == user]
        body = told_body(mine, holdings.of(user), chain=book.chain, prices=book.prices)
        book.tell_yield(user, body, *holdings.causes.get(user, ("values",)))


def told_body(
    moved: Sequence[Position], every: Iterable[Position], *, chain: Chain, prices: Prices
) -> dict[str, object]:
    """Payload of `yield_update`: what moved, and the user's totals over all chains."""
    return update_body([wire.position(one, chain=chain, prices=prices) for one in moved], every)


def corrected_body(
    told: Sequence[Mapping[str, object]], again: Mapping[str, Position], *, chain: Chain, prices: Prices
) -> dict[str, object]:
    """The same after a reorg: each told position as it is again; one that is no more is told with nothing in it."""
    shown: list[Mapping[str, object]] = []
    for position in told:
        row = again.get(str(position["positionId"]))
        shown.append(wire.position(row, chain=chain, prices=prices) if row else wire.without(position))
    return update_body(shown, again.values())


def update_body(shown: Sequence[Mapping[str, object]], every: Iterable[Position]) -> dict[str, object]:
    """Payload of `yield_update`: these positions as they are shown, and the totals of all."""
    sums = totals(every)
    return {
        "totalYield": dollars(sums.earned),
        "positions": shown,
        "apy": None if sums.apy is None else wire.ratio(sums.apy),
        "unpriced": sums.unpriced,
    }


async def save(tx: Tx, book: Book) -> None:
    """Write what moved, with pre-images."""
    holdings = book.holdings
    ref = BlockRef(book.block.number, book.block.hash)
    moved = [holdings.positions[key] for key in {**holdings.changed, **holdings.drifted}]
    await yields.save(tx, ref, book.block.time, moved)


async def save_prices(tx: Tx, block: DecodedBlock, *, values: Values, opened: bool) -> None:
    """Keep what was read at a block: always where it moved a position, else one an hour."""
    if values is NOTHING_READ:
        return
    prices = {vault: (rate.assets, rate.shares) for vault, rate in values.rates.items()}
    prices |= {lock: (assets, 1) for lock, assets in values.locks.items()}
    moved = set(values.rates) if opened else set()
    for event in block.events:
        if isinstance(event, VaultDeposit | VaultWithdraw | ShareTransfer):
            moved.add(event.emitter)
        elif isinstance(event, YieldLockCreated):
            moved.add(lock_position_id(block.chain_id, event.emitter, event.lock_id))
    ref = BlockRef(block.number, block.hash)
    await yields.record_prices(tx, block.chain_id, ref, block.time, prices, moved=moved)
