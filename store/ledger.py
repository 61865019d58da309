"""The ledger's rows, and the pre-images that take a block back."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import asyncpg

from store.postgres import Tx
from store.records import Address, BalanceKey, BlockRef, TransactionRow
from store.statements import load

SQL = load("ledger")

RESTORES = (
    *("restore_buckets", "restore_balances", "restore_bucket_spending", "restore_wallets", "restore_scopes"),
    "forget_preimages",
)


async def record(tx: Tx, rows: Sequence[TransactionRow]) -> None:
    """Write ledger rows; one that is there already is a no-op, one of a block that came back counts again."""
    if not rows:
        return
    columns = list(map(list, zip(*map(_values, rows), strict=True)))
    await tx.execute(SQL["record"], *columns)


async def revert(tx: Tx, chain_id: int, block_hash: str) -> set[Address]:
    """Take a block's ledger rows back; returns whose they were."""
    return {row["user_address"] for row in await tx.fetch(SQL["revert"], chain_id, block_hash)}


async def keep_preimages(
    tx: Tx,
    chain_id: int,
    block: BlockRef,
    *,
    buckets: Collection[str],
    balances: Collection[BalanceKey],
    wallets: Collection[Address],
    scopes: Collection[Address],
) -> None:
    """Keep rows as they are before the block changes them; the first time within a block counts."""
    head = (chain_id, block.number, block.hash)
    if buckets:
        await tx.execute(SQL["keep_buckets"], *head, list(buckets))
    if balances:
        columns = zip(*((k.user, k.scope, k.wallet, k.bucket_id, k.token) for k in balances), strict=True)
        await tx.execute(SQL["keep_balances"], *head, *map(list, columns))
    if wallets:
        await tx.execute(SQL["keep_wallets"], *head, list(wallets))
    if scopes:
        await tx.execute(SQL["keep_scopes"], *head, list(scopes))


async def concerned(tx: Tx, chain_id: int, block_hash: str, *, cause: str, members: int) -> set[Address]:
    """Everyone that a block changed anything for; of a bucket's delegates the first `members`."""
    return {row["user_address"] for row in await tx.fetch(SQL["concerned"], chain_id, block_hash, cause, members)}


async def restore_preimages(tx: Tx, chain_id: int, block_hash: str) -> None:
    """Put every chain-owned row back as it was before the block."""
    for name in RESTORES:
        await tx.execute(SQL[name], chain_id, block_hash)


def transaction_row(row: asyncpg.Record) -> TransactionRow:
    """A ledger row as it was selected: every column by its name, numeric ones as text."""
    return TransactionRow(
        user=row["user_address"],
        chain_id=row["chain_id"],
        block_hash=row["block_hash"],
        tx_hash=row["tx_hash"],
        n=row["n"],
        event_id=row["event_id"],
        role=row["role"],
        log_index=row["log_index"],
        block_number=row["block_number"],
        block_time=row["block_time"],
        type=row["type"],
        account_type=row["account_type"],
        direction=row["direction"],
        token=row["token"],
        symbol=row["symbol"],
        decimals=row["decimals"],
        amount=int(row["amount"]),
        usd=row["usd"],
        wallet=row["wallet"],
        bucket_id=row["bucket_id"],
        bucket=row["bucket"],
        to_bucket_id=row["to_bucket_id"],
        to_bucket=row["to_bucket"],
        counterparty=row["counterparty"],
        spender=row["spender"],
        fee_wei=None if row["fee_wei"] is None else int(row["fee_wei"]),
        fee_usd=row["fee_usd"],
        gas_used=row["gas_used"],
        gas_price=None if row["gas_price"] is None else int(row["gas_price"]),
        identifier=row["identifier"],
        account_fee=None if row["account_fee"] is None else int(row["account_fee"]),
        account_fee_token=row["account_fee_token"],
        canonical=row["canonical"],
    )


def _values(row: TransactionRow) -> tuple[object, ...]:
    return (
        row.user,
        row.chain_id,
        row.block_hash,
        row.tx_hash,
        row.n,
        row.id,
        row.event_id,
        row.role,
        row.log_index,
        row.block_number,
        row.block_time,
        row.type,
        row.account_type,
        row.direction,
        row.token,
        row.symbol,
        row.decimals,
        str(row.amount),
        None if row.usd is None else str(row.usd),
        row.wallet,
        row.bucket_id,
        row.bucket,
        row.to_bucket_id,
        row.to_bucket,
        row.counterparty,
        row.spender,
        None if row.fee_wei is None else str(row.fee_wei),
        None if row.fee_usd is None else str(row.fee_usd),
        row.gas_used,
        None if row.gas_price is None else str(row.gas_price),
        row.identifier,
        None if row.account_fee is None else str(row.account_fee),
        row.account_fee_token,
    )
