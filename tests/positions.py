"""What a chain's canonical blocks make of positions, computed the plain way: against DOMAIN, not the product's code."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from handlers import chain_events as ce
from handlers.chain_events import DecodedBlock

NOBODY = "0x" + "00" * 20


@dataclass
class PlainPosition:
    """Shares (a lock: its principal while it is open) and the principal that is left."""

    shares: int = 0
    principal: int = 0

    def enter(self, shares: int, assets: int) -> None:
        self.shares += shares
        self.principal += assets

    def leave(self, shares: int) -> None:
        if self.shares:
            left = max(0, self.shares - shares)
            self.principal = self.principal * left // self.shares
            self.shares = left


def positions(
    blocks: Iterable[DecodedBlock], user: str, price: Callable[[DecodedBlock], Fraction]
) -> dict[str, PlainPosition]:
    """Open positions of a followed user by id; `price`: assets per share at the end of a block."""
    held: dict[str, PlainPosition] = {}
    for block in blocks:
        bought = _with_deposits(block)
        for event in block.events:
            _fold(held, block, event, user, price=price(block), carried=bought)
    return {key: one for key, one in held.items() if one.shares or one.principal}


def _with_deposits(block: DecodedBlock) -> set[tuple[str, str, int]]:
    """(transaction, owner, shares) of deposits and withdrawals: their own share transfers say nothing more."""
    kinds = (ce.VaultDeposit, ce.VaultWithdraw)
    return {(e.tx_hash, e.owner, e.shares) for e in block.events if isinstance(e, kinds)}


def _fold(
    held: dict[str, PlainPosition],
    block: DecodedBlock,
    event: ce.ChainEvent,
    user: str,
    *,
    price: Fraction,
    carried: set[tuple[str, str, int]],
) -> None:
    key = f"{block.chain_id}:{event.emitter}"
    match event:
        case ce.VaultDeposit() if event.owner == user:
            held.setdefault(key, PlainPosition()).enter(event.shares, event.assets)
        case ce.VaultWithdraw() if event.owner == user:
            held.setdefault(key, PlainPosition()).leave(event.shares)
        case ce.ShareTransfer():
            ends = {event.sender, event.recipient}
            if NOBODY in ends and carried & {(event.tx_hash, end, event.shares) for end in ends}:
                return
            if event.sender != event.recipient and user in ends:
                position = held.setdefault(key, PlainPosition())
                if event.recipient == user:
                    position.enter(event.shares, int(event.shares * price))
                else:
                    position.leave(event.shares)
        case ce.YieldLockCreated() if event.user == user:
            held[f"{key}:{event.lock_id}"] = PlainPosition(max(1, event.shares), event.principal)
        case ce.YieldLockWithdrawn() if event.user == user:
            held[f"{key}:{event.lock_id}"] = PlainPosition()
        case ce.AccountOperation() if event.user == user and event.account_type == 1:
            position = held.setdefault(f"{key}:0x{event.identifier.hex()}", PlainPosition())
            delta = {0: event.amount, 1: -event.amount}.get(event.operation_type, 0)
            position.principal = max(0, position.principal + delta)


def shown_positions(snapshot: Mapping[str, Any]) -> dict[str, PlainPosition]:
    """Positions of a snapshot in the same form."""
    return {
        one["positionId"]: PlainPosition(
            int(one["shares"]["raw"]) if one["shares"] else 0, int(one["principal"]["raw"])
        )
        for one in snapshot["positions"]
    }
