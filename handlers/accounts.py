"""Accounts: one per user, chain and type, opened by what the chain says, named and put away by the user."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from handlers.chain_events import (
    AccountOperation,
    ChainEvent,
    FeeCollection,
    InvestmentAccountEnabled,
    SavingsAccountEnabled,
    WalletEvent,
    YieldLockCreated,
    YieldLockWithdrawn,
)
from handlers.deps import Deps
from handlers.errors import NotFound, PreconditionFailed
from handlers.rules import wire
from handlers.rules.accounts import ACCOUNT_TYPES, Place, account_of
from handlers.rules.book import Book
from handlers.rules.prices import Prices
from store import accounts, prices, spending, yields
from store.accounts import AccountRow
from store.postgres import Tx, frozen, in_transaction
from store.records import AccountType, Address


class AccountChanges(TypedDict, total=False):
    """What a user may change of an account."""

    name: str | None
    active: bool


OPENS: Mapping[type[ChainEvent], AccountType] = {
    InvestmentAccountEnabled: "investment",
    YieldLockCreated: "investment",
    YieldLockWithdrawn: "investment",
    SavingsAccountEnabled: "savings",
}
"""What opens another account than the one for spending, which every other event of a wallet belongs to."""


def begin(book: Book, event: ChainEvent) -> None:
    """Open the account that an event of a user belongs to; what only moves tokens opens it with its ledger row."""
    if not isinstance(event, WalletEvent) or isinstance(event, FeeCollection):
        return  # a fee is one of an operation, which names the account
    if isinstance(event, AccountOperation):
        book.begin_account(event.user, ACCOUNT_TYPES[event.account_type])
    else:
        book.begin_account(event.user, OPENS.get(type(event), "spending"))


@dataclass(frozen=True, slots=True)
class Page:
    """Accounts, and the last of them when more follow."""

    data: Sequence[Mapping[str, object]]
    next: Place | None


async def listed(deps: Deps, user: Address, *, after: Place | None, limit: int) -> Page:
    """The user's accounts by chain and type, with what each holds."""
    async with frozen(deps.pool) as tx:
        rows = [row for row in await accounts.accounts_of(tx, user) if row.chain_id in deps.chains]
        rest = [row for row in rows if after is None or (row.chain_id, row.type) > (after.chain_id, after.type)]
        shown = await _shown(tx, deps, user, rest[:limit])
    last = rest[limit - 1] if len(rest) > limit else None
    return Page(shown, Place(user, last.chain_id, last.type) if last else None)


async def read(deps: Deps, user: Address, account_id: str) -> Mapping[str, object]:
    """One account of the user; raises NotFound."""
    place = _place(deps, user, account_id)
    async with frozen(deps.pool) as tx:
        rows = await accounts.accounts_of(tx, user)
        row = next((row for row in rows if (row.chain_id, row.type) == (place.chain_id, place.type)), None)
        return await _one(tx, deps, row)


async def change(
    deps: Deps,
    user: Address,
    account_id: str,
    changes: AccountChanges,
    *,
    unless: Callable[[Mapping[str, object]], bool],
) -> Mapping[str, object]:
    """Rename an account, or put it away. `unless` says whether it is another one than the caller means.

    Raises NotFound for what is no account of the user's, PreconditionFailed when something else was first.
    """
    place = _place(deps, user, account_id)

    async def body(tx: Tx) -> Mapping[str, object]:
        row = await accounts.locked(tx, user, place.chain_id, place.type)
        before = await _one(tx, deps, row)
        if row is None or unless(before):
            raise PreconditionFailed("The account changed since you read it; read it again and repeat your change.")
        after = replace(row, **changes)
        await accounts.change(tx, after)
        return await _one(tx, deps, after)

    return await in_transaction(deps.pool, body)


def _place(deps: Deps, user: Address, account_id: str) -> Place:
    place = account_of(account_id)
    if place is None or place.user != user or place.chain_id not in deps.chains:
        raise NotFound("You have no account of this id.")
    return place


async def _one(tx: Tx, deps: Deps, row: AccountRow | None) -> Mapping[str, object]:
    if row is None:
        raise NotFound("You have no account of this id.")
    return (await _shown(tx, deps, row.user, [row]))[0]


async def _shown(tx: Tx, deps: Deps, user: Address, rows: Sequence[AccountRow]) -> list[Mapping[str, object]]:
    if not rows:
        return []
    newest = Prices(await prices.latest(tx))
    spendable = [(k.chain_id, k.token, raw) for k, raw in (await spending.balances_of(tx, None, [user])).items()]
    invested = [(one.chain_id, one.asset, one.value or 0) for one in await yields.positions_of(tx, [user])]
    held: Mapping[AccountType, Mapping[tuple[int, Address], int]] = {
        "spending": _summed(spendable),
        "investment": _summed(invested),
        "savings": await accounts.saved(tx, user),  # goals say what of the rest is saved for them
    }
    return [
        wire.account(
            row,
            [(token, raw) for (chain_id, token), raw in held[row.type].items() if chain_id == row.chain_id],
            chain=deps.chains[row.chain_id],
            prices=newest,
        )
        for row in rows
    ]


def _summed(held: Iterable[tuple[int, Address, int]]) -> dict[tuple[int, Address], int]:
    sums: dict[tuple[int, Address], int] = {}
    for chain_id, token, raw in held:
        sums[chain_id, token] = sums.get((chain_id, token), 0) + raw
    return sums
