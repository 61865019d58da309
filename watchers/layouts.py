"""How the logs of our contracts are laid out, and slicing them: topic0 to the fields of its event.

web3 needs about 200 us a log, slicing the hex text 3. As strict as web3: padding, lengths and offsets are checked.
The text must be hexadecimal: store/chain.py lets nothing else in.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from config import abi
from handlers import chain_events as chain
from handlers.chain_events import ChainEvent
from store.records import Log

WORD = 64
"""Hex digits of a 32-byte word."""
BEGIN = 2
"""Where the first word stands, after 0x."""
NAME_BYTES = 32
"""Longest bucket name that the contract takes."""
NOTICE_BYTES = 256
"""Longest text that a notice may carry: it is shown to operators only."""
LABEL_BYTES = 1024
"""Longest label of a yield lock: whoever locks writes it, and only its beginning is shown."""
ERC721_TOPICS = 4
"""An ERC-721 transfer has ERC-20's topic0 and its id as a fourth topic."""

_ADDRESS_PADDING = "0" * 24
_SMALL_PADDING = "0" * 56


class Undecodable(ValueError):
    """A log's topics or data are not what its topic0 promises; the message says where."""


Reader = Callable[[str, int, int], Any]
"""Reads a field of hex text (a topic, or the data): the text, where the field's word begins, where the head ends."""


def address(hexed: str, at: int, _head: int) -> str:
    """An address, lower-case."""
    if not hexed.startswith(_ADDRESS_PADDING, at):
        raise Undecodable("an address is wider than 20 bytes")
    return "0x" + hexed[at + 24 : at + WORD]


def uint256(hexed: str, at: int, _head: int) -> int:
    """A number."""
    return int(hexed[at : at + WORD], 16)


def uint8(hexed: str, at: int, _head: int) -> int:
    """A number that fits into a byte."""
    value = int(hexed[at : at + WORD], 16)
    if value >> 8:
        raise Undecodable("a uint8 is wider than a byte")
    return value


def boolean(hexed: str, at: int, _head: int) -> bool:
    """True or false; other numbers are neither."""
    value = int(hexed[at : at + WORD], 16)
    if value > 1:
        raise Undecodable("a bool is neither 0 nor 1")
    return value == 1


def bytes32(hexed: str, at: int, _head: int) -> bytes:
    """Thirty-two bytes."""
    return bytes.fromhex(hexed[at : at + WORD])


def hex32(hexed: str, at: int, _head: int) -> str:
    """Thirty-two bytes, as hex."""
    return "0x" + hexed[at : at + WORD]


def name(hexed: str, at: int, head: int) -> bytes:
    """A bucket's name, raw: its identity is what the contract stored."""
    return _string(hexed, at, head, limit=NAME_BYTES)


def text(hexed: str, at: int, head: int) -> str:
    """A short text; what is not UTF-8 in it is replaced."""
    return _string(hexed, at, head, limit=NOTICE_BYTES).decode(errors="replace")


def label(hexed: str, at: int, head: int) -> str:
    """What a user calls a lock; what is not UTF-8 in it is replaced."""
    return _string(hexed, at, head, limit=LABEL_BYTES).decode(errors="replace")


def skipped(_hexed: str, _at: int, _head: int) -> None:
    """A field that nobody needs."""


def _string(hexed: str, at: int, head: int, *, limit: int) -> bytes:
    # Offset and length are below 2^32 in any log: the rest is zero, and a short number is read three times as fast.
    if not hexed.startswith(_SMALL_PADDING, at):
        raise Undecodable("a string's offset points outside of the data")
    tail = BEGIN + 2 * int(hexed[at + 56 : at + WORD], 16)
    begin = tail + WORD
    if tail < head or begin > len(hexed):
        raise Undecodable("a string's offset points outside of the data")
    length = int(hexed[tail + 56 : begin], 16)
    if length > limit or not hexed.startswith(_SMALL_PADDING, tail):
        raise Undecodable(f"a string is longer than {limit} bytes")
    end = begin + length * 2
    padded = begin + (length + 31) // 32 * WORD
    if padded > len(hexed):
        raise Undecodable("a string ends beyond the data")
    if hexed.count("0", end, padded) != padded - end:
        raise Undecodable("a string's padding is not zero")
    return bytes.fromhex(hexed[begin:end])


