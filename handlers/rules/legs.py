"""Which token transfers are only a leg of a wallet event in the same transaction: joined to it, never counted twice.

The join is per user: the payer sees the spend, a registered recipient sees a transfer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from handlers.chain_events import (
    AccountOperation,
    ChainEvent,
    EmergencyWithdraw,
    FeeCollection,
    FundsDeposited,
    ShareTransfer,
    SpentFromBucket,
    TokenTransfer,
    UnallocatedWithdraw,
    VaultDeposit,
    VaultWithdraw,
    WalletEvent,
    YieldLockCreated,
    YieldLockWithdrawn,
)
from store.records import ZERO_ADDRESS, Address

Move: TypeAlias = WalletEvent | VaultDeposit | VaultWithdraw
"""What moves a user's tokens by a contract."""


@dataclass(frozen=True, slots=True)
class Legs:
    """What belongs together in a block, all by log index.

    `of`: event -> its token leg; `user_of`: transfer -> that event's user; `shares_of`: share transfers that only carry
    out a vault's deposit or withdrawal; `joined`: those deposits and withdrawals; `fees`: operation -> (amount, token)
    that the contract kept of it.
    """

    of: Mapping[int, TokenTransfer] = field(default_factory=dict)
    user_of: Mapping[int, Address] = field(default_factory=dict)
    shares_of: frozenset[int] = frozenset()
    joined: frozenset[int] = frozenset()
    fees: Mapping[int, tuple[int, Address]] = field(default_factory=dict)


@dataclass(slots=True)
class _Said:
    """Events of a block, by kind."""

    moves: list[Move] = field(default_factory=list)
    transfers: dict[str, list[TokenTransfer]] = field(default_factory=dict)
    shares: dict[str, list[ShareTransfer]] = field(default_factory=dict)
    fees: list[FeeCollection] = field(default_factory=list)


def join(events: Iterable[ChainEvent]) -> Legs:
    """Pair what moved a user's tokens in a block with the transfers that carried it out."""
    said = _sorted(events)
    of: dict[int, TokenTransfer] = {}
    user_of: dict[int, Address] = {}
    for move in said.moves:
        leg = _leg(move, [t for t in said.transfers.get(move.tx_hash, ()) if t.log_index not in user_of])
        if leg is not None:
            of[move.log_index] = leg
            user_of[leg.log_index] = user_of_move(move)
    pairs = _share_pairs(said) if said.shares else {}
    fees = _fees(said) if said.fees else {}
    return Legs(of, user_of, frozenset(pairs.values()), frozenset(pairs), fees)


def user_of_move(move: Move) -> Address:
    """Whose tokens it moves."""
    return move.user if isinstance(move, WalletEvent) else move.owner


def _sorted(events: Iterable[ChainEvent]) -> _Said:
    said = _Said()
    for event in events:
        if isinstance(event, TokenTransfer):
            said.transfers.setdefault(event.tx_hash, []).append(event)
        elif isinstance(event, _MOVES):
            said.moves.append(event)
        elif isinstance(event, ShareTransfer):
            said.shares.setdefault(event.tx_hash, []).append(event)
        elif isinstance(event, FeeCollection):
            said.fees.append(event)
    return said


_MOVES = (
    FundsDeposited,
    SpentFromBucket,
    UnallocatedWithdraw,
    EmergencyWithdraw,
    AccountOperation,
    VaultDeposit,
    VaultWithdraw,
    YieldLockCreated,
    YieldLockWithdrawn,
)


def _leg(move: Move, free: Sequence[TokenTransfer]) -> TokenTransfer | None:
    """The transfer that moved this event's tokens: same token, amount and wallet side, the nearest in log order."""
    fitting = [transfer for transfer in free if _fits(move, transfer)]
    return min(fitting, key=lambda transfer: abs(transfer.log_index - move.log_index), default=None)


def _fits(move: Move, transfer: TokenTransfer) -> bool:
    match move:
        case FundsDeposited(token=token, amount=amount):
            side = transfer.recipient == move.emitter
        case SpentFromBucket(token=token, amount=amount) | UnallocatedWithdraw(token=token, amount=amount):
            side = transfer.sender == move.emitter and transfer.recipient == move.recipient
        case EmergencyWithdraw(token=token, amount=amount):
            side = transfer.sender == move.emitter
        case AccountOperation(token=token, amount=amount, operation_type=0):
            side = transfer.recipient == move.emitter
        case AccountOperation(token=token, amount=amount, operation_type=1):
            side = transfer.sender == move.emitter
        case _:
            return _fits_investment(move, transfer)
    return side and transfer.emitter == token and transfer.amount == amount


def _fits_investment(move: Move, transfer: TokenTransfer) -> bool:
    """The user's own side is looked at: between it and the vault may stand a router."""
    match move:
        case VaultDeposit(owner=owner, asset=asset, assets=amount):
            return transfer.sender == owner and transfer.emitter == asset and transfer.amount == amount
        case VaultWithdraw(owner=owner, asset=asset, assets=amount):
            return transfer.recipient == owner and transfer.emitter == asset and transfer.amount == amount
        case YieldLockCreated(user=user, token=token, principal=amount):
            return transfer.sender == user and transfer.emitter == token and transfer.amount == amount
        case YieldLockWithdrawn(user=user, net_assets=amount):
            return transfer.recipient == user and transfer.sender == move.emitter and transfer.amount == amount
    return False


def _share_pairs(said: _Said) -> dict[int, int]:
    """Vault deposit or withdrawal -> the transfer that makes or burns its shares."""
    pairs: dict[int, int] = {}
    for move in said.moves:
        if not isinstance(move, VaultDeposit | VaultWithdraw):
            continue
        ends = (ZERO_ADDRESS, move.owner) if isinstance(move, VaultDeposit) else (move.owner, ZERO_ADDRESS)
        taken = set(pairs.values())
        fitting = [
            t.log_index
            for t in said.shares.get(move.tx_hash, ())
            if (t.sender, t.recipient) == ends and t.emitter == move.emitter and t.shares == move.shares
        ]
        free = [index for index in fitting if index not in taken]
        if free:
            pairs[move.log_index] = min(free, key=lambda index: abs(index - move.log_index))
    return pairs


def _fees(said: _Said) -> dict[int, tuple[int, Address]]:
    """Operation -> what was kept of it: the user's nearest in the transaction, in the same token if there is one."""
    kept: dict[int, tuple[int, Address]] = {}
    operations = [move for move in said.moves if isinstance(move, AccountOperation)]
    for fee in said.fees:
        mine = [op for op in operations if op.tx_hash == fee.tx_hash and op.user == fee.user]
        fitting = [op for op in mine if op.token == fee.token] or mine
        if not fitting:
            continue
        index = min(fitting, key=lambda op: abs(op.log_index - fee.log_index)).log_index
        before, token = kept.get(index, (0, fee.token))
        if token == fee.token:
            kept[index] = (before + fee.amount, token)
    return kept
