"""A block's logs to what our contracts said in it: whose logs count, and slicing their data. Pure.

Anyone can emit our topics. A log counts when its emitter is a factory or token of the chain table, or a wallet that the
table lists or one of those factories named in an earlier log. Everything else is ignored; what counts and can't be read
is quarantined with its reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from dataclasses import replace
from itertools import groupby
from typing import Any

from config import abi
from config.chains import Chain
from handlers.chain_events import (
    ChainEvent,
    DecodedBlock,
    Fee,
    SpentFromBucket,
    TokenTransfer,
    VaultDeposit,
    VaultWithdraw,
    WalletCreated,
    WalletEvent,
    WalletRegistered,
)
from store.records import Address, Block, Log, QuarantinedLog, Receipt
from watchers.layouts import ERC721_TOPICS, FACTORY, LOCK, NOTICES, TOKEN, VAULT, WALLET, Layout, Undecodable

CIP64 = 0x7B
"""Celo's transaction type whose fee is paid in a token."""


def decode(block: Block, chain: Chain, wallets: Mapping[Address, Address | None]) -> DecodedBlock:
    """Read a block's accepted logs, which must come in log order with the receipts of their transactions.

    `wallets`: the wallets known before the block and whose they are, None for one that serves many.
    """
    events: list[ChainEvent] = []
    quarantined: list[QuarantinedLog] = []
    for log, event in _read(block.logs, chain, wallets, block.receipts):
        if isinstance(event, Undecodable):
            quarantined.append(QuarantinedLog(log, str(event)))
        else:
            events.append(event)
    told = _without_gas(events, block.receipts)
    return DecodedBlock(
        chain_id=block.chain_id,
        number=block.number,
        hash=block.hash,
        parent_hash=block.parent_hash,
        time=block.time,
        events=told,
        fees=_fees(told, block.receipts),
        quarantined=tuple(quarantined),
    )


def accepted(logs: Iterable[Log], chain: Chain, wallets: Mapping[Address, Address | None]) -> list[Log]:
    """The logs, of one or more blocks in order, that `decode` would tell or quarantine."""
    return [log for log, _ in _read(logs, chain, wallets, None)]


def learn(wallets: MutableMapping[Address, Address | None], event: ChainEvent) -> None:
    """Note the wallet that a factory's event names.

    Whoever deployed a wallet through the factory owns it. Registering is open to everyone, for any address: it counts
    only for a wallet that nobody has.
    """
    if isinstance(event, WalletCreated):
        wallets[event.wallet] = event.user
    elif isinstance(event, WalletRegistered):
        wallets.setdefault(event.wallet, event.user)


class _Known:
    """Whose logs count, up to the log at hand."""

    def __init__(self, chain: Chain, wallets: Mapping[Address, Address | None]) -> None:
        self._chain = chain
        self._before = wallets
        self._listed = frozenset(chain.wallets)
        self._locks = frozenset(chain.yield_locks)
        self.factories = frozenset(chain.factories)
        self._named: dict[Address, Address | None] = {}

    def layout(self, log: Log) -> Layout | None:
        """How to read the log; None when it is not ours."""
        topic = log.topics[0] if log.topics else ""
        if layout := WALLET.get(topic):  # first: nearly every log that counts is one of these or a transfer
            return layout if self._is_wallet(log.address) else None
        if self._chain.vault(log.address) is not None:
            return VAULT.get(topic)
        if topic == abi.TRANSFER:
            return TOKEN if len(log.topics) != ERC721_TOPICS and self._chain.token(log.address) else None
        if layout := LOCK.get(topic):
            return layout if log.address in self._locks else None
        if layout := FACTORY.get(topic):
            return layout if log.address in self.factories else None
        if layout := NOTICES.get(topic):
            return layout if log.address in self.factories or self._is_wallet(log.address) else None
        return None

    def asset(self, vault: Address) -> Address:
        """The token that a listed vault holds."""
        found = self._chain.vault(vault)
        if found is None:
            raise LookupError(f"{vault} is no listed vault")
        return found.asset

    def counts(self, event: ChainEvent) -> bool:
        """Whether the emitter may speak of that user: a wallet of somebody's own speaks of its owner only.

        A registered contract is its user's own code; it must not put words into anybody else's log.
        """
        if not isinstance(event, WalletEvent) or event.emitter in self._listed or event.emitter in self.factories:
            return True
        owner = self._named.get(event.emitter) or self._before.get(event.emitter)
        return owner is None or owner == event.user

    def learn(self, event: ChainEvent) -> None:
        """Take in a wallet that a factory's event names."""
        if isinstance(event, WalletRegistered) and event.wallet in self._before:
            return
        learn(self._named, event)

    def _is_wallet(self, address: Address) -> bool:
        return address in self._before or address in self._named or address in self._listed