@dataclass(frozen=True, slots=True)
class Layout:
    """One event: fields, with their topic's index or the place of their word in the data."""

    event: Callable[..., ChainEvent]
    topics: tuple[tuple[str, int, Reader], ...]
    words: tuple[tuple[str, int, Reader], ...]
    indexed: int
    """How many topics follow the first."""
    head: int
    """Where the data's head ends, 0x included (hex digits)."""
    notice: str = ""
    """Name of a notice, which carries its fields as arguments."""

    def read(self, log: Log, fields: dict[str, Any]) -> ChainEvent:
        """The event, with its own fields added to `fields`; raise Undecodable."""
        topics, data, head = log.topics, log.data, self.head
        if len(topics) != self.indexed + 1:
            raise Undecodable(f"{len(topics)} topics instead of {self.indexed + 1}")
        if len(data) < head:
            raise Undecodable(f"{len(data) // 2 - 1} bytes of data, should be {head // 2 - 1} or more")
        own: dict[str, Any] = {} if self.notice else fields
        for field, i, read in self.topics:
            own[field] = read(topics[i], BEGIN, 0)
        for field, at, read in self.words:
            own[field] = read(data, at, head)
        return self.event(name=self.notice, arguments=own, **fields) if self.notice else self.event(**fields)


def _layout(
    event: Callable[..., chain.ChainEvent],
    topics: Mapping[str, Reader],
    data: Mapping[str, Reader],
    *,
    notice: str = "",
) -> Layout:
    return Layout(
        event=event,
        topics=tuple((field, i, read) for i, (field, read) in enumerate(topics.items(), 1) if read is not skipped),
        words=tuple(
            (field, BEGIN + i * WORD, read) for i, (field, read) in enumerate(data.items()) if read is not skipped
        ),
        indexed=len(topics),
        head=BEGIN + len(data) * WORD,
        notice=notice,
    )


def _notice(topic: str, topics: Mapping[str, Reader], data: Mapping[str, Reader]) -> Layout:
    return _layout(chain.ContractNotice, topics, data, notice=abi.SIGNATURES[topic].partition("(")[0])


_USER: Mapping[str, Reader] = {"user": address}
_ROLE: Mapping[str, Reader] = {"role": hex32, "account": address, "sender": address}
_ASSETS_AND_SHARES: Mapping[str, Reader] = {"assets": uint256, "shares": uint256}
_PAID_OUT: Mapping[str, Reader] = {"total_assets": uint256, "fee": uint256, "net_assets": uint256}


WALLET: Final[Mapping[str, Layout]] = {
    abi.BUCKET_CREATED: _layout(chain.BucketCreated, _USER, {"name": name, "monthly_limit": uint256}),
    abi.BUCKET_UPDATED: _layout(chain.BucketUpdated, _USER, {"name": name, "new_limit": uint256, "active": boolean}),
    abi.BUCKET_FUNDED: _layout(chain.BucketFunded, _USER, {"name": name, "amount": uint256, "token": address}),
    abi.SPENT_FROM_BUCKET: _layout(
        chain.SpentFromBucket, _USER, {"name": name, "amount": uint256, "recipient": address, "token": address}
    ),
    abi.BUCKET_TRANSFER: _layout(
        chain.BucketTransfer, _USER, {"from_name": name, "to_name": name, "amount": uint256, "token": address}
    ),
    abi.FUNDS_DEPOSITED: _layout(chain.FundsDeposited, _USER, {"amount": uint256, "token": address}),
    abi.MONTHLY_LIMIT_RESET: _layout(chain.MonthlyLimitReset, _USER, {"name": name}),
    abi.DELEGATE_ADDED: _layout(chain.DelegateAdded, {**_USER, "delegate": address}, {"name": name}),
    abi.DELEGATE_REMOVED: _layout(chain.DelegateRemoved, {**_USER, "delegate": address}, {"name": name}),
    abi.UNALLOCATED_WITHDRAW: _layout(
        chain.UnallocatedWithdraw, _USER, {"token": address, "amount": uint256, "recipient": address}
    ),
    abi.EMERGENCY_WITHDRAW: _layout(chain.EmergencyWithdraw, _USER, {"token": address, "amount": uint256}),
    abi.ACCOUNT_OPERATION: _layout(
        chain.AccountOperation,
        {**_USER, "account_type": uint8, "operation_type": uint8},
        {"identifier": bytes32, "amount": uint256, "token": address},
    ),
    abi.FEE_COLLECTION: _layout(
        chain.FeeCollection, {**_USER, "fee_type": uint8}, {"amount": uint256, "token": address}
    ),
    abi.USER_INITIALIZED: _layout(chain.UserInitialized, _USER, {}),
    abi.INVESTMENT_ACCOUNT_ENABLED: _layout(chain.InvestmentAccountEnabled, _USER, {}),
    abi.SAVINGS_ACCOUNT_ENABLED: _layout(chain.SavingsAccountEnabled, _USER, {}),
}
"""Events of budget wallets."""

