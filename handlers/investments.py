"""Investments: what vaults, yield locks and V2 accounts do to positions and the ledger."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from config.chains import Vault
from handlers.chain_events import (
    AccountOperation,
    ChainEvent,
    ShareTransfer,
    VaultDeposit,
    VaultWithdraw,
    YieldLockCreated,
    YieldLockWithdrawn,
)
from handlers.rules.accounts import ACCOUNT_TYPES
from handlers.rules.book import Book, Movement
from handlers.rules.holdings import account_position_id, lock_position_id, vault_position_id
from handlers.rules.money import token_facts
from handlers.rules.texts import plain
from handlers.rules.yields import closed, opened_with, paid_in, paid_out
from store.records import ZERO_ADDRESS, Address, BalanceKey
from store.yields import Position, PositionKey

LABEL_MAX = 64
"""Characters of a lock's label that are shown."""
UNLISTED_PROTOCOL = "Yield lock"
"""Of a lock whose vault the chain table does not list."""
ACCOUNT_PROTOCOL = "Expendi"
"""Who holds what lies in a V2 investment account."""
LATEST = datetime(9999, 1, 1, tzinfo=UTC)
"""A contract may say that a lock opens in a billion years."""


def vault_deposited(book: Book, event: VaultDeposit) -> None:
    """Assets went into a vault for its owner's shares."""
    if event.owner not in book.registered:
        return
    position = _shares_in(book, event, event.owner)
    if position is not None and event.log_index in book.legs.joined:
        book.holdings.keep(paid_in(position, shares=event.shares, assets=event.assets), event.tx_hash, event.n)
    _record(book, event, "vault_deposit", user=event.owner, assets=event.assets, payer=event.sender)


def vault_withdrawn(book: Book, event: VaultWithdraw) -> None:
    """Shares of their owner were paid out."""
    if event.owner not in book.registered:
        return
    position = _shares_in(book, event, event.owner)
    if position is not None and event.log_index in book.legs.joined:
        book.holdings.keep(paid_out(position, shares=event.shares, assets=event.assets), event.tx_hash, event.n)
    _record(book, event, "vault_withdraw", user=event.owner, assets=event.assets, payer=event.receiver)


def shares_moved(book: Book, event: ShareTransfer) -> None:
    """Shares went from hand to hand: out of one account and into the other, for what they are worth at this block.

    So their receiver's yield begins there, whoever sent them: what the sender once paid stays the sender's own matter,
    and the sender's principal falls in proportion.
    """
    if event.log_index in book.legs.shares_of or event.sender == event.recipient:
        return
    rate = book.holdings.values.rates.get(event.emitter)
    worth = None if rate is None else rate.worth(event.shares)
    for user, other in ((event.sender, event.recipient), (event.recipient, event.sender)):
        if user in book.registered:
            _hand_over(book, event, user, other, worth=worth)


def _hand_over(book: Book, event: ShareTransfer, user: Address, other: Address, *, worth: int | None) -> None:
    gone = user == event.sender
    position = _shares_in(book, event, user)
    if position is not None:
        moved = (paid_out if gone else paid_in)(position, shares=event.shares, assets=worth)
        book.holdings.keep(moved, event.tx_hash, event.n)
    vault = book.chain.vault(event.emitter)
    # Without a price the ledger says what it knows: so many shares.
    token, amount = (vault.asset, worth) if vault and worth is not None else (event.emitter, event.shares)
    movement = Movement(
        "vault_withdraw" if gone else "vault_deposit",
        "out" if gone else "in",
        token,
        amount,
        counterparty=other,
        wallet=event.emitter,
        account_type="investment",
        identifier=vault_position_id(book.chain.id, event.emitter),
    )
    book.record(event, user, movement)


def locked(book: Book, event: YieldLockCreated) -> None:
    """The user put assets under a time lock."""
    vault = book.chain.vault(event.vault)
    symbol, _ = token_facts(book.chain, event.token)
    position = Position(
        user=event.user,
        chain_id=book.chain.id,
        position_id=lock_position_id(book.chain.id, event.emitter, event.lock_id),
        kind="lock",
        contract=event.emitter,
        protocol=vault.protocol if vault else UNLISTED_PROTOCOL,
        asset=event.token,
        symbol=symbol,
        as_of_block=book.block.number,
        as_of=book.block.time,
        opened_block=book.block.number,
        opened_at=book.block.time,
        lock_id=event.lock_id,
        vault=event.vault,
        shares=max(1, event.shares),
        principal=event.principal,
        unlock_at=_moment(event.unlock_time),
        label=plain(event.label)[:LABEL_MAX] or None,
    )
    book.holdings.keep(position, event.tx_hash, event.n)
    movement = Movement(
        "yield_lock",
        "in",
        event.token,
        event.principal,
        wallet=event.emitter,
        account_type="investment",
        identifier=position.position_id,
    )
    book.record(event, event.user, movement, touched=_own_leg(book, event, event.user))


