"""Accounts of users: whether one exists is the chain's word, its name and activity are the user's."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import asyncpg

from store.postgres import Pool, Tx
from store.records import AccountType, Address, BlockRef
from store.statements import load

SQL = load("accounts")

Key = tuple[Address, AccountType]
"""Whose account on a chain, and which."""


@dataclass(frozen=True, slots=True)
class AccountRow:
    """One account; without a name of the user's own it is shown by its type."""

    user: Address
    chain_id: int
    type: AccountType
    name: str | None
    active: bool


async def open_accounts(tx: Tx, chain_id: int, block: BlockRef, accounts: Collection[Key]) -> None:
    """Open accounts with a block, which keeps how they were before; one that is open stays as it is."""
    if accounts:
        columns = [list(column) for column in zip(*accounts, strict=True)]
        await tx.execute(SQL["keep"], chain_id, block.number, block.hash, *columns)
        await tx.execute(SQL["open"], chain_id, block.number, *columns)


async def add_missing(tx: Tx, chain_id: int, number: int, accounts: Collection[Key]) -> None:
    """Open accounts for rows that a backfill adds to a block that is final: nothing takes them back."""
    if accounts:
        await tx.execute(SQL["open"], chain_id, number, *[list(column) for column in zip(*accounts, strict=True)])


async def revert(tx: Tx, chain_id: int, block_hash: str) -> None:
    """Close the accounts that a block opened; their names stay. Before pre-images are forgotten."""
    await tx.execute(SQL["restore"], chain_id, block_hash)


async def accounts_of(conn: Tx | Pool, user: Address) -> list[AccountRow]:
    """A user's accounts by chain and type."""
    return [_account(row) for row in await conn.fetch(SQL["accounts_of"], user)]


async def saved(conn: Tx | Pool, user: Address) -> dict[tuple[int, Address], int]:
    """Base units by (chain id, token) that lie in a user's savings accounts of the planned contract."""
    return {(row["chain_id"], row["token"]): int(row["amount"]) for row in await conn.fetch(SQL["saved"], user)}


async def locked(tx: Tx, user: Address, chain_id: int, kind: AccountType) -> AccountRow | None:
    """One account of a user, locked against other changes; None when there is none."""
    row = await tx.fetchrow(SQL["account"], user, chain_id, kind)
    return _account(row) if row else None


async def change(tx: Tx, account: AccountRow) -> None:
    """Write a locked account's name and activity."""
    await tx.execute(SQL["change"], account.user, account.chain_id, account.type, account.name, account.active)


def _account(row: asyncpg.Record) -> AccountRow:
    return AccountRow(row["user_address"], row["chain_id"], row["account_type"], row["account_name"], row["is_active"])
