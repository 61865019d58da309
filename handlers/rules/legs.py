"""Which token transfers are only a leg of a wallet event in the same transaction: joined to it, never counted twice.

The join is per user: the payer sees the spend, a registered recipient sees a transfer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from handlers.chain_events import (
    ChainEvent,
    EmergencyWithdraw,
    FundsDeposited,
    SpentFromBucket,
    TokenTransfer,
    UnallocatedWithdraw,
    WalletEvent,
)
from store.records import Address


@dataclass(frozen=True, slots=True)
class Legs:
    """`of`: wallet event (log index) -> its token leg; `user_of`: transfer (log index) -> the wallet event's user."""

    of: Mapping[int, TokenTransfer] = field(default_factory=dict)
    user_of: Mapping[int, Address] = field(default_factory=dict)


def join(events: Iterable[ChainEvent]) -> Legs:
    """Pair the wallet events of a block with the transfers that moved their tokens."""
    transfers: dict[str, list[TokenTransfer]] = {}
    moves: list[WalletEvent] = []
    for event in events:
        if isinstance(event, TokenTransfer):
            transfers.setdefault(event.tx_hash, []).append(event)
        elif isinstance(event, FundsDeposited | SpentFromBucket | UnallocatedWithdraw | EmergencyWithdraw):
            moves.append(event)
    of: dict[int, TokenTransfer] = {}
    user_of: dict[int, Address] = {}
    for move in moves:
        leg = _leg(move, [t for t in transfers.get(move.tx_hash, ()) if t.log_index not in user_of])
        if leg is not None:
            of[move.log_index] = leg
            user_of[leg.log_index] = move.user
    return Legs(of, user_of)


def _leg(move: WalletEvent, free: Sequence[TokenTransfer]) -> TokenTransfer | None:
    """The transfer that moved this event's tokens: same token, amount and wallet side, the nearest in log order."""
    fitting = [transfer for transfer in free if _fits(move, transfer)]
    return min(fitting, key=lambda transfer: abs(transfer.log_index - move.log_index), default=None)


def _fits(move: WalletEvent, transfer: TokenTransfer) -> bool:
    match move:
        case FundsDeposited(token=token, amount=amount):
            side = transfer.recipient == move.emitter
        case SpentFromBucket(token=token, amount=amount) | UnallocatedWithdraw(token=token, amount=amount):
            side = transfer.sender == move.emitter and transfer.recipient == move.recipient
        case EmergencyWithdraw(token=token, amount=amount):
            side = transfer.sender == move.emitter
        case _:
            return False
    return side and transfer.emitter == token and transfer.amount == amount
