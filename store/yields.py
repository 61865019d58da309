"""Positions, the history of share prices, and how positions changed: what was invested and what became of it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal
from typing import Literal, NamedTuple

import asyncpg

from store.postgres import Pool, Tx
from store.records import Address, BlockRef
from store.statements import load

SQL = load("yields")

PRICE_EVERY_S = 3600
"""One price an hour and source is kept where nothing happens: a day's yield is then at most an hour off its day, and a
lock costs 9,000 rows a year."""

DIGITS = Context(prec=60)
"""Of a kept entry price: any real one shows whole."""

Kind = Literal["vault", "lock", "account"]


class PositionKey(NamedTuple):
    """Whose position, and which."""

    user: Address
    position_id: str


@dataclass(frozen=True, slots=True)
class Position:
    """A position as it was told last; amounts in base units of the asset, `shares` in those of the vault.

    `principal` None: not known until a first price is read. `value` and `apy` None: not known.
    """

    user: Address
    chain_id: int
    position_id: str
    kind: Kind
    contract: Address
    protocol: str
    asset: Address
    symbol: str | None
    as_of_block: int
    as_of: datetime
    opened_block: int
    opened_at: datetime
    lock_id: int | None = None
    vault: Address | None = None
    shares: int = 0
    principal: int | None = 0
    realized: int = 0
    """What went out beyond its part of the principal."""
    fees: int = 0
    value: int | None = None
    value_usd: Decimal | None = None
    yield_usd: Decimal | None = None
    apy: Decimal | None = None
    apy_window_s: int | None = None
    unlock_at: datetime | None = None
    label: str | None = None

    @property
    def key(self) -> PositionKey:
        """Whose, and which."""
        return PositionKey(self.user, self.position_id)

    @property
    def source(self) -> str:
        """Whose price moves it: the vault for everybody's shares, a lock for itself."""
        return self.contract if self.kind == "vault" else self.position_id

    @property
    def is_open(self) -> bool:
        """Whether anything is in it."""
        return self.shares > 0 or bool(self.principal)

    @property
    def earned(self) -> int | None:
        """Its yield: value beyond the principal that is left."""
        return None if self.value is None or self.principal is None else self.value - self.principal


@dataclass(frozen=True, slots=True)
class PricePoint:
    """So many shares were worth so many assets at a time."""

    at: datetime
    assets: int
    shares: int


@dataclass(frozen=True, slots=True)
class Source:
    """What is read at a block: a vault's share price (`lock_id` None), or one lock."""

    contract: Address
    lock_id: int | None = None


@dataclass(frozen=True, slots=True)
class PastPosition:
    """How a position stood at a time; `price` is the newest at or before it, None where none was known."""

    position_id: str
    chain_id: int
    kind: Kind
    asset: Address
    shares: int
    principal: int | None
    realized: int
    price: PricePoint | None


async def positions_of(conn: Tx | Pool, users: Sequence[Address], chain_id: int | None = None) -> list[Position]:
    """Every position of these users, closed ones too, on all chains or one."""
    return [_position(row) for row in await conn.fetch(SQL["positions_of"], chain_id, users)]


async def open_positions(tx: Tx, chain_id: int) -> list[Position]:
    """Positions of a chain whose value moves by itself."""
    return [_position(row) for row in await tx.fetch(SQL["open_positions"], chain_id)]


async def open_sources(tx: Tx, chain_id: int) -> list[Source]:
    """What is to be read of a chain for everybody's open positions."""
    rows = await tx.fetch(SQL["open_sources"], chain_id)
    return [Source(row["contract"], _int(row["lock_id"])) for row in rows]


async def save(tx: Tx, block: BlockRef, at: datetime, positions: Sequence[Position]) -> None:
    """Write changed positions with a block, which keeps how they were before, and a point of their history."""
    if not positions:
        return
    chain_id = positions[0].chain_id
    keys = [list(column) for column in zip(*(p.key for p in positions), strict=True)]
    await tx.execute(SQL["keep_positions"], chain_id, block.number, block.hash, *keys)
    await tx.execute(SQL["save_positions"], *map(list, zip(*map(_values, positions), strict=True)))
    points = zip(*((str(p.shares), _text(p.principal), str(p.realized)) for p in positions), strict=True)
    await tx.execute(SQL["record_points"], chain_id, block.number, block.hash, at, *keys, *map(list, points))


async def add(tx: Tx, positions: Sequence[Position]) -> None:
    """Write positions of blocks that are final: nothing takes them back, and their past values are not known."""
    if positions:
        await tx.execute(SQL["save_positions"], *map(list, zip(*map(_values, positions), strict=True)))


async def record_prices(
    tx: Tx,
    chain_id: int,
    block: BlockRef,
    at: datetime,
    prices: Mapping[str, tuple[int, int]],
    *,
    moved: Collection[str],
) -> None:
    """Keep (assets, shares) by source: where a position changed always, elsewhere once in `PRICE_EVERY_S`."""
    if prices:
        columns = zip(*((s, str(a), str(n), s in moved) for s, (a, n) in prices.items()), strict=True)
        sources, assets, shares, wanted = map(list, columns)
        head = (chain_id, block.number, block.hash, at)
        await tx.execute(SQL["record_prices"], *head, sources, assets, shares, PRICE_EVERY_S, wanted)


