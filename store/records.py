"""Frozen rows: what the store hands out and takes in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Literal, NamedTuple

Address = str
"""Lower-case `0x` + 40 hex digits."""

Scope = Literal["unallocated", "bucket", "wallet"]
Role = Literal["owner", "delegate"]
Direction = Literal["in", "out", "internal"]
AccountType = Literal["spending", "investment", "savings"]

ZERO_ADDRESS = "0x" + "0" * 40
"""ETH in wallet events."""


@dataclass(frozen=True, slots=True)
class BlockRef:
    """A block by number and hash."""

    number: int
    hash: str


@dataclass(frozen=True, slots=True)
class Cursor:
    """Where a chain's ledger stands, and the chain's heights as last seen."""

    chain_id: int
    number: int
    hash: str
    block_time: datetime
    head: int
    finalized: int

    @property
    def ref(self) -> BlockRef:
        """The block the ledger stands at."""
        return BlockRef(self.number, self.hash)


@dataclass(frozen=True, slots=True)
class Log:
    """One event log as a node gave it; `log_index` counts within the block."""

    address: Address
    topics: tuple[str, ...]
    data: str
    tx_hash: str
    log_index: int


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the receipts of a block's transactions tell beyond their logs; wei and gas as integers."""

    tx_hash: str
    sender: Address
    to: Address | None
    type: int
    first_log_index: int
    gas_used: int
    effective_gas_price: int
    l1_fee: int
    user_operations: tuple[tuple[int, Address], ...] = ()
    """(log index, sender) of each ERC-4337 UserOperationEvent, in order."""


@dataclass(frozen=True, slots=True)
class Block:
    """A block with the logs that may concern us and the receipts of their transactions."""

    chain_id: int
    number: int
    hash: str
    parent_hash: str
    time: datetime
    logs: tuple[Log, ...] = ()
    receipts: Mapping[str, Receipt] = field(default_factory=dict)

    @property
    def ref(self) -> BlockRef:
        """The block by number and hash."""
        return BlockRef(self.number, self.hash)


@dataclass(frozen=True, slots=True)
class QuarantinedLog:
    """A log that could not be decoded or applied, and why."""

    log: Log
    reason: str


@dataclass(frozen=True, slots=True)
class Head:
    """End and beginning of a user's log. seq 0: nothing yet; first_seq: the oldest entry still kept."""

    epoch: str
    seq: int
    first_seq: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One durable event of a user's log; `payload` is the finished JSON object text, seq and id included."""

    seq: int
    event: str
    payload: str


@dataclass(frozen=True, slots=True)
class BucketRow:
    """A bucket as the chain has it; amounts are the contract's raw counter."""

    chain_id: int
    wallet: Address
    user: Address
    bucket_id: str
    name: str
    raw_name: bytes
    active: bool
    monthly_limit: int
    spent: int
    period_start: datetime | None
    delegates: tuple[Address, ...]
    """In the order in which they were added."""
    shared: bool = False
    """Whether someone else may spend from it, or once could: then who spent what of it is kept."""


class BalanceKey(NamedTuple):
    """What a balance belongs to; wallet and bucket_id are '' for scope wallet."""

    user: Address
    chain_id: int
    scope: Scope
    wallet: str
    bucket_id: str
    token: Address


@dataclass(frozen=True, slots=True)
class TransactionRow:
    """One ledger row of one user; amount in base units, fee and gas price in wei, usd at its block or None."""

    user: Address
    chain_id: int
    block_hash: str
    tx_hash: str
    n: int
    event_id: str
    role: Role
    log_index: int
    block_number: int
    block_time: datetime
    type: str
    account_type: AccountType
    direction: Direction
    token: Address
    symbol: str | None
    decimals: int | None
    amount: int
    usd: Decimal | None
    wallet: str | None = None
    bucket_id: str | None = None
    bucket: str | None = None
    to_bucket_id: str | None = None
    to_bucket: str | None = None
    counterparty: str | None = None
    spender: str | None = None
    fee_wei: int | None = None
    fee_usd: Decimal | None = None
    gas_used: int | None = None
    gas_price: int | None = None
    identifier: str | None = None
    """The position that a vault's or lock's row is about; of a V2 operation its bytes32, as hex."""
    account_fee: int | None = None
    """What the contract kept of the operation, in base units of `account_fee_token`."""
    account_fee_token: str | None = None
    canonical: bool = True

    @property
    def id(self) -> str:
        """`<chainId>:<txHash>:<n>`; survives re-inclusion in another block."""
        return f"{self.chain_id}:{self.tx_hash}:{self.n}"


@dataclass(frozen=True, slots=True)
class Draft:
    """An event about to be appended: `body` lacks id, seq, ts and v, which the log gives it."""

    user: Address
    event_id: str
    event: str
    version: int
    body: Mapping[str, object]
    corrects: tuple[str, ...] = ()
    chain_id: int | None = None
    cause: str | None = None
    transaction_id: str | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """A committed event, ready for its user's channel: the finished Socket.IO event text."""

    user: Address
    text: bytes