def unlocked(book: Book, event: YieldLockWithdrawn) -> None:
    """A lock was paid out, less what its contract kept."""
    key = PositionKey(event.user, lock_position_id(book.chain.id, event.emitter, event.lock_id))
    position = book.holdings.positions.get(key)
    leg = book.legs.of.get(event.log_index)
    token = position.asset if position else leg.emitter if leg else ZERO_ADDRESS
    if position is not None:
        done = closed(position, assets=event.net_assets)
        book.holdings.keep(replace(done, fees=position.fees + event.fee), event.tx_hash, event.n)
    movement = Movement(
        "yield_unlock",
        "out",
        token,
        event.net_assets,
        wallet=event.emitter,
        account_type="investment",
        identifier=key.position_id,
        account_fee=(event.fee, token) if event.fee else None,
    )
    book.record(event, event.user, movement, touched=_own_leg(book, event, event.user))


def operated(book: Book, event: AccountOperation) -> None:
    """An operation of a V2 investment account: what lies under its identifier is worth what went in."""
    if ACCOUNT_TYPES[event.account_type] != "investment":
        return
    identifier = "0x" + event.identifier.hex()
    key = PositionKey(event.user, account_position_id(book.chain.id, event.emitter, identifier))
    symbol, _ = token_facts(book.chain, event.token)
    known = book.holdings.positions.get(key)
    position = known or Position(
        user=event.user,
        chain_id=book.chain.id,
        position_id=key.position_id,
        kind="account",
        contract=event.emitter,
        protocol=ACCOUNT_PROTOCOL,
        asset=event.token,
        symbol=symbol,
        as_of_block=book.block.number,
        as_of=book.block.time,
        opened_block=book.block.number,
        opened_at=book.block.time,
    )
    kept = book.legs.fees.get(event.log_index)
    fees = position.fees + (kept[0] if kept and kept[1] == position.asset else 0)
    if event.token == position.asset:
        principal = position.principal or 0
        delta = {0: event.amount, 1: -min(event.amount, principal)}.get(event.operation_type, 0)
        beyond = event.amount - principal if event.operation_type == 1 and event.amount > principal else 0
        position = replace(position, principal=principal + delta, realized=position.realized + beyond)
    book.holdings.keep(replace(position, fees=fees), event.tx_hash, event.n)


def open_shares(book: Book, user: Address, vault: Vault, shares: int) -> None:
    """Begin to follow a user's shares of a vault with what is held at the end of the block."""
    position = _vault_position(book, user, vault)
    if position.shares == shares:
        return
    rate = book.holdings.values.rates.get(vault.address)
    if not position.is_open:
        now = opened_with(_reopened(book, position), shares)
    else:
        more = shares - position.shares
        worth = None if rate is None else rate.worth(abs(more))
        now = (paid_in if more > 0 else paid_out)(position, shares=abs(more), assets=worth)
    book.begin_account(user, "investment")
    book.holdings.keep(now, "opened")


def _shares_in(book: Book, event: ChainEvent, user: Address) -> Position | None:
    """The position that an event of a vault moves; None while the user's own address is not followed.

    One that is opened with this block is opened with what is held at its end, which contains the event.
    """
    vault = book.chain.vault(event.emitter)
    if vault is None or user not in book.followed:
        return None
    position = _vault_position(book, user, vault)
    return position if position.is_open else _reopened(book, position)


def _vault_position(book: Book, user: Address, vault: Vault) -> Position:
    key = PositionKey(user, vault_position_id(book.chain.id, vault.address))
    symbol, _ = token_facts(book.chain, vault.asset)
    return book.holdings.positions.get(key) or Position(
        user=user,
        chain_id=book.chain.id,
        position_id=key.position_id,
        kind="vault",
        contract=vault.address,
        protocol=vault.protocol,
        asset=vault.asset,
        symbol=symbol,
        as_of_block=book.block.number,
        as_of=book.block.time,
        opened_block=book.block.number,
        opened_at=book.block.time,
    )


def _reopened(book: Book, position: Position) -> Position:
    """Entered anew: what was earned before stays, the time since entry begins here."""
    return replace(position, opened_block=book.block.number, opened_at=book.block.time)


def _record(
    book: Book, event: VaultDeposit | VaultWithdraw, kind: str, *, user: Address, assets: int, payer: Address
) -> None:
    movement = Movement(
        kind,
        "in" if isinstance(event, VaultDeposit) else "out",
        event.asset,
        assets,
        counterparty=event.emitter if payer == user else payer,
        wallet=event.emitter,
        account_type="investment",
        identifier=vault_position_id(book.chain.id, event.emitter),
    )
    book.record(event, user, movement, touched=_own_leg(book, event, user))


def _own_leg(book: Book, event: ChainEvent, user: Address) -> list[BalanceKey]:
    """What the event's token leg does to the user's own address."""
    leg = book.legs.of.get(event.log_index)
    return [] if leg is None else book.move_own(user, leg)


def _moment(seconds: int) -> datetime:
    return LATEST if seconds >= LATEST.timestamp() else datetime.fromtimestamp(seconds, UTC)