FACTORY: Final[Mapping[str, Layout]] = {
    abi.WALLET_CREATED: _layout(chain.WalletCreated, {**_USER, "wallet": address}, {"salt": uint256}),
    abi.WALLET_REGISTERED: _layout(chain.WalletRegistered, {**_USER, "wallet": address}, {}),
}
"""Events of factories."""

NOTICES: Final[Mapping[str, Layout]] = {
    abi.PAUSED: _notice(abi.PAUSED, {}, {"account": address}),
    abi.UNPAUSED: _notice(abi.UNPAUSED, {}, {"account": address}),
    abi.ROLE_GRANTED: _notice(abi.ROLE_GRANTED, _ROLE, {}),
    abi.ROLE_REVOKED: _notice(abi.ROLE_REVOKED, _ROLE, {}),
    abi.ROLE_ADMIN_CHANGED: _notice(
        abi.ROLE_ADMIN_CHANGED, {"role": hex32, "previousAdminRole": hex32, "newAdminRole": hex32}, {}
    ),
    abi.OWNERSHIP_TRANSFERRED: _notice(abi.OWNERSHIP_TRANSFERRED, {"previousOwner": address, "newOwner": address}, {}),
    abi.FEE_UPDATED: _notice(abi.FEE_UPDATED, {}, {"feeType": text, "oldFee": uint256, "newFee": uint256}),
}
"""Notices of wallets and factories."""

VAULT: Final[Mapping[str, Layout]] = {
    abi.DEPOSIT: _layout(chain.VaultDeposit, {"sender": address, "owner": address}, _ASSETS_AND_SHARES),
    abi.WITHDRAW: _layout(
        chain.VaultWithdraw, {"sender": address, "receiver": address, "owner": address}, _ASSETS_AND_SHARES
    ),
    abi.TRANSFER: _layout(chain.ShareTransfer, {"sender": address, "recipient": address}, {"shares": uint256}),
}
"""Events of ERC-4626 vaults."""

LOCK: Final[Mapping[str, Layout]] = {
    abi.YIELD_LOCK_CREATED: _layout(
        chain.YieldLockCreated,
        {"lock_id": uint256, **_USER, "vault": address},
        {"token": address, "principal": uint256, "shares": uint256, "unlock_time": uint256, "label": label},
    ),
    abi.YIELD_LOCK_WITHDRAWN: _layout(
        chain.YieldLockWithdrawn,
        {"lock_id": uint256, **_USER, "vault": skipped},
        {"shares": skipped, **_PAID_OUT},
    ),
    abi.EMERGENCY_FUNDS_CLAIMED: _layout(chain.YieldLockWithdrawn, {"lock_id": uint256, **_USER}, _PAID_OUT),
}
"""Events of yield locks."""

TOKEN: Final = _layout(chain.TokenTransfer, {"sender": address, "recipient": address}, {"amount": uint256})
"""An ERC-20 transfer."""