def _read(
    logs: Iterable[Log],
    chain: Chain,
    wallets: Mapping[Address, Address | None],
    receipts: Mapping[str, Receipt] | None,
) -> Iterator[tuple[Log, ChainEvent | Undecodable]]:
    """Each log that counts with what it says; without receipts `n` and the spender stay unknown."""
    known = _Known(chain, wallets)
    for log in logs:
        layout = known.layout(log)
        if layout is None:
            continue
        receipt = receipts[log.tx_hash] if receipts is not None else None
        fields: dict[str, Any] = {
            "tx_hash": log.tx_hash,
            "n": log.log_index - receipt.first_log_index if receipt is not None else 0,
            "log_index": log.log_index,
            "emitter": log.address,
        }
        if layout.event is SpentFromBucket:
            fields["spender"] = _spender(log, receipt) if receipt is not None else None
        elif layout.event is VaultDeposit or layout.event is VaultWithdraw:
            fields["asset"] = known.asset(log.address)
        try:
            event = layout.read(log, fields)
        except Undecodable as error:
            yield log, error
            continue
        if known.counts(event):
            if log.address in known.factories:
                known.learn(event)
            yield log, event


def _spender(log: Log, receipt: Receipt) -> Address | None:
    """Who made the wallet spend: the sender who called it, else whose user operation it was, else not known."""
    if receipt.to == log.address:
        return receipt.sender
    # Operations of a bundle run one after the other, each followed by its UserOperationEvent.
    return next((sender for index, sender in receipt.user_operations if index >= log.log_index), None)


def _fees(events: Iterable[ChainEvent], receipts: Mapping[str, Receipt]) -> Mapping[str, Fee]:
    """Fee of each transaction that said something, from who sent it: under ERC-4337 that is the bundler."""
    fees: dict[str, Fee] = {}
    for event in events:
        if event.tx_hash not in fees:
            receipt = receipts[event.tx_hash]
            # CIP-64 counts the gas price in units of the fee token: that is not wei.
            if receipt.type != CIP64:
                wei = receipt.gas_used * receipt.effective_gas_price + receipt.l1_fee
                fees[event.tx_hash] = Fee(receipt.sender, wei, receipt.gas_used, receipt.effective_gas_price)
    return fees


def _without_gas(events: list[ChainEvent], receipts: Mapping[str, Receipt]) -> tuple[ChainEvent, ...]:
    """Mark the transfers that only pay for gas in a token (CIP-64)."""
    if all(receipt.type != CIP64 for receipt in receipts.values()):
        return tuple(events)
    legs: set[int] = set()
    for tx_hash, said in groupby(events, key=lambda event: event.tx_hash):
        receipt = receipts[tx_hash]
        if receipt.type == CIP64:
            legs |= _gas_legs([event for event in said if isinstance(event, TokenTransfer)], receipt)
    return tuple(
        replace(event, gas=True) if isinstance(event, TokenTransfer) and event.log_index in legs else event
        for event in events
    )


def _gas_legs(transfers: list[TokenTransfer], receipt: Receipt) -> set[int]:
    """Log indexes of the fee's transfers in one transaction.

    The protocol takes the most that the gas may cost before anything runs, so the debit is the transaction's first log.
    When all is done it hands that sum out again, as its last logs: refund, tip, base fee. A payment that stands before
    them comes from elsewhere, or goes beyond the sum.
    """
    if not transfers or transfers[0].n != 0 or transfers[0].sender != receipt.sender:
        return set()
    debit, *others = transfers
    legs: set[int] = set()
    left = debit.amount
    for leg in reversed(others):
        if leg.emitter != debit.emitter or leg.sender != debit.recipient or leg.amount > left:
            break
        legs.add(leg.log_index)
        left -= leg.amount
    return legs | {debit.log_index} if legs else legs
