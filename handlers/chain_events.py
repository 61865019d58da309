"""What the chain said: one frozen class per accepted event (DOMAIN section 1), as watchers/decode.py makes them.

Names of buckets stay raw bytes here: their identity is what the contract stored, not what we show.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from store.records import Address, QuarantinedLog


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainEvent:
    """Where an event comes from: `n` is its position within its transaction, `log_index` within the block."""

    tx_hash: str
    n: int
    log_index: int
    emitter: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletEvent(ChainEvent):
    """An event of a budget wallet or factory about `user`."""

    user: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletCreated(WalletEvent):
    """A factory deployed `wallet` for the user; the wallet's events count from here on."""

    wallet: Address
    salt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WalletRegistered(WalletEvent):
    """A factory took over an existing wallet of the user."""

    wallet: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketCreated(WalletEvent):
    """A bucket with its rolling 30-day limit (raw counter; 0 = no limit)."""

    name: bytes
    monthly_limit: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketUpdated(WalletEvent):
    """New limit and activity of a bucket."""

    name: bytes
    new_limit: int
    active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketFunded(WalletEvent):
    """Unallocated money moved into a bucket."""

    name: bytes
    amount: int
    token: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class SpentFromBucket(WalletEvent):
    """Money left a bucket; `spender` is who sent it (owner or delegate), None when not known."""

    name: bytes
    amount: int
    recipient: Address
    token: Address
    spender: Address | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BucketTransfer(WalletEvent):
    """Money moved between two buckets; what was spent stays."""

    from_name: bytes
    to_name: bytes
    amount: int
    token: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class FundsDeposited(WalletEvent):
    """Money arrived as unallocated."""

    amount: int
    token: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class MonthlyLimitReset(WalletEvent):
    """The contract's lazy reset, just before the spend that caused it."""

    name: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegateAdded(WalletEvent):
    """`delegate` may spend from the bucket."""

    delegate: Address
    name: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class DelegateRemoved(WalletEvent):
    """`delegate` may no longer spend from the bucket."""

    delegate: Address
    name: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class UnallocatedWithdraw(WalletEvent):
    """Unallocated money left the wallet."""

    token: Address
    amount: int
    recipient: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyWithdraw(WalletEvent):
    """Unallocated and every bucket of that token were emptied."""

    token: Address
    amount: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountOperation(WalletEvent):
    """Planned V2 contract: account 0 spending, 1 investment, 2 savings; operation 0 deposit, 1 withdraw, 2 transfer."""

    account_type: int
    operation_type: int
    identifier: bytes
    amount: int
    token: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class FeeCollection(WalletEvent):
    """Planned V2 contract: a fee, joined to its operation by transaction."""

    fee_type: int
    amount: int
    token: Address


@dataclass(frozen=True, slots=True, kw_only=True)
class UserInitialized(WalletEvent):
    """Planned V2 contract: the user's spending account exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InvestmentAccountEnabled(WalletEvent):
    """Planned V2 contract."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SavingsAccountEnabled(WalletEvent):
    """Planned V2 contract."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultDeposit(ChainEvent):
    """A listed ERC-4626 vault (`emitter`) took `assets` of the sender and gave the owner `shares`."""

    sender: Address
    owner: Address
    asset: Address
    assets: int
    shares: int


@dataclass(frozen=True, slots=True, kw_only=True)
class VaultWithdraw(ChainEvent):
    """A listed ERC-4626 vault (`emitter`) burnt `shares` of the owner and paid `assets` to the receiver."""

    sender: Address
    receiver: Address
    owner: Address
    asset: Address
    assets: int
    shares: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ShareTransfer(ChainEvent):
    """Shares of a listed vault (`emitter`) moved; from or to the zero address they are made or burnt."""

    sender: Address
    recipient: Address
    shares: int


@dataclass(frozen=True, slots=True, kw_only=True)
class YieldLockCreated(WalletEvent):
    """The user put `principal` of `token` into a listed yield lock, which holds `shares` of `vault` until then."""

    lock_id: int
    vault: Address
    token: Address
    principal: int
    shares: int
    unlock_time: int
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class YieldLockWithdrawn(WalletEvent):
    """A listed yield lock paid out: `total_assets`, of which `fee` was kept and `net_assets` went to the user."""

    lock_id: int
    total_assets: int
    fee: int
    net_assets: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractNotice(ChainEvent):
    """OpenZeppelin and fee notices that move no money (Paused, RoleGranted, FeeUpdated, …): counted and logged."""

    name: str
    arguments: Mapping[str, str | int]


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenTransfer(ChainEvent):
    """ERC-20 Transfer of a listed token (`emitter` is the token); `gas`: a CIP-64 fee leg, not a payment."""

    sender: Address
    recipient: Address
    amount: int
    gas: bool = False


@dataclass(frozen=True, slots=True)
class Fee:
    """Who paid a transaction's fee and how much (wei, L1 data fee included); gas, and its price in wei."""

    payer: Address
    wei: int
    gas_used: int | None = None
    gas_price: int | None = None


@dataclass(frozen=True, slots=True)
class DecodedBlock:
    """A block's accepted events in log order, fees by transaction, and what could not be decoded."""

    chain_id: int
    number: int
    hash: str
    parent_hash: str
    time: datetime
    events: tuple[ChainEvent, ...]
    fees: Mapping[str, Fee]
    quarantined: tuple[QuarantinedLog, ...] = ()