async def revert(tx: Tx, chain_id: int, block_hash: str) -> None:
    """Put positions back as they were before a block, drop its points and prices. Before pre-images are forgotten."""
    for name in ("restore_gone", "restore_positions", "forget_points", "forget_prices"):
        await tx.execute(SQL[name], chain_id, block_hash)


async def newest_prices(tx: Tx, chain_id: int, sources: Sequence[str]) -> dict[str, PricePoint]:
    """The newest price kept of each source; one without any is left out."""
    return {row["source"]: _point(row) for row in await tx.fetch(SQL["newest_prices"], chain_id, sources)}


async def base_prices(
    tx: Tx, chain_id: int, asked: Sequence[tuple[str, datetime]]
) -> dict[tuple[str, datetime], PricePoint]:
    """For each (source, time) the newest price at or before it, else the first after it; left out where none is."""
    if not asked:
        return {}
    rows = await tx.fetch(SQL["base_prices"], chain_id, *map(list, zip(*asked, strict=True)))
    return {(row["source"], row["since"]): _point(row) for row in rows}


async def values_at(conn: Tx | Pool, user: Address, at: datetime) -> list[PastPosition]:
    """How each position of a user stood at a time, closed ones too; what opened later is left out."""
    return (await values_at_each(conn, [(user, at)])).get((user, at), [])


async def values_at_each(
    conn: Tx | Pool, asked: Sequence[tuple[Address, datetime]]
) -> dict[tuple[Address, datetime], list[PastPosition]]:
    """The same for each (user, time) in one query; left out where there was nothing."""
    found: dict[tuple[Address, datetime], list[PastPosition]] = {}
    if asked:
        for row in await conn.fetch(SQL["values_at_each"], *map(list, zip(*asked, strict=True))):
            found.setdefault((row["user_address"], row["at"]), []).append(_past(row))
    return found


async def follow_vaults(tx: Tx, chain_id: int, vaults: Sequence[Address]) -> None:
    """Begin to follow vaults that are new in the chain table: own addresses are opened again to read theirs."""
    await tx.execute(SQL["follow_vaults"], chain_id, vaults)


def _past(row: asyncpg.Record) -> PastPosition:
    price = None
    if row["priced_at"]:
        price = PricePoint(row["priced_at"], int(row["price_assets"]), int(row["price_shares"]))
    return PastPosition(
        position_id=row["position_id"],
        chain_id=row["chain_id"],
        kind=row["kind"],
        asset=row["asset_address"],
        shares=int(row["shares"]),
        principal=_int(row["principal"]),
        realized=int(row["realized"]),
        price=price,
    )


def _point(row: asyncpg.Record) -> PricePoint:
    return PricePoint(row["block_time"], int(row["assets"]), int(row["shares"]))


def _position(row: asyncpg.Record) -> Position:
    return Position(
        user=row["user_address"],
        chain_id=row["chain_id"],
        position_id=row["position_id"],
        kind=row["kind"],
        contract=row["contract"],
        protocol=row["protocol_name"],
        asset=row["asset_address"],
        symbol=row["asset_symbol"],
        as_of_block=row["as_of_block"],
        as_of=row["last_updated_at"],
        opened_block=row["opened_block"],
        opened_at=row["opened_at"],
        lock_id=_int(row["lock_id"]),
        vault=row["vault"],
        shares=int(row["shares"]),
        principal=_int(row["principal"]),
        realized=int(row["realized"]),
        fees=int(row["fees"]),
        value=_int(row["current_value"]),
        value_usd=row["value_usd"],
        yield_usd=row["yield_usd"],
        apy=row["apy"],
        apy_window_s=row["apy_window_s"],
        unlock_at=row["unlock_at"],
        label=row["label"],
    )


def _values(position: Position) -> tuple[object, ...]:
    p = position
    entry = None
    if p.shares and p.principal is not None:
        entry = DIGITS.divide(Decimal(p.principal), Decimal(p.shares))
    return (
        p.user,
        p.chain_id,
        p.position_id,
        p.kind,
        p.contract,
        _text(p.lock_id),
        p.vault,
        p.protocol,
        p.asset,
        p.symbol,
        str(p.shares),
        _text(p.principal),
        str(p.realized),
        str(p.fees),
        _text(entry),
        _text(p.value),
        _text(p.earned),
        _text(p.value_usd),
        _text(p.yield_usd),
        _text(p.apy),
        p.apy_window_s,
        p.as_of_block,
        p.as_of,
        p.opened_block,
        p.opened_at,
        p.unlock_at,
        p.label,
    )


def _text(value: int | Decimal | None) -> str | None:
    return None if value is None else f"{value:f}" if isinstance(value, Decimal) else str(value)


def _int(text: str | None) -> int | None:
    return None if text is None else int(text)
